"""Native locks and a queue between native threads, whether or not the standard library is patched."""

from __future__ import annotations

from _queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from bridge.monkey import get_original

__all__ = ["EmptyTimeout", "Lock", "Queue"]

T = TypeVar("T")

Lock = get_original("_thread", "allocate_lock")


class EmptyTimeout(Exception):
    """Queue.get() found nothing in the time it was given."""


class Queue(Generic[T]):
    """An unlimited queue for native threads; ``get`` blocks the thread, not only the greenlet."""

    def __init__(self) -> None:
        self._items: SimpleQueue[T] = SimpleQueue()
        self.unfinished_tasks = 0

    def allocate_cookie(self) -> Any:
        """What each thread passes to :meth:`get`, as gevent's queue needs it. Never blocks."""
        return Lock()

    def put(self, item: T) -> None:
        """Add an item. From any thread; never blocks."""
        self.unfinished_tasks += 1
        self._items.put(item)

    def get(self, cookie: Any = None, timeout: float = -1) -> T:
        """Take the first item; blocks the thread.

        :param timeout: seconds to wait at the most, then EmptyTimeout is raised; -1: any time.
        """
        try:
            return self._items.get(timeout=None if timeout == -1 else timeout)
        except Empty:
            raise EmptyTimeout() from None

    def task_done(self) -> None:
        """Report that an item is dealt with; ValueError if called more often than items were put."""
        if self.unfinished_tasks <= 0:
            raise ValueError("task_done() called too many times")
        self.unfinished_tasks -= 1

    def qsize(self) -> int:
        """About how many items it holds."""
        return self._items.qsize()

    def empty(self) -> bool:
        """True if it holds nothing at the moment."""
        return self._items.empty()

    def full(self) -> bool:
        """False: there is no limit."""
        return False

    def kill(self) -> None:
        """Forget all items, as after a fork."""
        self._items = SimpleQueue()
        self.unfinished_tasks = 0
