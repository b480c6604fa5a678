"""Event and AsyncResult."""

from __future__ import annotations

import random
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import bridge
from bridge.event import AsyncResult, Event
from bridge.exceptions import BlockingSwitchOutError


class Expected(Exception):
    pass


def settle() -> None:
    for _ in range(3):
        bridge.sleep(0)


# -- Event ----------------------------------------------------------------------------------------


def test_wait_returns_true_when_set_and_false_after_the_timeout() -> None:
    event = Event()
    assert event.wait(timeout=0.001) is False
    assert event.wait(0) is False
    assert event.wait(-1) is False
    bridge.get_hub().loop.run_callback(event.set)
    assert event.wait() is True
    assert event.wait(0) is True
    assert event.is_set() and event.isSet() and event.ready()
    event.clear()
    assert not event.is_set()
    assert event.linkcount() == 0


def test_set_then_clear_at_once_wakes_those_who_waited_and_no_others() -> None:
    event = Event()
    waiters = [bridge.spawn(event.wait) for _ in range(3)]
    settle()
    event.set()
    event.clear()
    late = bridge.spawn(event.wait, 0.001)
    assert [g.get() for g in waiters] == [True] * 3
    assert late.get() is False


def test_an_expired_timeout_object_makes_wait_return_and_another_one_goes_on() -> None:
    event = Event()
    assert event.wait(bridge.Timeout(0.001)) is False
    started = bridge.Timeout.start_new(0.001)
    assert event.wait(started) is False
    outer = bridge.Timeout.start_new(0.001)
    with pytest.raises(bridge.Timeout) as caught:
        event.wait(bridge.Timeout(10))
    assert caught.value is outer
    assert event.linkcount() == 0


def test_waiters_wake_in_order_of_arrival_whoever_has_left() -> None:
    event = Event()
    order: list[int] = []
    waiters = [bridge.spawn(lambda n=n: (event.wait(), order.append(n))) for n in range(50)]
    settle()
    gone = random.Random(4).sample(range(50), 30)
    for n in gone:
        waiters[n].kill()
    assert event.linkcount() == 20
    event.set()
    bridge.joinall(waiters)
    assert order == [n for n in range(50) if n not in gone]


def test_a_killed_waiter_leaves_no_trace(errors: list[Any]) -> None:
    event = Event()
    run_callback = bridge.get_hub().loop.run_callback
    ends: list[Callable[[Any], Any]] = [
        lambda g: g.kill(),
        lambda g: bridge.kill(g, Expected),
        lambda g: run_callback(g.throw, Expected),
    ]
    for end in ends:
        g = bridge.spawn(event.wait)
        settle()
        assert event.linkcount() == 1
        end(g)
        g.join()
        assert event.linkcount() == 0


def test_event_shows_its_state() -> None:
    event = Event()
    assert str(event) == f"<Event at {id(event):#x} clear _links[0]>"
    bridge.spawn(event.wait)
    settle()
    assert str(event).endswith(" clear _links[1]>")
    event.set()
    assert str(event).endswith(" set _links[0]>")


def test_set_may_be_called_in_the_hub_where_wait_may_not() -> None:
    event = Event()
    errors: list[BaseException] = []

    def callback() -> None:
        try:
            event.wait()
        except BlockingSwitchOutError as e:
            errors.append(e)
        event.set()

    bridge.get_hub().loop.run_callback(callback)
    assert event.wait()
    assert len(errors) == 1


# -- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Event, AsyncResult])
def test_rawlink_is_called_once_in_the_hub_in_order_with_the_waiters(make: Callable[[], Any]) -> None:
    source = make()
    order: list[Any] = []
    source.rawlink(lambda s: order.append(("first", s, bridge.getcurrent())))
    waiting = bridge.spawn(lambda: (source.wait(), order.append("waiter")))
    settle()
    source.rawlink(lambda s: order.append("last"))
    assert source.linkcount() == 3
    source.set()
    source.set()
    waiting.join()
    settle()
    assert order == [("first", source, bridge.get_hub()), "waiter", "last"]
    source.rawlink(order.append)  # ready already: called soon
    settle()
    assert order[3:] == [source]


