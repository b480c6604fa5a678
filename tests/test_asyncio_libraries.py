"""Real libraries of asyncio, in greenlets, in portals and under patch_all().

The first half are the failures that users of gevent report most: one asyncio for all greenlets of a thread.
Each of these is a program of its own, as it patches the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import bridge
from bridge.event import Event
from bridge.exceptions import BlockingSwitchOutError

pytestmark = pytest.mark.engines("none")

PATCHED = """
import bridge.monkey
bridge.monkey.patch_all()
import asyncio, contextvars, sys, threading, time
import bridge

ticks = []
def tick():
    while True:
        assert asyncio._get_running_loop() is None
        ticks.append(1)
        time.sleep(0.001)
bridge.spawn(tick)
"""


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return str(request.param)


def run(loop: str, program: str, start: str = PATCHED) -> None:
    """Run a program with warnings as errors."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            start + textwrap.dedent(program),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "BRIDGE_LOOP": loop},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-5000:] + done.stdout


# -- what fails elsewhere ---------------------------------------------------------------------------------


def test_flask_async_views_under_concurrent_requests(loop: str) -> None:
    """flask#5881"""
    pytest.importorskip("flask")
    pytest.importorskip("asgiref")
    run(
        loop,
        """
        import flask
        app = flask.Flask(__name__)
        app.testing = True
        arrived = []
        @app.get("/<int:n>")
        async def view(n):
            arrived.append(n)
            while len(arrived) < 20:
                await asyncio.sleep(0.001)
            return {"n": n, "path": flask.request.path}
        def request(n):
            return app.test_client().get(f"/{n}").json
        greenlets = [bridge.spawn(request, n) for n in range(20)]
        bridge.joinall(greenlets, raise_error=True)
        assert [g.value for g in greenlets] == [{"n": n, "path": f"/{n}"} for n in range(20)]
        """,
    )


def test_django_s_orm_in_one_greenlet_while_others_run_asyncio(loop: str) -> None:
    """gunicorn#3053, gevent#1955: SynchronousOnlyOperation in greenlets that have nothing to do with
    asyncio."""
    pytest.importorskip("django")
    run(
        loop,
        """
        import django
        from django.conf import settings
        settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"], USE_TZ=True,
        )
        django.setup()
        from django.contrib.auth.models import User
        from django.core.management import call_command
        from django.core.exceptions import SynchronousOnlyOperation
        from django.db import connection

        def orm():
            call_command("migrate", verbosity=0)
            for n in range(20):
                User.objects.create(username=f"user{n}")
                time.sleep(0.001)
            found = User.objects.count()
            connection.connection.close()  # Django keeps one that is in memory
            return found
        async def main():
            seen = 0
            while not database.dead:
                await asyncio.sleep(0.001)
                try:
                    User.objects.count()
                except SynchronousOnlyOperation:
                    seen += 1  # here the guard is right
            return seen
        database = bridge.spawn(orm)
        runners = [bridge.spawn(asyncio.run, main()) for _ in range(3)]
        assert database.get() == 20
        assert all(g.get() > 0 for g in runners)
        """,
    )


def test_asgiref_s_async_to_sync_from_many_greenlets(loop: str) -> None:
    """asgiref#443, asyncio-gevent#16"""
    pytest.importorskip("asgiref")
    run(
        loop,
        """
        from asgiref.sync import async_to_sync, sync_to_async
        var = contextvars.ContextVar("var")
        async def work(n):
            await asyncio.sleep(0.001)
            assert var.get() == n
            def blocking():
                time.sleep(0.001)
                return n, threading.current_thread()
            first = await sync_to_async(blocking)()
            await asyncio.sleep(0.001)
            second = await sync_to_async(blocking)()
            assert first == second  # thread-sensitive: the thread that called async_to_sync
            return first
        def user(n):
            var.set(n)
            result = async_to_sync(work)(n)
            assert result == (n, threading.current_thread()), result
            return n
        greenlets = [bridge.spawn(user, n) for n in range(20)]
        bridge.joinall(greenlets, raise_error=True)
        assert [g.value for g in greenlets] == list(range(20))
        threads = [threading.Thread(target=user, args=(n,)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """,
    )


def test_run_in_executor_and_to_thread_use_threads(loop: str) -> None:
    """gevent#2213"""
    run(
        loop,
        """
        native = bridge.monkey.get_original("threading", "get_ident")
        async def main():
            loop = asyncio.get_running_loop()
            before = len(ticks)
            found = await asyncio.gather(
                asyncio.to_thread(native), loop.run_in_executor(None, native), asyncio.to_thread(native))
            assert native() not in found
            while len(ticks) < before + 3:
                await asyncio.sleep(0.001)
            return "done"
        greenlets = [bridge.spawn(asyncio.run, main()) for _ in range(10)]
        bridge.joinall(greenlets, raise_error=True)
        assert bridge.await_(main()) == "done"
        assert asyncio.run(main()) == "done"
        """,
    )


