"""From the bytes of a request's head to what is in it.

Theory of operation
===================

``httptools`` (llhttp) parses, and is as strict as its authors can make it: it knows tokens, bare carriage
returns and line feeds, control characters, the white space that may not be, and lengths. Two things are done
around it.

*Cheaply*: the parser gets the bytes of one head and nothing else, and hands the fields to a dictionary's own
``__setitem__``, so that no Python code runs for a field. If the dictionary has as many fields as the head has
lines, nothing has been sent twice, and the head is *plain*. Nearly all are.

*Carefully*: a head that is not plain, or that the parser refuses, is looked at line by line (``_careful``).
What RFC 9112 allows and the parser does not (or what gevent takes, and is harmless) is rewritten for the
parser to judge the rest: methods it has no name for, bytes beyond ASCII in the target, folded lines, a
Content-Length beside chunks. What it refuses then is answered with 400.

Of the framing nothing is left to the parser: ``content_length`` and ``chunked`` are worked out here, from the
fields that the application sees.
"""

from __future__ import annotations

import re
from typing import Any

import httptools

from ._errors import BadRequest

__all__ = ["HeadParser", "Request", "split_absolute"]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])")
#: What may be there of a request line before it is complete.
_BEGINNING = re.compile(_TOKEN + rb"(?: (?:[\x21-\x7e\x80-\xff]+(?: [HTP/0-9.]*\r?)?)?)?|\r?")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
#: Of an absolute target: host with port, and the rest. User names are no part of what a client may send.
_ABSOLUTE = re.compile(
    r"https?://([A-Za-z0-9\-._~!$&'()*+,;=%:\[\]]+)((?:[/?].*)?)", re.IGNORECASE | re.DOTALL
)
_AUTHORITY = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=%\[\]:]+:[0-9]*")

#: Fields of which there may be one only, or which must not be folded, as they say where the message ends or
#: to whom it goes.
_ONLY_ONCE = frozenset({"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_HOST"})
_NEVER_FOLDED = _ONLY_ONCE | {"HTTP_CONNECTION", "HTTP_UPGRADE", "HTTP_EXPECT"}

#: As long as a number that any file or body may have.
_MOST_DIGITS = 18


class _Names(dict[bytes, "str | None"]):
    """The key in the environ for the name of each field; None for those that are left out."""

    def __missing__(self, name: bytes) -> str | None:
        key: str | None = name.decode("latin-1").upper().replace("-", "_")
        if b"_" in name:
            # the key would be that of a name with hyphens: the way around a proxy that removes those
            key = None
        elif key != "CONTENT_LENGTH" and key != "CONTENT_TYPE":
            key = f"HTTP_{key}"
        if len(self) < 2000 and len(name) < 100:  # names are up to the client
            self[name] = key
        return key


_names = _Names()
for _name in (
    "Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control",
    "Connection", "Content-Length", "Content-Type", "Cookie", "Expect", "Host", "If-Match",
    "If-Modified-Since", "If-None-Match", "Origin", "Pragma", "Range", "Referer", "Transfer-Encoding",
    "Upgrade", "User-Agent", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP",
    "X-Requested-With",
):  # fmt: skip
    # before some client has filled the table
    _names[_name.encode()]
    _names[_name.lower().encode()]


class Request:
    """What is in a head. Not changed once it is made: a connection that asks the same again gets it again."""

    __slots__ = (
        "chunked",
        "close",
        "content_length",
        "fields",
        "head",
        "line",
        "method",
        "target",
        "version",
    )

    #: the bytes
    head: bytes
    #: the request line
    line: str
    method: str
    target: str
    #: ``HTTP/1.0`` or ``HTTP/1.1``
    version: str
    #: the fields by their keys in the environ
    fields: dict[str, str]
    content_length: int | None
    chunked: bool
    #: whether the connection is to be closed after the answer
    close: bool


