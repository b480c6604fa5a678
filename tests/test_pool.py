"""Groups, pools, and the iterators of imap."""

from __future__ import annotations

import gc
import random
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from queue import Full
from typing import Any

import greenlet
import pytest

import bridge
import bridge.pool
from bridge._imap import IMap, IMapUnordered
from bridge.event import AsyncResult, Event
from bridge.lock import DummySemaphore, Semaphore
from bridge.pool import Group, GroupMappingMixin, Pool, PoolFull, pass_value
from bridge.queue import Queue

IMAPS = ["imap", "imap_unordered"]


class Expected(Exception):
    pass


Errors = list[tuple[Any, BaseException]]


def identity(x: Any) -> Any:
    return x


def square(x: int) -> int:
    return x * x


def fail(x: Any = None) -> Any:
    raise Expected(x)


def sleeper(seconds: float = 10) -> float:
    bridge.sleep(seconds)
    return seconds


def settle(rounds: int = 4) -> None:
    for _ in range(rounds):
        bridge.sleep(0)


# ---- Group: members -------------------------------------------------------------------------------


def test_an_empty_group_is_false_and_shows_itself() -> None:
    group = Group()
    assert not group
    assert len(group) == 0
    assert list(group) == []
    assert repr(group) == f"<Group at {id(group):#x} set()>"
    assert not group.full()
    assert group.wait_available() is None
    assert group.wait_available(timeout=1) is None


def test_spawn_tracks_until_the_end() -> None:
    group = Group()
    job = group.spawn(identity, 5)
    assert job in group
    assert list(group) == [job]
    assert len(group) == 1
    assert group
    assert job.get() == 5
    settle()
    assert job not in group
    assert not group


def test_spawn_passes_all_arguments_to_greenlet_class() -> None:
    seen: list[Any] = []

    class Mine(bridge.Greenlet):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            seen.append((args, kwargs))
            super().__init__(lambda: None)

    group = Group()
    group.greenlet_class = Mine
    assert type(group.spawn(1, two=2)) is Mine
    assert seen == [((1,), {"two": 2})]
    group.join()


def test_greenlet_class_may_be_replaced_on_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Traced(bridge.Greenlet):
        pass

    group, pool = Group(), Pool(1)
    monkeypatch.setattr(Group, "greenlet_class", Traced)
    assert type(group.spawn(identity, 1)) is Traced
    assert type(pool.spawn(identity, 1)) is Traced


