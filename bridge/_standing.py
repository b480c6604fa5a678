"""Standing in line until there is something: the waits of queues and channels, for greenlets and coroutines.

``attempt()`` is made as the head of the line, at once and after each wake-up, until it gives something. Who
leaves the line, however he does, tells the next one if there is more. See :mod:`bridge._core.waiting` for
why nothing can be lost in this.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

from greenlet import getcurrent

from ._aio.asyncwait import AsyncWait
from ._core.clock import monotonic
from ._core.engine import parks
from ._core.hub import get_hub_if_exists
from ._core.seconds import checked_seconds
from ._core.waiting import Wait, WaitLine
from .timeout import Timeout, wait_limited

__all__ = [
    "NOT_YET", "Iterated", "attempt_in_hub", "cannot_block", "check_timeout", "stand_in_line",
    "stand_in_line_async",
]  # fmt: skip

T = TypeVar("T")

#: What an attempt returns that has to wait.
NOT_YET: Any = object()


def check_timeout(timeout: Any) -> None:
    if isinstance(timeout, int | float) and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")


def cannot_block() -> bool:
    """True in the hub, where a queue answers instead of waiting."""
    hub = get_hub_if_exists()
    return hub is not None and getcurrent() is hub


def attempt_in_hub(line: WaitLine, attempt: Callable[[], Any]) -> Any:
    """In the hub, which cannot wait: let those in ``line`` run until ``attempt()`` gives something.

    NOT_YET: it does not, or this is not the hub. gevent does so, too: functions that are called when a
    greenlet ends, or by a timer, put into queues that are full while somebody waits for items.
    """
    while line and cannot_block():
        head = line[0]
        if not isinstance(head, Wait) or not head.run_now():
            break
        result = attempt()
        if result is not NOT_YET:
            return result
        if line and line[0] is head:
            break  # it waits as before
    return NOT_YET


@parks
def stand_in_line(
    line: WaitLine,
    attempt: Callable[[], Any],
    more: Callable[[], bool],
    timeout: Any,
    error: type[Exception],
    wait: Any = None,
) -> Any:
    """Make ``attempt()`` as the head of ``line`` until it gives something; blocks the greenlet.

    ``more()`` says whether there is something for the next in line. After ``timeout`` ``error`` is raised.
    """
    deadline = None
    started = None
    if wait is None:
        wait = Wait()
    if timeout is not None and not isinstance(timeout, Timeout):
        deadline = monotonic() + checked_seconds(timeout)
    if line:
        line.prune()
    try:
        if deadline is None and timeout is not None and not timeout.pending:
            started = timeout  # here and not at each turn of the loop: it counts once
            timeout.start()
        line.append(wait)
        while True:
            result = attempt()
            if result is not NOT_YET:
                return result
            wait.again()
            result = attempt()  # another thread may just have thought that we had been told
            if result is not NOT_YET:
                return result
            if deadline is None:
                if timeout is None:
                    wait.block()
                else:
                    _block_until(wait, timeout)
            elif not wait.block(deadline - monotonic() if timeout else 0):
                result = attempt()
                if result is NOT_YET:
                    raise error
                return result
    finally:
        line.discard(wait)  # first: an exception of a signal handler in here is to keep nobody waiting
        if started is not None:
            started.cancel()
        wait.give_up()
        if line and more():
            line.tell_next()


def _block_until(wait: Wait, timeout: Timeout) -> None:
    if not wait_limited(wait, timeout):
        raise timeout._to_throw()


async def stand_in_line_async(
    line: WaitLine,
    attempt: Callable[[], Any],
    more: Callable[[], bool],
    timeout: float | None,
    error: type[Exception],
    wait: Any = None,
) -> Any:
    deadline = None if timeout is None else monotonic() + checked_seconds(timeout)
    if wait is None:
        wait = AsyncWait()
    if line:
        line.prune()
    try:
        line.append(wait)
        while True:
            result = attempt()
            if result is not NOT_YET:
                return result
            wait.again()
            result = attempt()
            if result is not NOT_YET:
                return result
            if not await wait.block(None if deadline is None else deadline - monotonic()):
                result = attempt()
                if result is NOT_YET:
                    raise error
                return result
    finally:
        line.discard(wait)
        wait.give_up()
        if line and more():
            line.tell()


class Iterated(Generic[T]):
    """Iterating over queues and channels: gives items until one is the class StopIteration."""

    __slots__ = ()

    @abstractmethod
    def get(self, block: bool = True, timeout: Any = None) -> T:
        """Take the first item, waiting for one. Blocks the greenlet."""

    @abstractmethod
    async def aget(self, timeout: float | None = None) -> T:
        """In a coroutine: :meth:`get`."""

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self.get()
        if item is StopIteration:
            raise StopIteration
        return item

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        item = await self.aget()
        if item is StopIteration:
            raise StopAsyncIteration
        return item
