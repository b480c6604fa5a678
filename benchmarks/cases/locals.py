"""Greenlet-local attributes."""

from __future__ import annotations

import gevent
from gevent.local import local
from stopwatch import Stopwatch, check


def local_get_set(n: int, measure: Stopwatch) -> None:
    """One read and one write per operation."""
    mine = local()
    mine.count = 0
    with measure:
        for _ in range(n):
            mine.count = mine.count + 1
    check(mine.count == n, "no write may be lost")
    check(not gevent.spawn(hasattr, mine, "count").get(), "another greenlet must not see it")
