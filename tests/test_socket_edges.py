"""Sockets in trouble, and what a wait for edges must not miss."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import resource
import socket as std
import struct
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import bridge
from bridge import socket
from bridge._core import poller as poller_module
from bridge._core.switching import EngineBase
from bridge.exceptions import BlockingSwitchOutError, LoopExit

from .helpers import tcp

Pair = tuple[socket.socket, socket.socket]


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


def waited(sock: socket.socket, peer: socket.socket) -> None:
    """Have ``sock`` registered, and its last read a short one."""
    reader = bridge.spawn(sock.recv, 100)
    bridge.sleep(0)
    peer.send(b"hello")
    assert reader.get(timeout=5) == b"hello"


def echo(sock: socket.socket) -> None:
    while data := sock.recv(1000):
        sock.sendall(data)


# -- edges --------------------------------------------------------------------------------------------------


def test_messages_of_all_sizes_come_through_whatever_is_asked_for(pair: Pair) -> None:
    a, b = pair
    bridge.spawn(echo, b)
    for size in (1, 999, 1000, 1001, 5000, 100_000):
        for bufsize in (1, 7, 1000, 65536):
            if size // bufsize > 1000:
                continue
            message = os.urandom(size)
            sender = bridge.spawn(a.sendall, message)
            received = b""
            while len(received) < size:
                received += a.recv(bufsize)
            sender.get(timeout=5)
            assert received == message


def test_recv_into_of_all_sizes(pair: Pair) -> None:
    a, b = pair
    bridge.spawn(echo, b)
    for size in (1, 16, 17, 40):
        buffer = bytearray(16)
        a.sendall(b"x" * size)
        left = size
        while left:
            left -= a.recv_into(buffer)
        a.sendall(b"y" * size)
        left = size
        while left:
            left -= a.recv_into(memoryview(bytearray(64)).cast("I"), 3)


def test_long_and_short_messages_take_turns(pair: Pair) -> None:
    a, b = pair
    bridge.spawn(echo, b)
    for size in (1, 8191, 8192, 8193, 3, 65535, 65536, 65537, 2, 200_000, 5, 5, 70_000, 1) * 3:
        message = os.urandom(size)
        sender = bridge.spawn(a.sendall, message)
        received = []
        while sum(map(len, received)) < size:
            received.append(a.recv(65536))
        sender.get(timeout=5)
        assert b"".join(received) == message
        kept = received[0]
        a.sendall(b"?" * len(kept))
        left = len(kept)
        while left:
            left -= a.recv_into(bytearray(10_000))
        assert message.startswith(kept)  # nothing has been written over


def test_a_peer_may_be_slow_for_long_and_then_quick(pair: Pair) -> None:
    a, b = pair
    echoing = bridge.spawn(echo, b)
    for _ in range(100):
        a.sendall(b"slow")
        assert a.recv(100) == b"slow"
    echoing.kill()
    for _ in range(100):
        b.sendall(b"quick")
        assert a.recv(100) == b"quick"
    reader = bridge.spawn(a.recv, 100)
    bridge.sleep(0)
    b.sendall(b"slow")
    assert reader.get(timeout=5) == b"slow"


class Index:
    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.recv(),
        lambda s: s.recv(-1),
        lambda s: s.recv(-(2**70)),
        lambda s: s.recv(2**70),
        lambda s: s.recv(1.5),
        lambda s: s.recv("1"),
        lambda s: s.recv(1, 0, 0),
        lambda s: s.recv(*range(20)),
        lambda s: s.recv(bufsize=1),
        lambda s: s.recv(0),
        lambda s: s.recv(True),
        lambda s: s.recv(Index()),
        lambda s: s.recv(2, std.MSG_PEEK),
        lambda s: s.recv_into(bytearray(2), 3),
        lambda s: s.recv_into(bytearray(2), -1),
        lambda s: s.recv_into(bytearray(2), 2**70),
        lambda s: s.recv_into(bytearray(4), Index()),
        lambda s: s.recv_into(b"constant"),
        lambda s: s.recv_into(5),
        lambda s: s.recv_into(),
        lambda s: s.recv_into(bytearray()),
        lambda s: s.recv_into(memoryview(bytearray(8))[::2]),
        lambda s: s.recv_into(buffer=bytearray(2), nbytes=1),
        lambda s: s.recv_into(bytearray(8), flags=std.MSG_PEEK),
        lambda s: s.send("text"),
        lambda s: s.send(),
        lambda s: s.send(b""),
        lambda s: s.send(memoryview(bytes(8))[::2]),
        lambda s: s.sendall(5),
        lambda s: s.sendall(memoryview(bytes(8))[::2]),
        lambda s: s.sendall(b""),
        lambda s: s.sendall(bytearray(b"xyz")),
        lambda s: s.sendall(b"xyz", std.MSG_DONTWAIT),
    ],
)
def test_arguments_are_those_of_the_standard_class(call: Any) -> None:
    results: list[Any] = []
    for pair in (std.socketpair(), socket.socketpair()):
        with pair[0] as a, pair[1] as b:
            b.sendall(b"something")
            try:
                results.append(call(a))
            except Exception as e:
                results.append(type(e))
            assert a.recv(100)[-4:] == b"hing"  # whatever the error was, it concerns that call only
    assert results[0] == results[1]


def test_what_asks_for_nothing_does_not_wait(pair: Pair) -> None:
    a, b = pair
    a.settimeout(10)
    for nothing in (lambda: a.recv(0), lambda: a.recv_into(bytearray())):
        waited(a, b)
        bridge.spawn(int)  # somebody else is ready: an attempt is not the quickest way
        assert not nothing()
    for call in (
        lambda: a.recv(-1),
        lambda: a.recv_into(bytearray(1), -1),
        lambda: a.recv_into(bytearray(), 2),
    ):
        waited(a, b)
        bridge.spawn(int)
        with pytest.raises(ValueError):
            call()


def test_a_closed_socket_says_so_after_a_short_read(pair: Pair) -> None:
    a, b = pair
    waited(a, b)
    a.close()
    for call in (
        lambda: a.recv(1),
        lambda: a.recv_into(bytearray(1)),
        lambda: a.send(b"x"),
        lambda: a.sendall(b"x"),
    ):
        bridge.spawn(int)
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_a_wait_for_a_socket_that_another_thread_has_just_closed_is_an_error(pair: Pair) -> None:
    a, _b = pair
    a.close()
    with pytest.raises(OSError) as caught:
        a._wait_edge(1, 10)  # as after an attempt, before which it was open
    assert caught.value.errno == errno.EBADF


def test_a_buffer_need_not_have_a_length(pair: Pair) -> None:
    a, b = pair
    buffer = ctypes.c_int()
    b.sendall(bytes(ctypes.c_int(7)))
    assert a.recv_into(buffer) == len(bytes(buffer))
    assert buffer.value == 7


def test_other_threads_have_their_turn_while_greenlets_always_find_something_to_do() -> None:
    busy = True

    def play(sock: socket.socket, begin: bool) -> None:
        if begin:
            sock.sendall(b"x")
        while busy:
            sock.sendall(sock.recv(10))

    pairs = [socket.socketpair() for _ in range(5)]
    players = [bridge.spawn(play, sock, sock is pair[0]) for pair in pairs for sock in pair]
    try:
        pool = bridge.get_hub().threadpool
        assert [pool.apply(divmod, (i, 3)) for i in range(20)] == [divmod(i, 3) for i in range(20)]
    finally:
        busy = False
        bridge.killall(players)
        for pair in pairs:
            pair[0].close()
            pair[1].close()


def test_the_end_is_seen_after_a_short_read(pair: Pair) -> None:
    a, b = pair
    waited(a, b)
    b.sendall(b"last")
    b.close()
    bridge.sleep(0.005)  # both the data and the end are reported by now
    assert a.recv(100) == b"last"
    assert a.recv(100) == b""
    assert a.recv(100) == b""


def test_the_end_wakes_who_waits(pair: Pair) -> None:
    a, b = pair
    waited(a, b)
    reader = bridge.spawn(a.recv, 100)
    bridge.sleep(0)
    b.close()
    assert reader.get(timeout=5) == b""


def test_one_side_may_end_before_the_other(pair: Pair) -> None:
    a, b = pair
    waited(a, b)
    b.shutdown(socket.SHUT_WR)
    assert a.recv(10) == b""
    a.sendall(b"still here")
    assert b.recv(100) == b"still here"
    assert a.recv(10) == b""


def test_a_look_ahead_takes_nothing_away(pair: Pair) -> None:
    a, b = pair
    waited(a, b)
    reader = bridge.spawn(lambda: (a.recv(100, socket.MSG_PEEK), a.recv(3), a.recv(100)))
    bridge.sleep(0)
    b.sendall(b"abcdef")
    assert reader.get(timeout=5) == (b"abcdef", b"abc", b"def")


def test_what_follows_urgent_data_is_read_without_another_packet(connection: Pair) -> None:
    a, b = connection
    waited(a, b)
    b.sendall(b"before")
    b.send(b"!", socket.MSG_OOB)
    b.sendall(b"after")
    bridge.sleep(0.005)  # all of it has been reported
    received = b""
    with bridge.Timeout(5):
        while len(received) < 11:
            received += a.recv(100)  # stops at the mark
    assert received == b"beforeafter"


def test_a_read_that_stops_at_a_passed_descriptor_is_not_the_end_of_the_data() -> None:
    a, b = socket.socketpair()
    with a, b:
        waited(a, b)
        socket.send_fds(b, [b"one"], [0])
        b.sendall(b"two")
        bridge.sleep(0.005)
        received = b""
        with bridge.Timeout(5):
            while len(received) < 6:
                received += a.recv(100)
        assert received == b"onetwo"


def test_a_limit_of_time_holds_after_a_short_read(connection: Pair) -> None:
    a, b = connection
    waited(a, b)
    a.settimeout(0.01)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="timed out"):
            a.recv(10)
    a.settimeout(0)
    with pytest.raises(BlockingIOError):
        a.recv(10)
    b.sendall(b"x")
    a.settimeout(5)
    assert a.recv(10) == b"x"


@pytest.mark.asyncio
async def test_a_coroutine_reads_what_is_there_after_a_short_read() -> None:
    a, b = await bridge.sync_to_async(tcp)()
    await bridge.sync_to_async(waited)(a, b)
    with pytest.raises(BlockingSwitchOutError):
        a.recv(10)
    b.send(b"x")
    assert a.recv(10) == b"x"
    a.close()
    b.close()


def test_killed_and_timed_out_waits_lose_no_data(pair: Pair) -> None:
    a, b = pair
    waited(a, b)
    for _ in range(3):
        reader = bridge.spawn(a.recv, 10)
        bridge.sleep(0)
        b.send(b"x")
        reader.kill()
        assert a.recv(10) == b"x"
        with bridge.Timeout(0.001, False):
            a.recv(10)
        b.send(b"y")
        assert a.recv(10) == b"y"


def test_a_wait_that_does_not_count_ends_the_loop() -> None:
    if not bridge.get_hub().loop.owned or threading.active_count() > 1:
        pytest.skip("somebody else may wake us")
    a, b = socket.socketpair()
    with a, b:
        a.ref = False
        with pytest.raises(LoopExit):
            a.recv(1)
        a.ref = True
        bridge.spawn_later(0.001, b.send, b"x")
        assert a.recv(1) == b"x"


def test_without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "_new_epoll", None)
    a, b = tcp()
    with a, b:
        waited(a, b)
        echoing = bridge.spawn(echo, b)
        for message in (b"x", b"y" * 100_000):
            sender = bridge.spawn(a.sendall, message)
            received = b""
            while len(received) < len(message):
                received += a.recv(65536)
            sender.get(timeout=5)
            assert received == message
        a.shutdown(socket.SHUT_WR)
        echoing.get(timeout=5)


def test_it_is_freed_without_being_closed() -> None:
    a, b = tcp()
    with b:
        waited(a, b)
        ref = weakref.ref(a)
        gc.disable()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # a warning that is kept keeps the socket
                del a
            assert ref() is None
        finally:
            gc.enable()
        assert b.recv(1) == b""


def test_closed_sockets_leave_nothing_behind() -> None:
    for _ in range(3):
        a, b = tcp()
        waited(a, b)
        waited(b, a)
        a.close()
        b.close()
    edges = bridge.get_hub().loop.edges
    assert edges is None or not edges.channels


# -- several objects, threads, processes --------------------------------------------------------------------


def test_two_objects_for_one_descriptor(connection: Pair) -> None:
    a, b = connection
    twin = socket.socket(fileno=a.fileno())
    for reader, other in ((a, twin), (twin, a), (a, twin)):
        waited(reader, b)
        reading = bridge.spawn(reader.recv, 10)
        bridge.sleep(0)
        filling = bridge.spawn(other.sendall, b"x" * 20_000_000)
        bridge.sleep(0.005)
        b.send(b"y")
        assert reading.get(timeout=5) == b"y"
        size = 0
        while size < 20_000_000:
            size += len(b.recv(1 << 20))
        filling.get(timeout=5)
    twin.detach()


def test_duplicates_are_independent(pair: Pair) -> None:
    a, b = pair
    waited(a, b)
    copy = a.dup()
    waited(copy, b)
    a.close()
    waited(copy, b)
    copy.close()


def test_one_thread_reads_and_another_one_writes(connection: Pair) -> None:
    a, b = connection
    echoing = bridge.spawn(echo, b)
    a.sendall(b"first")
    assert a.recv(10) == b"first"  # at home in this thread
    size = 3_000_000

    def write() -> None:
        a.sendall(b"x" * size)
        bridge.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=write)
    thread.start()
    received = 0
    while received < size:
        received += len(a.recv(65536))
    thread.join()
    a.shutdown(socket.SHUT_WR)
    echoing.get(timeout=5)


def test_a_socket_goes_from_loop_to_loop(connection: Pair) -> None:
    a, b = connection
    results = []

    def talk() -> None:
        for _ in range(2):
            waited(a, b)
        results.append(1)
        bridge.get_hub().destroy(destroy_loop=True)

    for _ in range(2):
        thread = threading.Thread(target=talk)
        thread.start()
        thread.join()
        waited(a, b)
    assert results == [1, 1]


@pytest.mark.engines("none")
def test_a_socket_goes_from_one_asyncio_run_to_the_next() -> None:
    a, b = bridge.run(bridge.sync_to_async(tcp))
    for _ in range(3):
        bridge.run(bridge.sync_to_async(waited)(a, b))
    a.close()
    b.close()


def test_closing_in_another_thread_concerns_nobody_else(pair: Pair) -> None:
    a, b = pair
    others = [tcp() for _ in range(3)]
    for near, far in others:
        bridge.spawn(echo, far)
        near.sendall(b"x")
        assert near.recv(10) == b"x"
    waiting = bridge.spawn(lambda: pytest.raises(socket.cancel_wait_ex, a.recv, 1))
    bridge.sleep(0)
    thread = threading.Thread(target=a.close)
    thread.start()
    assert waiting.get(timeout=5).value.errno == errno.EBADF
    thread.join()
    for near, far in others:
        near.sendall(b"y")
        assert near.recv(10) == b"y"
        near.close()
        far.close()


@pytest.mark.engines("none")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_parent_and_child_of_a_fork_keep_their_own_registrations(loop: str) -> None:
    script = """
