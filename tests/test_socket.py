"""Sockets that block only the greenlet, and are otherwise the standard library's."""

from __future__ import annotations

import array
import asyncio
import ctypes
import errno
import functools
import gc
import inspect
import io
import os
import pickle
import select
import socket as std
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bridge
from bridge import select as bridge_select
from bridge import socket
from bridge.exceptions import BlockingSwitchOutError, ConcurrentObjectUseError

#: More than what any socket buffers.
LARGE = 20_000_000

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    sock = socket.create_server(("127.0.0.1", 0))
    yield sock
    sock.close()


def ticking(function: Callable[[], Any]) -> Any:
    """What ``function()`` returns, which must let other greenlets run meanwhile."""
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(1)
            bridge.sleep(0.001)

    ticker = bridge.spawn(tick)
    try:
        result = function()
    finally:
        ticker.kill()
    assert len(ticks) > 1  # it began, and went on
    return result


def fill(sock: socket.socket) -> int:
    """Send until there is no more room."""
    before = sock.gettimeout()
    sock.settimeout(0)
    sent = 0
    try:
        while True:
            sent += sock.send(b"x" * 65536)
    except BlockingIOError:
        return sent
    finally:
        sock.settimeout(before)


def end_threads() -> None:
    """End the threads that look up names, while blocking is still possible."""
    hub = bridge.get_hub()
    hub.threadpool.kill()
    del hub.threadpool


def looks_up(test: Callable[..., None]) -> Callable[..., None]:
    """For tests that look up names."""

    @functools.wraps(test)
    def run(*args: Any, **kwds: Any) -> None:
        try:
            test(*args, **kwds)
        finally:
            end_threads()

    return run


# -- the module ---------------------------------------------------------------------------------------------


@pytest.mark.engines("none")
def test_it_has_everything_of_the_standard_module() -> None:
    missing = [n for n in vars(std) if not n.startswith("__") and not hasattr(socket, n)]
    assert missing == []
    assert {"socket", "create_connection", "fromfd", "socketpair", "SocketType"} <= set(socket.__implements__)
    assert socket.__extensions__ == ["cancel_wait", "wait_read", "wait_write", "wait_readwrite"]
    assert set(std.__all__) - {"CAPI"} | set(socket.__extensions__) == set(socket.__all__)
    assert len(socket.__all__) == len(set(socket.__all__))
    assert not set(socket.__implements__) & set(socket.__imports__)
    assert socket.error is OSError
    assert socket.timeout is TimeoutError
    assert socket.SocketType is socket.socket
    assert socket.AF_INET is std.AF_INET


@pytest.mark.engines("none")
@pytest.mark.parametrize(
    "name", ["create_connection", "create_server", "socketpair", "fromfd", "getaddrinfo", "getfqdn"]
)
def test_arguments_have_the_standard_names(name: str) -> None:
    ours = inspect.signature(getattr(socket, name)).parameters
    assert list(ours) == list(inspect.signature(getattr(std, name)).parameters)


def test_arguments_that_gevent_names_may_be_named(pair: Pair, listener: socket.socket) -> None:
    a, b = pair
    with socket.socket() as client:
        client.connect(address=listener.getsockname())
    with socket.socket() as client:
        assert client.connect_ex(address=listener.getsockname()) == 0
    a.setblocking(flag=True)
    watcher = bridge.get_hub().loop.io(a.fileno(), 2)
    socket.wait(watcher=watcher, hub=bridge.get_hub())
    watcher.close()
    a.shutdown(how=socket.SHUT_WR)
    assert b.recv(1) == b""


@pytest.mark.engines("none")
def test_it_is_a_standard_socket() -> None:
    with socket.socket() as s:
        assert isinstance(s, std.socket)
        assert (s.family, s.type, s.proto) == (std.AF_INET, std.SOCK_STREAM, 0)
        assert s.family is std.AF_INET
        assert repr(s).startswith("<bridge.socket.socket fd=")
        assert not hasattr(s, "__dict__")
        assert s._sock is s
        assert not os.get_blocking(s.fileno())
        with pytest.raises(TypeError):
            pickle.dumps(s)
        assert not s.closed
    assert s.closed
    assert "[closed]" in repr(s)
    assert s.fileno() == -1
    s.close()


