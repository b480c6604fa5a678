"""Callbacks and timers of the loop."""

from __future__ import annotations

import asyncio

from stopwatch import Stopwatch, check


async def run_callback(n: int, measure: Stopwatch) -> None:
    """call_soon."""
    loop = asyncio.get_running_loop()
    ran: list[int] = []
    with measure:
        for i in range(n):
            loop.call_soon(ran.append, i)
        while len(ran) < n:
            await asyncio.sleep(0)
    check(ran == list(range(n)), "callbacks must run in the order of their scheduling")


async def loop_timer(n: int, measure: Stopwatch) -> None:
    """call_later and cancel."""
    loop = asyncio.get_running_loop()
    fired: list[None] = []
    with measure:
        for _ in range(n):
            handle = loop.call_later(10, fired.append, None)
            handle.cancel()
    check(handle.cancelled() and not fired, "cancelled timers must not fire")
