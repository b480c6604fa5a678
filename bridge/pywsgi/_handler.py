"""The handler of one connection.

Theory of operation
===================

A handler serves the requests of one connection, one after the other, in the greenlet of the connection.
gevent's handler is meant to be subclassed, and libraries (gevent-websocket, gevent-ws, ws4py, gunicorn)
override nearly every method and look at nearly every attribute in between. So the order of calls is
gevent's::

    handle                                for the connection
        handle_one_request                for each request
            (the head)                    read_requestline, read_request if one of them is overridden
            get_environ
            handle_one_response
                run_application
                    (the application)     start_response, write
                    process_result        write
                log_request

and the attributes have gevent's types where a subclass would look: ``status`` and ``response_headers`` are
bytes. What costs is not that frame (a microsecond) but what is done in it, and so

- the head is parsed from the bytes that one ``recv`` has brought (see :mod:`._request`); the file ``rfile``,
  which is its buffer, is only read line by line if a subclass overrides the reading of lines;
- ``headers``, a message object, is made if somebody looks at it;
- the head of the answer and its first block, or all of it if its length is known, go out in one ``send``.

*Where it ends.* ``close_connection`` says that the connection ends with this answer. Invariant: it is set
whenever it is not certain where the next request begins or that the client knows where this answer ends:
after errors, after an answer that is shorter than was promised, after an upgrade. If the client may still be
sending when the connection is closed, the kernel would answer with a reset that could make the client lose
the answer; so it is closed in two steps then (``_linger``).

*Errors of the socket* are those of the client who has gone, and not worth a line; but not those of sockets
that the application uses: an error counts as the client's if it came out of our own call, or after the head
of the answer had been sent (WebSocket libraries use the socket themselves).
"""

from __future__ import annotations

import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from .._core.clock import monotonic
from .._core.hub import get_hub
from .._sockets import socket
from ._answering import Answering
from ._environ import SecureEnviron
from ._errors import BadRequest, _InvalidClientInput, _InvalidClientRequest
from ._logs import _NoopLog, cached_log_date
from ._reader import RequestReader
from ._receiving import Receiving
from ._request import HeadParser

if TYPE_CHECKING:
    from ._server import WSGIServer

__all__ = ["WSGIHandler"]

_INTERNAL_ERROR_STATUS = "500 Internal Server Error"
_INTERNAL_ERROR_BODY = b"Internal Server Error"
_INTERNAL_ERROR_HEADERS = (
    ("Content-Type", "text/plain"),
    ("Connection", "close"),
    ("Content-Length", str(len(_INTERNAL_ERROR_BODY))),
)
_BAD_REQUEST_STATUS = "400 Bad Request"
_BAD_REQUEST_BODY = ""
_BAD_REQUEST_HEADERS = (("Content-Type", "text/plain"), ("Connection", "close"), ("Content-Length", "0"))

_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "Request URI Too Long",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}

#: What the handler answers by itself, by code: status, headers, body.
_ERRORS: dict[int, tuple[str, tuple[tuple[str, str], ...], Any]] = {
    code: (f"{code} {reason}", _BAD_REQUEST_HEADERS, _BAD_REQUEST_BODY) for code, reason in _REASONS.items()
}
_ERRORS[500] = (_INTERNAL_ERROR_STATUS, _INTERNAL_ERROR_HEADERS, _INTERNAL_ERROR_BODY)

_BAD_REQUEST_RESPONSE = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-length: 0\r\n\r\n"
_REQUEST_TOO_LONG_RESPONSE = (
    b"HTTP/1.1 414 Request URI Too Long\r\nConnection: close\r\nContent-length: 0\r\n\r\n"
)

#: Seconds and bytes that a client may go on sending after the last answer.
_LINGER = (2.0, 64 * 2**20)


def _simple_response(code: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\nConnection: close\r\nContent-length: 0\r\n\r\n" % (
        code,
        _REASONS[code].encode(),
    )


