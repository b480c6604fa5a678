"""The task of a greenlet: what a coroutine that a greenlet awaits sees as the current task.

Theory of operation
===================

``await_`` in a plain greenlet G makes no task of asyncio's for each coroutine. G itself takes the
coroutine's steps (:func:`drive`): it shows the loop as running and enters its :class:`GreenletTask`, sends,
hides both again, and if the coroutine has yielded a future, waits for that like for anything else. So a
coroutine that is ready costs no switch, and one that waits costs one callback of the loop, out of which G is
entered at once (see :mod:`.entering`); a task of its own would cost two steps, a callback and three times as
much. The steps run where greenlets run, and in G's own context.

*For the coroutine* all is as in a task. What code does with ``current_task()`` is cancel it, count its
cancellations, name it, and wait for it: timeouts, task groups, cancel scopes. Cancelling goes to what the
coroutine waits for, or is raised at its next step, by the rules of asyncio.Task.

*One object for all that G awaits*, as making one costs as much as the rest. It counts as done between two
awaits. Should anybody have waited for it (``asyncio.run`` does at its end, after cancelling) it really ends
with the await that is under way, and G gets another one. The task below, asyncio's own, is only made when
it is needed: it runs :class:`_StandIn`, which waits to be told how that await has ended. Invariant:
whatever asyncio could ask the task below is answered by a method here, which makes it first.

*Where coroutines may block* (under a task factory that makes portals) they may in G as well: G waits, with
loop and task hidden. :class:`Blocking` is the face of the engine for that.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import _enter_task, _leave_task, _register_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from itertools import count
from typing import Any
from weakref import ref

from greenlet import getcurrent, greenlet

from bridge._core.engine import Engine, throw_into
from bridge._core.waiting import Wait

from .entering import SHOWN, enter

__all__ = [
    "Blocking", "GreenletTask", "blocking_of", "drive", "is_stepping", "raise_inside", "wait_for_future",
]  # fmt: skip

_numbers = count(1)

#: Since 3.14 all_tasks() does not ask a task whether it is done: it has to be told.
_unregister: Callable[[Any], object] | None = None
#: Before, what all_tasks() looks at: the references of a set of weak references.
_references: set[Any] = set()
if sys.version_info >= (3, 14):
    _unregister = asyncio._unregister_task
else:
    _references = getattr(
        asyncio.tasks, "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks"
    ).data


class _StandIn(Coroutine[Any, Any, Any]):
    """What the task below runs: it ends as it is told."""

    def __init__(self, told: asyncio.Future[Any]) -> None:
        self.told = told

    def send(self, value: Any) -> Any:
        told = self.told
        if not told.done():
            told._asyncio_future_blocking = True
            return told
        exception, result = told.result()
        if exception is not None:
            raise exception
        raise StopIteration(result)

    def throw(self, typ: Any, val: Any = None, tb: Any = None) -> Any:
        raise typ

    def close(self) -> None:
        """Nothing is open."""

    def __await__(self) -> Generator[Any, Any, Any]:
        raise TypeError("only for a task")


def _seen(task: asyncio.Task[Any]) -> None:
    """An exception is the greenlet's, which has got it: asyncio need not say that nobody has."""
    if not task.cancelled():
        asyncio.Task.exception(task)


