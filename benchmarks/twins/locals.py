"""Context variables."""

from __future__ import annotations

import contextvars

from stopwatch import Stopwatch, check


async def local_get_set(n: int, measure: Stopwatch) -> None:
    """A context variable."""
    mine: contextvars.ContextVar[int] = contextvars.ContextVar("mine", default=0)
    with measure:
        for _ in range(n):
            mine.set(mine.get() + 1)
    check(mine.get() == n, "no write may be lost")
