"""Thread pools, and the executor of concurrent.futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import io
import os
import subprocess
import sys
import threading
import time
import traceback
import weakref
from _thread import get_ident
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
import pytest

import bridge
from bridge import _workers
from bridge.event import AsyncResult, Event
from bridge.exceptions import BlockingSwitchOutError, InvalidThreadUseError, LoopExit
from bridge.threadpool import ThreadPool, ThreadPoolExecutor, ThreadResult, idle_worker_count

Errors = list[tuple[Any, BaseException]]
Pools = Callable[..., ThreadPool]
Executors = Callable[..., ThreadPoolExecutor]


class Expected(Exception):
    pass


@pytest.fixture(autouse=True)
def deadline(engine: str) -> Iterator[None]:
    """A test that would hang fails instead."""
    if engine.endswith("owned"):
        with bridge.Timeout(20, ref=False):
            yield
    else:
        yield


@pytest.fixture
def pool(engine: str) -> Iterator[Pools]:
    """Makes pools whose threads are gone after the test."""
    crews = []

    def make(*args: Any, **kwargs: Any) -> ThreadPool:
        new = ThreadPool(*args, **kwargs)
        crews.append(new._crew)
        return new

    yield make
    for crew in crews:
        crew.orphan()


class Gate:
    """Native: a call can be held in a thread until the test lets it go on."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.left = threading.Semaphore(0)

    def __call__(self, value: Any = None) -> Any:
        self.entered.release()
        if not self.left.acquire(timeout=20):
            raise TimeoutError("the test has forgotten a call")
        return value

    def open(self, calls: int = 1) -> None:
        self.left.release(calls)

    def await_entered(self, calls: int = 1) -> None:
        for _ in range(calls):
            assert self.entered.acquire(timeout=20)


def fail(*args: Any) -> Any:
    raise Expected(*args)


def eventually(condition: Callable[[], bool]) -> None:
    """Blocks until threads have done something that cannot be waited for."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        bridge.sleep(0.001)


def run_python(source: str, *flags: str, loop: str) -> str:
    """In a process of its own; stdout. Nothing may be printed as an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", source],
        env={**os.environ, "BRIDGE_LOOP": loop},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


in_process = pytest.mark.engines("none")
each_loop = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


# -- calls -------------------------------------------------------------------------------------------------


def test_a_call_runs_in_another_thread_and_gives_its_result(pool: Pools) -> None:
    p = pool(2)
    assert p.apply(divmod, (7, 4)) == (1, 3)
    assert p.apply(dict, (), {"a": 1}) == {"a": 1}
    assert p.spawn(get_ident).get() != get_ident()
    assert p.apply_e((ValueError,), len, ("abc",)) == 3


def test_other_greenlets_run_while_a_thread_works(pool: Pools) -> None:
    gate = Gate()
    result = pool(1).spawn(gate, 5)
    gate.await_entered()
    ran = bridge.spawn(lambda: "meanwhile")
    assert ran.get() == "meanwhile"
    assert not result.ready()
    gate.open()
    assert result.get() == 5


def test_spawn_gives_an_async_result(pool: Pools) -> None:
    p = pool(2)
    gate = Gate()
    result = p.spawn(gate, 1)
    assert type(result) is AsyncResult
    linked: list[Any] = []
    in_hub: list[bool] = []

    def link(source: Any) -> None:
        linked.append(source)
        in_hub.append(greenlet.getcurrent() is bridge.get_hub())

    result.rawlink(link)
    other = p.spawn(len, "ab")
    assert list(bridge.iwait([result, other], count=1)) == [other]
    gate.open()
    assert set(bridge.wait([result, other])) == {result, other}
    assert result.get() == 1
    bridge.sleep(0)
    assert linked == [result]
    assert in_hub == [True]


def test_a_result_is_awaited_in_a_coroutine(pool: Pools) -> None:
    p = pool(2)

    async def main() -> list[int]:
        return await asyncio.gather(*[asyncio.ensure_future(p.spawn(len, "x" * n).aget()) for n in range(3)])

    assert bridge.await_(main()) == [0, 1, 2]


@pytest.mark.asyncio
async def test_the_hubs_pool_works_in_a_program_of_coroutines() -> None:
    p = bridge.get_hub().threadpool
    assert await p.spawn(len, "abc") == 3
    with pytest.raises(BlockingSwitchOutError):
        p.apply(len, ("abc",))
    assert len(p) == 0  # refused before it began
    p.kill()  # cannot wait here
    result = p.spawn(len, "abcd")
    assert await result == 4


def test_an_exception_is_printed_and_raised(pool: Pools, errors: Errors) -> None:
    p = pool(1)
    with pytest.raises(Expected) as caught:
        p.apply(fail, (1,))
    (context, printed), *rest = errors
    assert printed is caught.value
    assert not rest
    worker, function = context
    assert function is fail
    assert "ThreadPoolWorker" in repr(worker)
    result = p.spawn(fail, 2)
    assert result.wait() is None
    assert not result.successful()
    assert isinstance(result.exception, Expected)
    assert len(errors) == 2  # printed before anybody was told


def test_the_traceback_begins_with_the_function(pool: Pools, printed: io.StringIO) -> None:
    with pytest.raises(Expected) as caught:
        pool(1).apply(fail)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "fail"
    assert "_perform" not in names
    lines = printed.getvalue().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith("in fail")
    assert "failed with Expected" in printed.getvalue()


