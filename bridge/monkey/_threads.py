"""Making threads greenlets: what there is to do beside replacing names.

Theory of operation
===================

*What existed before.* The objects that :mod:`threading` made up to now are based on native locks. Most may
stay: a Condition, an Event or a Queue makes the lock on which it waits when it waits, by a name that is
replaced, and holds its own lock only for moments without a switch. There are these exceptions:

- Threads. To wait for a native one, or for the main thread, would block the loop: `_ForeignEnd`.
- Locks that are held across switches: a greenlet that waits for such a lock blocks the thread, and with it
  the greenlet that holds it, for ever; a native RLock lets all greenlets of a thread in. So free locks in
  modules and objects are replaced by ours: `_replace_locks`. One that is held, or that anything we cannot
  change refers to, stays as it is: two parties must never use different locks for one thing. The locks of the
  import system, of :mod:`threading` itself, of asyncio and of bridge stay, too.

*Logging* gets locks that never have to be waited for in the hub: :class:`bridge._threadlocks.HandlerLock`.

*Fork.* ``os.register_at_fork`` has handlers that take locks, and nothing may switch inside a fork. Those
of :mod:`logging` and :mod:`concurrent.futures` are registered when these are imported; so they are imported
before anything is patched, and their handlers go on with native locks that nobody uses any more.
"""

from __future__ import annotations

import concurrent.futures.thread
import logging as _logging
import os
import sys
import threading as _threading
from _thread import LockType as _NativeLock
from _thread import get_ident as _native_get_ident
from _thread import start_new_thread as _native_start_new_thread
from typing import Any

from bridge._threadlocks import HandlerLock, LockType, RLock, Sentinel
from bridge.event import Event as _Event
from bridge.thread import _set_sentinel, _ThreadHandle

from ._util import patch_twin
from .api import patch_item

__all__ = ["patch_thread"]

_module: Any = _threading
_native_main_ident = _threading.main_thread().ident


def patch_thread(
    threading: bool, _threading_local: bool, Event: bool, logging: bool, existing_locks: bool, texts: list[str]
) -> None:
    """See :func:`bridge.monkey.patch_thread`; warnings go to *texts*."""
    if not patch_twin("thread", _warnings=texts):
        return
    if threading:
        if not patch_twin("threading", _warnings=texts):
            return
        if Event:
            patch_item(_threading, "Event", _Event)
        _patch_threads(texts)
    if _threading_local:
        import _threading_local as module

        from bridge.local import local

        patch_item(module, "local", local)
    if logging:
        _patch_logging()
    if existing_locks:
        patch_item(concurrent.futures.thread, "_global_shutdown_lock", LockType())


def _patch_threads(texts: list[str]) -> None:
    pass


def _patch_logging() -> None:
    patch_item(_logging, "_lock", HandlerLock())
    for reference in _logging._handlerList:  # type: ignore[attr-defined]
        handler = reference() if callable(reference) else reference
        if getattr(handler, "lock", None) is not None:
            handler.lock = HandlerLock()
