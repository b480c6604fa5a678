"""Semaphores and RLock."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import bridge
from bridge.event import Event
from bridge.lock import BoundedSemaphore, DummySemaphore, RLock, Semaphore

SEMAPHORES = [Semaphore, BoundedSemaphore]
LOCKS = [Semaphore, BoundedSemaphore, RLock]


def settle() -> None:
    for _ in range(3):
        bridge.sleep(0)


# -- Semaphore ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", SEMAPHORES)
def test_acquire_takes_permits_until_there_are_none(cls: Any) -> None:
    semaphore = cls(2)
    assert semaphore.acquire() is True
    assert not semaphore.locked() and semaphore.ready()
    assert semaphore.acquire(blocking=False) is True
    assert semaphore.locked() and not semaphore.ready()
    assert semaphore.acquire(blocking=False) is False
    assert semaphore.acquire(timeout=0.001) is False
    assert semaphore.acquire(timeout=0) is False
    assert semaphore.acquire(timeout=-1) is False
    assert semaphore.acquire(blocking=False, timeout=1) is False
    assert semaphore.acquire(timeout=bridge.Timeout(0.001)) is False
    assert semaphore.release() == 1
    assert semaphore.release() == 2
    assert semaphore.linkcount() == 0


@pytest.mark.parametrize("cls", SEMAPHORES)
def test_wait_returns_the_counter_and_takes_nothing(cls: Any) -> None:
    semaphore = cls(2)
    assert semaphore.wait() == 2
    semaphore.acquire()
    semaphore.acquire()
    assert semaphore.wait(timeout=0.001) == 0
    waiters = [bridge.spawn(semaphore.wait) for _ in range(3)]
    settle()
    semaphore.release()
    assert [g.get() for g in waiters] == [1, 1, 1]
    assert semaphore.counter == 1


@pytest.mark.parametrize("cls", SEMAPHORES)
def test_a_running_greenlet_that_releases_and_reacquires_keeps_it(cls: Any) -> None:
    semaphore = cls(1)
    got: list[str] = []
    semaphore.acquire()
    waiting = bridge.spawn(lambda: (semaphore.acquire(), got.append("waiter")))
    settle()
    for _ in range(3):
        semaphore.release()
        assert semaphore.acquire(blocking=False)
        settle()
        assert got == []
    semaphore.release()
    waiting.join()
    assert got == ["waiter"]


@pytest.mark.parametrize("cls", LOCKS)
def test_first_come_first_served_also_after_a_permit_was_snatched(cls: Any) -> None:
    lock = cls()
    order: list[int] = []
    lock.acquire()

    def one(n: int) -> None:
        with lock:
            order.append(n)
            bridge.sleep(0)

    waiters = [bridge.spawn(one, n) for n in range(5)]
    settle()
    lock.release()
    lock.acquire()  # the first had been told
    settle()
    lock.release()
    bridge.joinall(waiters)
    assert order == list(range(5))


def test_a_snatched_permit_does_not_cost_the_waiter_its_timeout() -> None:
    """The time is over between the wake-up and its being taken back: then no timer is left."""
    semaphore = Semaphore(0)
    waiting = bridge.spawn(semaphore.acquire, timeout=0.01)
    settle()

    def compute() -> None:
        until = time.monotonic() + 0.001
        while time.monotonic() < until:
            pass

    others = [bridge.spawn(compute) for _ in range(40)]
    others.append(bridge.spawn(semaphore.acquire))
    semaphore.release()
    bridge.joinall(others)
    assert waiting.get(timeout=5) is False


@pytest.mark.parametrize("exception", [bridge.GreenletExit, bridge.Timeout, KeyError])
def test_who_is_told_and_ended_at_once_hands_the_permit_on(exception: Any, errors: list[Any]) -> None:
    semaphore = Semaphore(0)
    first, second = bridge.spawn(semaphore.acquire), bridge.spawn(semaphore.acquire)
    settle()

    def end_and_tell() -> None:  # in the hub: nobody runs in between
        bridge.get_hub().loop.run_callback(first.throw, exception)
        semaphore.release()

    bridge.get_hub().loop.run_callback(end_and_tell)
    assert second.get(timeout=5) is True
    assert first.value is not True
    assert semaphore.counter == 0
    assert semaphore.linkcount() == 0


def test_rawlink_is_called_when_a_permit_is_free_and_takes_none() -> None:
    semaphore = Semaphore(0)
    called: list[Any] = []
    semaphore.rawlink(called.append)
    waiting = bridge.spawn(semaphore.acquire)
    settle()
    assert called == []
    semaphore.release()
    assert waiting.get() is True
    assert called == [semaphore]
    assert semaphore.linkcount() == 0


def test_unlinking_the_callback_that_was_told_tells_the_next() -> None:
    semaphore = Semaphore(0)
    called: list[Any] = []
    semaphore.rawlink(called.append)
    waiting = bridge.spawn(semaphore.acquire)
    settle()
    semaphore.release()
    semaphore.unlink(called.append)
    assert waiting.get(timeout=5) is True
    assert called == []


def test_over_release_of_a_bounded_semaphore_is_a_value_error() -> None:
    semaphore = BoundedSemaphore(2)
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    with semaphore:
        assert semaphore.counter == 1
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    assert semaphore.counter == 2


@pytest.mark.parametrize("cls", SEMAPHORES)
def test_wrong_initial_values_are_refused(cls: Any) -> None:
    with pytest.raises(ValueError, match=">= 0"):
        cls(-1)
    for value in ("1", None):
        with pytest.raises(TypeError, match="integer"):
            cls(value)


@pytest.mark.parametrize("cls", SEMAPHORES)
def test_the_fraction_of_an_initial_value_is_dropped_as_in_gevent(cls: Any) -> None:
    semaphore = cls(5 / 2)
    assert semaphore.counter == 2 and type(semaphore.counter) is int


def test_a_timeout_of_a_wrong_type_is_a_type_error_and_leaves_no_trace() -> None:
    semaphore = Semaphore(0)
    with pytest.raises(TypeError):
        semaphore.acquire(timeout="x")  # type: ignore[arg-type]
    assert semaphore.linkcount() == 0


@pytest.mark.parametrize("cls", SEMAPHORES)
def test_with_releases_after_an_error(cls: Any) -> None:
    semaphore = cls(1)
    with pytest.raises(KeyError), semaphore:
        raise KeyError
    assert semaphore.counter == 1
    assert str(semaphore) == f"<{cls.__name__} at {id(semaphore):#x} counter=1 _links[0]>"


def test_dummy_semaphore_never_blocks() -> None:
    dummy = DummySemaphore(0)
    for _ in range(3):
        assert dummy.acquire() is True
    assert dummy.wait() == 1
    assert dummy.release() is None
    assert not dummy.locked() and dummy.ready()
    with dummy:
        pass
    dummy.rawlink(print)
    dummy.unlink(print)
    assert str(dummy) == "<DummySemaphore>"


# -- RLock ----------------------------------------------------------------------------------------


def test_the_owner_may_acquire_again_and_others_wait_for_the_last_release() -> None:
    lock = RLock()
    assert lock.acquire() and lock.acquire() and lock.acquire(blocking=False)
    other = bridge.spawn(lambda: (lock.acquire(), lock.release(), True)[2])
    for _ in range(3):
        settle()
        assert not other.dead
        lock.release()
    assert other.get() is True
    assert not lock.locked()


def test_release_by_another_or_by_nobody_is_a_runtime_error() -> None:
    lock = RLock()
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()
    holder = bridge.spawn(lambda: (lock.acquire(), bridge.sleep(10)))
    settle()
    with pytest.raises(RuntimeError, match="Owner: <Greenlet"):
        lock.release()
    assert lock.locked()
    holder.kill()


def test_rlock_acquire_has_limits_and_minus_one_is_none() -> None:
    lock = RLock()
    holder = bridge.spawn(lambda: (lock.acquire(), bridge.sleep(0.005), lock.release()))
    settle()
    assert lock.acquire(timeout=0.001) is False
    assert lock.acquire(blocking=False) is False
    assert lock.acquire(timeout=-1) is True
    holder.join()


def test_rlock_shows_its_owner_even_if_that_runs_a_method_of_it() -> None:
    lock = RLock()
    holder = bridge.spawn(lock.acquire)
    holder.join()
    assert "_count=1 _owner=<Greenlet" in repr(lock)
    assert "RLock" in repr(holder)


def test_a_condition_of_the_standard_library_works_with_rlock() -> None:
    lock = RLock()
    lock.acquire()
    lock.acquire()
    saved = lock._release_save()
    assert not lock.locked() and not lock._is_owned()
    assert bridge.spawn(lock.acquire, blocking=False).get() is True
    lock._at_fork_reinit()
    lock._acquire_restore(saved)
    assert lock._is_owned() and lock._recursion_count() == 2
    assert isinstance(threading.Condition(lock), threading.Condition)


# -- a model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("make", [Semaphore, lambda: Semaphore(3), lambda: BoundedSemaphore(2), RLock])
def test_no_permit_leaks_under_kills_timeouts_and_cancellations(make: Callable[[], Any], seed: int) -> None:
    rnd = random.Random(seed)
    lock = make()
    permits = getattr(lock, "counter", 1)
    inside: list[int] = []
    finished: list[int] = []

    def enter(n: int) -> None:
        assert len(inside) < permits
        inside.append(n)

    def greenlet(n: int) -> None:
        for _ in range(6):
            with bridge.Timeout(rnd.choice([None, 0, 0.0002]), False):
                if rnd.random() < 0.5:
                    with lock:
                        enter(n)
                        try:
                            bridge.sleep(rnd.choice([0, 0, 0.0001]))
                        finally:
                            inside.remove(n)
                elif lock.acquire(timeout=rnd.choice([None, 0, 0.0001])):
                    enter(n)
                    inside.remove(n)
                    lock.release()
        finished.append(n)

    async def task(n: int) -> None:
        for _ in range(6):
            try:
                async with asyncio.timeout(rnd.choice([None, 0, 0.0002])):
                    async with lock:
                        enter(n)
                        try:
                            await asyncio.sleep(rnd.choice([0, 0, 0.0001]))
                        finally:
                            inside.remove(n)
            except TimeoutError:
                pass
            if await lock.aacquire(timeout=rnd.choice([None, 0, 0.0001])):
                enter(n)
                inside.remove(n)
                lock.release()
        finished.append(n)

    aio = bridge.get_hub().aio_loop
    greenlets = [bridge.spawn(greenlet, n) for n in range(8)]
    tasks = [aio.create_task(task(n)) for n in range(8, 14)]
    for _ in range(4):
        bridge.sleep(rnd.choice([0, 0.0002]))
        rnd.choice(greenlets).kill(block=False)
        rnd.choice(tasks).cancel()
    bridge.joinall(greenlets, timeout=10)
    for t in tasks:
        done = Event()
        t.add_done_callback(lambda _t, done=done: done.set())
        assert done.wait(10)
        assert t.cancelled() or t.exception() is None
    assert all(g.successful() for g in greenlets)
    assert len(finished) >= 6
    assert inside == []
    block = getattr(lock, "_block", lock)
    assert (block.counter, block.linkcount()) == (permits, 0)


@pytest.mark.engines("owned")
def test_leaving_a_long_line_costs_the_same_wherever_one_stands() -> None:
    def spent(count: int) -> float:
        semaphore = Semaphore(0)
        waiters = [bridge.spawn(semaphore.acquire) for _ in range(count)]
        settle()
        random.Random(2).shuffle(waiters)
        before = time.process_time()
        for g in waiters:
            g.kill(block=False)
        bridge.joinall(waiters)
        assert semaphore.linkcount() == 0
        return time.process_time() - before

    small = min(spent(1000) for _ in range(3))
    assert spent(20_000) < 100 * small


@pytest.mark.parametrize("kind", [Semaphore, BoundedSemaphore])
def test_a_with_statement_goes_through_the_acquire_and_release_of_a_subclass(kind: type[Semaphore]) -> None:
    calls: list[str] = []

    class Noting:
        def acquire(self, *args: Any, **kwargs: Any) -> Any:
            calls.append("acquire")
            return super().acquire(*args, **kwargs)  # type: ignore[misc]

        def release(self) -> Any:
            calls.append("release")
            return super().release()  # type: ignore[misc]

    class Noted(Noting, kind):  # type: ignore[misc,valid-type]
        pass

    class Further(Noted):
        pass

    for cls in (Noted, Further):
        with cls() as nothing:
            assert nothing is None
        assert calls == ["acquire", "release"]
        calls.clear()


@pytest.mark.parametrize("kind", [Semaphore, BoundedSemaphore])
def test_a_callback_waits_on_if_the_permit_is_snatched(kind: type[Semaphore]) -> None:
    semaphore = kind(1)
    semaphore.acquire()
    log: list[Any] = []
    semaphore.rawlink(lambda s: log.append(s.counter))
    semaphore.release()
    semaphore.acquire()
    bridge.sleep(0)
    bridge.sleep(0)
    assert log == [] and semaphore.linkcount() == 1
    semaphore.release()
    bridge.sleep(0)
    assert log == [1] and semaphore.linkcount() == 0


def test_a_callback_that_takes_the_permit_leaves_the_others_waiting() -> None:
    semaphore = Semaphore(0)
    log: list[Any] = []
    for name in "ab":
        semaphore.rawlink(lambda s, name=name: log.append((name, s.acquire(False))))
    for taken in ([("a", True)], [("a", True), ("b", True)]):
        semaphore.release()
        bridge.sleep(0)
        bridge.sleep(0)
        assert log == taken
    assert semaphore.linkcount() == 0


def test_callbacks_and_greenlets_in_line_are_served_with_nobody_in_between() -> None:
    semaphore = Semaphore(0)
    log: list[str] = []
    semaphore.rawlink(lambda _s: log.append("first"))
    waiter = bridge.spawn(lambda: log.append(f"waiter {semaphore.wait()}"))
    bridge.sleep(0)
    semaphore.rawlink(lambda _s: log.append("last"))
    semaphore.release()
    bridge.spawn(log.append, "other")
    waiter.join()
    bridge.sleep(0)
    assert log == ["first", "waiter 1", "last", "other"]


@pytest.mark.parametrize("make", [lambda: Semaphore(0), Event])
def test_a_callback_that_unlinks_itself_takes_back_its_other_registration(make: Callable[[], Any]) -> None:
    source = make()
    log: list[int] = []

    def once(it: Any) -> None:
        log.append(1)
        it.unlink(once)

    source.rawlink(once)
    source.rawlink(once)
    source.set() if isinstance(source, Event) else source.release()
    for _ in range(3):
        bridge.sleep(0)
    assert log == [1] and source.linkcount() == 0
