"""asyncio.sleep."""

from __future__ import annotations

import asyncio
import random

from stopwatch import Stopwatch, check


async def sleep0_pair(n: int, measure: Stopwatch) -> None:
    """Two tasks, strictly in turn."""
    trace: list[int] = []

    async def player(me: int) -> None:
        for _ in range(n // 2):
            trace.append(me)
            await asyncio.sleep(0)

    with measure:
        await asyncio.gather(player(0), player(1))
    check(trace == [0, 1] * (n // 2), "the two must alternate")


async def sleep0_100(n: int, measure: Stopwatch) -> None:
    """A hundred tasks round and round."""
    turns = [0] * 100
    spread = [0]

    async def player(me: int) -> None:
        for _ in range(n // 100):
            turns[me] += 1
            spread[0] = max(spread[0], turns[me] - turns[me - 1])
            await asyncio.sleep(0)

    with measure:
        await asyncio.gather(*[player(i) for i in range(100)])
    check(turns == [n // 100] * 100, "every task must get all its turns")
    check(spread[0] <= 1, "no task may overtake another")


async def sleep0_main(n: int, measure: Stopwatch) -> None:
    """Nobody else is there."""
    ran: list[None] = []

    async def witness_ran() -> None:
        ran.append(None)

    witness = asyncio.create_task(witness_ran())
    with measure:
        for _ in range(n):
            await asyncio.sleep(0)
    check(ran and witness.done(), "sleep(0) must let others run")


async def sleep_timers(n: int, measure: Stopwatch) -> None:
    """One sleep per task."""
    chance = random.Random(26)
    delays = [chance.random() * 0.05 for _ in range(n)]
    woken: list[int] = []

    async def sleeper(me: int) -> None:
        await asyncio.sleep(delays[me])
        woken.append(me)

    with measure:
        await asyncio.gather(*[sleeper(i) for i in range(n)])
    check(sorted(woken) == list(range(n)), "every sleeper must wake once")
