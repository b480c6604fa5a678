"""Channels: queues that hold nothing."""

from __future__ import annotations

from queue import Empty, Full
from types import GenericAlias
from typing import TYPE_CHECKING, Any, TypeVar

from ._aio.asyncwait import AsyncWait
from ._core.engine import parks
from ._core.errors import BlockingSwitchOutError
from ._core.hub import get_hub_if_exists
from ._core.waiting import Wait, WaitLine
from ._standing import NOT_YET, Iterated, cannot_block, stand_in_line, stand_in_line_async
from .timeout import Timeout, wait_limited

__all__ = ["Channel"]

T = TypeVar("T")


class _AsyncOffer(AsyncWait):
    """A putting coroutine in line at a channel, with its item."""

    __slots__ = ("item",)

    item: Any


class _Deposit:
    """An item that was left at a channel by somebody who could not wait (the hub)."""

    __slots__ = ("dead", "item", "woken")

    def __init__(self, item: Any) -> None:
        self.item = item
        self.dead = False
        self.woken = False

    def wake(self) -> None:
        """Nobody waits."""

    def abandoned(self) -> bool:
        """False: an item is not tied to a loop."""
        return False


class Channel(Iterated[T]):
    """A queue that holds nothing: put() waits until a getter has taken the item."""

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # as the standard library's, not typing's

    __slots__ = ("__weakref__", "getters", "putters")

    def __init__(self, maxsize: int | None = 1) -> None:
        if maxsize != 1:
            raise ValueError(
                f"Channel(maxsize={maxsize!r}): Channels have a maxsize of 1; use Queue(maxsize)"
            )
        self.getters = WaitLine()
        self.putters = WaitLine()

    @property
    def hub(self) -> Any:
        """The hub of the current thread, None if it has none; channels are not bound to one."""
        return get_hub_if_exists()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {self._format()}>"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self._format()}>"

    def _format(self) -> str:
        shown = ""
        if self.getters:
            shown += f" getters[{self.getters.waiting()}]"
        if self.putters:
            shown += f" putters[{self.putters.waiting()}]"
        return shown

    @property
    def balance(self) -> int:
        """How many putters wait; negative: getters."""
        return self.putters.waiting() - self.getters.waiting()

    def qsize(self) -> int:
        """0"""
        return 0

    def empty(self) -> bool:
        """True"""
        return True

    def full(self) -> bool:
        """True"""
        return True

    @parks
    def put(self, item: T, block: bool = True, timeout: float | Timeout | None = None) -> None:
        """Wait until a getter takes the item.

        :param block: False: only if a getter is waiting now; else Full is raised.
        :param timeout: seconds to wait at the most; then Full is raised.
        """
        try:
            offer = Wait()
        except BlockingSwitchOutError:
            if not cannot_block():
                raise
            if self.balance >= 0:  # no getter but those for whom something lies here already
                raise Full from None
            self.putters.append(_Deposit(item))
            self.getters.tell()
            return
        if not block:
            timeout = 0
        offer.item = item
        if self.putters:
            self.putters.prune()
        try:
            self.putters.append(offer)
            if self.getters:
                self.getters.tell()
            taken = offer.block() if timeout is None else wait_limited(offer, timeout)
        except BaseException:
            self.putters.discard(offer)
            raise
        if not taken and self.putters.discard(offer):  # else taken in the moment in which the time was over
            raise timeout._to_throw() if isinstance(timeout, Timeout) else Full

    def put_nowait(self, item: T) -> None:
        """Hand the item to a waiting getter, or raise Full."""
        self.put(item, False)

    @parks
    def get(self, block: bool = True, timeout: float | Timeout | None = None) -> T:
        """Take an item from a putter, waiting for one.

        :param block: False: raise Empty instead of waiting.
        :param timeout: seconds to wait at the most; then Empty is raised.

        In the hub, which cannot wait, BlockingSwitchOutError is raised where others would wait.
        """
        if self.putters and (not self.getters or cannot_block()):
            item = self._take()
            if item is not NOT_YET:
                return item  # type: ignore[no-any-return]
        if timeout is not None or not block:
            if not block and cannot_block():
                raise Empty
            return stand_in_line(  # type: ignore[no-any-return]
                self.getters, self._take, self._has_putter, timeout if block else 0, Empty
            )
        # the same for the most frequent case
        wait = Wait()
        line = self.getters
        putters = self.putters
        if line:
            line.prune()
        try:
            line.append(wait)
            if putters:
                line.tell()
            while True:
                wait.block()
                try:
                    offer = putters.leave()
                    break
                except IndexError:
                    wait.again()
                if putters:
                    line.tell()
        except BaseException:
            line.discard(wait)
            if line and putters:
                line.tell()
            raise
        try:
            line.discard(wait)
        finally:
            offer.wake()
        if line and putters:
            line.tell()
        return offer.item  # type: ignore[no-any-return]

    def _take(self) -> Any:
        try:
            offer = self.putters.leave()
        except IndexError:
            return NOT_YET
        offer.wake()
        return offer.item

    def _has_putter(self) -> bool:
        return bool(self.putters)

    def get_nowait(self) -> T:
        """Take an item from a waiting putter, or raise Empty."""
        return self.get(False)

    async def aput(self, item: T, timeout: float | None = None) -> None:
        """In a coroutine: :meth:`put`."""
        offer = _AsyncOffer()
        offer.item = item
        if self.putters:
            self.putters.prune()
        self.putters.append(offer)
        self.getters.tell()
        try:
            taken = await offer.block(timeout)
        except BaseException:
            self.putters.discard(offer)
            raise
        if not taken and self.putters.discard(offer):
            raise Full

    async def aget(self, timeout: float | None = None) -> T:
        """In a coroutine: :meth:`get`."""
        return await stand_in_line_async(  # type: ignore[no-any-return]
            self.getters, self._take, self._has_putter, timeout, Empty
        )

    def _unlock(self) -> None:
        if self.putters:
            self.getters.tell()

    next = Iterated.__next__
