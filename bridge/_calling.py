"""Blocking functions called by coroutines: what ``sync_to_async`` and ``await greenlet`` do.

Theory of operation
===================

A function that a coroutine calls need not block: most look-ups find their connection in the pool, most
locks are free. So it is begun at once, in a fresh greenlet, in the middle of the task's step: loop and task
are hidden, the greenlet runs, and if it ends the coroutine has the result without having been suspended.
Only a greenlet that blocks is left to the hub, and the coroutine awaits its end.

To begin a greenlet outside the drain is safe, as nothing below it on the stack moves (see
:mod:`._aio.entering`); it is *resumed* in the drain only, like all others.

The same for ``await spawn(f)``: a greenlet that is awaited and is the next one to begin is begun then and
there. It would have been the next in the drain, so the order of greenlets stays.

Interruption: who awaits is cancelled, so is the function: CancelledError is raised where it blocks, and its
end awaited, as asyncio does with a task that is awaited. If it ends with another error who awaits gets that.
So it is if a Timeout or a kill ends the wait, but then that goes on, as it does in ``await_``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

from ._aio.entering import begin
from ._core.accelerated import accelerator
from ._core.hub import get_hub, hub_local
from ._core.running import current_task
from ._killing import throw_soon

__all__ = ["Blocked", "begin_if_next", "call", "end_of"]

_get_running_loop = asyncio._get_running_loop


def run_call(*args: Any, **kwargs: Any) -> Any:
    """In the greenlet of a call: make the call."""
    g: Any = getcurrent()
    try:
        value = g.function(*args, **kwargs)
    except GreenletExit as e:
        value = e
    except BaseException as e:
        if g.future is None:
            raise
        _tell(g, e, None)
        return None
    if g.future is None:
        return value
    _tell(g, None, value)
    return None


def _tell(g: Any, exception: BaseException | None, value: Any) -> None:
    future = g.future
    if future.done():
        g.future = exception  # who awaits has been cancelled, and does not know it yet: see _untold()
    elif not future.get_loop().is_closed():
        future.set_result((exception, value))


def _in_frame(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Call what has no frame in Python by itself, on behalf of the compiled ``run_call``.

    A parked greenlet without one is taken by greenlet for one that runs: it does not tell its context, and
    will not end it when it is garbage.
    """
    return function(*args, **(kwargs or {}))


class Call(greenlet):
    """A function on its way."""

    __slots__ = ("function", "future")

    function: Callable[..., Any]
    #: What the coroutine awaits once the function has blocked; its result is a pair (exception, value). If
    #: that was cancelled before the function ended: the exception, or None.
    future: Any

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"<{type(self).__name__} of {name} at {id(self):#x}>"


class Blocked:
    """What :func:`call` returns if the function has blocked: its end is to be awaited."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call


def begin_if_next(g: greenlet) -> None:
    """In a coroutine: begin ``g``, which has been started, if it is the next one in the loop that runs."""
    hub: Any = g.parent
    engine = getattr(hub, "loop", None)
    aio = _get_running_loop()
    if aio is None or engine is None or engine.aio is not aio or engine.stale:
        return
    ready = engine.ready
    if not ready or ready[0] is not g:
        return
    ready.popleft()
    g.parent = getcurrent()  # where a greenlet comes out that ends at once
    try:
        begin(engine, aio, current_task(aio), g, (), {})
    finally:
        if not g.dead:
            g.parent = hub


def call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """In a coroutine: call a blocking function in a greenlet, in a copy of the context.

    Returns its result; or a :class:`Blocked` if it has blocked.
    """
    hub: Any = hub_local.hub
    engine: Any = None if hub is None else hub.loop
    aio = None if engine is None else engine.aio
    task = None if aio is None else current_task(aio)  # if there is one this is the loop that runs
    if task is None or (engine.owned and not engine.running):
        hub, engine, aio, task = _find_place()
    g: Any = Call()
    g.function = function
    g.future = None
    g.gr_context = copy_context()
    try:
        value = begin(engine, aio, task, g, args, kwargs)
    finally:
        if not g.dead:
            g.parent = hub  # where it ends now
    return value if g.dead else Blocked(g)


def _find_place() -> tuple[Any, Any, Any, Any]:
    """The hub, its engine, the loop and the current task where a coroutine calls; if it is not as usual."""
    aio = _get_running_loop()
    hub = get_hub()
    return hub, hub.loop, aio, None if aio is None else current_task(aio)


async def end_of(blocked: Blocked) -> Any:
    """Await the end of a call that has blocked; return its result."""
    g = blocked.call
    future = g.future = _get_running_loop().create_future()  # type: ignore[union-attr]
    try:
        exception, value = await future
    except GeneratorExit:
        raise  # the coroutine is closed, and may not wait for anything
    except BaseException as e:
        exception = _untold(g, future)
        if not g.dead:
            exception = await _cancel(g, e)
        if exception is None or isinstance(exception, asyncio.CancelledError):
            raise
        # an error of its own, which nobody else would get to know
        if not isinstance(e, asyncio.CancelledError):
            get_hub().handle_error(g, type(exception), exception, exception.__traceback__)
            exception = None
            raise
    if exception is None:
        return value
    g.future = None
    try:
        raise exception
    finally:
        del exception, future  # its traceback refers to this frame: no cycle through it


async def _cancel(g: Call, interruption: BaseException) -> BaseException | None:
    """Have the function end, as who awaits it is interrupted; returns the error that it ends with."""
    exception: BaseException | None = None
    while not g.dead:
        future = g.future = _get_running_loop().create_future()  # type: ignore[union-attr]
        cancelled = isinstance(interruption, asyncio.CancelledError)
        throw_soon(g, asyncio.CancelledError(*interruption.args) if cancelled else asyncio.CancelledError())
        try:
            exception, _value = await future
        except GeneratorExit:
            raise
        except BaseException as again:  # a second interruption cancels again, the first one goes on
            exception = _untold(g, future)
            interruption = again
    return exception


def _untold(g: Call, future: Any) -> BaseException | None:
    """The error with which a function has ended, if its awaiter was interrupted before it was told of it."""
    exception: BaseException | None = None
    if future.cancelled():
        if g.dead:
            exception, g.future = g.future, None
    elif future.done():
        exception = future.result()[0]
    return exception


if not TYPE_CHECKING and (_compiled := accelerator("_driving", "bridge._aio")) is not None:
    Blocked = _compiled.Blocked
    call = _compiled.call
    run_call = _compiled.run_call
    _compiled.use_calls(Call, _find_place, GreenletExit, _in_frame)

# no method: as what a class has it is found without binding it, and without a frame if it is compiled
Call.run = staticmethod(run_call)  # type: ignore[method-assign]
