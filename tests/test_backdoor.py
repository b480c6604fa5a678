"""The console over the network: each connection its own, and nothing of it elsewhere."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bridge
from bridge import backdoor, socket
from bridge.backdoor import BackdoorServer
from bridge.event import Event

PROMPT = b">>> "

Serve = Callable[..., BackdoorServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Make and start a server, which is stopped at the end of the test."""
    made: list[BackdoorServer] = []

    def make(listener: Any = ("127.0.0.1", 0), **kwargs: Any) -> BackdoorServer:
        server = BackdoorServer(listener, **kwargs)
        made.append(server)
        server.start()
        return server

    before = sys.stdin, sys.stdout, sys.stderr
    yield make
    for server in made:
        server.stop(timeout=0)
    assert (sys.stdin, sys.stdout, sys.stderr) == before


class Console:
    """The other end of a connection."""

    def __init__(self, server: BackdoorServer) -> None:
        if isinstance(server.address, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(server.address)
        else:
            self.sock = socket.create_connection(server.address)
        self.banner = self.until(PROMPT)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def until(self, end: bytes) -> str:
        received = b""
        while not received.endswith(end):
            data = self.sock.recv(1)
            if not data:
                return received.decode() + "<closed>"
            received += data
        return received[: -len(end)].decode()

    def __call__(self, text: str) -> str:
        """What the console answers, up to the next prompt."""
        self.sock.sendall(text.encode() + b"\n")
        return self.until(PROMPT)


def test_expressions_are_evaluated_and_printed(serve: Serve) -> None:
    with Console(serve()) as console:
        assert console.banner.startswith(f"Python {sys.version.split()[0]}")
        assert console("2 + 2\r") == "4\n"
        assert console("x = 'hé'") == ""
        assert console("x, len(x)") == "('hé', 2)\n"
        assert console("for i in range(2):\n  print(i)\n") == "... ... 0\n1\n"


def test_errors_are_shown_and_the_console_goes_on(serve: Serve) -> None:
    with Console(serve()) as console:
        assert console("1 / 0").endswith("ZeroDivisionError: division by zero\n")
        assert "SyntaxError" in console("def f(:")
        assert console("raise KeyboardInterrupt").endswith("KeyboardInterrupt\n")
        console.sock.sendall(b'"\xff"\n')
        assert console.until(PROMPT) == "'�'\n"
        assert console("print('\\ud800')") == "\\ud800\n"
        assert console("1") == "1\n"


def test_a_banner_and_names_may_be_given(serve: Serve) -> None:
    server = serve(banner="Welcome", locals={"answer": 42})
    with Console(server) as first, Console(server) as second:
        assert first.banner == "Welcome\n"
        assert first("answer") == "42\n"
        assert first("answer = 1; mine = 2; __name__") == "'__console__'\n"
        assert second("answer") == "42\n"
        assert "NameError" in second("mine")
        assert len(second("locals()['__builtins__']")) < 100


@pytest.mark.parametrize("end", ["quit()", "exit()", "import sys; sys.exit(3)", "raise SystemExit"])
def test_quit_ends_the_connection_only(serve: Serve, errors: list[Any], end: str) -> None:
    server = serve()
    with Console(server) as other, Console(server) as console:
        assert console(end) == "<closed>"
        assert other("1") == "1\n"
    assert errors == []


def test_end_of_file_ends_the_connection(serve: Serve, errors: list[Any]) -> None:
    with Console(serve()) as console:
        console.sock.shutdown(socket.SHUT_WR)
        assert console.until(PROMPT) == "\n<closed>"
    assert errors == []


def test_a_connection_that_breaks_leaves_nothing(serve: Serve, errors: list[Any]) -> None:
    server = serve()
    before = sys.stdout
    console = Console(server)
    assert sys.stdout is not before
    console.sock.sendall(b"print('x' * 100000)\n" * 50)
    console.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    console.sock.close()
    assert server.pool.join(timeout=10)
    assert errors == [] and sys.stdout is before


def test_stdin_stdout_and_stderr_are_the_connection(serve: Serve) -> None:
    with Console(serve()) as console:
        assert console("import sys; print('out'); print('err', file=sys.stderr)") == "out\nerr\n"
        assert console("input('name? ')\nalice") == "name? 'alice'\n"
        assert console("sys.stdin.readline()\nline") == "'line\\n'\n"
        assert console("sys.stdin.read(3)\n12") == "'12\\n'\n"
        same = "len({sys.stdin.fileno(), sys.stdout.fileno(), sys.stderr.fileno()}), sys.stdout.encoding"
        assert console(same).endswith("(1, 'utf-8')\n")
        assert console("sys.stdin.isatty(), sys.stdout.writable(), sys.stdin.readable()") == (
            "(False, True, True)\n"
        )
        assert console("print(sys.stdin, sys.stdout)").count("bridge.backdoor") == 2


def test_other_greenlets_print_where_they_did(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    go, done = Event(), Event()

    def speak() -> None:
        go.wait()
        print("elsewhere")
        sys.stderr.write("wrong\n")
        done.set()

    bridge.spawn(speak)
    with Console(serve(locals={"go": go, "done": done, "bridge": bridge})) as console:
        # the other one runs while this statement is in the middle
        assert console("print('a'); go.set(); _ = done.wait(); print('b')") == "a\nb\n"
        assert console("bridge.spawn(print, 'child').join()") == ""
        print("main")
    captured = capsys.readouterr()
    assert captured.out == "elsewhere\nchild\nmain\n"
    assert captured.err == "wrong\n"


def test_two_consoles_that_take_turns_print_each_their_own(serve: Serve) -> None:
    server = serve(locals={"bridge": bridge})
    statement = "for i in range(3): print('{}', i); bridge.sleep(0)\n"
    with Console(server) as first, Console(server) as second:
        first.sock.sendall(statement.format("one").encode() + b"\n")
        second.sock.sendall(statement.format("two").encode() + b"\n")
        assert first.until(PROMPT) == "... one 0\none 1\none 2\n"
        assert second.until(PROMPT) == "... two 0\ntwo 1\ntwo 2\n"


def test_a_stdout_replaced_meanwhile_does_not_take_the_console_s_output(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = io.StringIO()
    with Console(serve()) as console:
        shared = sys.stdout
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", other)
            assert console("1") == "1\n"  # it was waiting for input when that happened
            assert console("print('x')") == "x\n"
            print("there")
        assert other.getvalue() == "there\n"
        assert sys.stdout is shared


def test_a_program_without_stdout_may_print_nowhere(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        server = serve()
        with Console(server) as console:
            assert console("print('x')") == "x\n"
            print("nowhere")
        assert server.pool.join(timeout=10)
        assert sys.stdout is None


def test_stop_ends_the_connections_whatever_they_do(serve: Serve, errors: list[Any]) -> None:
    server = serve(locals={"bridge": bridge})
    with Console(server) as waiting, Console(server) as busy:
        busy.sock.sendall(b"print('now'); bridge.sleep(1000)\n")
        assert busy.until(b"now\n") == ""
        server.stop(timeout=0)
        assert waiting.until(PROMPT) == "<closed>"
        assert busy.until(PROMPT) == "<closed>"
        assert len(server.pool) == 0
    assert errors == []


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")
def test_the_console_can_be_at_a_unix_socket(serve: Serve) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = serve("unix:" + os.path.join(folder, "s"))
        with Console(server) as console:
            assert console("1 + 1") == "2\n"
        server.stop(timeout=0)


@pytest.mark.engines("none")
def test_names_are_gevent_s() -> None:
    assert backdoor.__all__ == ["BackdoorServer"]
    assert issubclass(BackdoorServer, bridge.server.StreamServer)


def test_names_can_be_added_to_the_server_later(serve: Serve) -> None:
    server = serve()
    server.locals["later"] = 43
    with Console(server) as console:
        assert console("later") == "43\n"
        assert console("__name__") == "'__console__'\n"