def test_constructor_takes_an_iterable_of_greenlets() -> None:
    jobs = [bridge.spawn(sleeper, 0.001) for _ in range(3)]
    group = Group(iter(jobs))
    assert set(group) == set(jobs)
    assert group.join()
    assert all(job.dead for job in jobs)
    with pytest.raises(AssertionError, match="one iterable"):
        Group(*jobs)
    with pytest.raises(TypeError, match=r"Group\(5\).*iterable"):
        Group(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not a greenlet"):
        Group([5])  # type: ignore[list-item]


def test_add_start_discard() -> None:
    group = Group()
    job = bridge.Greenlet(sleeper, 10)
    group.start(job)
    settle()
    assert job in group
    assert job.started
    group.discard(job)
    assert job not in group
    group.discard(job)
    assert not job.dead
    group.add(job)
    group.add(job)
    assert len(group) == 1
    job.kill()
    settle()
    assert not group


def test_add_of_what_is_no_greenlet() -> None:
    group, pool = Group(), Pool(1)
    for wrong in (5, None, object(), "x"):
        with pytest.raises(TypeError, match="not a greenlet"):
            group.add(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not a greenlet"):
            pool.add(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pool.add([])  # type: ignore[arg-type]
    assert not group
    assert pool.free_count() == 1
    assert pool._semaphore.counter == 1


def test_a_dead_greenlet_leaves_soon() -> None:
    job = bridge.spawn(identity, 1)
    job.join()
    group, pool = Group(), Pool(1)
    group.add(job)
    pool.add(job)
    settle()
    assert not group
    assert not pool
    assert pool._semaphore.counter == 1


def test_the_main_greenlet_stays_until_discarded() -> None:
    group, pool = Group(), Pool(2)
    main = greenlet.getcurrent()
    group.add(main)
    pool.add(main)
    settle()
    assert main in group
    assert pool.free_count() == 1
    assert not group.join(0.001)
    group.discard(main)
    pool.discard(main)
    assert group.join()
    assert pool._semaphore.counter == 2


def test_groups_do_not_outlive_their_users() -> None:
    group = Group()
    group.spawn(identity, 1)
    group.join()
    gone = weakref.ref(group)
    del group
    gc.collect()
    assert gone() is None


# ---- Group: join ----------------------------------------------------------------------------------


def test_join() -> None:
    group = Group()
    assert group.join() is True
    jobs = [group.spawn(sleeper, 0.002 * i) for i in range(4)]
    assert group.join(timeout=0) is False
    assert group.join(timeout=-1) is False
    assert group.join() is True
    assert all(job.ready() for job in jobs)
    assert len(group) == 0


def test_join_with_timeouts() -> None:
    group = Group()
    job = group.spawn(sleeper)
    assert group.join(0.005) is False
    assert group.join(bridge.Timeout(0.005)) is False
    with pytest.raises(bridge.Timeout) as caught, bridge.Timeout(0.005) as outer:
        group.join()
    assert caught.value is outer
    with pytest.raises(TypeError):
        group.join("soon")  # type: ignore[arg-type]
    job.kill()
    assert group.join()


def test_all_who_join_go_on() -> None:
    group = Group()
    job = group.spawn(sleeper)
    joiners = [bridge.spawn(group.join) for _ in range(5)]
    settle()
    joiners[2].kill()
    job.kill()
    bridge.joinall(joiners, timeout=1)
    assert [j.value for j in joiners if j is not joiners[2]] == [True] * 4


def test_join_is_about_being_empty_once() -> None:
    group = Group()
    group.spawn(sleeper, 0.001)
    joiner = bridge.spawn(group.join)

    def refill() -> None:
        while group:
            bridge.sleep(0)
        group.spawn(sleeper)

    refiller = bridge.spawn(refill)
    bridge.joinall([joiner, refiller], timeout=1)
    assert joiner.value is True
    assert len(group) == 1
    group.kill()


def test_join_raise_error(errors: Errors) -> None:
    def fail_late() -> None:
        bridge.sleep(0.002)
        raise Expected("late")

    group = Group()
    group.spawn(fail_late)
    slow = group.spawn(sleeper, 0.02)
    with pytest.raises(Expected, match="late"):
        group.join(raise_error=True)
    assert slow.ready()  # it waits for all, then raises
    group.spawn(fail_late)
    slow = group.spawn(sleeper)
    with pytest.raises(Expected, match="late"):
        group.join(timeout=0.02, raise_error=True)
    assert not slow.ready()
    assert group.join(timeout=0.001, raise_error=True) is False
    group.kill()
    assert group.join(raise_error=True) is True
    group.spawn(fail_late)
    assert group.join() is True
    assert [type(error) for _, error in errors] == [Expected] * 3


# ---- Group: kill ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Group, Pool, lambda: Pool(10)])
@pytest.mark.parametrize("started", [False, True])
def test_kill(make: Callable[[], Group], started: bool) -> None:
    group = make()
    assert group.kill() is None  # type: ignore[func-returns-value]
    jobs = [group.spawn(sleeper) for _ in range(10)]
    if started:
        settle()
    group.kill()
    assert all(job.dead for job in jobs)
    assert all(isinstance(job.value, bridge.GreenletExit) for job in jobs)
    assert len(group) == 0
    assert not group.dying


def test_kill_with_another_exception(errors: Errors) -> None:
    group = Group()
    jobs = [group.spawn(sleeper) for _ in range(3)]
    settle()
    group.kill(Expected("k"))
    assert [str(job.exception) for job in jobs] == ["k"] * 3
    jobs = [group.spawn(sleeper) for _ in range(3)]
    settle()
    group.kill(Expected)
    assert [type(job.exception) for job in jobs] == [Expected] * 3


def test_kill_without_waiting() -> None:
    group = Group()
    jobs = [group.spawn(sleeper) for _ in range(3)]
    settle()
    group.kill(block=False)
    assert len(group) == 3
    assert not any(job.dead for job in jobs)
    settle()
    assert all(job.dead for job in jobs)
    assert not group
    assert not group.dying


def stubborn(caught: list[int], times: int) -> str:
    for i in range(times):
        try:
            bridge.sleep(0.01)
        except bridge.GreenletExit:
            caught.append(i)
    return "done"


def test_nobody_is_killed_twice_and_kill_waits_for_the_end() -> None:
    caught: list[int] = []
    group = Group()
    job = group.spawn(stubborn, caught, 5)
    settle()
    assert group.kill(timeout=0.001) is None  # type: ignore[func-returns-value]
    assert group.kill(timeout=bridge.Timeout(0.001)) is None  # type: ignore[func-returns-value]
    assert job in group.dying
    group.killone(job)
    group.killone(job, timeout=0.001)
    assert not job.dead
    group.kill()
    assert job.value == "done"
    assert caught == [0]
    assert not group.dying


def test_kill_leaves_the_timeout_of_the_caller_alone() -> None:
    group = Group()
    group.spawn(stubborn, [], 5)
    settle()
    with pytest.raises(bridge.Timeout) as caught, bridge.Timeout(0.005) as outer:
        group.kill(timeout=1)
    assert caught.value is outer
    group.join()


def test_kill_kills_those_who_come_meanwhile() -> None:
    group = Group()

    def respawn(left: int) -> None:
        try:
            bridge.sleep(10)
        finally:
            if left:
                group.spawn(respawn, left - 1)

    group.spawn(respawn, 3)
    settle()
    group.kill()
    assert not group


def test_kill_lets_a_spawner_in_that_waits_for_room() -> None:
    pool = Pool(1)
    pool.spawn(sleeper)
    spawner = bridge.spawn(pool.spawn, sleeper, 0.001)
    settle()
    pool.kill()
    spawner.join()
    assert pool.join()
    assert pool._semaphore.counter == 1


def test_a_member_kills_its_own_group() -> None:
    group = Group()
    ends: list[str] = []

    def killer() -> None:
        try:
            group.kill()
        finally:
            ends.append("killer")

    first = group.spawn(killer)
    second = group.spawn(sleeper)
    bridge.joinall([first, second], timeout=1)
    assert first.dead
    assert second.dead
    assert ends == ["killer"]
    assert group.join(1)


def test_killone() -> None:
    group = Group()
    first, second, third = (group.spawn(sleeper) for _ in range(3))
    stranger = bridge.spawn(sleeper, 0.01)
    settle()
    group.killone(stranger)
    assert not stranger.dead
    group.killone(first)
    assert first.dead
    group.killone(second, block=False)
    assert not second.dead
    settle()
    assert second.dead
    assert list(group) == [third]
    group.killone(third, Expected, timeout=1)
    assert type(third.exception) is Expected
    stranger.kill()


def test_kill_of_plain_greenlets() -> None:
    ends: list[str] = []

    def plain() -> None:
        try:
            bridge.sleep(10)
        finally:
            ends.append("end")

    group = Group()
    pool = Pool(2)
    members = [bridge.spawn_raw(plain) for _ in range(3)]
    group.add(members[0])
    group.add(members[1])
    pool.add(members[2])
    settle()
    group.killone(members[0])
    assert members[0] not in group
    group.kill()
    pool.kill()
    settle()
    assert ends == ["end"] * 3
    assert not group
    assert pool._semaphore.counter == 2


# ---- Pool -----------------------------------------------------------------------------------------


def test_pool_size() -> None:
    assert Pool().size is None
    assert isinstance(Pool()._semaphore, DummySemaphore)
    assert Pool().free_count() == 1
    assert Pool().wait_available() == 1
    assert not Pool().full()
    assert Pool(3).size == 3
    assert isinstance(Pool(3)._semaphore, Semaphore)
    assert Pool(3).free_count() == 3
    assert Pool(3).wait_available() == 3
    assert Pool(10 / 2).free_count() == 5  # type: ignore[arg-type]
    assert repr(Pool(3)).startswith("<Pool at 0x")


def test_pool_without_room() -> None:
    pool = Pool(0)
    assert pool.free_count() == 0
    assert pool.full()
    assert pool.wait_available(timeout=0.001) == 0
    with pytest.raises(PoolFull):
        pool.add(bridge.Greenlet(identity, 1), timeout=0.001)


@pytest.mark.parametrize("size", [-1, -100, -1.5])
def test_a_negative_size(size: Any) -> None:
    with pytest.raises(ValueError, match=rf"Pool\(size={size}\): size must not be negative; pass None"):
        Pool(size)


@pytest.mark.parametrize("size", ["a", "5", [], object(), bridge.Greenlet])
def test_a_size_that_is_no_number(size: Any) -> None:
    with pytest.raises(TypeError, match=r"Pool\(size=.*\): size must be a number"):
        Pool(size)


def test_pool_greenlet_class() -> None:
    class Mine(bridge.Greenlet):
        pass

    assert type(Pool(2, Mine).spawn(identity, 1)) is Mine
    assert type(Pool(greenlet_class=Mine).apply_async(identity, (1,))) is Mine


def test_spawn_blocks_while_full() -> None:
    pool = Pool(2)
    first, second = pool.spawn(sleeper, 0.002), pool.spawn(sleeper, 0.02)
    assert pool.full()
    assert pool.free_count() == 0
    third = pool.spawn(identity, 3)
    assert first.ready()
    assert not second.ready()
    assert pool.join()
    assert third.value == 3
    assert pool.free_count() == 2


def test_spawners_are_served_in_order() -> None:
    order: list[int] = []
    pool = Pool(1)
    pool.spawn(sleeper, 0.001)
    spawners = [bridge.spawn(pool.spawn, order.append, i) for i in range(20)]
    bridge.joinall(spawners)
    pool.join()
    assert order == list(range(20))


def test_wait_available() -> None:
    pool = Pool(2)
    first, second = Event(), Event()
    pool.spawn(first.wait)
    assert pool.wait_available() == 1
    pool.spawn(second.wait)
    assert pool.wait_available(timeout=0) == 0
    bridge.spawn(first.set)
    assert pool.wait_available() == 1
    assert pool._semaphore.counter == 1
    second.set()
    pool.join()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"blocking": False},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": 0.002},
        {"blocking": False, "timeout": 1},
    ],
)
def test_pool_full(kwargs: dict[str, Any]) -> None:
    pool = Pool(1)
    job = pool.spawn(sleeper)
    for method in (pool.add, pool.start):
        other = bridge.Greenlet(identity, 1)
        with pytest.raises(PoolFull, match="no room") as caught:
            method(other, **kwargs)
        assert isinstance(caught.value, Full)
        assert not other.started
        assert other not in pool
    assert len(pool) == 1
    job.kill()
    settle()
    pool.start(other, **kwargs)
    assert pool.join()
    assert other.value == 1
    assert pool._semaphore.counter == 1


