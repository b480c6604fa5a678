"""Greenlets: their phases, ends, links, names and relatives; how functions written in C run in them."""

from __future__ import annotations

import contextvars
import functools
import gc
import operator
import random
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bridge
from bridge import Greenlet, GreenletExit, getcurrent
from bridge.event import AsyncResult, Event
from bridge.exceptions import BlockingSwitchOutError
from bridge.queue import Queue

Errors = list[tuple[Any, BaseException]]


def fail(exception: BaseException) -> None:
    raise exception


def state(g: Greenlet[Any]) -> tuple[bool, bool, bool, bool, bool]:
    return bool(g), g.started, g.ready(), g.successful(), g.dead


IDLE = (False, False, False, False, False)
ALIVE = (True, True, False, False, False)
SUCCESS = (False, False, True, True, True)
FAILURE = (False, False, True, False, True)


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Objects have to go by reference counting alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# -- from the beginning to the end ------------------------------------------------------------------


def test_value_is_what_the_function_returns_given_its_arguments() -> None:
    g = bridge.spawn(lambda *args, **kwargs: (args, kwargs), 1, 2, x=3)
    assert g.get() == ((1, 2), {"x": 3})
    assert g.value == ((1, 2), {"x": 3})


def test_spawn_does_not_run_the_function_before_the_spawner_blocks() -> None:
    log: list[str] = []
    bridge.spawn(log.append, "greenlet")
    bridge.spawn(lambda: log.append("second"))
    log.append("spawner")
    bridge.sleep(0)
    assert log == ["spawner", "greenlet", "second"]


def test_state_in_every_phase_of_a_success() -> None:
    event = Event()
    g: Greenlet[str] = Greenlet(lambda: (seen.append(state(g)), event.wait(), "value")[-1])
    seen: list[Any] = []
    assert state(g) == IDLE
    assert (g.value, g.exception, g.exc_info) == (None, None, None)
    g.start()
    assert state(g) == ALIVE
    bridge.sleep(0)
    assert seen == [ALIVE] and state(g) == ALIVE
    event.set()
    g.join()
    assert state(g) == SUCCESS
    assert (g.value, g.exception, g.exc_info) == ("value", None, None)


def test_state_after_a_failure(errors: Errors) -> None:
    error = ValueError("mine")
    g = bridge.spawn(fail, error)
    g.join()
    assert state(g) == FAILURE
    assert g.value is None and g.exception is error
    assert g.exc_info[0] is ValueError and g.exc_info[1] is error
    assert "fail" in [f.name for f in traceback.extract_tb(g.exc_info[2])]
    assert errors == [(g, error)]


def test_arguments_are_let_go_at_the_end() -> None:
    g = Greenlet(lambda *args, **kwargs: None, 1, x=2)
    assert (g.args, g.kwargs) == ((1,), {"x": 2})
    g.start()
    g.join()
    assert (g.args, g.kwargs) == ((), {})


@pytest.mark.parametrize("how", ["spawn", "Greenlet", "class"])
def test_nothing_to_run_is_legal_and_gives_none(how: str) -> None:
    g = bridge.spawn(None) if how == "spawn" else Greenlet(None) if how == "Greenlet" else Greenlet()  # type: ignore[arg-type]
    g.start()
    assert g.get() is None
    assert state(g) == SUCCESS


def test_starting_again_does_nothing() -> None:
    log: list[int] = []
    g = Greenlet(log.append, 1)
    h = Greenlet(lambda: log.append(2))
    for each in (g, h):
        each.start()
        each.start()
        each.start_later(0)
    bridge.joinall([g, h])
    for each in (g, h):
        each.start()
        each.start_later(0)
        assert state(each) == SUCCESS
    bridge.sleep(0.002)
    assert log == [1, 2]


def test_spawn_later_runs_not_before_its_time() -> None:
    log: list[float] = []
    before = time.monotonic()
    g = bridge.spawn_later(0.01, lambda x: log.append(time.monotonic() - before), 1)
    assert state(g) == ALIVE
    bridge.sleep(0)
    assert not log
    g.join()
    assert log[0] >= 0.01


def test_keyword_arguments_may_have_the_names_of_our_own_parameters() -> None:
    assert bridge.spawn(lambda **kw: kw, function=1, seconds=2).get() == {"function": 1, "seconds": 2}
    assert bridge.spawn_later(0, lambda **kw: kw, function=1).get() == {"function": 1}


@pytest.mark.parametrize("wrong", [5, "text", [], object()])
def test_what_cannot_be_called_is_refused_by_name(wrong: Any) -> None:
    for make in (
        lambda: bridge.spawn(wrong),
        lambda: Greenlet(wrong),
        lambda: bridge.spawn_later(0, wrong),
        lambda: bridge.spawn_raw(wrong),
    ):
        with pytest.raises(TypeError, match="must be callable") as caught:
            make()
        assert repr(wrong) in str(caught.value)
    with pytest.raises(TypeError, match="missing"):
        bridge.spawn_later(0)


def test_subclass_overrides_run_and_gets_the_arguments() -> None:
    class Doubling(Greenlet[int]):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.n = n

        def _run(self) -> int:
            return self.n * 2

    assert Doubling.spawn(21).get() == 42
    assert Doubling.spawn_later(0, 4).get() == 8

    class Plain(Greenlet[Any]):
        def _run(self, *args: Any) -> Any:
            return args

    with pytest.raises(TypeError, match="must be callable"):
        Plain.spawn(5)  # five is the function
    assert Plain.spawn().get() == ()


def test_class_assigned_to_the_package_is_what_spawn_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Traced(Greenlet[Any]):
        pass

    monkeypatch.setattr(bridge, "Greenlet", Traced)
    assert type(bridge.spawn(int)) is Traced
    assert type(bridge.spawn_later(0, int)) is Traced


