"""Events, results, locks and queues used by several threads at once.

Threads change so seldom between two given instructions that a plain stress test finds nothing. So the
threads of these tests are made to give up the interpreter again and again at the places where CPython may
change threads: when a function is entered and when a call into C has returned.
"""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import bridge
from bridge._core.hub import get_hub_if_exists
from bridge.event import AsyncResult, Event
from bridge.lock import BoundedSemaphore, RLock, Semaphore
from bridge.queue import Channel, Empty, LifoQueue, PriorityQueue, Queue, SimpleQueue

#: Seconds after which somebody who was not woken is lost.
LOST = 15


class Crew:
    """Threads that are started together and watched."""

    def __init__(self, seed: int) -> None:
        self.rnd = random.Random(seed)
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        self.release = 0.1

    def add(self, function: Callable[..., Any], *args: Any, times: int = 1) -> None:
        for _ in range(times):
            self.threads.append(threading.Thread(target=self._run, args=(function, args), daemon=True))

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.start.wait()
        sys.setprofile(self._profile)
        try:
            function(*args)
        except BaseException as e:
            self.errors.append(e)
        finally:
            sys.setprofile(None)

    def _profile(self, frame: Any, event: str, arg: object) -> None:
        if (event == "call" or event == "c_return") and self.rnd.random() < self.release:
            if frame.f_globals.get("__name__", "").startswith("bridge."):
                time.sleep(0)

    def go(self) -> None:
        self.start = threading.Barrier(len(self.threads))
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join(2 * LOST)
        hanging = [t for t in self.threads if t.is_alive()]
        if self.errors:
            raise self.errors[0]
        assert not hanging


@pytest.fixture
def switching() -> Iterator[None]:
    # Threads change where Crew lets them, and where they block, nowhere else: left to themselves they would
    # also change inside the profile function when it is called before a call into C, where CPython
    # without a profile function never does.
    before = sys.getswitchinterval()
    sys.setswitchinterval(100)
    yield
    sys.setswitchinterval(before)


pytestmark = [pytest.mark.engines("owned"), pytest.mark.usefixtures("switching")]


def greenlets(function: Callable[..., Any], count: int, *args: Any) -> None:
    """Run ``function`` in several greenlets of this thread and raise what they raise."""
    for g in [bridge.spawn(function, *args) for _ in range(count)]:
        g.get()


def in_thread(function: Callable[[], Any]) -> Any:
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(function()))
    thread.start()
    thread.join(LOST)
    return outcome[0]


# -- threads without a hub --------------------------------------------------------------------------


def _released() -> None:
    s = Semaphore(0)
    s.release()
    assert s.acquire() and not s.acquire(blocking=False)


def _entered() -> None:
    for lock in (RLock(), Semaphore(), BoundedSemaphore()):
        with lock:
            assert lock.locked()


def _set() -> None:
    e = Event()
    e.set()
    assert e.wait()
    r: AsyncResult[int] = AsyncResult()
    r.set(3)
    assert r.get() == 3
    r.set_exception(KeyError())
    with pytest.raises(KeyError):
        r.get()


def _put() -> None:
    for cls in (Queue, SimpleQueue, LifoQueue, PriorityQueue):
        q = cls()
        q.put(1)
        q.put_nowait(1)
        assert q.get() + q.get_nowait() == 2
        with pytest.raises(Empty):
            q.get_nowait()
    q = Queue()
    q.put(1)
    q.task_done()
    assert q.join()
    q.shutdown()


@pytest.mark.parametrize("use", [_released, _entered, _set, _put])
def test_a_thread_that_need_not_wait_gets_no_hub(use: Callable[[], None]) -> None:
    assert in_thread(lambda: (use(), get_hub_if_exists())[1]) is None


