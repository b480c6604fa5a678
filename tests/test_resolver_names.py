"""The resolvers that ask DNS servers themselves, with a server of the test's own."""

from __future__ import annotations

import asyncio
import importlib
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("dns", reason="needs dnspython")
pytest.importorskip("pycares", reason="needs pycares")

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

import bridge
from bridge.exceptions import BlockingSwitchOutError
from bridge.resolver import AbstractResolver
from bridge.resolver._hostsfile import HostsFile

from .helpers import run_code

KINDS = ["ares", "dnspython"]

ZONE = {
    ("both.test.", "A"): ["10.0.0.1", "10.0.0.2"],
    ("both.test.", "AAAA"): ["fd00::1"],
    ("four.test.", "A"): ["10.0.0.4"],
    ("six.test.", "AAAA"): ["fd00::6"],
    ("alias.test.", "CNAME"): ["second.test."],
    ("second.test.", "CNAME"): ["both.test."],
    ("big.test.", "A"): [f"10.1.0.{i}" for i in range(200)],
    ("xn--bcher-kva.test.", "A"): ["10.0.0.8"],
    ("4.0.0.10.in-addr.arpa.", "PTR"): ["four.test."],
    ("6.0." + "0." * 26 + "0.0.d.f.ip6.arpa.", "PTR"): ["six.test."],
    ("nothing.test.", "TXT"): ['"it exists"'],
}
NAMES = {name for name, _kind in ZONE}


def answer(data: bytes, most: int) -> bytes | None:
    query = dns.message.from_wire(data)
    question = query.question[0]
    name = str(question.name).lower()
    kind = dns.rdatatype.to_text(question.rdtype)
    response = dns.message.make_response(query)
    if name == "silent.test.":
        return None
    if name == "failing.test.":
        response.set_rcode(dns.rcode.SERVFAIL)
    elif name == "refused.test.":
        response.set_rcode(dns.rcode.REFUSED)
    elif name not in NAMES:
        response.set_rcode(dns.rcode.NXDOMAIN)
    while (name, "CNAME") in ZONE:
        target = ZONE[name, "CNAME"]
        response.answer.append(dns.rrset.from_text_list(name, 60, "IN", "CNAME", target))
        name = target[0]
    if (name, kind) in ZONE:
        response.answer.append(dns.rrset.from_text_list(name, 60, "IN", kind, ZONE[name, kind]))
    wire = response.to_wire(max_size=65535)
    if len(wire) > most:
        short = dns.message.make_response(query)
        short.flags |= dns.flags.TC
        wire = short.to_wire()
    return wire


class Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        found = answer(data, 512)
        if found is not None:
            sock.sendto(found, self.client_address)


class Tcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while size := self.rfile.read(2):
            found = answer(self.rfile.read(int.from_bytes(size, "big")), 65535)
            if found is not None:
                self.wfile.write(len(found).to_bytes(2, "big") + found)


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where a server listens, on 127.0.0.1."""
    with socketserver.UDPServer(("127.0.0.1", 0), Udp) as udp, TcpServer(udp.server_address, Tcp) as tcp:
        threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in (udp, tcp)]
        for thread in threads:
            thread.start()
        yield udp.server_address[1]
        for server in (udp, tcp):
            server.shutdown()
        for thread in threads:
            thread.join()


def make(kind: str, port: int, timeout: float = 5) -> Any:
    module = importlib.import_module(f"bridge.resolver.{kind}")
    if kind == "ares":
        made = module.Resolver(
            servers=["127.0.0.1"], udp_port=port, tcp_port=port, timeout=timeout, tries=1, ndots=1
        )
    else:
        made = module.Resolver()
        made.resolver.nameservers = ["127.0.0.1"]
        made.resolver.port = port
        made.resolver.lifetime = timeout
        made.resolver.search = []
    made.hosts = HostsFile("/no/such/file")
    return made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Maker:
    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.port = port
        self.made: Any = None

    def __call__(self, **options: Any) -> Any:
        # in the test, where the loop runs
        self.made = make(self.kind, self.port, **options)
        return self.made


@pytest.fixture
def resolver(kind: str, port: int) -> Maker:
    return Maker(kind, port)


def addresses(found: list[Any]) -> list[Any]:
    return [entry[4][0] for entry in found]


# -- names ------------------------------------------------------------------------------------------


def test_addresses_of_a_name(resolver: Maker) -> None:
    r = resolver()
    assert isinstance(r, AbstractResolver)
    assert r.gethostbyname("four.test") == r.gethostbyname(b"FOUR.test") == "10.0.0.4"
    assert r.gethostbyname("four.test.") == "10.0.0.4"
    assert r.gethostbyname("bücher.test") == "10.0.0.8"
    found = r.getaddrinfo("four.test", "http", type=socket.SOCK_STREAM)
    assert found == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.4", 80))]
    assert type(found[0][0]) is socket.AddressFamily and type(found[0][1]) is socket.SocketKind
    stream = {"type": socket.SOCK_STREAM}
    assert sorted(addresses(r.getaddrinfo("both.test", 80, **stream))) == ["10.0.0.1", "10.0.0.2", "fd00::1"]
    assert addresses(r.getaddrinfo("both.test", 80, socket.AF_INET6, **stream)) == ["fd00::1"]
    assert r.getaddrinfo("six.test", 80, **stream)[0][4] == ("fd00::6", 80, 0, 0)
    kinds = {entry[1] for entry in r.getaddrinfo("four.test", 80)}
    assert kinds == {entry[1] for entry in socket.getaddrinfo("127.0.0.1", 80)}
    r.close()


def test_official_names_and_aliases(resolver: Maker) -> None:
    r = resolver()
    name, aliases, found = r.gethostbyname_ex("alias.test")
    assert (name, aliases) == ("both.test", ["alias.test", "second.test"])
    assert sorted(found) == ["10.0.0.1", "10.0.0.2"]
    found = r.getaddrinfo("alias.test", 80, socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_CANONNAME)
    assert [entry[3] for entry in found] == ["both.test", ""]
    assert r.gethostbyname_ex("four.test") == ("four.test", [], ["10.0.0.4"])
    r.close()


def test_an_answer_too_big_for_a_packet_comes_by_tcp(resolver: Maker) -> None:
    r = resolver()
    assert sorted(r.gethostbyname_ex("big.test")[2]) == sorted(ZONE["big.test.", "A"])
    r.close()


def test_names_of_addresses(resolver: Maker) -> None:
    r = resolver()
    assert r.gethostbyaddr("10.0.0.4") == ("four.test", [], ["10.0.0.4"])
    assert r.gethostbyaddr("four.test") == ("four.test", [], ["10.0.0.4"])
    assert r.gethostbyaddr("fd00::6") == ("six.test", [], ["fd00::6"])
    assert r.getnameinfo(("10.0.0.4", 80), 0) == ("four.test", "http")
    assert r.getnameinfo(("10.0.0.4", 80), socket.NI_NUMERICHOST) == ("10.0.0.4", "http")
    assert r.getnameinfo(("10.0.0.5", 80), socket.NI_NUMERICSERV) == ("10.0.0.5", "80")
    assert r.getnameinfo(("fd00::6", 80, 0, 0), 0) == ("six.test", "http")
    for call, error in (
        (lambda: r.getnameinfo(("10.0.0.5", 80), socket.NI_NAMEREQD), (socket.gaierror, socket.EAI_NONAME)),
        (lambda: r.gethostbyaddr("10.0.0.5"), (socket.herror, 1)),
    ):
        with pytest.raises(error[0]) as caught:
            call()
        assert caught.value.errno == error[1] and type(caught.value) is error[0]
    r.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the numbers and texts are those of glibc")
def test_errors(resolver: Maker) -> None:
    r = resolver()
    for name, family, error in (
        ("unknown.test", 0, (-2, "Name or service not known")),
        ("a..b", 0, None),
        ("x" * 300, 0, None),
        (b"x" * 300, 0, (-2, "Name or service not known")),
        ("nothing.test", 0, (-5, "No address associated with hostname")),
        ("four.test", socket.AF_INET6, (-5, "No address associated with hostname")),
        ("failing.test", 0, (-3, "Temporary failure in name resolution")),
        ("refused.test", socket.AF_INET, (-3, "Temporary failure in name resolution")),
    ):
        if error is None:
            with pytest.raises(UnicodeError):
                r.getaddrinfo(name, 80, family)
            continue
        with pytest.raises(socket.gaierror) as caught:
            r.getaddrinfo(name, 80, family)
        assert caught.value.args == error, name
    for function in (r.gethostbyname, r.gethostbyname_ex, r.gethostbyaddr):
        with pytest.raises(socket.gaierror) as caught:
            function("unknown.test")
        assert caught.value.args == (-2, "Name or service not known")
    with pytest.raises(socket.herror) as wrong:
        make(resolver.kind, 9, timeout=0.05).gethostbyaddr("10.0.0.4")
    assert wrong.value.args == (2, "Host name lookup failure")
    r.close()


def test_addresses_for_sockets_of_the_other_family(resolver: Maker) -> None:
    r = resolver()
    six = (80, socket.AF_INET6, socket.SOCK_STREAM, 0)
    assert addresses(r.getaddrinfo("four.test", *six, socket.AI_V4MAPPED)) == ["::ffff:10.0.0.4"]
    assert addresses(r.getaddrinfo("both.test", *six, socket.AI_V4MAPPED)) == ["fd00::1"]
    both = addresses(r.getaddrinfo("both.test", *six, socket.AI_V4MAPPED | socket.AI_ALL))
    assert sorted(both) == ["::ffff:10.0.0.1", "::ffff:10.0.0.2", "fd00::1"]
    r.close()


# -- what the system is asked ---------------------------------------------------------------------------

NO_NAMES = ["1.2.3.4", "127.1", "::1", "", "a..b", "a\0b", None, 25]
SYSTEM: list[tuple[str, tuple[Any, ...]]] = [
    *[("getaddrinfo", (host, 80)) for host in (*NO_NAMES, b"0") if host != "a\0b"],
    *[("getaddrinfo", ("unknown", port)) for port in ("no such service", -1, 1.5)],
    *[("getaddrinfo", ("unknown", 80, *rest)) for rest in ((255,), (0, 255), (0, 0, 0, 55555555))],
    ("getaddrinfo", ("1.2.3.4", 80, socket.AF_INET6)),
    ("getaddrinfo", ("unknown", 80, 0, 0, 0, socket.AI_NUMERICHOST)),
    *[("gethostbyname", (host,)) for host in (*NO_NAMES, "<broadcast>")],
    *[("gethostbyname_ex", (host,)) for host in (*NO_NAMES, bytearray(b"1.2.3.4"))],
    *[("gethostbyaddr", (host,)) for host in ("", None, "a..b", "a\0b")],
    *[("getnameinfo", (("1.2.3.4", 80), flags)) for flags in (socket.NI_NUMERICHOST, 55555555, "x")],
    *[("getnameinfo", (address, 0)) for address in ("x", (), ("unknown", 80), ("1.2.3.4", "http"))],
]


def test_numbers_and_errors_are_the_system_s(kind: str) -> None:
    made = make(kind, 9)  # nobody listens there

    def outcome(function: Any, args: Any) -> Any:
        try:
            return function(*args)
        except Exception as e:
            return type(e), e.args

    others = bridge.spawn(lambda: None)
    for name, args in SYSTEM:
        assert outcome(getattr(made, name), args) == outcome(getattr(socket, name), args), (name, args)
    assert not others.dead  # nobody was waited for
    made.close()


# -- the hosts file -------------------------------------------------------------------------------------


def test_the_hosts_file_comes_first(resolver: Maker, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(
        "# comment\n\n10.2.0.1 host.example host h # comment\n10.2.0.2\thost.example\n"
        "fd00::2 host.example\nno-number x\n10.2.0.3\n10.0.0.4 mine.example\n"
    )
    r = resolver()
    r.hosts = HostsFile(str(path))
    stream = (socket.SOCK_STREAM,)
    assert r.gethostbyname("h") == r.gethostbyname("HOST") == "10.2.0.1"
    assert r.gethostbyname_ex("host.example") == ("host.example", ["host", "h"], ["10.2.0.1", "10.2.0.2"])
    assert addresses(r.getaddrinfo("host.example", 80, socket.AF_INET6, *stream)) == ["fd00::2"]
    found = addresses(r.getaddrinfo("host.example", 80, 0, *stream))
    assert sorted(found) == ["10.2.0.1", "10.2.0.2", "fd00::2"]
    assert r.gethostbyaddr("10.2.0.1") == ("host.example", ["host", "h"], ["10.2.0.1"])
    assert r.gethostbyaddr("fd00:0::2")[0] == "host.example"
    assert r.getnameinfo(("10.0.0.4", 80), 0) == ("mine.example", "http")
    assert r.gethostbyname("four.test") == "10.0.0.4"
    with pytest.raises(socket.gaierror):
        r.gethostbyname("x")
    path.write_text("10.2.0.9 h\n")
    assert r.gethostbyname("h") == "10.2.0.9"
    path.unlink()
    with pytest.raises(socket.gaierror):
        r.gethostbyname("h")
    r.close()


def test_pairs_of_the_hosts_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost lo\n::1 localhost\n")
    assert list(HostsFile(str(path)).iter_all_host_addr_pairs()) == [
        ("localhost", "127.0.0.1"),
        ("lo", "127.0.0.1"),
        ("localhost", "::1"),
    ]
    assert list(HostsFile(str(tmp_path)).iter_all_host_addr_pairs()) == []


def test_localhost_is_nothing_to_ask_servers_for(kind: str, tmp_path: Path) -> None:
    made = make(kind, 9)
    assert made.gethostbyname("localhost") == "127.0.0.1"
    found = made.getaddrinfo("LocalHost", 80, type=socket.SOCK_STREAM)
    assert sorted(addresses(found)) == ["127.0.0.1", "::1"]
    path = tmp_path / "hosts"
    path.write_text("127.0.0.5 localhost\n")
    made.hosts = HostsFile(str(path))
    assert made.gethostbyname("localhost") == "127.0.0.5"
    with pytest.raises(socket.gaierror) as caught:
        made.getaddrinfo("localhost", 80, socket.AF_INET6)
    assert caught.value.errno == socket.EAI_NONAME
    made.hosts = HostsFile()
    assert made.getaddrinfo("localhost", 80) == socket.getaddrinfo("localhost", 80)
    assert made.gethostbyname("localhost") == socket.gethostbyname("localhost")
    made.close()


# -- waiting --------------------------------------------------------------------------------------------


def test_only_the_greenlet_waits_and_many_may(resolver: Maker) -> None:
    r = resolver()
    ticks: list[int] = []

    def tick() -> None:
        while True:
            bridge.sleep(0.001)  # not 0: the server is a thread, which has to get its turn
            ticks.append(1)

    ticker = bridge.spawn(tick)
    greenlets = [bridge.spawn(r.gethostbyname, name) for name in ["four.test", "alias.test"] * 30]
    bridge.joinall(greenlets, timeout=10)
    ticker.kill()
    assert {g.value for g in greenlets} <= {"10.0.0.4", "10.0.0.1", "10.0.0.2"}
    assert ticks
    r.close()


def test_a_server_that_does_not_answer(resolver: Maker) -> None:
    r = resolver(timeout=0.05)
    with pytest.raises(socket.gaierror) as caught:
        r.gethostbyname("silent.test")
    assert caught.value.errno == socket.EAI_AGAIN
    r.close()
    r = resolver()
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.01):
        r.gethostbyname("silent.test")
    g = bridge.spawn(r.gethostbyname, "silent.test")
    bridge.sleep(0.005)
    g.kill()
    assert r.gethostbyname("four.test") == "10.0.0.4"
    r.close()
    assert bridge.get_hub().loop.activecnt == 0


def test_close_ends_what_waits(port: int) -> None:
    r = make("ares", port)
    g = bridge.spawn(r.gethostbyname, "silent.test")
    bridge.sleep(0.005)
    r.close()
    r.close()
    g.join(timeout=10)
    assert isinstance(g.exception, socket.gaierror)
    with pytest.raises(ValueError, match="closed"):
        r.gethostbyname("four.test")
    assert r.gethostbyname("1.2.3.4") == "1.2.3.4"


@pytest.mark.asyncio
async def test_in_coroutines(resolver: Maker) -> None:
    r = resolver()
    with pytest.raises(BlockingSwitchOutError):
        r.gethostbyname("four.test")
    assert r.gethostbyname("127.1") == "127.0.0.1"
    assert await bridge.sync_to_async(r.gethostbyname)("four.test") == "10.0.0.4"

    @bridge.portal
    async def main() -> None:
        assert r.gethostbyname("four.test") == "10.0.0.4"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                r.gethostbyname("silent.test")
        assert r.gethostbyname("four.test") == "10.0.0.4"

    await main()
    r.close()


@pytest.mark.engines("none")
def test_one_resolver_in_several_loops_and_threads(resolver: Maker) -> None:
    r = resolver()

    async def look() -> Any:
        return await bridge.spawn(r.gethostbyname, "four.test")

    assert [asyncio.run(look()) for _ in range(3)] == ["10.0.0.4"] * 3
    results: list[Any] = []

    def work() -> None:
        results.append(r.gethostbyname("four.test"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["10.0.0.4"] * 3
    r.close()
    bridge.get_hub().destroy(destroy_loop=True)


@pytest.mark.engines("none")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("patch", ["", "import bridge.monkey; bridge.monkey.patch_all()\n"])
def test_on_both_sides_of_a_fork(kind: str, port: int, loop: str, patch: str) -> None:
    # imported before patching: threads and queues are then of different kinds
    script = f"""
