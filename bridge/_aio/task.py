"""The task of a greenlet: what a coroutine that a greenlet awaits sees as the current task.

Theory of operation
===================

A greenlet takes the steps of what it awaits itself (see :mod:`.driving`); asyncio's task for each coroutine
would cost two steps, a callback and three times as much.

*For the coroutine* all is as in a task. What code does with ``current_task()`` is cancel it, count its
cancellations, name it, and wait for it: timeouts, task groups, cancel scopes. Cancelling goes to what the
coroutine waits for, or is raised at its next step, by the rules of asyncio.Task.

*One object for all that G awaits*, as making one costs as much as the rest. It counts as done between two
awaits. Should anybody have waited for it (``asyncio.run`` does at its end, after cancelling) it really ends
with the await that is under way, and G gets another one. The task below, asyncio's own, is only made when
it is needed: it runs :class:`_StandIn`, which waits to be told how that await has ended. Invariant:
whatever asyncio could ask the task below is answered by a method here, which makes it first.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import _register_task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from itertools import count
from typing import Any
from weakref import ref

from greenlet import greenlet

from bridge._core.engine import Engine, throw_into
from bridge._core.waiting import Wait

from .entering import Wakeup

__all__ = ["REFERENCES", "GreenletTask", "cancelled", "is_stepping", "raise_inside", "seen", "task_of"]

_numbers = count(1)

#: Since 3.14 all_tasks() does not ask a task whether it is done: it has to be told.
_unregister: Callable[[Any], object] | None = None
#: Before, what all_tasks() looks at: the references of a set of weak references.
REFERENCES: Any = None
if sys.version_info >= (3, 14):
    _unregister = asyncio._unregister_task
else:
    REFERENCES = getattr(
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


def seen(future: asyncio.Future[Any]) -> None:
    """A callback of a future: asyncio need not say that nobody has got its exception."""
    if not future.cancelled():
        # a GreenletTask's own method would make it be waited for
        ask: Any = asyncio.Task.exception if isinstance(future, asyncio.Task) else type(future).exception
        ask(future)


class GreenletTask(asyncio.Task):  # type: ignore[type-arg]
    """The current task of coroutines that one greenlet awaits. See above."""

    # what is not here is mostly as the class has it
    __slots__ = (
        "_cancel_now",
        "_listed",
        "_reference",
        "_told",
        "aio",
        "awaiting",
        "engine",
        "touched",
        "wait",
        "wakeup",
    )

    #: For the engine: only the greenlet can end it. So the end of the loop does not wait for it, and it need
    #: not tell when what is awaited has ended, as the greenlet runs then.
    of_greenlet = True

    #: what is being awaited now, the outermost; None between two awaits
    awaiting: Any
    #: somebody has cancelled it, waits for it, or has asked for more than whether it is done
    touched: bool
    #: see :mod:`.blocking`
    blocking: Any = None  # asyncio.Task has a dictionary for it
    _told: asyncio.Future[Any] | None
    _reference: ref[GreenletTask] | None
    _cancel_now: bool
    _cancel_message: Any = None
    _observed = False
    _inside = False
    _requests = 0
    _name = ""

    def __init__(self, engine: Engine) -> None:
        # not super().__init__(): see real(). (The compiled twin of driving does the same by itself.)
        self.engine = engine
        self.aio = engine.aio
        self.awaiting = self._told = self._reference = None
        self.touched = self._listed = self._cancel_now = False
        wait = self.wait = Wait.__new__(Wait)
        wait.engine = engine
        wait.greenlet = wait.target = None
        wait.woken = wait.dead = wait.timed_out = wait.queued = wait.away = False
        self.wakeup = Wakeup(wait)

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
            REFERENCES.add(self._reference)
            return
        else:
            self._listed = True  # for good: while it is done all_tasks() leaves it out
        _register_task(self)

    def delist(self) -> None:
        """Take back :meth:`enlist`."""
        if _unregister is not None:
            _unregister(self)
        else:
            REFERENCES.discard(self._reference)

    # -- for driving --------------------------------------------------------------------------------

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
            super().add_done_callback(seen)
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
        future = self.wakeup.future
        if future is not None:
            if future.cancel(msg):
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
        return self.wakeup.future

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


def cancelled(task: GreenletTask) -> asyncio.CancelledError:
    """What is raised in the coroutine at its next step, by :meth:`GreenletTask.cancel`."""
    task._cancel_now = False
    message, task._cancel_message = task._cancel_message, None
    return asyncio.CancelledError() if message is None else asyncio.CancelledError(message)


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
