"""Semaphores and locks for greenlets, coroutines and threads; twin of :mod:`gevent.lock`.

Those who wait stand in one line of which the head is told (see :mod:`bridge._core.waiting`): a permit goes to
the first in line when that one runs, unless a running greenlet has taken it before ("barging", as in
gevent). Invariant: if ``counter`` is positive and somebody is in line, the head has been told.
"""

from __future__ import annotations

import sys
from reprlib import recursive_repr
from types import TracebackType
from typing import Any, ClassVar

from greenlet import getcurrent

from ._aio.asyncwait import AsyncWait
from ._core.clock import monotonic
from ._core.engine import parks
from ._core.seconds import as_seconds, checked_seconds
from ._core.waiting import Wait, WaitLine
from ._linkable import AbstractLinkable
from .timeout import Timeout, wait_limited

__all__ = ["BoundedSemaphore", "DummySemaphore", "RLock", "Semaphore"]


class Semaphore(AbstractLinkable):
    """A number of permits that are acquired and released.

    :param value: permits in the beginning; ValueError if negative.
    :param hub: accepted for compatibility; a semaphore is not bound to a hub.

    May be used by greenlets, coroutines (``async with``, :meth:`aacquire`) and threads at once.
    """

    __slots__ = ("counter",)

    #: How many permits are free.
    counter: int

    #: What makes the wait of who has to stand in line.
    _wait: ClassVar[Any] = Wait

    def __init__(self, value: int = 1, hub: object = None) -> None:
        if not isinstance(value, int):
            if not isinstance(value, float):
                raise TypeError(f"{type(self).__name__}(value={value!r}): an integer is required")
            value = int(value)  # half of something, as in gevent
        if value < 0:
            raise ValueError(
                f"{type(self).__name__}(value={value!r}): semaphore initial value must be >= 0; "
                "Semaphore(0) makes the first acquire() wait for a release()"
            )
        self.counter = value
        self._line = None

    def __str__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} counter={self.counter} {self._links_str()}>"

    def locked(self) -> bool:
        """True if acquire() would block."""
        return self.counter <= 0

    def ready(self) -> bool:
        """True if acquire() would not block."""
        return self.counter > 0

    def acquire(self, blocking: bool = True, timeout: float | Timeout | None = None) -> bool:
        """Take a permit, waiting for one if there is none; whether one was taken.

        :param blocking: False: do not wait.
        :param timeout: seconds to wait at the most; negative: do not wait.
        """
        if self.counter > 0:  # atomic
            self.counter -= 1
            if self._line and not self.counter:
                self._line[0].take_back()
                if self.counter > 0:  # another thread released while the head counted as told
                    self._line.tell()
            return True
        if not blocking:
            return False
        return self._wait_in_line(timeout, True)

    def release(self) -> int:
        """Give a permit back; the number of free ones. From anywhere, any thread; never blocks."""
        self.counter += 1
        line = self._line
        if line:
            line.tell()
        return self.counter

    def wait(self, timeout: float | Timeout | None = None) -> int:
        """Wait until a permit is free, without taking it; the number of free ones."""
        if self.counter > 0:
            return self.counter
        self._wait_in_line(timeout, False)
        return self.counter

    @parks
    def _wait_in_line(self, timeout: float | Timeout | None, take: bool) -> bool:
        deadline = None
        if isinstance(timeout, Timeout):
            if not timeout.pending:
                timeout.start()  # here and not at each turn of the loop: it counts once
                try:
                    return self._wait_in_line(timeout, take)
                finally:
                    timeout.cancel()
        elif timeout is not None:
            if type(timeout) is not float and type(timeout) is not int:
                timeout = as_seconds(timeout)
            if timeout < 0:
                return False
            deadline = monotonic() + timeout
        wait = self._wait()
        line = self._line
        if line is None:
            line = self._line_of_waiters()
        if line:
            line.prune()
        taken = 0
        try:
            line.append(wait)
            while True:
                if self.counter > 0:  # atomic
                    if take:
                        self.counter -= 1
                        taken = 1
                    if not wait.woken or wait.queued:  # we have not blocked: nobody may wake us any more
                        wait.give_up()
                    self._leave(line, wait)
                    return True
                wait.again()
                if self.counter > 0:
                    continue  # released by another thread, which thought that we had been told
                if timeout is None:
                    wait.block()
                elif deadline is None:
                    if not wait_limited(wait, timeout):
                        break
                elif not wait.block(max(deadline - monotonic(), 0)):
                    break
        except BaseException:
            self.counter += taken
            self._leave(line, wait)
            raise
        if take and self.counter > 0:  # it came together with the timeout
            self.counter -= 1
            self._leave(line, wait)
            return True
        self._leave(line, wait)
        return False

    def _leave(self, line: WaitLine, wait: Any) -> None:
        """Out of the line; what we may have been told of goes to the next."""
        line.discard(wait)
        if line and self.counter > 0:
            line.tell_next()

    def _turn_of(self, link: Any) -> bool:
        if self.counter <= 0:  # snatched
            link.woken = False
            if self.counter <= 0 or link.woken:
                return False
            link.woken = True  # released by another thread, which thought that it had been told
        self._line.discard(link)  # type: ignore[union-attr]
        return True

    def _link_done(self, link: Any) -> None:
        # those in line are served together, callbacks and greenlets, with nobody in between
        line = self._line
        if line:
            line.discard(link)
            if line and self.counter > 0:
                line.tell_next()

    def _link_left(self) -> None:
        if self._line and self.counter > 0:
            self._line.tell()

    async def aacquire(self, timeout: float | None = None) -> bool:
        """In a coroutine: :meth:`acquire`; whether a permit was taken within ``timeout`` seconds."""
        if self.counter > 0:
            self.counter -= 1
            return True
        deadline = None if timeout is None else monotonic() + checked_seconds(timeout)
        wait = AsyncWait()
        line = self._line_of_waiters()
        if line:
            line.prune()
        try:
            line.append(wait)
            while True:
                if self.counter > 0:
                    self.counter -= 1
                    return True
                wait.again()
                if self.counter > 0:
                    continue
                left = None if deadline is None else max(deadline - monotonic(), 0)
                if not await wait.block(left):
                    if self.counter > 0:
                        self.counter -= 1
                        return True
                    return False
        finally:
            wait.give_up()
            self._leave(line, wait)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.acquire is not Semaphore.acquire and cls.__enter__ is Semaphore.__enter__:
            cls.__enter__ = _enter_by_acquiring  # type: ignore[method-assign]

    def __enter__(self) -> None:
        # acquire(), without a call of it; for subclasses with one of their own see above
        if self.counter > 0:  # atomic
            self.counter -= 1
            if self._line and not self.counter:
                self._line[0].take_back()
                if self.counter > 0:  # another thread released while the head counted as told
                    self._line.tell()
        else:
            self._wait_in_line(None, True)

    def __exit__(
        self, t: type[BaseException] | None, v: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.release()

    async def __aenter__(self) -> None:
        await self.aacquire()

    async def __aexit__(self, *exc: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._line = None


def _enter_by_acquiring(self: Semaphore) -> None:
    self.acquire()


class BoundedSemaphore(Semaphore):
    """A semaphore that refuses to be released more often than it was acquired (ValueError)."""

    __slots__ = ("_initial_value",)

    #: What an excessive release() raises.
    _OVER_RELEASE_ERROR: type[Exception] = ValueError

    def __init__(self, value: int = 1, hub: object = None) -> None:
        super().__init__(value, hub)
        self._initial_value = self.counter

    def release(self) -> int:
        """Give a permit back; ValueError if all are free already."""
        if self.counter >= self._initial_value:
            raise self._OVER_RELEASE_ERROR("Semaphore released too many times")
        self.counter += 1
        line = self._line
        if line:
            line.tell()
        return self.counter

    def _at_fork_reinit(self) -> None:
        self._line = None
        self.counter = self._initial_value


class DummySemaphore:
    """A semaphore that never blocks: for turning a limit off."""

    __slots__ = ("__weakref__",)

    def __init__(self, value: object = None) -> None:
        """``value`` is ignored."""

    def __str__(self) -> str:
        return f"<{type(self).__name__}>"

    def locked(self) -> bool:
        """False"""
        return False

    def ready(self) -> bool:
        """True"""
        return True

    def acquire(self, blocking: bool = True, timeout: object = None) -> bool:
        """True, at once."""
        return True

    async def aacquire(self, timeout: object = None) -> bool:
        """True, at once."""
        return True

    def release(self) -> None:
        """Nothing."""

    def rawlink(self, callback: object) -> None:
        """Nothing."""

    def unlink(self, callback: object) -> None:
        """Nothing."""

    def wait(self, timeout: object = None) -> int:
        """1, at once."""
        return 1

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc: object) -> None:
        pass


#: Who runs when greenlets exist no more: finalizers at the end of the interpreter.
_LAST = object()


def _owner() -> Any:
    """Who holds a lock: in a coroutine its task, else the greenlet."""
    if _running_loop() is not None:
        task = sys.modules["asyncio.tasks"].current_task()
        if task is not None:
            return task
    try:
        return getcurrent()
    except RuntimeError:  # the interpreter is going down
        return _LAST


def _running_loop() -> Any:
    """Until asyncio is imported, there is none; then this name is asyncio's own function."""
    global _running_loop
    events = sys.modules.get("asyncio.events")
    if events is None:
        return None
    _running_loop = events._get_running_loop
    return _running_loop()


class RLock:
    """A lock that its owner may acquire again. The owner is the greenlet; in a coroutine the task."""

    __slots__ = ("__weakref__", "_block", "_count", "_owner")

    def __init__(self, hub: object = None) -> None:
        self._block = Semaphore(1)
        self._owner: Any = None
        self._count = 0

    @recursive_repr()  # the owner may be a greenlet that shows a method of this lock
    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} at {id(self):#x} _block={self._block} _count={self._count!r} "
            f"_owner={self._owner!r})>"
        )

    def locked(self) -> bool:
        """True if somebody owns it."""
        return self._owner is not None

    def acquire(self, blocking: bool = True, timeout: float | Timeout | None = None) -> bool:
        """Acquire, again if it is ours, waiting if it is another's; whether it was acquired.

        :param blocking: False: do not wait.
        :param timeout: seconds to wait at the most; -1: no limit, as in threading.
        """
        me = _owner()
        if self._owner is me:
            self._count += 1
            return True
        block = self._block
        if block.counter > 0:  # atomic
            block.counter -= 1
            if block._line:
                block._line[0].take_back()
                if block.counter > 0:  # see Semaphore.acquire
                    block._line.tell()
        elif not blocking or not block._wait_in_line(None if timeout == -1 else timeout, True):
            return False
        self._owner = me
        self._count = 1
        return True

    async def aacquire(self, timeout: float | None = None) -> bool:
        """In a coroutine: :meth:`acquire`."""
        me = _owner()
        if self._owner is me:
            self._count += 1
            return True
        if not await self._block.aacquire(timeout):
            return False
        self._owner = me
        self._count = 1
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    async def __aenter__(self) -> bool:
        return await self.aacquire()

    def release(self) -> None:
        """Undo one acquire(). RuntimeError if the lock is not ours."""
        if self._owner is not _owner():
            raise RuntimeError(
                f"cannot release un-acquired lock. Owner: {self._owner!r} Current: {_owner()!r}"
            )
        self._count = count = self._count - 1
        if not count:
            self._owner = None
            self._block.release()

    def __exit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.release()

    async def __aexit__(self, *exc: object) -> None:
        self.release()

    # what threading.Condition uses

    def _acquire_restore(self, count_owner: tuple[int, Any]) -> None:
        count, owner = count_owner
        self._block.acquire()
        self._count = count
        self._owner = owner

    def _release_save(self) -> tuple[int, Any]:
        count, self._count = self._count, 0
        owner, self._owner = self._owner, None
        self._block.release()
        return count, owner

    def _is_owned(self) -> bool:
        return self._owner is _owner()

    def _recursion_count(self) -> int:
        return self._count if self._owner is _owner() else 0

    def _at_fork_reinit(self) -> None:
        self._block._at_fork_reinit()
        self._block.counter = 1
        self._owner = None
        self._count = 0