def test_threads_that_run_loops_of_their_own(loop: str) -> None:
    """gevent#2026: This event loop is already running"""
    run(
        loop,
        """
        results = []
        async def work(n):
            arrived.append(n)
            while len(arrived) < 10:
                await asyncio.sleep(0.001)
            results.append(n)
        arrived = []
        def thread(n):
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            asyncio.get_event_loop().run_until_complete(work(n))
            loop.close()
        threads = [threading.Thread(target=thread, args=(n,)) for n in range(10)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert sorted(results) == list(range(10))
        """,
    )


def test_run_coroutine_threadsafe_towards_a_loop_in_a_patched_thread(loop: str) -> None:
    """The pattern of clients that keep a loop in a background thread."""
    run(
        loop,
        """
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        async def work(n):
            await asyncio.sleep(0.001)
            return n, asyncio.get_running_loop() is loop
        futures = [asyncio.run_coroutine_threadsafe(work(n), loop) for n in range(10)]
        assert [f.result(10) for f in futures] == [(n, True) for n in range(10)]
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        """,
    )


def test_websockets_in_users_like_those_of_locust(loop: str) -> None:
    """locust#1251"""
    pytest.importorskip("websockets")
    run(
        loop,
        """
        from websockets.asyncio.client import connect
        from websockets.asyncio.server import serve
        from websockets.sync.client import connect as connect_sync

        async def echo(connection):
            async for message in connection:
                await connection.send(message)
        server = bridge.async_to_sync(serve)(echo, "127.0.0.1", 0)
        host, port = next(iter(server.sockets)).getsockname()
        url = f"ws://127.0.0.1:{port}"

        class User:
            def __init__(self, n):
                self.n = n
                self.greenlet = bridge.spawn(self.run)

        class AwaitingUser(User):
            def run(self):
                with bridge.async_context(connect, url) as connection:
                    for i in range(3):
                        bridge.await_(connection.send(f"{self.n} {i}"))
                        assert bridge.await_(connection.recv()) == f"{self.n} {i}"
                        time.sleep(0.001)

        class RunningUser(User):
            def run(self):
                asyncio.run(self.talk())
            async def talk(self):
                async with connect(url) as connection:
                    for i in range(3):
                        await connection.send(f"{self.n} {i}")
                        assert await connection.recv() == f"{self.n} {i}"

        class ThreadedUser(User):
            def run(self):
                with connect_sync(url) as connection:
                    for i in range(3):
                        connection.send(f"{self.n} {i}")
                        assert connection.recv() == f"{self.n} {i}"

        users = [kind(n) for n in range(10) for kind in (AwaitingUser, RunningUser, ThreadedUser)]
        bridge.joinall([user.greenlet for user in users], raise_error=True)
        server.close()
        bridge.await_(server.wait_closed())
        """,
    )


def test_aiohttp_and_httpx_in_greenlets_beside_requests(loop: str) -> None:
    pytest.importorskip("aiohttp")
    pytest.importorskip("httpx")
    pytest.importorskip("requests")
    run(
        loop,
        """
        import aiohttp, httpx, requests
        from aiohttp import web

        async def hello(request):
            await asyncio.sleep(0.001)
            return web.Response(text=request.query["n"])
        async def start():
            app = web.Application()
            app.router.add_get("/", hello)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            return runner
        runner = bridge.await_(start())
        url = "http://127.0.0.1:%s/" % runner.addresses[0][1]

        with bridge.async_context(aiohttp.ClientSession) as session, \\
                bridge.async_context(httpx.AsyncClient) as client:
            def with_aiohttp(n):
                with bridge.async_context(session.get(url, params={"n": n})) as response:
                    return bridge.await_(response.text())
            def with_httpx(n):
                return bridge.await_(client.get(url, params={"n": n})).text
            async def alone(n):
                async with aiohttp.ClientSession() as own, own.get(url, params={"n": n}) as response:
                    return await response.text()
            def with_asyncio_run(n):
                return asyncio.run(alone(n))
            def with_requests(n):
                return requests.get(url, params={"n": n}).text
            ways = with_aiohttp, with_httpx, with_asyncio_run, with_requests
            greenlets = [bridge.spawn(way, n) for n in range(10) for way in ways]
            bridge.joinall(greenlets, raise_error=True)
            assert [g.value for g in greenlets] == [str(n) for n in range(10) for _ in ways]
            # a timeout of ours around a request cancels it
            try:
                with bridge.Timeout(0.0005):
                    with_aiohttp(1)
            except bridge.Timeout:
                pass
        bridge.await_(runner.cleanup())
        """,
    )


