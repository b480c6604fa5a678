"""Connections that break, stop or are closed under those who use them; and that no byte is lost meanwhile."""

from __future__ import annotations

import os
import random
import signal
import socket as std
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest

import bridge
from bridge import select, socket

from .helpers import tcp

Pair = tuple[socket.socket, socket.socket]

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    a, b = tcp() if request.param == "tcp" else socket.socketpair()
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def connection() -> Iterator[Pair]:
    a, b = tcp()
    yield a, b
    a.close()
    b.close()


@contextmanager
def a_bystander() -> Iterator[None]:
    """A connection that has nothing to do with it, whose reader waits, and is not disturbed."""
    a, b = tcp()
    with a, b:
        reader = bridge.spawn(a.recv, 10)
        bridge.sleep(0)
        yield
        b.sendall(b"fine")
        assert reader.get(timeout=5) == b"fine"


def beside_a_bystander(test: Callable[..., None]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with a_bystander():
            test(*args, **kwargs)

    return run


def fill(sock: socket.socket) -> int:
    """Send until there is no more room, the window of the other side is zero; returns how many bytes."""
    sent = 0
    limit = sock.gettimeout()
    sock.settimeout(0)
    try:
        while True:
            try:
                sent += sock.send(b"x" * 65536)
            except BlockingIOError:
                select.select([], [sock], [], 0.01)  # what is on its way is not there yet
                try:
                    sent += sock.send(b"x")
                except BlockingIOError:
                    return sent
    finally:
        sock.settimeout(limit)


def drain(sock: socket.socket, size: int) -> None:
    while size:
        data = sock.recv(min(size, 1 << 20))
        assert data
        size -= len(data)


# -- windows ------------------------------------------------------------------------------------------------


@beside_a_bystander
def test_a_closed_window_is_waited_for_until_it_opens(pair: Pair) -> None:
    a, b = pair
    held = fill(a)
    writer = bridge.spawn(a.sendall, b"the rest")
    for _ in range(3):
        bridge.sleep(0.001)
        assert not writer.dead
    drain(b, held)
    writer.get(timeout=5)
    assert b.recv(100) == b"the rest"


def test_a_writer_before_a_closed_window_may_give_up(pair: Pair) -> None:
    a, b = pair
    held = fill(a)
    a.settimeout(0.005)
    with pytest.raises(TimeoutError):
        a.sendall(b"lost")
    with pytest.raises(TimeoutError):
        a.send(b"lost")
    a.settimeout(None)
    writer = bridge.spawn(a.sendall, b"lost")
    with bridge.Timeout(0.005, False):
        writer.join()
    writer.kill()
    # the other direction is none of its business
    b.sendall(b"answer")
    assert a.recv(100) == b"answer"
    drain(b, held)
    a.sendall(b"later")
    assert b.recv(100) == b"later"


@beside_a_bystander
def test_a_reset_reaches_who_waits_for_a_window(connection: Pair) -> None:
    a, b = connection
    fill(a)
    writer = bridge.spawn(lambda: pytest.raises(ConnectionError, a.sendall, b"x"))
    bridge.sleep(0)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    b.close()
    writer.get(timeout=5)


# -- half-closed --------------------------------------------------------------------------------------------


def test_a_half_closed_connection_goes_on_in_the_other_direction(pair: Pair) -> None:
    a, b = pair
    size = 3_000_000
    reader = bridge.spawn(b.recv, 10)
    bridge.sleep(0)
    a.shutdown(socket.SHUT_WR)
    assert reader.get(timeout=5) == b""
    assert b.recv(10) == b""  # and again
    writer = bridge.spawn(b.sendall, b"x" * size)
    drain(a, size)
    writer.get(timeout=5)
    with pytest.raises(BrokenPipeError):
        a.send(b"x")
    b.shutdown(socket.SHUT_WR)
    assert a.recv(10) == b""


# -- peers that vanish --------------------------------------------------------------------------------------

PEER = """
import signal, socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"hello")
signal.pause()
"""


@pytest.mark.parametrize("what", ["read", "write"])
@beside_a_bystander
def test_the_end_of_a_peer_s_process_reaches_who_waits(what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = subprocess.Popen([sys.executable, "-c", PEER, str(server.getsockname()[1])])
        sock, _ = server.accept()
    with sock:
        assert sock.recv(100) == b"hello"
        if what == "read":
            waiting = bridge.spawn(sock.recv, 100)
        else:
            fill(sock)
            waiting = bridge.spawn(lambda: pytest.raises(ConnectionError, sock.sendall, b"x"))
        bridge.sleep(0)
        peer.send_signal(signal.SIGKILL)
        result = waiting.get(timeout=10)
        assert what == "write" or result == b""
    bridge.get_hub().threadpool.apply(peer.wait)


@beside_a_bystander
def test_a_silent_peer_is_given_up_after_the_time_limit(pair: Pair) -> None:
    a, b = pair
    a.settimeout(0.005)
    for read in (lambda: a.recv(10), lambda: a.recv_into(bytearray(10)), a.makefile("rb").readline):
        with pytest.raises(TimeoutError):
            read()
    a.settimeout(5)
    b.sendall(b"late")
    assert a.recv(10) == b"late"


def test_a_connection_that_was_reset_before_accept_is_only_itself_broken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        bad = std.create_connection(server.getsockname())
        bad.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        bad.close()
        with socket.create_connection(server.getsockname()) as good:
            good.sendall(b"x")
            first, _ = server.accept()
            second, _ = server.accept()
            with first, second:
                with pytest.raises(ConnectionResetError):
                    first.recv(1)
                assert second.recv(1) == b"x"


# -- closing ------------------------------------------------------------------------------------------------


def test_who_was_woken_and_then_closed_does_not_read_from_the_number_s_next_owner(pair: Pair) -> None:
    """The data are there, the socket is closed and its number is in use again, all before the reader runs."""
    b, a = pair  # nobody has waited for a before: the looks find it in its turn
    first, other = socket.socketpair()
    seen: list[socket.socket] = []

    def close_and_use_again() -> None:
        first.recv(1)
        a.close()
        seen.extend(socket.socketpair())
        for each in seen:
            each.send(b"not yours")

    fd = a.fileno()
    closing = bridge.spawn(close_and_use_again)
    bridge.sleep(0)
    reader = bridge.spawn(lambda: pytest.raises(socket.cancel_wait_ex, a.recv, 100))
    bridge.sleep(0)
    other.send(b"x")  # both are found by one look, this one first
    b.send(b"x")
    bridge.joinall([closing, reader], timeout=5, raise_error=True)
    assert closing.successful() and reader.successful()
    assert fd in [each.fileno() for each in seen]
    assert [each.recv(100) for each in seen] == [b"not yours"] * 2
    for each in (first, other, *seen):
        each.close()


@pytest.mark.parametrize("who", ["greenlet", "thread"])
@beside_a_bystander
def test_closing_ends_reader_and_writer_and_nobody_else(pair: Pair, who: str) -> None:
    a, _b = pair
    fill(a)
    waiting = [
        bridge.spawn(lambda: pytest.raises(socket.cancel_wait_ex, a.recv, 1)),
        bridge.spawn(lambda: pytest.raises(socket.cancel_wait_ex, a.sendall, b"x")),
    ]
    bridge.sleep(0)
    if who == "thread":
        thread = threading.Thread(target=a.close)
        thread.start()
        bridge.joinall(waiting, timeout=5, raise_error=True)
        thread.join()
    else:
        a.close()
        bridge.joinall(waiting, timeout=5, raise_error=True)
    assert all(g.successful() for g in waiting)


@beside_a_bystander
def test_threads_close_sockets_while_their_numbers_are_taken_again() -> None:
    pool = bridge.get_hub().threadpool
    for _ in range(30):
        a, b = socket.socketpair()
        reader = bridge.spawn(lambda s=a: pytest.raises(OSError, s.recv, 1))
        bridge.sleep(0)
        closed = pool.spawn(a.close)
        c, d = socket.socketpair()  # before or after, with its number or without
        other = bridge.spawn(c.recv, 10)
        bridge.sleep(0)
        d.send(b"mine")
        assert other.get(timeout=5) == b"mine"
        reader.get(timeout=5)
        closed.get()
        for each in (b, c, d):
            each.close()


# -- everything at once -------------------------------------------------------------------------------------


class Conversation:
    """Sends known bytes in all ways that there are, and receives them in all ways, with interruptions."""

    period = random.Random(1).randbytes(251)
    ways_to_read = (
        "recv",
        "recv_into",
        "recvmsg",
        "peek",
        "limit",
        "Timeout",
        "kill",
        "select",
        "poll",
        "wait",
    )
    ways_to_read += ("dup", "nonblocking")

    def __init__(self, seed: int, pair: Pair) -> None:
        self.random = random.Random(seed)
        self.near, self.far = pair
        self.size = self.random.randrange(1, 300_000)
        self.sent = self.received = 0

    def bytes_at(self, offset: int, size: int) -> bytes:
        start = offset % len(self.period)
        return (self.period * (size // len(self.period) + 2))[start : start + size]

    def send(self) -> None:
        sock, pick = self.near, self.random.choice
        while self.sent < self.size:
            data = self.bytes_at(self.sent, min(self.size - self.sent, pick([1, 100, 5000, 65536, 200_000])))
            how = pick(["send", "sendmsg", "limit", "Timeout", "at once", "in pieces"])
            sent = 0
            try:
                if how == "send":
                    sent = sock.send(data)
                elif how == "sendmsg":
                    sent = sock.sendmsg([data[:50], data[50:]])
                elif how == "limit":
                    sock.settimeout(0.001)
                    sent = sock.send(data)
                elif how == "Timeout":
                    with bridge.Timeout(pick([0, 0.001]), False):
                        sent = sock.send(data)
                elif how == "at once":
                    sent = sock.send(data, socket.MSG_DONTWAIT)
                else:
                    sock.sendall(data)
                    sent = len(data)
            except (TimeoutError, BlockingIOError):
                bridge.sleep(0)
            finally:
                sock.settimeout(None)
            self.sent += sent
        sock.shutdown(socket.SHUT_WR)

    def read(self) -> bytes | None:
        sock, pick = self.far, self.random.choice
        size = pick([1, 100, 4096, 65536, 300_000])
        how = pick(self.ways_to_read)
        if how == "recv_into":
            buffer = bytearray(size)
            return bytes(buffer[: sock.recv_into(buffer)])
        if how == "recvmsg":
            return bytes(sock.recvmsg(size)[0])
        if how == "peek":
            ahead = sock.recv(size, socket.MSG_PEEK)
            data = sock.recv(size)
            assert data[: len(ahead)] == ahead
            return data
        if how == "limit" or how == "nonblocking":
            sock.settimeout(0.001 if how == "limit" else 0)
            try:
                return sock.recv(size)
            except (TimeoutError, BlockingIOError):
                return None
            finally:
                sock.settimeout(None)
        if how == "Timeout":
            with bridge.Timeout(pick([0, 0.001]), False):
                return sock.recv(size)
            return None
        if how == "kill":
            found: list[bytes] = []
            reader = bridge.spawn(lambda: found.append(sock.recv(size)))
            bridge.sleep(0)
            reader.kill()
            return found[0] if found else None
        if how == "select":
            select.select([sock], [], [])
        elif how == "poll":
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            poll.poll()
        elif how == "wait":
            socket.wait_read(sock.fileno())
        elif how == "dup":
            self.far = sock.dup()
            sock.close()
        return self.far.recv(size)

    def receive(self) -> None:
        while (data := self.read()) != b"":
            if data is None:
                bridge.sleep(0)
            else:
                assert data == self.bytes_at(self.received, len(data))
                self.received += len(data)

    def run(self) -> None:
        both = [bridge.spawn(self.send), bridge.spawn(self.receive)]
        bridge.joinall(both, raise_error=True, timeout=30)
        assert self.received == self.sent == self.size
        self.near.close()
        self.far.close()


@pytest.mark.parametrize("seed", range(3))
def test_no_byte_is_lost_or_repeated_however_it_is_sent_and_received(seed: int) -> None:
    def several(seed: int) -> None:
        for i in range(4):
            Conversation(seed + i, socket.socketpair() if (seed + i) % 3 else tcp()).run()

    conversations: list[Any] = [bridge.spawn(several, 1000 * seed + 10 * i) for i in range(8)]
    bridge.joinall(conversations, raise_error=True, timeout=60)
    assert all(g.successful() for g in conversations)


def test_the_descriptors_of_all_that_are_closed_are_given_back() -> None:
    def use() -> None:
        for i in range(20):
            Conversation(i, socket.socketpair()).run()

    use()  # what the loop needs is open then
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    use()
    assert not before or len(os.listdir("/proc/self/fd")) <= before