class GreenletTask(asyncio.Task):  # type: ignore[type-arg]
    """The current task of coroutines that one greenlet awaits. See above."""

    __slots__ = (
        "_cancel_message",
        "_cancel_now",
        "_inside",
        "_listed",
        "_name",
        "_observed",
        "_reference",
        "_requests",
        "_told",
        "_waits_for",
        "aio",
        "awaiting",
        "blocking",
        "engine",
        "touched",
        "wait",
    )

    #: For the engine: only the greenlet can end it. So the end of the loop does not wait for it, and it need
    #: not tell when what is awaited has ended, as the greenlet runs then.
    of_greenlet = True

    #: what is being awaited now, the outermost; None between two awaits
    awaiting: Any
    #: somebody has cancelled it, waits for it, or has asked for more than whether it is done
    touched: bool
    blocking: Blocking | None
    _told: asyncio.Future[Any] | None
    _waits_for: Any
    _reference: ref[GreenletTask] | None
    _cancel_message: Any

    def __init__(self, engine: Engine) -> None:
        # not super().__init__(): see real()
        self.engine = engine
        self.aio = engine.aio
        self.awaiting = self.blocking = self._told = self._waits_for = self._reference = None
        self._cancel_message = None
        self.touched = self._observed = self._listed = self._inside = False
        self._cancel_now = False
        self._requests = 0
        self._name = ""
        wait = self.wait = Wait.__new__(Wait)
        wait.engine = engine
        wait.greenlet = wait.target = None
        wait.woken = wait.dead = wait.timed_out = wait.queued = False

    def real(self) -> None:
        """Make the task below."""
        if self._told is None:
            told = self._told = self.aio.create_future()
            super().__init__(_StandIn(told), loop=self.aio, name=self.get_name(), context=Context())
            # nobody need end it: with its greenlet it goes
            self._log_destroy_pending = False

    def enlist(self) -> None:
        """It is to be found by all_tasks() for as long as it is not done, until :meth:`delist`."""
        if _unregister is not None:
            self.real()
        elif self._reference is None:
            # many greenlets await but once, and to be registered costs as much as all the rest: a reference
            # of our own is quick to add and to remove
            self._reference = ref(self)
            _references.add(self._reference)
            return
        else:
            self._listed = True  # for good: while it is done all_tasks() leaves it out
        _register_task(self)

    def delist(self) -> None:
        """Take back :meth:`enlist`."""
        if _unregister is not None:
            _unregister(self)
        else:
            _references.discard(self._reference)

    # -- for drive() --------------------------------------------------------------------------------

    def wake(self, future: object) -> None:
        """What it waits for is done. In a callback of the loop, a safe point: the greenlet goes on at
        once, unless others are ready before it."""
        wait = self.wait
        if wait.woken or future is not self._waits_for:
            return  # one that an interruption has put an end to
        wait.woken = True
        engine = self.engine
        if not wait.queued:
            if not engine.armed and enter(engine, wait.greenlet):
                return
            wait.queued = True
            wait.target = wait.greenlet
            engine.ready.append(wait)
            if not engine.armed:
                engine.armed = True
                engine.entry()
        else:
            wait.target = wait.greenlet

    def settle(self, exception: BaseException | None, result: Any) -> None:
        """The await under way has ended, and somebody has touched the task."""
        self.touched = self._cancel_now = False
        self._requests = 0
        told = self._told
        if self._observed and told is not None and not told.done():
            if exception is not None and not isinstance(exception, Exception):
                # KeyboardInterrupt and the like are the greenlet's, not the loop's
                exception = asyncio.CancelledError()
            told.set_result((exception, result))

    def _observe(self) -> None:
        """Somebody waits for it: it has to end with the await that is under way."""
        if not self._observed:
            self._observed = self.touched = True
            self.real()
            super().add_done_callback(_seen)
            if self.awaiting is None:
                self.settle(None, None)

    @property
    def ended(self) -> bool:
        """Whether it has really ended, so that the greenlet needs another one."""
        return self._told is not None and self._told.done()

    def cancel_next(self, error: BaseException) -> None:
        """What was to be cancelled goes on already: cancel what comes next."""
        if self.awaiting is not None:
            self._cancel_now = True
            self._cancel_message = error.args[0] if error.args else None

    # -- what asyncio and its users ask -------------------------------------------------------------

    def cancel(self, msg: Any = None) -> bool:
        """Raise CancelledError in the coroutine that is awaited. False if there is none."""
        if self.awaiting is None:
            return False
        self.touched = True
        self._requests += 1
        if self._waits_for is not None:
            if self._waits_for.cancel(msg):
                return True
        elif self.blocking is not None and self.blocking.interrupt(msg):
            return True
        self._cancel_now = True
        self._cancel_message = msg
        return True

    def cancelling(self) -> int:
        """How often it was cancelled, less what was taken back."""
        return self._requests

    def uncancel(self) -> int:
        """Take back one cancellation; returns how many are left."""
        if self._requests:
            self._requests -= 1
            if not self._requests:
                self._cancel_now = False
        return self._requests

    def done(self) -> bool:
        """False while something is awaited."""
        return self.awaiting is None

    def cancelled(self) -> bool:
        """Whether it has ended by being cancelled."""
        return self.awaiting is None and self._told is not None and super().cancelled()

    def add_done_callback(self, fn: Any, *, context: Context | None = None) -> None:
        """Have ``fn(task)`` called when what is awaited now has ended."""
        self._observe()
        super().add_done_callback(fn, context=copy_context() if context is None else context)

    def remove_done_callback(self, fn: Any) -> int:
        """Take back :meth:`add_done_callback`."""
        return super().remove_done_callback(fn) if self._told is not None else 0

    def result(self) -> Any:
        """The result of what was awaited, if somebody has waited for that."""
        self._observe()
        return super().result()

    def exception(self) -> BaseException | None:
        """The exception of what was awaited, if somebody has waited for that."""
        self._observe()
        return super().exception()

    def __await__(self) -> Generator[Any, Any, Any]:
        self._observe()
        return super().__await__()

    __iter__ = __await__

    def get_loop(self) -> Any:
        """The loop."""
        return self.aio

    def get_name(self) -> str:
        """``GreenletTask-N`` unless assigned."""
        if not self._name:
            self._name = f"GreenletTask-{next(_numbers)}"
        return self._name

    def set_name(self, value: object) -> None:
        """Assign a name."""
        self._name = str(value)

    def get_coro(self) -> Any:
        """What is awaited now."""
        return self.awaiting

    def get_context(self) -> Any:
        """The context of the greenlet."""
        g = self.wait.greenlet
        return None if g is None else g.gr_context

    @property
    def _coro(self) -> Any:
        return self.awaiting

    @property
    def _loop(self) -> Any:
        return self.aio

    @property
    def _fut_waiter(self) -> Any:
        return self._waits_for

    @property
    def _must_cancel(self) -> bool:
        return self._cancel_now

    @property
    def _callbacks(self) -> Any:
        return super()._callbacks if self._told is not None else []

    def get_stack(self, *, limit: int | None = None) -> list[Any]:
        """The frames of what is awaited, as of any task."""
        frames = []
        coroutine = self.awaiting
        while coroutine is not None and getattr(coroutine, "cr_frame", None) is not None:
            frames.append(coroutine.cr_frame)
            coroutine = coroutine.cr_await
        return frames if limit is None else frames[-limit:]

    def __repr__(self) -> str:
        state = "idle" if self.awaiting is None else f"awaiting {self.awaiting!r}"
        return f"<{type(self).__name__} name={self.get_name()!r} {state}>"