def test_greenlet_exit_is_not_printed(pool: Pools, errors: Errors) -> None:
    def leave() -> None:
        raise bridge.GreenletExit("x")

    with pytest.raises(bridge.GreenletExit):
        pool(1).apply(leave)
    assert not errors


@pytest.mark.engines("owned")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_system_error_reaches_the_main_greenlet_too(
    pool: Pools, errors: Errors, kind: type[BaseException]
) -> None:
    def leave() -> None:
        raise kind()

    def ask() -> None:
        with pytest.raises(kind):
            p.apply(leave)

    p = pool(1)
    other = bridge.spawn(ask)
    with pytest.raises(kind):
        bridge.sleep(10)
    other.get()
    assert [type(e) for _, e in errors] == ([] if kind is SystemExit else [kind])


def test_what_is_not_callable_fails_in_the_thread(pool: Pools, errors: Errors) -> None:
    with pytest.raises(TypeError, match="not callable"):
        pool(1).apply(None)  # type: ignore[arg-type]
    assert len(errors) == 1


def test_nothing_of_a_call_outlives_it(pool: Pools) -> None:
    class Thing:
        pass

    p = pool(1)
    gc.disable()
    try:
        thing, keyword = Thing(), Thing()

        def call(thing: Thing, keyword: Thing) -> Thing:
            return Thing()

        result = p.apply(call, (thing,), {"keyword": keyword})
        refs = [weakref.ref(o) for o in (thing, keyword, result, call)]
        del thing, keyword, result, call
        assert [r() for r in refs[:2]] == [None] * 2
        eventually(lambda: [r() for r in refs] == [None] * 4)
    finally:
        gc.enable()


def test_a_failed_call_makes_no_cycle(pool: Pools, errors: Errors) -> None:
    p = pool(1)
    gc.collect()
    gc.disable()
    try:
        try:
            p.apply(fail)
        except Expected as e:
            r = weakref.ref(e)
        errors.clear()
        eventually(lambda: r() is None)
    finally:
        gc.enable()


def test_functions_run_in_the_context_of_who_asked(pool: Pools) -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)
    p = pool(1)
    var.set(1)
    assert p.apply(var.get) == 1
    p.apply(var.set, (2,))
    assert var.get() == 1
    assert p.apply(var.get) == 1


def test_without_inheritance_functions_run_in_the_threads_context(
    pool: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)
    monkeypatch.setattr(bridge.config, "inherit_context", False)
    var.set(1)
    assert pool(1).apply(var.get) == 0


def test_a_coroutine_function_runs_on_a_loop_of_the_thread(pool: Pools) -> None:
    async def main() -> tuple[int, Any]:
        await asyncio.sleep(0)
        return get_ident(), asyncio.get_running_loop()

    ident, loop = pool(1).apply(main)
    assert ident != get_ident()
    assert loop is not bridge.get_hub().aio_loop


# -- many calls --------------------------------------------------------------------------------------------


def test_the_mapping_methods(pool: Pools) -> None:
    p = pool(3)
    numbers = list(range(30))
    assert p.map(str, numbers) == [str(n) for n in numbers]
    assert list(p.imap(divmod, numbers, [7] * 30)) == [divmod(n, 7) for n in numbers]
    assert sorted(p.imap_unordered(abs, numbers, maxsize=2)) == numbers
    assert p.map_async(str, numbers).get() == [str(n) for n in numbers]
    got: list[int] = []
    assert p.apply_cb(len, ("ab",), callback=got.append) == 2
    assert got == [2]
    job = p.apply_async(len, ("abc",), callback=got.append)
    assert isinstance(job, bridge.Greenlet)
    assert job.get() == 3
    assert got == [2, 3]


def test_unordered_results_come_as_calls_end(pool: Pools) -> None:
    gate = Gate()
    results = pool(2).imap_unordered(lambda n: gate(n) if n == 0 else n, range(3))
    assert next(results) == 1
    assert next(results) == 2
    gate.open()
    assert next(results) == 0
    with pytest.raises(StopIteration):
        next(results)


def test_an_error_in_a_mapping(pool: Pools, errors: Errors) -> None:
    p = pool(2)
    with pytest.raises(Expected):
        p.map(fail, range(3))
    it = p.imap(lambda n: fail() if n == 1 else n, range(3))
    assert next(it) == 0
    with pytest.raises(Expected):
        next(it)
    assert next(it) == 2


# -- slots -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maxsize", [0, 1, 3])
def test_one_call_more_than_threads_fits(pool: Pools, maxsize: int) -> None:
    p = pool(maxsize)
    gate = Gate()
    assert not p
    for n in range(maxsize + 1):
        p.spawn(gate)
        assert len(p) == n + 1
    assert p
    assert p.size == maxsize
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.01):
        p.spawn(gate)
    assert len(p) == maxsize + 1
    p.maxsize = maxsize + 1  # so that pools without threads get through it, too
    gate.open(maxsize + 1)
    p.join()
    assert len(p) == 0


def test_who_gives_up_waiting_for_room_leaves_nothing_behind(pool: Pools) -> None:
    p = pool(1)
    gate = Gate()
    results = [p.spawn(gate, n) for n in range(2)]
    waiting = [bridge.spawn(p.spawn, len, "x") for _ in range(3)]
    bridge.sleep(0)
    waiting[0].kill()
    gate.open(2)
    assert [r.get() for r in results] == [0, 1]
    assert [g.get().get() for g in waiting[1:]] == [1, 1]
    eventually(lambda: p._slots.counter == 2)


