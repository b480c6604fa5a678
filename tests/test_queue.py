"""Queues and channels."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
import types
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bridge
from bridge.exceptions import BlockingSwitchOutError
from bridge.queue import (
    Channel,
    Empty,
    Full,
    JoinableQueue,
    LifoQueue,
    PriorityQueue,
    Queue,
    ShutDown,
    SimpleQueue,
    UnboundQueue,
)

from .helpers import let_others_run_until as until

QUEUES: list[Any] = [Queue, SimpleQueue, LifoQueue, PriorityQueue]
JOINABLE: list[Any] = [Queue, LifoQueue, PriorityQueue]


def settle() -> None:
    for _ in range(3):
        bridge.sleep(0)


# -- against a model ------------------------------------------------------------------------------


class Model:
    """What a queue is: a list, and which end or which item is taken."""

    def __init__(self, kind: str, maxsize: int | None) -> None:
        self.kind = kind
        self.maxsize = maxsize
        self.items: list[int] = []
        self.unfinished = 0

    def first(self) -> int:
        if not self.items:
            raise Empty
        if self.kind == "PriorityQueue":
            return min(self.items)
        return self.items[-1 if self.kind == "LifoQueue" else 0]

    def put(self, item: int) -> None:
        if self.maxsize is not None and len(self.items) >= self.maxsize:
            raise Full
        self.items.append(item)
        self.unfinished += 1

    def get(self) -> int:
        if self.items and self.kind == "LifoQueue":
            return self.items.pop()
        item = self.first()
        self.items.remove(item)
        return item

    def done(self) -> None:
        if self.unfinished <= 0:
            raise ValueError
        self.unfinished -= 1


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except (Empty, Full, ValueError) as e:
        return type(e)


@pytest.mark.engines("owned")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cls=st.sampled_from(QUEUES),
    maxsize=st.sampled_from([None, 1, 2, 5]),
    steps=st.lists(st.one_of(st.integers(0, 9), st.sampled_from(["get", "peek", "done"])), max_size=40),
)
def test_a_queue_does_what_its_model_does(cls: Any, maxsize: int | None, steps: list[Any]) -> None:
    queue, model = cls(maxsize), Model(cls.__name__, maxsize)
    for step in steps:
        if step == "get":
            assert outcome(queue.get_nowait) == outcome(model.get)
        elif step == "peek":
            assert outcome(queue.peek_nowait) == outcome(model.first)
        elif step == "done":
            if cls is not SimpleQueue:
                assert outcome(queue.task_done) == outcome(model.done)
        else:
            assert outcome(queue.put_nowait, step) == outcome(model.put, step)
        assert len(queue) == queue.qsize() == len(model.items)
        assert queue.empty() is (not model.items)
        assert queue.full() is (maxsize is not None and len(model.items) >= maxsize)
        if cls is not SimpleQueue:
            assert queue.unfinished_tasks == model.unfinished
    assert sorted(queue.queue) == sorted(model.items)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("maxsize", [None, 1, 3])
@pytest.mark.parametrize("cls", [*QUEUES, Channel])
def test_no_item_is_lost_or_given_twice(cls: Any, maxsize: int | None, seed: int) -> None:
    """Greenlets and coroutines put and get, with time limits, while some are killed and cancelled."""
    rnd = random.Random(seed)
    channel = cls is Channel
    queue = Channel() if channel else cls(maxsize)
    put: list[int] = []
    maybe: list[int] = []  # a channel's putter may be ended between the taking and its return
    got: list[int] = []
    numbers = iter(range(100_000))

    def limit() -> float | None:
        return rnd.choice([None, None, 0, 0.0001, 0.0003])

    def putter() -> None:
        for _ in range(10):
            n = next(numbers)
            maybe.append(n)
            with bridge.Timeout(limit(), False):
                try:
                    queue.put(n, timeout=limit())
                    put.append(n)
                except Full:
                    maybe.remove(n)

    def getter() -> None:
        for _ in range(10):
            with bridge.Timeout(limit(), False):
                try:
                    got.append(queue.get(timeout=limit()))
                except Empty:
                    pass

    async def aputter() -> None:
        for _ in range(10):
            n = next(numbers)
            maybe.append(n)
            try:
                async with asyncio.timeout(limit()):
                    await queue.aput(n, timeout=limit())
                    put.append(n)
            except TimeoutError:
                pass
            except Full:
                maybe.remove(n)

    async def agetter() -> None:
        for _ in range(10):
            try:
                async with asyncio.timeout(limit()):
                    got.append(await queue.aget(timeout=limit()))
            except (Empty, TimeoutError):
                pass

    aio = bridge.get_hub().aio_loop
    greenlets = [bridge.spawn(f) for f in [putter, getter] * 4]
    tasks = [aio.create_task(f()) for f in [aputter, agetter] * 3]
    for _ in range(5):
        bridge.sleep(rnd.choice([0, 0.0001, 0.0003]))
        rnd.choice(greenlets).kill(block=False)
        rnd.choice(tasks).cancel()
    bridge.sleep(0.002)
    # the rest hang on each other: end them
    for g in greenlets:
        g.kill(block=False)
    for t in tasks:
        t.cancel()
    bridge.joinall(greenlets)
    until(lambda: all(t.done() for t in tasks))
    assert all(g.successful() for g in greenlets)
    assert all(t.cancelled() or t.exception() is None for t in tasks)
    left = [] if channel else list(queue.queue)
    accounted = Counter(got + left)
    assert max(accounted.values(), default=1) == 1
    assert set(put) <= set(accounted) <= set(maybe)
    if channel:
        assert queue.balance == 0
    else:
        assert set(put) == set(accounted)
        assert not queue._getters and not queue._putters
        assert maxsize is None or len(left) <= maxsize
    # and it still works
    receiving = bridge.spawn(queue.get)
    if channel or not queue.full():
        queue.put(-1)
    receiving.get(timeout=5)


# -- waiting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", QUEUES)
def test_get_waits_for_an_item_and_put_for_a_place(cls: Any) -> None:
    queue = cls(1)
    getting = bridge.spawn(queue.get)
    settle()
    assert not getting.dead
    queue.put(1)
    assert getting.get() == 1
    queue.put(2)
    putting = bridge.spawn(queue.put, 3)
    settle()
    assert not putting.dead
    assert queue.get() == 2
    putting.join()
    assert queue.get() == 3


@pytest.mark.parametrize("cls", QUEUES)
def test_limits(cls: Any) -> None:
    queue = cls(1)
    for get in (queue.get, queue.peek):
        for kwargs in ({"block": False}, {"timeout": 0}, {"timeout": 0.001}):
            with pytest.raises(Empty):
                get(**kwargs)
        with pytest.raises(ValueError, match="non-negative"):
            get(timeout=-1)
        expired = bridge.Timeout(0.001)
        with pytest.raises(bridge.Timeout) as caught:
            get(timeout=expired)
        assert caught.value is expired
    with pytest.raises(ValueError, match="non-negative"):
        queue.put(1, timeout=-1)  # also where nobody would have to wait
    queue.put(1, False, -1)
    assert queue.get() == 1
    queue.put(1, timeout=1)
    for kwargs in ({"block": False}, {"timeout": 0}, {"timeout": 0.001}, {"timeout": -1}):
        with pytest.raises(Full):
            queue.put(2, **kwargs)
    with pytest.raises(TypeError, match="timeout='x'"):
        queue.put(2, timeout="x")
    assert not queue._getters and not queue._putters
    assert queue.get() == 1


def test_peek_leaves_the_item_and_passes_the_word_on() -> None:
    queue: Queue[int] = Queue()
    waiting = [bridge.spawn(queue.peek), bridge.spawn(queue.peek), bridge.spawn(queue.get)]
    settle()
    queue.put(1)
    assert [g.get() for g in waiting] == [1, 1, 1]
    assert queue.empty()


def test_raising_maxsize_wakes_putters_at_the_next_get() -> None:
    queue: Queue[int] = Queue(1, [0])
    putting = [bridge.spawn(queue.put, n) for n in range(1, 4)]
    settle()
    queue.maxsize = 4
    settle()
    assert not any(g.dead for g in putting)
    assert queue.get() == 0
    bridge.joinall(putting)
    assert list(queue.queue) == [1, 2, 3]


def test_in_the_hub_a_queue_answers_instead_of_waiting() -> None:
    queue: Queue[int] = Queue(1)
    channel: Channel[int] = Channel()
    answers: list[Any] = []

    def callback() -> None:
        answers.append(outcome(queue.get))
        queue.put(1)
        answers.append(outcome(queue.put, 2))
        answers.append(outcome(queue.get))
        answers.append(outcome(channel.get_nowait))
        answers.append(outcome(channel.put, 1))
        try:
            queue.join()
        except BlockingSwitchOutError:
            answers.append("join")

    bridge.get_hub().loop.run_callback(callback)
    until(lambda: len(answers) == 6)
    assert answers == [Empty, Full, 1, Empty, Full, "join"]
    taking = bridge.spawn(channel.get)
    settle()
    bridge.get_hub().loop.run_callback(channel.put, 5)
    assert taking.get(timeout=5) == 5


@pytest.mark.parametrize("timeout", [None, 0, 1])
def test_in_the_hub_a_channel_cannot_wait_for_an_item(timeout: float | None) -> None:
    channel: Channel[int] = Channel()
    answers: list[Any] = []

    def get() -> None:
        try:
            answers.append(channel.get(timeout=timeout))
        except BlockingSwitchOutError as e:
            answers.append(type(e))

    bridge.get_hub().loop.run_callback(get)
    until(lambda: answers)
    putting = bridge.spawn(channel.put, 3)
    settle()
    bridge.get_hub().loop.run_callback(get)
    until(lambda: len(answers) == 2)
    assert answers == [BlockingSwitchOutError, 3]
    putting.get(timeout=5)


def test_in_the_hub_a_channel_takes_as_many_items_as_there_are_getters() -> None:
    channel: Channel[int] = Channel()
    answers: list[Any] = []
    taking = [bridge.spawn(channel.get) for _ in range(2)]
    settle()

    def put() -> None:
        answers.extend(outcome(channel.put, n) for n in range(4))

    bridge.get_hub().loop.run_callback(put)
    until(lambda: answers)
    assert answers == [None, None, Full, Full]
    assert [g.get(timeout=5) for g in taking] == [0, 1]
    assert channel.balance == 0


# -- the small print ------------------------------------------------------------------------------


def test_a_queue_of_size_0_is_unbounded_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="Channel") as caught:
        queue: Queue[int] = Queue(0)
    assert caught[0].filename == __file__
    assert queue.maxsize is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Queue(-1).maxsize is None


def test_names_and_truth() -> None:
    assert JoinableQueue is Queue
    assert bool(Queue()) is True and len(Queue()) == 0
    assert issubclass(Queue, SimpleQueue)
    with pytest.raises(ValueError, match="maxsize"):
        UnboundQueue(3)
    assert UnboundQueue(items=[1]).get() == 1
    assert str(Queue(3, [1])).startswith("<Queue maxsize=3 queue=deque([1])")
    with pytest.raises(TypeError):
        Queue("3")  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", JOINABLE)
def test_a_copy_has_the_same_items_and_its_own_life(cls: Any) -> None:
    queue = cls(5, [2, 1, 3])
    queue.get()
    copy = queue.copy()
    assert sorted(copy.queue) == sorted(queue.queue)
    assert (copy.maxsize, copy.unfinished_tasks) == (5, 3)
    copy.get()
    assert len(queue) == 2


def test_iteration_ends_at_the_class_stop_iteration_only() -> None:
    instance = StopIteration()
    queue: Queue[Any] = Queue(items=[1, instance, StopIteration, 2])
    assert list(queue) == [1, instance]
    assert queue.get() == 2


def test_a_subclass_may_override_how_items_are_kept() -> None:
    class Unique(Queue[int]):
        def _create_queue(self, items: Any = ()) -> Any:
            return set(items)

        def _put(self, item: int) -> None:
            self.queue.add(item)

        def _get(self) -> int:
            return self.queue.pop()  # type: ignore[no-any-return]

    queue = Unique()
    for n in (1, 1, 2):
        queue.put(n)
    assert {queue.get(), queue.get()} == {1, 2}
    getting = bridge.spawn(queue.get)
    settle()
    queue.put(9)
    assert getting.get() == 9

    class Largest(PriorityQueue[int]):
        def _put(self, item: int) -> None:
            super()._put(-item)

        def _get(self) -> int:
            return -super()._get()

    largest = Largest()
    for n in (1, 3, 2):
        largest.put(n)
    assert [largest.get() for _ in range(3)] == [3, 2, 1]

    class Smallest(LifoQueue[int]):
        def _create_queue(self, items: Any = ()) -> list[int]:
            heap = list(items)
            heapq.heapify(heap)
            return heap

        def _put(self, item: int) -> None:
            heapq.heappush(self.queue, item)

        def _get(self) -> int:
            return heapq.heappop(self.queue)  # type: ignore[no-any-return]

    smallest = Smallest(items=[5])
    smallest.put(4)
    assert smallest.get() == 4


# -- join, task_done, shutdown ----------------------------------------------------------------------


@pytest.mark.parametrize("cls", JOINABLE)
def test_join_waits_until_every_item_was_reported_done(cls: Any) -> None:
    queue = cls(items=[1, 2])
    assert queue.join(timeout=0.001) is False
    joining = bridge.spawn(queue.join)
    for _ in range(2):
        settle()
        assert not joining.dead
        queue.get()
        queue.task_done()
    assert joining.get() is True
    assert queue.join() is True
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


@pytest.mark.parametrize("cls", JOINABLE)
def test_shutdown_ends_putters_at_once_and_getters_when_it_is_empty(cls: Any) -> None:
    queue = cls(1, [1])
    putting = bridge.spawn(outcome_of_shutdown, queue.put, 2)
    settle()
    queue.shutdown()
    assert putting.get() is ShutDown
    with pytest.raises(ShutDown):
        queue.put_nowait(3)
    assert queue.get() == 1
    for get in (queue.get, queue.get_nowait, queue.peek, lambda: next(queue)):
        with pytest.raises(ShutDown):
            get()
    empty = cls()
    getting = [bridge.spawn(outcome_of_shutdown, empty.get) for _ in range(3)]
    getting.append(bridge.spawn(outcome_of_shutdown, lambda: empty.get(timeout=5)))
    settle()
    empty.shutdown()
    assert [g.get() for g in getting] == [ShutDown] * 4


def outcome_of_shutdown(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except ShutDown as e:
        return type(e)


def test_immediate_shutdown_drops_the_items_and_ends_join() -> None:
    queue: Queue[int] = Queue(items=[1, 2])
    joining = bridge.spawn(queue.join)
    settle()
    queue.shutdown(immediate=True)
    joining.join(timeout=5)
    assert joining.dead
    assert queue.empty()
    with pytest.raises(ShutDown):
        queue.get()


# -- Channel --------------------------------------------------------------------------------------


def test_put_returns_when_a_getter_has_taken_the_item() -> None:
    channel: Channel[int] = Channel()
    order: list[str] = []
    putting = bridge.spawn(lambda: (channel.put(1), order.append("put")))
    settle()
    assert order == [] and channel.balance == 1
    assert channel.get() == 1
    putting.join()
    getting = bridge.spawn(channel.get)
    settle()
    assert channel.balance == -1
    channel.put(2)
    assert getting.get() == 2
    assert channel.balance == 0


def test_an_idle_channel_is_empty_and_full_and_has_limits() -> None:
    channel: Channel[int] = Channel()
    assert channel.empty() and channel.full() and channel.qsize() == 0
    for kwargs in ({"block": False}, {"timeout": 0}, {"timeout": 0.001}):
        with pytest.raises(Empty):
            channel.get(**kwargs)
        with pytest.raises(Full):
            channel.put(1, **kwargs)
    with pytest.raises(Empty):
        channel.get_nowait()
    with pytest.raises(Full):
        channel.put_nowait(1)
    assert channel.balance == 0
    with pytest.raises(ValueError, match="maxsize of 1"):
        Channel(2)


def test_put_nowait_hands_over_to_who_waits() -> None:
    channel: Channel[int] = Channel()
    getting = bridge.spawn(channel.get)
    settle()
    channel.put_nowait(1)
    assert getting.get() == 1
    putting = bridge.spawn(channel.put, 2)
    settle()
    assert channel.get_nowait() == 2
    putting.join()


def test_a_killed_putter_takes_its_item_along() -> None:
    channel: Channel[int] = Channel()
    first, second = bridge.spawn(channel.put, 1), bridge.spawn(channel.put, 2)
    settle()
    first.kill()
    assert channel.get() == 2
    second.join()
    assert channel.balance == 0


def test_a_channel_is_iterated_until_stop_iteration() -> None:
    channel: Channel[Any] = Channel()
    bridge.spawn(lambda: [channel.put(i) for i in (1, 2, StopIteration)])
    assert list(channel) == [1, 2]


# -- many -----------------------------------------------------------------------------------------


def _killing(count: int) -> float:
    queue: Queue[int] = Queue()
    waiters = [bridge.spawn(queue.get) for _ in range(count)]
    settle()
    order = list(range(count))
    random.Random(1).shuffle(order)
    survivors = sorted(order[-10:])
    before = time.process_time()
    for n in order[:-10]:
        waiters[n].kill(block=False)
    bridge.joinall([waiters[n] for n in order[:-10]])
    spent = time.process_time() - before
    for n in range(10):
        queue.put(n)
    assert [waiters[n].get() for n in survivors] == list(range(10))
    assert not queue._getters and queue.empty()
    return spent


@pytest.mark.engines("owned")
def test_100_000_waiters_killed_in_random_order_cost_linear_time() -> None:
    small = min(_killing(5_000) for _ in range(3))
    # linear is 20 times as much, quadratic 400 times
    assert _killing(100_000) < 100 * small


@pytest.mark.parametrize("cls", [*QUEUES, Channel])
def test_the_classes_can_be_subscripted_in_annotations(cls: Any) -> None:
    assert isinstance(cls[int], types.GenericAlias) and cls[int].__origin__ is cls


def test_a_deadline_that_is_over_finds_the_queue_full() -> None:
    queue = Queue[int](1, [1])
    with pytest.raises(Full):
        queue.put(2, timeout=-0.5)
    assert queue.get() == 1
    with pytest.raises(ValueError, match="non-negative"):
        queue.put(2, timeout=-0.5)


@pytest.mark.parametrize("kind", [Queue, LifoQueue, PriorityQueue, JoinableQueue, SimpleQueue])
@pytest.mark.parametrize("block", [True, False])
def test_in_the_hub_those_who_wait_for_items_run_until_there_is_a_place(kind: Any, block: bool) -> None:
    queue = kind(1)
    got: list[int] = []
    failed: list[type[BaseException]] = []

    def get() -> None:
        for _ in range(3):
            got.append(queue.get())

    def put() -> None:
        try:
            for i in range(5):
                queue.put(i, block)
        except Full as e:
            failed.append(type(e))
        order.append("put")

    order: list[str] = []
    getter = bridge.spawn(get)
    bridge.sleep(0)
    bridge.get_hub().loop.run_callback(put)
    bridge.spawn(order.append, "beside")
    getter.join()
    bridge.sleep(0)
    # the fourth fits into the queue, and for the fifth nobody is there
    assert (got, queue.qsize(), failed) == ([0, 1, 2], 1, [Full])
    assert order == ["put", "beside"]


@pytest.mark.parametrize("kind", [Queue, LifoQueue, PriorityQueue, SimpleQueue])
def test_in_the_hub_those_who_wait_for_a_place_run_until_there_is_an_item(kind: Any) -> None:
    queue = kind(1)
    results: list[Any] = []

    def put() -> None:
        for i in range(3):
            queue.put(i)

    def get() -> None:
        try:
            for _ in range(5):
                results.append(queue.get())
        except Empty as e:
            results.append(type(e))

    putter = bridge.spawn(put)
    bridge.sleep(0)
    bridge.get_hub().loop.run_callback(get)
    putter.join()
    bridge.sleep(0)
    assert results == [0, 1, 2, Empty]


def test_an_error_of_who_is_let_run_by_the_hub_is_his_and_the_item_is_put() -> None:
    hub: Any = bridge.get_hub()
    queue: Queue[int] = Queue(1)
    errors: list[Any] = []
    hub.handle_error = lambda context, type, value, tb: errors.append((context, type))
    try:

        def get() -> None:
            queue.get()
            raise RuntimeError

        raw = bridge.spawn_raw(get)
        bridge.sleep(0)
        hub.loop.run_callback(lambda: [queue.put(i) for i in range(2)])
        bridge.sleep(0.001)
    finally:
        del hub.handle_error
    assert errors == [(raw, RuntimeError)]
    assert queue.get_nowait() == 1


def test_a_callback_of_the_loop_in_the_hub_lets_nobody_run() -> None:
    """It is no safe point."""
    queue: Queue[int] = Queue(1)
    results: list[Any] = []

    def put() -> None:
        try:
            queue.put_nowait(1)
            queue.put_nowait(2)
        except Full:
            results.append(queue.qsize())

    getter = bridge.spawn(queue.get)
    bridge.sleep(0)
    bridge.get_hub().aio_loop.call_soon(put)
    assert getter.get() == 1
    assert results == [1]


@pytest.mark.parametrize("kind", [Queue, SimpleQueue, LifoQueue, PriorityQueue])
def test_what_is_put_and_got_without_waiting_goes_through_the_methods_of_a_subclass(kind: type[Any]) -> None:
    calls: list[Any] = []

    class Noting:
        def put(self, item: Any, *args: Any, **kwargs: Any) -> None:
            calls.append(("put", item, *args))
            super().put(item, *args, **kwargs)  # type: ignore[misc]

    class Noted(Noting, kind):  # type: ignore[misc,valid-type]
        def get(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(("get", *args))
            return super().get(*args, **kwargs)

    class Further(Noted):
        pass

    class Own(Noted):
        def put_nowait(self, item: Any) -> None:
            calls.append("own")
            super().put_nowait(item)

    for cls in (Noted, Further):
        queue = cls()
        queue.put_nowait(1)
        assert queue.get_nowait() == 1
        with pytest.raises(Empty):
            queue.get_nowait()
        assert calls == [("put", 1, False), ("get", False), ("get", False)]
        calls.clear()
    Own().put_nowait(2)
    assert calls == ["own", ("put", 2, False)]


@pytest.mark.parametrize("cls", [Queue, PriorityQueue, LifoQueue, SimpleQueue])
def test_the_size_of_a_queue_is_a_number(cls: Any) -> None:
    with pytest.raises(TypeError, match=rf"{cls.__name__}\(maxsize='x'\): a number is needed"):
        cls("x")
