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
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heapify, heappop, heappush
from queue import Empty, Full
from types import GenericAlias
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ._aio.asyncwait import AsyncWait
from ._channel import Channel
from ._core.engine import parks
from ._core.errors import BlockingSwitchOutError
from ._core.hub import get_hub_if_exists
from ._core.queues import JoinableBase, QueueBase
from ._core.waiting import Wait, WaitLine
from ._standing import (
    NOT_YET,
    Iterated,
    attempt_in_hub,
    cannot_block,
    check_timeout,
    stand_in_line,
    stand_in_line_async,
)
from .timeout import Timeout, wait_limited

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """Raised by put() and get() of a queue that was shut down."""


__implements__ = ["Queue", "PriorityQueue", "LifoQueue", "SimpleQueue"]
__imports__ = ["Empty", "Full"]
__extensions__ = ["JoinableQueue", "Channel", "UnboundQueue"]
(__imports__ if sys.version_info >= (3, 13) else __extensions__).append("ShutDown")
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

#: So many items are no limit. Not sys.maxsize, which is not compared as quickly.
_ANY = 2**30 - 1


def _put_nowait(self: SimpleQueue[Any], item: Any) -> None:
    """put(), without waiting."""
    self.put(item, False)


def _get_nowait(self: SimpleQueue[Any]) -> Any:
    """get(), without waiting."""
    return self.get(False)


