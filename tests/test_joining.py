"""Waiting for several at once: wait, iwait, joinall, killall."""

from __future__ import annotations

import random
import time
import weakref
from typing import Any

import pytest

import bridge
from bridge import Greenlet, GreenletExit, Timeout
from bridge.event import AsyncResult, Event
from bridge.exceptions import BlockingSwitchOutError
from bridge.lock import Semaphore

LONG = 100


def fail(exception: BaseException) -> None:
    raise exception


def sleepers(*seconds: float) -> list[Greenlet[Any]]:
    return [bridge.spawn(lambda s=s: (bridge.sleep(s), s)[1]) for s in seconds]


# -- wait -------------------------------------------------------------------------------------------


def test_wait_gives_the_objects_in_the_order_in_which_they_became_ready() -> None:
    a, b, c = sleepers(0.006, 0.002, 0.004)
    assert bridge.wait([a, b, c]) == [b, c, a]


def test_wait_takes_everything_that_can_be_linked() -> None:
    event, result, semaphore = Event(), AsyncResult[int](), Semaphore(0)
    g = bridge.spawn(lambda: (semaphore.release(), result.set(1), event.set()))
    objects = [event, result, semaphore, g]
    ready = bridge.wait(objects, timeout=5)
    assert len(ready) == 4 and all(any(r is o for r in ready) for o in objects)


def test_wait_for_so_many_only_lets_go_of_the_others() -> None:
    a, b, c = sleepers(0.004, 0.002, LONG)
    assert bridge.wait([a, b, c], count=1) == [b]
    assert not c.has_links() and not a.has_links()
    assert bridge.wait([a, b, c], count=2) in ([b, a], [a, b])
    assert bridge.wait([a, b], count=5) in ([b, a], [a, b])
    c.kill()


def test_wait_gives_what_is_ready_when_its_time_is_over() -> None:
    a, b = sleepers(0, LONG)
    assert bridge.wait([a, b], timeout=0.01) == [a]
    assert not b.has_links()
    assert bridge.wait([b], timeout=0) == []
    assert bridge.wait([b], timeout=Timeout(0.002)) == []
    b.kill()


def test_wait_for_what_is_ready_already_does_not_need_the_others() -> None:
    done = sleepers(0, 0, 0)
    bridge.joinall(done)
    assert bridge.wait(done) == done
    assert bridge.wait([]) == [] and bridge.wait(done, count=0) == []


def test_wait_lets_go_of_everything_when_it_is_interrupted() -> None:
    greenlets = sleepers(LONG, LONG)
    event = Event()
    for wait in (
        lambda: bridge.wait([*greenlets, event]),
        lambda: list(bridge.iwait([*greenlets, event])),
        lambda: bridge.joinall([*greenlets, event]),
        lambda: bridge.joinall(greenlets, raise_error=True),
    ):
        with pytest.raises(Timeout), Timeout(0.002):
            wait()
        assert not any(g.has_links() for g in greenlets) and event.linkcount() == 0
    bridge.killall(greenlets)


def test_an_object_that_is_given_twice_counts_twice() -> None:
    (g,) = sleepers(0.001)
    assert bridge.wait([g, g], timeout=5) == [g, g]


@pytest.mark.parametrize("wrong", [5, "x", None])
def test_what_cannot_be_waited_for_is_refused_and_the_others_let_go(wrong: Any) -> None:
    (g,) = sleepers(LONG)
    for wait in (bridge.wait, bridge.joinall, lambda objects: list(bridge.iwait(objects))):
        with pytest.raises(TypeError, match="rawlink") as caught:
            wait([g, wrong])
        assert repr(wrong) in str(caught.value)
        assert not g.has_links()
    g.kill()


def test_waiting_in_the_hub_is_refused(errors: list[Any]) -> None:
    (g,) = sleepers(LONG)
    for call in (
        lambda: bridge.wait([g]),
        lambda: bridge.joinall([g]),
        lambda: next(bridge.iwait([g])),
        lambda: bridge.killall([g]),
    ):
        bridge.get_hub().loop.run_callback(call)
    bridge.sleep(0.001)
    assert [type(e) for _, e in errors] == [BlockingSwitchOutError] * 4
    g.kill()