class HeadParser:
    """Parses the heads of one connection."""

    __slots__ = ("_last", "_raw", "on_header")

    def __init__(self) -> None:
        self._last: Request | None = None
        self._raw: dict[bytes, bytes] = {}
        # httptools looks for the callbacks that its argument has: this is the only one
        self.on_header = self._raw.__setitem__

    def parse(self, head: bytes, most_fields: int) -> Request:
        """``head`` is a whole one; BadRequest if it is not one of a request that can be served."""
        last = self._last
        if last is not None and last.head == head:
            return last  # of a client that asks the same again and again
        raw = self._raw
        raw.clear()
        count = head.count(b"\r\n") - 2
        if count > most_fields:
            raise BadRequest(f"more than {most_fields} header fields", 431)
        try:
            httptools.HttpRequestParser(self).feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # that is for the application to say
        except httptools.HttpParserError as e:
            return self._careful(head, e)
        if len(raw) != count:
            return self._careful(head, None)
        names = _names
        # (the parser leaves the white space at the end of a value, and there is no other than space and tab)
        fields: Any = {names[name]: value.strip().decode("latin-1") for name, value in raw.items()}
        if len(fields) != count:
            return self._careful(head, None)  # the same name twice, in capitals and not
        if None in fields:
            del fields[None]
        request = Request()
        request.head = head
        request.line = line = head[: head.index(b"\r\n")].decode("latin-1")
        try:
            request.method, request.target, request.version = line.split(" ")
        except ValueError:
            raise BadRequest(f"Invalid request line: {line!r}") from None
        if not request.method.isalpha():
            # one with a hyphen; or a line feed before it, which the parser does not mind
            self._request_line(line.encode("latin-1"))
        request.fields = fields
        self._frame(request)
        if len(head) < 2000:
            self._last = request
        return request

    def check_part(self, part: bytes) -> None:
        """BadRequest if what has been received of a head can't be the beginning of one."""
        end = part.find(b"\r\n")
        if end >= 0:
            self._request_line(part[:end])
        elif _BEGINNING.fullmatch(part) is None:
            raise BadRequest(f"Not a request: {part[:40]!r}")  # TLS, for instance, which has no lines
        if part.count(b"\n") != part.count(b"\r\n"):
            raise BadRequest("a line that does not end with CRLF")

    # -- carefully

    @staticmethod
    def _request_line(line: bytes) -> re.Match[bytes]:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise BadRequest(f"Invalid request line: {line.decode('latin-1')!r}")
        return match

    def _careful(self, head: bytes, error: Exception | None) -> Request:
        first, _, rest = head[:-4].partition(b"\r\n")
        match = self._request_line(first)
        if match[3] != b"1" or match[4] not in b"01":
            raise _bad_version(first.decode("latin-1"))
        fields: dict[str, str] = {}
        known = [b"POST %b HTTP/%b.%b" % (_BEYOND_ASCII.sub(b"%80", match[2]), match[3], match[4])]
        both = False
        if rest:
            if rest[:1] in (b" ", b"\t"):
                raise BadRequest("white space before the first header field")
            for line in re.split(rb"\r\n(?![ \t])", rest):
                name, colon, value = line.partition(b":")
                if not colon:
                    raise BadRequest(f"Invalid header: {line.decode('latin-1')!r}")
                key = _names[name]
                if b"\r\n" in value:
                    if key in _NEVER_FOLDED or not value.replace(b"\r\n", b"").strip(b" \t"):
                        raise BadRequest(f"Folded header: {name.decode('latin-1')!r}")
                    value = b" ".join(part.strip(b" \t") for part in value.split(b"\r\n"))
                value = value.strip(b" \t")
                known.append(b"%b: %b" % (name, value))
                if key is None:
                    continue
                text = value.decode("latin-1")
                if key not in fields:
                    fields[key] = text
                elif key in _ONLY_ONCE:
                    raise BadRequest(f"Repeated header: {name.decode('latin-1')!r}")
                elif key != "CONTENT_TYPE":  # of those the first one counts: two are no list
                    fields[key] += ("; " if "COOKIE" in key else ",") + text
            both = "CONTENT_LENGTH" in fields and "HTTP_TRANSFER_ENCODING" in fields
            if both:
                _length(fields["CONTENT_LENGTH"])
                known = [line for line in known if not line.lower().startswith(b"content-length:")]
        self._raw.clear()
        try:
            httptools.HttpRequestParser(self).feed_data(b"\r\n".join(known) + b"\r\n\r\n")
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as e:
            raise BadRequest(f"Invalid request: {error or e}") from None
        request = Request()
        request.head = head
        request.line = first.decode("latin-1")
        request.method, request.target, request.version = request.line.split(" ")
        request.fields = fields
        self._frame(request)
        if both:
            # RFC 9112, 6.3: somebody on the way may have believed in the length
            request.close = True
        return request

    # -- what follows from the fields

    @staticmethod
    def _frame(request: Request) -> None:
        fields = request.fields
        version = request.version
        if version != "HTTP/1.1" and version != "HTTP/1.0":
            raise _bad_version(request.line)
        length = fields.get("CONTENT_LENGTH")
        coding = fields.get("HTTP_TRANSFER_ENCODING")
        request.content_length = None
        request.chunked = False
        if coding is not None:
            if version == "HTTP/1.0":
                raise BadRequest("Transfer-Encoding in a request of HTTP/1.0")
            if coding.lower() != "chunked":
                codings = [c.strip(" \t").lower() for c in coding.split(",")]
                if codings[-1] != "chunked" or "chunked" in codings[:-1]:
                    raise BadRequest(f"Invalid Transfer-Encoding: {coding!r}")
                raise BadRequest(f"Unknown Transfer-Encoding: {coding!r}", 501)
            request.chunked = True
        elif length is not None:
            request.content_length = _length(length)
        connection = fields.get("HTTP_CONNECTION")
        if connection is None:
            request.close = version == "HTTP/1.0"
        else:
            connection = connection.lower()
            if connection == "keep-alive":
                request.close = False
            else:
                options = [o.strip(" \t") for o in connection.split(",")]
                request.close = "close" in options or (version == "HTTP/1.0" and "keep-alive" not in options)
        target = request.target
        if target[0] != "/" or request.method == "CONNECT":
            _check_target(request)


def _bad_version(line: str) -> BadRequest:
    return BadRequest(f"Invalid http version: {line!r}", 505)


def _length(text: str) -> int:
    """The value of a Content-Length."""
    if not (text.isdigit() and text.isascii()):
        raise BadRequest(f"Invalid Content-Length: {text[:40]!r}")
    if len(text) > _MOST_DIGITS:
        raise BadRequest(f"Content-Length is too large: {text[:40]!r}", 413)
    return int(text)


def _check_target(request: Request) -> None:
    """A target that is not a path."""
    target = request.target
    if request.method == "CONNECT":
        if not _AUTHORITY.fullmatch(target):
            raise BadRequest(f"Invalid target of CONNECT: {target!r}")
        request.close = True  # what follows may be a tunnel
    elif target == "*":
        if request.method != "OPTIONS":
            raise BadRequest("'*' is a target of OPTIONS only")
    elif _ABSOLUTE.fullmatch(target) is None:
        raise BadRequest(f"Invalid target: {target!r}")


def split_absolute(target: str) -> tuple[str, str]:
    """Host with port, and path with query, of an absolute target that has been found valid."""
    match = _ABSOLUTE.fullmatch(target)
    assert match is not None
    path = match[2]
    return match[1], path if path.startswith("/") else "/" + path
