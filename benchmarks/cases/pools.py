"""Pool and Group."""

from __future__ import annotations

from gevent.pool import Group, Pool
from stopwatch import Stopwatch, check

SIZE = 100
GROUP = 1000


def _square(i: int) -> int:
    return i * i


def pool_map(n: int, measure: Stopwatch) -> None:
    """A list in, a list out."""
    with measure:
        squares = Pool(SIZE).map(_square, range(n))
    check(squares == [i * i for i in range(n)], "results must be in the order of the input")


def pool_imap(n: int, measure: Stopwatch) -> None:
    """Results as they come, in order."""
    with measure:
        squares = list(Pool(SIZE).imap(_square, range(n)))
    check(squares == [i * i for i in range(n)], "results must be in the order of the input")


def pool_imap_unordered(n: int, measure: Stopwatch) -> None:
    """Results as they come."""
    with measure:
        squares = list(Pool(SIZE).imap_unordered(_square, range(n)))
    check(sorted(squares) == [i * i for i in range(n)], "every result must come once")


def pool_spawn(n: int, measure: Stopwatch) -> None:
    """spawn() waits for a free place."""
    ran: list[int] = []
    pool = Pool(SIZE)
    with measure:
        for i in range(n):
            pool.spawn(ran.append, i)
        pool.join()
    check(sorted(ran) == list(range(n)) and pool.free_count() == SIZE, "every job must run once")


def group_join(n: int, measure: Stopwatch) -> None:
    """A new group for every thousand."""
    ran: list[int] = []
    with measure:
        for _ in range(n // GROUP):
            group = Group()
            for i in range(GROUP):
                group.spawn(ran.append, i)
            group.join()
            check(len(group) == 0, "a joined group must be empty")
    check(len(ran) == n // GROUP * GROUP, "every greenlet must run once")
