"""Time limits: when they go off, in whom, what they raise, how they nest."""

from __future__ import annotations

import decimal
import fractions
import gc
import random
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import bridge
from bridge import Timeout
from bridge.event import AsyncResult, Event
from bridge.lock import Semaphore
from bridge.queue import Channel, Empty, Full, Queue
from bridge.select import select
from bridge.socket import socketpair, wait_read
from bridge.subprocess import PIPE, Popen, TimeoutExpired

SHORT = 0.002
LONG = 100


class Mine(Exception):
    pass


# -- what is raised ---------------------------------------------------------------------------------


def test_the_timeout_itself_is_raised_in_its_time() -> None:
    before = time.monotonic()
    limit = Timeout(SHORT)
    limit.start()
    with pytest.raises(Timeout) as caught:
        bridge.sleep(LONG)
    assert caught.value is limit
    assert time.monotonic() - before >= SHORT


@pytest.mark.parametrize("exception", [None, False, True, "text"])
def test_what_is_no_exception_means_the_timeout_itself(exception: Any) -> None:
    limit = Timeout.start_new(SHORT, exception)
    with pytest.raises(Timeout) as caught:
        bridge.sleep(LONG)
    assert caught.value is limit


def test_an_exception_class_or_instance_is_raised_instead() -> None:
    with pytest.raises(Mine), Timeout(SHORT, Mine):
        bridge.sleep(LONG)
    mine = Mine()
    with pytest.raises(Mine) as caught, Timeout(SHORT, mine):
        bridge.sleep(LONG)
    assert caught.value is mine


def test_silent_in_a_with_statement_leaves_the_block_only() -> None:
    reached = []
    with Timeout(SHORT, False) as limit:
        bridge.sleep(LONG)
        reached.append("not here")
    assert not reached and not limit.pending


def test_silence_swallows_nothing_but_itself() -> None:
    with pytest.raises(Mine), Timeout(LONG, False):
        raise Mine
    other = Timeout(SHORT)
    with pytest.raises(Timeout) as caught, Timeout(LONG, False):
        other.start()
        bridge.sleep(LONG)
    assert caught.value is other


def test_timeout_is_no_exception_that_handlers_of_exception_catch() -> None:
    assert not issubclass(Timeout, Exception) and issubclass(Timeout, BaseException)
    with pytest.raises(Timeout), Timeout(SHORT):
        try:
            bridge.sleep(LONG)
        except Exception:
            pytest.fail("caught")


def test_it_is_raised_in_the_greenlet_that_started_it() -> None:
    def starts() -> str:
        limit.start()
        try:
            bridge.sleep(LONG)
        except Timeout as e:
            assert e is limit
            return "raised here"
        return "not raised"

    limit = Timeout(SHORT)
    g = bridge.spawn(starts)
    bridge.sleep(SHORT * 2)
    assert g.get() == "raised here"


def test_a_greenlet_that_ends_by_a_timeout_fails_with_it(errors: list[Any]) -> None:
    def f() -> None:
        limit.start()
        bridge.sleep(LONG)

    limit = Timeout(SHORT)
    g = bridge.spawn(f)
    g.join()
    assert g.exception is limit and errors == [(g, limit)]


def test_a_timeout_for_a_greenlet_that_has_ended_harms_nobody(errors: list[Any]) -> None:
    for spawn in (bridge.spawn, bridge.spawn_raw):
        limit = Timeout(SHORT)
        spawn(limit.start)
        bridge.sleep(SHORT * 2)
        assert not limit.pending
    assert not errors


# -- when -------------------------------------------------------------------------------------------


def test_without_seconds_it_never_starts() -> None:
    limit = Timeout(None)
    limit.start()
    assert not limit.pending
    with limit:
        bridge.sleep(0)
    assert Timeout.start_new(None).pending is False


@pytest.mark.parametrize("seconds", [0, -1, -0.5])
def test_zero_and_less_let_one_switch_pass(seconds: float) -> None:
    with pytest.raises(Timeout), Timeout(seconds):
        bridge.sleep(0)
        bridge.sleep(LONG)
    with Timeout(seconds):
        pass  # no switch: it never goes off
    bridge.sleep(SHORT)


def test_it_cannot_interrupt_code_that_does_not_switch() -> None:
    with Timeout(SHORT) as limit:
        time.sleep(SHORT * 2)
        assert limit.pending
    bridge.sleep(0)
    assert not limit.pending


