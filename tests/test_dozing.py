"""The drain that sleeps in the loop's place: what it must wake up for, and when it must not.

While it does, sockets are none of the loop's business, so each thing that the loop would have seen is tested
here with a greenlet that waits for a socket.
"""

from __future__ import annotations

import errno
import os
import signal
import socket as stdlib_socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
import pytest

import bridge
from bridge import socket
from bridge._core import edges as edges_module
from bridge.event import AsyncResult, Event
from bridge.exceptions import LoopExit
from bridge.os import fork_gevent, waitpid
from bridge.util import assert_switches

pytestmark = pytest.mark.engines("owned")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


def dozes() -> bool:
    edges = bridge.get_hub().loop.edges
    return edges is not None and edges.loop_fd >= 0


def echo(sock: socket.socket) -> None:
    while data := sock.recv(100):
        sock.sendall(data)


def exchange(pair: Pair, count: int = 5) -> None:
    """Some messages: so that the sockets are registered, and the drain has had reason to sleep."""
    a, b = pair
    echoing = bridge.spawn(echo, b)
    for _ in range(count):
        a.sendall(b"x")
        assert a.recv(100) == b"x"
    echoing.kill()


@pytest.fixture
def dozing(pair: Pair) -> Pair:
    exchange(pair)
    assert dozes()
    # from now on whoever waits sleeps where he is, as the hub has nothing to see to
    pair[0].settimeout(0.001)
    with pytest.raises(TimeoutError):
        pair[0].recv(1)
    pair[0].settimeout(None)
    return pair


def test_messages_need_no_round_of_the_loop(dozing: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0
    loop = bridge.get_hub().loop
    entry = loop.entry

    def counted() -> None:
        nonlocal rounds
        rounds += 1
        entry()

    monkeypatch.setattr(loop, "entry", counted)
    exchange(dozing, 200)
    assert rounds < 20


@pytest.mark.skipif(edges_module.compiled is None, reason="the twin in Python leaves the sleep to the hub")
def test_whoever_blocks_last_sleeps_without_a_switch_to_the_hub(
    dozing: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    look_again = edges_module.Edges.look_again

    def counted(self: edges_module.Edges, engine: Any) -> bool:
        nonlocal looks
        looks += 1
        return look_again(self, engine)

    monkeypatch.setattr(edges_module.Edges, "look_again", counted)
    exchange(dozing, 200)  # 400 waits
    assert looks < 100


@pytest.mark.skipif(edges_module.compiled is None, reason="the twin in Python makes one for each wait")
def test_a_limited_wait_that_nobody_interrupts_needs_no_timer(
    dozing: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = dozing
    plain = stdlib_socket.socket(fileno=b.detach())
    plain.setblocking(True)
    answering = threading.Thread(target=lambda: [plain.sendall(plain.recv(10)) for _ in range(40)])
    timers = []
    loop = bridge.get_hub().loop
    call_at = loop.call_at

    def counted(*args: Any) -> Any:
        timers.append(args)
        return call_at(*args)

    monkeypatch.setattr(loop, "call_at", counted)
    a.settimeout(10)
    answering.start()
    for i in range(40):
        a.sendall(b"%d" % i)
        assert a.recv(10) == b"%d" % i
    assert len(timers) < 20  # the hub has its turn now and then
    answering.join()
    plain.close()


@pytest.mark.parametrize("others", [0, 3])
def test_a_limited_wait_ends_in_time_whoever_is_woken_before(dozing: Pair, others: int) -> None:
    pairs = [socket.socketpair() for _ in range(others)]

    def chat(pair: Pair) -> None:
        with pytest.raises(TimeoutError):
            while True:
                pair[0].sendall(b"x")
                pair[1].recv(1)
                pair[1].settimeout(0.001)
                pair[1].recv(1)

    chatting = [bridge.spawn(chat, pair) for pair in pairs]
    a = dozing[0]
    a.settimeout(0.02)
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            a.recv(1)
        assert time.monotonic() - began >= 0.0199
    bridge.joinall(chatting, timeout=10, raise_error=True)
    for pair in pairs:
        pair[0].close()
        pair[1].close()


def test_a_trace_function_sees_each_wait_as_a_switch(dozing: Pair) -> None:
    with assert_switches():  # raises where there was none
        exchange(dozing, 1)
    seen = []
    before = greenlet.settrace(lambda event, args: seen.append(args))
    try:
        dozing[0].settimeout(0.01)
        with pytest.raises(TimeoutError):
            dozing[0].recv(1)
    finally:
        greenlet.settrace(before)
    hub = bridge.get_hub()
    assert (greenlet.getcurrent(), hub) in seen
    assert (hub, greenlet.getcurrent()) in seen


def test_a_timer_wakes_it(dozing: Pair) -> None:
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.01):
        dozing[0].recv(1)
    assert dozes()
    bridge.sleep(0.001)
    dozing[0].settimeout(0.01)
    with pytest.raises(TimeoutError):
        dozing[0].recv(1)


def test_another_thread_wakes_it(dozing: Pair) -> None:
    bridge.spawn(dozing[0].recv, 1)
    bridge.sleep(0)
    for _ in range(20):
        event = Event()
        thread = threading.Thread(target=event.set)
        bridge.spawn(thread.start)
        assert event.wait(10)
        thread.join()
    results = [bridge.get_hub().threadpool.spawn(divmod, i, 3) for i in range(20)]
    assert [r.get(timeout=10) for r in results] == [divmod(i, 3) for i in range(20)]


def test_a_greenlet_of_another_thread_closes_the_socket(dozing: Pair) -> None:
    a, _b = dozing
    closer = threading.Timer(0.01, a.close)
    closer.start()
    with pytest.raises(OSError) as caught:
        a.recv(1)
    assert caught.value.errno == errno.EBADF
    closer.join()


def test_a_signal_handler_wakes_it(dozing: Pair) -> None:
    event = Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: event.set())
    try:
        reader = bridge.spawn(dozing[0].recv, 1)
        for _ in range(5):
            event.clear()
            sender = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1))
            sender.start()
            assert event.wait(10)
            sender.join()
        assert not reader.ready()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_error_of_a_signal_handler_is_reported_and_nothing_stops(
    dozing: Pair, errors: list[tuple[Any, BaseException]]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("in a handler")

    before = signal.signal(signal.SIGUSR1, broken)
    try:
        sender = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1))
        sender.start()
        dozing[0].settimeout(0.1)
        try:
            with pytest.raises(TimeoutError):
                dozing[0].recv(1)
        except ZeroDivisionError:
            pass  # the thread that joins or reads may be the one that runs Python code: raised there
        else:
            assert [type(e) for _, e in errors] == [ZeroDivisionError]
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    exchange(dozing)


