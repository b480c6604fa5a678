"""Real threads and locks, with the names and the face that asyncio knows from :mod:`threading`."""

from __future__ import annotations

import os
import sys
import threading
from _thread import RLock, allocate_lock, get_ident, get_native_id, start_new_thread
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakSet

from greenlet import getcurrent

from bridge._core.current import MAIN_THREAD_IDENT, get_hub_if_exists
from bridge._workers import _end_hubs
from bridge.event import Event

__all__ = ["RLock", "Semaphore", "Thread", "allocate_lock", "current_thread", "get_ident", "in_greenlet"]

_number = count(1).__next__
_main_thread_ident = MAIN_THREAD_IDENT
_started: WeakSet[Thread] = WeakSet()


class Semaphore:
    """What the pool of threads needs of a semaphore; native."""

    def __init__(self, value: int = 1) -> None:
        self._permits: SimpleQueue[None] = SimpleQueue()
        for _ in range(value):
            self.release()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit; False if there is none in time (seconds). Blocks the thread."""
        try:
            self._permits.get(blocking, timeout)
        except Empty:
            return False
        return True

    def release(self, n: int = 1) -> None:
        """Give back *n* permits. Does not block."""
        for _ in range(n):
            self._permits.put(None)


class Thread:
    """A real thread, with the face of ``threading.Thread``.

    To the code that runs in it, ``threading.current_thread()`` is a thread of this name that was not
    started by `threading`, which is the case. It does not keep the interpreter from exiting: those that
    have to be waited for are waited for by who started them.
    """

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name = str(name) if name else f"asyncio-thread-{_number()}"
        self.daemon = bool(daemon)
        self.ident: int | None = None
        self.native_id: int | None = None
        self._target = target
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._ended = allocate_lock()  # held while it runs
        self._event = Event()
        self._alive = False

    def __repr__(self) -> str:
        state = "initial" if self.ident is None else "started" if self._alive else "stopped"
        return f"<{type(self).__name__}({self.name}, {state}{' daemon' * self.daemon} {self.ident})>"

    def start(self) -> None:
        """Start it; RuntimeError if it has been started, or cannot be. Does not block."""
        if self._ended.locked() or self.ident is not None:
            raise RuntimeError("threads can only be started once")
        _started.add(self)
        self._ended.acquire()
        self._alive = True
        try:
            self.ident = start_new_thread(self._bootstrap, ())
        except BaseException:
            self._end()
            raise

    def _bootstrap(self) -> None:
        self.native_id = get_native_id()
        public = threading.current_thread()
        public.name = self.name
        try:
            self.run()
        except SystemExit:
            pass  # as in every thread
        except BaseException:
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), public)))
        finally:
            try:
                _end_hubs()
            finally:
                active: dict[int, Any] = threading._active  # type: ignore[attr-defined]
                for ident in [ident for ident, thread in active.copy().items() if thread is public]:
                    active.pop(ident, None)
                self._end()

    def run(self) -> None:
        """What the thread does: call the target."""
        try:
            if self._target is not None:
                self._target(*self._args, **self._kwargs)
        finally:
            del self._target, self._args, self._kwargs

    def _end(self) -> None:
        self._alive = False
        self._ended.release()
        self._event.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, or for *timeout* seconds.

        Blocks the greenlet; where there is none, in a coroutine for instance, it blocks the thread, as it
        does unpatched. RuntimeError if it has not been started, or is the thread that calls it.
        """
        if not self._alive and self.ident is None:
            raise RuntimeError("cannot join thread before it is started")
        if self._alive and self.ident == get_ident():  # idents are used again
            raise RuntimeError("cannot join current thread")
        if self._alive and in_greenlet():
            self._event.wait(timeout)
        elif self._ended.acquire(True, -1 if timeout is None else max(timeout, 0)):
            self._ended.release()

    def is_alive(self) -> bool:
        """Whether it has been started and has not ended. Does not block."""
        return self._alive


def in_greenlet() -> bool:
    """Whether the caller blocks as greenlets do; else it is a coroutine, or in a thread without a hub."""
    hub = get_hub_if_exists()
    return (
        hub is not None
        and running_loop() is None
        and getcurrent() is not hub
        and hub.loop is not None
        and not hub.loop.is_closed()
    )


def current_thread() -> Any:
    """As ``threading.current_thread()``; the main thread is the main thread in all of its greenlets."""
    return threading.main_thread() if get_ident() == _main_thread_ident else threading.current_thread()


def _after_fork() -> None:
    """The other threads do not get into the child; who waits for one there must not wait for ever."""
    global _main_thread_ident
    _main_thread_ident = get_ident()
    for thread in _started:
        if thread._alive and thread.ident != _main_thread_ident:
            thread._alive = False
            thread._ended = allocate_lock()
            thread._event.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
