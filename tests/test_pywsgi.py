"""Requests and answers as they should be: every point of HTTP/1.1 and of WSGI, on raw sockets."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket as std
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

import bridge
from bridge import socket, ssl
from bridge.event import Event
from bridge.pywsgi import FileWrapper, WSGIServer, format_date_time
from bridge.queue import Queue

from .pywsgi_client import Client, Environ, Server, StartResponse, echo, hello, serving, yields

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def returns(*body: bytes, status: str = "200 OK", headers: Any = ()) -> Any:
    def application(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response(status, list(headers))
        return list(body)

    return application


def yields_these(*body: bytes, headers: Any = ()) -> Any:
    def application(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", list(headers))
        return iter(body)

    return application


# -- connections --------------------------------------------------------------------------------------------


def test_a_connection_serves_one_request_after_the_other() -> None:
    with serving(hello) as server:
        client = server.connect()
        for _ in range(3):
            answer = client.get().answer()
            assert (answer.line, answer.body) == ("HTTP/1.1 200 OK", b"hello")
            assert answer.headers["content-length"] == "5" and "connection" not in answer.headers


def test_requests_that_come_at_once_are_answered_in_their_order() -> None:
    def path(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    with serving(path) as server:
        client = server.connect()
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(300)))
        assert [client.answer().body for _ in range(300)] == [b"/%d" % i for i in range(300)]


def test_a_request_may_come_byte_by_byte() -> None:
    with serving(echo) as server:
        client = server.connect()
        raw = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        for _ in range(2):
            for i in range(len(raw)):
                client.send(raw[i : i + 1])
                bridge.sleep(0)
            assert client.answer().body == b"abc"


def test_a_head_may_end_anywhere_in_what_has_been_received() -> None:
    raw = b"POST /a HTTP/1.1\r\nHost: x\r\nX-Y: z\r\nContent-Length: 3\r\n\r\nabc"
    with serving(echo) as server:
        for i in range(1, len(raw)):
            with server.connect() as client:
                client.send(raw[:i])
                yields()
                assert client.send(raw[i:]).answer().body == b"abc", i


def test_empty_lines_before_a_request_are_forgiven() -> None:
    with serving(hello) as server:
        client = server.connect()
        assert client.send(b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").answer().body == b"hello"
        assert client.send(b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").answer().body == b"hello"


@pytest.mark.parametrize(
    ("version", "headers", "stays", "says"),
    [
        ("1.1", [], True, None),
        ("1.1", ["Connection: keep-alive"], True, None),
        ("1.1", ["Connection: close"], False, "close"),
        ("1.1", ["Connection: Close, TE"], False, "close"),
        ("1.1", ["Connection: TE", "Connection: close"], False, "close"),
        ("1.0", [], False, "close"),
        ("1.0", ["Connection: Keep-Alive"], True, "keep-alive"),
        ("1.0", ["Connection: keep-alive, close"], False, "close"),
    ],
)
def test_client_says_whether_the_connection_stays(
    version: str, headers: list[str], stays: bool, says: str | None
) -> None:
    with serving(hello) as server:
        client = server.connect()
        answer = client.get("/", *headers, version=version).answer()
        assert answer.body == b"hello"
        assert answer.headers.get("connection") == says
        if stays:
            assert client.get("/", *headers, version=version).answer().body == b"hello"
        else:
            assert client.closed()


def test_application_may_close_the_connection() -> None:
    with serving(returns(b"bye", headers=[("Connection", "close")])) as server:
        client = server.connect()
        answer = client.get().answer()
        assert answer.body == b"bye" and answer.headers["connection"] == "close"
        assert client.closed()


def test_a_body_of_unknown_length_ends_with_the_connection_in_http_1_0() -> None:
    with serving(yields_these(b"ab", b"cd")) as server:
        client = server.connect()
        answer = client.get("/", "Connection: keep-alive", version="1.0").answer()
        assert answer.body == b"abcd"
        assert answer.headers["connection"] == "close"
        assert "transfer-encoding" not in answer.headers and "content-length" not in answer.headers


def test_a_client_that_goes_without_a_request_leaves_no_trace() -> None:
    with serving(hello) as server:
        with server.connect() as client:
            assert client.end().closed()
        with server.connect() as client:
            client.get().answer()
            assert client.end().closed()
        assert not server.errors.text
        assert server.log.text.count("\n") == 1


def test_many_connections_at_once() -> None:
    everybody = Event()
    waiting = 0

    def wait(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        nonlocal waiting
        waiting += 1
        if waiting == 50:
            everybody.set()
        everybody.wait()
        start_response("200 OK", [])
        return [b"met"]

    with serving(wait) as server:
        clients = [server.connect().get() for _ in range(50)]
        assert [client.answer().body for client in clients] == [b"met"] * 50


def test_unix_socket() -> None:
    if not hasattr(std, "AF_UNIX"):
        pytest.skip("this system has no Unix sockets")

    def who(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [repr(environ.get("REMOTE_ADDR")).encode(), environ["SERVER_NAME"].encode()]

    with tempfile.TemporaryDirectory() as folder, serving(who, listener=f"unix:{folder}/s") as server:
        assert server.get().body == b"None"
        assert server.log.text.startswith("- - - [")


def test_answers_go_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One packet with head and body; and no waiting for acknowledgements, if there are several."""
    sent: list[bytes] = []
    sendall = socket.socket.sendall

    def record(self: socket.socket, data: Any, flags: int = 0) -> None:
        if self.getsockname() == server.server.address:
            sent.append(bytes(data))
            assert self.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sendall(self, data, flags)

    with serving(hello) as server:
        client = server.connect()
        monkeypatch.setattr(socket.socket, "sendall", record)
        client.get().answer()
        assert len(sent) == 1
        server.server.application = yields_these(b"ab", b"cd", headers=[("Content-Length", "4")])
        assert client.get().answer().body == b"abcd"
        assert [data[-2:] for data in sent[1:]] == [b"ab", b"cd"]


