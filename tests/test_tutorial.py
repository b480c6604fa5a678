"""The programs of examples/tutorial, each run as a newcomer runs it: ``python -m bridge NAME.py``.

Every program gets a fresh process, once on uvloop and once on asyncio's own loop, and its whole output is
compared.
"""

from __future__ import annotations

import ast
import http.client
import importlib.util
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

# each program runs in a process of its own, on each loop
pytestmark = pytest.mark.engines("none")

TUTORIAL = Path(__file__).resolve().parents[1] / "examples" / "tutorial"

#: Seconds after which a program counts as hung; each one needs less than one.
HUNG = 60

#: Programs that always print the same, end with status 0 and write nothing to stderr.
EXPECTED = {
    "actors": """\
start
ping
pong
ping
pong
ping
""",
    "async_result": """\
Hello!
""",
    "bounded_semaphore": """\
Worker 0 acquired semaphore
Worker 1 acquired semaphore
Worker 0 released semaphore
Worker 1 released semaphore
""",
    "context_switch": """\
Running in foo
Explicit context to bar
Explicit context switch to foo again
Implicit context switch back to bar
""",
    "create_greenlets": """\
Hello
I live!
""",
    "event_wait": """\
A: Hey wait for me, I have to do something
I'll wait for you
I'll wait for you
I'll wait for you
Ok, I'm done
It's about time
It's about time
It's about time
""",
    "greenlet_local": """\
1
2
x is not local to f2
""",
    "group_join": """\
bar
bar
foo
foo
fizz
fizz
""",
    "name_lookups": """\
localhost: 127.0.0.1
127.0.0.1: 127.0.0.1
127.1: 127.0.0.1
""",
    "pool_map": """\
Size of pool 2
Size of pool 2
Size of pool 1
""",
    "producer_consumer": """\
Wait to getting a task
Send a task 0 to consumer
Got task 0
Send a task 1 to consumer
Got task 1
Send a task 2 to consumer
Got task 2
""",
    "queue_workers": """\
Worker steve got task 1
Worker john got task 2
Worker nancy got task 3
Worker steve got task 4
Worker john got task 5
Worker nancy got task 6
Worker steve got task 7
Worker john got task 8
Worker nancy got task 9
Quitting time!
Quitting time!
Quitting time!
""",
    "socket_pool": """\
At maximum pool size
Received hello
Received goodbye
Handlers: 10
Handlers: 0
""",
    "subclass_greenlet": """\
Hi there!
""",
    "timeout_arguments": """\
Thread 1 timed out
Thread 2 timed out
Thread 3 timed out
""",
    "timeout_start": """\
Could not complete
""",
}

GREENLET_STATE = """\
Made:
  winner started=False ready=False successful=False value=None exception=None
  loser started=False ready=False successful=False value=None exception=None
Started:
  winner started=True ready=False successful=False value=None exception=None
  loser started=True ready=False successful=False value=None exception=None
Ended:
  winner started=False ready=True successful=True value='won' exception=None
  loser started=False ready=True successful=False value=None exception=ValueError('lost')
"""

#: Programs with a test of their own below: chance, the clock, signals, errors and what must be installed.
SPECIAL = {
    "determinism",
    "gipc_processes",
    "greenlet_state",
    "local_proxy",
    "long_polling",
    "monkey_patching",
    "multiprocessing_pipes",
    "redis_queue",
    "select_polling",
    "sigquit_shutdown",
    "simple_server",
    "subprocess_cron",
    "sync_async",
    "timeout_custom_exception",
    "websocket_server",
    "wsgi_servers",
    "zeromq_green",
}


@pytest.fixture(params=["uvloop", "asyncio"])
def loop(request: pytest.FixtureRequest) -> str:
    """The name of the loop that the program runs on."""
    name: str = request.param
    if name == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    return name


def command(program: str) -> list[str]:
    return [sys.executable, "-m", "bridge", str(TUTORIAL / f"{program}.py")]


def environment(loop: str) -> dict[str, str]:
    return {**os.environ, "BRIDGE_LOOP": loop}


