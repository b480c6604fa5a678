"""The programs of examples/, each run as a newcomer runs it, on both loops (its tutorial: test_tutorial)."""

from __future__ import annotations

import ast
import http.client
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# each program runs in a process of its own, on each loop
pytestmark = pytest.mark.engines("none")

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

#: Seconds after which a program counts as hung.
HUNG = 60


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> str:
    """The name of the loop that the program runs on."""
    name: str = request.param
    if name == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    return name


class Program:
    """A running example."""

    def __init__(self, loop: str, name: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
            # its lines are to come at once, as on a terminal
            env={**os.environ, "BRIDGE_LOOP": loop, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(HUNG, self.process.kill)
        self._watchdog.start()

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def port(self) -> int:
        """The port in the next line."""
        match = re.search(r"127\.0\.0\.1:(\d+)", line := self.line())
        assert match, line or self.end(signal.SIGKILL)
        return int(match[1])

    def end(self, sig: int = signal.SIGINT) -> tuple[str, str, int]:
        """Send a signal; returns what else it has printed, to stderr as well, and the exit status."""
        self.process.send_signal(sig)
        out, err = self.process.communicate()
        return out, err, self.process.returncode

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._watchdog.cancel()


@pytest.fixture
def start(loop: str) -> Iterator[Any]:
    """Start a program, which is ended after the test."""
    running: list[Program] = []

    def make(name: str, *arguments: str) -> Program:
        program = Program(loop, name, *arguments)
        running.append(program)
        return program

    yield make
    for program in running:
        program.stop()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=HUNG)


def get(url: str, data: bytes | None = None, context: ssl.SSLContext | None = None) -> bytes:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, data, timeout=HUNG) as answer:
        return bytes(answer.read())


def test_echo_server_serves_several_clients(start: Any) -> None:
    program = start("echo_server.py", "0")
    port = program.port()
    with connect(port) as first, connect(port) as second:
        files = [sock.makefile("rb") for sock in (first, second)]
        for file in files:
            assert file.readline().startswith(b"Welcome")
        for sock, file, line in zip((second, first), files[::-1], (b"two\n", b"one\n"), strict=True):
            sock.sendall(line)
            assert file.readline() == line
        first.sendall(b"quit\n")
        assert files[0].read() == b""
        for file in files:
            file.close()
    assert [program.line() for _ in range(4)].count("disconnected: 127.0.0.1") == 2
    out, _, status = program.end()
    assert (out, status) == ("bye\n", 0)


def test_port_forwarder_forwards_and_ends_gracefully(start: Any) -> None:
    echo = start("echo_server.py", "0").port()
    program = start("port_forwarder.py", "127.0.0.1:0", f"127.0.0.1:{echo}")
    with connect(program.port()) as sock, sock.makefile("rb") as file:
        assert file.readline().startswith(b"Welcome")
        assert "->" in program.line()
        program.process.send_signal(signal.SIGTERM)
        sock.sendall(b"still here\n")
        assert file.readline() == b"still here\n"
        sock.shutdown(socket.SHUT_WR)
        assert file.read() == b""
    assert program.process.wait(timeout=HUNG) == 0