def test_getcurrent_in_a_greenlet_is_that_greenlet() -> None:
    g = bridge.spawn(getcurrent)
    h = bridge.spawn(lambda: getcurrent())
    assert g.get() is g and h.get() is h
    assert g.parent is bridge.get_hub()


def test_exceptions_of_a_greenlet_are_printed_with_its_name(printed: Any) -> None:
    g = bridge.spawn(fail, ValueError("look here"))
    g.join()
    text = printed.getvalue()
    assert "ValueError: look here" in text and "fail" in text
    assert repr(g).partition(" at ")[0] in text and "failed with ValueError" in text


def test_an_error_is_told_to_the_waiters_even_if_reporting_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, context: Any, t: Any, v: BaseException, tb: Any) -> None:
        reported.append(v)
        if v is error:
            raise RuntimeError("broken handler")

    reported: list[BaseException] = []
    error = ValueError()
    monkeypatch.setattr(bridge.hub.Hub, "print_exception", broken)
    g = bridge.spawn(fail, error)
    with pytest.raises(ValueError):
        g.get(timeout=5)
    assert error in reported


# -- get and join -----------------------------------------------------------------------------------


def test_get_raises_the_exception_with_the_traceback_of_the_failure(errors: Errors) -> None:
    def deep() -> None:
        fail(ValueError("deep"))

    g = bridge.spawn(deep)
    seen = []
    for _ in range(3):
        with pytest.raises(ValueError, match="deep") as caught:
            g.get()
        names = [f.name for f in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-2:] == ["deep", "fail"]
        seen.append((id(caught.value), len(names)))
    assert len(set(seen)) == 1  # the same exception; its traceback does not grow


def test_get_without_blocking_raises_timeout_and_gives_the_value_later() -> None:
    g = bridge.spawn(lambda: 5)
    with pytest.raises(bridge.Timeout):
        g.get(block=False)
    g.join()
    assert g.get(block=False) == 5


def test_get_gives_up_after_its_timeout_and_leaves_the_greenlet_alone() -> None:
    event = Event()
    g = bridge.spawn(lambda: (event.wait(), 5)[1])
    with pytest.raises(bridge.Timeout) as caught:
        g.get(timeout=0.002)
    assert caught.value.seconds == 0.002
    assert state(g) == ALIVE and not g.has_links()
    event.set()
    assert g.get() == 5


def test_a_timeout_object_is_raised_by_get_and_swallowed_by_join() -> None:
    g = bridge.spawn(bridge.sleep, 100)
    limit = bridge.Timeout(0.002)
    with pytest.raises(bridge.Timeout) as caught:
        g.get(timeout=limit)
    assert caught.value is limit
    assert g.join(timeout=bridge.Timeout(0.002)) is None  # type: ignore[func-returns-value]
    assert state(g) == ALIVE
    g.kill()


def test_a_foreign_timeout_goes_through_join_and_get() -> None:
    g = bridge.spawn(bridge.sleep, 100)
    for wait in (g.join, g.get):
        with bridge.Timeout(0.002) as limit, pytest.raises(bridge.Timeout) as caught:
            wait(timeout=50)
        assert caught.value is limit
    assert not g.has_links()
    g.kill()


def test_join_of_one_that_has_ended_does_not_switch() -> None:
    g = bridge.spawn(int)
    g.join()
    log: list[int] = []
    bridge.spawn(log.append, 1)
    assert g.join() is None and g.get() == 0  # type: ignore[func-returns-value]
    assert not log


def test_everybody_who_waits_gets_the_value_and_a_killed_waiter_harms_nobody() -> None:
    event = Event()
    g = bridge.spawn(lambda: (event.wait(), "value")[1])
    waiters = [bridge.spawn(g.get) for _ in range(5)]
    bridge.sleep(0)
    waiters[2].kill()
    event.set()
    bridge.joinall(waiters)
    assert [w.value for w in waiters if w is not waiters[2]] == ["value"] * 4
    assert isinstance(waiters[2].value, GreenletExit)


def test_a_greenlet_of_another_thread_can_be_joined() -> None:
    started, release = threading.Event(), Event()
    made: list[Greenlet[int]] = []

    def work() -> None:
        made.append(bridge.spawn(lambda: (release.wait(), 7)[1]))
        started.set()
        made[0].join()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(5)
    joiner = bridge.spawn(made[0].get, timeout=5)
    bridge.sleep(0)
    release.set()
    assert joiner.get() == 7
    thread.join()


# -- kill -------------------------------------------------------------------------------------------


def _unstarted(phase: str, function: Callable[[], object]) -> Greenlet[Any]:
    g = Greenlet(function)
    if phase == "queued":
        g.start()
    elif phase == "later":
        g.start_later(0.001)
    return g


FRAMELESS = pytest.mark.parametrize("frameless", [False, True], ids=["python", "builtin"])


@FRAMELESS
@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("phase", ["new", "queued", "later"])
def test_killed_before_it_ran_it_never_runs_and_is_a_success(
    phase: str, block: bool, frameless: bool
) -> None:
    log: list[int] = []
    g = _unstarted(phase, functools.partial(log.append, 1) if not frameless else log.clear)
    log.append(0)
    told: list[Any] = []
    g.rawlink(told.append)
    g.kill(block=block)
    assert state(g) == SUCCESS
    assert isinstance(g.value, GreenletExit) and g.exception is None
    g.start()
    bridge.sleep(0.003)
    assert log == [0]
    assert told == [g]
    assert isinstance(g.get(), GreenletExit)


@FRAMELESS
def test_killed_between_its_time_and_its_start_it_never_runs(frameless: bool) -> None:
    """The timer has put it into the ready queue; whoever is before it there kills it."""
    log: list[int] = [0]
    g = bridge.spawn_later(0.001, log.clear if frameless else lambda: log.clear())
    time.sleep(0.002)  # nothing can start it meanwhile
    bridge.get_hub().loop.expire(time.monotonic())
    assert bridge.get_hub().loop.ready and state(g) == ALIVE
    g.kill()
    bridge.sleep(0.002)
    assert log == [0] and isinstance(g.value, GreenletExit)