@pytest.mark.engines("owned", "adopted")
@pytest.mark.parametrize("what", ["event", "result", "exception", "semaphore", "rlock", "queue", "join"])
def test_a_thread_without_a_hub_wakes_a_greenlet_and_gets_none(what: str) -> None:
    event, result, semaphore, queue = Event(), AsyncResult[int](), Semaphore(0), Queue[int]()
    lock = RLock()
    if what == "rlock":
        lock._acquire_restore((1, threading.current_thread()))
    if what == "join":
        queue.put(1)
    wait: Callable[[], Any] = {
        "event": lambda: event.wait(LOST),
        "result": lambda: result.get(timeout=LOST),
        "exception": lambda: isinstance(result.wait(LOST) or result.exception, KeyError),
        "semaphore": lambda: semaphore.acquire(timeout=LOST),
        "rlock": lambda: lock.acquire(timeout=LOST),
        "queue": lambda: queue.get(timeout=LOST),
        "join": lambda: queue.join(timeout=LOST),
    }[what]
    end: Callable[[], Any] = {
        "event": event.set,
        "result": lambda: result.set(1),
        "exception": lambda: result.set_exception(KeyError()),
        "semaphore": semaphore.release,
        "rlock": lock._release_save,
        "queue": lambda: queue.put(1),
        "join": queue.task_done,
    }[what]
    waiting = bridge.spawn(wait)
    bridge.sleep(0)
    assert not waiting.dead
    hubs: list[object] = []
    thread = threading.Thread(target=lambda: (end(), hubs.append(get_hub_if_exists())))
    thread.start()
    assert waiting.get(timeout=LOST)
    thread.join(LOST)
    assert hubs == [None]


def test_a_waiter_wakes_in_its_own_thread() -> None:
    event = Event()
    woken: list[bool] = []
    crew = Crew(0)

    def wait() -> None:
        def one() -> None:
            me = threading.get_ident()
            assert event.wait(LOST)
            woken.append(threading.get_ident() == me)

        greenlets(one, 3)

    crew.add(wait, times=3)
    crew.add(lambda: (time.sleep(0.002), event.set()))
    crew.go()
    assert woken == [True] * 9


# -- stress -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_every_waiter_of_an_event_wakes_however_many_threads_set_it(seed: int) -> None:
    for n in range(25):
        event = Event()
        crew = Crew(seed * 1000 + n)

        def wait(event: Event = event) -> None:
            patient = [bridge.spawn(event.wait, LOST) for _ in range(2)]
            hasty = [bridge.spawn(event.wait, s) for s in (0, 0.0001)]
            bridge.joinall(patient + hasty)
            assert [g.get() for g in patient] == [True, True]
            for g in hasty:
                g.get()

        crew.add(wait, times=2)
        crew.add(event.set, times=2)
        crew.go()
        assert event.linkcount() == 0


def test_a_result_set_by_one_of_many_threads_is_the_same_for_all() -> None:
    for n in range(20):
        result: AsyncResult[int] = AsyncResult()
        got: list[int] = []
        crew = Crew(n)
        crew.add(lambda r=result, g=got: greenlets(lambda: g.append(r.get(timeout=LOST)), 3), times=3)
        crew.add(result.set, 7)
        crew.go()
        assert got == [7] * 9


@pytest.mark.parametrize("permits", [1, 2])
@pytest.mark.parametrize("cls", [Semaphore, BoundedSemaphore])
def test_no_more_are_inside_than_there_are_permits_and_none_is_lost(cls: Any, permits: int) -> None:
    semaphore = cls(permits)
    inside: list[int] = []
    done: list[int] = []

    def work(seed: int) -> None:
        rnd = random.Random(seed)

        def one() -> None:
            for _ in range(25):
                if rnd.random() < 0.3:
                    if not semaphore.acquire(timeout=rnd.random() * 0.0005):
                        continue
                else:
                    assert semaphore.acquire(timeout=LOST)
                inside.append(1)
                assert len(inside) <= permits
                if rnd.random() < 0.5:
                    bridge.sleep(0)
                inside.pop()
                semaphore.release()
            done.append(1)

        victims = [bridge.spawn(semaphore.acquire) for _ in range(2)]
        workers = [bridge.spawn(one) for _ in range(3)]
        bridge.sleep(rnd.random() * 0.002)
        for victim in victims:
            victim.kill()
            if victim.value is True:  # it had one already
                semaphore.release()
        for g in workers:
            g.get()

    crew = Crew(permits)
    for seed in range(4):
        crew.add(work, seed)
    crew.go()
    assert len(done) == 12
    assert semaphore.counter == permits
    assert semaphore.linkcount() == 0


def test_an_rlock_is_held_by_one_greenlet_of_one_thread() -> None:
    lock = RLock()
    holders: list[object] = []

    def one() -> None:
        for _ in range(20):
            with lock:
                holders.append(1)
                with lock:
                    bridge.sleep(0)
                    assert len(holders) == 1
                holders.pop()

    crew = Crew(3)
    crew.add(greenlets, one, 3, times=3)
    crew.go()
    assert not lock.locked()
    assert in_thread(lambda: lock.acquire(blocking=False))


