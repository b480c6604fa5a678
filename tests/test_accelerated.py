"""The accelerators: the cache of the memory of frames, what it keeps and gives back; the notes of callers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from types import FunctionType

import pytest

accelerated = pytest.importorskip("bridge._core._chunks", reason="the accelerator is not built")

# the whole process is concerned, so each test has one of its own
pytestmark = pytest.mark.engines("none")

EMPTY_KEPT = 32


def run(code: str, **environ: str) -> str:
    """Run *code* in a new python; return what it prints."""
    start = "import bridge, greenlet\nfrom bridge._core import _chunks, accelerated\n"
    env = {**os.environ, "BRIDGE_PURE": "", **environ}
    command = [sys.executable, "-c", start + textwrap.dedent(code)]
    process = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_greenlets_take_chunks_and_give_them_back() -> None:
    run("""
        assert accelerated.FRAME_CACHE
        before = _chunks.statistics()[2]
        gate = bridge.event.Event()
        crowd = [bridge.spawn(lambda: gate.wait()) for _ in range(1000)]
        bridge.sleep(0)
        assert _chunks.statistics()[2] >= before + 1000
        gate.set()
        bridge.joinall(crowd)
        del crowd
        assert _chunks.statistics()[2] < before + 10
    """)


def test_empty_slabs_are_kept_for_a_while_and_go_back_up_to_a_bound() -> None:
    out = run("""
        def park():
            greenlet.getcurrent().parent.switch()
        def pass_by():
            g = greenlet.greenlet(park)
            g.switch()
            g.switch()
        crowd = [greenlet.greenlet(park) for _ in range(63 * 50)]
        for each in crowd:
            each.switch()
        peak = _chunks.statistics()[0]
        for each in crowd:
            each.switch()
        print(peak, *_chunks.statistics())
        while _chunks.statistics()[1] > 32:
            pass_by()
        print(*_chunks.statistics())
    """)
    before, after = (list(map(int, line.split())) for line in out.splitlines())
    peak, slabs, empty, _used = before
    assert peak >= 50 and empty > EMPTY_KEPT and slabs - empty <= 2
    slabs, empty, _used = after
    assert empty == EMPTY_KEPT and slabs - empty <= 2


def test_random_lifetimes_leave_frames_intact() -> None:
    run("""
        import random
        random.seed(5)
        def work(n):
            here = greenlet.getcurrent().parent
            numbers = list(range(n))
            def deep(k):
                if k:
                    return deep(k - 1) + k
                here.switch()
                return 0
            total = deep(n)
            assert numbers == list(range(n))
            return total
        alive = []
        for step in range(20_000):
            if alive and random.random() < 0.5:
                g, n = alive.pop(random.randrange(len(alive)))
                g.parent = greenlet.getcurrent()
                assert g.switch() == n * (n + 1) // 2
                assert g.dead
            else:
                n = random.randrange(60)
                g = greenlet.greenlet(work)
                g.switch(n)
                alive.append((g, n))
        for g, n in alive:
            assert g.switch() == n * (n + 1) // 2
    """)


def test_deep_recursion_takes_larger_chunks_from_the_system() -> None:
    run("""
        import sys
        sys.setrecursionlimit(20_000)
        def deep(k):
            return deep(k - 1) + 1 if k else 0
        assert [bridge.spawn(deep, 10_000).get() for _ in range(3)] == [10_000] * 3
    """)


def test_threads_that_began_before_and_after_end_cleanly() -> None:
    code = """
        import threading
        began, go = threading.Event(), threading.Event()
        def wait():
            def deep(k):
                return deep(k - 1) if k else None
            deep(300)
            began.set()
            go.wait()
            deep(600)
        early = threading.Thread(target=wait)
        early.start()
        began.wait()
        import bridge
        from bridge._core import accelerated
        assert accelerated.FRAME_CACHE
        def hub(n):
            assert [g.get() for g in [bridge.spawn(int, i) for i in range(n)]] == list(range(n))
        later = [threading.Thread(target=hub, args=[300]) for _ in range(8)]
        for thread in later:
            thread.start()
        go.set()
        for thread in [early, *later]:
            thread.join()
    """
    env = {**os.environ, "BRIDGE_PURE": ""}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    process = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr


def test_forked_child_uses_and_frees_the_chunks_of_its_parent() -> None:
    run("""
        import os
        gate = bridge.event.Event()
        crowd = [bridge.spawn(gate.wait) for _ in range(200)]
        bridge.sleep(0)
        pid = os.fork()
        if not pid:
            del crowd
            more = [bridge.spawn(lambda: 1) for _ in range(300)]
            assert sum(g.get() for g in more) == 300
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        gate.set()
        bridge.joinall(crowd)
    """)


def test_environment_variable_turns_it_off() -> None:
    run(
        """
        assert not accelerated.FRAME_CACHE
        assert bridge.spawn(lambda: 5).get() == 5
        assert _chunks.statistics() == (0, 0, 0)
        """,
        BRIDGE_PURE="1",
    )


def test_installing_twice_changes_nothing() -> None:
    run("""
        assert _chunks.install() and _chunks.install()
        assert bridge.spawn(lambda: 5).get() == 5
        assert _chunks.statistics()[0] == 1
    """)


def test_both_twins_note_the_same_callers() -> None:
    code = """
        from bridge import _origin
        def here(limit):
            return [x.co_name if hasattr(x, "co_name") else x for x in _origin.callers(limit, ())]
        def inner(limit):
            return here(limit)
        def deep(n, limit):
            return deep(n - 1, limit) if n else inner(limit)
        for depth, limit in [(0, 0), (0, 1), (0, 2), (3, 10), (50, 10), (50, 1000)]:
            print(deep(depth, limit))
        print(_origin.callers.__class__.__name__)
    """
    compiled, pure = run(code).splitlines(), run(code, BRIDGE_PURE="1").splitlines()
    assert compiled.pop() == "builtin_function_or_method" and pure.pop() == "function"
    assert compiled == pure
    assert compiled[0] == "[]" and compiled[1].startswith("['inner', ") and compiled[-1].count("deep") == 31


@pytest.mark.parametrize("pure", ["", "1"])
def test_callers_that_are_the_same_are_noted_once(pure: str) -> None:
    run(
        """
        from bridge import _origin
        def one(like):
            return _origin.callers(5, like)
        def other(like):
            return _origin.callers(5, like)
        before, notes = (), []
        for call in (one, one, one, other):
            before = call(before)
            notes.append(before)
        assert notes[0] is notes[1] is notes[2]  # made by the same line
        assert notes[3] is notes[0]  # called by the same line
        assert one(notes[0]) != notes[0] and one(list(notes[0])) != notes[0]
        """,
        BRIDGE_PURE=pure,
    )


def test_limit_of_callers_must_be_a_number() -> None:
    run("""
        from bridge import _origin
        try:
            _origin.callers("ten", ())
        except TypeError:
            pass
        else:
            raise AssertionError
    """)


def test_sockets_that_are_made_otherwise_are_left_as_they_are() -> None:
    run("""
        import _socket
        from bridge._core import _edges, current, errors, waiting
        from bridge._sockwait import cancel_wait_ex
        class Plain(_socket.socket):
            def fileno(self):
                return super().fileno() + 100
        class Waiting(Plain):
            __slots__ = ("_channel", "_timeout")
            def _wait_edge(self): pass
        class Socket(Waiting):
            def recv(self): pass
            recv_into = send = sendall = recv
        before = Waiting._wait_edge, Socket.recv
        try:
            _edges.use_sockets(Socket, Waiting, waiting.Wait, current.hub_local, cancel_wait_ex,
                errors.BlockingSwitchOutError, Plain)
        except TypeError:
            pass
        else:
            raise AssertionError
        assert (Waiting._wait_edge, Socket.recv) == before
        a, b = bridge.socket.socketpair()
        reader = bridge.spawn(a.recv, 10)
        bridge.sleep(0)
        b.sendall(b"x")
        assert reader.get() == b"x"
    """)


@pytest.mark.skipif(sys.platform != "linux", reason="the twins of sockets are for epoll")
def test_everything_that_is_compiled_is_in_use() -> None:
    """Where one is not loaded nothing would tell, but the time that it takes."""
    code = """
        import bridge.queue, bridge.local, bridge.socket, bridge.lock
        from bridge import _calling, _origin
        from bridge._aio import driving, entering, stepping
        from bridge._core import edges, queues, running, switching
        for twin in (
            switching.EngineBase.park, switching.WaitBase.wake, switching.LineBase.tell, queues.QueueBase.put,
            queues.JoinableBase.task_done, edges.Edges.look, bridge.socket.socket.recv,
            bridge.local.LocalBase, driving.drive, driving.await_quickly, entering.begin, entering.Wakeup,
            stepping.PortalBase.send, _calling.call, _origin.callers,
        ):
            # a class in Python has a dictionary of its functions, one in C of descriptors
            inside = vars(twin).values() if isinstance(twin, type) else [twin]
            print("python" if any(hasattr(each, "__code__") for each in inside) else "compiled", twin)
    """
    lines = run(code).splitlines()
    assert len(lines) == 15 and [line for line in lines if not line.startswith("compiled")] == []


def test_another_interpreter_of_the_process_has_the_python_twins() -> None:
    """What the compiled modules have is of one interpreter. It came up in the others, and crashed them."""
    out = run(
        """
        try:
            import _xxsubinterpreters as interpreters
            other = interpreters.create(isolated=False)
        except ImportError:
            import _interpreters as interpreters
            other = interpreters.create("legacy")
        use = '''if True:
            import bridge
            from bridge._core.accelerated import accelerator
            queue = bridge.queue.Queue()
            bridge.spawn(queue.put, bridge.spawn(bridge.sleep, 0.001))
            queue.get().join()
            names = ("_switching", "_edges", "_queue", "_local")
            print(*(accelerator(name) is not None for name in names), flush=True)
        '''
        exec(use)
        interpreters.run_string(other, use)
        interpreters.destroy(other)
        exec(use)
        """,
        BRIDGE_LOOP="asyncio",  # uvloop is for one interpreter, too
    )
    here, there, here_again = (set(line.split()) for line in out.splitlines())
    assert there == {"False"}
    assert here == here_again == {"True"}


def test_callers_say_so_if_there_is_no_memory() -> None:
    """CPython gives no frame then, which looks like the end of the stack, but leaves the error set."""
    testcapi = pytest.importorskip("_testcapi")
    if not hasattr(testcapi, "set_nomemory"):
        pytest.skip("this CPython cannot pretend that there is no memory")
    from bridge import _origin

    callers = _origin.callers
    if isinstance(callers, FunctionType):
        pytest.skip("it is the interpreter that makes these frames")

    def attempt(n: int) -> tuple[object, ...] | None:
        arguments = 8, ()
        testcapi.set_nomemory(n, n + 1)
        try:
            return callers(*arguments)
        except MemoryError:
            return None
        finally:
            testcapi.remove_mem_hooks()

    found = [attempt(n) for n in range(40)]  # a SystemError if the error was left set
    assert None in found
    assert found[-1]
