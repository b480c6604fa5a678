"""bridge.signal: handlers of SIGCHLD, and the wake-up descriptor beside a loop that has its own."""

from __future__ import annotations

import asyncio
import io
import os
import signal as real_signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge import os as bridge_os
from bridge import signal
from bridge import socket as bridge_socket
from bridge.event import Event

from .helpers import until

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The handlers and the wake-up descriptor as they were."""
    yield
    for signum in (real_signal.SIGALRM, real_signal.SIGCHLD, real_signal.SIGUSR1):
        real_signal.signal(signum, real_signal.SIG_DFL)
    signal._child_handler = None
    signal.set_wakeup_fd(-1)


@pytest.fixture
def wakeup() -> Iterator[tuple[int, int]]:
    """A pipe for set_wakeup_fd."""
    r, w = os.pipe()
    os.set_blocking(r, False)
    os.set_blocking(w, False)
    yield r, w
    signal.set_wakeup_fd(-1)
    os.close(r)
    os.close(w)


def child_process(script: str = "exit 3") -> int:
    return os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ)


# -- handlers -------------------------------------------------------------------------------------


def test_a_handler_of_sigchld_runs_in_a_greenlet_and_may_block() -> None:
    calls: list[Any] = []

    def handler(signum: int, frame: object) -> None:
        bridge.sleep(0)
        pid, status = bridge_os.waitpid(-1, os.WNOHANG)
        calls.append((signum, frame, type(bridge.getcurrent()), pid, status))

    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    assert signal.signal(signal.SIGCHLD, handler) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGCHLD) is handler
    for make in (child_process, lambda: bridge_os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], os.environ)):
        pid = make()
        until(lambda: calls)
        assert calls == [(signal.SIGCHLD, None, bridge.Greenlet, pid, 3 << 8)]
        del calls[:]
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)
    assert signal.signal(signal.SIGCHLD, signal.SIG_DFL) is handler
    assert signal.getsignal(signal.SIGCHLD) == real_signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


def test_an_error_in_a_handler_is_printed(errors: list[Any]) -> None:
    def handler(signum: int, frame: object) -> None:
        raise ValueError("from the handler")

    signal.signal(signal.SIGCHLD, handler)
    pid = child_process()
    until(lambda: errors)
    assert isinstance(errors[0][1], ValueError)
    assert bridge_os.waitpid(pid, 0) == (pid, 3 << 8)


def test_a_handler_and_a_watcher_of_sigchld_are_both_called() -> None:
    calls: list[str] = []
    signal.signal(signal.SIGCHLD, lambda *args: calls.append("handler"))
    watcher = bridge.signal_handler(signal.SIGCHLD, calls.append, "watcher")
    pid = child_process()
    until(lambda: sorted(calls) == ["handler", "watcher"])
    assert bridge_os.waitpid(pid, 0)[0] == pid

    def later(*args: object) -> None:
        calls.append("later")

    signal.signal(signal.SIGCHLD, later)  # leaves the watcher in its place
    assert signal.getsignal(signal.SIGCHLD) is later
    pid = child_process()
    until(lambda: sorted(calls) == ["handler", "later", "watcher", "watcher"])
    assert bridge_os.waitpid(pid, 0)[0] == pid
    watcher.cancel()
    assert signal.getsignal(signal.SIGCHLD) is later


def test_ignoring_sigchld_ends_when_a_child_is_watched() -> None:
    assert signal.signal(signal.SIGCHLD, signal.SIG_IGN) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    pid = child_process()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
    pid = bridge_os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], os.environ)
    assert bridge_os.waitpid(pid, 0) == (pid, 3 << 8)


def test_other_signals_are_handled_as_by_the_real_functions() -> None:
    def handler(signum: int, frame: object) -> None:
        calls.append((signum, frame))

    calls: list[Any] = []
    assert signal.signal(signal.SIGUSR1, handler) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR1) is handler is real_signal.getsignal(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert calls[0][0] == signal.SIGUSR1 and calls[0][1] is not None
    watcher = bridge.get_hub().loop.signal(signal.SIGUSR1)
    watcher.start(bool)
    assert signal.getsignal(signal.SIGUSR1) is handler
    watcher.close()


def test_what_the_real_functions_refuse_is_refused() -> None:
    for bad in (None, 5, "x"):
        with pytest.raises((TypeError, ValueError)):
            signal.signal(signal.SIGCHLD, bad)
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    with pytest.raises(ValueError):
        signal.getsignal(1000)
    with pytest.raises(ValueError):
        signal.signal(1000, signal.SIG_DFL)
    wrong: Any = "x"
    with pytest.raises(TypeError):
        signal.getsignal(wrong)


# -- the wake-up descriptor -----------------------------------------------------------------------


def assert_wakes(fd: int) -> None:
    """A signal writes its number to the descriptor, and wakes the hub, which sleeps."""
    arrived = Event()
    watcher = bridge.get_hub().loop.signal(signal.SIGUSR1)
    watcher.start(arrived.set)
    pid = child_process(f"sleep 0.02; kill -USR1 {os.getpid()}; exit 3")
    begin = time.monotonic()
    assert arrived.wait(10)
    assert time.monotonic() - begin < 8
    watcher.close()
    assert bridge_os.waitpid(pid, 0)[0] == pid
    assert os.read(fd, 100).replace(bytes([signal.SIGCHLD]), b"") == bytes([signal.SIGUSR1])
    with pytest.raises(BlockingIOError):
        os.read(fd, 1)


def test_the_program_and_the_loop_both_hear_of_signals(wakeup: tuple[int, int]) -> None:
    r, w = wakeup
    signal.signal(signal.SIGCHLD, lambda *args: None)
    assert signal.set_wakeup_fd(w) == -1
    assert_wakes(r)
    other_r, other_w = socket.socketpair()
    with other_r, other_w:
        other_w.setblocking(False)
        other_r.setblocking(False)
        assert signal.set_wakeup_fd(other_w.fileno(), warn_on_full_buffer=False) == w
        assert_wakes(other_r.fileno())
        assert signal.set_wakeup_fd(w) == other_w.fileno()
    assert_wakes(r)
    assert signal.set_wakeup_fd(-1) == w
    assert signal.set_wakeup_fd(-1) == -1
    bridge.sleep(0.001)


@pytest.mark.engines("owned")
def test_the_descriptor_survives_a_loop_that_ends_and_begins_again(wakeup: tuple[int, int]) -> None:
    r, w = wakeup
    signal.signal(signal.SIGCHLD, lambda *args: None)
    for set_when_running in (False, True):
        if set_when_running:
            bridge.sleep(0.001)
        assert signal.set_wakeup_fd(w) == -1
        assert_wakes(r)
        assert bridge.get_hub().join(timeout=5)  # the loop ends
        signal.raise_signal(signal.SIGCHLD)
        bridge.sleep(0.001)  # and has begun again
        assert os.read(r, 10) == bytes([signal.SIGCHLD])
        assert_wakes(r)
        assert bridge.get_hub().join(timeout=5)
        assert signal.set_wakeup_fd(-1) == w


@pytest.mark.engines("owned")
def test_a_descriptor_set_by_the_real_function_is_returned(wakeup: tuple[int, int]) -> None:
    _r, w = wakeup
    real_signal.set_wakeup_fd(w)
    assert signal.set_wakeup_fd(-1) == w


@pytest.mark.asyncio
async def test_handlers_of_asyncio_go_on_working(wakeup: tuple[int, int]) -> None:
    r, w = wakeup
    loop = asyncio.get_running_loop()
    calls: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    signal.set_wakeup_fd(w)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.01)
    assert calls == [1]
    assert os.read(r, 10) == bytes([signal.SIGUSR1])
    assert signal.set_wakeup_fd(-1) == w
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.01)
    assert calls == [1, 1]
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.parametrize("warn", [True, False])
def test_a_full_descriptor_is_told_of_if_asked_for(
    wakeup: tuple[int, int],
    warn: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _r, w = wakeup
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)  # how python tells of it
    bridge.sleep(0.001)
    signal.signal(signal.SIGUSR1, lambda *args: None)
    try:
        while True:
            os.write(w, b"x" * 4096)
    except BlockingIOError:
        pass
    signal.set_wakeup_fd(w, warn_on_full_buffer=warn)
    os.kill(os.getpid(), signal.SIGUSR1)
    bridge.sleep(0.01)
    signal.set_wakeup_fd(-1)
    assert (bool(told) or "signal wakeup fd" in capsys.readouterr().err) is warn


def test_what_is_no_descriptor_is_refused(wakeup: tuple[int, int]) -> None:
    r, w = wakeup
    signal.set_wakeup_fd(w)
    with pytest.raises((ValueError, OSError)):
        signal.set_wakeup_fd(999)
    os.set_blocking(r, True)
    with pytest.raises(ValueError, match="non-blocking"):
        signal.set_wakeup_fd(r)
    assert signal.set_wakeup_fd(-1) == w


FORKED = """
import os, bridge
from bridge import signal, os as bos
r, w = os.pipe()
for fd in (r, w):
    os.set_blocking(fd, False)