def test_timeout_objects_for_room() -> None:
    pool = Pool(1)
    job = pool.spawn(sleeper)
    with pytest.raises(PoolFull):
        pool.add(bridge.Greenlet(identity, 1), timeout=bridge.Timeout(0.001))
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.001):
        pool.spawn(identity, 1)
    job.kill()
    assert pool.wait_available() == 1


def test_places_are_given_back_once() -> None:
    pool = Pool(2)
    job = pool.spawn(sleeper)
    for _ in range(3):
        pool.discard(job)
    pool.discard(bridge.Greenlet(identity, 1))
    assert pool._semaphore.counter == 2
    job.kill()
    settle()
    assert pool._semaphore.counter == 2
    job = bridge.spawn(sleeper)
    pool.add(job)
    pool.add(job)
    assert pool._semaphore.counter == 1
    assert pool.free_count() == 1
    job.kill()
    settle()
    assert pool._semaphore.counter == 2


def test_two_add_the_same_greenlet_to_a_full_pool() -> None:
    pool = Pool(2)
    block = [pool.spawn(sleeper) for _ in range(2)]
    job = bridge.spawn(sleeper)
    adders = [bridge.spawn(pool.add, job) for _ in range(2)]
    settle()
    bridge.killall(block)
    bridge.joinall(adders, timeout=1)
    assert list(pool) == [job]
    assert pool._semaphore.counter == 1
    job.kill()
    settle()
    assert pool._semaphore.counter == 2


def test_arguments_that_fail_cost_no_place() -> None:
    pool = Pool(1)
    with pytest.raises(TypeError):
        pool.spawn(5)
    assert pool._semaphore.counter == 1

    class Linkless(bridge.Greenlet):
        def rawlink(self, callback: Any) -> None:
            raise Expected

    pool.greenlet_class = Linkless
    with pytest.raises(Expected):
        pool.spawn(identity, 1)
    assert pool._semaphore.counter == 1
    assert not pool


def test_growing_and_shrinking_by_hand() -> None:
    # celery does that
    pool = Pool(1)
    pool.spawn(sleeper)
    pool._semaphore.counter += 1
    pool.size = 2
    assert pool.free_count() == 1
    pool.spawn(sleeper)
    assert pool.full()
    pool.kill()
    assert pool._semaphore.counter == 2


