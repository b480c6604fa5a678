"""Tasks: made, awaited, cancelled. No spawn_raw: a task is always an object."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from stopwatch import Stopwatch, check

from twins.sleepers import cancel_all, fall_asleep

BATCH = 1000


async def _append(seen: list[int], i: int) -> None:
    seen.append(i)


async def _nothing() -> None:
    """What a task does when only its making and ending is of interest."""


def _batches(n: int, size: int = BATCH) -> Iterator[int]:
    check(n % size == 0, f"{n} operations cannot be cut into batches of {size}")
    return iter(range(n // size))


async def spawn_join(n: int, measure: Stopwatch) -> None:
    """Make all tasks, then await each."""
    ran: list[int] = []
    with measure:
        tasks = [asyncio.create_task(_append(ran, i)) for i in range(n)]
        for task in tasks:
            await task
    check(ran == list(range(n)), "tasks must run in the order in which they were made")


async def spawn_join_batches(n: int, measure: Stopwatch) -> None:
    """Never more than 100 tasks at a time."""
    ran: list[int] = []
    with measure:
        for batch in _batches(n, 100):
            tasks = [asyncio.create_task(_append(ran, batch)) for _ in range(100)]
            for task in tasks:
                await task
    check(ran == [i // 100 for i in range(n)], "every batch must end before the next begins")


async def spawn_join_one(n: int, measure: Stopwatch) -> None:
    """Never more than one task besides the main one."""
    ran: list[int] = []
    with measure:
        for i in range(n):
            await asyncio.create_task(_append(ran, i))
    check(ran == list(range(n)), "every task must have run when it was awaited")


async def spawn_later(n: int, measure: Stopwatch) -> None:
    """Tasks that sleep before they begin."""
    ran: list[int] = []

    async def later(delay: float, i: int) -> None:
        await asyncio.sleep(delay)
        ran.append(i)

    with measure:
        await asyncio.gather(*[later(i % 11 / 1000, i) for i in range(n)])
    check(sorted(ran) == list(range(n)), "every task must run once")


async def joinall(n: int, measure: Stopwatch) -> None:
    """gather."""
    with measure:
        for _ in _batches(n):
            done = await asyncio.gather(*[_nothing() for _ in range(BATCH)])
            check(len(done) == BATCH, "gather must return every result")


async def wait(n: int, measure: Stopwatch) -> None:
    """asyncio.wait."""
    with measure:
        for _ in _batches(n):
            done, pending = await asyncio.wait([asyncio.create_task(_nothing()) for _ in range(BATCH)])
            check(len(done) == BATCH and not pending, "wait must return every task")


async def iwait(n: int, measure: Stopwatch) -> None:
    """as_completed."""
    with measure:
        for _ in _batches(n):
            ended = 0
            for task in asyncio.as_completed([_nothing() for _ in range(BATCH)]):
                await task
                ended += 1
            check(ended == BATCH, "as_completed must yield every task")


async def link(n: int, measure: Stopwatch) -> None:
    """add_done_callback."""
    seen: list[int] = []

    def ended(task: asyncio.Task[int]) -> None:
        seen.append(task.result())

    async def give(i: int) -> int:
        return i

    tasks: list[asyncio.Task[int]] = []
    with measure:
        for i in range(n):
            task = asyncio.create_task(give(i))
            task.add_done_callback(ended)
            tasks.append(task)
        while len(seen) < n:
            await asyncio.sleep(0)
    check(sorted(seen) == list(range(n)), "every callback must be called once")


async def kill_one(n: int, measure: Stopwatch) -> None:
    """Cancel a task and wait for its end."""
    tasks = await fall_asleep(n)
    cancelled = 0
    with measure:
        for task in tasks:
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1
    check(cancelled == n, "every task must be cancelled")


async def killall_sleeping(n: int, measure: Stopwatch) -> None:
    """Cancel all, wait for all."""
    tasks = await fall_asleep(n)
    with measure:
        await cancel_all(tasks)
    check(all(task.cancelled() for task in tasks), "every task must be cancelled")


async def killall_unstarted(n: int, measure: Stopwatch) -> None:
    """Made and cancelled before they had a turn."""
    with measure:
        tasks = [asyncio.create_task(_nothing()) for _ in range(n)]
        await cancel_all(tasks)
    check(all(task.cancelled() for task in tasks), "every task must be cancelled")
