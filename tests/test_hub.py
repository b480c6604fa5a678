"""The hub as programs see it: errors, raw greenlets, sleep, waiters, join, classes of one's own."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import re
import signal
import sys
import threading
import time
from typing import Any

import pytest
from greenlet import greenlet

import bridge
from bridge import getcurrent
from bridge.event import Event
from bridge.exceptions import BlockingSwitchOutError, ConcurrentObjectUseError, InvalidSwitchError, LoopExit
from bridge.hub import Hub, Waiter, get_hub, set_default_hub_class, set_hub

Errors = list[tuple[Any, BaseException]]


def fail(exception: BaseException) -> None:
    raise exception


# -- one hub per thread -----------------------------------------------------------------------------


def test_get_hub_gives_this_thread_s_hub_everywhere_in_it() -> None:
    hub = get_hub()
    assert hub is bridge.get_hub() and isinstance(hub, Hub)
    assert bridge.spawn(get_hub).get() is hub
    assert bridge.spawn(lambda: getcurrent().parent).get() is hub

    async def coroutine() -> Hub:
        return get_hub()

    assert bridge.await_(coroutine()) is hub
    assert hub.thread_ident == threading.get_ident()


def test_another_thread_has_another_hub() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append((get_hub(), get_hub().thread_ident)))
    thread.start()
    thread.join()
    assert found[0][0] is not get_hub() and found[0][1] != threading.get_ident()
    assert found[0][0].main_hub is False


@pytest.mark.engines("owned")
def test_hubs_are_made_of_the_class_that_was_set() -> None:
    class Own(Hub):
        pass

    get_hub().destroy(destroy_loop=True)
    set_default_hub_class(Own)
    try:
        assert type(get_hub()) is Own
        bridge.sleep(0.001)
        get_hub().destroy(destroy_loop=True)
    finally:
        set_default_hub_class(Hub)
    assert type(get_hub()) is Hub


@pytest.mark.engines("owned")
def test_a_destroyed_hub_is_replaced_and_destroying_twice_does_nothing() -> None:
    bridge.sleep(0)
    hub = get_hub()
    hub.destroy(destroy_loop=True)
    hub.destroy(destroy_loop=True)
    assert hub.dead and "destroyed" in repr(hub)
    assert get_hub() is not hub
    bridge.sleep(0.001)


@pytest.mark.engines("owned")
def test_the_first_argument_of_a_hub_is_left_to_the_class() -> None:
    class Own(Hub):
        def __init__(self) -> None:
            super().__init__()

    before = get_hub()
    set_default_hub_class(Own)
    try:
        loop = before.loop
        before.destroy()
        again = get_hub()
        assert type(again) is Own and again.loop is loop
    finally:
        set_default_hub_class(Hub)
        get_hub().destroy(destroy_loop=True)


@pytest.mark.engines("owned")
def test_a_destroyed_loop_is_not_run() -> None:
    loop = bridge.config.loop(default=False)
    loop.destroy()
    with pytest.raises(ValueError, match="destroyed"):
        loop.run()


# -- errors -----------------------------------------------------------------------------------------


def test_an_error_in_a_callback_is_printed_and_the_hub_goes_on(printed: Any) -> None:
    log: list[int] = []
    loop = get_hub().loop
    loop.run_callback(fail, ValueError("in a callback"))
    loop.run_callback(log.append, 1)
    bridge.sleep(0.001)
    assert log == [1]
    assert (
        "ValueError: in a callback" in printed.getvalue() and "failed with ValueError" in printed.getvalue()
    )


def test_an_error_is_printed_whether_its_value_is_an_exception_its_text_or_missing() -> None:
    hub = get_hub()
    hub.exception_stream = printed = io.StringIO()
    try:
        hub.print_exception("here", ValueError, "the text", None)
        hub.print_exception("here", KeyError, None, None)
        hub.print_exception(None, OSError, OSError("nowhere"), None)
    finally:
        del hub.exception_stream
    lines = [re.sub(r"^\d{4}-\d\d-\d\dT[\d:]+Z", "NOW", line) for line in printed.getvalue().splitlines()]
    assert lines == [
        "ValueError: the text", "NOW here failed with ValueError", "",
        "KeyError", "NOW here failed with KeyError", "",
        "OSError: nowhere", "NOW",
    ]  # fmt: skip


def test_an_error_in_a_raw_greenlet_is_printed_and_the_hub_goes_on(printed: Any) -> None:
    g = bridge.spawn_raw(fail, ValueError("raw"))
    bridge.sleep(0.001)
    assert g.dead and "ValueError: raw" in printed.getvalue()


def test_a_callback_that_raises_greenlet_exit_does_not_end_the_hub(printed: Any) -> None:
    hub = get_hub()
    hub.loop.run_callback(fail, bridge.GreenletExit())
    timer = hub.loop.timer(0.001)
    timer.start(fail, bridge.GreenletExit())
    bridge.sleep(0.005)
    assert not hub.dead and not timer.active
    assert printed.getvalue() == ""


def test_greenlet_exit_and_what_not_error_says_is_not_printed(
    printed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge.spawn_raw(fail, bridge.GreenletExit())
    bridge.spawn(fail, bridge.GreenletExit()).join()
    bridge.sleep(0.001)
    monkeypatch.setattr(Hub, "NOT_ERROR", (*Hub.NOT_ERROR, KeyError))
    bridge.spawn(fail, KeyError("quiet")).join()
    assert printed.getvalue() == ""
    bridge.spawn(fail, IndexError("loud")).join()
    assert "loud" in printed.getvalue()


@pytest.mark.engines("owned")
def test_what_system_error_says_is_raised_in_main(printed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fatal(Exception):
        pass

    monkeypatch.setattr(Hub, "SYSTEM_ERROR", (*Hub.SYSTEM_ERROR, Fatal))
    for start in (bridge.spawn, bridge.spawn_raw, get_hub().loop.run_callback):
        start(fail, Fatal("stop"))
        with pytest.raises(Fatal, match="stop"):
            bridge.sleep(1)
        bridge.sleep(0.001)  # life goes on
    assert "Fatal: stop" in printed.getvalue()


@pytest.mark.engines("owned")
def test_system_exit_is_raised_in_main_and_not_printed(printed: Any) -> None:
    g = bridge.spawn(fail, SystemExit(3))
    with pytest.raises(SystemExit) as caught:
        bridge.sleep(1)
    assert caught.value.code == 3
    with pytest.raises(SystemExit):
        g.get()
    assert printed.getvalue() == ""


@pytest.mark.engines("owned")
def test_a_system_error_shows_in_the_main_greenlet_where_it_was_raised() -> None:
    with pytest.raises(SystemExit) as caught:
        bridge.spawn(fail, SystemExit(3)).join()
    assert caught.traceback[-1].name == "fail"


def test_handle_error_may_be_replaced_on_the_instance() -> None:
    seen: list[Any] = []
    hub: Any = get_hub()
    hub.handle_error = lambda *args: seen.append(args)
    try:
        error = ValueError()
        g = bridge.spawn(fail, error)
        g.join()
        hub.loop.run_callback(fail, error)
        bridge.sleep(0.001)
    finally:
        del hub.handle_error
    assert [(args[1], args[2]) for args in seen] == [(ValueError, error)] * 2
    assert seen[0][0] is g


def test_a_handler_of_errors_that_fails_itself_stops_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    hub: Any = get_hub()

    def broken(*args: Any) -> None:
        raise RuntimeError("broken handler")

    hub.handle_error = broken
    try:
        g = bridge.spawn(fail, ValueError("first"))
        with pytest.raises(ValueError, match="first"):
            g.get(timeout=5)
        bridge.spawn_raw(fail, ValueError("second"))
        hub.loop.run_callback(fail, ValueError("third"))
        assert bridge.spawn(lambda: (bridge.sleep(0.001), 1)[1]).get(timeout=5) == 1
    finally:
        del hub.handle_error
    printed = capfd.readouterr().err
    assert printed.count("RuntimeError: broken handler") >= 3
    assert all(f"ValueError: {which}" in printed for which in ("first", "second", "third"))


def test_errors_are_printed_even_if_their_context_cannot_be(printed: Any) -> None:
    class Bad:
        def __call__(self) -> None:
            raise ValueError("the error")

        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    get_hub().loop.run_callback(Bad())
    bridge.sleep(0.001)
    assert "the error" in printed.getvalue()


def test_without_stderr_errors_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    g = bridge.spawn(fail, ValueError())
    g.join()
    monkeypatch.undo()
    assert isinstance(g.exception, ValueError)


# -- sleep and idle ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, -1, -0.001])
def test_sleep_0_and_less_lets_everybody_who_is_ready_run_once(seconds: float) -> None:
    log: list[str] = []

    def spin(name: str) -> None:
        for _ in range(2):
            log.append(name)
            bridge.sleep(seconds)

    greenlets = [bridge.spawn(spin, name) for name in "ab"]
    bridge.sleep(seconds)
    assert log == ["a", "b"]
    bridge.sleep(seconds)
    assert log == ["a", "b", "a", "b"]
    bridge.joinall(greenlets)


@pytest.mark.parametrize("wrong", ["1", None, []])
def test_sleep_refuses_what_is_no_number(wrong: Any) -> None:
    with pytest.raises(TypeError):
        bridge.sleep(wrong)
    bridge.sleep(0)


def test_idle_returns_after_everything_that_is_ready() -> None:
    log: list[int] = []

    def work() -> None:
        for n in range(5):
            log.append(n)
            bridge.sleep(0)

    bridge.spawn(work)
    bridge.idle()
    assert log == [0, 1, 2, 3, 4]
    with pytest.raises(TypeError, match="priority"):
        bridge.idle("high")  # type: ignore[arg-type]


# -- raw greenlets ----------------------------------------------------------------------------------


def test_spawn_raw_runs_the_function_with_its_arguments() -> None:
    log: list[Any] = []
    g = bridge.spawn_raw(lambda *a, **k: log.append((a, k, getcurrent())), 1, x=2)
    assert not log and isinstance(g, type(g)) and not isinstance(g, bridge.Greenlet)
    bridge.sleep(0)
    assert log == [((1,), {"x": 2}, g)] and g.dead


def test_a_raw_greenlet_may_block() -> None:
    event = Event()
    log: list[bool] = []
    bridge.spawn_raw(lambda: log.append(event.wait(5)))
    bridge.sleep(0)
    event.set()
    bridge.sleep(0.001)
    assert log == [True]


# -- switching by hand, Waiter ----------------------------------------------------------------------


def test_waiter_hands_a_value_or_an_exception_to_the_one_who_waits() -> None:
    loop = get_hub().loop
    waiter = Waiter()
    loop.run_callback(waiter.switch, 5)
    assert waiter.get() == 5
    loop.run_callback(waiter.throw, ValueError("thrown"))
    with pytest.raises(ValueError, match="thrown"):
        waiter.get()


def test_waiter_keeps_what_comes_before_it_is_asked_for() -> None:
    waiter = Waiter()
    assert not waiter.ready()
    waiter.switch(5)
    assert waiter.ready() and waiter.successful() and waiter.value == 5 and waiter.get() == 5
    waiter.clear()
    assert not waiter.ready()
    waiter.throw(ValueError("kept"))
    assert waiter.ready() and not waiter.successful() and waiter.exc_info == (waiter.exc_info[0],)
    with pytest.raises(ValueError, match="kept"):
        waiter.get()


def test_waiter_refuses_two_who_wait_and_a_switch_from_elsewhere() -> None:
    waiter = Waiter()
    g = bridge.spawn(waiter.get)
    bridge.sleep(0)
    with pytest.raises(ConcurrentObjectUseError, match="already used"):
        waiter.get()
    with pytest.raises(AssertionError, match="run_callback"):
        waiter.switch(1)
    get_hub().loop.run_callback(waiter.switch, 1)
    assert g.get() == 1


def test_waiting_for_a_waiter_in_the_hub_is_refused(errors: Errors) -> None:
    get_hub().loop.run_callback(Waiter().get)
    bridge.sleep(0.001)
    assert [type(e) for _, e in errors] == [BlockingSwitchOutError]


def test_a_greenlet_that_has_switch_out_is_told_when_it_waits_for_a_waiter() -> None:
    class Told(bridge.Greenlet[int]):
        def switch_out(self) -> None:
            told.append(self)

    told: list[Told] = []
    waiter = Waiter()
    g = Told(waiter.get)
    g.start()
    bridge.sleep(0)
    get_hub().loop.run_callback(waiter.switch, 7)
    assert g.get() == 7 and told == [g]


def test_a_waiter_whose_greenlet_is_killed_can_be_used_again() -> None:
    waiter = Waiter()
    g = bridge.spawn(waiter.get)
    bridge.sleep(0)
    g.kill()
    assert isinstance(g.value, bridge.GreenletExit)
    waiter.switch(3)
    assert waiter.get() == 3


def test_hub_wait_blocks_until_the_watcher_s_event() -> None:
    before = time.monotonic()
    hub = get_hub()
    hub.wait(hub.loop.timer(0.005))
    assert time.monotonic() - before >= 0.004
    timer = hub.loop.timer(100)
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.002):
        hub.wait(timer)
    assert not timer.active


def test_cancel_wait_raises_in_the_one_who_waits() -> None:
    hub = get_hub()
    timer = hub.loop.timer(100)
    g = bridge.spawn(hub.wait, timer)
    bridge.sleep(0)
    hub.cancel_wait(timer, OSError("cancelled"))
    with pytest.raises(OSError, match="cancelled"):
        g.get(timeout=5)
    hub.cancel_wait(None, OSError())


def test_switching_to_a_sleeper_by_hand_is_an_error_there_and_leaves_no_wake_up_behind() -> None:
    woken: list[str] = []

    def f() -> None:
        try:
            bridge.sleep(0.01)
        except InvalidSwitchError:
            woken.append("refused")
        before = time.monotonic()
        bridge.sleep(0.03)
        woken.append("slept on" if time.monotonic() - before >= 0.03 else "woken early")

    g = bridge.spawn(f)
    bridge.sleep(0)
    get_hub().loop.run_callback(g.switch)
    g.join(timeout=5)
    assert woken == ["refused", "slept on"]


def test_a_greenlet_begun_in_the_step_of_a_task_may_go_back_to_it_with_a_value() -> None:
    """As those of libraries do that await in the middle of plain functions; the hub may make the step."""

    def function() -> Any:
        parent = getcurrent().parent
        assert parent is not None
        with pytest.raises(BlockingSwitchOutError):
            bridge.sleep(0)
        with pytest.raises(BlockingSwitchOutError):
            get_hub().switch()
        return parent.switch(asyncio.sleep(0.001, "slept")) + " well"

    async def main() -> Any:
        g = greenlet(function)
        switched = g.switch()
        while not g.dead:
            switched = g.switch(await switched)
        return switched

    async def several() -> Any:
        return await asyncio.gather(main(), main())

    assert bridge.await_(several()) == ["slept well"] * 2


def test_hub_switch_in_the_hub_is_refused(errors: Errors) -> None:
    get_hub().loop.run_callback(lambda: get_hub().switch())
    bridge.sleep(0.001)
    assert [type(e) for _, e in errors] == [BlockingSwitchOutError]


# -- join -------------------------------------------------------------------------------------------


@pytest.mark.engines("owned")
def test_hub_join_waits_until_nothing_is_left_or_the_time_is_over() -> None:
    log: list[int] = []
    bridge.spawn_later(0.002, log.append, 1)
    assert get_hub().join() is True and log == [1]
    bridge.spawn(bridge.sleep, 100)
    assert get_hub().join(timeout=0.002) is False
    assert get_hub().join(timeout=0) is False
    with pytest.raises(TypeError, match="timeout='x'"):
        get_hub().join(timeout="x")  # type: ignore[arg-type]
    assert not get_hub().loop.joining


@pytest.mark.engines("owned")
def test_hub_join_elsewhere_than_in_main_is_an_error() -> None:
    with pytest.raises(AssertionError, match="MAIN"):
        bridge.spawn(lambda: get_hub().join()).get()


@pytest.mark.engines("owned")
def test_loop_exit_is_raised_again_and_again_and_the_hub_lives() -> None:
    for _ in range(3):
        with pytest.raises(LoopExit, match="would block forever"):
            get_hub().switch()
        assert bridge.spawn(lambda: (bridge.sleep(0), 1)[1]).get() == 1


@pytest.mark.engines("owned")
def test_an_unreferenced_sleep_beside_another_waits_for_its_time() -> None:
    other = bridge.spawn(bridge.sleep, 0.01)
    bridge.sleep(0.002, ref=False)
    assert not other.ready()
    other.join()


# -- signals ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_signal_handler_runs_in_a_greenlet_of_its_own_until_it_is_cancelled() -> None:
    log: list[Any] = []
    came = Event()

    def handler(*args: Any, **kwargs: Any) -> None:
        bridge.sleep(0.001)  # it may block
        log.append((args, kwargs, isinstance(getcurrent(), bridge.Greenlet)))
        came.set()

    previous = signal.getsignal(signal.SIGUSR1)
    handle = bridge.signal_handler(signal.SIGUSR1, handler, 1, x=2)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert came.wait(5)
        assert log == [((1,), {"x": 2}, True)]
        assert handle.ref is False
    finally:
        handle.cancel()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGUSR1)
    bridge.sleep(0.002)
    signal.signal(signal.SIGUSR1, previous)
    assert len(log) == 1
    with pytest.raises(TypeError, match="callable"):
        bridge.signal_handler(signal.SIGUSR1, 5)  # type: ignore[arg-type]


# -- texts ------------------------------------------------------------------------------------------


def test_repr_of_the_hub_names_its_loop(engine: str) -> None:
    loop, mode = engine.split("-")
    text = repr(get_hub())
    assert loop in text and ("adopted" in text) == (mode == "adopted")
    assert f"{threading.get_ident():#x}" in text


def test_the_stream_for_errors_can_be_assigned_and_taken_back() -> None:
    hub = bridge.get_hub()
    with pytest.raises(AttributeError):
        del hub.exception_stream
    hub.exception_stream = stream = io.StringIO()
    assert hub.exception_stream is stream
    del hub.exception_stream
    assert hub.exception_stream is sys.stderr


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the open files cannot be counted")
def test_a_hub_that_never_runs_opens_no_files() -> None:
    before = len(os.listdir("/proc/self/fd"))
    hubs = [bridge.hub.Hub(None, None) for _ in range(10)]
    assert len({hub.minimal_ident for hub in hubs}) == 10
    assert not any(hub.loop.is_closed() for hub in hubs)
    for hub in hubs:
        hub.destroy()
    assert len(os.listdir("/proc/self/fd")) == before


def test_to_look_at_a_hub_that_never_runs_does_not_make_its_loop() -> None:
    hub = bridge.hub.Hub(None, None)
    hub.loop._factory = asyncio.SelectorEventLoop  # a class, as those of the configuration
    assert bridge.util.format_run_info()
    assert "asyncio" in repr(hub)
    hub.loop.wake_from_signal(list)
    assert not hub.loop.has_aio
    hub.loop.destroy()


@pytest.mark.engines("none")
def test_a_waiter_made_in_a_coroutine_is_of_the_loop_that_runs() -> None:
    before = get_hub()

    async def main() -> tuple[Hub, Hub]:
        return Waiter().hub, get_hub()

    made_with, running = asyncio.run(main())
    assert made_with is running is not before


def test_threads_that_ask_for_its_loop_at_once_get_the_same() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            hub = bridge.hub.Hub(None, None)
            found: list[object] = []
            go = threading.Barrier(4)

            def look(loop: Any = hub.loop, go: threading.Barrier = go, found: list[object] = found) -> None:
                go.wait(10)
                found.append(loop.aio)

            threads = [threading.Thread(target=look) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(found) == 4 and len(set(map(id, found))) == 1
            hub.loop.destroy()
            assert hub.loop.is_closed()
    finally:
        sys.setswitchinterval(interval)


def test_the_loop_of_a_destroyed_hub_is_closed_whenever_it_was_made() -> None:
    loop = bridge.hub.Hub(None, None).loop
    loop.destroy()
    assert loop.aio.is_closed() and loop.is_closed()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the open files cannot be counted")
def test_the_files_of_a_hub_that_was_forgotten_are_given_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert bridge.hub.Hub(None, None).loop.aio is not None
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    # but not those of a loop that somebody has
    loop = bridge.hub.Hub(None, None).aio_loop
    gc.collect()
    assert not loop.is_closed()
    loop.close()


def test_only_a_hub_can_be_made_the_hub() -> None:
    hub = get_hub()
    with pytest.raises(TypeError, match=r"set_hub\(5\)"):
        set_hub(5)  # type: ignore[arg-type]
    assert get_hub() is hub