def test_subclass_hooks() -> None:
    calls: list[str] = []

    class Mine(Pool):
        def add(self, greenlet: Any, *args: Any, **kwargs: Any) -> None:
            calls.append("add")
            super().add(greenlet, *args, **kwargs)

        def start(self, greenlet: Any, *args: Any, **kwargs: Any) -> None:
            calls.append("start")
            super().start(greenlet, *args, **kwargs)

        def _discard(self, greenlet: Any) -> None:
            calls.append("discard")
            super()._discard(greenlet)

    pool = Mine(1)
    pool.spawn(identity, 1)
    pool.join()
    assert calls == ["start", "add", "discard"]


# ---- apply ----------------------------------------------------------------------------------------


@pytest.fixture(
    params=[Group, Pool, lambda: Pool(1), lambda: Pool(3)], ids=["Group", "Pool", "Pool1", "Pool3"]
)
def group(request: pytest.FixtureRequest) -> Group:
    return request.param()  # type: ignore[no-any-return]


def test_apply(group: Group, errors: Errors) -> None:
    assert group.apply(square, (5,)) == 25
    assert group.apply(square, kwds={"x": 3}) == 9
    assert group.apply(square, [2], {}) == 4
    assert group.apply(None) is None  # type: ignore[arg-type]
    with pytest.raises(Expected):
        group.apply(fail)
    settle()
    assert not group


def test_apply_in_a_member_runs_in_place(group: Group) -> None:
    def outer() -> Any:
        return greenlet.getcurrent(), group.apply(greenlet.getcurrent)

    mine, inner = group.apply(outer)
    assert mine is inner
    assert group.apply(group.apply, (square, (5,))) == 25


def test_apply_in_a_member_awaits_coroutine_functions(group: Group) -> None:
    async def double(x: int) -> int:
        return 2 * x

    assert group.apply(double, (4,)) == 8
    assert group.apply(group.apply, (double, (4,))) == 8
    assert group.map(double, [1, 2]) == [2, 4]


def test_apply_cb(group: Group, errors: Errors) -> None:
    got: list[Any] = []
    assert group.apply_cb(square, (3,), callback=got.append) == 9
    settle()
    assert got == [9]
    assert group.apply_cb(square, (3,)) == 9
    with pytest.raises(Expected):
        group.apply_cb(fail, callback=got.append)
    settle()
    assert got == [9]


def test_apply_async(group: Group, errors: Errors) -> None:
    got: list[Any] = []
    jobs = [group.apply_async(square, (i,), callback=got.append) for i in range(5)]
    assert got == []
    assert [job.get() for job in jobs] == [0, 1, 4, 9, 16]
    settle()
    assert sorted(got) == [0, 1, 4, 9, 16]
    assert group.apply_async(square, kwds={"x": 2}).get() == 4
    with pytest.raises(Expected):
        group.apply_async(fail, callback=got.append).get()
    settle()
    assert len(got) == 5


def test_apply_async_never_blocks() -> None:
    pool = Pool(1)
    done = Event()
    first = pool.apply_async(done.wait)
    second = pool.apply_async(identity, (2,))
    assert first in pool
    assert second not in pool
    done.set()
    assert second.get() == 2
    zero = Pool(0).apply_async(identity, (1,))
    settle()
    assert not zero.ready()
    zero.kill()


def test_pass_value_stands_for_its_callback() -> None:
    got: list[Any] = []
    callback = got.append
    link = pass_value(callback)
    assert link == callback
    assert link == pass_value(callback)
    assert hash(link) == hash(callback)
    assert repr(link) == str(link) == repr(callback)
    assert link.__self__ is got
    job = bridge.spawn(identity, 1)
    job.link(link)
    job.unlink(callback)
    job.join()
    settle()
    assert got == []


# ---- map ------------------------------------------------------------------------------------------


def test_map(group: Group) -> None:
    assert group.map(square, range(50)) == [i * i for i in range(50)]
    assert group.map(square, iter([])) == []
    assert group.map(sleeper, [0.003, 0, 0.001]) == [0.003, 0, 0.001]


