"""The thread that watches a hub: does it get to run, and how much memory does the process use?

A native thread calls each monitoring function about as often as was asked for. Whether the hub is blocked
is seen by a trace function for greenlets: if nothing was switched since the last look, and it is not the
loop's greenlet that runs, then the greenlet that runs is holding everybody up.

Coroutines run in the loop's greenlet, so a coroutine that blocks its loop is not found here: that is what
asyncio's own debug mode and its ``slow_callback_duration`` are for.
"""

from __future__ import annotations

import os
import sys
import warnings
from _thread import RLock
from collections.abc import Callable
from importlib import import_module
from time import perf_counter
from typing import Any
from weakref import ref

from greenlet import greenlet

from ._config import config
from ._core import native
from ._core.current import hub_local
from .events import (
    EventLoopBlocked,
    IPeriodicMonitorThread,
    MemoryUsageThresholdExceeded,
    MemoryUsageUnderThreshold,
    implementer,
    notify,
)
from .util import GreenletTracer

__all__ = ["MonitorWarning", "PeriodicMonitoringThread"]

# Functions of the system, whatever has been patched; names of this module, so that tests may replace them.
get_thread_ident: Callable[[], int] = native.get_thread_ident
start_new_thread: Callable[..., int] = native.start_new_thread
thread_sleep: Callable[[float], None] = native.thread_sleep


class MonitorWarning(RuntimeWarning):
    """Something that was to be monitored can't be."""


class _Entry:
    """A monitoring function, its period in seconds (0: it rests), and when it was last called."""

    __slots__ = ("function", "last_run_time", "period")

    def __init__(self, function: Callable[[Any], object], period: float) -> None:
        self.function = function
        self.period = period
        self.last_run_time = 0.0

    def __repr__(self) -> str:
        return f"<{self.function!r} every {self.period}s>"

    def due(self, now: float) -> bool:
        return self.period > 0 and now - self.last_run_time >= self.period


class _MonitorTracer(GreenletTracer):
    """Trace functions belong to a thread: once retired by another thread, it removes itself in its own."""

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


