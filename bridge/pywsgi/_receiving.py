"""How a handler reads a request."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from urllib.parse import unquote

from .._core.clock import monotonic
from ._errors import BadRequest
from ._input import Input
from ._message import headers_factory
from ._reader import RequestReader
from ._request import Request, split_absolute
from ._state import HandlerState

__all__ = ["Receiving"]


class Receiving(HandlerState):
    """The part of :class:`WSGIHandler` that reads requests."""

    def _read_head(self) -> Request | None:
        """Wait for a request and read its head. None at the end of the connection."""
        reader: RequestReader = self.rfile
        server = self.server
        try:
            if not reader.wait_for_request(server.keepalive_timeout):
                return None
        except TimeoutError:
            return None  # nothing has been asked, so nothing is answered
        head = reader.take_head()
        try:
            if head is not None and len(head) <= self._short_head and head[0] != 13:
                return self._parser.parse(head, server.max_header_fields)
            if head is not None:
                reader.give_back(len(head))
                head = None
            return self._read_long_head(reader)
        except BadRequest:
            line, end, _ = (reader.unread if head is None else head).partition(b"\r\n")
            if not end or len(line) > 200:
                line = line[:200] + b"..."
            self.requestline = line.decode("latin-1")
            raise

    def _read_long_head(self, reader: RequestReader) -> Request | None:
        """As :meth:`_read_head`, for one that is not there yet, or is long, or begins with an empty line."""
        server = self.server
        seconds = server.header_timeout
        deadline = None if seconds is None else monotonic() + seconds
        longest = server.max_request_line
        empty = 0
        while True:
            # empty lines before the request are to be forgiven (RFC 9112, 2.2)
            empty += reader.skip_empty_lines()
            if empty > 8:
                raise BadRequest("too many empty lines before the request")
            if reader.available > longest and reader.find(b"\r\n", longest + 2) < 0:
                raise BadRequest("the request line is too long", 414)
            size = reader.find(b"\r\n\r\n", server.max_header_size + longest)
            if size < 0:
                size = reader.available
            if size > server.max_header_size + max(reader.find(b"\r\n", size), 0):
                raise BadRequest("the header fields are too large", 431)
            head = reader.take_head()
            if head is not None:
                try:
                    return self._parser.parse(head, server.max_header_fields)
                except BadRequest:
                    reader.give_back(len(head))  # for the log
                    raise
            if reader.available:
                self._parser.check_part(reader.unread)
            if not reader.receive(deadline):
                if reader.available:
                    raise BadRequest("the connection ended in the head of a request")
                return None

    def read_requestline(self) -> str | None:
        """Read the request line. Called only in a subclass that overrides this or :meth:`read_request`.

        Returns it with its end, nothing at the end of the connection.
        """
        line: bytes = self.rfile.readline(self.server.max_request_line + 2)
        if len(line) > self.server.max_request_line and not line.endswith(b"\r\n"):
            self.requestline = line[:200].decode("latin-1") + "..."
            raise BadRequest("the request line is too long", 414)
        return line.decode("latin-1")

    def read_request(self, raw_requestline: str) -> bool:
        """Parse the request line, then read and parse the header fields.

        Sets ``headers``, ``command``, ``path``, ``request_version``, ``content_length`` and
        ``close_connection``. Returns true; ValueError if the request is not valid, which needs no traceback.
        """
        self.requestline = raw_requestline.rstrip("\r\n")
        lines = [raw_requestline.encode("latin-1")]
        left = self.server.max_header_size
        readline = self.rfile.readline
        while True:
            line = readline(left + 1)
            lines.append(line)
            left -= len(line)
            if left < 0:
                raise BadRequest("the header fields are too large", 431)
            if line == b"\r\n":
                break
            if not line.endswith(b"\r\n"):
                raise BadRequest("a line that does not end with CRLF, or no end of the header fields")
        self._take(self._parser.parse(b"".join(lines), self.server.max_header_fields))
        return True

    def _take(self, request: Request) -> None:
        """Set the attributes that say what is in the request."""
        self._request = request
        self._message = None
        self.requestline = request.line
        self.command = request.method
        self.path = request.target
        self.request_version = request.version
        self.content_length = request.content_length
        self.close_connection = request.close

    def MessageClass(self, *args: Any) -> Any:
        """Make ``headers`` from a file; may be overridden, by a class, too."""
        return headers_factory(*args)

    @property
    def headers(self) -> Any:
        """The header fields of the request as a message object, made when it is looked at."""
        if self._message is None:
            request = self._request
            head = b"\r\n\r\n" if request is None else request.head
            self._message = self.MessageClass(BytesIO(head[head.index(b"\n") + 1 :]), 0)
        return self._message

    @headers.setter
    def headers(self, value: Any) -> None:
        self._message = value

    def get_environ(self) -> Any:
        """Return the environ of the request: what the server has for all, and what is in this one."""
        request = self._request
        assert request is not None, "get_environ() is called before a request has been read"
        env = self.server.get_environ()
        fields = request.fields
        env.update(fields)  # (a copy: requests are shared)
        # a subclass may have set these attributes to something else
        target = str(self.path)
        if target[:1] != "/" and "://" in target and self.command != "CONNECT":
            # RFC 9112, 3.2.2: what the target says counts, not the field
            env["HTTP_HOST"], target = split_absolute(target)
        path, _question, query = target.partition("?")
        env["PATH_INFO"] = unquote(path, "latin-1") if "%" in path else path
        env["QUERY_STRING"] = query
        env["REQUEST_METHOD"] = self.command
        env["SERVER_PROTOCOL"] = version = self.request_version
        address = self.client_address
        if isinstance(address, tuple):
            env["REMOTE_ADDR"] = str(address[0])
            env["REMOTE_PORT"] = str(address[1])
        # (RFC 9110, 10.1.1: not without a body, nor in HTTP/1.0)
        expects = (
            "HTTP_EXPECT" in fields
            and version == "HTTP/1.1"
            and bool(request.content_length or request.chunked)
        )
        self.wsgi_input = body = Input(
            self.rfile,
            request.content_length,
            self.socket if expects and fields["HTTP_EXPECT"].lower() == "100-continue" else None,
            request.chunked,
        )
        env["wsgi.input"] = body
        # the application may read to the end, whether it knows the length or not
        env["wsgi.input_terminated"] = True
        if request.content_length or request.chunked:
            self._limit_body(request, body)
        elif (
            "HTTP_UPGRADE" in fields or "HTTP_CONNECTION" in fields
        ) and self._connection_upgrade_requested():
            # who upgrades reads what comes after the head
            env["wsgi.input"] = rfile = self.rfile
            env["wsgi.input_terminated"] = False
            self._position = rfile.position if type(rfile) is RequestReader else 0
        return env

    def _limit_body(self, request: Request, body: Input) -> None:
        """Apply the limits that the server has for bodies."""
        server = self.server
        most = server.max_body_size
        if most is not None:
            if request.content_length is not None and request.content_length > most:
                raise BadRequest("the body of the request is too large", 413)
            body._limit = most
        seconds = server.body_timeout
        if seconds is not None and self._plain:
            self._saved_timeout = (self.socket.gettimeout(),)
            self.socket.settimeout(seconds)
            self.rfile.limited = True

    def _unlimit_body(self) -> None:
        (before,) = self._saved_timeout
        self._saved_timeout = None
        self.rfile.limited = False
        if self.socket is not None:
            self.socket.settimeout(before)

    def _connection_upgrade_requested(self) -> bool:
        """True if the client asks for another protocol."""
        if self._request is None or self.request_version == "HTTP/1.0":
            return False
        fields = self._request.fields
        # Not if it is one option among others: that is an offer of HTTP/2 (curl), which nobody here accepts.
        return (
            fields.get("HTTP_UPGRADE", "").lower() == "websocket"
            or fields.get("HTTP_CONNECTION", "").lower() == "upgrade"
        )