def test_map_errors(group: Group, errors: Errors) -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise Expected("input")

    with pytest.raises(Expected, match="input"):
        group.map(square, broken())
    with pytest.raises(Expected, match="1"):
        group.map(lambda i: fail(i) if i % 2 else i, range(5))
    with pytest.raises(TypeError):
        group.map(square, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        group.map(5, [1])  # type: ignore[arg-type]
    settle()
    assert not group


def test_map_cb_and_async(group: Group, errors: Errors) -> None:
    got: list[Any] = []
    assert group.map_cb(square, [1, 2], got.append) == [1, 4]
    assert group.map_cb(square, [1, 2]) == [1, 4]
    assert got == [[1, 4]]
    job = group.map_async(square, [2, 3], callback=got.append)
    assert got == [[1, 4]]
    assert job.get() == [4, 9]
    assert got == [[1, 4], [4, 9]]
    with pytest.raises(Expected):
        group.map_async(fail, [1], callback=got.append).get()
    assert len(got) == 2


# ---- imap -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAPS)
@pytest.mark.parametrize("maxsize", [None, 0, 1, 2, 100])
def test_imap(group: Group, name: str, maxsize: int | None) -> None:
    it = getattr(group, name)(square, range(50), maxsize=maxsize)
    assert iter(it) is it
    assert isinstance(it, bridge.Greenlet)
    assert sorted(it) == [i * i for i in range(50)]
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(it)
        with pytest.raises(StopIteration):
            it.next()
    assert list(getattr(group, name)(square, [])) == []
    assert list(getattr(group, name)(square)) == []
    assert it.ready()
    assert it.value is None


def test_imap_keeps_the_order_and_imap_unordered_that_of_the_ends() -> None:
    waits = [0.02, 0.001, 0.01]
    assert list(Pool(3).imap(sleeper, waits)) == waits
    assert list(Pool(3).imap_unordered(sleeper, waits)) == sorted(waits)
    assert list(Pool(1).imap_unordered(sleeper, waits)) == waits


@pytest.mark.parametrize("name", IMAPS)
def test_imap_of_several_iterables(name: str) -> None:
    it = getattr(Pool(2), name)(lambda *args: args, [1, 2, 3], "ab")
    assert list(it) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("name", IMAPS)
def test_wrong_arguments_of_imap(name: str) -> None:
    imap = getattr(Pool(2), name)
    with pytest.raises(TypeError, match="iterable"):
        imap(square, 5)
    with pytest.raises(TypeError):
        imap(square, [1], max=5)
    with pytest.raises(TypeError, match=r"maxsize='a'.*pass an int, or None"):
        imap(square, [1], maxsize="a")
    with pytest.raises(ValueError, match=r"maxsize=-1.*must not be negative"):
        imap(square, [1], maxsize=-1)


@pytest.mark.parametrize("name", IMAPS)
def test_what_cannot_be_called_is_reported_by_the_iterator(name: str, errors: Errors) -> None:
    it = getattr(Pool(2), name)(5, [1, 2])
    with pytest.raises(TypeError):
        next(it)
    with pytest.raises(StopIteration):
        next(it)


@pytest.mark.parametrize("name", IMAPS)
def test_imap_goes_on_after_an_error(name: str, errors: Errors) -> None:
    it = getattr(Pool(1), name)(lambda x: 6 / x, [1, 0, 2])
    assert next(it) == 6
    with pytest.raises(ZeroDivisionError):
        next(it)
    assert next(it) == 3
    with pytest.raises(StopIteration):
        next(it)


@pytest.mark.parametrize("name", IMAPS)
def test_a_broken_input_raises_from_the_iterator(name: str, errors: Errors) -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise Expected("input")

    it = getattr(Pool(3), name)(identity, broken())
    got: list[Any] = []
    for _ in range(5):
        try:
            got.append(next(it))
        except (Expected, StopIteration) as e:
            got.append(type(e))
    ordered = [1, 2, Expected, StopIteration, StopIteration]
    assert got == (ordered if name == "imap" else [Expected, 1, 2, StopIteration, StopIteration])
    assert isinstance(it.exception, Expected)


@pytest.mark.parametrize("name", IMAPS)
def test_the_input_is_consumed_lazily(name: str) -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    gate = Event()
    it = getattr(Pool(3), name)(lambda i: gate.wait() and i, source())
    assert taken == []
    bridge.sleep(0.002)
    assert taken == [0, 1, 2, 3]  # the fourth waits for room
    gate.set()
    assert sorted(it) == list(range(100))


@pytest.mark.parametrize("name", IMAPS)
def test_the_input_may_block(name: str) -> None:
    queue: Queue[Any] = Queue()
    queue.put(1)
    bridge.spawn_later(0.002, queue.put, StopIteration)
    assert list(getattr(Pool(2), name)(identity, queue)) == [1]

    def late() -> Iterator[int]:
        yield from range(3)
        bridge.sleep(0.002)

    assert sorted(getattr(Pool(2), name)(identity, late())) == [0, 1, 2]


@pytest.mark.parametrize("name", IMAPS)
@pytest.mark.parametrize("maxsize", [1, 2, 5])
def test_maxsize_bounds_the_results_that_wait(name: str, maxsize: int) -> None:
    started: list[int] = []

    def job(i: int) -> int:
        started.append(i)
        return i

    it = getattr(Pool(20), name)(job, range(20), maxsize=maxsize)
    bridge.sleep(0.001)
    assert len(started) == maxsize
    assert len(it.queue) == maxsize
    for taken in range(1, 10):
        next(it)
        bridge.sleep(0.001)
        assert len(started) == maxsize + taken
        assert len(it.queue) == maxsize
    assert len(list(it)) == 11


@pytest.mark.parametrize("name", IMAPS)
def test_maxsize_counts_a_reader_who_waits(name: str) -> None:
    gate = Event()
    started: list[int] = []

    def job(i: int) -> int:
        started.append(i)
        gate.wait()
        return i

    it = getattr(Pool(20), name)(job, range(20), maxsize=2)
    reader = bridge.spawn(next, it)
    bridge.sleep(0.001)
    assert len(started) == 3
    reader.kill()
    for _ in range(5):
        with bridge.Timeout(0.001, False):
            next(it)
    assert len(started) == 3  # readers who gave up have not brought anything
    gate.set()
    assert sorted(it) == list(range(20))


@pytest.mark.parametrize("name", IMAPS)
def test_next_may_time_out(name: str) -> None:
    it = getattr(Pool(2), name)(lambda x: sleeper(0.01) and x, range(4))
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.002):
        next(it)
    assert sorted(it) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", IMAPS)
def test_several_readers(name: str) -> None:
    it = getattr(Pool(2), name)(lambda x: sleeper(0) or x, range(40))
    readers = [bridge.spawn(list, it) for _ in range(4)]
    bridge.joinall(readers, timeout=5)
    assert sorted(x for r in readers for x in r.value) == list(range(40))


@pytest.mark.parametrize("name", IMAPS)
def test_a_killed_iterator(name: str) -> None:
    pool = Pool(1)
    it = getattr(pool, name)(lambda x: sleeper(0.002) and x, [1, 2, 3])
    reader = bridge.spawn(list, it)
    settle()
    it.kill()
    assert isinstance(it.value, bridge.GreenletExit)
    # not the end of the results, as if they were all
    assert isinstance(reader.get(), bridge.GreenletExit)
    pool.join()
    settle()
    left = []
    with pytest.raises(StopIteration):
        while True:
            left.append(next(it))
    assert left == ([] if name == "imap" else [1])


@pytest.mark.parametrize("name", IMAPS)
def test_an_iterator_killed_before_it_has_begun(name: str) -> None:
    it = getattr(Pool(1), name)(identity, [1, 2, 3])
    reader = bridge.spawn(next, it)
    it.kill()
    assert isinstance(reader.get(), bridge.GreenletExit)
    with pytest.raises(StopIteration):
        next(it)


