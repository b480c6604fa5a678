"""Sockets; twin of :mod:`gevent.socket`, and of :mod:`socket`.

Everything of the standard module is here. What could block, blocks only the greenlet that calls it; names
are looked up by the hub's resolver.
"""

from __future__ import annotations

import _socket
import os as _os
import socket as __socket__
from typing import TYPE_CHECKING, Any

from ._core.errors import ConcurrentObjectUseError as _ConcurrentObjectUseError
from ._fdwait import _UNSET, HasFileno
from ._fdwait import wait_for as _wait_for
from ._fdwait import wait_read as _wait_read
from ._fdwait import wait_readwrite as _wait_readwrite
from ._fdwait import wait_write as _wait_write
from ._mirror import mirror
from ._names import getaddrinfo as getaddrinfo
from ._names import getfqdn as getfqdn
from ._names import gethostbyaddr as gethostbyaddr
from ._names import gethostbyname as gethostbyname
from ._names import gethostbyname_ex as gethostbyname_ex
from ._names import getnameinfo as getnameinfo
from ._sockets import cancel_wait_ex as cancel_wait_ex
from ._sockets import socket as socket
from ._sockets import timeout_default as timeout_default
from .hub import Hub, get_hub
from .timeout import Timeout as _Timeout

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


#: Those that look up names.
__dns__ = ["getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo", "getfqdn"]
__implements__ = [
    "create_connection",
    "create_server",
    "socket",
    "SocketType",
    "fromfd",
    "socketpair",
    *__dns__,
]
if hasattr(__socket__, "fromshare"):
    __implements__.append("fromshare")
__extensions__ = ["cancel_wait", "wait_read", "wait_write", "wait_readwrite"]
__imports__ = mirror(__socket__, globals(), *__implements__)
__all__ = list(__implements__ + __extensions__)
__all__ += [name for name in __imports__ if name in __socket__.__all__ and name != "CAPI"]

SocketType = socket
_dup = _socket.dup
_std_socketpair = getattr(_socket, "socketpair", __socket__.socketpair)
_has_dualstack = __socket__.has_dualstack_ipv6
_GLOBAL_DEFAULT_TIMEOUT: Any = __socket__._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]
_AF_INET6: Any = getattr(__socket__, "AF_INET6", None)


# -- making sockets -------------------------------------------------------------------------------------


def create_connection(
    address: tuple[Any, Any],
    timeout: Any = _GLOBAL_DEFAULT_TIMEOUT,
    source_address: Any = None,
    *,
    all_errors: bool = False,
) -> socket:
    """Connect to ``address``, a pair of host and port, trying each address of the host; return the socket.

    :param timeout: the time limit in seconds for each attempt and of the socket; None for none. By default
        that of ``setdefaulttimeout()``.
    :param source_address: a pair of host and port to bind the socket to before.
    :param all_errors: if nothing succeeds, raise an ExceptionGroup of all errors, not only the last one.

    OSError if it fails, gaierror for an unknown host. Blocks the greenlet.
    """
    host, port = address
    errors: list[OSError] = []
    try:
        for family, kind, proto, _name, sockaddr in getaddrinfo(host, port, 0, __socket__.SOCK_STREAM):
            sock = None
            try:
                sock = socket(family, kind, proto)
                if timeout is not _GLOBAL_DEFAULT_TIMEOUT:
                    sock.settimeout(timeout)
                if source_address:
                    sock.bind(source_address)
                sock.connect(sockaddr)
                return sock
            except OSError as e:
                if not all_errors:
                    errors.clear()
                errors.append(e)
                if sock is not None:
                    sock.close()
            except BaseException:
                if sock is not None:
                    sock.close()
                raise
        if not errors:
            raise OSError(f"create_connection({address!r}): getaddrinfo returns an empty list")
        if all_errors:
            raise ExceptionGroup(f"create_connection({address!r}) failed", errors.copy())
        raise errors[0]
    finally:
        errors.clear()  # their tracebacks refer to this frame


