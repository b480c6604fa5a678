"""Event and AsyncResult."""

from __future__ import annotations

import gevent
from gevent.event import AsyncResult, Event
from stopwatch import Stopwatch, check

WAITERS = 1000


def event_pingpong(n: int, measure: Stopwatch) -> None:
    """*n* times there and back."""
    ping, pong = Event(), Event()
    heard = [0]

    def partner() -> None:
        for _ in range(n):
            ping.wait()
            ping.clear()
            heard[0] += 1
            pong.set()

    with measure:
        greenlet = gevent.spawn(partner)
        for _ in range(n):
            ping.set()
            pong.wait()
            pong.clear()
        greenlet.join()
    check(heard[0] == n, "every ping must be heard once")


def asyncresult_pingpong(n: int, measure: Stopwatch) -> None:
    """*n* times there and back, new results each time."""
    pings = [AsyncResult() for _ in range(n)]
    pongs = [AsyncResult() for _ in range(n)]

    def partner() -> None:
        for ping, pong in zip(pings, pongs, strict=True):
            pong.set(ping.get() + 1)

    total = 0
    with measure:
        greenlet = gevent.spawn(partner)
        for i in range(n):
            pings[i].set(i)
            total += pongs[i].get()
        greenlet.join()
    check(total == n * (n + 1) // 2, "every result must come back one larger")


def event_1000(n: int, measure: Stopwatch) -> None:
    """The same thousand greenlets wait for one event after the other; *n* wake-ups together."""
    events = [Event() for _ in range(n // WAITERS)]
    woken = [0]

    def waiter() -> None:
        for event in events:
            event.wait()
            woken[0] += 1

    greenlets = [gevent.spawn(waiter) for _ in range(WAITERS)]
    gevent.sleep(0)
    check(woken[0] == 0, "nobody may be woken before the event is set")
    with measure:
        for i, event in enumerate(events):
            event.set()
            while woken[0] < (i + 1) * WAITERS:
                gevent.sleep(0)
    gevent.joinall(greenlets)
    check(woken[0] == len(events) * WAITERS, "every waiter must be woken once by each event")
