"""Exceptions and warnings of patching."""

from __future__ import annotations

__all__ = ["MonkeyPatchWarning"]


class MonkeyPatchWarning(RuntimeWarning):
    """What patching warns with."""


class _BadImplements(AttributeError):
    """A module from which is to be patched does not say what it implements."""

    def __init__(self, module: object) -> None:
        super().__init__(
            f"Module {module!r} has a bad or missing value for __implements__; "
            "give patch_module() a list of items"
        )
