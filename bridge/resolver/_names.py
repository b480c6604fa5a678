"""A resolver that looks up names by itself, and leaves everything else to the system.

Theory of operation
===================

The functions of ``socket`` check their arguments, parse numeric addresses, find numbers of services, and
raise half a dozen kinds of errors; exactly so only the system does it. And it does it without waiting for
anybody, if the host is given as a number (AI_NUMERICHOST, NI_NUMERICHOST). So every function here first asks
the system as if the host were a number. Only if the answer is "no such host" there is a name to be looked up:
in the hosts file, then by the subclass. Its addresses are given to the system again, as numbers.

What is left to write here is the order of addresses, for which there is no function of the system.

*Errors.* Programs look at the number of an error: a mail server tries again after EAI_AGAIN and gives up
after EAI_NONAME. Libraries have several dozen reasons for having found nothing; a subclass makes one of four
of each, by the question what it tells about the name:

================  ==================================================  ========================================
`error_no_name`   there is none                                       NXDOMAIN; what can't be a name
`error_no_data`   it exists, but not with what was asked for          an empty answer
`error_again`     nothing: nobody who knows has answered              time-out, SERVFAIL, REFUSED, closed
`error_fail`      nothing, and to ask again won't help                a malformed answer, if the library tells
================  ==================================================  ========================================

`gethostbyaddr` has errors of another kind (``herror``), of which it needs two: "try again" for `error_again`,
and "unknown host" for all others. And `getnameinfo` has a way out: who has not asked for a name at any price
(NI_NAMEREQD) gets the number. Where one family has an address and the look-up of the other has failed, that
is an answer and no error.
"""

from __future__ import annotations

import _socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from socket import gaierror, herror
from typing import Any, NamedTuple

from . import AbstractResolver
from ._hostsfile import HostsFile

__all__ = ["Found", "NameResolver", "error_again", "error_fail", "error_no_data", "error_no_name"]

_AF_INET = int(_socket.AF_INET)
_AF_INET6 = int(getattr(_socket, "AF_INET6", -1))
_AI_ADDRCONFIG = getattr(_socket, "AI_ADDRCONFIG", 0)
_AI_ALL = getattr(_socket, "AI_ALL", 0)
_AI_CANONNAME = _socket.AI_CANONNAME
_AI_NUMERICHOST = _socket.AI_NUMERICHOST
_AI_V4MAPPED = getattr(_socket, "AI_V4MAPPED", 0)
_EAI_NONAME = _socket.EAI_NONAME

# of the C library's h_errno, which Python has no names for
_HOST_NOT_FOUND = 1
_TRY_AGAIN = 2


def _error(name: str, instead: int, text: str) -> gaierror:
    return gaierror(getattr(_socket, name, instead), text)


def error_no_name() -> gaierror:
    """There is no such name."""
    return _error("EAI_NONAME", _EAI_NONAME, "Name or service not known")


def error_no_data() -> gaierror:
    """There is such a name, but it has no address of the family."""
    return _error("EAI_NODATA", _EAI_NONAME, "No address associated with hostname")


def error_again() -> gaierror:
    """No server has answered."""
    return _error("EAI_AGAIN", _EAI_NONAME, "Temporary failure in name resolution")


def error_fail() -> gaierror:
    """A server has answered that it will not."""
    return _error("EAI_FAIL", _EAI_NONAME, "Non-recoverable failure in name resolution")


class Found(NamedTuple):
    """What is known of a name."""

    #: the official name
    name: str
    aliases: list[str]
    #: pairs of family and address
    addresses: list[tuple[int, str]]


