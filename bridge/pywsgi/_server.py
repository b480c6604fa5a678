"""The server."""

from __future__ import annotations

import logging
import socket as __socket__
import sys
from collections.abc import Callable
from typing import Any, ClassVar

from .._core.errors import BlockingSwitchOutError
from .._names import getfqdn
from ..server import StreamServer
from ._environ import WSGISecureEnviron
from ._handler import WSGIHandler
from ._input import MAX_REQUEST_LINE
from ._logs import log_to
from ._response import FileWrapper

__all__ = ["WSGIServer"]

_TCP = frozenset({__socket__.AF_INET, getattr(__socket__, "AF_INET6", __socket__.AF_INET)})


class WSGIServer(StreamServer):
    """Serves a WSGI application by HTTP/1.1, with or without TLS.

    :param listener: an address or a listening socket, see :class:`bridge.baseserver.BaseServer`.
    :param application: the application; a subclass may have it as an attribute instead.
    :param backlog: how many connections may wait to be accepted, 128 by default.
    :param spawn: how connections are served, see :class:`bridge.baseserver.BaseServer`. A pool limits how
        many there are at a time, kept-alive ones included. Not None.
    :param log: where to write a line for each request: an object with a method ``write``, or a logger (INFO).
        By default ``sys.stderr``; None for nowhere.
    :param error_log: the same for errors (ERROR); ``wsgi.errors`` of each request.
    :param handler_class: a subclass of :class:`WSGIHandler`.
    :param environ: what is to be in the environ of each request besides.
    :param ssl_args: as for :class:`bridge.server.StreamServer`.

    The limits are attributes, to be set on the server or in a subclass. By default time is not limited, as in
    gevent; a server that is reached from outside without a proxy in front should have limits.
    """

    #: What serves a connection.
    handler_class: Any = WSGIHandler
    #: Where lines about requests go; nowhere, if it is made with None.
    log: Any = None
    #: Where errors go.
    error_log: Any = None
    #: The class of each request's environ: a subclass of dict.
    environ_class: Any = dict
    #: What an environ is made into to be printed with an error.
    secure_environ_class: Any = WSGISecureEnviron
    #: The application.
    application: Any = None

    #: Bytes that a request line may have; a longer one is answered with 414.
    max_request_line: int = MAX_REQUEST_LINE
    #: Bytes that all header fields of a request may have together; more is answered with 431.
    max_header_size: int = 65536
    #: How many header fields a request may have; more is answered with 431.
    max_header_fields: int = 100
    #: Bytes that the body of a request may have; more is answered with 413. None: no limit.
    max_body_size: int | None = None
    #: Seconds that a connection is kept open without a request; None for no limit.
    keepalive_timeout: float | None = None
    #: Seconds from the first byte of a request to the end of its head; then 408. None for no limit.
    header_timeout: float | None = None
    #: Seconds to wait for each part of a request's body, and for room to send; then 408. None for no limit.
    body_timeout: float | None = None

    #: What is in every environ.
    base_env: ClassVar[dict[str, Any]] = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        # begins as in gevent: there are libraries that look for that
        "SERVER_SOFTWARE": f"gevent/20.0 Python/{sys.version_info[0]}.{sys.version_info[1]}",
        "SCRIPT_NAME": "",
        "wsgi.version": (1, 0),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }

    #: What the environ of each request begins with.
    environ: dict[str, Any]

    def __init__(
        self,
        listener: Any,
        application: Callable[..., Any] | None = None,
        backlog: int | None = None,
        spawn: Any = "default",
        log: Any = "default",
        error_log: Any = "default",
        handler_class: Any = None,
        environ: dict[str, Any] | None = None,
        **ssl_args: Any,
    ) -> None:
        # a function to be called for each connection may be passed as in the base class, though it is of no
        # use
        handle = ssl_args.pop("handle", None)
        super().__init__(listener, handle=handle, backlog=backlog, spawn=spawn, **ssl_args)
        if application is not None:
            self.application = application
        if handler_class is not None:
            self.handler_class = handler_class
        # looked up now: it may have been replaced since this module was imported
        self.log = log_to(sys.stderr if log == "default" else log, logging.INFO)
        self.error_log = log_to(sys.stderr if error_log == "default" else error_log, logging.ERROR)
        self.set_environ(environ)
        self.set_max_accept()

    def set_environ(self, environ: dict[str, Any] | None = None) -> None:
        """Make :attr:`environ` anew: what is in every one, and ``environ``, or else what was in it before."""
        added = getattr(self, "environ", None) if environ is None else environ
        self.environ = made = self.environ_class(self.base_env)
        made["wsgi.url_scheme"] = "https" if self.ssl_enabled else "http"
        if added is not None:
            made.update(added)
        if made.get("wsgi.errors") is None:
            made["wsgi.errors"] = self.error_log

    def set_max_accept(self) -> None:
        """Accept one connection at a time if there are other processes to leave some for."""
        if self.environ.get("wsgi.multiprocess"):
            self.max_accept = 1

    def get_environ(self) -> Any:
        """A new environ, with what is the same in all of them."""
        return self.environ_class(self.environ)

    def init_socket(self) -> None:
        """Bind to the address, if one was given, and listen. Called by :meth:`start`."""
        super().init_socket()
        sock = self.socket
        if sock.family in _TCP and sock.type == __socket__.SOCK_STREAM:
            # Inherited by the connections: an answer in several parts, and the last part of any, is not to
            # wait until the client acknowledges what came before.
            sock.setsockopt(__socket__.IPPROTO_TCP, __socket__.TCP_NODELAY, 1)
        self.update_environ()

    def update_environ(self) -> None:
        """Add what is known when the server listens: its name and its port."""
        address = self.address
        if isinstance(address, tuple):
            name = address[0]
            if "SERVER_NAME" not in self.environ:
                try:
                    name = getfqdn(name)
                except BlockingSwitchOutError:
                    pass  # started in a coroutine: no reason to look up names
                self.environ["SERVER_NAME"] = name
            self.environ.setdefault("SERVER_PORT", str(address[1]))
        else:
            self.environ.setdefault("SERVER_NAME", "")
            self.environ.setdefault("SERVER_PORT", "")

    def handle(self, sock: Any, address: Any) -> None:
        """Serve a connection by an instance of :attr:`handler_class`. Blocks its greenlet."""
        self.handler_class(sock, address, self).handle()