@FRAMELESS
@pytest.mark.parametrize("phase", ["new", "queued", "later"])
def test_killed_before_it_ran_by_an_error_it_failed_and_is_printed(
    phase: str, frameless: bool, errors: Errors
) -> None:
    g = _unstarted(phase, [].clear if frameless else lambda: None)
    error = ValueError("no")
    g.kill(error)
    assert state(g) == FAILURE
    assert errors == [(g, error)]
    with pytest.raises(ValueError, match="no"):
        g.get()


def test_kill_waits_for_the_clean_up() -> None:
    log: list[str] = []

    def f() -> None:
        try:
            bridge.sleep(100)
        finally:
            bridge.sleep(0.002)
            log.append("clean")

    g = bridge.spawn(f)
    bridge.sleep(0)
    g.kill()
    assert log == ["clean"] and state(g) == SUCCESS and isinstance(g.value, GreenletExit)


def test_kill_without_blocking_returns_before_the_exception_arrives() -> None:
    g = bridge.spawn(bridge.sleep, 100)
    bridge.sleep(0)
    g.kill(block=False)
    assert state(g) == ALIVE
    bridge.sleep(0)
    assert state(g) == SUCCESS


def test_one_that_catches_its_kill_and_returns_has_that_value() -> None:
    def f() -> str:
        try:
            bridge.sleep(100)
        except GreenletExit:
            return "x"
        return "not killed"

    g = bridge.spawn(f)
    bridge.sleep(0)
    g.kill()
    assert g.value == "x" and g.successful()


def test_raising_greenlet_exit_is_a_success_with_it_as_value() -> None:
    mine = GreenletExit("mine")
    g = bridge.spawn(fail, mine)
    assert g.get() is mine and state(g) == SUCCESS


def test_kill_that_is_ignored_expires_silently_and_the_greenlet_lives_on() -> None:
    event = Event()

    def stubborn() -> str:
        while True:
            try:
                event.wait()
                return "lived"
            except GreenletExit:
                caught.append(1)

    caught: list[int] = []
    g = bridge.spawn(stubborn)
    bridge.sleep(0)
    assert g.kill(timeout=0.002) is None  # type: ignore[func-returns-value]
    assert g.kill(timeout=bridge.Timeout(0.002)) is None  # type: ignore[func-returns-value]
    assert caught == [1, 1] and state(g) == ALIVE
    event.set()
    assert g.get() == "lived"


def test_every_kill_arrives_in_order(errors: Errors) -> None:
    caught: list[Any] = []

    def f() -> None:
        for _ in range(3):
            try:
                bridge.sleep(100)
            except BaseException as e:
                caught.append(e.args[0])

    g = bridge.spawn(f)
    bridge.sleep(0)
    for n in range(3):
        g.kill(ValueError(n), block=False)
    g.join()
    assert caught == [0, 1, 2]
    g.kill()
    assert state(g) == SUCCESS and not errors


def test_killing_oneself_takes_effect_at_the_next_switch() -> None:
    log: list[str] = []

    def f() -> None:
        bridge.kill(getcurrent())
        log.append("returned")
        bridge.sleep(0)
        log.append("not reached")

    g = bridge.spawn(f)
    g.join()
    assert log == ["returned"] and isinstance(g.value, GreenletExit)

    def blocking() -> None:
        log.append("kill")
        getcurrent().kill()  # type: ignore[attr-defined]
        log.append("not reached")

    h = bridge.spawn(blocking)
    h.join()
    assert log == ["returned", "kill"] and isinstance(h.value, GreenletExit)


def test_kill_in_a_callback_of_the_hub_works_only_without_blocking(errors: Errors) -> None:
    g = bridge.spawn(bridge.sleep, 100)
    bridge.sleep(0)
    bridge.get_hub().loop.run_callback(g.kill)
    g.join()
    assert [type(e) for _, e in errors] == [BlockingSwitchOutError]
    h = bridge.spawn(bridge.sleep, 100)
    bridge.sleep(0)
    bridge.get_hub().loop.run_callback(functools.partial(h.kill, block=False))
    h.join()
    assert len(errors) == 1 and isinstance(h.value, GreenletExit)


@FRAMELESS
@pytest.mark.parametrize("wrong", [5, "x", None, int, object()])
def test_killed_by_what_is_no_exception_it_ends_with_a_type_error_that_says_so(
    wrong: Any, frameless: bool, errors: Errors
) -> None:
    functions = (sorted, [1]) if frameless else (bridge.sleep, 100)
    key = {"key": lambda _: bridge.sleep(100)} if frameless else {}
    running = [bridge.spawn(*functions, **key) for _ in range(3)]
    bridge.sleep(0)
    running[0].kill(wrong)
    bridge.kill(running[1], wrong)
    bridge.killall(running[2:], wrong)
    unstarted = [bridge.spawn(*functions, **key) for _ in range(3)]
    unstarted[0].kill(wrong)
    bridge.kill(unstarted[1], wrong)
    bridge.killall(unstarted[2:], wrong)
    for g in running + unstarted:
        assert state(g) == FAILURE
        assert isinstance(g.exception, TypeError) and f"exception={wrong!r}" in str(g.exception)
    assert len(errors) == 6


def test_a_waiter_killed_after_it_was_served_loses_nothing() -> None:
    queue: Queue[int] = Queue()
    g = bridge.spawn(queue.get)
    bridge.sleep(0)
    queue.put(1)
    g.kill()
    if isinstance(g.value, GreenletExit):
        assert queue.get_nowait() == 1
    else:
        assert g.value == 1