def test_it_is_freed_by_reference_counting() -> None:
    gc.disable()
    try:
        a, b = socket.socketpair()
        a.settimeout(0.001)
        with pytest.raises(TimeoutError):
            a.recv(1)
        refs = weakref.ref(a), weakref.ref(b)
        a.close()
        b.close()
        del a, b
        assert [r() for r in refs] == [None, None]
    finally:
        gc.enable()


# -- time limits --------------------------------------------------------------------------------------------


@pytest.mark.engines("none")
def test_time_limits_are_kept_as_the_standard_library_does() -> None:
    with socket.socket() as s:
        assert s.gettimeout() is None
        assert s.getblocking() is True
        s.settimeout(2)
        assert type(s.gettimeout()) is float
        assert s.timeout == 2.0
        s.setblocking(False)
        assert s.gettimeout() == 0.0
        assert s.getblocking() is False
        s.setblocking(True)
        assert s.gettimeout() is None
        s.timeout = 3
        assert s.gettimeout() == 3.0
        assert not os.get_blocking(s.fileno())


@pytest.mark.engines("none")
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, ValueError),
        (float("nan"), ValueError),
        ("1", TypeError),
        ([], TypeError),
        (float("inf"), OverflowError),
    ],
)
def test_what_is_no_time_limit(value: Any, error: type[Exception]) -> None:
    with socket.socket() as s, std.socket() as theirs:
        with pytest.raises(error):
            s.settimeout(value)
        with pytest.raises(error):
            theirs.settimeout(value)
        assert s.gettimeout() is None


@pytest.mark.engines("none")
def test_the_default_time_limit_and_sock_nonblock() -> None:
    socket.setdefaulttimeout(0.5)
    try:
        with socket.socket() as s:
            assert s.gettimeout() == 0.5
    finally:
        socket.setdefaulttimeout(None)
    if hasattr(std, "SOCK_NONBLOCK"):
        with socket.socket(type=std.SOCK_STREAM | std.SOCK_NONBLOCK) as s:
            assert s.gettimeout() == 0.0
            assert s.type is std.SOCK_STREAM


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.recv(1),
        lambda s: s.recv_into(bytearray(1)),
        lambda s: s.recvfrom(1),
        lambda s: s.recvfrom_into(bytearray(1)),
        lambda s: s.recvmsg(1),
        lambda s: s.recvmsg_into([bytearray(1)]),
        lambda s: s.makefile("rb").read(1),
        lambda s: s.send(b"x"),
        lambda s: s.sendall(b"x" * LARGE),
        lambda s: s.sendmsg([b"x"]),
    ],
)
def test_an_operation_ends_when_its_time_is_over(pair: Pair, call: Callable[[socket.socket], Any]) -> None:
    a, _ = pair
    fill(a)
    a.settimeout(0.02)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="timed out"):
        ticking(lambda: call(a))
    assert 0.015 < time.monotonic() - start < 1
    a.settimeout(0)
    with pytest.raises(BlockingIOError):
        a.recv(1)


def test_a_limit_of_zero_never_waits(pair: Pair, listener: socket.socket) -> None:
    a, _ = pair
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    a.setblocking(False)
    for call in (lambda: a.recv(1), lambda: a.recvmsg(1), lambda: a.recv_into(bytearray(3))):
        with pytest.raises(BlockingIOError):
            call()
    fill(a)
    for send in (lambda: a.send(b"x"), lambda: a.sendall(b"x"), lambda: a.sendmsg([b"x"])):
        with pytest.raises(BlockingIOError):
            send()


def test_dontwait_is_not_waited_for(pair: Pair) -> None:
    a, _ = pair
    with pytest.raises(BlockingIOError):
        a.recv(1, socket.MSG_DONTWAIT)
    fill(a)
    with pytest.raises(BlockingIOError):
        a.sendall(b"x", socket.MSG_DONTWAIT)


def test_send_with_a_limit_of_its_own(pair: Pair) -> None:
    a, _ = pair
    fill(a)
    with pytest.raises(TimeoutError):
        a.send(b"x", timeout=0.01)
    with pytest.raises(BlockingIOError):
        a.send(b"x", timeout=0)
    a.settimeout(0.01)
    with pytest.raises(TimeoutError):
        a.send(b"x", 0, socket.timeout_default)


