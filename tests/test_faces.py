"""The asyncio faces of events, locks and queues; greenlets and coroutines in one line."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

import bridge
from bridge.event import AsyncResult, Event
from bridge.lock import BoundedSemaphore, DummySemaphore, RLock, Semaphore
from bridge.queue import Channel, Empty, Full, LifoQueue, PriorityQueue, Queue, ShutDown, SimpleQueue

from .helpers import let_others_run_until as until

FIRST_OUT = [Queue, SimpleQueue]
QUEUES = [Queue, SimpleQueue, LifoQueue, PriorityQueue]


async def auntil(condition: Callable[[], object]) -> None:
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")


def in_line(line: Any) -> int:
    """How many wait there."""
    return sum(not wait.dead for wait in line)


# -- one line -------------------------------------------------------------------------------------


class Line:
    """A primitive, how to wait for it in both ways, how to serve one, and how many wait."""

    once = False  # is one who is served the one who serves the next?

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.served: list[int] = []

    def wait(self, n: int) -> None:
        raise AssertionError

    async def await_(self, n: int) -> None:
        raise AssertionError

    def serve(self) -> None:
        raise AssertionError

    def waiting(self) -> int:
        return self.thing.linkcount()

    def left(self) -> int:
        """How many were served to nobody."""
        raise AssertionError


class Getting(Line):
    def wait(self, n: int) -> None:
        self.thing.get()
        self.served.append(n)

    async def await_(self, n: int) -> None:
        await self.thing.aget()
        self.served.append(n)

    def serve(self) -> None:
        self.thing.put(1)

    def waiting(self) -> int:
        return in_line(self.thing._getters)

    def left(self) -> int:
        return len(self.thing)


class Peeking(Getting):
    """Those who peek leave the item to the next one."""

    def wait(self, n: int) -> None:
        self.thing.peek()
        self.served.append(n)
        self.thing.get_nowait()


class Putting(Line):
    def wait(self, n: int) -> None:
        self.thing.put(1)
        self.served.append(n)

    async def await_(self, n: int) -> None:
        await self.thing.aput(1)
        self.served.append(n)

    def serve(self) -> None:
        # the place that is free is for the one who is told; it is not ours to put anything into
        self.thing.maxsize += 1
        self.thing._unlock()

    def waiting(self) -> int:
        return in_line(self.thing._putters)

    def left(self) -> int:
        return self.thing.maxsize - len(self.thing)


class Acquiring(Line):
    def wait(self, n: int) -> None:
        assert self.thing.acquire() is True
        self.served.append(n)

    async def await_(self, n: int) -> None:
        assert await self.thing.aacquire() is True
        self.served.append(n)

    def serve(self) -> None:
        self.thing.release()

    def left(self) -> int:
        return self.thing.counter


class Entering(Line):
    """One after the other is inside."""

    once = True

    def __init__(self, thing: Any) -> None:
        super().__init__(thing)
        thing.acquire()

    def wait(self, n: int) -> None:
        with self.thing:
            self.served.append(n)
            bridge.sleep(0)
            assert self.served[-1] == n

    async def await_(self, n: int) -> None:
        async with self.thing:
            self.served.append(n)
            await asyncio.sleep(0)
            assert self.served[-1] == n

    def serve(self) -> None:
        self.thing.release()

    def waiting(self) -> int:
        return getattr(self.thing, "_block", self.thing).linkcount()

    def left(self) -> int:
        assert not self.thing.locked()
        assert self.thing.acquire(blocking=False)
        return 0


class ChannelGetting(Getting):
    def serve(self) -> None:
        bridge.spawn(self.thing.put, 1)

    def waiting(self) -> int:
        return in_line(self.thing.getters)

    def left(self) -> int:
        return in_line(self.thing.putters)


class ChannelPutting(Line):
    """Served is whose item was taken: a coroutine comes to know that later than a greenlet."""

    def wait(self, n: int) -> None:
        self.thing.put(n)
        assert n in self.served

    async def await_(self, n: int) -> None:
        await self.thing.aput(n)
        assert n in self.served

    def serve(self) -> None:
        bridge.spawn(lambda: self.served.append(self.thing.get()))

    def waiting(self) -> int:
        return in_line(self.thing.putters)

    def left(self) -> int:
        return in_line(self.thing.getters)


LINES: dict[str, Callable[[], Line]] = {
    "Queue.get": lambda: Getting(Queue()),
    "SimpleQueue.get": lambda: Getting(SimpleQueue()),
    "LifoQueue.get": lambda: Getting(LifoQueue()),
    "PriorityQueue.get": lambda: Getting(PriorityQueue()),
    "Queue.peek": lambda: Peeking(Queue()),
    "Queue.put": lambda: Putting(Queue(1, [0])),
    "SimpleQueue.put": lambda: Putting(SimpleQueue(1, [0])),
    "LifoQueue.put": lambda: Putting(LifoQueue(1, [0])),
    "PriorityQueue.put": lambda: Putting(PriorityQueue(1, [0])),
    "Semaphore.acquire": lambda: Acquiring(Semaphore(0)),
    "Semaphore.with": lambda: Entering(Semaphore(1)),
    "BoundedSemaphore.with": lambda: Entering(BoundedSemaphore(1)),
    "RLock.with": lambda: Entering(RLock()),
    "Channel.get": lambda: ChannelGetting(Channel()),
    "Channel.put": lambda: ChannelPutting(Channel()),
}


class Party:
    """A greenlet or a task that waits in a line."""

    def __init__(self, line: Line, n: int, kind: str) -> None:
        before = line.waiting()
        if kind == "greenlet":
            self.greenlet: Any = bridge.spawn(line.wait, n)
            self.task: Any = None
        else:
            self.greenlet = None
            self.task = bridge.get_hub().aio_loop.create_task(line.await_(n))
        until(lambda: line.waiting() == before + 1)

    def remove(self) -> None:
        if self.task is not None:
            self.task.cancel()
        else:
            self.greenlet.kill(block=False)

    def done(self) -> bool:
        return self.greenlet.dead if self.task is None else self.task.done()

    def check(self) -> None:
        """Nobody ended by an error."""
        if self.task is None:
            assert self.greenlet.successful(), self.greenlet.exception
        elif not self.task.cancelled():
            assert self.task.exception() is None


@pytest.mark.parametrize("name", LINES)
def test_first_come_first_served_whoever_they_are(name: str) -> None:
    line = LINES[name]()
    parties = [Party(line, n, kind) for n, kind in enumerate(["greenlet", "task", "task", "greenlet"] * 3)]
    for _ in range(1 if line.once else len(parties)):
        line.serve()
    until(lambda: all(p.done() for p in parties))
    for party in parties:
        party.check()
    assert line.served == list(range(len(parties)))
    assert line.waiting() == 0
    assert line.left() == 0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", LINES)
def test_who_is_removed_takes_nothing_along_and_the_rest_keep_their_order(name: str, seed: int) -> None:
    rnd = random.Random(f"{name} {seed}")
    line = LINES[name]()
    parties = [Party(line, n, rnd.choice(["greenlet", "task"])) for n in range(14)]
    removed = set(rnd.sample(range(14), rnd.randrange(1, 14)))
    steps: list[Any] = sorted(removed, key=lambda _: rnd.random())
    for _ in range(1 if line.once else 14 - len(removed)):
        steps.insert(rnd.randrange(len(steps) + 1), "serve")
    for step in steps:
        if step == "serve":
            line.serve()
        else:
            parties[step].remove()
        if rnd.random() < 0.4:
            bridge.sleep(0)
    # who was removed too late has been served in a survivor's place
    late = [n for n in removed if n in line.served]
    until(lambda: all(parties[n].done() for n in removed))
    late = [n for n in removed if n in line.served]
    for _ in range(0 if line.once else len(late)):
        line.serve()
    until(lambda: all(p.done() for p in parties))
    for party in parties:
        party.check()
    assert line.served == sorted(line.served)
    assert set(line.served) >= set(range(14)) - removed
    assert len(line.served) == len(set(line.served)) == 14 - len(removed) + len(late)
    until(lambda: line.left() == 0)
    assert line.waiting() == 0


# not Channel.put: there nobody is told, the getter takes the item out of the line
@pytest.mark.parametrize("name", [name for name in LINES if name != "Channel.put"])
def test_a_told_task_that_is_cancelled_hands_on_what_it_was_told_of(name: str) -> None:
    line = LINES[name]()
    first, second = Party(line, 0, "task"), Party(line, 1, "greenlet")
    line.serve()
    first.remove()
    until(second.done)
    second.check()
    assert line.served == [1]
    until(first.done)
    assert first.task.cancelled()


def test_event_wakes_greenlets_and_coroutines() -> None:
    event = Event()
    woken: list[object] = []

    async def aw(n: int) -> None:
        woken.append((n, await event))

    aio = bridge.get_hub().aio_loop
    greenlets = [bridge.spawn(lambda: woken.append((0, event.wait()))) for _ in range(2)]
    tasks = [aio.create_task(aw(1)) for _ in range(2)]
    until(lambda: event.linkcount() == 4)
    event.set()
    event.clear()
    until(lambda: len(woken) == 4)
    assert sorted(woken) == [(0, True)] * 2 + [(1, True)] * 2
    bridge.joinall(greenlets)
    until(lambda: all(t.done() for t in tasks))
    assert event.linkcount() == 0


# -- in coroutines --------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_await_event_returns_when_it_is_set() -> None:
    event = Event()
    bridge.spawn_later(0.001, event.set)
    assert await event is True
    assert await event.await_set() is True


@pytest.mark.asyncio
async def test_await_event_with_a_limit_says_whether_it_was_set() -> None:
    event = Event()
    assert await event.await_set(0.001) is False
    assert await event.await_set(0) is False
    assert event.linkcount() == 0


@pytest.mark.asyncio
async def test_await_result_gives_the_value_or_raises() -> None:
    result: AsyncResult[int] = AsyncResult()
    bridge.spawn_later(0.001, result.set, 5)
    assert await result == 5
    failed: AsyncResult[int] = AsyncResult()
    bridge.spawn_later(0.001, failed.set_exception, KeyError("k"))
    with pytest.raises(KeyError):
        await failed
    with pytest.raises(KeyError):
        await failed.aget()


@pytest.mark.asyncio
async def test_aget_of_a_result_has_a_limit() -> None:
    result: AsyncResult[int] = AsyncResult()
    with pytest.raises(bridge.Timeout) as caught:
        await result.aget(timeout=0.001)
    assert caught.value.seconds == 0.001
    assert result.linkcount() == 0


@pytest.mark.asyncio
async def test_a_linked_result_can_be_awaited() -> None:
    result: AsyncResult[int] = AsyncResult()
    bridge.spawn(lambda: 7).link(result)
    assert await result == 7


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [lambda: Semaphore(1), lambda: BoundedSemaphore(1), RLock, DummySemaphore])
async def test_async_with_acquires_and_releases(make: Any) -> None:
    lock = make()
    async with lock:
        assert lock.locked() is not isinstance(lock, DummySemaphore)
    assert not lock.locked()
    with pytest.raises(KeyError):
        async with lock:
            raise KeyError
    assert not lock.locked()
    assert await lock.aacquire() is True
    lock.release()


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [lambda: Semaphore(1), lambda: BoundedSemaphore(1), RLock])
async def test_aacquire_with_a_limit_says_whether_it_was_acquired(make: Any) -> None:
    lock = make()
    holder = bridge.spawn(lambda: (lock.acquire(), bridge.sleep(10)))
    await auntil(lock.locked)
    assert await lock.aacquire(timeout=0.001) is False
    assert await lock.aacquire(timeout=0) is False
    assert getattr(lock, "_block", lock).linkcount() == 0
    holder.kill(block=False)


@pytest.mark.asyncio
async def test_rlock_is_owned_by_the_task() -> None:
    lock = RLock()
    order: list[str] = []

    async def other() -> None:
        with pytest.raises(RuntimeError, match="un-acquired"):
            lock.release()
        async with lock:
            order.append("other")

    async with lock:
        async with lock:
            task = asyncio.create_task(other())
            await asyncio.sleep(0.001)
            order.append("mine")
        await asyncio.sleep(0)
        order.append("still mine")
    await task
    assert order == ["mine", "still mine", "other"]


@pytest.mark.asyncio
@pytest.mark.parametrize("cls", QUEUES)
async def test_aput_and_aget_wait(cls: Any) -> None:
    queue = cls(1)
    await queue.aput(1)
    putting = asyncio.create_task(queue.aput(2))
    await auntil(lambda: queue._putters)
    assert not putting.done()
    assert await queue.aget() == 1
    await putting
    assert await queue.aget() == 2
    getting = asyncio.create_task(queue.aget())
    await auntil(lambda: queue._getters)
    queue.put_nowait(3)
    assert await getting == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("cls", QUEUES)
async def test_aput_and_aget_have_limits(cls: Any) -> None:
    queue = cls(1)
    with pytest.raises(Empty):
        await queue.aget(timeout=0.001)
    with pytest.raises(Empty):
        await queue.aget(timeout=0)
    with pytest.raises(ValueError, match="non-negative"):
        await queue.aget(timeout=-1)
    queue.put_nowait(1)
    with pytest.raises(Full):
        await queue.aput(2, timeout=0.001)
    with pytest.raises(ValueError, match="non-negative"):
        await queue.aput(2, timeout=-1)
    assert await queue.aget(timeout=0) == 1
    assert not queue._getters and not queue._putters


@pytest.mark.asyncio
async def test_a_channel_hands_over_between_a_coroutine_and_a_greenlet() -> None:
    channel: Channel[int] = Channel()
    taken = bridge.spawn(channel.get)
    await channel.aput(1)
    assert await taken == 1
    bridge.spawn(channel.put, 2)
    assert await channel.aget() == 2
    with pytest.raises(Full):
        await channel.aput(3, timeout=0.001)
    with pytest.raises(Empty):
        await channel.aget(timeout=0.001)
    assert channel.balance == 0


@pytest.mark.asyncio
async def test_async_for_ends_at_stop_iteration() -> None:
    for queue in (Queue(), Channel()):
        feeder = bridge.spawn(lambda q=queue: [q.put(i) for i in (1, 2, StopIteration)])
        assert [item async for item in queue] == [1, 2]
        await feeder


@pytest.mark.asyncio
async def test_ajoin_waits_for_the_last_task_done() -> None:
    queue: Queue[int] = Queue(items=[1, 2])
    assert await queue.ajoin(timeout=0.001) is False
    joining = asyncio.create_task(queue.ajoin())
    for _ in range(2):
        await asyncio.sleep(0)
        assert not joining.done()
        await queue.aget()
        queue.task_done()
    assert await joining is True
    assert await queue.ajoin() is True
    assert not queue._joiners


@pytest.mark.asyncio
async def test_shutdown_ends_waiting_coroutines() -> None:
    queue: Queue[int] = Queue(1)
    getting = asyncio.create_task(queue.aget())
    await auntil(lambda: queue._getters)
    queue.shutdown()
    with pytest.raises(ShutDown):
        await getting
    with pytest.raises(ShutDown):
        await queue.aput(1)
    full: Queue[int] = Queue(1, [1])
    putting = asyncio.create_task(full.aput(2))
    await auntil(lambda: full._putters)
    full.shutdown()
    with pytest.raises(ShutDown):
        await putting
    assert await full.aget() == 1


@pytest.mark.asyncio
async def test_asyncio_timeout_around_aget_loses_no_item() -> None:
    queue: Queue[int] = Queue()
    got: list[int] = []
    for n in range(60):
        # the item comes at about the time at which the waiting ends
        asyncio.get_running_loop().call_later(0.0005 + (n % 5) * 0.0003, queue.put_nowait, n)
        try:
            async with asyncio.timeout(0.001):
                got.append(await queue.aget())
        except TimeoutError:
            got.append(await queue.aget())
    assert got == list(range(60))
    assert not queue._getters


@pytest.mark.asyncio
async def test_waiting_in_a_coroutine_without_await_is_refused_and_leaves_no_trace() -> None:
    queue: Queue[int] = Queue(1)
    event, semaphore, channel = Event(), Semaphore(0), Channel[int]()
    for block in (queue.get, event.wait, semaphore.acquire, channel.get, AsyncResult().get):
        with pytest.raises(bridge.exceptions.BlockingSwitchOutError, match="await"):
            block()
    queue.put(1)
    with pytest.raises(bridge.exceptions.BlockingSwitchOutError, match="await"):
        queue.put(2)
    assert queue.get() == 1  # what need not wait needs no await
    assert not (queue._getters or queue._putters or event.linkcount() or semaphore.linkcount())
    assert channel.balance == 0


@pytest.mark.engines("none")
@pytest.mark.parametrize("factory", ["asyncio", "uvloop"])
def test_primitives_serve_one_loop_after_the_other(factory: str) -> None:
    queue: Queue[int] = Queue()
    semaphore = Semaphore(0)
    event = Event()

    async def main(n: int) -> int:
        waiting = asyncio.create_task(queue.aget())
        acquiring = asyncio.create_task(semaphore.aacquire())
        eventing = asyncio.create_task(event.await_set())
        greenlet = bridge.spawn(queue.get)
        await auntil(lambda: in_line(queue._getters) == 2 and semaphore.linkcount() and event.linkcount())
        queue.put(n)
        queue.put(n)
        semaphore.release()
        event.set()
        event.clear()
        assert await acquiring and await eventing
        return await waiting + await greenlet

    loops = pytest.importorskip(factory)
    for n in range(3):
        with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
            assert runner.run(main(n)) == 2 * n