def test_kill_from_another_thread() -> None:
    g = bridge.spawn(bridge.sleep, 100)
    bridge.sleep(0)
    thread = threading.Thread(target=functools.partial(g.kill, block=False))
    thread.start()
    g.join(timeout=5)
    thread.join()
    assert isinstance(g.value, GreenletExit)


def test_kill_while_it_joins_another_takes_its_link_back() -> None:
    g = bridge.spawn(bridge.sleep, 100)
    joiner = bridge.spawn(g.join)
    bridge.sleep(0)
    assert g.has_links()
    joiner.kill()
    assert not g.has_links()
    g.kill()


def test_bridge_kill_takes_raw_greenlets_too_and_refuses_others() -> None:
    log: list[str] = []

    def f() -> None:
        try:
            bridge.sleep(100)
        except ValueError:
            log.append("raised")

    raw = bridge.spawn_raw(f)
    bridge.sleep(0)
    bridge.kill(raw, ValueError)
    assert not log
    bridge.sleep(0)
    assert log == ["raised"] and raw.dead
    bridge.kill(raw)
    bridge.kill(greenlet=raw)
    bridge.sleep(0)
    assert log == ["raised"]
    with pytest.raises(TypeError, match="takes a greenlet"):
        bridge.kill(5)  # type: ignore[arg-type]


def test_killing_many_sleepers_takes_time_in_proportion_to_their_number() -> None:
    def kill(n: int) -> float:
        sleepers = [bridge.spawn(bridge.sleep, 100 + i % 7) for i in range(n)]
        bridge.sleep(0)
        random.Random(n).shuffle(sleepers)
        before = time.process_time()
        bridge.killall(sleepers)
        assert all(g.ready() for g in sleepers)
        return time.process_time() - before

    kill(500)
    few = min(kill(1000) for _ in range(3))
    many = min(kill(8000) for _ in range(2))
    assert many < few * 8 * 4


def test_a_hundred_thousand_sleep_at_once() -> None:
    awake = 0

    def sleeper() -> None:
        nonlocal awake
        bridge.sleep(0.3)
        awake += 1

    greenlets = [bridge.spawn(sleeper) for _ in range(100_000)]
    bridge.sleep(0)
    assert awake == 0
    assert len(bridge.joinall(greenlets, timeout=60)) == 100_000
    assert awake == 100_000


# -- throw ------------------------------------------------------------------------------------------


def test_throw_switches_at_once_and_nobody_wakes_the_thrower() -> None:
    log: list[str] = []

    def target() -> None:
        try:
            bridge.sleep(100)
        except ValueError:
            log.append("got it")
        bridge.sleep(0.001)
        log.append("target ends")

    def thrower() -> None:
        t.throw(ValueError)
        log.append("thrower goes on")

    t = bridge.spawn(target)
    bridge.sleep(0)
    s = bridge.spawn(thrower)
    bridge.sleep(0.01)
    assert log == ["got it", "target ends"]
    assert state(s) == ALIVE
    s.kill()


@FRAMELESS
@pytest.mark.parametrize("phase", ["new", "queued", "later"])
def test_throw_into_one_that_has_not_begun_ends_it(phase: str, frameless: bool, errors: Errors) -> None:
    g = _unstarted(phase, [].clear if frameless else lambda: None)
    g.throw(ValueError, "text")
    assert state(g) == FAILURE and str(g.exception) == "text"
    h = _unstarted(phase, [].clear if frameless else lambda: None)
    h.throw()
    assert state(h) == SUCCESS and isinstance(h.value, GreenletExit)
    bridge.sleep(0.002)
    assert [type(e) for _, e in errors] == [ValueError]


def test_throw_into_one_that_has_ended_does_nothing() -> None:
    g = bridge.spawn(int)
    g.join()
    g.throw(ValueError)
    assert g.value == 0 and g.exception is None


# -- links ------------------------------------------------------------------------------------------


def test_links_and_joiners_are_told_in_the_order_in_which_they_came() -> None:
    log: list[str] = []
    g = Greenlet(lambda: None)

    def joiner(name: str) -> None:
        g.join()
        log.append(name)

    g.rawlink(lambda _: log.append("raw 1"))
    bridge.spawn(joiner, "join 1")
    bridge.sleep(0)
    g.link(lambda _: log.append("link"))
    bridge.spawn(joiner, "join 2")
    bridge.sleep(0)
    g.rawlink(lambda _: log.append("raw 2"))
    g.start()
    bridge.sleep(0.001)
    assert log == ["raw 1", "join 1", "link", "join 2", "raw 2"]


def test_rawlinks_run_in_the_hub_where_they_may_not_block(errors: Errors) -> None:
    where: list[Any] = []
    g = Greenlet(lambda: None)

    def callback(source: Any) -> None:
        where.append((getcurrent(), source))
        bridge.sleep(0)

    g.rawlink(callback)
    g.rawlink(lambda _: where.append("the next one is called all the same"))
    g.start()
    bridge.sleep(0.001)
    assert where == [(bridge.get_hub(), g), "the next one is called all the same"]
    assert [type(e) for _, e in errors] == [BlockingSwitchOutError]


def test_links_run_in_greenlets_of_their_own_which_may_block(errors: Errors) -> None:
    log: list[Any] = []
    g = Greenlet(lambda: None)

    def callback(source: Any) -> None:
        assert getcurrent() not in (bridge.get_hub(), g)
        bridge.sleep(0.001)
        log.append(source)
        raise ValueError("in the link")

    g.link(callback)
    g.start()
    g.join()
    bridge.sleep(0.01)
    assert log == [g]
    assert [str(e) for _, e in errors] == ["in the link"]


def test_what_is_linked_twice_is_called_twice_and_unlinked_once_is_called_once() -> None:
    log: list[Any] = []
    g = Greenlet(lambda: None)
    for _ in range(3):
        g.rawlink(log.append)
    g.unlink(log.append)
    g.unlink(print)  # was never linked: nothing happens
    assert g.has_links()
    g.start()
    bridge.sleep(0.001)
    assert log == [g, g] and not g.has_links()


