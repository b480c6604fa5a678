"""StreamServer and DatagramServer: listening sockets of all kinds, accepting, TLS, several processes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket as std
import ssl as std_ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge import server as server_module
from bridge import socket
from bridge.queue import Queue
from bridge.server import DatagramServer, StreamServer

ANY = ("127.0.0.1", 0)

has_unix = pytest.mark.skipif(not hasattr(std, "AF_UNIX"), reason="this system has no Unix sockets")
has_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


Make = Callable[..., Any]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Somewhere with a short path: those of Unix sockets must not be long."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def hello(sock: socket.socket, _address: Any) -> None:
    sock.sendall(b"hello")


def everything(sock: socket.socket) -> bytes:
    received = b""
    with sock:
        while data := sock.recv(1000):
            received += data
    return received


def ask(address: Any) -> bytes:
    """Everything that the server at ``address`` sends."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return everything(sock)
    return everything(socket.create_connection(address[:2]))


# -- what is handed to the handler ------------------------------------------------------------------------


def test_the_handler_gets_a_blocking_socket_of_ours_and_the_address(serve: Make) -> None:
    seen: Queue[Any] = Queue()

    def handle(sock: Any, address: Any) -> None:
        seen.put((type(sock), sock.gettimeout(), sock.family, sock.proto, address))
        sock.recv(1)

    server = serve(handle)
    with socket.create_connection(server.address) as client:
        assert seen.get() == (socket.socket, None, std.AF_INET, client_proto(server), client.getsockname())


def client_proto(server: StreamServer) -> int:
    return int(server.socket.proto)


def test_the_default_time_limit_is_that_of_the_connections(serve: Make) -> None:
    limits = []
    server = serve(lambda sock, _address: limits.append(sock.gettimeout()))
    std.setdefaulttimeout(12.5)
    try:
        assert ask(server.address) == b""
    finally:
        std.setdefaulttimeout(None)
    assert limits == [12.5]


def test_many_connections_at_once_are_all_served(serve: Make) -> None:
    server = serve(hello, backlog=300)
    jobs = [bridge.spawn(ask, server.address) for _ in range(250)]
    bridge.joinall(jobs, timeout=60)
    assert [job.value for job in jobs] == [b"hello"] * 250


# -- listening sockets ----------------------------------------------------------------------------------


def test_a_backlog_is_for_addresses_only(serve: Make) -> None:
    assert serve(hello, backlog=7).backlog == 7
    with socket.create_server(ANY) as listener:
        with pytest.raises(TypeError, match="backlog must be None"):
            StreamServer(listener, hello, backlog=7)
        assert listener.fileno() >= 0  # still the caller's


@pytest.mark.parametrize("kind", ["ours", "standard", "blocking", "wrapper"])
def test_listening_sockets_of_all_kinds_are_taken(serve: Make, kind: str) -> None:
    class Wrapper:
        def __init__(self, sock: Any) -> None:
            self.sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

    listener: Any = (socket if kind == "ours" else std).create_server(ANY)
    if kind == "blocking":
        listener.setblocking(True)
    server = serve(hello, Wrapper(listener) if kind == "wrapper" else listener)
    assert server.address == listener.getsockname()
    assert [ask(server.address), ask(server.address)] == [b"hello"] * 2
    server.stop()
    assert listener.fileno() == -1


def test_an_open_descriptor_is_a_listener(serve: Make) -> None:
    listener = std.create_server(ANY)
    address = listener.getsockname()
    server = serve(hello, f"fd://{listener.detach()}")
    assert server.address == address
    assert ask(address) == b"hello"


@pytest.mark.skipif(not std.has_ipv6, reason="this system has no IPv6")
def test_ipv6(serve: Make) -> None:
    try:
        server = serve(hello, "[::1]:0")
    except OSError as e:
        pytest.skip(f"no IPv6 here: {e}")
    assert server.server_host == "::1" and server.family == std.AF_INET6
    assert ask(server.address) == b"hello"


def test_a_port_alone_means_all_interfaces(serve: Make) -> None:
    server = serve(hello, 0)
    assert ask(("127.0.0.1", server.server_port)) == b"hello"


