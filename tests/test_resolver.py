"""The resolvers: numbers and localhost only, so that no network is needed."""

from __future__ import annotations

import _socket
import importlib
import io
import socket
from typing import Any

import pytest

import bridge
from bridge.hub import get_hub
from bridge.resolver import AbstractResolver

KINDS = ["bridge.resolver.thread", "bridge.resolver.blocking"]

CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("gethostbyname", ("127.0.0.1",)),
    ("gethostbyname", ("localhost",)),
    ("gethostbyname_ex", ("127.0.0.1",)),
    ("gethostbyaddr", ("127.0.0.1",)),
    ("getaddrinfo", ("127.0.0.1", 80)),
    ("getaddrinfo", (None, 80, _socket.AF_INET, _socket.SOCK_STREAM, 0, _socket.AI_PASSIVE)),
    ("getaddrinfo", (b"127.0.0.1", "80", 0, _socket.SOCK_DGRAM)),
    ("getnameinfo", (("127.0.0.1", 80), _socket.NI_NUMERICHOST | _socket.NI_NUMERICSERV)),
]

FAILURES: list[tuple[str, tuple[Any, ...]]] = [
    ("getaddrinfo", ("no number", 80, 0, 0, 0, _socket.AI_NUMERICHOST)),
    ("gethostbyname", (5,)),
    ("getnameinfo", ("127.0.0.1", 0)),
    ("getnameinfo", (("127.0.0.1", 80), "flags")),
]


@pytest.fixture(params=KINDS)
def resolver(request: pytest.FixtureRequest) -> Any:
    # None: a module's fixture runs outside of the loop; the hub is made in the test
    return lambda: importlib.import_module(request.param).Resolver()


@pytest.mark.parametrize("name, args", CALLS)
def test_same_answer_as_the_system(resolver: Any, name: str, args: tuple[Any, ...]) -> None:
    made = resolver()
    assert isinstance(made, AbstractResolver)
    assert getattr(made, name)(*args) == getattr(_socket, name)(*args)
    made.close()


@pytest.mark.parametrize("name, args", FAILURES)
def test_same_error_as_the_system(
    resolver: Any, printed: io.StringIO, name: str, args: tuple[Any, ...]
) -> None:
    with pytest.raises((OSError, TypeError)) as theirs:
        getattr(_socket, name)(*args)
    with pytest.raises(type(theirs.value)) as ours:
        getattr(resolver(), name)(*args)
    assert ours.value.args == theirs.value.args
    bridge.sleep(0)
    assert printed.getvalue() == ""  # it is the caller's to deal with


def test_keyword_arguments(resolver: Any) -> None:
    found = resolver().getaddrinfo("127.0.0.1", port=1, type=_socket.SOCK_STREAM, family=_socket.AF_INET)
    assert [entry[4] for entry in found] == [("127.0.0.1", 1)]
    # gevent's name for the kind of socket
    assert resolver().getaddrinfo("127.0.0.1", 1, socktype=_socket.SOCK_STREAM) == found
    assert repr(found) == repr(socket.getaddrinfo("127.0.0.1", 1, socket.AF_INET, socket.SOCK_STREAM))


def test_names_may_be_looked_up_in_another_family(resolver: Any) -> None:
    assert resolver().gethostbyname("::1", family=_socket.AF_INET6) == "::1"
    assert resolver().gethostbyname_ex("::1", _socket.AF_INET6)[2] == ["::1"]
    assert resolver().gethostbyname("127.0.0.1", _socket.AF_INET) == "127.0.0.1"


def test_the_thread_resolver_lets_others_run() -> None:
    hub = get_hub()
    made = hub.resolver
    assert type(made).__module__ == "bridge.resolver.thread"
    assert made.pool is hub.threadpool
    ran = bridge.spawn(lambda: True)
    assert made.gethostbyname("localhost") == "127.0.0.1"
    assert ran.dead
    assert "bridge.resolver.thread.Resolver" in repr(made)


