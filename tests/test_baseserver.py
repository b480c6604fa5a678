"""What all servers have in common: starting, stopping, how handlers are run, and what errors do."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket as std
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import bridge
from bridge import baseserver, pool, socket
from bridge.baseserver import BaseServer, parse_address
from bridge.event import Event
from bridge.exceptions import BlockingSwitchOutError
from bridge.queue import Queue
from bridge.server import StreamServer

ANY = ("127.0.0.1", 0)


Make = Callable[..., StreamServer]


def connect(server: BaseServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port))


def ask(server: BaseServer) -> bytes:
    """Everything that the server sends."""
    with connect(server) as sock:
        received = b""
        while data := sock.recv(1000):
            received += data
        return received


def hello(sock: socket.socket, _address: Any) -> None:
    sock.sendall(b"hello")


def echo(sock: socket.socket, _address: Any) -> None:
    while data := sock.recv(1000):
        sock.sendall(data)


class Clients:
    """A handler that tells what happens to its connections, and waits for a byte in each."""

    def __init__(self) -> None:
        self.events: Queue[Any] = Queue()

    def __call__(self, sock: socket.socket, _address: Any) -> None:
        self.events.put("in")
        try:
            sock.recv(1)
            self.events.put("out")
        except BaseException as e:
            self.events.put(type(e))
            raise


# -- addresses ------------------------------------------------------------------------------------------


@pytest.mark.engines("none")
@pytest.mark.parametrize(
    ("given", "family", "address"),
    [
        (("127.0.0.1", 80), std.AF_INET, ("127.0.0.1", 80)),
        (("example.org", 80), std.AF_INET, ("example.org", 80)),
        (("::1", 80), std.AF_INET6, ("::1", 80)),
        (("::1", 80, 0, 0), std.AF_INET6, ("::1", 80, 0, 0)),
        (("", 80), std.AF_INET6, ("", 80)),
        ("127.0.0.1:80", std.AF_INET, ("127.0.0.1", 80)),
        ("[::1]:80", std.AF_INET6, ("::1", 80)),
        (":80", std.AF_INET, ("", 80)),
        ("*:80", std.AF_INET, ("", 80)),
        ("80", std.AF_INET6, ("", 80)),
        (80, std.AF_INET6, ("", 80)),
        ("unix:/run/app", getattr(std, "AF_UNIX", None), "/run/app"),
    ],
)
def test_addresses_are_understood_as_in_gevent(given: Any, family: Any, address: Any) -> None:
    if family is None:
        pytest.skip("this system has no Unix sockets")
    assert parse_address(given) == (family, address)


@pytest.mark.engines("none")
@pytest.mark.parametrize(
    ("given", "error"),
    [(None, TypeError), (["a", 1], TypeError), (b"a:1", TypeError), (1.5, TypeError),
     ("/tmp/x", ValueError), ("a:http", ValueError), ("[::1]", ValueError), ("fd://x", ValueError)],
)  # fmt: skip
def test_what_is_no_address_is_refused_at_once(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        StreamServer(given, hello)


@pytest.mark.engines("none")
def test_the_message_for_a_wrong_address_says_what_is_possible() -> None:
    with pytest.raises(ValueError, match=r"Failed to parse address '/tmp/x'"):
        parse_address("/tmp/x")
    with pytest.raises(TypeError, match=r"'\[::1\]:80'"):
        parse_address(None)


def test_a_socket_with_tls_is_no_listener() -> None:
    class Tls(socket.socket):
        def do_handshake(self) -> None: ...

    with Tls() as sock, pytest.raises(TypeError, match="ssl_context"):
        StreamServer(sock, hello)


# -- handlers -------------------------------------------------------------------------------------------


@pytest.mark.engines("none")
def test_without_a_handler_nothing_can_be_made() -> None:
    with pytest.raises(TypeError, match="'handle' must be provided"):
        StreamServer(ANY)
    with pytest.raises(TypeError, match="'handle' must be provided"):
        StreamServer(ANY, 5)  # type: ignore[arg-type]


def test_a_subclass_may_define_handle(serve: Make) -> None:
    class Greeter(StreamServer):
        def handle(self, sock: Any, _address: Any) -> None:
            sock.sendall(b"from a method")

    assert ask(serve(cls=Greeter)) == b"from a method"


def test_set_handle_changes_what_later_connections_get(serve: Make) -> None:
    server = serve(hello)
    assert ask(server) == b"hello"
    server.set_handle(lambda sock, _address: sock.sendall(b"bye"))
    assert ask(server) == b"bye"


def test_a_handler_may_be_a_coroutine_function(serve: Make) -> None:
    async def handle(sock: Any, _address: Any) -> None:
        await asyncio.sleep(0)
        sock.sendall(b"from a coroutine")

    assert ask(serve(handle)) == b"from a coroutine"


@pytest.mark.parametrize("spawn", ["default", "raw", bridge.spawn, bridge.spawn_raw, 3, pool.Pool(3), None])
def test_handlers_are_run_however_they_are_spawned(serve: Make, spawn: Any) -> None:
    where = []

    def handle(sock: Any, _address: Any) -> None:
        where.append(bridge.getcurrent())
        sock.sendall(b"x")

    server = serve(handle, spawn=spawn)
    assert [ask(server), ask(server)] == [b"x", b"x"]
    if spawn is None:
        assert where == [bridge.get_hub()] * 2
    else:
        assert where[0] is not where[1] and bridge.get_hub() not in where
    assert (server.pool is not None) == (spawn == 3 or isinstance(spawn, pool.Pool))


@pytest.mark.engines("none")
@pytest.mark.parametrize("spawn", [1.5, "fast", object()])
def test_what_cannot_spawn_is_refused_at_once(spawn: Any) -> None:
    with pytest.raises(TypeError, match="spawn="):
        StreamServer(ANY, hello, spawn=spawn)


def test_the_connection_is_closed_when_the_handler_returns(serve: Make) -> None:
    seen: list[Any] = []
    server = serve(lambda sock, _address: seen.append(sock))
    assert ask(server) == b""
    assert seen[0].fileno() == -1


def test_an_error_in_a_handler_is_reported_and_closes_only_its_connection(
    serve: Make, errors: list[Any]
) -> None:
    def handle(sock: Any, _address: Any) -> None:
        if sock.recv(1) == b"!":
            raise KeyError("in the handler")
        sock.sendall(b"fine")

    server = serve(handle)
    with connect(server) as good, connect(server) as bad:
        bad.sendall(b"!")
        assert bad.recv(1) == b""
        good.sendall(b".")
        assert good.recv(10) == b"fine"
    assert [type(e) for _, e in errors] == [KeyError]
    assert server.delay == server.min_delay  # not an error of accepting
    assert ask_with(server, b".") == b"fine"


def ask_with(server: BaseServer, data: bytes) -> bytes:
    with connect(server) as sock:
        sock.sendall(data)
        return sock.recv(100)


def test_a_killed_handler_closes_its_connection(serve: Make) -> None:
    running: Queue[Any] = Queue()

    def handle(sock: Any, _address: Any) -> None:
        running.put(bridge.getcurrent())
        sock.recv(1)

    server = serve(handle)
    with connect(server) as sock:
        running.get().kill()
        assert sock.recv(1) == b""


def test_a_handler_in_the_hub_must_not_block(serve: Make, errors: list[Any]) -> None:
    server = serve(lambda sock, _address: bridge.sleep(1), spawn=None)
    server.min_delay = server.delay = 0.001
    assert ask(server) == b""
    assert [type(e) for _, e in errors] == [BlockingSwitchOutError]
    server.set_handle(hello)
    assert ask(server) == b"hello"


def test_an_error_in_spawn_closes_the_connection_and_the_server_goes_on(
    serve: Make, errors: list[Any]
) -> None:
    def refuse(*args: Any) -> None:
        raise LookupError("no greenlet for you")

    server = serve(hello)
    server.min_delay = server.delay = 0.001
    server._spawn = refuse
    assert ask(server) == b""
    ((context, error),) = errors
    assert type(error) is LookupError and context[1] is server
    server.set_spawn("default")
    assert ask(server) == b"hello"


# -- pools ----------------------------------------------------------------------------------------------


def test_a_full_pool_stops_accepting_until_somebody_leaves(serve: Make) -> None:
    clients = Clients()
    server = serve(clients, spawn=2)
    sockets = [connect(server) for _ in range(4)]
    assert [clients.events.get(), clients.events.get()] == ["in", "in"]
    while server._watcher is not None:
        bridge.sleep(0)
    assert server.full() and len(server.pool) == 2 and clients.events.empty()
    sockets[0].send(b"x")
    assert [clients.events.get(), clients.events.get()] == ["out", "in"]
    for sock in sockets[1:]:
        sock.send(b"x")
    assert sorted(clients.events.get() for _ in range(4)) == ["in", "out", "out", "out"]
    for sock in sockets:
        sock.close()
    assert server.pool.join(timeout=10)
    assert not server.full() and server._watcher is not None


def test_a_pool_may_be_shared_by_servers(serve: Make) -> None:
    shared = pool.Pool(1)
    clients = Clients()
    first, second = serve(clients, spawn=shared), serve(hello, spawn=shared)
    with connect(first) as sock:
        assert clients.events.get() == "in"
        waiting = bridge.spawn(ask, second)
        bridge.sleep(0.005)
        assert not waiting.ready()
        sock.send(b"x")
        assert waiting.get(timeout=10) == b"hello"


def test_a_pool_of_one_s_own_needs_only_spawn_and_full(serve: Make) -> None:
    class One:
        busy = None

        def spawn(self, *args: Any) -> Any:
            self.busy = bridge.spawn(*args)
            return self.busy

        def full(self) -> bool:
            return bool(self.busy)

        def __bool__(self) -> bool:
            return False  # nobody to wait for at the end

    clients = Clients()
    server = serve(clients, spawn=One())
    with connect(server) as first, connect(server) as second:
        assert clients.events.get() == "in"
        bridge.sleep(0.02)
        assert clients.events.empty()
        first.send(b"x")
        assert [clients.events.get(timeout=10), clients.events.get(timeout=10)] == ["out", "in"]
        second.send(b"x")
        assert clients.events.get(timeout=10) == "out"


def test_a_subclass_may_say_when_it_is_full(serve: Make) -> None:
    class Moody(StreamServer):
        refuses = False

        def full(self) -> bool:
            return self.refuses

    server = serve(hello, cls=Moody)
    server.refuses = True  # type: ignore[attr-defined]
    waiting = bridge.spawn(ask, server)
    while server._watcher is not None:
        bridge.sleep(0)
    server.refuses = False  # type: ignore[attr-defined]
    assert not waiting.ready()
    server.start_accepting()
    assert waiting.get(timeout=10) == b"hello"


def test_stopping_a_full_server_leaves_nothing_behind(serve: Make) -> None:
    clients = Clients()
    server = serve(clients, spawn=1)
    with connect(server), connect(server):
        assert clients.events.get() == "in"
        while server._watcher is not None:
            bridge.sleep(0)
        semaphore = server.pool._semaphore
        assert semaphore.linkcount() == 1
        server.close()
        assert semaphore.linkcount() == 0
        server.stop(timeout=0)
    assert clients.events.get() is bridge.GreenletExit


# -- errors ---------------------------------------------------------------------------------------------


class Failing(StreamServer):
    """Cannot accept for a while."""

    min_delay = 0.001
    max_delay = 0.004
    failures: Any = ()
    delays: Any = None

    def do_read(self) -> Any:
        if self.failures:
            self.delays.append(self.delay)
            raise self.failures.pop(0)
        return super().do_read()


def test_after_errors_the_pauses_grow_to_a_limit_and_a_success_resets_them(
    serve: Make, errors: list[Any]
) -> None:
    server: Any = serve(hello, cls=Failing)
    server.failures = [OSError(errno.EMFILE, "too many"), *(ValueError(i) for i in range(4))]
    server.delays = []
    assert ask(server) == b"hello"
    assert server.delays == [0.001, 0.002, 0.004, 0.004, 0.004]
    assert server.delay == 0.001
    assert [context for context, _ in errors] == [server] * 5


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK])
def test_a_fatal_error_ends_the_server(
    serve: Make, errors: list[Any], capsys: pytest.CaptureFixture[str], number: int
) -> None:
    server: Any = serve(hello, cls=Failing)
    server.failures, server.delays = [OSError(number, "fatal")], []
    waiting = bridge.spawn(server.serve_forever)
    with pytest.raises(OSError):
        if not ask(server):
            raise ConnectionResetError("closed without a reset")
    waiting.join(timeout=10)
    assert waiting.successful() and server.closed and not server.started
    assert len(errors) == 1
    assert f"failed with [Errno {number}] fatal" in capsys.readouterr().err


@pytest.mark.engines("none")
def test_which_errors_are_fatal() -> None:
    server = StreamServer(ANY, hello)
    assert server.is_fatal_error(OSError(errno.EBADF, "x"))
    assert not server.is_fatal_error(OSError(errno.EMFILE, "x"))
    assert not server.is_fatal_error(OSError("x"))
    assert not server.is_fatal_error(ValueError(errno.EBADF))


def test_a_negative_delay_means_no_pause(serve: Make, errors: list[Any]) -> None:
    server: Any = serve(hello, cls=Failing)
    server.delay = -1
    server.failures, server.delays = [ValueError(1)], []
    assert ask(server) == b"hello"
    assert server.delays == [-1]


def test_stopping_in_a_pause_ends_the_pause(serve: Make, errors: list[Any]) -> None:
    server: Any = serve(hello, cls=Failing)
    server.min_delay = server.delay = server.max_delay = 1000
    server.failures, server.delays = [ValueError(1)], []
    with connect(server):
        while server._timer is None:
            bridge.sleep(0)
        server.stop()
    assert server._timer is None and server.closed


def test_a_server_that_only_pauses_keeps_the_program_alive(serve: Make, errors: list[Any]) -> None:
    server: Any = serve(hello, cls=Failing)
    server.failures, server.delays = [ValueError(1)], []
    assert bridge.spawn(ask, server).get(timeout=10) == b"hello"


def test_the_listener_closed_by_somebody_else_ends_the_server(
    serve: Make, errors: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(hello)
    waiting = bridge.spawn(server.serve_forever)
    bridge.sleep(0)
    server.socket.close()
    waiting.join(timeout=10)
    assert waiting.successful() and server.closed
    ((context, error),) = errors
    assert context is server and isinstance(error, OSError) and error.errno == errno.EBADF
    assert "closed" in capsys.readouterr().err


# -- from start to stop -----------------------------------------------------------------------------------


def test_states_of_a_server() -> None:
    server = StreamServer(ANY, hello)
    assert (server.started, server.closed, server.server_port) == (False, True, 0)
    server.start()
    assert (server.started, server.closed) == (True, False)
    assert server.server_host == "127.0.0.1" and server.server_port > 0
    port, sock = server.server_port, server.socket
    server.start()
    assert server.socket is sock
    server.stop_accepting()
    assert (server.started, server.closed) == (True, False)
    server.stop()
    assert (server.started, server.closed, server.server_port) == (False, True, port)
    assert sock.fileno() == -1
    server.stop()


def test_nothing_is_accepted_between_stop_accepting_and_start_accepting(serve: Make) -> None:
    server = serve(hello)
    server.stop_accepting()
    server.stop_accepting()
    waiting = bridge.spawn(ask, server)
    bridge.sleep(0.005)
    assert not waiting.ready()
    server.start_accepting()
    server.start_accepting()
    assert waiting.get(timeout=10) == b"hello"


def test_a_server_may_be_started_again_at_the_same_port(serve: Make) -> None:
    server = serve(hello, spawn=2)
    port = server.server_port
    assert ask(server) == b"hello"
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    server.start()
    assert server.server_port == port
    assert ask(server) == b"hello"


def test_a_server_of_a_socket_cannot_be_started_again() -> None:
    server = StreamServer(socket.create_server(ANY), hello)
    server.start()
    server.stop()
    with pytest.raises(OSError, match="pass an address") as info:
        server.start()
    assert info.value.errno == errno.EBADF and not server.started


def test_as_a_context_manager_it_stops_at_the_end() -> None:
    with StreamServer(ANY, hello) as server:
        assert not server.started
        server.start()
        assert ask(server) == b"hello"
    assert server.closed


def test_stop_waits_for_the_handlers_in_the_pool(serve: Make) -> None:
    clients = Clients()
    server = serve(clients, spawn=5)
    with connect(server) as a, connect(server) as b:
        assert [clients.events.get(), clients.events.get()] == ["in", "in"]
        stopping = bridge.spawn(server.stop, timeout=100)
        bridge.sleep(0.005)
        assert server.closed and not stopping.ready()
        a.send(b"x")
        b.send(b"x")
        stopping.join(timeout=10)
        assert stopping.successful()
        assert [clients.events.get(), clients.events.get()] == ["out", "out"]


@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_stop_kills_the_handlers_that_are_left(serve: Make, timeout: float) -> None:
    clients = Clients()
    server = serve(clients, spawn=5)
    with connect(server) as sock:
        assert clients.events.get() == "in"
        server.stop(timeout=timeout)
        assert clients.events.get() is bridge.GreenletExit
        assert sock.recv(1) == b""


def test_stop_without_a_timeout_waits_for_stop_timeout(serve: Make) -> None:
    clients = Clients()
    server = serve(clients, spawn=5)
    server.stop_timeout = 0
    with connect(server):
        assert clients.events.get() == "in"
        server.stop()
        assert clients.events.get() is bridge.GreenletExit


def test_stop_neither_waits_for_handlers_without_a_pool_nor_ends_them(serve: Make) -> None:
    clients = Clients()
    server = serve(clients)
    with connect(server) as sock:
        assert clients.events.get() == "in"
        server.stop()
        sock.send(b"x")
        assert clients.events.get() == "out"


def test_a_handler_may_stop_its_server(serve: Make) -> None:
    def handle(sock: Any, _address: Any) -> None:
        server.stop()
        sock.sendall(b"stopped")

    server = serve(handle)
    waiting = bridge.spawn(server.serve_forever)
    assert ask(server) == b"stopped"
    waiting.join(timeout=10)
    assert waiting.successful()


@pytest.mark.parametrize("spawn", ["default", None])
def test_stopping_in_the_middle_of_a_burst_accepts_no_more(serve: Make, spawn: Any) -> None:
    handled = []

    def handle(sock: Any, _address: Any) -> None:
        handled.append(1)
        server.close()

    server = serve(handle, spawn=spawn)
    server.max_accept = 1
    # not ours, so that all are in the backlog before the server runs
    sockets = [std.create_connection(("127.0.0.1", server.server_port)) for _ in range(3)]
    while not handled:
        bridge.sleep(0)
    for sock in sockets:
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass  # it was in the backlog
        sock.close()
    assert handled == [1]


def test_serve_forever_starts_and_ends_with_stop() -> None:
    server = StreamServer(ANY, hello)
    running = bridge.spawn(server.serve_forever)
    while not server.started:
        bridge.sleep(0)
    assert ask(server) == b"hello"
    server.stop()
    running.join(timeout=10)
    assert running.successful() and running.value is None


def test_killing_serve_forever_stops_the_server_and_drains() -> None:
    clients = Clients()
    server = StreamServer(ANY, clients, spawn=2)
    running = bridge.spawn(server.serve_forever, stop_timeout=100)
    while not server.started:
        bridge.sleep(0)
    with connect(server) as sock:
        assert clients.events.get() == "in"
        running.kill(block=False)
        while not server.closed:
            bridge.sleep(0)
        assert not running.ready()
        sock.send(b"x")
        running.join(timeout=10)
    assert running.ready() and clients.events.get() == "out"


def test_a_start_that_fails_leaves_the_server_as_it_was(serve: Make) -> None:
    first = serve(hello)
    second = StreamServer(("127.0.0.1", first.server_port), hello)
    with pytest.raises(OSError, match=f"127.0.0.1', {first.server_port}") as info:
        second.start()
    assert info.value.errno == errno.EADDRINUSE
    assert second.closed and not second.started
    first.stop()
    second.start()
    assert ask(second) == b"hello"
    second.stop()


def test_a_stopped_server_is_freed_without_the_garbage_collector() -> None:
    class Greeter(StreamServer):
        def handle(self, sock: Any, _address: Any) -> None:
            sock.sendall(b"x")

    gc.collect()
    gc.disable()
    try:
        server = Greeter(ANY, spawn=3)
        server.start()
        assert ask(server) == b"x"
        server.stop()
        bridge.sleep(0)
        gone = weakref.ref(server)
        del server
        bridge.sleep(0)
        assert gone() is None
    finally:
        gc.enable()


def test_sockets_are_accepted_in_bursts_of_max_accept(serve: Make) -> None:
    order: list[str] = []

    class Counting(StreamServer):
        max_accept = 3

        def do_read(self) -> Any:
            result = super().do_read()
            if result:
                order.append("accept")
            return result

    done = Event()

    def handle(*args: Any) -> None:
        order.append("handle")
        if order.count("handle") == 7:
            done.set()

    server = serve(handle, cls=Counting)
    sockets = [std.create_connection(("127.0.0.1", server.server_port)) for _ in range(7)]
    assert done.wait(timeout=10)
    for sock in sockets:
        sock.close()
    assert order == (["accept"] * 3 + ["handle"] * 3) * 2 + ["accept", "handle"]


# -- loops and threads ------------------------------------------------------------------------------------


@pytest.mark.engines("owned")
def test_start_and_handlers_in_a_coroutine_s_loop() -> None:
    async def main() -> bytes:
        server = StreamServer(ANY, hello, spawn=3)
        server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.server_port)
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        await bridge.sync_to_async(server.stop)()
        assert server.closed
        return data

    assert asyncio.run(main()) == b"hello"


@pytest.mark.engines("owned")
def test_a_server_goes_on_in_another_loop_when_its_own_was_closed() -> None:
    server = StreamServer(ANY, hello)

    async def main() -> bytes:
        server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.server_port)
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        return data

    assert asyncio.run(main()) == b"hello"
    assert asyncio.run(main()) == b"hello"
    server.start()
    assert ask(server) == b"hello"
    server.stop()


@pytest.mark.engines("none")
def test_each_thread_may_have_servers_of_its_own() -> None:
    results: list[Any] = []

    def serve_once() -> None:
        with StreamServer(ANY, hello) as server:
            server.start()
            results.append(ask(server))

    threads = [threading.Thread(target=serve_once) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"hello", b"hello"]


def test_another_thread_may_end_a_server(serve: Make) -> None:
    server = serve(hello)
    running = bridge.spawn(server.serve_forever)
    assert ask(server) == b"hello"
    loop = server.loop
    thread = threading.Thread(target=lambda: loop.run_callback_threadsafe(server.close))
    thread.start()
    running.join(timeout=10)
    thread.join()
    assert running.successful() and server.closed


# -- information ------------------------------------------------------------------------------------------


def test_repr_and_str_name_the_address_and_the_handler(serve: Make) -> None:
    class Greeter(StreamServer):
        def handle(self, sock: Any, _address: Any) -> None: ...

    server = serve(hello)
    assert str(server) == (
        f"<StreamServer fileno={server.socket.fileno()} address=127.0.0.1:{server.server_port} "
        f"handle={hello!r}>"
    )
    assert repr(server).startswith(f"<StreamServer at {id(server):#x} fileno=")
    assert "handle" not in repr(serve(cls=Greeter))  # as in gevent: the class says it
    server.stop()
    assert str(server) == f"<StreamServer address=127.0.0.1:{server.server_port}>"


@pytest.mark.engines("none")
def test_a_base_server_cannot_accept_by_itself() -> None:
    with pytest.raises(TypeError, match="do_read"):
        BaseServer(ANY, hello).do_read()


@pytest.mark.engines("none")
def test_names_are_gevent_s() -> None:
    assert baseserver.__all__ == ["BaseServer"]
    expected = {
        "min_delay": 0.01,
        "max_delay": 1,
        "max_accept": 100,
        "stop_timeout": 1,
        "fatal_errors": (errno.EBADF, errno.EINVAL, errno.ENOTSOCK),
    }
    assert {name: getattr(BaseServer, name) for name in expected} == expected