def test_a_link_can_be_taken_back_after_the_end_until_it_is_called() -> None:
    log: list[Any] = []
    g = Greenlet(lambda: None)

    def one(_: Any) -> None:
        log.append("one")
        g.unlink(two)

    def two(_: Any) -> None:
        log.append("two")

    def three(_: Any) -> None:
        log.append("three")

    for link in (one, two, three):
        g.rawlink(link)
    g.start()
    bridge.sleep(0.001)
    assert log == ["one", "three"]

    h = bridge.spawn(lambda: None)
    h.rawlink(three)
    bridge.spawn(lambda: (log.append(h.ready()), h.unlink(three)))
    bridge.sleep(0.001)
    assert log == ["one", "three", True]


def test_linked_after_the_end_it_is_called_soon_unless_taken_back() -> None:
    log: list[str] = []
    g = bridge.spawn(int)
    g.join()
    g.rawlink(lambda _: log.append("raw"))
    g.link(lambda _: log.append("link"))

    def never(_: Any) -> None:
        log.append("never")

    g.link(never)
    g.unlink(never)
    assert not log
    bridge.sleep(0.001)
    assert log == ["raw", "link"]
    g.rawlink(never)
    g.unlink_all()
    bridge.sleep(0.001)
    assert log == ["raw", "link"]


def test_a_rawlink_made_by_a_rawlink_is_called() -> None:
    log: list[str] = []
    g = Greenlet(lambda: None)
    g.rawlink(lambda _: g.rawlink(lambda _: log.append("inner")))
    g.start()
    bridge.sleep(0.001)
    assert log == ["inner"]


def test_link_value_and_link_exception_choose(errors: Errors) -> None:
    log: list[str] = []
    for function in (lambda: None, lambda: fail(ValueError()), lambda: fail(GreenletExit())):
        g = Greenlet(function)
        g.link_value(lambda _: log.append("value"))
        g.link_exception(lambda _: log.append("exception"))
        g.start()
        g.join()
        bridge.sleep(0.001)
    assert log == ["value", "exception", "value"]


def test_a_link_may_be_an_async_result(errors: Errors) -> None:
    good: AsyncResult[int] = AsyncResult()
    bridge.spawn(lambda: 5).link(good)
    assert good.get(timeout=5) == 5
    bad: AsyncResult[int] = AsyncResult()
    bridge.spawn(fail, ValueError("told")).link(bad)
    with pytest.raises(ValueError, match="told"):
        bad.get(timeout=5)


def test_what_cannot_be_called_cannot_be_linked() -> None:
    g = Greenlet(int)
    for link in (g.link, g.rawlink, g.link_value, g.link_exception):
        with pytest.raises(TypeError, match="Expected callable: 5"):
            link(5)
    assert not g.has_links()


# -- in a with statement ----------------------------------------------------------------------------


def test_with_waits_for_the_end() -> None:
    log: list[str] = []
    with bridge.spawn(lambda: (bridge.sleep(0.001), log.append("end"))) as g:
        assert state(g) == ALIVE
    assert log == ["end"]


def test_with_throws_the_exception_of_its_body_into_the_greenlet(errors: Errors) -> None:
    error = ValueError("body")
    caught: list[BaseException] = []

    def f() -> None:
        try:
            bridge.sleep(100)
        except BaseException as e:
            caught.append(e)
            raise

    with pytest.raises(ValueError, match="body"), bridge.spawn(f) as g:
        bridge.sleep(0)
        raise error
    assert caught == [error] and g.exception is error
    with pytest.raises(GreenletExit), Greenlet(f) as unstarted:
        raise GreenletExit
    assert state(unstarted) == SUCCESS and caught == [error]


def test_with_whose_wait_is_interrupted_kills_the_greenlet() -> None:
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.002), bridge.spawn(bridge.sleep, 100) as g:
        pass
    assert state(g) == SUCCESS and isinstance(g.value, GreenletExit)


# -- functions written in C run without a frame of ours ---------------------------------------------


@pytest.mark.parametrize("value", [None, (), (5,), ((),), (1, 2), [], ValueError("a value"), GreenletExit()])
def test_a_builtin_may_return_anything(value: Any) -> None:
    g = bridge.spawn([value].pop)
    assert g.get() is value
    assert state(g) == SUCCESS


def test_a_builtin_that_raises_fails(errors: Errors) -> None:
    g = bridge.spawn(int.__new__, int, "five")
    h = bridge.spawn(operator.truediv, 1, 0)
    for each, kind in ((g, ValueError), (h, ZeroDivisionError)):
        with pytest.raises(kind):
            each.get()
        assert state(each) == FAILURE and each.exc_info[2] is not None
    assert [context for context, _ in errors] == [g, h]


def test_a_builtin_through_which_greenlet_exit_comes_is_a_success() -> None:
    mine = GreenletExit()
    g = bridge.spawn(sorted, [1, 2], key=lambda _: fail(mine))
    assert g.get() is mine and state(g) == SUCCESS


def _blocking(x: int) -> int:
    bridge.sleep(0.001 * x if x > 0 else 0)
    return -x


def test_builtins_that_block_each_get_their_own_result() -> None:
    for numbers in ([3, 1, 2], [0, 0, 0], [0, 2, 0]):
        greenlets = [bridge.spawn(sorted, [n, n + 1], key=_blocking) for n in numbers]
        others = [bridge.spawn(lambda n=n: (bridge.sleep(0), n)[1]) for n in numbers]
        assert [g.get(timeout=5) for g in greenlets] == [[n + 1, n] for n in numbers]
        assert [g.get(timeout=5) for g in others] == numbers