def test_a_timeout_and_kill_leave_the_socket_usable(pair: Pair) -> None:
    a, b = pair
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.005):
        a.recv(1)
    reader = bridge.spawn(a.recv, 1)
    bridge.sleep(0)
    reader.kill()
    b.sendall(b"abc")
    assert a.recv(10) == b"abc"


# -- transferring -------------------------------------------------------------------------------------------


def test_receiving_waits(pair: Pair) -> None:
    a, b = pair
    buffer = bytearray(4)
    calls: list[Callable[[], Any]] = [
        lambda: a.recv(4),
        lambda: a.recvfrom(4)[0],
        lambda: a.recvmsg(4)[0],
        lambda: buffer[: a.recv_into(buffer)],
        lambda: buffer[: a.recv_into(buffer, nbytes=3, flags=0)],
        lambda: buffer[: a.recvfrom_into(buffer)[0]],
        lambda: buffer[: a.recvmsg_into(iter([buffer]))[0]],
    ]
    for call in calls:
        bridge.spawn_later(0.01, b.sendall, b"abc")
        assert ticking(call) == b"abc"
    b.close()
    assert a.recv(1) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"x" * LARGE,
        bytearray(LARGE),
        memoryview(bytes(LARGE)),
        array.array("i", [7]) * (LARGE // 4),
        (ctypes.c_int * (LARGE // 4))(),
        memoryview(bytes(LARGE)).cast("B", (LARGE // 4, 4)),
    ],
    ids=["bytes", "bytearray", "view", "array", "ctypes", "matrix"],
)
def test_sendall_sends_all(pair: Pair, data: Any) -> None:
    a, b = pair
    received = []

    def read() -> None:
        while True:
            chunk = b.recv(1 << 20)
            if not chunk:
                break
            received.append(chunk)

    reader = bridge.spawn(read)
    assert a.sendall(data) is None  # type: ignore[func-returns-value]
    a.shutdown(socket.SHUT_WR)
    reader.join(10)
    assert b"".join(received) == bytes(data)


def test_sendall_of_nothing(pair: Pair) -> None:
    a, b = pair
    a.sendall(b"")
    assert a.send(b"") == 0
    a.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        a.sendall(b"")


def test_sendmsg_and_file_descriptors(pair: Pair) -> None:
    a, b = pair
    read_end, write_end = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write_end]))]
    assert a.sendmsg(iter([b"ab", b"c"]), iter(rights)) == 3
    data, ancillary, _flags, _address = b.recvmsg(10, socket.CMSG_SPACE(4))
    assert data == b"abc"
    passed = array.array("i", ancillary[0][2])[0]
    os.write(passed, b"!")
    assert os.read(read_end, 1) == b"!"
    for fd in (read_end, write_end, passed):
        os.close(fd)
    socket.send_fds(a, [b"x"], [0])
    _, fds, _, _ = socket.recv_fds(b, 1, 1)
    os.close(fds[0])


def test_sending_waits_for_room(pair: Pair) -> None:
    a, b = pair
    for call in (lambda: a.send(b"!"), lambda: a.sendmsg([b"!"])):
        size = fill(a)

        def drain(size: int = size) -> None:
            while size > 0:
                size -= len(b.recv(1 << 20))

        bridge.spawn_later(0.01, drain)
        assert ticking(call) == 1
        assert b.recv(1 << 20)[-1:] == b"!"


@looks_up
def test_datagrams() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        bridge.spawn_later(0.01, a.sendto, b"one", b.getsockname())
        assert ticking(lambda: b.recvfrom(10)) == (b"one", a.getsockname())
        a.sendto(b"two", 0, ("localhost", b.getsockname()[1]))
        assert b.recv(10) == b"two"
        a.sendmsg([b"three"], (), 0, b.getsockname())
        assert b.recv(10) == b"three"
        a.connect(b.getsockname())
        a.send(b"four")
        assert b.recv(10) == b"four"


