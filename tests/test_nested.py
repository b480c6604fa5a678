"""asyncio.run() and second loops inside greenlets.

Patching is for the whole process: every test is a program of its own, run on both loops.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.engines("none")

#: The beginning of every program. ``others()`` says how often other greenlets ran, and checks what they saw.
START = """
import asyncio, contextvars, gc, signal, sys, threading, time
import bridge
from bridge._aio.nested import install
from bridge.exceptions import BlockingSwitchOutError
install()

turns = []
def watch():
    while True:
        assert asyncio._get_running_loop() is None
        turns.append(1)
        bridge.sleep(0.001)

def others(count=3):
    '''Wait until the other greenlet has run so many times more.'''
    goal = len(turns) + count
    async def wait():
        while len(turns) < goal:
            await asyncio.sleep(0.001)
    return wait()
"""


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return str(request.param)


def run(loop: str, program: str, *flags: str, start: str = START) -> str:
    """Run a program with warnings as errors; return what it has printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", start + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "BRIDGE_LOOP": loop},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return done.stdout


# -- asyncio.run() ----------------------------------------------------------------------------------------


def test_many_greenlets_call_asyncio_run_at_once_and_others_go_on(loop: str) -> None:
    run(
        loop,
        """
        bridge.spawn(watch)
        async def main(n):
            assert asyncio.get_running_loop() is bridge.get_hub().aio_loop
            assert asyncio.current_task() is not None
            await others()
            started.add(n)
            while len(started) < 50:  # all of them are under way at the same time
                await asyncio.sleep(0)
            return n
        started = set()
        greenlets = [bridge.spawn(asyncio.run, main(n)) for n in range(50)]
        bridge.joinall(greenlets)
        assert [g.get() for g in greenlets] == list(range(50))
        """,
    )


def test_without_a_hub_asyncio_run_keeps_its_meaning(loop: str) -> None:
    run(
        loop,
        """
        async def main():
            loop = asyncio.get_running_loop()
            assert type(loop) is asyncio.SelectorEventLoop
            g = bridge.spawn(bridge.sleep, 0.001)  # the hub adopts it
            await g
            assert bridge.get_hub().aio_loop is loop
            return loop
        loop = asyncio.run(main())
        assert loop.is_closed()
        assert asyncio.run(main()) is not loop
        with asyncio.Runner() as runner:
            assert not runner.run(main()).is_closed()
        # with a hub of our own asyncio.run() is a guest
        bridge.sleep(0)
        async def again():
            return asyncio.get_running_loop()
        assert asyncio.run(again()) is bridge.get_hub().aio_loop
        assert not bridge.get_hub().aio_loop.is_closed()
        # a thread of its own
        found = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(main())))
        thread.start()
        thread.join()
        assert found[0].is_closed()
        """,
    )


def test_what_the_coroutine_leaves_is_ended_and_what_others_have_is_not(loop: str) -> None:
    run(
        loop,
        """
        log = []
        async def linger(name):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                log.append(name)
                raise
        async def generate(name):
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                log.append(name)
        generators = []
        async def leave(name):
            async def child():
                asyncio.create_task(linger(name + " grandchild"))
            await asyncio.create_task(child())
            asyncio.create_task(linger(name + " task"))
            generators.append(generate(name + " generator"))
            await anext(generators[-1])
            await asyncio.sleep(0.001)
            return name
        async def other():
            generators.append(generate("other generator"))
            await anext(generators[-1])
            tasks.append(asyncio.create_task(linger("other task")))
            await ended
            assert await anext(generators[0]) == 2
            return log[:]
        tasks = []
        ended = bridge.event.Event()
        g = bridge.spawn(lambda: bridge.await_(other()))
        bridge.sleep(0)
        assert bridge.spawn(asyncio.run, leave("a")).get() == "a"
        assert sorted(log) == ["a generator", "a grandchild", "a task"], log
        ended.set()
        assert sorted(g.get()) == ["a generator", "a grandchild", "a task"]
        assert not tasks[0].done()
        tasks[0].cancel()
        bridge.await_(asyncio.wait(tasks))
        """,
    )


