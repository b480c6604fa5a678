"""Queues for greenlets, coroutines and threads; twin of :mod:`gevent.queue`.

Those who wait to get stand in one line, those who wait to put in another; the head of a line is told when
there is something for it and takes it when it runs (see :mod:`bridge._core.waiting`). So an item is always
either in the queue or in the hands of who put or got it: killing a waiter loses nothing.
Invariant: if there is an item and a getter in line, the first getter has been told; likewise for free
places and putters.

Several threads may use a queue. A bounded queue into which threads put at the very same moment may briefly
hold one item too many for each of them.
"""

from __future__ import annotations

import sys
import warnings
from _thread import RLock
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from queue import Empty, Full
from time import monotonic
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from greenlet import getcurrent

from ._aio.asyncwait import AsyncWait
from ._core.errors import BlockingSwitchOutError
from ._core.hub import get_hub_if_exists
from ._core.waiting import Wait, WaitLine
from .timeout import Timeout, wait_limited

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """Raised by put() and get() of a queue that was shut down."""


__all__ = [
    "Channel",
    "Empty",
    "Full",
    "JoinableQueue",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "ShutDown",
    "SimpleQueue",
    "UnboundQueue",
]

T = TypeVar("T")
Q = TypeVar("Q", bound="SimpleQueue[Any]")

#: What an attempt returns that has to wait.
_NOT_YET: Any = object()


def _check_timeout(timeout: Any) -> None:
    if isinstance(timeout, int | float) and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")


def _cannot_block() -> bool:
    """True in the hub, where a queue answers instead of waiting."""
    hub = get_hub_if_exists()
    return hub is not None and getcurrent() is hub