def test_reading_and_writing_at_once_but_no_two_readers(pair: Pair) -> None:
    a, b = pair
    reader = bridge.spawn(a.recv, 10)
    writer = bridge.spawn(a.sendall, b"x" * LARGE)
    bridge.sleep(0.005)
    for call in (lambda: a.recv(1), lambda: a.recvfrom(1), lambda: a.recvmsg(1)):
        with pytest.raises(ConcurrentObjectUseError, match="already used by another greenlet"):
            call()
    with pytest.raises(ConcurrentObjectUseError):
        a.send(b"x")
    b.send(b"hello")
    assert reader.get(timeout=5) == b"hello"
    size = 0
    while size < LARGE:
        size += len(b.recv(1 << 20))
    writer.get(timeout=5)


@pytest.mark.engines("none")
def test_a_reader_whose_loop_was_closed_is_in_nobodys_way(pair: Pair) -> None:
    a, b = pair

    async def leave_a_reader() -> bridge.Greenlet[bytes]:
        reader = bridge.spawn(a.recv, 1)
        await asyncio.sleep(0.005)
        return reader

    left = asyncio.run(leave_a_reader())
    b.send(b"x")

    async def read() -> bytes:
        await asyncio.sleep(0)
        result: bytes = await bridge.spawn(ticking, lambda: a.recv(1) + a.recv(1))
        return result

    async def both() -> bytes:
        asyncio.get_running_loop().call_later(0.02, b.send, b"y")
        return await read()

    assert asyncio.run(both()) == b"xy"
    assert not left.ready()


def test_makefile(pair: Pair) -> None:
    a, b = pair
    with a.makefile("rw", newline="\n") as f:
        bridge.spawn_later(0.01, b.sendall, b"line\nmore")
        assert ticking(f.readline) == "line\n"
        f.write("answer\n")
        f.flush()
        a.close()
        assert a.fileno() >= 0  # until the file is closed
    assert a.fileno() == -1
    assert b.makefile("rb").read() == b"answer\n"


@pytest.mark.parametrize("count", [None, 1_000_000, 5_000_000])
def test_sendfile(pair: Pair, tmp_path: Any, count: int | None) -> None:
    a, b = pair
    content = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(content)
    reader = bridge.spawn(lambda: b.makefile("rb").read())
    with open(tmp_path / "f", "rb") as f:
        sent = a.sendfile(f, 10, count)
        assert f.tell() == 10 + sent
    a.close()
    expected = content[10:] if count is None else content[10 : 10 + count]
    assert sent == len(expected)
    assert reader.get(timeout=10) == expected


def test_sendfile_of_what_is_no_regular_file(pair: Pair) -> None:
    a, b = pair
    assert a.sendfile(io.BytesIO(b"abc")) == 3
    assert b.recv(10) == b"abc"
    a.settimeout(0)
    with pytest.raises(ValueError, match="non-blocking"):
        a.sendfile(io.BytesIO(b"abc"))


# -- connections --------------------------------------------------------------------------------------------


@looks_up
def test_accept_and_connect(listener: socket.socket) -> None:
    accepting = bridge.spawn(listener.accept)
    bridge.sleep(0)
    with socket.create_connection(listener.getsockname(), timeout=5) as client:
        server, address = accepting.get(timeout=5)
        assert type(server) is socket.socket
        assert client.gettimeout() == 5.0
        assert server.gettimeout() is None
        assert address == client.getsockname()
        client.sendall(b"hello")
        assert server.recv(10) == b"hello"
        copy = server.dup()
        server.close()
        copy.sendall(b"back")
        copy.close()
        assert client.recv(10) == b"back"
        assert client.recv(10) == b""


def test_accept_times_out(listener: socket.socket) -> None:
    listener.settimeout(0.01)
    with pytest.raises(TimeoutError):
        listener.accept()