@pytest.mark.parametrize(
    "name, args",
    [
        ("getaddrinfo", ("127.0.0.1", 80)),
        ("getaddrinfo", (b"::1", None, 0, _socket.SOCK_STREAM)),
        ("gethostbyname", ("127.0.0.1",)),
        ("getnameinfo", (("127.0.0.1", 80), _socket.NI_NUMERICHOST | _socket.NI_NUMERICSERV)),
    ],
)
def test_numbers_need_no_thread(name: str, args: tuple[Any, ...]) -> None:
    from bridge.resolver.thread import Resolver

    class WithoutThreads(Resolver):
        @property
        def pool(self) -> Any:
            raise AssertionError("a thread was asked")

    assert getattr(WithoutThreads(), name)(*args) == getattr(_socket, name)(*args)


@pytest.mark.parametrize(
    "args",
    [
        ("127.0.0.1", "http"),
        ("::1", 80, _socket.AF_INET),
        ("127.0.0.1", 80, _socket.AF_INET6, _socket.SOCK_STREAM, 0, getattr(_socket, "AI_V4MAPPED", 0)),
        ("127.0.0.1", 80, 0, _socket.SOCK_STREAM, 0, _socket.AI_CANONNAME | _socket.AI_PASSIVE),
        ("127.0.0.1", 80, 0, 9999),
        ("127.0.0.1\0", 80),
        ("fe80::1%nowhere", 80),
        ("127.1", 80),
    ],
)
def test_numbers_give_what_the_system_gives_in_every_case(args: tuple[Any, ...]) -> None:
    def outcome(function: Any) -> Any:
        try:
            return function(*args)
        except Exception as e:
            return type(e), e.args

    assert outcome(get_hub().resolver.getaddrinfo) == outcome(_socket.getaddrinfo)


def test_the_configured_resolver_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = get_hub()
    bridge.config.resolver = "block"
    try:
        del hub.resolver
        assert type(hub.resolver).__module__ == "bridge.resolver.blocking"
        ran = bridge.spawn(lambda: True)
        assert hub.resolver.gethostbyname("127.0.0.1") == "127.0.0.1"
        assert not ran.dead
    finally:
        del bridge.config.resolver
        del hub.resolver


@pytest.mark.engines("none")
def test_the_blocking_resolver_needs_no_hub() -> None:
    from bridge.resolver.blocking import Resolver

    before = bridge.hub.get_hub_if_exists()
    assert Resolver().gethostbyname("127.0.0.1") == "127.0.0.1"
    assert bridge.hub.get_hub_if_exists() is before


class OwnAddresses(AbstractResolver):
    """Knows where everybody lives; all else is the system's business."""

    def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        if host == "nobody":
            return []
        return [(2, 1, 6, "official", ("10.9.8.7", port))] * 2


def test_a_subclass_that_defines_getaddrinfo_has_defined_what_follows_from_it() -> None:
    hub = get_hub()
    try:
        resolver = hub.resolver = OwnAddresses()
        assert bridge.socket.gethostbyname_ex("anybody") == ("official", [], ["10.9.8.7"] * 2)
        assert bridge.socket.gethostbyname("anybody") == "10.9.8.7"
        with pytest.raises(socket.gaierror):
            bridge.socket.gethostbyname("nobody")
        ran = bridge.spawn(lambda: True)
        address = ("127.0.0.1", 80)
        flags = _socket.NI_NUMERICHOST | _socket.NI_NUMERICSERV
        assert resolver.getnameinfo(address, flags) == ("127.0.0.1", "80")
        assert ran.dead  # the system was asked in the thread pool
        with pytest.raises(socket.gaierror):
            resolver.getnameinfo(("no number", 80), _socket.NI_NUMERICHOST)
    finally:
        del hub.resolver


def test_a_subclass_of_the_system_s_resolver_changes_only_what_it_defines() -> None:
    from bridge.resolver.thread import Resolver

    class Own(Resolver):
        def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
            return []

    assert Own().gethostbyname("127.0.0.1") == "127.0.0.1"