def test_errors_of_the_clean_up_go_to_the_handler_of_the_loop(loop: str) -> None:
    run(
        loop,
        """
        async def bad():
            try:
                await asyncio.sleep(1000)
            finally:
                raise ValueError("late")
        async def generate():
            try:
                yield
            finally:
                raise KeyError("later")
        kept = []
        async def main():
            asyncio.create_task(bad())
            kept.append(generate())
            await anext(kept[0])
            await asyncio.sleep(0)
        bridge.sleep(0)
        told = []
        bridge.get_hub().aio_loop.set_exception_handler(lambda loop, context: told.append(context))
        bridge.spawn(asyncio.run, main()).get()
        assert [type(c["exception"]) for c in told] == [ValueError, KeyError]
        assert told[0]["message"] == "unhandled exception during asyncio.run() shutdown"
        """,
    )


def test_the_exception_of_the_coroutine_comes_out_with_both_sides_in_its_traceback(loop: str) -> None:
    run(
        loop,
        """
        import traceback
        async def inner():
            await asyncio.sleep(0)
            raise LookupError("x")
        def legacy():
            return asyncio.run(inner())
        bridge.sleep(0)
        def catch():
            try:
                legacy()
            except LookupError as e:
                return [frame.name for frame in traceback.extract_tb(e.__traceback__)]
        names = bridge.spawn(catch).get()
        assert names[0] == "catch" and names[1] == "legacy" and names[-1] == "inner", names
        """,
    )


#: A coroutine with clean-up in it and in a task that it has made.
LINGER = """
log = []
async def child():
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.001)
        log.append("child")
async def main():
    asyncio.create_task(child())
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.001)
        log.append("main")
"""


def test_a_kill_cancels_the_coroutine_and_waits_for_the_clean_up(loop: str) -> None:
    run(
        loop,
        """
        bridge.sleep(0)
        g = bridge.spawn(asyncio.run, main())
        bridge.sleep(0.01)
        g.kill()
        assert type(g.value) is bridge.GreenletExit
        assert log == ["main", "child"], log
        """,
        start=START + LINGER,
    )


def test_a_timeout_cancels_the_coroutine_and_waits_for_the_clean_up(loop: str) -> None:
    run(
        loop,
        """
        bridge.sleep(0)
        def legacy():
            try:
                with bridge.Timeout(0.01):
                    asyncio.run(main())
            except bridge.Timeout:
                log.append("timeout")
        bridge.spawn(legacy).get()
        assert log == ["main", "child", "timeout"], log
        """,
        start=START + LINGER,
    )


def test_keyboard_interrupt_cancels_what_the_main_greenlet_runs(loop: str) -> None:
    run(
        loop,
        """
        import os
        log = []
        async def main():
            asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await asyncio.sleep(0.001)
                log.append("cancelled")
                raise
        bridge.sleep(0)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            log.append("interrupted")
        assert log == ["cancelled", "interrupted"], log
        assert bridge.spawn(lambda: 7).get() == 7
        """,
    )


def test_a_coroutine_that_cancels_itself_raises_cancelled_error(loop: str) -> None:
    run(
        loop,
        """
        async def main():
            asyncio.current_task().cancel()
            await asyncio.sleep(1000)
        def legacy():
            try:
                asyncio.run(main())
            except asyncio.CancelledError:
                return "cancelled"
        bridge.sleep(0)
        assert bridge.spawn(legacy).get() == "cancelled"
        """,
    )


def test_a_runner_runs_several_coroutines_in_one_context(loop: str) -> None:
    run(
        loop,
        """
        var = contextvars.ContextVar("var", default=0)
        async def set_to(n):
            before = var.get()
            var.set(n)
            return before
        def legacy():
            with asyncio.Runner() as runner:
                assert runner.get_loop() is bridge.get_hub().aio_loop
                assert runner.run(set_to(1)) == 0
                assert runner.run(set_to(2)) == 1
                own = contextvars.copy_context()
                assert runner.run(set_to(3), context=own) == 0
                assert own[var] == 3
                task = runner.get_loop().create_task(asyncio.sleep(0.001, "late"))
                assert runner.run(asyncio.wait_for(task, 10)) == "late"
            assert var.get() == 0
            assert not bridge.get_hub().aio_loop.is_closed()
            for wrong in (lambda: runner.run(asyncio.sleep(0)), runner.get_loop):
                try:
                    wrong()
                except RuntimeError as e:
                    assert "closed" in str(e)
                else:
                    raise AssertionError
            try:
                asyncio.run(7)
            except (ValueError, TypeError) as e:
                assert "7" in str(e)
            else:
                raise AssertionError
        bridge.sleep(0)
        bridge.spawn(legacy).get()
        """,
        "-W",
        "ignore::RuntimeWarning",
    )


