"""nb_read and its like, and child processes."""

from __future__ import annotations

import asyncio
import errno
import os as real_os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bridge
from bridge import os
from bridge._core import children
from bridge.exceptions import BlockingSwitchOutError

from .helpers import both_loops, run_script, until


@pytest.fixture
def open_fds() -> Iterator[list[int]]:
    """The ends of ``pipe``; what a test closes it takes out."""
    fds = list(real_os.pipe())
    yield fds
    for fd in fds:
        real_os.close(fd)


@pytest.fixture
def pipe(open_fds: list[int]) -> tuple[int, int]:
    r, w = open_fds
    return r, w


def close(fd: int, open_fds: list[int]) -> None:
    open_fds.remove(fd)
    real_os.close(fd)


def end_threads() -> None:
    """While the loop runs."""
    bridge.get_hub().threadpool.kill()
    del bridge.get_hub().threadpool


# -- reading and writing --------------------------------------------------------------------------


def transfer(read: Any, write: Any, r: int, w: int) -> None:
    """More than a pipe holds, through a pipe, by two greenlets."""
    block = memoryview(b"x" * 4096)
    size = 300_000

    def produce() -> None:
        left = size
        while left:
            left -= write(w, block[: min(left, 4096)])

    producer = bridge.spawn(produce)
    bridge.sleep(0.005)
    assert not producer.ready()
    left = size
    while left:
        left -= len(read(r, min(left, 4096)))
    producer.get(timeout=5)


def test_nb_read_and_nb_write_wait(pipe: tuple[int, int]) -> None:
    for fd in pipe:
        assert os.make_nonblocking(fd)
        assert os.make_nonblocking(fd)
        assert not real_os.get_blocking(fd)
    transfer(os.nb_read, os.nb_write, *pipe)
    assert bridge.get_hub().loop.activecnt == 0


def test_tp_read_and_tp_write_wait(pipe: tuple[int, int]) -> None:
    transfer(os.tp_read, os.tp_write, *pipe)
    end_threads()


def test_nb_read_returns_nothing_at_the_end_of_the_file(pipe: tuple[int, int], open_fds: list[int]) -> None:
    r, w = pipe
    os.make_nonblocking(r)
    bridge.spawn_later(0.002, close, w, open_fds)
    assert os.nb_read(r, 10) == b""


def test_nb_read_can_be_interrupted_and_loses_nothing(pipe: tuple[int, int]) -> None:
    r, w = pipe
    os.make_nonblocking(r)
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.002):
        os.nb_read(r, 10)
    g = bridge.spawn(os.nb_read, r, 10)
    bridge.sleep(0)
    real_os.write(w, b"x")
    g.kill()
    assert os.nb_read(r, 10) == b"x"