@pytest.mark.parametrize("seconds", [decimal.Decimal("0.002"), fractions.Fraction(1, 500), False])
def test_any_number_of_seconds_will_do(seconds: Any) -> None:
    with pytest.raises(Timeout), Timeout(seconds):
        bridge.sleep(LONG)


@pytest.mark.parametrize("seconds", ["soon", [], object()])
def test_what_is_no_number_is_refused_by_name(seconds: Any) -> None:
    with pytest.raises(TypeError, match="seconds") as caught:
        Timeout(seconds).start()
    assert repr(seconds) in str(caught.value)


def test_due_together_they_go_off_in_order_of_their_times() -> None:
    order = []
    due = {}

    def f(n: int) -> None:
        with Timeout(SHORT + n * 0.001) as limit:
            due[n] = limit._entry[0]  # on a busy machine the starts lie apart
            try:
                bridge.sleep(LONG)
            except Timeout as e:
                assert e is limit
                order.append(n)

    numbers = list(range(20))
    random.Random(5).shuffle(numbers)
    greenlets = [bridge.spawn(f, n) for n in numbers]
    bridge.sleep(0)
    time.sleep(SHORT + 0.03)  # now all are due at once
    bridge.joinall(greenlets)
    assert order == sorted(numbers, key=due.__getitem__)


# -- start, cancel, close ---------------------------------------------------------------------------


def test_pending_from_start_to_cancel() -> None:
    limit = Timeout(LONG)
    assert not limit.pending
    limit.start()
    assert limit.pending
    limit.cancel()
    assert not limit.pending
    limit.cancel()
    limit.start()  # again
    assert limit.pending
    limit.close()
    assert not limit.pending


def test_pending_is_over_once_it_was_raised_and_it_may_be_started_again() -> None:
    limit = Timeout(SHORT)
    for _ in range(2):
        limit.start()
        with pytest.raises(Timeout):
            bridge.sleep(LONG)
        assert not limit.pending


def test_starting_twice_and_after_close_are_errors_that_say_why() -> None:
    limit = Timeout(LONG)
    limit.start()
    with pytest.raises(AssertionError, match="already started"):
        limit.start()
    assert limit.pending
    limit.close()
    with pytest.raises(AssertionError):
        limit.start()


def test_cancelled_between_its_time_and_its_raising_it_is_not_raised() -> None:
    limit = Timeout(SHORT)
    limit.start()
    other = bridge.spawn(lambda: (time.sleep(SHORT * 2), bridge.sleep(0), limit.cancel()))
    bridge.sleep(SHORT * 4)
    other.join()
    bridge.sleep(SHORT)

    zero = Timeout(0)
    zero.start()
    zero.cancel()
    bridge.sleep(SHORT)


def test_leaving_the_block_stops_it_whatever_happens() -> None:
    with Timeout(SHORT) as limit:
        pass
    with pytest.raises(Mine), Timeout(SHORT) as second:
        raise Mine
    assert not limit.pending and not second.pending
    bridge.sleep(SHORT * 3)


def test_a_block_takes_over_a_timeout_that_counts_already() -> None:
    limit = Timeout.start_new(LONG)
    with limit as same:
        assert same is limit and limit.pending
    assert not limit.pending


def test_start_new_starts_a_timeout_that_is_given_and_leaves_one_that_counts() -> None:
    limit = Timeout(LONG)
    assert Timeout.start_new(limit) is limit and limit.pending
    assert Timeout.start_new(limit) is limit
    limit.close()


def test_subclass_instances_are_made_by_its_start_new() -> None:
    class Own(Timeout):
        pass

    limit = Own.start_new(LONG)
    assert type(limit) is Own and limit.pending
    limit.close()
    with pytest.raises(Own), Own(SHORT):
        bridge.sleep(LONG)


@pytest.mark.parametrize("how", ["left", "cancelled", "raised", "never started"])
def test_what_a_timeout_refers_to_is_freed_with_it(how: str) -> None:
    """The object cannot be weakly referenced itself: its exception stands for it."""

    def use() -> Any:
        mine = Mine()
        limit = Timeout(SHORT if how == "raised" else LONG, mine)
        if how == "left":
            with limit:
                bridge.sleep(0)
        elif how != "never started":
            limit.start()
            if how == "cancelled":
                limit.cancel()
            else:
                try:
                    bridge.sleep(LONG)
                except Mine:
                    pass
                mine.__traceback__ = None
        return weakref.ref(mine)

    gc.collect()
    gc.disable()
    try:
        ref = use()
        bridge.sleep(0.001)  # the hub lets go of what it has thrown when it runs next
        assert ref() is None
    finally:
        gc.enable()