def run(program: str, loop: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the tutorial to its end."""
    return subprocess.run(
        command(program),
        env=environment(loop),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,  # some programs end with an error on purpose
    )


def output(program: str, loop: str) -> str:
    """Run a program that ends well and return what it prints."""
    done = run(program, loop)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


@pytest.mark.parametrize("program", EXPECTED)
def test_program_prints_what_the_tutorial_prints(program: str, loop: str) -> None:
    assert output(program, loop) == EXPECTED[program]


def test_sync_async_runs_in_order_then_in_any_order(loop: str) -> None:
    done = [f"Task {i} done" for i in range(5)]
    lines = output("sync_async", loop).splitlines()
    assert lines[:7] == ["Synchronous:", *done, "Asynchronous:"]
    assert sorted(lines[7:]) == done


def test_determinism_of_the_greenlet_pool(loop: str) -> None:
    """The first line, about processes, is chance; the second, about greenlets, is a promise."""
    assert re.fullmatch(r"(True|False)\nTrue\n", output("determinism", loop))


def test_select_polling_takes_turns_while_it_polls(loop: str) -> None:
    printed = output("select_polling", loop)
    # The order of the lines proves that the polls overlap; a busy machine may make each of them late.
    at = r"at (\d+\.\d) seconds\n"
    match = re.fullmatch(
        f"Started Polling: {at}Started Polling: {at}"
        f"Hey lets do some stuff while the greenlets poll, {at}"
        f"Ended Polling: {at}Ended Polling: {at}",
        printed,
    )
    assert match, printed
    times = [float(t) for t in match.groups()]
    for time, earliest in zip(times, [0.0, 0.0, 0.0, 0.1, 0.2], strict=True):
        assert earliest <= time <= earliest + 1.0, printed


def test_greenlet_state_keeps_the_exception_and_reports_it_once(loop: str) -> None:
    done = run("greenlet_state", loop)
    assert done.returncode == 0
    assert done.stdout == GREENLET_STATE
    assert re.fullmatch(
        r"Traceback \(most recent call last\):\n"
        r"(?:  .*\n)+"
        r"ValueError: lost\n"
        r"\S+ <Greenlet at 0x[0-9a-f]+: fail> failed with ValueError\n\n",
        done.stderr,
    ), done.stderr


def test_timeout_with_an_exception_of_its_own_ends_the_program(loop: str) -> None:
    done = run("timeout_custom_exception", loop)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.splitlines()[-1] == "TooLong"
    assert done.stderr.count("Traceback") == 1


@pytest.mark.skipif(not hasattr(signal, "SIGQUIT"), reason="this system has no SIGQUIT")
def test_sigquit_shuts_the_program_down(loop: str) -> None:
    with subprocess.Popen(
        command("sigquit_shutdown"),
        env=environment(loop),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(HUNG, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            process.send_signal(signal.SIGQUIT)
            printed, errors = process.communicate()
        finally:
            watchdog.cancel()
            process.kill()
    assert ready == "Running, send SIGQUIT to end\n", errors
    assert (printed, errors, process.returncode) == ("", "", 0)


# multiprocessing: a forked child beside the hub, and descriptors that somebody else reads.
@pytest.mark.skipif(
    importlib.util.find_spec("bridge.socket") is None, reason="needs bridge.socket (wait_read and wait_write)"
)
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_multiprocessing_pipes_relay_all_messages(loop: str) -> None:
    assert output("multiprocessing_pipes", loop) == "".join(f"hi in {i}\n" for i in range(5))


def test_monkey_patching_shows_classes_and_functions_before_and_after(loop: str) -> None:
    assert re.fullmatch(
        r"<class 'socket\.socket'>\nAfter monkey patch\n<class '(gevent|bridge)\.socket\.socket'>\n"
        r"<built-in function select>\nAfter monkey patch\n<function select at 0x[0-9a-f]+>\n",
        output("monkey_patching", loop),
    )


def test_cron_goes_on_while_another_program_runs(loop: str) -> None:
    lines = output("subprocess_cron", loop).splitlines()
    assert lines[-1] == os.uname().sysname
    # how many there are is up to the clock; one would be no proof
    assert len(lines) > 2 and set(lines[:-1]) == {"cron"}


def test_redis_workers_do_each_task_once(loop: str) -> None:
    pytest.importorskip("redis", reason="redis-py is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    done, workers = output("redis_queue", loop).splitlines()
    assert done == "Done: 0, 1, 2, 3, 4, 5, 6, 7, 8"
    assert set(workers.removeprefix("By: ").split(", ")) <= {"steve", "john", "nancy"}


def test_zeromq_takes_turns(loop: str) -> None:
    pytest.importorskip("zmq", reason="pyzmq is not installed")
    turns = [f"Switched to {who} for {i}" for i in range(1, 5) for who in ("Server", "Client")]
    assert output("zeromq_green", loop).splitlines() == turns


def test_gipc_child_answers_while_the_parent_goes_on(loop: str) -> None:
    # not imported here: it imports gevent
    if importlib.util.find_spec("gipc") is None:
        pytest.skip("gipc is not installed")
    answers = [f"hi in {i}" for i in range(5)]
    assert output("gipc_processes", loop).splitlines() == [
        *answers, "exit code 0", "ticked meanwhile: True"
    ]  # fmt: skip


class Server:
    """A program that serves until it is killed."""

    def __init__(self, loop: str, program: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*command(program), *arguments],
            env=environment(loop),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._watchdog = threading.Timer(HUNG, self.process.kill)
        self._watchdog.start()

    def port(self) -> int:
        """The number at the end of the next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.search(r"(\d+)\D*$", line)
        assert match, line
        return int(match[1])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        self._watchdog.cancel()


def test_simple_server_talks_to_each_who_connects(loop: str) -> None:
    with Server(loop, "simple_server", "0") as server:
        port = server.port()
        peers = [socket.create_connection(("127.0.0.1", port), HUNG) for _ in range(3)]
        for peer in peers:
            with peer, peer.makefile("rb") as lines:
                assert lines.read() == b"Hello from a telnet!\n0\n1\n2\n3\n4\n"


def fetch(port: int, source: str = "127.0.0.1") -> http.client.HTTPConnection:
    """Ask for /; the answer has not been read yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HUNG, source_address=(source, 0))
    connection.request("GET", "/")
    return connection


def test_local_proxy_keeps_requests_apart(loop: str) -> None:
    pytest.importorskip("werkzeug", reason="werkzeug, whose LocalProxy this shows, is not installed")
    # loopback has more than one address on Linux only
    sources = ["127.0.0.1", "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"]
    with Server(loop, "local_proxy", "0") as server:
        port = server.port()
        for source, connection in [(source, fetch(port, source)) for source in sources]:
            assert connection.getresponse().read() == f"Hello {source}".encode()
            connection.close()


def test_wsgi_servers_say_hello_in_one_piece_and_in_two(loop: str) -> None:
    with Server(loop, "wsgi_servers", "0", "0") as server:
        whole, streamed = (fetch(server.port()) for _ in range(2))
        with whole.getresponse() as answer:
            assert (answer.headers["Content-Length"], answer.read()) == ("18", b"<p>Hello World</p>")
        with streamed.getresponse() as answer:
            assert (answer.headers["Transfer-Encoding"], answer.read()) == ("chunked", b"<p>Hello World</p>")
        whole.close()
        streamed.close()


def test_long_polling_gives_one_line_after_the_other(loop: str) -> None:
    with Server(loop, "long_polling", "0") as server:
        connection = fetch(server.port())
        answer = connection.getresponse()
        assert [answer.readline() for _ in range(3)] == [b'"Hello World"\n'] * 3
        answer.close()
        connection.close()


def test_websocket_server_sends_each_message_to_everybody(loop: str, tmp_path: Path) -> None:
    pytest.importorskip("flask", reason="flask is not installed")
    pytest.importorskip("redis", reason="redis-py is not installed")
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
    if importlib.util.find_spec("geventwebsocket") is None:  # not imported here: it imports gevent
        pytest.skip("gevent-websocket is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        redis_port = str(free.getsockname()[1])
    redis = subprocess.Popen(
        ["redis-server", "--port", redis_port, "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        with Server(loop, "websocket_server", "0", redis_port) as server:
            address = f"127.0.0.1:{server.port()}"
            assert server.port() == int(redis_port)
            clients = [websocket.create_connection(f"ws://{address}/websocket", timeout=HUNG) for _ in "ab"]
            for number, text in enumerate(["first", "second"], start=1):
                clients[number % 2].send(text)
                for client in clients:
                    assert client.recv() == f"{number}: {text}"
            for path, expected in [("/", b"new WebSocket"), ("/messages", b'["first","second"]')]:
                with urllib.request.urlopen(f"http://{address}{path}", timeout=HUNG) as answer:
                    assert expected in answer.read()
            for client in clients:
                client.close()
    finally:
        redis.kill()
        redis.wait()


def test_every_program_is_tested_documented_and_listed() -> None:
    programs = {path.stem: path for path in TUTORIAL.glob("*.py")}
    assert set(EXPECTED) | SPECIAL == set(programs)
    readme = (TUTORIAL.parent / "README.md").read_text(encoding="utf-8")
    for name, path in programs.items():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring and "Look for: " in docstring, name
        assert f"`{name}.py`" in readme, name


def test_no_program_hides_a_module_of_the_standard_library() -> None:
    """Python puts a program's folder first in `sys.path`: a queue.py there would break `import queue`."""
    assert not {path.stem for path in TUTORIAL.glob("*.py")} & set(sys.stdlib_module_names)
