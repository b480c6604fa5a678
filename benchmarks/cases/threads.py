"""Real threads behind greenlets."""

from __future__ import annotations

import threading

import gevent
from stopwatch import Stopwatch, check


def threadpool_apply(n: int, measure: Stopwatch) -> None:
    """A job in a thread and its result back, one at a time."""
    pool = gevent.get_hub().threadpool
    total = 0
    with measure:
        for i in range(n):
            total += pool.apply(int, (i,))
    check(total == n * (n - 1) // 2, "every job must give its result")
    check(pool.apply(threading.get_ident) != threading.get_ident(), "jobs must run in another thread")
