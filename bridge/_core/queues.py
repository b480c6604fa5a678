"""The quick half of a queue: putting and taking when nobody has to wait.

Theory of operation
===================

Most calls of ``put`` and ``get`` find a free place, or an item. What they then have to do is always the same:
put the item in or take it out, and tell the head of the other line that there is something for it. That is
all that is done here; for all else, whatever may block, is shut down, or has methods that a subclass
overrides, ``_put_slowly`` and ``_get_slowly`` of the queue itself are called with the same arguments.

So the conditions are two attributes that the queue keeps up to date:

- ``_limit``: if it holds fewer items than this, an item may go in without further questions; -1: never.
- ``_takes``: an item that is there may be taken without further questions.

There are two of each class: this one, and its compiled twin in ``_queue.c``, which is used where it is there.
Nothing else may tell them apart. Several threads may use a queue: from the test of the size to the call that
puts or takes no other thread can run (see :mod:`.waiting`), unless the items are a heap; then the call itself
says that there is nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .accelerated import accelerator
from .waiting import WaitLine

__all__ = ["JoinableBase", "QueueBase"]


class QueueBase:
    """What :class:`bridge.queue.SimpleQueue` is made of; see the module's theory."""

    __slots__ = (
        "__weakref__", "_getters", "_items", "_limit", "_pop", "_push", "_putters", "_takes", "_tasks",
    )  # fmt: skip

    #: a deque, or a list
    _items: Any
    _pop: Callable[[], Any]
    _push: Callable[[Any], object]
    _getters: WaitLine
    _putters: WaitLine
    _limit: int
    #: items put and not yet reported done
    _tasks: int
    _takes: bool

    if TYPE_CHECKING:

        def _put_slowly(self, item: Any, block: bool, timeout: Any) -> None: ...
        def _get_slowly(self, block: bool, timeout: Any) -> Any: ...

    def put(self, item: Any, block: bool = True, timeout: Any = None) -> None:
        """Add an item, waiting for a free place if need be.

        :param block: False: raise Full instead of waiting.
        :param timeout: seconds to wait at the most; then Full is raised. ValueError if negative.

        Raises ShutDown after shutdown().
        """
        if timeout is None and len(self._items) < self._limit:  # the slow way looks at the timeout
            self._tasks += 1
            self._push(item)
            line = self._getters
            if line and not line[0].woken:  # atomic; line.tell() without the call
                line[0].wake()
            return
        self._put_slowly(item, block, timeout)

    def put_nowait(self, item: Any) -> None:
        """Add an item, or raise Full. Never blocks."""
        if len(self._items) < self._limit:
            self._tasks += 1
            self._push(item)
            line = self._getters
            if line and not line[0].woken:
                line[0].wake()
            return
        self._put_slowly(item, False, None)

    def get(self, block: bool = True, timeout: Any = None) -> Any:
        """Take the first item, waiting for one if there is none.

        :param block: False: raise Empty instead of waiting.
        :param timeout: seconds to wait at the most; then Empty is raised. ValueError if negative.

        Raises ShutDown after shutdown(), once the queue is empty.
        """
        if self._takes and self._items:  # atomic, unless the items are a heap
            try:
                item = self._pop()
            except IndexError:  # another thread took it
                return self._get_slowly(block, timeout)
            line = self._putters
            if line and not line[0].woken:  # atomic; line.tell() without the call
                line[0].wake()
            return item
        return self._get_slowly(block, timeout)

    def get_nowait(self) -> Any:
        """Take the first item, or raise Empty. Never blocks."""
        if self._takes and self._items:
            try:
                item = self._pop()
            except IndexError:
                return self._get_slowly(False, None)
            line = self._putters
            if line and not line[0].woken:
                line[0].wake()
            return item
        return self._get_slowly(False, None)


class JoinableBase(QueueBase):
    """A queue that counts what is left to do."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _last_done(self) -> None: ...

    def task_done(self) -> None:
        """Report that an item taken with get() has been dealt with.

        ValueError if called more often than items were put.
        """
        if self._tasks > 1:
            self._tasks -= 1
        else:
            self._last_done()


if not TYPE_CHECKING and (_compiled := accelerator("_queue")) is not None:
    QueueBase = _compiled.QueueBase
    JoinableBase = _compiled.JoinableBase