@pytest.mark.parametrize("name", IMAPS)
def test_a_killed_pool_gives_what_its_greenlets_give(name: str) -> None:
    pool = Pool(3)
    it = getattr(pool, name)(sleeper, [10, 10, 10])
    settle()
    pool.kill()
    assert [type(x) for x in it] == [bridge.GreenletExit] * 3


@pytest.mark.parametrize("name", IMAPS)
@pytest.mark.parametrize("maxsize", [None, 1])
def test_abandoned_iterators_go_away(name: str, maxsize: int | None) -> None:
    closed: list[bool] = []

    def source() -> Iterator[int]:
        try:
            yield from range(50)
        finally:
            closed.append(True)

    pool = Pool(2)
    it = getattr(pool, name)(identity, source(), maxsize=maxsize)
    assert next(it) == 0
    gone = weakref.ref(it)
    del it
    while gone() is not None or not closed:  # the deadline of the test ends the loop
        bridge.sleep(0.001)
        gc.collect()
    assert closed == [True]
    assert pool.join(1)
    assert pool._semaphore.counter == 2


@pytest.mark.parametrize("name", IMAPS)
def test_a_bounded_iterator_is_a_greenlet_like_any_other(name: str) -> None:
    it = getattr(Pool(2), name)(identity, range(3), maxsize=1)
    assert isinstance(it, IMapUnordered)
    assert isinstance(it, IMap) == (name == "imap")
    assert it
    assert repr(it).startswith("<IMap")
    assert it != getattr(Pool(2), name)(identity, [], maxsize=1)
    reader = bridge.spawn(sorted, it)
    assert bridge.joinall([it, reader], timeout=1) == [it, reader] or it.ready()
    assert reader.get() == [0, 1, 2]
    assert it.successful()
    with getattr(Pool(2), name)(identity, range(1), maxsize=1) as it:
        assert list(it) == [0]
    with pytest.raises(AttributeError):
        it.nothing  # noqa: B018


@pytest.mark.parametrize("name", IMAPS)
def test_a_finished_iterator_keeps_nothing(name: str) -> None:
    class Thing:
        pass

    things = [Thing() for _ in range(3)]
    gone = [weakref.ref(thing) for thing in things]
    it = getattr(Pool(2), name)(lambda thing: None, iter(things))
    assert list(it) == [None] * 3
    del things
    settle()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


def test_imap_classes_take_any_spawn() -> None:
    def spawn(func: Callable[..., Any], *args: Any) -> AsyncResult[Any]:
        # like a thread pool: a result, no greenlet
        result: AsyncResult[Any] = AsyncResult()
        bridge.spawn_later(0.001, lambda: result.set(func(*args)))
        return result

    for cls in (IMap, IMapUnordered):
        assert list(cls.spawn(square, [1, 2, 3], spawn=spawn)) == [1, 4, 9]
        it = cls.spawn(lambda a, b: a * b, [(1, 2), (3, 4)], spawn, maxsize=1, _zipped=True)
        assert list(it) == [2, 12]


def test_replaced_iterator_classes_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Traced(IMap[Any]):
        pass

    monkeypatch.setattr(bridge.pool, "IMap", Traced)
    it = Pool(2).imap(square, [1, 2])
    assert type(it) is Traced
    assert list(it) == [1, 4]


@pytest.mark.parametrize("name", IMAPS)
def test_an_error_comes_with_the_traceback_of_its_job(name: str, errors: Errors) -> None:
    it = getattr(Pool(2), name)(fail, [1])
    with pytest.raises(Expected) as caught:
        next(it)
    assert caught.traceback[-1].name == "fail"


@pytest.mark.parametrize("name", IMAPS)
def test_a_job_that_its_pool_no_longer_tracks_still_has_a_result(name: str) -> None:
    pool = Pool(2)
    gates = [Event(), Event()]
    it = getattr(pool, name)(lambda i: gates[i].wait() and i, range(2))
    settle()
    for job in list(pool):
        pool.discard(job)
    assert pool._semaphore.counter == 2
    for gate in gates:
        gate.set()
    assert list(it) == [0, 1]
    assert pool._semaphore.counter == 2


@pytest.mark.parametrize("name", IMAPS)
def test_a_job_of_two_groups_has_one_result(name: str) -> None:
    pool, other = Pool(2), Group()

    class Both(bridge.Greenlet):
        def start(self) -> None:
            other.add(self)
            super().start()

    pool.greenlet_class = Both
    assert list(getattr(pool, name)(square, range(5))) == [0, 1, 4, 9, 16]
    assert not other
    assert not pool


@pytest.mark.parametrize("cls", [IMap, IMapUnordered])
def test_one_job_may_be_the_answer_to_several_items(cls: type[IMapUnordered[Any]]) -> None:
    pool = Pool(2)
    known: dict[int, Any] = {}

    def spawn_once(func: Callable[..., Any], x: int) -> Any:
        if x not in known:
            known[x] = pool.spawn(func, x)
        return known[x]

    assert sorted(cls.spawn(square, [1, 2, 1, 1, 2], spawn=spawn_once)) == [1, 1, 1, 4, 4]


@pytest.mark.parametrize("name", IMAPS)
def test_an_account_that_fails_loses_no_result(name: str, errors: Errors) -> None:
    class Broken(Group):
        def _discard(self, greenlet: Any) -> None:
            super()._discard(greenlet)
            raise Expected

    assert list(getattr(Broken(), name)(square, range(3))) == [0, 1, 4]
    assert [type(error) for _, error in errors] == [Expected] * 3


def test_the_mixin_needs_four_methods_only() -> None:
    class Direct(GroupMappingMixin):
        def spawn(self, func: Any, *args: Any, **kwargs: Any) -> Any:
            return bridge.spawn(func, *args, **kwargs)

        def _waits_for_itself(self) -> bool:
            return False

        def _may_block(self) -> bool:
            return True

        def _call_back(self, callback: Any, result: Any) -> None:
            callback(result)

    direct = Direct()
    got: list[Any] = []
    assert direct.apply(square, (2,)) == 4
    assert direct.apply_async(square, (2,), callback=got.append).get() == 4
    assert got == [4]
    assert direct.map(square, [1, 2]) == [1, 4]
    assert list(direct.imap(square, [1, 2])) == [1, 4]
    assert sorted(direct.imap_unordered(square, [1, 2])) == [1, 4]


