"""Child processes, and looking up names."""

from __future__ import annotations

import gevent
from gevent import socket, subprocess
from stopwatch import Stopwatch, check

AT_ONCE = 10


def subprocess_communicate(n: int, measure: Stopwatch) -> None:
    """*n* times Popen(cat).communicate, one after the other."""
    with measure:
        for _ in range(n):
            child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            output, _ = child.communicate(b"hello")
            check(output == b"hello" and child.returncode == 0, "cat must give back what it gets")


def subprocess_wait(n: int, measure: Stopwatch) -> None:
    """*n* times call(true), ten at a time."""

    def call(times: int) -> None:
        for _ in range(times):
            check(subprocess.call(["/bin/true"]) == 0, "true must succeed")

    with measure:
        gevent.joinall([gevent.spawn(call, n // AT_ONCE) for _ in range(AT_ONCE)], raise_error=True)


def getaddrinfo_localhost(n: int, measure: Stopwatch) -> None:
    """*n* times getaddrinfo("localhost"), one after the other."""
    with measure:
        for _ in range(n):
            found = socket.getaddrinfo("localhost", 80, 0, socket.SOCK_STREAM)
    check(any(entry[4][0] in ("127.0.0.1", "::1") for entry in found), "localhost must be here")