def create_server(
    address: Any,
    *,
    family: int = __socket__.AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> socket:
    """Return a TCP socket that listens at ``address``, a pair of host and port.

    :param family: AF_INET or AF_INET6.
    :param backlog: how many connections may wait to be accepted; by default what the system says.
    :param reuse_port: set SO_REUSEPORT.
    :param dualstack_ipv6: with AF_INET6, accept IPv4 connections, too.

    ValueError for what the platform or the family does not have, OSError if it cannot be bound. Does not
    block.
    """
    if reuse_port and not hasattr(_socket, "SO_REUSEPORT"):
        raise ValueError("create_server(reuse_port=True): SO_REUSEPORT not supported on this platform")
    if dualstack_ipv6:
        if not _has_dualstack():
            raise ValueError("create_server(dualstack_ipv6=True): not supported on this platform")
        if family != _AF_INET6:
            raise ValueError("create_server(dualstack_ipv6=True) requires family=AF_INET6")
    sock = socket(family, __socket__.SOCK_STREAM)
    try:
        if _os.name not in ("nt", "cygwin") and hasattr(_socket, "SO_REUSEADDR"):
            # elsewhere it would let others take the port
            try:
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            except OSError:
                pass  # not of this family
        if reuse_port:
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEPORT, 1)
        if family == _AF_INET6 and hasattr(_socket, "IPV6_V6ONLY"):
            sock.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0 if dualstack_ipv6 else 1)
        try:
            sock.bind(address)
        except OSError as e:
            message = f"{e.strerror} (while attempting to bind on address {address!r})"
            raise OSError(e.errno, message) from None
        if backlog is None:
            sock.listen()
        else:
            sock.listen(backlog)
        return sock
    except BaseException:
        sock.close()
        raise


def socketpair(
    family: int | None = None, type: int = __socket__.SOCK_STREAM, proto: int = 0
) -> tuple[socket, socket]:
    """Return two sockets that are connected to each other, as ``socket.socketpair``. Does not block."""
    if family is None:
        family = getattr(__socket__, "AF_UNIX", __socket__.AF_INET)
    a, b = _std_socketpair(family, type, proto)
    try:
        first = socket(family, type, proto, a.detach())
    except BaseException:
        b.close()
        raise
    try:
        return first, socket(family, type, proto, b.detach())
    except BaseException:
        first.close()
        raise


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:
    """Return a socket with a duplicate of ``fd``, which becomes non-blocking. Does not block."""
    return socket(family, type, proto, _dup(fd))


if hasattr(__socket__, "fromshare"):

    def fromshare(info: bytes) -> socket:
        """Return the socket that another process has shared by ``share()``. Does not block."""
        return socket(0, 0, 0, info)  # type: ignore[arg-type]


# -- waiting for something else -------------------------------------------------------------------------


def wait(
    watcher: Any, timeout: float | None = None, timeout_exc: Any = _UNSET, hub: Hub | None = None
) -> None:
    """Wait until the event of ``watcher`` (``get_hub().loop.io(fd, 1)``) happens.

    :param timeout: seconds; None waits for ever.
    :param timeout_exc: what to raise when the time is over, as for Timeout; by default
        ``TimeoutError('timed out')``.
    :param hub: the current one, by default.

    ConcurrentObjectUseError if another greenlet waits for it; what :func:`cancel_wait` is given if that is
    called meanwhile. Blocks the greenlet; in a coroutine only below a portal.
    """
    if watcher.callback is not None:
        raise _ConcurrentObjectUseError(
            f"This socket is already used by another greenlet: {watcher.callback!r}; use one watcher for each"
        )
    if timeout_exc is _UNSET:
        timeout_exc = TimeoutError("timed out")
    with _Timeout._start_new_or_dummy(timeout, timeout_exc):
        _wait_for(get_hub() if hub is None else hub, watcher)


def cancel_wait(watcher: Any, error: Any = cancel_wait_ex) -> None:
    """Have ``error`` raised, soon, in the greenlet that waits for ``watcher`` by :func:`wait`.

    Does not block.
    """
    get_hub().cancel_wait(watcher, error)


def wait_read(fileno: int | HasFileno, timeout: Any = None, timeout_exc: Any = _UNSET) -> None:
    """Wait until ``fileno``, a number or a file, can be read from.

    :param timeout: seconds, or a Timeout; None waits for ever.
    :param timeout_exc: what to raise when the time is over, as for Timeout; by default
        ``TimeoutError('timed out')``.

    OSError (EBADF) if it is not open, or closed meanwhile. Blocks the greenlet; in a coroutine only below a
    portal.
    """
    _wait_read(fileno, timeout, timeout_exc)


def wait_write(
    fileno: int | HasFileno, timeout: Any = None, timeout_exc: Any = _UNSET, event: object = None
) -> None:
    """Wait until ``fileno`` can be written to; as :func:`wait_read`. ``event`` is ignored."""
    _wait_write(fileno, timeout, timeout_exc)


def wait_readwrite(
    fileno: int | HasFileno, timeout: Any = None, timeout_exc: Any = _UNSET, event: object = None
) -> None:
    """Wait until ``fileno`` can be read from or written to; as :func:`wait_read`. ``event`` is ignored."""
    _wait_readwrite(fileno, timeout, timeout_exc)