def test_a_port_alone_works_on_a_host_without_ipv6(serve: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *args: Any) -> None:
            if family == std.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *args)

    monkeypatch.setattr(server_module, "GeventSocket", WithoutIPv6)
    server = serve(hello, 0)
    assert server.family == std.AF_INET
    assert ask(("127.0.0.1", server.server_port)) == b"hello"


@pytest.mark.engines("none")
def test_get_listener_makes_listening_sockets() -> None:
    with StreamServer.get_listener(ANY, 5) as sock:
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_ACCEPTCONN) == 1
        assert bool(sock.getsockopt(std.SOL_SOCKET, std.SO_REUSEADDR)) == (sys.platform != "win32")
    with DatagramServer.get_listener(ANY, std.AF_INET) as sock:
        assert sock.type == std.SOCK_DGRAM and sock.getsockname()[1] > 0


@pytest.mark.engines("none")
def test_an_address_that_cannot_be_bound_is_named() -> None:
    with pytest.raises(OSError, match=r"203\.0\.113\.1") as info:
        StreamServer(("203.0.113.1", 0), hello).start()
    assert info.value.errno == errno.EADDRNOTAVAIL


@has_unix
def test_unix_sockets_are_served_and_their_file_goes(serve: Make, folder: Path) -> None:
    path = str(folder / "s")
    server = serve(hello, f"unix:{path}")
    assert (server.address, server.server_host, server.server_port) == (path, None, None)
    assert ask(path) == b"hello"
    server.stop()
    assert not os.path.exists(path)
    server.start()
    assert ask(path) == b"hello"


@has_unix
def test_a_unix_socket_that_was_passed_leaves_its_file(serve: Make, folder: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "s"))
    listener.listen()
    server = serve(hello, listener)
    assert ask(str(folder / "s")) == b"hello"
    server.stop()
    assert (folder / "s").exists()


@has_unix
def test_the_file_of_a_dead_server_is_replaced_that_of_a_live_one_is_not(serve: Make, folder: Path) -> None:
    path = str(folder / "s")
    dead = std.socket(std.AF_UNIX)
    dead.bind(path)
    dead.close()
    server = serve(hello, f"unix:{path}")
    assert ask(path) == b"hello"
    with pytest.raises(OSError, match="in use"):
        StreamServer(f"unix:{path}", hello).start()
    assert ask(path) == b"hello"
    server.stop()
    (folder / "s").write_text("precious")
    with pytest.raises(OSError, match="in use"):
        server.start()
    assert (folder / "s").read_text() == "precious"


@has_unix
def test_the_file_of_the_server_that_took_our_place_stays(serve: Make, folder: Path) -> None:
    path = folder / "s"
    server = serve(hello, f"unix:{path}")
    path.unlink()
    with std.socket(std.AF_UNIX) as other:
        other.bind(str(path))
        server.stop()
        assert path.exists()


# -- errors of accept() ---------------------------------------------------------------------------------


