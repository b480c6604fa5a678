"""Popen and its like: only the greenlet blocks, no output, no status and no child is lost."""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import os as real_os
import signal
import subprocess as standard
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import bridge
from bridge import _popen, os, subprocess
from bridge._core import children
from bridge.exceptions import BlockingSwitchOutError
from bridge.subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired

from .helpers import both_loops, run_script, until

BIG = b"0123456789abcdef" * 20_000


def descriptors(kind: str) -> int:
    """How many descriptors of a kind, ``pipe`` or ``pidfd``, are open."""
    count = 0
    for fd in real_os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        try:
            count += kind in real_os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # that of the listing
    return count


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    gc.collect()
    pipes = descriptors("pipe")
    yield
    gc.collect()
    with pytest.raises(ChildProcessError):
        real_os.waitpid(-1, real_os.WNOHANG)
    assert not _popen._running and not children._watches
    os._reap_children(0)
    assert descriptors("pidfd") == 0
    assert descriptors("pipe") <= pipes + 4  # libuv has two of its own


def sh(script: str, **options: Any) -> Popen:
    return Popen(["/bin/sh", "-c", script], **options)


class Ticker:
    """A greenlet that counts for as long as others let it."""

    def __enter__(self) -> Ticker:
        self.ticks = 0
        self.greenlet = bridge.spawn(self.run)
        return self

    def run(self) -> None:
        while True:
            bridge.sleep(0.001)
            self.ticks += 1

    def __exit__(self, *exc: object) -> None:
        self.greenlet.kill()