def test_unlinked_callbacks_are_not_called() -> None:
    event = Event()
    called: list[Any] = []
    event.rawlink(called.append)
    event.unlink(called.append)
    event.unlink(called.append)  # nothing to take back
    assert event.linkcount() == 0
    event.set()
    event.rawlink(called.append)
    event.unlink(called.append)
    settle()
    assert called == []


@pytest.mark.parametrize("make", [Event, AsyncResult])
def test_a_callback_can_take_back_one_whose_turn_is_next(make: Callable[[], Any]) -> None:
    source = make()
    called: list[str] = []

    def first(_: Any) -> None:
        called.append("first")
        source.unlink(second)

    def second(_: Any) -> None:
        called.append("second")

    source.rawlink(first)
    source.rawlink(second)
    source.rawlink(second)
    source.set()
    settle()
    assert called == ["first", "second"]  # one of two was taken back
    source.unlink(second)  # nothing is left of them
    source.rawlink(second)
    settle()
    assert called == ["first", "second", "second"]


def test_the_same_callback_linked_twice_is_called_twice() -> None:
    event = Event()
    called: list[Any] = []
    event.rawlink(called.append)
    event.rawlink(called.append)
    event.set()
    settle()
    assert called == [event, event]


def test_an_error_in_a_callback_is_reported_and_harms_nobody(errors: list[tuple[Any, BaseException]]) -> None:
    event = Event()

    def fail(source: Event) -> None:
        raise Expected

    event.rawlink(fail)
    waiting = bridge.spawn(event.wait)
    settle()
    event.set()
    assert waiting.get() is True
    settle()
    assert [(context, type(e)) for context, e in errors] == [((fail, event), Expected)]


@pytest.mark.parametrize("make", [Event, AsyncResult])
def test_only_callables_can_be_linked(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="Expected callable: 3"):
        make().rawlink(3)


# -- AsyncResult ----------------------------------------------------------------------------------


def test_a_fresh_result_has_nothing() -> None:
    result: AsyncResult[int] = AsyncResult()
    assert not result.ready() and not result.successful() and not result.done()
    assert result.value is None and result.exception is None
    assert result.exc_info == ()
    assert str(result) == "<AsyncResult unset _links[0]>"
    for get in (result.get_nowait, lambda: result.get(block=False), lambda: result.get(timeout=0)):
        with pytest.raises(bridge.Timeout):
            get()
    assert result.wait(timeout=0.001) is None
    assert result.linkcount() == 0


def test_get_gives_the_value_that_comes_later() -> None:
    result: AsyncResult[str] = AsyncResult()
    getters = [bridge.spawn(result.get) for _ in range(3)]
    waiter = bridge.spawn(result.wait)
    settle()
    result.set("v")
    assert [g.get() for g in [*getters, waiter]] == ["v"] * 4
    assert result.get() == result.get_nowait() == result.result() == result.wait() == result.value == "v"
    assert result.successful() and result.done()


def test_none_is_a_value() -> None:
    result: AsyncResult[None] = AsyncResult()
    result.set()
    assert result.ready() and result.successful()
    assert result.get() is None


def test_get_raises_the_exception_and_wait_returns_none() -> None:
    result: AsyncResult[int] = AsyncResult()

    def get() -> None:
        with pytest.raises(Expected):
            result.get()

    getter = bridge.spawn(get)
    settle()
    try:
        raise Expected("x")
    except Expected as e:
        result.set_exception(e, sys.exc_info())
        raised = e
    getter.get()
    assert result.ready() and not result.successful()
    assert result.wait() is None and result.value is None
    assert result.exception is raised
    assert result.exc_info[:2] == (Expected, raised)
    with pytest.raises(Expected) as caught:
        result.get_nowait()
    assert caught.value.__traceback__ is not None
    assert "raise Expected" in str(caught.traceback[-1].statement)  # where it was raised first


