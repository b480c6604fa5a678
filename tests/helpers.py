"""What tests of several modules need: programs of their own, and waiting for something to be so."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge import socket

ROOT = Path(__file__).parents[1]


def tcp() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    for each in (near, far):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something is so; fails if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        bridge.sleep(0.001)


def let_others_run_until(condition: Callable[[], object]) -> None:
    """Let others run until ``condition()``; fails if they run and run and it does not come true."""
    for _ in range(20_000):
        if condition():
            return
        bridge.sleep(0)
    raise AssertionError("it never came true")


def rounds_in(seconds: float) -> int:
    """How many rounds the hub makes while nothing is to be done."""
    count: list[int] = []
    with bridge.get_hub().loop.check(ref=False) as check:
        check.start(count.append, 1)
        bridge.sleep(seconds)
    return len(count)


class Pipes:
    """Makes pipes, and closes at the end what is still open."""

    def __init__(self, blocking: bool = True) -> None:
        self.fds: set[int] = set()
        self.blocking = blocking

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self.fds:
            os.close(fd)

    def __call__(self) -> tuple[int, int]:
        r, w = os.pipe()
        os.set_blocking(r, self.blocking)
        os.set_blocking(w, self.blocking)
        self.fds |= {r, w}
        return r, w

    def many(self, n: int) -> list[tuple[int, int]]:
        return [self() for _ in range(n)]

    def at(self, fd: int) -> int:
        """A pipe whose reading end gets the number of a closed file; returns the writing end."""
        r, w = os.pipe()
        self.fds.update((os.dup2(r, fd), w))
        if r != fd:
            os.close(r)
        return w

    def closed(self) -> int:
        """A number that no file has, and will not have soon."""
        fd = os.dup2(self()[0], 900)
        os.close(fd)
        return fd

    def close(self, fd: int, close: Callable[[int], None] = os.close) -> None:
        self.fds.remove(fd)
        close(fd)


# -- other processes ------------------------------------------------------------------------------------


def environment_of(path: Path | None = None, **environ: str) -> dict[str, str]:
    """The environment of a process that can import bridge, and from *path*."""
    # the project may be tested without being installed
    paths = [*([str(path)] if path else []), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_code(code: str, *arguments: str, path: Path | None = None, **environ: str) -> str:
    """What *code* prints in a new python.

    It must end well and print nothing to stderr; warnings are errors. Its output is not buffered: a forked
    child would have what the parent has printed.
    """
    process = subprocess.run(
        [sys.executable, "-u", "-W", "error", "-c", textwrap.dedent(code), *arguments],
        env=environment_of(path, **environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, f"{process.returncode}: {process.stdout}{process.stderr}"
    assert process.stderr == ""
    return process.stdout


def run_script(script: str, loop: str, **environ: str) -> list[str]:
    """The lines that a program of its own has printed, on the loop of that name."""
    return run_code(script, BRIDGE_LOOP=loop, **environ).splitlines()


def both_loops(test: Any) -> Any:
    """For a test that runs a program of its own."""
    return pytest.mark.engines("none")(pytest.mark.parametrize("kind", ["uvloop", "asyncio"])(test))
