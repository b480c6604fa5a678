"""The hub in loops that somebody else runs: asyncio.run, uvloop.run, Runner, servers, threads.

pytest-asyncio is in test_pytest_plugin.py, IPython in test_ipython.py.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

import bridge
from bridge import socket as bridge_socket
from bridge.event import Event
from bridge.exceptions import BlockingSwitchOutError
from bridge.lock import BoundedSemaphore, RLock
from bridge.queue import Queue

pytestmark = pytest.mark.engines("none")

LOOPS: dict[str, Any] = {"asyncio": asyncio.SelectorEventLoop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.Loop


@pytest.fixture(params=sorted(LOOPS))
def factory(request: pytest.FixtureRequest) -> Any:
    return LOOPS[request.param]


async def use() -> Any:
    """Greenlets and coroutines on the running loop; returns the hub."""
    loop = asyncio.get_running_loop()
    queue: Queue[int] = Queue()

    def greenlet(n: int) -> int:
        bridge.sleep(0.001)
        queue.put(n)
        assert bridge.get_hub().aio_loop is loop
        return bridge.await_(asyncio.sleep(0.001, n))

    greenlets = [bridge.spawn(greenlet, n) for n in range(5)]
    assert sorted([await queue.aget() for _ in range(5)]) == list(range(5))
    assert await asyncio.gather(*greenlets) == list(range(5))
    return bridge.get_hub()


# -- who runs the loop ------------------------------------------------------------------------------------


def with_asyncio_run(factory: Any) -> Any:
    return asyncio.run(use())


def with_runner(factory: Any) -> Any:
    with asyncio.Runner(loop_factory=factory) as runner:
        first = runner.run(use())
        assert runner.run(use()) is first
    return first


def with_run_until_complete(factory: Any) -> Any:
    loop = factory()
    try:
        first = loop.run_until_complete(use())
        assert loop.run_until_complete(use()) is first
    finally:
        loop.close()
    return first


def with_run_forever(factory: Any) -> Any:
    loop = factory()
    task = loop.create_task(use())
    task.add_done_callback(lambda _: loop.stop())
    loop.run_forever()
    loop.close()
    return task.result()


WAYS = [with_asyncio_run, with_runner, with_run_until_complete, with_run_forever]


@pytest.mark.parametrize("way", WAYS)
def test_the_hub_adopts_whatever_loop_runs(way: Callable[[Any], Any], factory: Any) -> None:
    hub = way(factory)
    assert hub.loop.aio.is_closed()


def test_blocking_between_two_runs_of_a_loop_makes_it_the_hub_s_and_does_no_harm(factory: Any) -> None:
    done: list[Any] = []

    async def background() -> Any:
        return bridge.spawn(lambda: [bridge.sleep(0.001) for _ in range(5)])

    def thread() -> None:
        # no hub of our own here: a runner's loop is the only one
        with asyncio.Runner(loop_factory=factory) as runner:
            hub = runner.run(use())
            g = runner.run(background())
            assert bridge.spawn(lambda: bridge.sleep(0.001)).get() is None
            assert bridge.get_hub() is hub
            assert runner.run(use()) is hub
            g.join()
            assert runner.run(use()) is hub
            task = runner.get_loop().create_task(asyncio.sleep(1000))
        assert task.cancelled()
        assert hub.loop is None
        bridge.sleep(0.001)
        assert bridge.get_hub() is not hub
        done.append(True)

    t = threading.Thread(target=thread)
    t.start()
    t.join()
    assert done == [True]


def test_uvloop_run() -> None:
    if "uvloop" not in LOOPS:
        pytest.skip("uvloop is not installed")
    assert type(uvloop.run(use()).loop.aio) is uvloop.Loop


def test_many_loops_one_after_another_and_our_own_between_them(factory: Any) -> None:
    found = set()
    for _ in range(5):
        for way in WAYS:
            found.add(way(factory))
            assert bridge.spawn(lambda: bridge.sleep(0.0001) or 5).get() == 5
    assert len({id(hub) for hub in found}) == 20


def test_the_same_in_threads_each_with_its_hub(factory: Any) -> None:
    hubs: list[Any] = []
    errors: list[BaseException] = []

    def thread() -> None:
        try:
            bridge.sleep(0.001)
            own = bridge.get_hub()
            for way in WAYS:
                hubs.append(way(factory))
            bridge.sleep(0.001)
            assert bridge.get_hub() is own
            hubs.append(own)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=thread) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []
    assert len({id(hub) for hub in hubs}) == 15


def test_greenlets_of_a_closed_loop_are_abandoned_without_noise(
    factory: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = []

    def forever() -> None:
        try:
            bridge.sleep(1000)
        finally:
            ended.append(True)

    async def main() -> None:
        bridge.spawn(forever)
        bridge.spawn(lambda: bridge.await_(asyncio.sleep(1000)))
        bridge.spawn(Queue[int]().get)
        await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    bridge.sleep(0.001)
    assert capfd.readouterr().err == ""


def _use_everything() -> None:
    near, far = bridge_socket.socketpair()
    with near, far:
        bridge.spawn(near.send, b"x")
        assert far.recv(1) == b"x"
    assert bridge.get_hub().threadpool.apply(threading.get_ident) != threading.get_ident()
    with bridge.Timeout(10):
        bridge.sleep(0.001)


@pytest.mark.parametrize("in_threads", [False, True])
def test_hubs_of_loops_that_were_closed_keep_nothing(factory: Any, in_threads: bool) -> None:
    """What they keep is none of what other tests have: all of it is made here."""
    hubs: list[Any] = []
    pools: list[Any] = []

    async def main() -> None:
        hub = bridge.get_hub()
        hubs.append(weakref.ref(hub))
        await bridge.sync_to_async(_use_everything)()
        pools.append(hub.threadpool._crew)

    def run() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    def several() -> None:
        for _ in range(3):
            run()

    before = len(os.listdir("/dev/fd"))
    if in_threads:
        for _ in range(3):
            t = threading.Thread(target=several)
            t.start()
            t.join()
    else:
        several()
        bridge.get_hub()
    deadline = time.monotonic() + 30
    while any(hub() is not None for hub in hubs) or any(pool.alive for pool in pools):
        gc.collect()
        assert time.monotonic() < deadline, [hubs, [pool.alive for pool in pools]]
        time.sleep(0.001)
    assert len(os.listdir("/dev/fd")) <= before + 3  # what this thread's own hub has


def test_run_coroutine_threadsafe_towards_a_hub_that_waits(factory: Any) -> None:
    started = threading.Event()
    stop = Event()
    loops: list[Any] = []

    def thread() -> None:
        loops.append(bridge.get_hub().aio_loop)
        started.set()
        stop.wait()

    async def work(n: int) -> int:
        g = bridge.spawn(lambda: (bridge.sleep(0.001), n)[1])
        assert asyncio.get_running_loop() is loops[0]
        return await g

    t = threading.Thread(target=thread)
    t.start()
    started.wait()
    futures = [asyncio.run_coroutine_threadsafe(work(n), loops[0]) for n in range(10)]
    assert [f.result(30) for f in futures] == list(range(10))
    late = asyncio.run_coroutine_threadsafe(asyncio.sleep(1000), loops[0])
    late.cancel()
    stop.set()
    t.join()


def test_the_hub_s_own_loop_run_by_hand(factory: Any) -> None:
    before = bridge.config.__dict__.get("aio_loop_factory")
    bridge.config.aio_loop_factory = factory
    try:
        done = []

        def thread() -> None:
            loop = bridge.get_hub().aio_loop
            bridge.spawn(done.append, 1)
            hub = loop.run_until_complete(use())
            assert hub is bridge.get_hub()
            bridge.sleep(0.001)
            loop.run_until_complete(bridge.portal(use)())
            done.append(2)

        t = threading.Thread(target=thread)
        t.start()
        t.join()
        assert done == [1, 2]
    finally:
        if before is None:
            del bridge.config.aio_loop_factory
        else:
            bridge.config.aio_loop_factory = before


def test_blocking_in_a_callback_of_the_loop_is_refused(factory: Any) -> None:
    refused = []

    def callback() -> None:
        try:
            bridge.sleep(0)
        except BlockingSwitchOutError:
            refused.append(True)

    async def main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        asyncio.get_running_loop().call_later(0.001, callback)
        await asyncio.sleep(0.002)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert refused == [True, True]


# -- servers ----------------------------------------------------------------------------------------------


def free_socket() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what a blocking function says."""
    if scope["type"] != "http":
        return

    def blocking() -> bytes:
        bridge.sleep(0.001)
        return bridge.await_(asyncio.sleep(0, scope["path"].encode()))

    @bridge.portal
    async def in_portal() -> bytes:
        bridge.sleep(0.001)
        return b" portal"

    body = (
        await bridge.sync_to_async(blocking)() + await in_portal() + await bridge.spawn(lambda: b" greenlet")
    )
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def uvicorn_server() -> AsyncIterator[int]:
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(asgi_app, log_level="warning", lifespan="off", ws="none"))
    with free_socket() as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        yield listening.getsockname()[1]
        server.should_exit = True
        await task


