"""A WSGI application inside an ASGI server: each request runs in a greenlet on the server's loop.

With :class:`WSGIMiddleware` a web application begins to migrate: the old part (Flask, Django, anything
WSGI) is mounted beside the new, asynchronous part, in one process and one thread. It blocks only its
greenlet, may ``bridge.await_`` coroutines, and shares connections, queues and locks with the asynchronous
part::

    app = FastAPI()
    app.mount("/legacy", WSGIMiddleware(flask_app))

Theory of operation
===================

Three parties work on a request. *The task* in which the server has called us starts the other two and waits.
*The greenlet* runs the application: it takes the body from a queue, and sends each part of the answer with
``await_(send(...))``, which waits for as long as the server does not want more. *The listener*, a task, is
the only one who calls ``receive()``: it puts the body into the queue, which holds one part, so that an upload
is never more than two parts ahead of the application; and after the body it waits for the client's farewell.
Then it raises CancelledError in the greenlet, where the application blocks.

A listener is needed, as nobody else would notice that the client is gone while the application waits for its
database. A client that waits for "100 Continue" gets that by the first ``receive()``; for such a client the
listener begins when the application reads.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextvars import copy_context
from typing import Any
from wsgiref.util import FileWrapper

from ._aio.awaiting import await_
from .event import Event
from .greenlet import Greenlet
from .queue import Queue

__all__ = ["WSGIMiddleware"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class WSGIMiddleware:
    """An ASGI application made of a WSGI application.

    :param app: the WSGI application.
    :param cancel_on_disconnect: raise ``asyncio.CancelledError`` where the application blocks when the client
        goes away before the answer is complete; otherwise it goes on, to no purpose.

    Request and answer are streamed, and the client's pace is the application's. The environ has the ASGI
    scope as ``asgi.scope``. An exception of the application is raised to the server. WebSockets are refused.
    To be called in a coroutine.
    """

    def __init__(
        self, app: Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]], *,
        cancel_on_disconnect: bool = True,
    ) -> None:  # fmt: skip
        if not callable(app):
            raise TypeError(f"WSGIMiddleware() takes a WSGI application, not {app!r}")
        self.app = app
        self.cancel_on_disconnect = cancel_on_disconnect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (or the lifespan, or the refusal of a WebSocket)."""
        kind = scope["type"]
        if kind == "http":
            await _Exchange(self, scope, receive, send).serve()
        elif kind == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": "a WSGI application answers here"})
        else:
            raise ValueError(f"WSGIMiddleware cannot serve ASGI connections of type {kind!r}")


class _Exchange:
    """One request and its answer."""

    def __init__(self, middleware: WSGIMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self.middleware = middleware
        self.scope = scope
        self.receive = receive
        self.send = send
        #: the body, part by part; an empty part is its end, an exception an end too early
        self.parts: Queue[bytes | Exception] = Queue(1)
        self.wanted = Event()
        self.disconnected = False
        self.environ = environ_of(scope, io.BufferedReader(_Body(self), 65536))
        self.start: dict[str, Any] | None = None  # the first message of the answer, until it is sent
        self.started = False

    async def serve(self) -> None:
        """In the server's task."""
        worker: Greenlet[None] = Greenlet(self.run)
        worker._quiet = True  # its exception goes to the server
        worker.gr_context = copy_context()
        if self.environ.get("HTTP_EXPECT", "").lower() != "100-continue":
            self.wanted.set()
        listener = asyncio.create_task(self.listen(worker))
        try:
            worker.start()
            await worker
        except asyncio.CancelledError:
            if not self.disconnected:
                raise
            # nobody is left to be answered
        finally:
            listener.cancel()
            await asyncio.wait([listener])

    async def listen(self, worker: Greenlet[None]) -> None:
        """In a task: take in the body, then wait for the client to leave."""
        await self.wanted
        try:
            while True:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    break
                part = message.get("body", b"")
                if part:
                    await self.parts.aput(part)
                if not message.get("more_body", False):
                    await self.parts.aput(b"")
        except Exception as e:
            worker.kill(e, block=False)  # the server's own mistake, which is raised to it
            return
        self.disconnected = True
        if self.middleware.cancel_on_disconnect:
            worker.kill(asyncio.CancelledError("the client has disconnected"), block=False)
        else:
            await self.parts.aput(ConnectionResetError("the client has left before the end of the body"))

    # -- in the greenlet ------------------------------------------------------------------------------

    def run(self) -> None:
        """Call the application and send what it answers."""
        result = self.middleware.app(self.environ, self.start_response)
        try:
            if hasattr(result, "__len__") and len(result) == 1 and self.start is not None:  # type: ignore[arg-type]
                (only,) = result
                headers = self.start["headers"]
                if not any(name == b"content-length" for name, _ in headers):
                    headers.append((b"content-length", str(len(only)).encode()))
                self.write(only, more=False)
                return
            for part in result:
                if part:
                    self.write(part)
            self.write(b"", more=False)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """As in PEP 3333."""
        if exc_info is not None:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.start is not None or self.started:
            raise AssertionError("start_response() was called a second time, without exc_info")
        code = status.partition(" ")[0]
        if not (code.isdigit() and len(code) == 3):
            raise ValueError(f"start_response({status!r}): the status begins with three digits")
        self.start = {
            "type": "http.response.start",
            "status": int(code),
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        }
        return self.write

    def write(self, part: bytes, more: bool = True) -> None:
        """Send a part of the answer; blocks for as long as the server wants none."""
        if not self.started:
            if self.start is None:
                raise AssertionError("the application has answered without start_response()")
            if more and not part:
                return
            self.started = True
            await_(self.send(self.start))
        await_(self.send({"type": "http.response.body", "body": part, "more_body": more}))


class _Body(io.RawIOBase):
    """The body of a request, for the greenlet."""

    def __init__(self, exchange: _Exchange) -> None:
        super().__init__()
        self._exchange = exchange
        self._rest = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for something; 0 is the end."""
        rest = self._rest
        if not rest and not self._ended:
            self._exchange.wanted.set()
            part = self._exchange.parts.get()
            if isinstance(part, Exception):
                self._ended = True
                raise part
            rest = memoryview(part)
            self._ended = not rest
        size = min(len(buffer), len(rest))
        buffer[:size] = rest[:size]
        self._rest = rest[size:]
        return size


def environ_of(scope: Scope, body: Any) -> dict[str, Any]:
    """The environ of PEP 3333 for an ASGI scope of type http."""
    root = scope.get("root_path", "")
    path = scope["path"]
    # the specification has the root in the path; some frameworks take it off
    inside = path[len(root) :] if root and (path == root or path.startswith(root.rstrip("/") + "/")) else path
    server = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root.encode("utf-8").decode("latin-1"),
        "PATH_INFO": inside.encode("utf-8").decode("latin-1"),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] if server[1] is not None else 80),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        # several requests run at the same time, and any of them may go on wherever another one blocks
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "asgi.scope": scope,
    }
    raw_path = scope.get("raw_path")
    if raw_path is not None:
        query = environ["QUERY_STRING"]
        environ["REQUEST_URI"] = raw_path.decode("latin-1") + ("?" + query if query else "")
    client = scope.get("client")
    if client:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1")
        if "_" in name:
            # in the environ it could not be told from the name with a dash, which a proxy may vouch for
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        value = raw_value.decode("latin-1")
        if key in environ:
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
        environ[key] = value
    return environ
