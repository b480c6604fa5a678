"""Portals: blocking code directly inside coroutines, on both loops."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import socket
import threading
import time
from typing import Any

import pytest

import bridge
from bridge._aio.portal import Portal
from bridge._core.waiting import Wait
from bridge.event import Event
from bridge.exceptions import BlockingSwitchOutError
from bridge.lock import RLock
from bridge.queue import Empty, Queue

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


@pytest.mark.asyncio
async def test_without_a_portal_blocking_raises_and_names_the_ways_out() -> None:
    with pytest.raises(BlockingSwitchOutError, match=r"sync_to_async(.|\n)*portal(.|\n)*spawn"):
        bridge.sleep(0)
    with pytest.raises(BlockingSwitchOutError):
        Event().wait()


@pytest.mark.asyncio
async def test_other_tasks_go_on_while_a_portal_blocks() -> None:
    event = Event()
    order: list[str] = []

    @bridge.portal
    async def blocks() -> str:
        order.append("blocks")
        event.wait()
        order.append("woken")
        return "result"

    async def other() -> None:
        order.append("other")
        await asyncio.sleep(0)
        event.set()

    result, _ = await asyncio.gather(blocks(), other())
    assert result == "result"
    assert order == ["blocks", "other", "woken"]


@pytest.mark.asyncio
async def test_task_context_and_loop_are_those_of_the_task() -> None:
    @bridge.portal
    async def inside() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        variable.set(5)
        bridge.sleep(0.001)
        assert (asyncio.current_task(), asyncio.get_running_loop()) == (task, loop)
        assert variable.get() == 5
        await asyncio.sleep(0)
        variable.set(6)
        bridge.await_(asyncio.sleep(0))
        assert asyncio.current_task() is task

    await inside()
    assert variable.get() == 6  # a portal shares the context of who awaits it


@pytest.mark.asyncio
async def test_cancelling_the_task_raises_where_the_code_blocks() -> None:
    seen: list[str] = []
    queue: Queue[int] = Queue()

    @bridge.portal
    async def inside() -> None:
        try:
            queue.get()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(inside())
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]
    queue.put(1)
    assert queue.get_nowait() == 1  # nobody took it


@pytest.mark.asyncio
async def test_a_sleep_of_nothing_lets_the_others_run_and_can_be_cancelled_and_timed_out() -> None:
    seen: list[str] = []

    @bridge.portal
    async def inside() -> None:
        with pytest.raises(bridge.Timeout), bridge.Timeout(0):
            while True:
                bridge.sleep(0)
        seen.append("timed out")
        try:
            while True:
                bridge.sleep(0)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(inside())
    beside = bridge.spawn(seen.append, "greenlet")
    while "timed out" not in seen:
        await asyncio.sleep(0)
    await beside.ajoin()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(seen) == ["cancelled", "greenlet", "timed out"]


@pytest.mark.asyncio
async def test_asyncio_timeout_ends_blocking_code() -> None:
    @bridge.portal
    async def inside() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002):
                Event().wait()
        task = asyncio.current_task()
        assert task is not None and not task.cancelling()

    await inside()


@pytest.mark.asyncio
async def test_bridge_timeout_ends_blocking_code_and_native_awaits() -> None:
    @bridge.portal
    async def inside() -> None:
        with pytest.raises(bridge.Timeout), bridge.Timeout(0.002):
            Event().wait()
        with pytest.raises(bridge.Timeout), bridge.Timeout(0.002):
            await asyncio.sleep(100)
        with pytest.raises(bridge.Timeout), bridge.Timeout(0.002):
            bridge.await_(asyncio.sleep(100))
        task = asyncio.current_task()
        assert task is not None and not task.cancelling()
        await asyncio.sleep(0)

    await inside()


@pytest.mark.asyncio
async def test_timeouts_of_both_worlds_nest() -> None:
    @bridge.portal
    async def inside() -> list[str]:
        seen = []
        with bridge.Timeout(10):
            try:
                async with asyncio.timeout(0.002):
                    bridge.sleep(100)
            except TimeoutError:
                seen.append("inner")
        try:
            async with asyncio.timeout(10):
                with bridge.Timeout(0.002):
                    await asyncio.sleep(100)
        except bridge.Timeout:
            seen.append("inner too")
        return seen

    assert await inside() == ["inner", "inner too"]


@pytest.mark.asyncio
async def test_timeout_arguments_work_in_a_portal() -> None:
    @bridge.portal
    async def inside() -> None:
        with pytest.raises(Empty):
            Queue().get(timeout=0.001)
        assert Event().wait(0.001) is False
        assert Event().wait(0) is False

    await inside()


@pytest.mark.asyncio
async def test_a_thread_wakes_a_portal() -> None:
    event = Event()

    @bridge.portal
    async def inside() -> bool:
        thread = threading.Thread(target=event.set)
        thread.start()
        woken = event.wait(10)
        thread.join()
        return woken

    assert await inside()


@pytest.mark.asyncio
async def test_join_get_and_kill_work_in_a_portal() -> None:
    @bridge.portal
    async def inside() -> None:
        assert bridge.spawn(lambda: 7).get() == 7
        g = bridge.spawn(bridge.sleep, 100)
        bridge.sleep(0)
        g.kill()
        assert g.dead

    await inside()


@pytest.mark.asyncio
async def test_await_in_a_portal_awaits_in_the_same_task() -> None:
    async def which() -> Any:
        await asyncio.sleep(0)
        return asyncio.current_task()

    @bridge.portal
    async def inside() -> None:
        assert bridge.await_(which()) is asyncio.current_task()
        with pytest.raises(ZeroDivisionError):
            bridge.await_(fails())

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    await inside()


@pytest.mark.asyncio
async def test_task_factory_makes_every_task_a_portal() -> None:
    loop = asyncio.get_running_loop()
    bridge.install_task_factory()
    bridge.install_task_factory()  # once is enough
    try:

        async def plain(n: int) -> int:
            bridge.sleep(0.001)
            return n

        assert await asyncio.gather(*[plain(n) for n in range(5)]) == list(range(5))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(plain(n)) for n in range(3)]
        assert [t.result() for t in tasks] == [0, 1, 2]
    finally:
        loop.set_task_factory(None)


@pytest.mark.asyncio
async def test_the_owner_of_a_lock_is_the_task() -> None:
    lock = RLock()

    @bridge.portal
    async def inside() -> bool:
        with lock:
            bridge.sleep(0.001)
            return lock.acquire(blocking=False) and lock.release() is None

    assert await asyncio.gather(inside(), inside()) == [True, True]


@pytest.mark.asyncio
async def test_exceptions_pass_through_a_portal_with_both_sides_in_the_traceback() -> None:
    def below() -> None:
        bridge.sleep(0)
        raise KeyError("x")

    @bridge.portal
    async def inside() -> None:
        below()

    with pytest.raises(KeyError) as caught:
        await inside()
    names = [entry.name for entry in caught.traceback]
    assert "inside" in names and "below" in names


def test_portal_refuses_what_is_no_coroutine_function() -> None:
    with pytest.raises(TypeError, match="async def"):
        bridge.portal(len)  # type: ignore[arg-type]


@pytest.mark.engines("owned")
def test_tasks_of_run_may_block() -> None:
    async def child() -> int:
        bridge.sleep(0.001)
        return 2

    async def main() -> int:
        queue: Queue[int] = Queue()
        bridge.spawn(queue.put, 1)
        return queue.get() + await asyncio.create_task(child())

    assert bridge.run(main) == 3
    assert bridge.get_hub().aio_loop.get_task_factory() is None


# -- watchers and descriptors in a portal ---------------------------------------------------------------


@pytest.mark.asyncio
async def test_hub_wait_waits_for_a_watcher() -> None:
    @bridge.portal
    async def wait() -> str:
        hub = bridge.get_hub()
        hub.wait(hub.loop.timer(0.001))
        return "timer"

    other = asyncio.create_task(asyncio.sleep(0, "other"))
    assert await wait() == "timer"
    assert other.done()


@pytest.mark.asyncio
async def test_cancel_wait_raises_where_the_portal_waits() -> None:
    left, right = socket.socketpair()
    with left, right:

        @bridge.portal
        async def wait() -> None:
            hub = bridge.get_hub()
            watcher = hub.loop.io(left.fileno(), 1)
            hub.loop.timer(0.001).start(hub.cancel_wait, watcher, OSError("cancelled"), True)
            hub.wait(watcher)

        with pytest.raises(OSError, match="cancelled"):
            await wait()


@pytest.mark.asyncio
async def test_sockets_block_in_a_portal_and_closing_one_ends_its_wait() -> None:
    left, right = bridge.socket.socketpair()
    with left, right:

        @bridge.portal
        async def read() -> bytes:
            return left.recv(10)

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        right.send(b"data")
        assert await task == b"data"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await read()
        closer = bridge.spawn_later(0.001, left.close)
        with pytest.raises(OSError, match="closed"):
            await read()
        await closer


@pytest.mark.asyncio
async def test_switching_to_the_hub_by_hand_is_refused_in_a_portal() -> None:
    @bridge.portal
    async def switch() -> None:
        bridge.get_hub().switch()

    with pytest.raises(BlockingSwitchOutError, match=r"hub\.wait"):
        await switch()


@pytest.mark.asyncio
async def test_a_portal_that_has_ended_cannot_be_awaited_again() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    again = Portal(work())
    assert await again == 1
    with pytest.raises(RuntimeError, match="already awaited"):
        await again


@pytest.mark.asyncio
async def test_a_portal_awaited_by_a_greenlet_that_was_begun_in_a_portal_is_one_of_its_own() -> None:
    @bridge.portal
    async def nested(depth: int) -> int:
        bridge.sleep(0)
        if not depth:
            return 0
        below = bridge.sync_to_async(lambda: bridge.await_(nested(depth - 1)))
        return 1 + bridge.await_(below())

    assert await nested(3) == 3
    assert await bridge.spawn(lambda: bridge.await_(nested(3))) == 3


@pytest.mark.asyncio
async def test_a_portal_has_the_state_of_a_coroutine() -> None:
    @bridge.portal
    async def unused() -> None: ...

    from bridge._aio.portal import Portal

    async def main() -> None:
        await asyncio.sleep(0.001)

    p = Portal(main())
    assert inspect.getcoroutinestate(p) == "CORO_CREATED"
    task = asyncio.ensure_future(p)
    await asyncio.sleep(0)
    assert inspect.getcoroutinestate(p) == "CORO_SUSPENDED"
    await task
    assert inspect.getcoroutinestate(p) == "CORO_CLOSED"


@pytest.mark.engines("owned")
def test_anyio_s_task_groups_are_cancelled_under_run() -> None:
    anyio = pytest.importorskip("anyio")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1000)
            group.cancel_scope.cancel()  # before the task has begun

    bridge.run(main)


@pytest.mark.asyncio
@pytest.mark.parametrize("first", ["timeout", "cancel"])
@pytest.mark.parametrize("blocks", [False, True])
async def test_a_cancellation_in_the_moment_in_which_a_timeout_expires_is_not_lost(
    first: str, blocks: bool
) -> None:
    log: list[Any] = []

    @bridge.portal
    async def main() -> None:
        seconds = 0.002
        with bridge.Timeout(seconds, False):
            log.append("begun")
            if blocks:
                Event().wait()
            else:
                await asyncio.sleep(1000)
        await asyncio.sleep(0.001)
        log.append("went on")

    task = asyncio.create_task(main())
    await asyncio.sleep(0)
    if first == "timeout":
        # the timer's callback and that which cancels are called in this order
        asyncio.get_running_loop().call_later(0.0021, task.cancel)
        time.sleep(0.004)
    else:
        time.sleep(0.004)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["begun"] and task.cancelled()


@pytest.mark.asyncio
async def test_await_in_a_portal_cancels_what_it_has_started() -> None:
    """DESIGN 4: what await_ itself started is cancelled; in a plain greenlet it sees CancelledError."""
    seen: list[Any] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(1000)
        except BaseException as e:
            seen.append(type(e))
            raise

    def blocking() -> None:
        with pytest.raises(bridge.Timeout), bridge.Timeout(0.001):
            bridge.await_(waits())

    @bridge.portal
    async def main() -> None:
        blocking()

    await bridge.spawn(blocking)
    await main()
    assert seen == [asyncio.CancelledError] * 2


@pytest.mark.asyncio
async def test_an_await_in_an_await_in_a_portal_is_cancelled_from_the_inside_out() -> None:
    seen: list[Any] = []

    async def inner() -> None:
        try:
            await asyncio.sleep(1000)
        except BaseException as e:
            await asyncio.sleep(0.001)
            seen.append(("inner", type(e)))
            raise

    async def outer() -> None:
        try:
            bridge.await_(inner())
        except BaseException as e:
            bridge.sleep(0.001)
            seen.append(("outer", type(e)))
            raise

    @bridge.portal
    async def main() -> None:
        with pytest.raises(bridge.Timeout), bridge.Timeout(0.001):
            bridge.await_(outer())
        # a Timeout of the inner one is its own
        with pytest.raises(bridge.Timeout):
            bridge.await_(limited())
        task = asyncio.current_task()
        assert task is not None and not task.cancelling()

    async def limited() -> None:
        with bridge.Timeout(0.001):
            bridge.await_(inner())

    await main()
    assert seen == [
        ("inner", asyncio.CancelledError),
        ("outer", asyncio.CancelledError),
        ("inner", asyncio.CancelledError),
    ]


@pytest.mark.asyncio
async def test_what_is_awaited_in_a_portal_and_returns_although_interrupted_hides_no_interruption() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return "a value"
        return ""

    @bridge.portal
    async def main() -> None:
        with pytest.raises(bridge.Timeout), bridge.Timeout(0.001):
            bridge.await_(stubborn())
        await asyncio.sleep(0)

    await main()


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [None, 10])
async def test_a_wake_up_before_the_wait_does_not_end_the_next_one(limit: float | None) -> None:
    """As of a name that a resolver has found at once."""

    @bridge.portal
    async def main() -> None:
        wait = Wait()
        wait.wake()
        assert wait.block(limit)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                Wait().block(limit)

    await main()
