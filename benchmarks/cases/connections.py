"""What a network program does with its sockets."""

from __future__ import annotations

import gevent
from gevent import select, socket
from stopwatch import Stopwatch, check

CONNECTIONS = 100
MESSAGE = b"m" * 1024


def _echo(sock: socket.socket) -> None:
    with sock:
        while data := sock.recv(65536):
            sock.sendall(data)


def _receive(sock: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += sock.recv(65536)
    return received


def echo_100(n: int, measure: Stopwatch) -> None:
    """*n* messages of 1 KiB there and back over 100 connections, both ends in this process."""
    server = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
    if not hasattr(server, "hub"):  # gevent's blocks
        server = socket.socket(fileno=server.detach())
    clients = [socket.create_connection(server.getsockname()) for _ in range(CONNECTIONS)]
    echoes = [gevent.spawn(_echo, server.accept()[0]) for _ in range(CONNECTIONS)]
    right = [0]

    def talk(client: socket.socket) -> None:
        for _ in range(n // CONNECTIONS):
            client.sendall(MESSAGE)
            answer = _receive(client, len(MESSAGE))
            right[0] += answer == MESSAGE

    with measure:
        gevent.joinall([gevent.spawn(talk, client) for client in clients], raise_error=True)
    for client in clients:
        client.close()
    gevent.joinall(echoes, raise_error=True)
    server.close()
    check(right[0] == n // CONNECTIONS * CONNECTIONS, "every message must come back")


def connect_close(n: int, measure: Stopwatch) -> None:
    """*n* times connect, accept, one byte, close; ten at a time."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(100)
    address = server.getsockname()
    right = [0]

    def handle(sock: socket.socket) -> None:
        with sock:
            sock.sendall(b"x")

    def serve() -> None:
        for _ in range(n // 10 * 10):
            gevent.spawn(handle, server.accept()[0])

    def connect() -> None:
        for _ in range(n // 10):
            with socket.create_connection(address) as sock:
                answer = sock.recv(1)
                right[0] += answer == b"x"

    with measure:
        gevent.joinall([gevent.spawn(f) for f in [serve] + [connect] * 10], raise_error=True)
    server.close()
    check(right[0] == n // 10 * 10, "every connection must get its byte")


def udp_echo(n: int, measure: Stopwatch) -> None:
    """*n* datagrams of 64 bytes there and back, from twenty sockets."""
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    address = server.getsockname()
    message = b"m" * 64
    right = [0]

    def serve() -> None:
        while True:
            data, sender = server.recvfrom(2048)
            server.sendto(data, sender)

    def talk() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            for _ in range(n // 20):
                sock.sendto(message, address)
                answer, _ = sock.recvfrom(2048)
                right[0] += answer == message

    serving = gevent.spawn(serve)
    with measure:
        gevent.joinall([gevent.spawn(talk) for _ in range(20)], raise_error=True)
    serving.kill()
    server.close()
    check(right[0] == n // 20 * 20, "every datagram must come back")


def makefile_lines(n: int, measure: Stopwatch) -> None:
    """*n* lines through makefile()."""
    near, far = socket.socketpair()

    def write() -> None:
        with far:
            for i in range(n):
                far.sendall(b"line %06d and some more text to make it longer\n" % i)

    writer = gevent.spawn(write)
    count = 0
    with near, near.makefile("rb") as lines, measure:
        for _ in lines:
            count += 1
    writer.get()
    check(count == n, "every line must come through")


def select_500(n: int, measure: Stopwatch) -> None:
    """*n* times select() of 500 sockets, one of which becomes ready."""
    pairs = [socket.socketpair() for _ in range(500)]
    near = [a for a, _ in pairs]
    right = 0
    with measure:
        for i in range(n):
            gevent.spawn(pairs[i % 500][1].send, b"x")  # so that select has to wait
            ready, _, _ = select.select(near, [], [], 5)
            right += ready == [near[i % 500]]
            near[i % 500].recv(1)
    for a, b in pairs:
        a.close()
        b.close()
    check(right == n, "select must find the one that is ready")
