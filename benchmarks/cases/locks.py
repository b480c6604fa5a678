"""Semaphores and RLock, free and fought for."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.lock import BoundedSemaphore, RLock, Semaphore
from stopwatch import Stopwatch, check

RIVALS = 100


def _free(lock: Any, n: int, measure: Stopwatch) -> None:
    """Acquire and release where nobody else wants it."""
    acquired = 0
    with measure:
        for _ in range(n):
            acquired += lock.acquire()
            lock.release()
    check(acquired == n, "a free lock must be given")


def _contended(lock: Any, n: int, measure: Stopwatch) -> None:
    """A hundred greenlets, each of which gives way while it holds the lock."""
    inside = [0]
    turns = [0]

    def rival() -> None:
        for _ in range(n // RIVALS):
            with lock:
                inside[0] += 1
                check(inside[0] == 1, "only one may be inside")
                gevent.sleep(0)
                inside[0] -= 1
                turns[0] += 1

    with measure:
        gevent.joinall([gevent.spawn(rival) for _ in range(RIVALS)], raise_error=True)
    check(turns[0] == n // RIVALS * RIVALS, "everybody must get all turns")


def semaphore(n: int, measure: Stopwatch) -> None:
    """Semaphore(1)."""
    lock = Semaphore(1)
    _free(lock, n, measure)
    check(lock.counter == 1, "the permit must be back")


def bounded_semaphore(n: int, measure: Stopwatch) -> None:
    """BoundedSemaphore(1)."""
    lock = BoundedSemaphore(1)
    _free(lock, n, measure)
    check(lock.counter == 1, "the permit must be back")


def rlock(n: int, measure: Stopwatch) -> None:
    """RLock, not nested."""
    _free(RLock(), n, measure)


def semaphore_contended(n: int, measure: Stopwatch) -> None:
    """Semaphore(1)."""
    _contended(Semaphore(1), n, measure)


def bounded_semaphore_contended(n: int, measure: Stopwatch) -> None:
    """BoundedSemaphore(1)."""
    _contended(BoundedSemaphore(1), n, measure)


def rlock_contended(n: int, measure: Stopwatch) -> None:
    """RLock."""
    _contended(RLock(), n, measure)
