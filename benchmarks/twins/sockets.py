"""The loop's own socket calls."""

from __future__ import annotations

import asyncio
import socket

from stopwatch import Stopwatch, check

SPINNERS = 10


async def socket_beside_spinners(n: int, measure: Stopwatch) -> None:
    """The loop's own sock_recv."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    over = [False]

    async def spinner() -> None:
        while not over[0]:
            await asyncio.sleep(0)

    async def partner() -> None:
        for _ in range(n):
            await loop.sock_sendall(far, (await loop.sock_recv(far, 16)).upper())

    with near, far:
        tasks = [asyncio.create_task(spinner()) for _ in range(SPINNERS)]
        tasks.append(asyncio.create_task(partner()))
        answers: list[bytes] = []
        with measure:
            for _ in range(n):
                await loop.sock_sendall(near, b"ping")
                answers.append(await loop.sock_recv(near, 16))
        over[0] = True
        await asyncio.gather(*tasks)
    check(answers == [b"PING"] * n, "every message must come back")
