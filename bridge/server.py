"""Servers for TCP, TLS and Unix sockets, and for UDP; twin of :mod:`gevent.server`."""

from __future__ import annotations

import _socket
import errno
import os
import socket as __socket__
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from types import CoroutineType
from typing import Any

from ._aio.awaiting import await_
from ._sockets import socket as GeventSocket
from .baseserver import BaseServer, remove_stale
from .lock import Semaphore

__all__ = ["DatagramServer", "StreamServer"]

_c_accept: Callable[[Any], tuple[int, Any]] = _socket.socket._accept  # type: ignore[attr-defined]
_CSocket = _socket.socket

_AF_INET = int(__socket__.AF_INET)
_AF_INET6 = int(getattr(__socket__, "AF_INET6", -1))
_AF_UNIX = int(getattr(__socket__, "AF_UNIX", -1))

#: On Windows the option would let others take the port.
DEFAULT_REUSE_ADDR: int | None = None if sys.platform == "win32" else 1

#: Errors of a connection that broke before it was accepted; accept(2) says to go on with the next one.
_NEXT_PLEASE = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "EPROTO",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "ENETUNREACH",
    )
    if hasattr(errno, name)
)

#: As much as an UDP datagram can hold.
_DATAGRAM_SIZE = 65535


class StreamServer(BaseServer):
    """A TCP server: calls ``handle(socket, address)`` for each connection.

    :param listener: an address or a listening socket, see :class:`bridge.baseserver.BaseServer`.
    :param handle: the function; a subclass may define a method ``handle`` instead.
    :param backlog: how many connections may wait to be accepted, 128 by default; TypeError with a socket,
        which listens already.
    :param spawn: how the function is run, see :class:`bridge.baseserver.BaseServer`.
    :param ssl_args: if there are any, the connections are encrypted: ``ssl_context``, an ``SSLContext``, and
        the arguments of its ``wrap_socket()``; or those of :func:`bridge.ssl.wrap_socket` (``keyfile``,
        ``certfile``, ``cert_reqs``, ``ca_certs``, ``ciphers`` ...).

    The TLS handshake is made in the greenlet of the connection, so that a slow client keeps nobody waiting.
    """

    #: How many connections may wait to be accepted.
    backlog: int = 128
    #: Whether to set SO_REUSEADDR: to start again at once, though old connections linger.
    reuse_addr: int | bool | None = DEFAULT_REUSE_ADDR
    #: Whether to set SO_REUSEPORT: several processes listen at one port, and share its connections.
    reuse_port: bool = False
    #: Seconds for the TLS handshake; None for no limit, as in gevent.
    handshake_timeout: float | None = None

    #: Called with a connection and :attr:`ssl_args`; returns a socket with TLS.
    wrap_socket: Callable[..., Any]
    #: Arguments for :attr:`wrap_socket`; None without TLS.
    ssl_args: dict[str, Any] | None = None

    _unix_file: tuple[int, str, int, int] | None = None

    def __init__(
        self,
        listener: Any,
        handle: Callable[..., Any] | None = None,
        backlog: int | None = None,
        spawn: Any = "default",
        **ssl_args: Any,
    ) -> None:
        if ssl_args:
            self._init_ssl(ssl_args)
        super().__init__(listener, handle=handle, spawn=spawn)
        if backlog is not None:
            if hasattr(self, "socket"):
                raise TypeError(
                    f"{type(self).__name__}(backlog={backlog!r}): backlog must be None when a socket "
                    "instance is passed; it listens already: call socket.listen(backlog)"
                )
            self.backlog = backlog

    def _init_ssl(self, ssl_args: dict[str, Any]) -> None:
        # TLS is loaded only by who uses it
        from ._sslcontext import SSLContext, orig_SSLContext
        from ._sslsocket import SSLSocket

        ssl_args.setdefault("server_side", True)
        if "ssl_context" in ssl_args:
            context = ssl_args.pop("ssl_context")
            if not hasattr(context, "wrap_socket"):
                raise TypeError(
                    f"{type(self).__name__}(ssl_context={context!r}): an SSLContext is expected; leave the "
                    "argument out for a server without TLS"
                )
            if isinstance(context, orig_SSLContext) and not isinstance(context, SSLContext):
                # one of the standard library's, whose sockets would block the thread
                self.wrap_socket = partial(SSLSocket._create, context=context)
            else:
                self.wrap_socket = context.wrap_socket
        else:
            from .ssl import wrap_socket

            self.wrap_socket = wrap_socket
        self.ssl_args = ssl_args

    @property
    def ssl_enabled(self) -> bool:
        """True with TLS."""
        return self.ssl_args is not None

    # -- the listening socket -----------------------------------------------------------------------------

    def init_socket(self) -> None:
        """Bind to the address, if one was given, and listen. Called by :meth:`start`."""
        if not hasattr(self, "socket"):
            self.socket = self._open()
            self.family = int(self.socket.family)
            self.address = self.socket.getsockname()
            if self.family == _AF_UNIX:
                self._remember_file()
        sock = self.socket
        if not isinstance(sock, GeventSocket):
            # another process may take the connection that we were told of: accept() must never wait
            sock.setblocking(False)
        self._client_type = (int(sock.family), int(sock.type), int(sock.proto))

    def _open(self) -> Any:
        try:
            return self.get_listener(self.address, self.backlog, self.family)
        except OSError as e:
            if self.family != _AF_INET6 or self.address[0] or e.errno != errno.EAFNOSUPPORT:
                raise
        # "all interfaces" of a host without IPv6
        return self.get_listener(self.address, self.backlog, _AF_INET)

    @classmethod
    def get_listener(cls, address: Any, backlog: int | None = None, family: int | None = None) -> Any:
        """Return a socket that listens at ``address``. OSError if it can't be bound. Does not block.

        :param backlog: how many connections may wait to be accepted; by default :attr:`backlog`.
        :param family: the address family; by default AF_INET.
        """
        if backlog is None:
            backlog = cls.backlog
        return _tcp_listener(address, backlog, cls.reuse_addr, family, cls.reuse_port)

    def _remember_file(self) -> None:
        path = self.address
        if path and isinstance(path, str):  # not a name in Linux's abstract namespace
            info = os.stat(path)
            self._unix_file = (os.getpid(), path, info.st_dev, info.st_ino)

    def _close_listener(self, sock: Any) -> None:
        super()._close_listener(sock)
        made, self._unix_file = self._unix_file, None
        if made is not None and made[0] == os.getpid():  # not by a forked child: the parent still listens
            try:
                info = os.stat(made[1])
                if (info.st_dev, info.st_ino) == made[2:]:  # not if another server has taken its place
                    os.unlink(made[1])
            except FileNotFoundError:
                pass

    # -- connections --------------------------------------------------------------------------------------

    def _get_handle(self) -> Callable[..., Any]:
        return self.handle if self.ssl_args is None else self.wrap_socket_and_handle

    def do_read(self) -> tuple[Any, ...] | None:
        """Accept one connection: its socket and the address of its other end; None if there is none."""
        sock = self.socket
        try:
            if isinstance(sock, _CSocket):
                fd, address = _c_accept(sock)
            else:
                client, address = sock.accept()
                return GeventSocket(client.family, client.type, client.proto, client.detach()), address
        except BlockingIOError:
            return None
        except OSError as e:
            if e.errno in _NEXT_PLEASE:
                return None
            raise
        try:
            return GeventSocket(*self._client_type, fd), address
        except BaseException:
            os.close(fd)
            raise

    def do_close(self, *args: Any) -> None:
        """Close the connection."""
        args[0].close()

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """With TLS: make the handshake, call the handler and close the connection. In its greenlet."""
        limit = self.handshake_timeout
        if limit is not None:
            client_socket.settimeout(limit)
        with closing(self.wrap_socket(client_socket, **(self.ssl_args or {}))) as ssl_socket:
            if limit is not None:
                ssl_socket.settimeout(None)
            result = self.handle(ssl_socket, address)
            return await_(result) if type(result) is CoroutineType else result


