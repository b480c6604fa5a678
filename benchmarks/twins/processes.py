"""asyncio's own child processes, and the loop's own getaddrinfo."""

from __future__ import annotations

import asyncio
import socket

from stopwatch import Stopwatch, check

AT_ONCE = 10


async def subprocess_communicate(n: int, measure: Stopwatch) -> None:
    """create_subprocess_exec(cat).communicate."""
    with measure:
        for _ in range(n):
            child = await asyncio.create_subprocess_exec("/bin/cat", stdin=-1, stdout=-1)
            output, _ = await child.communicate(b"hello")
            check(output == b"hello" and child.returncode == 0, "cat must give back what it gets")


async def subprocess_wait(n: int, measure: Stopwatch) -> None:
    """create_subprocess_exec(true).wait, ten at a time."""

    async def call(times: int) -> None:
        for _ in range(times):
            child = await asyncio.create_subprocess_exec("/bin/true")
            check(await child.wait() == 0, "true must succeed")

    with measure:
        await asyncio.gather(*[call(n // AT_ONCE) for _ in range(AT_ONCE)])


async def getaddrinfo_localhost(n: int, measure: Stopwatch) -> None:
    """loop.getaddrinfo("localhost")."""
    loop = asyncio.get_running_loop()
    with measure:
        for _ in range(n):
            found = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    check(any(entry[4][0] in ("127.0.0.1", "::1") for entry in found), "localhost must be here")