@pytest.fixture
def alarm(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[..., object]], None]]:
    """alarm(handler): a signal in 10 ms, without another thread or process."""
    before = signal.getsignal(signal.SIGALRM)

    def start(handler: Callable[..., object]) -> None:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("limit", [None, 10])
def test_handlers_of_signals_run_in_the_hub(
    dozing: Pair, alarm: Callable[..., None], limit: float | None
) -> None:
    dozing[0].settimeout(limit)
    where = []

    def handler(*_: object) -> None:
        where.append(greenlet.getcurrent())
        dozing[1].send(b"!")

    alarm(handler)
    assert dozing[0].recv(1) == b"!"
    assert where == [bridge.get_hub()]
    exchange(dozing)


@pytest.mark.parametrize("limit", [None, 10])
def test_what_a_handler_raises_is_not_raised_in_who_sleeps(
    dozing: Pair,
    alarm: Callable[..., None],
    errors: list[tuple[Any, BaseException]],
    limit: float | None,
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("in a handler")

    alarm(broken)
    dozing[0].settimeout(limit)
    reader = bridge.spawn(dozing[0].recv, 1)
    with pytest.raises(ZeroDivisionError):  # as in gevent: in the main greenlet
        bridge.sleep(10)
    assert [type(e) for _, e in errors] == [ZeroDivisionError]
    assert not reader.ready()
    dozing[1].send(b"1")
    assert reader.get(timeout=10) == b"1"


def test_a_limited_wait_goes_on_after_a_signal(dozing: Pair, alarm: Callable[..., None]) -> None:
    came = []
    alarm(lambda *_: came.append(True))
    dozing[0].settimeout(0.03)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        dozing[0].recv(1)
    assert came and time.monotonic() - began >= 0.0299
    # and may be killed by the handler
    reader = bridge.spawn(dozing[0].recv, 1)
    dozing[0].settimeout(10)
    alarm(lambda *_: reader.kill(block=False))
    reader.join(10)
    assert isinstance(reader.value, bridge.GreenletExit)
    exchange(dozing)


def test_keyboard_interrupt_reaches_the_main_greenlet(dozing: Pair) -> None:
    sender = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT))
    sender.start()
    with pytest.raises(KeyboardInterrupt):
        dozing[0].recv(1)
    sender.join()
    exchange(dozing)


def test_a_watched_signal_and_a_child_wake_it(dozing: Pair) -> None:
    reader = bridge.spawn(dozing[0].recv, 1)
    got = AsyncResult[int]()
    watcher = bridge.get_hub().loop.signal(signal.SIGUSR2)
    watcher.start(got.set, 1)
    bridge.spawn(os.kill, os.getpid(), signal.SIGUSR2)
    assert got.get(timeout=10) == 1
    watcher.close()
    from bridge.subprocess import Popen

    with Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
        assert cat.communicate(b"hello", timeout=10) == (b"hello", None)
        assert cat.wait(timeout=10) == 0
    assert not reader.ready()


