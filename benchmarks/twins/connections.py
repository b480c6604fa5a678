"""Streams, where a rewrite would use them."""

from __future__ import annotations

import asyncio

from stopwatch import Stopwatch, check

CONNECTIONS = 100
MESSAGE = b"m" * 1024


async def echo_100(n: int, measure: Stopwatch) -> None:
    """start_server and open_connection."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    right = [0]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(n // CONNECTIONS):
            writer.write(MESSAGE)
            answer = await reader.readexactly(len(MESSAGE))
            right[0] += answer == MESSAGE
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, backlog=CONNECTIONS)
    address = server.sockets[0].getsockname()
    streams = [await asyncio.open_connection(*address) for _ in range(CONNECTIONS)]
    with measure:
        await asyncio.gather(*[talk(*each) for each in streams])
    server.close()
    check(right[0] == n // CONNECTIONS * CONNECTIONS, "every message must come back")
