"""asyncio queues. No twin for Channel and SimpleQueue."""

from __future__ import annotations

import asyncio

from stopwatch import Stopwatch, check


async def _pump(
    queue: asyncio.Queue[int], n: int, measure: Stopwatch, acknowledge: bool = False
) -> list[int]:
    received: list[int] = []

    async def producer() -> None:
        for i in range(n):
            await queue.put(i)
        if acknowledge:
            await queue.join()

    async def consumer() -> None:
        for _ in range(n):
            received.append(await queue.get())
            if acknowledge:
                queue.task_done()

    with measure:
        await asyncio.gather(producer(), consumer())
    check(queue.empty(), "nothing may be left in the queue")
    return received


async def queue_pingpong(n: int, measure: Stopwatch) -> None:
    """*n* times there and back."""
    ping: asyncio.Queue[int] = asyncio.Queue()
    pong: asyncio.Queue[int] = asyncio.Queue()

    async def partner() -> None:
        for _ in range(n):
            await pong.put(await ping.get() + 1)

    total = 0
    with measure:
        task = asyncio.create_task(partner())
        for i in range(n):
            await ping.put(i)
            total += await pong.get()
        await task
    check(total == n * (n + 1) // 2, "every item must come back one larger")


async def queue_unbounded(n: int, measure: Stopwatch) -> None:
    """The producer never waits."""
    check(await _pump(asyncio.Queue(), n, measure) == list(range(n)), "items must stay in order")


async def queue_bounded_1(n: int, measure: Stopwatch) -> None:
    """A switch per item."""
    check(await _pump(asyncio.Queue(1), n, measure) == list(range(n)), "items must stay in order")


async def queue_bounded_100(n: int, measure: Stopwatch) -> None:
    """A switch per hundred items."""
    check(await _pump(asyncio.Queue(100), n, measure) == list(range(n)), "items must stay in order")


async def queue_joinable(n: int, measure: Stopwatch) -> None:
    """Every item acknowledged."""
    received = await _pump(asyncio.Queue(100), n, measure, acknowledge=True)
    check(received == list(range(n)), "items must stay in order")


async def queue_priority(n: int, measure: Stopwatch) -> None:
    """Smallest first."""
    received = await _pump(asyncio.PriorityQueue(100), n, measure)
    check(sorted(received) == list(range(n)), "every item must come out once")


async def queue_lifo(n: int, measure: Stopwatch) -> None:
    """Newest first."""
    received = await _pump(asyncio.LifoQueue(100), n, measure)
    check(sorted(received) == list(range(n)), "every item must come out once")


async def queue_nowait(n: int, measure: Stopwatch) -> None:
    """Fill it, then empty it."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    total = 0
    with measure:
        for i in range(n):
            queue.put_nowait(i)
        for _ in range(n):
            total += queue.get_nowait()
    check(total == n * (n - 1) // 2 and queue.empty(), "every item must come out once")
