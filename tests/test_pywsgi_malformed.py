"""What is no request, or tries to be two: an error, or as RFC 9112 says, and the end of the connection."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bridge
from bridge import socket
from bridge.event import Event
from bridge.pywsgi import WSGIHandler, _request

from .pywsgi_client import Environ, Response, StartResponse, echo, hello, serving, yields

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
#: What would be a second request, if the first one ended where its sender wants it to.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


class Seen:
    """An application that keeps the paths of its requests and their bodies."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.bodies: list[bytes] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        self.paths.append(environ["PATH_INFO"])
        body = environ["wsgi.input"].read()
        self.bodies.append(body)
        start_response("200 OK", [])
        return [body]


def refused(raw: bytes, **limits: Any) -> Response:
    """The answer to ``raw`` and a second request: one error, after which the connection is closed.

    The application does not see anything of it, and another connection is served as before.
    """
    seen = Seen()
    with serving(seen, **limits) as server:
        other = server.connect()
        assert other.get("/other").answer().code == 200
        client = server.connect()
        client.send(raw + SMUGGLED)
        answer = client.answer()
        assert answer.headers["connection"] == "close" and answer.body == b""
        assert client.closed()
        assert other.get("/other").answer().code == 200
        assert seen.paths == ["/other", "/other"]
        assert server.errors.text.count("\n") == 1
        assert f" {answer.code} - " in server.log.text
        assert "Traceback" not in server.errors.text
    return answer


