"""Blocking in the middle of the step of a coroutine that a greenlet awaits.

Where coroutines may block (under a task factory that makes portals), those that a greenlet awaits may as
well: the greenlet waits, with loop and task hidden. :class:`Blocking` has the face of the engine for that.
"""

from __future__ import annotations

import asyncio
from asyncio import _enter_task, _leave_task
from typing import Any

from greenlet import getcurrent, greenlet

from bridge._core.engine import throw_into

from .driving import go_on
from .task import GreenletTask, cancelled

__all__ = ["Blocking", "blocking_of"]


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
            raise cancelled(task)
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
            begun = [steps.send(None), None, None]
        except StopIteration as e:
            return e.value
        _leave_task(self.aio, task)
        try:
            return go_on(engine, getcurrent(), task, steps, begun)
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


def blocking_of(g: greenlet) -> Blocking | None:
    """How code may block in the coroutine of which ``g`` makes a step; None: it may not."""
    task: GreenletTask = g.__dict__["_bridge_task"]
    if not getattr(task.aio.get_task_factory(), "makes_portals", False):
        return None
    blocking: Blocking | None = task.blocking
    if blocking is None:
        blocking = task.blocking = Blocking(task)
    return blocking
