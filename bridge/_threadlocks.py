"""The locks that patched programs get from :mod:`_thread` and :mod:`threading`.

They are those of :mod:`bridge.lock` with the manners of the standard library: what may be passed, what is
raised, what is shown. How they wait is told in :mod:`bridge._threadwait`.
"""

from __future__ import annotations

import sys
from _thread import TIMEOUT_MAX, get_ident
from reprlib import recursive_repr
from typing import Any

from greenlet import getcurrent

from ._core.errors import BlockingSwitchOutError
from ._core.hub import hub_local
from ._threadwait import ThreadWait, own_place, waiting_place
from .hub import sleep
from .lock import BoundedSemaphore
from .lock import RLock as _RLock
from .lock import _owner as _current_owner

__all__ = ["HandlerLock", "LockType", "RLock", "Sentinel"]


def _check(blocking: Any, timeout: Any) -> None:
    """Refuse what ``_thread.lock.acquire`` refuses; called if there is a timeout."""
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0:
        raise ValueError(f"acquire(timeout={timeout!r}): it must be 0 or more seconds, or -1 for no limit")
    if timeout > TIMEOUT_MAX:
        raise OverflowError(f"acquire(timeout={timeout!r}): it is longer than threading.TIMEOUT_MAX")


def give_way() -> None:
    """Let others run, where a greenlet may: somebody may be spinning for what they are to release."""
    hub = hub_local.hub
    if hub is not None:
        loop = hub.loop
        if loop is not None and loop.probe() is None and getcurrent() is not hub:
            sleep(0)


class LockType(BoundedSemaphore):
    """A lock as ``threading.Lock()`` gives it: whoever may release it, and nobody owns it.

    May be used by greenlets, coroutines (``async with``) and threads, also those without a hub. An
    attempt that fails without waiting (``acquire(False)``) lets other greenlets run, so that a loop of
    attempts ends.
    """

    __slots__ = ()

    _OVER_RELEASE_ERROR = RuntimeError
    _wait = staticmethod(waiting_place)

    def __init_subclass__(cls, *, internal: bool = False) -> None:
        if not internal:
            # as with the real one: who overrides acquire() would find that others don't call it
            raise TypeError(f"type {LockType.__module__}.LockType is not an acceptable base type of {cls!r}")

    def __init__(self) -> None:
        self.counter = self._initial_value = 1
        self._line = None

    def __repr__(self) -> str:
        cls = type(self)
        state = "unlocked" if self.counter else "locked"
        return f"<{state} {cls.__module__}.{cls.__qualname__} object at {id(self):#x}>"

    __str__ = __repr__

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # type: ignore[override]
        """Lock it, waiting until it is unlocked; whether it was locked.

        :param blocking: False: do not wait.
        :param timeout: seconds to wait at the most; -1: no limit.

        ValueError for a timeout without waiting and for other negative ones, OverflowError for one of more
        than ``threading.TIMEOUT_MAX``. Blocks the greenlet; in a thread without a hub the thread.
        """
        if timeout != -1:
            _check(blocking, timeout)
        if self.counter > 0:  # atomic
            self.counter = 0
            if self._line:
                self._snatched()
            return True
        if blocking and timeout:
            return self._wait_in_line(None if timeout == -1 else timeout, True)
        give_way()
        if self.counter > 0:  # atomic
            self.counter = 0
            if self._line:
                self._snatched()
            return True
        return False

    def _snatched(self) -> None:
        """We took what the head of the line has been told of."""
        line = self._line
        if line:
            line[0].take_back()
            if self.counter > 0:  # another thread released while the head counted as told
                line.tell()

    def release(self) -> None:  # type: ignore[override]
        """Unlock it; RuntimeError if it is not locked. From anywhere, any thread; never blocks."""
        if self.counter > 0:
            raise RuntimeError("release unlocked lock")
        self.counter = 1
        if self._line:
            self._line.tell()

    def __enter__(self) -> bool:  # type: ignore[override]
        if self.counter > 0:  # atomic
            self.counter = 0
            if self._line:
                self._snatched()
            return True
        return self._wait_in_line(None, True)

    def __exit__(self, *exc: object) -> None:
        if self.counter > 0:
            raise RuntimeError("release unlocked lock")
        self.counter = 1
        if self._line:
            self._line.tell()

    def _is_owned(self) -> bool:
        """For threading.Condition, which would try to acquire it to find out."""
        return self.counter <= 0

    def _at_fork_reinit(self) -> None:
        """In a forked child: unlock it. Greenlets in line go on there, other threads do not."""
        self.counter = 1
        line = self._line
        if line:
            me = get_ident()
            for wait in tuple(line):
                place: Any = getattr(wait, "engine", None) or wait
                if isinstance(wait, ThreadWait) or getattr(place, "thread_ident", me) != me:
                    line.discard(wait)
            line.tell()

    # the names that these methods once had; CPython still has them

    acquire_lock = acquire
    release_lock = release

    def locked_lock(self) -> bool:
        """:meth:`locked`"""
        return self.counter <= 0


