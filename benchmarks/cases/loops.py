"""The watcher API of the hub's loop."""

from __future__ import annotations

import gevent
from stopwatch import Stopwatch, check


def run_callback(n: int, measure: Stopwatch) -> None:
    """All scheduled first, then all run."""
    loop = gevent.get_hub().loop
    ran: list[int] = []
    with measure:
        for i in range(n):
            loop.run_callback(ran.append, i)
        while len(ran) < n:
            gevent.sleep(0)
    check(ran == list(range(n)), "callbacks must run in the order of their scheduling")


def loop_timer(n: int, measure: Stopwatch) -> None:
    """Timers that are stopped before they fire."""
    loop = gevent.get_hub().loop
    fired: list[None] = []
    active = 0
    with measure:
        for _ in range(n):
            timer = loop.timer(10)
            timer.start(fired.append, None)
            active += timer.active
            timer.stop()
            timer.close()
    check(active == n and not fired, "started timers must be active, stopped ones must not fire")
