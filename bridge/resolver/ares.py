"""The resolver that asks DNS servers by c-ares, through `pycares <https://github.com/saghul/pycares>`_.

It needs no threads, so that any number of look-ups run at a time. What it finds may differ from what the
system finds: it knows the hosts file and DNS, and nothing else that the system may be configured with
(mDNS, NIS, a cache).
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import Any

from .._config import AresSettingMixin, config
from .._core.waiting import Wait
from .._workers import ThreadLocal
from ..hub import get_hub
from ._names import Found, NameResolver, error_again, error_fail, error_no_data, error_no_name
from .cares import channel, pycares

__all__ = ["Resolver"]

_errors = pycares.errno
_NO_ANSWER = {
    getattr(_errors, name)
    for name in (
        "ARES_ECANCELLED", "ARES_ECONNREFUSED", "ARES_EDESTRUCTION", "ARES_EREFUSED", "ARES_ESERVFAIL",
        "ARES_ETIMEOUT",
    )
}  # fmt: skip
_REFUSED = {_errors.ARES_EBADRESP, _errors.ARES_EFORMERR, _errors.ARES_ENOMEM, _errors.ARES_ENOTIMP}


class Resolver(NameResolver):
    """``Resolver(hub=None, use_environ=True, **options)``: its functions block the greenlet.

    :param use_environ: whether the settings of the resolver (``resolver_nameservers``, ``resolver_timeout``,
        ``ares_...``) count.
    :param options: those of :class:`bridge.resolver.cares.channel`: ``servers`` (a list of addresses),
        ``timeout`` (seconds), ``tries``, ``ndots``, ``udp_port``, ``tcp_port``, ``flags``. They come before
        the settings.

    May be used from any thread; in a coroutine only below a portal. :meth:`close` it, if it is not the hub's.
    """

    #: what asks the servers
    cares_class = channel

    def __init__(self, hub: Any = None, use_environ: bool = True, **options: Any) -> None:
        super().__init__(hub)
        if use_environ:
            for setting in config.settings.values():
                if isinstance(setting, AresSettingMixin):
                    value = getattr(config, setting.name)
                    if value is not None:
                        options.setdefault(setting.kwarg_name, value)
        self._options = options
        self._closed = False
        #: each thread has a channel, for the loop that it runs
        self._local = ThreadLocal()

    def _get_channel(self) -> channel:
        mine: channel | None = getattr(self._local, "channel", None)
        loop = get_hub().loop
        if mine is None or mine.loop is not loop or not mine.usable():
            if mine is not None:
                mine.destroy()
            if self._closed:
                raise ValueError("This ares resolver has been closed; get_hub().resolver is open")
            mine = self._local.channel = self.cares_class(loop, **self._options)
        return mine

    def _on_fork(self, hub: Any) -> None:
        super()._on_fork(hub)
        parents = self._local.__dict__.pop("channel", None)
        if parents is not None:
            parents.destroy()

    def close(self) -> None:
        """Free the channel of this thread; no look-up can be made any more. Does not block."""
        self._closed = True
        mine = self._local.__dict__.pop("channel", None)
        if mine is not None:
            mine.destroy()

    def _wait(self, ask: Callable[..., None], *args: Any) -> Any:
        wait = Wait()
        answer: list[Any] = []

        def answered(result: Any, error: int | None) -> None:
            answer[:] = result, error
            wait.wake()

        ask(self._get_channel(), answered, *args)
        wait.block()
        result, error = answer
        if error is not None:
            raise _as_gaierror(error)
        return result

    def _query(self, name: str, families: tuple[int, ...]) -> Found:
        family = families[0] if len(families) == 1 else AF_UNSPEC
        result = self._wait(channel.getaddrinfo, name, None, family)
        addresses: dict[tuple[int, str], None] = {}
        for node in result.nodes:
            if node.family in (AF_INET, AF_INET6):
                addresses[int(node.family), _as_text(node.addr[0])] = None
        if not addresses:
            raise error_no_data()
        names = [name, *(_as_text(each.name) for each in result.cnames)]
        official = names.pop()
        return Found(official, names, list(addresses))

    def _query_name(self, family: int, address: str) -> tuple[str, list[str]]:
        # not gethostbyaddr(), which does not tell why it has found nothing
        name = ip_address(address).reverse_pointer
        result = self._wait(channel.query, name, pycares.QUERY_TYPE_PTR)
        names = [
            _as_text(record.data.dname) for record in result.answer if record.type == pycares.QUERY_TYPE_PTR
        ]
        if not names:
            raise error_no_data()
        return names[0], names[1:]


def _as_text(name: Any) -> str:
    return name if isinstance(name, str) else str(name, "ascii", "surrogateescape")


def _as_gaierror(error: int) -> OSError:
    if error in _NO_ANSWER:
        return error_again()
    if error in _REFUSED:
        return error_fail()
    if error == _errors.ARES_ENODATA:
        return error_no_data()
    return error_no_name()  # there is none, or it can't be a name