class DatagramServer(BaseServer):
    """A UDP server: calls ``handle(data, address)`` for each message.

    :param listener: an address or a bound socket, see :class:`bridge.baseserver.BaseServer`.
    :param handle: the function; a subclass may define a method ``handle`` instead.
    :param spawn: how the function is run, see :class:`bridge.baseserver.BaseServer`.
    """

    #: Whether to set SO_REUSEADDR.
    reuse_addr: int | bool | None = DEFAULT_REUSE_ADDR
    #: Whether to set SO_REUSEPORT: several processes share the messages to one port.
    reuse_port: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._writelock = Semaphore()
        self._recvfrom: Callable[[int], tuple[bytes, Any]] = _no_socket

    def init_socket(self) -> None:
        """Bind to the address, if one was given. Called by :meth:`start`."""
        if not hasattr(self, "socket"):
            self.socket = self.get_listener(self.address, self.family)
            self.address = self.socket.getsockname()
        if not isinstance(self.socket, GeventSocket):
            self.socket.setblocking(False)
            self._recvfrom = self.socket.recvfrom
        else:
            # that of the base class, which never waits
            self._recvfrom = partial(_CSocket.recvfrom, self.socket)

    def close(self) -> None:
        """Stop receiving and close the socket. Handlers go on. Does not block."""
        super().close()
        self._recvfrom = _no_socket

    @classmethod
    def get_listener(cls, address: Any, family: int | None = None) -> Any:
        """Return a UDP socket that is bound to ``address``. OSError if it can't be. Does not block."""
        return _udp_socket(address, cls.reuse_addr, family, cls.reuse_port)

    def do_read(self) -> tuple[Any, ...] | None:
        """Receive one message: the bytes and the address of the sender; None if there is none."""
        try:
            return self._recvfrom(_DATAGRAM_SIZE)
        except BlockingIOError:
            return None

    def sendto(self, *args: Any) -> None:
        """``sendto(data[, flags], address)``: send a message. Blocks the greenlet if there is no room."""
        self._writelock.acquire()
        try:
            self.socket.sendto(*args)
        finally:
            self._writelock.release()


