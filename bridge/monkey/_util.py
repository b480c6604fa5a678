"""What the patch functions have in common."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from . import _originals
from .api import patch_module

__all__ = ["outside_references", "patch_twin"]


def patch_twin(
    name: str,
    items: list[str] | None = None,
    _warnings: list[str] | None = None,
    _patch_kwargs: Mapping[str, Any] | None = None,
    _notify_will_subscribers: bool = True,
    _notify_did_subscribers: bool = True,
    _call_hooks: bool = True,
) -> bool:
    """Patch the standard library's module *name* from its twin ``bridge.name``; see ``patch_module``.

    The twin may name another target in ``__target__``. Returns False if somebody prevented it.
    """
    _originals.keep_originals()
    source = importlib.import_module(f"bridge.{name}")
    target = importlib.import_module(getattr(source, "__target__", name))
    return patch_module(
        target,
        source,
        items,
        _warnings=_warnings,
        _patch_kwargs=_patch_kwargs,
        _notify_will_subscribers=_notify_will_subscribers,
        _notify_did_subscribers=_notify_did_subscribers,
        _call_hooks=_call_hooks,
    )


def outside_references(objects: list[object], owner: str) -> list[str]:
    """Which modules, but for *owner* and bridge's, have one of *objects* under a name of their own."""
    wanted = {id(obj) for obj in objects}
    found = []
    for name, module in list(sys.modules.items()):
        if type(module) is not ModuleType or name == owner or name.partition(".")[0] == "bridge":
            continue
        if not wanted.isdisjoint(map(id, list(vars(module).values()))):
            found.append(f"{name} ({getattr(module, '__file__', None)})")
    return found
