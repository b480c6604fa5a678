"""Replacing attributes of modules, and finding the originals again."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, overload

from bridge.events import (
    DoNotPatch,
    GeventDidPatchModuleEvent,
    GeventWillPatchModuleEvent,
    notify_and_call_entry_points,
)

from . import _state
from ._errors import MonkeyPatchWarning, _BadImplements

__all__ = ["get_original", "patch_item", "patch_module", "remove_item"]

_MISSING: Any = object()


@overload
def get_original(mod_name: str | Iterable[str], item_name: str) -> Any: ...
@overload
def get_original(mod_name: str | Iterable[str], item_name: Iterable[str]) -> list[Any]: ...


def get_original(mod_name: str | Iterable[str], item_name: str | Iterable[str]) -> Any:
    """The original of an attribute of a module, whether or not it has been replaced.

    :param mod_name: the module's name, or several of which the first that can be imported counts.
    :param item_name: the attribute's name, or several: then a list of originals is returned.

    Raises ImportError and AttributeError. Does not block.
    """
    names = [mod_name] if isinstance(mod_name, str) else list(mod_name)
    for i, name in enumerate(names):
        try:
            module = importlib.import_module(name)
        except ImportError:
            if i == len(names) - 1:
                raise
        else:
            break
    else:
        raise ImportError("get_original(): no name of a module was given")
    if isinstance(item_name, str):
        return _original(module, item_name)
    return [_original(module, each) for each in item_name]


def _original(module: ModuleType, attr: str) -> Any:
    kept = _state.saved.get(module.__name__, {}).get(attr, _MISSING)
    return getattr(module, attr) if kept is _MISSING else kept


def patch_item(module: ModuleType, attr: str, newitem: object) -> None:
    """Replace an attribute of a module, and save the original if there is one. Does not block."""
    original = getattr(module, attr, _MISSING)
    if original is not _MISSING:
        _state.save(module.__name__, attr, original)
        _state.replacements.setdefault(module.__name__, {})[attr] = newitem
    setattr(module, attr, newitem)


def remove_item(module: ModuleType, attr: str) -> None:
    """Remove an attribute of a module, if it is there, and save the original. Does not block."""
    original = getattr(module, attr, _MISSING)
    if original is not _MISSING:
        _state.save(module.__name__, attr, original)
        delattr(module, attr)


class PatchRequest:
    """What the function ``_gevent_do_monkey_patch`` of a module that patches is given.

    Such a function is called instead of the copying of attributes, which is :meth:`default_patch_items`.
    """

    def __init__(
        self,
        target_module: ModuleType,
        source_module: ModuleType,
        items: list[str],
        patch_kwargs: Mapping[str, Any],
    ) -> None:
        self.target_module = target_module
        self.source_module = source_module
        self.items = items
        self.patch_kwargs = patch_kwargs

    get_original = staticmethod(get_original)

    def default_patch_items(self) -> None:
        """Replace the attributes by those of the source."""
        replacements = [(name, getattr(self.source_module, name)) for name in self.items]
        for name, replacement in replacements:
            patch_item(self.target_module, name, replacement)

    def remove_item(self, *names: str, target_module: ModuleType | None = None) -> None:
        """Remove attributes of the target, or of another module."""
        for name in names:
            remove_item(target_module or self.target_module, name)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} target={self.target_module!r} source={self.source_module!r} "
            f"items={self.items!r} kwargs={self.patch_kwargs!r}>"
        )


def patch_module(
    target_module: ModuleType,
    source_module: ModuleType,
    items: list[str] | None = None,
    _warnings: list[str] | None = None,
    _patch_kwargs: Mapping[str, Any] | None = None,
    _notify_will_subscribers: bool = True,
    _notify_did_subscribers: bool = True,
    _call_hooks: bool = True,
) -> bool:
    """Replace attributes of *target_module* by those of the same names of *source_module*.

    :param items: the names; by default ``source_module.__implements__``.

    In this order: ``source_module._gevent_will_monkey_patch(target_module, items, warn, **kwargs)`` is called
    if it exists (it may change the list *items*, call *warn* with a text, and raise
    :exc:`bridge.events.DoNotPatch`), then subscribers and plugins get a
    :class:`bridge.events.GeventWillPatchModuleEvent`; the attributes are replaced, or, if it exists,
    ``source_module._gevent_do_monkey_patch(request)`` is called, with a request that can do it;
    ``_gevent_did_monkey_patch`` is called like the first, and a
    :class:`bridge.events.GeventDidPatchModuleEvent` goes out.

    Returns True; False if somebody raised DoNotPatch. AttributeError if nothing says what to replace, or
    the source lacks a name. Issues :class:`MonkeyPatchWarning`. Does not block.
    """
    if items is None:
        items = getattr(source_module, "__implements__", None)
        if items is None:
            raise _BadImplements(source_module)
        items = list(items)
    kwargs: Mapping[str, Any] = _patch_kwargs or {}
    collected: list[str] = [] if _warnings is None else _warnings

    def call_hook(name: str) -> None:
        hook = getattr(source_module, name, None) if _call_hooks else None
        if hook is not None:
            hook(target_module, items, collected.append, **kwargs)

    try:
        call_hook("_gevent_will_monkey_patch")
        if _notify_will_subscribers:
            notify_and_call_entry_points(
                GeventWillPatchModuleEvent(target_module.__name__, source_module, target_module, items)
            )
    except DoNotPatch:
        return False

    request = PatchRequest(target_module, source_module, items, kwargs)
    patch = getattr(source_module, "_gevent_do_monkey_patch", None) if _call_hooks else None
    if patch is not None:
        patch(request)
    else:
        request.default_patch_items()

    call_hook("_gevent_did_monkey_patch")
    if _notify_did_subscribers:
        notify_and_call_entry_points(
            GeventDidPatchModuleEvent(target_module.__name__, source_module, target_module)
        )
    if _warnings is None:
        process_warnings(collected)
    return True


def process_warnings(texts: Iterable[str]) -> None:
    """Issue each text as a :class:`MonkeyPatchWarning`."""
    for text in texts:
        warnings.warn(text, MonkeyPatchWarning, stacklevel=3)