def test_a_connection_that_broke_before_it_was_accepted_is_passed_over(
    serve: Make, errors: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = server_module._c_accept
    trouble = [OSError(errno.ECONNABORTED, "Software caused connection abort"), OSError(errno.EPROTO, "x")]

    def accept(sock: Any) -> Any:
        if trouble:
            raise trouble.pop()
        return real(sock)

    monkeypatch.setattr(server_module, "_c_accept", accept)
    server = serve(hello)
    assert ask(server.address) == b"hello"
    assert not trouble and errors == [] and server.delay == server.min_delay


OUT_OF_DESCRIPTORS = """
import errno, os, resource, sys
import bridge
from bridge import socket
from bridge.server import StreamServer

held = []
def handle(sock, address):
    held.append(sock)
    sock.sendall(b"x")
    sock.recv(1)

server = StreamServer(("127.0.0.1", 0), handle)
server.start()
server.min_delay = server.delay = 0.001
reported = []
bridge.get_hub().handle_error = lambda context, t, v, tb: reported.append((context, v))
clients = [socket.socket() for _ in range(6)]
with socket.create_connection(server.address) as first:
    assert first.recv(1) == b"x"  # whatever the loop needs is open now
while len(held) != 1 or held[0].fileno() >= 0:
    bridge.sleep(0)
del held[:]
# room for two connections more
room = [os.dup(0), os.dup(0)]
resource.setrlimit(resource.RLIMIT_NOFILE, (max(room) + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for fd in room:
    os.close(fd)
for client in clients:
    client.connect(server.address)
assert [c.recv(1) for c in clients[:2]] == [b"x", b"x"]
while len(reported) < 3:
    bridge.sleep(0.001)
assert all(context is server and v.errno == errno.EMFILE for context, v in reported), reported
assert len(held) == 2 and server.started and server.delay > server.min_delay
served = 2
while served < 6:
    # each connection that ends makes room for another one
    clients[served - 2].close()
    assert clients[served].recv(1) == b"x"
    served += 1
for client in clients:
    client.close()
server.stop()
print("OK")
"""


@pytest.mark.engines("none")
def test_out_of_descriptors_connections_wait_until_others_end() -> None:
    pytest.importorskip("resource")
    assert run_program(OUT_OF_DESCRIPTORS) == "OK\n"


def run_program(code: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_an_error_while_the_socket_is_made_leaks_nothing(
    serve: Make, errors: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble = [MemoryError("no socket")]

    class Scarce(socket.socket):
        def __init__(self, *args: Any) -> None:
            if trouble:
                raise trouble.pop()
            super().__init__(*args)

    server = serve(hello)
    server.min_delay = server.delay = 0.001
    monkeypatch.setattr(server_module, "GeventSocket", Scarce)
    with socket.create_connection(server.address) as first:
        assert first.recv(1) == b""
    assert [type(e) for _, e in errors] == [MemoryError]
    assert ask(server.address) == b"hello"


# -- several processes ------------------------------------------------------------------------------------

FORK_BEFORE_START = """
import os, signal, sys
import bridge
from bridge import socket
from bridge.server import StreamServer

def handle(sock, address):
    sock.sendall(str(os.getpid()).encode())

listener = socket.create_server(("127.0.0.1", 0))
if sys.argv[1] == "used":
    # the parent has a hub, and an epoll instance, before it forks
    a, b = socket.socketpair()
    socket.wait_write(a)
    a.close()
    b.close()
server = StreamServer(listener, handle)
ready_r, ready_w = os.pipe()
pids = []
for _ in range(2):
    pid = os.fork()
    if not pid:
        server.start()
        bridge.signal_handler(signal.SIGTERM, server.stop)
        os.write(ready_w, b"x")
        server.serve_forever()
        os._exit(0)
    pids.append(pid)
for _ in pids:
    os.read(ready_r, 1)
seen = set()
while len(seen) < 2:
    with socket.create_connection(listener.getsockname()) as sock:
        seen.add(int(sock.recv(100)))
assert seen == set(pids), (seen, pids)
for pid in pids:
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == 0
server.close()
print("OK")
"""


@has_fork
@pytest.mark.engines("none")
@pytest.mark.parametrize("parent", ["fresh", "used"])
def test_a_server_made_before_the_fork_is_started_in_each_child(parent: str) -> None:
    assert run_program(FORK_BEFORE_START, parent) == "OK\n"


FORK_AFTER_START = """
import os
import bridge
from bridge import socket
from bridge.server import StreamServer

def handle(sock, address):
    sock.sendall(str(os.getpid()).encode())

server = StreamServer("unix:" + os.path.join(os.environ["FOLDER"], "s"), handle)
server.start()
def ask():
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(server.address)
        return int(sock.recv(100))
assert ask() == os.getpid()
pid = bridge.fork()
if not pid:
    server.stop()  # the child's copy: neither the parent's watch nor the file may go
    os._exit(0)
os.waitpid(pid, 0)
assert ask() == os.getpid()
server.stop()
assert not os.path.exists(server.address)
print("OK")
"""


@has_fork
@has_unix
@pytest.mark.engines("none")
def test_a_child_that_stops_the_server_does_not_stop_the_parent_s(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDER", str(folder))
    assert run_program(FORK_AFTER_START) == "OK\n"


REUSE_PORT = """
import os, signal, sys
import bridge
from bridge.server import StreamServer

class Server(StreamServer):
    reuse_port = True
    def handle(self, sock, address):
        sock.sendall(str(os.getpid()).encode())

server = Server(("127.0.0.1", int(sys.argv[1])))
server.start()
bridge.signal_handler(signal.SIGTERM, server.stop)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.skipif(not hasattr(std, "SO_REUSEPORT"), reason="this system has no SO_REUSEPORT")
@pytest.mark.engines("none")
def test_processes_share_a_port_by_reuse_port() -> None:
    processes: list[subprocess.Popen[str]] = []
    try:
        port = "0"
        for _ in range(2):
            process = subprocess.Popen(
                [sys.executable, "-c", REUSE_PORT, port], stdout=subprocess.PIPE, text=True
            )
            processes.append(process)
            assert process.stdout is not None
            port = process.stdout.readline().strip()
        seen = set()
        while len(seen) < 2:
            seen.add(int(ask(("127.0.0.1", int(port)))))
        assert seen == {process.pid for process in processes}
        with pytest.raises(OSError, match="in use"):
            StreamServer(("127.0.0.1", int(port)), hello).start()
        for process in processes:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


CTRL_C = """
import signal, sys
import bridge
from bridge import socket
from bridge.server import StreamServer

def handle(sock, address):
    # in the hub, as if it came while the loop polls
    bridge.get_hub().loop.run_callback(signal.raise_signal, signal.SIGINT)
    while not server.closed:
        bridge.sleep(0)
    bridge.sleep(0)
    sock.sendall(b"late")
    print("handled")

server = StreamServer(("127.0.0.1", 0), handle, spawn=3)
server.start()
def ask():
    with socket.create_connection(server.address) as sock:
        print(sock.recv(10))
client = bridge.spawn(ask)
try:
    server.serve_forever(stop_timeout=30)
except KeyboardInterrupt:
    print("interrupted", server.closed)
client.join()
"""


@pytest.mark.engines("none")
def test_ctrl_c_ends_serve_forever_after_the_handlers() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CTRL_C], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("handled\ninterrupted True\nb'late'\n", 0), done.stderr
    assert done.stderr.count("failed with KeyboardInterrupt") == 1


# -- TLS ------------------------------------------------------------------------------------------------

ssl = pytest.importorskip("bridge.ssl")


@pytest.fixture(scope="module")
def certificate() -> Iterator[tuple[str, str]]:
    """The files of a certificate that nobody trusts, and of its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    with tempfile.TemporaryDirectory() as path:
        files = os.path.join(path, "cert.pem"), os.path.join(path, "key.pem")
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
        )
        subprocess.run(
            [*command.split(), "-out", files[0], "-keyout", files[1]], check=True, stderr=subprocess.DEVNULL
        )
        yield files


def tls_args(kind: str, certificate: tuple[str, str]) -> dict[str, Any]:
    if kind == "files":
        return {"certfile": certificate[0], "keyfile": certificate[1]}
    module = ssl if kind == "ours" else std_ssl
    context = module.SSLContext(std_ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return {"ssl_context": context}


def tls_client(server: StreamServer) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(server.address))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["ours", "standard", "files"])
def test_tls_with_all_kinds_of_arguments(serve: Make, certificate: tuple[str, str], kind: str) -> None:
    kinds = []

    def handle(sock: Any, _address: Any) -> None:
        kinds.append(type(sock))
        sock.sendall(sock.recv(10).upper())

    server = serve(handle, **tls_args(kind, certificate))
    assert server.ssl_enabled and server.ssl_args["server_side"] is True
    with tls_client(server) as client:
        # without switching, nobody would answer
        client.sendall(b"hello")
        assert client.recv(10) == b"HELLO"
        assert client.recv(10) == b""
    assert kinds == [ssl.SSLSocket]


def test_a_slow_handshake_keeps_nobody_waiting(serve: Make, certificate: tuple[str, str]) -> None:
    server = serve(hello, **tls_args("ours", certificate))
    with socket.create_connection(server.address), tls_client(server) as client:
        assert client.recv(10) == b"hello"


def test_a_handshake_that_takes_too_long_is_given_up(
    serve: Make, certificate: tuple[str, str], errors: list[Any]
) -> None:
    limits = []

    def handle(sock: Any, _address: Any) -> None:
        limits.append(sock.gettimeout())
        sock.sendall(b"hello")

    server = serve(handle, **tls_args("ours", certificate))
    server.handshake_timeout = 60
    with tls_client(server) as client:
        assert client.recv(10) == b"hello"
    assert limits == [None]
    server.handshake_timeout = 0.01
    with socket.create_connection(server.address) as client:
        assert client.recv(10) == b""
    assert [type(e) for _, e in errors] == [TimeoutError]


def test_what_is_no_tls_is_reported_and_closed(
    serve: Make, certificate: tuple[str, str], errors: list[Any]
) -> None:
    server = serve(hello, **tls_args("ours", certificate))
    with socket.create_connection(server.address) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            while client.recv(1000):
                pass
        except ConnectionResetError:
            pass
    assert [type(e) for _, e in errors] == [ssl.SSLError]
    with tls_client(server) as client:
        assert client.recv(10) == b"hello"


def test_a_tls_handler_may_be_a_coroutine_function(serve: Make, certificate: tuple[str, str]) -> None:
    async def handle(sock: Any, _address: Any) -> None:
        sock.sendall(b"hello")

    with tls_client(serve(handle, **tls_args("ours", certificate))) as client:
        assert client.recv(10) == b"hello"


@pytest.mark.engines("none")
def test_no_context_is_no_server_without_tls() -> None:
    with pytest.raises(TypeError, match="leave the argument out"):
        StreamServer(ANY, hello, ssl_context=None)
    assert not StreamServer(ANY, hello).ssl_enabled


# -- datagrams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spawn", ["default", None, 1])
def test_messages_are_handled_and_answered(serve: Make, spawn: Any) -> None:
    seen = []

    def handle(data: bytes, address: Any) -> None:
        seen.append((data, address))
        server.sendto(b"<" + data + b">", address)

    server = serve(handle, cls=DatagramServer, spawn=spawn)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.bind(ANY)
        client.settimeout(60)
        for data in (b"one", b"", b"x" * 50000):
            client.sendto(data, server.address)
            assert client.recv(65535) == b"<" + data + b">"
            assert seen.pop() == (data, client.getsockname())


@pytest.mark.parametrize("kind", [socket, std])
def test_bound_datagram_sockets_are_taken(serve: Make, kind: Any) -> None:
    bound = kind.socket(type=std.SOCK_DGRAM)
    bound.bind(ANY)
    messages: Queue[Any] = Queue()
    server = serve(lambda data, _address: messages.put(data), bound, cls=DatagramServer)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"hi", server.address)
        assert messages.get(timeout=60) == b"hi"
    server.stop()
    assert bound.fileno() == -1


def test_a_burst_of_messages_arrives_in_order(serve: Make) -> None:
    messages: Queue[bytes] = Queue()
    server = serve(lambda data, _address: messages.put(data), cls=DatagramServer)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        sent = [str(i).encode() for i in range(150)]
        for data in sent:
            client.sendto(data, server.address)
        assert [messages.get(timeout=60) for _ in sent] == sent


def test_an_error_in_a_datagram_handler_is_reported_and_the_next_message_handled(
    serve: Make, errors: list[Any]
) -> None:
    messages: Queue[Any] = Queue()

    def handle(data: bytes, _address: Any) -> None:
        if data == b"bad":
            raise ValueError(data)
        messages.put(data)

    server = serve(handle, cls=DatagramServer)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"bad", server.address)
        client.sendto(b"good", server.address)
        assert messages.get(timeout=60) == b"good"
    assert [type(e) for _, e in errors] == [ValueError]


def test_a_datagram_server_may_be_started_again(serve: Make) -> None:
    messages: Queue[Any] = Queue()
    server = serve(lambda data, _address: messages.put(data), cls=DatagramServer)
    address = server.address
    server.stop()
    with pytest.raises(OSError, match="no socket"):
        server.do_read()
    server.start()
    assert server.address == address
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(b"again", address)
        assert messages.get(timeout=60) == b"again"


@pytest.mark.engines("none")
def test_names_are_gevent_s() -> None:
    assert sorted(server_module.__all__) == ["DatagramServer", "StreamServer"]
    assert (StreamServer.backlog, StreamServer.reuse_addr) == (128, None if sys.platform == "win32" else 1)
