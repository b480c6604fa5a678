"""asyncio keeps working after patch_all(), whatever was imported first. Each test in a process of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.engines("none")

Run = Callable[..., str]

#: What is imported before bridge.monkey patches.
ORDERS = {
    "nothing": "",
    "asyncio": "import asyncio, concurrent.futures.thread, concurrent.futures.process",
    "uvloop": "import uvloop",
    "libraries": "import asyncio, uvloop, anyio, aiohttp, httpx, concurrent.futures",
    "late": "import asyncio, bridge\nbridge.sleep(0)\nasyncio.run(asyncio.sleep(0))",
}

PATCHED = """
import warnings
from bridge import monkey
with warnings.catch_warnings():
    warnings.simplefilter("ignore", monkey.MonkeyPatchWarning)  # of libraries that have taken names from ssl
    monkey.patch_all()
import asyncio, concurrent.futures, os, queue, signal, socket, ssl, subprocess, sys, threading, time
import bridge
factory = None
if sys.argv[1] == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
thread = threading.get_native_id
here = thread()
real_sleep = monkey.get_original("time", "sleep")
def run(main):
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())
"""

loops = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
orders = pytest.mark.parametrize("order", ORDERS)


@pytest.fixture
def run_patched(run_fresh: Run) -> Run:
    """``run_patched(code, loop, order="nothing")``: what *code* prints in a new python that is patched."""

    def run(code: str, loop: str, order: str = "nothing") -> str:
        if order in ("uvloop", "libraries") or loop == "uvloop":
            pytest.importorskip("uvloop")
        if order == "libraries":
            for name in ("anyio", "aiohttp", "httpx"):
                pytest.importorskip(name)
        return run_fresh(ORDERS[order] + PATCHED + textwrap.dedent(code), loop)

    return run


@loops
@orders
def test_the_default_executor_has_real_threads(run_patched: Run, loop: str, order: str) -> None:
    out = run_patched(
        """
        def work(barrier):
            barrier()
            return thread(), threading.current_thread().name

        async def main():
            lock = monkey.get_original("threading", "Lock")
            # both wait for each other, natively: they cannot be greenlets of one thread
            first, second = lock(), lock()
            first.acquire(), second.acquire()
            def one(): second.release(); first.acquire()
            def two(): first.release(); second.acquire()
            a, b = await asyncio.gather(asyncio.to_thread(work, one), asyncio.to_thread(work, two))
            assert len({a[0], b[0], here}) == 3
            assert sorted(name.partition("_")[2] for _, name in (a, b)) == ["0", "1"], (a, b)
            loop = asyncio.get_running_loop()
            assert (await loop.run_in_executor(None, thread)) != here
            try:
                await asyncio.to_thread(int, "x")
            except ValueError:
                print("raised")
        run(main)
        """,
        loop,
        order,
    )
    assert out == "raised\n"


@loops
@orders
def test_a_blocked_worker_does_not_block_the_loop(run_patched: Run, loop: str, order: str) -> None:
    run_patched(
        """
        async def main():
            lock = monkey.get_original("threading", "Lock")()
            lock.acquire()
            blocked = asyncio.get_running_loop().run_in_executor(None, lock.acquire)
            asyncio.get_running_loop().call_later(0.01, lock.release)
            assert await asyncio.wait_for(blocked, 10) is True
            # what is patched works in workers, too
            sleeps = [asyncio.to_thread(time.sleep, 0.01) for _ in range(3)]
            assert await asyncio.gather(*sleeps) == [None] * 3
            a, b = socket.socketpair()
            received = asyncio.create_task(asyncio.to_thread(a.recv, 10))
            await asyncio.sleep(0.01)
            b.sendall(b"data")
            assert await received == b"data"
            a.close(), b.close()
        run(main)
        """,
        loop,
        order,
    )


@loops
def test_a_pool_that_is_used_in_coroutines_has_real_threads(run_patched: Run, loop: str) -> None:
    run_patched(
        """
        from concurrent.futures import ThreadPoolExecutor
        calls = []
        class Mine(ThreadPoolExecutor):
            def submit(self, fn, *args):
                calls.append(fn)
                return super().submit(fn, *args)
        early = ThreadPoolExecutor(1, "early", initializer=lambda: None)

        async def main():
            loop = asyncio.get_running_loop()
            for pool in (early, ThreadPoolExecutor(), Mine()):
                with pool:
                    assert await loop.run_in_executor(pool, thread) != here
                    assert await asyncio.wrap_future(pool.submit(thread)) != here
                    assert isinstance(pool, ThreadPoolExecutor)
                    loop.set_default_executor(pool)
                    assert await asyncio.to_thread(thread) != here
                assert isinstance(pool, Mine) == (type(pool).__name__ == "Mine")
            assert len(calls) == 3
        async def portal():
            with ThreadPoolExecutor() as pool:
                assert pool.submit(thread).result() != here
                assert list(pool.map(abs, [-1])) == [1]
        run(main)
        run(bridge.portal(portal))

        # in greenlets: greenlets
        with ThreadPoolExecutor(2) as pool:
            lock = threading.Lock()
            lock.acquire()
            waiting = pool.submit(lock.acquire)
            assert pool.submit(thread).result() == here
            pool.submit(lock.release)
            assert waiting.result() is True
            assert {thread()} == set(pool.map(lambda _: thread(), range(3)))
        """,
        loop,
    )


def test_a_pool_whose_threads_run_already_keeps_them(run_fresh: Run) -> None:
    run_fresh("""
        import asyncio, threading, concurrent.futures
        thread = threading.get_native_id
        pool = concurrent.futures.ThreadPoolExecutor(2)
        loop = asyncio.new_event_loop()
        first = loop.run_until_complete(loop.run_in_executor(None, thread)), pool.submit(thread).result()
        from bridge import monkey
        monkey.patch_all()
        second = loop.run_until_complete(loop.run_in_executor(None, thread)), pool.submit(thread).result()
        assert thread() not in second
        pool.shutdown()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    """)


@loops
@orders
def test_subprocesses(run_patched: Run, loop: str, order: str) -> None:
    run_patched(
        """
        async def main():
            code = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(3)"
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=-1, stdout=-1)
            out, _ = await process.communicate(b"text" * 100_000)
            assert out == b"TEXT" * 100_000 and process.returncode == 3
            process = await asyncio.create_subprocess_shell("exit 4")
            assert await process.wait() == 4
            process = await asyncio.create_subprocess_exec("sleep", "60")
            process.kill()
            assert await process.wait() == -signal.SIGKILL
        run(main)
        """,
        loop,
        order,
    )


@loops
def test_children_of_asyncio_beside_greenlets_are_reaped_by_asyncio(run_patched: Run, loop: str) -> None:
    run_patched(
        """
        import logging
        async def main():
            # without close_fds the standard library uses posix_spawn(), which is patched
            for code in range(3):
                command = (sys.executable, "-c", f"import sys; sys.exit({code})")
                process = await asyncio.create_subprocess_exec(*command, close_fds=False)
                assert await process.wait() == code
        bridge.sleep(0)
        run(main)
        second = asyncio.SelectorEventLoop()
        if sys.version_info < (3, 14):
            import warnings
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                asyncio.get_child_watcher().attach_loop(second)
        second.run_until_complete(main())

        async def wait_for_it():
            transport, _ = await second.subprocess_exec(asyncio.SubprocessProtocol, "sleep", "60")
            popen = transport.get_extra_info("subprocess")
            popen.kill()
            # blocks the thread, as without bridge; a thread of asyncio waits too and may be quicker
            assert popen.wait() in (-signal.SIGKILL, 0)
            transport.close()
        logging.disable()  # asyncio finds out that it has been reaped
        second.run_until_complete(wait_for_it())
        second.close()
        """,
        loop,
    )


@loops
@orders
def test_streams_servers_and_names(run_patched: Run, loop: str, order: str) -> None:
    run_patched(
        """
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async def ask(*args, **kwargs):
            reader, writer = await asyncio.open_connection(*args, **kwargs)
            writer.write(b"hello\\n")
            assert await reader.read() == b"hello\\n"
            writer.close()
            await writer.wait_closed()

        async def main():
            loop = asyncio.get_running_loop()
            listener = socket.create_server(("127.0.0.1", 0))
            for kwargs in ({"host": "127.0.0.1", "port": 0}, {"sock": listener}):
                server = await asyncio.start_server(echo, **kwargs)
                address = server.sockets[0].getsockname()
                await ask("localhost", address[1])
                # a patched socket that is connected already
                sock = socket.socket()
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                await ask(sock=sock)
                sock = await asyncio.to_thread(socket.create_connection, address)
                await ask(sock=sock)
                server.close()
                await server.wait_closed()
            (family, *_, address), *_ = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
            assert family is socket.AF_INET and address == ("127.0.0.1", 80)
            assert await loop.getnameinfo(("127.0.0.1", 1), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        run(main)
        """,
        loop,
        order,
    )


@loops
def test_the_socket_methods_of_loops_with_patched_sockets(run_patched: Run, loop: str) -> None:
    run_patched(
        """
        async def main():
            loop = asyncio.get_running_loop()
            listener = socket.create_server(("127.0.0.1", 0))
            listener.setblocking(False)
            client = socket.socket()
            client.setblocking(False)
            accepting = asyncio.create_task(loop.sock_accept(listener))
            await loop.sock_connect(client, listener.getsockname())
            served, _ = await accepting
            assert isinstance(client, socket.socket)
            receiving = asyncio.create_task(loop.sock_recv(client, 10))
            await asyncio.sleep(0)
            await loop.sock_sendall(served, b"answer")
            assert await receiving == b"answer"
            big = bytes(3_000_000)
            sending = asyncio.create_task(loop.sock_sendall(client, big))
            got, buffer = 0, bytearray(65536)
            while got < len(big):
                got += await loop.sock_recv_into(served, buffer)
            await sending
            # without a loop's help they say that they would block, and wait for nobody
            try:
                client.recv(1)
            except BlockingIOError:
                print("would block")
            readable = loop.create_future()
            loop.add_reader(client, readable.set_result, True)
            served.send(b"!")
            assert await readable
            loop.remove_reader(client)
            assert client.recv(1) == b"!"
            for sock in (listener, client, served):
                sock.close()
        run(main)
        """,
        loop,
    )


@loops
@orders
def test_signal_handlers_and_the_self_pipe(run_patched: Run, loop: str, order: str) -> None:
    out = run_patched(
        """
        async def main():
            loop = asyncio.get_running_loop()
            for _ in range(2):
                received = loop.create_future()
                loop.add_signal_handler(signal.SIGUSR1, received.set_result, "signal")
                os.kill(os.getpid(), signal.SIGUSR1)
                assert await asyncio.wait_for(received, 10) == "signal"
                assert loop.remove_signal_handler(signal.SIGUSR1)
            woken = loop.create_future()
            def wake():
                loop.call_soon_threadsafe(woken.set_result, thread())
            started = asyncio.create_task(asyncio.to_thread(wake))
            assert await asyncio.wait_for(woken, 10) != here
            await started
            # Ctrl-C, as asyncio.run() has it
            loop.call_soon(os.kill, os.getpid(), signal.SIGINT)
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                print("cancelled")
                raise
        try:
            run(main)
        except KeyboardInterrupt:
            print("interrupted")
        """,
        loop,
        order,
    )
    assert out == "cancelled\ninterrupted\n"


@loops
def test_asyncio_run_in_a_real_thread(run_patched: Run, loop: str) -> None:
    run_patched(
        """
        async def main():
            await asyncio.sleep(0.001)
            inner = await asyncio.to_thread(thread)
            process = await asyncio.create_subprocess_exec("true")
            assert await process.wait() == 0
            return thread(), inner
        first, second = bridge.get_hub().threadpool.apply(run, (main,))
        assert len({first, second, here}) == 3
        # and in a greenlet of that name, beside others
        results = []
        threads = [threading.Thread(target=lambda: results.append(run(main))) for _ in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert len(results) == 3 and all(r[0] == here != r[1] for r in results), results
        """,
        loop,
    )


@loops
def test_threads_of_a_program_reach_coroutines(run_patched: Run, loop: str) -> None:
    run_patched(
        """
        async def answer():
            await asyncio.sleep(0)
            return thread()

        async def main():
            loop = asyncio.get_running_loop()
            def ask():
                return asyncio.run_coroutine_threadsafe(answer(), loop).result(10)
            # a real thread, a greenlet as a thread, a greenlet
            assert await asyncio.to_thread(ask) == here
            results = asyncio.Queue()
            started = threading.Thread(target=lambda: loop.call_soon_threadsafe(results.put_nowait, ask()))
            started.start()
            assert await asyncio.wait_for(results.get(), 10) == here
            assert await bridge.spawn(ask) == here
        run(main)
        """,
        loop,
    )


@loops
def test_futures_that_threads_set_while_coroutines_look_at_them(run_patched: Run, loop: str) -> None:
    """The lock of a future is held for moments by either; neither side must be refused."""
    run_patched(
        """
        async def main():
            loop = asyncio.get_running_loop()
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                for _ in range(200):
                    futures = [pool.submit(int) for _ in range(8)]
                    assert await asyncio.gather(*map(asyncio.wrap_future, futures)) == [0] * 8
        sys.setswitchinterval(1e-5)
        run(main)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(time.sleep, 0.001) for _ in range(20)]
            assert len(list(concurrent.futures.as_completed(futures, 10))) == 20
            done, pending = concurrent.futures.wait([pool.submit(int) for _ in range(5)])
            assert len(done) == 5 and not pending
        """,
        loop,
    )


@loops
def test_locks_queues_and_timeouts_of_asyncio(run_patched: Run, loop: str) -> None:
    run_patched(
        """
        async def main():
            lock, items = asyncio.Lock(), asyncio.Queue(1)
            async with asyncio.TaskGroup() as group:
                group.create_task(items.put(1))
                group.create_task(items.put(2))
                async with lock:
                    assert [await items.get(), await items.get()] == [1, 2]
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
            except TimeoutError:
                return "timed out"
        assert run(main) == "timed out"
        """,
        loop,
    )


def test_select_and_poll_loops(run_fresh: Run) -> None:
    """Loops with selectors that a program has chosen, original or ours."""
    run_fresh("""
        import selectors
        originals = [selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector]
        from bridge import monkey
        monkey.patch_all()
        import asyncio
        async def main():
            process = await asyncio.create_subprocess_exec("true")
            await process.wait()
            return await asyncio.to_thread(lambda: "done")
        for selector in originals:
            factory = lambda: asyncio.SelectorEventLoop(selector())
            with asyncio.Runner(loop_factory=factory) as runner:
                assert runner.run(main()) == "done"
    """)


def test_views_are_what_was_there_before(run_fresh: Run) -> None:
    run_fresh("""
        import _socket, select, socket, ssl, subprocess, threading, time
        before = time.sleep, subprocess.Popen, socket.getaddrinfo, select.epoll, threading.Thread
        from bridge import monkey
        from bridge.monkey._originals import view_of
        monkey.patch_all()
        view = view_of("socket")
        a, b = view.socketpair()
        assert type(a).accept.__globals__ is vars(view) and not isinstance(a, socket.socket)
        assert isinstance(a, monkey.get_original("socket", "socket"))
        a.close(), b.close()
        assert view_of("time").sleep is before[0] and issubclass(view_of("subprocess").Popen, before[1])
        assert view_of("socket").getaddrinfo.__code__ is before[2].__code__
        assert view_of("select").epoll is before[3]
        assert view_of("socket").AF_INET is socket.AF_INET
        assert view_of("subprocess").TimeoutExpired is subprocess.TimeoutExpired
        socket.added_later = 1
        assert view_of("socket").added_later == 1
        import asyncio.base_events, asyncio.unix_events
        assert asyncio.base_events.socket is view and "before patching" in repr(view)
    """)


def test_what_others_put_in_the_place_of_names_is_seen_by_asyncio(run_fresh: Run) -> None:
    """Mocks of tests, for instance; but for classes that are made of ours."""
    run_fresh("""
        from bridge import monkey
        monkey.patch_all()
        import asyncio, socket, ssl, subprocess
        from unittest import mock
        class Mine(subprocess.Popen):
            pass
        async def main():
            loop = asyncio.get_running_loop()
            with mock.patch("socket.getnameinfo", return_value=("host", "service")) as fake:
                assert await loop.getnameinfo(("::1", 1)) == ("host", "service")
            assert fake.call_count == 1
            with mock.patch("os.set_blocking") as fake:
                assert asyncio.unix_events.os.set_blocking is fake
            with mock.patch("ssl.create_default_context", side_effect=ZeroDivisionError):
                try:
                    await asyncio.open_connection(sock=a, ssl=True, server_hostname="x")
                except ZeroDivisionError:
                    pass
                else:
                    raise AssertionError
            with mock.patch("subprocess.Popen", side_effect=ZeroDivisionError):
                try:
                    await asyncio.create_subprocess_exec("true")
                except ZeroDivisionError:
                    pass
                else:
                    raise AssertionError
            with mock.patch("subprocess.Popen", Mine):
                process = await asyncio.create_subprocess_exec("true")
                assert await process.wait() == 0
            with mock.patch("asyncio.base_events.socket.getnameinfo", return_value=("other", "")):
                assert await loop.getnameinfo(("::1", 1)) == ("other", "")
                assert socket.getnameinfo is not asyncio.base_events.socket.getnameinfo
            assert asyncio.base_events.socket.getnameinfo is real
        real = asyncio.base_events.socket.getnameinfo
        a, b = asyncio.base_events.socket.socketpair()
        a.setblocking(False)
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())
        a.close(), b.close()
    """)


def test_a_duplicate_of_a_transport_s_socket_is_a_socket_of_the_program(run_fresh: Run) -> None:
    run_fresh("""
        from bridge import monkey
        monkey.patch_all()
        import asyncio, socket
        import bridge
        async def main():
            go = asyncio.Event()
            async def serve(reader, writer):
                await go.wait()
                writer.write(b"hello")
                writer.close()
                await writer.wait_closed()
                done.set_result(None)
            done = asyncio.get_running_loop().create_future()
            server = await asyncio.start_server(serve, "127.0.0.1")
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            with writer.get_extra_info("socket").dup() as sock:
                assert isinstance(sock, socket.socket) and sock.gettimeout() == 0
                assert sock.getpeername() == server.sockets[0].getsockname()
                writer.transport.pause_reading()
                go.set()
                sock.settimeout(5)
                assert await bridge.sync_to_async(sock.recv)(5) == b"hello"
            await done
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(main())
    """)


def test_originals_of_contexts_can_be_set(run_fresh: Run) -> None:
    """They look for themselves by a name that is replaced: RecursionError, with gevent."""
    run_fresh("""
        import ssl
        early = ssl.create_default_context()
        from bridge import monkey
        monkey.patch_all()
        early.options |= ssl.OP_NO_TICKET
        early.minimum_version = ssl.TLSVersion.TLSv1_3
        early.verify_mode = early.verify_mode
        assert early.options & ssl.OP_NO_TICKET and early.minimum_version is ssl.TLSVersion.TLSv1_3
    """)


ENGINE = """
from bridge import monkey
monkey.patch_all()
import importlib, pkgutil, sys, bridge
replaced = {}
for name, attrs in monkey.saved.items():
    for attr, original in attrs.items():
        now = getattr(sys.modules.get(name), attr, None)
        if callable(now) and now is not original and (name, attr) != ("threading", "Event"):
            replaced[id(now)] = f"{name}.{attr}"
engine = ["_aio", "_core", "_futures", "_monitor", "_workers", "resolver", "threadpool", "util"]
found = []
for info in pkgutil.walk_packages(bridge.__path__, "bridge."):
    if info.name.split(".")[1] in engine:
        try:
            module = importlib.import_module(info.name)
        except ImportError:
            assert "resolver" in info.name  # of a library that is not installed
            continue
        found += [(info.name, attr) for attr, value in vars(module).items() if id(value) in replaced]
print(found)
"""


def test_no_module_of_the_engine_takes_what_is_patched(run_fresh: Run) -> None:
    assert run_fresh(ENGINE) == "[]\n"
