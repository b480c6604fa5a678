"""``await_``: a greenlet waits for a coroutine, task, future or any other awaitable.

The greenlet takes the coroutine's steps itself (see :mod:`.driving`), in its own context; in a portal the
task of the portal does. When the wait is interrupted (kill, Timeout, throw), the coroutine is cancelled and
its clean-up awaited before the interruption goes on; a task or future that belongs to somebody else is left
alone. The interruption wins over whatever the coroutine returned meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Coroutine, Generator
from types import CoroutineType
from typing import Any, TypeVar

from greenlet import getcurrent

from bridge._core.hub import get_hub
from bridge._core.waiting import Wait

from .blocking import Blocking
from .driving import ELSEWHERE, await_quickly, drive, wait_for_future
from .portal import Portal

__all__ = ["await_", "wait_for_task"]

T = TypeVar("T")


async def _drive(awaitable: Awaitable[T]) -> T:
    return await awaitable


def await_(awaitable: Awaitable[T]) -> T:
    """Wait, in a greenlet, for an awaitable; return its result or raise its exception.

    Blocks the greenlet. Interrupting the wait (kill, Timeout) cancels a coroutine given here and waits for
    its clean-up; a task or future of somebody else is left alone. Raises BlockingSwitchOutError in a
    coroutine without a portal (write ``await`` there) and TypeError for what cannot be awaited. Only in the
    thread whose loop the awaitable belongs to.
    """
    result = await_quickly(awaitable)
    if result is not ELSEWHERE:
        return result  # type: ignore[no-any-return]
    if not isinstance(awaitable, Awaitable) and not isinstance(awaitable, Generator):
        raise TypeError(
            f"await_() takes an awaitable, not {awaitable!r}; call the coroutine function: await_(func(...))"
        )
    try:
        wait = Wait()
    except BaseException:
        if isinstance(awaitable, CoroutineType):
            awaitable.close()  # or it would warn that it was never awaited
        raise
    place = wait.engine
    if isinstance(place, (Portal, Blocking)):
        return place.await_here(awaitable)  # type: ignore[no-any-return]
    hub = get_hub()
    aio = hub.aio_loop
    current = getcurrent()
    if not asyncio.isfuture(awaitable):
        coroutine = awaitable if asyncio.iscoroutine(awaitable) else _drive(awaitable)
        if place.owned and not place.running:
            _start(coroutine)
        return drive(place, current, coroutine)  # type: ignore[no-any-return]
    if awaitable.get_loop() is not aio and not awaitable.done():
        raise ValueError(f"{awaitable!r} belongs to another loop than that of this thread, {aio!r}")
    return wait_for_future(place, current, awaitable)  # type: ignore[no-any-return]


def _start(coroutine: Any) -> None:
    """Have the hub run the loop: a coroutine's first step is not to be taken in a loop that stands still."""
    wait = Wait()
    wait.wake()
    try:
        wait.block()
    except BaseException:
        coroutine.close()
        raise


def wait_for_task(aio: Any, awaitable: Any, context: contextvars.Context | None = None) -> Any:
    """Wait for an awaitable as a task of ``aio``, the loop that runs here; return its result.

    Unlike ``await_`` it makes a task in a portal too, and one with a context of its own. Interruptions are
    those of ``await_``. Blocks the greenlet, or the portal.
    """
    try:
        wait = Wait()
        if asyncio.isfuture(awaitable):
            if awaitable.get_loop() is not aio:
                raise ValueError(f"{awaitable!r} belongs to another loop than {aio!r}, which should wait")
        elif not asyncio.iscoroutine(awaitable):
            if not isinstance(awaitable, Awaitable):
                raise TypeError(f"a future, a coroutine or an awaitable is required, not {awaitable!r}")
            awaitable = _drive(awaitable)
    except BaseException:
        if isinstance(awaitable, CoroutineType):
            awaitable.close()
        raise
    ours = not asyncio.isfuture(awaitable)
    future: asyncio.Future[Any] = _create_task(aio, awaitable, context) if ours else awaitable
    if not future.done():
        _wait_done(future, wait, ours)
    return future.result()


def _create_task(
    aio: Any, coroutine: Coroutine[Any, Any, T], context: contextvars.Context | None
) -> asyncio.Task[T]:
    if aio.get_task_factory() is None or asyncio._get_running_loop() is not None:
        return aio.create_task(coroutine, context=context)  # type: ignore[no-any-return]
    # an eager task has its first step now, and shall see its loop
    asyncio._set_running_loop(aio)
    try:
        return aio.create_task(coroutine, context=context)  # type: ignore[no-any-return]
    finally:
        asyncio._set_running_loop(None)


def _wait_done(future: asyncio.Future[Any], wait: Wait, ours: bool) -> None:
    interruption: BaseException | None = None

    def done(_future: object) -> None:
        wait.wake()

    while True:
        future.add_done_callback(done)
        try:
            wait.block()
        except BaseException as e:
            future.remove_done_callback(done)
            if interruption is None:
                interruption = e
            if not ours or future.done():
                break
            future.cancel()  # a second interruption cancels again
            wait = Wait()
        else:
            break
    if interruption is not None:
        if ours and future.done() and not future.cancelled():
            future.exception()  # seen: the interruption wins
        raise interruption
