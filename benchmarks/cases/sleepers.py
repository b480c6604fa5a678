"""Greenlets that sleep until they are killed."""

from __future__ import annotations

import gevent
from stopwatch import check


def fall_asleep(n: int) -> list[gevent.Greenlet]:
    """Return *n* greenlets, all of them asleep for an hour."""
    asleep = [0]

    def sleeper() -> None:
        asleep[0] += 1
        gevent.sleep(3600)

    greenlets = [gevent.spawn(sleeper) for _ in range(n)]
    while asleep[0] < n:
        gevent.sleep(0)
    return greenlets


def check_killed(greenlets: list[gevent.Greenlet]) -> None:
    """Raise `WrongResult` unless each of *greenlets* was ended by a kill."""
    check(all(greenlet.dead for greenlet in greenlets), "no killed greenlet may be alive")
    check(
        all(isinstance(greenlet.value, gevent.GreenletExit) for greenlet in greenlets),
        "a killed greenlet's value is its GreenletExit",
    )