def test_set_after_set_exception_gives_the_value_and_success() -> None:
    result: AsyncResult[int] = AsyncResult()
    result.set_exception(Expected())
    result.set(1)
    assert result.get() == 1
    assert result.successful() and result.exception is None and result.exc_info == ()
    result.set_exception(Expected())
    assert not result.successful() and result.value is None


def test_set_twice_before_the_waiter_runs_delivers_the_second_value() -> None:
    result: AsyncResult[int] = AsyncResult()
    getter = bridge.spawn(result.get)
    settle()
    result.set(1)
    result.set(2)
    assert getter.get() == 2


def test_get_raises_the_timeout_it_was_given() -> None:
    result: AsyncResult[int] = AsyncResult()
    given = bridge.Timeout(0.001)
    with pytest.raises(bridge.Timeout) as caught:
        result.get(timeout=given)
    assert caught.value is given
    with pytest.raises(bridge.Timeout) as caught:
        result.get(timeout=0.002)
    assert caught.value.seconds == 0.002
    assert result.linkcount() == 0


def test_a_result_cannot_be_cancelled() -> None:
    result: AsyncResult[int] = AsyncResult()
    assert result.cancel() is False and result.cancelled() is False
    result.set_result()
    assert result.get() is None
    result.set_result(4)
    assert result.cancel() is False and result.cancelled() is False
    assert result.result(timeout=0) == 4


def test_a_result_takes_over_what_a_greenlet_ends_with(errors: list[Any]) -> None:
    def fail() -> None:
        raise Expected

    good, bad = AsyncResult[int](), AsyncResult[int]()
    bridge.spawn(lambda: 3).link(good)
    bridge.spawn(fail).link(bad)
    assert good.get(timeout=5) == 3
    with pytest.raises(Expected):
        bad.get(timeout=5)
    assert bad.exc_info[0] is Expected


def test_what_is_no_exception_cannot_be_raised_and_says_so() -> None:
    result: AsyncResult[int] = AsyncResult()
    result.set_exception("text")
    assert result.exc_info[:2] == (str, "text")
    with pytest.raises(TypeError, match=r"set_exception\('text'\)"):
        result.get()


def test_wrong_types_of_timeouts_are_type_errors_and_leave_no_trace() -> None:
    event = Event()
    with pytest.raises(TypeError):
        event.wait("soon")  # type: ignore[arg-type]
    assert event.linkcount() == 0


# -- many -----------------------------------------------------------------------------------------


def _killing(count: int) -> float:
    event = Event()
    waiters = [bridge.spawn(event.wait) for _ in range(count)]
    settle()
    assert event.linkcount() == count
    order = list(range(count))
    random.Random(1).shuffle(order)
    survivors = [waiters[n] for n in order[-10:]]
    before = time.process_time()
    for n in order[:-10]:
        waiters[n].kill(block=False)
    bridge.joinall([waiters[n] for n in order[:-10]])
    spent = time.process_time() - before
    assert event.linkcount() == 10
    event.set()
    assert [g.get() for g in survivors] == [True] * 10
    return spent


@pytest.mark.engines("owned")
def test_100_000_waiters_killed_in_random_order_cost_linear_time() -> None:
    small = min(_killing(5_000) for _ in range(3))
    # linear is 20 times as much, quadratic 400 times
    assert _killing(100_000) < 100 * small


@pytest.mark.parametrize("timeout", [None, 5])
@pytest.mark.parametrize("killed", [False, True])
def test_an_event_does_not_keep_who_has_waited_for_it(timeout: float | None, killed: bool) -> None:
    event = Event()
    g = bridge.spawn(event.wait, timeout)
    bridge.sleep(0)
    event.set()
    if killed:
        g.kill()
    g.join()
    gone = weakref.ref(g)
    del g
    bridge.sleep(0)
    assert gone() is None