# -- iwait ------------------------------------------------------------------------------------------


def test_iwait_gives_each_as_soon_as_it_is_ready() -> None:
    starts = [Event(), Event(), Event()]
    greenlets = [bridge.spawn(start.wait) for start in starts]
    bridge.spawn(starts[1].set)
    order = []
    for g in bridge.iwait(greenlets):
        order.append(greenlets.index(g))
        assert sum(each.ready() for each in greenlets) == len(order)
        following = {1: 2, 2: 0}.get(order[-1])
        if following is not None:
            starts[following].set()
    assert order == [1, 2, 0]


def test_iwait_limits_the_time_of_all_and_the_number() -> None:
    greenlets = sleepers(0.002, 0.004, LONG)
    before = time.monotonic()
    assert list(bridge.iwait(greenlets, timeout=0.02)) == greenlets[:2]
    assert 0.02 <= time.monotonic() - before < 10
    assert list(bridge.iwait(greenlets, count=2)) == greenlets[:2]
    assert not greenlets[2].has_links()
    greenlets[2].kill()


def test_iwait_left_early_lets_go_of_the_rest() -> None:
    greenlets = sleepers(0, LONG, LONG)
    with bridge.iwait(greenlets) as iterator:  # type: ignore[attr-defined]
        assert next(iterator) is greenlets[0]
    assert not any(g.has_links() for g in greenlets)
    with pytest.raises(StopIteration):
        next(iterator)
    for _g in bridge.iwait(greenlets):
        break
    del _g
    assert not any(g.has_links() for g in greenlets)
    bridge.killall(greenlets)


def test_iwait_keeps_those_that_became_ready_between_two_steps() -> None:
    events = [Event() for _ in range(5)]
    iterator = bridge.iwait(events, timeout=5)
    for event in events:
        event.set()
        bridge.sleep(0)
    assert list(iterator) == events


# -- joinall ----------------------------------------------------------------------------------------


def test_joinall_gives_those_that_ended_in_their_order() -> None:
    a, b, c = sleepers(0.004, 0.002, LONG)
    assert bridge.joinall([a, b, c], timeout=0.02) == [b, a]
    assert bridge.joinall([a, b, c], count=1) in ([a], [b])
    assert bridge.joinall([]) == []
    assert bridge.joinall(iter((a, b))) == [a, b]
    c.kill()


def test_joinall_ignores_errors_unless_it_is_to_raise_them(errors: list[Any]) -> None:
    mine = ValueError("mine")

    def make() -> list[Greenlet[Any]]:
        return [*sleepers(0.001, LONG), bridge.spawn(fail, mine), bridge.spawn(fail, GreenletExit())]

    greenlets = make()
    assert len(bridge.joinall(greenlets, timeout=0.02)) == 3
    bridge.killall(greenlets)
    greenlets = make()
    with pytest.raises(ValueError, match="mine") as caught:
        bridge.joinall(greenlets, raise_error=True)
    assert caught.value is mine
    assert not any(g.has_links() for g in greenlets)
    bridge.killall(greenlets)
    assert len(bridge.joinall(sleepers(0, 0), raise_error=True)) == 2
    assert bridge.joinall(sleepers(LONG), raise_error=True, timeout=0.001) == []


def test_joinall_gives_the_right_ones_whatever_the_order_of_the_ends() -> None:
    rnd = random.Random(4)
    for _ in range(20):
        events = [Event() for _ in range(6)]
        greenlets = [bridge.spawn(e.wait) for e in events]
        count = rnd.choice((None, None, 1, 3, 6))
        joiner = bridge.spawn(bridge.joinall, greenlets, count=count)
        order = list(range(6))
        rnd.shuffle(order)
        ended: list[Greenlet[Any]] = []
        for n in order:
            bridge.sleep(0)
            if rnd.random() < 0.3:
                greenlets[n].kill(block=False)
            else:
                events[n].set()
            ended.append(greenlets[n])
            bridge.sleep(0)
        found = joiner.get(timeout=5)
        assert found == ended[: count or 6]