def test_who_gives_up_waiting_for_a_result_loses_neither_call_nor_slot(pool: Pools) -> None:
    p = pool(1)
    gate = Gate()
    done: list[int] = []
    call = bridge.spawn(p.apply, lambda: done.append(gate(1)))
    bridge.sleep(0)
    gate.await_entered()
    call.kill()
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.01):
        p.apply(lambda: done.append(gate(2)))
    assert len(p) == 2
    gate.open(2)
    p.join()
    assert done == [1, 2]
    assert p._slots.counter == 2


def test_raising_maxsize_lets_waiting_greenlets_go_on(pool: Pools) -> None:
    p = pool(0)
    done: list[int] = []
    greenlets = [bridge.spawn(p.spawn, done.append, n) for n in range(4)]
    bridge.sleep(0.01)
    assert done == []
    assert [g.ready() for g in greenlets] == [True, False, False, False]
    p.maxsize = 2
    bridge.joinall(greenlets)
    p.join()
    assert sorted(done) == [0, 1, 2, 3]


# -- size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("maxsize", "error"), [(-1, ValueError), (None, TypeError), (2.5, TypeError)])
def test_maxsize_must_be_a_number(pool: Pools, maxsize: Any, error: Any) -> None:
    with pytest.raises(error, match="maxsize must"):
        ThreadPool(maxsize)
    p = pool(1)
    with pytest.raises(error, match="maxsize must"):
        p.maxsize = maxsize
    assert p.maxsize == 1


def test_threads_are_started_when_they_are_needed(pool: Pools) -> None:
    p = pool(3)
    assert p.size == 0
    for _ in range(5):
        p.apply(len, ("x",))
    assert p.size == 1
    gate = Gate()
    p.spawn(gate)
    p.spawn(gate)
    assert p.size == 2
    gate.open(2)


def test_size_can_be_set(pool: Pools) -> None:
    p = pool(2)
    for size in (1, 2, 1, 0, 2):
        p.size = size
        assert p.size == p._crew.alive == size
    with pytest.raises(ValueError, match="negative"):
        p.size = -1
    with pytest.raises(ValueError, match="bigger than maxsize"):
        p.size = 3
    with pytest.raises(TypeError):
        p.size = 1.5  # type: ignore[assignment]


def test_lowering_maxsize_ends_threads_when_they_are_done(pool: Pools) -> None:
    p = pool(3)
    gate = Gate()
    results = [p.spawn(gate, n) for n in range(4)]
    p.maxsize = 0
    manager = p.manager
    assert manager is not None
    assert p.size == 3
    gate.open(4)
    assert [r.get() for r in results] == [0, 1, 2, 3]
    manager.join()
    assert p.size == 0
    assert p.manager is None
    assert p._slots.counter == 1
    p.maxsize = 1
    assert p.apply(len, ("x",)) == 1


def test_a_dismissed_worker_stays_if_there_is_nobody_else(pool: Pools) -> None:
    p = pool(1)
    gate = Gate()
    first = p.spawn(gate)
    shrinking = bridge.spawn(setattr, p, "size", 0)
    bridge.sleep(0)
    second = p.spawn(len, "ab")  # behind the dismissal
    gate.open()
    assert second.get() == 2
    first.get()
    shrinking.join()
    assert p.size == 0


def test_idle_threads_expire(pool: Pools) -> None:
    p = pool(2, idle_task_timeout=0.01)
    p.map(len, ["a", "b", "c"])
    assert p.size > 0
    eventually(lambda: p._crew.alive == 0)
    assert p.size == 0
    assert p.apply(len, ("ab",)) == 2


def test_no_call_is_lost_when_threads_expire_all_the_time(pool: Pools) -> None:
    p = pool(2, idle_task_timeout=0)
    for n in range(100):
        assert p.spawn(len, "x" * n).get() == n
    assert p.map(abs, range(100)) == list(range(100))
    p.join()
    eventually(lambda: p.size == 0)


def test_no_call_is_lost_in_turmoil(pool: Pools) -> None:
    p = pool(2, idle_task_timeout=0.0005)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:

        def ask(who: int) -> int:
            return sum(p.apply(abs, (-1,)) if n % 2 else p.spawn(len, "x").get() for n in range(40))

        def disturb() -> None:
            for n in range(10):
                bridge.sleep(0.001)
                p.maxsize = n % 3 + 1
                p.size = n % p.maxsize
                if n % 4 == 0:
                    p.kill()

        asking = [bridge.spawn(ask, n) for n in range(5)]
        disturbing = bridge.spawn(disturb)
        assert [g.get() for g in asking] == [40] * 5
        disturbing.get()
    finally:
        sys.setswitchinterval(interval)
    p.kill()
    crew = p._crew
    assert (crew.size, crew.alive, crew.quitting, crew.unfinished, crew.undelivered) == (0, 0, 0, 0, 0)
    assert p._slots.counter == p.maxsize + 1
    assert p._flights.count == 0


def test_how_many_workers_are_idle(pool: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_workers, "_crews", set())  # without those of other tests
    assert idle_worker_count() == 0
    p = pool(3)
    p.size = 3
    assert idle_worker_count() == 3
    gate = Gate()
    p.spawn(gate)
    gate.await_entered()
    assert idle_worker_count() == 2
    gate.open()
    p.kill()
    assert idle_worker_count() == 0


