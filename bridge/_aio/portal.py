"""Portals: blocking code called directly inside a coroutine.

Theory of operation
===================

A portal runs a coroutine in a greenlet of its own. The task steps the portal as it would step the
coroutine; each step switches to that greenlet, and what the coroutine yields (a future) is switched back
and yielded to the task. When code below the coroutine blocks (:class:`bridge._core.waiting.Wait`), the
portal yields a future that the wake-up will set: for the task it is as if the coroutine had written
``await future`` there. So other tasks go on, cancelling the task raises CancelledError where the code
blocks, and ``asyncio.timeout``, current task and context are those of the task.

Who may switch to whom: the greenlet that runs the loop switches to the portal's greenlet, only in a step of
its task; whoever is inside the portal (a foreign greenlet below it, too) switches back to the greenlet that
made the step. The hub's ready queue never holds greenlets of a portal.

To :class:`Wait` the portal has the face of an engine: ``park``, ``ready.append``, ``call_at`` and so on. A
wait made in a portal thus needs no branches of its own.

The way not taken: a second greenlet that goes on running the loop while the first is parked in the middle
of a step would cost nothing until something blocks, but a loop is not re-entrant, uvloop's least of all.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from _thread import get_ident
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

from bridge._core.callbacks import Callback
from bridge._core.clock import monotonic
from bridge._core.current import get_hub, set_portal_finder
from bridge._core.engine import Thrown, Timer, register_interrupter

from .blocking import Blocking, blocking_of
from .stepping import PortalBase
from .task import is_stepping

__all__ = ["Portal", "depth_here", "find_portal", "install_task_factory", "portal", "raise_in_portal"]

P = ParamSpec("P")
T = TypeVar("T")


class _PortalGreenlet(greenlet):
    """The greenlet in which a portal's coroutine runs."""

    portal: Portal[Any]


