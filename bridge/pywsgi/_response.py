"""What the application says about its answer, made into bytes that are safe to send."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from typing import Any

__all__ = ["FileWrapper", "encode_header", "encode_status", "known_headers"]

#: What is asked of the headers of an answer, apart from sending them.
OTHER, DATE, LENGTH, CONNECTION, CODING = range(5)

_KINDS = {
    "date": DATE,
    "content-length": LENGTH,
    "connection": CONNECTION,
    "transfer-encoding": CODING,
}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CODE = re.compile(r"[1-9][0-9][0-9](?: |$)")

#: By name: the name in bytes, and its kind. Names come from the application, but may be made up as it runs.
_names: dict[str, tuple[bytes, int]] = {}
#: By name and value: what encode_header() returns. For those that come again and again.
_headers: dict[tuple[str, str], tuple[bytes, bytes, int]] = {}
_statuses: dict[str, tuple[bytes, int]] = {}
_MOST = 2000


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise UnicodeError(f"The {what} must be a native string, not {value!r}")
    return value


def _check(what: str, text: str) -> None:
    """ValueError for what would end the line, so that more could be smuggled in."""
    if "\r" in text or "\n" in text:
        raise ValueError(f"carriage return or newline in {what}")
    if "\0" in text:
        raise ValueError(f"NUL character in {what}")


def encode_status(status: Any) -> tuple[bytes, int]:
    """A status such as ``"200 OK"`` as bytes, and its code. ValueError if it is none."""
    known = _statuses.get(status) if type(status) is str else None
    if known is not None:
        return known
    text = _text("status", status)
    _check("status", text)
    encoded = text.encode("latin-1")
    if _CODE.match(text) is None:
        raise ValueError(
            f"start_response({text!r}): a status is a number of three digits and a reason: '200 OK'"
        )
    result = encoded, int(text[:3])
    if len(_statuses) < _MOST:
        _statuses[str(text)] = result
    return result


def _encode_name(name: Any) -> tuple[bytes, int]:
    text = _text("name of a header", name)
    _check("header name", text)
    encoded = text.encode("latin-1")
    if _TOKEN.fullmatch(text) is None:
        raise ValueError(f"invalid header name {text!r}")
    result = encoded, _KINDS.get(text.lower(), OTHER)
    if len(_names) < _MOST:
        _names[str(text)] = result
    return result


#: What is worth keeping: no cookies, dates or locations.
_KEPT = frozenset({
    "accept-ranges", "access-control-allow-credentials", "access-control-allow-origin", "allow",
    "cache-control", "connection", "content-encoding", "content-language", "content-length", "content-type",
    "pragma", "referrer-policy", "server", "transfer-encoding", "vary", "x-content-type-options",
    "x-frame-options",
})  # fmt: skip

#: ``known_headers(pair)``: what encode_header() has found out about a pair of name and value, or None.
known_headers = _headers.get


def encode_header(name: Any, value: Any) -> tuple[bytes, bytes, int]:
    """Name and value of a header as bytes, and its kind.

    UnicodeError for what is no text in latin-1, ValueError for what must not be in a header.
    """
    known = _names.get(name) if type(name) is str else None
    if known is None:
        known = _encode_name(name)
    text = value if type(value) is str else _text("value of a header", value)
    if not text.isprintable():  # a quick way to say that there are no control characters
        _check("header value", text)
    result = known[0], text.encode("latin-1"), known[1]
    if len(text) < (4 if known[1] == LENGTH else 100) and len(_headers) < _MOST and name.lower() in _KEPT:
        _headers[str(name), str(text)] = result
    return result


class FileWrapper:
    """``wsgi.file_wrapper``: an iterator over the blocks of a file.

    :param filelike: the file, with ``read(size)``; closed with the wrapper.
    :param blksize: the size of a block in bytes.

    If an application returns one for a regular file, and nothing has to be done to the bytes on the way, the
    kernel sends it.
    """

    __module__ = __package__

    def __init__(self, filelike: Any, blksize: int = 65536) -> None:
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration

    def _rest(self) -> tuple[int, int] | None:
        """Where in a regular file the wrapper is, and how many bytes are left; None if it is not one."""
        filelike = self.filelike
        # exactly these: a subclass, or a file that decompresses, may have a descriptor and other bytes
        raw = filelike.raw if type(filelike) in _BUFFERED else filelike
        if type(raw) is not io.FileIO or not filelike.readable():
            return None
        try:
            info = os.fstat(filelike.fileno())
            if not stat.S_ISREG(info.st_mode):
                return None
            offset = int(filelike.tell())
        except (OSError, ValueError):
            return None
        return offset, max(info.st_size - offset, 0)


_BUFFERED = (io.BufferedReader, io.BufferedRandom)
