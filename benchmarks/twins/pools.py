"""Bounded concurrency with a semaphore; TaskGroup."""

from __future__ import annotations

import asyncio

from stopwatch import Stopwatch, check

SIZE = 100
GROUP = 1000


async def _append(seen: list[int], i: int) -> None:
    seen.append(i)


async def _square(i: int) -> int:
    return i * i


async def _one_of_few(places: asyncio.Semaphore, i: int) -> int:
    async with places:
        return await _square(i)


async def pool_map(n: int, measure: Stopwatch) -> None:
    """gather behind a semaphore."""
    with measure:
        places = asyncio.Semaphore(SIZE)
        squares = await asyncio.gather(*[_one_of_few(places, i) for i in range(n)])
    check(squares == [i * i for i in range(n)], "results must be in the order of the input")


async def pool_imap(n: int, measure: Stopwatch) -> None:
    """Tasks behind a semaphore, awaited in order."""
    with measure:
        places = asyncio.Semaphore(SIZE)
        tasks = [asyncio.create_task(_one_of_few(places, i)) for i in range(n)]
        squares = [await task for task in tasks]
    check(squares == [i * i for i in range(n)], "results must be in the order of the input")


async def pool_imap_unordered(n: int, measure: Stopwatch) -> None:
    """as_completed behind a semaphore."""
    with measure:
        places = asyncio.Semaphore(SIZE)
        squares = [await task for task in asyncio.as_completed([_one_of_few(places, i) for i in range(n)])]
    check(sorted(squares) == [i * i for i in range(n)], "every result must come once")


async def pool_spawn(n: int, measure: Stopwatch) -> None:
    """A place is taken before the task is made."""
    ran: list[int] = []
    tasks: set[asyncio.Task[None]] = set()
    places = asyncio.Semaphore(SIZE)

    def ended(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        places.release()

    with measure:
        for i in range(n):
            await places.acquire()
            task = asyncio.create_task(_append(ran, i))
            tasks.add(task)
            task.add_done_callback(ended)
        while tasks:
            await asyncio.wait(tasks)
    check(sorted(ran) == list(range(n)), "every job must run once")


async def group_join(n: int, measure: Stopwatch) -> None:
    """TaskGroup."""
    ran: list[int] = []
    with measure:
        for _ in range(n // GROUP):
            async with asyncio.TaskGroup() as group:
                for i in range(GROUP):
                    group.create_task(_append(ran, i))
    check(len(ran) == n // GROUP * GROUP, "every task must run once")