def test_debug_mode_lasts_as_long_as_somebody_wants_it(loop: str) -> None:
    run(
        loop,
        """
        async def main(seconds):
            await asyncio.sleep(seconds)
            return asyncio.get_running_loop().get_debug()
        def legacy(seconds):
            return asyncio.run(main(seconds), debug=True)
        bridge.sleep(0)
        greenlets = [bridge.spawn(legacy, 0.01), bridge.spawn(legacy, 0.02)]
        assert [g.get() for g in greenlets] == [True, True]
        assert not bridge.get_hub().aio_loop.get_debug()
        """,
    )


def test_uvloop_run_in_a_greenlet_uses_the_hub_whatever_its_loop(loop: str) -> None:
    pytest.importorskip("uvloop")
    run(
        loop,
        """
        import uvloop
        async def main():
            await others()
            return asyncio.get_running_loop()
        bridge.spawn(watch)
        bridge.sleep(0)
        assert bridge.spawn(lambda: uvloop.run(main())).get() is bridge.get_hub().aio_loop
        """,
    )


def test_in_a_portal_asyncio_run_waits_like_other_blocking_calls(loop: str) -> None:
    run(
        loop,
        """
        async def inner():
            await others()
            return asyncio.current_task()
        def legacy():
            return asyncio.run(inner())
        async def main():
            task = asyncio.current_task()
            found = legacy()
            assert found is not task and found.done()
            assert asyncio.current_task() is task
            try:
                async with asyncio.timeout(0.01):
                    asyncio.run(asyncio.sleep(1000))
            except TimeoutError:
                return asyncio.run(asyncio.sleep(0, "result"))
        bridge.spawn(watch)
        assert bridge.run(main) == "result"
        async def without_portal():
            legacy()
        try:
            bridge.await_(without_portal())
        except RuntimeError as e:
            assert "running event loop" in str(e)
        else:
            raise AssertionError
        """,
        "-W",
        "ignore::RuntimeWarning",
    )


