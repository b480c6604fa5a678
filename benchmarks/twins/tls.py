"""asyncio's streams."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from stopwatch import Stopwatch, check

CONNECTIONS = 20
MESSAGE = b"m" * 1024
CHUNK = b"c" * 65536
#: Of nobody, for nothing else.
CERTIFICATE = Path(__file__).parents[1] / "certificate.pem"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _context(purpose: int) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if purpose == ssl.PROTOCOL_TLS_SERVER:
        context.load_cert_chain(CERTIFICATE)
    return context


async def _connect(n: int) -> tuple[list[Streams], list[Streams]]:
    """*n* connections: the server's ends, and the client's."""
    served: list[Streams] = []
    complete = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append((reader, writer))
        if len(served) == n:
            complete.set()

    context = _context(ssl.PROTOCOL_TLS_SERVER)
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context, backlog=n)
    port = server.sockets[0].getsockname()[1]
    client = _context(ssl.PROTOCOL_TLS_CLIENT)
    ends = [await asyncio.open_connection("127.0.0.1", port, ssl=client) for _ in range(n)]
    await complete.wait()
    server.close()
    return served, ends


async def _close(streams: list[Streams]) -> None:
    for _reader, writer in streams:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _reader, writer in streams), return_exceptions=True)


async def tls_echo(n: int, measure: Stopwatch) -> None:
    """*n* messages of 1 KiB there and back, over 20 connections."""
    served, ends = await _connect(CONNECTIONS)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        got = 0
        for _ in range(n // CONNECTIONS):
            writer.write(MESSAGE)
            await writer.drain()
            got += len(await reader.readexactly(len(MESSAGE)))
        return got

    echoing = [asyncio.create_task(echo(*streams)) for streams in served]
    with measure:
        got = await asyncio.gather(*(client(*streams) for streams in ends))
    await _close(ends)
    await asyncio.gather(*echoing)
    await _close(served)
    check(sum(got) == n * len(MESSAGE), "everything must come back")


async def tls_stream(n: int, measure: Stopwatch) -> None:
    """*n* times 64 KiB, in one direction."""
    served, ends = await _connect(1)
    reader = served[0][0]
    writer = ends[0][1]

    async def send() -> None:
        for _ in range(n):
            writer.write(CHUNK)
            await writer.drain()
        writer.close()

    got = 0
    with measure:
        sending = asyncio.create_task(send())
        while data := await reader.read(65536):
            got += len(data)
        await sending
    await _close(served + ends)
    check(got == n * len(CHUNK), "everything must arrive")


async def tls_handshake(n: int, measure: Stopwatch) -> None:
    """*n* connections, one after another: connect, shake hands, close."""
    with measure:
        served, ends = await _connect(n)
        await _close(ends)
        await _close(served)
    check(len(served) == n, "every connection must be accepted")