def task_of(g: greenlet, engine: Engine) -> GreenletTask:
    """The task of the greenlet ``g`` on the loop of ``engine``."""
    task: GreenletTask | None = g.__dict__.get("_bridge_task")
    if task is None or task.aio is not engine.aio or task.ended:
        task = g.__dict__["_bridge_task"] = GreenletTask(engine)
    return task


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
            try:
                result = _go_on(engine, current, task, coroutine, waits_for)
            finally:
                engine.refs -= 1
                if not task._listed:
                    task.delist()
        if task._cancel_now:
            # as in asyncio: cancelled when there was nothing left to raise it in
            raise _cancelled(task)
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
    task._waits_for = future
    future.add_done_callback(task.wake, context=engine._context)
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
        future.remove_done_callback(task.wake)
        raise
    finally:
        if counts:
            engine.refs -= 1
        task._waits_for = wait.greenlet = wait.target = None
    return future.result()


def _cancelled(task: GreenletTask) -> asyncio.CancelledError:
    task._cancel_now = False
    message, task._cancel_message = task._cancel_message, None
    return asyncio.CancelledError() if message is None else asyncio.CancelledError(message)


def _go_on(engine: Engine, current: greenlet, task: GreenletTask, coroutine: Any, waits_for: Any) -> Any:
    """Wait for what the coroutine has yielded, and take its next steps.

    The loop is shown when this is called, and hidden when it returns or raises.
    """
    aio = engine.aio
    set_running = engine.set_running
    wait = task.wait
    interruption: BaseException | None = None
    shown = True
    try:
        while True:
            error: BaseException | None = None
            if waits_for is not None:
                error = _wait(engine, current, task, waits_for)
            else:
                # asyncio.sleep(0): after all that the loop has to call now, tasks that were made just
                # before, say
                wait.woken = False
                wait.target = None
                wait.greenlet = current
                aio.call_soon(task.wake, None, context=engine._context)
            while error is None:
                try:
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
                    if task._inside:
                        # it is meant for the coroutine: see raise_inside()
                        task._inside = False
                        error = e
                        if waits_for is not None:
                            waits_for.remove_done_callback(task.wake)
                            waits_for.cancel()
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
            task._waits_for = None
            if task._cancel_now and not isinstance(error, asyncio.CancelledError):
                error = _cancelled(task)
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
        wait.greenlet = wait.target = None
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
        task._waits_for = waits_for
        waits_for.add_done_callback(task.wake, context=engine._context)
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


