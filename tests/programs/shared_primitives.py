"""Greenlets, coroutines, portals and threads share primitives while they are killed, cancelled and timed out.

    python shared_primitives.py LOOP SEED ROUNDS [threads]

Run by test_driving. Every actor makes a random choice of what it does to which primitive, in which of its
ways, and is disturbed at random. Afterwards: each item that was put has been got once or is still there,
items of one putter came in order, no permit and no lock is missing, nobody is left waiting, and everybody
has ended.
"""

from __future__ import annotations

import asyncio
import collections
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit

import bridge
from bridge import await_, sync_to_async
from bridge.event import AsyncResult, Event
from bridge.lock import BoundedSemaphore, RLock
from bridge.pool import Pool
from bridge.queue import Channel, Empty, Full, Queue

INTERRUPTIONS = (GreenletExit, asyncio.CancelledError, bridge.Timeout)
EXPECTED = (*INTERRUPTIONS, TimeoutError)


class Shared:
    """The primitives, and what is known of them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.queues: list[Any] = [Queue(), Queue(1), Queue(3), Channel()]
        self.semaphores = [BoundedSemaphore(1), BoundedSemaphore(3)]
        self.rlock = RLock()
        self.event = Event()
        self.results: list[AsyncResult[int]] = [AsyncResult() for _ in range(20)]
        self.pool = Pool(3)
        self.put: list[list[Any]] = [[] for _ in self.queues]
        self.got: list[list[Any]] = [[] for _ in self.queues]
        self.inside = [0] * len(self.semaphores)
        self.owned = 0
        self.done: collections.Counter[str] = collections.Counter()
        self.ending = False
        self.begun = self.ended = 0
        self.count = threading.Lock()

    def holds(self, i: int) -> Any:
        return _Inside(self, i)


class _Inside:
    def __init__(self, shared: Shared, i: int) -> None:
        self.shared = shared
        self.i = i

    def __enter__(self) -> None:
        shared, i = self.shared, self.i
        with shared.count:
            shared.inside[i] += 1
            assert shared.inside[i] <= shared.semaphores[i]._initial_value

    def __exit__(self, *exc: object) -> None:
        with self.shared.count:
            self.shared.inside[self.i] -= 1


class Actor:
    """One who does something again and again, in whatever way."""

    def __init__(self, shared: Shared, name: int, steps: int) -> None:
        self.shared = shared
        self.name = name
        self.steps = steps
        self.random = random.Random(shared.seed * 10_000 + name)
        self.serial = 0

    def limit(self) -> float | None:
        # in the end nobody is there who would wake those who wait
        if self.shared.ending or self.random.randrange(3):
            return self.random.choice((0, 0.0005, 0.001))
        return None

    def item(self) -> tuple[int, int]:
        self.serial += 1
        return self.name, self.serial

    # -- blocking ----------------------------------------------------------------------------------

    def block(self) -> None:
        shared = self.shared
        shared.begun += 1
        try:
            for _ in range(self.steps):
                try:
                    self.block_once()
                except EXPECTED as e:
                    shared.done[type(e).__name__] += 1
        finally:
            shared.ended += 1

    def block_once(self) -> None:
        shared, choose = self.shared, self.random
        choice = choose.randrange(10)
        limit = self.limit()
        if choice <= 2:
            i = choose.randrange(len(shared.queues))
            item = self.item()
            try:
                shared.queues[i].put(item, timeout=limit)
            except Full:
                return
            shared.put[i].append(item)
        elif choice <= 5:
            i = choose.randrange(len(shared.queues))
            try:
                item = shared.queues[i].get(timeout=limit)
            except Empty:
                return
            shared.got[i].append(item)
        elif choice == 6:
            i = choose.randrange(len(shared.semaphores))
            if shared.semaphores[i].acquire(timeout=limit):
                try:
                    with shared.holds(i):
                        bridge.sleep(choose.choice((0, 0.0002)))
                finally:
                    shared.semaphores[i].release()
        elif choice == 7:
            if shared.rlock.acquire(timeout=-1 if limit is None else limit):
                try:
                    with shared.rlock:
                        shared.owned += 1
                        assert shared.owned == 1
                        try:
                            bridge.sleep(0)
                        finally:
                            shared.owned -= 1
                finally:
                    shared.rlock.release()
        elif choice == 8:
            shared.event.wait(0.001 if limit is None else limit)
        else:
            with bridge.Timeout(0.001, False):
                choose.choice(shared.results).get()
        shared.done[str(choice)] += 1

    # -- in a coroutine ----------------------------------------------------------------------------

    async def run(self) -> None:
        shared = self.shared
        shared.begun += 1
        try:
            for _ in range(self.steps):
                try:
                    await self.run_once()
                except EXPECTED as e:
                    shared.done[type(e).__name__] += 1
                    task = asyncio.current_task()
                    assert task is not None
                    while task.cancelling():
                        task.uncancel()
        finally:
            shared.ended += 1

    async def run_once(self) -> None:
        shared, choose = self.shared, self.random
        choice = choose.randrange(12)
        limit = self.limit()
        if choice <= 2:
            i = choose.randrange(len(shared.queues))
            item = self.item()
            try:
                await shared.queues[i].aput(item, timeout=limit)
            except Full:
                return
            shared.put[i].append(item)
        elif choice <= 5:
            i = choose.randrange(len(shared.queues))
            try:
                item = await shared.queues[i].aget(timeout=limit)
            except Empty:
                return
            shared.got[i].append(item)
        elif choice == 6:
            i = choose.randrange(len(shared.semaphores))
            if await shared.semaphores[i].aacquire(timeout=limit):
                try:
                    with shared.holds(i):
                        await asyncio.sleep(choose.choice((0, 0.0002)))
                finally:
                    shared.semaphores[i].release()
        elif choice == 7:
            async with shared.rlock, shared.rlock:
                shared.owned += 1
                assert shared.owned == 1
                try:
                    await asyncio.sleep(0)
                finally:
                    shared.owned -= 1
        elif choice == 8:
            await shared.event.await_set(0.001 if limit is None else limit)
        elif choice == 9:
            async with asyncio.timeout(0.001):
                await choose.choice(shared.results)
        elif choice == 10:
            # what it does is not lost if its awaiter is cancelled
            await sync_to_async(self.block_once)()
        else:
            await bridge.spawn(self.quiet)
        shared.done[f"a{choice}"] += 1

    def quiet(self) -> None:
        try:
            self.block_once()
        except (asyncio.CancelledError, bridge.Timeout):
            pass


def scare(shared: Shared, victims: list[Any], chance: random.Random) -> None:
    """One thing that happens to somebody."""
    choice = chance.randrange(8)
    if choice == 0:
        shared.event.set()
    elif choice == 1:
        shared.event.clear()
    elif choice == 2:
        chance.choice(shared.results).set(1)
    elif choice == 3:
        shared.results[chance.randrange(len(shared.results))] = AsyncResult()
    elif victims:
        victim = chance.choice(victims)
        if isinstance(victim, asyncio.Task):
            victim.cancel()
        else:
            victim.kill(chance.choice(INTERRUPTIONS), block=False)


async def main(seed: int, rounds: int, threads: int) -> None:
    shared = Shared(seed)
    names = iter(range(1, 1000))
    chance = random.Random(seed)

    def actor() -> Actor:
        return Actor(shared, next(names), rounds)

    def in_thread(mine: list[Actor]) -> None:
        # greenlets in a hub of their own, and the thread itself
        others = [bridge.spawn(each.block) for each in mine[1:]]
        for _ in range(rounds):
            mine[0].block_once()
            bridge.sleep(0)
            if others and not shared.ending:
                chance_of_thread.choice(others).kill(bridge.Timeout, block=False)
        bridge.joinall(others)

    chance_of_thread = random.Random(seed + 1)
    portal: Callable[[Actor], Any] = bridge.portal(_blocks)
    victims: list[Any] = []
    for _ in range(3):
        victims.append(bridge.spawn(actor().block))
        victims.append(asyncio.create_task(actor().run()))
        victims.append(asyncio.create_task(portal(actor())))
        victims.append(asyncio.create_task(sync_to_async(actor().block)()))
        victims.append(bridge.spawn(lambda each: await_(each.run()), actor()))
    crew = [threading.Thread(target=in_thread, args=([actor(), actor()],)) for _ in range(threads)]
    for thread in crew:
        thread.start()

    def pooled() -> None:
        for _ in shared.pool.imap_unordered(Actor.quiet, [actor() for _ in range(rounds)]):
            pass

    victims.append(bridge.spawn(pooled))
    for _ in range(rounds * 10):
        scare(shared, victims, chance)
        await asyncio.sleep(chance.choice((0, 0, 0.0003)))
    shared.ending = True
    last = actor()
    # those who wait without limit go on by being interrupted
    while any(not (v.done() if isinstance(v, asyncio.Task) else v.ready()) for v in victims) or any(
        thread.is_alive() for thread in crew
    ):
        for victim in victims:
            if isinstance(victim, asyncio.Task):
                victim.cancel()
            else:
                victim.kill(bridge.Timeout, block=False)
        for i, queue in enumerate(shared.queues):
            # and a thread, by what it waits for
            try:
                shared.got[i].append(await queue.aget(timeout=0))
            except Empty:
                pass
            if "getters" not in repr(queue):
                continue  # or nobody else would ever get hold of the place
            item = last.item()
            try:
                await queue.aput(item, timeout=0)
                shared.put[i].append(item)
            except Full:
                pass
        await asyncio.sleep(0.0005)
    await asyncio.gather(*[v for v in victims if isinstance(v, asyncio.Task)], return_exceptions=True)
    shared.pool.kill(block=False)
    await asyncio.sleep(0.001)

    assert shared.begun == shared.ended, (shared.begun, shared.ended)
    for queue, put, got in zip(shared.queues, shared.put, shared.got, strict=True):
        left = list(queue.queue) if isinstance(queue, Queue) else []
        found = got + left
        assert len(set(found)) == len(found), queue
        assert not set(put) - set(found), (queue, set(put) - set(found))
        # whoever is interrupted while he puts into a channel may have been served in that very moment
        assert isinstance(queue, Channel) or not set(found) - set(put), (queue, set(found) - set(put))
        if not threads:
            for name in {name for name, _ in put}:
                mine = [serial for each, serial in got if each == name]
                assert mine == sorted(mine), (queue, name, mine)
        assert "getters" not in repr(queue) and "putters" not in repr(queue), queue
    assert shared.inside == [0, 0]
    for semaphore in shared.semaphores:
        assert semaphore.counter == semaphore._initial_value, semaphore
        assert semaphore.linkcount() == 0, semaphore
    assert shared.owned == 0
    assert shared.rlock.acquire(blocking=False)
    print(sum(shared.done.values()), "things were done")


async def _blocks(actor: Actor) -> None:
    actor.block()


def on_error(loop: Any, context: dict[str, Any]) -> None:
    print(context, file=sys.stderr)


if __name__ == "__main__":
    name, given_seed, given_rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if name == "uvloop":
        import uvloop

        factory: Any = uvloop.new_event_loop
    else:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop().set_exception_handler(on_error)

        async def quiet_main() -> None:
            bridge.get_hub().NOT_ERROR = (*bridge.get_hub().NOT_ERROR, bridge.Timeout)  # type: ignore[misc]
            await main(given_seed, given_rounds, 2 if sys.argv[4:] == ["threads"] else 0)

        runner.run(quiet_main())
