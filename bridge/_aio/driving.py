"""Taking the steps of coroutines in greenlets: what ``await_`` does.

Theory of operation
===================

A greenlet G that awaits a coroutine takes the coroutine's steps itself (:func:`drive`): it shows the loop as
running and enters its :class:`GreenletTask`, sends, hides both again, and if the coroutine has yielded a
future, waits for that like for anything else. So a coroutine that is ready costs no switch, and one that
waits costs one callback of the loop, out of which G is entered at once (see :mod:`.entering`). The steps run
where greenlets run, and in G's own context.

*Where coroutines may block* (under a task factory that makes portals) they may in G as well: G waits, with
loop and task hidden (see :mod:`.blocking`).

``_driving.c`` is the compiled twin of what is quick here. It takes the steps as long as all goes well; at
what is rare (the wait is interrupted, the future has failed, the task is cancelled, what was yielded cannot
be waited for) it has :func:`go_on` do the rest.
"""

from __future__ import annotations

import asyncio
from asyncio import _enter_task, _leave_task
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from bridge._core.accelerated import accelerator
from bridge._core.current import hub_local
from bridge._core.engine import Engine
from bridge._core.waiting import Wait

from .entering import SHOWN
from .task import REFERENCES, GreenletTask, cancelled, seen, task_of

__all__ = ["ELSEWHERE", "await_quickly", "drive", "go_on", "wait_for_future"]

#: What :func:`await_quickly` gives if it has done nothing.
ELSEWHERE: Any = object()


def await_quickly(awaitable: Any) -> Any:
    """What ``await_`` does where nothing is to be done first; else ELSEWHERE.

    In a greenlet that may block, whose hub runs its loop, for a coroutine or a future of that loop.
    """
    hub = hub_local.hub
    if hub is None:
        return ELSEWHERE
    current = getcurrent()
    engine = hub.loop
    if engine.probe() is not None or current is hub:
        return ELSEWHERE
    if type(awaitable) is CoroutineType:
        if engine.shared and (engine.running or not engine.owned):
            return drive(engine, current, awaitable)
    elif isinstance(awaitable, asyncio.Future) and awaitable.get_loop() is engine.aio:
        return wait_for_future(engine, current, awaitable)
    return ELSEWHERE


def drive(engine: Engine, current: greenlet, coroutine: Any) -> Any:
    """Take the steps of ``coroutine`` in the greenlet ``current``, which may block; return its result.

    An exception thrown into the greenlet while the coroutine waits cancels the coroutine, and goes on when
    that has ended.
    """
    try:
        task: GreenletTask = current._bridge_task  # type: ignore[attr-defined]
    except AttributeError:
        task = task_of(current, engine)
    else:
        # another loop, that of a forked child, too; or it has ended
        if task.aio is not engine.aio or task._told is not None:
            task = task_of(current, engine)
    aio = task.aio
    task.awaiting = coroutine
    try:
        engine.set_running(aio)
        _enter_task(aio, task)
        try:
            waits_for = coroutine.send(None)
        except StopIteration as e:
            _leave_task(aio, task)
            engine.set_running(None)
            result = e.value
        except BaseException:
            _leave_task(aio, task)
            engine.set_running(None)
            raise
        else:
            _leave_task(aio, task)
            if not task._listed:
                task.enlist()
            engine.refs += 1  # a reason to go on, as any task; to ask all_tasks() is slow
            begun = [waits_for, None, None]
            del waits_for  # or this frame would keep it until the coroutine ends
            try:
                result = go_on(engine, current, task, coroutine, begun)
            finally:
                engine.refs -= 1
                if not task._listed:
                    task.delist()
        if task._cancel_now:
            # as in asyncio: cancelled when there was nothing left to raise it in
            raise cancelled(task)
    except BaseException as e:
        task.awaiting = None
        if task.touched:
            task.settle(e, None)
        raise
    task.awaiting = None
    if task.touched:
        task.settle(None, result)
    return result


def wait_for_future(engine: Engine, current: greenlet, future: Any) -> Any:
    """Wait in the greenlet ``current``, which may block, for a future or task of the loop; return its result.

    It is somebody else's: an interruption of the wait leaves it alone.
    """
    if future.done():
        return future.result()
    task = task_of(current, engine)
    wait = task.wait
    _arm(wait, current)
    wakeup = task.wakeup
    wakeup.future = future
    future.add_done_callback(wakeup, context=engine._context)
    # a task is a reason to go on, and where the loop does not tell what it has to do, anything may be
    counts = isinstance(future, asyncio.Task) or not hasattr(engine.aio, "_scheduled")
    if counts:
        engine.refs += 1
    try:
        if engine.park() is SHOWN:
            engine.set_running(None)
        if not wait.woken:
            raise wait._invalid()
    except BaseException:
        wait.give_up()
        future.remove_done_callback(wakeup)
        raise
    finally:
        if counts:
            engine.refs -= 1
        wakeup.future = wait.greenlet = wait.target = None
    return future.result()