class SimpleQueue(QueueBase, Iterated[T]):
    """A queue: first in, first out.

    :param maxsize: how many items it holds before put() waits; None: any number.
    :param items: what it holds in the beginning.

    ``for item in queue`` gives items, waiting for them, until the item is the class StopIteration; in a
    coroutine ``async for``. All methods may be called from any greenlet, coroutine or thread; those that
    block have a coroutine twin (``aget``, ``aput``).
    """

    if not TYPE_CHECKING:
        __class_getitem__ = classmethod(GenericAlias)  # as the standard library's, not typing's

    __slots__ = ("_maxsize", "_shut")

    #: True while none of the methods that a subclass may override is overridden: then the items are dealt
    #: with directly, by the bound functions ``_pop`` and ``_push``.
    _plain: ClassVar[bool] = True

    def __init_subclass__(cls, plain: bool | None = None) -> None:
        overridable = ("_create_queue", "_get", "_init", "_peek", "_put", "_qsize", "get", "put")
        cls._plain = (
            plain if plain is not None else cls._plain and not any(n in cls.__dict__ for n in overridable)
        )
        if plain is None:
            # what is put or got without waiting goes through a put() or get() of the subclass, too
            for name, through in (("put", _put_nowait), ("get", _get_nowait)):
                whose = next(c for c in cls.__mro__ if name in c.__dict__ or f"{name}_nowait" in c.__dict__)
                if f"{name}_nowait" not in whose.__dict__:
                    setattr(cls, f"{name}_nowait", through)

    def __init__(self, maxsize: int | None = None, items: Iterable[T] = (), _warn_depth: int = 2) -> None:
        try:
            unbound = maxsize is None or maxsize <= 0
        except TypeError:
            what = f"{type(self).__name__}(maxsize={maxsize!r})"
            raise TypeError(f"{what}: a number is needed, or None for no limit") from None
        if unbound:
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
        self._tasks = 0
        self._items = ()  # what overrides _init() may keep them elsewhere
        self._set_limit()
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
        self._pop = items.popleft
        self._push = items.append

    def _set_limit(self) -> None:
        """Say what may be done without further questions."""
        self._takes = self._plain
        if self._shut or not self._plain:
            self._limit = -1
        else:
            self._limit = _ANY if self._maxsize is None else self._maxsize

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
        self._set_limit()

    @property
    def maxsize(self) -> int | None:
        """How many items fit, None for any number.

        May be changed; who waits for a place notices when the next item is taken.
        """
        return self._maxsize

    @maxsize.setter
    def maxsize(self, value: int | None) -> None:
        self._maxsize = None if value is not None and value <= 0 else value
        self._set_limit()

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

    if TYPE_CHECKING:

        def put(self, item: T, block: bool = True, timeout: float | Timeout | None = None) -> None: ...
        def put_nowait(self, item: T) -> None: ...
        def get(self, block: bool = True, timeout: float | Timeout | None = None) -> T: ...
        def get_nowait(self) -> T: ...

    def _put_slowly(self, item: T, block: bool, timeout: float | Timeout | None) -> None:
        """put(): full, shut down, with a timeout, or the methods of a subclass are to be used."""
        if block and timeout is not None:
            if isinstance(timeout, int | float) and timeout < 0 and not self._has_place():
                raise Full  # as in gevent: what is left of a deadline may be negative
            check_timeout(timeout)
        if self._try_put(item) is not NOT_YET:
            return
        if block and timeout is None and self._plain:
            self._wait_for_place(item)
            return
        if not block or cannot_block():
            if attempt_in_hub(self._getters, lambda: self._try_put(item)) is NOT_YET:
                raise Full
            return
        stand_in_line(self._putters, lambda: self._try_put(item), self._has_place, timeout, Full)

    @parks
    def _wait_for_place(self, item: T) -> None:
        """:func:`stand_in_line` for the most frequent case of put()."""
        try:
            wait = Wait()
        except BlockingSwitchOutError:
            if not cannot_block():
                raise
            if attempt_in_hub(self._getters, lambda: self._try_put(item)) is NOT_YET:
                raise Full from None
            return
        line = self._putters
        if line:
            line.prune()
        try:
            line.append(wait)
            while True:
                if len(self._items) < self._limit or self._has_place():
                    line.tell()  # taken by another thread before we were in line
                wait.block()
                if len(self._items) < self._limit:
                    self._tasks += 1
                    self._push(item)
                    break
                if self._try_put(item) is not NOT_YET:  # raises ShutDown, and knows a limit that is gone
                    break
                wait.again()
        except BaseException:
            line.discard(wait)
            if line and self._has_place():
                line.tell()
            raise
        line.discard(wait)
        if self._getters:
            self._getters.tell()
        if line and self._has_place():
            line.tell_next()

    def _try_put(self, item: T) -> Any:
        if self.is_shutdown:
            raise ShutDown
        if self._maxsize is not None and self._qsize() >= self._maxsize:
            return NOT_YET
        self._tasks += 1
        self._put(item)
        self._getters.tell()
        return None

    def _has_place(self) -> bool:
        return self.is_shutdown or self._maxsize is None or self._qsize() < self._maxsize

    async def aput(self, item: T, timeout: float | None = None) -> None:
        """In a coroutine: :meth:`put`."""
        if self._try_put(item) is NOT_YET:
            check_timeout(timeout)
            await stand_in_line_async(
                self._putters, lambda: self._try_put(item), self._has_place, timeout, Full
            )

    # -- getting

    def _get_slowly(self, block: bool, timeout: float | Timeout | None) -> T:
        """get(): empty, or the methods of a subclass are to be used."""
        if self._plain:
            if block and timeout is None and not self._items and not self._shut:
                return self._wait_plain()
        elif self._qsize():
            try:
                item = self._get()
            except IndexError:
                if self._qsize():
                    raise
                # another thread took it in between
            else:
                if self._putters:
                    self._putters.tell()
                return item
        return self._wait_for_item(self._get, block, timeout)

    @parks
    def _wait_plain(self) -> T:
        """:func:`stand_in_line` for the most frequent case."""
        try:
            wait = Wait()
        except BlockingSwitchOutError:
            if cannot_block():
                return self._wait_for_item(self._get, False, None)
            raise
        line = self._getters
        if line:
            line.prune()
        try:
            line.append(wait)
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
                if self._shut:
                    raise ShutDown
                wait.again()
        except BaseException:
            line.discard(wait)
            if line and self._has_item():
                line.tell()
            raise
        line.discard(wait)
        if self._putters:
            self._putters.tell_next()
        if self._items and line:
            line.tell_next()
        return item  # type: ignore[no-any-return]

    def peek(self, block: bool = True, timeout: float | Timeout | None = None) -> T:
        """The first item, which stays in the queue; otherwise like :meth:`get`."""
        if self._qsize():
            return self._peek()
        return self._wait_for_item(self._peek, block, timeout)

    def _wait_for_item(self, take: Callable[[], T], block: bool, timeout: Any) -> T:
        if self.is_shutdown:
            raise ShutDown
        check_timeout(timeout)
        if not block or cannot_block():
            item = attempt_in_hub(self._putters, lambda: self._try_take(take))
            if item is NOT_YET:
                raise Empty
            return item  # type: ignore[no-any-return]
        return stand_in_line(  # type: ignore[no-any-return]
            self._getters, lambda: self._try_take(take), self._has_item, timeout, Empty
        )

    def _try_take(self, take: Callable[[], T]) -> Any:
        while True:
            if not self._qsize():
                if self.is_shutdown:
                    raise ShutDown
                return NOT_YET
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

    def peek_nowait(self) -> T:
        """The first item, or raise Empty. Never blocks."""
        return self.peek(False)

    async def aget(self, timeout: float | None = None) -> T:
        """In a coroutine: :meth:`get`."""
        item = self._try_take(self._get)
        if item is not NOT_YET:
            return item  # type: ignore[no-any-return]
        check_timeout(timeout)
        return await stand_in_line_async(  # type: ignore[no-any-return]
            self._getters, lambda: self._try_take(self._get), self._has_item, timeout, Empty
        )

    def _unlock(self) -> None:
        """Tell those who have something to do; for libraries that call it after changing ``queue``."""
        if self._qsize():
            self._getters.tell()
        if self._has_place():
            self._putters.tell()


class Queue(SimpleQueue[T], JoinableBase):
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

    def _last_done(self) -> None:
        """task_done(): nothing is left to do after this, or there was nothing."""
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
        try:
            self._joiners.append(wait)
            if not self._tasks:
                wait.wake()
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
        self._pop = partial(heappop, items) if self._harmless else self._get
        self._push = self._put

    def _put(self, item: T) -> None:
        if self._harmless:
            if type(item) in _COMPARED_IN_C:
                heappush(self._items, item)
                return
            self._harmless = False
            self._pop = self._get
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
