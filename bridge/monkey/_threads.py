"""Making threads greenlets: what there is to do beside replacing names.

Theory of operation
===================

*What existed before.* The objects that :mod:`threading` made up to now are based on native locks. Most may
stay: a Condition or an Event makes the lock on which it waits when it waits, by a name that is replaced, and
a Thread that has not been started is started by a function that is. There are these exceptions:

- Threads that run. To wait for a native one, or for the main one, would block the loop. What knows of their
  end is replaced: that of the main thread, which tells of its end itself (``threading._shutdown``), by a lock
  that greenlets can wait for, those of others by adapters, for each of which a native thread waits.
- Locks: see :mod:`._locks`.

*Interrupted joins.* Up to Python 3.12 a join that an exception interrupts declares the thread dead, if the
lock of its end is locked (CPython means to undo its own acquire). Exceptions come out of waits all the time
here (``Timeout``, ``kill``); the lock is locked then because the thread lives. So that method is replaced.

*Logging* gets locks that never have to be waited for in the hub: :class:`bridge._threadlocks.HandlerLock`.

*Fork.* ``os.register_at_fork`` has handlers that take locks, and nothing may switch inside a fork. That of
:mod:`concurrent.futures` is registered when it is imported; so it is imported before anything is patched, and
its handler goes on with a native lock that nobody uses any more. That of :mod:`logging` takes the lock of
the moment, which for the time of the fork is a native one. Threads do not get into the child: see
:mod:`bridge._abandoning`.
"""

from __future__ import annotations

import concurrent.futures.thread
import logging as _logging
import os
import threading as _threading
from _thread import RLock as _NativeRLock
from _thread import get_ident as _native_get_ident
from _thread import start_new_thread as _native_start_new_thread
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from greenlet import getcurrent

import bridge.threading  # noqa: F401 - its native functions must be native
from bridge._abandoning import abandon
from bridge._core.census import instances
from bridge._core.clock import monotonic
from bridge._core.current import MAIN_THREAD_IDENT
from bridge._core.hub import get_hub_if_exists
from bridge._threadlocks import HandlerLock, LockType, Sentinel
from bridge.event import Event as _Event
from bridge.hub import sleep
from bridge.local import local as _local
from bridge.thread import _HANDLE, ThreadGreenlet, _ThreadHandle, _unfinished, get_ident

from ._locks import replace_locks
from ._util import patch_twin
from .api import patch_item

__all__ = ["patch_thread"]

_module: Any = _threading


def patch_thread(
    threading: bool,
    _threading_local: bool,
    Event: bool,
    logging: bool,
    existing_locks: bool,
    texts: list[str],
) -> None:
    """See :func:`bridge.monkey.patch_thread`; warnings go to *texts*."""
    before = _existing_threads()
    if not patch_twin("thread", _warnings=texts):
        return
    if threading:
        if not patch_twin("threading", _warnings=texts):
            return
        if Event:
            patch_item(_threading, "Event", _Event)
        _patch_threads(before, texts)
    if _threading_local:
        import _threading_local as module

        patch_item(module, "local", _local)
    if logging:
        _patch_logging()
    if existing_locks:
        if not isinstance(_pools._global_shutdown_lock, LockType):
            patch_item(_pools, "_global_shutdown_lock", LockType())
        replace_locks()


_pools: Any = concurrent.futures.thread


def _patch_logging() -> None:
    if not isinstance(_logging._lock, HandlerLock):  # type: ignore[attr-defined]
        patch_item(_logging, "_lock", HandlerLock())
        if hasattr(os, "register_at_fork"):
            _forks_without(_logging._lock)  # type: ignore[attr-defined]
        _logging.Handler.createLock = _create_lock  # type: ignore[method-assign]
    for reference in _logging._handlerList:  # type: ignore[attr-defined]
        handler = reference() if callable(reference) else reference
        lock = getattr(handler, "lock", None)
        if lock is not None and not isinstance(lock, HandlerLock):
            handler.lock = HandlerLock()


def _forks_without(lock: Any) -> None:
    """Before a fork logging acquires what is its lock at the moment: let that be another."""
    module: Any = _logging
    stand_in = _NativeRLock()

    def before() -> None:  # comes before logging's own
        module._lock = stand_in

    def after_in_parent() -> None:  # comes after it
        module._lock = lock

    def after_in_child() -> None:
        module._lock = lock
        lock._at_fork_reinit()

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)


def _create_lock(self: Any) -> None:
    """Acquire a thread lock for serializing access to the underlying I/O."""
    self.lock = HandlerLock()
    _logging._register_at_fork_reinit_lock(self)  # type: ignore[attr-defined]


# -- threads that run already ----------------------------------------------------------------------------


def _existing_threads() -> list[Any]:
    """The native threads that :mod:`threading` knows; none if it is patched already."""
    if issubclass(_module._allocate_lock, LockType) if isinstance(_module._allocate_lock, type) else False:
        return []
    return [thread for thread in _threading.enumerate() if thread.is_alive()]