import os, warnings, bridge
from bridge import socket
warnings.simplefilter("ignore")
server = socket.create_server(("127.0.0.1", 0))
pairs = []
for _ in range(2):
    a = socket.create_connection(server.getsockname())
    pairs.append((a, server.accept()[0]))
readers = []
for a, b in pairs:
    g = bridge.spawn(a.recv, 10)
    bridge.sleep(0)
    b.send(b"0")
    assert g.get() == b"0"
    readers.append(bridge.spawn(a.recv, 10))
bridge.sleep(0.001)
pid = os.fork()
if not pid:
    pairs[0][0].close()                    # must not end the parent's registration
    pairs[1][1].send(b"c")
    assert readers[1].get() == b"c"        # the greenlet has come along and is woken here
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
for (a, b), g in zip(pairs, readers):
    b.send(b"p")
    assert g.get(timeout=5) == b"p"
print("both")
"""
    env = {**os.environ, "BRIDGE_LOOP": loop}
    result = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=50, check=False
    )
    assert result.stdout == "both\n", result.stderr


@pytest.mark.asyncio
async def test_asyncio_and_greenlets_take_turns_with_one_socket() -> None:
    loop = asyncio.get_running_loop()
    a, b = await bridge.sync_to_async(tcp)()
    for _ in range(2):
        await bridge.sync_to_async(waited)(a, b)
        before = a.gettimeout()
        a.setblocking(False)
        receiving = asyncio.ensure_future(loop.sock_recv(a, 10))
        await asyncio.sleep(0.001)
        b.send(b"x")
        assert await receiving == b"x"
        a.settimeout(before)
    a.close()
    b.close()


# -- trouble ------------------------------------------------------------------------------------------------


def test_a_reset_is_raised_where_it_belongs() -> None:
    a, b = tcp()
    near, far = tcp()
    waited(a, b)
    waiting = bridge.spawn(lambda: pytest.raises(ConnectionResetError, a.recv, 1))
    other = bridge.spawn(near.recv, 10)
    bridge.sleep(0)
    b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    b.close()
    waiting.get(timeout=5)
    far.send(b"fine")
    assert other.get(timeout=5) == b"fine"
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(3):
            a.send(b"x")
    for each in (a, near, far):
        each.close()


def test_a_slow_reader_slows_only_its_writer() -> None:
    a, b = tcp()
    near, far = tcp()
    size = 8_000_000
    writer = bridge.spawn(a.sendall, b"x" * size)
    bridge.spawn(echo, far)
    received = 0
    while received < size:  # the window is at zero most of the time
        received += len(b.recv(100_000))
        if not received // 100_000 % 10:
            near.sendall(b"quick")
            assert near.recv(10) == b"quick"
    writer.get(timeout=5)
    for each in (a, b, near, far):
        each.close()


def test_a_writer_whose_peer_vanishes_gets_an_error() -> None:
    a, b = tcp()
    writer = bridge.spawn(lambda: pytest.raises(OSError, a.sendall, b"x" * 20_000_000))
    bridge.sleep(0.005)
    b.close()
    assert isinstance(writer.get(timeout=5).value, ConnectionResetError | BrokenPipeError)
    a.close()


def test_accept_without_descriptors_to_spare_raises_and_goes_on_later() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    a, b = tcp()
    clients = [std.socket() for _ in range(2)]
    accepting = bridge.spawn(server.accept)
    bridge.sleep(0.001)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    try:
        for client in clients:
            client.connect(server.getsockname())
        with pytest.raises(OSError) as caught:
            accepting.get(timeout=5)
        assert caught.value.errno == errno.EMFILE
        waited(a, b)  # whoever has a connection does not notice
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for _ in clients:
        server.accept()[0].close()
    for each in (server, a, b, *clients):
        each.close()


def test_numbers_that_are_used_again_at_once() -> None:
    server = socket.create_server(("127.0.0.1", 0), backlog=100)
    stop = []

    def serve() -> None:
        while not stop:
            sock, _ = server.accept()
            bridge.spawn(handle, sock)

    def handle(sock: socket.socket) -> None:
        with sock:
            sock.sendall(sock.recv(100))

    def client(i: int) -> None:
        for j in range(20):
            with socket.create_connection(server.getsockname()) as sock:
                if (i + j) % 3:
                    message = b"%d %d" % (i, j)
                    sock.sendall(message)
                    assert sock.recv(100) == message
                    assert sock.recv(100) == b""

    serving = bridge.spawn(serve)
    bridge.joinall([bridge.spawn(client, i) for i in range(10)], raise_error=True, timeout=20)
    serving.kill()
    server.close()


def test_binding_lets_nobody_else_run_not_even_to_look_up_a_name() -> None:
    # as in gevent: one sleep(0) after spawning a server it listens
    others: list[str] = []

    def listen() -> Any:
        bridge.spawn(others.append, "ran")
        a = socket.socket()
        a.bind(("localhost", 0))
        a.listen()
        assert not others
        return a

    with bridge.spawn(listen).get() as a, socket.create_connection(a.getsockname()):
        assert others == ["ran"]


def test_what_ends_a_blocking_recv_has_no_other_error_as_its_context() -> None:
    """Its traceback would tell of a BlockingIOError, which is no concern of the program's."""
    a, b = socket.socketpair()
    with a, b:
        a.settimeout(0.001)
        with pytest.raises(TimeoutError) as caught:
            a.recv(1)
        assert caught.value.__context__ is None
        with pytest.raises(TimeoutError) as caught:
            a.recv_into(bytearray(1))
        assert caught.value.__context__ is None
        a.settimeout(None)
        reader = bridge.spawn(a.recv, 1)
        bridge.sleep(0)
        reader.kill(ValueError("stop"))
        assert reader.exception is not None and reader.exception.__context__ is None


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.skipif(
    not hasattr(EngineBase.park, "__objclass__"), reason="a frame of Python keeps what it calls"
)
@pytest.mark.skipif(
    hasattr(sys, "gettotalrefcount"), reason="greenlet's assertions look at what was switched to"
)
def test_a_greenlet_that_fails_does_not_live_on_in_those_who_let_it_run(printed: Any) -> None:
    def fail(sock: socket.socket) -> None:
        raise ValueError("expected")

    def fail_later(sock: socket.socket) -> None:
        bridge.sleep(0)
        fail(sock)

    for function in (fail, fail_later) * 3:
        a, b = socket.socketpair()
        with a:
            a.settimeout(5)
            bridge.spawn(function, b)
            bridge.spawn(bridge.sleep, 10)
            del b
            assert a.recv(1) == b""
    assert "expected" in printed.getvalue()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_killed_greenlet_does_not_live_on_in_those_who_let_it_run() -> None:
    def hold(sock: socket.socket) -> None:
        bridge.sleep(10)

    for _ in range(3):
        a, b = socket.socketpair()
        with a:
            a.settimeout(5)
            holder = bridge.spawn(hold, b)
            del b
            bridge.sleep(0)
            bridge.spawn(bridge.sleep, 10)
            holder.kill(block=False)
            del holder
            assert a.recv(1) == b""


def test_an_operation_ends_when_the_time_limit_is_over_with_which_it_began() -> None:
    a, b = socket.socketpair()
    with a, b:
        a.settimeout(0.02)
        reader = bridge.spawn(a.recv, 1)
        bridge.sleep(0)
        a.settimeout(None)
        assert a._channel.reader is not None
        a._channel.reader.wake()  # in vain
        with pytest.raises(TimeoutError, match="timed out"):
            reader.get(timeout=30)