def test_errors_of_reading_and_writing(pipe: tuple[int, int], open_fds: list[int]) -> None:
    r, w = pipe
    os.make_nonblocking(w)
    close(r, open_fds)
    with pytest.raises(BrokenPipeError):
        os.nb_write(w, b"x")
    bad = 999
    for call in (
        lambda: os.nb_read(bad, 1),
        lambda: os.nb_write(bad, b""),
        lambda: os.make_nonblocking(bad),
        lambda: os.close(bad),
        lambda: os.tp_read(bad, 1),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF
    end_threads()


def test_nb_read_in_the_hub_is_refused(pipe: tuple[int, int]) -> None:
    os.make_nonblocking(pipe[0])
    outcome: list[Any] = []

    def in_hub() -> None:
        with pytest.raises(BlockingSwitchOutError):
            os.nb_read(pipe[0], 1)
        outcome.append(1)

    bridge.get_hub().loop.run_callback(in_hub)
    bridge.sleep(0.001)
    assert outcome == [1]


# -- children -------------------------------------------------------------------------------------


@pytest.fixture(params=["pidfd", "timer"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the end of a child is learnt of."""
    if request.param == "timer":
        monkeypatch.setattr(children, "_pidfd_open", None)
    return str(request.param)


def unwatched(script: str = "exit 3") -> int:
    return real_os.posix_spawn("/bin/sh", ["sh", "-c", script], real_os.environ)


def watched(script: str = "exit 3") -> int:
    return os.posix_spawn("/bin/sh", ["sh", "-c", script], real_os.environ)


def assert_reaped(pid: int) -> None:
    for waitpid in (real_os.waitpid, os.waitpid):
        with pytest.raises(ChildProcessError):
            waitpid(pid, real_os.WNOHANG)


@pytest.mark.parametrize("make", [watched, unwatched])
def test_waitpid_blocks_only_the_greenlet(make: Any, way: str) -> None:
    kept_before = set(os._watched_children)  # statuses of other tests' children are kept for a while
    ticks: list[int] = []

    def ticker() -> None:
        while True:
            bridge.sleep(0.002)
            ticks.append(1)

    g = bridge.spawn(ticker)
    pid = make("sleep 0.05; exit 3")
    assert os.waitpid(pid, real_os.WNOHANG) == (0, 0)
    assert os.waitpid(pid, 0) == (pid, 3 << 8)
    g.kill()
    assert len(ticks) > 3
    assert_reaped(pid)
    assert os._watched_children.keys() <= kept_before and not children._watches


@pytest.mark.parametrize("make", [watched, unwatched])
def test_a_child_that_ended_long_ago_still_has_its_status(make: Any, way: str) -> None:
    pids = [make(f"exit {i}") for i in range(5)]
    bridge.sleep(0.05)
    assert [os.waitpid(pid, 0) for pid in reversed(pids)] == [(pids[i], i << 8) for i in range(4, -1, -1)]
    for pid in pids:
        assert_reaped(pid)


def test_a_watched_child_is_reaped_without_waitpid(way: str) -> None:
    pid = watched()
    until(lambda: isinstance(os._watched_children[pid], tuple))
    with pytest.raises(ChildProcessError):
        real_os.waitpid(pid, 0)
    assert os.waitpid(pid, 0) == (pid, 3 << 8)
    pid = watched()
    until(lambda: isinstance(os._watched_children[pid], tuple))
    os._reap_children(0)
    assert_reaped(pid)


@pytest.mark.parametrize("make", [watched, unwatched])
def test_an_interrupted_waitpid_loses_nothing(make: Any, way: str) -> None:
    pid = make("sleep 0.03; exit 3")
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.002):
        os.waitpid(pid, 0)
    g = bridge.spawn(os.waitpid, pid, 0)
    bridge.sleep(0.001)
    g.kill()
    assert os.waitpid(pid, 0) == (pid, 3 << 8)


def test_all_who_wait_for_one_child_get_its_status(way: str) -> None:
    for make in (watched, unwatched):
        pid = make("sleep 0.02; exit 3")
        greenlets = [bridge.spawn(os.waitpid, pid, 0) for _ in range(3)]
        assert [g.get(timeout=5) for g in greenlets] == [(pid, 3 << 8)] * 3
        assert_reaped(pid)


def test_waitpid_for_any_child(way: str) -> None:
    pids = {watched("sleep 0.01; exit 3"), unwatched("sleep 0.02; exit 3"), watched("exit 3")}
    found = set()
    for _ in range(3):
        pid, status = os.waitpid(-1, 0)
        assert status == 3 << 8
        found.add(pid)
    assert found == pids
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, real_os.WNOHANG)


def test_wait_and_its_like_find_what_has_been_reaped_and_block_only_the_greenlet(way: str) -> None:
    turns: list[int] = []

    def others() -> None:
        while True:
            turns.append(1)
            bridge.sleep(0.001)

    g = bridge.spawn(others)
    try:
        pid = watched("sleep 0.02; exit 3")
        assert os.wait() == (pid, 3 << 8)
        pid = watched("sleep 0.02; exit 3")
        assert os.wait3(real_os.WNOHANG)[:2] == (0, 0)
        assert not any(os.wait3(real_os.WNOHANG)[2])
        with pytest.raises(ProcessLookupError):
            while True:  # it has ended, and been reaped
                real_os.kill(pid, 0)
                bridge.sleep(0.001)
        found, status, usage = os.wait3(0)
        assert (found, status) == (pid, 3 << 8)
        assert usage.ru_maxrss > 0
        pid = unwatched("sleep 0.02; exit 3")
        found, status, usage = os.wait4(pid, 0)
        assert (found, status) == (pid, 3 << 8)
        assert usage.ru_maxrss > 0
    finally:
        g.kill()
    assert len(turns) > 3
    for function in (os.wait, lambda: os.wait3(0), lambda: os.wait4(pid, 0)):
        with pytest.raises(ChildProcessError):
            function()


def test_waitpid_for_any_child_can_be_interrupted_and_polled(way: str) -> None:
    listeners = list(children.listeners)
    pid = watched("sleep 0.05; exit 3")
    assert os.waitpid(-1, real_os.WNOHANG) == (0, 0)
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.002):
        os.waitpid(-1, 0)
    assert os.waitpid(-1, 0) == (pid, 3 << 8)
    assert children.listeners == listeners


def test_a_child_watcher_is_told_what_waitpid_has_taken(way: str) -> None:
    pid = unwatched("sleep 0.02; exit 3")
    watcher = bridge.get_hub().loop.child(pid)
    calls: list[int] = []
    watcher.start(calls.append, 1)
    assert os.waitpid(-1, 0) == (pid, 3 << 8)
    until(lambda: calls)
    assert (watcher.rpid, watcher.rstatus, watcher.stolen) == (pid, 3 << 8, False)


def test_waitpid_for_a_process_group_and_for_stopped_children() -> None:
    pid = unwatched("kill -STOP $$; exit 3")
    _, status = os.waitpid(pid, real_os.WUNTRACED)
    assert real_os.WIFSTOPPED(status)
    assert os.waitpid(pid, real_os.WNOHANG) == (0, 0)
    bridge.spawn_later(0.005, real_os.kill, pid, signal.SIGCONT)
    assert os.waitpid(0, 0) == (pid, 3 << 8)
    pid = watched("sleep 0.01; exit 3")
    assert os.waitpid(pid, real_os.WUNTRACED) == (pid, 3 << 8)


def test_waitpid_for_what_is_no_child() -> None:
    for pid in (1, -1234567, real_os.getpid(), real_os.getppid()):
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)


def test_waitpid_in_the_hub_is_refused_but_may_look() -> None:
    pid = unwatched("sleep 0.02; exit 3")
    outcome: list[Any] = []

    def in_hub() -> None:
        with pytest.raises(BlockingSwitchOutError):
            os.waitpid(pid, 0)
        outcome.append(os.waitpid(pid, real_os.WNOHANG))

    bridge.get_hub().loop.run_callback(in_hub)
    bridge.sleep(0.001)
    assert outcome == [(0, 0)]
    assert os.waitpid(pid, 0) == (pid, 3 << 8)
    assert not children._watches


@pytest.mark.asyncio
async def test_waitpid_below_a_portal(way: str) -> None:
    @bridge.portal
    async def main() -> None:
        for make in (watched, unwatched):
            pid = make("sleep 0.02; exit 3")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.002):
                    os.waitpid(pid, 0)
            assert os.waitpid(pid, 0) == (pid, 3 << 8)
            pid = make("sleep 0.02; exit 3")
            assert os.waitpid(-1, 0) == (pid, 3 << 8)

    await main()


def test_posix_spawnp_searches_the_path() -> None:
    pid = os.posix_spawnp("sh", ["sh", "-c", "exit 3"], real_os.environ)
    assert os.waitpid(pid, 0) == (pid, 3 << 8)
    with pytest.raises(FileNotFoundError):
        os.posix_spawnp("no-such-program", ["x"], real_os.environ)


# -- fork -----------------------------------------------------------------------------------------

FORK = """
import os, sys, bridge
from bridge import os as bos

def work(n):
    bridge.sleep(0.002)
    return n

seen = []
def callback(watcher):
    seen.append((watcher.pid, watcher.rstatus, bridge.getcurrent() is bridge.get_hub()))

pid = bos.fork_and_watch(callback)
if not pid:
    # the hub works in the child, in new greenlets and in timers
    assert bridge.spawn(work, 5).get(timeout=5) == 5
    assert bos._watched_children == {}
    os._exit(3)
assert bridge.spawn(work, 6).get(timeout=5) == 6
print(bos.waitpid(pid, 0) == (pid, 3 << 8))
bridge.sleep(0.001)
print(seen == [(pid, 3 << 8, True)])

# many children that end at once: none is lost, none stays a zombie
pids = []
for i in range(50):
    pid = (bos.fork, bridge.fork)[i % 2]()
    if not pid:
        os._exit(i)
    pids.append(pid)
g = bridge.spawn(lambda: [bos.waitpid(pid, 0)[1] >> 8 for pid in pids])
print(g.get(timeout=20) == list(range(50)))

pid, fd = bos.forkpty()
if not pid:
    print("from the child", flush=True)
    os._exit(4)
bos.make_nonblocking(fd)
line = b""
while not line.endswith(b"\\n"):
    line += bos.nb_read(fd, 100)
print(line)
print(bos.waitpid(pid, 0) == (pid, 4 << 8))

pid = bos.fork_gevent()
if not pid:
    bridge.sleep(0.001)
    os._exit(5)
print(bos._watched_children, bos.waitpid(pid, 0) == (pid, 5 << 8))
pid, fd2 = bos.forkpty_gevent()
if not pid:
    os._exit(6)
print(bos.waitpid(pid, 0) == (pid, 6 << 8))

# an exception in the child of fork does not concern the parent's waits
pid = bos.fork_and_watch(fork=os.fork)
if not pid:
    os._exit(7)
try:
    with bridge.Timeout(0.0001):
        bos.waitpid(pid, 0)
except bridge.Timeout:
    pass
print(bos.waitpid(pid, 0) == (pid, 7 << 8))
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no child left")
"""


@both_loops
def test_fork_gives_a_working_hub_to_both_and_loses_no_child(kind: str) -> None:
    assert run_script(FORK, kind) == [
        *["True"] * 3,
        "b'from the child\\r\\n'",
        "True",
        "{} True",
        "True",
        "True",
        "no child left",
    ]


KEPT_HUB = """
import os, bridge
from bridge import os as bos
from bridge.hub import Waiter

bridge.sleep(0)
hub = bridge.get_hub()
log = []

def wait_with(hub):
    hub.wait(hub.loop.timer(0.002))
    log.append("waited")

def child(status):
    waiting.join()
    hub.wait(hub.loop.timer(0.002))
    waiter = Waiter(hub)
    hub.loop.run_callback(waiter.switch, 5)
    assert waiter.get() == 5 and log == ["waited"], log
    with bridge.Timeout(0.002, False):
        hub.switch()
        assert False
    assert hub.join() is True

waiting = bridge.spawn(wait_with, hub)
bridge.sleep(0)
pid = bos.fork()
if not pid:
    child(3)
    pid = bos.fork()
    if not pid:
        child(4)
        os._exit(4)
    os._exit(bos.waitpid(pid, 0)[1] >> 8)
print(bos.waitpid(pid, 0) == (pid, 4 << 8))

# destroyed in the child, while something is ready and somebody waits: nothing of it happens there
r, w = os.pipe()
bos.make_nonblocking(r)
ran = []
reading = bridge.spawn(bos.nb_read, r, 10)
ready = bridge.spawn(ran.append, 1)
pid = bos.fork()
if not pid:
    hub.destroy(destroy_loop=True)
    os._exit(5 if not ran and hub.loop is None else 1)
print(bos.waitpid(pid, 0) == (pid, 5 << 8))
os.write(w, b"x")
print(reading.get(), ran)
"""


@both_loops
def test_a_hub_kept_from_before_a_fork_is_of_use_in_the_child(kind: str) -> None:
    assert run_script(KEPT_HUB, kind) == ["True", "True", "b'x' [1]"]


FORK_IN_A_COROUTINE = """
import os, signal, sys, bridge
from bridge import os as bos
from bridge.event import Event
from bridge.hub import Waiter

def child():
    bridge.sleep(0.001)
    turns = []
    go = Event()
    def other():
        go.wait()
        turns.append(1)
    g = bridge.spawn(other)
    bridge.spawn_later(0.001, go.set)
    g.join()
    with bridge.Timeout(0.001, False):
        Event().wait()
        assert False
    hub = bridge.get_hub()
    waiter = Waiter(hub)
    hub.loop.run_callback(waiter.switch, 5)
    assert waiter.get() == 5
    hub.wait(hub.loop.timer(0.001))
    before.wait(hub.loop.timer(0.001))
    bridge.spawn_later(0.001, bridge.kill, bridge.getcurrent(), ZeroDivisionError())
    try:
        bridge.sleep(60)
    except ZeroDivisionError:
        turns.append(2)
    return sum(turns)

async def main():
    pid = bos.fork()
    if not pid:
        status = 1
        try:
            status = child()
        finally:
            os._exit(status)
    return pid

bridge.sleep(0)
before = bridge.get_hub()
for _ in range(2):
    pid = bridge.await_(main())
    print(os.waitstatus_to_exitcode(bos.waitpid(pid, 0)[1]))
"""


@both_loops
def test_a_child_that_a_coroutine_of_the_hub_s_loop_has_forked_may_block(kind: str) -> None:
    assert run_script(FORK_IN_A_COROUTINE, kind) == ["3", "3"]


IN_A_COROUTINE = """
import asyncio, os, bridge
from bridge import os as bos
from bridge.core import supported_backends

async def main():
    pid = bos.posix_spawn("/bin/sh", ["sh", "-c", "sleep 0.02; exit 3"], os.environ)
    print(await bridge.spawn(bos.waitpid, pid, 0) == (pid, 3 << 8))
    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 4")
    print(await process.wait())
    pid = bos.posix_spawn("/bin/sh", ["sh", "-c", "exit 5"], os.environ)
    print(await bridge.spawn(bos.waitpid, pid, 0) == (pid, 5 << 8))

bridge.run(main())
asyncio.run(main())
"""


@both_loops
def test_children_of_asyncio_and_ours_side_by_side(kind: str) -> None:
    assert run_script(IN_A_COROUTINE, kind) == ["True", "4", "True"] * 2


NOWAITPID = """
import os
from bridge import os as bos
print(sorted(bos.__implements__), bos.fork is bos.fork_gevent, bos.waitpid is os.waitpid)
print(hasattr(bos, "fork_and_watch"), sorted(bos.__all__) == sorted(set(bos.__all__)))
ns = {}
exec("from bridge.os import *", ns)
ns.pop("__builtins__")
print(set(ns) == set(bos.__all__))
"""


@pytest.mark.engines("none")
def test_children_are_left_alone_if_the_environment_says_so() -> None:
    assert run_script(NOWAITPID, "asyncio", GEVENT_NOWAITPID="1") == [
        "['close', 'fork', 'forkpty'] True True",
        "False True",
        "True",
    ]


def test_the_module_mirrors_the_real_one() -> None:
    ours = {"fork", "close", "forkpty", "posix_spawn", "posix_spawnp", "wait", "wait3", "wait4", "waitpid"}
    assert set(os.__implements__) == ours
    for name in os.__imports__:
        assert getattr(os, name) is getattr(real_os, name)
    for name in os.__implements__:
        assert getattr(os, name) is not getattr(real_os, name)
    for name in os.__extensions__:
        assert not hasattr(real_os, name)
    names: dict[str, Any] = {}
    exec("from bridge.os import *", names)
    assert set(names) - {"__builtins__"} == set(os.__all__) == set(os.__implements__) | set(os.__extensions__)
    assert bridge.fork is os.fork


FORK_WHILE_MAKING = """
import os, bridge
bridge.sleep(0)
half = bridge.Greenlet.__new__(bridge.Greenlet)  # as another thread may have got
pid = os.fork()
if not pid:
    bridge.sleep(0.001)
    os._exit(3)
print(os.waitpid(pid, 0)[1] >> 8)
"""


@both_loops
def test_fork_while_another_thread_makes_a_greenlet(kind: str) -> None:
    assert run_script(FORK_WHILE_MAKING, kind) == ["3"]


def test_close_works_when_the_interpreter_has_taken_the_module_apart(run_fresh: Callable[..., str]) -> None:
    out = run_fresh(
        """
import os, sys
from bridge import monkey
monkey.patch_all()
class Late:
    def __init__(self):
        self.fds = os.pipe()
    def __del__(self, close=os.close, write=os.write):
        for fd in self.fds:
            close(fd)
        write(1, b"closed")
sys.kept = Late()  # what sys refers to is freed after all modules
"""
    )
    assert out == "closed"
