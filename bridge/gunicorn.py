"""Workers for gunicorn: ``gunicorn -k bridge.gunicorn.BridgeWorker app:app``.

gunicorn's master starts processes, watches over them and replaces them; a worker is what runs in each of
them. These serve every connection in a greenlet, after ``monkey.patch_all()``, as gunicorn's own
``-k gevent`` does.

:class:`BridgeWorker` has requests parsed by :mod:`bridge.pywsgi`, and sees to gunicorn's settings around it:
three to four times as many requests a second as with gunicorn's own parser. Some settings are about that
parser itself, or about what only gunicorn has, as HTTP/2 and the PROXY protocol. If one of those is not at
its default, the worker serves everything by gunicorn's parser, as :class:`BridgeParserWorker` always does,
and says so in the log.

*Stopping.* On SIGTERM (a reload, or the end) a worker accepts nothing more, closes the connections on which
no request is under way, and waits for the others, up to ``graceful_timeout``. A connection on which a request
has been answered just now is left alone for a moment, as the next one may be on its way: that is answered,
and the client told that the connection ends. gunicorn's gevent worker looks once a second whether it is to
stop, and waits for all kept-alive connections to time out; here an event says so.

*Keep-alive.* A connection that waits for a request for longer than ``keepalive`` seconds is closed. A timer
for each wait would cost a fifth of what the request costs; so the worker, which has to tell the master that
it lives anyhow, looks through its connections then. As in gunicorn's workers the limit includes the time
until the head of the request is complete, so that nobody can keep a connection by sending it slowly.
"""

from __future__ import annotations

import _socket
import ipaddress
import logging
import os
import re
import socket as __socket__
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from time import time
from types import FrameType
from typing import Any

from greenlet import GreenletExit, getcurrent

from . import monkey
from ._core.clock import monotonic
from ._sockets import socket
from .event import Event
from .greenlet import Greenlet
from .hub import reinit
from .pool import Pool
from .pywsgi import LoggingLogAdapter, WSGIHandler, WSGIServer
from .pywsgi._errors import BadRequest
from .pywsgi._response import encode_header
from .server import StreamServer
from .timeout import Timeout

try:
    from gunicorn import config as gunicorn_config  # type: ignore[import-untyped]
    from gunicorn.http.wsgi import FileWrapper, base_environ  # type: ignore[import-untyped]
    from gunicorn.sock import ssl_context  # type: ignore[import-untyped]
    from gunicorn.workers.base_async import AsyncWorker  # type: ignore[import-untyped]
except ImportError as e:
    raise ImportError("bridge.gunicorn needs gunicorn, version 23 or newer: pip install gunicorn") from e

__all__ = ["BridgeParserWorker", "BridgeWorker"]

#: Seconds after an answer in which a client that has more to ask does so.
_JUST_NOW = 0.25

#: Does not wait, as the files of our sockets do not; and does not decrypt.
_receive: Any = _socket.socket.recv