def test_in_a_callback_of_the_hub_it_is_refused(loop: str) -> None:
    run(
        loop,
        """
        async def main():
            pass
        def callback():
            for run in (asyncio.run, asyncio.new_event_loop().run_until_complete):
                coroutine = main()
                try:
                    run(coroutine)
                except BlockingSwitchOutError:
                    coroutine.close()
                    refused.append(run)
        refused = []
        bridge.get_hub().loop.run_callback(callback)
        bridge.sleep(0)
        assert len(refused) == 2
        """,
        "-W",
        "ignore::ResourceWarning",
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_eager_tasks_see_the_running_loop(loop: str) -> None:
    run(
        loop,
        """
        async def main():
            loop = asyncio.get_running_loop()
            assert asyncio.current_task() is not None
            await asyncio.create_task(asyncio.sleep(0))
            assert await asyncio.create_task(child()) is loop
            return loop
        async def child():
            return asyncio.get_running_loop()
        bridge.sleep(0)
        loop = bridge.get_hub().aio_loop
        def factory(loop, coro, name=None, context=None, **kwargs):
            return asyncio.Task(coro, loop=loop, name=name, context=context, eager_start=True)
        loop.set_task_factory(factory)
        assert bridge.spawn(asyncio.run, main()).get() is loop
        assert bridge.await_(main()) is loop
        """,
    )


# -- second loops -----------------------------------------------------------------------------------------


def test_many_greenlets_run_loops_of_their_own_and_others_go_on(loop: str) -> None:
    run(
        loop,
        """
        bridge.spawn(watch)
        async def main(own, n):
            assert asyncio.get_running_loop() is own
            await others()
            assert asyncio.get_running_loop() is own
            started.add(n)
            while len(started) < 10:
                await asyncio.sleep(0.001)
            assert asyncio.get_running_loop() is own
            return n
        started = set()
        def legacy(n):
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            try:
                result = loop.run_until_complete(main(loop, n))
                assert asyncio.get_event_loop_policy()._local._loop is loop
                return result
            finally:
                loop.close()
        greenlets = [bridge.spawn(legacy, n) for n in range(10)]
        bridge.joinall(greenlets)
        assert [g.get() for g in greenlets] == list(range(10))
        """,
        "-W",
        "ignore::DeprecationWarning",
    )


def test_a_second_loop_has_sockets_threads_and_processes(loop: str) -> None:
    run(
        loop,
        """
        bridge.spawn(watch)
        async def main():
            async def answer(reader, writer):
                writer.write((await reader.readline()).upper())
                writer.close()
                await writer.wait_closed()
            server = await asyncio.start_server(answer, "127.0.0.1")
            host, port = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello\\n")
            assert await reader.read() == b"HELLO\\n"
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
            assert await asyncio.to_thread(lambda: 5) == 5
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", "print(6)", stdout=asyncio.subprocess.PIPE)
            assert (await process.communicate())[0] == b"6\\n"
            await others()
        def legacy():
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            try:
                loop.run_until_complete(main())
                loop.run_until_complete(loop.shutdown_default_executor())
            finally:
                loop.close()
        bridge.spawn(legacy).get()
        """,
        "-W",
        "ignore::DeprecationWarning",
    )


def test_another_greenlet_wakes_a_second_loop_as_if_it_were_in_it(loop: str) -> None:
    run(
        loop,
        """
        bridge.sleep(0)
        def legacy():
            loop = asyncio.new_event_loop()
            futures.append(loop.create_future())
            results.append(loop.run_until_complete(futures[-1]))
            loop.run_until_complete(primitives())
            loop.call_later(1000, loop.stop)
            loop.run_forever()
            loop.close()
        async def primitives():
            await event
            assert await queue.aget() == 7
            assert await bridge.Greenlet.spawn(lambda: (bridge.sleep(0.001), 8)[1]) == 8
        futures, results = [], []
        event, queue = bridge.event.Event(), bridge.queue.Queue()
        g = bridge.spawn(legacy)
        bridge.sleep(0.01)
        futures[0].set_result(3)  # by a greenlet of the same thread: in no callback of that loop
        bridge.sleep(0.01)
        event.set()
        bridge.sleep(0.01)
        queue.put(7)
        bridge.sleep(0.02)
        loop = futures[0].get_loop()
        assert loop.is_running()
        loop.call_at(loop.time() + 0.001, loop.stop)
        g.get()
        assert results == [3]
        """,
    )


def test_greenlets_of_a_second_loop_run_below_it_and_keep_for_its_next_run(loop: str) -> None:
    run(
        loop,
        """
        bridge.spawn(watch)
        bridge.sleep(0)
        outer = bridge.get_hub()
        async def begin():
            global background
            inner.append(bridge.get_hub())
            assert inner[0] is not outer
            background = bridge.spawn(lambda: [bridge.sleep(0.001) for _ in range(20)])
            g = bridge.spawn(lambda: (bridge.sleep(0.002), bridge.get_hub())[1])
            assert await g is inner[0]
            await others()
        async def go_on():
            assert bridge.get_hub() is inner[0]
            await background
        inner = []
        def legacy():
            loop = asyncio.new_event_loop()
            loop.run_until_complete(begin())
            assert bridge.get_hub() is outer
            bridge.sleep(0.001)
            assert bridge.get_hub() is outer
            assert not background.dead
            loop.run_until_complete(go_on())
            loop.close()
            return len(background.value)
        assert bridge.spawn(legacy).get() == 20
        assert bridge.get_hub() is outer
        """,
    )


def test_hooks_for_asynchronous_generators_follow_the_greenlet(loop: str) -> None:
    run(
        loop,
        """
        bridge.sleep(0)
        async def generate(log):
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                log.append(asyncio.get_running_loop())
        async def begin(log):
            kept.append(generate(log))
            await anext(kept[-1])
        kept, outer_log, inner_log = [], [], []
        def legacy():
            loop = asyncio.new_event_loop()
            async def main():
                await begin(inner_log)
                await asyncio.sleep(0.02)
            loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_asyncgens())
            assert inner_log == [loop] and outer_log == []
            loop.close()
        g = bridge.spawn(legacy)
        bridge.sleep(0.01)  # the second loop waits now
        bridge.await_(begin(outer_log))
        g.get()
        hub_loop = bridge.get_hub().aio_loop
        bridge.await_(hub_loop.shutdown_asyncgens())
        assert outer_log == [hub_loop]
        """,
    )


def test_killing_a_greenlet_ends_its_loop(loop: str) -> None:
    run(
        loop,
        """
        bridge.sleep(0)
        log = []
        def legacy():
            loop = asyncio.new_event_loop()
            task = loop.create_task(asyncio.sleep(1000))
            try:
                loop.run_until_complete(task)
            finally:
                assert not loop.is_running() and asyncio._get_running_loop() is None
                task.cancel()
                try:
                    loop.run_until_complete(task)  # the clean-up that asyncio's own programs do
                except asyncio.CancelledError:
                    log.append("cleaned up")
                loop.close()
        g = bridge.spawn(legacy)
        bridge.sleep(0.01)
        g.kill()
        assert log == ["cleaned up"]
        assert asyncio._get_running_loop() is None
        """,
    )


def test_the_loop_of_the_hub_may_be_asked_to_run_something(loop: str) -> None:
    run(
        loop,
        """
        bridge.spawn(watch)
        bridge.sleep(0)
        loop = bridge.get_hub().aio_loop
        async def main():
            await others()
            return asyncio.get_running_loop()
        assert bridge.spawn(lambda: loop.run_until_complete(main())).get() is loop
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, 5)
        assert loop.run_until_complete(future) == 5
        async def adopted():
            def legacy():
                return asyncio.get_event_loop().run_until_complete(others())
            await bridge.sync_to_async(legacy)()
        """,
    )


def test_a_legacy_function_uses_the_loop_that_its_server_has_set(loop: str) -> None:
    run(
        loop,
        """
        import warnings
        async def serve():
            bridge.spawn(watch)
            def legacy():
                loop = asyncio.get_event_loop()
                return loop.run_until_complete(others()), loop
            return (await bridge.sync_to_async(legacy)())[1] is asyncio.get_running_loop()
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        assert loop.run_until_complete(serve())
        loop.close()
        """,
        "-W",
        "ignore::DeprecationWarning",
    )


def test_what_set_event_loop_sets_is_the_greenlet_s_own(loop: str) -> None:
    run(
        loop,
        """
        bridge.sleep(0)
        mine = asyncio.new_event_loop()
        asyncio.set_event_loop(mine)
        def legacy():
            assert asyncio.get_event_loop() is mine
            own = asyncio.new_event_loop()
            asyncio.set_event_loop(own)
            bridge.sleep(0.001)
            assert asyncio.get_event_loop() is own
            own.close()
        bridge.joinall([bridge.spawn(legacy) for _ in range(3)], raise_error=True)
        assert asyncio.get_event_loop() is mine
        mine.close()
        """,
        "-W",
        "ignore::DeprecationWarning",
    )


def test_uvloop_beside_the_hub(loop: str) -> None:
    """Made in a greenlet it is a standard loop; made elsewhere and run in a greenlet it says why it
    cannot."""
    pytest.importorskip("uvloop")
    run(
        loop,
        """
        import uvloop
        stranger = uvloop.new_event_loop()
        bridge.spawn(watch)
        bridge.sleep(0)
        def legacy():
            loop = uvloop.new_event_loop()
            loop.run_until_complete(others())
            loop.close()
            try:
                stranger.run_until_complete(others())
            except RuntimeError as e:
                assert "asyncio.run()" in str(e) and "uvloop" in str(e)
            else:
                raise AssertionError
        bridge.spawn(legacy).get()
        async def main():
            return 5
        assert stranger.run_until_complete(main()) == 5  # in the main greenlet the hub makes way
        stranger.close()
        bridge.sleep(0)
        """,
    )


def test_a_second_loop_whose_selector_has_no_real_descriptor(loop: str) -> None:
    """As in tests of loops: the selector is asked, and other greenlets run in between."""
    run(
        loop,
        """
        from unittest import mock
        for fake in ({"fileno.return_value": None}, {"get_map.return_value": {}}):
            aio = asyncio.BaseEventLoop()
            aio._process_events = mock.Mock()
            aio._selector = mock.Mock(**fake)
            aio._selector.select.return_value = ()
            g = bridge.spawn(watch)
            if "get_map.return_value" in fake:
                del aio._selector.fileno
            aio.run_until_complete(others())
            g.kill()
            aio.close()
        """,
    )


def test_a_second_loop_that_notes_elsewhere_that_it_runs_leaves_no_loop_behind(loop: str) -> None:
    """asyncio has that function twice, in C and in Python, and loops take the one in ``asyncio.events``."""
    run(
        loop,
        """
        from unittest import mock
        bridge.spawn(watch)
        aio = asyncio.new_event_loop()
        pause = aio.create_future()
        aio.call_later(0.001, pause.set_result, None)
        with mock.patch("asyncio.events._set_running_loop", asyncio.events._py__set_running_loop):
            aio.run_until_complete(pause)
        aio.close()
        assert asyncio._get_running_loop() is None
        bridge.sleep(0.001)
        """,
    )


def test_a_second_loop_in_a_portal_runs_in_a_greenlet(loop: str) -> None:
    run(
        loop,
        """
        async def inner():
            await others()
            return asyncio.get_running_loop()
        async def main():
            outer = asyncio.get_running_loop()
            loop = asyncio.new_event_loop()
            assert loop.run_until_complete(inner()) is loop
            assert asyncio.get_running_loop() is outer
            try:
                async with asyncio.timeout(0.01):
                    loop.run_forever()
            except TimeoutError:
                pass
            else:
                raise AssertionError
            assert not loop.is_running()
            loop.close()
            return 1
        bridge.spawn(watch)
        assert bridge.run(main) == 1
        """,
    )


def test_a_loop_in_a_thread_with_a_hub_leaves_that_hub_alive(loop: str) -> None:
    run(
        loop,
        """
        log = []
        def in_thread():
            bridge.sleep(0)
            hub = bridge.get_hub()
            g = bridge.spawn(lambda: (bridge.sleep(0.01), log.append("greenlet")))
            bridge.sleep(0)
            loop = asyncio.SelectorEventLoop()
            loop.run_until_complete(asyncio.sleep(0))
            asyncio.run(asyncio.sleep(0))
            loop.close()
            g.join()
            assert bridge.get_hub() is hub
            log.append("end")
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
        assert log == ["greenlet", "end"], log
        """,
    )


def test_second_loops_and_debug_mode(loop: str) -> None:
    run(
        loop,
        """
        bridge.spawn(watch)
        bridge.sleep(0)
        def legacy():
            loop = asyncio.new_event_loop()
            loop.set_debug(True)
            async def main():
                assert sys.get_coroutine_origin_tracking_depth() > 0
                await others()
                assert sys.get_coroutine_origin_tracking_depth() > 0
                await bridge.spawn(bridge.sleep, 0.001)
            loop.run_until_complete(main())
            loop.close()
        g = bridge.spawn(legacy)
        bridge.sleep(0.002)
        assert sys.get_coroutine_origin_tracking_depth() == 0
        g.get()
        """,
    )


@pytest.mark.parametrize("selector", ["SelectSelector", "PollSelector"])
def test_selectors_without_a_descriptor_of_their_own(loop: str, selector: str) -> None:
    run(
        loop,
        f"""
        import selectors
        bridge.spawn(watch)
        bridge.sleep(0)
        def legacy():
            loop = asyncio.SelectorEventLoop(selectors.{selector}())
            async def main():
                await others()
                return await asyncio.to_thread(lambda: 4)
            result = loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            return result
        assert bridge.spawn(legacy).get() == 4
        """,
    )


# -- installing -------------------------------------------------------------------------------------------


def test_before_install_asyncio_is_untouched_and_after_it_names_stay(loop: str) -> None:
    run(
        loop,
        """
        import asyncio, inspect
        from asyncio import Runner, run
        import bridge
        assert run.__module__ == "asyncio.runners" and not hasattr(run, "__wrapped__")
        signature = inspect.signature(run)
        from bridge._aio.nested import install
        install()
        patched = asyncio.run, Runner.run, asyncio.BaseEventLoop.run_forever
        install()
        assert patched == (asyncio.run, Runner.run, asyncio.BaseEventLoop.run_forever)
        assert inspect.signature(asyncio.run) == signature
        assert asyncio.run.__name__ == "run"
        bridge.sleep(0)
        async def main():
            return asyncio.get_running_loop()
        # a name taken before is as good
        assert bridge.spawn(run, main()).get() is bridge.get_hub().aio_loop
        """,
        start="",
    )


def test_drop_in_mode_installs_it(loop: str) -> None:
    run(
        loop,
        """
        import bridge
        bridge.install_as_gevent()
        import asyncio, gevent
        async def main():
            return asyncio.get_running_loop()
        assert gevent.spawn(asyncio.run, main()).get() is gevent.get_hub().aio_loop
        """,
        start="",
    )


# -- signals ----------------------------------------------------------------------------------------------

SIGNALS = (
    START
    + """
import os
got = []
aio = bridge.get_hub().aio_loop

def send(*numbers):
    for number in numbers:
        count = len(got)
        os.kill(os.getpid(), number)
        with bridge.Timeout(30):
            while len(got) == count:
                bridge.sleep(0.001)

def second_loop(main):
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main(loop))
    finally:
        loop.close()

until = bridge.event.Event()
ready = bridge.event.Event()
async def listen(loop):
    loop.add_signal_handler(signal.SIGUSR2, got.append, "second")
    ready.set()
    while not until.is_set():
        await asyncio.sleep(0.001)
"""
)


@pytest.mark.parametrize("when", ["before", "meanwhile", "after"])
def test_signal_handlers_of_a_second_loop_leave_those_of_the_hubs_loop_alone(loop: str, when: str) -> None:
    run(
        loop,
        f"""
        when = {when!r}
        bridge.sleep(0)
        def add():
            aio.add_signal_handler(signal.SIGUSR1, got.append, "hub")
            watcher = bridge.get_hub().loop.signal(signal.SIGTERM)
            watcher.start(got.append, "watcher")
            return watcher
        if when == "before":
            watcher = add()
        second = bridge.spawn(second_loop, listen)
        ready.wait()
        if when == "meanwhile":
            watcher = add()
        send(signal.SIGUSR2)
        if when != "after":
            send(signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2)
            assert got == ["second", "hub", "watcher", "second"], got
        until.set()
        second.get()
        del got[:]
        if when == "after":
            watcher = add()
        send(signal.SIGTERM, signal.SIGUSR1)
        assert got == ["watcher", "hub"], got
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
        watcher.stop()
        aio.remove_signal_handler(signal.SIGUSR1)
        """,
        start=SIGNALS,
    )


def test_a_handler_that_a_second_loop_has_replaced_is_back_when_that_ends(loop: str) -> None:
    run(
        loop,
        """
        signal.signal(signal.SIGUSR2, lambda *_: got.append("program"))
        send(signal.SIGUSR2)
        second = bridge.spawn(second_loop, listen)
        ready.wait()
        send(signal.SIGUSR2)
        until.set()
        second.get()
        send(signal.SIGUSR2)
        assert got == ["program", "second", "program"], got
        """,
        start=SIGNALS,
    )


def test_the_handler_that_came_last_stays_when_a_second_loop_ends(loop: str) -> None:
    run(
        loop,
        """
        second = bridge.spawn(second_loop, listen)
        ready.wait()
        signal.signal(signal.SIGUSR2, lambda *_: got.append("program"))
        until.set()
        second.get()
        send(signal.SIGUSR2)
        assert got == ["program"], got
        """,
        start=SIGNALS,
    )


def test_a_loop_that_had_signal_handlers_before_it_ran_beside_the_hub_keeps_them(loop: str) -> None:
    run(
        loop,
        """
        mine = asyncio.SelectorEventLoop()
        mine.add_signal_handler(signal.SIGUSR2, got.append, "second")
        bridge.sleep(0.001)  # the hub begins
        async def main():
            ready.set()
            while not until.is_set():
                await asyncio.sleep(0.001)
        second = bridge.spawn(mine.run_until_complete, main())
        ready.wait()
        aio.add_signal_handler(signal.SIGUSR1, got.append, "hub")
        send(signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1)
        assert got == ["hub", "second", "hub"], got
        until.set()
        second.get()
        mine.close()
        send(signal.SIGUSR1)
        aio.remove_signal_handler(signal.SIGUSR1)
        """,
        start=SIGNALS,
    )


def test_second_loops_that_were_closed_are_not_kept(loop: str) -> None:
    run(
        loop,
        """
        import gc, weakref
        def legacy():
            loop = asyncio.new_event_loop()
            async def main():
                references.append(weakref.ref(bridge.get_hub()))
                await bridge.sync_to_async(bridge.sleep)(0)
            loop.run_until_complete(main())
            loop.close()
            references.append(weakref.ref(loop))
        references = []
        for _ in range(3):
            bridge.spawn(legacy).get()
        bridge.sleep(0)
        gc.collect()
        # the last one's hub ends when the next one is made
        assert [reference() for reference in references[:-2]] == [None] * 4, references
        """,
    )