class Portal(PortalBase, Coroutine[Any, Any, T], Generic[T]):
    """A coroutine below which code may block; it is awaited, or given to a task, like the coroutine."""

    #: Never false: a wake-up is seen without arming anything.
    armed = True
    #: No handing over from here: a wait goes straight to :meth:`park`.
    turns = 0
    #: Sockets are registered with the engine of the thread.
    edges = None

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        PortalBase.__init__(self, coroutine)
        # asyncio shows tasks by these. (A __getattr__ would make every access to an attribute slower.)
        self.__name__ = getattr(coroutine, "__name__", type(coroutine).__name__)
        self.__qualname__ = getattr(coroutine, "__qualname__", self.__name__)
        self._future: asyncio.Future[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self.awake = False
        #: what task.cancelling() was before we cancelled the task to interrupt it; -1: we have not
        self._cancelling = -1
        self._depth = 0
        #: the interruption, and its depth, for which what ``await_`` waits for has been cancelled
        self._outer: tuple[Any, int] | None = None
        self.thread_ident = get_ident()
        self.aio: Any = None  # the loop, from the first step on

    # -- stepping: the face of a coroutine ----------------------------------------------------------

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> Any:
        """One step that raises where the coroutine, or the code that blocks below it, waits."""
        if isinstance(typ, BaseException):
            exception = typ
        else:
            exception = val if isinstance(val, BaseException) else typ() if val is None else typ(val)
        if tb is not None:
            exception = exception.with_traceback(tb)
        return self.send(Thrown(exception))

    def close(self) -> None:
        """End the coroutine where it is, with GeneratorExit."""
        if self._greenlet is None or self._finished:
            self._finished = True
            self.coroutine.close()
            return
        try:
            self.throw(GeneratorExit())
        except (GeneratorExit, StopIteration):
            return
        raise RuntimeError(f"{self!r} ignored GeneratorExit")

    def __await__(self) -> Generator[Any, Any, T]:
        # whoever awaits passes the steps on to send(), throw() and close()
        return self  # no generator, but it has all that is asked for

    def __iter__(self) -> Portal[T]:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def _prepare(self, runner: greenlet, value: Any) -> Any:
        """Before a step that is not like the one before it; returns what is to be sent."""
        if self._finished:
            raise RuntimeError("cannot reuse already awaited coroutine")
        self._runner = runner
        if self._greenlet is None:
            self.aio = asyncio.get_running_loop()
            self._task = asyncio.current_task()
            g = self._greenlet = self._inside = _PortalGreenlet(self._run, runner)
            g.portal = self
        elif self._greenlet.parent is not runner:
            self._greenlet.parent = runner
        # the task's context, which asyncio has entered for its steps, is the portal's
        self._inside.gr_context = runner.gr_context
        if self._interruption is not None:
            value = self._interrupted(value)
        return value

    def _interrupted(self, value: Any) -> Any:
        """What is to be sent instead of ``value``, as there is an interruption."""
        (exception, depth), self._interruption = self._interruption, None
        cancelling, self._cancelling = self._cancelling, -1
        if type(value) is Thrown and isinstance(value.exception, asyncio.CancelledError):
            # that somebody has cancelled the task, in the same moment, is more than that a time is over
            if cancelling < 0:
                return value
            task: Any = self._task
            if task.uncancel() > cancelling:  # it was we who cancelled it
                return value
        if depth < self._depth:
            # it is for who awaits: what is awaited is cancelled
            self._outer = exception, depth
            exception = asyncio.CancelledError
        return Thrown(exception() if isinstance(exception, type) else exception)

    def interrupt(self, exception: Any, depth: int = 0) -> None:
        """Have ``exception`` raised inside, wherever the task waits: a Timeout's expiry, a kill.

        ``depth``: what :attr:`depth` was where it is to come out. What is awaited there, by ``await_``, is
        cancelled, and has ended when it comes out.
        """
        self._interruption = exception, depth
        if self._future is not None:
            if not self._future.done():
                self._future.set_result(None)
        elif self._task is not None:
            waits_for = getattr(self._task, "_fut_waiter", None)
            if waits_for is not None and not waits_for.done():
                # only a cancellation makes a task stop waiting; the step turns it into the exception
                self._cancelling = self._task.cancelling()
                self._task.cancel()
            # else its step is to come, maybe with a cancellation that is somebody else's

    @property
    def depth(self) -> int:
        """How many ``await_`` are under way, one inside the other."""
        return self._depth

    def _run(self, message: Any) -> Any:
        # With a frame in Python: while it has none greenlet takes a parked greenlet for one that runs, will
        # not have its context set, and will not end it when it is garbage.
        return self._drive(message)

    def _yield(self, value: Any) -> Any:
        """From code below the coroutine: what it waits for goes to the task; returns what that sends."""
        own = self._greenlet
        current = getcurrent()
        if current is own:
            message = self._leave(value)
        else:
            self._inside = current
            try:
                message = self._leave(value)
            finally:
                self._inside = own
        if type(message) is Thrown:
            raise message.exception
        return message

    def await_here(self, awaitable: Any) -> Any:
        """What ``await awaitable`` would give in the coroutine, for code below it that blocks."""
        steps: Any = awaitable if inspect.iscoroutine(awaitable) else awaitable.__await__()
        self._depth += 1
        try:
            return self._await(steps)
        finally:
            self._depth -= 1
            if self._outer is not None:
                # what was awaited has ended, in whatever way: the interruption goes on
                exception, depth = self._outer
                if depth < self._depth:
                    raise asyncio.CancelledError from None
                self._outer = None
                raise exception from None

    def _await(self, steps: Any) -> Any:
        # a plain iterator, as a future of asyncio gives in Python, takes nothing
        send = getattr(steps, "send", None)
        try:
            yielded = next(steps) if send is None else send(None)
            while True:
                try:
                    value = self._yield(yielded)
                except BaseException as e:
                    yielded = steps.throw(e)
                else:
                    yielded = next(steps) if value is None and send is None else steps.send(value)
        except StopIteration as e:
            return e.value

    # -- blocking: the face of an engine ------------------------------------------------------------

    @property
    def ready(self) -> Portal[T]:
        """Where a wait puts itself when it is over: :meth:`append`."""
        return self

    def pause(self) -> None:
        """Let the other tasks and greenlets run, as ``await asyncio.sleep(0)`` does."""
        self._yield(None)

    def park(self) -> Any:
        """Suspend the task until :meth:`append`; raises what is thrown into it meanwhile."""
        try:
            if self.awake:
                self._yield(None)  # as asyncio.sleep(0) does: the task goes on after the others
            else:
                future = self._future = self.aio.create_future()
                future._asyncio_future_blocking = True
                self._yield(future)
        finally:
            self._future = None
            self.awake = False
        return ()

    to_runner = park

    def is_closed(self) -> bool:
        """True if the loop was closed: nothing will ever happen here."""
        return self.aio is not None and bool(self.aio.is_closed())

    def append(self, wait: Any) -> None:
        """A wait of this portal is over (``ready.append``). From any thread."""
        wait.queued = False
        if get_ident() == self.thread_ident:
            self._wake()
        elif not self.aio.is_closed():
            self.aio.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self.awake = True
        future = self._future
        if future is not None and not future.done() and not self.aio.is_closed():
            future.set_result(None)

    def unready(self, g: greenlet) -> None:
        """Nothing is queued for a portal."""

    def call_at(self, when: float, fn: Callable[[Any], object], arg: Any, ref: bool = True) -> Timer:
        """As the engine's: by the loop itself, since the task's loop is what runs here."""
        handle = self.aio.call_later(max(when - monotonic(), 0), fn, arg)
        return [when, handle, fn, arg, ref]

    def cancel(self, timer: Timer) -> bool:
        """As the engine's."""
        if timer[1].cancelled():
            return False
        timer[1].cancel()
        return True

    def call(self, callback: Callable[..., Any], *args: Any) -> Callback:
        """As the engine's: in the hub."""
        return get_hub().loop.call(callback, *args)

    # -- looking like a coroutine ------------------------------------------------------------------

    @property
    def cr_frame(self) -> Any:
        """The frame of the coroutine."""
        return getattr(self.coroutine, "cr_frame", None)

    @property
    def cr_code(self) -> Any:
        """The code of the coroutine."""
        return getattr(self.coroutine, "cr_code", None)

    @property
    def cr_running(self) -> bool:
        """Whether the coroutine runs at the moment."""
        return bool(getattr(self.coroutine, "cr_running", False))

    @property
    def cr_suspended(self) -> bool:
        """Whether it waits in the middle."""
        return self._greenlet is not None and not self._finished and not self.cr_running

    @property
    def cr_origin(self) -> Any:
        """Where the coroutine was made, if asyncio's debug mode tells."""
        return getattr(self.coroutine, "cr_origin", None)

    @property
    def cr_await(self) -> Any:
        """What the coroutine awaits."""
        return getattr(self.coroutine, "cr_await", None)

    def __repr__(self) -> str:
        return f"<portal of {self.coroutine!r}>"


def find_portal(current: greenlet) -> Portal[Any] | Blocking | None:
    """Where ``current`` may block although a loop is running: a portal, or a coroutine that a greenlet
    awaits.

    It, or a greenlet above it, is a portal's, or takes the steps of a coroutine.
    """
    g: greenlet | None = current
    while g is not None:
        if type(g) is _PortalGreenlet:
            return g.portal
        if is_stepping(g):
            # the coroutine is this greenlet's: a portal in whose step it was begun is not this one's
            return blocking_of(g)
        g = g.parent
    return None


def raise_in_portal(g: greenlet, exception: Any, depth: int = 0) -> bool:
    """In the hub: raise ``exception`` in the portal that ``g`` is in; False if it is in none."""
    found = find_portal(g)
    if not isinstance(found, Portal):
        return False
    found.interrupt(exception, depth)
    return True


def depth_here() -> int:
    """How many ``await_`` are under way in the portal where we are, see :meth:`Portal.interrupt`; else 0."""
    found = find_portal(getcurrent())
    return found.depth if isinstance(found, Portal) else 0


set_portal_finder(find_portal)
register_interrupter(raise_in_portal)


def portal(async_func: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorator for a coroutine function: blocking code may be called directly inside it.

    Other tasks go on while it blocks. TypeError for anything but a coroutine function. Costs a greenlet for
    each call.
    """
    if not inspect.iscoroutinefunction(async_func):
        raise TypeError(
            f"@bridge.portal is for 'async def' functions, not {async_func!r}; a plain function is run in a "
            "coroutine by 'await bridge.sync_to_async(func)(...)'"
        )

    @functools.wraps(async_func)
    async def in_portal(*args: P.args, **kwargs: P.kwargs) -> T:
        if find_portal(getcurrent()) is not None:
            return await async_func(*args, **kwargs)
        return await Portal(async_func(*args, **kwargs))

    return in_portal


def install_task_factory(loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Make every task that ``loop`` creates from now on a portal: it may block anywhere.

    ``loop``: the running one if None (RuntimeError if none runs). A task factory that is installed already
    goes on making the tasks. TypeError for what is no loop.
    """
    if loop is None:
        loop = asyncio.get_running_loop()
    elif not hasattr(loop, "set_task_factory"):
        raise TypeError(f"install_task_factory() takes a loop, or None for the running one, not {loop!r}")
    before = loop.get_task_factory()
    if getattr(before, "makes_portals", False):
        return

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        if not isinstance(coro, Portal) and isinstance(coro, Coroutine):
            coro = Portal(coro)
        if before is not None:
            return before(loop, coro, **kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)

    factory.makes_portals = True  # type: ignore[attr-defined]
    loop.set_task_factory(factory)