class BridgeParserWorker(AsyncWorker):  # type: ignore[misc]
    """A worker that serves each connection in a greenlet, with gunicorn's own HTTP parser."""

    #: the listening sockets
    sockets: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._ended = Event()
        super().__init__(*args, **kwargs)

    @property
    def alive(self) -> bool:
        """False once the worker is to end. May be set in a signal handler."""
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive = value
        if value:
            self._ended.clear()
        else:
            self._ended.set()

    # -- the process --------------------------------------------------------------------------------------

    def patch(self) -> None:
        """Make the standard library, and the listening sockets, cooperative."""
        monkey.patch_all()
        self.sockets = [
            socket(s.FAMILY, __socket__.SOCK_STREAM, fileno=s.sock.detach()) for s in self.sockets
        ]

    def init_process(self) -> None:
        """Called in the process of the worker; returns when it is to end."""
        self.patch()
        reinit()
        super().init_process()

    def notify(self) -> None:
        """Tell the master that we live; end if it has died."""
        super().notify()
        if self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            sys.exit(0)

    # These three would block, or take locks: not in a signal handler, which may have interrupted anything.

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGQUIT, SIGINT: end at once."""
        Greenlet.spawn(super().handle_quit, sig, frame)

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        """SIGUSR1: reopen the log files."""
        Greenlet.spawn(super().handle_usr1, sig, frame)

    def run(self) -> None:
        """Serve until the worker is to end, and then what is under way."""
        ssl_args = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        servers = [self.make_server(s, Pool(self.worker_connections), ssl_args) for s in self.sockets]
        for server in servers:
            if ssl_args:
                # nobody shall keep a place among the connections by not going on with the handshake
                server.handshake_timeout = self.cfg.timeout or None
                server.wrap_socket = partial(self._wrap, server.wrap_socket)
            server.start()
        # seconds between two signs of life; the master expects one in self.timeout
        interval = min(1.0, self.timeout / 2 or 1.0, self.cfg.keepalive / 2 or 1.0)
        while self.alive:
            self.notify()
            if self.cfg.keepalive:
                for server in servers:
                    self.close_idle(server, self.cfg.keepalive, True)
            self._ended.wait(interval)
        for server in servers:
            server.close()
        deadline = monotonic() + self.cfg.graceful_timeout
        while any(server.pool for server in servers):
            left = deadline - monotonic()
            if left <= 0:
                self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                for server in servers:
                    server.stop(timeout=0)
                break
            self.notify()
            for server in servers:
                self.close_idle(server, _JUST_NOW, False)
            busy = next((server.pool for server in servers if server.pool), None)
            if busy is not None:
                busy.join(timeout=min(_JUST_NOW, left))

    # -- serving ------------------------------------------------------------------------------------------

    def make_server(self, listener: socket, pool: Pool, ssl_args: dict[str, Any]) -> StreamServer:
        """The server for one listening socket."""
        handle = partial(self.handle, _Listener(listener.getsockname()))
        server = StreamServer(listener, handle=handle, spawn=pool, **ssl_args)
        if self.cfg.workers > 1:
            server.max_accept = 1  # leave something for the others
        return server

    def _wrap(self, wrap_socket: Callable[..., Any], client: Any, **ssl_args: Any) -> Any:
        try:
            return wrap_socket(client, **ssl_args)
        except OSError as e:
            # whoever looks for open ports shall not fill the log
            self.log.debug("TLS handshake failed: %s", e)
            raise GreenletExit from None

    def close_idle(self, server: StreamServer, seconds: float, begun: bool) -> None:
        """End the connections that have waited for a request for so long, if that has to be done here.

        :param begun: even if some of it has come.
        """

    def timeout_ctx(self) -> Timeout:
        """The time limit for the next request on a connection."""
        return Timeout(self.cfg.keepalive, False)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection. Blocks its greenlet."""
        client.setblocking(True)  # whatever the default time limit is
        super().handle(listener, client, addr)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Serve a request."""
        try:
            return super().handle_request(listener_name, req, sock, addr)
        except (GreenletExit, SystemExit):
            return None  # of this greenlet only


class _Listener:
    """What gunicorn asks of a listening socket, which may be closed when a connection gets its turn."""

    def __init__(self, address: Any) -> None:
        self.address = address

    def getsockname(self) -> Any:
        """The address that it had."""
        return self.address


class BridgeWorker(BridgeParserWorker):
    """A worker that serves each connection in a greenlet, with the parser of :mod:`bridge.pywsgi`."""

    #: Settings that only gunicorn's parser has, and the values that mean the same without it.
    parser_settings: dict[str, tuple[Any, ...]] = {  # noqa: RUF012
        "casefold_http_method": (False,),
        "forwarder_headers": (["SCRIPT_NAME", "PATH_INFO"], "SCRIPT_NAME,PATH_INFO"),
        "header_map": ("drop",),
        "http2_cleartext": ("off",),
        "http_parser": ("auto",),
        "http_protocols": ("h1", ["h1"]),
        "permit_obsolete_folding": (False,),
        "permit_unconventional_http_method": (False,),
        "permit_unconventional_http_version": (False,),
        "protocol": ("http",),
        "proxy_protocol": ("off", False),
        "strip_header_spaces": (False,),
    }

    def make_server(self, listener: socket, pool: Pool, ssl_args: dict[str, Any]) -> StreamServer:
        """The server for one listening socket."""
        reasons = self._reasons_for_gunicorn_s_parser()
        if reasons:
            self.log.info("Requests are parsed by gunicorn, not by bridge, for these settings: %s", reasons)
            return super().make_server(listener, pool, ssl_args)
        return _Server(self, listener, pool, ssl_args)

    def _reasons_for_gunicorn_s_parser(self) -> str:
        settings = self.cfg.settings
        return ", ".join(
            name
            for name, values in self.parser_settings.items()
            if name in settings and settings[name].get() not in values
        )

    def close_idle(self, server: StreamServer, seconds: float, begun: bool) -> None:
        """End the connections that have waited for a request for so long."""
        if isinstance(server, _Server):
            server.close_idle(seconds, begun)


class _Server(WSGIServer):
    """bridge's server with gunicorn's settings."""

    def __init__(self, worker: BridgeWorker, listener: socket, pool: Pool, ssl_args: dict[str, Any]) -> None:
        cfg = worker.cfg
        self.worker = worker
        self.handlers: set[_Handler] = set()
        environ = base_environ(cfg)
        if cfg.sendfile is False:
            environ["wsgi.file_wrapper"] = FileWrapper
        else:
            del environ["wsgi.file_wrapper"]  # bridge's, which has the kernel send files
        environ["wsgi.multithread"] = True
        environ["SCRIPT_NAME"] = os.environ.get("SCRIPT_NAME", "")
        address = listener.getsockname()
        if isinstance(address, tuple):
            environ["SERVER_NAME"], environ["SERVER_PORT"] = address[0], str(address[1])
        super().__init__(
            listener,
            worker.wsgi,
            spawn=pool,
            log=None,
            error_log=LoggingLogAdapter(worker.log, logging.WARNING),
            environ=environ,
            **ssl_args,
        )
        self.max_header_fields = cfg.limit_request_fields or sys.maxsize
        self.limit_line = cfg.limit_request_line or sys.maxsize
        self.limit_field = cfg.limit_request_field_size or sys.maxsize
        self.keeps_alive = bool(cfg.keepalive)
        self.secure = [
            (f"HTTP_{name.upper().replace('-', '_')}", value)
            for name, value in cfg.secure_scheme_headers.items()
        ]
        self.trusted = _Addresses(cfg.forwarded_allow_ips)
        self.pre_request = cfg.pre_request
        if self.pre_request is gunicorn_config.PreRequest.default and not _says_debug(worker.log):
            self.pre_request = None  # it would write a line that nobody reads
        self.post_request = cfg.post_request
        if self.post_request is gunicorn_config.PostRequest.default:
            self.post_request = None
        # (before gunicorn 24 only the logger itself knows)
        self.access_log = getattr(worker.log, "access_log_enabled", True)
        self.handler_class = _TellingHandler if self.access_log or self.post_request else _Handler

    def close_idle(self, seconds: float, begun: bool) -> None:
        """Kill the handlers that have waited so long for a request; ``begun``: though some of it has come."""
        latest = time() - seconds
        for handler in tuple(self.handlers):
            if handler.environ is None and handler.time_start <= latest:
                if (begun or not handler.rfile.available) and not _has_input(handler.socket):
                    handler.greenlet.kill(block=False)


def _has_input(sock: Any) -> bool:
    """True if something has come that nobody has received: to close now would make it an error there."""
    try:
        return bool(_receive(sock, 1, __socket__.MSG_PEEK))
    except OSError:
        return False


def _says_debug(log: Any) -> bool:
    return bool(log.error_log.isEnabledFor(logging.DEBUG))


class _Addresses:
    """Addresses and networks of proxies that may say who the client is."""

    def __init__(self, allowed: list[str]) -> None:
        self.all = "*" in allowed
        self.networks = [] if self.all else [ipaddress.ip_network(a, strict=False) for a in allowed]

    def __contains__(self, address: Any) -> bool:
        if self.all or not isinstance(address, tuple):
            return True  # who reaches a Unix socket is let in by its permissions
        try:
            ip = ipaddress.ip_address(address[0].partition("%")[0])
        except ValueError:
            return False
        return any(ip in network for network in self.networks)


_SCRIPT_NAME = re.compile(rb"\r\nscript_name:[ \t]*([^\r\n]*)", re.IGNORECASE)


class _Handler(WSGIHandler):
    """bridge's handler with gunicorn's settings."""

    server: _Server
    greenlet: Any = None

    def handle(self) -> None:
        self.greenlet = getcurrent()
        self._trusted = self.client_address in self.server.trusted
        handlers = self.server.handlers
        handlers.add(self)
        try:
            super().handle()
        finally:
            handlers.discard(self)

    def get_environ(self) -> Any:
        env = super().get_environ()
        server = self.server
        request = self._request
        assert request is not None
        if len(request.line) > server.limit_line:
            raise BadRequest(f"the request line has more than {server.limit_line} bytes", 414)
        head = request.head
        if len(head) > server.limit_field:
            for line in head.split(b"\r\n")[1:]:
                if len(line) + 2 > server.limit_field:
                    raise BadRequest(f"a header field has more than {server.limit_field} bytes", 431)
        if self._trusted:
            scheme = None
            for key, value in server.secure:
                if key in env:
                    says = "https" if env[key] == value else "http"
                    if scheme is not None and says != scheme:
                        raise BadRequest("the headers that say whether the client has used https disagree")
                    env["wsgi.url_scheme"] = scheme = says
            if b"_" in head:
                match = _SCRIPT_NAME.search(head)
                if match is not None:
                    env["SCRIPT_NAME"] = match[1].decode("latin-1").rstrip(" \t")
        script = env["SCRIPT_NAME"]
        if script:
            path = env["PATH_INFO"]
            if not path.startswith(script):
                raise BadRequest(f"the path {path!r} does not start with SCRIPT_NAME {script!r}", 500)
            env["PATH_INFO"] = path[len(script) :]
        if not isinstance(self.client_address, tuple):
            # a Unix socket; the host that was asked for makes sense to more applications than its path
            env["REMOTE_ADDR"] = ""
            name, _colon, port = env.get("HTTP_HOST", "").partition(":")
            env["SERVER_NAME"] = name
            env["SERVER_PORT"] = port or ("443" if env["wsgi.url_scheme"] == "https" else "80")
        env["RAW_URI"] = self.path
        env["gunicorn.socket"] = self.socket
        env["wsgi.early_hints"] = self.send_early_hints
        return env

    def send_early_hints(self, headers: Any) -> None:
        """``wsgi.early_hints``: send an informational answer (103) with ``headers``, unless it is late."""
        if self.headers_sent or self.request_version != "HTTP/1.1" or self.socket is None:
            return
        lines = [b"HTTP/1.1 103 Early Hints"]
        for name, value in headers:
            name = name.decode("latin-1") if isinstance(name, bytes) else name
            value = value.decode("latin-1") if isinstance(value, bytes) else value
            encoded, data, _kind = encode_header(name, value)
            lines.append(encoded + b": " + data)
        self._sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        self.response_length = 0

    def handle_one_response(self) -> None:
        server = self.server
        worker = server.worker
        if server.pre_request is not None:
            try:
                server.pre_request(worker, _Request(self))
            except Exception:
                worker.log.exception("Exception in pre_request hook")
                self._send_error_response_if_possible(500)
                return
        worker.nr += 1
        if worker.nr >= worker.max_requests and worker._alive:
            worker.log.info("Autorestarting worker after current request.")
            worker.alive = False
        if not worker._alive or not server.keeps_alive:
            self.close_connection = True
        super().handle_one_response()

    def run_application(self) -> None:
        try:
            super().run_application()
        except StopIteration:
            # what libraries raise that have answered, by gunicorn.socket, for the connection to be closed
            self.close_connection = self.connection_upgraded = self.headers_sent = True

    def finalize_headers(self) -> None:
        self.response_headers.append((b"Server", b"gunicorn"))
        super().finalize_headers()

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        if not issubclass(t, GreenletExit):
            log = self.server.worker.log
            log.error("Error handling request %s %s", self.command, self.path, exc_info=(t, v, tb))

    def log_request(self) -> None:
        """Nothing: see _TellingHandler."""


class _TellingHandler(_Handler):
    """With an access log, or a hook that wants to know about the answer."""

    body_sent = 0

    def handle_one_response(self) -> None:
        self.body_sent = 0
        hook = self.server.post_request
        if hook is None:
            super().handle_one_response()
            return
        try:
            super().handle_one_response()
        finally:
            worker = self.server.worker
            try:
                hook(worker, _Request(self), self.environ, _Response(self))
            except Exception:
                worker.log.exception("Exception in post_request hook")

    def _write(self, data: Any, before: bytes = b"") -> None:
        super()._write(data, before)
        if not self._head_only:
            self.body_sent += len(data)

    def log_request(self) -> None:
        server = self.server
        if server.access_log and self.environ is not None:
            took = timedelta(seconds=max(self.time_finish - self.time_start, 0))
            server.worker.log.access(_Response(self), _Request(self), self.environ, took)


class _Request:
    """What gunicorn's hooks and its access log get as a request."""

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler
        self.method = handler.command
        self.uri = handler.path
        self.peer_addr = self.remote_addr = handler.client_address

    @property
    def path(self) -> str:
        """The path, as it was sent."""
        return str(self.uri).partition("?")[0]

    @property
    def query(self) -> str:
        """The part after the question mark."""
        return str(self.uri).partition("?")[2]

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The header fields, with names in capitals."""
        return [(name.upper(), value) for name, value in self._handler.headers.items()]

    @property
    def version(self) -> tuple[int, ...]:
        """The version of HTTP."""
        return (1, 0) if self._handler.request_version == "HTTP/1.0" else (1, 1)

    @property
    def body(self) -> Any:
        """The file that the body is read from."""
        return self._handler.wsgi_input


class _Response:
    """What gunicorn's hooks and its access log get as an answer."""

    def __init__(self, handler: _Handler) -> None:
        status = handler.status
        self.status = status.decode("latin-1") if isinstance(status, bytes) else status
        self.status_code = handler.code
        self.headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in handler.response_headers or ()
            if isinstance(name, bytes)
        ]
        self.headers_sent = handler.headers_sent
        self.response_length = handler._length
        self.sent = getattr(handler, "body_sent", 0)
