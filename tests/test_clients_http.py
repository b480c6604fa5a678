"""HTTP clients that know nothing of greenlets, patched: many at once in one thread. Own processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.engines("none")

Run = Callable[..., str]

#: A server of the standard library, in the same thread as its clients; it answers when all have asked.
SERVER = """
from bridge import monkey
monkey.patch_all()
import http.server, socketserver, threading, time, sys
import bridge
from bridge.event import Event

class Gate:
    '''Opens when *count* are at it: only then has everybody asked before anybody was answered.'''
    def __init__(self, count):
        self.count, self.event = count, Event()
    def wait(self):
        self.count -= 1
        if not self.count:
            self.event.set()
        assert self.event.wait(20), "the clients do not run side by side"

gate = Gate(CLIENTS)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/gate"):
            gate.wait()
        self.answer(("you asked for " + self.path).encode())
    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])).upper())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # some clients go away
            super().handle_error(request, client_address)

server = Server(("127.0.0.1", 0), Handler)
serving = threading.Thread(target=server.serve_forever)
serving.start()
url = "http://127.0.0.1:%d" % server.server_address[1]
native = monkey.get_original("_thread", "get_ident")()
"""

END = """
server.shutdown()
serving.join()
server.server_close()
assert monkey.get_original("_thread", "get_ident")() == native
print("done")
"""


def program(code: str, clients: int = 10) -> str:
    return SERVER.replace("CLIENTS", str(clients)) + code + END


def test_urllib(run_fresh: Run) -> None:
    out = run_fresh(
        program("""
import urllib.request
def ask(i):
    with urllib.request.urlopen(f"{url}/gate{i}") as response:
        return response.read().decode()
jobs = [bridge.spawn(ask, i) for i in range(10)]
assert [job.get() for job in jobs] == [f"you asked for /gate{i}" for i in range(10)]
with urllib.request.urlopen(url, data=b"data" * 100_000) as response:
    assert response.read() == b"DATA" * 100_000
""")
    )
    assert out == "done\n"


def test_http_client_keeps_its_connection(run_fresh: Run) -> None:
    out = run_fresh(
        program("""
import http.client
def ask(i):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    bodies = []
    for path in (f"/gate{i}", f"/again{i}"):
        connection.request("GET", path)
        bodies.append(connection.getresponse().read())
    connection.close()
    return bodies
threads = [bridge.spawn(ask, i) for i in range(10)]
for i, thread in enumerate(threads):
    assert thread.get() == [b"you asked for /gate%d" % i, b"you asked for /again%d" % i]
slow = http.client.HTTPConnection(url.removeprefix("http://"), timeout=0.02)
gate.count, gate.event = 2, Event()
slow.request("GET", "/gate")
try:
    slow.getresponse()
except TimeoutError:
    gate.event.set()
    slow.close()
else:
    raise AssertionError("no timeout")
""")
    )
    assert out == "done\n"


def test_urllib3_and_its_pool_of_connections(run_fresh: Run) -> None:
    pytest.importorskip("urllib3", reason="urllib3 is not installed")
    out = run_fresh(
        program("""
import urllib3
pool = urllib3.PoolManager(maxsize=3, block=True)
def ask(i):
    return pool.request("GET", f"{url}/gate{i}").data
jobs = [bridge.spawn(ask, i) for i in range(9)]
gate.count = 3  # no more than there are connections get through at once
for job in jobs:
    while not job.ready():
        job.join(0.01)
        if gate.event.is_set() and not gate.count:
            gate.count, gate.event = 3, Event()
assert sorted(job.get() for job in jobs) == [b"you asked for /gate%d" % i for i in range(9)]
assert pool.connection_from_url(url).num_connections <= 3
assert pool.request("POST", url, body=b"x" * 1_000_000).data == b"X" * 1_000_000
pool.clear()
""")
    )
    assert out == "done\n"


def test_requests(run_fresh: Run) -> None:
    pytest.importorskip("requests", reason="requests is not installed")
    out = run_fresh(
        program("""
import concurrent.futures
import requests
with requests.Session() as session:
    def ask(i):
        return session.get(f"{url}/gate{i}", timeout=30).text
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert list(pool.map(ask, range(10))) == [f"you asked for /gate{i}" for i in range(10)]
    assert session.post(url, data=b"text").text == "TEXT"
gate.count, gate.event = 2, Event()
try:
    requests.get(f"{url}/gate", timeout=0.02)
except requests.Timeout:
    gate.event.set()
else:
    raise AssertionError("no timeout")
try:
    with bridge.Timeout(0.02):
        gate.count, gate.event = 2, Event()
        requests.get(f"{url}/gate")
except bridge.Timeout:
    gate.event.set()
else:
    raise AssertionError("no timeout")
# in a coroutine, by way of a greenlet of its own, and directly below a portal
async def main():
    assert (await bridge.sync_to_async(requests.get)(url + "/a")).text == "you asked for /a"
    assert requests.get(url + "/b").text == "you asked for /b"
bridge.run(main)
""")
    )
    assert out == "done\n"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_async_clients_work_as_unpatched(run_fresh: Run, loop: str) -> None:
    """aiohttp, httpx and anyio in tasks, against a patched server in the same thread."""
    for name in ("aiohttp", "anyio", "httpx", "uvloop"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    out = run_fresh(
        program(
            f"""
import asyncio, warnings
import aiohttp, anyio, httpx, uvloop
factory = uvloop.new_event_loop if {loop!r} == "uvloop" else None

async def main():
    async with aiohttp.ClientSession() as session:
        async def by_aiohttp(i):
            async with session.get(f"{{url}}/gate{{i}}") as response:
                return await response.text()
        async with httpx.AsyncClient(trust_env=False) as client:
            async def by_httpx(i):
                return (await client.get(f"{{url}}/gate{{i}}")).text
            jobs = [by_aiohttp(0), by_httpx(1), by_aiohttp(2), by_httpx(3)]
            assert await asyncio.gather(*jobs) == [f"you asked for /gate{{i}}" for i in range(4)]
    host, port = url.removeprefix("http://").split(":")
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
        with anyio.fail_after(30):
            assert (await stream.receive()).startswith(b"HTTP/1.1 200")
    assert await anyio.to_thread.run_sync(lambda: "from a thread") == "from a thread"
    assert await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 0)) is None
    assert (await anyio.run_process(["echo", "hello"])).stdout == b"hello\\n"
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)

def run():
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
run()
""",
            4,
        )
    )
    assert out == "done\n"
