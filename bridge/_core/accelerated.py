"""The compiled accelerators, where they are built and wanted.

Nothing depends on them; without them the same things take longer. The environment variable BRIDGE_PURE
(not empty and not 0) turns them off, when the project is built and when it runs.

- :mod:`bridge._core._chunks` caches the memory that CPython needs for the frames of each new greenlet (its
  source tells how). It works for the whole process, so it is switched on with the engine.
- :mod:`bridge._core._switching` is the twin of :mod:`bridge._core.switching`: waits, the ready queue, and the
  hand-over from one greenlet to the next.
- :mod:`bridge._core._edges` has twins of what each message over a socket goes through: methods of
  :class:`bridge._core.edges.Edges`, and of the socket in :mod:`bridge._sockets`.
- :mod:`bridge._core._queue` is the twin of :mod:`bridge._core.queues`: put and get that need not wait.
- :mod:`bridge._core._local` is the twin of what is quick in :mod:`bridge.local`: access to attributes.
- :mod:`bridge._core._running` hides and shows the running loop, on CPython 3.11.
- :mod:`bridge._aio._driving` is the twin of what is quick in :mod:`bridge._aio.driving` and
  :mod:`bridge._aio.entering`: the steps of coroutines that greenlets await, and blocking functions that
  coroutines call.
- :mod:`bridge._core._stack` notes where a greenlet was made.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

__all__ = ["FRAME_CACHE", "accelerator"]


def accelerator(name: str, package: str = __package__) -> Any:
    """The compiled module of that name in ``package``; None if there is none or it isn't wanted."""
    if os.environ.get("BRIDGE_PURE", "") not in ("", "0"):
        return None
    try:
        return importlib.import_module(f"{package}.{name}")
    except ImportError:
        return None


_chunks = accelerator("_chunks")

#: Whether the memory of frames is cached.
FRAME_CACHE: bool = _chunks is not None and _chunks.install()