bridge.sleep(0.001)
signal.signal(signal.SIGUSR1, lambda *args: None)
signal.set_wakeup_fd(w)
pid = bos.fork()
if not pid:
    bridge.sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR1)
    bridge.sleep(0.01)
    os._exit(len(os.read(r, 10)))
# nothing of it comes to the parent's own pipe
print(bos.waitpid(pid, 0)[1] >> 8)
os.kill(os.getpid(), signal.SIGUSR1)
bridge.sleep(0.01)
print(os.read(r, 10) == bytes([signal.SIGUSR1]))
"""


@pytest.mark.engines("none")
@pytest.mark.parametrize("kind", ["uvloop", "asyncio"])
def test_a_forked_child_has_a_descriptor_of_its_own(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        env={**os.environ, "BRIDGE_LOOP": kind},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == ("1\nTrue\n", "")


class Alarm(Exception):
    pass


def _alarm(signum: int, frame: object) -> None:
    raise Alarm


@pytest.mark.engines("owned")
@pytest.mark.parametrize("where", ["sleep", "event", "recv", "recv with a timeout", "send"])
def test_what_a_signal_handler_raises_is_raised_in_the_main_greenlet(
    where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bridge.get_hub().exception_stream = io.StringIO()
    a, b = bridge_socket.socketpair()
    beside = bridge.spawn(bridge.sleep, 0.001)
    real_signal.signal(real_signal.SIGALRM, _alarm)
    real_signal.setitimer(real_signal.ITIMER_REAL, 0.01)
    with a, b, pytest.raises(Alarm):
        if where == "sleep":
            bridge.sleep(10)
        elif where == "event":
            Event().wait(10)
        elif where == "recv":
            a.recv(1)
        elif where == "recv with a timeout":
            a.settimeout(10)
            a.recv(1)
        else:
            a.sendall(bytes(100_000_000))
    beside.join()
    bridge.sleep(0.001)  # the loop goes on
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_signal_handler_may_raise_in_the_middle_of_the_hubs_work(engine: str, phase: str) -> None:
    """Whatever bytecode of the hub it meets: the hub goes on, and the error is the main greenlet's."""
    loop = bridge.get_hub().loop
    bridge.get_hub().exception_stream = io.StringIO()
    before = real_signal.signal(real_signal.SIGALRM, _alarm)
    hooks: list[Any] = getattr(loop, phase)
    order: list[str] = []

    def interrupt() -> None:
        hooks.remove(interrupt)
        real_signal.raise_signal(real_signal.SIGALRM)

    hooks.append(interrupt)
    sleeping = bridge.spawn(bridge.sleep, 0.02)
    try:
        if engine.endswith("owned"):
            with pytest.raises(Alarm):
                bridge.sleep(10)
        else:
            # the main greenlet runs the loop: what is raised there comes out of a callback of asyncio's
            errors: list[Any] = []
            loop.aio.set_exception_handler(lambda _, context: errors.append(context["exception"]))
            while not errors:
                bridge.sleep(0.001)
            assert [type(error) for error in errors] == [Alarm]
    finally:
        real_signal.signal(real_signal.SIGALRM, before)
    assert sleeping.join(10) is None and sleeping.ready()
    bridge.spawn(order.append, "ran").join(10)
    assert order == ["ran"]


def test_the_module_mirrors_the_real_one() -> None:
    assert signal.__implements__ == ["signal", "getsignal", "set_wakeup_fd"]
    assert sorted(signal.__implements__) == signal.__all__
    for name in signal.__imports__:
        assert getattr(signal, name) is getattr(real_signal, name)


def test_the_number_of_a_signal_is_an_integer() -> None:
    for wrong in (1.5, "10", None):
        with pytest.raises(TypeError, match="a signal is an integer"):
            bridge.signal_handler(wrong, str)  # type: ignore[arg-type]
