"""The watchers of ``hub.loop``, and the poller below them."""

from __future__ import annotations

import errno
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge._core import children
from bridge._core.watchers import EVENTS, READ, WRITE
from bridge.event import Event

from .helpers import Pipes, both_loops, rounds_in, run_script, until


@pytest.fixture
def pipe() -> Iterator[Pipes]:
    with Pipes() as pipes:
        yield pipes


def loop() -> Any:
    return bridge.get_hub().loop


# -- io -------------------------------------------------------------------------------------------


def test_io_calls_back_as_long_as_the_file_is_ready(pipe: Pipes) -> None:
    r, w = pipe()
    calls: list[Any] = []
    with loop().io(r, READ) as watcher:
        watcher.start(lambda *args: calls.append(args), 1, 2)
        bridge.sleep(0.002)
        assert calls == [] and watcher.active and not watcher.pending
        os.write(w, b"x")
        until(lambda: len(calls) > 2)
        os.read(r, 1)
        bridge.sleep(0)
        del calls[:]
        bridge.sleep(0.002)
        assert calls == []
    assert not watcher.active and watcher.callback is watcher.args is None
    with loop().io(w, READ | WRITE) as watcher:
        watcher.start(calls.append, EVENTS)
        until(lambda: calls and set(calls) == {WRITE})
        watcher.start(lambda *args: calls.append(args), "x", pass_events=True)
        until(lambda: (WRITE, "x") in calls)


def test_io_checks_what_it_is_given(pipe: Pipes) -> None:
    r, w = pipe()
    with pytest.raises(ValueError, match="non-negative"):
        loop().io(-1, READ)
    with pytest.raises(ValueError, match="event mask"):
        loop().io(r, 256)
    watcher = loop().io(r, READ)
    with pytest.raises(TypeError):
        watcher.start(None)
    watcher.fd, watcher.events = w, WRITE
    assert (watcher.fd, watcher.events, watcher.events_str) == (w, WRITE, "WRITE")
    watcher.start(bool)
    for name in ("fd", "events"):
        with pytest.raises(AttributeError):
            setattr(watcher, name, 1)
    watcher.close()
    bad = os.dup2(r, 900)
    os.close(bad)
    watcher = loop().io(bad, READ)
    with pytest.raises(OSError) as caught:
        watcher.start(bool)
    assert caught.value.errno == errno.EBADF
    assert not watcher.active and watcher.callback is None
    assert loop().activecnt == 0


@pytest.mark.engines("owned")
def test_a_watcher_without_ref_does_not_keep_the_loop_going(pipe: Pipes) -> None:
    r, _w = pipe()
    watcher = loop().io(r, READ)
    watcher.start(bool)
    assert loop().activecnt == 1
    assert bridge.get_hub().join(timeout=0.001) is False
    watcher.ref = False
    assert loop().activecnt == 0
    assert bridge.get_hub().join(timeout=5) is True
    watcher.close()


def test_a_regular_file_is_always_ready(tmp_path: Path) -> None:
    calls: list[int] = []
    with open(tmp_path / "file", "w") as file, loop().io(file.fileno(), WRITE) as watcher:
        watcher.start(calls.append, 1)
        until(lambda: len(calls) > 2)
    assert rounds_in(0.01) < 10


@pytest.mark.parametrize("tell", [False, True])
def test_closing_a_watched_file_before_the_next_poll_is_survived(pipe: Pipes, tell: bool) -> None:
    # uvloop aborts the process when a registered descriptor is closed before it polls
    bridge.sleep(0.001)  # whatever the loop opens it has opened now
    r, _w = pipe()
    calls: list[int] = []
    watcher = loop().io(r, READ)
    watcher.start(calls.append, 1)
    if tell:
        assert loop().closing_fd(r) is True
        assert loop().closing_fd(r) is False
    pipe.close(r)
    bridge.sleep(0.002)
    assert calls == ([1] if tell else [])
    w2 = pipe.at(r)
    with loop().io(r, READ) as again:
        again.start(calls.append, 2)
        bridge.sleep(0.002)
        os.write(w2, b"x")
        until(lambda: 2 in calls)
    watcher.close()
    assert loop().activecnt == 0