class WSGIHandler(Receiving, Answering):
    """Serves the requests of one connection; to be subclassed, as ``handler_class`` of the server.

    :param sock: the socket of the connection.
    :param address: the address of its other end.
    :param server: the :class:`WSGIServer`.
    :param rfile: a file to read requests from, in place of the socket.

    Its methods run in the greenlet of the connection, which they block. A subclass may override any of them,
    and may rely on the attributes of the class.
    """

    __module__ = __package__

    def __init__(self, sock: Any, address: Any, server: WSGIServer, rfile: Any = None) -> None:
        self.socket = sock
        self.client_address = address
        self.server = server
        self._parser = HeadParser()
        self._short_head = min(4096, server.max_header_size, server.max_request_line)
        kind = type(self)
        if rfile is None:
            self.rfile = RequestReader(sock)
            self._plain = (
                kind.read_requestline is Receiving.read_requestline
                and kind.read_request is Receiving.read_request
                and "rfile" not in kind.__dict__
            )
        else:
            self.rfile = rfile

    # -- the connection -----------------------------------------------------------------------------------

    def handle(self) -> None:
        """Serve requests until the connection ends, and close it."""
        try:
            while self.socket is not None:
                self.time_start = time.time()
                self.time_finish = 0
                result = self.handle_one_request()
                if result is True:
                    continue
                if result is not None:
                    self._answer_error(*result)
                break
        except BaseException:
            # killed: whoever did it waits for the end
            self._close(linger=False)
            raise
        self._close()

    def _answer_error(self, status: Any, body: bytes) -> None:
        """Send ``body``, a whole answer, and close."""
        self.status = self._orig_status = str(status)
        self._lingering = self._orig_status != "408"
        try:
            self.socket.sendall(body)
        except OSError:
            pass  # the client did not wait for it
        if not self.time_finish:
            self.time_finish = time.time()
        self.log_request()

    def _close(self, linger: bool = True) -> None:
        sock, self.socket = self.socket, None
        rfile, self.rfile = self.rfile, _CLOSED
        # what the application has kept of the request shall not keep the connection
        self.environ = self.result = self.wsgi_input = self.application = None
        self._request = self._message = self._socket_error = None
        try:
            if self._lingering is None and type(rfile) is RequestReader and rfile.available:
                self._lingering = True
            if self._lingering and linger and sock is not None:
                self._linger(sock)
        finally:
            if sock is not None:
                sock.close()
            rfile.close()

    def _linger(self, sock: Any) -> None:
        """Say that nothing more will come, and wait a little while for the client to read the answer."""
        if type(sock) is not socket:
            return  # to say so would be the end of TLS
        seconds, size = _LINGER
        try:
            sock.shutdown(1)
            deadline = monotonic() + seconds
            while size > 0:
                sock.settimeout(max(deadline - monotonic(), 0.001))
                data = sock.recv(65536)
                if not data:
                    break
                size -= len(data)
        except OSError:
            pass  # it has been closed at the other end, or the time is over

    # -- the request --------------------------------------------------------------------------------------

    def handle_one_request(self) -> Any:
        """Read one request, and answer it.

        Returns True if the connection stays open for the next one, None if it is to be closed, or a pair of a
        status and of the bytes of a whole answer, after which it is closed.
        """
        if self.rfile.closed:
            return None
        self._message = None
        self.response_length = 0
        try:
            if self._plain:
                request = self._read_head()
                if request is None:
                    return None
                self.time_start = time.time()
                self._take(request)
            else:
                line = self.read_requestline()
                if not line:
                    return None
                self.time_start = time.time()
                if isinstance(line, bytes):
                    line = line.decode("latin-1")
                self.requestline = line.rstrip("\r\n")
                if not self.read_request(line):
                    return "400", _BAD_REQUEST_RESPONSE
            self.environ = self.get_environ()
        except ValueError as e:  # our _InvalidClientRequest among them
            return self._handle_client_error(e)
        except OSError as e:
            self.close_connection = True
            if not isinstance(e, TimeoutError) and e.errno not in self.ignored_socket_errors:
                self.log_error("reading a request failed: %r", e)
            return None
        except Exception as e:
            self._print_unexpected_exc()
            return self._handle_client_error(e)
        self.application = self.server.application
        self.handle_one_response()
        # while the connection waits for the next request, it need not keep this one
        self.environ = self.wsgi_input = None
        if self.close_connection or self.rfile is None or self.rfile.closed:
            return None
        return True

    # -- the answer ---------------------------------------------------------------------------------------

    def handle_one_response(self) -> None:
        """Have the application make the answer, and send it; all errors end here."""
        self.time_start = time.time()
        self.status = self._orig_status = None
        self.headers_sent = False
        self.result = None
        self.response_use_chunked = False
        self.connection_upgraded = False
        self.response_length = 0
        self.code = None
        self.provided_date = self.provided_content_length = None
        self._length = self._whole = None
        self._written = 0
        self._head_only = self.command == "HEAD"
        try:
            self.run_application()
            self._finish_request()
        except _InvalidClientInput as e:
            self.log_error("Invalid request (from %s): %s", self.client_address, e)
            self._send_error_response_if_possible(e.status)
        except OSError as e:
            if e.errno in self.ignored_socket_errors and (e is self._socket_error or self.headers_sent):
                self.close_connection = True
            else:
                self.handle_error(*sys.exc_info())
        except BaseException:
            self.handle_error(*sys.exc_info())
        finally:
            if self._saved_timeout is not None:
                self._unlimit_body()
            if self.close_connection and self.wsgi_input is not None and self.wsgi_input._unread:
                self._lingering = self.code != 408
            self.time_finish = time.time()
            self.log_request()

    def _finish_request(self) -> None:
        """The answer has been sent: find out whether, and where, the next request begins."""
        if self._length is not None and self._written < self._length and not self._head_only:
            self.close_connection = True
            if self.code != 304:
                self.log_error(
                    "the application promised %s bytes and gave %s, so that the connection is closed: %r",
                    self._length,
                    self._written,
                    self.requestline,
                )
        body = self.wsgi_input
        if not self.headers_sent:
            self.close_connection = True  # gevent keeps the client waiting
            if self.environ.get("wsgi.input_terminated") is not False:
                # (who may use the connection itself need not: simple-websocket answers by the socket)
                self.log_error("the application did not call start_response(): %r", self.requestline)
        elif self.connection_upgraded:
            self.close_connection = True
        elif body is None or (not body.content_length and not body.chunked_input):
            if self.environ.get("wsgi.input_terminated") is False:
                # it could read what is not its own
                rfile = self.rfile
                if type(rfile) is not RequestReader or rfile.closed or rfile.position != self._position:
                    self.close_connection = True
        elif not self.close_connection:
            try:
                body._discard()
            except (OSError, ValueError):
                # the answer has been sent; what would be the next request is not to be trusted
                self.close_connection = True

    def run_application(self) -> None:
        """Call the application, and :meth:`process_result` with what it returns; close that in any case."""
        assert self.result is None, "run_application() is called for a request that has a result already"
        try:
            self.result = self.application(self.environ, self.start_response)
            self.process_result()
        finally:
            close = getattr(self.result, "close", None)
            # also what it refers to: a frame in a traceback would keep it
            self.result = None
            if close is not None:
                close()

    # -- errors -------------------------------------------------------------------------------------------

    def _send_error_response_if_possible(self, error_code: int) -> None:
        """Answer with an error, if nothing has been sent; close the connection in any case."""
        self.close_connection = True
        if self.response_length or self.headers_sent or self.socket is None:
            return
        status, headers, body = _ERRORS[error_code]
        self._whole = None
        try:
            self.start_response(status, list(headers))
            self.write(body)
        except OSError:
            pass  # the client has gone

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        """The application has raised: print that, unless it was killed, and answer with 500 if possible."""
        self.close_connection = True
        try:
            self._log_error(t, v, tb)
        finally:
            t = v = tb = None
            self._send_error_response_if_possible(500)

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        if issubclass(t, GreenletExit):
            return
        context = self.environ
        if not isinstance(context, SecureEnviron):
            # printed, an environ would show passwords
            context = self.server.secure_environ_class(context or {})
        get_hub().loop.handle_error(context, t, v, tb)

    def _handle_client_error(self, ex: Exception) -> tuple[str, bytes]:
        """The answer to what is no valid request."""
        self.close_connection = True
        if isinstance(ex, _InvalidClientRequest):
            self.log_error("(from %s) %s", self.client_address, ex.formatted_message)
        else:
            self.log_error("Invalid request (from %s): %s", self.client_address, str(ex) or type(ex).__name__)
        code = ex.status if isinstance(ex, BadRequest) else 400
        if code == 400:
            return "400", _BAD_REQUEST_RESPONSE
        return str(code), _simple_response(code)

    @staticmethod
    def _print_unexpected_exc() -> None:
        traceback.print_exc()

    # -- logs ---------------------------------------------------------------------------------------------

    def log_error(self, msg: str, *args: Any) -> None:
        """Write a line about the connection to the server's ``error_log``: ``msg % args``."""
        text = msg % args if args else msg
        try:
            self.server.error_log.write(f"{self.socket!r}: {text}\n")
        except Exception:
            # a log that fails is no reason to leave the client without an answer
            self._print_unexpected_exc()

    def log_request(self) -> None:
        """Write :meth:`format_request` to the server's ``log``."""
        log = self.server.log
        if type(log) is not _NoopLog:
            log.write(self.format_request() + "\n")

    def format_request(self) -> str:
        """The line for the access log: client, time, request line, status, bytes sent and seconds."""
        now = time.time()
        address = self.client_address
        client = address[0] if isinstance(address, tuple) else address
        line = self.requestline or ""
        if not line.isprintable():
            # control characters would be commands to the terminal on which the log is read
            line = line.encode("unicode_escape").decode("ascii")
        status = self._orig_status or self.status
        code = (
            "000" if not status else (status.decode("latin-1") if isinstance(status, bytes) else str(status))
        )
        code = code.split(" ", 1)[0]
        finish = self.time_finish or now
        return (
            f'{client or "-"} - - [{cached_log_date(now)}] "{line}" {code} '
            f"{self.response_length or '-'} {finish - self.time_start:.6f}"
        )


class _Closed:
    """What is left of ``rfile``."""

    closed = True

    def close(self) -> None:
        """Nothing."""


_CLOSED = _Closed()