class InPython:
    """Compares itself in Python, where threads change."""

    def __init__(self, key: Any) -> None:
        self.key = key

    def __lt__(self, other: InPython) -> bool:
        return bool(self.key < other.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InPython) and bool(self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)


QUEUES: dict[str, Callable[[], Any]] = {
    "Queue": Queue,
    "SimpleQueue": SimpleQueue,
    "Queue(1)": lambda: Queue(1),
    "Queue(3)": lambda: Queue(3),
    "LifoQueue": LifoQueue,
    "LifoQueue(2)": lambda: LifoQueue(2),
    "PriorityQueue": PriorityQueue,
    "PriorityQueue(2)": lambda: PriorityQueue(2),
    "Channel": Channel,
}


@pytest.mark.parametrize("item", [tuple, InPython])
@pytest.mark.parametrize("name", QUEUES)
def test_no_item_is_lost_or_given_twice(name: str, item: Any) -> None:
    queue = QUEUES[name]()
    got: list[Any] = []
    count, putters, getters = 60, 3, 3

    def put(who: int) -> None:
        for n in range(count):
            queue.put(item((who, n)), timeout=LOST)

    def get(patience: float | None) -> None:
        mine = []
        for _ in range(count // 2):
            while True:
                try:
                    mine.append(queue.get(timeout=LOST if patience is None else patience))
                    break
                except Empty:
                    if patience is None:
                        raise
        got.extend(mine)

    crew = Crew(len(name))
    for who in range(putters):
        crew.add(put, who)
    for patience in [None, None, 0.0002][:getters]:
        crew.add(greenlets, get, 2, patience)
    crew.go()
    assert Counter(got) == Counter(item((who, n)) for who in range(putters) for n in range(count))
    if name != "Channel":
        assert len(queue) == 0
        if isinstance(queue, Queue):
            assert queue.unfinished_tasks == putters * count


@pytest.mark.parametrize("name", ["Queue", "SimpleQueue", "Queue(3)"])
def test_the_items_of_one_thread_stay_in_order(name: str) -> None:
    queue = QUEUES[name]()
    got: list[tuple[int, int]] = []

    def put(who: int) -> None:
        for n in range(100):
            queue.put((who, n), timeout=LOST)

    crew = Crew(9)
    crew.add(put, 0)
    crew.add(put, 1)
    crew.add(lambda: got.extend(queue.get(timeout=LOST) for _ in range(200)))
    crew.go()
    for who in (0, 1):
        assert [n for w, n in got if w == who] == list(range(100))


def test_a_waiter_that_gives_up_in_one_thread_leaves_the_item_for_another() -> None:
    for n in range(20):
        queue: Queue[int] = Queue()
        crew = Crew(n)
        got: list[int] = []

        def hasty(queue: Queue[int] = queue, got: list[int] = got) -> None:
            for seconds in (0, 0.0001, 0.0002):
                try:
                    got.append(queue.get(timeout=seconds))
                except Empty:
                    pass

        crew.add(greenlets, hasty, 2, times=2)
        crew.add(lambda q=queue, g=got: g.append(q.get(timeout=LOST)))
        crew.add(lambda q=queue: [q.put(i) for i in range(13)])
        crew.go()
        assert sorted(got + list(queue.queue)) == list(range(13))
        assert not queue._getters


def test_task_done_in_several_threads_ends_every_join() -> None:
    queue: Queue[int] = Queue()
    crew = Crew(4)
    for n in range(90):
        queue.put(n)

    def work() -> None:
        for _ in range(30):
            queue.get_nowait()
            queue.task_done()

    crew.add(lambda: greenlets(lambda: queue.join(timeout=LOST) or pytest.fail("join"), 2), times=2)
    crew.add(work, times=3)
    crew.go()
    assert queue.unfinished_tasks == 0
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()


@pytest.mark.engines("none")
def test_a_thread_that_had_a_hub_leaves_nothing_behind() -> None:
    def of_ended_threads() -> int:
        gc.collect()
        return sum(type(each).__name__ == "_ThreadEnd" for each in gc.get_objects())

    def use() -> None:
        bridge.spawn(bridge.sleep, 10)
        bridge.sleep(0)

    before = of_ended_threads()
    for _ in range(5):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    assert of_ended_threads() <= before
