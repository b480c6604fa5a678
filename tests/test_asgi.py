"""WSGI applications in ASGI servers."""

from __future__ import annotations

import asyncio
import contextvars
import io
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import bridge
from bridge.asgi import WSGIMiddleware
from bridge.event import Event

pytestmark = [pytest.mark.asyncio, pytest.mark.engines("none")]

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")

SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "method": "POST",
    "scheme": "https",
    "path": "/mount/caf\u00e9",
    "raw_path": b"/mount/caf%C3%A9",
    "root_path": "/mount",
    "query_string": b"a=1",
    "headers": [
        (b"host", b"example.com"),
        (b"content-type", b"text/plain"),
        (b"x-twice", b"1"),
        (b"x-twice", b"2"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"x_spoofed", b"1"),
    ],
    "server": ("example.com", 443),
    "client": ("10.0.0.1", 1234),
}


class Server:
    """An ASGI server of one request: hands out parts of a body, takes the answer, and counts both."""

    def __init__(self, *parts: bytes, **scope: Any) -> None:
        self.scope = {**SCOPE, **scope}
        self.parts = list(parts)
        self.received = 0
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.room = asyncio.Semaphore(1_000_000)

    async def receive(self) -> dict[str, Any]:
        if self.received <= len(self.parts):
            self.received += 1
            if self.received <= len(self.parts):
                body = self.parts[self.received - 1]
                return {"type": "http.request", "body": body, "more_body": True}
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.room.acquire()
        self.sent.append(message)

    async def run(self, app: Any, **options: Any) -> Server:
        await WSGIMiddleware(app, **options)(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        assert [m["more_body"] for m in self.sent[1:]] == [True] * (len(self.sent) - 2) + [False]
        return b"".join(m["body"] for m in self.sent[1:])


def ok(start_response: Callable[..., Any], *headers: tuple[str, str]) -> Callable[[bytes], None]:
    write: Callable[[bytes], None] = start_response("200 OK", [("X-Test", "y"), *headers])
    return write


async def test_the_environ_is_that_of_pep_3333() -> None:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        seen.update(environ)
        ok(start_response)
        return [b"x"]

    server = await Server().run(app)
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/mount",
        "PATH_INFO": "/caf\u00e9".encode().decode("latin-1"),
        "REQUEST_URI": "/mount/caf%C3%A9?a=1",
        "QUERY_STRING": "a=1",
        "CONTENT_TYPE": "text/plain",
        "HTTP_HOST": "example.com",
        "HTTP_X_TWICE": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "SERVER_NAME": "example.com",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "10.0.0.1",
        "wsgi.url_scheme": "https",
        "asgi.scope": server.scope,
    }
    assert {key: seen.get(key) for key in expected} == expected
    assert "HTTP_X_SPOOFED" not in seen
    assert server.headers == {b"x-test": b"y", b"content-length": b"1"}
    assert server.body == b"x"


async def test_the_standard_library_finds_nothing_wrong_with_it() -> None:
    from wsgiref.validate import validator

    @validator  # type: ignore[arg-type]
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(100)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    assert (await Server(b"data").run(app)).body == b"data"


async def test_the_body_is_taken_in_as_the_application_reads_it() -> None:
    seen = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        bridge.sleep(0.001)
        seen.append(server.received)
        stream = environ["wsgi.input"]
        read = [stream.readline(), stream.read(3)]
        bridge.sleep(0.001)
        seen.append(server.received)
        read.append(stream.read())
        assert stream.read() == b""
        ok(start_response)
        return [b"|".join(read)]

    server = Server(*[b"%04d\n" % n for n in range(100)])
    await server.run(app)
    assert server.body == b"0000\n|000|" + b"1\n" + b"".join(b"%04d\n" % n for n in range(2, 100))
    # one part waits in the queue, one in the hand of who brings it
    assert seen[0] == 2 and seen[1] <= 5, seen


async def test_a_client_that_expects_100_continue_is_not_asked_before_the_body_is_wanted() -> None:
    seen = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        bridge.sleep(0.001)
        seen.append(server.received)
        body = environ["wsgi.input"].read()
        ok(start_response)
        return [body]

    server = Server(b"data", headers=[(b"expect", b"100-Continue")])
    await server.run(app)
    assert seen == [0]
    assert server.body == b"data"


async def test_the_answer_is_streamed_at_the_client_s_pace_and_others_go_on() -> None:
    made = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        ok(start_response)
        for n in range(10):
            made.append(n)
            yield b"%d" % n

    server = Server()
    server.room = asyncio.Semaphore(3)  # the start and two parts
    task = asyncio.create_task(server.run(app))
    while len(server.sent) < 3:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert made == [0, 1, 2]
    for _ in range(9):
        server.room.release()
    await task
    assert server.body == b"0123456789"


