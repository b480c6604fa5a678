"""Very many at once: memory, a hundred thousand sleepers, growth of cost."""

from __future__ import annotations

import gc
from collections.abc import Callable

import gevent
import growth
from gevent.event import Event
from gevent.queue import Queue
from stopwatch import Stopwatch, check, resident_bytes

from cases.sleepers import check_killed, fall_asleep


def asleep_100k(n: int, measure: Stopwatch) -> None:
    """From nothing to all of them asleep, and back."""
    with measure:
        greenlets = fall_asleep(n)
        gevent.killall(greenlets)
    check_killed(greenlets)


def memory_idle(n: int, measure: Stopwatch) -> float:
    """Return the bytes by which the process grew, per greenlet."""
    gevent.killall(fall_asleep(10))
    gc.collect()
    before = resident_bytes()
    with measure:
        greenlets = fall_asleep(n)
    grown = resident_bytes() - before
    gevent.killall(greenlets)
    check_killed(greenlets)
    check(grown > 0, "greenlets must take memory")
    return grown / n


def _growth(once: Callable[[int, Stopwatch], None], largest: int, measure: Stopwatch) -> float:
    """Return the exponent of *once*, which does its work for a given number of things."""
    costs = growth.Costs(largest, measure)
    for size, watch in costs.rounds():
        once(size, watch)
    return costs.exponent()


def growth_spawn(n: int, measure: Stopwatch) -> float:
    """Spawn and join."""

    def once(size: int, watch: Stopwatch) -> None:
        ran: list[int] = []
        with watch:
            gevent.joinall([gevent.spawn(ran.append, i) for i in range(size)])
        check(len(ran) == size, "every greenlet must run")

    return _growth(once, n, measure)


def growth_timers(n: int, measure: Stopwatch) -> float:
    """Timers that are all pending together, started and stopped in scattered order."""

    def once(size: int, watch: Stopwatch) -> None:
        loop = gevent.get_hub().loop
        fired: list[None] = []
        # 7919 is prime: a scattered order that visits every delay once
        delays = [100 + i * 7919 % size / size for i in range(size)]
        with watch:
            timers = [loop.timer(delay) for delay in delays]
            for timer in timers:
                timer.start(fired.append, None)
            for timer in timers:
                timer.stop()
                timer.close()
        check(not fired, "stopped timers must not fire")

    return _growth(once, n, measure)


def growth_event(n: int, measure: Stopwatch) -> float:
    """Waiters of one event: begin to wait, are woken, end."""

    def once(size: int, watch: Stopwatch) -> None:
        event = Event()
        greenlets = [gevent.spawn(event.wait) for _ in range(size)]
        with watch:
            gevent.sleep(0)
            event.set()
            gevent.joinall(greenlets)
        check(all(greenlet.value is True for greenlet in greenlets), "every waiter must be woken")

    return _growth(once, n, measure)


def growth_queue(n: int, measure: Stopwatch) -> float:
    """Waiters of one queue: begin to wait, get an item each, end."""

    def once(size: int, watch: Stopwatch) -> None:
        queue = Queue()
        greenlets = [gevent.spawn(queue.get) for _ in range(size)]
        with watch:
            gevent.sleep(0)
            for i in range(size):
                queue.put(i)
            gevent.joinall(greenlets)
        check(sum(g.value for g in greenlets) == size * (size - 1) // 2, "every item must be received")

    return _growth(once, n, measure)