# -- the end -----------------------------------------------------------------------------------------------


def test_join_waits_for_all_calls(pool: Pools) -> None:
    p = pool(2)
    p.join()
    gate = Gate()
    results = [p.spawn(gate) for _ in range(3)]
    joining = [bridge.spawn(p.join) for _ in range(2)]
    bridge.sleep(0)
    gate.open(2)
    gate.await_entered(3)
    assert not any(g.ready() for g in joining)
    gate.open()
    bridge.joinall(joining)
    assert all(r.ready() for r in results)


def test_kill_waits_for_the_calls_and_ends_the_threads(pool: Pools) -> None:
    p = pool(2)
    gate = Gate()
    results = [p.spawn(gate, n) for n in range(3)]
    killing = bridge.spawn(p.kill)
    bridge.sleep(0)
    gate.open(3)
    killing.get()
    assert [r.get(block=False) for r in results] == [0, 1, 2]
    assert p.size == p._crew.alive == 0
    p.kill()
    assert p.apply(len, ("x",)) == 1
    assert p.size == 1


def test_kill_ends_although_calls_are_added_meanwhile(pool: Pools) -> None:
    p = pool(2)
    mapping = p.map_async(lambda n: n, range(50))
    bridge.sleep(0)
    p.kill()
    assert mapping.get() == list(range(50))


def test_in_the_hub_kill_does_not_wait_and_what_must_wait_is_refused(
    pool: Pools, errors: Errors
) -> None:
    p = pool(1)
    gate = Gate()
    p.spawn(gate)

    def in_hub() -> None:
        p.kill()
        for refused in (p.join, lambda: p.apply(len, ("x",))):
            with pytest.raises(BlockingSwitchOutError):
                refused()
        assert len(p) == 1
        results.append(p.spawn(len, "x"))
        with pytest.raises(BlockingSwitchOutError):
            p.spawn(len, "x")  # full
        done.set()

    results: list[AsyncResult[int]] = []
    done = Event()
    bridge.get_hub().loop.run_callback(in_hub)
    assert done.wait(5)
    gate.open()
    assert results[0].get() == 1
    assert not errors


def test_the_threads_of_a_pool_that_is_dropped_end_after_its_calls() -> None:
    p = ThreadPool(3)
    crew = p._crew
    p.size = 3
    gate = Gate()
    results = [p.spawn(gate, n) for n in range(4)]
    del p
    gc.collect()
    gate.open(4)
    assert [r.get() for r in results] == [0, 1, 2, 3]
    eventually(lambda: crew.alive == 0)


def test_a_dismissal_before_the_last_call_of_a_dropped_pool() -> None:
    p = ThreadPool(1)
    crew = p._crew
    gate = Gate()
    p.spawn(gate)
    crew.dismiss(0)
    result = p.spawn(len, "abc")
    del p
    gc.collect()
    gate.open()
    assert result.get() == 3
    eventually(lambda: crew.alive == 0)


def test_the_threads_end_with_the_hub() -> None:
    def thread() -> None:
        p = bridge.get_hub().threadpool
        assert p.apply(len, ("x",)) == 1
        crews.append(p._crew)

    crews: list[Any] = []
    t = threading.Thread(target=thread)
    t.start()
    eventually(lambda: not t.is_alive())
    eventually(lambda: crews[0].alive == 0)


@pytest.mark.engines("owned")
def test_calls_in_flight_are_reasons_to_go_on_and_idle_threads_are_not(pool: Pools) -> None:
    p = pool(2)
    p.map(len, ["a", "b"])
    with pytest.raises(LoopExit):
        Event().wait()
    gate = Gate()
    result = p.spawn(gate)
    threading.Timer(0.02, gate.open).start()
    bridge.wait()
    assert result.ready()
    with pytest.raises(LoopExit):
        Event().wait()
    assert bridge.get_hub().loop.refs == 0


# -- threads -----------------------------------------------------------------------------------------------


def test_only_the_thread_of_the_hub_may_spawn(pool: Pools, errors: Errors) -> None:
    one, two = pool(1), pool(1)
    with pytest.raises(InvalidThreadUseError, match="ThreadPoolExecutor"):
        one.apply(two.spawn, (len, "x"))


def test_elsewhere_apply_calls_the_function_directly(pool: Pools) -> None:
    p = pool(1)
    ident, inner = p.apply(lambda: (get_ident(), p.apply(get_ident)))
    assert ident == inner != get_ident()
    assert len(p) == 0
    idents: list[int] = []
    t = threading.Thread(target=lambda: idents.append(p.apply(get_ident)))
    t.start()
    t.join()
    assert idents == [t.ident]


def test_a_call_that_blocks_has_a_hub_which_ends_with_the_thread(pool: Pools) -> None:
    p = pool(1)

    def work() -> Any:
        bridge.sleep(0.001)
        assert bridge.spawn(len, "abc").get() == 3
        hub = bridge.get_hub()
        return hub.thread_ident, weakref.ref(hub)

    ident, hub = p.apply(work)
    assert ident != get_ident()
    assert p.apply(work)[1] is hub
    p.kill()
    gc.collect()
    assert hub() is None or hub().loop is None


