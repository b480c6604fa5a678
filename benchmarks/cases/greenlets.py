"""Making greenlets, waiting for them, ending them."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
from stopwatch import Stopwatch, check

from cases.sleepers import check_killed, fall_asleep

BATCH = 1000


def _nothing() -> None:
    """What a greenlet does when only its making and ending is of interest."""


def _batches(n: int, size: int = BATCH) -> Iterator[int]:
    check(n % size == 0, f"{n} operations cannot be cut into batches of {size}")
    return iter(range(n // size))


def spawn_join(n: int, measure: Stopwatch) -> None:
    """Spawn all, then join each."""
    ran: list[int] = []
    with measure:
        greenlets = [gevent.spawn(ran.append, i) for i in range(n)]
        for greenlet in greenlets:
            greenlet.join()
    check(ran == list(range(n)), "greenlets must run in the order in which they were spawned")
    check(all(greenlet.successful() for greenlet in greenlets), "every greenlet must end well")


def spawn_join_batches(n: int, measure: Stopwatch) -> None:
    """Never more than 100 greenlets at a time."""
    ran: list[int] = []
    with measure:
        for batch in _batches(n, 100):
            greenlets = [gevent.spawn(ran.append, batch) for _ in range(100)]
            for greenlet in greenlets:
                greenlet.join()
    check(ran == [i // 100 for i in range(n)], "every batch must end before the next begins")


def spawn_join_one(n: int, measure: Stopwatch) -> None:
    """Never more than one greenlet besides the main one."""
    ran: list[int] = []
    with measure:
        for i in range(n):
            gevent.spawn(ran.append, i).join()
    check(ran == list(range(n)), "every greenlet must have run when join() returns")


def spawn_raw(n: int, measure: Stopwatch) -> None:
    """Bare greenlets, which nothing can wait for."""
    ran: list[int] = []
    with measure:
        for i in range(n):
            gevent.spawn_raw(ran.append, i)
        while len(ran) < n:
            gevent.sleep(0)
    check(ran == list(range(n)), "raw greenlets must run in the order in which they were spawned")


def spawn_later(n: int, measure: Stopwatch) -> None:
    """Starts spread over 10 ms; making the greenlets takes longer than that."""
    ran: list[int] = []
    with measure:
        gevent.joinall([gevent.spawn_later(i % 11 / 1000, ran.append, i) for i in range(n)])
    check(sorted(ran) == list(range(n)), "every greenlet must run once")


def joinall(n: int, measure: Stopwatch) -> None:
    """Batches of 1000."""
    with measure:
        for _ in _batches(n):
            greenlets = [gevent.spawn(_nothing) for _ in range(BATCH)]
            done = gevent.joinall(greenlets)
            check(done == greenlets, "joinall must return the greenlets in their order")


def wait(n: int, measure: Stopwatch) -> None:
    """Batches of 1000."""
    with measure:
        for _ in _batches(n):
            done = gevent.wait([gevent.spawn(_nothing) for _ in range(BATCH)])
            check(len(done) == BATCH, "wait must return every greenlet")


def iwait(n: int, measure: Stopwatch) -> None:
    """Batches of 1000."""
    with measure:
        for _ in _batches(n):
            done = set(gevent.iwait([gevent.spawn(_nothing) for _ in range(BATCH)]))
            check(len(done) == BATCH, "iwait must yield every greenlet once")


def link(n: int, measure: Stopwatch) -> None:
    """A callback per greenlet, which itself runs in a greenlet of its own."""
    seen: list[int] = []

    def ended(greenlet: gevent.Greenlet) -> None:
        seen.append(greenlet.value)

    with measure:
        for i in range(n):
            gevent.spawn(int, i).link(ended)
        while len(seen) < n:
            gevent.sleep(0)
    check(sorted(seen) == list(range(n)), "every link must be called once with its greenlet")


def kill_one(n: int, measure: Stopwatch) -> None:
    """kill() waits for the end of each."""
    greenlets = fall_asleep(n)
    with measure:
        for greenlet in greenlets:
            greenlet.kill()
    check_killed(greenlets)


def killall_sleeping(n: int, measure: Stopwatch) -> None:
    """All at once, asleep."""
    greenlets = fall_asleep(n)
    with measure:
        gevent.killall(greenlets)
    check_killed(greenlets)


def killall_unstarted(n: int, measure: Stopwatch) -> None:
    """Spawned and killed before they had a turn."""
    ran: list[None] = []
    with measure:
        greenlets = [gevent.spawn(ran.append, None) for _ in range(n)]
        gevent.killall(greenlets)
    check(not ran, "a greenlet killed before its start must not run")
    check_killed(greenlets)
