"""Modules as they were before they were patched; see :mod:`._originals`."""

from __future__ import annotations

import builtins
from types import CellType, FunctionType, ModuleType
from typing import Any

from ._state import replacements

__all__ = ["Front", "View", "copy_class", "copy_function", "rebase_class"]

#: Not those of threads, signals and selectors, where what is put on top of ours would stop the loop.
_SHOWN = {"os", "socket", "ssl", "subprocess"}


class Front(ModuleType):
    """A module in front of a real one: what it has not is the real one's."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__["__real__"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["__real__"], name)


class View(Front):
    """A module as it was before it was patched. What is added to the real one later is seen here too.

    In the modules of `_SHOWN` so is what somebody else than we has put in the place of something there, such
    as the mocks of tests: asyncio sees it without us, too.
    """

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real)
        own = vars(self)
        own["__builtins__"] = builtins  # which C code looks for in the globals of a function
        for name, value in vars(real).items():
            if not name.startswith("__") or name == "__all__":
                own[name] = copy_function(value, own) if _is_function_of(value, real) else value
        if real.__name__ in _SHOWN:
            names = [name for name in own if callable(own[name])]
            self.__class__ = type("View", (View,), {name: _Shown(name, real) for name in names})

    def __repr__(self) -> str:
        return f"<{self.__dict__['__real__']!r} before patching>"


class _Shown:
    """An attribute of a view: what was there before patching, unless it is somebody else's now.

    A class that is derived from ours is not shown: it would block greenlets, where loops need the original.
    """

    __slots__ = ("_before", "_module", "_name", "_real")

    def __init__(self, name: str, real: ModuleType) -> None:
        self._name = name
        self._module = real.__name__
        self._real = vars(real)
        self._before = self._real[name]

    def __get__(self, view: Any, owner: Any = None) -> Any:
        if view is None:
            return self
        now = self._real.get(self._name, self._before)
        if now is not self._before:
            ours = replacements.get(self._module, {}).get(self._name, self._before)
            if now is not ours and not (isinstance(now, type) and ours in now.__mro__):
                return now
        return vars(view)[self._name]

    def __set__(self, view: Any, value: Any) -> None:
        vars(view)[self._name] = value

    def __delete__(self, view: Any) -> None:
        del vars(view)[self._name]


def _is_function_of(value: object, module: ModuleType) -> bool:
    return isinstance(value, FunctionType) and value.__globals__ is vars(module)


def copy_function(function: FunctionType, namespace: dict[str, Any]) -> FunctionType:
    """The same function, but with other globals."""
    copy = FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = function.__qualname__
    copy.__module__ = function.__module__
    copy.__doc__ = function.__doc__
    copy.__dict__.update(function.__dict__)
    copy.__annotations__ = function.__annotations__
    return copy


def copy_class(cls: type, namespace: dict[str, Any], *names: str, metaclass: type = type) -> type:
    """A subclass with its own copies of the methods *names*, or of all, with other globals."""
    body: dict[str, Any] = {
        name: copy_function(value, namespace)
        for name, value in vars(cls).items()
        if isinstance(value, FunctionType) and (not names or name in names)
    }
    body |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    if "__slots__" in vars(cls):
        body["__slots__"] = ()
    copy: type = metaclass(cls.__name__, (cls,), body)
    return copy


def rebase_class(cls: type, base: type, namespace: dict[str, Any]) -> type:
    """A class with copies of what is in *cls*, but derived from *base*, and with other globals."""
    itself = CellType()  # what super() without arguments looks into
    body: dict[str, Any] = {}
    for name, value in vars(cls).items():
        if isinstance(value, FunctionType):
            copy = copy_function(value, namespace)
            cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
            closure = tuple(itself if free == "__class__" else cell for free, cell in cells)
            value = FunctionType(copy.__code__, namespace, name, copy.__defaults__, closure)
            value.__kwdefaults__ = copy.__kwdefaults__
            value.__qualname__ = copy.__qualname__
        elif name in ("__dict__", "__weakref__"):
            continue
        body[name] = value
    itself.cell_contents = made = type(cls.__name__, (base,), body)
    return made