def test_a_call_may_use_a_pool_of_its_own_hub(pool: Pools) -> None:
    p = pool(1)
    assert p.apply(lambda: bridge.get_hub().threadpool.apply(len, ("abc",))) == 3
    p.kill()
    assert p.size == 0


def test_a_worker_introduces_itself(pool: Pools) -> None:
    p = pool(1)
    worker = p.apply(greenlet.getcurrent)
    assert isinstance(worker, ThreadPool._WorkerGreenlet)
    text = repr(worker)
    assert text.startswith("<ThreadPoolWorker at ")
    assert f"threadpool-hub=<{type(bridge.get_hub()).__name__} at " in text
    assert repr(p).startswith(f"<ThreadPool at {id(p):#x} tasks=0 size=1 maxsize=1 hub=<")
    assert "is an idle worker" in "\n".join(bridge.util.format_run_info())


def test_profile_and_trace_functions_are_in_force_during_calls(pool: Pools) -> None:
    p = pool(1)
    p.size = 1
    called: list[str] = []
    hooks = [(threading.setprofile, sys.getprofile), (threading.settrace, sys.gettrace)]
    for set_hook, get_hook in hooks:
        before = (threading.getprofile if set_hook is threading.setprofile else threading.gettrace)()

        def hook(frame: Any, event: str, arg: Any) -> None:
            called.append(event)

        set_hook(hook)
        try:
            assert p.apply(get_hook) is hook
        finally:
            set_hook(before)
        assert p.apply(get_hook) is before
    assert called


def test_an_error_before_the_call_is_the_calls(errors: Errors) -> None:
    broken = True

    class Pool(ThreadPool):
        class _WorkerGreenlet(ThreadPool._WorkerGreenlet):  # type: ignore[name-defined,misc]
            def _before_run_task(self, *args: Any, **kwargs: Any) -> None:
                if broken:
                    raise Expected
                super()._before_run_task(*args, **kwargs)

    p = Pool(2)
    results = [p.spawn(len, "x") for _ in range(3)]
    for result in results:
        with pytest.raises(Expected):
            result.get()
    p.join()
    broken = False
    assert p.apply(len, ("x",)) == 1


def test_a_worker_that_cannot_begin_fails_the_calls(
    errors: Errors, capsys: pytest.CaptureFixture[str]
) -> None:
    class Pool(ThreadPool):
        class _WorkerGreenlet(ThreadPool._WorkerGreenlet):  # type: ignore[name-defined,misc]
            def __init__(self, pool: ThreadPool) -> None:
                raise Expected

    p = Pool(1)
    with pytest.raises(Expected):
        p.apply(len, ("x",))
    eventually(lambda: p._crew.alive == 0)
    assert (len(p), p.size, p._slots.counter) == (0, 0, 2)
    assert "Failed to run worker thread" in capsys.readouterr().err