@pytest.mark.parametrize("exception", [GreenletExit, ValueError("thrown")])
def test_a_blocked_builtin_can_be_killed(exception: Any, errors: Errors) -> None:
    g = bridge.spawn(sorted, [1], key=lambda _: bridge.sleep(100))
    others = [bridge.spawn(sorted, [n], key=_blocking) for n in range(3)]
    bridge.sleep(0)
    g.kill(exception, timeout=5)
    if exception is GreenletExit:
        assert state(g) == SUCCESS and isinstance(g.value, GreenletExit)
    else:
        assert state(g) == FAILURE and g.exception is exception
        assert errors == [(g, exception)]
    assert [h.get(timeout=5) for h in others] == [[0], [1], [2]]
    assert g.parent is bridge.get_hub()


def test_a_timeout_started_inside_a_builtin_ends_it(errors: Errors) -> None:
    limit = bridge.Timeout(0.001)

    def key(_: int) -> None:
        limit.start()
        bridge.sleep(100)

    g = bridge.spawn(sorted, [1], key=key)
    with pytest.raises(bridge.Timeout) as caught:
        g.get(timeout=5)
    assert caught.value is limit


def test_a_blocked_builtin_thrown_into_ends_with_that(errors: Errors) -> None:
    g = bridge.spawn(sorted, [1], key=lambda _: bridge.sleep(100))
    bridge.sleep(0)
    bridge.get_hub().loop.run_callback(g.throw, ValueError("from the hub"))
    with pytest.raises(ValueError, match="from the hub"):
        g.get(timeout=5)


def test_links_and_joiners_of_a_builtin_are_told() -> None:
    log: list[Any] = []
    result: AsyncResult[list[int]] = AsyncResult()
    g = bridge.spawn(sorted, [2], key=_blocking)
    g.rawlink(log.append)
    g.link(result)
    assert result.get(timeout=5) == [2]
    assert log == [g]


def test_the_end_of_a_builtin_is_told_before_anybody_else_runs() -> None:
    log: list[Any] = []
    g = bridge.spawn(log.append, "builtin")
    bridge.spawn(log.append, "behind it")

    def waits() -> None:
        bridge.sleep(0)
        log.append("ready after it")

    bridge.spawn(waits)
    g.join()
    log.append("joined")
    bridge.sleep(0)
    assert log == ["builtin", "behind it", "joined", "ready after it"]


@pytest.mark.parametrize("by", ["super", "class"])
def test_a_subclass_that_overrides_run_may_call_ours(by: str) -> None:
    class Mine(Greenlet[Any]):
        def run(self) -> None:
            log.append("before")
            if by == "super":
                super().run()
            else:
                Greenlet.run(self)
            log.append("after")

    log: list[Any] = []
    for function in ([7].pop, lambda: 7):
        g = Mine(function)
        g.start()
        assert g.get() == 7 and state(g) == SUCCESS
    assert log == ["before", "after"] * 2


def test_a_raw_greenlet_that_fails_beside_a_starting_builtin_harms_it_not(errors: Errors) -> None:
    def key(x: int) -> int:
        bridge.spawn_raw(fail, ValueError("raw"))
        bridge.sleep(0)
        return x

    g = bridge.spawn(sorted, [3], key=key)
    assert g.get(timeout=5) == [3]
    assert [str(e) for _, e in errors] == ["raw"]


def test_random_builtins_blocked_killed_and_interleaved_end_as_a_model_says() -> None:
    rnd = random.Random(11)
    for _ in range(30):
        greenlets: list[tuple[Greenlet[Any], Any]] = []
        for n in range(rnd.randrange(1, 12)):
            naps = rnd.randrange(3)

            def key(_: int, naps: int = naps) -> int:
                for _n in range(naps):
                    bridge.sleep(rnd.choice((0, 0, 0.0002)))
                return 0

            if rnd.random() < 0.5:
                greenlets.append((bridge.spawn(sorted, [n], key=key), [n]))
            else:
                greenlets.append((bridge.spawn(lambda n=n, key=key: (key(0), n)[1]), n))
        for _n in range(rnd.randrange(3)):
            bridge.sleep(0)
        for g, _value in rnd.sample(greenlets, rnd.randrange(len(greenlets))):
            g.kill(block=rnd.random() < 0.5)
        bridge.joinall([g for g, _value in greenlets], timeout=5)
        for g, value in greenlets:
            assert state(g) == SUCCESS
            assert g.value == value or isinstance(g.value, GreenletExit)


# -- memory -----------------------------------------------------------------------------------------


class Thing:
    pass


def _raiser() -> None:
    raise ValueError


def _make_ended(how: str) -> Greenlet[Any]:
    g: Greenlet[Any]
    if how == "value":
        g = bridge.spawn(lambda: None)
    elif how == "builtin":
        g = bridge.spawn(len, ())
    elif how == "blocked builtin":
        g = bridge.spawn(sorted, [1], key=_blocking)
    elif how == "error":
        g = bridge.spawn(_raiser)
    elif how == "builtin error":
        g = bridge.spawn(len, 5)
    elif how == "killed":
        g = bridge.spawn(bridge.sleep, 100)
        bridge.sleep(0)
        g.kill()
    elif how == "killed in a builtin":
        g = bridge.spawn(sorted, [1], key=lambda _: bridge.sleep(100))
        bridge.sleep(0)
        g.kill()
    elif how in ("failed in sleep", "failed in sleep(0)", "failed in a wait", "failed in a limited wait"):
        waits = [lambda: bridge.sleep(9), lambda: bridge.sleep(0), Event().wait, lambda: Event().wait(9)]
        g = bridge.spawn(waits[["sleep", "sleep(0)", "a wait", "a limited wait"].index(how[10:])])
        bridge.get_hub().loop.run_callback(g.throw, ValueError("thrown"))
    elif how == "killed unstarted":
        g = bridge.spawn(_raiser)
        g.kill()
    elif how == "killed later":
        g = bridge.spawn_later(100, _raiser)
        g.kill()
    elif how == "linked":
        g = bridge.spawn(lambda: None)
        g.link(lambda _: None)
        g.rawlink(lambda _: None)
    elif how == "timed out":
        g = bridge.spawn(bridge.sleep, 0.002)
        g.join(timeout=0.001)
    g.join()
    bridge.sleep(0.001)
    return g


