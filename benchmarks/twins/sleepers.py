"""Tasks that sleep until they are cancelled."""

from __future__ import annotations

import asyncio


async def fall_asleep(n: int) -> list[asyncio.Task[None]]:
    """Return *n* tasks, all of them asleep for an hour."""
    asleep: list[None] = []

    async def sleeper() -> None:
        asleep.append(None)
        await asyncio.sleep(3600)

    tasks = [asyncio.create_task(sleeper()) for _ in range(n)]
    while len(asleep) < n:
        await asyncio.sleep(0)
    return tasks


async def cancel_all(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel all, wait for all."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