def test_many_readers_closed_by_greenlets_while_others_are_ready(pipe: Pipes) -> None:
    # libuv keeps its list of ready descriptors on the C stack while it calls back
    pipes = [pipe() for _ in range(100)]
    woken: set[int] = set()
    greenlets: dict[int, Any] = {}

    def reader(i: int) -> None:
        r, _w = pipes[i]
        with loop().io(r, READ) as watcher:
            bridge.get_hub().wait(watcher)
        woken.add(i)
        # take the next one away, which is ready as well
        for j in range(i + 1, len(pipes)):
            if j not in woken and not greenlets[j].ready():
                greenlets[j].kill(block=False)
                loop().closing_fd(pipes[j][0])
                pipe.close(pipes[j][0])
                break
        bridge.sleep(0)

    for i in range(len(pipes)):
        greenlets[i] = bridge.spawn(reader, i)
    bridge.sleep(0.001)
    for _r, w in pipes:
        os.write(w, b"x")
    bridge.joinall(list(greenlets.values()), timeout=10)
    assert all(g.ready() for g in greenlets.values())
    assert woken
    assert loop().activecnt == 0


def test_the_ghost_of_a_closed_file_is_laid(pipe: Pipes) -> None:
    # A duplicate elsewhere keeps the closed file in the epoll instance, under its old number.
    r, w = pipe()
    os.write(w, b"x")
    watcher = loop().io(r, READ)
    bridge.get_hub().wait(watcher)  # the registration is kept
    fileno = loop().fileno()
    elsewhere = os.dup(r)
    pipe.close(r)
    assert rounds_in(0.02) < 20
    assert loop().fileno() != fileno
    os.close(elsewhere)


def test_a_ghost_does_not_wake_who_waits_for_the_new_file_of_its_number(pipe: Pipes) -> None:
    r, w = pipe()
    with loop().io(r, READ) as watcher:
        watcher.start(bool)  # registered; never ready
        elsewhere = os.dup(r)
        pipe.close(r)
    w2 = pipe.at(r)
    calls: list[int] = []
    with loop().io(r, READ) as watcher:
        watcher.start(calls.append, 1)
        bridge.sleep(0.001)
        os.write(w, b"x")  # the ghost is ready
        assert rounds_in(0.02) < 20
        assert calls == []
        os.write(w2, b"x")
        until(lambda: calls)
    os.close(elsewhere)


def test_a_ghost_with_another_event_than_is_watched_is_seen(pipe: Pipes) -> None:
    r, w = pipe()
    with loop().io(w, WRITE) as watcher:
        bridge.get_hub().wait(watcher)
        elsewhere = os.dup(w)  # writable for ever
        pipe.close(w)
    pipe.at(w)
    with loop().io(w, READ) as watcher:
        watcher.start(bool)
        assert rounds_in(0.02) < 20
    os.close(elsewhere)


# -- timers and callbacks -------------------------------------------------------------------------


def test_a_timer_calls_once_or_again_and_again() -> None:
    calls: list[Any] = []
    once = loop().timer(0.001)
    once.start(lambda *args: calls.append(args), 1)
    assert once.active and once.args == (1,)
    until(lambda: calls == [(1,)])
    assert not once.active and once.callback is once.args is None
    again = loop().timer(0.001, repeat=0.001)
    again.start(calls.append, 2)
    until(lambda: calls.count(2) >= 3)
    again.stop()
    n = len(calls)
    bridge.sleep(0.005)
    assert len(calls) == n
    with pytest.raises(ValueError):
        loop().timer(1, -1)
    restarted = loop().timer(60, repeat=0.001)
    restarted.start(calls.append, 3)
    restarted.again(calls.append, 4)
    until(lambda: 4 in calls)
    restarted.close()
    assert 3 not in calls
    assert loop().activecnt == 0


def test_attributes_of_watchers_are_checked() -> None:
    timer = loop().timer(60)
    for bad in (None, 5):
        with pytest.raises(TypeError):
            timer.start(bad)
    timer.start(print)
    with pytest.raises(TypeError):
        timer.callback = 5
    with pytest.raises(TypeError):
        timer.args = [1]
    timer.args = (1, 2)
    assert timer.args == (1, 2)
    timer.args = None
    with pytest.raises(AttributeError):
        timer.priority = 1
    timer.stop()
    timer.priority = 7
    assert timer.priority == 2
    with pytest.raises(TypeError):
        timer.priority = "high"
    assert timer.ref is True
    assert "timer" in repr(timer)


