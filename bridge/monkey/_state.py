"""What has been patched: the originals, by module and name."""

from __future__ import annotations

from typing import Any

__all__ = ["is_anything_patched", "is_module_patched", "is_object_patched", "replacements", "saved"]

#: The originals of everything that was replaced or removed: ``saved["socket"]["socket"]``. Libraries read it.
saved: dict[str, dict[str, Any]] = {}


#: What was put in their places.
replacements: dict[str, dict[str, Any]] = {}


def is_module_patched(mod_name: str) -> bool:
    """Whether something in the module of that name has been replaced."""
    return mod_name in saved


def is_object_patched(mod_name: str, item_name: str) -> bool:
    """Whether this attribute of the module of that name has been replaced."""
    return item_name in saved.get(mod_name, ())


def is_anything_patched() -> bool:
    """Whether anything has been replaced in this process."""
    return bool(saved)


def save(module_name: str, attr: str, original: Any) -> None:
    """Keep an original; the first one counts."""
    saved.setdefault(module_name, {}).setdefault(attr, original)
