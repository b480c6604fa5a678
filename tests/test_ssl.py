"""TLS that blocks only the greenlet, and is otherwise the standard library's."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import socket as std_socket
import ssl as std
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import bridge
from bridge import socket, ssl
from bridge.exceptions import BlockingSwitchOutError, ConcurrentObjectUseError

#: More than what any socket buffers.
LARGE = 5_000_000
HOST = "bridge.example"

Pair = tuple[Any, Any]

#: Where a server sends no session tickets after the handshake: nothing comes unasked.
QUIET = pytest.mark.parametrize("version", [std.TLSVersion.TLSv1_2])
VERSIONS = pytest.mark.parametrize("version", [std.TLSVersion.TLSv1_2, std.TLSVersion.TLSv1_3])


class Authority:
    """Certificates, and contexts that use them."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.ca = ca
        self.folder = folder
        self.ca_file = str(folder / "ca.pem")
        ca.cert_pem.write_to_path(self.ca_file)
        self.cert = ca.issue_cert(HOST, "127.0.0.1")
        self.other = ca.issue_cert("other.example")
        self.cert_file = str(folder / "cert.pem")
        self.cert.private_key_and_cert_chain_pem.write_to_path(self.cert_file)

    def server(self, kind: Any = None, **settings: Any) -> Any:
        context = (kind or ssl.SSLContext)(std.PROTOCOL_TLS_SERVER)
        self.cert.configure_cert(context)
        return self._set(context, settings)

    def client(self, kind: Any = None, **settings: Any) -> Any:
        context = (kind or ssl.SSLContext)(std.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        return self._set(context, settings)

    def _set(self, context: Any, settings: Any) -> Any:
        version = settings.pop("version", None)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        for name, value in settings.items():
            setattr(context, name, value)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def wrap_pair(server: Any, client: Any, hostname: str = HOST, **kwargs: Any) -> Pair:
    a, b = socket.socketpair()
    serving = bridge.spawn(server.wrap_socket, a, server_side=True)
    connected = client.wrap_socket(b, server_hostname=hostname, **kwargs)
    return serving.get(), connected


@pytest.fixture
def version() -> Any:
    """That of :func:`pair`; tests give others as a parameter."""
    return std.TLSVersion.TLSv1_3


@pytest.fixture
def pair(authority: Authority, version: Any, engine: str) -> Iterator[Callable[[], Pair]]:
    """Makes connections: server and client."""
    made: list[Any] = []

    def connect() -> Pair:
        both = wrap_pair(authority.server(version=version), authority.client(version=version))
        made.extend(both)
        return both

    yield connect
    for sock in made:
        sock.close()


def outcome(function: Callable[..., Any], *args: Any) -> BaseException:
    """The exception that ends ``function`` in a greenlet."""
    greenlet = bridge.spawn(function, *args)
    greenlet.join()
    assert greenlet.exception is not None
    return greenlet.exception


# -- exchanging -----------------------------------------------------------------------------------------


@VERSIONS
def test_every_way_to_receive_and_to_send(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    assert client.version() == server.version()
    ways: list[Callable[[bytes], object]] = [
        client.sendall, client.send, client.write,
        lambda data: client.sendall(memoryview(data)), lambda data: client.sendall(bytearray(data)),
    ]  # fmt: skip
    for send in ways:
        send(b"x" * 100)
        assert server.recv(30) == b"x" * 30
        buffer = bytearray(30)
        assert server.recv_into(buffer) == 30 and buffer == b"x" * 30
        assert server.recv_into(buffer, 10) == 10
        assert server.read(10) == b"x" * 10
        assert server.read(10, buffer) == 10
        assert server.pending() == 10
        assert server.recv(1024) == b"x" * 10
    client.sendall(b"")
    assert client.recv(0) == b""
    client.sendall(memoryview(b"abcdefgh").cast("i"))
    assert server.recv() == b"abcdefgh"


@VERSIONS
def test_waiting_lets_others_run(pair: Callable[[], Pair]) -> None:
    server, client = pair()

    def echo() -> None:
        while data := server.recv(1000):
            server.sendall(data)

    echoing = bridge.spawn(echo)
    for size in (1, 1000, 500):
        client.sendall(b"m" * size)
        assert client.recv(1000) == b"m" * size
    client.close()
    echoing.get()


@VERSIONS
def test_large_messages_in_both_directions_at_once(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    data = bytes(range(250)) * (LARGE // 250)

    def receive(sock: Any) -> bytes:
        found = io.BytesIO()
        while found.tell() < LARGE:
            found.write(sock.recv(100_000))
        return found.getvalue()

    receiving = [bridge.spawn(receive, sock) for sock in (server, client)]
    sending = [bridge.spawn(sock.sendall, data) for sock in (server, client)]
    bridge.joinall(sending, raise_error=True)
    assert all(r.get() == data for r in receiving)


@QUIET
def test_files(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    with server.makefile("r", newline="\n") as reader, client.makefile("w") as writer:
        lines = bridge.spawn(reader.readlines)
        for i in range(100):
            print("line", i, file=writer, flush=i % 7 == 0)
        writer.close()
        client.close()
        assert lines.get() == [f"line {i}\n" for i in range(100)]


def test_sendfile(pair: Callable[[], Pair], tmp_path: Path) -> None:
    server, client = pair()
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 10_000)

    def receive() -> bytes:
        found = b""
        while len(found) < 99_990:
            found += server.recv(65536)
        return found

    receiving = bridge.spawn(receive)
    with open(path, "rb") as f:
        assert client.sendfile(f, 10) == 99_990
    assert receiving.get() == path.read_bytes()[10:]


def test_what_tls_cannot_do_is_refused_as_by_the_standard_library(pair: Callable[[], Pair]) -> None:
    _server, client = pair()
    for call in (
        lambda: client.recv(1, 1), lambda: client.recv_into(bytearray(1), 1, 1), lambda: client.send(b"x", 1),
        lambda: client.sendall(b"x", 1), lambda: client.sendto(b"x", ("127.0.0.1", 1)),
        lambda: client.recvfrom(1), lambda: client.recvfrom_into(bytearray(1)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="allowed"):
            call()
    for call in (client.dup, lambda: client.sendmsg([b"x"]), lambda: client.recvmsg(1)):
        with pytest.raises(NotImplementedError):
            call()
    for call in (lambda: client.send("text"), lambda: client.sendall("text")):
        with pytest.raises(TypeError):
            call()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram, pytest.raises(NotImplementedError):
        ssl.create_default_context().wrap_socket(datagram, server_hostname=HOST)


# -- reading what is there already ----------------------------------------------------------------------


@VERSIONS
def test_a_read_after_a_short_one_finds_what_came_before_it(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    client.sendall(b"one")
    client.sendall(b"two")
    client.sendall(b"3")
    assert server.recv(100) == b"one"
    assert server.recv(3) == b"two"
    assert server.recv(1) == b"3"
    client.sendall(b"four")
    server.settimeout(0)
    assert server.recv(100) == b"four"
    with pytest.raises(std.SSLWantReadError):
        server.recv(100)


@VERSIONS
def test_a_read_whose_time_is_over_takes_what_is_there(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    client.sendall(b"one")
    client.sendall(b"two")
    assert server.recv(100) == b"one"
    server.settimeout(1e-9)
    assert server.recv(100) == b"two"
    with pytest.raises(TimeoutError, match="read operation timed out"):
        server.recv(100)


@VERSIONS
def test_a_read_of_nothing_does_not_wait(pair: Callable[[], Pair]) -> None:
    client, server = pair()
    server.sendall(b"short")
    assert client.recv(100) == b"short"
    assert client.recv(0) == b""
    assert client.read(0) == b""
    with pytest.raises(ValueError):
        client.read(-1)


def test_the_end_is_seen_again_and_again_without_waiting(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    client.sendall(b"last")
    client.setblocking(False)
    with pytest.raises(std.SSLWantReadError):
        client.unwrap()  # its half of the good-bye is sent; the connection itself stays open
    assert server.recv(100) == b"last"
    assert server.recv(100) == b""
    assert server.recv(100) == b""
    assert server.recv_into(bytearray(10)) == 0


# -- time limits, sockets that do not block -------------------------------------------------------------


@VERSIONS
def test_time_limits(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    client.settimeout(0.001)
    for read in (lambda: client.recv(1), lambda: client.read(1), lambda: client.recv_into(bytearray(1))):
        with pytest.raises(TimeoutError, match="The read operation timed out"):
            read()
    server.sendall(b"x")
    client.settimeout(None)
    assert client.recv(1) == b"x"
    client.settimeout(0.001)
    with pytest.raises(TimeoutError, match="The write operation timed out"):
        client.sendall(b"x" * LARGE)
    with pytest.raises(TimeoutError, match="timed out"):
        client.unwrap()
    assert client.gettimeout() == 0.001


def test_a_time_limit_for_one_send(pair: Callable[[], Pair]) -> None:
    _server, client = pair()
    data = b"x" * 16384
    with pytest.raises(TimeoutError, match="write operation"):
        while True:
            client.send(data, timeout=0.001)
    with pytest.raises(std.SSLWantWriteError):
        client.send(data, timeout=0)


def test_a_timeout_around_a_read_leaves_the_connection_usable(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    for _ in range(2):
        with bridge.Timeout(0.001, False):
            client.recv(1)
            pytest.fail("there was nothing")
        server.sendall(b"late")
        assert client.recv(10) == b"late"


@VERSIONS
def test_sockets_that_do_not_block(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    client.setblocking(False)
    with pytest.raises(std.SSLWantReadError):
        client.recv(1)
    with pytest.raises(std.SSLWantWriteError):
        client.sendall(b"x" * LARGE)
    assert server.recv(1) == b"x"


@VERSIONS
def test_a_handshake_without_blocking(authority: Authority, version: Any) -> None:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    context = authority.client(version=version)
    server = authority.server(version=version).wrap_socket(a, True, do_handshake_on_connect=False)
    client = context.wrap_socket(b, do_handshake_on_connect=False, server_hostname=HOST)
    with pytest.raises(std.SSLWantReadError):
        server.do_handshake()
    done: set[Any] = set()
    while len(done) < 2:
        for sock in (client, server):
            with contextlib.suppress(std.SSLWantReadError):
                sock.do_handshake()
                done.add(sock)
    assert client.version() == server.version()
    client.close()
    server.close()
    a, b = socket.socketpair()
    with a, b:
        b.setblocking(False)
        with pytest.raises(ValueError, match="non-blocking"):
            context.wrap_socket(b, server_hostname=HOST)
        assert b.fileno() == -1


def test_a_handshake_may_be_told_to_block(authority: Authority) -> None:
    a, b = socket.socketpair()
    b.setblocking(False)
    client = authority.client().wrap_socket(b, do_handshake_on_connect=False, server_hostname=HOST)
    serving = bridge.spawn(authority.server().wrap_socket, a, True)
    client.do_handshake(block=True)
    assert client.gettimeout() == 0
    serving.get().close()
    client.close()


# -- closing, killing -----------------------------------------------------------------------------------


@QUIET
@pytest.mark.parametrize("end", ["close", "shutdown", "detach"])
def test_who_waits_is_told_when_the_socket_is_closed(pair: Callable[[], Pair], end: str) -> None:
    waits: list[tuple[str, Any]] = [("recv", 1), ("sendall", b"x" * LARGE), ("do_handshake", True)]
    for method, argument in waits:
        _server, client = pair()
        if method == "do_handshake":
            client._sslobj = Needing(client._sslobj, std.SSLWantReadError())
        waiting = bridge.spawn(getattr(client, method), argument)
        bridge.sleep(0)
        assert not waiting.ready()
        if end == "close":
            client.close()
        elif end == "shutdown":
            client.shutdown(socket.SHUT_RDWR)
        else:
            os.close(client.detach())
        waiting.join()
        assert isinstance(waiting.exception, OSError)
        assert waiting.exception.errno == 9


@pytest.mark.engines("owned")
def test_a_thread_closes_a_socket_that_a_greenlet_waits_for(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    waiting = [bridge.spawn(client.recv, 1), bridge.spawn(server.unwrap)]
    bridge.sleep(0)
    threads = [threading.Thread(target=sock.close) for sock in (client, server)]
    for thread in threads:
        thread.start()
    bridge.joinall(waiting)
    for thread in threads:
        thread.join()
    assert all(isinstance(g.exception, OSError) or g.value is not None for g in waiting)
    assert isinstance(waiting[0].exception, OSError)


def test_a_closed_socket(pair: Callable[[], Pair]) -> None:
    _server, client = pair()
    client.close()
    for call in (lambda: client.recv(1), lambda: client.send(b"x"), lambda: client.sendall(b"x")):
        with pytest.raises(OSError, match="Bad file"):
            call()
    for call in (lambda: client.read(1), lambda: client.write(b"x"), client.unwrap):
        with pytest.raises(ValueError, match="SSL"):
            call()
    assert client.version() is None and client.pending() == 0


@pytest.mark.parametrize("end", ["kill", "timeout", "limit", "garbage", "eof", "untrusted"])
def test_a_handshake_that_fails_closes_the_socket(authority: Authority, end: str) -> None:
    a, b = socket.socketpair()
    fd = b.fileno()
    context = authority.client()
    kwargs: dict[str, Any] = {"server_hostname": HOST}
    expected: tuple[type[BaseException], ...] = (OSError,)
    if end == "limit":
        b.settimeout(0.001)
        expected = (TimeoutError,)
    elif end == "garbage":
        a.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        expected = (std.SSLError,)
    elif end == "eof":
        a.close()
    elif end == "untrusted":
        context = ssl.create_default_context()
        bridge.spawn(lambda: outcome(authority.server().wrap_socket, a, True))
        expected = (std.SSLCertVerificationError,)
    elif end == "timeout":
        expected = (bridge.Timeout,)
    handshaking = bridge.spawn(context.wrap_socket, b, **kwargs)
    if end == "kill":
        bridge.sleep(0)
        handshaking.kill()
    elif end == "timeout":
        bridge.sleep(0)
        handshaking.kill(bridge.Timeout(None))
    handshaking.join()
    if end == "kill":
        assert isinstance(handshaking.value, bridge.GreenletExit)
    else:
        assert isinstance(handshaking.exception, expected)
    assert b.fileno() == -1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    bridge.sleep(0)
    a.close()


@VERSIONS
def test_ends_without_good_bye(authority: Authority, version: Any) -> None:
    for suppress in (True, False):
        server, client = wrap_pair(
            authority.server(version=version),
            authority.client(version=version),
            suppress_ragged_eofs=suppress,
        )
        reading = bridge.spawn(client.recv, 1)
        bridge.sleep(0)
        os.close(server.detach())
        reading.join()
        if suppress:
            assert reading.value == b""
        else:
            assert isinstance(reading.exception, std.SSLEOFError)
        client.close()
        server.close()


@VERSIONS
def test_unwrap_leads_back_to_plain_text(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    client.sendall(b"secret")
    unwrapping = bridge.spawn(client.unwrap)
    assert server.recv(100) == b"secret"
    assert server.recv(100) == b""
    plain_server = server.unwrap()
    plain_client = unwrapping.get()
    receiving = bridge.spawn(plain_client.recv, 100)
    bridge.sleep(0)
    plain_server.sendall(b"plain")
    assert receiving.get() == b"plain"
    with pytest.raises(ValueError, match="No SSL wrapper"):
        client.unwrap()


def test_unwrap_while_another_greenlet_reads(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    reading = bridge.spawn(client.recv, 100)
    bridge.sleep(0)
    unwrapping = bridge.spawn(client.unwrap)
    bridge.sleep(0)
    answering = bridge.spawn(server.unwrap)
    assert unwrapping.get() is client
    reading.join()
    assert reading.value == b"" or isinstance(reading.exception, std.SSLZeroReturnError)
    answering.get()


# -- several greenlets ----------------------------------------------------------------------------------


def test_one_reader_and_one_writer(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    reading = bridge.spawn(client.recv, 1)
    writing = bridge.spawn(client.sendall, b"a" * LARGE)
    bridge.sleep(0)
    assert isinstance(outcome(client.recv, 1), ConcurrentObjectUseError)
    # also where there would be room: it would be taken for the rest of the first one's record
    assert isinstance(outcome(client.send, b"b"), ConcurrentObjectUseError)
    received = 0
    while received < LARGE:
        data = server.recv(100_000)
        assert data.count(b"a") == len(data)
        received += len(data)
    writing.get()
    server.sendall(b"x")
    assert reading.get() == b"x"


class Needing:
    """What OpenSSL does when it has to send before it can read on, or the reverse."""

    def __init__(self, sslobj: Any, error: Exception) -> None:
        self.sslobj = sslobj
        self.error: Exception | None = error

    def _first(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error

    def read(self, *args: Any) -> Any:
        self._first()
        return self.sslobj.read(*args)

    def write(self, *args: Any) -> Any:
        self._first()
        return self.sslobj.write(*args)

    def do_handshake(self) -> Any:
        self._first()
        return self.sslobj.do_handshake()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sslobj, name)


def test_a_read_that_has_to_send_waits_beside_the_writer(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    writing = bridge.spawn(client.sendall, b"x" * LARGE)
    bridge.sleep(0)
    client._sslobj = Needing(client._sslobj, std.SSLWantWriteError())
    server.sendall(b"answer")
    reading = bridge.spawn(client.recv, 100)
    bridge.sleep(0)
    assert not reading.ready()
    received = 0
    while received < LARGE:
        received += len(server.recv(100_000))
    writing.get()
    assert reading.get() == b"answer"


@QUIET
def test_a_write_that_has_to_receive_waits_beside_the_reader(pair: Callable[[], Pair]) -> None:
    server, client = pair()
    reading = bridge.spawn(client.recv, 100)
    bridge.sleep(0)
    client._sslobj = Needing(client._sslobj, std.SSLWantReadError())
    writing = bridge.spawn(client.sendall, b"question")
    bridge.sleep(0)
    assert not writing.ready() and not reading.ready()
    server.sendall(b"go on")
    writing.get()
    assert reading.get() == b"go on"
    assert server.recv(100) == b"question"


@QUIET
def test_waits_for_the_other_direction_can_be_ended(pair: Callable[[], Pair]) -> None:
    for end in ("close", "shutdown", "kill", "limit"):
        _server, client = pair()
        client._sslobj = Needing(client._sslobj, std.SSLWantReadError())
        if end == "limit":
            client.settimeout(0.001)
        writing = bridge.spawn(client.sendall, b"x")
        bridge.sleep(0)
        if end == "close":
            client.close()
        elif end == "shutdown":
            client.shutdown(socket.SHUT_RDWR)
        elif end == "kill":
            writing.kill()
        writing.join()
        assert not client._crossing
        if end == "kill":
            assert isinstance(writing.value, bridge.GreenletExit)
        else:
            assert isinstance(writing.exception, TimeoutError if end == "limit" else OSError)


# -- what TLS is for ------------------------------------------------------------------------------------


def test_names_protocols_sessions_and_bindings(authority: Authority) -> None:
    names: list[Any] = []
    other = authority.server()
    other.load_cert_chain(authority.cert_file)

    def choose(sock: Any, name: str | None, context: Any) -> None:
        names.append((type(sock), name, context))
        sock.context = other

    server_context = authority.server(sni_callback=choose, version=std.TLSVersion.TLSv1_2)
    other.set_alpn_protocols(["h2", "http/1.1"])
    client_context = authority.client()
    client_context.set_alpn_protocols(["http/1.1"])
    server, client = wrap_pair(server_context, client_context)
    assert names == [(ssl.SSLSocket, HOST, server_context)]
    assert server.context is other
    assert client.selected_alpn_protocol() == server.selected_alpn_protocol() == "http/1.1"
    assert client.get_channel_binding() == server.get_channel_binding() is not None
    assert client.getpeercert()["subjectAltName"] == (("DNS", HOST), ("IP Address", "127.0.0.1"))
    assert client.cipher() == server.cipher()
    session = client.session
    assert not client.session_reused
    server.close()
    client.close()
    server, client = wrap_pair(server_context, client_context, session=session)
    assert client.session_reused and server.session_reused
    server.close()
    client.close()


def test_wrong_names_are_refused(authority: Authority) -> None:
    a, b = socket.socketpair()
    with a, b:
        serving = bridge.spawn(outcome, authority.server().wrap_socket, a, True)
        with pytest.raises(std.SSLCertVerificationError, match="Hostname mismatch"):
            authority.client().wrap_socket(b, server_hostname="other.example")
        assert isinstance(serving.get(), OSError)


def test_client_certificates_are_asked_for_after_the_handshake(authority: Authority) -> None:
    server_context = authority.server(verify_mode=std.CERT_REQUIRED, post_handshake_auth=True)
    authority.ca.configure_trust(server_context)
    client_context = authority.client(post_handshake_auth=True)
    authority.other.configure_cert(client_context)
    server, client = wrap_pair(server_context, client_context)
    assert server.getpeercert() is None
    server.verify_client_post_handshake()
    server.sendall(b"who are you?")
    reading = bridge.spawn(server.recv, 100)
    assert client.recv(100) == b"who are you?"
    client.sendall(b"me")
    assert reading.get() == b"me"
    assert server.getpeercert()["subjectAltName"] == (("DNS", "other.example"),)
    server.close()
    client.close()


# -- servers and clients --------------------------------------------------------------------------------


@contextlib.contextmanager
def echoing(authority: Authority) -> Iterator[Any]:
    """The address of a server that accepts and echoes by TLS."""
    listener = authority.server().wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)

    def echo(sock: Any) -> None:
        with sock:
            while data := sock.recv(1000):
                sock.sendall(data)

    def serve() -> None:
        while True:
            with contextlib.suppress(std.SSLError, ConnectionError):
                bridge.spawn(echo, listener.accept()[0])

    serving = bridge.spawn(serve)
    yield listener.getsockname()
    serving.kill()
    listener.close()


def test_connect_and_accept(authority: Authority) -> None:
    with echoing(authority) as where:
        for method in ("connect", "connect_ex"):
            client = authority.client().wrap_socket(socket.socket(), server_hostname=HOST)
            assert not getattr(client, method)(where)
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            with pytest.raises(ValueError, match="already-connected"):
                client.connect(where)
            client.close()
        refused = authority.client().wrap_socket(socket.socket(), server_hostname=HOST)
        with socket.create_server(("127.0.0.1", 0)) as closing:
            nobody = closing.getsockname()
        assert refused.connect_ex(nobody) == 111
        refused.close()


def test_certificates_of_servers(authority: Authority) -> None:
    with echoing(authority) as where:
        pem = ssl.get_server_certificate(where, ca_certs=authority.ca_file)
        assert pem.strip() == authority.cert.cert_chain_pems[0].bytes().decode().strip()
        with pytest.raises(std.SSLCertVerificationError):
            ssl.get_server_certificate(where, ca_certs=authority.cert_file)


def test_default_contexts_make_cooperative_sockets(authority: Authority) -> None:
    with echoing(authority) as where:
        for context in (
            ssl.create_default_context(cafile=authority.ca_file),
            ssl._create_unverified_context(),
            ssl._create_stdlib_context(),
            ssl._create_default_https_context(cafile=authority.ca_file),
        ):
            assert type(context) is ssl.SSLContext
            with context.wrap_socket(socket.create_connection(where), server_hostname=HOST) as client:
                assert type(client) is ssl.SSLSocket
                assert isinstance(client, std.SSLSocket) and isinstance(client, socket.socket)
                client.sendall(b"x")
                assert client.recv(1) == b"x"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sockets_made_as_gevent_offers_it(authority: Authority) -> None:
    for make in (ssl.SSLSocket, ssl.wrap_socket):
        a, b = socket.socketpair()
        serving = bridge.spawn(make, a, certfile=authority.cert_file, server_side=True)
        client = make(b, cert_reqs=std.CERT_REQUIRED, ca_certs=authority.ca_file)
        assert type(client) is type(serving.get()) is ssl.SSLSocket
        client.sendall(b"x")
        assert serving.get().recv(1) == b"x"
        assert type(client.context) is ssl.SSLContext
        client.close()
        serving.get().close()
        with socket.socket() as sock, pytest.raises(ValueError, match="certfile"):
            make(sock, server_side=True)
    a, b = socket.socketpair()
    context = authority.client()
    client = ssl.SSLSocket(b, do_handshake_on_connect=False, _context=context, server_hostname=HOST)
    assert client.context is context
    assert client.server_hostname == HOST
    client.close()
    a.close()
    with pytest.raises(TypeError, match="wrap_socket"):
        ssl.SSLSocket()


def test_standard_sockets_become_cooperative(authority: Authority) -> None:
    a, b = std_socket.socketpair()
    b.settimeout(3)
    serving = bridge.spawn(authority.server().wrap_socket, a, True)
    client = authority.client().wrap_socket(b, server_hostname=HOST)
    assert client.gettimeout() == 3
    serving.get().sendall(b"x")
    assert client.recv(1) == b"x"
    serving.get().close()
    client.close()


def test_in_memory_bios_are_the_standard_library_s(authority: Authority) -> None:
    made = authority.client().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=HOST)
    assert type(made) is std.SSLObject
    with pytest.raises(std.SSLWantReadError):
        made.do_handshake()


def test_sockets_are_freed_at_once(authority: Authority) -> None:
    server, client = wrap_pair(authority.server(), authority.client())
    client.sendall(b"x")
    assert server.recv(10) == b"x"
    gc.disable()
    try:
        refs = [weakref.ref(server), weakref.ref(client)]
        server.close()
        client.close()
        del server, client
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()


# -- coroutines -----------------------------------------------------------------------------------------


@pytest.mark.engines("none")
def test_portals_may_use_tls_and_plain_coroutines_may_not_wait(authority: Authority) -> None:
    @bridge.portal
    async def talk() -> Pair:
        server, client = wrap_pair(authority.server(), authority.client())
        client.sendall(b"x")
        assert server.recv(10) == b"x"
        return server, client

    async def wait(sock: Any) -> None:
        with pytest.raises(BlockingSwitchOutError):
            sock.recv(10)

    server, client = asyncio.run(talk())

    async def use_what_is_there() -> None:
        client.sendall(b"y")
        assert server.recv(10) == b"y"

    asyncio.run(use_what_is_there())
    asyncio.run(wait(client))

    @bridge.portal
    async def go_on() -> None:
        writing = bridge.spawn(server.sendall, b"z")
        assert client.recv(10) == b"z"
        writing.get()

    asyncio.run(go_on())
    server.close()
    client.close()


# -- the module, and patching ---------------------------------------------------------------------------


@pytest.mark.engines("none")
def test_names() -> None:
    expected = ["SSLContext", "SSLSocket", "get_server_certificate"]
    if sys.version_info < (3, 12):
        expected.append("wrap_socket")
    assert ssl.__implements__ == expected
    for name in ssl.__implements__:
        assert getattr(ssl, name) is not getattr(std, name)
    for name in ssl.__imports__:
        assert getattr(ssl, name) is getattr(std, name)
    assert ssl.orig_SSLContext is std.SSLContext
    assert ssl.socket is socket.socket
    assert not [name for name in dir(std) if not hasattr(ssl, name) and not name.startswith("__")]
    assert len(ssl.__all__) == len(set(ssl.__all__))


def patched(program: str, authority: Authority) -> str:
    """What ``program`` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, authority.cert_file, authority.ca_file],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PATCHED = """if True:
    import sys, warnings
    warnings.simplefilter("ignore")
    BEFORE
    import bridge
    from bridge import monkey
    monkey.patch_all()
    import socket, ssl
    assert ssl.SSLContext is bridge.ssl.SSLContext and ssl.SSLSocket is bridge.ssl.SSLSocket
    contexts = make_contexts() if "make_contexts" in globals() else []
    contexts += [ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.create_default_context(), Derived()]
    for context in contexts:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        assert context.verify_mode is ssl.CERT_NONE
        context.options |= ssl.OP_NO_TLSv1_3
        assert context.options & ssl.OP_NO_TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_TRUSTED_FIRST
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert context.maximum_version is ssl.TLSVersion.TLSv1_2
        context.set_ciphers("HIGH")
        context._msg_callback = seen = lambda *args: None
        assert context._msg_callback is seen
        context._msg_callback = None
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(sys.argv[1])
        a, b = socket.socketpair()
        serving = bridge.spawn(server.wrap_socket, a, True)
        client = context.wrap_socket(b)
        reading = bridge.spawn(client.recv, 10)
        bridge.sleep(0)
        assert not reading.ready()
        serving.get().sendall(b"x")
        assert reading.get() == b"x"
        assert type(client) is ssl.SSLSocket
    print(len(contexts), "contexts")
"""


@pytest.mark.engines("none")
def test_patching_before_anything_is_imported(authority: Authority) -> None:
    program = PATCHED.replace("BEFORE", "pass").replace(
        "    contexts = make",
        "    class Derived(ssl.SSLContext):\n"
        "        def __new__(cls): return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)\n"
        "    contexts = make",
    )
    assert patched(program, authority) == "3 contexts\n"


@pytest.mark.engines("none")
def test_contexts_and_classes_from_before_patching_are_cooperative(authority: Authority) -> None:
    before = """
    import ssl as unpatched
    from ssl import SSLContext, create_default_context
    old = SSLContext(unpatched.PROTOCOL_TLS_CLIENT)
    default = create_default_context()
    class Derived(SSLContext):
        def __new__(cls): return super().__new__(cls, unpatched.PROTOCOL_TLS_CLIENT)
    derived = Derived()
    def make_contexts():
        return [old, default, derived, SSLContext(unpatched.PROTOCOL_TLS_CLIENT), create_default_context()]
    """
    assert patched(PATCHED.replace("    BEFORE", before), authority) == "8 contexts\n"


@pytest.mark.engines("none")
def test_standard_contexts_wrap_standard_sockets_as_ever(authority: Authority) -> None:
    program = """if True:
        import bridge
        from bridge import monkey
        monkey.patch_all()
        Socket, socketpair = monkey.get_original("socket", ["socket", "socketpair"])
        Context, StandardSocket = monkey.get_original("ssl", ["SSLContext", "SSLSocket"])
        import ssl
        context = Context(ssl.PROTOCOL_TLS_CLIENT)
        a, b = [Socket(fileno=each.detach()) for each in socketpair()]
        made = context.wrap_socket(b, do_handshake_on_connect=False, server_hostname="x")
        assert not isinstance(made, bridge.ssl.SSLSocket) and isinstance(made, StandardSocket)
        made.close(); a.close()
        print("standard")
    """
    assert patched(program, authority) == "standard\n"


@pytest.mark.engines("none")
def test_https_by_the_standard_library(authority: Authority) -> None:
    program = """if True:
        from bridge import monkey
        monkey.patch_all()
        import bridge, http.server, ssl, sys, threading, urllib.request
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200); self.send_header("Content-Length", "5"); self.end_headers()
                self.wfile.write(b"hello")
            def log_message(self, *args): pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[1])
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://127.0.0.1:{server.server_port}/"
        trust = ssl.create_default_context(cafile=sys.argv[2])
        def get():
            with urllib.request.urlopen(url, context=trust) as answer:
                return answer.read()
        print(*[g.get().decode() for g in [bridge.spawn(get) for _ in range(5)]])
        server.shutdown(); server.server_close()
    """
    assert patched(program, authority) == "hello hello hello hello hello\n"