class Sentinel(LockType, internal=True):
    """A lock that stands for the life of a thread: locked by its begin, released by its end.

    Once it has ended it stays unlocked: who waits for a thread acquires the lock and releases it again, and
    others, in other threads too, must not take it for alive in between. Asking whether the thread is alive is
    to try the lock, which does not let others run here.
    """

    __slots__ = ("_over",)

    def __init__(self) -> None:
        super().__init__()
        self._over = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # type: ignore[override]
        """The first one marks the begin; later ones wait for the end, whether it has come."""
        if timeout != -1:
            _check(blocking, timeout)
        if self.counter > 0:
            if not self._over:
                self.counter = 0
            return True
        if blocking and timeout:
            return self._wait_in_line(None if timeout == -1 else timeout, False)
        return False

    def release(self) -> None:  # type: ignore[override]
        """The thread has ended, or who waited for that goes on. RuntimeError if it has not begun."""
        if self.counter > 0 and not self._over:
            raise RuntimeError("release unlocked lock")
        self.end()

    def end(self) -> None:
        """The thread has ended. Does nothing the second time."""
        if self.counter <= 0:
            self._over = True  # first: from then on nobody locks it
            self.counter = 1
            if self._line:
                self._line.tell()

    def _at_fork_reinit(self) -> None:
        """In a forked child: it may begin anew."""
        self._over = False
        super()._at_fork_reinit()

    acquire_lock = acquire
    release_lock = release


class RLock(_RLock):
    """A lock as ``threading.RLock()`` gives it: its owner may acquire it again.

    The owner is the greenlet, in a coroutine the task. May be used by threads without a hub, too.
    """

    __slots__ = ()

    def __init__(self, *_: object, **__: object) -> None:  # ignored, as CPython does
        self._block: LockType = LockType()
        self._owner: Any = None
        self._count = 0

    @recursive_repr()  # the owner may be a greenlet that shows a method of this lock
    def __repr__(self) -> str:
        cls = type(self)
        state = "unlocked" if self._owner is None else "locked"
        return (
            f"<{state} {cls.__module__}.{cls.__qualname__} object owner={self._owner!r} "
            f"count={self._count} at {id(self):#x}>"
        )

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # type: ignore[override]
        """Acquire, again if it is ours, waiting if it is another's; whether it was acquired.

        :param blocking: False: do not wait.
        :param timeout: seconds to wait at the most; -1: no limit.

        Raises as ``Lock.acquire`` does. Blocks the greenlet; in a thread without a hub the thread.
        """
        if timeout != -1:
            _check(blocking, timeout)
        me = _current_owner()
        if self._owner is me:
            self._count += 1
            return True
        block = self._block
        if block.counter > 0:  # atomic
            block.counter = 0
            if block._line:
                block._snatched()
        elif not block.acquire(blocking, timeout):
            return False
        self._owner = me
        self._count = 1
        return True

    def __enter__(self) -> bool:
        me = _current_owner()
        if self._owner is me:
            self._count += 1
            return True
        block = self._block
        if block.counter > 0:  # atomic
            block.counter = 0
            if block._line:
                block._snatched()
        else:
            block._wait_in_line(None, True)
        self._owner = me
        self._count = 1
        return True

    def release(self) -> None:
        """Undo one acquire(). RuntimeError if the lock is not ours."""
        if self._owner is not _current_owner():
            raise RuntimeError("cannot release un-acquired lock")
        self._count = count = self._count - 1
        if not count:
            self._owner = None
            block = self._block
            block.counter = 1
            if block._line:
                block._line.tell()

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _acquire_restore(self, count_owner: tuple[int, Any]) -> None:
        block = self._block
        if block.counter > 0:  # atomic
            block.counter = 0
            if block._line:
                block._snatched()
        else:
            block._wait_in_line(None, True)
        self._count, self._owner = count_owner

    def _release_save(self) -> tuple[int, Any]:
        if not self._count:
            raise RuntimeError("cannot release un-acquired lock")
        saved = (self._count, self._owner)
        self._count = 0
        self._owner = None
        self._block.release()
        return saved


class _HandlerBlock(LockType, internal=True):
    """The inside of a HandlerLock: nobody waits where he should not, not even briefly."""

    __slots__ = ()
    _wait = staticmethod(own_place)


class HandlerLock(RLock):
    """The lock of a handler of :mod:`logging`: logging never fails for want of it.

    Where nobody can wait, in the hub and in coroutines, a lock that another holds is borrowed: the record is
    written at once. What runs there runs to its end without a switch, so a number is all there is to keep.
    """

    __slots__ = ("_borrowed", "_lost")

    def __init__(self) -> None:
        super().__init__()
        self._block = _HandlerBlock()
        self._borrowed = 0
        self._lost: Any = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # type: ignore[override]
        """As of any RLock, but where nothing may block it is acquired without being ours."""
        try:
            return super().acquire(blocking, timeout)
        except BlockingSwitchOutError:
            pass
        except RuntimeError:
            if (
                not sys.is_finalizing()
            ):  # then there are no greenlets any more, and none that holds it goes on
                raise
        self._borrowed += 1
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def release(self) -> None:
        """Undo one acquire()."""
        me = _current_owner()
        if self._owner is not me:
            if self._borrowed:
                self._borrowed -= 1
                return
            if self._lost is me:
                return
        super().release()

    def _at_fork_reinit(self) -> None:
        """In a forked child, where logging frees all its locks: who held it may go on and release it."""
        if self._owner is not None:
            self._lost = self._owner
        super()._at_fork_reinit()
        self._borrowed = 0