class NameResolver(AbstractResolver, ABC):
    """What resolvers have in common that look up names by themselves; see the module's theory.

    The functions of ``socket`` block the greenlet; in a coroutine they may be called below a portal only.
    """

    def __init__(self, hub: Any = None) -> None:
        super().__init__(hub)
        self.hosts = HostsFile()

    # -- for subclasses

    @abstractmethod
    def _query(self, name: str, families: tuple[int, ...]) -> Found:
        """Ask servers for the addresses of a name, of one of ``families``. Blocks the greenlet.

        ``name`` is in ASCII. Raises one of this module's errors if there is none.
        """

    @abstractmethod
    def _query_name(self, family: int, address: str) -> tuple[str, list[str]]:
        """Ask servers for name and aliases of an address, which is a number. Blocks the greenlet.

        Raises one of this module's errors if there is none.
        """

    # -- the functions

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return getattr(self, f"_{function.__name__}")(*args)

    def _getaddrinfo(self, host: Any, port: Any, family: int, type: int, proto: int, flags: int) -> Any:
        try:
            return _socket.getaddrinfo(host, port, family, type, proto, flags | _AI_NUMERICHOST)
        except gaierror as e:
            if e.errno != _EAI_NONAME or flags & _AI_NUMERICHOST or not host:
                raise
        families = (family,) if family else (_AF_INET6, _AF_INET)
        mapped = family == _AF_INET6 and flags & _AI_V4MAPPED
        if mapped and flags & _AI_ALL:
            families = (_AF_INET6, _AF_INET)
        try:
            found = self._find(_as_text(host), families)
        except gaierror:
            if not mapped or len(families) > 1:
                raise
            found = self._find(_as_text(host), (_AF_INET,))
        addresses = _in_order(found.addresses, bool(flags & _AI_ADDRCONFIG) and not mapped)
        if not addresses:
            raise error_no_data()
        result = []
        numeric = (flags & ~(_AI_CANONNAME | _AI_ADDRCONFIG)) | _AI_NUMERICHOST
        for _family, address in addresses:
            result += _socket.getaddrinfo(address, port, family, type, proto, numeric)
        if flags & _AI_CANONNAME:
            first = result[0]
            result[0] = (*first[:3], found.name, first[4])
        return result

    def _gethostbyname(self, hostname: Any) -> Any:
        if _has_no_name(hostname):
            return _socket.gethostbyname(hostname)
        return self._find(_as_text(hostname), (_AF_INET,)).addresses[0][1]

    def _gethostbyname_ex(self, hostname: Any) -> Any:
        if _has_no_name(hostname):
            return _socket.gethostbyname_ex(hostname)
        found = self._find(_as_text(hostname), (_AF_INET,))
        return found.name, found.aliases, [address for _family, address in found.addresses]

    def _gethostbyaddr(self, ip_address: Any) -> Any:
        number = ip_address
        if _has_no_name(ip_address):
            try:
                if _as_text(ip_address) == "<broadcast>":
                    number = "255.255.255.255"
                found = _numeric(number)
            except (OSError, TypeError, ValueError):
                return _socket.gethostbyaddr(ip_address)  # an error
        else:
            families = (_AF_INET6, _AF_INET)
            found = _in_order(self._find(_as_text(ip_address), families).addresses, False)[0]
        family, address = found
        try:
            name, aliases = self._find_name(family, address)
        except gaierror as e:
            if e.errno == error_again().errno:
                raise herror(_TRY_AGAIN, "Host name lookup failure") from None
            raise herror(_HOST_NOT_FOUND, "Unknown host") from None
        return name, aliases, [address]

    def _getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        if not isinstance(flags, int) or flags & _socket.NI_NUMERICHOST:
            return _socket.getnameinfo(sockaddr, flags)
        required = flags & _socket.NI_NAMEREQD
        number, service = _socket.getnameinfo(sockaddr, (flags & ~required) | _socket.NI_NUMERICHOST)
        try:
            name, _aliases = self._find_name(*_numeric(number))
        except gaierror:
            if required:
                raise error_no_name() from None
            return number, service
        if flags & _socket.NI_NOFQDN:
            name = _without_own_domain(name)
        return name, service

    # -- names

    def _find(self, name: str, families: tuple[int, ...]) -> Found:
        entries = self.hosts.find(name, families)
        if entries:
            official = entries[0].name
            others: dict[str, None] = {}
            for entry in entries:
                others.update(dict.fromkeys((entry.name, *entry.aliases)))
            others.pop(official, None)
            return Found(official, list(others), [(entry.family, entry.address) for entry in entries])
        if name.lower() == "localhost":
            # nothing that servers are asked
            if self.hosts.knows(name):
                raise error_no_name()
            loopback = {_AF_INET: "127.0.0.1", _AF_INET6: "::1"}
            return Found(name, [], [(family, loopback[family]) for family in families])
        return self._query(name, families)

    def _find_name(self, family: int, address: str) -> tuple[str, list[str]]:
        entry = self.hosts.find_name(family, address)
        if entry is not None:
            return entry.name, list(entry.aliases)
        return self._query_name(family, address.partition("%")[0])


def _as_text(host: Any) -> str:
    """A name as servers know it; errors as from the system's functions."""
    if isinstance(host, str):
        return host if host.isascii() else host.encode("idna").decode("ascii")
    return bytes(host).decode("ascii", "surrogateescape")


def _numeric(host: Any) -> tuple[int, str]:
    """Family and address, if the host is given as a number; gaierror if it is not, or is empty."""
    if isinstance(host, bytearray):
        host = bytes(host)
    found = _socket.getaddrinfo(host, None, 0, _socket.SOCK_STREAM, 0, _AI_NUMERICHOST)[0]
    return int(found[0]), str(found[4][0])


def _has_no_name(host: Any) -> bool:
    """True for what the system answers at once: numbers, and errors."""
    if not isinstance(host, (str, bytes, bytearray)) or host in ("", b"", "<broadcast>", b"<broadcast>"):
        return True
    if ("\0" if isinstance(host, str) else b"\0") in host:  # type: ignore[operator]
        return True
    try:
        _numeric(host)
    except gaierror:
        return False
    except ValueError:
        pass  # not even a name
    return True


def _in_order(addresses: list[tuple[int, str]], configured: bool) -> list[tuple[int, str]]:
    """IPv6 first if it can be reached, as RFC 6724 wants; *configured*: only families that can be reached."""
    if len({family for family, _address in addresses}) < 2:
        return addresses
    six = [each for each in addresses if each[0] == _AF_INET6]
    four = [each for each in addresses if each[0] != _AF_INET6]
    if configured:
        has_six, has_four = _reaches(_AF_INET6, "2001:db8::1"), _reaches(_AF_INET, "192.0.2.1")
        if has_six != has_four:
            return six if has_six else four
    return six + four if _reaches(*six[0]) else four + six


def _reaches(family: int, address: str) -> bool:
    """Whether there is a way to an address. Nothing is sent."""
    try:
        sock = _socket.socket(family, _socket.SOCK_DGRAM)
    except OSError:
        return False
    try:
        sock.connect((address, 53))
    except OSError:
        return False
    finally:
        sock.close()
    return True


def _without_own_domain(name: str) -> str:
    domain = _socket.gethostname().partition(".")[2]
    if domain and name.endswith("." + domain):
        return name[: -len(domain) - 1]
    return name
