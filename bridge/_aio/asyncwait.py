"""One wait of one coroutine, with the face of :class:`bridge._core.waiting.Wait`.

So that greenlets and coroutines can stand in one line: a primitive wakes whoever is next and need not
know of which kind it is.
"""

from __future__ import annotations

import asyncio
from _thread import get_ident
from typing import Any

from bridge._core.seconds import checked_seconds
from bridge._core.waiting import Link

__all__ = ["AsyncWait"]


class AsyncWait(Link):
    """A wait of the current task; to be made in a coroutine, in a running loop."""

    __slots__ = ("aio", "dead", "future", "thread", "timed_out", "woken")

    def __init__(self) -> None:
        self.aio = asyncio.get_running_loop()
        self.thread = get_ident()
        self.future: asyncio.Future[None] = self.aio.create_future()
        self.woken = False
        self.dead = False
        self.timed_out = False

    async def block(self, timeout: float | None = None) -> bool:
        """Suspend the task until :meth:`wake` (True) or for ``timeout`` seconds (False).

        A cancellation comes out of here as CancelledError; the wait is over then.
        """
        timer = None
        if timeout is not None:
            timer = self.aio.call_later(max(checked_seconds(timeout), 0), self._expire)
        try:
            await self.future
        except BaseException:
            self.woken = True
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if self.timed_out:
            return False
        self.future = self.aio.create_future()
        return True

    def take_back(self) -> None:
        """A future that was set stays set: the task looks for itself."""

    def again(self) -> None:
        """A wake-up was in vain, if there was one: the next one counts."""
        self.woken = False

    def give_up(self) -> None:
        """The wait ends without blocking, as what it was for is there already."""
        self.woken = True

    def wake(self) -> None:
        """End the wait. From any thread, greenlet or callback; does nothing the second time."""
        if self.woken:
            return
        self.woken = True
        if get_ident() == self.thread:
            self._set()
        else:
            try:
                self.aio.call_soon_threadsafe(self._set)
            except RuntimeError:
                # the loop is closed: the coroutine has been abandoned with it
                if not self.aio.is_closed():
                    raise

    def abandoned(self) -> bool:
        """True if the loop in which it waits was closed: it will never go on."""
        return self.aio.is_closed()

    def notify(self, source: Any) -> None:
        """What the wait was for has finished: :meth:`wake`."""
        self.wake()

    def _set(self) -> None:
        future: asyncio.Future[Any] = self.future
        if not future.done() and not self.aio.is_closed():
            future.set_result(None)

    def _expire(self) -> None:
        if not self.woken:
            self.timed_out = True
            self.wake()
