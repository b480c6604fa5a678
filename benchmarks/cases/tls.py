"""TLS: client and server in one process, over the loopback interface."""

from __future__ import annotations

import ssl
from pathlib import Path

import gevent
from gevent import socket
from gevent.ssl import SSLContext
from stopwatch import Stopwatch, check

CONNECTIONS = 20
MESSAGE = b"m" * 1024
CHUNK = b"c" * 65536
#: Of nobody, for nothing else.
CERTIFICATE = Path(__file__).parents[1] / "certificate.pem"


def _context(purpose: int) -> SSLContext:
    context = SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if purpose == ssl.PROTOCOL_TLS_SERVER:
        context.load_cert_chain(CERTIFICATE)
    return context


def _connect(n: int) -> tuple[list[ssl.SSLSocket], list[ssl.SSLSocket]]:
    """*n* connections: the server's ends, and the client's."""
    served: list[ssl.SSLSocket] = []
    server, client = _context(ssl.PROTOCOL_TLS_SERVER), _context(ssl.PROTOCOL_TLS_CLIENT)
    # not create_server(): gevent's gives a socket of the standard library unless that is patched
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(n)

        def accept() -> None:
            for _ in range(n):
                served.append(server.wrap_socket(listener.accept()[0], server_side=True))

        def connect(address: tuple[str, int]) -> socket.socket:
            sock = socket.socket()
            sock.connect(address)
            return sock

        accepting = gevent.spawn(accept)
        ends = [client.wrap_socket(connect(listener.getsockname())) for _ in range(n)]
        accepting.get()
    return served, ends


def tls_echo(n: int, measure: Stopwatch) -> None:
    """*n* messages of 1 KiB there and back, over 20 connections."""
    served, ends = _connect(CONNECTIONS)

    def echo(sock: ssl.SSLSocket) -> None:
        with sock:
            while data := sock.recv(65536):
                sock.sendall(data)

    def client(sock: ssl.SSLSocket) -> int:
        got = 0
        with sock:
            for _ in range(n // CONNECTIONS):
                sock.sendall(MESSAGE)
                left = len(MESSAGE)
                while left:
                    left -= len(sock.recv(left))
                got += len(MESSAGE)
        return got

    greenlets = [gevent.spawn(echo, sock) for sock in served]
    with measure:
        clients = [gevent.spawn(client, sock) for sock in ends]
        gevent.joinall(clients, raise_error=True)
    gevent.joinall(greenlets, raise_error=True)
    check(sum(each.value for each in clients) == n * len(MESSAGE), "everything must come back")


def tls_stream(n: int, measure: Stopwatch) -> None:
    """*n* times 64 KiB, in one direction."""
    (server,), (client,) = _connect(1)

    def send() -> None:
        for _ in range(n):
            client.sendall(CHUNK)

    got = 0
    with server, client:
        with measure:
            sending = gevent.spawn(send)
            while got < n * len(CHUNK):
                got += len(server.recv(65536))
        sending.get()
    check(got == n * len(CHUNK), "everything must arrive")


def tls_handshake(n: int, measure: Stopwatch) -> None:
    """*n* connections, one after another: connect, shake hands, close."""
    with measure:
        served, ends = _connect(n)
        for sock in served + ends:
            sock.close()
    check(len(served) == n, "every connection must be accepted")