def test_prepare_check_and_idle() -> None:
    calls: list[str] = []
    watchers = [loop().prepare(), loop().check(), loop().idle()]
    for name, watcher in zip(("prepare", "check", "idle"), watchers, strict=True):
        watcher.start(calls.append, name)
    until(lambda: set(calls) == {"prepare", "check", "idle"})
    for watcher in watchers:
        watcher.close()
    del calls[:]
    bridge.sleep(0.002)
    assert calls == []
    assert loop().activecnt == 0


def test_async_is_sent_from_any_thread() -> None:
    calls: list[int] = []
    watcher = loop().async_()
    watcher.start(lambda: calls.append(threading.get_ident()))
    thread = threading.Thread(target=watcher.send)
    thread.start()
    until(lambda: calls)
    thread.join()
    assert calls == [threading.get_ident()]
    watcher.send()
    watcher.send_ignoring_arg(None)
    assert watcher.pending
    until(lambda: len(calls) > 1)
    watcher.close()
    watcher.send()
    bridge.sleep(0.001)
    assert len(calls) in (2, 3)


def test_an_error_in_a_callback_is_printed_with_its_watcher(errors: list[Any]) -> None:
    timer = loop().timer(0.001)
    timer.start(int, "x")
    until(lambda: errors)
    assert errors[0][0] is timer and isinstance(errors[0][1], ValueError)


def test_feed_calls_back_without_watching(pipe: Pipes) -> None:
    r, _w = pipe()
    calls: list[Any] = []
    watcher = loop().io(r, READ)
    watcher.feed(READ, calls.append, EVENTS)
    assert watcher.pending and not watcher.active
    until(lambda: calls == [READ])
    watcher.close()


def test_a_closed_watcher_is_freed_at_once(pipe: Pipes) -> None:
    r, _w = pipe()
    watcher = loop().io(r, READ)
    watcher.start(lambda: None)
    watcher.close()
    freed = weakref.ref(watcher)
    gc.disable()
    try:
        del watcher
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.engines("owned")
def test_a_loop_run_by_hand_returns_when_nothing_is_left(pipe: Pipes) -> None:
    r, _w = pipe()
    ours = bridge.config.loop(default=False)
    calls: list[int] = []
    ours.run_callback(calls.append, 1)
    ours.io(r, READ, ref=False).start(bool)
    ours.timer(0.001).start(calls.append, 2)
    blocked = threading.Event()
    thread = threading.Thread(target=blocked.wait)
    thread.start()  # cannot concern the loop
    begin = time.monotonic()
    ours.run()
    assert calls == [1, 2] and time.monotonic() - begin < 0.4
    blocked.set()
    thread.join()
    ours.timer(60).start(bool)
    ours.run(nowait=True)
    assert "ref=1" in repr(ours)
    assert ours.destroy() is True
    assert ours.destroy() is None
    with pytest.raises(ValueError, match="destroyed"):
        ours.timer(1).start(bool)


# -- stat -----------------------------------------------------------------------------------------


def test_stat_notices_changes_and_removal(tmp_path: Path) -> None:
    file = tmp_path / "file"
    watcher = loop().stat(str(file), interval=-1)
    assert (watcher.path, watcher._paths, watcher.interval) == (str(file), os.fsencode(file), -1)
    calls: list[Any] = []
    watcher.start(lambda: calls.append((watcher.prev is not None, watcher.attr is not None)))
    assert watcher.interval > 0
    file.write_text("x")
    until(lambda: calls == [(False, True)])
    file.write_text("longer")
    until(lambda: calls[1:] == [(True, True)])
    file.unlink()
    until(lambda: calls[2:] == [(True, False)])
    assert loop().activecnt == 1
    watcher.ref = False
    assert loop().activecnt == 0
    watcher.close()


# -- signals --------------------------------------------------------------------------------------