def _stand_in_line(
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
    if isinstance(timeout, Timeout):
        if not timeout.pending:
            started = timeout  # here and not at each turn of the loop: it counts once
            timeout.start()
    elif timeout is not None:
        deadline = monotonic() + timeout
    if line:
        line.prune()
    line.append(wait)
    try:
        while True:
            result = attempt()
            if result is not _NOT_YET:
                return result
            wait.again()
            result = attempt()  # another thread may just have thought that we had been told
            if result is not _NOT_YET:
                return result
            if deadline is None:
                if timeout is None:
                    wait.block()
                else:
                    _block_until(wait, timeout)
            elif not wait.block(deadline - monotonic() if timeout else 0):
                result = attempt()
                if result is _NOT_YET:
                    raise error
                return result
    finally:
        if started is not None:
            started.cancel()
        wait.give_up()
        line.discard(wait)
        if line and more():
            line.tell()


def _block_until(wait: Wait, timeout: Timeout) -> None:
    if not wait_limited(wait, timeout):
        raise timeout._to_throw()


async def _stand_in_line_async(
    line: WaitLine,
    attempt: Callable[[], Any],
    more: Callable[[], bool],
    timeout: float | None,
    error: type[Exception],
    wait: Any = None,
) -> Any:
    deadline = None if timeout is None else monotonic() + timeout
    if wait is None:
        wait = AsyncWait()
    if line:
        line.prune()
    line.append(wait)
    try:
        while True:
            result = attempt()
            if result is not _NOT_YET:
                return result
            wait.again()
            result = attempt()
            if result is not _NOT_YET:
                return result
            if not await wait.block(None if deadline is None else deadline - monotonic()):
                result = attempt()
                if result is _NOT_YET:
                    raise error
                return result
    finally:
        wait.give_up()
        line.discard(wait)
        if line and more():
            line.tell()


class SimpleQueue(Generic[T]):
    """A queue: first in, first out.

    :param maxsize: how many items it holds before put() waits; None: any number.
    :param items: what it holds in the beginning.

    ``for item in queue`` gives items, waiting for them, until the item is the class StopIteration; in a
    coroutine ``async for``. All methods may be called from any greenlet, coroutine or thread; those that
    block have a coroutine twin (``aget``, ``aput``).
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # as the standard library's, not typing's

    __slots__ = (
        "__weakref__", "_getters", "_items", "_maxsize", "_open", "_pop", "_push", "_putters", "_shut",
        "_tasks",
    )  # fmt: skip

    #: True while none of the methods that a subclass may override is overridden: then the items are dealt
    #: with directly, by the bound functions ``_pop`` and ``_push``.
    _plain: ClassVar[bool] = True

    #: Plain, without a limit and not shut down: an item may go in without further questions.
    _open: bool

    def __init_subclass__(cls, plain: bool | None = None) -> None:
        overridable = ("_create_queue", "_get", "_init", "_peek", "_put", "_qsize", "get", "put")
        cls._plain = (
            plain if plain is not None else cls._plain and not any(n in cls.__dict__ for n in overridable)
        )

    def __init__(self, maxsize: int | None = None, items: Iterable[T] = (), _warn_depth: int = 2) -> None:
        if maxsize is not None and maxsize <= 0:
            if maxsize == 0:
                warnings.warn(
                    "Queue(0) now equivalent to Queue(None); if you want a channel, use Channel",
                    DeprecationWarning,
                    stacklevel=_warn_depth,
                )
            maxsize = None
        self._maxsize = maxsize
        self._getters = WaitLine()
        self._putters = WaitLine()
        self._shut = False
        self._open = self._plain and maxsize is None
        self._tasks = 0
        if items:
            self._init(maxsize, items)
        else:
            self._init(maxsize)  # subclasses of the standard library's queue take no more

    def _init(self, maxsize: int | None, items: Iterable[T] = ()) -> None:
        self.queue = self._create_queue(items)
        self._tasks = len(self._items)

    @property
    def queue(self) -> Any:
        """The items, in a deque or list."""
        return self._items

    @queue.setter
    def queue(self, items: Any) -> None:
        self._items = items
        if self._plain:
            self._bind(items)

    def _bind(self, items: Any) -> None:
        self._pop: Callable[[], T] = items.popleft
        self._push: Callable[[T], object] = items.append

    @property
    def hub(self) -> Any:
        """The hub of the current thread, None if it has none; queues are not bound to one."""
        return get_hub_if_exists()

    @property
    def is_shutdown(self) -> bool:
        """True after shutdown()."""
        return self._shut

    @is_shutdown.setter
    def is_shutdown(self, value: bool) -> None:
        self._shut = value
        self._open = self._plain and self._maxsize is None and not value

    @property
    def maxsize(self) -> int | None:
        """How many items fit, None for any number.

        May be changed; who waits for a place notices when the next item is taken.
        """
        return self._maxsize

    @maxsize.setter
    def maxsize(self, value: int | None) -> None:
        self._maxsize = None if value is not None and value <= 0 else value
        self._open = self._plain and self._maxsize is None and not self._shut

    def copy(self: Q) -> Q:
        """A queue of the same kind with the same items."""
        return type(self)(self._maxsize, self.queue)

    # -- what a subclass may override, as with the standard library's

    def _create_queue(self, items: Iterable[T] = ()) -> Any:
        return deque(items)

    def _get(self) -> T:
        return self._items.popleft()  # type: ignore[no-any-return]

    def _peek(self) -> T:
        return self._items[0]  # type: ignore[no-any-return]

    def _put(self, item: T) -> None:
        self._items.append(item)

    def _qsize(self) -> int:
        return len(self._items)

    # -- state

    def qsize(self) -> int:
        """How many items it holds."""
        return self._qsize()

    def __len__(self) -> int:
        return self._qsize()

    def __bool__(self) -> bool:
        # a queue is true, empty or not: it is a thing to wait for, not a collection
        return True

    def empty(self) -> bool:
        """True if it holds no item."""
        return not self._qsize()

    def full(self) -> bool:
        """True if put() would wait."""
        return self._maxsize is not None and self._qsize() >= self._maxsize

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x}{self._format()}>"

    def __str__(self) -> str:
        return f"<{type(self).__name__}{self._format()}>"

    def _format(self) -> str:
        shown = []
        if self._maxsize is not None:
            shown.append(f"maxsize={self._maxsize!r}")
        if getattr(self, "_items", None):
            shown.append(f"queue={self.queue!r}")
        if self._getters:
            shown.append(f"getters[{self._getters.waiting()}]")
        if self._putters:
            shown.append(f"putters[{self._putters.waiting()}]")
        return " " + " ".join(shown) if shown else ""

    # -- putting

    def put(self, item: T, block: bool = True, timeout: float | Timeout | None = None) -> None:
        """Add an item, waiting for a free place if need be.

        :param block: False: raise Full instead of waiting.
        :param timeout: seconds to wait at the most; then Full is raised. ValueError if negative.

        Raises ShutDown after shutdown().
        """
        if self._open:
            self._tasks += 1
            self._push(item)
            line = self._getters
            if line and not line[0].woken:  # atomic; line.tell() without the call
                line[0].wake()
            return
        if self._shut:
            raise ShutDown
        maxsize = self._maxsize
        if self._plain:
            if maxsize is None or len(self._items) < maxsize:
                self._tasks += 1
                self._push(item)
                line = self._getters
                if line and not line[0].woken:  # atomic; line.tell() without the call
                    line[0].wake()
                return
        elif maxsize is None or self._qsize() < maxsize:
            self._tasks += 1
            self._put(item)
            self._getters.tell()
            return
        if not block:
            raise Full
        _check_timeout(timeout)
        if _cannot_block():
            raise Full
        _stand_in_line(self._putters, lambda: self._try_put(item), self._has_place, timeout, Full)

    def _try_put(self, item: T) -> Any:
        if self.is_shutdown:
            raise ShutDown
        if self._maxsize is not None and self._qsize() >= self._maxsize:
            return _NOT_YET
        self._tasks += 1
        self._put(item)
        self._getters.tell()
        return None

    def _has_place(self) -> bool:
        return self.is_shutdown or self._maxsize is None or self._qsize() < self._maxsize

    def put_nowait(self, item: T) -> None:
        """Add an item, or raise Full. Never blocks."""
        if self._open:
            self._tasks += 1
            self._push(item)
            line = self._getters
            if line and not line[0].woken:
                line[0].wake()
            return
        self.put(item, False)

    async def aput(self, item: T, timeout: float | None = None) -> None:
        """In a coroutine: :meth:`put`."""
        if self._try_put(item) is _NOT_YET:
            _check_timeout(timeout)
            await _stand_in_line_async(
                self._putters, lambda: self._try_put(item), self._has_place, timeout, Full
            )

    # -- getting

    def get(self, block: bool = True, timeout: float | Timeout | None = None) -> T:
        """Take the first item, waiting for one if there is none.

        :param block: False: raise Empty instead of waiting.
        :param timeout: seconds to wait at the most; then Empty is raised. ValueError if negative.

        Raises ShutDown after shutdown(), once the queue is empty.
        """
        if self._plain:
            if self._items:  # atomic, unless the items are a heap
                try:
                    item = self._pop()
                except IndexError:  # another thread took it
                    return self._wait_for_item(self._get, block, timeout)
                line = self._putters
                if line and not line[0].woken:  # atomic; line.tell() without the call
                    line[0].wake()
                return item
            if block and timeout is None and not self.is_shutdown:
                return self._wait_plain()
        elif self._qsize():
            try:
                item = self._get()
            except IndexError:
                if type(self) is not PriorityQueue and self._qsize():
                    raise
                # another thread took it in between
            else:
                if self._putters:
                    self._putters.tell()
                return item
        return self._wait_for_item(self._get, block, timeout)

    def _wait_plain(self) -> T:
        """:func:`_stand_in_line` for the most frequent case."""
        try:
            wait = Wait()
        except BlockingSwitchOutError:
            if _cannot_block():
                raise Empty from None
            raise
        line = self._getters
        if line:
            line.prune()
        line.append(wait)
        try:
            while True:
                if self._items:
                    line.tell()  # put by another thread before we were in line
                wait.block()
                if self._items:  # atomic, unless the items are a heap
                    try:
                        item = self._pop()
                        break
                    except IndexError:
                        pass  # another thread took it
                if self.is_shutdown:
                    raise ShutDown
                wait.again()
        except BaseException:
            line.discard(wait)
            if line and self._has_item():
                line.tell()
            raise
        if line and line[0] is wait:  # line.discard(wait) without the call
            line.popleft()
            if line and line[0].dead:
                line.trim()
        else:
            line.discard(wait)
        if self._items and line:
            line.tell()
        if self._putters:
            self._putters.tell()
        return item

    def peek(self, block: bool = True, timeout: float | Timeout | None = None) -> T:
        """The first item, which stays in the queue; otherwise like :meth:`get`."""
        if self._qsize():
            return self._peek()
        return self._wait_for_item(self._peek, block, timeout)

    def _wait_for_item(self, take: Callable[[], T], block: bool, timeout: Any) -> T:
        if self.is_shutdown:
            raise ShutDown
        _check_timeout(timeout)
        if not block or _cannot_block():
            raise Empty
        return _stand_in_line(  # type: ignore[no-any-return]
            self._getters, lambda: self._try_take(take), self._has_item, timeout, Empty
        )

    def _try_take(self, take: Callable[[], T]) -> Any:
        while True:
            if not self._qsize():
                if self.is_shutdown:
                    raise ShutDown
                return _NOT_YET
            try:
                item = take()
                break
            except IndexError:
                # another thread took it in between; for all we know of a subclass's _get(), it is broken
                if not self._plain and type(self) is not PriorityQueue and self._qsize():
                    raise
        if self._putters:
            self._putters.tell()
        return item

    def _has_item(self) -> bool:
        return self.is_shutdown or self._qsize() > 0

    def get_nowait(self) -> T:
        """Take the first item, or raise Empty. Never blocks."""
        if self._items and self._plain:  # atomic, unless the items are a heap
            try:
                item = self._pop()
            except IndexError:
                return self.get(False)
            line = self._putters
            if line and not line[0].woken:
                line[0].wake()
            return item
        return self.get(False)

    def peek_nowait(self) -> T:
        """The first item, or raise Empty. Never blocks."""
        return self.peek(False)

    async def aget(self, timeout: float | None = None) -> T:
        """In a coroutine: :meth:`get`."""
        item = self._try_take(self._get)
        if item is not _NOT_YET:
            return item  # type: ignore[no-any-return]
        _check_timeout(timeout)
        return await _stand_in_line_async(  # type: ignore[no-any-return]
            self._getters, lambda: self._try_take(self._get), self._has_item, timeout, Empty
        )

    # -- iterating

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

    def _unlock(self) -> None:
        """Tell those who have something to do; for libraries that call it after changing ``queue``."""
        if self._qsize():
            self._getters.tell()
        if self._has_place():
            self._putters.tell()


class Queue(SimpleQueue[T]):
    """A :class:`SimpleQueue` that counts what is left to do and can be shut down."""

    __slots__ = ("_joiners",)

    def __init__(
        self,
        maxsize: int | None = None,
        items: Iterable[T] = (),
        unfinished_tasks: int | None = None,
        _warn_depth: int = 3,
    ) -> None:
        self._joiners = WaitLine()
        super().__init__(maxsize, items, _warn_depth=_warn_depth)
        if unfinished_tasks:
            self._tasks = unfinished_tasks

    @property
    def unfinished_tasks(self) -> int:
        """How many items were put and not yet reported done."""
        return self._tasks

    @unfinished_tasks.setter
    def unfinished_tasks(self, value: int) -> None:
        self._tasks = value

    def copy(self: Q) -> Q:
        """A queue of the same kind with the same items and count of unfinished tasks."""
        return type(self)(self._maxsize, self.queue, self._tasks)

    def _format(self) -> str:
        result = super()._format()
        if self._tasks:
            result += f" tasks={self._tasks}"
        return result

    def task_done(self) -> None:
        """Report that an item taken with get() has been dealt with.

        ValueError if called more often than items were put.
        """
        if self._tasks <= 0:
            raise ValueError("task_done() called too many times")
        self._tasks -= 1
        if not self._tasks:
            self._joiners.wake_all()

    def join(self, timeout: float | Timeout | None = None) -> bool:
        """Block until all items were reported done, for ``timeout`` seconds at the most.

        True if they were.
        """
        if not self._tasks:
            return True
        wait = Wait()
        self._joiners.append(wait)
        if not self._tasks:
            wait.wake()
        try:
            return wait_limited(wait, timeout)
        finally:
            self._joiners.discard(wait)

    async def ajoin(self, timeout: float | None = None) -> bool:
        """In a coroutine: :meth:`join`."""
        if not self._tasks:
            return True
        wait = AsyncWait()
        self._joiners.append(wait)
        if not self._tasks:
            wait.wake()
        try:
            return await wait.block(timeout)
        finally:
            self._joiners.discard(wait)

    def shutdown(self, immediate: bool = False) -> None:
        """Take no more items: put() raises ShutDown from now on, get() when the queue is empty.

        :param immediate: drop the items that are left, counting them as done.

        Who waits in put(), or in get() of an empty queue, gets ShutDown; as the standard library's queue.
        """
        self.is_shutdown = True
        if immediate:
            while self._qsize():
                self._get()
                if self._tasks > 0:
                    self._tasks -= 1
            # nobody is left who will report the items in hand done
            self._joiners.wake_all()
        for line in (self._getters, self._putters):
            for wait in tuple(line):
                wait.wake()


class UnboundQueue(Queue[T]):
    """A queue without a limit."""

    __slots__ = ()

    def __init__(self, maxsize: int | None = None, items: Iterable[T] = ()) -> None:
        if maxsize is not None:
            raise ValueError("UnboundQueue has no maxsize; use Queue(maxsize)")
        super().__init__(maxsize, items)


JoinableQueue = Queue


_COMPARED_IN_C = frozenset({int, float, str, bytes})


class PriorityQueue(Queue[T], plain=True):
    """A queue that gives the smallest item first; items are compared, for instance (priority, data)."""

    __slots__ = ("_comparing", "_harmless")

    def _init(self, maxsize: int | None, items: Iterable[T] = ()) -> None:
        # Items may compare themselves in Python, where threads change: a heap that another thread then
        # touches loses items. Reentrant, as signal handlers and finalizers may use a queue, too.
        self._comparing = RLock()
        #: all items so far compare themselves in C, without another thread in between
        self._harmless = not items
        super()._init(maxsize, items)

    def _create_queue(self, items: Iterable[T] = ()) -> list[T]:
        queue = list(items)
        heapify(queue)  # type: ignore[type-var]
        return queue

    def _bind(self, items: Any) -> None:
        self._pop = self._get
        self._push = self._put

    def _put(self, item: T) -> None:
        if self._harmless:
            if type(item) in _COMPARED_IN_C:
                heappush(self._items, item)
                return
            self._harmless = False
        with self._comparing:
            heappush(self._items, item)

    def _get(self) -> T:
        if self._harmless:
            return heappop(self._items)  # type: ignore[no-any-return]
        with self._comparing:
            return heappop(self._items)  # type: ignore[no-any-return]


class LifoQueue(Queue[T], plain=True):
    """A queue that gives the newest item first."""

    __slots__ = ()

    def _create_queue(self, items: Iterable[T] = ()) -> list[T]:
        return list(items)

    def _bind(self, items: Any) -> None:
        self._pop = items.pop
        self._push = items.append

    def _put(self, item: T) -> None:
        self._items.append(item)

    def _get(self) -> T:
        return self._items.pop()  # type: ignore[no-any-return]

    def _peek(self) -> T:
        return self._items[-1]  # type: ignore[no-any-return]


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


class Channel(Generic[T]):
    """A queue that holds nothing: put() waits until a getter has taken the item."""

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

    def put(self, item: T, block: bool = True, timeout: float | Timeout | None = None) -> None:
        """Wait until a getter takes the item.

        :param block: False: only if a getter is waiting now; else Full is raised.
        :param timeout: seconds to wait at the most; then Full is raised.
        """
        try:
            offer = Wait()
        except BlockingSwitchOutError:
            if not _cannot_block():
                raise
            if not self.getters:
                raise Full from None
            self.putters.append(_Deposit(item))
            self.getters.tell()
            return
        if not block:
            timeout = 0
        offer.item = item
        if self.putters:
            self.putters.prune()
        self.putters.append(offer)
        line = self.getters
        if line and not line[0].woken:
            line[0].wake()
        try:
            taken = offer.block() if timeout is None else wait_limited(offer, timeout)
        except BaseException:
            self.putters.discard(offer)
            raise
        if not taken and self.putters.discard(offer):  # else taken in the moment in which the time was over
            raise timeout._to_throw() if isinstance(timeout, Timeout) else Full

    def put_nowait(self, item: T) -> None:
        """Hand the item to a waiting getter, or raise Full."""
        self.put(item, False)

    def get(self, block: bool = True, timeout: float | Timeout | None = None) -> T:
        """Take an item from a putter, waiting for one.

        :param block: False: raise Empty instead of waiting.
        :param timeout: seconds to wait at the most; then Empty is raised.
        """
        if self.putters and (not self.getters or _cannot_block()):
            item = self._take()
            if item is not _NOT_YET:
                return item  # type: ignore[no-any-return]
        if timeout is not None or not block:
            if _cannot_block():
                raise Empty
            return _stand_in_line(  # type: ignore[no-any-return]
                self.getters, self._take, self._has_putter, timeout if block else 0, Empty
            )
        # the same for the most frequent case
        try:
            wait = Wait()
        except BlockingSwitchOutError:
            if _cannot_block():
                raise Empty from None
            raise
        line = self.getters
        putters = self.putters
        if line:
            line.prune()
        line.append(wait)
        try:
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
        offer.wake()
        if line and line[0] is wait:  # line.discard(wait) without the call
            line.popleft()
            if line and line[0].dead:
                line.trim()
        else:
            line.discard(wait)
        if line and putters:
            line.tell()
        return offer.item  # type: ignore[no-any-return]

    def _take(self) -> Any:
        try:
            offer = self.putters.leave()
        except IndexError:
            return _NOT_YET
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
        return await _stand_in_line_async(  # type: ignore[no-any-return]
            self.getters, self._take, self._has_putter, timeout, Empty
        )

    def _unlock(self) -> None:
        if self.putters:
            self.getters.tell()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self.get()
        if item is StopIteration:
            raise StopIteration
        return item

    next = __next__

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        item = await self.aget()
        if item is StopIteration:
            raise StopAsyncIteration
        return item