@pytest.mark.parametrize(
    "head",
    [
        # lengths
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Content-Length: 3\r\ncontent-length: 3\r\n\r\nabc",
        POST + b"Content-Length: 3, 3\r\n\r\nabc",
        POST + b"Content-Length: 3,4\r\n\r\nabcd",
        POST + b"Content-Length: +3\r\n\r\nabc",
        POST + b"Content-Length: -3\r\n\r\nabc",
        POST + b"Content-Length: 0x3\r\n\r\nabc",
        POST + b"Content-Length: 3_0\r\n\r\nabc",
        POST + b"Content-Length: 3.0\r\n\r\nabc",
        POST + b"Content-Length: 3 0\r\n\r\nabc",
        POST + b"Content-Length: \xb2\r\n\r\nabc",
        POST + b"Content-Length: \xd9\xa3\r\n\r\nabc",
        POST + b"Content-Length:\r\n\r\n",
        POST + b"Content-Length: abc\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999999999\r\n\r\n",
        POST + b"Content-Length : 3\r\n\r\nabc",
        POST + b"Content-Length\t: 3\r\n\r\nabc",
        POST + b" Content-Length: 3\r\n\r\nabc",
        POST + b"Content-Length:\r\n 3\r\n\r\nabc",
        # codings
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: 'chunked'\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n",
        POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: abc\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        # lines
        GET + b"A: b\rC: d\r\n\r\n",
        GET + b"A: b\nC: d\r\n\r\n",
        GET + b"A: b\r\r\n\r\n",
        GET + b"A: b\n\r\n",
        GET + b"A: b\n\n",
        GET + b"A: b\r\n\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\rHost: x\r\r",
        b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\rGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n" * 20 + GET + b"\r\n",
        # names and values
        GET + b"A: b\x00c\r\n\r\n",
        GET + b"A\x00: b\r\n\r\n",
        GET + b"A: \x01\r\n\r\n",
        GET + b"A: \x7f\r\n\r\n",
        GET + b": b\r\n\r\n",
        GET + b"A\r\n\r\n",
        GET + b"A B: c\r\n\r\n",
        GET + b"A(: c\r\n\r\n",
        GET + b"\xc3\x84: c\r\n\r\n",
        b"GET / HTTP/1.1\r\n A: b\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\tA: b\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
        GET + b"Host: y\r\n\r\n",
        GET + b"host: x\r\n\r\n",
        GET + b"Connection: keep-alive\r\n close\r\n\r\n",
        # request lines
        b"GET /\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/11.1\r\nHost: x\r\n\r\n",
        b"GET / http/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTP/1.1\r\nHost: x\r\n\r\n",
        b"G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        # targets
        b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET h:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ftp://h/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://user:password@h/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://h\\@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT http://h/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_refused_with_400(head: bytes) -> None:
    assert refused(head).code == 400


@pytest.mark.parametrize(
    ("code", "head"),
    [
        (505, b"GET / HTTP/2.0\r\nHost: x\r\n\r\n"),
        (505, b"PRI * HTTP/2.0\r\n\r\n"),
        (505, b"GET / HTTP/1.2\r\nHost: x\r\n\r\n"),
        (505, b"GET / HTTP/0.9\r\nHost: x\r\n\r\n"),
        (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (413, POST + b"Content-Length: 1000000000000000000\r\n\r\n"),
        (414, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        (431, GET + b"A: " + b"a" * 66000 + b"\r\n\r\n"),
        (431, GET + b"A: b\r\n" * 14000 + b"\r\n"),
        (431, GET + b"A: b\r\n" * 100 + b"\r\n"),
    ],
)
def test_refused_with(code: int, head: bytes) -> None:
    assert refused(head).code == code


def test_limits_can_be_set() -> None:
    head = GET + b"A: " + b"a" * 100 + b"\r\nB: c\r\n\r\n"
    with serving(hello, max_header_size=130, max_header_fields=3) as server:
        assert server.ask(head).code == 200
    assert refused(b"GET /123456 HTTP/1.1\r\n\r\n", max_request_line=19).code == 414
    with serving(hello, max_request_line=20) as server:
        assert server.ask(b"GET /123456 HTTP/1.1\r\n\r\n").code == 200
    assert refused(head, max_header_size=110).code == 431
    assert refused(head, max_header_fields=2).code == 431
    assert refused(POST + b"Content-Length: 11\r\n\r\n" + b"a" * 11, max_body_size=10).code == 413
    with serving(echo, max_body_size=10) as server:
        client = server.connect()
        assert client.post("/", b"a" * 10).answer().code == 200
        client.send(CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n")
        assert client.answer().code == 200
        client.send(CHUNKED + b"a\r\n0123456789\r\n1\r\n0\r\n0\r\n\r\n")
        assert client.answer().code == 413
        assert client.closed()


def test_what_can_be_no_request_is_refused_before_it_ends() -> None:
    for part in (
        b"GET / HTTP %\r\n",
        b"GET / HTTP/1.1\nHost",
        b"GET / HTTP/1.1\r\nA: b\nC",
        b"GET /" + b"a" * 9000,
        b"\r\n" * 20,
        GET + b"A: " + b"a" * 80000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2 /\x01",
        b"GET\t/",
        b"GET  /",
        b"G\0",
    ):
        with serving(hello) as server:
            client = server.connect().send(part)
            assert client.answer().code in (400, 414, 431)
            assert client.closed()


def test_length_and_chunks_together_count_as_chunks_and_close_the_connection() -> None:
    """RFC 9112, 6.3: whoever is between may have believed in the length."""
    seen = Seen()
    for fields in (
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: Chunked\r\nContent-Length: 0",
    ):
        with serving(seen) as server:
            client = server.connect()
            client.send(POST + fields + b"\r\n\r\n5\r\nabcde\r\n0\r\n\r\n" + SMUGGLED)
            answer = client.answer()
            assert (answer.code, answer.body) == (200, b"abcde")
            assert answer.headers["connection"] == "close"
            assert client.closed()
    assert seen.paths == ["/", "/"]


def test_names_with_underscores_are_left_out() -> None:
    """They would have the same key as names with hyphens, which proxies check."""
    seen: list[Environ] = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ.copy())
        return echo(environ, start_response)

    with serving(application) as server:
        client = server.connect()
        client.send(GET + b"X_User: root\r\nX-User: me\r\nX_USER: admin\r\n\r\n").answer()
        assert seen[-1]["HTTP_X_USER"] == "me"
        client.send(GET + b"X_User: root\r\n\r\n").answer()
        assert "HTTP_X_USER" not in seen[-1]
        # nor do they frame
        client.send(POST + b"Content_Length: 500\r\nTransfer_Encoding: chunked\r\n\r\n")
        assert client.answer().body == b""
        assert client.get().answer().code == 200


def test_a_client_cannot_set_what_is_not_its_own() -> None:
    seen: list[Environ] = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ.copy())
        return hello(environ, start_response)

    with serving(application) as server:
        server.ask(GET + b"REMOTE-ADDR: 1\r\nSCRIPT-NAME: 1\r\nwsgi.url-scheme: x\r\nPATH-INFO: 1\r\n\r\n")
    environ = seen[0]
    assert (environ["REMOTE_ADDR"], environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("127.0.0.1", "", "/")
    assert environ["HTTP_REMOTE_ADDR"] == "1" and environ["HTTP_WSGI.URL_SCHEME"] == "x"


def test_folded_lines_become_one() -> None:
    seen: list[Environ] = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ.copy())
        return hello(environ, start_response)

    with serving(application) as server:
        client = server.connect()
        client.send(GET + b"A: b  \r\n \t c;\r\n\td\r\nContent-Type: x;\r\n y\r\n\r\n").answer()
        assert seen[0]["HTTP_A"] == "b c; d" and seen[0]["CONTENT_TYPE"] == "x; y"
        # no quadratic time for the white space
        client.send(GET + b"A: b\r\n " + b" " * 60000 + b"x\r\n\r\n").answer()
        assert seen[1]["HTTP_A"] == "b x"


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        b"00000000000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3;" + b"a" * 9000 + b"\r\nabc\r\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
        b"3\r\nabc\r\n0\r\nnocolon\r\n\r\n",
        b"3\r\nabc\r\n0\r\n: x\r\n\r\n",
        b"3\r\nabc\r\n0\r\nA: b\nC: d\r\n\r\n",
        b"3\r\nabc\r\n0\r\nA: \0\r\n\r\n",
        b"3\r\nabc\r\n0\r\n" + b"A: b\r\n" * 3000 + b"\r\n",
        b"3\r\nabc\r\n0\n\r\n",
    ],
)
def test_malformed_chunks(chunks: bytes) -> None:
    seen = Seen()
    with serving(seen) as server:
        client = server.connect().send(CHUNKED + chunks + SMUGGLED)
        answer = client.answer()
        assert answer.code == 400 and answer.headers["connection"] == "close"
        assert client.closed()
        assert seen.paths == ["/"] and not seen.bodies
        # nobody has read it: the answer stands, but nothing of what comes then is a request
        server.server.application = hello
        client = server.connect().send(CHUNKED + chunks + SMUGGLED)
        assert client.answer().body == b"hello"
        assert client.closed()


def test_a_giant_chunk_takes_no_room_before_it_comes() -> None:
    def first(environ: Environ, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"].read(3)
        start_response("200 OK", [("Connection", "close")])
        return [body]

    with serving(first) as server:
        client = server.connect().send(CHUNKED + b"fffffffffffffff\r\nabc")
        assert client.answer().body == b"abc"
        client.end()
        assert client.closed()


@pytest.mark.parametrize(
    "chunks",
    [
        # each is followed by what would be chunks and then the next request
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabcX0\r\n\r\n",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3;" + b"a" * 9000 + b"\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX\0\r\n0\r\n\r\n",
        b"\r0\r\n\r\n",
    ],
)
def test_a_body_is_not_read_on_from_where_it_was_malformed(chunks: bytes) -> None:
    """An application that goes on after the error must not make a chunk or a request of what is left."""
    errors = []
    paths = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        paths.append(environ["PATH_INFO"])
        for read in (environ["wsgi.input"].read, environ["wsgi.input"].readline, environ["wsgi.input"].read):
            with pytest.raises(OSError) as info:
                read()
            errors.append(info.value)
        start_response("200 OK", [])
        return [b"went on"]

    with serving(application) as server:
        client = server.connect().send(CHUNKED + chunks + SMUGGLED)
        assert client.answer().body == b"went on"
        assert client.closed()
        assert paths == ["/"] and len(errors) == 3


@pytest.mark.parametrize(
    ("raw", "rest"),
    [
        (POST + b"Content-Length: 12\r\n\r\nhello", b" world!"),
        (CHUNKED + b"c\r\nhello", b" world!\r\n0\r\n\r\n"),
        (CHUNKED, b"5\r\nhello\r\n7\r\n world!\r\n0\r\n\r\n"),
        (CHUNKED + b"1;x=y\r\nh\r\n", b"b\r\nello world!\r\n0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("method", ["read", "readline"])
def test_nothing_is_lost_when_reading_a_body_is_interrupted(raw: bytes, rest: bytes, method: str) -> None:
    waits = Event()

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"]
        begun = body.read(1) if b"1;x=y" in raw else b""
        with bridge.Timeout(0.01, False):
            getattr(body, method)()
            raise AssertionError("the body is not there yet")
        waits.set()
        data = begun + getattr(body, method)()
        start_response("200 OK", [])
        return [data, body.read()]

    with serving(application) as server:
        client = server.connect().send(raw)
        waits.wait()
        assert client.send(rest).answer().body == b"hello world!"
        # and the next request begins where it should
        waits.clear()
        client.send(raw)
        waits.wait()
        assert client.send(rest).answer().body == b"hello world!"


@pytest.mark.parametrize("chunks", [b"5", b"5\r", b"5\r\nhello\r", b"5\r\nhello\r\n0\r\nX: "])
def test_a_connection_ends_if_reading_between_chunks_is_interrupted(chunks: bytes) -> None:
    waits = Event()
    paths = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        paths.append(environ["PATH_INFO"])
        with bridge.Timeout(0.01, False):
            environ["wsgi.input"].read()
        waits.set()
        bridge.sleep(0.01)
        start_response("200 OK", [])
        return [b"gave up"]

    with serving(application) as server:
        client = server.connect().send(CHUNKED + chunks)
        waits.wait()
        client.send(b"0\r\n\r\n" + SMUGGLED)
        assert client.answer().body == b"gave up"
        assert client.closed()
        assert paths == ["/"]


def test_what_is_kept_of_requests_does_not_grow_with_them() -> None:
    """Names of fields are looked up in a table, and a connection keeps its last head to compare."""
    with serving(hello) as server:
        client = server.connect()
        for number in range(0, 4000, 50):
            fields = "".join(f"X-Name-{n}: {n}\r\n" for n in range(number, number + 50))
            client.send(GET + fields.encode() + b"\r\n").answer()
    assert len(_request._names) <= 2000
    parser = _request.HeadParser()
    first = parser.parse(GET + b"A: b\r\n\r\n", 100)
    assert parser.parse(GET + b"A: b\r\n\r\n", 100) is first
    assert parser.parse(GET + b"A: c\r\n\r\n", 100).fields["HTTP_A"] == "c"
    parser.parse(GET + b"A: " + b"c" * 3000 + b"\r\n\r\n", 100)
    assert parser._last is not None and len(parser._last.head) < 100


def test_trailers_change_nothing() -> None:
    seen = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"].read()
        seen.append({key: value for key, value in environ.items() if key.startswith("HTTP_")})
        start_response("200 OK", [])
        return [body]

    with serving(application) as server:
        client = server.connect()
        client.send(
            CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 30\r\n",
            b"Transfer-Encoding: identity\r\nHost: y\r\nConnection: close\r\n\r\n" + SMUGGLED,
        )
        assert client.answer().body == b"abc"
        assert client.answer().body == b""
        assert seen == [{"HTTP_HOST": "x", "HTTP_TRANSFER_ENCODING": "chunked"}, {"HTTP_HOST": "x"}]


@pytest.mark.parametrize(
    "raw", [POST + b"Content-Length: 10\r\n\r\nabc", CHUNKED + b"a\r\nabc", CHUNKED + b"3\r\nabc"]
)
def test_a_body_that_ends_too_early(raw: bytes, errors: list[Any]) -> None:
    with serving(echo) as server:
        client = server.connect().send(raw).end()
        assert client.answer().code in (400, 500)
        assert client.closed()
        server.server.application = hello
        client = server.connect().send(raw).end()
        assert client.answer().body == b"hello"
        assert client.closed()


@pytest.mark.parametrize("raw", [b"G", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\n", GET, GET + b"\r"])
def test_a_head_that_does_not_end(raw: bytes) -> None:
    seen = Seen()
    with serving(seen) as server:
        client = server.connect().send(raw).end()
        assert client.answer().code == 400
        assert client.closed()
        assert not seen.paths


def test_garbage_after_a_request() -> None:
    with serving(hello) as server:
        client = server.connect().send(GET + b"\r\n" + b"\x1b\xfe garbage\r\n\r\n" + GET + b"\r\n")
        assert client.answer().body == b"hello"
        assert client.answer().code == 400
        assert client.closed()
        assert '"\\x1b\\xfe garbage" 400 -' in server.log.text


def test_the_client_reads_an_error_while_it_is_still_sending() -> None:
    """The kernel would reset the connection, and the client lose the answer, if it were just closed."""
    with serving(hello, max_body_size=10) as server:
        client = server.connect()
        client.send(POST + b"Content-Length: 3000000\r\n\r\n")
        for _ in range(30):
            client.send(b"a" * 100_000)
        client.end()
        assert client.answer().code == 413
        assert client.closed()


# -- the application ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nX: y", []),
        ("200 OK\n", []),
        ("200 OK\0", []),
        ("OK", []),
        ("20 OK", []),
        ("2000 OK", []),
        ("100 Continue", []),
        (b"200 OK", []),
        ("200 \u20ac", []),
        ("200 OK", [("A", "b\r\nX: y")]),
        ("200 OK", [("A", "b\nX: y")]),
        ("200 OK", [("A", "b\rX: y")]),
        ("200 OK", [("A", "b\0")]),
        ("200 OK", [("A\r\nX", "b")]),
        ("200 OK", [("A: b\nX", "b")]),
        ("200 OK", [("A b", "c")]),
        ("200 OK", [("A:", "c")]),
        ("200 OK", [("", "c")]),
        ("200 OK", [("A\0", "c")]),
        ("200 OK", [("A", "\u20ac")]),
        ("200 OK", [("A", b"b")]),
        ("200 OK", [(b"A", "b")]),
        ("200 OK", [("A", 5)]),
        ("200 OK", [("Content-Length", "x")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "\xb2")]),
        ("200 OK", [("A",)]),
    ],
)
def test_headers_that_would_be_more_than_one(status: Any, headers: Any, errors: list[Any]) -> None:
    raised: list[BaseException] = []

    def application(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        try:
            start_response(status, headers)
        except ValueError as e:
            raised.append(e)
            raise
        return [b"never"]

    with serving(application) as server:
        for _ in range(2):  # nothing of it is kept for the next time
            client = server.connect().get()
            answer = client.answer()
            assert (answer.code, answer.body) == (500, b"Internal Server Error")
            assert client.closed()
    assert [error for _context, error in errors] == raised and len(raised) == 2


def test_more_than_the_content_length_is_not_sent(errors: list[Any]) -> None:
    def application(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [("Content-Length", "3")])
        if environ["PATH_INFO"] == "/list":
            return [b"ab", b"cd"]
        return iter([b"ab", b"cd", b"ef"])

    with serving(application) as server:
        for path in ("/list", "/iter"):
            client = server.connect().get(path)
            assert client.answer().body == b"abc"
            assert client.closed()
            assert "more than its Content-Length" in str(errors.pop()[1])


def test_less_than_the_content_length_closes_the_connection() -> None:
    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"abc"]

    with serving(application) as server:
        client = server.connect().get()
        assert client.head().headers["content-length"] == "5"
        assert client.rest() == b"abc"
        assert "promised 5 bytes and gave 3" in server.errors.text


def test_the_application_does_not_say_how_the_answer_is_framed() -> None:
    def application(environ: Environ, start_response: StartResponse) -> Any:
        headers = [("Transfer-Encoding", "chunked")]
        if environ["QUERY_STRING"]:
            headers.append(("Content-Length", "100"))
        start_response("200 OK", headers)
        return iter([b"abc"]) if environ["PATH_INFO"] == "/iter" else [b"abc"]

    with serving(application) as server:
        client = server.connect()
        for path in ("/", "/iter", "/?length", "/iter?length"):
            assert client.get(path).answer().body == b"abc"


# -- time ---------------------------------------------------------------------------------------------------


def test_a_slow_head_is_given_up() -> None:
    with serving(hello, header_timeout=0.05) as server:
        client = server.connect().send(b"GET / HT")
        answer = client.answer()
        assert answer.code == 408 and client.closed()
        # a little from time to time is not enough
        client = server.connect().send(GET)
        try:
            while True:
                client.send(b"A: b\r\n")
                bridge.sleep(0.01)
        except OSError:
            pass
        # nor does it matter to those who are quick, and may then take their time
        client = server.connect()
        for _ in range(2):
            assert client.get().answer().code == 200
            bridge.sleep(0.06)


def test_an_idle_connection_is_closed_in_the_end() -> None:
    with serving(hello, keepalive_timeout=0.05) as server:
        client = server.connect()
        assert client.closed()
        client = server.connect()
        assert client.get().answer().code == 200
        assert client.closed()
        assert not server.errors.text


def test_a_slow_body_is_given_up() -> None:
    with serving(echo, body_timeout=0.05) as server:
        client = server.connect()
        assert client.post("/", b"abc").answer().body == b"abc"
        bridge.sleep(0.06)  # between requests it does not count
        client.send(POST + b"Content-Length: 10\r\n\r\nabc")
        assert client.answer().code == 408
        assert client.closed()
        client = server.connect().send(CHUNKED + b"a\r\nabc")
        assert client.answer().code == 408
        assert client.closed()


def test_a_timeout_of_the_application_is_its_own_affair(errors: list[Any]) -> None:
    def application(_environ: Environ, _start_response: StartResponse) -> list[bytes]:
        raise TimeoutError("of a database")

    with serving(application, body_timeout=5.0) as server:
        assert server.connect().post("/", b"abc").answer().code == 500
        assert str(errors[0][1]) == "of a database"


def test_slow_clients_keep_nobody_waiting() -> None:
    with serving(hello) as server:
        slow = [server.connect().send(GET[:i]) for i in range(1, len(GET))]
        assert server.get().body == b"hello"
        for i, client in enumerate(slow):
            assert client.send(GET[i + 1 :] + b"\r\n").answer().body == b"hello"


# -- whatever comes -----------------------------------------------------------------------------------------

PIECES = [
    b"GET", b"POST", b" ", b"/", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"\0", b":",
    b"Host: x", b"Content-Length: 3", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"\xff",
    b"Connection: close", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc", b"GET / HTTP/1.1\r\nHost: x\r\n",
    b"Expect: 100-continue", b"Upgrade: websocket",
]  # fmt: skip


@pytest.mark.engines("owned")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=25), cut=st.integers(0, 400))
def test_no_input_upsets_the_server(pieces: list[bytes], cut: int, errors: list[Any]) -> None:
    """Nothing is printed but for bodies that end too early; how it is cut into packets does not matter."""
    raw = b"".join(pieces)
    answers = []
    with serving(echo) as server:
        for parts in ((raw,), (raw[:cut], raw[cut:])):
            client = server.connect()
            for part in parts:
                client.send(part)
                yields()
            client.end()
            received = client.rest()
            assert received == b"" or received.startswith((b"HTTP/1.1 ", b"reset"))
            answers.append([line for line in received.split(b"\r\n") if line.startswith(b"HTTP/")])
        assert answers[0] == answers[1]
        assert server.get().code == 200
    for _context, error in errors:
        assert isinstance(error, OSError) and "unexpected end of file" in str(error), error
    errors.clear()


def test_a_client_that_does_not_wait_for_answers_keeps_nobody_waiting() -> None:
    """Its requests are there already, so that nothing would block, and no other greenlet run."""
    served: list[str] = []

    def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
        served.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    with serving(application) as server:
        other = server.connect()
        other.get("/other").answer()
        served.clear()
        greedy = server.connect().send(b"GET /greedy HTTP/1.1\r\nHost: x\r\n\r\n" * 150)
        other.get("/other").answer()
        assert served.index("/other") < 100
        for _ in range(150):
            greedy.answer()
        # each as large as what is received at once
        served.clear()
        request = b"GET /greedy HTTP/1.1\r\nHost: x\r\nA: "
        greedy.send((request + b"a" * (8192 - len(request) - 4) + b"\r\n\r\n") * 20)
        other.get("/other").answer()
        assert served.index("/other") < 18
        for _ in range(20):
            greedy.answer()


def test_a_connection_never_gets_what_is_another_one_s() -> None:
    """Connections that break in the middle, beside others, whose file descriptors are used again at once."""

    def application(environ: Environ, start_response: StartResponse) -> Any:
        name = environ["PATH_INFO"].encode()
        start_response("200 OK", [("X-Name", environ["PATH_INFO"])])
        for _ in range(3):
            bridge.sleep(0)
            yield name * 50

    chance = random.Random(7)
    with serving(application) as server:

        def breaks(number: int) -> None:
            client = server.connect().get(f"/broken{number}")
            if chance.random() < 0.5:
                client.head()
            client.close()

        def works(number: int) -> None:
            client = server.connect()
            for i in range(3):
                name = f"/{number}-{i}"
                answer = client.get(name).answer()
                assert answer.headers["x-name"] == name
                assert answer.body == name.encode() * 150
            client.close()

        greenlets = [bridge.spawn(chance.choice([breaks, works]), i) for i in range(120)]
        bridge.joinall(greenlets, raise_error=True)


def test_a_handler_is_killed_in_the_middle() -> None:
    waiting = Event()

    def application(_environ: Environ, start_response: StartResponse) -> list[bytes]:
        waiting.set()
        bridge.sleep(60)
        return []

    with serving(application) as server:
        idle = server.connect()
        idle.get(method="FOO")
        waiting.wait()
        other = server.connect().send(b"GET /")
        while len(server.server.pool) < 2:
            yields()
        yields()
        server.server.pool.kill()
        assert idle.answer().code == 500
        assert idle.closed()
        assert other.rest() in (b"", b"reset")  # whether its bytes had been read
        assert not server.errors.text


def test_sockets_are_closed_when_connections_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sockets: list[socket.socket] = []

    class Handler(WSGIHandler):
        def __init__(self, sock: Any, *args: Any) -> None:
            sockets.append(sock)
            super().__init__(sock, *args)

    with serving(hello, handler_class=Handler) as server:
        for raw in (GET + b"Connection: close\r\n\r\n", b"garbage\r\n\r\n", b""):
            client = server.connect().send(raw).end()
            client.rest()
        yields()
        assert [sock.closed for sock in sockets] == [True] * 3