def test_signal_watchers_share_a_signal_and_put_the_old_handler_back() -> None:
    with pytest.raises(ValueError, match="signal number"):
        loop().signal(1000)
    before = signal.getsignal(signal.SIGUSR1)
    calls: list[int] = []
    first, second = loop().signal(signal.SIGUSR1), loop().signal(signal.SIGUSR1, ref=False)
    first.start(calls.append, 1)
    second.start(calls.append, 2)
    os.kill(os.getpid(), signal.SIGUSR1)
    until(lambda: sorted(calls) == [1, 2])
    first.stop()
    os.kill(os.getpid(), signal.SIGUSR1)
    until(lambda: sorted(calls) == [1, 2, 2])
    second.close()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_wakes_a_loop_that_sleeps() -> None:
    arrived = Event()
    with loop().signal(signal.SIGUSR1) as watcher:
        watcher.start(arrived.set)
        thread = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
        thread.start()
        begin = time.monotonic()
        assert arrived.wait(10)
        assert time.monotonic() - begin < 8
        thread.join()


def test_a_handler_that_the_program_has_set_since_is_left_alone() -> None:
    def handler(signum: int, frame: object) -> None:
        pass

    old = signal.getsignal(signal.SIGUSR1)
    watcher = loop().signal(signal.SIGUSR1)
    watcher.start(bool)
    signal.signal(signal.SIGUSR1, handler)
    watcher.close()
    assert signal.getsignal(signal.SIGUSR1) is handler
    signal.signal(signal.SIGUSR1, old)


# -- children -------------------------------------------------------------------------------------

