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

ROOT = Path(__file__).parents[1]


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


# -- other processes ------------------------------------------------------------------------------------


def environment_of(path: Path | None = None, **environ: str) -> dict[str, str]:
    """The environment of a process that can import bridge, and from *path*."""
    # the project may be tested without being installed
    paths = [*([str(path)] if path else []), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_code(code: str, *arguments: str, path: Path | None = None, **environ: str) -> str:
    """What *code* prints in a new python.

    It must end well and print nothing to stderr; warnings are errors.
    """
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
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