import pycares
{patch}import os
import importlib, bridge
from bridge import os as bos
from bridge.resolver._hostsfile import HostsFile
config = bridge.config
config.resolver = {kind!r}
hub = bridge.get_hub()
if {kind!r} == "ares":
    config.ares_udp_port = config.ares_tcp_port = {port}
else:
    hub.resolver.resolver.port = {port}
    hub.resolver.resolver.nameservers = ["127.0.0.1"]
    hub.resolver.resolver.search = []
config.resolver_nameservers = "127.0.0.1"
resolver = hub.resolver
resolver.hosts = HostsFile("/no/such/file")
def wait():
    try:
        resolver.gethostbyname("silent.test")
    except OSError:
        pass  # in the child, where that answer will not come
waiting = bridge.spawn(wait)
print(resolver.gethostbyname("four.test"))
pid = bos.fork()
if not pid:
    assert bridge.get_hub().resolver is resolver
    look_up = bridge.get_hub().resolver.gethostbyname
    assert bridge.spawn(look_up, "alias.test").get(timeout=10).startswith("10.0.0.")
    os._exit(5)
print(bos.waitpid(pid, 0) == (pid, 5 << 8))
print(resolver.gethostbyname("four.test"))
waiting.kill()
hub.destroy()
"""
    assert run_code(script, BRIDGE_LOOP=loop).splitlines() == ["10.0.0.4", "True", "10.0.0.4"]


# -- choosing one ---------------------------------------------------------------------------------------


class Own(AbstractResolver):
    def _call(self, function: Any, *args: Any) -> Any:
        return function.__name__, args


@pytest.mark.engines("none")
@pytest.mark.parametrize(
    "value, name",
    [
        ("ares", "bridge.resolver.ares"),
        ("dnspython", "bridge.resolver.dnspython"),
        ("no.such.module.Resolver,dnspython", "bridge.resolver.dnspython"),
        ("bridge.resolver.blocking.Resolver", "bridge.resolver.blocking"),
    ],
)
@pytest.mark.parametrize("variable", ["GEVENT_RESOLVER", "BRIDGE_RESOLVER"])
def test_chosen_by_the_environment(variable: str, value: str, name: str) -> None:
    script = "import bridge; print(type(bridge.get_hub().resolver).__module__)"
    assert run_code(script, **{variable: value}) == f"{name}\n"


def test_a_class_of_one_s_own() -> None:
    hub = bridge.get_hub()
    try:
        for value in (Own, ["no.such.module.Resolver", Own]):
            bridge.config.resolver = value
            del hub.resolver
            assert type(hub.resolver) is Own
            assert bridge.socket.gethostbyname("x") == ("gethostbyname", ("x",))
    finally:
        del bridge.config.resolver
        del hub.resolver


@pytest.mark.engines("none")
def test_settings_of_the_resolvers() -> None:
    script = """