def test_when_no_thread_can_be_started_the_caller_is_told(
    pool: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> int:
        raise RuntimeError("can't start new thread")

    p = pool(2)
    with monkeypatch.context() as m:
        m.setattr(_workers, "start_new_thread", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            p.spawn(len, "x")
        assert (len(p), p.size, p._slots.counter) == (0, 0, 3)
    assert p.apply(len, ("x",)) == 1
    gate = Gate()
    with monkeypatch.context() as m:
        m.setattr(_workers, "start_new_thread", refuse)
        p.spawn(gate)
        second = p.spawn(len, "ab")  # the thread that is there will come to it
        gate.open()
        assert second.get() == 2


def test_a_call_that_lost_its_last_worker_fails_if_no_thread_can_be_started(
    pool: Pools, monkeypatch: pytest.MonkeyPatch, errors: Errors
) -> None:
    def refuse(*args: Any) -> int:
        raise RuntimeError("can't start new thread")

    class Leaving:
        """A queue at which the worker leaves just before the call arrives."""

        def put(self, item: Any) -> None:
            crew.size -= 1
            queue.put(item)

        def __getattr__(self, name: str) -> Any:
            return getattr(queue, name)

    p = pool(1)
    crew, queue = p._crew, p._crew.queue
    crew.size = 1
    with monkeypatch.context() as m:
        m.setattr(_workers, "start_new_thread", refuse)
        m.setattr(crew, "queue", Leaving())
        with pytest.raises(RuntimeError, match="can't start"):
            p.apply(len, ("x",))
    assert (len(p), p.size, p._slots.counter, crew.undelivered) == (0, 0, 2, 0)
    assert p.apply(len, ("x",)) == 1


# -- loops, processes --------------------------------------------------------------------------------------


@in_process
def test_a_pool_outlives_the_loop() -> None:
    gate = Gate()

    async def first() -> list[AsyncResult[Any]]:
        p = ThreadPool(1)
        pools.append(p)
        return [p.spawn(gate, 1), p.spawn(len, "abc")]

    async def second() -> list[Any]:
        gate.open()
        return [await r for r in results]

    pools: list[ThreadPool] = []
    results = asyncio.run(first())
    assert asyncio.run(second()) == [1, 3]
    p = pools[0]
    assert p.apply(len, ("abcd",)) == 4
    p.kill()
    assert p._slots.counter == 2


@in_process
def test_hubs_of_loops_that_ended_during_a_call_are_freed() -> None:
    hubs: list[Any] = []
    gate = Gate()

    async def main() -> None:
        hub = bridge.get_hub()
        hub.threadpool.spawn(gate)
        hubs.append(weakref.ref(hub))

    for _ in range(3):
        asyncio.run(main())
    gate.open(3)
    del hubs[-1]  # the thread has not let go of the last one yet
    end = time.monotonic() + 10
    while any(hub() is not None for hub in hubs) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.001)
    assert [hub() for hub in hubs] == [None] * 2


@in_process
@each_loop
@pytest.mark.parametrize(
    "call", ["time.sleep, 30", "bridge.sleep, 30", "spin"], ids=["native", "cooperative", "computing"]
)
def test_a_busy_thread_does_not_keep_the_process(call: str, loop: str) -> None:
    source = f"""
import bridge, bridge.threadpool, time
def spin():
    while True:
        pass
p = bridge.get_hub().threadpool
p.apply(len, ("x",))
p.spawn({call})
bridge.sleep(0.02)
print("end")
"""
    assert run_python(source, loop=loop) == "end\n"


@in_process
@each_loop
def test_the_pool_can_be_used_by_exit_functions(loop: str) -> None:
    source = """
import atexit
@atexit.register
def late():
    print(bridge.get_hub().threadpool.apply(len, ("ab",)))
import bridge
bridge.get_hub().threadpool.apply(len, ("x",))
@atexit.register
def early():
    print(bridge.get_hub().threadpool.apply(len, ("x",)))
"""
    assert run_python(source, loop=loop) == "1\n2\n"


@in_process
@each_loop
def test_a_forked_child_begins_with_an_empty_pool(loop: str) -> None:
    source = """
import bridge, os, threading
gate = threading.Event()
p = bridge.get_hub().threadpool
lost = [p.spawn(gate.wait) for _ in range(3)]
pid = os.fork()
if not pid:
    code = 1
    try:
        assert len(p) == p.size == 0
        assert p.apply(len, ("ab",)) == 2
        try:
            lost[0].get()
        except bridge.exceptions.LoopExit:
            code = 0
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
gate.set()
p.join()
print([r.get() for r in lost])
"""
    assert run_python(source, loop=loop) == "[True, True, True]\n"


@in_process
@each_loop
def test_greenlets_that_wait_for_a_pool_go_on_in_a_forked_child(loop: str) -> None:
    source = """
import bridge, bridge.threadpool, os, threading
gate = threading.Event()
p = bridge.threadpool.ThreadPool(1)
for _ in range(2):
    p.spawn(gate.wait)
for_room = bridge.spawn(p.apply, len, ("abc",))
for_end = bridge.spawn(p.join)
bridge.sleep(0.01)
pid = os.fork()
if pid:
    gate.set()
assert for_room.get() == 3
for_end.get()
if not pid:
    os._exit(0)
print(os.waitpid(pid, 0)[1])
"""
    assert run_python(source, loop=loop) == "0\n"


@in_process
def test_patched_threads_are_refused() -> None:
    source = """
import bridge, _thread
_thread.start_new_thread = lambda *args: None
_thread.get_ident = lambda: 1
try:
    import bridge.threadpool
except ImportError as e:
    print("native threads" in str(e))
"""
    assert run_python(source, loop="asyncio") == "True\n"


@in_process
def test_a_debugger_may_wrap_the_starting_of_threads() -> None:
    source = """
import _thread
native = _thread.start_new_thread
started = []
def start_new_thread(*args):
    started.append(args)
    return native(*args)
_thread.start_new_thread = start_new_thread
import bridge, bridge.monkey
bridge.monkey.patch_all()
print(bridge.get_hub().threadpool.apply(native.__class__.__repr__, (native,)) == repr(native), len(started))
"""
    assert run_python(source, loop="asyncio") == "True 1\n"


# -- ThreadResult ------------------------------------------------------------------------------------------


def test_a_message_from_a_thread_arrives_in_the_hub() -> None:
    hub = bridge.get_hub()
    seen: list[Any] = []
    arrived = Event()

    def receive(message: ThreadResult) -> None:
        seen.append((message.value, message.successful(), message.exception, greenlet.getcurrent() is hub))
        arrived.set()

    message = ThreadResult(receive, hub, lambda: seen.append("ready"))
    threading.Thread(target=message.set, args=(5,)).start()
    assert arrived.wait(5)
    assert seen == ["ready", (5, True, None, True)]
    bridge.sleep(0)
    assert message.value is None
    assert message.receiver is not None
    message.set(6)
    bridge.sleep(0.001)
    assert len(seen) == 2


def test_an_error_from_a_thread_is_printed_and_received(errors: Errors) -> None:
    received: list[Any] = []
    message = ThreadResult(lambda m: received.append((m.successful(), m.exception)), bridge.get_hub(), None)
    try:
        fail()
    except Expected as e:
        error = e
        message.handle_error("context", sys.exc_info())
    bridge.sleep(0.001)
    assert errors == [("context", error)]
    assert received == [(False, error)]


def test_a_message_that_is_not_wanted_any_more() -> None:
    received: list[Any] = []
    loop = bridge.get_hub().loop
    refs = loop.refs
    message = ThreadResult(received.append, bridge.get_hub(), None)
    assert loop.refs == refs + 1
    message.set(1)
    message.destroy_in_main_thread()
    message.destroy_in_main_thread()
    bridge.sleep(0.001)
    assert received == []
    assert loop.refs == refs


# -- the executor ------------------------------------------------------------------------------------------


@pytest.fixture
def executor(engine: str) -> Iterator[Executors]:
    """Makes executors whose threads are gone after the test."""
    crews = []

    def make(*args: Any, **kwargs: Any) -> ThreadPoolExecutor:
        new = ThreadPoolExecutor(*args, **kwargs)
        crews.append(new._crew)
        return new

    yield make
    for crew in crews:
        crew.orphan()


def test_a_future_is_one_of_concurrent_futures(executor: Executors, errors: Errors) -> None:
    e = executor(2)
    assert isinstance(e, concurrent.futures.ThreadPoolExecutor)
    future = e.submit(divmod, 7, 4)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result() == (1, 3)
    assert future.done()
    assert future.exception() is None
    failed = e.submit(fail, 1)
    assert isinstance(failed.exception(), Expected)
    with pytest.raises(Expected):
        failed.result()
    assert not errors  # they belong to who has the future


def test_waiting_for_a_future_blocks_only_the_greenlet(executor: Executors) -> None:
    gate = Gate()
    future = executor(1).submit(gate, 5)
    with pytest.raises(TimeoutError):
        future.result(timeout=0.001)
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.001):
        future.exception()
    opening = bridge.spawn(gate.open)
    assert future.result(timeout=10) == 5
    assert opening.ready()


