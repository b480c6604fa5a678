"""The kinds of settings: how one is read from the environment, converted, checked and kept.

See :mod:`._config` for the settings themselves.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ._config import Config

__all__ = [
    "ALL_SETTINGS",
    "BoolSettingMixin",
    "ByteCountSettingMixin",
    "FloatSettingMixin",
    "ImportableSetting",
    "IntSettingMixin",
    "InvalidChoice",
    "Setting",
    "validate_anything",
    "validate_bool",
    "validate_invalid",
]

#: Every class of setting, in the order in which they are listed.
ALL_SETTINGS: list[type[Setting]] = []


class InvalidChoice(ValueError, ImportError):
    """A setting names something that cannot be imported.

    A `ValueError` as for every other bad value, and an `ImportError` because gevent raises that here.
    """


# -- conversion and validation -------------------------------------------------------------------------


def validate_invalid(value: object) -> Any:
    """Refuse every value."""
    raise ValueError(f"Not a valid value: {value!r}")


def validate_bool(value: object) -> bool:
    """``True`` for 1, true, on, yes; ``False`` for 0, false, off, no, nothing; else `ValueError`."""
    if isinstance(value, bool):
        return value
    text = "" if value is None else str(value).strip().lower()
    if text in {"1", "true", "on", "yes"}:
        return True
    if text in {"0", "false", "off", "no", ""}:
        return False
    raise ValueError(f"{value!r} is not a boolean; choose 1, true, on, yes or 0, false, off, no")


def validate_anything(value: Any) -> Any:
    """Accept every value as it is."""
    return value


convert_str_value_as_is = validate_anything


def _names(value: Any) -> Any:
    """The strings of a comma-separated string; anything else as it is."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _number(value: Any, kind: type[int] | type[float]) -> Any:
    if value is None:
        return None
    try:
        return kind(value)
    except (TypeError, ValueError):
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"it is {what}") from None


# -- kinds of settings ---------------------------------------------------------------------------------


class Setting:
    """One setting. `get` and `set` are what reading and assigning the attribute of `Config` do."""

    #: The name of the attribute of `Config`; a class without one is only a base of others.
    name: ClassVar[str] = ""
    #: The value without assignment and environment, before conversion and validation.
    default: Any = None
    #: What it is for; what everybody should know about the value is added to it.
    desc: ClassVar[str] = ""
    #: gevent's environment variable, or ours if gevent has no such setting; None for no variable.
    environment_key: ClassVar[str | None] = None
    #: The variables that are looked up, the first one that is set counts.
    environment_keys: ClassVar[tuple[str, ...]] = ()
    #: What is said about values of this kind.
    kind_desc: ClassVar[str] = ""
    order: ClassVar[int] = -1

    value: Any
    #: The object that keeps a copy of the value in its attribute.
    owner: Config | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            return
        cls.order = len(ALL_SETTINGS)
        ALL_SETTINGS.append(cls)
        key = cls.environment_key
        if key is not None:
            ours = "BRIDGE_" + key.removeprefix("GEVENT").lstrip("_") if key.startswith("GEVENT") else key
            cls.environment_keys = tuple(dict.fromkeys((ours, key)))
        parts = [_dedent(cls.desc), cls.kind_desc, f"The default is ``{cls.default!r}``."]
        if cls.environment_keys:
            parts.append("Environment: " + " or ".join(f"``{key}``" for key in cls.environment_keys) + ".")
        cls.desc = cls.__doc__ = "\n\n".join(part for part in parts if part)

    def get(self) -> Any:
        """The value; the first time, from the environment or the default.

        Raises `ValueError`, naming the variable, if what the environment has is not valid.
        """
        if "value" not in self.__dict__:
            self.value = self._default()
        return self.value

    def set(self, value: Any) -> None:
        """Use ``value`` from now on. Raises `ValueError` if it is not valid, and changes nothing then."""
        self.value = self._checked(value, f"config.{self.name} = {value!r}")
        self._changed()

    def reset(self) -> None:
        """Forget the value: the next `get` looks at the environment again."""
        self.__dict__.pop("value", None)
        self._changed()

    def validate(self, value: Any) -> Any:
        """The converted ``value`` in its final form. Raises `ValueError` that says what is valid."""
        return value

    def _convert(self, value: Any) -> Any:
        """``value`` in the right type, if it is the string that an environment variable would have."""
        return value

    def _checked(self, value: Any, source: str) -> Any:
        try:
            return self.validate(self._convert(value))
        except ImportError as ex:
            raise InvalidChoice(f"{source}: {ex}") from ex
        except ValueError as ex:
            raise ValueError(f"{source} is not valid: {ex}") from ex

    def _default(self) -> Any:
        found = self._environment()
        if found is None:
            return self._checked(self.default, f"default of config.{self.name} {self.default!r}")
        key, text = found
        return self._checked(text, f"{key}={text!r}")

    def _environment(self) -> tuple[str, str] | None:
        for key in self.environment_keys:
            text = os.environ.get(key)
            if text is not None:
                return key, text
        return None

    def _changed(self) -> None:
        if self.owner is not None:
            self.owner.__dict__.pop(self.name, None)