# -- anyio, sniffio ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_anyio_s_cancel_scopes_end_blocking_code_in_a_portal() -> None:
    anyio = pytest.importorskip("anyio")
    log: list[Any] = []

    @bridge.portal
    async def main() -> None:
        with anyio.move_on_after(0.001) as scope:
            bridge.sleep(1000)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            Event().wait()
        with anyio.CancelScope() as outer:
            with anyio.CancelScope(shield=True):
                outer.cancel()
                bridge.sleep(0.001)
                log.append("shielded")
            bridge.sleep(0)
            log.append("not reached")
        assert outer.cancelled_caught
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        bridge.sleep(0)

    await main()
    assert log == ["shielded"]


@pytest.mark.asyncio
async def test_anyio_s_task_groups_and_threads_in_portals_and_greenlets() -> None:
    anyio = pytest.importorskip("anyio")
    from anyio import from_thread, to_thread

    log: list[Any] = []

    @bridge.portal
    async def child(n: int) -> None:
        try:
            bridge.sleep(0.001 if n else 1000)
        except BaseException as e:
            log.append(type(e))
            raise
        if n:
            raise LookupError(n)

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as group:
                group.start_soon(child, 0)
                group.start_soon(child, 1)
        assert isinstance(caught.value.exceptions[0], LookupError)
        assert log == [asyncio.CancelledError]
        assert await to_thread.run_sync(lambda: from_thread.run(anyio.sleep, 0)) is None

    await main()
    log.clear()
    await bridge.portal(main)()
    log.clear()

    def greenlet() -> Any:
        return bridge.await_(main())

    await bridge.spawn(greenlet)


@pytest.mark.asyncio
async def test_sniffio_sees_asyncio_in_coroutines_and_nothing_in_greenlets() -> None:
    sniffio = pytest.importorskip("sniffio")

    async def sniff() -> str:
        return str(sniffio.current_async_library())

    def greenlet() -> str:
        with pytest.raises(sniffio.AsyncLibraryNotFoundError):
            sniffio.current_async_library()
        return bridge.await_(sniff())

    @bridge.portal
    async def in_portal() -> str:
        bridge.sleep(0)
        g = bridge.spawn(greenlet)
        assert g.get() == "asyncio"
        return await sniff()

    assert await in_portal() == "asyncio"
    assert await bridge.sync_to_async(greenlet)() == "asyncio"


# -- SQLAlchemy, which uses greenlets itself ---------------------------------------------------------------


@asynccontextmanager
async def database() -> AsyncIterator[Any]:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    pytest.importorskip("aiosqlite")
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.execute(sqlalchemy.text("create table t (n integer)"))
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.mark.asyncio
async def test_sqlalchemy_in_greenlets_and_portals() -> None:
    pytest.importorskip("aiosqlite")
    text = pytest.importorskip("sqlalchemy").text

    async def insert(engine: Any, n: int) -> int:
        async with engine.begin() as connection:
            await connection.execute(text("insert into t values (:n)"), {"n": n})
            return int((await connection.execute(text("select count(*) from t"))).scalar())

    async with database() as engine:

        def greenlet(n: int) -> int:
            return bridge.await_(insert(engine, n))

        greenlets = [bridge.spawn(greenlet, n) for n in range(5)]
        assert max(await asyncio.gather(*(g.aget() for g in greenlets))) == 5

        @bridge.portal
        async def in_portal(n: int) -> int:
            bridge.sleep(0)
            count = await insert(engine, n)
            assert bridge.await_(insert(engine, n)) == count + 1
            return count + 1

        assert await in_portal(9) == 7

        def sync(connection: Any) -> int:
            bridge.sleep(0.001)  # in SQLAlchemy's own greenlet
            return int(connection.execute(text("select max(n) from t")).scalar())

        async def run_sync() -> int:
            async with engine.connect() as connection:
                return int(await connection.run_sync(sync))

        assert await bridge.portal(run_sync)() == 9
        with pytest.raises(BlockingSwitchOutError):
            await run_sync()  # under a bare task: refused, and nothing is handed to the wrong greenlet
        assert await insert(engine, 0) == 8


