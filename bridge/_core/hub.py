"""The hub: the greenlet of a thread in which its asyncio loop runs, or that drains for a loop run by others.

Theory of operation
===================

*Owned.* A plain program blocks for the first time: its greenlet switches to the hub, a child of the
thread's main greenlet, and the hub calls ``loop.run_forever()``. The ready queue is drained in the hub.

*Adopted.* A loop is running already (``asyncio.run``, uvicorn, Jupyter). Then that loop's callback
switches to the hub for the length of one drain, and back. So in both modes the hub is the parent of every
greenlet, the greenlet in which callbacks run, and the one that a blocking greenlet may fall back to.
The greenlet that runs an adopted loop is the hub's parent, as the main greenlet is in owned mode;
KeyboardInterrupt and SystemExit are thrown there.

*One hub for each thread and loop.* A hub keeps its loop for life. When coroutines of another loop ask
for the hub, a new one adopts that loop; greenlets of a loop that was closed are abandoned with their hub,
which is told to end when the next one is wanted, or at the end of the thread.
A loop that was left open when its ``run()`` returned becomes the hub's own as soon as somebody blocks.

Switching straight from the loop's callback to the greenlets, without a hub greenlet in adopted mode,
would save one switch each way for each round; but then callbacks would run in the greenlet of the
coroutines, ``getcurrent() is get_hub()`` would not hold in them, and a dying greenlet's parent would
depend on the mode.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from _thread import get_ident
from asyncio import CancelledError, _get_running_loop
from collections.abc import Callable
from typing import Any, ClassVar

from greenlet import GreenletExit, getcurrent, greenlet

from bridge._ident import IdentRegistry

from . import current
from .census import all_greenlets
from .clock import monotonic
from .current import (
    MAIN_THREAD_IDENT,
    blocking_place,
    get_hub,
    get_hub_class,
    get_hub_if_exists,
    get_loop,
    hub_local,
    of_thread,
    set_default_hub_class,
    set_hub,
    set_loop,
)
from .errors import BlockingSwitchOutError, HubDestroyed, InvalidSwitchError, LoopExit
from .loop import loop as Loop
from .running import current_task
from .seconds import checked_seconds
from .switching import use_hubs
from .waiter import Waiter
from .waiting import Wait

__all__ = [
    "Hub",
    "blocking_place",
    "get_hub",
    "get_hub_class",
    "get_hub_if_exists",
    "get_loop",
    "hub_local",
    "of_thread",
    "set_default_hub_class",
    "set_hub",
    "set_loop",
]


class Hub(greenlet):
    """The greenlet that runs, or drains for, the event loop of its thread."""

    __slots__ = ("loop",)  # asked for at each wait; the rest is in a dictionary

    #: Exceptions that are raised in the main greenlet, wherever they occur.
    SYSTEM_ERROR: Any = (KeyboardInterrupt, SystemExit, SystemError)
    #: Exceptions that are not printed. To be cancelled is no error, in asyncio neither.
    NOT_ERROR: Any = (GreenletExit, SystemExit, CancelledError)

    #: Size of the thread pool.
    threadpool_size = 10

    name = ""
    loop: Loop
    dead: bool
    #: the thread this hub belongs to
    thread_ident: int
    main_hub: bool | None = None
    periodic_monitoring_thread: Any = None
    _resolver: Any = None
    _threadpool: Any = None
    #: In a forked child: the hub that has taken our place. Ours is parked in the parent's loop, for ever, and
    #: switching to it would run that loop; but the program may have kept it.
    _heir: Hub | None = None
    #: gives hubs their minimal_ident
    _hub_idents: ClassVar[IdentRegistry] = IdentRegistry()
    #: gives the greenlets of this hub theirs
    ident_registry: IdentRegistry

    def __init__(self, loop: Loop | None = None, default: bool | None = None) -> None:
        greenlet.__init__(self, None, None)
        self.thread_ident = get_ident()
        self._closing = False
        self._in_drain = False  # of an adopted loop, and out of it by an exception
        self._joining: list[Any] = []
        self.spawning_greenlet: Callable[[], greenlet | None] = weakref.ref(getcurrent())
        self.spawn_tree_locals: dict[str, Any] = {}
        self.ident_registry = IdentRegistry()
        if loop is None:
            loop, of_thread.loop_of_new = of_thread.loop_of_new, None
        if loop is None:
            from bridge._config import config

            is_default = self.thread_ident == MAIN_THREAD_IDENT if default is None else default
            loop = config.loop(default=is_default)
        self.loop = loop
        if loop.owned:
            self.main_hub = loop.default
        loop.error_handler = self
        # from here on a greenlet that blocks falls back to us, running or not
        self._switch = super().switch
        loop.to_runner = self._switch

    # -- switching --------------------------------------------------------------------------------

    def run(self) -> None:
        """What the hub greenlet does; entered by the first switch to it."""
        self._start_configured_monitor()
        try:
            while not self._closing:
                if self.loop.owned:
                    self._run_owned()
                else:
                    self._drain_adopted()
        except GreenletExit:
            # thrown in by destroy() or _retire()
            pass

    def _run_owned(self) -> None:
        loop = self.loop
        error: BaseException | None = None
        try:
            loop.run_owned()
        except GreenletExit:
            raise
        except BaseException as e:
            # callbacks have their errors handled: this was raised by a signal handler
            error = e
        parent = self.parent
        assert parent is not None
        if self._closing:
            return
        if isinstance(error, KeyboardInterrupt | SystemExit):
            parent.throw(error)
        elif error is not None:
            self.handle_error(None, type(error), error, error.__traceback__)
        elif loop.ready:
            return  # work arrived while the loop was stopping: go round again
        elif self._joining:
            joining, self._joining = self._joining, []
            for wait in joining:
                wait.wake()
        else:
            parent.throw(LoopExit("This operation would block forever", self, _blocked_where(self)))

    def _drain_adopted(self) -> None:
        loop: Any = self.loop
        if loop.entered is None:
            try:
                loop.drain()
            except GreenletExit:
                raise
            except Exception:
                loop.go_on_after_error()
            except BaseException as e:
                # KeyboardInterrupt: for who runs the loop, which may run again
                loop.armed = False
                loop.arm()
                self.parent.throw(e)  # type: ignore[union-attr]
                return
            if loop.stopping:
                self._closing = True
                return
        back: Any = self.parent.switch if loop.entered is None else loop.to_runner  # type: ignore[union-attr]
        while True:
            try:
                back()
            except GreenletExit:
                raise
            except BaseException:
                if loop.entered is None:
                    raise
                loop.handle_error(loop.entered, *sys.exc_info())
            if loop.entered is None:
                return  # it is another drain
            # a greenlet of ours has ended that was entered without one: it is for who has entered it to go on
            back = loop.to_runner

    def _enter(self) -> None:
        """The adopted loop's callback: hide the loop, drain in the hub, show the loop again."""
        loop = self.loop
        if loop.owned:
            return  # left over from before the loop became ours: the hub itself is who runs it
        try:
            runner = getcurrent()
            if self.parent is not runner:
                self.parent = runner
            loop.set_running(None)
        except BaseException:
            # of a signal handler, or there was no memory: another one shall do it
            loop.armed = False
            loop.arm()
            raise
        if self._in_drain:
            self._in_drain = False
            loop.draining = True
        try:
            self._switch()
        finally:
            loop.set_running(loop.aio)
            if loop.draining:
                # Left by an exception thrown into our greenlet: the hub stands in the middle of the drain,
                # which is to go on later. Until then nobody drains.
                loop.draining = False
                self._in_drain = True
                loop.arm()

    def switch(self, *args: Any, **kwargs: Any) -> Any:
        """Block the current greenlet until somebody switches to it.

        Raises BlockingSwitchOutError in the hub itself and in coroutines, in a portal too: the task of a
        portal is woken by what it waits for (``hub.wait(watcher)``, an Event), it cannot be switched to.

        A greenlet that a task has begun in the middle of a step may go back to that with a value, as
        SQLAlchemy's do: their parent is the greenlet that made the step, and that may be the hub.
        """
        if self._heir is not None:
            return self._heir.switch(*args, **kwargs)
        current = getcurrent()
        switch_out = getattr(current, "switch_out", None)
        if switch_out is not None:
            switch_out()
        if self.loop is not None and self.loop.probe() is not None:
            if args and self._has_begun(current):
                return super().switch(*args, **kwargs)
            if not isinstance(blocking_place(current), Loop):
                raise BlockingSwitchOutError(
                    "hub.switch() was called in a portal: nobody can switch back to the middle of a task. "
                    "Wait by hub.wait(watcher), Waiter.get(), an Event or a Queue"
                )
        # while a coroutine begins a greenlet, what counts as the hub is who made the coroutine's step
        to_runner: Any = super().switch if self.loop is None else self.loop.to_runner
        return to_runner(*args, **kwargs)

    def _has_begun(self, g: greenlet) -> bool:
        """Whether ``g``, the current greenlet, was switched to in a step of a task that the hub makes."""
        if g.parent is not self or current.in_portal(g):
            return False
        task = current_task(_get_running_loop())
        return not getattr(task, "of_greenlet", False)  # else it is ``g`` that makes the step

    def switch_out(self) -> None:
        """Refuse to block in the hub."""
        raise BlockingSwitchOutError("Impossible to call blocking function in the event loop callback")

    def __bool__(self) -> bool:
        return super().__bool__()

    # -- identity ---------------------------------------------------------------------------------

    @property
    def minimal_ident(self) -> int:
        """A small number that identifies the hub while it lives."""
        return self._hub_idents.get_ident(self)

    @property
    def backend(self) -> str:
        """Name of the loop below."""
        return self.loop.backend

    @property
    def aio_loop(self) -> Any:
        """The asyncio loop of this thread.

        Whoever takes it may schedule what the hub cannot see; on a loop that does not list its timers
        (uvloop) the hub then no longer raises LoopExit.
        """
        if not self.loop.shared:
            self.loop.share()
            current.share_loop(self)
        return self.loop.aio

    @property
    def loop_class(self) -> type[Loop]:
        """The class of the hub's loop."""
        return Loop

    def __repr__(self) -> str:
        info = "destroyed" if self.loop is None else self.loop._format()
        mode = "" if self.loop is None or self.loop.owned else " adopted"
        pool = f" threadpool={self._threadpool!r}" if self._threadpool is not None else ""
        resolver = f" resolver={self._resolver!r}" if self._resolver is not None else ""
        return (
            f"<{type(self).__name__} {self.name!r} at {id(self):#x} {info}{mode}{resolver}{pool} "
            f"thread_ident={self.thread_ident:#x}>"
        )

    # -- errors -----------------------------------------------------------------------------------

    def _normalize_exception(self, t: Any, v: Any, tb: Any) -> tuple[Any, Any, Any]:
        if isinstance(v, str):
            v = t(v)
        if v is None and isinstance(t, type):
            v = t()
        return t, v, tb

    def handle_error(self, context: object, type: Any, value: Any, tb: Any) -> None:
        """Take an error that nobody has caught: print it, and raise a system error in the main greenlet.

        May be replaced on the instance. ``context`` is the greenlet, callback or watcher; None for an
        error of the loop itself, which is raised in the main greenlet.
        """
        type, value, tb = self._normalize_exception(type, value, tb)
        if type is HubDestroyed:
            if getcurrent() is self:
                # thrown into the hub by destroy(), and met by a callback that was running: on to its end
                raise value
            self.parent.throw(value)  # type: ignore[union-attr]
            return
        if not issubclass(type, self.NOT_ERROR):
            self.print_exception(context, type, value, tb)
        if context is None or issubclass(type, self.SYSTEM_ERROR):
            self.handle_system_error(type, value, tb)

    def handle_system_error(self, type: Any, value: Any, tb: Any = None) -> None:
        """Raise an exception in the main greenlet (the one that runs an adopted loop)."""
        current = getcurrent()
        parent = self.parent
        # the traceback apart: throw() takes none from the exception
        exception: Any = (type, value, tb)
        assert parent is not None
        if current is self or current is parent or self.loop is None:
            parent.throw(*exception)
            return
        # life may go on after it: this greenlet is to be resumed as well
        loop = self.loop
        loop.make_ready(current)
        parent.throw(*exception)

    def print_exception(self, context: object, t: Any, v: Any, tb: Any) -> None:
        """Print a traceback and which greenlet or callback it comes from to ``exception_stream``."""
        stream = self.exception_stream
        if stream is None:
            return
        import traceback

        t, v, tb = self._normalize_exception(t, v, tb)
        text = "".join(traceback.format_exception(t, v, tb))
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if context is None:
            text += f"{now}\n"
        else:
            if not isinstance(context, str):
                try:
                    context = self.format_context(context)
                except Exception as e:
                    text += "".join(traceback.format_exception(e))
                    context = object.__repr__(context)
            text += f"{now} {context} failed with {getattr(t, '__name__', 'exception')}\n\n"
        try:
            stream.write(text)
        except Exception:
            pass  # stderr is closed or broken: nowhere is left to say it

    @property
    def exception_stream(self) -> Any:
        """Where errors are printed: ``sys.stderr`` unless assigned; None: nowhere."""
        own = self.__dict__.get("_exception_stream", self)
        return sys.stderr if own is self else own

    @exception_stream.setter
    def exception_stream(self, value: Any) -> None:
        self.__dict__["_exception_stream"] = value

    @exception_stream.deleter
    def exception_stream(self) -> None:
        try:
            del self.__dict__["_exception_stream"]
        except KeyError:
            raise AttributeError("exception_stream has not been assigned") from None

    @property
    def format_context(self) -> Callable[[object], str]:
        """How the context of an error is shown."""
        own = self.__dict__.get("_format_context")
        if own is None:
            from bridge._config import config

            own = config.format_context
        return own

    @format_context.setter
    def format_context(self, value: Callable[[object], str]) -> None:
        self.__dict__["_format_context"] = value

    # -- waiting ----------------------------------------------------------------------------------

    def wait(self, watcher: Any) -> None:
        """Block until ``watcher``, which must not be started, has its event."""
        waiter = Waiter(self)
        watcher.start(waiter.switch, waiter)
        try:
            result = waiter.get()
            if result is not waiter:
                raise InvalidSwitchError(
                    f"Invalid switch into {getcurrent()!r}: got {result!r} (expected {waiter!r})"
                )
        finally:
            watcher.stop()

    def cancel_wait(self, watcher: Any, error: Any, close_watcher: bool = False) -> None:
        """Raise ``error`` in the greenlet that waits for ``watcher`` in :meth:`wait`, soon.

        Does not block. A watcher of None is ignored.
        """
        if watcher is None:
            return
        if watcher.callback is not None:
            self.loop.run_callback(self._cancel_wait, watcher, error, close_watcher)
            return
        if close_watcher:
            watcher.close()

    def cancel_waits_close_and_then(self, watchers: Any, exc_kind: Any, then: Any, *then_args: Any) -> None:
        """Cancel the waits for all ``watchers``, close them, and call ``then(*then_args)``; soon."""

        def cancel() -> None:
            try:
                for watcher in watchers:
                    self._cancel_wait(watcher, exc_kind, True)
            finally:
                then(*then_args)

        self.loop.run_callback(cancel)

    def _cancel_wait(self, watcher: Any, error: Any, close_watcher: bool) -> None:
        # the watcher's callback is Waiter.switch: its owner is who waits
        active = watcher.active
        callback = watcher.callback
        if close_watcher:
            watcher.close()
        if active and callback is not None:
            waiting = getattr(callback, "__self__", None)
            if isinstance(waiting, Waiter):
                waiting.throw(error)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left that could happen: no greenlets, timers, watchers, asyncio tasks.

        Blocks the main greenlet, from which alone it may be called. Returns True when nothing is left,
        False after ``timeout`` seconds.
        """
        if self._heir is not None:
            return self._heir.join(timeout)
        if getcurrent() is not self.parent and self.loop.owned:
            raise AssertionError("hub.join() is only possible from the MAIN greenlet")
        if self.dead:
            return True
        deadline = None if timeout is None else monotonic() + checked_seconds(timeout)
        wait = Wait()
        loop = self.loop
        loop.joining += 1
        timer = None
        try:
            self._joining.append(wait)
            if deadline is not None:
                timer = loop.call_at(deadline, Wait._expire, wait, ref=False)
            wait.block()
        except LoopExit:
            return True
        finally:
            loop.joining -= 1
            if timer is not None:
                loop.cancel(timer)
            if wait in self._joining:
                self._joining.remove(wait)
        return not wait.timed_out

    # -- services ---------------------------------------------------------------------------------

    @property
    def resolver_class(self) -> Any:
        """The class of resolver that the configuration names."""
        from bridge._config import config

        return config.resolver

    @property
    def resolver(self) -> Any:
        """The DNS resolver of this hub, made at the first use."""
        if self._resolver is None:
            self._resolver = self.resolver_class(hub=self)
        return self._resolver

    @resolver.setter
    def resolver(self, value: Any) -> None:
        self._resolver = value

    @resolver.deleter
    def resolver(self) -> None:
        self._resolver = None

    @property
    def threadpool_class(self) -> Any:
        """The class of thread pool that the configuration names."""
        from bridge._config import config

        return config.threadpool

    @property
    def threadpool(self) -> Any:
        """The thread pool of this hub, made at the first use."""
        if self._threadpool is None:
            from bridge._config import config

            self._threadpool = self.threadpool_class(
                self.threadpool_size, hub=self, idle_task_timeout=config.threadpool_idle_task_timeout
            )
        return self._threadpool

    @threadpool.setter
    def threadpool(self, value: Any) -> None:
        self._threadpool = value

    @threadpool.deleter
    def threadpool(self) -> None:
        self._threadpool = None

    def format_run_info(self) -> list[str]:
        """What :func:`bridge.util.format_run_info` says: threads, greenlets, tasks and who waits for whom."""
        from bridge.util import format_run_info

        return format_run_info()

    # -- end --------------------------------------------------------------------------------------

    def destroy(self, destroy_loop: bool | None = None) -> None:
        """End the hub and free its loop, thread pool and resolver. Call it in the hub's own thread.

        ``destroy_loop``: close the loop too; by default only if the hub made it and it is not the
        main thread's. A greenlet of this hub can't be resumed afterwards.
        """
        if self.loop is None:
            return
        self._destroy(destroy_loop)
        if hub_local.hub is self:
            hub_local.hub = None

    def _destroy(self, destroy_loop: bool | None = True) -> None:
        """:meth:`destroy`, but for the locals of the thread: when it ends they have gone."""
        if self._heir is not None:
            self._heir.destroy(destroy_loop)
            self.loop = None  # type: ignore[assignment]
            return
        loop = self.loop
        if destroy_loop is None:
            destroy_loop = not loop.default
        self._end_services()
        if self._threadpool is not None:
            self._threadpool.kill()
            self._threadpool = None
        if self and not self.dead and getcurrent() is not self and get_ident() == self.thread_ident:
            self._closing = True
            self.parent = getcurrent()
            self.throw(HubDestroyed(destroy_loop))
        if destroy_loop or not loop.default:
            _settle(loop)
            loop.destroy()
        else:
            of_thread.next_loop = loop
        self.loop = None  # type: ignore[assignment]

    def _end_services(self) -> None:
        """End what is the hub's own, but for its thread pool."""
        if self.periodic_monitoring_thread is not None:
            self.periodic_monitoring_thread.kill()
            self.periodic_monitoring_thread = None
        if self._resolver is not None:
            self._resolver.close()
            self._resolver = None

    def _retire(self) -> None:
        """The adopted loop was closed by who ran it: free what is the hub's. In its thread; does not block.

        A hub that has begun is never collected, as its own frames refer to it: it has to be told to end. It
        keeps ``loop``, for greenlets that were abandoned with it.
        """
        loop = self.loop
        if self._heir is not None or loop.destroyed or loop.draining or getcurrent() is self:
            return
        self._end_services()
        # its threads end when they have nothing left to do; to wait for that, as kill() does, would block
        dismiss = getattr(self._threadpool, "_dismiss", None)
        self._threadpool = None
        if dismiss is not None:
            dismiss()
        if self and not self.dead:
            self._closing = True
            self.parent = getcurrent()
            self.throw(HubDestroyed(True))
        loop.destroy()

    def _start_configured_monitor(self) -> None:
        from bridge._config import config

        try:
            if config.monitor_thread:
                self.start_periodic_monitoring_thread()
        except Exception:
            # of a subscriber or a plug-in: no reason for the hub not to run
            self.handle_error(self, *sys.exc_info())

    def start_periodic_monitoring_thread(self) -> Any:
        """Start (at most once) and return the thread that watches this hub for blocking."""
        if self.periodic_monitoring_thread is None and get_ident() == self.thread_ident:
            from bridge._config import config
            from bridge.events import PeriodicMonitorThreadStartedEvent, notify_and_call_entry_points

            monitor = self.periodic_monitoring_thread = config.monitor_class(self)
            # where it can't be done, the warning is for those who have asked for it
            if config.max_memory_usage or monitor.can_monitor_memory_usage():
                monitor.install_monitor_memory_usage()
            notify_and_call_entry_points(PeriodicMonitorThreadStartedEvent(monitor))
        return self.periodic_monitoring_thread


