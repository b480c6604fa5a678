"""The thread that watches a hub: does it get to run, and how much memory does the process use?

Theory of operation
===================

*Rounds.* A native thread sleeps for as long as the shortest period that is asked for, then goes round: it
calls each monitoring function whose time has come. It sleeps no shorter than ``min_sleep_time``, which would
cost the program something, and no longer than ``inactive_sleep_time``, as nothing wakes it when a function is
added. So a period is a wish: a function is called that often at the most, and later by up to one sleep.
Before each sleep the thread also looks whether ``config.max_blocking_time`` has changed.

*Is the hub blocked?* The thread cannot ask: whoever blocks does not answer. But each switch of greenlets
leaves a trace (a trace function, which runs in the hub's thread, counts it and notes the target). If nothing
was switched since the last round, and it is not the loop's greenlet that runs, then the greenlet that runs is
holding everybody up. So what blocks for less than one period may go unseen, and what blocks for two is found.
Coroutines run in the loop's greenlet, so a coroutine that blocks its loop is not found here: that is what
asyncio's own debug mode and its ``slow_callback_duration`` are for.

*What the thread may touch.* It runs beside the greenlets of another thread, at any moment of theirs. It reads
single attributes of the hub and of the tracer, and frames, which it only looks at. It resets the tracer's
counter, and loses nothing by a switch that comes in between: the next round has its own. It never switches,
throws, or blocks a greenlet; its functions must not either. Errors go to the hub's ``handle_error``, except
SystemError: the hub would throw it into its main greenlet, which only its own thread can do. The list of
functions is replaced, never changed, so that anybody may read it at any time.

*The end.* The thread refers to the hub weakly, and holds it only for the length of a round. It ends after the
sleep in which it was killed, in which the hub has ended or was freed, or in which the loop that an adopted
hub lives on was closed; or when a function raises SystemExit. Nobody waits for it, and it does not keep
the interpreter from exiting. A trace function can be removed in its own thread only: killed by another one,
it stays until the next switch and removes itself then.

*Fork.* In the child there is no such thread; the hub starts it anew, if it had not ended.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from time import perf_counter
from typing import Any
from weakref import ref

from greenlet import greenlet

from ._config import config
from ._core import native
from ._core.current import hub_local
from ._core.native import RLock
from .events import (
    EventLoopBlocked,
    IPeriodicMonitorThread,
    MemoryUsageThresholdExceeded,
    MemoryUsageUnderThreshold,
    implementer,
    notify,
)
from .util import GreenletTracer

__all__ = ["MonitorWarning", "PeriodicMonitoringThread", "this_process"]

# Functions of the system, whatever has been patched; names of this module, so that tests may replace them.
get_thread_ident: Callable[[], int] = native.get_thread_ident
start_new_thread: Callable[..., int] = native.start_new_thread
thread_sleep: Callable[[float], None] = native.thread_sleep


class MonitorWarning(RuntimeWarning):
    """Something that was to be monitored can't be."""


class _Duty:
    """A monitoring function, and how often it is called."""

    __slots__ = ("_due_at", "function", "period")

    def __init__(self, function: Callable[[Any], object], period: float) -> None:
        self.function = function
        #: seconds; zero or less: it rests
        self.period = period
        self._due_at = 0.0  # seconds, on the clock of `take`: in the first round

    def __repr__(self) -> str:
        return f"<{self.function!r} every {self.period}s>"

    def take(self, now: float) -> bool:
        """Whether it is to be called now; the next time is a period later."""
        if self.period <= 0 or now < self._due_at:
            return False
        self._due_at = now + self.period
        return True


class _Tracer(GreenletTracer):
    """Counts the switches in the hub's thread; see the module's theory."""

    #: set by another thread: it shall remove itself
    retired = False
    #: whether the thread works for another hub by now: an earlier hub has nothing to be kept from then
    elsewhere = False

    def __init__(self, owner: str, hub_ref: ref[Any]) -> None:
        self.owner = owner
        self.hub_ref = hub_ref
        super().__init__()

    def _switched(self, origin: Any, target: Any) -> None:
        hub = self.hub_ref()
        self.elsewhere = isinstance(hub, greenlet) and hub_local.hub is not hub
        if self.retired:
            self.kill()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.owner}>"


class _MemoryLimit:
    """Whether an amount of memory is news: above the limit, and more than last time; or below it again."""

    __slots__ = ("_peak",)

    def __init__(self) -> None:
        self._peak = 0  # bytes, the latest amount above the limit; 0: it was below

    def look(self, usage: int, allowed: int, info: Any) -> Any:
        """The event for ``usage`` bytes where ``allowed`` are; None if there is nothing new."""
        before = self._peak
        self._peak = usage if usage > allowed else 0
        if self._peak > before:
            return MemoryUsageThresholdExceeded(usage, allowed, info)
        if before and not self._peak:
            return MemoryUsageUnderThreshold(usage, allowed, info, before)
        return None