def test_cancelled_timeouts_leave_nothing_in_the_loop() -> None:
    for _ in range(10_000):
        with Timeout(LONG):
            pass
    limits = [Timeout.start_new(LONG + n % 7) for n in range(1000)]
    random.Random(2).shuffle(limits)
    for limit in limits:
        limit.cancel()
    assert len(bridge.get_hub().loop.heap) < 200


# -- nesting ----------------------------------------------------------------------------------------


def test_the_inner_one_goes_off_first_and_the_outer_goes_on() -> None:
    with Timeout(LONG) as outer:
        with pytest.raises(Timeout) as caught, Timeout(SHORT) as inner:
            bridge.sleep(LONG)
        assert caught.value is inner
        assert outer.pending


def test_the_outer_one_goes_through_a_silent_inner_one() -> None:
    with pytest.raises(Timeout) as caught, Timeout(SHORT) as outer:
        with Timeout(LONG, False):
            bridge.sleep(LONG)
        pytest.fail("swallowed")
    assert caught.value is outer


def test_both_due_at_once_are_raised_one_after_the_other() -> None:
    caught = []
    a, b = Timeout(SHORT), Timeout(SHORT * 1.01)
    a.start()
    b.start()
    time.sleep(SHORT * 2)
    for _ in range(2):
        try:
            bridge.sleep(LONG)
        except Timeout as e:
            caught.append(e)
    assert caught == [a, b]


def test_clean_up_code_may_block_after_a_timeout() -> None:
    log = []
    with Timeout(SHORT, False):
        try:
            bridge.sleep(LONG)
        finally:
            bridge.sleep(SHORT)
            log.append("clean")
    assert log == ["clean"]


def _model_of_nested_limits(spec: list[tuple[float, bool]], nap: float) -> str:
    """What a stack of limits, the outermost first, does to one nap: who ends it."""
    due = min(range(len(spec)), key=lambda i: spec[i][0], default=None)
    if due is None or spec[due][0] > nap:
        return "slept"
    return f"limit {due}"


def test_random_nests_behave_as_a_model_says() -> None:
    rnd = random.Random(17)
    # far enough apart to be told from each other on a slow machine, in several greenlets at once
    ticks = [n * 0.006 for n in range(1, 6)]

    runs: list[tuple[Any, str]] = []

    def run(spec: list[tuple[float, bool]], nap: float) -> str:
        local: list[Timeout] = []

        def level(at: int) -> str:
            if at == len(spec):
                bridge.sleep(nap)
                return "slept"
            with Timeout(spec[at][0], False if spec[at][1] else None) as limit:
                local.append(limit)
                return level(at + 1)
            return f"limit {at}"

        try:
            return level(0)
        except Timeout as e:
            return f"limit {local.index(e)}"

    for _ in range(120):
        times = rnd.sample(ticks, rnd.randrange(1, 5))
        nap = times.pop()
        spec = [(t, rnd.random() < 0.5) for t in times]
        runs.append((bridge.spawn(run, spec, nap), _model_of_nested_limits(spec, nap)))
    for g, expected in runs:
        assert g.get(timeout=20) == expected


def test_a_random_mix_of_limits_kills_and_wakeups_never_wakes_anybody_twice() -> None:
    """Each sleeper counts how its waits end; what ends one wait must not be left over for the next."""
    rnd = random.Random(23)
    for _ in range(20):
        event = Event()
        ends: list[str] = []

        def sleeper(event: Event = event, ends: list[str] = ends) -> None:
            for wait in (event.wait, lambda: bridge.sleep(0.001), lambda: bridge.sleep(0)):
                try:
                    with Timeout(rnd.choice((0, 0.0005, 0.001, LONG))):
                        wait()
                        ends.append("done")
                except Timeout:
                    ends.append("timeout")
                except Mine:
                    ends.append("mine")
                before = time.monotonic()
                try:
                    bridge.sleep(0.001)
                    assert time.monotonic() - before >= 0.001
                except Mine:
                    ends.append("late")

        greenlets = [bridge.spawn(sleeper) for _ in range(8)]
        thrown = 0
        for _n in range(10):
            action = rnd.randrange(3)
            if action == 0:
                event.set()
                event.clear()
            elif action == 1:
                bridge.sleep(rnd.choice((0, 0.0003)))
            elif (g := rnd.choice(greenlets)).started and g.gr_frame is not None:
                g.kill(Mine, block=False)
                thrown += 1
        event.set()
        bridge.joinall(greenlets, timeout=10, raise_error=False)
        assert all(g.ready() for g in greenlets)
        for g in greenlets:
            assert g.exception is None or isinstance(g.exception, Mine), g.exception