import bridge
from bridge.resolver import ares, dnspython
r = ares.Resolver()
print(r._options)
print(ares.Resolver(use_environ=False, tries=3)._options, ares.Resolver(tries=3)._options["tries"])
d = dnspython.Resolver().resolver
print([str(n) for n in d.nameservers], d.lifetime)
"""
    assert run_code(
        script,
        GEVENT_RESOLVER_NAMESERVERS="10.9.9.1,10.9.9.2",
        GEVENT_RESOLVER_TIMEOUT="1.5",
        GEVENTARES_TRIES="2",
        GEVENTARES_UDP_PORT="5353",
    ).splitlines() == [
        "{'tries': 2, 'udp_port': 5353, 'servers': ['10.9.9.1', '10.9.9.2'], 'timeout': 1.5}",
        "{'tries': 3} 3",
        "['10.9.9.1', '10.9.9.2'] 1.5",
    ]


@pytest.mark.engines("none")
def test_the_old_names_of_the_modules() -> None:
    script = """
import warnings
warnings.simplefilter("ignore")
import bridge
bridge.install_as_gevent()
import gevent.resolver_ares, gevent.resolver_thread, gevent.ares, gevent.resolver.ares
import gevent.resolver.cares, gevent.resolver.thread, gevent.resolver.dnspython, gevent.resolver.blocking
print(gevent.resolver_ares.Resolver is gevent.resolver.ares.Resolver is bridge.resolver.ares.Resolver)
print(gevent.resolver_thread.Resolver is bridge.resolver.thread.Resolver)
print(gevent.ares.channel is gevent.resolver.cares.channel)
"""
    assert run_code(script) == "True\n" * 3
