"""The attributes of a handler, which its parts share, and which subclasses look at."""

from __future__ import annotations

from errno import ECONNRESET, EPIPE
from typing import TYPE_CHECKING, Any

from ._input import Input
from ._request import HeadParser, Request

if TYPE_CHECKING:
    from ._server import WSGIServer

__all__ = ["HandlerState"]


class HandlerState:
    """See :class:`WSGIHandler`."""

    protocol_version = "HTTP/1.1"
    #: What is raised if the application does what it must not.
    ApplicationError: type[Exception] = AssertionError
    #: Numbers of the errors of a socket that say that the client has gone.
    ignored_socket_errors: tuple[int, ...] = (EPIPE, ECONNRESET)

    # -- of the connection
    socket: Any
    client_address: Any
    server: WSGIServer
    rfile: Any

    # -- of the request
    environ: Any = None
    application: Any = None
    requestline: str | None = None
    command: str | None = None
    path: str | None = None
    request_version: str | None = None
    #: size of the body in bytes, None if the request does not say
    content_length: int | None = 0
    wsgi_input: Input | None = None
    #: whether the connection ends with this answer
    close_connection: bool = False

    # -- of the answer
    #: what the application has given to start_response(), in latin-1; or text, for what the handler answers
    status: Any = None
    _orig_status: str | None = None
    #: pairs of bytes
    response_headers: Any = None
    #: the number in the status
    code: int | None = None
    #: the values of these headers, None if the application does not provide them
    provided_date: Any = None
    provided_content_length: Any = None
    headers_sent: bool = False
    #: whether the answer goes out in chunks
    response_use_chunked: bool = False
    #: whether the answer was 101: from then on the connection is the application's
    connection_upgraded: bool = False
    #: how many bytes have been sent, with the head
    response_length: int = 0
    #: the iterable that the application has returned
    result: Any = None
    time_start: float = 0.0
    time_finish: float = 0.0

    # -- not for others
    _request: Request | None = None
    _message: Any = None
    _head_only = False
    #: how many bytes of the body are to come in all, and how many have come
    _length: int | None = None
    _written = 0
    #: how many headers the application has given
    _provided = 0
    #: the size of a body that is there as a whole
    _whole: int | None = None
    #: the error of our own use of the socket
    _socket_error: BaseException | None = None
    #: whether the client may be sending something that will not be read; None if nobody has thought of it.
    #: False for slow ones: they have had their time
    _lingering: bool | None = None
    #: up to where the connection had been read when a request that may be upgraded began
    _position = 0
    _saved_timeout: Any = None
    #: whether this class reads requests as this module does
    _plain = False
    _parser: HeadParser
    #: heads up to this size keep to all limits
    _short_head: int

    if TYPE_CHECKING:

        def log_error(self, msg: str, *args: Any) -> None: ...