def test_port_forwarder_says_if_the_target_is_not_there(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
    program = start("port_forwarder.py", "127.0.0.1:0", target)
    with connect(program.port()) as sock:
        assert sock.recv(1) == b""
    out, err, status = program.end(signal.SIGTERM)
    assert "cannot reach" in out and (err, status) == ("", 0)


class Pages(http.server.BaseHTTPRequestHandler):
    """The web, for the proxy."""

    def do_GET(self) -> None:
        status, body = (404, b"gone") if self.path == "/gone" else (200, b"page " + self.path.encode())
        self.send_response(status)
        self.send_header("X-Agent", self.headers["User-Agent"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_web_proxy_passes_pages_on(start: Any) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        try:
            program = start("web_proxy.py", "0")
            connection = http.client.HTTPConnection("127.0.0.1", program.port(), timeout=HUNG)
            base = f"http://127.0.0.1:{web.server_port}"
            connection.request("GET", f"{base}/a?b=c", headers={"User-Agent": "test"})
            answer = connection.getresponse()
            assert (answer.read(), answer.headers["X-Agent"]) == (b"page /a?b=c", "test")
            connection.request("POST", f"{base}/", body=b"abc", headers={"Content-Type": "text/plain"})
            assert connection.getresponse().read() == b"cba"
            connection.request("GET", f"{base}/gone")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (404, b"gone")
        finally:
            web.shutdown()
            thread.join()
    connection.request("GET", f"{base}/")
    assert connection.getresponse().status == 502
    connection.close()


def test_udp_client_and_server_talk(start: Any) -> None:
    server = start("udp_server.py", "0")
    client = start("udp_client.py", "hello", str(server.port()))
    out, err = client.process.communicate()
    assert (out, err, client.process.returncode) == ("Received 5 bytes\n", "", 0)
    assert server.line() == "127.0.0.1: got b'hello'"


def test_udp_client_gives_up(start: Any) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    client = start("udp_client.py", "hello", str(port))
    _, err = client.process.communicate()
    assert "nobody answers" in err and client.process.returncode == 1


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_unix_client_and_server_talk(start: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "s")
        server = start("unix_server.py", path)
        assert server.line() == f"Listening at {path}"
        client = start("unix_client.py", path, "Alice", "Bob")
        out, err = client.process.communicate()
        assert (out, err) == ("Hello, Alice!\nHello, Bob!\n", "")
        assert server.end() == ("bye\n", "", 0)
        assert not os.path.exists(path)


@pytest.mark.skipif(importlib.util.find_spec("bridge.ssl") is None, reason="needs bridge.ssl")
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_wsgi_tls_says_hello(start: Any) -> None:
    port = start("wsgi_tls.py", "0").port()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with connect(port):  # a client that does not go on with the handshake keeps nobody waiting
        assert get(f"https://127.0.0.1:{port}/", context=context) == b"hello by https\n"


def test_long_polling_answers_all_who_wait(start: Any) -> None:
    url = f"http://127.0.0.1:{start('long_polling.py', '0').port()}/news"
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(json.loads(get(f"{url}?after=0")))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    threads[0].join(0.05)
    assert answers == []
    get(url, b"it rains")
    for thread in threads:
        thread.join()
    assert answers == [{"messages": ["it rains"], "next": 1}] * 3
    get(url, b"it snows")
    assert json.loads(get(f"{url}?after=1")) == {"messages": ["it snows"], "next": 2}
    assert json.loads(get(url))["messages"] == ["it rains", "it snows"]


@pytest.mark.skipif(importlib.util.find_spec("wsproto") is None, reason="needs wsproto")
def test_chat_brings_lines_to_everybody(start: Any) -> None:
    websocket = pytest.importorskip("websocket")
    port = start("chat/chat.py", "0").port()
    page = get(f"http://127.0.0.1:{port}/").decode()
    assert "new WebSocket(" in page and "/chat" in page

    def join(name: str) -> Any:
        client = websocket.create_connection(f"ws://127.0.0.1:{port}/chat", timeout=HUNG)
        client.send(name)
        return client

    alice = join("Alice")
    assert alice.recv() == "* Alice has come, which makes 1"
    bob = join("Bob")
    assert alice.recv() == bob.recv() == "* Bob has come, which makes 2"
    bob.send("hi " + "x" * 100_000)
    assert alice.recv() == bob.recv() == "Bob: hi " + "x" * 100_000
    bob.ping("?")
    bob.close()
    assert alice.recv() == "* Bob has left"
    carol = join("Carol")
    carol.recv()
    carol.sock.close()  # without a word
    assert [alice.recv(), alice.recv()] == ["* Carol has come, which makes 2", "* Carol has left"]
    alice.close()
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        websocket.create_connection(f"ws://127.0.0.1:{port}/chat", origin="http://evil.example")


def test_every_program_is_tested_documented_and_listed() -> None:
    folder = Path(__file__).parent
    here = "".join(file.read_text(encoding="utf-8") for file in folder.glob("test_examples*.py"))
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    programs = [path for path in EXAMPLES.rglob("*.py") if path.parent.name != "tutorial"]
    assert len(programs) >= 10
    for path in programs:
        name = path.relative_to(EXAMPLES).as_posix()
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring and "Look for: " in docstring, name
        assert name in here or name.startswith("migration/step"), name  # whose test looks into the folder
        assert f"`{name}`" in readme, name
    for path in (EXAMPLES / "tutorial").glob("*.py"):
        assert f"`{path.name}`" in readme, path


def test_no_program_hides_a_module_of_the_standard_library() -> None:
    """Python puts a program's folder first in `sys.path`: a socket.py there would break `import socket`."""
    assert not {path.stem for path in EXAMPLES.rglob("*.py")} & set(sys.stdlib_module_names)