@pytest.mark.parametrize(
    "how",
    [
        "value", "builtin", "blocked builtin", "error", "builtin error", "killed", "killed in a builtin",
        "killed unstarted", "killed later", "linked", "timed out", "failed in sleep", "failed in sleep(0)",
        "failed in a wait", "failed in a limited wait",
    ],
)  # fmt: skip
def test_an_ended_greenlet_is_freed_by_reference_counting(how: str, errors: Errors, no_gc: None) -> None:
    ref = weakref.ref(_make_ended(how))
    errors.clear()
    bridge.sleep(0)
    assert ref() is None


def test_one_that_never_started_is_freed_by_reference_counting(no_gc: None) -> None:
    refs = [weakref.ref(Greenlet(lambda: None)), weakref.ref(Greenlet(len, ()))]
    assert [r() for r in refs] == [None, None]


def test_arguments_and_locals_go_with_the_end_not_with_the_greenlet(no_gc: None) -> None:
    thing, other = Thing(), Thing()
    refs = [weakref.ref(thing), weakref.ref(other)]
    g = bridge.spawn(lambda t, o: (bridge.sleep(0), None)[1], thing, o=other)
    del thing, other
    g.join()
    assert [r() for r in refs] == [None, None]
    killed = bridge.spawn(lambda t: None, thing := Thing())
    ref = weakref.ref(thing)
    del thing
    killed.kill()
    bridge.sleep(0)
    assert ref() is None


def test_the_spawner_s_variables_are_not_kept_by_what_it_spawned(no_gc: None) -> None:
    def spawner() -> tuple[Any, Greenlet[Any]]:
        thing = Thing()
        return weakref.ref(thing), bridge.spawn(bridge.sleep, 100)

    ref, g = spawner()
    assert ref() is None
    g.kill()


def test_value_of_get_is_freed_with_its_last_user(no_gc: None) -> None:
    ref = weakref.ref(bridge.spawn(Thing).get())
    bridge.sleep(0)
    assert ref() is None


# -- relatives, names, callbacks --------------------------------------------------------------------


def test_spawning_greenlet_is_the_spawner_while_it_lives(no_gc: None) -> None:
    g = bridge.spawn(lambda: bridge.spawn(int))
    child = g.get()
    assert child.spawning_greenlet() is g
    del g
    bridge.sleep(0)
    assert child.spawning_greenlet() is None
    assert bridge.spawn_raw(int).spawning_greenlet() is getcurrent()  # type: ignore[attr-defined]


@pytest.mark.engines("owned")
def test_spawn_tree_locals_are_shared_by_the_descendants_of_one_root() -> None:
    def root() -> list[Any]:
        getcurrent().spawn_tree_locals["who"] = "root"  # type: ignore[attr-defined]
        child = bridge.spawn(lambda: bridge.spawn(getcurrent).get())
        return [getcurrent(), child.get(), bridge.spawn_raw(int)]

    me, grandchild, raw = bridge.spawn(root).get()
    other = bridge.spawn(getcurrent).get()
    assert grandchild.spawn_tree_locals is me.spawn_tree_locals is raw.spawn_tree_locals
    assert grandchild.spawn_tree_locals == {"who": "root"}
    assert other.spawn_tree_locals is not me.spawn_tree_locals and other.spawn_tree_locals == {}


def test_spawning_stack_says_where_it_was_made() -> None:
    def made_here() -> Greenlet[Any]:
        return bridge.spawn(lambda: None)

    g = made_here()
    frame, names, lines = g.spawning_stack, [], []
    while frame is not None:
        names.append(frame.f_code.co_name)
        lines.append(frame.f_lineno)
        frame = frame.f_back
    at = names.index("made_here")
    assert lines[at] == made_here.__code__.co_firstlineno + 1
    assert names[at + 1] == "test_spawning_stack_says_where_it_was_made"
    assert len(names) <= Greenlet.spawning_stack_limit
    assert "made_here" in "".join(traceback.format_stack(g.spawning_stack))


def test_there_is_no_spawning_stack_where_no_function_in_python_made_it(errors: Errors) -> None:
    made: list[Greenlet[Any]] = []
    bridge.spawn_raw(made.extend, map(Greenlet, [[].clear]))
    bridge.sleep(0)
    assert not errors and [g.spawning_stack for g in made] == [None]


def test_spawning_stack_is_as_long_as_the_class_says() -> None:
    class Short(Greenlet[Any]):
        spawning_stack_limit = 1

    frame = Short(int).spawning_stack
    assert frame is not None and frame.f_back is None


def test_without_tracking_there_are_no_relatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge.config, "track_greenlet_tree", False)
    g = Greenlet(int)
    assert (g.spawning_greenlet, g.spawning_stack, g.spawn_tree_locals) == (None, None, None)


def test_minimal_ident_is_the_smallest_free_number_and_used_again(no_gc: None) -> None:
    greenlets = [Greenlet(int) for _ in range(3)]
    idents = [g.minimal_ident for g in greenlets]
    assert [g.minimal_ident for g in greenlets] == idents and len(set(idents)) == 3
    freed = idents[1]
    del greenlets[1]
    g = Greenlet(int)
    assert g.minimal_ident <= freed and g.minimal_ident not in (idents[0], idents[2])


def test_a_greenlet_whose_parent_is_no_hub_has_no_small_number() -> None:
    g = Greenlet(int)
    hub, g.parent = g.parent, getcurrent()
    with pytest.raises(AttributeError, match="ident_registry"):
        g.minimal_ident  # noqa: B018
    g.parent = hub
    assert g.minimal_ident >= 0