# -- as an argument ---------------------------------------------------------------------------------


def test_a_timeout_object_given_to_a_wait_gives_false_and_to_a_get_is_raised() -> None:
    semaphore = Semaphore(0)
    g = bridge.spawn(bridge.sleep, LONG)
    assert Event().wait(timeout=Timeout(SHORT)) is False  # type: ignore[arg-type]
    assert semaphore.acquire(timeout=Timeout(SHORT)) is False  # type: ignore[arg-type]
    assert g.join(timeout=Timeout(SHORT)) is None  # type: ignore[func-returns-value]
    gets: list[Callable[[Any], object]] = [
        lambda limit: AsyncResult().get(timeout=limit),
        lambda limit: g.get(timeout=limit),
    ]
    for get in gets:
        limit = Timeout(SHORT)
        with pytest.raises(Timeout) as caught:
            get(limit)
        assert caught.value is limit
    g.kill()


@pytest.mark.parametrize("exception", [Mine, Mine()])
def test_the_exception_of_a_timeout_object_given_to_a_wait_is_raised(exception: Any) -> None:
    g = bridge.spawn(bridge.sleep, LONG)
    semaphore = Semaphore(0)
    waits: list[Callable[..., object]] = [
        Event().wait,
        AsyncResult().wait,
        AsyncResult().get,
        g.join,
        g.get,
        lambda timeout: semaphore.acquire(timeout=timeout),
        lambda timeout: Queue().get(timeout=timeout),
    ]
    for wait in waits:
        with pytest.raises(Mine) as caught:
            wait(timeout=Timeout(SHORT, exception))
        assert caught.value is exception or exception is Mine
    g.kill()


def test_an_enclosing_limit_goes_through_every_kind_of_wait() -> None:
    g = bridge.spawn(bridge.sleep, LONG)
    waits: list[Callable[[], object]] = [
        Event().wait,
        lambda: Event().wait(LONG),
        AsyncResult().get,
        AsyncResult().wait,
        Semaphore(0).acquire,
        lambda: Semaphore(0).acquire(timeout=LONG),
        Queue().get,
        lambda: Queue().get(timeout=LONG),
        g.join,
        g.get,
        lambda: bridge.joinall([g]),
        lambda: bridge.wait([g], timeout=LONG),
        lambda: bridge.sleep(LONG),
    ]
    for wait in waits:
        with pytest.raises(Timeout) as caught, Timeout(SHORT) as limit:
            wait()
        assert caught.value is limit
    assert not g.has_links()
    g.kill()
    with pytest.raises(Empty):
        Queue().get(timeout=SHORT)


# -- with_timeout -----------------------------------------------------------------------------------


def test_with_timeout_gives_the_result_or_raises_or_gives_the_value() -> None:
    assert bridge.with_timeout(LONG, lambda *a, **k: (a, k), 1, x=2) == ((1,), {"x": 2})
    with pytest.raises(Timeout) as caught:
        bridge.with_timeout(SHORT, bridge.sleep, LONG)
    assert caught.value.seconds == SHORT
    marker = object()
    assert bridge.with_timeout(SHORT, bridge.sleep, LONG, timeout_value=marker) is marker
    assert bridge.with_timeout(SHORT, bridge.sleep, LONG, timeout_value=None) is None
    assert bridge.with_timeout(None, lambda: 5) == 5


def test_with_timeout_lets_errors_and_other_timeouts_through() -> None:
    def fail() -> None:
        raise Mine

    with pytest.raises(Mine):
        bridge.with_timeout(LONG, fail, timeout_value=1)
    with pytest.raises(Timeout) as caught, Timeout(SHORT) as outer:
        bridge.with_timeout(LONG, bridge.sleep, LONG, timeout_value=1)
    assert caught.value is outer


def test_the_outer_of_two_with_timeouts_takes_the_timeout_value() -> None:
    with pytest.raises(Timeout):
        bridge.with_timeout(LONG, bridge.with_timeout, SHORT, bridge.sleep, LONG, timeout_value=1)
    assert bridge.with_timeout(SHORT, bridge.with_timeout, LONG, bridge.sleep, LONG, timeout_value=1) == 1


