"""Timeouts: mostly those that never fire, as in programs."""

from __future__ import annotations

import gevent
from gevent import Timeout
from stopwatch import Stopwatch, check


def timeout_with(n: int, measure: Stopwatch) -> None:
    """Nothing inside."""
    entered = 0
    with measure:
        for _ in range(n):
            with Timeout(10):
                entered += 1
    check(entered == n, "every body must run")


def timeout_start_close(n: int, measure: Stopwatch) -> None:
    """Without a `with`."""
    pending = 0
    with measure:
        for _ in range(n):
            timeout = Timeout.start_new(10)
            pending += timeout.pending
            timeout.close()
    check(pending == n and not timeout.pending, "pending from start to close and not longer")


def with_timeout(n: int, measure: Stopwatch) -> None:
    """A call that does not block."""
    total = 0
    with measure:
        for i in range(n):
            total += gevent.with_timeout(10, int, i)
    check(total == n * (n - 1) // 2, "with_timeout must return what the function returned")


def timeout_fire(n: int, measure: Stopwatch) -> None:
    """A greenlet each, all of them interrupted in a sleep; starting them takes longer than 10 ms."""
    fired: list[int] = []

    def sleeper(me: int) -> None:
        timeout = Timeout(me % 11 / 1000)
        try:
            with timeout:
                gevent.sleep(3600)
        except Timeout as caught:
            check(caught is timeout, "a timeout must arrive where it was started")
            fired.append(me)

    with measure:
        gevent.joinall([gevent.spawn(sleeper, i) for i in range(n)], raise_error=True)
    check(sorted(fired) == list(range(n)), "every timeout must fire once")
