"""Looking up the names of hosts and services, by the hub's resolver."""

from __future__ import annotations

import socket as __socket__
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ._core.errors import BlockingSwitchOutError
from .hub import get_hub

__all__ = [
    "getaddrinfo",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "resolve_address",
]

# Taken now: monkey patching replaces them.
_std_getaddrinfo = __socket__.getaddrinfo
_std_gethostbyaddr = __socket__.gethostbyaddr
_std_gethostbyname = __socket__.gethostbyname
_std_gethostbyname_ex = __socket__.gethostbyname_ex
_std_gethostname = __socket__.gethostname
_std_getnameinfo = __socket__.getnameinfo

_AF_INET = int(__socket__.AF_INET)
_AF_INET6 = int(getattr(__socket__, "AF_INET6", -1))
_SOCK_STREAM = int(__socket__.SOCK_STREAM)


def _look_up(function: Callable[..., Any], *args: Any) -> Any:
    """Call one of the standard library's functions by way of the hub's resolver. Blocks the greenlet."""
    return getattr(get_hub().resolver, function.__name__)(*args)


def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
    """Find the addresses of a host and a service; arguments, result and errors as ``socket.getaddrinfo``.

    Blocks the greenlet; in a coroutine only below a portal.
    """
    return _look_up(_std_getaddrinfo, host, port, family, type, proto, flags)


def gethostbyname(hostname: Any) -> Any:
    """The IPv4 address of a host, as text; gaierror if there is none. Blocks the greenlet."""
    return _look_up(_std_gethostbyname, hostname)


def gethostbyname_ex(hostname: Any) -> Any:
    """Name, aliases and IPv4 addresses of a host; gaierror if it is not known. Blocks the greenlet."""
    return _look_up(_std_gethostbyname_ex, hostname)


def gethostbyaddr(ip_address: Any) -> Any:
    """Name, aliases and addresses of the host with an address; herror or gaierror. Blocks the greenlet."""
    return _look_up(_std_gethostbyaddr, ip_address)


def getnameinfo(sockaddr: Any, flags: int) -> Any:
    """Names of the host and the service of a socket address, by the NI_* *flags*. Blocks the greenlet."""
    return _look_up(_std_getnameinfo, sockaddr, flags)


def getfqdn(name: str = "") -> str:
    """The fully qualified name of a host, by default of this one; *name* itself if none is known.

    Blocks the greenlet. In a coroutine or a callback it blocks the thread, as without greenlets: libraries
    ask for this host's name where they would never wait (``email.utils.make_msgid``, SMTP servers).
    """
    name = name.strip()
    if not name or name in ("0.0.0.0", "::"):
        name = _std_gethostname()
    try:
        try:
            host, aliases, _addresses = gethostbyaddr(name)
        except BlockingSwitchOutError:
            host, aliases, _addresses = _std_gethostbyaddr(name)
    except OSError:
        return name
    for candidate in (host, *aliases):
        if "." in candidate:
            return str(candidate)
    return str(host)


@lru_cache(256)
def _is_numeric(family: int, host: str | bytes) -> bool:
    """True for an address that nobody has to look up, as far as inet_pton() knows."""
    try:
        __socket__.inet_pton(family, host if isinstance(host, str) else host.decode("ascii"))
    except (AttributeError, OSError, ValueError):
        return False
    return True


def resolve_address(family: int, address: Any, kind: int = _SOCK_STREAM, flags: int = 0) -> Any:
    """``address`` as a socket of this ``family`` can take it without looking up a name.

    That would block the thread. Blocks the greenlet to look up a name; gaierror for an unknown one.
    """
    if family not in (_AF_INET, _AF_INET6) or not isinstance(address, tuple) or len(address) < 2:
        return address
    host = address[0]
    if isinstance(host, bytearray):
        host = bytes(host)
    if not isinstance(host, (str, bytes)) or host in ("", b"", "<broadcast>", b"<broadcast>"):
        return address
    if _is_numeric(family, host):
        return address
    # without the port: if that is wrong, connect() shall say so
    found = getaddrinfo(host, None, family, kind, 0, flags)[0][4]
    if family == _AF_INET6 and len(address) < 4 and found[3]:
        flow = address[2] if len(address) > 2 else 0
        return (found[0], address[1], flow, found[3])  # the scope that was in the name: fe80::1%eth0
    return (found[0], *address[1:])