@implementer(IPeriodicMonitorThread)
class PeriodicMonitoringThread:
    """``PeriodicMonitoringThread(hub)``: start a thread that watches ``hub``.

    ``hub.start_periodic_monitoring_thread()`` makes it. It ends by itself soon after the hub has ended.
    Raises AssertionError if it is called in another thread than the hub's. Does not block.
    """

    #: seconds between two rounds if nothing is to be watched; also the longest that the thread ever sleeps
    inactive_sleep_time = 2.0
    #: the shortest that it sleeps, in seconds, whatever the periods
    min_sleep_time = 0.005
    #: the shortest period for memory, in seconds: to ask for it is not cheap
    min_memory_monitor_period = 2

    def __init__(self, hub: Any) -> None:
        self._thread_ident: int = hub.thread_ident
        if get_thread_ident() != self._thread_ident:
            raise AssertionError(
                f"PeriodicMonitoringThread({hub!r}) was called in thread {get_thread_ident():#x}: "
                "call hub.start_periodic_monitoring_thread() in the hub's own thread"
            )
        self._hub_ref = ref(hub, self._hub_is_gone)
        self._lock = RLock()
        self._blocking = _Duty(self.monitor_blocking, config.max_blocking_time)
        self._monitoring_functions: list[_Duty]
        #: the shortest period in seconds; 0 if everything rests
        self._calculated_sleep_time: float
        self._set_duties([self._blocking])
        self._memory = _MemoryLimit()
        #: what `_get_process` gives, None before it was asked
        self._process: tuple[Any] | None = None
        #: false once it was killed
        self.should_run = True
        self._greenlet_tracer = _Tracer(f"{type(self).__name__} at {id(self):#x}", self._hub_ref)
        self._begin()

    def _begin(self) -> None:
        #: the process in which the thread runs
        self.pid = os.getpid()
        self.monitor_thread_ident = start_new_thread(self, ())

    def __repr__(self) -> str:
        killed = "" if self.should_run else " killed"
        return (
            f"<{type(self).__name__} at {id(self):#x}{killed} "
            f"thread_ident={self.monitor_thread_ident:#x} for {self.hub!r}>"
        )

    @property
    def hub(self) -> Any:
        """The hub that is watched; None if it is gone."""
        return self._hub_ref()

    # -- what is called, and how often ----------------------------------------------------------------

    def _set_duties(self, duties: list[_Duty]) -> None:
        self._monitoring_functions = duties
        self._calculated_sleep_time = min((duty.period for duty in duties if duty.period > 0), default=0)

    def monitoring_functions(self) -> list[Any]:
        """What is called: objects with ``function`` and ``period`` (seconds). From any thread."""
        wanted = config.max_blocking_time
        if self._blocking.period != wanted:
            with self._lock:
                self._blocking.period = wanted
                self._set_duties(self._monitoring_functions)
        return self._monitoring_functions

    def add_monitoring_function(self, function: Callable[[Any], object], period: float | None) -> None:
        """Call ``function(hub)`` about every ``period`` seconds, in the monitoring thread.

        For a function that is called already the period changes; None: it is not called any more. What it
        raises is printed by the hub, and it is called again; SystemExit ends the thread. Raises ValueError
        if ``function`` can't be called or ``period`` is not above zero. May be called from any thread.
        """
        if not callable(function):
            raise ValueError(f"add_monitoring_function({function!r}, ...): a function is needed")
        if period is not None and period <= 0:
            raise ValueError(
                f"add_monitoring_function(..., {period!r}): the period must be above zero seconds; "
                "None removes the function"
            )
        with self._lock:
            duties = self._monitoring_functions
            if period is None:
                duties = [duty for duty in duties if duty.function != function]
            else:
                known = next((duty for duty in duties if duty.function == function), None)
                if known is not None:
                    known.period = period
                else:
                    duties = [*duties, _Duty(function, period)]
            self._set_duties(duties)

    def calculate_sleep_time(self) -> float:
        """How many seconds the thread sleeps between two rounds. From any thread."""
        longest = self.inactive_sleep_time
        shortest_period = self._calculated_sleep_time
        return min(max(shortest_period, self.min_sleep_time), longest) if shortest_period else longest

    # -- the thread -----------------------------------------------------------------------------------

    def __call__(self) -> None:
        """What the thread does, until it ends."""
        try:
            self._sleep()
            while self._go_round():
                self._sleep()
        except SystemExit:
            pass  # a monitoring function's way to end the thread

    def _sleep(self) -> None:
        self.monitoring_functions()  # follows the configuration
        thread_sleep(self.calculate_sleep_time())

    def _go_round(self) -> bool:
        """Call what is due; false if that was the last round."""
        if not self.should_run:
            return False
        hub = self.hub  # held until we return, and no longer
        if hub is None or hub.dead or _is_abandoned(hub):
            self.kill()
            return False
        now = perf_counter()
        for duty in self.monitoring_functions():
            if duty.take(now):
                try:
                    duty.function(hub)
                except SystemError:
                    hub.print_exception(self, *sys.exc_info())
                except Exception:
                    hub.handle_error(self, *sys.exc_info())
                if not self.should_run:
                    return False
        return True

    def kill(self) -> None:
        """End the thread soon, and remove the trace function. From any thread, any number of times.

        From another thread than the hub's, the trace function goes with the next switch there. Does not
        block; a function that is being called is not interrupted.
        """
        self.should_run = False
        if get_thread_ident() == self._thread_ident:
            self._greenlet_tracer.kill()
        else:
            self._greenlet_tracer.retired = True

    def _hub_is_gone(self, _ref: object) -> None:
        self.kill()

    def _on_fork(self, hub: Any = None) -> None:
        """In a forked child: start the thread again, for ``hub`` if that is another one than before."""
        if self.pid == os.getpid():
            return
        self._lock = RLock()  # the old one may be held, for ever
        self._process = None
        if hub is not None and hub is not self.hub:
            self._hub_ref = self._greenlet_tracer.hub_ref = ref(hub, self._hub_is_gone)
        if self.should_run:
            self._begin()

    # -- blocking -------------------------------------------------------------------------------------

    def monitor_blocking(self, hub: Any) -> Any:
        """Report if nothing was switched in the hub's thread since the last call, though greenlets run there.

        Publishes `bridge.events.EventLoopBlocked`, and then, if ``config.print_blocking_reports``, prints
        the report to ``hub.exception_stream``. Returns the greenlet and the lines of the report, or None.
        """
        tracer = self._greenlet_tracer
        blocker = tracer.did_block_hub(hub)
        if blocker is None or tracer.elsewhere or _is_adopted_loop(hub, blocker):
            return None
        shown = {"greenlet_stacks": False, "current_thread_ident": self.monitor_thread_ident}
        report = tracer.did_block_hub_report(hub, blocker, shown)
        notify(EventLoopBlocked(blocker, config.max_blocking_time, report, hub=hub))
        stream = hub.exception_stream if config.print_blocking_reports else None
        if stream is not None:
            stream.write("\n".join([*report, ""]))  # in one piece: other threads write there as well
        return blocker, report

    def ignore_current_greenlet_blocking(self) -> None:
        """Report no blocking until the next switch. Call it in the hub's thread."""
        self._greenlet_tracer.ignore_current_greenlet_blocking()

    def monitor_current_greenlet_blocking(self) -> None:
        """Take back :meth:`ignore_current_greenlet_blocking`. Call it in the hub's thread."""
        self._greenlet_tracer.monitor_current_greenlet_blocking()

    # -- memory ---------------------------------------------------------------------------------------

    def _get_process(self) -> Any:
        """psutil's object for this process, the same each time; None if psutil can't be used."""
        if self._process is None:
            self._process = (this_process(),)
        return self._process[0]

    def can_monitor_memory_usage(self) -> bool:
        """Whether psutil is there and may look at this process."""
        return self._get_process() is not None

    def install_monitor_memory_usage(self) -> None:
        """Call :meth:`monitor_memory_usage` every ``config.memory_monitor_period`` seconds.

        Warns with `MonitorWarning`, and changes nothing, if that is not possible.
        """
        if self.can_monitor_memory_usage():
            period = max(config.memory_monitor_period, self.min_memory_monitor_period)
            self.add_monitoring_function(self.monitor_memory_usage, period)
        else:
            warnings.warn(
                "the use of memory can't be monitored: psutil is not installed or has no access",
                MonitorWarning,
                stacklevel=2,
            )

    def monitor_memory_usage(self, _hub: object) -> Any:
        """Compare the memory in use with ``config.max_memory_usage``; publish an event if that is news.

        Called in the monitoring thread; takes milliseconds. The event (see `bridge.events`) is returned; None
        if there was none, -1 if there is no limit.
        """
        allowed = config.max_memory_usage
        if not allowed:
            return -1
        info = self._get_process().memory_full_info()
        # what is this process's own, where the system tells
        event = self._memory.look(getattr(info, "uss", None) or info.rss, allowed, info)
        if event is not None:
            notify(event)
        return event


def _is_adopted_loop(hub: Any, blocker: Any) -> bool:
    """Whether a greenlet is the one that runs the hub's loop for others: it waits there for events."""
    loop = getattr(hub, "loop", None)
    return not getattr(loop, "owned", True) and blocker is getattr(hub, "parent", None)


def _is_abandoned(hub: Any) -> bool:
    """Whether the loop of a hub was closed by those who ran it."""
    is_closed = getattr(getattr(hub, "loop", None), "is_closed", None)
    return is_closed is not None and bool(is_closed())


def this_process() -> Any:
    """psutil's object for this process; None without psutil, or where it may not see the memory."""
    try:
        psutil = import_module("psutil")
    except ImportError:
        return None
    try:
        process = psutil.Process()
        process.memory_full_info()
    except psutil.Error:
        return None
    return process