def _no_socket(_size: int) -> tuple[bytes, Any]:
    raise OSError(errno.EBADF, "the server has no socket: it has not been started, or it was closed")


def _prepare(sock: Any, address: Any, reuse_addr: Any, reuse_port: bool) -> None:
    """Set the options, and bind."""
    family = int(sock.family)
    if family == _AF_UNIX:
        if isinstance(address, str):
            remove_stale(address)
    else:
        if reuse_addr is not None:
            sock.setsockopt(__socket__.SOL_SOCKET, __socket__.SO_REUSEADDR, reuse_addr)
        if reuse_port:
            sock.setsockopt(__socket__.SOL_SOCKET, __socket__.SO_REUSEPORT, 1)
        if family == _AF_INET6 and not address[0] and hasattr(__socket__, "IPV6_V6ONLY"):
            # all interfaces; some systems would leave out IPv4
            sock.setsockopt(__socket__.IPPROTO_IPV6, __socket__.IPV6_V6ONLY, 0)
    try:
        sock.bind(address)
    except OSError as e:
        if e.strerror and e.errno is not None:
            raise type(e)(e.errno, f"{e.strerror}: {address!r}") from None
        raise


def _tcp_listener(
    address: Any,
    backlog: int = 50,
    reuse_addr: Any = None,
    family: int | None = _AF_INET,
    reuse_port: bool = False,
) -> Any:
    """Return a socket that listens at ``address``."""
    sock = GeventSocket(_AF_INET if family is None else family, __socket__.SOCK_STREAM)
    try:
        _prepare(sock, address, reuse_addr, reuse_port)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _udp_socket(
    address: Any, reuse_addr: Any = None, family: int | None = _AF_INET, reuse_port: bool = False
) -> Any:
    """Return a UDP socket that is bound to ``address``."""
    sock = GeventSocket(_AF_INET if family is None else family, __socket__.SOCK_DGRAM)
    try:
        _prepare(sock, address, reuse_addr, reuse_port)
    except BaseException:
        sock.close()
        raise
    return sock