def test_joinall_keeps_nothing_alive() -> None:
    greenlets = sleepers(0, 0, LONG)
    bridge.joinall(greenlets, timeout=0.001)
    bridge.killall(greenlets)
    refs = [weakref.ref(g) for g in greenlets]
    greenlets.clear()
    bridge.sleep(0.001)
    assert [r() for r in refs] == [None] * 3


# -- killall ----------------------------------------------------------------------------------------


def test_killall_ends_every_kind_of_greenlet_and_waits_for_it() -> None:
    log: list[str] = []

    def slow() -> None:
        try:
            bridge.sleep(LONG)
        finally:
            bridge.sleep(0.002)
            log.append("clean")

    def raw() -> None:
        try:
            bridge.sleep(LONG)
        finally:
            log.append("raw")

    greenlets: list[Any] = [
        bridge.spawn(slow),
        bridge.spawn(sorted, [1], key=lambda _: bridge.sleep(LONG)),
        bridge.spawn_raw(raw),
    ]
    ended = bridge.spawn(int)
    ended.join()
    greenlets += [
        Greenlet(log.append, "new"),
        bridge.spawn(log.append, "queued"),
        bridge.spawn(lambda: log.append("queued")),
        bridge.spawn_later(0.001, log.append, "later"),
    ]
    bridge.killall([*greenlets[:3], ended, *greenlets[3:]])
    assert all(g.dead for g in greenlets)
    assert all(isinstance(g.value, GreenletExit) for g in greenlets if isinstance(g, Greenlet))
    bridge.sleep(0.003)
    assert sorted(log) == ["clean", "raw"]


def test_killall_before_their_start_none_of_them_runs() -> None:
    log: list[int] = []
    greenlets = [bridge.spawn(log.append, n) for n in range(3)] + [bridge.spawn(lambda: log.append(3))]
    bridge.killall(greenlets)
    assert log == [] and all(g.successful() for g in greenlets)


def test_killall_without_blocking_returns_at_once() -> None:
    greenlets = sleepers(LONG, LONG)
    bridge.sleep(0)
    bridge.killall(iter(greenlets), block=False)
    assert all(g.started for g in greenlets)
    bridge.sleep(0)
    assert all(g.ready() for g in greenlets)


def test_killall_raises_timeout_when_somebody_ignores_it() -> None:
    event = Event()

    def stubborn() -> str:
        try:
            event.wait()
        except GreenletExit:
            event.wait()
        return "lived"

    greenlets = [bridge.spawn(stubborn), *sleepers(LONG)]
    bridge.sleep(0)
    with pytest.raises(Timeout):
        bridge.killall(greenlets, timeout=0.002)
    assert greenlets[1].ready() and not greenlets[0].ready() and not greenlets[0].has_links()
    event.set()
    assert greenlets[0].get() == "lived"


def test_killall_by_an_exception_of_one_s_own(errors: list[Any]) -> None:
    greenlets = [*sleepers(LONG), Greenlet(int)]
    bridge.sleep(0)
    mine = ValueError("mine")
    bridge.killall(greenlets, mine)
    assert [g.exception for g in greenlets] == [mine, mine] and len(errors) == 2


def test_killall_of_nobody_does_not_block() -> None:
    log: list[int] = []
    bridge.spawn(log.append, 1)
    bridge.killall([])
    bridge.killall(g for g in [Greenlet(int)])
    assert not log


def test_killall_refuses_what_is_no_greenlet() -> None:
    with pytest.raises(TypeError, match="takes greenlets, not 5"):
        bridge.killall([5])


@pytest.mark.engines("owned")
def test_joinall_of_none_waits_for_everything() -> None:
    g = bridge.spawn(bridge.sleep, 0)
    assert bridge.joinall(None) is True
    assert g.ready()