class Blocking:
    """The engine as seen by code that blocks in a coroutine which a greenlet awaits."""

    turns = 0
    #: a socket is never at home here: the loop of the thread is asked for its edges
    edges = None

    def __init__(self, task: GreenletTask) -> None:
        self.task = task
        engine = self.engine = task.engine
        self.aio = engine.aio
        self.ready = engine.ready
        self.arm = engine.arm
        self.call = engine.call
        self.call_at = engine.call_at
        self.cancel = engine.cancel
        self.unready = engine.unready
        self.thread_ident = engine.thread_ident
        self._parked: greenlet | None = None

    @property
    def armed(self) -> bool:
        """As the engine's."""
        return self.engine.armed

    def park(self) -> Any:
        """As the engine's, with loop and task hidden meanwhile."""
        task, engine = self.task, self.engine
        if task._cancel_now:
            raise _cancelled(task)
        self._parked = getcurrent()
        _leave_task(self.aio, task)
        engine.set_running(None)
        try:
            return engine.park()
        finally:
            engine.set_running(self.aio)
            _enter_task(self.aio, task)
            self._parked = None

    to_runner = park

    def interrupt(self, message: Any) -> bool:
        """Raise CancelledError where the code blocks. False: it does not."""
        g = self._parked
        if g is None:
            return False
        error = asyncio.CancelledError() if message is None else asyncio.CancelledError(message)
        self.engine.call(_throw, self, g, error)
        return True

    def await_here(self, awaitable: Any) -> Any:
        """What ``await awaitable`` would give in the coroutine."""
        task, engine = self.task, self.engine
        steps = awaitable if asyncio.iscoroutine(awaitable) else _awaiting(awaitable)
        try:
            waits_for = steps.send(None)
        except StopIteration as e:
            return e.value
        _leave_task(self.aio, task)
        try:
            return _go_on(engine, getcurrent(), task, steps, waits_for)
        finally:
            engine.set_running(self.aio)
            _enter_task(self.aio, task)


def _throw(blocking: Blocking, g: greenlet, error: BaseException) -> None:
    """In the hub."""
    if blocking._parked is g:
        throw_into(g, error)
    else:
        blocking.task.cancel_next(error)


async def _awaiting(awaitable: Any) -> Any:
    return await awaitable


def raise_inside(g: greenlet, exception: Any) -> bool:
    """In the hub: raise what a coroutine has asked for (a Timeout's expiry) where that coroutine waits.

    False if ``g`` awaits none, or runs, or blocks in the middle of its step.
    """
    task: GreenletTask | None = g.__dict__.get("_bridge_task")
    if task is None or task.awaiting is None or task.wait.woken or task.wait.greenlet is not g:
        return False
    task._inside = True
    throw_into(g, exception)
    return True


def is_stepping(g: greenlet) -> bool:
    """True if ``g`` is in the middle of a step of a coroutine that it awaits."""
    task: GreenletTask | None = g.__dict__.get("_bridge_task")
    return task is not None and task.awaiting is not None and asyncio._get_running_loop() is task.aio


def blocking_of(g: greenlet) -> Blocking | None:
    """How code may block in the coroutine of which ``g`` makes a step; None: it may not."""
    task: GreenletTask = g.__dict__["_bridge_task"]
    if not getattr(task.aio.get_task_factory(), "makes_portals", False):
        return None
    if task.blocking is None:
        task.blocking = Blocking(task)
    return task.blocking