# -- texts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (Timeout(None), ""),
        (Timeout(1), "1 second"),
        (Timeout(2.5), "2.5 seconds"),
        (Timeout(1, False), "1 second (silent)"),
        (Timeout(10, Mine("x")), "10 seconds: x"),
    ],
)
def test_str_says_how_long_and_what(limit: Timeout, text: str) -> None:
    assert str(limit) == text


def test_repr_says_whether_it_is_pending() -> None:
    limit = Timeout(LONG, Mine)
    assert repr(limit) == f"<Timeout at {id(limit):#x} seconds=100 exception={Mine!r}>".replace("#", "")
    limit.start()
    assert "pending" in repr(limit)
    limit.close()
    assert "pending" not in repr(limit)


def test_a_timeout_can_be_referred_to_weakly() -> None:
    timeout = Timeout(1)
    assert weakref.ref(timeout)() is timeout


@pytest.mark.parametrize("seconds", ["1", b"1", bytearray(b"1")])
def test_text_is_no_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(TypeError, match="seconds"):
        bridge.Timeout(seconds)


def _limited_calls(silent: Any, seconds: Any) -> list[tuple[Any, Callable[[], object]]]:
    """Calls in which nothing happens for ``seconds``, each with what it raises, or returns, then."""
    full: Queue[int] = Queue(1, [1])
    sleeper = bridge.Greenlet(bridge.sleep, LONG)
    return [
        (Empty, lambda: Queue().get(timeout=seconds)),
        (Empty, lambda: Queue().peek(timeout=seconds)),
        (Empty, lambda: Channel().get(timeout=seconds)),
        (Full, lambda: full.put(2, timeout=seconds)),
        (Empty, lambda: bridge.await_(Queue().aget(seconds))),
        (Full, lambda: bridge.await_(full.aput(2, seconds))),
        (False, lambda: bridge.await_(full.ajoin(seconds))),
        (False, lambda: bridge.await_(Semaphore(0).aacquire(seconds))),
        (None, lambda: bridge.await_(sleeper.ajoin(seconds))),
        (Timeout, lambda: bridge.await_(sleeper.aget(seconds))),
        ([], lambda: list(bridge.iwait([sleeper], seconds))),
        (TimeoutError, lambda: wait_read(silent, seconds)),
        (([], [], []), lambda: select([silent], [], [], seconds)),
    ]


@pytest.mark.parametrize("kind", [decimal.Decimal, fractions.Fraction])
def test_whatever_counts_as_a_number_limits_a_wait(kind: Any) -> None:
    seconds = kind("0.001")
    assert Event().wait(seconds) is False
    assert Semaphore(0).acquire(timeout=seconds) is False
    assert Semaphore(0).wait(seconds) == 0
    with pytest.raises(bridge.Timeout):
        AsyncResult().get(timeout=seconds)
    bridge.sleep(seconds)
    assert bridge.spawn_later(seconds, str, 5).get() == "5"
    silent, other = socketpair()
    with silent, other:
        for outcome, call in _limited_calls(silent, seconds):
            if isinstance(outcome, type):
                with pytest.raises(outcome):
                    call()
            else:
                assert call() == outcome
    with Popen(["sleep", str(LONG)], stdout=PIPE) as child:
        for limited in (child.wait, lambda s: child.communicate(timeout=s)):
            with pytest.raises(TimeoutExpired):
                limited(seconds)
        child.kill()
    log: list[int] = []
    timer = bridge.get_hub().loop.timer(seconds)
    timer.start(log.append, 1)
    bridge.sleep(0.01)
    assert log == [1]


def test_what_is_no_number_of_seconds_is_refused_at_once() -> None:
    for wrong in ("1", b"1", None, []):
        for call in (bridge.get_hub().loop.timer, bridge.sleep, lambda s: bridge.spawn_later(s, str)):
            with pytest.raises(TypeError, match="a number of seconds is needed"):
                call(wrong)
    silent, other = socketpair()
    with silent, other:
        for _outcome, limited in _limited_calls(silent, "1"):
            with pytest.raises(TypeError, match="timeout='1': a number of seconds, a Timeout or None"):
                limited()
    with pytest.raises(TypeError):
        bridge.get_hub().loop.timer(1, "1")


def test_the_end_of_a_with_statement_closes_the_timeout_by_its_method() -> None:
    calls: list[str] = []

    class Noted(bridge.Timeout):
        def close(self) -> None:
            calls.append("close")
            super().close()

    with Noted(5):
        pass
    assert calls == ["close"]