def _patch_threads(existing: list[Any], texts: list[str]) -> None:
    in_main = _native_get_ident() == _threading.main_thread().ident
    if not in_main and existing:
        texts.append(
            "Monkey-patching not on the main thread; threading.main_thread().join() will hang from a greenlet"
        )
    with_locks = hasattr(_threading.Thread, "_wait_for_tstate_lock")
    if with_locks:
        _threading.Thread._wait_for_tstate_lock = _wait_for_tstate_lock  # type: ignore[attr-defined]
    for thread in existing:
        ours = in_main and thread is _threading.main_thread()
        if not with_locks:
            handle: Any = _main_handle() if ours else _ForeignHandle(getattr(thread, _HANDLE))
            setattr(thread, _HANDLE, handle)
            if not ours and not thread.daemon:
                _unfinished.add(handle)  # CPython would wait for it without letting greenlets run
        elif thread._tstate_lock is not None:
            lock = thread._tstate_lock
            end: Any = Sentinel() if ours else _ForeignEnd(lock)
            if ours:
                end.acquire()
            thread._tstate_lock = end
            if lock in _module._shutdown_locks:
                _module._shutdown_locks.discard(lock)
                _module._shutdown_locks.add(end)
    if existing and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def _wait_for_tstate_lock(self: Any, block: bool = True, timeout: float = -1) -> None:
    lock = self._tstate_lock
    if lock is not None and lock.acquire(block, timeout):
        lock.release()
        self._stop()


def _main_handle() -> _ThreadHandle:
    handle = _ThreadHandle()
    root = getcurrent()
    while root.parent is not None:
        root = root.parent
    handle._begin(root)
    return handle


def _after_fork() -> None:
    """In a forked child, after threading has made the thread that forked the main one."""
    survivor = _threading.main_thread()
    handle = getattr(survivor, _HANDLE, None)
    if isinstance(handle, _ThreadHandle | _ForeignHandle):
        handle._survive()
    me = set()
    current = getcurrent()
    while current is not None:
        me.add(current)
        current = current.parent  # type: ignore[assignment]
    abandon(g for g in instances(ThreadGreenlet) if g not in me and not g.dead and g)


def _await_end(end: Sentinel, has_ended: Callable[[float | None], bool], timeout: float | None) -> bool:
    """Wait for the end of a native thread, of which *end* is told; whether it has come. Blocks the greenlet.

    ``has_ended(seconds)`` blocks for so long, None: without a limit, and says whether it has. One native
    thread calls it for all who wait, so that a wait that is undone, or has a limit, leaves nothing behind.
    """
    if get_hub_if_exists() is None and _native_get_ident() != MAIN_THREAD_IDENT:
        if has_ended(timeout):
            end.end()
        return not end.locked()

    def watch() -> None:
        has_ended(None)
        end.end()

    if end not in _watched:
        _watched.add(end)
        try:
            _native_start_new_thread(watch, ())
        except RuntimeError:
            _watched.discard(end)
            # at the end of the interpreter there are no new threads: look now and then
            deadline = None if timeout is None else monotonic() + timeout
            while not has_ended(0):
                if deadline is not None and monotonic() >= deadline:
                    return False
                sleep(0.005)
            end.end()
            return True
    return Sentinel.acquire(end, True, -1 if timeout is None else timeout)


#: The ends for which a native thread waits.
_watched: WeakSet[Sentinel] = WeakSet()


class _ForeignEnd(Sentinel, internal=True):
    """The lock that CPython up to 3.12 releases at the end of a native thread, for greenlets to wait for.

    CPython's own lock is never relied on to be free: each who looks at it takes it for a moment.
    """

    __slots__ = ("_native",)

    def __init__(self, lock: Any) -> None:
        super().__init__()
        Sentinel.acquire(self)
        self._native = lock

    def _has_ended(self, seconds: float | None) -> bool:
        lock = self._native
        if not lock.acquire(seconds != 0, seconds or -1):
            return self._over
        lock.release()
        return True

    def locked(self) -> bool:
        """Whether the thread lives."""
        return self.counter <= 0 and (self._native is None or self._native.locked())

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # type: ignore[override]
        """Acquire it: possible once the thread has ended."""
        if self._native is not None and self.counter <= 0:
            if self._has_ended(0):
                self.end()
            elif blocking and timeout:
                return _await_end(self, self._has_ended, None if timeout == -1 else timeout)
        return super().acquire(blocking, timeout)

    def _at_fork_reinit(self) -> None:
        """In a forked child, in the thread that forked: the main one there, which ends by releasing it."""
        self._native = None
        super()._at_fork_reinit()


class _ForeignHandle:
    """The handle of a native thread (since Python 3.13), for greenlets to wait for."""

    __slots__ = ("_end", "_handle", "_survived", "is_done")

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._end = Sentinel()
        self._end.acquire()
        self._survived = False
        self.is_done = handle.is_done

    @property
    def ident(self) -> int:
        """The thread's ident."""
        return self._handle.ident  # type: ignore[no-any-return]

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread, for *timeout* seconds at the most. Blocks the greenlet."""
        handle = self._handle
        if handle.ident == get_ident() or (handle.is_done() and not self._survived):
            handle.join()  # at once, or the error of who joins himself
        elif self._survived:
            self._end.acquire(True, -1 if timeout is None else timeout)
        else:
            _await_end(self._end, self._has_ended, timeout)

    def _survive(self) -> None:
        """In a forked child: this is the thread that forked, which tells itself of its end."""
        self._survived = True
        self._end._at_fork_reinit()
        self._end.acquire()

    def _set_done(self) -> None:
        self._handle._set_done()
        self._end.end()

    def _has_ended(self, seconds: float | None) -> bool:
        handle = self._handle
        handle.join(seconds)
        return bool(handle.is_done())