@asynccontextmanager
async def hypercorn_server() -> AsyncIterator[int]:
    pytest.importorskip("hypercorn")
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    with free_socket() as listening:
        port = int(listening.getsockname()[1])
        config = Config()
        config.bind = [f"fd://{listening.detach()}"]
        config.graceful_timeout = 0
        stop = asyncio.Event()
        task = asyncio.create_task(serve(asgi_app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
        yield port
        stop.set()
        await task


@asynccontextmanager
async def aiohttp_server() -> AsyncIterator[int]:
    pytest.importorskip("aiohttp")
    from aiohttp import web

    async def handle(request: Any) -> Any:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await asgi_app({"type": "http", "path": request.path}, None, send)
        return web.Response(body=sent[1]["body"])

    app = web.Application()
    app.router.add_get("/{path}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.parametrize("server", [uvicorn_server, hypercorn_server, aiohttp_server])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # hypercorn leaves its connections to the collector
def test_servers(server: Any, factory: Any) -> None:
    httpx = pytest.importorskip("httpx")

    async def main() -> None:
        async with server() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            answers = await asyncio.gather(*(client.get(f"/{n}") for n in range(20)))
            assert [a.text for a in answers] == [f"/{n} portal greenlet" for n in range(20)]

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


# -- both kinds on both ends ------------------------------------------------------------------------------


def test_ten_thousand_items_under_random_cancellation(factory: Any) -> None:
    """50 greenlets and 50 coroutines on both ends of one queue; whoever is in the way is killed or
    cancelled."""
    total, each = 10_000, 25
    dice = random.Random(7)
    queue: Queue[int] = Queue(10)
    taken: list[int] = []
    given: list[int] = []
    numbers = iter(range(total))

    def give() -> None:
        # an item counts as given when put() has returned, or is put back for others if that was interrupted
        for _ in range(each):
            n = returned.pop() if returned else next(numbers, None)
            if n is None:
                return
            try:
                queue.put(n)
            except BaseException:
                returned.append(n)
                raise
            given.append(n)

    async def agive() -> None:
        for _ in range(each):
            n = returned.pop() if returned else next(numbers, None)
            if n is None:
                return
            try:
                await queue.aput(n)
            except BaseException:
                returned.append(n)
                raise
            given.append(n)

    def take() -> None:
        for _ in range(each):
            taken.append(queue.get())

    async def atake() -> None:
        for _ in range(each):
            taken.append(await queue.aget())

    returned: list[int] = []

    async def main() -> None:
        workers: list[Any] = []

        def fill() -> None:
            workers[:] = [w for w in workers if not (w.done() if isinstance(w, asyncio.Task) else w.dead)]
            kinds = [sum(1 for w in workers if getattr(w, "kind", "") == k) for k in ("give", "take")]
            for kind, count, sync, coroutine in (
                ("give", kinds[0], give, agive),
                ("take", kinds[1], take, atake),
            ):
                for _ in range(50 - count):
                    w: Any
                    if dice.random() < 0.5:
                        w = bridge.spawn(sync)
                    else:
                        w = asyncio.create_task(coroutine())
                    w.kind = kind
                    workers.append(w)

        while len(taken) < total:
            fill()
            for w in dice.sample(workers, 10):
                if isinstance(w, asyncio.Task):
                    w.cancel()
                else:
                    w.kill(block=False)
            for _ in range(3):
                await asyncio.sleep(0)
        for w in workers:
            if isinstance(w, asyncio.Task):
                w.cancel()
                await asyncio.wait([w])
            else:
                w.kill(block=False)
                await w.ajoin()

    class Task(asyncio.Task):  # type: ignore[type-arg]
        """With room for an attribute."""

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop().set_task_factory(lambda loop, coro, **kwargs: Task(coro, loop=loop, **kwargs))
        runner.run(main())
    assert sorted(taken) == list(range(total))
    assert sorted(given) == list(range(total))
    assert queue.empty()


@pytest.mark.parametrize("make", [lambda: BoundedSemaphore(3), RLock])
def test_permits_under_random_cancellation(make: Any, factory: Any) -> None:
    dice = random.Random(11)
    lock = make()
    limit = 3 if isinstance(lock, BoundedSemaphore) else 1
    inside: list[Any] = []
    done = []

    def enter() -> None:
        inside.append(1)
        assert len(inside) <= limit

    def greenlet() -> None:
        with lock:
            enter()
            try:
                bridge.sleep(0)
            finally:
                inside.pop()
        done.append(1)

    async def coroutine() -> None:
        async with lock:
            enter()
            try:
                await asyncio.sleep(0)
            finally:
                inside.pop()
        done.append(1)

    async def main() -> None:
        for _ in range(100):
            workers: list[Any] = [
                bridge.spawn(greenlet) if dice.random() < 0.5 else asyncio.create_task(coroutine())
                for _ in range(10)
            ]
            await asyncio.sleep(0)
            for w in dice.sample(workers, 4):
                if isinstance(w, asyncio.Task):
                    w.cancel()
                else:
                    w.kill(block=False)
            await asyncio.gather(*(w for w in workers if isinstance(w, asyncio.Task)), return_exceptions=True)
            for w in workers:
                if not isinstance(w, asyncio.Task):
                    await w.ajoin()
        assert not inside
        async with lock:  # nothing is lost
            pass

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert len(done) >= 600


def test_a_hub_in_a_thread_ends_with_it(factory: Any) -> None:
    hubs = []

    def thread() -> None:
        bridge.sleep(0)
        hubs.append(bridge.get_hub())

    t = threading.Thread(target=thread)
    t.start()
    t.join()
    deadline = time.monotonic() + 30
    while hubs[0].loop is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert hubs[0].loop is None


@pytest.mark.parametrize("exit", [SystemExit, KeyboardInterrupt])
def test_greenlets_are_cleaned_up_after_an_exit_from_a_greenlet(
    factory: Any, exit: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    """The loop is left in the middle of a drain, and run again by asyncio to cancel what is left."""
    log: list[Any] = []

    def leave() -> None:
        bridge.sleep(0)
        raise exit

    def worker(leaver: Any) -> None:
        try:
            leaver.join()
            Event().wait()
        except asyncio.CancelledError:
            bridge.sleep(0)  # blocking is possible while cleaning up
            log.append("cleaned up")
            raise

    async def main() -> None:
        await bridge.spawn(worker, bridge.spawn(leave))

    with pytest.raises(exit), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert log == ["cleaned up"]
    assert "RuntimeError" not in capfd.readouterr().err


def test_a_loop_that_the_hub_has_taken_over_can_be_run_for_ever_again(factory: Any) -> None:
    in_a_thread(run_again_and_again, factory)


def in_a_thread(function: Callable[[Any], None], factory: Any) -> None:
    """One that has no hub yet."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(function, factory).result()


def run_again_and_again(factory: Any) -> None:
    loop = factory()
    ended = []

    async def work() -> None:
        await bridge.sync_to_async(bridge.sleep)(0.001)

    try:
        loop.run_until_complete(work())
        for n in range(2):
            bridge.sleep(0.001)  # the hub runs it now
            g = bridge.spawn(ended.append, n)
            loop.call_later(0.01, loop.stop)
            loop.run_forever()
            assert g.dead
            loop.run_until_complete(work())
    finally:
        loop.close()
    assert ended == [0, 1]


def test_a_drain_that_is_left_over_from_before_the_hub_took_the_loop_over_does_nothing(
    factory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    in_a_thread(leave_a_drain, factory)
    assert not caplog.records


def leave_a_drain(factory: Any) -> None:
    loop = factory()
    ended: list[int] = []

    def begin() -> None:
        bridge.spawn(ended.append, 1)  # the drain would come in the next round of the loop
        loop.stop()

    try:
        loop.call_soon(begin)
        loop.run_forever()
        bridge.sleep(0.001)
        assert ended == [1]
    finally:
        loop.close()
