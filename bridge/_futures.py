"""Futures of :mod:`concurrent.futures` for which greenlets wait without blocking the thread.

They are real ones, with the code of the standard library, in which three things are replaced: the condition
on which ``result()`` waits; the event on which ``wait()`` and ``as_completed()`` wait, at the moment when
they register it with the future; and where callbacks run, which is in the hub of who registered them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from _thread import RLock
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar
from weakref import ref

from ._core.callbacks import Callback
from ._core.hub import get_hub, get_hub_if_exists
from ._core.waiting import Wait, WaitLine
from ._threadwait import ThreadWait
from .event import Event

__all__ = ["Future"]

T = TypeVar("T")

#: What locks of threading are as long as nobody has patched it.
_NATIVE_LOCK = threading.Lock


class _Condition:
    """A :class:`threading.Condition`, as far as futures need one, whose ``wait`` blocks only the greenlet.

    The lock is native and held for moments; workers and other threads take it, too.
    """

    __slots__ = ("_line", "_lock", "acquire", "release")

    def __init__(self) -> None:
        self._lock: Any = RLock()
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._line = WaitLine()

    def __enter__(self) -> bool:
        return bool(self.acquire())

    def __exit__(self, *exc: object) -> None:
        self.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Give the lock up until woken, for ``timeout`` seconds at the most; was it that?"""
        wait: Any = ThreadWait() if get_hub_if_exists() is None else Wait()
        line = self._line
        line.append(wait)
        state = self._lock._release_save()
        try:
            return bool(wait.block(timeout))
        finally:
            self._lock._acquire_restore(state)
            line.discard(wait)

    def notify_all(self) -> None:
        """Wake all who wait."""
        self._line.wake_all()


class _Waiters(list[Any]):
    """Where concurrent.futures registers who waits for several futures: makes that cooperative, too."""

    def __init__(self, future: Future[Any]) -> None:
        super().__init__()
        self._future = ref(future)

    def append(self, waiter: Any) -> None:
        future = self._future()
        if future is not None and not future.done() and _as_gevent_unpatched():
            raise AttributeError(
                "gevent's futures do not work with wait() and as_completed() of concurrent.futures unless "
                "threading is patched; use gevent.wait() and gevent.iwait()"
            )
        # nobody waits for the event yet: before that, all futures are told of it
        if not isinstance(waiter.event, Event):
            waiter.event = Event()
        super().append(waiter)


def _as_gevent_unpatched() -> bool:
    """Does the name gevent stand for us? Its futures refuse such waits, unless threading is patched."""
    named = sys.modules.get("gevent.threadpool")
    return threading.Lock is _NATIVE_LOCK and named is not None and named.__name__ == "bridge.threadpool"


class _InHub:
    """A callback of a future (in the sense of ``rawlink``) that is to run in the hub of who registered it."""

    __slots__ = ("callback", "hub")

    def __init__(self, callback: Callable[[Any], object], hub: Any) -> None:
        self.callback = callback
        self.hub = hub

    def __call__(self, future: Any) -> None:
        loop = self.hub.loop
        if loop is None or loop.is_closed():
            self.callback(future)
        else:
            loop.append_threadsafe(Callback(self._run, (future,)))

    def _run(self, future: Any) -> None:
        self.callback(future)


class _DoneCallback(_InHub):
    """A callback in the sense of ``add_done_callback``: its exceptions are nobody's."""

    __slots__ = ()

    def _run(self, future: Any) -> None:
        try:
            self.callback(future)
        except Exception:
            self.hub.print_exception((self.callback, future), *sys.exc_info())


class Future(concurrent.futures.Future[T], Generic[T]):
    """What a :class:`bridge.threadpool.ThreadPoolExecutor` gives: waiting for it blocks only the greenlet.

    ``bridge.wait([future])`` and ``await future`` work, too. Callbacks run in the hub of who registered
    them, and must not block; where there is no hub, in the worker's thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._condition: Any = _Condition()
        self._waiters: Any = _Waiters(self)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Have ``fn(future)`` called when the future is done; at once if it is."""
        hub = get_hub_if_exists()
        super().add_done_callback(fn if hub is None or self.done() else _DoneCallback(fn, hub))

    def ready(self) -> bool:
        """:meth:`done`"""
        return self.done()

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Have ``callback(future)`` called in the hub when the future is done; soon if it is."""
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        super().add_done_callback(_InHub(callback, get_hub()))

    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Take back :meth:`rawlink`; nothing if there is no such callback."""
        callbacks: list[Any] = self._done_callbacks  # type: ignore[attr-defined]
        with self._condition:
            for link in callbacks:
                if type(link) is _InHub and link.callback == callback:
                    callbacks.remove(link)
                    return

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()
