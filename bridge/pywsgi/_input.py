"""``wsgi.input``: the body of a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from ._errors import BodyTooLarge, _InvalidClientInput
from ._reader import RequestReader

__all__ = ["MAX_REQUEST_LINE", "Input"]

#: The longest request line, in bytes; also the longest extension of a chunk, and the most for all trailers.
MAX_REQUEST_LINE = 8192

_CONTINUE_RESPONSE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEX = b"0123456789abcdefABCDEF"
_ALLOWED_TOKEN_CHARS = frozenset(
    bytes([c]) for c in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
#: More digits than any length has.
_MOST_DIGITS = 16


class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class Input:
    """Reads the body of one request, and nothing of what follows it.

    :param rfile: the file of the connection, with ``read(size)`` and ``readline(size)``.
    :param content_length: its size in bytes, None if the request does not say.
    :param socket: where to send ``100 Continue`` before the first read, if the client expects that.
    :param chunked_input: whether it comes in chunks.

    A file for WSGI: to be read by one greenlet, which blocks until there is data. If the connection ends too
    early, OSError; if chunks are malformed, another OSError, which makes the server answer 400 if it goes
    through the application.
    """

    __module__ = __package__
    __slots__ = (
        "_limit",
        "_lost",
        "_past_end",
        "chunk_length",
        "chunked_input",
        "content_length",
        "position",
        "rfile",
        "send_100_continue_enabled",
        "socket",
    )

    def __init__(
        self, rfile: _File, content_length: int | None, socket: Any = None, chunked_input: bool = False
    ) -> None:
        self.rfile: Any = rfile
        self.content_length = content_length
        self.socket = socket
        self.chunked_input = chunked_input
        #: how many bytes have been read: of the body, or of the current chunk
        self.position = 0
        #: the size of the current chunk; 0 is that of the last one, -1 before the first one
        self.chunk_length = -1
        self.send_100_continue_enabled = True
        # the last chunk and the trailers have been read
        self._past_end = False
        # It is not known any more what the next byte is: what is between two chunks was malformed, or was
        # read in part only, because somebody interrupted that. To go on would be to take whatever follows for
        # a chunk, or for the next request.
        self._lost = False
        # how many bytes may still come in chunks
        self._limit: int | None = None

    # -- 100-continue

    def _send_100_continue(self) -> None:
        if self.socket is not None and self.send_100_continue_enabled:
            self.socket.sendall(_CONTINUE_RESPONSE)
            self.socket = None

    # -- a body whose length is known

    def _read_plain(self, length: int | None, line: bool) -> bytes:
        size = self.content_length
        if not size:
            return b""
        left = size - self.position
        if length is None or length > left:
            length = left
        if not length:
            return b""
        data: bytes = self.rfile.readline(length) if line else self.rfile.read(length)
        self.position += len(data)
        if len(data) < length and not (line and data.endswith(b"\n")):
            raise OSError(f"unexpected end of file while reading request at position {self.position}")
        return data

    # -- chunks

    def _next_chunk(self) -> int:
        """Read the line that begins a chunk, and what is to be after the one before; the size."""
        if self._lost:
            raise _InvalidClientInput("the body has not been read on from where it went wrong")
        if self.chunk_length > 0:
            self._end_of_line()
            # between two chunks: if the wait for the next one is interrupted, nothing is lost
            self.chunk_length = -1
            self.position = 0
            self._lost = False
        rfile = self.rfile
        size = rfile.take_chunk_size() if type(rfile) is RequestReader else -1
        if size < 0:
            size = self._chunk_size()
        self._lost = True
        if self._limit is not None:
            self._limit -= size
            if self._limit < 0:
                raise BodyTooLarge("the body of the request is too large")
        if not size:
            self._trailers()
            self._past_end = True
        self.position = 0
        self.chunk_length = size
        self._lost = False
        return size

    def _end_of_line(self) -> None:
        end = self.rfile.read(1)
        self._lost = True
        if end == b"\r":
            end += self.rfile.read(1)
        if end != b"\r\n":
            if not end.strip(b"\r"):
                raise OSError("unexpected end of file while parsing chunked data")
            raise _InvalidClientInput(f"Line didn't end in CRLF: {end!r}")

    def _chunk_size(self) -> int:
        # One by one: what is wrong must not make us wait for more.
        read = self.rfile.read
        digits = b""
        while True:
            char = read(1)
            self._lost = True
            if not char:
                raise _InvalidClientInput("EOF before chunk end reached")
            if char == b"\r":
                self._line_feed(read(1))
                break
            if char == b";":
                self._extension()
                break
            if char not in _HEX:
                raise _InvalidClientInput("Non-hex data", char)
            digits += char
            if len(digits) > _MOST_DIGITS:
                raise _InvalidClientInput("Chunk-size too large.")
        if not digits:
            raise _InvalidClientInput("Chunk without a size")
        return int(digits, 16)

    @staticmethod
    def _line_feed(char: bytes) -> None:
        if char != b"\n":
            raise _InvalidClientInput(f"Line didn't end in LF: {char!r}")

    def _extension(self) -> None:
        """Skip it. A line feed alone does not end it: the other end of the connection may think otherwise."""
        read = self.rfile.read
        for _ in range(MAX_REQUEST_LINE):
            char = read(1)
            if char == b"\r":
                self._line_feed(read(1))
                return
            if char == b"\n":
                raise _InvalidClientInput("Line didn't end in CRLF: a line feed in a chunk extension")
            if not char:
                raise _InvalidClientInput("EOF before chunk end reached")
        raise _InvalidClientInput("Too large chunk extension")

    def _trailers(self) -> None:
        """Skip the trailers, up to the empty line, but make sure that they are some."""
        read = self.rfile.read
        in_name = first = True
        for _ in range(MAX_REQUEST_LINE):
            char = read(1)
            if char == b"\r":
                if in_name and not first:
                    raise _InvalidClientInput("Trailer without a colon")
                self._line_feed(read(1))
                if first:
                    return
                in_name = first = True
                continue
            if in_name:
                if char == b":" and not first:
                    in_name = False
                elif char not in _ALLOWED_TOKEN_CHARS:
                    raise _InvalidClientInput(f"Invalid token character: {char!r}")
            elif char in (b"", b"\n", b"\0"):
                raise _InvalidClientInput(f"Invalid character in a trailer: {char!r}")
            first = False
        raise _InvalidClientInput("Trailers too long")

    def _read_chunked(self, length: int | None, line: bool) -> bytes:
        if length == 0:
            return b""
        parts = []
        rfile = self.rfile
        while not self._past_end:
            left = self.chunk_length - self.position
            if left <= 0:
                left = self._next_chunk()
                if not left:
                    break
            size = left if length is None or left < length else length
            data = rfile.readline(size) if line else rfile.read(size)
            self.position += len(data)
            parts.append(data)
            if line and data.endswith(b"\n"):
                break
            if len(data) < size:
                raise OSError("unexpected end of file while parsing chunked data")
            if length is not None:
                length -= size
                if not length:
                    break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # -- the file

    def read(self, length: int | None = None) -> bytes:
        """Read ``length`` bytes; all that are left if it is None or negative, or there are no more."""
        if self.socket is not None:
            self._send_100_continue()
        if length is not None and length < 0:
            length = None
        if self.chunked_input:
            return self._read_chunked(length, False)
        return self._read_plain(length, False)

    def readline(self, size: int | None = None) -> bytes:
        """Read a line with the line feed at its end, but at most ``size`` bytes; nothing at the end."""
        if self.socket is not None:
            self._send_100_continue()
        if size is not None and size < 0:
            size = None
        if self.chunked_input:
            return self._read_chunked(size, True)
        return self._read_plain(size, True)

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """The lines that are left; if ``hint`` is positive, no more than are needed for as many bytes."""
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def next(self) -> bytes:
        """The next line; StopIteration at the end."""
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    __next__ = next

    # -- the end of the request

    @property
    def _unread(self) -> bool:
        """True if there is more than has been read."""
        if self.chunked_input:
            return not self._past_end
        return self.position < (self.content_length or 0)

    def _discard(self) -> None:
        """Read what is left, so that the next request can follow. OSError if it does not come."""
        # the client that still waits for 100-continue learns from the answer that it need not
        self.socket = None
        if not self.chunked_input:
            left = (self.content_length or 0) - self.position
            if left > 0:
                self._skip(left)
                self.position += left
            return
        while not self._past_end:
            left = self.chunk_length - self.position  # negative before the first chunk
            if left > 0:
                self._skip(left)
                self.position += left
            self._next_chunk()

    def _skip(self, size: int) -> None:
        rfile = self.rfile
        if type(rfile) is RequestReader:
            missing = rfile.discard(size)
        else:
            missing = size
            while missing and (data := rfile.read(min(missing, 65536))):
                missing -= len(data)
        if missing:
            raise OSError("unexpected end of file while reading the rest of a request")