# -- bodies of requests -------------------------------------------------------------------------------------


def test_body_of_known_length() -> None:
    with serving(echo) as server:
        client = server.connect()
        for body in (b"", b"abc", os.urandom(300_000), b"x"):
            assert client.post("/", body).answer().body == body


def test_body_in_chunks() -> None:
    with serving(echo) as server:
        client = server.connect()
        big = os.urandom(200_000)
        for _ in range(2):
            client.send(CHUNKED, b"3\r\nabc\r\n", b"4;name=value\r\ndefg\r\n", b'1;n="a;b"\r\nh\r\n0\r\n\r\n')
            assert client.answer().body == b"abcdefgh"
            client.send(CHUNKED, b"%X\r\n%b\r\n00\r\nTrailer: value\r\nOther:\r\n\r\n" % (len(big), big))
            assert client.answer().body == big


def test_input_is_a_file_that_ends_with_the_body() -> None:
    seen: list[Any] = []

    def read(environ: Environ, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"]
        seen.append(environ["wsgi.input_terminated"])
        if environ["QUERY_STRING"] == "lines":
            seen.append([body.readline(), body.readline(2), body.readlines(), body.readline()])
        elif environ["QUERY_STRING"] == "iter":
            seen.append([next(body), list(body), body.read()])
        else:
            seen.append([body.read(0), body.read(2), body.read(-1), body.read(5), body.read()])
        start_response("200 OK", [])
        return []

    text = b"ab\ncdef\n\nend"
    chunked = b"1\r\na\r\n4\r\nb\ncd\r\n7\r\nef\n\nend\r\n0\r\n\r\n"
    lines = [b"ab\n", b"cd", [b"ef\n", b"\n", b"end"], b""]
    with serving(read) as server:
        client = server.connect()
        for query, expected in (
            ("lines", lines),
            ("iter", [b"ab\n", [b"cdef\n", b"\n", b"end"], b""]),
            ("", [b"", b"ab", b"\ncdef\n\nend", b"", b""]),
        ):
            client.post(f"/?{query}", text).answer()
            client.send(CHUNKED.replace(b"/", f"/?{query}".encode(), 1), chunked).answer()
            assert seen == [True, expected] * 2
            seen.clear()


def test_what_the_application_does_not_read_is_not_the_next_request() -> None:
    def part(environ: Environ, start_response: StartResponse) -> list[bytes]:
        got = environ["wsgi.input"].read(int(environ["QUERY_STRING"] or 0))
        start_response("200 OK", [])
        return [got]

    with serving(part) as server:
        client = server.connect()
        smuggled = b"GET /2?0 HTTP/1.1\r\nHost: x\r\n\r\n" * 3000
        assert client.post("/?5", smuggled).answer().body == b"GET /"
        assert client.post("/?0", smuggled).answer().body == b""
        client.send(CHUNKED.replace(b"/", b"/?3", 1) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled))
        assert client.answer().body == b"GET"
        client.send(CHUNKED + b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
        assert client.answer().body == b""
        assert client.get("/?7").answer().body == b""
        assert server.log.text.count("\n") == 5


def test_100_continue_is_sent_when_the_body_is_asked_for() -> None:
    asked = Event()

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/no":
            start_response("417 Expectation Failed", [])
            return [b"no"]
        asked.wait()
        body = environ["wsgi.input"].read(1) + environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body]

    with serving(application) as server:
        client = server.connect()
        client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        asked.set()
        assert client.head().line == "HTTP/1.1 100 Continue"
        assert client.send(b"abc").answer().body == b"abc"
        # not asked for: not invited, and what comes is no request
        client.send(
            b"PUT /no HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", b"GET"
        )
        assert client.answer().code == 417
        # a client of HTTP/1.0 would not understand it
        client.send(b"PUT / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
        assert client.answer().body == b"abc"


def test_100_continue_is_not_sent_without_a_body_nor_in_http_1_0() -> None:
    with serving(echo) as server:
        client = server.connect()
        assert client.get("/", "Expect: 100-continue").answer().code == 200
        client.post("/", b"", "Expect: 100-continue")
        assert client.answer().code == 200
        client.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", b"abc")
        assert client.answer().body == b"abc"


def test_of_two_content_types_the_first_one_counts() -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["CONTENT_TYPE"].encode()]

    with serving(application) as server:
        client = server.connect().get("/", "Content-Type: text/a", "content-type: text/b")
        assert client.answer().body == b"text/a"