@pytest.fixture(params=["pidfd", "timer"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the end of a child is learnt of."""
    if request.param == "timer":
        monkeypatch.setattr(children, "_pidfd_open", None)
    return str(request.param)


# -- waiting ----------------------------------------------------------------------------------------


def test_wait_blocks_only_the_greenlet(way: str) -> None:
    with Ticker() as ticker, sh("sleep 0.05; exit 3") as child:
        assert child.poll() is None
        assert child.wait() == 3
    assert ticker.ticks > 3
    assert (child.poll(), child.wait(), child.wait(timeout=0), child.returncode) == (3, 3, 3, 3)
    assert child.result.get() == 3


def test_all_who_wait_get_the_return_code(way: str) -> None:
    child = sh("sleep 0.02; exit 3")
    waiters = [bridge.spawn(child.wait) for _ in range(3)]
    assert [g.get(timeout=10) for g in waiters] == [3, 3, 3]


def test_wait_with_a_time_limit(way: str) -> None:
    child = sh("exec cat", stdin=PIPE)
    for seconds in (0.003, 0, -1):
        with pytest.raises(TimeoutExpired) as caught:
            child.wait(timeout=seconds)
        assert (caught.value.cmd, caught.value.timeout) == (child.args, seconds)
    limit = bridge.Timeout(0.003)
    with pytest.raises(TimeoutExpired) as caught:
        child.wait(timeout=limit)
    assert caught.value.timeout is limit  # type: ignore[comparison-overlap]
    with pytest.raises(KeyError):
        child.wait(timeout=bridge.Timeout(0.003, KeyError))
    with bridge.Timeout(0.003) as counting, pytest.raises(TimeoutExpired):
        child.wait(timeout=counting)  # one that has begun before
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.003):
        child.wait()
    g = bridge.spawn(child.wait)
    bridge.sleep(0)
    g.kill()
    child.stdin.close()
    assert child.wait(timeout=10) == 0


def test_a_child_nobody_waits_for_is_reaped(way: str) -> None:
    child = sh("exit 3")
    until(lambda: child.returncode is not None)
    assert child.returncode == 3
    with pytest.raises(ChildProcessError):
        real_os.waitpid(child.pid, real_os.WNOHANG)


def test_a_child_whose_object_is_gone_is_reaped(way: str) -> None:
    child = sh("sleep 0.01")
    pid = child.pid
    gone = weakref.ref(child)
    with pytest.warns(ResourceWarning, match="still running"):
        del child
        gc.collect()
    until(lambda: pid not in children._watches)
    standard._cleanup()  # type: ignore[attr-defined]
    assert gone() is None


def test_signals() -> None:
    for send, number in (
        (Popen.kill, signal.SIGKILL),
        (Popen.terminate, signal.SIGTERM),
        (lambda child: child.send_signal(signal.SIGUSR1), signal.SIGUSR1),
    ):
        child = sh("exec sleep 10")
        send(child)
        assert child.wait() == -number
        send(child)  # it is another's number by now


def test_rawlink_calls_in_the_hub_with_the_child() -> None:
    calls: list[Any] = []

    def link(child: Popen) -> None:
        calls.append((child, child.returncode, bridge.getcurrent() is bridge.get_hub()))

    child = sh("exit 3")
    child.rawlink(link)
    child.rawlink(calls.append)
    child.unlink(calls.append)
    until(lambda: calls)
    child.rawlink(link)
    until(lambda: len(calls) == 2)
    assert calls == [(child, 3, True)] * 2
    with pytest.raises(TypeError):
        child.rawlink(None)  # type: ignore[arg-type]


def test_a_linked_child_is_kept_alive() -> None:
    codes: list[Any] = []
    sh("sleep 0.01; exit 3").rawlink(lambda child: codes.append(child.returncode))
    gc.collect()
    until(lambda: codes)
    assert codes == [3]


def test_children_can_be_waited_for_with_other_things() -> None:
    fast, slow = sh("exit 3"), sh("exec cat", stdin=PIPE)
    assert bridge.wait([fast, slow], count=1, timeout=10) == [fast]
    slow.stdin.close()
    assert bridge.wait([fast, slow], timeout=10) == [fast, slow]


def test_a_running_child_is_a_reason_to_go_on() -> None:
    child = sh("sleep 0.02; exit 3")
    if bridge.get_hub().loop.owned:
        assert bridge.wait()
        assert child.returncode == 3
    child.wait()


# -- communicating ----------------------------------------------------------------------------------


def test_communicate_closes_a_stdin_of_the_programs_own_once() -> None:
    calls: list[Any] = []

    class Stdin:
        closed = False

        def write(self, data: bytes) -> None:
            calls.append(data)
            raise BrokenPipeError

        def flush(self) -> None: ...

        def close(self) -> None:
            calls.append("close")

    with Popen([sys.executable, "-c", ""]) as child:
        child.stdin = Stdin()  # type: ignore[assignment]
        child.communicate(b"data")
        assert calls == [b"data", "close"]


def test_communicate_with_more_than_the_pipes_hold() -> None:
    script = "cat > /dev/null; head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2"
    with Ticker() as ticker, sh(script, stdin=PIPE, stdout=PIPE, stderr=PIPE) as child:
        out, err = child.communicate(BIG)
    assert (out, err) == (bytes(300_000), bytes(200_000))
    assert ticker.ticks > 0
    with Popen(["cat"], stdin=PIPE, stdout=PIPE) as child:
        assert child.communicate(memoryview(BIG)) == (BIG, None)
    with Popen(["cat"], stdin=PIPE, stdout=PIPE) as child:
        assert child.communicate(memoryview(BIG).cast("I")) == (BIG, None)


@pytest.mark.parametrize("bufsize", [-1, 0, 1, 100])
def test_text_and_buffers(bufsize: int) -> None:
    text = "zwölf\nBoxkämpfer\n"
    options: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "bufsize": bufsize}
    with Popen(["cat"], text=True, encoding="utf-8", **options) as child:
        assert child.communicate(text) == (text, None)
    with Popen(["cat"], text=True, encoding="utf-8", **options) as child:
        child.stdin.write(text)
        child.stdin.flush()
        assert child.stdout.readline() == "zwölf\n"
        assert child.communicate("rest\r\n\r") == ("Boxkämpfer\nrest\n\n", None)
    if bufsize != 1:
        with Popen(["cat"], **options) as child:
            assert child.communicate(b"\r\n") == (b"\r\n", None)
    with sh(r"printf '\377'", stdout=PIPE, text=True, encoding="utf-8") as child:
        for _ in range(2):
            with pytest.raises(UnicodeDecodeError):
                child.communicate()
    with sh(r"printf '\377'", stdout=PIPE, errors="replace", encoding="utf-8") as child:
        assert child.communicate() == ("\ufffd", None)


def test_line_buffering_sends_each_line() -> None:
    with Popen(["cat"], text=True, bufsize=1, stdin=PIPE, stdout=PIPE) as child:
        child.stdin.write("line\n")
        assert child.stdout.readline() == "line\n"


def test_a_time_limit_shows_what_came_and_loses_nothing() -> None:
    for text in (False, True):
        script = "echo a; echo b >&2; read x; echo c; echo d >&2"
        child = sh(script, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=text)
        child.stdin.write("" if text else b"")
        expired: list[TimeoutExpired] = []
        release = child.stdin
        child.stdin = None
        while not expired or not (expired[-1].output and expired[-1].stderr):
            with pytest.raises(TimeoutExpired) as caught:
                child.communicate(timeout=0.003)
            expired.append(caught.value)
        # bytes in any case, as in the standard library
        assert (expired[-1].output, expired[-1].stderr, expired[-1].timeout) == (b"a\n", b"b\n", 0.003)
        release.close()
        out, err = child.communicate(timeout=10)
        assert (out, err) == (("a\nc\n", "b\nd\n") if text else (b"a\nc\n", b"b\nd\n"))


def interrupt_by_limit(child: Popen, input: Any) -> None:
    with pytest.raises(TimeoutExpired):
        child.communicate(input, timeout=0.005)


def interrupt_by_timeout(child: Popen, input: Any) -> None:
    # an exception of a kind that is used within, too
    with pytest.raises(TimeoutError), bridge.Timeout(0.005, TimeoutError):
        child.communicate(input)


def interrupt_by_kill(child: Popen, input: Any) -> None:
    g = bridge.spawn(child.communicate, input)
    bridge.sleep(0.005)
    g.kill()


@pytest.mark.parametrize("interrupt", [interrupt_by_limit, interrupt_by_timeout, interrupt_by_kill])
def test_an_interrupted_communicate_goes_on(interrupt: Any) -> None:
    script = "echo first; read line; cat"
    child = sh("sleep 0.05; cat", stdin=PIPE, stdout=PIPE)
    child.stdin.write(b"before, ")
    interrupt(child, BIG)
    with pytest.raises(ValueError, match="Cannot send input"):
        child.communicate(b"more")
    assert child.communicate() == (b"before, " + BIG, None)
    for _ in range(2):
        assert child.communicate() == (b"before, " + BIG, None)
    child = sh(script, stdin=PIPE, stdout=PIPE, bufsize=0)
    with child:
        stdin, child.stdin = child.stdin, None
        interrupt(child, None)
        interrupt(child, None)
        stdin.write(b"\nsecond\n")
        stdin.close()
        assert child.communicate() == (b"first\nsecond\n", None)


@pytest.mark.parametrize("text", [False, True])
def test_what_is_in_the_buffers_of_the_file_is_not_lost(text: bool) -> None:
    with sh("echo a; echo b; echo c; echo e >&2", stdout=PIPE, stderr=PIPE, text=text) as child:
        first = child.stdout.readline()
        out, err = child.communicate(timeout=10)
    assert (first, out, err) == (("a\n", "b\nc\n", "e\n") if text else (b"a\n", b"b\nc\n", b"e\n"))


def test_several_may_communicate() -> None:
    child = sh("sleep 0.01; echo a; echo b >&2", stdout=PIPE, stderr=PIPE)
    greenlets = [bridge.spawn(child.communicate) for _ in range(3)]
    assert [g.get(timeout=10) for g in greenlets] == [(b"a\n", b"b\n")] * 3


def test_a_child_that_does_not_read_is_no_error() -> None:
    with sh("exec <&-; echo a", stdin=PIPE, stdout=PIPE) as child:
        assert child.communicate(BIG * 5) == (b"a\n", None)
    with sh("exit 3", stdin=PIPE) as child:
        child.wait()
        child.stdin.write(b"x")
        assert child.communicate() == (None, None)


def test_a_pipe_that_the_program_has_closed_gives_nothing() -> None:
    with sh("echo a >&2", stdin=PIPE, stdout=PIPE, stderr=PIPE) as child:
        child.stdout.close()
        child.stdin.close()
        assert child.communicate() == (b"", b"a\n")


def test_input_for_a_pipe_that_the_program_has_closed_is_an_error() -> None:
    with Popen(["cat"], stdin=PIPE, stdout=PIPE) as child:
        child.stdin.close()
        with pytest.raises(OSError, match="closed"):
            child.communicate(b"lost")
        assert child.communicate() == (b"", None)


def test_pipelines() -> None:
    first = Popen(["cat"], stdin=PIPE, stdout=PIPE)
    second = sh("sed s/a/b/", stdin=first.stdout, stdout=PIPE)
    first.stdout.close()
    assert real_os.get_blocking(first.stdin.fileno()) is False
    g = bridge.spawn(first.communicate, b"a\n" * 50_000)
    assert second.communicate() == (b"b\n" * 50_000, None)
    assert g.get(timeout=10) == (b"", None)


def test_a_nonblocking_file_is_given_to_the_child_as_a_blocking_one() -> None:
    r, w = real_os.pipe()
    file = bridge.fileobject.FileObject(r, "rb")
    assert not real_os.get_blocking(r)
    with Popen(["cat"], stdin=file, stdout=PIPE) as child:
        assert child.poll() is None
        real_os.write(w, b"x")
        real_os.close(w)
        assert child.communicate() == (b"x", None)
    file.close()


def test_leaving_the_with_statement_ends_an_abandoned_communicate() -> None:
    with sh("echo a; exec sleep 10", stdout=PIPE, stderr=PIPE) as child:
        other = bridge.spawn(child.communicate)
        with pytest.raises(TimeoutExpired):
            child.communicate(timeout=0.003)
        readers = child._communicating_greenlets
        assert readers is not None and len(readers) == 2 and not any(r.dead for r in readers)
        child.kill()
    assert all(r.dead for r in readers)
    assert child.stdout.closed and child.stderr.closed and child.returncode == -9
    bridge.joinall([other], timeout=10)
    assert isinstance(other.exception, OSError) and other.exception.errno == errno.EBADF


def test_leaving_the_with_statement_while_another_greenlet_reads(errors: Any) -> None:
    child = sh("exec sleep 10", stdout=PIPE)
    reader = bridge.spawn(child.stdout.read)
    bridge.sleep(0.002)
    with child:
        child.kill()
    reader.join(timeout=10)
    assert isinstance(reader.exception, OSError)
    assert child.stdout.closed and child.returncode == -9


def test_the_pipes_are_cooperative_files() -> None:
    with Ticker() as ticker, sh("sleep 0.03; echo a; sleep 0.03; echo b", stdout=PIPE) as child:
        assert list(child.stdout) == [b"a\n", b"b\n"]
    assert ticker.ticks > 5
    assert type(child.stdout) is bridge.fileobject.FileObject


@both_loops
def test_files_in_threads(kind: str) -> None:
    assert run_script(
        """
import bridge
from bridge.subprocess import *
from bridge.threadpool import ThreadPool
pool = ThreadPool(3)
with Popen(["cat"], stdin=PIPE, stdout=PIPE, threadpool=pool) as child:
    print(type(child.stdout).__name__, child.communicate(b"a" * 200000)[0] == b"a" * 200000)
with Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True) as child:
    print(child.communicate("a\\r\\n"), child.communicate())
print(run("echo a; echo b >&2; exit 3", shell=True, capture_output=True))
pool.kill()
""",
        kind,
        BRIDGE_FILE="thread",
    ) == [
        "FileObjectThread True",
        "('a\\n', None) ('a\\n', None)",
        "CompletedProcess(args='echo a; echo b >&2; exit 3', returncode=3, stdout=b'a\\n', stderr=b'b\\n')",
    ]


# -- statuses that others take ------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["waitpid", "any", "wait"])
def test_waitpid_and_wait_both_get_the_status(first: str, way: str) -> None:
    child = sh("exit 3")
    status = (child.pid, 3 << 8)
    if first == "waitpid":
        assert os.waitpid(child.pid, 0) == status
    elif first == "any":
        assert os.waitpid(-1, 0) == status
    else:
        assert child.wait() == 3
        assert os.waitpid(child.pid, 0) == status
    assert child.wait() == 3


def test_both_wait_at_the_same_time(way: str) -> None:
    child = sh("sleep 0.02; exit 3")
    both = bridge.spawn(os.waitpid, child.pid, 0), bridge.spawn(child.wait)
    assert [g.get(timeout=10) for g in both] == [(child.pid, 3 << 8), 3]
    child = sh("sleep 0.02; exit 3")
    both = bridge.spawn(os.waitpid, -1, 0), bridge.spawn(child.wait)
    assert [g.get(timeout=10) for g in both] == [(child.pid, 3 << 8), 3]


def test_a_wait_for_any_child_does_not_find_what_wait_has_given() -> None:
    sh("exit 3").wait()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, real_os.WNOHANG)


def test_a_child_that_is_reaped_before_its_start_is_over_keeps_its_status(monkeypatch: Any) -> None:
    found: list[Any] = []
    close_pipes = standard.Popen._close_pipe_fds  # type: ignore[attr-defined]

    def reaped_by_a_signal_handler(self: Popen, *fds: int) -> None:
        real_os.waitid(real_os.P_PID, self.pid, real_os.WEXITED | real_os.WNOWAIT)
        found.append(os.waitpid(-1, real_os.WNOHANG))
        close_pipes(self, *fds)

    monkeypatch.setattr(Popen, "_close_pipe_fds", reaped_by_a_signal_handler, raising=False)
    child = sh("exit 3")
    assert found == [(child.pid, 3 << 8)]
    assert (child.returncode, child.wait()) == (3, 3)
    assert not _popen._born_dead


def test_a_status_stolen_by_the_system_s_waitpid_is_0() -> None:
    for look in (Popen.wait, Popen.poll, lambda child: child.result.get(timeout=10)):
        child = sh("exit 3")
        assert real_os.waitpid(child.pid, 0) == (child.pid, 3 << 8)
        assert look(child) == 0


def test_ignored_sigchld_loses_no_status() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert sh("exit 3").wait() == 3
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


# -- starting ---------------------------------------------------------------------------------------


def test_a_start_that_fails_leaves_nothing() -> None:
    pipes: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}

    def fail() -> None:
        raise ValueError

    for error, args, options in (
        (FileNotFoundError, ["/no/such/program"], {}),
        (FileNotFoundError, ["cat"], {"cwd": "/no/such/folder"}),
        (standard.SubprocessError, ["cat"], {"preexec_fn": fail}),
        (LookupError, ["cat"], {"encoding": "no such encoding"}),
        (LookupError, ["cat"], {"encoding": "base64"}),
        (LookupError, ["cat"], {"encoding": "ascii", "errors": "no such handler"}),
        (TypeError, ["cat"], {"encoding": 5}),
        (TypeError, ["cat"], {"bufsize": "5"}),
        (TypeError, ["cat"], {"no_such_option": 5}),
        (ValueError, ["cat\0"], {}),
    ):
        before = real_os.listdir("/proc/self/fd")
        with pytest.raises(error):
            Popen(args, **{**pipes, **options})
        assert real_os.listdir("/proc/self/fd") == before
    with pytest.raises(ValueError, match="STDOUT can only be used for stderr"):
        Popen(["cat"], stdout=STDOUT)
    with pytest.raises(OSError):
        Popen(["cat"], stdin=999)


def test_the_arguments_of_the_standard_class() -> None:
    r, w = real_os.pipe()
    options: list[tuple[str, dict[str, Any], bytes]] = [
        (f"echo a > /dev/fd/{w}; echo b", {"pass_fds": [w]}, b"b\n"),
        ("echo $X", {"env": {"X": "5"}}, b"5\n"),
        ("pwd", {"cwd": "/"}, b"/\n"),
        ("echo b >&2", {"stderr": STDOUT}, b"b\n"),
        ("cat", {"stdin": DEVNULL}, b""),
        ("echo b", {"start_new_session": True, "pipesize": 65536, "close_fds": False, "umask": 0o77}, b"b\n"),
        ("echo b", {"preexec_fn": lambda: real_os.close(2), "stderr": PIPE}, b"b\n"),
    ]
    for script, extra, output in options:
        with sh(script, stdout=PIPE, **extra) as child:
            assert child.communicate(timeout=20)[0] == output
    with sh("exec cat", stdin=PIPE, process_group=0) as child:
        assert real_os.getpgid(child.pid) == child.pid
    assert real_os.read(r, 10) == b"a\n"
    real_os.close(r)
    real_os.close(w)
    assert inspect.signature(Popen) == inspect.signature(standard.Popen)


def test_preexec_fn_leaves_the_loop_alone() -> None:
    calls: list[int] = []
    watcher = bridge.get_hub().loop.timer(0.001, 0.001)
    watcher.start(calls.append, 1)
    for _ in range(3):
        with sh("exit 3", preexec_fn=lambda: calls.append(2)) as child:
            pass
        assert child.returncode == 3
    count = len(calls)
    until(lambda: len(calls) > count)
    assert set(calls) == {1}
    watcher.stop()


# -- the functions ------------------------------------------------------------------------------------


def test_the_functions_use_our_class() -> None:
    with Ticker() as ticker:
        assert subprocess.call("sleep 0.01; exit 3", shell=True) == 3
        assert subprocess.check_call("sleep 0.01", shell=True) == 0
        assert subprocess.check_output("sleep 0.01; echo a", shell=True) == b"a\n"
        assert subprocess.getoutput("sleep 0.01; echo a") == "a"
        assert subprocess.getstatusoutput("sleep 0.01; echo a; exit 3") == (3, "a")
        done = subprocess.run(["cat"], input="a", text=True, capture_output=True)
    assert ticker.ticks > 10
    assert done == done and (done.stdout, done.stderr, done.returncode) == ("a", "", 0)
    assert type(done) is standard.CompletedProcess
    with pytest.raises(standard.CalledProcessError) as caught:
        subprocess.run("echo a; exit 3", shell=True, stdout=PIPE, check=True)
    assert (caught.value.returncode, caught.value.output) == (3, b"a\n")
    with pytest.raises(standard.CalledProcessError):
        subprocess.check_call("exit 3", shell=True)


def test_a_function_whose_time_is_over_kills_the_child() -> None:
    with pytest.raises(TimeoutExpired) as caught:
        subprocess.run("echo a; exec sleep 10", shell=True, capture_output=True, timeout=0.2)
    assert caught.value.output == b"a\n"
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.01):
        subprocess.call("exec sleep 10", shell=True)


def test_names() -> None:
    assert set(standard.__all__) == set(subprocess.__all__)
    assert set(subprocess.__implements__) < set(subprocess.__all__)
    for name in subprocess.__implements__:
        ours, theirs = getattr(subprocess, name), getattr(standard, name)
        assert ours is not theirs and ours.__module__ == "bridge.subprocess"
        assert inspect.signature(ours) == inspect.signature(theirs)
    for name in set(standard.__all__) - set(subprocess.__implements__):
        assert getattr(subprocess, name) is getattr(standard, name)
    assert issubclass(Popen, standard.Popen)


# -- coroutines, loops, threads, fork ------------------------------------------------------------------


@pytest.mark.asyncio
async def test_in_a_coroutine_a_child_may_be_started_and_looked_at() -> None:
    child = sh("exec cat", stdin=PIPE, stdout=PIPE)
    for block in (child.wait, child.communicate):
        with pytest.raises(BlockingSwitchOutError):
            block()
    assert child.poll() is None
    child.kill()
    assert await child.result == -9
    assert child.wait() == child.poll() == -9
    child.stdin.close()
    child.stdout.close()
    for _ in range(10):
        with pytest.raises(FileNotFoundError):
            Popen(["/no/such/program"])


@pytest.mark.asyncio
async def test_below_a_portal_a_coroutine_may_wait(way: str) -> None:
    @bridge.portal
    async def main() -> None:
        assert subprocess.run(["cat"], input=BIG, stdout=PIPE).stdout == BIG
        with sh("sleep 0.03; exec cat", stdin=PIPE, stdout=PIPE) as child:
            for block in (lambda: child.communicate(b"a"), child.wait):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.005):
                        block()
            assert child.communicate() == (b"a", None)

    await main()


@pytest.mark.engines("none")
def test_a_child_outlives_its_loop() -> None:
    async def start() -> Popen:
        child = sh("echo a; read x; echo b; exit 3", stdin=PIPE, stdout=PIPE)
        stdin, child.stdin = child.stdin, None
        with pytest.raises(TimeoutExpired):
            await bridge.spawn(child.communicate, timeout=0.02)
        child.stdin = stdin
        return child

    async def end(child: Popen) -> Any:
        return await bridge.spawn(child.communicate, timeout=10)

    child = asyncio.run(start())
    assert asyncio.run(end(child)) == (b"a\nb\n", None)
    assert child.returncode == 3

    async def start_only() -> Popen:
        return sh("exit 3")

    child = asyncio.run(start_only())
    assert bridge.spawn(child.wait).get(timeout=10) == 3
    forgotten = [asyncio.run(start_only()) for _ in range(3)]
    assert bridge.get_hub() is not None
    children._sweep()
    assert not children._watches
    assert [child.wait() for child in forgotten] == [3, 3, 3]
    bridge.get_hub().destroy(destroy_loop=True)


def test_threads(way: str) -> None:
    results: list[Any] = []
    mine = sh("sleep 0.02; exit 3")
    theirs: list[Popen] = []

    def work() -> None:
        theirs.append(sh("sleep 0.01; exit 4"))
        results.append(subprocess.run(["cat"], input=BIG, stdout=PIPE).stdout == BIG)
        results.append(mine.wait())

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert mine.wait() == 3
    assert results.count(True) == results.count(3) == 3
    assert [child.wait() for child in theirs] == [4, 4, 4]


FORK = """
import os, bridge
from bridge import os as bos, subprocess
from bridge.subprocess import Popen, PIPE

old = Popen(["sh", "-c", "read x; exit 3"], stdin=PIPE)
waiting = bridge.spawn(old.wait)
bridge.sleep(0.001)
pid = bos.fork()
if not pid:
    new = Popen(["cat"], stdin=PIPE, stdout=PIPE)
    assert new.communicate(b"a") == (b"a", None)
    assert subprocess.call(["false"]) == 1
    assert old.wait() == 0   # not ours: as in the standard library
    os._exit(5)
print(bos.waitpid(pid, 0) == (pid, 5 << 8), waiting.ready(), old.poll())
old.stdin.close()
print(waiting.get(timeout=10), old.returncode)
"""


@both_loops
def test_fork(kind: str) -> None:
    assert run_script(FORK, kind) == ["True False None", "3 3"]


ASYNCIO = """
import asyncio, bridge
from bridge import subprocess

async def theirs(code):
    child = await asyncio.create_subprocess_shell(f"sleep 0.01; cat; exit {code}", stdin=-1, stdout=-1)
    return (await child.communicate(b"a"))[0], child.returncode

def ours(code):
    done = subprocess.run(f"sleep 0.01; cat; exit {code}", shell=True, input=b"a", stdout=-1)
    return done.stdout, done.returncode

async def main():
    greenlets = [bridge.spawn(ours, i) for i in range(5)]
    print(await asyncio.gather(*[theirs(i) for i in range(5)]) == [(b"a", i) for i in range(5)])
    print([await g for g in greenlets] == [(b"a", i) for i in range(5)])

bridge.run(main())
"""


@both_loops
@pytest.mark.parametrize("patch", ["", "import bridge.monkey; bridge.monkey.patch_all()"])
def test_asyncio_s_own_children_beside_ours(kind: str, patch: str) -> None:
    assert run_script(patch + ASYNCIO, kind) == ["True", "True"]


PATCHED = """
import bridge.monkey
bridge.monkey.patch_all()
import os, signal, subprocess, sys, threading, time
import bridge

assert subprocess.Popen is bridge.subprocess.Popen
reaped = []

def reap(*_):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        reaped.append(pid)

signal.signal(signal.SIGCHLD, reap)
codes = [subprocess.call(["sh", "-c", f"exit {i}"]) for i in range(20)]
print(codes == list(range(20)))
results = []
def call(code):
    results.append(subprocess.call(f"sleep 0.01; exit {code}", shell=True))
threads = [threading.Thread(target=call, args=(i,)) for i in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(results) == list(range(10)))
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
with os.popen("echo b") as file:
    print(subprocess.getoutput("echo a"), file.read().strip(), os.system("exit 3") >> 8)
try:
    subprocess.Popen(["/no/such/program"])
except FileNotFoundError as e:
    print(e.filename)
"""


@both_loops
def test_patched_with_a_handler_that_reaps_everything(kind: str) -> None:
    assert run_script(PATCHED, kind) == ["True", "True", "a b 3", "/no/such/program"]


def test_text_is_sent_to_pipes_that_are_open_for_text(way: str) -> None:
    child = Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True)
    for wrong in (b"octets", bytearray(b"octets"), 5):
        with pytest.raises(TypeError, match="str"):
            child.communicate(wrong)
    assert child.communicate("text") == ("text", None)
