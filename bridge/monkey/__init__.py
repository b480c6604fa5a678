"""Making the standard library cooperative; twin of :mod:`gevent.monkey`.

What has been replaced can be asked (:func:`is_module_patched`, :func:`is_object_patched`), and the originals
can be had (:func:`get_original`). :func:`patch_module` replaces attributes of any module, with the events
of :mod:`bridge.events`.
"""

from __future__ import annotations

from ._errors import MonkeyPatchWarning
from ._state import is_anything_patched, is_module_patched, is_object_patched, saved
from .api import get_original, patch_item, patch_module, remove_item

__all__ = [
    "MonkeyPatchWarning",
    "get_original",
    "is_anything_patched",
    "is_module_patched",
    "is_object_patched",
    "patch_item",
    "patch_module",
    "remove_item",
    "saved",
]
