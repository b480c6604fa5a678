"""Resolvers: how a hub looks up names of hosts. ``config.resolver`` says which one ``hub.resolver`` is.

:mod:`bridge.resolver.thread` asks the system in the hub's thread pool; :mod:`bridge.resolver.blocking` asks
it directly, and blocks the thread. Both give exactly what the system gives. :mod:`bridge.resolver.dnspython`
and :mod:`bridge.resolver.ares` ask DNS servers themselves, by a library; they know the hosts file, too.

A resolver of one's own is a class with the functions of :class:`AbstractResolver`, which is called with the
hub; ``config.resolver`` takes it, or its full name. It may be a subclass that defines some of them, at least
``getaddrinfo``.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from socket import AddressFamily, SocketKind
from typing import Any

from .._core.hub import get_hub

__extensions__ = ["AbstractResolver"]
__all__ = list(__extensions__)

_AF_INET = int(_socket.AF_INET)

# Numbers that Python has no name for stay numbers. A look into a dict is ten times as fast as a call of the
# enumeration.
_FAMILIES: dict[int, int] = {int(member): member for member in AddressFamily}
_KINDS: dict[int, int] = {int(member): member for member in SocketKind}


class AbstractResolver:
    """The functions of every resolver: those of ``socket``, with its arguments, results and errors.

    Subclasses define those that they answer by themselves. Who defines ``getaddrinfo`` has thereby defined
    ``gethostbyname_ex``, and who defines that, ``gethostbyname``. The others ask the system in the hub's
    thread pool. They block the greenlet.
    """

    #: what it is for; here for subclasses with an ``__init__`` of their own
    hub: Any = None

    def __init__(self, hub: Any = None) -> None:
        """``hub``: the hub that it is for, by default this thread's if one is needed."""
        self.hub = hub

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """What ``function(*args)``, one of the system's, returns or raises; our own subclasses replace it."""
        return call_in_pool((get_hub() if self.hub is None else self.hub).threadpool, function, args)

    def _defines(self, name: str) -> bool:
        """Whether a subclass has a function of its own of this name, and only the system for the others."""
        own, base = type(self), AbstractResolver
        return own._call is base._call and getattr(own, name) is not getattr(base, name)

    def _on_fork(self, hub: Any) -> None:
        """In a forked child: *hub* has taken the place of the hub that this is for."""
        if self.hub is not None:
            self.hub = hub

    def close(self) -> None:
        """Give back what the resolver holds. The system's functions need nothing."""

    def gethostbyname(self, hostname: Any, family: int = _AF_INET) -> str:
        """The IPv4 address of a host, or that of another ``family``. Raises ``socket.gaierror``."""
        if family != _AF_INET:
            return self.gethostbyname_ex(hostname, family)[2][0]
        if self._defines("gethostbyname_ex") or self._defines("getaddrinfo"):
            return self.gethostbyname_ex(hostname)[2][0]
        return self._call(_socket.gethostbyname, hostname)  # type: ignore[no-any-return]

    def gethostbyname_ex(self, hostname: Any, family: int = _AF_INET) -> tuple[str, list[str], list[str]]:
        """The name of a host, its other names, and its IPv4 addresses, or those of another ``family``.

        Raises ``socket.gaierror``.
        """
        if family != _AF_INET or self._defines("getaddrinfo"):
            found = self.getaddrinfo(
                hostname, 0, family, _socket.SOCK_STREAM, _socket.IPPROTO_TCP, _socket.AI_CANONNAME
            )
            if not found:
                raise _socket.gaierror(_socket.EAI_NONAME, "Name or service not known")
            return found[0][3], [], [address[0] for *_rest, address in found]
        return self._call(_socket.gethostbyname_ex, hostname)  # type: ignore[no-any-return]

    def getaddrinfo(
        self,
        host: Any,
        port: Any,
        family: int = 0,
        socktype: int = 0,
        proto: int = 0,
        flags: int = 0,
        *,
        type: int = 0,
    ) -> list[tuple[int, int, int, str, Any]]:
        """What to make a socket of, and what to connect it to, for a host and a service.

        A list of (family, type, protocol, canonical name, address). ``type`` is ``socktype`` under its name
        in :func:`socket.getaddrinfo`. Raises ``socket.gaierror``.
        """
        found = self._call(_socket.getaddrinfo, host, port, family, socktype or type, proto, flags)
        return [(_FAMILIES.get(f, f), _KINDS.get(t, t), *rest) for f, t, *rest in found]

    def gethostbyaddr(self, ip_address: Any) -> tuple[str, list[str], list[str]]:
        """The name of the host with an address, its other names, and its addresses.

        Raises ``socket.herror`` or ``socket.gaierror``.
        """
        return self._call(_socket.gethostbyaddr, ip_address)  # type: ignore[no-any-return]

    def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """The names of the host and of the port of a socket's address. Raises ``socket.gaierror``."""
        return self._call(_socket.getnameinfo, sockaddr, flags)  # type: ignore[no-any-return]


def call_in_pool(pool: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What ``function(*args)`` returns or raises, in a thread of ``pool``. Blocks the greenlet."""
    value, error = pool.apply(_outcome, (function, args))
    if error is None:
        return value
    try:
        raise error
    finally:
        del error  # its traceback refers to this frame


def _outcome(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    # an error is returned, for the pool would print it, and a name that is not found is no news
    try:
        return function(*args), None
    except Exception as e:
        return None, e
