"""The monitoring thread."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from greenlet import getcurrent, gettrace

import bridge
from bridge import _monitor, events
from bridge.hub import get_hub


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    """The events that were published."""
    caught: list[Any] = []
    subscriber = caught.append
    events.subscribers.append(subscriber)
    yield caught
    events.subscribers.remove(subscriber)


@pytest.fixture
def quick() -> Iterator[None]:
    """Blocking counts after 20 ms."""
    bridge.config.max_blocking_time = 0.02
    yield
    del bridge.config.max_blocking_time


def until(condition: Callable[[], object]) -> None:
    """Sleep, cooperatively, until something is so; at most for five seconds."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        bridge.sleep(0.01)
    assert condition()


def blocked(heard: list[Any]) -> list[Any]:
    return [event for event in heard if isinstance(event, events.EventLoopBlocked)]


def test_a_greenlet_that_blocks_is_reported(quick: None, heard: list[Any], printed: io.StringIO) -> None:
    hub = get_hub()
    monitor = hub.start_periodic_monitoring_thread()
    assert hub.start_periodic_monitoring_thread() is monitor
    assert events.PeriodicMonitorThreadStartedEvent in map(type, heard)

    def culprit() -> None:
        me = getcurrent()
        end = time.monotonic() + 5
        while not any(event.greenlet is me for event in blocked(heard)) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)  # the report is printed after the event

    g = bridge.spawn(culprit)
    g.join()
    until(lambda: "appears to be blocked" in printed.getvalue())
    event = next(event for event in blocked(heard) if event.greenlet is g)
    assert event.hub is hub and event.blocking_time == 0.02
    assert any("culprit" in line for line in event.info)
    assert "PeriodicMonitoringThread" in printed.getvalue()
    monitor.kill()
    assert gettrace() is None
    until(lambda: monitor.monitor_thread_ident not in sys._current_frames())  # it may be in a report


def test_waiting_is_not_blocking(quick: None, heard: list[Any], printed: io.StringIO) -> None:
    monitor = get_hub().start_periodic_monitoring_thread()
    bridge.sleep(0.001)
    heard.clear()
    printed.truncate(0)
    bridge.sleep(0.2)  # in an adopted loop it is the loop's greenlet that runs meanwhile
    found = blocked(heard)
    monitor.kill()
    assert not found and printed.getvalue() == ""


def test_no_print_and_no_stream(quick: None, heard: list[Any], printed: io.StringIO) -> None:
    hub = get_hub()
    bridge.config.print_blocking_reports = False
    try:
        monitor = hub.start_periodic_monitoring_thread()
        bridge.sleep(0.001)
        time.sleep(0.2)
    finally:
        monitor.kill()
        until(lambda: monitor.monitor_thread_ident not in sys._current_frames())  # no report is under way
        del bridge.config.print_blocking_reports
    assert blocked(heard) and printed.getvalue() == ""


def test_functions_are_called_and_their_errors_printed(errors: list[Any]) -> None:
    hub = get_hub()
    monitor = hub.start_periodic_monitoring_thread()
    calls: list[Any] = []

    def fails(of: Any) -> None:
        calls.append((of, threading.get_ident()))
        raise (ValueError if len(calls) == 1 else SystemError)(len(calls))

    monitor.add_monitoring_function(fails, 0.01)
    until(lambda: len(errors) >= 2)
    monitor.add_monitoring_function(fails, None)
    assert calls[0][0] is hub and calls[0][1] == monitor.monitor_thread_ident != threading.get_ident()
    assert [type(error) for _, error in errors[:2]] == [ValueError, SystemError]
    monitor.kill()


def test_killed_by_another_thread_the_tracer_removes_itself() -> None:
    monitor = get_hub().start_periodic_monitoring_thread()
    monitor.add_monitoring_function(lambda hub: monitor.kill(), 0.01)
    until(lambda: not monitor.should_run)
    bridge.sleep(0.001)
    assert gettrace() is None
    monitor.kill()
    assert gettrace() is None


def test_started_by_the_configuration(heard: list[Any]) -> None:
    bridge.config.monitor_thread = True
    try:
        hub = get_hub()
        if hub:  # started already, before the test: an adopted loop
            return
        bridge.sleep(0)
        monitor = hub.periodic_monitoring_thread
        assert monitor.should_run and heard[0].monitor is monitor
        monitor.kill()
    finally:
        del bridge.config.monitor_thread


@pytest.mark.engines("none")
def test_it_ends_with_the_loop_that_others_run() -> None:
    async def main() -> Any:
        monitor = get_hub().start_periodic_monitoring_thread()
        await bridge.spawn(bridge.sleep, 0.01).aget()
        return monitor, get_hub()

    monitor, _hub = asyncio.run(main())
    end = time.monotonic() + 5
    while monitor.should_run and time.monotonic() < end:
        time.sleep(0.01)
    assert not monitor.should_run
    monitor.kill()


def test_destroying_the_hub_ends_it() -> None:
    def thread() -> Any:
        monitor = get_hub().start_periodic_monitoring_thread()
        bridge.sleep(0.001)
        get_hub().destroy()
        return monitor, gettrace()

    monitor, trace = bridge.threadpool.ThreadPool(1).apply(thread)
    assert not monitor.should_run and trace is None


