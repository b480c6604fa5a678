"""Greenlets and coroutines wait for each other: await_, await greenlet, spawn of coroutine functions, run."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import time
import warnings
import weakref
from collections.abc import Awaitable, Generator, Iterator
from typing import Any

import pytest

import bridge
from bridge import Greenlet, GreenletExit, Timeout
from bridge import os as bridge_os
from bridge.event import AsyncResult, Event
from bridge.exceptions import BlockingSwitchOutError
from bridge.lock import Semaphore
from bridge.queue import Queue

from .helpers import run_code

LONG = 100


async def give(value: Any, seconds: float = 0) -> Any:
    await asyncio.sleep(seconds)
    return value


async def fail(exception: BaseException) -> None:
    await asyncio.sleep(0)
    raise exception


def fail_now(exception: BaseException) -> None:
    raise exception


class Mine(Exception):
    pass


# -- await_: a greenlet waits for an awaitable ------------------------------------------------------


def test_await_gives_the_result_of_every_kind_of_awaitable() -> None:
    class Own:
        def __await__(self) -> Generator[Any, None, str]:
            yield from asyncio.sleep(0).__await__()
            return "own"

    aio = bridge.get_hub().aio_loop
    future = aio.create_future()
    aio.call_soon(future.set_result, "future")
    done = aio.create_future()
    done.set_result("done")
    assert bridge.await_(give("coroutine", 0.001)) == "coroutine"
    assert bridge.await_(aio.create_task(give("task"))) == "task"
    assert bridge.await_(future) == "future"
    assert bridge.await_(done) == "done"
    assert bridge.await_(Own()) == "own"
    g = bridge.spawn(lambda: "greenlet")
    assert bridge.await_(g) == "greenlet"
    assert bridge.await_(asyncio.wait_for(give("limited"), 5)) == "limited"


def test_await_raises_the_exception_of_the_coroutine() -> None:
    mine = Mine()
    with pytest.raises(Mine) as caught:
        bridge.await_(fail(mine))
    assert caught.value is mine


def test_await_lets_other_greenlets_run() -> None:
    log: list[int] = []
    bridge.spawn(log.append, 1)
    assert bridge.await_(give(5)) == 5
    assert log == [1]


@pytest.mark.parametrize("wrong", [5, None, "x", give, [1]])
def test_await_refuses_what_cannot_be_awaited_and_says_what_to_do(wrong: Any) -> None:
    with pytest.raises(TypeError, match="takes an awaitable") as caught:
        bridge.await_(wrong)
    assert repr(wrong) in str(caught.value)


def test_a_coroutine_awaited_sees_its_loop_and_task_and_may_use_timeouts_and_groups() -> None:
    async def main() -> list[Any]:
        assert asyncio.current_task() is not None
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(give(n, 0.001)) for n in range(3)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(LONG)
        return [t.result() for t in tasks]

    assert bridge.await_(main()) == [0, 1, 2]


def test_hundreds_of_greenlets_await_at_once() -> None:
    greenlets = [bridge.spawn(bridge.await_, give(n, 0.001 * (n % 3))) for n in range(300)]
    assert [g.get(timeout=10) for g in greenlets] == list(range(300))


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


def test_a_coroutine_awaited_shares_the_context_of_the_greenlet() -> None:
    async def change() -> str:
        before = variable.get()
        variable.set("set in the coroutine")
        await asyncio.sleep(0)
        return before

    def f() -> tuple[str, str]:
        variable.set("set in the greenlet")
        return bridge.await_(change()), variable.get()

    assert bridge.spawn(f).get() == ("set in the greenlet", "set in the coroutine")
    assert bridge.spawn(lambda: contextvars.copy_context().run(f)).get()[0] == "set in the greenlet"
    assert variable.get() == "default"


@pytest.mark.asyncio
async def test_await_in_a_coroutine_without_a_portal_says_what_to_write() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # never awaited
        with pytest.raises(BlockingSwitchOutError, match="await"):
            bridge.await_(give(1))


# -- interrupting await_ ----------------------------------------------------------------------------


class Record:
    """A coroutine that tells what became of it."""

    def __init__(self, clean_up: float = 0, result: Any = None) -> None:
        self.log: list[str] = []
        self.clean_up = clean_up
        self.result = result

    async def run(self) -> Any:
        self.log.append("started")
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            if self.clean_up:
                await asyncio.sleep(self.clean_up)
            self.log.append("clean")
            if self.result is not None:
                return self.result
            raise
        return "not cancelled"


@pytest.mark.parametrize("result", [None, "returned all the same"])
@pytest.mark.parametrize("clean_up", [0, 0.002])
def test_kill_cancels_what_await_started_and_waits_for_its_clean_up(clean_up: float, result: Any) -> None:
    record = Record(clean_up, result)
    g = bridge.spawn(lambda: bridge.await_(record.run()))
    bridge.sleep(0.001)
    assert record.log == ["started"]
    g.kill()
    assert record.log == ["started", "cancelled", "clean"]
    assert isinstance(g.value, GreenletExit) and g.successful()


def test_a_timeout_cancels_what_await_started() -> None:
    record = Record(clean_up=0.002)
    with pytest.raises(Timeout) as caught, Timeout(0.002) as limit:
        bridge.await_(record.run())
    assert caught.value is limit and record.log[-1] == "clean"
    assert bridge.with_timeout(0.002, bridge.await_, Record().run(), timeout_value="late") == "late"


def test_an_exception_in_the_clean_up_is_beaten_by_the_interruption(errors: list[Any]) -> None:
    async def run() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            raise Mine

    g = bridge.spawn(lambda: bridge.await_(run()))
    bridge.sleep(0.001)
    g.kill()
    assert isinstance(g.value, GreenletExit) and not errors


def test_a_second_interruption_cancels_again_and_the_first_wins(errors: list[Any]) -> None:
    log: list[str] = []

    async def stubborn() -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                log.append("cancelled")

    g = bridge.spawn(lambda: bridge.await_(stubborn()))
    bridge.sleep(0.001)
    first, second = Mine(), KeyError()
    g.kill(first, block=False)
    bridge.sleep(0.001)
    assert log == ["cancelled"] and not g.ready()
    g.kill(second)
    assert log == ["cancelled"] * 2
    assert g.exception is first


@pytest.mark.parametrize("kind", ["task", "future", "shield"])
def test_what_belongs_to_somebody_else_is_left_alone(kind: str) -> None:
    aio = bridge.get_hub().aio_loop
    event = asyncio.Event()

    async def work() -> str:
        await event.wait()
        return "finished"

    owned = aio.create_task(work()) if kind != "future" else aio.create_future()
    waited = owned

    async def shielded() -> Any:
        return await asyncio.shield(owned)

    g = bridge.spawn(lambda: bridge.await_(shielded() if kind == "shield" else waited))
    bridge.sleep(0.001)
    g.kill()
    assert isinstance(g.value, GreenletExit) and not owned.done()
    if kind == "future":
        owned.set_result("finished")
    event.set()
    assert bridge.await_(owned) == "finished"


def test_killed_in_the_round_in_which_the_coroutine_begins() -> None:
    record = Record()
    g = bridge.spawn(lambda: bridge.await_(record.run()))
    bridge.get_hub().loop.run_callback(g.throw)
    g.join(timeout=5)
    assert isinstance(g.value, GreenletExit) and record.log == ["started", "cancelled", "clean"]


def test_a_task_cancelled_by_somebody_else_raises_cancelled_error_in_who_awaits_it() -> None:
    task = bridge.get_hub().aio_loop.create_task(give(1, LONG))
    bridge.get_hub().loop.run_callback(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        bridge.await_(task)


def test_killed_in_the_moment_of_the_result_nothing_is_left_behind(errors: list[Any]) -> None:
    for n in range(4):
        future = bridge.get_hub().aio_loop.create_future()
        g = bridge.spawn(bridge.await_, future)
        bridge.sleep(0.001)
        if n % 2:
            future.set_result(n)
            g.kill()
        else:
            g.kill(block=False)
            future.set_result(n)
            g.join()
        assert g.value == n or isinstance(g.value, GreenletExit)
        bridge.sleep(0.001)
    assert not errors


# -- await greenlet: a coroutine waits for a greenlet -----------------------------------------------


@pytest.mark.asyncio
async def test_await_greenlet_is_its_get() -> None:
    assert await bridge.spawn(lambda: (bridge.sleep(0.001), 5)[1]) == 5
    done = bridge.spawn(int)
    await done
    assert await done == 0
    mine = Mine()
    g = bridge.spawn(fail_now, mine)
    with pytest.raises(Mine) as caught:
        await g
    assert caught.value is mine


@pytest.mark.asyncio
async def test_a_killed_greenlet_gives_its_greenlet_exit() -> None:
    g = bridge.spawn(bridge.sleep, LONG)
    await asyncio.sleep(0)
    g.kill(block=False)
    assert isinstance(await g, GreenletExit)
    unstarted = Greenlet(int)
    unstarted.kill()
    assert isinstance(await unstarted, GreenletExit)


@pytest.mark.asyncio
async def test_several_tasks_and_greenlets_wait_for_one_greenlet() -> None:
    event = Event()
    g = bridge.spawn(lambda: (event.wait(), 5)[1])

    async def wait() -> int:
        return await g

    tasks = [asyncio.ensure_future(wait()) for _ in range(3)]
    other = bridge.spawn(g.get)
    await asyncio.sleep(0.001)
    event.set()
    assert await asyncio.gather(*tasks) == [5, 5, 5] and await other == 5


@pytest.mark.asyncio
async def test_aget_and_ajoin_give_up_after_their_time_and_touch_nothing() -> None:
    g = bridge.spawn(bridge.sleep, LONG)
    with pytest.raises(Timeout) as caught:
        await g.aget(timeout=0.002)
    assert caught.value.seconds == 0.002
    await g.ajoin(timeout=0.002)
    assert g.started and not g.has_links()
    for wait in (g.aget, g.ajoin):
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert g.started and not g.has_links()
    g.kill(block=False)
    await g.ajoin()
    assert g.ready()


@pytest.mark.asyncio
async def test_a_cancelled_waiter_cancels_the_greenlet_and_waits_for_its_end(errors: list[Any]) -> None:
    log: list[str] = []

    def f() -> None:
        try:
            bridge.sleep(LONG)
        except asyncio.CancelledError:
            log.append("cancelled")
            bridge.sleep(0.002)
            log.append("clean")
            raise

    async def wait(g: Greenlet[Any]) -> None:
        await g

    g = bridge.spawn(f)
    task = asyncio.ensure_future(wait(g))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["cancelled", "clean"] and g.ready()
    assert isinstance(g.exception, asyncio.CancelledError)
    assert not errors  # who awaits it has it: it is not printed


@pytest.mark.asyncio
async def test_a_cancelled_greenlet_that_returns_a_value_leaves_its_waiter_cancelled() -> None:
    def f() -> str:
        try:
            bridge.sleep(LONG)
        except asyncio.CancelledError:
            pass
        return "value"

    async def wait() -> str:
        return await g

    g = bridge.spawn(f)
    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert g.value == "value"


@pytest.mark.asyncio
async def test_a_greenlet_that_has_not_begun_is_cancelled_without_running(errors: list[Any]) -> None:
    log: list[int] = []
    g = bridge.spawn_later(LONG, log.append, 1)

    async def wait() -> None:
        await g

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert g.ready() and not log and not errors


@pytest.mark.asyncio
async def test_shield_and_asyncio_timeout_around_a_greenlet() -> None:
    event = Event()
    g = bridge.spawn(lambda: (event.wait(), 5)[1])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.002):
            await asyncio.shield(g)
    assert g.started
    event.set()
    assert await g == 5

    h = bridge.spawn(bridge.sleep, LONG)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.002):
            await h
    assert h.ready()


@pytest.mark.asyncio
async def test_gather_wait_for_and_task_groups_take_greenlets() -> None:
    assert await asyncio.gather(bridge.spawn(lambda: 1), bridge.spawn(lambda: 2)) == [1, 2]
    assert await asyncio.wait_for(bridge.spawn(lambda: 3), 5) == 3


@pytest.mark.asyncio
async def test_await_event_and_async_result() -> None:
    event: Event = Event()
    result: AsyncResult[int] = AsyncResult()
    bridge.spawn(lambda: (bridge.sleep(0.001), event.set(), result.set(5)))
    await event
    assert await result == 5


@pytest.mark.asyncio
async def test_blocking_on_a_greenlet_in_a_coroutine_is_refused() -> None:
    g = bridge.spawn(bridge.sleep, LONG)
    await asyncio.sleep(0.001)
    for block in (g.get, g.join, lambda: bridge.joinall([g]), lambda: bridge.sleep(0), g.kill):
        with pytest.raises(BlockingSwitchOutError, match="sync_to_async"):
            block()
    await g.ajoin(timeout=1)


# -- spawn of coroutine functions -------------------------------------------------------------------


class Callable:
    async def __call__(self, value: Any) -> Any:
        return await give(value)

    async def method(self, value: Any) -> Any:
        return await give(value)

    @classmethod
    async def of_class(cls, value: Any) -> Any:
        return await give(value)


@pytest.mark.parametrize(
    "function", [give, functools.partial(give), Callable(), Callable().method, Callable.of_class]
)
def test_a_coroutine_function_is_awaited(function: Any) -> None:
    assert bridge.spawn(function, 5).get(timeout=5) == 5
    assert bridge.spawn_later(0.001, function, 6).get(timeout=5) == 6
    g: Greenlet[int] = Greenlet(function, value=7)
    g.start()
    assert g.get(timeout=5) == 7


def test_a_coroutine_that_a_plain_function_returns_is_its_value() -> None:
    g = bridge.spawn(lambda: give(5))
    coroutine = g.get()
    assert isinstance(coroutine, Awaitable)
    assert bridge.await_(coroutine) == 5


def test_errors_of_a_coroutine_function_are_the_greenlet_s(errors: list[Any]) -> None:
    mine = Mine()
    g = bridge.spawn(fail, mine)
    with pytest.raises(Mine):
        g.get(timeout=5)
    assert g.exception is mine and errors == [(g, mine)]


def test_killing_its_greenlet_cancels_the_coroutine() -> None:
    record = Record(clean_up=0.002)
    g = bridge.spawn(record.run)
    bridge.sleep(0.001)
    g.kill()
    assert record.log == ["started", "cancelled", "clean"] and isinstance(g.value, GreenletExit)


def test_a_coroutine_function_killed_before_its_start_is_never_called() -> None:
    record = Record()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        g = bridge.spawn(record.run)
        g.kill()
        bridge.sleep(0.001)
    assert not record.log


def test_greenlets_and_coroutines_call_each_other_to_any_depth() -> None:
    async def down(n: int) -> int:
        return await bridge.spawn(up, n - 1) + 1 if n else 0

    def up(n: int) -> int:
        return bridge.await_(down(n - 1)) + 1 if n else 0

    assert bridge.await_(down(20)) == 20


# -- bridge.run -------------------------------------------------------------------------------------


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.engines("owned")
def test_run_takes_coroutines_coroutine_functions_and_plain_functions(quiet: None) -> None:
    assert bridge.run(give, 5) == 5
    assert bridge.run(give(6)) == 6
    assert bridge.run(lambda a: (bridge.sleep(0.001), a)[1], 7) == 7
    mine = Mine()
    for main in (functools.partial(fail, mine), functools.partial(fail_now, mine)):
        with pytest.raises(Mine) as caught:
            bridge.run(main)
        assert caught.value is mine


@pytest.mark.engines("owned")
def test_run_cancels_the_tasks_and_kills_the_greenlets_that_are_left(quiet: None) -> None:
    record = Record(clean_up=0.001)
    log: list[str] = []

    def f() -> None:
        try:
            bridge.sleep(LONG)
        finally:
            bridge.sleep(0.001)
            log.append("killed")

    async def main() -> str:
        tasks.append(asyncio.ensure_future(record.run()))
        greenlets.append(bridge.spawn(f))
        greenlets.append(bridge.spawn(sorted, [1], key=lambda _: f()))
        await asyncio.sleep(0.002)
        return "done"

    tasks: list[Any] = []
    greenlets: list[Any] = []
    assert bridge.run(main) == "done"
    assert record.log[-1] == "clean" and tasks[0].cancelled()
    assert log == ["killed"] * 2
    assert all(isinstance(g.value, GreenletExit) for g in greenlets)


@pytest.mark.engines("owned")
def test_run_leaves_the_greenlets_of_others_alone(quiet: None) -> None:
    other = bridge.spawn(bridge.sleep, LONG)
    bridge.sleep(0)
    assert bridge.run(give, 1) == 1
    assert other.started
    other.kill()


@pytest.mark.engines("owned")
def test_run_closes_asynchronous_generators(quiet: None) -> None:
    log: list[str] = []

    async def generate() -> Any:
        try:
            yield 1
            yield 2
        finally:
            log.append("closed")

    async def main() -> None:
        generator = generate()
        kept.append(generator)
        assert await anext(generator) == 1

    kept: list[Any] = []
    bridge.run(main)
    assert log == ["closed"]
    bridge.await_(main())  # the loop goes on, and does not say that it has ended
    bridge.run(main)
    assert log == ["closed"] * 2
    bridge.await_(kept[1].aclose())


@pytest.mark.engines("owned")
def test_run_reports_errors_of_asynchronous_generators_that_it_closes(quiet: None) -> None:
    mine = Mine()
    seen: list[Any] = []

    async def generate() -> Any:
        try:
            yield 1
        finally:
            raise mine

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context))
        generator = generate()
        seen.append(generator)
        await anext(generator)

    try:
        bridge.run(main)
    finally:
        bridge.get_hub().aio_loop.set_exception_handler(None)
    generator, context = seen
    assert context["exception"] is mine and context["asyncgen"] is generator


@pytest.mark.asyncio
async def test_run_in_a_coroutine_is_refused_and_says_what_to_write() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="await main"):
            bridge.run(give(1))
        with pytest.raises(RuntimeError, match="await main"):
            bridge.run(give, 1)


@pytest.mark.parametrize("wrong", [5, None, "main", [give]])
def test_run_wants_something_to_call_or_to_await(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"bridge.run\(\) takes a function, a coroutine function or"):
        bridge.run(wrong)


def test_a_task_factory_is_for_loops() -> None:
    with pytest.raises(TypeError, match="takes a loop, or None for the running one, not 5"):
        bridge.install_task_factory(5)  # type: ignore[arg-type]


# -- the task of a greenlet ---------------------------------------------------------------------------------


def test_sleep_0_lets_tasks_that_were_made_before_begin() -> None:
    log: list[str] = []

    async def child() -> None:
        log.append("child")

    async def main() -> None:
        task = asyncio.create_task(child())
        await asyncio.sleep(0)
        log.append("main")
        await task

    bridge.await_(main())
    assert log == ["child", "main"]


def test_the_task_of_a_greenlet_looks_like_any_other() -> None:
    async def main() -> Any:
        task = asyncio.current_task()
        assert isinstance(task, asyncio.Task) and task.get_loop() is asyncio.get_running_loop()
        assert not task.done() and not task.cancelled() and task.cancelling() == 0
        task.set_name("mine")
        assert task.get_name() == "mine" and "mine" in repr(task)
        await asyncio.sleep(0)
        assert task in asyncio.all_tasks()
        assert task.get_coro().__name__ == "main"
        assert task.get_stack()
        assert hash(task) is not None
        with pytest.raises(RuntimeError, match="cannot await on itself"):
            await task
        return task

    task = bridge.await_(main())
    assert task.done()

    async def after() -> Any:
        assert asyncio.current_task() is not None
        return asyncio.all_tasks()

    assert task not in bridge.await_(after())


def test_cancelling_the_task_of_a_greenlet_raises_in_the_coroutine() -> None:
    async def main(itself: bool) -> str:
        task = asyncio.current_task()
        assert task is not None
        if itself:
            assert task.cancel("by hand")
        else:
            asyncio.get_running_loop().call_soon(task.cancel, "by hand")
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError as e:
            assert task.cancelling() == 1
            assert task.uncancel() == 0
            return str(e)
        raise AssertionError

    assert bridge.await_(main(True)) == "by hand"
    assert bridge.await_(main(False)) == "by hand"

    async def last() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]

    with pytest.raises(asyncio.CancelledError):
        bridge.await_(last())
    assert bridge.await_(asyncio.sleep(0, 5)) == 5


@pytest.mark.parametrize("end", ["result", "error", "cancel"])
def test_who_waits_for_the_task_of_a_greenlet_sees_its_end(end: str, errors: list[Any]) -> None:
    tasks: list[Any] = []

    async def main() -> int:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0.001 if end != "cancel" else 1000)
        if end == "error":
            raise LookupError
        return 5

    async def watch() -> Any:
        while not tasks:
            await asyncio.sleep(0)
        if end == "cancel":
            asyncio.get_running_loop().call_soon(tasks[0].cancel)
        return (await asyncio.gather(tasks[0], return_exceptions=True))[0]

    g = bridge.spawn(lambda: bridge.await_(main()))
    seen = bridge.await_(watch())
    g.join()
    if end == "result":
        assert seen == g.value == 5
    else:
        assert type(seen) is type(g.exception) is (LookupError if end == "error" else asyncio.CancelledError)
    assert tasks[0].done()


def test_a_greenlet_s_awaits_leave_nothing_behind() -> None:
    async def coroutine() -> Any:
        await asyncio.sleep(0)
        return asyncio.current_task()

    g: Any = bridge.spawn(lambda: bridge.await_(coroutine()))
    task = weakref.ref(g.get())
    g = weakref.ref(g)
    bridge.sleep(0.001)  # past the drain, and the callback, in which it ended
    gc.collect()
    assert g() is None and task() is None


def test_a_coroutine_that_yields_nonsense_is_told_so() -> None:
    class Nonsense:
        def __await__(self) -> Any:
            yield 7

    with pytest.raises(RuntimeError, match="bad yield: 7"):
        bridge.await_(Nonsense())  # type: ignore[arg-type]

    async def other_loop() -> None:
        loop = asyncio.SelectorEventLoop()
        try:
            await loop.create_future()
        finally:
            loop.close()

    with pytest.raises(RuntimeError, match="attached to a different loop"):
        bridge.await_(other_loop())


def test_sync_to_async_does_not_suspend_for_what_does_not_block() -> None:
    async def main() -> None:
        order: list[str] = []
        other = asyncio.create_task(asyncio.sleep(0))
        assert await bridge.sync_to_async(lambda: order.append("function") or 5)() == 5  # type: ignore[func-returns-value]
        assert order == ["function"] and not other.done()
        await other

        def blocks() -> Any:
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            inner = bridge.await_(asyncio.sleep(0, 7))
            bridge.sleep(0)
            return inner, bridge.spawn(lambda: 8).get()

        task = asyncio.current_task()
        assert await bridge.sync_to_async(blocks)() == (7, 8)
        assert asyncio.current_task() is task

    bridge.await_(main())


@pytest.mark.engines("owned")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_awaits_on_its_own_loop_and_kills_what_waited_on_the_old_one() -> None:
    async def slowly() -> int:
        await asyncio.sleep(0.001)
        return 5

    assert bridge.await_(slowly()) == 5
    waiting = bridge.spawn(bridge.await_, asyncio.sleep(1000))
    bridge.sleep(0.001)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads and fork
        pid = os.fork()
    if not pid:
        status = 1
        try:
            waiting.kill()
            if isinstance(waiting.value, GreenletExit) and bridge.await_(slowly()) == 5:
                status = 0
        finally:
            os._exit(status)
    assert bridge_os.waitpid(pid, 0)[1] == 0
    waiting.kill()
    assert isinstance(waiting.value, GreenletExit)


@pytest.mark.asyncio
async def test_awaited_greenlet_that_is_the_next_one_runs_without_suspending_the_coroutine() -> None:
    log: list[Any] = []
    asyncio.get_running_loop().call_soon(log.append, "the loop")
    task = asyncio.current_task()

    def see() -> int:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        log.append("greenlet")
        return bridge.getcurrent().minimal_ident  # type: ignore[attr-defined,no-any-return]

    assert await bridge.spawn(see) >= 0
    assert log == ["greenlet"] and asyncio.current_task() is task


@pytest.mark.asyncio
async def test_awaiting_a_greenlet_out_of_turn_leaves_the_order() -> None:
    log: list[int] = []
    _first, second = bridge.spawn(log.append, 1), bridge.spawn(log.append, 2)
    await second
    assert log == [1, 2]


@pytest.mark.asyncio
async def test_awaited_greenlet_that_blocks_goes_on_below_the_hub() -> None:
    hub = bridge.get_hub()

    def nap() -> Any:
        more = bridge.spawn(lambda: 7)
        bridge.sleep(0.001)
        return bridge.getcurrent().parent, more.get()

    g = bridge.spawn(nap)
    assert await g == (hub, 7) and g.parent is hub
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.002):
            await (g := bridge.spawn(bridge.sleep, 100))
    assert g.dead


# -- greenlets that are entered out of the loop's callbacks -----------------------------------------------


def test_awaiting_greenlets_take_turns_in_order() -> None:
    turns = []

    def work(name: int) -> None:
        for _ in range(3):
            bridge.await_(give(None))
            turns.append(name)

    bridge.joinall([bridge.spawn(work, name) for name in range(5)], raise_error=True)
    assert turns == [*range(5)] * 3


def test_loop_and_task_are_those_of_who_runs_whatever_the_greenlet_does_after_an_await() -> None:
    aio = bridge.get_hub().aio_loop
    wrong: list[str] = []

    def check(where: str, plain: bool) -> None:
        running = asyncio._get_running_loop()
        task = asyncio.current_task(aio)
        if (running is None, task is None) != (plain, plain):
            wrong.append(f"{where}: {running}, {task}")

    async def steps(end: Exception | None) -> None:
        check("first step", False)
        await asyncio.sleep(0)
        check("next step", False)
        if end is not None:
            raise end

    async def beside() -> None:
        for _ in range(50):
            check("another task", False)
            await asyncio.sleep(0)

    def work() -> None:
        for turn in range(4):
            check("before", True)
            try:
                bridge.await_(steps(Mine() if turn % 2 else None))
            except Mine:
                pass
            check("after an await", True)
            bridge.sleep(0)
            check("after sleep(0)", True)
            bridge.await_(steps(None))
            bridge.sleep(0.0001)
            check("after sleep()", True)
            future = aio.create_future()
            aio.call_soon(future.set_result, None)
            bridge.await_(future)
            check("after a future", True)
            bridge.await_(bridge.sync_to_async(bridge.await_)(steps(None)))
            check("after a call in a coroutine", True)

    other = aio.create_task(beside())
    bridge.joinall([bridge.spawn(work) for _ in range(3)], raise_error=True)
    bridge.await_(other)
    assert wrong == []


def test_what_an_awaiting_greenlet_starts_runs_without_further_ado() -> None:
    def work() -> list[int]:
        bridge.await_(give(None))
        found: list[int] = []
        for number in range(3):
            bridge.spawn(found.append, number)
        bridge.await_(give(None))
        return found

    assert bridge.spawn(work).get() == [0, 1, 2]


def test_timeouts_set_after_an_await_expire() -> None:
    def work() -> str:
        bridge.await_(give(None))
        with Timeout(0.001, False):
            Event().wait()
        bridge.await_(give(None))
        with Timeout(0.001, False):
            bridge.await_(give(None, LONG))
        return "both"

    assert bridge.spawn(work).get() == "both"


def test_an_exception_of_a_raw_greenlet_after_an_await_goes_to_the_hub() -> None:
    hub: Any = bridge.get_hub()
    errors: list[Any] = []
    hub.handle_error = lambda context, type, value, tb: errors.append(type)
    try:

        def work() -> None:
            bridge.await_(give(None))
            raise Mine

        g = bridge.spawn_raw(work)
        while not g.dead:
            bridge.sleep(0.001)
    finally:
        del hub.handle_error
    assert errors == [Mine]
    assert bridge.await_(give("goes on")) == "goes on"


def test_a_greenlet_that_has_awaited_is_not_kept() -> None:
    gc.collect()
    gc.disable()
    try:
        g = bridge.spawn(bridge.await_, give(None))
        g.join()
        seen = weakref.ref(g)
        del g
        bridge.sleep(0)
        assert seen() is None
    finally:
        gc.enable()


def test_the_hub_is_the_parent_of_a_greenlet_that_awaits() -> None:
    def work() -> list[Any]:
        parents = []
        for _ in range(2):
            bridge.await_(give(None))
            bridge.sleep(0)
            parents.append(bridge.getcurrent().parent)
        return parents

    assert bridge.spawn(work).get() == [bridge.get_hub()] * 2


def test_watchers_see_the_round_in_which_an_awaiting_greenlet_runs() -> None:
    loop = bridge.get_hub().loop
    rounds: list[str] = []
    watcher = loop.prepare()
    watcher.start(rounds.append, "round")
    try:
        bridge.await_(give(None))
        del rounds[:]
        bridge.await_(give(None))
        assert rounds
    finally:
        watcher.stop()
        watcher.close()


def test_all_tasks_has_a_greenlets_task_for_as_long_as_it_waits() -> None:
    aio = bridge.get_hub().aio_loop
    before = len(asyncio.all_tasks(aio))
    futures = [aio.create_future() for _ in range(3)]

    async def wait(future: Any) -> None:
        await future

    def in_turn() -> None:
        for future in futures:
            bridge.await_(wait(future))

    g = bridge.spawn(in_turn)
    for future in futures:
        bridge.sleep(0.001)
        assert len(asyncio.all_tasks(aio)) == before + 1
        future.set_result(None)
    g.get()
    assert len(asyncio.all_tasks(aio)) == before


def test_a_future_that_a_killed_greenlet_has_awaited_is_left_as_it_was() -> None:
    future = bridge.get_hub().aio_loop.create_future()
    g = bridge.spawn(bridge.await_, future)
    bridge.sleep(0.001)
    g.kill()
    assert not future.done()
    with Timeout(0.001, False):
        bridge.await_(future)
    assert not future.done()
    assert future.remove_done_callback(print) == 0
    assert not future._callbacks
    waiting = [bridge.spawn(bridge.await_, future) for _ in range(3)]
    bridge.sleep(0)
    future.set_result("value")
    bridge.joinall(waiting)
    assert [g.value for g in waiting] == ["value"] * 3


def test_a_call_that_returns_the_greenlet_it_runs_in_gives_that() -> None:
    async def work() -> Any:
        return await bridge.sync_to_async(bridge.getcurrent)()

    assert bridge.await_(work()).dead


# -- a Timeout inside the coroutine that a greenlet awaits ------------------------------------------------


async def limited(seconds: float, exception: Any = None) -> str:
    try:
        with Timeout(seconds, exception):
            await asyncio.sleep(LONG)
    except Timeout:
        return "timeout"
    return "silent"


def test_a_timeout_inside_the_awaited_coroutine_is_raised_inside() -> None:
    assert bridge.await_(limited(0.001)) == "timeout"
    assert bridge.await_(limited(0.001, False)) == "silent"
    assert bridge.spawn(limited, 0.001).get(timeout=10) == "timeout"
    assert bridge.await_(give("next")) == "next"


def test_timeouts_inside_and_around_an_await_are_told_apart() -> None:
    cancelled = []

    async def patient() -> None:
        try:
            with Timeout(LONG):
                await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    with pytest.raises(Timeout) as caught, Timeout(0.001) as around:
        bridge.await_(patient())
    assert caught.value is around
    assert cancelled == [1]

    async def nested() -> list[str]:
        seen = []
        try:
            with Timeout(0.002) as outer:
                try:
                    with Timeout(LONG):
                        await asyncio.sleep(LONG)
                except Timeout as e:
                    seen.append("outer" if e is outer else "inner")
                    raise
        except Timeout:
            seen.append("out")
        seen.append(await limited(0.001))
        return seen

    assert bridge.await_(nested()) == ["outer", "out", "timeout"]


def test_a_timeout_inside_cancels_what_the_coroutine_waits_for_and_nothing_else() -> None:
    async def waits_for_a_task() -> tuple[bool, str]:
        shielded = asyncio.ensure_future(give("shielded", 0.01))
        inner = asyncio.ensure_future(asyncio.sleep(LONG))
        with Timeout(0.001, False):
            await inner
        with Timeout(0.001, False):
            await asyncio.shield(shielded)
        return inner.cancelled(), await shielded

    assert bridge.await_(waits_for_a_task()) == (True, "shielded")


def test_a_kill_reaches_a_coroutine_that_has_a_timeout_of_its_own() -> None:
    ended = []

    async def patient() -> None:
        try:
            with Timeout(LONG):
                await asyncio.sleep(LONG)
        finally:
            ended.append(1)

    g = bridge.spawn(patient)
    bridge.sleep(0.001)
    g.kill()
    assert ended == [1]
    assert isinstance(g.value, GreenletExit)


@pytest.mark.engines("owned")
def test_a_timeout_in_the_main_coroutine_of_run() -> None:
    async def main() -> list[str]:
        return [await limited(0.001), await asyncio.create_task(limited(0.001)), await limited(0.001, False)]

    assert bridge.run(main) == ["timeout", "timeout", "silent"]


def test_a_greenlet_that_is_killed_in_asyncio_s_sleep_0_ends() -> None:
    """(Hangs, or: AttributeError: 'NoneType' object has no attribute 'switch'.)"""
    g = bridge.spawn(lambda: bridge.await_(asyncio.sleep(0)))
    bridge.spawn(g.kill)
    bridge.sleep(0.001)
    assert g.dead


@pytest.mark.asyncio
async def test_a_kill_in_the_moment_in_which_a_timeout_inside_expires_is_not_lost() -> None:
    log: list[Any] = []

    async def inside() -> None:
        with bridge.Timeout(0.002, False):
            await asyncio.sleep(1000)
        await asyncio.sleep(0.001)
        log.append("went on")

    g = bridge.spawn(lambda: bridge.await_(inside()))
    await asyncio.sleep(0.001)
    time.sleep(0.004)
    g.kill(block=False)
    await g.ajoin()
    assert log == []


@pytest.mark.engines("owned")
def test_a_timeout_inside_leaves_no_future_whose_exception_nobody_has_seen() -> None:
    said: list[Any] = []
    aio = bridge.get_hub().aio_loop
    aio.set_exception_handler(lambda _, context: said.append(context["message"]))

    async def inside() -> None:
        with bridge.Timeout(0.001, False):
            await asyncio.gather(asyncio.sleep(1000), asyncio.sleep(1000))
        await asyncio.sleep(0.001)

    try:
        bridge.spawn(lambda: bridge.await_(inside())).get()
        gc.collect()
        bridge.sleep(0.001)
    finally:
        aio.set_exception_handler(None)
    assert said == []


@pytest.mark.asyncio
async def test_the_error_with_which_a_greenlet_ends_that_is_cancelled_with_its_waiter_is_not_lost() -> None:
    def fails() -> None:
        try:
            bridge.sleep(1000)
        finally:
            raise Mine

    async def wait(g: Greenlet[None]) -> None:
        await g

    task = asyncio.create_task(wait(bridge.spawn(fails)))
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(Mine) as caught:
        await task
    assert isinstance(caught.value.__context__, asyncio.CancelledError)


@pytest.mark.parametrize("call", [lambda f: bridge.sync_to_async(f)(), lambda f: bridge.spawn(f)])
@pytest.mark.parametrize("first", ["cancel", "put"])
@pytest.mark.asyncio
async def test_what_a_function_waits_for_is_not_lost_if_it_comes_when_its_awaiter_is_cancelled(
    call: Any, first: str
) -> None:
    queue: Queue[int] = Queue()
    lock = Semaphore(0)

    async def wait_for(function: Any) -> Any:
        return await call(function)

    tasks = [asyncio.create_task(wait_for(f)) for f in (queue.get, lock.acquire)]
    await asyncio.sleep(0.001)
    for step in ("cancel", "put") if first == "cancel" else ("put", "cancel"):
        if step == "put":
            queue.put(5)
            lock.release()
        else:
            for task in tasks:
                task.cancel()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True, True]
    assert queue.get_nowait() == 5
    assert lock.acquire(blocking=False)


@pytest.mark.asyncio
async def test_functions_are_cancelled_in_the_order_of_their_tasks_and_once_at_a_time() -> None:
    log: list[Any] = []

    def work(n: int) -> None:
        for _ in range(2):
            try:
                Event().wait()
            except asyncio.CancelledError as e:
                log.append((n, *e.args))
        raise asyncio.CancelledError

    tasks = [asyncio.create_task(bridge.sync_to_async(work)(n)) for n in range(3)]
    await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel("first")
        task.cancel("the same")
    await asyncio.sleep(0.001)
    for task in tasks:
        task.cancel("second")
    await asyncio.wait(tasks)
    assert log == [(n, msg) for msg in ("first", "second") for n in range(3)]
    assert all(task.cancelled() for task in tasks)


def test_a_function_that_forks_before_anything_has_blocked_can_block_in_the_child() -> None:
    # in a process of its own: there must not be a hub that has begun
    run_code("""
        import asyncio, os, bridge, bridge.os
        def work():
            pid = bridge.os.fork()
            if pid == 0:
                bridge.sleep(0.001)
                os._exit(bridge.await_(asyncio.sleep(0, 5)))
            return os.waitstatus_to_exitcode(bridge.os.waitpid(pid, 0)[1])
        async def main(start):
            assert await start() == 5
        asyncio.run(main(bridge.sync_to_async(work)))
        asyncio.run(main(lambda: bridge.spawn(work).aget()))
    """)
