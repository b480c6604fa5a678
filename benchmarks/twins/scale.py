"""Very many at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import growth
from stopwatch import Stopwatch, check, resident_bytes

from twins.sleepers import cancel_all, fall_asleep


async def asleep_100k(n: int, measure: Stopwatch) -> None:
    """From nothing to all of them asleep, and back."""
    with measure:
        tasks = await fall_asleep(n)
        await cancel_all(tasks)
    check(all(task.cancelled() for task in tasks), "every task must be cancelled")


async def memory_idle(n: int, measure: Stopwatch) -> float:
    """Return the bytes by which the process grew, per task."""
    await cancel_all(await fall_asleep(10))
    gc.collect()
    before = resident_bytes()
    with measure:
        tasks = await fall_asleep(n)
    grown = resident_bytes() - before
    await cancel_all(tasks)
    check(all(task.cancelled() for task in tasks), "every task must be cancelled")
    check(grown > 0, "tasks must take memory")
    return grown / n


Once = Callable[[int, Stopwatch], Coroutine[Any, Any, None]]


async def _growth(once: Once, largest: int, measure: Stopwatch) -> float:
    """Return the exponent of *once*, which does its work for a given number of things."""
    costs = growth.Costs(largest, measure)
    for size, watch in costs.rounds():
        await once(size, watch)
    return costs.exponent()


async def growth_spawn(n: int, measure: Stopwatch) -> float:
    """gather."""

    async def once(size: int, watch: Stopwatch) -> None:
        ran: list[int] = []

        async def runner(i: int) -> None:
            ran.append(i)

        with watch:
            await asyncio.gather(*[runner(i) for i in range(size)])
        check(len(ran) == size, "every task must run")

    return await _growth(once, n, measure)


async def growth_timers(n: int, measure: Stopwatch) -> float:
    """call_later and cancel, all pending together."""

    async def once(size: int, watch: Stopwatch) -> None:
        loop = asyncio.get_running_loop()
        fired: list[None] = []
        delays = [100 + i * 7919 % size / size for i in range(size)]
        with watch:
            handles = [loop.call_later(delay, fired.append, None) for delay in delays]
            for handle in handles:
                handle.cancel()
        check(not fired, "cancelled timers must not fire")

    return await _growth(once, n, measure)


async def growth_event(n: int, measure: Stopwatch) -> float:
    """Waiters of one event."""

    async def once(size: int, watch: Stopwatch) -> None:
        event = asyncio.Event()
        tasks = [asyncio.create_task(event.wait()) for _ in range(size)]
        with watch:
            await asyncio.sleep(0)
            event.set()
            woken = await asyncio.gather(*tasks)
        check(all(woken), "every waiter must be woken")

    return await _growth(once, n, measure)


async def growth_queue(n: int, measure: Stopwatch) -> float:
    """Waiters of one queue."""

    async def once(size: int, watch: Stopwatch) -> None:
        queue: asyncio.Queue[int] = asyncio.Queue()
        tasks = [asyncio.create_task(queue.get()) for _ in range(size)]
        with watch:
            await asyncio.sleep(0)
            for i in range(size):
                queue.put_nowait(i)
            received = await asyncio.gather(*tasks)
        check(sum(received) == size * (size - 1) // 2, "every item must be received")

    return await _growth(once, n, measure)