def _settle(loop: Loop) -> None:
    """Let what asyncio code has left in an owned loop end: cancelled tasks, async generators."""
    if not loop.owned or not loop.shared or loop.is_closed() or loop.aio.is_running():
        return
    import asyncio

    aio = loop.aio
    loop.armed = True  # greenlets are not resumed any more
    # what a greenlet awaits goes with its greenlet
    tasks = [task for task in asyncio.all_tasks(aio) if not getattr(task, "of_greenlet", False)]
    for task in tasks:
        task.cancel()
    if tasks:
        aio.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    aio.run_until_complete(aio.shutdown_asyncgens())


def _blocked_where(hub: Hub) -> list[str]:
    """For LoopExit: which greenlets of this hub wait, and where."""
    found = []
    for obj in all_greenlets():
        if obj is not hub and not obj.dead and (obj.parent is hub or obj is hub.parent):
            frame = obj.gr_frame
            here = os.path.dirname(__file__)
            while frame is not None and frame.f_code.co_filename.startswith(here):
                frame = frame.f_back
            if frame is not None:
                found.append(
                    f"{obj!r} waits in {frame.f_code.co_name} ({frame.f_code.co_filename}:{frame.f_lineno})"
                )
        if len(found) >= 20:
            break
    return found


set_default_hub_class(Hub)
use_hubs(Hub)
