"""The resolver that asks DNS servers by `dnspython <https://www.dnspython.org>`_, an optional library.

It needs no threads, so that any number of look-ups run at a time. What it finds may differ from what the
system finds: it knows the hosts file and DNS, and nothing else that the system may be configured with
(mDNS, NIS, a cache).
"""

from __future__ import annotations

import asyncio
from socket import AF_INET6
from typing import Any

from .._aio.awaiting import await_
from .._config import config
from ._names import Found, NameResolver, error_again, error_no_data, error_no_name

try:
    import dns.asyncbackend
    import dns.asyncresolver
    import dns.exception
    import dns.rdatatype
    import dns.resolver
except ImportError as e:
    raise ImportError(
        "The dnspython resolver needs the library dnspython: pip install 'gevent-bridge[dnspython]'"
    ) from e

__all__ = ["Resolver"]


class Resolver(NameResolver):
    """``Resolver(hub=None)``: its functions block the greenlet; in a coroutine only below a portal.

    May be used from any thread. The settings ``resolver_nameservers`` and ``resolver_timeout`` count.
    """

    def __init__(self, hub: Any = None) -> None:
        super().__init__(hub)
        self._resolver: dns.asyncresolver.Resolver | None = None

    @property
    def resolver(self) -> dns.asyncresolver.Resolver:
        """dnspython's resolver, a ``dns.asyncresolver.Resolver``, which can be configured."""
        if self._resolver is None:
            try:
                resolver = dns.asyncresolver.Resolver()
            except dns.resolver.NoResolverConfiguration:
                resolver = dns.asyncresolver.Resolver(configure=False)
                resolver.nameservers = ["127.0.0.1"]
            resolver.use_search_by_default = True
            if config.resolver_nameservers:
                resolver.nameservers = list(config.resolver_nameservers)
            if config.resolver_timeout:
                resolver.lifetime = config.resolver_timeout
            self._resolver = resolver
        return self._resolver

    def _query(self, name: str, families: tuple[int, ...]) -> Found:
        return await_(self._ask(name, families))

    async def _ask(self, name: str, families: tuple[int, ...]) -> Found:
        types = [dns.rdatatype.AAAA if f == AF_INET6 else dns.rdatatype.A for f in families]
        answers = await asyncio.gather(*[self._one(name, each) for each in types], return_exceptions=True)
        addresses: list[tuple[int, str]] = []
        names: list[str] = []
        failure: BaseException | None = None
        for family, answer in zip(families, answers, strict=True):
            if isinstance(answer, BaseException):
                failure = answer
                continue
            addresses += [(family, record.address) for record in answer.rrset or ()]
            names = names or [_text(answer.qname), *_chain(answer)]
        if addresses:
            official = names.pop()
            return Found(official, names, addresses)
        if failure is not None and not isinstance(failure, dns.exception.DNSException):
            raise failure
        if isinstance(failure, (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer)) or failure is None:
            raise error_no_name() if isinstance(failure, dns.resolver.NXDOMAIN) else error_no_data()
        raise _as_gaierror(failure)

    async def _one(self, name: str, kind: dns.rdatatype.RdataType) -> Any:
        backend = dns.asyncbackend.get_backend("asyncio")
        return await self.resolver.resolve(name, kind, raise_on_no_answer=False, backend=backend)

    def _query_name(self, family: int, address: str) -> tuple[str, list[str]]:
        return await_(self._ask_name(address))

    async def _ask_name(self, address: str) -> tuple[str, list[str]]:
        backend = dns.asyncbackend.get_backend("asyncio")
        try:
            answer = await self.resolver.resolve_address(address, backend=backend)
        except dns.exception.DNSException as e:
            raise _as_gaierror(e) from None
        names = [_text(record.target) for record in answer]
        return names[0], names[1:]


def _text(name: Any) -> str:
    return str(name).rstrip(".")


def _chain(answer: Any) -> list[str]:
    """The names that a chain of CNAME records leads to."""
    return [_text(record.target) for each in answer.chaining_result.cnames for record in each]


def _as_gaierror(error: BaseException) -> OSError:
    if isinstance(error, (dns.exception.Timeout, dns.resolver.NoNameservers)):
        return error_again()
    if isinstance(error, dns.resolver.NoAnswer):
        return error_no_data()
    return error_no_name()  # there is none, or it can't be a name