def test_submit_never_blocks(executor: Executors) -> None:
    gate = Gate()
    e = executor(1)
    futures = [e.submit(gate, n) for n in range(10)]
    gate.open(10)
    assert [f.result() for f in futures] == list(range(10))


def test_a_future_that_has_not_begun_can_be_cancelled(executor: Executors, errors: Errors) -> None:
    gate = Gate()
    e = executor(1)
    running, waiting = e.submit(gate), e.submit(fail)
    gate.await_entered()
    blocked = bridge.spawn(waiting.exception)
    bridge.sleep(0)
    assert not running.cancel()
    assert running.running()
    assert waiting.cancel()
    assert waiting.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        blocked.get()
    gate.open()
    running.result()
    e.shutdown()
    assert e._crew.undelivered == 0


@pytest.mark.parametrize("when", [concurrent.futures.FIRST_COMPLETED, concurrent.futures.ALL_COMPLETED])
def test_waiting_for_several_futures_blocks_only_the_greenlet(executor: Executors, when: str) -> None:
    gate = Gate()
    e = executor(2)
    futures = [e.submit(gate, n) for n in range(2)]
    done, pending = concurrent.futures.wait(futures, timeout=0.001)
    assert (len(done), len(pending)) == (0, 2)
    opening = bridge.spawn(gate.open, 2)
    done, _ = concurrent.futures.wait(futures, return_when=when)
    assert done
    assert opening.ready()
    concurrent.futures.wait(futures)
    assert concurrent.futures.wait(futures).done == set(futures)


def test_as_completed_blocks_only_the_greenlet(executor: Executors) -> None:
    gates = [Gate() for _ in range(3)]
    e = executor(3)
    futures = [e.submit(gate, n) for n, gate in enumerate(gates)]
    order: list[int] = []

    def open_all() -> None:
        for n in (1, 0, 2):
            gates[n].open()
            eventually(lambda n=n: n in order)  # type: ignore[misc]

    opening = bridge.spawn(open_all)
    for future in concurrent.futures.as_completed(futures):
        order.append(future.result())
    opening.get()
    assert order == [1, 0, 2]
    with pytest.raises(TimeoutError):
        list(concurrent.futures.as_completed([e.submit(gates[0])], timeout=0.001))
    gates[0].open()


def test_map_of_an_executor(executor: Executors) -> None:
    assert list(executor(3).map(pow, range(20), [2] * 20)) == [n * n for n in range(20)]


def test_bridges_functions_wait_for_futures(executor: Executors) -> None:
    gate = Gate()
    e = executor(2)
    first, second = e.submit(gate, 1), e.submit(len, "ab")
    assert bridge.wait([first, second], count=1) == [second]
    linked: list[Any] = []
    unlinked: list[Any] = []
    first.rawlink(linked.append)
    first.rawlink(unlinked.append)
    first.unlink(unlinked.append)
    gate.open()
    assert set(bridge.wait([first, second])) == {first, second}
    bridge.sleep(0)
    first.rawlink(linked.append)
    assert linked == [first]
    bridge.sleep(0)
    assert linked == [first, first]
    assert not unlinked
    with pytest.raises(TypeError):
        first.rawlink(1)  # type: ignore[arg-type]


def test_callbacks_run_in_the_hub_of_who_registered_them(executor: Executors, errors: Errors) -> None:
    gate = Gate()
    future = executor(1).submit(gate)
    called: list[Any] = []
    arrived = Event()

    def note(future: Any) -> None:
        called.append(greenlet.getcurrent() is bridge.get_hub())
        arrived.set()

    future.add_done_callback(fail)
    future.add_done_callback(note)
    gate.open()
    assert arrived.wait(5)
    assert called == [True]
    assert [type(e) for _, e in errors] == [Expected]
    future.add_done_callback(called.append)
    assert called == [True, future]  # at once