@implementer(IPeriodicMonitorThread)
class PeriodicMonitoringThread:
    """``PeriodicMonitoringThread(hub)``: start a thread that watches ``hub``; call it in the hub's thread.

    It ends by itself soon after the hub has ended. ``hub.start_periodic_monitoring_thread()`` makes it.
    """

    #: seconds between two looks round if nothing is to be watched; also the longest it ever sleeps, as
    #: that is how long a new function may have to wait to be noticed
    inactive_sleep_time = 2.0
    #: the shortest that it sleeps, whatever the periods
    min_sleep_time = 0.005
    #: the shortest period for memory, in seconds: to ask for it is not cheap
    min_memory_monitor_period = 2

    def __init__(self, hub: Any) -> None:
        if get_thread_ident() != hub.thread_ident:
            raise AssertionError(
                f"PeriodicMonitoringThread({hub!r}) was called in thread {get_thread_ident():#x}: "
                "call hub.start_periodic_monitoring_thread() in the hub's own thread"
            )
        self._hub_wref = ref(hub, self._hub_is_gone)
        self._thread_ident = hub.thread_ident
        self._lock = RLock()
        self._blocking = _Entry(self.monitor_blocking, config.max_blocking_time)
        # replaced, never changed: the monitoring thread may be iterating over it
        self._monitoring_functions = [self._blocking]
        self._calculated_sleep_time = 0.0
        self._update_sleep_time()
        #: the memory in use when it was last found above the limit; 0: it was below
        self._memory_exceeded = 0
        self._process: Any = None
        self._process_sought = False
        #: false once it was killed
        self.should_run = True
        self._greenlet_tracer = _MonitorTracer(f"{type(self).__name__} at {id(self):#x}", self._hub_wref)
        #: the process in which the thread runs
        self.pid = os.getpid()
        self.monitor_thread_ident = start_new_thread(self, ())

    def __repr__(self) -> str:
        state = "" if self.should_run else " killed"
        return (
            f"<{type(self).__name__} at {id(self):#x}{state} "
            f"thread_ident={self.monitor_thread_ident:#x} for {self.hub!r}>"
        )

    @property
    def hub(self) -> Any:
        """The hub that is watched; None if it is gone."""
        return self._hub_wref()

    # -- what is called, and how often ----------------------------------------------------------------

    def monitoring_functions(self) -> list[Any]:
        """What is called: objects with ``function`` and ``period`` (seconds). From any thread."""
        if self._blocking.period != config.max_blocking_time:
            self._blocking.period = config.max_blocking_time
            self._update_sleep_time()
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
            entries = list(self._monitoring_functions)
            places = [place for place, entry in enumerate(entries) if entry.function == function]
            if period is None:
                for place in reversed(places):
                    del entries[place]
            elif places:
                entries[places[0]].period = period
            else:
                entries.append(_Entry(function, period))
            self._monitoring_functions = entries
            self._update_sleep_time()

    def _update_sleep_time(self) -> None:
        active = [entry.period for entry in self._monitoring_functions if entry.period > 0]
        self._calculated_sleep_time = min(active, default=0.0)

    def calculate_sleep_time(self) -> float:
        """How many seconds the thread sleeps between two looks at what is due."""
        if self._calculated_sleep_time <= 0:
            return self.inactive_sleep_time
        return min(max(self._calculated_sleep_time, self.min_sleep_time), self.inactive_sleep_time)

    # -- the thread -----------------------------------------------------------------------------------

    def __call__(self) -> None:
        """What the thread does."""
        try:
            while self.should_run:
                self.monitoring_functions()  # follows the configuration
                thread_sleep(self.calculate_sleep_time())
                self._round()
        except SystemExit:
            pass  # a monitoring function's way to end the thread

    def _round(self) -> None:
        """Call what is due. The hub is kept alive for no longer than this takes."""
        hub = self.hub
        if hub is None or hub.dead or _is_abandoned(hub):
            self.kill()
            return
        now = perf_counter()
        for entry in self.monitoring_functions():
            if not self.should_run:
                return
            if entry.due(now):
                entry.last_run_time = now
                try:
                    entry.function(hub)
                except Exception as e:
                    if isinstance(e, SystemError):
                        # the hub would throw it into its main greenlet, which another thread can't
                        hub.print_exception(self, *sys.exc_info())
                    else:
                        hub.handle_error(self, *sys.exc_info())

    def kill(self) -> None:
        """End the thread soon, and remove the trace function. From any thread, any number of times.

        From another thread than the hub's, the trace function goes with the next switch there.
        """
        self.should_run = False
        if get_thread_ident() == self._thread_ident:
            self._greenlet_tracer.kill()
        else:
            self._greenlet_tracer.retired = True

    def _hub_is_gone(self, _wref: object) -> None:
        self.kill()

    def _on_fork(self, hub: Any = None) -> None:
        """In a forked child, where the thread does not exist: start it again, for ``hub`` if that is new."""
        if self.pid == os.getpid():
            return
        self.pid = os.getpid()
        self._lock = RLock()
        self._process_sought = False
        if hub is not None and hub is not self.hub:
            self._hub_wref = self._greenlet_tracer.hub_ref = ref(hub, self._hub_is_gone)
        if self.should_run:
            self.monitor_thread_ident = start_new_thread(self, ())

    # -- blocking -------------------------------------------------------------------------------------

    def monitor_blocking(self, hub: Any) -> Any:
        """Report if nothing was switched in the hub's thread since the last call, though greenlets run there.

        Publishes `bridge.events.EventLoopBlocked`, and then, if ``config.print_blocking_reports``, prints
        the report to ``hub.exception_stream``. Returns the greenlet and the lines of the report, or None.
        """
        blocker = self._greenlet_tracer.did_block_hub(hub)
        if blocker is None or self._greenlet_tracer.elsewhere or _is_adopted_loop(hub, blocker):
            return None
        report = self._greenlet_tracer.did_block_hub_report(
            hub, blocker, {"greenlet_stacks": False, "current_thread_ident": self.monitor_thread_ident}
        )
        notify(EventLoopBlocked(blocker, config.max_blocking_time, report, hub=hub))
        stream = hub.exception_stream
        if config.print_blocking_reports and stream is not None:
            # in one piece: other threads write there as well
            stream.write("\n".join(report) + "\n")
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
        if not self._process_sought:
            self._process = _this_process()
            self._process_sought = True
        return self._process

    def can_monitor_memory_usage(self) -> bool:
        """Whether psutil is there and may look at this process."""
        return self._get_process() is not None

    def install_monitor_memory_usage(self) -> None:
        """Call :meth:`monitor_memory_usage` every ``config.memory_monitor_period`` seconds.

        Warns with `MonitorWarning`, and changes nothing, if that is not possible.
        """
        if not self.can_monitor_memory_usage():
            warnings.warn(
                "the use of memory can't be monitored: psutil is not installed or has no access",
                MonitorWarning,
                stacklevel=2,
            )
            return
        period = max(config.memory_monitor_period, self.min_memory_monitor_period)
        self.add_monitoring_function(self.monitor_memory_usage, period)

    def monitor_memory_usage(self, _hub: object) -> Any:
        """Compare the memory in use with ``config.max_memory_usage``; publish an event if that is news.

        The event (see `bridge.events`) is returned; None if there was none, -1 if there is no limit.
        """
        allowed = config.max_memory_usage
        if not allowed:
            return -1
        info = self._get_process().memory_full_info()
        # what is this process's own, where the system tells
        usage = getattr(info, "uss", None) or info.rss
        before = self._memory_exceeded
        event: Any = None
        if usage > allowed:
            self._memory_exceeded = usage
            if usage > before:
                event = MemoryUsageThresholdExceeded(usage, allowed, info)
        elif before:
            self._memory_exceeded = 0
            event = MemoryUsageUnderThreshold(usage, allowed, info, before)
        if event is not None:
            notify(event)
        return event


def _is_adopted_loop(hub: Any, blocker: Any) -> bool:
    """Whether a greenlet is the one that runs the hub's loop for others: it waits there for events."""
    loop = getattr(hub, "loop", None)
    return not getattr(loop, "owned", True) and blocker is getattr(hub, "parent", None)


def _is_abandoned(hub: Any) -> bool:
    """Whether the loop of a hub was closed by those who ran it."""
    aio = getattr(getattr(hub, "loop", None), "aio", None)
    return aio is not None and bool(aio.is_closed())


def _this_process() -> Any:
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