def _dedent(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


class BoolSettingMixin(Setting):
    kind_desc = (
        "This is a boolean; in the environment ``1``, ``true``, ``on``, ``yes`` or ``0``, ``false``, "
        "``off``, ``no``."
    )

    def validate(self, value: Any) -> Any:
        return validate_bool(value)


class IntSettingMixin(Setting):
    def _convert(self, value: Any) -> Any:
        return value if isinstance(value, bool) else _number(value, int)


class _PositiveValueMixin(Setting):
    def validate(self, value: Any) -> Any:
        if value is not None and not value >= 0:
            raise ValueError("it must not be negative")
        return value


class FloatSettingMixin(_PositiveValueMixin):
    def _convert(self, value: Any) -> Any:
        return _number(value, float)


class ByteCountSettingMixin(_PositiveValueMixin):
    _UNITS: ClassVar[dict[str, int]] = {"kb": 1024, "mb": 1024**2, "gb": 1024**3}

    def _convert(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        text = value.strip().lower()
        try:
            if text[-2:] in self._UNITS:
                return int(float(text[:-2]) * self._UNITS[text[-2:]])
            return int(text)
        except ValueError:
            raise ValueError("it is a number of bytes, or a number with kb, mb or gb behind it") from None


class ImportableSetting(Setting):
    """A setting whose value is something to import: named, or listed by preference, or the thing itself."""

    #: Short names and what they stand for.
    shortname_map: dict[str, str] = {}  # noqa: RUF012

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "name" in cls.__dict__ and "kind_desc" not in cls.__dict__:
            cls.kind_desc = (
                "It is given as the object itself (in code), as a string ``package.module.name`` or "
                "``package.module:name``, or as a list of strings (in the environment: separated by commas), "
                "of which the first that can be imported is used."
            )
            if cls.shortname_map:
                cls.kind_desc += f" Short names: {', '.join(cls.shortname_map)}."
        super().__init_subclass__(**kwargs)

    def get_options(self) -> dict[str, Any]:
        """Each short name with what it stands for, or with the exception that importing it raised."""
        options: dict[str, Any] = {}
        for name, path in self.shortname_map.items():
            try:
                options[name] = self._import_one(path)
            except ImportError as ex:
                options[name] = ex
        return options

    def validate(self, value: Any) -> Any:
        if isinstance(value, str):
            value = _names(value)
        if isinstance(value, (list, tuple)):
            return self._import_one_of([self.shortname_map.get(name, name) for name in value])
        return value

    def _convert(self, value: Any) -> Any:
        return _names(value)

    def _import_one_of(self, candidates: Iterable[Any]) -> Any:
        failures: list[ImportError] = []
        for candidate in candidates:
            try:
                return self._import_one(candidate)
            except ImportError as ex:
                failures.append(ex)
        if not failures:
            raise ImportError("Cannot import from empty list")
        if len(failures) == 1:
            raise failures[0]
        raise ImportError("; ".join(str(ex) for ex in failures)) from failures[-1]

    def _import_one(self, path: Any) -> Any:
        if not isinstance(path, str):
            return path
        module, separator, item = path.rpartition(":" if ":" in path else ".")
        if not separator or not module or not item or "/" in path:
            raise ImportError(
                f"Cannot import {path!r}. Required format: [package.]module.class. "
                f"Or choose from {list(self.shortname_map)}"
            )
        found: Any = _import_module(module)
        for attribute in item.split("."):
            try:
                found = getattr(found, attribute)
            except AttributeError:
                raise ImportError(f"Cannot import {item!r} from {found!r}") from None
        return found


def _import_module(name: str) -> Any:
    # A configuration written for gevent means our modules, also where gevent itself is installed.
    if name.startswith("gevent."):
        ours = "bridge." + name.removeprefix("gevent.")
        try:
            return importlib.import_module(ours)
        except ModuleNotFoundError as ex:
            if ex.name is None or not (ours == ex.name or ours.startswith(f"{ex.name}.")):
                raise
    return importlib.import_module(name)
