"""Giving way with sleep(0), and sleeping for a time."""

from __future__ import annotations

import random

import gevent
from stopwatch import Stopwatch, check


def sleep0_pair(n: int, measure: Stopwatch) -> None:
    """Two greenlets, strictly in turn; *n* switches together."""
    trace: list[int] = []

    def player(me: int) -> None:
        for _ in range(n // 2):
            trace.append(me)
            gevent.sleep(0)

    with measure:
        gevent.joinall([gevent.spawn(player, 0), gevent.spawn(player, 1)])
    check(trace == [0, 1] * (n // 2), "the two must alternate")


def sleep0_100(n: int, measure: Stopwatch) -> None:
    """A hundred greenlets round and round; *n* switches together."""
    turns = [0] * 100
    spread = [0]

    def player(me: int) -> None:
        for _ in range(n // 100):
            turns[me] += 1
            spread[0] = max(spread[0], turns[me] - turns[me - 1])
            gevent.sleep(0)

    with measure:
        gevent.joinall([gevent.spawn(player, i) for i in range(100)])
    check(turns == [n // 100] * 100, "every greenlet must get all its turns")
    check(spread[0] <= 1, "no greenlet may overtake another")


def sleep0_main(n: int, measure: Stopwatch) -> None:
    """Nobody else is there: the way through the loop and back."""
    ran: list[None] = []
    witness = gevent.spawn(ran.append, None)
    with measure:
        for _ in range(n):
            gevent.sleep(0)
    check(ran and witness.dead, "sleep(0) must let others run")


def sleep_timers(n: int, measure: Stopwatch) -> None:
    """One sleep per greenlet, spread evenly at random over 50 ms."""
    chance = random.Random(26)
    delays = [chance.random() * 0.05 for _ in range(n)]
    woken: list[int] = []

    def sleeper(me: int) -> None:
        gevent.sleep(delays[me])
        woken.append(me)

    with measure:
        gevent.joinall([gevent.spawn(sleeper, i) for i in range(n)])
    check(sorted(woken) == list(range(n)), "every sleeper must wake once")