def test_100_continue_does_not_come_into_an_answer() -> None:
    def late(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begin "
        yield environ["wsgi.input"].read()

    with serving(late) as server:
        client = server.connect()
        client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc")
        assert client.answer().body == b"begin abc"


# -- answers ------------------------------------------------------------------------------------------------


def test_length_of_a_list_is_known() -> None:
    with serving(returns(b"ab", b"", b"cd")) as server:
        answer = server.get()
        assert answer.body == b"abcd" and answer.chunks is None
    with serving(returns()) as server:
        answer = server.get()
        assert answer.headers["content-length"] == "0" and answer.body == b""


def test_an_iterator_is_sent_in_chunks() -> None:
    with serving(yields_these(b"ab", b"", b"cde")) as server:
        client = server.connect()
        assert client.get().answer().chunks == [b"ab", b"cde"]
        server.server.application = yields_these()
        assert client.get().answer().chunks == []
        server.server.application = yields_these(b"", b"")
        assert client.get().answer().chunks == []


def test_big_blocks() -> None:
    big = os.urandom(1_000_000)
    with serving(yields_these(big, big)) as server:
        client = server.connect()
        assert client.get().answer().body == big + big
        server.server.application = returns(big)
        assert client.get().answer().body == big
        assert "HTTP/1.1" in server.log.text and str(len(big) + 92)[:3] in server.log.text


def test_blocks_may_be_anything_with_bytes() -> None:
    blocks = [bytearray(b"ab"), memoryview(b"cd"), b"ef"]
    with serving(returns(*blocks)) as server:  # type: ignore[arg-type]
        assert server.get().body == b"abcdef"
    with serving(yields_these(*blocks)) as server:  # type: ignore[arg-type]
        assert server.get().body == b"abcdef"


def test_write_sends_before_what_is_returned() -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        length = environ["QUERY_STRING"]
        write = start_response("200 OK", [("Content-Length", length)] if length else [])
        write(b"ab")
        write(b"")
        write(b"cd")
        return [b"ef"]

    with serving(application) as server:
        client = server.connect()
        assert client.get().answer().chunks == [b"ab", b"cd", b"ef"]
        answer = client.get("/?6").answer()
        assert answer.body == b"abcdef" and answer.chunks is None


def test_a_stream_goes_out_block_by_block() -> None:
    more: Queue[bytes | None] = Queue()

    def stream(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        while (block := more.get()) is not None:
            yield block

    with serving(stream) as server:
        client = server.connect().get()
        more.put(b"first")
        assert client.head().headers["transfer-encoding"] == "chunked"
        assert client.file.readline() + client.file.readline() == b"5\r\nfirst\r\n"
        more.put(b"second")
        assert client.file.readline() + client.file.readline() == b"6\r\nsecond\r\n"
        more.put(None)
        assert client.file.read(5) == b"0\r\n\r\n"


def test_result_is_closed_once_whatever_happens() -> None:
    class Result:
        def __init__(self) -> None:
            self.closed = 0

        def __iter__(self) -> Iterator[bytes]:
            yield b"x" * 100_000
            if fails:
                raise RuntimeError("late")

        def close(self) -> None:
            self.closed += 1

    results: list[Result] = []
    fails = False

    def application(_environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        results.append(Result())
        return results[-1]

    with serving(application) as server:
        client = server.connect()
        client.get().answer()
        assert results[0].closed == 1
        client.get(method="HEAD").answer("HEAD")
        assert results[1].closed == 1


def test_head_is_answered_without_a_body() -> None:
    with serving(returns(b"hello")) as server:
        client = server.connect()
        for application in (
            returns(b"hello"),
            yields_these(b"hello"),
            returns(b"a", headers=[("Content-Length", "9")]),
        ):
            server.server.application = application
            full = client.get().head() if application is not None else None
            assert full is not None
            client.close()
            client = server.connect()
            answer = client.get(method="HEAD").answer("HEAD")
            assert {k: v for k, v in answer.headers.items() if k != "date"} == {
                k: v for k, v in full.headers.items() if k != "date"
            }
            # and what comes next is the next answer
            assert client.get(method="HEAD").answer("HEAD").code == 200


def test_a_stream_without_end_ends_for_head() -> None:
    closed: list[bool] = []

    def stream(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"more"
        finally:
            closed.append(True)

    with serving(stream) as server:
        client = server.connect()
        for _ in range(2):
            assert client.get(method="HEAD").answer("HEAD").headers["transfer-encoding"] == "chunked"
        assert closed == [True, True]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_that_have_no_body(status: str, errors: list[Any]) -> None:
    with serving(returns(status=status)) as server:
        client = server.connect()
        for _ in range(2):
            answer = client.get().answer()
            assert answer.line == f"HTTP/1.1 {status}"
            assert "content-length" not in answer.headers and "transfer-encoding" not in answer.headers
        server.server.application = returns(b"body", status=status)
        assert client.get().answer().code == 500
        assert str(errors[0][1]) == f"The {status[:3]} response must have no body"


def test_date_is_added_unless_the_application_has_one() -> None:
    with serving(hello) as server:
        date = server.get().headers["date"]
        assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", date)
        server.server.application = returns(headers=[("dAte", "today")])
        assert server.get().headers["date"] == "today"


def test_format_date_time() -> None:
    assert format_date_time(0) == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert format_date_time(1234567890.9) == b"Fri, 13 Feb 2009 23:31:30 GMT"


def test_headers_may_come_again_and_again() -> None:
    cookies = [("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"), ("X-\u0041", "caf\xe9")]
    with serving(returns(headers=cookies)) as server:
        fields = server.get().fields
        assert [field for field in fields if field[0] not in ("Date", "Content-Length")] == cookies


def test_a_file_is_sent_by_the_kernel_if_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(300_000)
    path = tmp_path / "file"
    path.write_bytes(content)
    sent: list[int] = []
    sendfile = socket.socket.sendfile

    def record(self: socket.socket, file: Any, offset: int = 0, count: int | None = None) -> int:
        sent.append(sendfile(self, file, offset, count))
        return sent[-1]

    monkeypatch.setattr(socket.socket, "sendfile", record)
    files: list[Any] = []

    def application(environ: Environ, start_response: StartResponse) -> Any:
        files.append(path.open("rb"))
        files[-1].seek(int(environ["QUERY_STRING"] or 0))
        length = environ.get("HTTP_X_LENGTH")
        start_response("200 OK", [("Content-Length", length)] if length else [])
        assert environ["wsgi.file_wrapper"] is FileWrapper
        return environ["wsgi.file_wrapper"](files[-1])

    with serving(application) as server:
        client = server.connect()
        answer = client.get().answer()
        assert answer.body == content and answer.chunks is None
        assert client.get("/?1000").answer().body == content[1000:]
        assert client.get("/?1000", "X-Length: 10").answer().body == content[1000:1010]
        assert client.get("/?300000").answer().body == b""
        assert sent == [300_000, 299_000, 10]
        assert client.get(method="HEAD").answer("HEAD").headers["content-length"] == "300000"
        assert files[-1].closed and len(sent) == 3
        assert client.get("/?299999").answer().body == content[-1:]
        assert all(file.closed for file in files)


def test_a_file_of_another_kind_is_read() -> None:
    def application(_environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return FileWrapper(io.BytesIO(b"abcdefg"), 3)

    with serving(application) as server:
        assert server.get().chunks == [b"abc", b"def", b"g"]


# -- the environ --------------------------------------------------------------------------------------------


def environ_of(raw: bytes, **kwargs: Any) -> Environ:
    seen: list[Environ] = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ.copy())
        return hello(environ, start_response)

    with serving(application, **kwargs) as server:
        assert server.ask(raw).code == 200
        seen[0]["address"] = server.server.address
    return seen[0]


def test_environ() -> None:
    environ = environ_of(
        b"POST /a%20b/%C3%A9%2f?q=%20&r HTTP/1.1\r\nHost: h:1\r\ncontent-TYPE: text/x\r\n"
        b"Content-Length: 0\r\nX-One:  1 \r\nx-two: 2\r\nX-TWO: 3\r\nCookie: a=b\r\ncookie: c=d\r\n"
        b"X-Empty:\r\nX-Latin: \xe9\r\n\r\n"
    )
    address = environ.pop("address")
    expected = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/a b/\xc3\xa9/",
        "QUERY_STRING": "q=%20&r",
        "SCRIPT_NAME": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_PORT": str(address[1]),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "0",
        "HTTP_HOST": "h:1",
        "HTTP_X_ONE": "1",
        "HTTP_X_TWO": "2,3",
        "HTTP_COOKIE": "a=b; c=d",
        "HTTP_X_EMPTY": "",
        "HTTP_X_LATIN": "\xe9",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }
    assert expected.items() <= environ.items()
    assert environ["SERVER_SOFTWARE"].startswith("gevent/")
    assert environ["REMOTE_PORT"].isdigit() and environ["SERVER_NAME"]
    rest = environ.keys() - expected.keys()
    assert rest == {"SERVER_SOFTWARE", "REMOTE_PORT", "SERVER_NAME", "wsgi.input", "wsgi.errors"}


def test_environ_can_be_added_to() -> None:
    environ = environ_of(
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        environ={"my.key": 1, "wsgi.multiprocess": True, "SERVER_NAME": "me", "wsgi.errors": sys.stdout},
    )
    assert (environ["my.key"], environ["wsgi.multiprocess"], environ["SERVER_NAME"]) == (1, True, "me")
    assert environ["wsgi.errors"] is sys.stdout


def test_set_environ_keeps_what_was_added_before() -> None:
    server = WSGIServer(("127.0.0.1", 0), hello, environ={"a": 1, "wsgi.multiprocess": True})
    assert server.max_accept == 1
    server.set_environ()
    assert server.environ["a"] == 1 and server.environ["GATEWAY_INTERFACE"] == "CGI/1.1"
    server.set_environ({"b": 2})
    assert "a" not in server.environ and server.environ["b"] == 2


def test_an_environ_is_not_shared() -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        assert "mine" not in environ and "HTTP_X_MINE" not in environ
        environ["mine"] = 1
        return hello(environ, start_response)

    with serving(application) as server:
        client = server.connect()
        client.get().answer()
        assert client.get().answer().code == 200


@pytest.mark.parametrize(
    ("line", "path", "query", "host"),
    [
        (b"GET http://h:80/a?b", "/a", "b", "h:80"),
        (b"GET HTTP://h", "/", "", "h"),
        (b"GET https://[::1]:8080?x", "/", "x", "[::1]:8080"),
        (b"OPTIONS *", "*", "", "x"),
        (b"CONNECT h:443", "h:443", "", "x"),
        (b"GET //h/a", "//h/a", "", "x"),
        (b"GET /http://h/a", "/http://h/a", "", "x"),
        (b"GET /?a?b", "/", "a?b", "x"),
        (b"GET /%zz%", "/%zz%", "", "x"),
        (b"GET /\xc3\xa9", "/\xc3\xa9", "", "x"),
    ],
)
def test_targets(line: bytes, path: str, query: str, host: str) -> None:
    environ = environ_of(line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_HOST"]) == (path, query, host)


def test_a_method_that_the_parser_does_not_know() -> None:
    assert environ_of(b"FROBNICATE / HTTP/1.1\r\nHost: x\r\n\r\n")["REQUEST_METHOD"] == "FROBNICATE"


def test_wsgiref_finds_nothing_wrong() -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"].read(3)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    with serving(validator(application)) as server:
        client = server.connect()
        assert client.post("/", b"abc").answer().body == b"abc"
        assert client.get().answer().body == b""


# -- upgrades -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        ["Connection: Upgrade", "Upgrade: echo"],
        ["Connection: keep-alive, Upgrade", "Upgrade: websocket"],
        ["Upgrade: WebSocket"],
    ],
)
def test_after_101_the_connection_is_the_application_s(headers: list[str]) -> None:
    def application(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        assert environ["wsgi.input_terminated"] is False
        write = start_response("101 Switching Protocols", [("Connection", "Upgrade"), ("Upgrade", "echo")])
        write(b"")
        stream = environ["wsgi.input"]
        assert stream.raw._sock.fileno() == stream.fileno()
        while line := stream.readline():
            yield line.upper()

    with serving(application) as server:
        client = server.connect()
        answer = client.get("/", *headers).head()
        assert answer.code == 101
        assert {"content-length", "transfer-encoding"}.isdisjoint(answer.headers)
        assert client.send(b"abc\n").file.readline() == b"ABC\n"
        assert client.send(b"GET / HTTP/1.1\n").file.readline() == b"GET / HTTP/1.1\n"
        assert client.end().closed()


def test_a_body_with_an_offer_to_upgrade_is_a_body() -> None:
    with serving(echo) as server:
        client = server.connect()
        for offer in (["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"], ["Connection: Upgrade"]):
            assert client.post("/", b"abc", *offer).answer().body == b"abc"


def test_an_application_may_answer_an_upgrade_by_the_socket() -> None:
    """As simple-websocket does it."""

    def application(environ: Environ, _start_response: StartResponse) -> list[bytes]:
        sock = environ["wsgi.input"].raw._sock
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        sock.sendall(sock.recv(3).upper())
        return []

    with serving(application) as server:
        client = server.connect().get("/", "Connection: Upgrade", "Upgrade: websocket")
        assert client.head().code == 101
        assert client.send(b"abc").rest() == b"ABC"
        assert not server.errors.text


def test_an_upgrade_that_is_not_made_is_a_request_like_others() -> None:
    with serving(hello) as server:
        client = server.connect()
        for _ in range(2):
            assert client.get("/", "Connection: Upgrade", "Upgrade: h2c").answer().body == b"hello"


def test_a_connection_ends_if_the_application_has_read_past_the_request() -> None:
    def greedy(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.input"].read(3)
        return hello(environ, start_response)

    with serving(greedy) as server:
        client = server.connect()
        client.send(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        )
        assert client.answer().body == b"hello"
        client.end()
        assert client.closed()


# -- TLS ----------------------------------------------------------------------------------------------------


def test_tls() -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(own)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        assert environ["wsgi.url_scheme"] == "https"
        return echo(environ, start_response)

    big = os.urandom(300_000)
    with serving(application, ssl_context=own) as server:
        client = server.connect()
        client.sock = theirs.wrap_socket(client.sock, server_hostname="localhost")
        client.file = client.sock.makefile("rb")
        for body in (b"", b"abc", big):
            assert client.post("/", body).answer().body == body
        client.send(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
        assert client.answer().body == b"abc"
        client.get("/", "Connection: close")
        assert client.answer().code == 200 and client.closed()


# -- with others --------------------------------------------------------------------------------------------


def curl(server: Server, *arguments: str) -> bytes:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    url = f"http://127.0.0.1:{server.server.server_port}/"
    result = bridge.get_hub().threadpool.apply(
        subprocess.run, ([program, "-sS", "--max-time", "20", *arguments, url],), {"capture_output": True}
    )
    assert result.returncode == 0, result.stderr
    return bytes(result.stdout)


def test_curl(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(400_000))
    with serving(echo) as server:
        assert curl(server, "-d", "abc") == b"abc"
        assert curl(server, "--data-binary", f"@{big}", "-H", "Expect: 100-continue") == big.read_bytes()
        assert curl(server, "-T", str(big), "-H", "Transfer-Encoding: chunked") == big.read_bytes()
        assert b"HTTP/1.1 200 OK" in curl(server, "-I")
        assert curl(server, "--http1.0", "-d", "abc") == b"abc"
        assert curl(server, "--http2", "-d", "abc") == b"abc"


def test_flask() -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("test")

    @app.post("/form")
    def form() -> Any:
        return flask.jsonify(name=flask.request.form["name"], size=len(flask.request.files["f"].read()))

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response((f"{i}\n" for i in range(5)), mimetype="text/plain")

    @app.get("/file")
    def file() -> Any:
        return flask.send_file(__file__, conditional=True)

    boundary = "----b"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\nme\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n{"x" * 100000}\r\n'
        f"--{boundary}--\r\n"
    ).encode()
    source = Path(__file__).read_bytes()
    with serving(app) as server:
        client = server.connect()
        answer = client.post(
            "/form", body, f"Content-Type: multipart/form-data; boundary={boundary}"
        ).answer()
        assert answer.body == b'{"name":"me","size":100000}\n'
        assert client.get("/stream").answer().body == b"0\n1\n2\n3\n4\n"
        assert client.get("/file").answer().body == source
        part = client.get("/file", "Range: bytes=10-19").answer()
        assert (part.code, part.body) == (206, source[10:20])
        assert client.get("/nothing").answer().code == 404
        assert client.get("/file", method="HEAD").answer("HEAD").headers["content-length"] == str(len(source))


def test_module_serves_an_application_by_name(tmp_path: Path) -> None:
    (tmp_path / "myapp.py").write_text(
        "def app(environ, start_response):\n"
        "    import threading, bridge.monkey\n"
        "    start_response('200 OK', [])\n"
        "    return [str(bridge.monkey.is_module_patched('threading')).encode()]\n"
    )
    with std.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = subprocess.Popen(
        [sys.executable, "-m", "bridge.pywsgi", "-b", f"127.0.0.1:{port}", "myapp:app"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            assert program.poll() is None, "the program has ended"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)):
                    bridge.sleep(0.02)
                    continue
            with Client(("127.0.0.1", port)) as client:
                assert client.get().answer().body == b"True"
            break
    finally:
        program.kill()
        program.wait()