def test_what_cannot_be_raised_is_not_thrown_and_the_greenlet_still_runs() -> None:
    g: Any = bridge.spawn(operator.add, 1, 2)
    for wrong in ("text", 5, int):
        with pytest.raises(TypeError, match="exception class or instance"):
            g.throw(wrong)
    assert g.get() == 3


def test_names_and_repr() -> None:
    g = Greenlet(_raiser)
    assert g._formatinfo() == "_raiser"  # gevent subclasses that have their own repr() use it
    assert repr(g) == f"<Greenlet at {id(g):#x}: _raiser>"
    shown = Greenlet(_raiser)
    assert f'"Greenlet-{shown.minimal_ident}"' in repr(shown)  # a number that was asked for is shown
    assert g.name == f"Greenlet-{g.minimal_ident}"
    assert repr(g) == f'<Greenlet "Greenlet-{g.minimal_ident}" at {id(g):#x}: _raiser>'
    g.name = "mine"
    assert g.name == "mine" and repr(g) == f'<Greenlet "mine" at {id(g):#x}: _raiser>'
    h = Greenlet(_blocking, 1, y="two")
    assert repr(h) == f"<Greenlet at {id(h):#x}: _blocking(1, y='two')>"
    h.kill()
    assert repr(h) == f"<Greenlet at {id(h):#x}: _blocking(1, y='two')>"
    h = Greenlet(_blocking, 1, y="two")
    h.kill()
    assert "two" not in repr(h)
    assert repr(Greenlet(len, "a" * 60)).endswith(": <built-in function len>('" + "a" * 49 + ")>")

    class Sub(Greenlet[Any]):
        def _run(self) -> None: ...

    s = Sub()
    assert repr(s) == f"<Sub at {id(s):#x}: _run>" and s.name == f"Greenlet-{s.minimal_ident}"

    class Bare(Greenlet[Any]):
        pass

    bare = Bare(None, "one", y="two")
    assert repr(bare) == f"<Bare at {id(bare):#x}: _run('one', y='two')>"


def test_a_builtin_that_blocks_has_a_name_and_a_loop_like_any_other() -> None:
    g = bridge.spawn(sorted, [1], key=lambda _: bridge.sleep(100))
    bridge.sleep(0)
    assert g.loop is bridge.get_hub().loop and g.name == f"Greenlet-{g.minimal_ident}"
    killer = threading.Thread(target=functools.partial(g.kill, block=False))
    killer.start()
    g.join(timeout=5)
    killer.join()
    assert isinstance(g.value, GreenletExit)


def test_spawn_callbacks_are_called_for_each_start_once_however_often_added() -> None:
    log: list[Any] = []

    def callback(g: Any) -> None:
        log.append((g, bool(g)))

    Greenlet.add_spawn_callback(callback)
    Greenlet.add_spawn_callback(callback)
    try:
        g, h = bridge.spawn(int), bridge.spawn_later(0.001, lambda: None)
        unstarted = Greenlet(int)
        assert [each for each, _ in log] == [g, h]
        unstarted.start()
        unstarted.start()
        assert len(log) == 3
    finally:
        Greenlet.remove_spawn_callback(callback)
    Greenlet.remove_spawn_callback(callback)
    bridge.spawn(int).join()
    assert len(log) == 3
    bridge.joinall([g, h, unstarted])


# -- context variables ------------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


def _read_and_set(_: object = None) -> str:
    value = variable.get()
    variable.set("changed in the greenlet")
    bridge.sleep(0)
    assert variable.get() == "changed in the greenlet"
    return value


@pytest.mark.parametrize("inherit", [True, False])
def test_context_is_a_copy_of_the_spawner_s_or_empty(inherit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge.config, "inherit_context", inherit)
    token = variable.set("at the spawn")
    later: list[str] = []
    greenlets = [
        bridge.spawn(_read_and_set),
        bridge.spawn_later(0.001, _read_and_set),
        bridge.spawn(lambda: bridge.spawn(_read_and_set).get()),
    ]
    builtin = bridge.spawn(sorted, [1], key=lambda _: later.append(_read_and_set()) or 0)
    variable.set("after the spawn")
    expected = "at the spawn" if inherit else "default"
    assert [g.get() for g in greenlets] == [expected] * 3
    builtin.get()
    assert later == [expected]
    assert variable.get() == "after the spawn"
    variable.reset(token)


def test_context_run_in_a_greenlet_survives_switches() -> None:
    def inner() -> str:
        variable.set("inner")
        bridge.sleep(0)
        return variable.get()

    def outer() -> tuple[str, str]:
        variable.set("outer")
        return contextvars.copy_context().run(inner), variable.get()

    greenlets = [bridge.spawn(outer) for _ in range(3)]
    assert [g.get() for g in greenlets] == [("inner", "outer")] * 3


def test_what_is_printed_of_a_failed_greenlet_shows_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    g = bridge.spawn(_raiser_of, 7, how="badly")
    g.join()
    assert (
        f"<Greenlet at {id(g):#x}: _raiser_of(7, how='badly')> failed with ValueError"
        in capsys.readouterr().err
    )
    assert g.args == () and g.kwargs == {}


def _raiser_of(number: int, how: str) -> None:
    raise ValueError(number, how)


def test_the_error_of_a_raw_greenlet_is_its_own_whoever_let_it_run(
    errors: list[tuple[Any, BaseException]],
) -> None:
    def fail() -> None:
        raise ValueError("expected")

    bridge.sleep(0)
    for _ in range(3):
        other = bridge.spawn(bridge.sleep, 0)
        raw = bridge.spawn_raw(fail)
        other.join()
        bridge.sleep(0)
        assert [context for context, _ in errors] == [raw]
        errors.clear()
