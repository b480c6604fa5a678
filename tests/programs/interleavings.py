"""Random interleavings of all that greenlets and coroutines do to one another; run by test_driving.

    python interleavings.py MODE LOOP SEED ROUNDS [timed]

MODE: owned, adopted, or factory (adopted, and every task is a portal). Nothing depends on the clock, so that
the same seed gives the same story on the compiled and on the plain twin (not if *timed*: with timeouts).
The story is printed. Afterwards everything is checked to be gone.
"""

from __future__ import annotations

import asyncio
import collections
import gc
import random
import re
import sys
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

import bridge
from bridge import await_, sync_to_async
from bridge._aio import driving, entering, portal, task
from bridge._calling import Call
from bridge._core import engine as engines
from bridge.event import AsyncResult
from bridge.queue import Queue

engines.BUDGET = engines.LOOK = 1e9  # type: ignore[misc] # or how long a drain goes on would depend on the machine

DEPTH = 4
TIMED = sys.argv[5:] == ["timed"]


class Oops(Exception):
    """An error of the program."""


class World:
    """One story: who lives, what waits, and what has happened."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.story: list[str] = []
        self.pending: list[asyncio.Future[int]] = []
        self.results: list[AsyncResult[int]] = []
        self.greenlets: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.queue: Queue[int] = Queue()
        self.put = self.got = 0
        self.begun = self.ended = 0
        self.calm = False
        self.serial = 0

    def number(self) -> int:
        self.serial += 1
        return self.serial

    def tell(self, *what: Any) -> None:
        self.story.append(re.sub(" at 0x[0-9a-f]*", "", " ".join(map(str, what))))

    # -- what is done ------------------------------------------------------------------------------

    def future(self) -> asyncio.Future[int]:
        future = bridge.get_hub().aio_loop.create_future()
        self.pending.append(future)
        return future

    def blocking(self, depth: int, steps: int = 4) -> int:
        """A function that blocks."""
        me = self.number()
        self.begun += 1
        self.tell(me, "begins")
        try:
            for _ in range(self.random.randrange(1, steps)):
                self.tell(me, "goes on with", self.block_once(me, depth))
            self.tell(me, "returns")
            return me
        except BaseException as e:
            self.tell(me, "ends with", type(e).__name__)
            raise
        finally:
            self.ended += 1

    def block_once(self, me: int, depth: int) -> Any:
        if not TIMED or self.random.randrange(2):
            return self.block_anyhow(me, depth)
        try:
            with bridge.Timeout(self.random.random() / 1000) as timeout:
                return self.block_anyhow(me, depth)
        except bridge.Timeout as e:
            if e is not timeout:
                raise
            return "late"

    def block_anyhow(self, me: int, depth: int) -> Any:
        choice = self.random.randrange(11)
        if depth <= 0:
            choice %= 3
        self.tell(me, "does", choice)
        try:
            if choice == 0:
                return bridge.sleep(0)
            if choice == 1:
                return await_(self.future())
            if choice == 2:
                self.queue.put(me)
                self.put += 1
                got = self.queue.get()
                self.got += 1
                return got
            if choice == 3:
                result: AsyncResult[int] = AsyncResult()
                self.results.append(result)
                return result.get()
            if choice == 4:
                child = self.spawn(depth - 1)
                return child.get()
            if choice == 5:
                made = bridge.get_hub().aio_loop.create_task(self.waiting(depth - 1))
                self.tasks.append(made)
                return await_(made)
            if choice == 6 and not self.calm:
                raise Oops(me)
            return await_(self.waiting(depth - 1))
        except (Oops, asyncio.CancelledError, GreenletExit) as e:
            if self.random.randrange(2):
                raise
            return f"caught {type(e).__name__}"

    async def waiting(self, depth: int) -> int:
        """A coroutine."""
        me = self.number()
        self.begun += 1
        self.tell(me, "begins, in", self.task_name())
        try:
            for _ in range(self.random.randrange(1, 4)):
                self.tell(me, "goes on with", await self.wait_once(me, depth))
            self.tell(me, "returns, in", self.task_name())
            return me
        except BaseException as e:
            self.tell(me, "ends with", type(e).__name__)
            if self.random.randrange(3) == 0:
                await asyncio.sleep(0)  # clean-up that takes a while
                self.tell(me, "has cleaned up")
            raise
        finally:
            self.ended += 1

    async def wait_once(self, me: int, depth: int) -> Any:
        kind = self.random.randrange(4) if TIMED else 0
        if kind < 2:
            return await self.wait_anyhow(me, depth)
        if kind == 2 or (self.task_name() != "GreenletTask" and sys.argv[1] != "factory"):
            try:
                async with asyncio.timeout(self.random.random() / 1000):
                    return await self.wait_anyhow(me, depth)
            except TimeoutError:
                return "late"
        try:
            with bridge.Timeout(self.random.random() / 1000) as timeout:
                return await self.wait_anyhow(me, depth)
        except bridge.Timeout as e:
            if e is not timeout:
                raise
            return "late"

    async def wait_anyhow(self, me: int, depth: int) -> Any:
        choice = self.random.randrange(11)
        if depth <= 0:
            choice %= 3
        self.tell(me, "awaits", choice)
        try:
            if choice == 0:
                return await asyncio.sleep(0)
            if choice <= 2:
                return await self.future()
            if choice == 3:
                return await sync_to_async(self.blocking)(depth - 1)
            if choice == 4:
                return await self.spawn(depth - 1)
            if choice == 5:
                return await self.spawn(depth - 1).aget()
            if choice == 6:
                return await in_portal(self, depth - 1)
            if choice == 7:
                made = asyncio.get_running_loop().create_task(self.waiting(depth - 1))
                self.tasks.append(made)
                return await made
            if choice == 8 and not self.calm:
                current = asyncio.current_task()
                assert current is not None
                current.cancel()
                return await asyncio.sleep(0)
            if choice == 9 and not self.calm:
                raise Oops(me)
            return await self.waiting(depth - 1)
        except (Oops, asyncio.CancelledError, GreenletExit) as e:
            if self.random.randrange(2):
                raise
            current = asyncio.current_task()
            assert current is not None
            current.uncancel()
            return f"caught {type(e).__name__}"

    def task_name(self) -> str:
        return type(asyncio.current_task()).__name__

    def spawn(self, depth: int) -> Any:
        g = bridge.Greenlet(quiet, self.blocking, depth)
        self.greenlets.append(g)
        g.start()
        return g

    # -- what is done to them ----------------------------------------------------------------------

    def disturb(self) -> None:
        """One thing that happens to somebody."""
        choice = self.random.randrange(7)
        if choice <= 1 and self.pending:
            future = self.pending.pop(self.random.randrange(len(self.pending)))
            if future.done():
                return
            kind = self.random.randrange(4)
            if kind == 0:
                future.cancel()
            elif kind == 1:
                future.set_exception(Oops("future"))
            else:
                future.set_result(self.number())
        elif choice == 2 and self.results:
            self.results.pop(self.random.randrange(len(self.results))).set(self.number())
        elif choice == 3 and self.greenlets:
            g = self.random.choice(self.greenlets)
            g.kill(self.random.choice([GreenletExit, Oops, bridge.Timeout]), block=False)
        elif choice == 4 and self.tasks:
            self.random.choice(self.tasks).cancel()
        elif choice == 5:
            self.spawn(DEPTH)
        else:
            made = bridge.get_hub().aio_loop.create_task(self.waiting(DEPTH))
            self.tasks.append(made)

    def settle(self) -> bool:
        """Let all that wait go on; false if nobody is left."""
        self.calm = True
        for future in self.pending:
            if not future.done():
                future.set_result(0)
        for result in self.results:
            result.set(0)
        self.pending.clear()
        self.results.clear()
        self.greenlets = [g for g in self.greenlets if not g.dead]
        self.tasks = [t for t in self.tasks if not t.done()]
        return bool(self.greenlets or self.tasks) or self.begun > self.ended

    def check(self) -> None:
        assert self.begun == self.ended, (self.begun, self.ended)
        assert self.put == self.got + self.queue.qsize(), (self.put, self.got, self.queue.qsize())
        engine = bridge.get_hub().loop
        assert engine.entered is None
        self.tell("all of", self.begun, "have ended")


def quiet(function: Any, *args: Any) -> Any:
    """Errors are in the story: they need not be printed."""
    try:
        return function(*args)
    except (Oops, bridge.Timeout, asyncio.CancelledError) as e:
        return type(e).__name__


@bridge.portal
async def in_portal(world: World, depth: int) -> Any:
    world.tell("portal in", world.task_name())
    first = world.block_once(0, depth)
    second = await world.wait_once(0, depth)
    return first, second


def be_quiet() -> None:
    """The same for greenlets that are killed before they begin."""
    hub = bridge.get_hub()
    hub.NOT_ERROR = (*hub.NOT_ERROR, Oops, bridge.Timeout)  # type: ignore[misc]


def in_greenlet(world: World, rounds: int) -> None:
    for _ in range(rounds):
        world.disturb()
        bridge.sleep(0)
        if world.random.randrange(3) == 0:
            await_(asyncio.sleep(0))
    for _ in range(10_000):
        if not world.settle():
            break
        bridge.sleep(0)
        await_(asyncio.sleep(0))
    bridge.sleep(0)  # or it is we who have been entered
    world.check()


async def in_coroutine(world: World, rounds: int) -> None:
    for _ in range(rounds):
        world.disturb()
        await asyncio.sleep(0)
    for _ in range(10_000):
        if not world.settle():
            break
        await asyncio.sleep(0)
    world.check()


# -- whether all is gone ---------------------------------------------------------------------------


def census() -> collections.Counter[str]:
    for _ in range(3):
        gc.collect()
    kinds: Any = (
        greenlet, asyncio.Future, entering.Wakeup, portal.Portal, World, BaseException, engines.Thrown,
    )  # fmt: skip
    counts: collections.Counter[str] = collections.Counter()
    for each in gc.get_objects():
        if isinstance(each, kinds) or type(each).__name__ in ("coroutine", "Wait", "Blocked", "Blocking"):
            counts[type(each).__name__] += 1
    return counts


def references() -> list[int]:
    hub = bridge.get_hub()
    shared: list[Any] = [
        hub, hub.loop, hub.aio_loop, getcurrent(), entering.SHOWN, driving.ELSEWHERE, driving.go_on, Call,
        task.GreenletTask, entering.Wakeup, World.blocking, portal.Portal, hub.loop._context, asyncio.Future,
    ]  # fmt: skip
    return [sys.getrefcount(each) for each in shared]


def main() -> None:
    mode, loop, seed, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    bridge.config.loop = loop
    stories: list[str] = []
    before: Any = None

    def compare(number: int) -> None:
        nonlocal before
        now = census(), references()
        if number == 4:
            before = now
        elif number > 4:
            more = now[0] - before[0]
            # (the engine keeps timers that were cancelled, and whom they were for, until they are due)
            assert not more or (TIMED and more.total() < 10), more
            # a leak would be one for each of thousands of steps
            assert all(b - 20 < n < b + 20 for n, b in zip(now[1], before[1], strict=True)), (now, before)

    def one(number: int) -> None:
        world = World(seed * 1000 + number)
        in_greenlet(world, rounds)
        stories.extend(world.story)

    async def many() -> None:
        asyncio.get_running_loop().set_exception_handler(on_error)
        be_quiet()
        if mode == "factory":
            bridge.install_task_factory()
        for number in range(8):
            world = World(seed * 1000 + number)
            await asyncio.get_running_loop().create_task(in_coroutine(world, rounds))
            stories.extend(world.story)
            del world
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            compare(number)

    def on_error(loop: Any, context: dict[str, Any]) -> None:
        if "never retrieved" not in context["message"]:
            print(context, file=sys.stderr)

    if mode == "owned":
        bridge.get_hub().aio_loop.set_exception_handler(on_error)
        be_quiet()
        for number in range(8):
            one(number)
            await_(asyncio.sleep(0))
            compare(number)
        assert asyncio._get_running_loop() is None
    else:
        if loop == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        else:
            factory = asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(many())
    if task.REFERENCES is not None:
        left = [r for r in task.REFERENCES if (made := r()) is not None and not made.done()]
        assert not left, left
    print("\n".join(stories))


main()
