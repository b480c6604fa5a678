"""asyncio.Event and futures."""

from __future__ import annotations

import asyncio

from stopwatch import Stopwatch, check

WAITERS = 1000


async def event_pingpong(n: int, measure: Stopwatch) -> None:
    """*n* times there and back."""
    ping, pong = asyncio.Event(), asyncio.Event()
    heard = [0]

    async def partner() -> None:
        for _ in range(n):
            await ping.wait()
            ping.clear()
            heard[0] += 1
            pong.set()

    with measure:
        task = asyncio.create_task(partner())
        for _ in range(n):
            ping.set()
            await pong.wait()
            pong.clear()
        await task
    check(heard[0] == n, "every ping must be heard once")


async def asyncresult_pingpong(n: int, measure: Stopwatch) -> None:
    """With futures."""
    loop = asyncio.get_running_loop()
    pings: list[asyncio.Future[int]] = [loop.create_future() for _ in range(n)]
    pongs: list[asyncio.Future[int]] = [loop.create_future() for _ in range(n)]

    async def partner() -> None:
        for ping, pong in zip(pings, pongs, strict=True):
            pong.set_result(await ping + 1)

    total = 0
    with measure:
        task = asyncio.create_task(partner())
        for i in range(n):
            pings[i].set_result(i)
            total += await pongs[i]
        await task
    check(total == n * (n + 1) // 2, "every result must come back one larger")


async def event_1000(n: int, measure: Stopwatch) -> None:
    """The same thousand tasks wait for one event after the other."""
    events = [asyncio.Event() for _ in range(n // WAITERS)]
    woken = [0]

    async def waiter() -> None:
        for event in events:
            await event.wait()
            woken[0] += 1

    tasks = [asyncio.create_task(waiter()) for _ in range(WAITERS)]
    await asyncio.sleep(0)
    check(woken[0] == 0, "nobody may be woken before the event is set")
    with measure:
        for i, event in enumerate(events):
            event.set()
            while woken[0] < (i + 1) * WAITERS:
                await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    check(woken[0] == len(events) * WAITERS, "every waiter must be woken once by each event")
