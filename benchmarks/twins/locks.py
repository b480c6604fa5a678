"""asyncio semaphores. No twin for RLock: asyncio has no reentrant lock."""

from __future__ import annotations

import asyncio

from stopwatch import Stopwatch, check

RIVALS = 100


async def _free(lock: asyncio.Semaphore, n: int, measure: Stopwatch) -> None:
    acquired = 0
    with measure:
        for _ in range(n):
            acquired += await lock.acquire()
            lock.release()
    check(acquired == n and not lock.locked(), "a free lock must be given and taken back")


async def _contended(lock: asyncio.Semaphore, n: int, measure: Stopwatch) -> None:
    inside = [0]
    turns = [0]

    async def rival() -> None:
        for _ in range(n // RIVALS):
            async with lock:
                inside[0] += 1
                check(inside[0] == 1, "only one may be inside")
                await asyncio.sleep(0)
                inside[0] -= 1
                turns[0] += 1

    with measure:
        await asyncio.gather(*[rival() for _ in range(RIVALS)])
    check(turns[0] == n // RIVALS * RIVALS, "everybody must get all turns")


async def semaphore(n: int, measure: Stopwatch) -> None:
    """Semaphore(1)."""
    await _free(asyncio.Semaphore(1), n, measure)


async def bounded_semaphore(n: int, measure: Stopwatch) -> None:
    """BoundedSemaphore(1)."""
    await _free(asyncio.BoundedSemaphore(1), n, measure)


async def semaphore_contended(n: int, measure: Stopwatch) -> None:
    """Semaphore(1)."""
    await _contended(asyncio.Semaphore(1), n, measure)


async def bounded_semaphore_contended(n: int, measure: Stopwatch) -> None:
    """BoundedSemaphore(1)."""
    await _contended(asyncio.BoundedSemaphore(1), n, measure)