def test_sqlalchemy_in_tasks_that_the_hub_runs(loop: str) -> None:
    """Its greenlets have the hub as parent then, and go back to it with what is to be awaited."""
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("aiosqlite")
    run(
        loop,
        """
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import create_async_engine
        from bridge.exceptions import BlockingSwitchOutError

        async def main():
            engine = create_async_engine("sqlite+aiosqlite://")
            async with engine.begin() as connection:
                await connection.execute(text("create table t (n integer)"))

            async def insert(n):
                async with engine.begin() as connection:
                    await connection.execute(text("insert into t values (:n)"), {"n": n})

            for n in range(5):
                await asyncio.create_task(insert(n))
            async with engine.connect() as connection:
                total = (await connection.execute(text("select sum(n) from t"))).scalar()
                try:
                    await connection.run_sync(lambda _: time.sleep(0))
                except BlockingSwitchOutError:
                    pass  # it is a task, and no portal
                else:
                    raise AssertionError
            await engine.dispose()
            return total

        time.sleep(0)  # there is a hub, which runs the loop
        assert asyncio.run(main()) == 10
        assert bridge.spawn(asyncio.run, main()).get() == 10
        assert bridge.spawn(main).get() == 10
        """,
    )


# -- asyncio's own, deeper than in test_portal.py ---------------------------------------------------------

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


@pytest.mark.asyncio
async def test_a_task_group_cancels_portals_that_block() -> None:
    cancelled = []

    @bridge.portal
    async def block(n: int) -> None:
        variable.set(n)
        try:
            bridge.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append((n, variable.get()))
            raise

    @bridge.portal
    async def fail() -> None:
        bridge.sleep(0.001)
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            for n in range(1, 4):
                group.create_task(block(n))
            group.create_task(fail())
    assert [type(e) for e in caught.value.exceptions] == [LookupError]
    assert sorted(cancelled) == [(1, 1), (2, 2), (3, 3)]
    assert variable.get() == 0


@pytest.mark.asyncio
async def test_a_task_group_inside_a_portal_takes_both_kinds() -> None:
    @bridge.portal
    async def main() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.001, n)) for n in range(3)]
            g = bridge.spawn(lambda: (bridge.sleep(0.001), 3)[1])
            bridge.sleep(0)
        return [t.result() for t in tasks] + [g.get()]

    assert await main() == [0, 1, 2, 3]


@pytest.mark.asyncio
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
async def test_eager_tasks_are_portals_too() -> None:
    def factory(loop: Any, coro: Any, name: Any = None, context: Any = None, **kwargs: Any) -> Any:
        # not asyncio's own eager_task_factory: 3.13.0 has one that uvloop cannot call
        return asyncio.Task(coro, loop=loop, name=name, context=context, eager_start=True)  # type: ignore

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    bridge.install_task_factory()
    order = []

    async def main(n: int) -> int:
        order.append(n)
        assert asyncio.current_task() is not None
        bridge.sleep(0.001)
        assert asyncio.current_task() is not None
        return n

    async def ready() -> int:
        return 7

    try:
        tasks = [asyncio.create_task(main(n)) for n in range(3)]
        assert order == [0, 1, 2]  # begun already
        assert asyncio.create_task(ready()).done()
        assert await asyncio.gather(*tasks) == [0, 1, 2]
        g = bridge.spawn(lambda: bridge.await_(main(3)))
        assert await g == 3
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.create_task(main_forever())
    finally:
        loop.set_task_factory(None)


async def main_forever() -> None:
    bridge.sleep(1000)


def test_debug_mode_finds_nothing_to_warn_of(loop: str) -> None:
    run(
        loop,
        """
        import asyncio, logging, bridge
        logging.basicConfig(level=logging.WARNING)
        async def coroutine():
            await asyncio.sleep(0.001)
            return 1
        async def main():
            loop = asyncio.get_running_loop()
            loop.set_debug(True)
            loop.slow_callback_duration = 10
            bridge.sleep(0.001)
            queue = bridge.queue.Queue()
            g = bridge.spawn(lambda: [bridge.await_(coroutine()), queue.get()])
            await queue.aput(2)
            assert await g == [1, 2]
            assert await bridge.sync_to_async(lambda: bridge.sleep(0.001))() is None
            async with asyncio.timeout(10):
                await asyncio.gather(bridge.spawn(coroutine), bridge.portal(coroutine)())
            g = bridge.spawn(bridge.sleep, 1000)
            try:
                async with asyncio.timeout(0.001):
                    await g
            except TimeoutError:
                pass
            try:
                with bridge.Timeout(0.001):
                    bridge.await_(asyncio.sleep(1000))
            except bridge.Timeout:
                pass
        bridge.run(main)
        """,
        start="",
    )
