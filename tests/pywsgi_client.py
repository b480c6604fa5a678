"""What the tests of pywsgi share: a server in the test's own loop, and a client that sees every byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import bridge
from bridge import socket
from bridge.pool import Pool
from bridge.pywsgi import WSGIServer

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[Any]]


class Log:
    """A log that can be looked at."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def writelines(self, lines: Iterable[str]) -> None:
        self.text += "".join(lines)

    def flush(self) -> None:
        pass


class Response:
    """What came back: ``code``, ``reason``, ``headers`` (names in lower case), ``body``, ``chunks``."""

    def __init__(self, line: str, headers: list[tuple[str, str]]) -> None:
        self.line = line
        self.version, code, self.reason = line.split(" ", 2)
        self.code = int(code)
        self.fields = headers
        self.headers = {name.lower(): value for name, value in headers}
        assert len(self.headers) == len(headers) or "set-cookie" in self.headers, headers
        self.body = b""
        self.chunks: list[bytes] | None = None


class Client:
    """A connection to the server. Whatever does not come in ten seconds will not."""

    def __init__(self, address: Any, family: int = socket.AF_INET) -> None:
        self.sock = socket.socket(family)
        self.sock.settimeout(10)
        self.sock.connect(address)
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def send(self, *parts: bytes) -> Client:
        """Send ``parts``, each by itself."""
        for part in parts:
            self.sock.sendall(part)
        return self

    def get(self, path: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> Client:
        """Send a request without a body."""
        lines = [f"{method} {path} HTTP/{version}", "Host: test", *headers, "", ""]
        return self.send("\r\n".join(lines).encode("latin-1"))

    def post(self, path: str, body: bytes, *headers: str) -> Client:
        """Send a request with a body."""
        lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers, "", ""]
        return self.send("\r\n".join(lines).encode("latin-1") + body)

    def end(self) -> Client:
        """Say that nothing more will come."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def head(self) -> Response:
        """Read the head of an answer."""
        line = self.file.readline()
        assert line.endswith(b"\r\n"), f"no status line, but {line!r}"
        headers = []
        while (field := self.file.readline()) != b"\r\n":
            assert field.endswith(b"\r\n"), f"no header line, but {field!r}"
            name, _, value = field[:-2].decode("latin-1").partition(": ")
            headers.append((name, value))
        return Response(line[:-2].decode("latin-1"), headers)

    def answer(self, to: str = "GET") -> Response:
        """Read an answer, as far as its head says that it goes."""
        response = self.head()
        headers = response.headers
        assert not ("content-length" in headers and "transfer-encoding" in headers), headers
        if to == "HEAD" or response.code in (100, 101, 204, 304):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            response.chunks = list(self._chunks())
            response.body = b"".join(response.chunks)
        elif "content-length" in headers:
            size = int(headers["content-length"])
            response.body = self.file.read(size)
            assert len(response.body) == size, "the connection ended in the body"
        else:
            response.body = self.file.read()
        return response

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = int(self.file.readline(), 16)
            data = self.file.read(size)
            assert self.file.read(2) == b"\r\n"
            if not size:
                return
            yield data

    def rest(self) -> bytes:
        """Everything up to the end of the connection, which the server is to close."""
        try:
            return self.file.read()
        except ConnectionResetError:
            return b"reset"

    def closed(self) -> bool:
        """True if the server closes the connection without another byte."""
        return self.rest() == b""


class Server:
    """A running server with its logs."""

    def __init__(self, server: WSGIServer, log: Log, errors: Log) -> None:
        self.server = server
        self.log = log
        self.errors = errors
        self.clients: list[Client] = []

    def connect(self) -> Client:
        client = Client(self.server.address, self.server.family)
        self.clients.append(client)
        return client

    def ask(self, raw: bytes, to: str = "GET") -> Response:
        """The answer to ``raw`` on a connection of its own."""
        with self.connect() as client:
            return client.send(raw).answer(to)

    def get(self, path: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> Response:
        with self.connect() as client:
            return client.get(path, *headers, method=method, version=version).answer(method)


@contextmanager
def serving(
    application: Application | None, cls: Any = WSGIServer, listener: Any = ("127.0.0.1", 0), **kwargs: Any
) -> Iterator[Server]:
    """A server for ``application`` in this loop; every greenlet and connection is gone at the end."""
    log, errors = Log(), Log()
    kwargs.setdefault("log", log)
    kwargs.setdefault("error_log", errors)
    limits = {
        name: kwargs.pop(name) for name in list(kwargs) if hasattr(WSGIServer, name) and name not in TAKEN
    }
    pool = kwargs.setdefault("spawn", Pool())
    server = cls(listener, application, **kwargs)
    for name, value in limits.items():
        setattr(server, name, value)
    server.start()
    result = Server(server, log, errors)
    try:
        yield result
    finally:
        for client in result.clients:
            client.close()
        server.stop(timeout=5)
        assert not pool, f"connections that do not end: {list(pool)}"


#: Arguments of the constructor that are attributes, too.
TAKEN = {"log", "error_log", "handler_class", "backlog", "environ"}


def hello(_environ: Environ, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def echo(environ: Environ, start_response: StartResponse) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def yields() -> None:
    """Let the others run."""
    for _ in range(5):
        bridge.sleep(0)
