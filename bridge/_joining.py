"""Waiting for several objects at once: ``wait``, ``iwait`` and ``joinall``.

Anything with ``rawlink`` and ``unlink`` can be waited for: greenlets, events, results, semaphores.
"""

from __future__ import annotations

from _thread import get_ident
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, overload

from ._core.clock import monotonic
from ._core.hub import get_hub
from ._core.seconds import checked_seconds
from ._core.waiting import Link, Wait
from .timeout import Timeout, wait_limited

__all__ = ["iwait", "joinall", "wait"]

T = TypeVar("T")


class _Collector(Link):
    """Told by each object as it becomes ready; wakes one wait when ``needed`` have come."""

    __slots__ = ("done", "loop", "missing", "wait")

    def __init__(self) -> None:
        self.loop = get_hub().loop
        self.done: deque[Any] = deque()
        self.missing = -1
        self.wait: Wait | None = None

    def notify(self, source: Any) -> None:
        self.done.append(source)
        self.missing -= 1
        if self.missing == 0 and self.wait is not None:
            self.wait.wake()

    def notify_late(self, source: Any) -> None:
        """By way of the hub, as in gevent: in the order of the objects, and others run meanwhile."""
        loop = self.loop
        if loop.thread_ident == get_ident():
            loop.call(self, source)
        else:
            loop.run_callback_threadsafe(self, source)

    def __call__(self, source: Any) -> None:
        """In the hub, as a callback: who waits goes on before what is ready behind it."""
        self.done.append(source)
        self.missing -= 1
        if self.missing == 0 and self.wait is not None:
            self.wait.wake_next()

    def block(self, needed: int, timeout: Any) -> bool:
        """Wait until ``needed`` are there; False if the time was over before."""
        self.missing = missing = needed - len(self.done)
        if missing <= 0:
            return True
        self.wait = wait = Wait()
        try:
            return wait_limited(wait, timeout)
        finally:
            self.wait = None


class _OneByOne(_Collector):
    """For :func:`iwait`: what becomes ready later is not there yet when the first one is given."""

    __slots__ = ()

    notify = _Collector.notify_late


def _register(objects: list[Any], collector: _Collector) -> None:
    linked = []
    try:
        for obj in objects:
            rawlink = getattr(obj, "rawlink", None)
            if rawlink is None:
                raise TypeError(
                    f"wait() and joinall() take greenlets, events and what else has rawlink(), not {obj!r}"
                )
            rawlink(collector)
            linked.append(obj)
    except BaseException:
        for obj in linked:
            obj.unlink(collector)
        raise


def iwait(
    objects: Iterable[T], timeout: float | Timeout | None = None, count: int | None = None
) -> Iterator[T]:
    """Give objects as they become ready, in that order. ``next()`` blocks.

    :param timeout: seconds for all of it.
    :param count: give so many at the most.

    The result is a context manager too: leaving it lets go of the objects not waited for.
    """
    if objects is None:
        get_hub().join(timeout=timeout)
        return iter(())
    return _IWait(list(objects), timeout, count)


class _IWait(Iterator[T]):
    def __init__(self, objects: list[T], timeout: Any, count: int | None) -> None:
        self._objects = objects
        self._left = len(objects) if count is None else min(count, len(objects))
        self._collector = _OneByOne()
        self._timeout = timeout
        self._deadline: float | None = None
        if timeout is not None and not isinstance(timeout, Timeout):
            self._deadline = monotonic() + checked_seconds(timeout)
        _register(objects, self._collector)
        self._linked = True

    def __iter__(self) -> _IWait[T]:
        return self

    def __next__(self) -> T:
        if self._left <= 0:
            self._unlink()
            raise StopIteration
        timeout = self._timeout
        if self._deadline is not None:
            timeout = self._deadline - monotonic()
        try:
            arrived = self._collector.block(1, timeout)
        except BaseException:
            self._unlink()
            raise
        if not arrived:
            self._left = 0
            self._unlink()
            raise StopIteration
        self._left -= 1
        return self._collector.done.popleft()  # type: ignore[no-any-return]

    def __enter__(self) -> _IWait[T]:
        return self

    def __exit__(self, *exc: object) -> None:
        self._left = 0
        self._unlink()

    def __del__(self) -> None:
        self._unlink()

    def _unlink(self) -> None:
        if self.__dict__.get("_linked"):
            self._linked = False
            for obj in self._objects:
                obj.unlink(self._collector)  # type: ignore[attr-defined]


@overload
def wait(objects: None = None, timeout: float | Timeout | None = None, count: int | None = None) -> bool: ...
@overload
def wait(
    objects: Iterable[T], timeout: float | Timeout | None = None, count: int | None = None
) -> list[T]: ...
def wait(
    objects: Iterable[T] | None = None, timeout: float | Timeout | None = None, count: int | None = None
) -> Any:
    """Wait until objects are ready: greenlets, events, results, semaphores. Blocks.

    :param timeout: seconds to wait at the most.
    :param count: wait for so many only.

    Returns those that are ready, in the order in which they became so. Without ``objects``: waits until
    nothing is left that could happen, and returns whether that came before the timeout.
    """
    if objects is None:
        return get_hub().join(timeout=timeout)  # type: ignore[arg-type]
    every = list(objects)
    needed = len(every) if count is None else min(count, len(every))
    if needed <= 0:
        return []
    collector = _Collector()
    _register(every, collector)
    try:
        collector.block(needed, timeout)
    finally:
        if len(collector.done) < len(every):
            for obj in every:
                obj.unlink(collector)  # type: ignore[attr-defined]
    return list(collector.done)[:needed] if count is not None else list(collector.done)


@overload
def joinall(
    greenlets: Iterable[T],
    timeout: float | Timeout | None = None,
    raise_error: bool = False,
    count: int | None = None,
) -> list[T]: ...
@overload
def joinall(
    greenlets: None,
    timeout: float | Timeout | None = None,
    raise_error: bool = False,
    count: int | None = None,
) -> bool: ...
def joinall(
    greenlets: Iterable[T] | None,
    timeout: float | Timeout | None = None,
    raise_error: bool = False,
    count: int | None = None,
) -> Any:
    """Wait for greenlets to end. Blocks.

    :param timeout: seconds to wait at the most.
    :param raise_error: raise the exception of the first one that ends by one.
    :param count: wait for so many only.

    Returns those that have ended, in the order in which they did. None instead of greenlets: :func:`wait`
    for everything.
    """
    if greenlets is None:
        return wait(None, timeout)
    if raise_error or count is not None:
        if not raise_error:
            return list(wait(greenlets, timeout=timeout, count=count))
        done: list[T] = []
        for g in iwait(greenlets, timeout=timeout, count=count):
            if hasattr(g, "exception") and g.exception is not None:
                g.get(block=False)  # type: ignore[attr-defined]
            done.append(g)
        return done
    return list(wait(greenlets, timeout=timeout))
