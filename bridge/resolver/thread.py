"""The resolver that asks the system in the hub's thread pool: the default.

It finds whatever a program without greenlets would find, and blocks no more than the greenlet. As many
lookups run at a time as the pool has threads; the others wait.

Nobody has to be asked for what is a number already: the system only parses it, in a fraction of the time that
a thread would need. Whatever it does not take so, names of services among them, goes the usual way.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from functools import lru_cache
from socket import gaierror
from typing import Any

from .._core.hub import get_hub
from . import AbstractResolver, call_in_pool

__all__ = ["Resolver"]

_AF_INET = int(_socket.AF_INET)
_AF_INET6 = int(getattr(_socket, "AF_INET6", _AF_INET))
_AI_NUMERICHOST = _socket.AI_NUMERICHOST
_NI_NUMERIC = _socket.NI_NUMERICHOST | _socket.NI_NUMERICSERV


class Resolver(AbstractResolver):
    """``Resolver(hub=None)``: its functions block the greenlet; call them in the thread of the hub."""

    def __init__(self, hub: Any = None) -> None:
        super().__init__(get_hub() if hub is None else hub)

    @property
    def pool(self) -> Any:
        """The hub's thread pool, in which names are looked up."""
        return self.hub.threadpool

    def __repr__(self) -> str:
        name = f"{type(self).__module__}.{type(self).__name__}"
        return f"<{name} at {id(self):#x} pool={self.hub._threadpool!r}>"

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        if function is _socket.getaddrinfo:
            host, port, *rest, flags = args
            if (port is None or isinstance(port, int)) and _is_address(host):
                try:
                    return function(host, port, *rest, flags | _AI_NUMERICHOST)
                except gaierror:
                    pass  # which error it is without that flag the system shall say
        elif function is _socket.gethostbyname:
            if _is_address(args[0], _AF_INET):
                return function(*args)
        elif function is _socket.getnameinfo and args[1] == _NI_NUMERIC:
            return function(*args)  # which takes addresses only
        return call_in_pool(self.pool, function, args)


def _is_address(host: Any, *families: int) -> bool:
    """Whether ``host`` is a numeric address of one of ``families``, by default of both."""
    return isinstance(host, (str, bytes)) and _parses(host, families or (_AF_INET, _AF_INET6))


@lru_cache(1024)
def _parses(host: str | bytes, families: tuple[int, ...]) -> bool:
    for family in families:
        try:
            _socket.inet_pton(family, host if isinstance(host, str) else host.decode("ascii"))
        except (OSError, ValueError):
            continue
        return True
    return False