def test_a_bare_descriptor_wakes_it(dozing: Pair) -> None:
    reader = bridge.spawn(dozing[0].recv, 1)
    readable, writable = os.pipe()
    for _ in range(3):
        bridge.spawn(os.write, writable, b"x")
        with bridge.Timeout(10):
            socket.wait_read(readable)
        assert os.read(readable, 10) == b"x"
    os.close(readable)
    os.close(writable)
    assert not reader.ready()


def test_a_name_is_looked_up_meanwhile(dozing: Pair) -> None:
    reader = bridge.spawn(dozing[0].recv, 1)
    assert socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert not reader.ready()


def test_busy_greenlets_do_not_keep_the_loop_from_what_concerns_it(dozing: Pair) -> None:
    stop = Event()

    def spin() -> None:
        while not stop.is_set():
            bridge.sleep(0)

    spinners = [bridge.spawn(spin) for _ in range(3)]
    readable, writable = os.pipe()
    threading.Timer(0.01, os.write, (writable, b"x")).start()
    with bridge.Timeout(10):
        socket.wait_read(readable)
    event = Event()
    threading.Timer(0.01, event.set).start()
    assert event.wait(10)
    stop.set()
    bridge.joinall(spinners, timeout=10)
    os.close(readable)
    os.close(writable)


def test_whoever_takes_the_loop_gets_it_back(dozing: Pair) -> None:
    reader = bridge.spawn(dozing[0].recv, 1)
    bridge.sleep(0)
    done = Event()
    bridge.get_hub().aio_loop.call_later(0.01, done.set)
    assert done.wait(10)
    assert not dozes()
    dozing[1].send(b"y")
    assert reader.get(timeout=10) == b"y"
    exchange(dozing)
    assert not dozes()


def test_a_coroutine_runs_while_a_socket_is_waited_for(dozing: Pair) -> None:
    import asyncio

    async def nap() -> int:
        await asyncio.sleep(0.001)
        return 42

    reader = bridge.spawn(dozing[0].recv, 1)
    bridge.sleep(0)
    assert bridge.await_(nap()) == 42
    dozing[1].send(b"z")
    assert reader.get(timeout=10) == b"z"


def test_nothing_left_is_noticed(dozing: Pair) -> None:
    if threading.active_count() > 1:
        pytest.skip("another thread may wake us")
    dozing[0].ref = False
    with pytest.raises(LoopExit):
        dozing[0].recv(1)
    dozing[0].ref = True
    exchange(dozing)
    assert dozes()


def test_a_forked_child_goes_on_by_itself(dozing: Pair) -> None:
    a, b = dozing
    pid = fork_gevent()
    if not pid:
        status = 1
        try:
            c, d = socket.socketpair()
            exchange((c, d))
            status = 0
        finally:
            os._exit(status)
    exchange(dozing)
    with bridge.Timeout(10):
        assert waitpid(pid, 0)[1] == 0
    assert a.fileno() >= 0 and b.fileno() >= 0


def test_a_loop_whose_poller_is_not_known_sleeps_itself(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edges_module, "_poller_of", lambda aio: -1)
    exchange(pair)
    assert not dozes()


def test_watchers_of_the_phases_of_the_loop_are_called(dozing: Pair) -> None:
    calls = []
    watcher = bridge.get_hub().loop.prepare()
    watcher.start(calls.append, "prepare")
    exchange(dozing, 3)
    watcher.close()
    assert calls


def test_an_error_in_one_wake_up_does_not_keep_others_from_theirs(pair: Pair) -> None:
    """The kernel tells each edge once."""

    class Broken:
        woken = False
        engine: Any = None
        woken_at = 0

        def wake(self) -> None:
            raise ZeroDivisionError

        def abandoned(self) -> bool:
            return False

    others = [socket.socketpair() for _ in range(4)]
    try:
        readers = [bridge.spawn(a.recv, 1) for a, _ in others]
        bridge.sleep(0)
        exchange(pair)
        victim: Any = others[0][0]
        channel = victim._channel
        channel.reader, kept = Broken(), channel.reader
        for _, b in others:
            b.send(b"x")
        with pytest.raises(ZeroDivisionError):  # an error of the loop is raised in the main greenlet
            bridge.joinall(readers)
        channel.reader = kept
        kept.wake()
        bridge.joinall(readers)
        assert [g.value for g in readers] == [b"x"] * 4
    finally:
        for a, b in others:
            a.close()
            b.close()
