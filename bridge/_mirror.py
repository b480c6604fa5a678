"""For modules that mirror one of the standard library."""

from __future__ import annotations

from types import ModuleType
from typing import Any

__all__ = ["mirror"]


def mirror(source: ModuleType, namespace: dict[str, Any], *ours: str) -> list[str]:
    """Copy the names of *source* into *namespace*, but for those in *ours* and those with two underscores.

    Returns the names copied: the ``__imports__`` of the module that calls. Private names are copied too;
    libraries use them.
    """
    names = [name for name in vars(source) if not name.startswith("__") and name not in ours]
    for name in names:
        namespace[name] = getattr(source, name)
    return names