# -- without a thread ----------------------------------------------------------------------------------


class FakeHub:
    loop = None
    dead = False
    exception_stream = None

    def __init__(self) -> None:
        self.thread_ident = threading.get_ident()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The monitors whose threads would have been started."""
    calls: list[Any] = []
    monkeypatch.setattr(_monitor, "start_new_thread", lambda f, args: calls.append(f) or 1000 + len(calls))
    return calls


@pytest.fixture
def monitor(started: list[Any]) -> Iterator[Any]:
    hub = FakeHub()
    made = _monitor.PeriodicMonitoringThread(hub)
    yield made
    made.kill()
    del hub


@pytest.mark.engines("none")
def test_functions_and_periods(monitor: Any) -> None:
    def function(hub: Any) -> None:
        pass

    with pytest.raises(ValueError, match="a function is needed"):
        monitor.add_monitoring_function(None, 1)
    for period in (0, -1):
        with pytest.raises(ValueError, match="above zero"):
            monitor.add_monitoring_function(function, period)
    assert monitor.calculate_sleep_time() == 0.1
    monitor.add_monitoring_function(function, 0.05)
    assert monitor.calculate_sleep_time() == 0.05
    monitor.add_monitoring_function(function, 0.001)
    assert monitor.calculate_sleep_time() == monitor.min_sleep_time
    assert [entry.period for entry in monitor.monitoring_functions()] == [0.1, 0.001]
    monitor.add_monitoring_function(function, None)
    bridge.config.max_blocking_time = 0
    try:
        assert [entry.period for entry in monitor.monitoring_functions()] == [0]
        assert monitor.calculate_sleep_time() == monitor.inactive_sleep_time
        monitor.add_monitoring_function(function, 100)
        assert monitor.calculate_sleep_time() == monitor.inactive_sleep_time
        monitor.add_monitoring_function(monitor.monitor_blocking, None)
        assert [entry.function for entry in monitor.monitoring_functions()] == [function]
    finally:
        del bridge.config.max_blocking_time


@pytest.mark.engines("none")
def test_ignoring_a_greenlet(monitor: Any, heard: list[Any]) -> None:
    hub = monitor.hub
    monitor.monitor_current_greenlet_blocking()
    assert monitor.monitor_blocking(hub)
    monitor.ignore_current_greenlet_blocking()
    assert monitor.monitor_blocking(hub) is None
    assert len(blocked(heard)) == 1


@pytest.mark.engines("none")
def test_the_hub_is_not_kept_alive(started: list[Any]) -> None:
    hub = FakeHub()
    made = _monitor.PeriodicMonitoringThread(hub)
    assert gettrace() is made._greenlet_tracer
    del hub
    gc.collect()
    assert made.hub is None and not made.should_run and gettrace() is None
    made()  # returns


@pytest.mark.engines("none")
def test_only_in_the_hubs_thread(started: list[Any]) -> None:
    hub = FakeHub()
    hub.thread_ident = -1
    with pytest.raises(AssertionError, match="start_periodic_monitoring_thread"):
        _monitor.PeriodicMonitoringThread(hub)
    assert gettrace() is None and not started


@pytest.mark.engines("none")
def test_after_a_fork(monitor: Any, started: list[Any]) -> None:
    monitor._on_fork()
    assert len(started) == 1
    monitor.pid = -1
    heir = FakeHub()
    monitor._on_fork(heir)
    assert len(started) == 2 and monitor.pid == os.getpid() and monitor.hub is heir
    assert monitor.monitor_thread_ident == 1002


@pytest.mark.engines("none")
def test_memory(monitor: Any, heard: list[Any]) -> None:
    usage = SimpleNamespace(rss=0)
    monitor._get_process = lambda: SimpleNamespace(memory_full_info=lambda: usage)
    assert monitor.monitor_memory_usage(None) == -1
    bridge.config.max_memory_usage = 10
    try:
        seen = []
        for usage.rss in (5, 20, 20, 15, 25, 10, 10, 11):
            event = monitor.monitor_memory_usage(None)
            seen.append(event and (type(event).__name__[11:], event.mem_usage))
    finally:
        del bridge.config.max_memory_usage
    over, under = "ThresholdExceeded", "UnderThreshold"
    assert seen == [None, (over, 20), None, None, (over, 25), (under, 10), None, (over, 11)]
    assert [event.mem_usage for event in heard] == [20, 25, 10, 11]
    assert heard[2].max_memory_usage == 25 and heard[2].max_allowed == 10


@pytest.mark.engines("none")
def test_memory_without_psutil(monitor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_monitor, "this_process", lambda: None)
    assert not monitor.can_monitor_memory_usage()
    with pytest.warns(_monitor.MonitorWarning, match="psutil"):
        monitor.install_monitor_memory_usage()
    assert len(monitor.monitoring_functions()) == 1


@pytest.mark.engines("none")
def test_memory_with_psutil(monitor: Any) -> None:
    pytest.importorskip("psutil")
    assert monitor.can_monitor_memory_usage()
    assert monitor._get_process() is monitor._get_process()
    monitor.install_monitor_memory_usage()
    assert monitor.monitoring_functions()[1].period == 5