def go_on(
    engine: Engine,
    current: greenlet,
    task: GreenletTask,
    coroutine: Any,
    begun: list[Any],
    shown: bool = True,
) -> Any:
    """Wait for what the coroutine has yielded, and take its next steps; return its result.

    :param begun: Three things, taken out of the list, as whoever calls is not to keep them until the
        coroutine ends: what it has yielded; by what exception the wait for that was ended, if it was begun
        (else None); and what the coroutine gets, if it was begun and is over (else None).
    :param shown: whether the loop is shown when this is called. It is hidden when it returns or raises.
    """
    waits_for, interrupted, failed = begun
    begun.clear()
    aio = engine.aio
    set_running = engine.set_running
    wait = task.wait
    wakeup = task.wakeup
    interruption: BaseException | None = None
    try:
        while True:
            error, failed = failed, None
            if error is not None or interrupted is not None:
                pass
            elif waits_for is not None:
                error = _wait(engine, current, task, waits_for)
            else:
                # asyncio.sleep(0): after all that the loop has to call now, tasks that were made just
                # before, say
                wait.woken = False
                wait.target = None
                wait.greenlet = current
                aio.call_soon(wakeup, context=engine._context)
            while error is None:
                try:
                    if interrupted is not None:
                        try:
                            raise interrupted
                        finally:
                            interrupted = None  # its traceback refers to this frame: no cycle through it
                    if engine.entered is current:
                        shown = engine.to_runner(SHOWN) is SHOWN  # type: ignore[call-arg]
                    else:
                        if shown:
                            set_running(None)
                            shown = False
                        shown = engine.park() is SHOWN
                    if not wait.woken:
                        raise wait._invalid()
                except BaseException as e:
                    # kill, Timeout ...: the coroutine is cancelled as often as we are interrupted; the
                    # first wins
                    shown = False
                    if waits_for is None and not wait.woken and task.aio is engine.aio:
                        wakeup.stale += 1  # the round of the loop comes, but for nobody
                    if task._inside:
                        # it is meant for the coroutine: see raise_inside()
                        task._inside = False
                        error = e
                        if waits_for is not None:
                            waits_for.remove_done_callback(wakeup)
                            waits_for.cancel()
                            # nobody is left who would look at what it ends with: asyncio.gather() may fail
                            waits_for.add_done_callback(seen)
                        if interruption is not None:
                            task._cancel_now = True  # we were to end: that goes before
                        break
                    if interruption is None:
                        interruption = e
                    task.touched = True
                    task._requests += 1
                    _arm(wait, current)
                    if waits_for is None or task.aio is not engine.aio or not waits_for.cancel():
                        # (a forked child has another loop: what it was waiting for stays in the parent)
                        error = asyncio.CancelledError()
                        aio = engine.aio
                else:
                    if waits_for is not None:
                        try:
                            waits_for.result()
                        except BaseException as e:
                            error = e
                    break
            wakeup.future = None
            if task._cancel_now and not isinstance(error, asyncio.CancelledError):
                error = cancelled(task)
            if not shown:
                set_running(aio)
                shown = True
            _enter_task(aio, task)
            try:
                waits_for = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as e:
                if interruption is not None:
                    raise interruption from None
                return e.value
            except BaseException:
                if interruption is not None:
                    raise interruption from None
                raise
            finally:
                error = None  # its traceback refers to this frame: no cycle through it
                _leave_task(aio, task)
    finally:
        interruption = None
        wait.give_up()  # after an interruption a callback of the loop may still be to come
        set_running(None)


def _arm(wait: Wait, current: greenlet) -> None:
    """Make the one wait of a task fit for another round."""
    wait.woken = False
    wait.target = None
    wait.greenlet = current


def _wait(engine: Engine, current: greenlet, task: GreenletTask, waits_for: Any) -> RuntimeError | None:
    """Begin to wait for what a coroutine has yielded; returns why it cannot be waited for, None if it can."""
    error = _refusal(task, waits_for)
    if error is None:
        _arm(task.wait, current)
        waits_for._asyncio_future_blocking = False
        wakeup = task.wakeup
        wakeup.future = waits_for
        waits_for.add_done_callback(wakeup, context=engine._context)
        if task._cancel_now and waits_for.cancel(task._cancel_message):
            task._cancel_now = False
    return error


def _refusal(task: GreenletTask, waits_for: Any) -> RuntimeError | None:
    """Why the coroutine cannot wait for what it has yielded; None if it can."""
    blocking = getattr(waits_for, "_asyncio_future_blocking", None)
    if blocking is None:
        return RuntimeError(f"Task got bad yield: {waits_for!r}")
    if not blocking:
        return RuntimeError(f"yield was used instead of yield from in task {task!r} with {waits_for!r}")
    if waits_for.get_loop() is not task.aio:
        return RuntimeError(f"Task {task!r} got Future {waits_for!r} attached to a different loop")
    if waits_for is task:
        return RuntimeError(f"Task cannot await on itself: {task!r}")
    return None


if not TYPE_CHECKING and (_compiled := accelerator("_driving", __package__)) is not None:
    await_quickly = _compiled.await_quickly
    drive = _compiled.drive
    wait_for_future = _compiled.wait_for_future
    _compiled.use_tasks(
        GreenletTask, Wait, asyncio.Future, asyncio.Task, REFERENCES, task_of, cancelled, go_on, hub_local,
        ELSEWHERE,
    )  # fmt: skip
