"""Readiness of file descriptors; no socket class of gevent's is involved."""

from __future__ import annotations

import socket

import gevent
from gevent.socket import wait_read
from stopwatch import Stopwatch, check

SPINNERS = 10


def _receive(sock: socket.socket) -> bytes:
    while True:
        try:
            return sock.recv(16)
        except BlockingIOError:
            wait_read(sock.fileno())


def socket_beside_spinners(n: int, measure: Stopwatch) -> None:
    """*n* times there and back, while ten greenlets do nothing but sleep(0).

    Shows how long a busy program lets a ready socket wait.
    """
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    over = [False]

    def spinner() -> None:
        while not over[0]:
            gevent.sleep(0)

    def partner() -> None:
        for _ in range(n):
            far.send(_receive(far).upper())

    with near, far:
        spinners = [gevent.spawn(spinner) for _ in range(SPINNERS)]
        greenlet = gevent.spawn(partner)
        answers: list[bytes] = []
        with measure:
            for _ in range(n):
                near.send(b"ping")
                answers.append(_receive(near))
        over[0] = True
        gevent.joinall([greenlet, *spinners], raise_error=True)
    check(answers == [b"PING"] * n, "every message must come back")
