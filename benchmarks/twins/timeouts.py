"""asyncio.timeout, wait_for and bare timers."""

from __future__ import annotations

import asyncio

from stopwatch import Stopwatch, check


async def _same(i: int) -> int:
    return i


async def timeout_with(n: int, measure: Stopwatch) -> None:
    """asyncio.timeout."""
    entered = 0
    with measure:
        for _ in range(n):
            async with asyncio.timeout(10):
                entered += 1
    check(entered == n, "every body must run")


async def timeout_start_close(n: int, measure: Stopwatch) -> None:
    """call_later and cancel."""
    loop = asyncio.get_running_loop()
    fired: list[None] = []
    with measure:
        for _ in range(n):
            handle = loop.call_later(10, fired.append, None)
            handle.cancel()
    check(handle.cancelled() and not fired, "no timer may fire")


async def with_timeout(n: int, measure: Stopwatch) -> None:
    """asyncio.wait_for of a coroutine that does not block."""
    total = 0
    with measure:
        for i in range(n):
            total += await asyncio.wait_for(_same(i), 10)
    check(total == n * (n - 1) // 2, "wait_for must return what the coroutine returned")


async def timeout_fire(n: int, measure: Stopwatch) -> None:
    """A task each, all of them interrupted in a sleep."""
    fired: list[int] = []

    async def sleeper(me: int) -> None:
        try:
            async with asyncio.timeout(me % 11 / 1000):
                await asyncio.sleep(3600)
        except TimeoutError:
            fired.append(me)

    with measure:
        await asyncio.gather(*[sleeper(i) for i in range(n)])
    check(sorted(fired) == list(range(n)), "every timeout must fire once")
