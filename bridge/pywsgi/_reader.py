"""The bytes of a connection that have been received and not been used yet."""

from __future__ import annotations

import io
import re
from typing import Any

from .._core.clock import monotonic
from ..hub import sleep
from ._errors import BadRequest, BodyTooSlow

__all__ = ["RequestReader"]

#: How much is asked for at once, for a head and otherwise. CPython makes a bytes object of that size, and
#: shrinks it in place; many small ones stay in the processor's cache.
_HEAD_AT_ONCE = 8192
_AT_ONCE = 65536

#: The usual beginning of a chunk.
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,15})\r\n")


class RequestReader(io.BufferedIOBase):
    """Reads a connection, as the file that ``makefile("rb")`` would give, and knows where a head ends.

    It has what was received beyond the request that is being served: whoever reads the socket itself should
    do so only when the client waits for an answer, as for that to the upgrade to WebSocket.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._recv = sock.recv
        self._raw: Any = None
        #: received, of which the bytes from ``_pos`` on are unread
        self._data = b""
        self._pos = 0
        #: how many bytes have been received before those in ``_data``
        self._before = 0
        #: true if there may be more to receive at once
        self._more = False
        #: true while the time limit of the socket is that of the server for bodies
        self.limited = False

    # -- what HTTP needs

    @property
    def position(self) -> int:
        """How many bytes of the connection have been read."""
        return self._before + self._pos

    @property
    def pending(self) -> bool:
        """True if there are bytes that have been received and not been read."""
        return self._pos < len(self._data)

    def _fill(self, size: int = _AT_ONCE) -> bool:
        """Receive more; False at the end. What is unread stays."""
        try:
            more = self._recv(size)
        except TimeoutError:
            if self.limited:
                raise BodyTooSlow("the body of the request came too slowly") from None
            raise
        self._more = len(more) == size
        pos = self._pos
        self._before += pos
        self._pos = 0
        if pos == len(self._data):
            self._data = more
        else:
            self._data = self._data[pos:] + more
        return bool(more)

    def wait_for_request(self, timeout: float | None) -> bool:
        """Wait until the first bytes of the next request are there; False at the end of the connection.

        TimeoutError after ``timeout`` seconds, by default the time limit of the socket.
        """
        if self._pos < len(self._data):
            # Nothing blocks here: a client that does not wait for answers would keep everybody else waiting.
            sleep(0)
            return True
        if self._more:
            sleep(0)
        if timeout is None:
            return self._fill(_HEAD_AT_ONCE)
        sock = self._sock
        before = sock.gettimeout()
        sock.settimeout(timeout)
        try:
            return self._fill()
        finally:
            sock.settimeout(before)

    def take_head(self) -> bytes | None:
        """The head of a request with the empty line at its end, if it is there as a whole."""
        data = self._data
        pos = self._pos
        end = data.find(b"\r\n\r\n", pos) + 4
        if end == 3:
            return None
        self._pos = end
        if pos == 0 and end == len(data):
            return data
        return data[pos:end]

    def give_back(self, size: int) -> None:
        """Undo the reading of the last ``size`` bytes, before anything else is received."""
        self._pos -= size

    def skip_empty_lines(self) -> int:
        """Leave out the empty lines that there are; returns how many."""
        data = self._data
        count = 0
        while data.startswith(b"\r\n", self._pos):
            self._pos += 2
            count += 1
        return count

    def find(self, what: bytes, limit: int) -> int:
        """Where ``what`` begins in the first ``limit`` unread bytes, -1 if nowhere."""
        pos = self._pos
        found = self._data.find(what, pos, pos + limit)
        return found - pos if found >= 0 else -1

    @property
    def available(self) -> int:
        """How many bytes there are that have been received and not been read."""
        return len(self._data) - self._pos

    @property
    def unread(self) -> bytes:
        """What has been received and not been read."""
        return self._data[self._pos :]

    def receive(self, deadline: float | None) -> bool:
        """Receive more; False at the end. BadRequest (408) at ``deadline``, if there is one."""
        if deadline is None:
            return self._fill()
        sock = self._sock
        left = deadline - monotonic()
        if left <= 0:
            raise BadRequest("the head of the request came too slowly", 408)
        before = sock.gettimeout()
        sock.settimeout(left)
        try:
            return self._fill()
        except TimeoutError:
            raise BadRequest("the head of the request came too slowly", 408) from None
        finally:
            sock.settimeout(before)

    def take_chunk_size(self) -> int:
        """The size in the line that begins a chunk; -1, and nothing read, if that is not there as usual."""
        match = _CHUNK.match(self._data, self._pos)
        if match is None:
            return -1
        self._pos = match.end()
        return int(match[1], 16)

    def discard(self, size: int) -> int:
        """Read ``size`` bytes and forget them; how many are missing at the end of the connection."""
        while True:
            there = len(self._data) - self._pos
            if there >= size:
                self._pos += size
                return 0
            size -= there
            self._pos += there
            if not self._fill():
                return size

    # -- the file

    def readable(self) -> bool:
        """True."""
        return True

    @property
    def raw(self) -> Any:
        """The unbuffered file of the socket, whose ``_sock`` libraries look for."""
        if self._raw is None:
            self._raw = self._sock.makefile("rb", 0)
        return self._raw

    def fileno(self) -> int:
        """The file descriptor of the socket."""
        return int(self._sock.fileno())

    def close(self) -> None:
        """Forget what is unread. The socket stays open."""
        if not self.closed:
            super().close()
            self._data = b""
            self._pos = 0
            if self._raw is not None:
                self._raw.close()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file: the request has been answered")

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, or all up to the end of the connection; less only there."""
        data = self._data
        pos = self._pos
        if size is None or size < 0:
            self._check()
            parts = [data[pos:]]
            self._pos = len(data)
            try:
                while self._fill():
                    parts.append(self._data)
                    self._pos = len(self._data)
            except BaseException:
                self._unread(parts)
                raise
            return b"".join(parts)
        end = pos + size
        if end <= len(data):
            self._check()
            self._pos = end
            return data[pos:end]
        return self._read_on(size)

    def _read_on(self, size: int) -> bytes:
        self._check()
        parts: list[bytes] = []
        try:
            while True:
                data = self._data
                part = data[self._pos : self._pos + size]
                self._pos += len(part)
                parts.append(part)
                size -= len(part)
                if not size or not self._fill():
                    return b"".join(parts)
        except BaseException:
            self._unread(parts)
            raise

    def _unread(self, parts: list[bytes]) -> None:
        """Whoever was to get these has been interrupted: they are the next ones again.

        Lost, they would be missing at the end of the body, where the next request begins.
        """
        parts.append(self._data[self._pos :])
        position = self._before + self._pos
        self._data = b"".join(parts)
        self._pos = 0
        self._before = position + len(parts[-1]) - len(self._data)

    def read1(self, size: int = -1, /) -> bytes:
        """Read up to ``size`` bytes, receiving at most once."""
        self._check()
        if self._pos == len(self._data) and size:
            self._fill()
        data = self._data
        end = len(data) if size < 0 else min(self._pos + size, len(data))
        part = data[self._pos : end]
        self._pos = end
        return part

    def peek(self, _size: int = 0, /) -> bytes:
        """What is unread, receiving at most once; stays unread."""
        self._check()
        if self._pos == len(self._data):
            self._fill()
        return self._data[self._pos :]

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to and with a line feed, but at most ``size`` bytes; less at the end of the connection."""
        self._check()
        limit = -1 if size is None else size
        parts: list[bytes] = []
        try:
            while True:
                data = self._data
                pos = self._pos
                stop = len(data) if limit < 0 else min(pos + limit, len(data))
                found = data.find(b"\n", pos, stop)
                end = found + 1 if found >= 0 else stop
                part = data[pos:end]
                self._pos = end
                if found >= 0 and not parts:
                    return part
                parts.append(part)
                if limit >= 0:
                    limit -= len(part)
                if found >= 0 or limit == 0 or not self._fill():
                    return b"".join(parts)
        except BaseException:
            self._unread(parts)
            raise

    # quicker than that of the base class
    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    # (what is not here, such as readinto() and readlines(), is made of these by the base classes)
