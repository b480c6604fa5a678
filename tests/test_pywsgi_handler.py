"""What may be replaced: handlers, environs and logs, as libraries do it."""

from __future__ import annotations

import copy
import gc
import json
import logging
import pickle
import re
import sys
import weakref
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest

import bridge
from bridge import pywsgi, socket
from bridge.pywsgi import (
    Environ,
    Input,
    LoggingLogAdapter,
    SecureEnviron,
    WSGIHandler,
    WSGISecureEnviron,
    WSGIServer,
)

from .pywsgi_client import Client, StartResponse, echo, hello, serving, yields

# -- handlers -----------------------------------------------------------------------------------------------


def test_order_of_calls_and_what_can_be_seen_then() -> None:
    calls: list[Any] = []

    class Handler(WSGIHandler):
        def handle_one_request(self) -> Any:
            calls.append("handle_one_request")
            return super().handle_one_request()

        def get_environ(self) -> Any:
            calls.append(("get_environ", self.command, self.path, self.request_version, self.requestline))
            environ = super().get_environ()
            environ["RAW_URI"] = self.path
            return environ

        def handle_one_response(self) -> None:
            calls.append(("handle_one_response", self.environ["RAW_URI"], self.application))
            super().handle_one_response()

        def run_application(self) -> None:
            calls.append(("run_application", self.status, self.headers_sent, self.result))
            super().run_application()

        def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
            write = super().start_response(status, headers, exc_info)
            calls.append(("start_response", self.status, self.code, self.response_headers[0]))
            return write

        def process_result(self) -> None:
            calls.append(("process_result", self.result))
            super().process_result()

        def finalize_headers(self) -> None:
            calls.append(("finalize_headers", self.provided_date, self.provided_content_length))
            super().finalize_headers()

        def write(self, data: Any) -> None:
            calls.append(("write", data))
            super().write(data)

        def log_request(self) -> None:
            calls.append(("log_request", self.response_length > 100, self.time_finish >= self.time_start > 0))
            super().log_request()

        def format_request(self) -> str:
            return f"my line {self.status!r} {self.client_address[0]} {self.headers['X-My']}"

    with serving(hello, handler_class=Handler) as server:
        client = server.connect()
        client.get("/a?b", "X-My: own").answer()
        assert calls == [
            "handle_one_request",
            ("get_environ", "GET", "/a?b", "HTTP/1.1", "GET /a?b HTTP/1.1"),
            ("handle_one_response", "/a?b", hello),
            ("run_application", None, False, None),
            ("start_response", b"200 OK", 200, (b"Content-Type", b"text/plain")),
            ("process_result", [b"hello"]),
            ("write", b"hello"),
            ("finalize_headers", None, None),
            ("log_request", True, True),
            "handle_one_request",
        ]
        assert server.log.text == "my line b'200 OK' 127.0.0.1 own\n"


def test_request_lines_may_be_read_by_a_subclass() -> None:
    class Handler(WSGIHandler):
        def read_requestline(self) -> Any:
            data = self.rfile.read(7)
            if data == b"<policy":
                self.socket.sendall(b"HELLO")
                return None
            return (data + self.rfile.readline()).replace(b"OLD", b"NEW")

    def application(environ: Any, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode(), environ["HTTP_A"].encode(), environ["wsgi.input"].read()]

    with serving(application, handler_class=Handler) as server:
        client = server.connect().send(b"<policy-file-request/>\0")
        assert client.rest() == b"HELLO"
        client = server.connect()
        for _ in range(2):
            client.send(b"POST /OLD HTTP/1.1\r\nHost: x\r\nA: 1\r\nA: 2\r\nContent-Length: 3\r\n\r\nabc")
            assert client.answer().body == b"/NEW1,2abc"
        for bad in (
            b"POST /OLD HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
            b"POST /OLD HTTP/1.1\r\nA : b\r\n\r\n",
            b"nonsense\r\n\r\n",
        ):
            with server.connect() as client:
                assert client.send(bad).answer().code == 400
        for big, code in ((b"GET /" + b"a" * 9000, 414), (b"GET / HTTP/1.1\r\nA: " + b"a" * 70000, 431)):
            with server.connect() as client:
                # (this handler reads the line by itself)
                server.server.handler_class = ReadsRequests
                assert client.send(big).answer().code == code