WAYS = ["pidfd", "timer"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the end of a child is learnt of."""
    if request.param == "timer":

        def no_pidfd(pid: int) -> int:
            raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(children, "_pidfd_open", no_pidfd)
    return str(request.param)


def child_process(script: str = "exit 3") -> int:
    return os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ)


def is_zombie(pid: int) -> bool:
    """Whether it has ended and nobody has taken its status."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def assert_reaped(pid: int) -> None:
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_a_child_is_reaped_and_its_status_told(way: str) -> None:
    pid = child_process("sleep 0.02; exit 3")
    calls: list[Any] = []
    watcher = loop().child(pid)
    watcher.start(lambda *args: calls.append((*args, watcher.rpid, watcher.rstatus)), "x")
    assert watcher.pid == pid and watcher.rpid == 0
    assert loop().activecnt == 1
    until(lambda: calls)
    assert calls == [("x", pid, 3 << 8)]
    assert_reaped(pid)
    assert loop().activecnt == 0
    watcher.close()
    assert not children._watches


def test_a_child_that_has_ended_before_is_not_missed(way: str) -> None:
    pid = child_process()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    calls: list[int] = []
    watcher = loop().child(pid)
    watcher.start(calls.append, 1)
    until(lambda: calls)
    assert watcher.rstatus == 3 << 8
    assert_reaped(pid)


def test_several_watchers_of_one_child_are_all_told(way: str) -> None:
    pid = child_process()
    watchers = [loop().child(pid) for _ in range(3)]
    calls: list[int] = []
    for i, watcher in enumerate(watchers):
        watcher.start(calls.append, i)
    until(lambda: len(calls) == 3)
    assert [w.rstatus for w in watchers] == [3 << 8] * 3
    assert not any(w.stolen for w in watchers)
    assert rounds_in(0.01) < 20


def test_watchers_in_several_threads_are_all_told(way: str) -> None:
    pid = child_process("sleep 0.05; exit 3")
    results: list[int] = []
    started = threading.Barrier(3)

    def watch() -> None:
        hub = bridge.get_hub()
        watcher = hub.loop.child(pid)
        started.wait()
        hub.wait(watcher)
        results.append(watcher.rstatus)
        hub.destroy(destroy_loop=True)

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == [3 << 8] * 3
    assert_reaped(pid)


def test_a_stopped_watcher_leaves_the_child_to_others(way: str) -> None:
    pid = child_process()
    calls: list[int] = []
    watcher = loop().child(pid)
    watcher.start(calls.append, 1)
    watcher.stop()
    until(lambda: is_zombie(pid))
    bridge.sleep(0.003)
    assert calls == []
    assert os.waitpid(pid, 0) == (pid, 3 << 8)
    assert loop().activecnt == 0


def test_a_status_that_others_have_taken_is_unknown(way: str) -> None:
    pid = child_process("sleep 0.02")
    watcher = loop().child(pid)
    calls: list[int] = []
    watcher.start(calls.append, 1)
    os.waitpid(pid, 0)
    until(lambda: calls)
    assert watcher.stolen and (watcher.rpid, watcher.rstatus) == (pid, 0)


@pytest.mark.engines("owned")
def test_a_child_without_ref_does_not_keep_the_loop_going(way: str) -> None:
    pid = child_process("sleep 0.2")
    watcher = loop().child(pid, ref=False)
    watcher.start(bool)
    assert bridge.get_hub().join() is True
    assert not watcher.rpid
    watcher.ref = True
    assert bridge.get_hub().join() is True
    assert watcher.rpid == pid


def test_a_hundred_children_that_end_at_once_are_all_noticed() -> None:
    pids = [child_process(f"exit {i}") for i in range(100)]
    statuses: dict[int, int] = {}
    for pid in pids:
        watcher = loop().child(pid)
        watcher.start(lambda w: statuses.__setitem__(w.pid, w.rstatus), watcher)
    until(lambda: len(statuses) == 100, 20)
    assert [statuses[pid] >> 8 for pid in pids] == list(range(100))
    for pid in pids:
        assert_reaped(pid)


def test_an_ignored_sigchld_does_not_lose_the_status() -> None:
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        loop().install_sigchld()
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        pid = child_process("sleep 0.02; exit 3")
        watcher = loop().child(pid)
        watcher.start(bool)
        until(lambda: watcher.rpid)
        assert watcher.rstatus == 3 << 8
        loop().reset_sigchld()
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_child_wants_the_pid_of_one_child() -> None:
    for bad in (0, -1):
        with pytest.raises(ValueError, match="positive"):
            loop().child(bad)


# -- fork -----------------------------------------------------------------------------------------

FORK = """
import os, bridge
from bridge import get_hub
loop = get_hub().loop
bridge.sleep(0.001)
r, w = os.pipe()
log = []
parent_child = os.posix_spawn("/bin/sh", ["sh", "-c", "sleep 0.1"], os.environ)
watcher = loop.child(parent_child)
watcher.start(log.append, "child")
with loop.fork(ref=False) as fork:
    fork.start(log.append, "fork")
    reader = loop.io(r, 1)
    reader.start(lambda: (log.append(os.read(r, 1)), reader.stop()))
    fileno = loop.fileno()
    pid = os.fork()
    if not pid:
        bridge.sleep(0.001)
        os.write(w, b"c")
        bridge.sleep(0.15)
        # a loop of its own, the same watchers; the parent's child is not ours
        print(log == ["fork", b"c"], loop.fileno() != -1, loop.activecnt, flush=True)
        os._exit(0)
    reader.stop()
    with bridge.Timeout(10):
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            bridge.sleep(0.01)
        while not log:
            bridge.sleep(0.01)
    print(log, loop.fileno() == fileno)
    reader.start(lambda: (log.append(os.read(r, 1)), reader.stop()))
    os.write(w, b"p")
    bridge.sleep(0.01)
    print(log, watcher.rpid == parent_child)
"""


@both_loops
def test_fork_watchers_fire_in_the_child_only_and_the_poller_is_split(kind: str) -> None:
    assert run_script(FORK, kind) == [
        "True True 0",
        "['child'] True",
        "['child', b'p'] True",
    ]


CLOSED_WHILE_REGISTERED = """
import os, bridge
from bridge import get_hub
for n in range(200):
    r, w = os.pipe()
    watcher = get_hub().loop.io(r, 1)
    watcher.start(print)
    os.close(r)
    os.close(w)
    if n % 3 == 0:
        bridge.sleep(0)
    watcher.stop()
bridge.sleep(0.001)
print("alive")
"""


@both_loops
def test_descriptors_closed_while_registered_do_not_abort_the_process(kind: str) -> None:
    assert run_script(CLOSED_WHILE_REGISTERED, kind) == ["alive"]