@looks_up
def test_names_are_looked_up_without_blocking(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with socket.socket() as client:
        client.connect(("localhost", port))
        assert client.getpeername() == ("127.0.0.1", port)
    with socket.socket() as client:
        assert client.connect_ex((b"localhost", port)) == 0
    with socket.create_connection(("localhost", port)):
        pass
    with socket.socket() as client:
        with pytest.raises(socket.gaierror):
            client.connect(("no-such-host.invalid", port))
        with pytest.raises(socket.gaierror):
            client.connect_ex(("no-such-host.invalid", port))
    with pytest.raises(socket.gaierror):
        socket.create_connection(("no-such-host.invalid", port))


@looks_up
def test_a_connection_refused() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = s.getsockname()
    with socket.socket() as s, pytest.raises(ConnectionRefusedError):
        s.connect(address)
    with socket.socket() as s:
        assert s.connect_ex(address) == errno.ECONNREFUSED
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    with pytest.raises(ExceptionGroup) as caught:
        socket.create_connection(address, all_errors=True)
    assert [type(e) for e in caught.value.exceptions] == [ConnectionRefusedError]


def full_listener() -> tuple[socket.socket, list[std.socket]]:
    """A listener whose queue is full: connecting to it hangs."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = []
    for _ in range(5):
        each = std.socket()
        each.setblocking(False)
        each.connect_ex(sock.getsockname())
        waiting.append(each)
    time.sleep(0.01)
    return sock, waiting


def test_connecting_times_out() -> None:
    sock, waiting = full_listener()
    with socket.socket() as s:
        s.settimeout(0.02)
        with pytest.raises(TimeoutError, match="timed out"):
            ticking(lambda: s.connect(sock.getsockname()))
    with socket.socket() as s:
        s.settimeout(0.02)
        assert s.connect_ex(sock.getsockname()) == errno.EAGAIN
    with socket.socket() as s:
        s.setblocking(False)
        with pytest.raises(BlockingIOError):
            s.connect(sock.getsockname())
    with socket.socket() as s:
        connecting = bridge.spawn(s.connect_ex, sock.getsockname())
        bridge.sleep(0.005)
        s.close()
        assert connecting.get(timeout=5) == errno.EBADF
    for each in (sock, *waiting):
        each.close()


@pytest.mark.engines("none")
@pytest.mark.parametrize("address", [("127.0.0.1", 70000), ("127.0.0.1", "http"), "text", ("127.0.0.1",)])
def test_what_is_no_address(address: Any) -> None:
    with socket.socket() as s, std.socket() as theirs:
        with pytest.raises((TypeError, OverflowError)) as caught:
            s.connect(address)
        with pytest.raises(caught.type):
            theirs.connect(address)


def test_unix_sockets_and_a_full_queue(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen(0)
        first = socket.socket(socket.AF_UNIX)
        first.connect(path)
        with socket.socket(socket.AF_UNIX) as late:
            late.settimeout(0.02)
            with pytest.raises(TimeoutError):
                late.connect(path)
            late.settimeout(5)
            accepting = bridge.spawn_later(0.01, sock.accept)
            late.connect(path)
            accepting.get()[0].close()
        first.close()


@pytest.mark.engines("none")
def test_create_server() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=5, reuse_port=True) as s:
        assert type(s) is socket.socket
        assert s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        with pytest.raises(OSError, match="while attempting to bind") as caught:
            socket.create_server(("127.0.0.1", s.getsockname()[1]))
        assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(ValueError, match="dualstack"):
        socket.create_server(("127.0.0.1", 0), dualstack_ipv6=True)


@pytest.mark.skipif(not std.has_dualstack_ipv6(), reason="needs IPv6")
@looks_up
def test_ipv6() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as s:
        port = s.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port)):
                s.accept()[0].close()
        with socket.socket(socket.AF_INET6) as client:
            client.connect(("::1%1", port))
            s.accept()[0].close()


@pytest.mark.engines("none")
def test_sockets_from_file_descriptors(pair: Pair) -> None:
    a, b = pair
    copy = socket.fromfd(a.fileno(), a.family, a.type)
    assert type(copy) is socket.socket
    assert copy.fileno() != a.fileno()
    copy.send(b"1")
    assert b.recv(1) == b"1"
    same = socket.socket(fileno=copy.detach())
    assert copy.closed
    assert (same.family, same.type) == (a.family, a.type)
    same.send(b"2")
    assert b.recv(1) == b"2"
    same.close()
    with pytest.raises(OSError):
        socket.socket(fileno=100_000)
    c, d = socket.socketpair(type=socket.SOCK_DGRAM)
    assert c.type is socket.SOCK_DGRAM
    c.close()
    d.close()


# -- closing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "detach", "shutdown"])
def test_who_waits_is_told_that_the_socket_is_gone(pair: Pair, how: str) -> None:
    a, _ = pair
    fill(a)

    def caught(function: Callable[..., Any], *args: Any) -> BaseException | None:
        try:
            function(*args)
        except OSError as e:
            return e
        return None

    waiting = [bridge.spawn(caught, a.recv, 1), bridge.spawn(caught, a.sendall, b"x")]
    bridge.sleep(0.005)
    if how == "close":
        a.close()
    elif how == "detach":
        os.close(a.detach())
    else:
        a.shutdown(socket.SHUT_RDWR)
    for each in waiting:
        error = each.get(timeout=5)
        assert isinstance(error, socket.cancel_wait_ex)
        assert error.errno == errno.EBADF


def test_shutting_down_one_side_leaves_the_other(pair: Pair) -> None:
    a, b = pair
    reader = bridge.spawn(a.recv, 1)
    bridge.sleep(0)
    a.shutdown(socket.SHUT_WR)
    assert b.recv(1) == b""
    b.send(b"x")
    assert reader.get(timeout=5) == b"x"


@pytest.mark.engines("none")
def test_a_closed_socket() -> None:
    s = socket.socket()
    s.close()
    for call in (
        s.getsockname,
        s.accept,
        lambda: s.recv(1),
        lambda: s.send(b"x"),
        lambda: s.shutdown(2),
        s.dup,
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF
    assert s.connect_ex(("localhost", 1)) == errno.EBADF


def test_a_number_that_is_used_again(pair: Pair) -> None:
    _, b = pair
    for close in (lambda s: s.close(), lambda s: os.close(s.detach()), lambda s: std.close(s.fileno())):
        old, _other = socket.socketpair()
        fd = old.fileno()
        old.settimeout(0.001)
        with pytest.raises(TimeoutError):
            old.recv(1)
        close(old)
        new, peer = socket.socketpair()
        assert fd in (new.fileno(), peer.fileno())
        if new.fileno() != fd:
            new, peer = peer, new
        bridge.spawn_later(0.005, peer.send, b"x")
        new.settimeout(5)
        assert new.recv(1) == b"x"
        if old.fileno() >= 0:
            old.detach()
        for each in (new, peer, _other):
            each.close()
    b.close()


def test_closing_from_another_thread(pair: Pair) -> None:
    a, _ = pair
    thread = threading.Timer(0.02, a.close)
    thread.start()
    with pytest.raises(socket.cancel_wait_ex):
        ticking(lambda: a.recv(1))
    thread.join()


def test_one_socket_in_several_threads(pair: Pair) -> None:
    a, b = pair
    got = []

    def read() -> None:
        got.append(a.recv(1))
        bridge.get_hub().destroy(destroy_loop=True)

    for i in range(3):
        thread = threading.Thread(target=read)
        thread.start()
        time.sleep(0.01)
        b.send(b"%d" % i)
        thread.join(5)
        bridge.spawn_later(0.005, b.send, b"x")
        got.append(a.recv(1))
    assert got == [b"0", b"x", b"1", b"x", b"2", b"x"]


# -- waiting for something else -----------------------------------------------------------------------------


def test_wait_and_cancel_wait(pair: Pair) -> None:
    a, b = pair
    watcher = bridge.get_hub().loop.io(a.fileno(), 1)
    with pytest.raises(TimeoutError, match="timed out"):
        socket.wait(watcher, 0.005, hub=bridge.get_hub())
    with pytest.raises(KeyError):
        socket.wait(watcher, timeout=0.005, timeout_exc=KeyError)
    waiting = bridge.spawn(socket.wait, watcher)
    bridge.sleep(0)
    with pytest.raises(ConcurrentObjectUseError):
        socket.wait(watcher)
    b.send(b"x")
    waiting.get(timeout=5)
    a.recv(1)
    waiting = bridge.spawn(lambda: pytest.raises(socket.cancel_wait_ex, socket.wait, watcher))
    bridge.sleep(0)
    socket.cancel_wait(watcher)
    waiting.get(timeout=5)
    waiting = bridge.spawn(lambda: pytest.raises(KeyError, socket.wait, watcher))
    bridge.sleep(0)
    socket.cancel_wait(watcher, KeyError)
    waiting.get(timeout=5)
    watcher.close()


def test_waiting_for_a_file_descriptor(pair: Pair) -> None:
    a, b = pair
    socket.wait_write(a.fileno())
    socket.wait_readwrite(a, timeout=1, event=None)
    with pytest.raises(TimeoutError):
        socket.wait_read(a.fileno(), timeout=0.005)
    with pytest.raises(KeyError):
        socket.wait_read(a.fileno(), timeout=0.005, timeout_exc=KeyError)
    b.send(b"x")
    socket.wait_read(a.fileno(), 1)


def test_closing_ends_a_wait_for_the_number(pair: Pair) -> None:
    a, _ = pair
    waiting = bridge.spawn(lambda: pytest.raises(OSError, socket.wait_read, a.fileno()))
    bridge.sleep(0)
    a.close()
    assert waiting.get(timeout=5).value.errno == errno.EBADF


# -- names --------------------------------------------------------------------------------------------------


@looks_up
def test_looking_up_names(printed: Any) -> None:
    assert socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM) == std.getaddrinfo(
        "127.0.0.1", 80, type=socket.SOCK_STREAM
    )
    assert socket.gethostbyname("localhost") == std.gethostbyname("localhost")
    assert socket.gethostbyname_ex("localhost") == std.gethostbyname_ex("localhost")
    assert socket.gethostbyaddr("127.0.0.1") == std.gethostbyaddr("127.0.0.1")
    assert socket.getnameinfo(("127.0.0.1", 80), 0) == std.getnameinfo(("127.0.0.1", 80), 0)
    assert socket.getfqdn() == std.getfqdn()
    assert socket.getfqdn("localhost") == std.getfqdn("localhost")
    assert socket.getfqdn("no-such-host.invalid") == "no-such-host.invalid"
    with pytest.raises(socket.gaierror):
        socket.gethostbyname("no-such-host.invalid")
    assert printed.getvalue() == ""


@pytest.mark.engines("none")
def test_the_name_of_the_host_is_told_in_a_coroutine_too() -> None:
    async def ask() -> str:
        with pytest.raises(BlockingSwitchOutError):
            socket.gethostbyname("localhost")
        return socket.getfqdn()  # as email.utils.make_msgid does

    assert asyncio.run(ask()) == std.getfqdn()


# -- asyncio ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_in_a_coroutine_below_a_portal() -> None:
    def talk() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            peer, _ = server.accept()
            bridge.spawn_later(0.01, peer.sendall, b"x" * 100_000)
            received = b""
            while len(received) < 100_000:
                received += client.recv(100_000)
            client.settimeout(0.005)
            with pytest.raises(TimeoutError):
                client.recv(1)
            client.close()
            peer.close()
            end_threads()
            return received

    assert await bridge.portal(_in_portal)(talk) == b"x" * 100_000


async def _in_portal(function: Callable[[], Any]) -> Any:
    return function()


@pytest.mark.asyncio
async def test_a_coroutine_without_a_portal_does_not_block() -> None:
    a, b = socket.socketpair()
    with pytest.raises(BlockingSwitchOutError):
        a.recv(1)
    b.send(b"x")
    assert a.recv(1) == b"x"  # no need to wait
    a.close()
    b.close()


@pytest.mark.asyncio
async def test_the_loop_s_own_functions() -> None:
    loop = asyncio.get_running_loop()
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    for each in (server, client):
        each.setblocking(False)
    accepting = asyncio.ensure_future(loop.sock_accept(server))
    await loop.sock_connect(client, server.getsockname())
    peer, _ = await accepting
    receiving = asyncio.ensure_future(loop.sock_recv(peer, 10))
    await asyncio.sleep(0.005)
    await loop.sock_sendall(client, b"abc")
    assert await receiving == b"abc"
    reader, writer = await asyncio.open_connection(sock=client)
    await loop.sock_sendall(peer, b"line\n")
    assert await reader.readline() == b"line\n"
    writer.close()
    await writer.wait_closed()
    peer.close()
    server.close()


def test_select_takes_them(pair: Pair) -> None:
    a, b = pair
    bridge.spawn_later(0.005, b.send, b"x")
    assert bridge_select.select([a], [], [], 5) == ([a], [], [])
    assert select.select([a], [], [], 0) == ([a], [], [])