# ---- order ----------------------------------------------------------------------------------------


Use = Callable[[Pool, Callable[[int], int], list[str]], object]


def trace(use: Use, size: int | None, others: int = 6) -> str:
    """What happens when: s(tart), e(nd) of each job, what ``use`` notes, and o(ther greenlets)."""
    log: list[str] = []

    def job(x: int) -> int:
        log.append(f"s{x}")
        if x % 3:
            bridge.sleep(0)
        log.append(f"e{x}")
        return x

    def other() -> None:
        for _ in range(others):
            log.append("o")
            bridge.sleep(0)

    beside = bridge.spawn(other)
    use(Pool(size), job, log)
    beside.join()
    return "".join(log)


def noting_input(log: list[str]) -> Iterator[int]:
    """Five items; i(nput) is noted as they are taken."""
    for i in range(5):
        log.append(f"i{i}")
        yield i


def use_results(name: str, **kwargs: Any) -> Use:
    def use(pool: Pool, job: Callable[[int], int], log: list[str]) -> None:
        for x in getattr(pool, name)(job, noting_input(log), **kwargs):
            log.append(f"r{x}")

    return use


@pytest.mark.parametrize(
    ("name", "size", "maxsize", "expected"),
    [
        # recorded from gevent 26.9
        ("map", 1, None, "oi0i1os0e0oi2s1e1i3s2e2i4s3e3s4e4r0r1r2r3r4"),
        ("map", 2, None, "oi0i1i2os0e0s1oe1i3s2i4e2s3e3s4e4r0r1r2r3r4"),
        ("map", 3, None, "oi0i1i2i3os0e0s1s2oe1e2i4s3e3s4e4r0r1r2r3r4"),
        ("map", None, None, "oi0i1i2i3i4os0e0s1s2s3e3s4oe1e2e4r0r1r2r3r4"),
        ("imap", 1, None, "oi0i1os0e0oi2r0s1e1i3r1s2e2i4r2s3e3r3s4e4r4"),
        ("imap", 1, 1, "oi0i1os0e0oi2r0s1e1i3r1s2e2i4r2s3e3r3s4e4r4"),
        ("imap", 1, 2, "oi0i1os0e0oi2r0s1e1i3r1s2e2i4r2s3e3r3s4e4r4"),
        ("imap", 2, None, "oi0i1i2os0e0s1oe1i3r0s2i4r1e2s3e3r2r3s4e4r4"),
        ("imap", 2, 1, "oi0i1i2os0e0s1oe1r0i3r1s2i4e2s3e3r2r3s4e4r4"),
        ("imap", 2, 2, "oi0i1i2os0e0s1oe1i3r0s2i4r1e2s3e3r2r3s4e4r4"),
        ("imap", 3, None, "oi0i1i2i3os0e0s1s2oe1e2i4r0s3e3r1r2s4r3e4r4"),
        ("imap", 3, 1, "oi0i1i2os0e0s1oe1r0i3r1s2i4e2s3e3r2r3s4e4r4"),
        ("imap", 3, 2, "oi0i1i2i3os0e0s1s2oe1e2r0i4r1r2s3e3s4r3e4r4"),
        ("imap", None, None, "oi0i1i2i3i4os0e0s1s2s3e3s4oe1e2e4r0r1r2r3r4"),
        ("imap", None, 1, "oi0i1i2os0e0s1oe1r0i3r1s2i4e2s3e3r2r3s4e4r4"),
        ("imap", None, 2, "oi0i1i2i3os0e0s1s2oe1e2r0i4r1r2s3e3s4r3e4r4"),
        ("imap_unordered", 1, None, "oi0i1os0e0oi2r0s1e1i3r1s2e2i4r2s3e3r3s4e4r4"),
        ("imap_unordered", 1, 1, "oi0i1os0e0oi2r0s1e1i3r1s2e2i4r2s3e3r3s4e4r4"),
        ("imap_unordered", 1, 2, "oi0i1os0e0oi2r0s1e1i3r1s2e2i4r2s3e3r3s4e4r4"),
        ("imap_unordered", 2, None, "oi0i1i2os0e0s1oe1i3r0s2i4r1e2s3e3r2r3s4e4r4"),
        ("imap_unordered", 2, 1, "oi0i1i2os0e0s1oe1r0i3r1s2i4e2s3e3r2r3s4e4r4"),
        ("imap_unordered", 2, 2, "oi0i1i2os0e0s1oe1i3r0s2i4r1e2s3e3r2r3s4e4r4"),
        ("imap_unordered", 3, None, "oi0i1i2i3os0e0s1s2oe1e2i4r0s3e3r1r2s4r3e4r4"),
        ("imap_unordered", 3, 1, "oi0i1i2os0e0s1oe1r0i3r1s2i4e2s3e3r2r3s4e4r4"),
        ("imap_unordered", 3, 2, "oi0i1i2i3os0e0s1s2oe1e2r0i4r1r2s3e3s4r3e4r4"),
        ("imap_unordered", None, None, "oi0i1i2i3i4os0e0s1s2s3e3s4oe1e2e4r0r3r1r2r4"),
        ("imap_unordered", None, 1, "oi0i1i2os0e0s1oe1r0i3r1s2i4e2s3e3r2r3s4e4r4"),
        ("imap_unordered", None, 2, "oi0i1i2i3os0e0s1s2oe1e2r0i4r1r2s3e3s4r3e4r4"),
    ],
)
def test_the_order_of_events_is_that_of_gevent(
    name: str, size: int | None, maxsize: int | None, expected: str
) -> None:
    kwargs = {} if maxsize is None else {"maxsize": maxsize}
    assert trace(use_results(name, **kwargs), size, others=3) == expected