def test_a_thread_without_a_hub_waits_natively(executor: Executors) -> None:
    gate = Gate()
    future = executor(1).submit(gate, 5)
    seen: list[Any] = []

    def thread() -> None:
        future.add_done_callback(lambda f: seen.append(f.result()))
        seen.append(future.result())
        seen.append(bridge.hub.get_hub_if_exists())

    t = threading.Thread(target=thread)
    t.start()
    bridge.sleep(0.005)
    gate.open()
    eventually(lambda: not t.is_alive())
    assert seen[-1] is None
    assert seen.count(5) == 2


def test_several_threads_share_an_executor(executor: Executors) -> None:
    e = executor(2)
    results: list[list[int]] = []

    def thread() -> None:
        results.append([e.submit(abs, -n).result() for n in range(20)])

    threads = [threading.Thread(target=thread) for _ in range(3)]
    for t in threads:
        t.start()
    mine = [e.submit(abs, -n) for n in range(20)]
    assert [f.result() for f in mine] == list(range(20))
    eventually(lambda: not any(t.is_alive() for t in threads))
    assert results == [list(range(20))] * 3


@pytest.mark.asyncio
async def test_an_executor_in_a_program_of_coroutines() -> None:
    loop = asyncio.get_running_loop()
    gate = Gate()
    with ThreadPoolExecutor(2) as e:
        assert await loop.run_in_executor(e, len, "abc") == 3
        assert await asyncio.gather(*[e.submit(len, "x" * n) for n in range(5)]) == [0, 1, 2, 3, 4]
        future = e.submit(gate)
        with pytest.raises(BlockingSwitchOutError):
            future.result()
        gate.open()
        assert await future is None
    with pytest.raises(RuntimeError, match="after shutdown"):
        e.submit(len, "x")


def test_an_executor_can_be_the_loops_default() -> None:
    async def main() -> int:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        return await asyncio.to_thread(get_ident)

    ident: list[int] = []
    t = threading.Thread(target=lambda: ident.append(asyncio.run(main())))
    t.start()
    eventually(lambda: not t.is_alive())
    assert ident
    assert ident[0] not in (t.ident, get_ident())


def test_shutdown(executor: Executors) -> None:
    gate = Gate()
    e = executor(1)
    with e:
        futures = [e.submit(gate, n) for n in range(2)]
        opening = bridge.spawn(gate.open, 2)
    assert opening.ready()
    assert [f.done() for f in futures] == [True, True]
    assert e._crew.alive == 0
    with pytest.raises(RuntimeError, match="after shutdown"):
        e.submit(len, "x")
    e.shutdown()
    e.kill()


def test_shutdown_without_waiting_and_with_cancelling(executor: Executors) -> None:
    gate = Gate()
    e = executor(1)
    futures = [e.submit(gate, n) for n in range(3)]
    gate.await_entered()
    e.shutdown(wait=False, cancel_futures=True)
    assert [f.cancelled() for f in futures] == [False, True, True]
    gate.open()
    assert futures[0].result() == 0
    eventually(lambda: e._crew.alive == 0)
    assert e._crew.undelivered == 0


def test_the_threads_of_an_executor_that_is_dropped_end(executor: Executors) -> None:
    gate = Gate()
    e = ThreadPoolExecutor(2)
    crew = e._crew
    futures = [e.submit(gate, n) for n in range(3)]
    del e
    gate.open(3)
    assert [f.result() for f in futures] == [0, 1, 2]
    eventually(lambda: crew.alive == 0)


def test_the_initializer_runs_once_in_each_thread(executor: Executors) -> None:
    idents: list[int] = []
    gate = Gate()
    e = executor(2, initializer=lambda add: idents.append(add + get_ident()), initargs=(0,))
    futures = [e.submit(gate) for _ in range(2)]
    gate.await_entered(2)
    gate.open(2)
    concurrent.futures.wait(futures)
    assert e.submit(get_ident).result() in idents
    assert len(set(idents)) == len(idents) == 2


def test_an_initializer_that_fails_breaks_the_executor(
    executor: Executors, caplog: pytest.LogCaptureFixture
) -> None:
    e = executor(1, initializer=fail)
    futures = [e.submit(len, "x") for _ in range(2)]
    for future in futures:
        assert isinstance(future.exception(), concurrent.futures.BrokenExecutor)
    assert "Exception in initializer" in caplog.text
    with pytest.raises(concurrent.futures.BrokenExecutor):
        e.submit(len, "x")


@in_process
@each_loop
def test_as_gevent_waiting_for_several_pending_futures_is_refused_unless_patched(loop: str) -> None:
    source = """
import bridge
bridge.install_as_gevent()
from concurrent.futures import as_completed, wait
from gevent.threadpool import ThreadPoolExecutor
import threading
gate = threading.Event()
future = ThreadPoolExecutor(1).submit(gate.wait)
try:
    wait([future])
except AttributeError as e:
    print("gevent.wait" in str(e))
gate.set()
print(future.result(), list(as_completed([future])) == [future])
"""
    assert run_python(source, loop=loop) == "True\nTrue True\n"


def test_every_call_goes_through_the_spawn_of_a_subclass() -> None:
    spawned: list[Any] = []

    class Noted(ThreadPool):
        def spawn(self, func: Any, *args: Any, **kwargs: Any) -> Any:
            spawned.append(func)
            return super().spawn(func, *args, **kwargs)

    pool = Noted(1)
    assert pool.apply(str, (1,)) == "1" and spawned == [str]
    assert pool.map(len, [""]) == [0] and spawned == [str, len]
    pool.kill()
