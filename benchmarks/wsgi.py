"""Measure pywsgi beside gevent's with wrk: `python benchmarks/wsgi.py [--only hello_50,...] [--repeat 5]`.

Servers take turns, A B, B A, so that a drift of the machine's speed does not look like a difference. Both
columns matter: requests per second (wrk takes part of the machine) and CPU time of the server for each
request (which is what is left to the application).
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import environments

SERVER = Path(__file__).with_name("wsgi_server.py")
#: What wrk sends, as its scripts say it. It would send the same bytes again and again, which no browser does:
#: with `vary` each request has a header of its own.
POST = 'wrk.method = "POST"\nwrk.body = string.rep("p", 1024)\n'
VARY = """
local count = 0
request = function()
  count = count + 1
  wrk.headers["X-Request-Id"] = "0123456789abcdef-" .. count
  return wrk.format()
end
"""


@dataclass(frozen=True)
class Case:
    """An application of `wsgi_server.py`, and how many connections ask it."""

    name: str
    application: str
    work: str
    connections: int = 50
    answer: int = 14
    post: bool = False
    vary: bool = False
    gunicorn: bool = False

    @property
    def script(self) -> str:
        """What wrk is to do, in Lua."""
        return (POST if self.post else "") + (VARY if self.vary else "")


CASES = (
    Case("hello_50", "hello", "hello, keep-alive, 50 connections"),
    Case("hello_500", "hello", "hello, keep-alive, 500 connections", 500),
    Case("vary_50", "hello", "hello with 50, each request another one", vary=True),
    Case("vary_500", "hello", "hello with 500, each request another one", 500, vary=True),
    Case("nodelay_50", "nodelay", "the same with 50, a listener without TCP_NODELAY"),
    Case("body_50", "body", "16 KiB body", answer=16384),
    Case("echo_50", "echo", "POST of 1 KiB, echoed", answer=1024, post=True),
    Case("vary_body_50", "body", "16 KiB body, each request another one", answer=16384, vary=True),
    Case("vary_echo_50", "echo", "POST, echoed, each another one", answer=1024, post=True, vary=True),
    Case("stream_50", "stream", "ten blocks of 1 KiB in chunks", answer=10240),
    Case("gunicorn_50", "hello", "gunicorn -k gevent, hello, 50 connections", gunicorn=True),
    Case("vary_gunicorn_50", "hello", "the same, each request another one", vary=True, gunicorn=True),
    Case("vary_stream_50", "stream", "the same, each request another one", answer=10240, vary=True),
)


@dataclass
class Figures:
    """What one implementation did in a case, round by round."""

    rate: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def say(text: str) -> None:
    """Tell whoever is waiting; the table alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def commands() -> dict[str, list[str]]:
    """Return how to start `wsgi_server.py` with each implementation that is here."""
    found: dict[str, list[str]] = {}
    for make in (environments.gevent, environments.bridge):
        try:
            implementation = make()
        except environments.Unavailable as reason:
            say(f"{make.__name__} is not measured: {reason}")
            continue
        python, *options = implementation.command
        found[implementation.name] = [python, *(["-m", "bridge"] if "-m" in options else [])]
    return found


@contextmanager
def server(command: list[str], case: Case) -> Iterator[str]:
    """Run a server; its address."""
    if case.gunicorn:
        with gunicorn(command, case) as url:
            yield url
        return
    process = subprocess.Popen(
        [*command, str(SERVER), case.application],
        stdout=subprocess.PIPE,
        text=True,
        env=environments.worker_environment(),
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"{command[0]} did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def gunicorn(command: list[str], case: Case) -> Iterator[str]:
    """Run gunicorn with one worker of the kind that it calls gevent; its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        options = ["-k", "gevent", "-w", "1", "--worker-connections", "1000", "--keep-alive", "60"]
        options += ["--log-level", "error", "-b", f"fd://{listener.fileno()}", "--chdir", str(SERVER.parent)]
        process = subprocess.Popen(
            [*command, "-m", "gunicorn", *options, f"wsgi_server:Chosen({case.application!r})"],
            pass_fds=[listener.fileno()],
            env={**environments.worker_environment(), "GUNICORN_CMD_ARGS": ""},
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait()


def fetch(url: str, post: bool = False) -> bytes:
    """Return the body of the answer."""
    with urllib.request.urlopen(url, b"p" * 1024 if post else None, timeout=20) as answer:
        return bytes(answer.read())


def measure(url: str, case: Case, seconds: int, script: str) -> tuple[float, float]:
    """Requests per second, and CPU seconds of the server for each."""
    got = len(fetch(url, case.post))
    if got != case.answer:
        raise RuntimeError(f"{case.name}: {got} bytes instead of {case.answer}")
    before = float(fetch(f"{url}/cpu"))
    command = ["wrk", "-t1", f"-c{case.connections}", f"-d{seconds}s", "--timeout", "20s"]
    if case.script:
        command += ["-s", script]
    said = subprocess.run([*command, url], stdout=subprocess.PIPE, text=True, check=True).stdout
    spent = float(fetch(f"{url}/cpu")) - before
    if "Socket errors" in said or "Non-2xx" in said:
        raise RuntimeError(f"{case.name}: {said}")
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
    assert requests is not None and rate is not None, said
    return float(rate[1]), spent / int(requests[1])


def run(case: Case, with_commands: dict[str, list[str]], rounds: int, seconds: int) -> dict[str, Figures]:
    """Measure all implementations in turn."""
    figures = {name: Figures() for name in with_commands}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(case.script)
        script.flush()
        for number in range(rounds):
            for name in list(with_commands)[:: -1 if number % 2 else 1]:
                with server(with_commands[name], case) as url:
                    rate, cpu = measure(url, case, seconds, script.name)
                figures[name].rate.append(rate)
                figures[name].cpu.append(cpu)
    return figures


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description="Measure pywsgi beside gevent's with wrk.")
    parser.add_argument("--only", default="", help="names of cases, comma-separated")
    parser.add_argument("--repeat", type=int, default=5, help="rounds per case")
    parser.add_argument("--seconds", type=int, default=2, help="length of a round")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        say("wrk is not installed")
        return 1
    names = [name for name in options.only.split(",") if name]
    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        say(f"no such case: {', '.join(sorted(unknown))}; there is: {', '.join(c.name for c in CASES)}")
        return 2
    with_commands = commands()
    print(f"{'case':14} {'':48} {'requests/s':>19}  {'ratio':>6}  {'CPU us/request':>17}  {'ratio':>6}")
    for case in CASES:
        if names and case.name not in names:
            continue
        figures = run(case, with_commands, options.repeat, options.seconds)
        rate = {name: statistics.median(f.rate) for name, f in figures.items()}
        cpu = {name: statistics.median(f.cpu) * 1e6 for name, f in figures.items()}
        line = f"{case.name:14} {case.work:48} "
        if len(figures) == 2:
            line += f"{rate['gevent']:9.0f} {rate['bridge']:9.0f}  {rate['bridge'] / rate['gevent']:6.2f}  "
            line += f"{cpu['gevent']:8.1f} {cpu['bridge']:8.1f}  {cpu['gevent'] / cpu['bridge']:6.2f}"
        else:
            line += "  ".join(f"{name} {rate[name]:.0f}/s {cpu[name]:.1f} us" for name in figures)
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