async def test_write_and_late_headers() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        write = ok(start_response)
        write(b"written ")
        return iter([b"", b"returned"])

    assert (await Server().run(app)).body == b"written returned"

    def late(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        try:
            ok(start_response)
            raise LookupError
        except LookupError as e:
            start_response("500 Oops", [], (type(e), e, e.__traceback__))
        yield b""
        yield b"sorry"

    server = await Server().run(late)
    assert (server.status, server.body) == (500, b"sorry")


async def test_mistakes_of_the_application_reach_the_server() -> None:
    closed = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"begun"
            raise LookupError("x")

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        ok(start_response)
        return Body()

    server = Server()
    with pytest.raises(LookupError, match="x"):
        await server.run(app)
    assert [m["type"] for m in server.sent] == ["http.response.start", "http.response.body"]
    assert closed == [True]
    with pytest.raises(AssertionError, match="without start_response"):
        await Server().run(lambda environ, start_response: [b"x"])

    def twice(environ: dict[str, Any], start_response: Any) -> Any:
        ok(start_response)
        ok(start_response)

    with pytest.raises(AssertionError, match="a second time"):
        await Server().run(twice)
    with pytest.raises(ValueError, match="three digits"):
        await Server().run(lambda environ, start_response: start_response("fine", []))

    async def receive() -> Any:
        raise RuntimeError("the server's own")

    with pytest.raises(RuntimeError, match="own"):
        await WSGIMiddleware(lambda e, s: e["wsgi.input"].read())(SCOPE, receive, receive)  # type: ignore[arg-type]


async def test_a_client_that_leaves_cancels_the_application_where_it_blocks() -> None:
    log: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        began.set()
        try:
            event.wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        return []

    event = Event()
    began = asyncio.Event()
    server = Server()
    task = asyncio.create_task(server.run(app))
    await began.wait()
    server.gone.set()
    await task
    assert log == ["cancelled"]
    assert server.sent == []


async def test_a_client_that_leaves_may_be_ignored_and_a_part_of_a_body_is_no_body() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with pytest.raises(ConnectionResetError):
            environ["wsgi.input"].read()
        log.append("finished")
        ok(start_response)
        return []

    class Half(Server):
        async def receive(self) -> dict[str, Any]:
            if self.received:
                return {"type": "http.disconnect"}
            self.received += 1
            return {"type": "http.request", "body": b"half", "more_body": True}

    log: list[str] = []
    await Half().run(app, cancel_on_disconnect=False)
    assert log == ["finished"]


async def test_cancelling_the_server_s_task_cancels_the_application() -> None:
    log = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        began.set()
        try:
            bridge.sleep(1000)
        finally:
            log.append("cleaned up")
        return []

    server = Server()
    began = asyncio.Event()
    task = asyncio.create_task(server.run(app))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["cleaned up"]
    assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []


async def test_the_application_is_plain_code_that_may_await_and_has_the_task_s_context() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is loop
        return variable.get()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        body = bridge.await_(work()).encode()
        ok(start_response)
        return [body]

    loop = asyncio.get_running_loop()
    variable.set("context")
    assert (await Server().run(app)).body == b"context"


async def test_a_hundred_requests_wait_for_each_other_in_one_thread() -> None:
    arrived = []
    everybody = Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        arrived.append(1)
        if len(arrived) == 100:
            everybody.set()
        everybody.wait()
        ok(start_response)
        return [environ["PATH_INFO"].encode()]

    servers = [Server(path=f"/mount/{n}") for n in range(100)]
    await asyncio.gather(*(server.run(app) for server in servers))
    assert [server.body for server in servers] == [b"/%d" % n for n in range(100)]


async def test_other_kinds_of_connections() -> None:
    app = WSGIMiddleware(lambda environ, start_response: [])
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    messages = iter(["lifespan.startup", "lifespan.shutdown", "websocket.connect"])

    async def receive() -> Any:
        return {"type": next(messages)}

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await app({"type": "websocket"}, receive, send)
    assert sent[2:] == ["websocket.close"]
    with pytest.raises(ValueError, match="'strange'"):
        await app({"type": "strange"}, receive, send)
    with pytest.raises(TypeError, match="WSGI application"):
        WSGIMiddleware(None)  # type: ignore[arg-type]


# -- real servers and frameworks --------------------------------------------------------------------------


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The address of a uvicorn that serves ``app`` on the running loop."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


async def test_flask_beside_fastapi_under_uvicorn() -> None:
    fastapi = pytest.importorskip("fastapi")
    flask = pytest.importorskip("flask")
    httpx = pytest.importorskip("httpx")
    legacy = flask.Flask("legacy")
    waiting = Event()

    @legacy.get("/wait")
    def wait() -> str:
        waiting.wait()
        return "waited"

    @legacy.get("/await/<int:n>")
    def await_(n: int) -> dict[str, Any]:
        # a legacy view uses the client of the asynchronous part
        answer = bridge.await_(state["client"].get(f"/new/{n}"))
        return {"legacy": n, "url": flask.url_for("wait"), **answer.json()}

    @legacy.post("/upload")
    def upload() -> dict[str, int]:
        size = 0
        while part := flask.request.stream.read(65536):
            size += len(part)
        return {"size": size}

    @legacy.get("/stream")
    def stream() -> Any:
        return flask.Response(b"%d," % n * 1000 for n in range(300))

    app = fastapi.FastAPI()
    app.mount("/legacy", WSGIMiddleware(legacy))

    @app.get("/new/{n}")
    async def new(n: int) -> dict[str, int]:
        await asyncio.sleep(0.001)
        return {"new": n}

    state: dict[str, Any] = {}
    async with served(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        state["client"] = client
        blocked = asyncio.create_task(client.get("/legacy/wait"))
        answers = await asyncio.gather(*(client.get(f"/legacy/await/{n}") for n in range(20)))
        assert [a.json() for a in answers] == [
            {"legacy": n, "url": "/legacy/wait", "new": n} for n in range(20)
        ]
        assert not blocked.done()
        waiting.set()
        assert (await blocked).text == "waited"

        async def body() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield bytes(100_000)

        assert (await client.post("/legacy/upload", content=body())).json() == {"size": 5_000_000}
        expected = b"".join(b"%d," % n * 1000 for n in range(300))
        assert (await client.get("/legacy/stream")).content == expected


async def test_a_real_client_that_hangs_up_cancels_the_view() -> None:
    flask = pytest.importorskip("flask")
    legacy = flask.Flask("legacy")
    began, ended = asyncio.Event(), asyncio.Event()

    @legacy.get("/")
    def wait() -> str:
        began.set()
        try:
            bridge.sleep(1000)
        finally:
            ended.set()
        return ""

    async with served(WSGIMiddleware(legacy)) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await began.wait()
        writer.close()
        await writer.wait_closed()
        await ended.wait()


async def test_a_slow_client_slows_the_application_down() -> None:
    """The application makes no more than the buffers of server and kernel hold."""
    made = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        ok(start_response)
        for n in range(200):
            made.append(n)
            yield bytes(1_000_000)

    async with served(WSGIMiddleware(app)) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        before = -1
        while len(made) != before or not made:
            before = len(made)
            await asyncio.sleep(0.05)
        assert len(made) < 100
        writer.close()
        await writer.wait_closed()


async def test_django_under_uvicorn() -> None:
    django = pytest.importorskip("django")
    httpx = pytest.importorskip("httpx")
    from django.conf import settings
    from django.http import HttpResponse, JsonResponse, StreamingHttpResponse

    def view(request: Any, n: int) -> Any:
        # django's guard against blocking code in coroutines sees none
        from django.utils.asyncio import async_unsafe

        @async_unsafe
        def query() -> int:
            bridge.sleep(0.001)
            return n

        return JsonResponse({"n": query(), "body": request.read().decode()})

    def stream(request: Any) -> Any:
        return StreamingHttpResponse(b"%d" % n for n in range(10))

    if not settings.configured:
        settings.configure(ROOT_URLCONF="urls", ALLOWED_HOSTS=["*"], SECRET_KEY="x", DEBUG=False)
        django.setup()
    import types

    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings
    from django.urls import path

    urls = types.ModuleType("urls")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("n/<int:n>", view),
        path("stream", stream),
        path("", lambda r: HttpResponse()),
    ]
    with override_settings(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"]):
        async with served(WSGIMiddleware(WSGIHandler())) as url, httpx.AsyncClient(base_url=url) as client:
            answers = await asyncio.gather(*(client.post(f"/n/{n}", content=b"x") for n in range(10)))
            assert [a.json() for a in answers] == [{"n": n, "body": "x"} for n in range(10)]
            assert (await client.get("/stream")).content == b"0123456789"


async def test_file_wrapper() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        ok(start_response)
        return environ["wsgi.file_wrapper"](io.BytesIO(b"abcdef"), 2)  # type: ignore[no-any-return]

    assert (await Server().run(app)).body == b"abcdef"
