"""Entering greenlets at once: out of a callback of the loop, or in the middle of a task's step.

Theory of operation
===================

Mostly a greenlet goes on when the drain comes to it. That is a callback more, a look at the clock, at the
timers and at the sockets, a question whether anything is left to do, and the running loop is hidden and shown
once more. Where nothing else is ready it can be switched to there and then, as nobody is overtaken:

- :func:`enter`, in a callback of the loop (a safe point, as the drain itself is one), when what the greenlet
  has awaited is done;
- :func:`begin`, in a coroutine's step, for a greenlet that starts. Nothing below it on the stack moves.

While it runs, "back to the hub" (``engine.to_runner``) means back to the greenlet that has entered it, and
nothing is handed over to others (``engine.turns``). Both hold for greenlets that it starts as well, which
run later, in a drain. What else has become ready meanwhile, and what only a drain decides (the next timer,
whether anything is left to wait for), is left to a drain right after it.

*Shown* is what is passed from one side to the other when the loop is not hidden at the switch: a greenlet
that is entered to take the next step of a coroutine wants to see the loop, and one that goes back in the
middle of a coroutine leaves it as it is. It may do so if ``engine.entered`` is this very greenlet.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import _enter_task, _leave_task
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

from bridge._core import running
from bridge._core.accelerated import accelerator

__all__ = ["SHOWN", "Wakeup", "begin", "enter"]

#: Passed by a switch: the running loop is not hidden.
SHOWN: Any = object()

_switch_of = greenlet.switch.__get__
_is_active = greenlet.__bool__



def enter(engine: Any, g: greenlet) -> bool:
    """In a callback of the loop, where no drain is armed: switch to ``g``, which gets SHOWN.

    False if nothing was done: a watcher wants to see drains.
    """
    # as it is not armed nothing is ready, and no drain is under way or to come
    if engine.before or engine.after or engine.on_idle is not None:
        return False
    heap = engine.heap
    first = heap[0] if heap else None
    owned = engine.owned
    before = engine.to_runner
    if not owned:
        # else it is the hub that runs the loop, and takes our place as in any drain
        runner = getcurrent()
        hub = engine.error_handler
        if not _is_active(hub):
            return False  # it has not begun, and could not take the end of a greenlet: a drain begins it
        if hub.parent is not runner:
            hub.parent = runner
        engine.to_runner = _switch_of(runner)
    engine.armed = engine.draining = True
    engine.entered = g
    engine.turns = 0
    came: Any = None
    try:
        came = g.switch(SHOWN)
    except BaseException as e:
        if owned:
            _failed(engine, g, e)
        else:
            # thrown into the greenlet that runs the loop: the errors of others come out in the hub
            engine.to_runner = before
            engine.draining = False
            engine.entered = None
            engine.set_running(engine.aio)
            engine.arm()
            raise
    engine.to_runner = before
    engine.draining = False
    engine.entered = None
    if came is not SHOWN:
        engine.set_running(engine.aio)
    if (
        engine.ready
        or engine.stopping
        or (engine.refs <= 0 and engine.owned)
        or (heap and heap[0] is not first)
    ):
        # something that only a drain deals with; else the alarm stands for the first timer as it did
        del g, came  # not to be kept by this frame
        engine.entry()
        return True
    engine.armed = False
    if engine.ready:  # appended by another thread in between
        engine.arm()
    return True


class Wakeup:
    """What the future that a greenlet waits for is told to call when it is done.

    In a callback of the loop, a safe point: the greenlet goes on at once, unless others are ready before it.

    :param wait: the wait that it ends, of a greenlet, in an engine.
    """

    __slots__ = ("future", "stale", "wait")

    def __init__(self, wait: Any) -> None:
        self.wait = wait
        #: what is waited for; None: nothing, or the next round of the loop
        self.future: Any = None
        #: how many rounds are still to come for which nobody waits any more, as the wait was interrupted
        self.stale = 0

    def __call__(self, future: Any = None) -> None:
        if self.stale and future is None:
            self.stale -= 1
            return
        wait = self.wait
        if wait.woken or future is not self.future:
            return  # one that an interruption has put an end to
        wait.woken = True
        engine = wait.engine
        if wait.queued:
            wait.target = wait.greenlet
        elif engine.armed or not enter(engine, wait.greenlet):
            wait.queued = True
            wait.target = wait.greenlet
            engine.ready.append(wait)
            if not engine.armed:
                engine.armed = True
                engine.entry()


def _failed(engine: Any, g: greenlet, error: BaseException) -> None:
    """As in the drain."""
    if isinstance(error, GreenletExit):
        engine.stopping = True  # thrown into the hub itself (a raw greenlet turns its own into a value)
    else:
        engine.handle_error(g, type(error), error, error.__traceback__)


def begin(engine: Any, aio: Any, task: Any, g: greenlet, args: Any, kwargs: Any) -> Any:
    """In a step of ``task``: start ``g``, a child of the current greenlet; returns what it comes back with.

    ``task`` is None where a coroutine is stepped otherwise than by a task. ``args`` and ``kwargs``
    are for the function of ``g``.
    """
    to_runner, turns, draining, entered = engine.to_runner, engine.turns, engine.draining, engine.entered
    engine.to_runner = _switch_of(getcurrent())
    engine.turns = 0
    engine.draining = True
    engine.entered = g
    if task is not None:
        _leave_task(aio, task)
    engine.set_running(None)
    came: Any = None
    try:
        came = g.switch(*args, **kwargs)
        return came
    finally:
        if came is not SHOWN:
            engine.set_running(aio)
        if task is not None:
            _enter_task(aio, task)
        engine.to_runner, engine.turns, engine.draining, engine.entered = to_runner, turns, draining, entered
        if engine.ready and not engine.armed:
            engine.arm()  # greenlets rely on a drain that goes on when they leave it


# the twin is for a compiled engine, whose structures it knows
if not TYPE_CHECKING and (_compiled := accelerator("_driving", __package__)) is not None:
    Wakeup = _compiled.Wakeup
    begin = _compiled.begin
    # since 3.14 that dictionary belongs to asyncio's twin in Python alone: a thread knows its current task
    _tasks = getattr(asyncio.tasks, "_current_tasks", None) if sys.version_info < (3, 14) else None
    if type(_tasks) is not dict or type(_enter_task) is not BuiltinFunctionType:
        _tasks = None  # what the current task is, is kept in another way
    _compiled.use_loops(
        running.set_running, running.current_task, _enter_task, _leave_task, _tasks, SHOWN, _failed
    )
