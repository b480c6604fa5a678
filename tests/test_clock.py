"""Waiting while a library for tests has stopped the clock that programs see. In processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import bridge
from bridge._core.clock import monotonic

pytestmark = pytest.mark.engines("none")

Run = Callable[..., str]

#: What freezegun does: every module that holds the function gets another one, which stands still.
STOP = """
import sys, time
def stop(real=time.monotonic):
    stopped = lambda: 1577836800.0
    time.monotonic = stopped
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is real:
                setattr(module, name, stopped)
"""

#: Each of these waits for its limit, and would wait for ever if that were counted by the stopped clock.
WAIT = """
import subprocess, threading
import bridge
from bridge import event, lock, queue, socket
from bridge import subprocess as children

bridge.sleep(0.01)
print(bridge.spawn_later(0.01, lambda: "later").get())
with bridge.Timeout(0.01, False):
    event.Event().wait()
print(event.Event().wait(0.01), lock.RLock().acquire(timeout=0.01), lock.Semaphore(0).acquire(timeout=0.01))
try:
    queue.Queue().get(timeout=0.01)
except queue.Empty:
    print("empty")
a, b = socket.socketpair()
a.settimeout(0.01)
try:
    a.recv(1)
except TimeoutError:
    print("no data")
child = children.Popen(["sleep", "60"])
try:
    child.wait(timeout=0.01)
except children.TimeoutExpired:
    child.kill()
    print("goes on", child.wait() < 0)
print(len(bridge.wait([bridge.spawn(bridge.sleep, 60)], timeout=0.01)), time.monotonic())
"""

EXPECTED = "later\nFalse True False\nempty\nno data\ngoes on True\n0 1577836800.0\n"


def test_it_is_the_clock_of_the_standard_library_under_another_identity() -> None:
    before = time.monotonic()
    now = monotonic()
    assert before <= now <= time.monotonic()
    assert monotonic is not time.monotonic


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_waits_end_while_the_clock_of_the_program_is_stopped(run_fresh: Run, loop: str) -> None:
    first = "import bridge, bridge.socket, bridge.subprocess, bridge.queue, bridge.lock\n"
    assert run_fresh(f"{first}{STOP}stop()\n{WAIT}", BRIDGE_LOOP=loop) == EXPECTED


def test_waits_end_where_bridge_is_imported_while_the_clock_is_stopped(run_fresh: Run) -> None:
    assert run_fresh(f"{STOP}stop()\n{WAIT}") == EXPECTED


def test_waits_end_in_a_patched_program_whose_clock_is_stopped(run_fresh: Run) -> None:
    locks = "taken = threading.Lock()\ntaken.acquire()\nprint(taken.acquire(timeout=0.01))\n"
    first = "from bridge import monkey\nmonkey.patch_all()\n"
    assert run_fresh(f"{first}{STOP}stop()\n{WAIT}{locks}") == EXPECTED + "False\n"


def test_a_greenlet_sleeps_as_long_as_it_says() -> None:
    begun = monotonic()
    bridge.sleep(0.02)
    assert monotonic() - begun >= 0.02
