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

What is awaited is therefore an :class:`End`, which hands a cancellation on to the greenlet and is not done
before that has ended. The exception gets there before the wake-up that may be on its way: the wait is undone,
and what it was for is somebody else's. If the coroutine were told first, and did the rest, the function could
return an item meanwhile, or have a permit, that nobody would ever get to know of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

from ._aio.entering import begin
from ._core.accelerated import accelerator
from ._core.engine import throw_into
from ._core.hub import get_hub, hub_local
from ._core.running import current_task
from ._killing import hub_of

__all__ = ["Blocked", "End", "begin_if_next", "call", "end_of", "interrupted"]

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
        _tell(g.future, e, None)
        return None
    if g.future is None:
        return value
    _tell(g.future, None, value)
    return None


def _tell(future: Any, exception: BaseException | None, value: Any) -> None:
    if not future.done() and not future.get_loop().is_closed():
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
    #: what the coroutine awaits once the function has blocked; its result is a pair (exception, value)
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


class _Cancellations:
    """An entry of the ready queue: cancels greenlets, in the order in which that was asked for."""

    __slots__ = ("ends", "ready")

    def __init__(self, ready: Any) -> None:
        self.ready = ready
        self.ends: deque[End] = deque()

    def switch(self) -> Any:
        """From the hub: raise in the next one."""
        end = self.ends.popleft()
        if self.ends:
            self.ready.appendleft(self)
        error, end.on_its_way = end.on_its_way, None
        g = end.greenlet
        return () if g is None or g.dead or error is None else throw_into(g, error)


class End(asyncio.Future[Any]):
    """The end of a greenlet, as a coroutine awaits it: to cancel this is to cancel the greenlet."""

    #: None: it has ended, and who awaits knows
    greenlet: Any
    #: with what it was last cancelled: the arguments of CancelledError
    cancelled_with: tuple[Any, ...] | None = None
    on_its_way: asyncio.CancelledError | None = None

    def __init__(self, g: Any, aio: Any) -> None:
        super().__init__(loop=aio)
        self.greenlet = g

    def cancel(self, msg: Any = None) -> bool:
        """Have CancelledError raised where the greenlet blocks, before anything else runs."""
        if self.done():
            return False
        args = self.cancelled_with = () if msg is None else (msg,)
        if self.on_its_way is not None:
            return True
        error = asyncio.CancelledError(*args)
        g = self.greenlet
        kill_unstarted = getattr(g, "_maybe_kill_before_start", None)
        if kill_unstarted is not None:
            g._quiet = True
            if kill_unstarted(error):
                return True
        self.on_its_way = error
        loop = hub_of(g).loop
        first = loop.ready[0] if loop.ready else None
        if type(first) is not _Cancellations:
            first = _Cancellations(loop.ready)
            loop.ready.appendleft(first)
        first.ends.append(self)
        if not loop.armed:
            loop.arm()
        return True

    def interruption(self) -> asyncio.CancelledError | None:
        """What is to be raised in who has awaited this."""
        args = self.cancelled_with
        return None if args is None else asyncio.CancelledError(*args)


async def interrupted(end: End) -> None:
    """An exception has come out of the await of ``end``: cancel the greenlet and wait for its end."""
    if end.cancelled_with is None:
        end.cancel()
    while not end.done() and end.get_loop() is _get_running_loop():
        try:
            await end
        except GeneratorExit:
            raise
        except BaseException:
            pass  # the first one goes on


async def end_of(blocked: Blocked) -> Any:
    """Await the end of a call that has blocked; return its result."""
    g = blocked.call
    end = g.future = End(g, _get_running_loop())
    interruption: BaseException | None
    try:
        exception, value = await end
        interruption = end.interruption()
    except GeneratorExit:
        raise  # the coroutine is closed, and may not wait for anything
    except BaseException as e:
        interruption = e
        await interrupted(end)
        exception, value = end.result() if end.done() else (None, None)
    g.future = end.greenlet = None  # no cycle
    if interruption is None and exception is None:
        return value
    try:
        if interruption is None:
            raise exception
        if exception is None or isinstance(exception, asyncio.CancelledError):
            raise interruption
        # an error of its own, which nobody else would get to know
        if isinstance(interruption, asyncio.CancelledError):
            raise exception
        get_hub().handle_error(g, type(exception), exception, exception.__traceback__)
        raise interruption
    finally:
        del exception, interruption, end  # their tracebacks refer to this frame: no cycle through it


if not TYPE_CHECKING and (_compiled := accelerator("_driving", "bridge._aio")) is not None:
    Blocked = _compiled.Blocked
    call = _compiled.call
    run_call = _compiled.run_call
    _compiled.use_calls(Call, _find_place, GreenletExit, _in_frame)

# no method: as what a class has it is found without binding it, and without a frame if it is compiled
Call.run = staticmethod(run_call)  # type: ignore[method-assign]
