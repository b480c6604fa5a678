"""What a signal handler raises may come out of any call of any line of ours: nobody else is to be harmed.

The handler is played by a profile function, so that each point at which one may raise comes up in its turn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from greenlet import getcurrent

import bridge
from bridge import event, lock, queue
from bridge._core.accelerated import accelerator
from bridge.threadpool import ThreadPool

pytestmark = pytest.mark.skipif(
    accelerator("_switching") is None,
    reason="between two lines of the engine in Python a handler can take a greenlet from the ready queue",
)

OURS = os.path.dirname(bridge.__file__) + os.sep


class Oops(Exception):
    """What the handler raises."""


def interrupted_at(point: int, function: Callable[[], object]) -> bool:
    """Call ``function`` here, with Oops at the n-th point of ours; false if it has not so many."""
    victim = getcurrent()
    left = point
    begun = False

    def profile(frame: Any, what: str, arg: object) -> None:
        nonlocal left
        if not begun or what not in ("call", "c_return") or getcurrent() is not victim:
            return
        if getattr(arg, "__name__", "") == "__enter__":
            return  # between that and its block no code in Python is safe: 3.14 tells of it here
        if frame.f_code.co_filename.startswith(OURS):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise Oops

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        begun = True
        function()
    except Oops:
        return True
    finally:
        begun = False
        sys.setprofile(before)
    return left < 0  # it was caught, by what finds errors nowhere else to go


class Place:
    """Something to wait for, which others wait for as well: how to wait, and how to make it come true."""

    def __init__(self, wait: Callable[[], object], tell: Callable[[], object], each: bool = False) -> None:
        self.wait = wait
        self.tell = tell
        #: it comes true for one at a time
        self.each = each


def semaphore() -> Place:
    s = lock.Semaphore(0)
    return Place(s.acquire, s.release, True)


def semaphore_with_limit() -> Place:
    s = lock.Semaphore(0)
    return Place(lambda: s.acquire(timeout=60), s.release, True)


def an_event() -> Place:
    e = event.Event()
    return Place(e.wait, e.set)


def event_with_limit() -> Place:
    e = event.Event()
    return Place(lambda: e.wait(60), e.set)


def result() -> Place:
    r: event.AsyncResult[int] = event.AsyncResult()
    return Place(r.get, lambda: r.set(1))


def getting() -> Place:
    q: queue.Queue[int] = queue.Queue()
    return Place(q.get, lambda: q.put(1), True)


def getting_with_limit() -> Place:
    q: queue.Queue[int] = queue.Queue()
    return Place(lambda: q.get(timeout=60), lambda: q.put(1), True)


def putting() -> Place:
    q: queue.Queue[int] = queue.Queue(1)
    q.put(0)
    return Place(lambda: q.put(1), q.get, True)


def channel() -> Place:
    c: queue.Channel[int] = queue.Channel()
    return Place(c.get, lambda: bridge.spawn(c.put, 1), True)


def end() -> Place:
    e = event.Event()
    g = bridge.spawn(e.wait)
    return Place(g.join, e.set)


def several() -> Place:
    e = event.Event()
    g = [bridge.spawn(e.wait) for _ in range(2)]
    return Place(lambda: bridge.joinall(g, timeout=60), e.set)


PLACES = [
    semaphore, semaphore_with_limit, an_event, event_with_limit, result, getting, getting_with_limit, putting,
    channel, end, several,
]  # fmt: skip


def rest() -> None:
    """Waits that nothing is to disturb."""
    for seconds in (0, 0.0001, 0):
        bridge.sleep(seconds)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("told", [False, True])
def test_who_waits_for_the_same_is_not_harmed_by_an_interrupted_wait(
    place: Callable[[], Place], told: bool
) -> None:
    """``told``: it comes true while the victim waits; else it is interrupted before that, or not at all."""
    for point in range(1000):
        here = place()
        interrupted: list[bool] = []

        def victim(point: int = point, here: Place = here, interrupted: list[bool] = interrupted) -> None:
            interrupted.append(interrupted_at(point, here.wait))
            rest()

        first = bridge.spawn(victim)
        bridge.sleep(0)
        others = [bridge.spawn(here.wait) for _ in range(2)]
        bridge.sleep(0)
        if told:
            here.tell()
            bridge.sleep(0)
        missing = 3 if here.each else 1
        for _ in range(missing - told):
            here.tell()
            bridge.sleep(0)
        # Interrupted after it had taken something, which then is gone, or before: no more than that one
        assert bridge.joinall([first, *others], timeout=5) is not None
        assert first.successful(), first.exception
        assert all(g.successful() for g in others), point
        if not interrupted[0]:
            return
    raise AssertionError("there are not so many points")


def in_pool() -> Callable[[], object]:
    pool = ThreadPool(1)
    return lambda: pool.apply(int)


def with_timeout() -> Callable[[], object]:
    def wait() -> None:
        with bridge.Timeout(0.0001, False):
            bridge.sleep(5)

    return wait


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda: bridge.sleep(0),
        lambda: lambda: bridge.sleep(0.0001),
        with_timeout,
        in_pool,
        lambda: lambda: bridge.wait([event.Event()], timeout=0.0001),
    ],
)
def test_what_is_waited_for_next_is_not_disturbed_by_an_interrupted_wait(
    make: Callable[[], Callable[[], object]],
) -> None:
    for point in range(1000):
        function = make()
        interrupted: list[bool] = []

        def victim(
            point: int = point, function: Any = function, interrupted: list[bool] = interrupted
        ) -> None:
            interrupted.append(interrupted_at(point, function))
            rest()
            rest()

        g = bridge.spawn(victim)
        bystander = bridge.spawn(rest)
        g.join(5)
        assert g.successful(), (point, g, g.exception)
        bystander.join(5)
        assert bystander.successful()
        if not interrupted[0]:
            return
    raise AssertionError("there are not so many points")


def test_a_pool_is_whole_after_an_interrupted_call() -> None:
    for point in range(1000):
        pool = ThreadPool(1)
        interrupted: list[bool] = []
        bridge.spawn(
            lambda point=point, pool=pool, interrupted=interrupted: interrupted.append(
                interrupted_at(point, lambda: pool.apply(int))
            )
        ).get(timeout=5)
        with bridge.Timeout(5):
            pool.join()  # nothing is left that has been counted, but will never end
            assert [pool.apply(abs, (n,)) for n in (-1, -2)] == [1, 2]
            pool.kill()
        crew = pool._crew
        assert (crew.unfinished, crew.undelivered, crew.size, crew.alive) == (0, 0, 0, 0), point
        if not interrupted[0]:
            return
    raise AssertionError("there are not so many points")