class ReadsRequests(WSGIHandler):
    def read_request(self, raw_requestline: str) -> bool:
        return super().read_request(raw_requestline)


def test_read_request_may_be_overridden() -> None:
    class Handler(WSGIHandler):
        def read_request(self, raw_requestline: str) -> bool:
            assert super().read_request(raw_requestline)
            if self.headers["X-Refuse"] == "quietly":
                return False
            if self.headers["X-Refuse"]:
                raise ValueError("not today")
            self.path = "/rewritten"
            return True

    def path(environ: Any, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    with serving(path, handler_class=Handler) as server:
        assert server.get("/x").body == b"/rewritten"
        assert server.get("/x", "X-Refuse: quietly").code == 400
        assert server.get("/x", "X-Refuse: 1").code == 400
        assert "not today" in server.errors.text and "Traceback" not in server.errors.text


def test_answer_to_invalid_requests_may_be_overridden() -> None:
    class Handler(WSGIHandler):
        def _handle_client_error(self, ex: Exception) -> tuple[str, bytes]:
            super()._handle_client_error(ex)
            return "418", b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    with serving(hello, handler_class=Handler) as server:
        assert server.ask(b"nonsense\r\n\r\n").code == 418
        assert '"nonsense" 418 -' in server.log.text


def test_a_file_may_be_given_to_read_from() -> None:
    class Server(WSGIServer):
        def handle(self, sock: Any, address: Any) -> None:
            with sock.makefile("rb") as file:
                self.handler_class(sock, address, self, rfile=file).handle()

    with serving(echo, cls=Server) as server:
        client = server.connect()
        for _ in range(2):
            assert client.post("/", b"abc").answer().body == b"abc"
        client.send(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert client.answer().body == b"abc"


def test_handler_class_of_a_server_class() -> None:
    class Handler(WSGIHandler):
        def log_request(self) -> None:
            self.server.log.write("logged")

    class Server(WSGIServer):
        handler_class = Handler
        application = staticmethod(hello)

    with serving(None, cls=Server) as server:
        assert server.get().body == b"hello"
        assert server.log.text == "logged"


def test_websocket_handlers_take_over_the_answer() -> None:
    """As gevent-websocket does it."""

    class Handler(WSGIHandler):
        def run_application(self) -> None:
            if self.environ.get("HTTP_UPGRADE") != "websocket":
                super().run_application()
                return
            self.start_response(
                "101 Switching Protocols", [("Upgrade", "websocket"), ("Connection", "Upgrade")]
            )
            if self.status and not self.headers_sent:
                self.write("")
            while (frame := self.rfile.read(3)) == b"abc":
                self.socket.sendall(frame.upper())
            list(self.application(self.environ, lambda *_: []))

        def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
            writer = super().start_response(status, headers, exc_info=exc_info)
            assert not self.headers_sent
            if self.environ.get("HTTP_UPGRADE"):
                self.provided_content_length = False
                self.response_use_chunked = False
                self.close_connection = True
                self.provided_date = True
            return writer

        def log_request(self) -> None:
            if "101" not in str(self.status):
                super().log_request()

    with serving(hello, handler_class=Handler) as server:
        client = server.connect()
        assert client.get().answer().body == b"hello"
        answer = client.get("/", "Connection: Upgrade", "Upgrade: websocket").head()
        assert answer.fields == [("Upgrade", "websocket"), ("Connection", "Upgrade")]
        client.send(b"abcab", b"c")
        assert client.file.read(6) == b"ABCABC"
        assert client.send(b"end").closed()
        assert server.log.text.count("\n") == 1


def test_handler_may_give_the_socket_away() -> None:
    """As ws4py does it."""
    given: list[Any] = []

    class Handler(WSGIHandler):
        def run_application(self) -> None:
            sock = self.socket
            self.result = self.application(self.environ, self.start_response)
            self.process_result()
            self.socket = None
            self.rfile.close()
            given.append(sock)
            sock.sendall(sock.recv(3).upper())

    def upgrade(_environ: Any, start_response: StartResponse) -> list[bytes]:
        start_response("101 Switching Protocols", [("Upgrade", "x"), ("Connection", "Upgrade")])
        return []

    with serving(upgrade, handler_class=Handler) as server:
        client = server.connect()
        assert client.get("/", "Upgrade: websocket").head().code == 101
        assert client.send(b"abc").rest() == b"ABC"
        assert not server.errors.text


def test_headers_are_a_message() -> None:
    seen: list[Any] = []

    class Handler(WSGIHandler):
        def log_request(self) -> None:
            seen.append(self.headers)

    with serving(hello, handler_class=Handler) as server:
        server.get("/", "X-A: 1", "x-a: 2", "Content-Type: text/x")
        (headers,) = seen
        assert headers.items() == [("Host", "test"), ("X-A", "1"), ("x-a", "2"), ("Content-Type", "text/x")]
        assert headers["X-a"] == headers.getheader("x-A") == "1" and headers.get_all("x-a") == ["1", "2"]
        assert headers.typeheader == "text/x" and headers.getheader("no", 5) == 5
        assert next(iter(headers.headers)) == "Host: test\r\n"


# -- errors of the application ------------------------------------------------------------------------------


def test_an_error_is_printed_and_answered_with_500(errors: list[Any]) -> None:
    def fails(_environ: Any, _start_response: StartResponse) -> list[bytes]:
        raise RuntimeError("on purpose")

    with serving(fails) as server:
        client = server.connect().get("/", "Authorization: secret")
        answer = client.answer()
        assert (answer.line, answer.body) == ("HTTP/1.1 500 Internal Server Error", b"Internal Server Error")
        assert answer.headers["content-type"] == "text/plain" and answer.headers["connection"] == "close"
        assert client.closed()
        ((context, error),) = errors
        assert str(error) == "on purpose"
        assert isinstance(context, WSGISecureEnviron) and context["HTTP_AUTHORIZATION"] == "secret"
        assert "secret" not in repr(context) and "127.0.0.1" in repr(context)
        assert '"GET / HTTP/1.1" 500 ' in server.log.text


def test_an_error_after_start_response_takes_its_place(errors: list[Any]) -> None:
    def fails(_environ: Any, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("X-Mine", "1"), ("Content-Length", "100")])
        yield b""
        raise RuntimeError("on purpose")

    with serving(fails) as server:
        answer = server.get()
        assert answer.code == 500 and "x-mine" not in answer.headers
        assert len(errors) == 1


def test_an_error_in_a_stream_cuts_it(errors: list[Any]) -> None:
    """Without the last chunk, so that the client knows."""

    def fails(_environ: Any, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"abc"
        raise RuntimeError("on purpose")

    with serving(fails) as server:
        client = server.connect().get()
        assert client.head().code == 200
        assert client.rest() == b"3\r\nabc\r\n"
        assert len(errors) == 1


def test_exc_info_takes_the_place_of_an_answer_or_is_raised(errors: list[Any]) -> None:
    def application(environ: Any, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [("X", "y")])
        if environ["PATH_INFO"] == "/sent":
            write(b"abc")
        try:
            raise KeyError("mine")
        except KeyError:
            start_response("503 Broken", [("A", "b")], sys.exc_info())
        return [b"page"]

    with serving(application) as server:
        answer = server.get()
        assert (answer.line, answer.body, "x" in answer.headers) == ("HTTP/1.1 503 Broken", b"page", False)
        assert not errors
        client = server.connect().get("/sent")
        assert client.head().code == 200 and client.rest() == b"3\r\nabc\r\n"
        assert isinstance(errors[0][1], KeyError)


@pytest.mark.parametrize("body", [["text"], "text", [5], b"ab", [None], None, 5, map(str, "ab")])
def test_a_body_that_is_none_is_an_error_before_anything_is_sent(body: Any, errors: list[Any]) -> None:
    def application(_environ: Any, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return map(str, [1]) if isinstance(body, map) else body

    with serving(application) as server:
        assert server.get().code == 500
        assert isinstance(errors[0][1], TypeError)


def test_an_application_that_does_not_start_a_response(errors: list[Any]) -> None:
    with serving(lambda _environ, _start: [b"x"]) as server:
        assert server.get().code == 500
        assert str(errors.pop()[1]) == "The application did not call start_response()"
        server.server.application = lambda _environ, _start: []
        assert server.connect().get().closed()
        assert "did not call start_response" in server.errors.text


def test_a_client_that_goes_is_no_error_but_those_of_others_are(errors: list[Any]) -> None:
    went: list[str] = []

    def stream(environ: Any, start_response: StartResponse) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/mine":
            raise ConnectionResetError(104, "of a database")
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 100_000
        finally:
            went.append("closed")

    with serving(stream) as server:
        client = server.connect().get()
        client.head()
        client.close()
        while not went:
            bridge.sleep(0.001)
        assert not errors and not server.errors.text
        assert server.get("/mine").code == 500
        assert str(errors[0][1]) == "[Errno 104] of a database"


def test_application_error_is_a_class_to_choose(errors: list[Any]) -> None:
    class MyError(Exception):
        pass

    class Handler(WSGIHandler):
        ApplicationError = MyError

    with serving(lambda _environ, _start: [b"x"], handler_class=Handler) as server:
        server.get()
        assert isinstance(errors[0][1], MyError)


def test_nothing_is_left_of_a_connection(errors: list[Any]) -> None:
    """Nor does it take the garbage collector."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    class Handler(WSGIHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            alive.update((self, self.rfile))

    def application(environ: Any, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] == "/fails":
            raise RuntimeError("on purpose")
        return echo(environ, start_response)

    with serving(application, handler_class=Handler) as server:
        gc.collect()
        gc.disable()
        try:
            for raw in (
                b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
                b"GET /fails HTTP/1.1\r\n\r\n",
                b"nonsense\r\n\r\n",
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz",
            ):
                server.connect().send(raw).rest()
            for client in server.clients:
                client.close()
            while server.server.pool:
                yields()
            errors.clear()
            assert not alive
        finally:
            gc.enable()


# -- logs ---------------------------------------------------------------------------------------------------


def test_access_log() -> None:
    with serving(hello) as server:
        size = len(server.connect().get("/a?b").send(b"").file.peek())
        assert size > 100
    line = (
        r"127\.0\.0\.1 - - \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "
        rf'"GET /a\?b HTTP/1\.1" 200 {size} \d+\.\d{{6}}\n'
    )
    assert re.fullmatch(line, server.log.text)


def test_control_characters_do_not_come_into_the_log() -> None:
    with serving(hello) as server:
        server.ask(b"GET /\x1b[2J\x00 HTTP/1.1\r\n\r\n")
        assert '"GET /\\x1b[2J\\x00 HTTP/1.1" 400 -' in server.log.text
        assert "\x1b" not in server.log.text + server.errors.text


def test_log_may_be_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logger = logging.getLogger("mine")
    with serving(hello, log=logger, error_log=logger) as server:
        assert isinstance(server.server.log, LoggingLogAdapter)
        assert server.server.environ["wsgi.errors"] is server.server.error_log
        server.get()
        server.ask(b"nonsense\r\n\r\n")
    levels = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "mine"]
    assert [level for level, _ in levels] == ["INFO", "ERROR", "INFO"]
    assert '"GET / HTTP/1.1" 200' in levels[0][1] and not levels[0][1].endswith("\n")


def test_log_may_be_none() -> None:
    with serving(hello, log=None, error_log=None) as server:
        assert server.get().code == 200
        server.server.environ["wsgi.errors"].write("nowhere")
        assert server.ask(b"nonsense\r\n\r\n").code == 400


def test_logs_are_stderr_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    server = WSGIServer(("127.0.0.1", 0), hello)
    assert server.log is sys.stderr and server.error_log is sys.stderr
    assert WSGIServer(("127.0.0.1", 0), hello, error_log=sys.stdout).environ["wsgi.errors"] is sys.stdout


def test_adapter_passes_everything_on_to_the_logger() -> None:
    class Logger:
        def __init__(self) -> None:
            self.said: list[Any] = []

        def log(self, level: int, message: str) -> None:
            self.said.append((level, message))

    logger: Any = Logger()
    adapter: Any = LoggingLogAdapter(logger, level=40)
    adapter.write("one\n")
    adapter.writelines(["two", "three\n"])
    adapter.flush()
    assert adapter.said == logger.said == [(40, "one"), (40, "two"), (40, "three")]
    adapter.thing = 42
    assert logger.thing == 42
    del adapter.thing
    assert not hasattr(logger, "thing")
    with pytest.raises(AttributeError):
        _ = adapter.thing


# -- environs -----------------------------------------------------------------------------------------------


def test_environ_class() -> None:
    def application(environ: Any, start_response: StartResponse) -> list[bytes]:
        assert type(environ) is SecureEnviron
        return hello(environ, start_response)

    with serving(application) as server:
        server.server.environ_class = SecureEnviron
        assert server.get().code == 200


def test_secure_environ_does_not_show_what_is_in_it() -> None:
    environ = SecureEnviron(key="value")
    assert repr(environ) == str(environ) == f"<pywsgi.SecureEnviron dict (keys: 1) at {id(environ)}>"
    environ.whitelist_keys = ("other",)
    assert repr(environ) == "{'key': '<MASKED>'}"
    environ.whitelist_keys = ("key",)
    environ["secret"] = 1
    assert repr(environ) == "{'key': 'value', 'secret': '<MASKED>'}"
    environ.print_masked_keys = False
    assert repr(environ) == "{'key': 'value', (hidden keys: 1)}"
    environ.secure_repr = False
    assert repr(environ) == "{'key': 'value', 'secret': 1}"
    del environ.secure_repr, environ.whitelist_keys
    assert "value" not in repr(environ)
    assert repr(WSGISecureEnviron(REMOTE_ADDR="::1", a=1)) == "{'REMOTE_ADDR': '::1', (hidden keys: 1)}"


def test_defaults_of_a_secure_environ_can_be_changed_in_a_subclass() -> None:
    class Mine(SecureEnviron):
        default_whitelist_keys = ("key",)

    assert repr(Mine(key=1, b=2)) == "{'key': 1, 'b': '<MASKED>'}"
    Mine.default_secure_repr = False
    assert repr(Mine(b=2)) == "{'b': 2}"
    with pytest.raises(AttributeError):
        _ = Mine().nothing


def test_environs_are_copied_and_pickled() -> None:
    for cls in (Environ, SecureEnviron):
        environ = cls({"key": "value"})
        assert type(environ.copy()) is cls and environ.copy() == environ
        assert list(environ.iteritems()) == [("key", "value")]
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            dumped = pickle.dumps(environ, protocol)
            assert b"Environ" not in dumped and pickle.loads(dumped) == {"key": "value"}
        assert type(copy.copy(environ)) is dict
        assert json.dumps(environ) == '{"key": "value"}'


# -- the input by itself ------------------------------------------------------------------------------------


def test_input_reads_any_file() -> None:
    assert Input(BytesIO(b"abcdef"), 3).read() == b"abc"
    assert Input(BytesIO(b"abcdef"), None).read() == b""
    file = BytesIO(b"3\r\nabc\r\n0\r\nA: b\r\n\r\nrest")
    body = Input(file, None, chunked_input=True)
    assert (body.read(2), body.read()) == (b"ab", b"c") and file.read() == b"rest"
    for method in ("read", "readline"):
        with pytest.raises(OSError, match="unexpected end of file while reading request at position 1"):
            getattr(Input(BytesIO(b"1"), 2), method)()
        with pytest.raises(OSError, match="unexpected end of file while parsing chunked data"):
            getattr(Input(BytesIO(b"2\r\n1"), None, chunked_input=True), method)()
        with pytest.raises(pywsgi._InvalidClientInput):
            getattr(Input(BytesIO(b"1\r\n1\r\n"), None, chunked_input=True), method)()


def test_input_discards_the_rest() -> None:
    plain, chunked = BytesIO(b"abcdefrest"), BytesIO(b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\nrest")
    for file, body in ((plain, Input(plain, 6)), (chunked, Input(chunked, None, chunked_input=True))):
        assert body.read(2) == b"ab"
        body._discard()
        assert file.read() == b"rest" and body.read() == b""


# -- adoption -----------------------------------------------------------------------------------------------


@pytest.mark.engines("owned")
def test_server_in_a_coroutine() -> None:
    async def main() -> bytes:
        import asyncio

        server = WSGIServer(("127.0.0.1", 0), hello, log=None)
        server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.server_port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        server.stop(timeout=0)
        return answer

    assert bridge.run(main).endswith(b"hello")


@pytest.mark.engines("owned")
def test_several_loops_one_after_another() -> None:
    async def main() -> int:
        return await bridge.spawn(once).aget()

    def once() -> int:
        server = WSGIServer(("127.0.0.1", 0), hello, log=None)
        server.start()
        with Client(server.address, socket.AF_INET) as client:
            code = client.get().answer().code
        server.stop(timeout=0)
        return code

    for _ in range(3):
        assert bridge.run(main) == 200
