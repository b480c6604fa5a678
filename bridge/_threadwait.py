"""Waits for code that does not know whether a greenlet, a coroutine or a bare thread runs it: that of locks.

A greenlet waits in its hub, as everywhere. Two others have to be served, since the locks of :mod:`threading`
are used by everybody:

- *A thread without a hub*, as the workers of asyncio's executor. It has no greenlets that could go on, so the
  thread itself blocks, and no loop is made for it.
- *The hub itself, and coroutines*, which must not wait for a greenlet of their own thread: that could never
  release the lock. But they may have met another thread in a critical section that is over in a moment, as
  unpatched code does all the time (a future's lock, say, that a worker holds while it sets the result).
  So where there are other threads they wait for these, briefly, before they refuse to.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock, get_ident
from typing import Any

from ._core.current import MAIN_THREAD_IDENT
from ._core.errors import BlockingSwitchOutError
from ._core.hub import hub_local
from ._core.waiting import Wait

__all__ = ["BriefWait", "ThreadWait", "own_place", "waiting_place"]

#: How many seconds the hub waits for another thread, which may not be the one it has to wait for.
PATIENCE = 0.1


class ThreadWait:
    """A wait of a whole thread; it has the face of :class:`bridge._core.waiting.Wait`."""

    __slots__ = ("dead", "item", "lock", "woken")

    #: it is never in a ready queue
    queued = False

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.lock.acquire()
        self.woken = self.dead = False

    def block(self, timeout: float | None = None) -> bool:
        """Block the thread until :meth:`wake` (True) or for ``timeout`` seconds (False)."""
        return self.lock.acquire(True, -1 if timeout is None else max(timeout, 0))

    def wake(self) -> None:
        """End the wait. From any thread."""
        if not self.woken:  # atomic
            self.woken = True
            self.lock.release()

    def again(self) -> None:
        """A wake-up was in vain, if there was one: the next one counts."""
        self.woken = False  # atomic: a wake-up comes before both of these lines or after them
        self.lock.acquire(False)

    def give_up(self) -> None:
        """The wait ends without blocking."""
        self.woken = True

    def take_back(self) -> None:
        """A thread that was woken runs: it sees for itself that what it was for is gone."""

    def abandoned(self) -> bool:
        """False: no loop has to run for it."""
        return False


class BriefWait(ThreadWait):
    """A wait of the hub for another thread: raises ``refusal`` when that takes long."""

    __slots__ = ("refusal",)

    def __init__(self, refusal: BaseException) -> None:
        super().__init__()
        self.refusal = refusal

    def block(self, timeout: float | None = None) -> bool:
        if timeout is not None and timeout <= PATIENCE:
            return super().block(timeout)
        if super().block(PATIENCE):
            return True
        try:
            raise self.refusal
        finally:
            del self  # the traceback refers to this frame, and we to the exception


def waiting_place() -> Any:
    """A wait for whoever calls. BlockingSwitchOutError in the hub if there is nobody to wait for."""
    try:
        return own_place()
    except BlockingSwitchOutError as e:
        if len(sys._current_frames()) < 2:
            raise
        return BriefWait(e)


def own_place() -> Any:
    """A wait for whoever calls. BlockingSwitchOutError in the hub."""
    if hub_local.hub is None and get_ident() != MAIN_THREAD_IDENT:
        return ThreadWait()
    return Wait()
