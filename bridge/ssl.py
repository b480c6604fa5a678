"""TLS; twin of :mod:`gevent.ssl`, and of :mod:`ssl`.

Everything of the standard module is here. What could block, blocks only the greenlet that calls it; the
contexts that :func:`create_default_context` and the like make are cooperative, too, without monkey patching.

Theory of operation
===================

*Contexts that were made before*, and classes derived from the standard one, cannot be replaced. When the
standard module is patched, such a context makes a cooperative socket of a cooperative one, and a standard
socket of a standard one (:class:`_Either`).
"""

from __future__ import annotations

import ssl as __ssl__
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ._mirror import mirror
from ._sockets import socket, timeout_default  # noqa: F401
from ._sslcontext import SSLContext as SSLContext
from ._sslcontext import orig_SSLContext
from ._sslsocket import SSLSocket as SSLSocket
from .socket import create_connection as _create_connection

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


# -- functions of the standard module, with other globals -----------------------------------------------


def _with_globals(function: Any, names: dict[str, Any]) -> Any:
    copy = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = function.__annotations__
    copy.__doc__ = function.__doc__
    copy.__qualname__ = function.__qualname__
    return copy


_orig_SSLSocket: Any = __ssl__.SSLSocket
#: Finds its class by the name it has in the module, as those of SSLContext do.
_orig_create = _with_globals(_orig_SSLSocket._create.__func__, dict(vars(__ssl__)))


class _Either(_orig_SSLSocket):  # type: ignore[misc]
    """Makes the sockets of the standard SSLContext when the module is patched."""

    @classmethod
    def _create(cls, sock: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(sock, socket):
            return SSLSocket._create(sock, *args, **kwargs)
        return _orig_create(_orig_SSLSocket, sock, *args, **kwargs)


_names = {
    **vars(__ssl__),
    "SSLContext": SSLContext,
    "SSLSocket": SSLSocket,
    "create_connection": _create_connection,
}


def _with_ours(name: str) -> Any:
    """The function of the standard module, which makes cooperative contexts and sockets."""
    ours = _names[name] = _with_globals(getattr(__ssl__, name), _names)
    ours.__module__ = __name__
    return ours


create_default_context = _with_ours("create_default_context")
_create_unverified_context = _with_ours("_create_unverified_context")
_create_default_https_context = create_default_context
_create_stdlib_context = _names["_create_stdlib_context"] = _create_unverified_context
get_server_certificate = _with_ours("get_server_certificate")

__implements__ = ["SSLContext", "SSLSocket", "get_server_certificate"]
__extensions__: list[str] = []
if hasattr(__ssl__, "wrap_socket"):  # up to python 3.11
    wrap_socket = _with_ours("wrap_socket")
    __implements__.append("wrap_socket")
else:
    __extensions__.append("wrap_socket")

    def wrap_socket(
        sock: Any,
        keyfile: Any = None,
        certfile: Any = None,
        server_side: bool = False,
        cert_reqs: Any = __ssl__.CERT_NONE,
        ssl_version: Any = __ssl__.PROTOCOL_TLS,
        ca_certs: Any = None,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        ciphers: Any = None,
    ) -> SSLSocket:
        """Wrap ``sock`` in a TLS socket, as the standard library could do up to python 3.11.

        A context of ``ssl_version`` is made for it, from the other parameters; by default it checks no
        certificate. So SSLContext.wrap_socket() is better. Blocks the greenlet.
        """
        made: SSLSocket = SSLSocket(
            sock,
            keyfile,
            certfile,
            server_side,
            cert_reqs,
            ssl_version,
            ca_certs,
            do_handshake_on_connect,
            suppress_ragged_eofs=suppress_ragged_eofs,
            ciphers=ciphers,
        )
        return made


_contexts = ["create_default_context", "_create_unverified_context", "_create_default_https_context"]
_contexts.append("_create_stdlib_context")
__imports__ = mirror(__ssl__, globals(), "socket", *_contexts, *__implements__)
__all__ = __implements__ + __extensions__ + _contexts  # noqa: PLE0605
__all__ += [name for name in __imports__ if name != "namedtuple"]  # that of collections


def _gevent_did_monkey_patch(module: Any, items: Any, warn: Any, **_settings: Any) -> None:
    """The names in ``ssl`` have been replaced: see to the contexts that are there already."""
    if module is __ssl__ and "SSLContext" in items:
        orig_SSLContext.sslsocket_class = _Either
