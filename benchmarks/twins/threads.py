"""run_in_executor."""

from __future__ import annotations

import asyncio
import threading

from stopwatch import Stopwatch, check


async def threadpool_apply(n: int, measure: Stopwatch) -> None:
    """run_in_executor."""
    loop = asyncio.get_running_loop()
    total = 0
    with measure:
        for i in range(n):
            total += await loop.run_in_executor(None, int, i)
    check(total == n * (n - 1) // 2, "every job must give its result")
    other = await loop.run_in_executor(None, threading.get_ident)
    check(other != threading.get_ident(), "jobs must run in another thread")