def use_map_async(pool: Pool, job: Callable[[int], int], log: list[str]) -> None:
    mapping = pool.map_async(job, noting_input(log), lambda _: log.append("c"))
    log.append("m")
    mapping.get()
    log.append("g")


def use_map_cb(pool: Pool, job: Callable[[int], int], log: list[str]) -> None:
    pool.map_cb(job, noting_input(log), lambda _: log.append("c"))
    log.append("g")


def use_apply_async(pool: Pool, job: Callable[[int], int], log: list[str]) -> None:
    jobs = [pool.apply_async(job, (i,), callback=lambda _: log.append("c")) for i in range(4)]
    log.append("m")
    for each in jobs:
        each.get()
    log.append("g")


def use_apply_cb(pool: Pool, job: Callable[[int], int], log: list[str]) -> None:
    pool.apply_cb(job, (1,), callback=lambda _: log.append("c"))
    log.append("g")


def use_kill(pool: Pool, job: Callable[[int], int], log: list[str]) -> None:
    for _ in range(2):
        pool.spawn(job, 1)
    bridge.sleep(0)
    pool.kill()
    log.append("k")


def use_join(pool: Pool, job: Callable[[int], int], log: list[str]) -> None:
    for i in range(2):
        pool.spawn(job, i)
    pool.join()
    log.append("j")


@pytest.mark.parametrize(
    ("use", "size", "expected"),
    [
        # recorded from gevent 26.9
        (use_map_async, 1, "mooi0i1os0e0ooi2os1e1i3s2e2i4s3e3s4e4cg"),
        (use_map_async, 2, "mooi0i1i2os0e0s1oe1oi3os2i4e2s3e3s4e4cg"),
        (use_map_async, None, "mooi0i1i2i3i4os0e0s1s2s3e3s4oe1e2e4oocg"),
        (use_map_cb, 1, "oi0i1os0e0ooi2os1oe1i3s2e2i4s3e3s4e4cg"),
        (use_map_cb, 2, "oi0i1i2os0e0s1oe1oi3os2i4oe2s3e3s4e4cg"),
        (use_map_cb, None, "oi0i1i2i3i4os0e0s1s2s3e3s4oe1e2e4oocgo"),
        (use_apply_async, 1, "mos0e0ocoos1oe1ocs2e2cs3e3cg"),
        (use_apply_async, 2, "mos0e0s1oce1ocos2oe2s3e3ocg"),
        (use_apply_async, None, "mos0e0s1s2s3e3oce1e2cocgcooo"),
        (use_apply_cb, 1, "os1oe1ogocoo"),
        (use_kill, 1, "os1oe1ooos1oe1k"),
        (use_kill, 2, "os1s1oe1e1okooo"),
        (use_kill, None, "os1s1oe1e1okooo"),
        (use_join, 1, "os0e0ooos1oe1oj"),
        (use_join, 2, "os0e0s1oe1oojoo"),
    ],
)
def test_the_order_of_what_else_a_pool_does_is_that_of_gevent(
    use: Any, size: int | None, expected: str
) -> None:
    assert trace(use, size) == expected


# ---- random kills ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_kills_at_random_lose_no_place(seed: int) -> None:
    rng = random.Random(seed)
    pool = Pool(rng.randint(1, 4))
    ran: list[int] = []

    def job(i: int) -> None:
        ran.append(i)
        bridge.sleep(rng.choice([0, 0, 0.0005]))

    def client(i: int) -> None:
        action = rng.randrange(5)
        if action == 0:
            pool.spawn(job, i)
        elif action == 1:
            pool.apply(job, (i,))
        elif action == 2:
            with bridge.Timeout(rng.choice([0, 0.0005, 0.002]), False):
                pool.spawn(job, i)
        elif action == 3:
            try:
                pool.start(bridge.Greenlet(job, i), timeout=rng.choice([0, 0.0005, 0.002]))
            except PoolFull:
                pass
        else:
            pool.wait_available(timeout=0.001)

    clients: list[bridge.Greenlet[Any]] = []
    for i in range(80):
        clients.append(bridge.spawn(client, i))
        for _ in range(rng.randrange(3)):
            rng.choice(clients).kill(block=False)
        if rng.random() < 0.3:
            bridge.sleep(rng.choice([0, 0.0005]))
        members = list(pool)
        if members and rng.random() < 0.2:
            rng.choice(members).kill(block=False)
        if rng.random() < 0.02:
            pool.kill(block=False)
        assert len(pool) <= (pool.size or 0)
    bridge.joinall(clients, timeout=5)
    assert all(c.dead for c in clients)
    assert pool.join(5)
    assert max(Counter(ran).values(), default=1) == 1
    assert pool._semaphore.counter == pool.size
    assert not pool.dying


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", IMAPS)
def test_killed_readers_lose_no_result(name: str, seed: int) -> None:
    rng = random.Random(seed)
    pool = Pool(rng.choice([1, 3, None]))
    maxsize = rng.choice([None, 1, 3])
    it = getattr(pool, name)(lambda x: bridge.sleep(rng.choice([0, 0.0005])) or x, range(60), maxsize=maxsize)
    got: list[int] = []

    def reader() -> None:
        for x in it:
            got.append(x)
            if rng.random() < 0.3:
                bridge.sleep(0)

    readers = [bridge.spawn(reader) for _ in range(3)]
    for _ in range(30):
        victim = rng.randrange(len(readers))
        readers[victim].kill(block=rng.random() < 0.5)
        readers[victim] = bridge.spawn(reader)
        bridge.sleep(rng.choice([0, 0.0005]))
    bridge.joinall(readers, timeout=5)
    assert all(r.dead for r in readers)
    assert sorted(got) == list(range(60))
    assert pool.join(1)
    assert len(it.queue) == 0
