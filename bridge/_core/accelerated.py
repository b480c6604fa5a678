"""The compiled accelerators, where they are built and wanted.

Nothing depends on them; without them the same things take longer. The environment variable BRIDGE_PURE
(not empty and not 0) turns them off, when the project is built and when it runs.

There is one: :mod:`bridge._core._chunks`, which caches the memory that CPython needs for the frames of each
new greenlet (its source tells how). It works for the whole process, so it is switched on with the engine.
"""

from __future__ import annotations

import importlib
import os

__all__ = ["FRAME_CACHE"]


def _cache_frames() -> bool:
    if os.environ.get("BRIDGE_PURE", "") not in ("", "0"):
        return False
    try:
        chunks = importlib.import_module(f"{__package__}._chunks")
    except ImportError:
        return False
    return bool(chunks.install())


#: Whether the memory of frames is cached.
FRAME_CACHE = _cache_frames()
