"""await_, calls of blocking functions and portals: both twins do the same, lose nothing and keep nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# each test runs its programs on the compiled and on the plain twin, in processes of their own
pytestmark = pytest.mark.engines("none")

PROGRAMS = Path(__file__).parent / "programs"
INTERLEAVINGS = str(PROGRAMS / "interleavings.py")
SHARED_PRIMITIVES = str(PROGRAMS / "shared_primitives.py")
LOOPS = ("asyncio", "uvloop") if importlib.util.find_spec("uvloop") is not None else ("asyncio",)
COMPILED = importlib.util.find_spec("bridge._aio._driving") is not None


def run(*command: str, pure: str = "") -> str:
    env = {**os.environ, "BRIDGE_PURE": pure}
    process = subprocess.run(
        [sys.executable, "-X", "faulthandler", *command], env=env, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0 and not process.stderr, process.stderr
    return process.stdout


def both(*command: str) -> str:
    """Run it with each twin, which must print the same; return that."""
    plain = run(*command, pure="1")
    assert run(*command) == plain
    return plain


def program(code: str) -> str:
    start = "import asyncio, gc, sys, weakref, bridge, greenlet\nfrom bridge import await_, sync_to_async\n"
    return both("-c", start + textwrap.dedent(code))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("mode", ["owned", "adopted", "factory"])
@pytest.mark.parametrize("seed", [1, 3])
def test_random_interleavings_lose_nothing_and_keep_nothing(mode: str, loop: str, seed: int) -> None:
    story = both(INTERLEAVINGS, mode, loop, str(seed), "60")
    assert story.count("have ended") == 8


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("mode", ["owned", "adopted", "factory"])
@pytest.mark.parametrize("pure", ["", "1"])
def test_random_interleavings_with_timeouts_lose_nothing(mode: str, loop: str, pure: str) -> None:
    story = run(INTERLEAVINGS, mode, loop, "5", "60", "timed", pure=pure)
    assert story.count("have ended") == 8


def test_round_of_the_loop_that_comes_after_its_wait_was_killed_is_for_nobody() -> None:
    out = program("""
        async def coroutine():
            await asyncio.sleep(0)
        def work():
            try:
                await_(coroutine())
            except BaseException as e:
                return type(e).__name__
        def kill(victim):
            victim.kill(block=False)
        def both():
            g = bridge.spawn(work)
            bridge.spawn(kill, g)
            return g.get()
        await_(coroutine())
        print(both())
        bridge.sleep(0.001)  # the main greenlet gets what goes wrong in the hub
        async def main():
            print(await sync_to_async(both)())
            await asyncio.sleep(0.001)
        asyncio.run(main())
    """)
    assert out.split() == ["GreenletExit"] * 2


def test_errors_keep_the_context_they_were_raised_in() -> None:
    out = program("""
        def fail():
            try:
                1 / 0
            except ZeroDivisionError:
                raise ValueError
        async def coroutine(wait):
            if wait:
                await asyncio.sleep(0)
            fail()
        def show(e):
            while e is not None:
                print(type(e).__name__)
                e = e.__context__
        async def called():
            try:
                raise KeyError
            except KeyError:
                try:
                    await sync_to_async(fail)()
                except ValueError as e:
                    show(e)
        asyncio.run(called())
        for wait in (False, True):
            try:
                raise KeyError
            except KeyError:
                try:
                    await_(coroutine(wait))
                except ValueError as e:
                    show(e)
    """)
    # a call has a greenlet of its own; the coroutine is called below the except clause
    raised = ["ValueError", "ZeroDivisionError"]
    assert out.split() == raised + 2 * [*raised, "KeyError"]


def test_what_a_coroutine_was_given_is_not_kept_until_it_ends() -> None:
    out = program("""
        class Result:
            pass
        class Error(Exception):
            pass
        async def given(settle, kind):
            thing = kind()
            future = asyncio.get_running_loop().create_future()
            reference = weakref.ref(thing)
            asyncio.get_running_loop().call_soon(getattr(future, settle), thing)
            del thing
            try:
                await future
            except Error:
                pass
            del future
            for _ in range(3):
                await asyncio.sleep(0)
            gc.collect()
            print(settle, "kept" if reference() is not None else "gone")
        async def twice():
            await asyncio.sleep(0)
            await given("set_exception", Error)
        await_(given("set_result", Result))
        await_(given("set_exception", Error))
        await_(twice())
        asyncio.run(bridge.portal(given)("set_result", Result))
        asyncio.run(bridge.portal(given)("set_exception", Error))
    """)
    assert out.count("gone") == 5 and "kept" not in out


def test_cancellation_that_a_coroutine_has_survived_is_not_kept() -> None:
    out = program("""
        references = []
        class Error(Exception):
            pass
        async def survives():
            loop = asyncio.get_running_loop()
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                pass
            asyncio.current_task().uncancel()
            for _ in range(3):
                await asyncio.sleep(0)
            gc.collect()
            print("kept" if references[0]() is not None else "gone")
        def work():
            await_(survives())
        def cancel(g):
            error = asyncio.CancelledError()
            task = g._bridge_task
            future = task._fut_waiter
            future.cancel()
            references.append(weakref.ref(future))
        g = bridge.spawn(work)
        bridge.sleep(0)
        cancel(g)
        g.get()
    """)
    assert out.split() == ["gone"]


def test_error_of_a_raw_greenlet_that_goes_on_in_a_callback_is_the_one_being_handled() -> None:
    out = program("""
        async def coroutine():
            await asyncio.sleep(0.001)
        def work():
            await_(coroutine())
            raise ValueError
        hub = bridge.get_hub()
        def handle_error(context, type, value, tb):
            print(type.__name__, sys.exc_info()[0].__name__, sys.exc_info()[1] is value)
        hub.handle_error = handle_error
        bridge.spawn_raw(work)
        bridge.sleep(0.01)
        print(sys.exc_info())
        bridge.wait(timeout=1)
    """)
    assert out.splitlines()[0] == "ValueError ValueError True"
    assert out.splitlines()[1] == "(None, None, None)"


def test_function_without_a_frame_of_its_own_may_block() -> None:
    out = program("""
        from contextvars import ContextVar
        from bridge._calling import Call
        variable = ContextVar("variable")
        async def main():
            variable.set(5)
            # any function in C that blocks
            task = asyncio.create_task(sync_to_async(bridge.get_hub().loop.park)())
            await asyncio.sleep(0)
            [g] = [each for each in gc.get_objects() if type(each) is Call]
            print(g.gr_frame is not None, g.gr_context[variable], isinstance(g.parent, bridge.hub.Hub))
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                print("cancelled", g.dead)
        asyncio.run(main())
    """)
    assert out.split() == ["True", "5", "True", "cancelled", "True"]


def test_call_ends_in_the_hub_even_if_its_coroutine_was_interrupted_as_it_began() -> None:
    out = program("""
        from bridge._calling import Call
        calls = []
        def work():
            g = greenlet.getcurrent()
            calls.append(g)
            bridge.spawn(bridge.sleep, 0)
            g.parent.throw(KeyError)  # as a debugger or a signal handler may
            return 1
        async def coroutine():
            await sync_to_async(work)()
        def outer():
            try:
                await_(coroutine())
            except KeyError:
                return "interrupted"
        print(bridge.spawn(outer).get())
        [g] = calls
        print(isinstance(g.parent, bridge.hub.Hub), g.dead)
    """)
    assert out.split() == ["interrupted", "True", "False"]


def test_error_of_a_function_that_was_cancelled_goes_to_who_awaits_it() -> None:
    out = program("""
        def fails():
            try:
                bridge.sleep(60)
            except asyncio.CancelledError:
                bridge.sleep(0)
                raise ValueError
        def ends():
            try:
                bridge.sleep(60)
            except asyncio.CancelledError:
                return 5
        def obeys():
            bridge.sleep(60)
        async def main():
            for function in (fails, ends, obeys):
                task = asyncio.create_task(sync_to_async(function)())
                await asyncio.sleep(0)
                task.cancel()
                try:
                    await task
                except BaseException as e:
                    print(type(e).__name__)
        asyncio.run(main())
    """)
    assert out.split() == ["ValueError", "CancelledError", "CancelledError"]


@pytest.mark.parametrize("when", ["before its end", "after its end"])
def test_error_of_a_function_that_ends_while_its_cancellation_is_on_its_way_is_not_lost(when: str) -> None:
    out = program(f"""
        event = bridge.event.Event()
        def fails():
            event.wait()
            if "{when}" == "before its end":
                task.cancel()
            try:
                raise ValueError
            finally:
                if "{when}" == "after its end":
                    asyncio_loop.call_soon(task.cancel)
        async def main():
            global task, asyncio_loop
            asyncio_loop = asyncio.get_running_loop()
            task = asyncio.create_task(sync_to_async(fails)())
            await asyncio.sleep(0)
            event.set()
            try:
                await task
            except BaseException as e:
                print(type(e).__name__)
        asyncio.run(main())
        asyncio.run(main())
    """)
    assert out.split() == ["ValueError"] * 2


def test_error_of_a_function_is_gone_when_its_awaiter_has_dealt_with_it() -> None:
    out = program("""
        class Error(Exception):
            pass
        errors = []
        def fails():
            bridge.sleep(0)
            try:
                raise Error
            except Error as e:
                errors.append(weakref.ref(e))
                raise
        async def main():
            gc.disable()
            try:
                await sync_to_async(fails)()
            except Error:
                pass
            await asyncio.sleep(0)
            print(errors[0]())
        asyncio.run(main())
    """)
    assert out.split() == ["None"]


@pytest.mark.parametrize("call", ["sync_to_async(work)()", "bridge.spawn(work)"])
def test_timeout_around_a_call_or_greenlet_in_a_coroutine_cancels_it(call: str) -> None:
    out = program(f"""
        event = bridge.event.Event()
        def work():
            try:
                event.wait()
            except BaseException as e:
                print(type(e).__name__)
                bridge.sleep(0)
                print("cleaned up")
                raise
        async def coroutine():
            try:
                with bridge.Timeout(0.001):
                    await {call}
            except bridge.Timeout:
                print("timed out")
        async def main():
            await bridge.portal(coroutine)()
            await sync_to_async(await_)(coroutine())
        asyncio.run(main())
    """)
    assert out.split("\n") == ["CancelledError", "cleaned up", "timed out"] * 2 + [""]


@pytest.mark.parametrize("call", ["sync_to_async(work)()", "bridge.spawn(work)"])
def test_error_of_a_function_that_a_timeout_ends_is_handed_to_the_hub(call: str) -> None:
    out = program(f"""
        event = bridge.event.Event()
        def work():
            try:
                event.wait()
            finally:
                raise ValueError
        @bridge.portal
        async def main():
            hub = bridge.get_hub()
            hub.handle_error = lambda context, type, value, tb: print(type.__name__)
            try:
                with bridge.Timeout(0.001):
                    await {call}
            except bridge.Timeout:
                print("timed out")
        asyncio.run(main())
    """)
    assert out.split() == ["ValueError", "timed", "out"]


def test_round_of_the_loop_for_a_wait_that_was_killed_does_not_end_the_next_one() -> None:
    out = program("""
        async def coroutine():
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                print("next round")
                raise
        def kill(g):
            bridge.get_hub().aio_loop.call_soon(print, "callback")
            g.kill(block=False)
        def both():
            for _ in range(2):  # the second time with the first round behind it
                g = bridge.spawn(await_, coroutine())
                bridge.spawn(kill, g)
                print(type(g.get()).__name__)
        await_(asyncio.sleep(0))
        both()
        async def main():
            await sync_to_async(both)()
        asyncio.run(main())
    """)
    assert out.splitlines() == ["callback", "next round", "GreenletExit"] * 4


def test_two_threads_with_loops_of_their_own_do_not_disturb_each_other() -> None:
    out = program("""
        import threading
        sys.setswitchinterval(1e-5)
        async def coroutine(n):
            await asyncio.sleep(0)
            return await sync_to_async(blocking)(n)
        def blocking(n):
            bridge.sleep(0)
            return n
        @bridge.portal
        async def portal(n):
            return blocking(n) + await coroutine(n)
        def work(results):
            total = 0
            for n in range(300):
                total += await_(coroutine(n)) + await_(portal(n))
            results.append(total)
        results = []
        threads = [threading.Thread(target=work, args=(results,)) for _ in range(3)]
        for t in threads:
            t.start()
        work(results)
        for t in threads:
            t.join()
        print(*results)
    """)
    assert out.split() == [str(3 * sum(range(300)))] * 4


@pytest.mark.skipif(not COMPILED, reason="the accelerator is not built")
def test_compiled_functions_raise_at_what_they_do_not_expect() -> None:
    code = """
        import itertools
        from bridge._aio import _driving as d, task as tasks
        from bridge._aio.portal import Portal
        from bridge._core.engine import Engine
        from bridge._core.waiting import Wait

        async def coroutine():
            await asyncio.sleep(0)
        def refused(function, *args):
            try:
                function(*args)
            except (TypeError, AttributeError, RuntimeError, ValueError, SystemError):
                return
            raise AssertionError((function, args))

        await_(coroutine())
        engine = bridge.get_hub().loop
        me = greenlet.getcurrent()
        empty = Engine.__new__(Engine)
        odd = Engine.__new__(Engine)
        odd.__dict__.update(engine.__dict__)
        for name in ("ready", "to_runner", "aio", "on_idle", "entered", "_context", "heap", "after"):
            setattr(odd, name, getattr(engine, name))
        odd.before = ()
        wrong = (None, 5, (), {}, me, empty, odd, object())
        for args in itertools.product(wrong, repeat=3):
            for function in (d.drive, d.wait_for_future, d.call):
                refused(function, *args)
        for function in (d.drive, d.wait_for_future, d.call, d.begin):
            refused(function)
        for each in (None, 5, me, object()):
            refused(d.drive, engine, me, each)
            refused(d.wait_for_future, engine, me, each)
            refused(d.begin, engine, None, None, each if each is not me else 5, (), {})
            assert d.await_quickly(each) is not None
            refused(d.use_tasks, *[each] * 10)
            refused(d.use_portals, each)
            refused(d.use_calls, each, None, None, None)
        refused(d.use_loops, *[5] * 7)
        refused(d.use_calls, int, None, None, None)
        refused(d.run_call)
        refused(d.Wakeup, 5)
        refused(d.Blocked)

        # tasks of greenlets that are none, or not whole
        for each in (5, object(), tasks.GreenletTask.__new__(tasks.GreenletTask)):
            me._bridge_task = each
            refused(await_, coroutine())
        for name, value in (("wait", 5), ("wakeup", object())):
            me._bridge_task = broken = tasks.GreenletTask(engine)
            setattr(broken, name, value)
            refused(await_, coroutine())
        del me._bridge_task
        await_(coroutine())

        # wake-ups for waits that nobody waits in
        wakeup = d.Wakeup(Wait.__new__(Wait))
        refused(wakeup)
        refused(wakeup, 1, 2)
        refused(setattr, wakeup, "wait", 5)
        strange = Wait.__new__(Wait)
        strange.engine, strange.greenlet = odd, me
        refused(d.Wakeup(strange))

        # portals that have not been made, or have lost something
        for make in (lambda: Portal.__new__(Portal), lambda: d.PortalBase.__new__(d.PortalBase)):
            for method in ("send", "_drive", "_leave"):
                refused(getattr(make(), method), None)
        refused(d.PortalBase)
        base = d.PortalBase(5)
        refused(base.send, None)
        refused(base._leave, None)
        base._drive(None)  # has ended with an error
        base._runner = me
        refused(base.send, None)
        del base._inside
        refused(base.send, None)
        gc.collect()
        print("all refused")
    """
    start = "import asyncio, gc, bridge, greenlet\nfrom bridge import await_\n"
    assert run("-W", "ignore", "-c", start + textwrap.dedent(code)).split() == ["all", "refused"]


@pytest.mark.skipif(not COMPILED, reason="the accelerator is not built")
def test_compiled_functions_refuse_before_they_know_the_modules_in_python() -> None:
    # a module of its own process, in which nothing else of bridge is imported
    code = """
        import sys, types
        from pathlib import Path
        import greenlet
        for name in ("bridge", "bridge._core", "bridge._aio"):
            package = sys.modules[name] = types.ModuleType(name)
            package.__path__ = [str(Path(sys.argv[1], *name.split(".")))]
        import bridge._core._switching as switching
        sys.modules["bridge"]._core = sys.modules["bridge._core"]
        sys.modules["bridge._core"]._switching = switching
        import bridge._aio._driving as d
        me = greenlet.getcurrent()
        portal = d.PortalBase(5)
        for function, args in (
            (d.await_quickly, (5,)), (d.call, (print, (), {})), (d.run_call, ()), (d.drive, (5, me, 5)),
            (d.wait_for_future, (5, me, 5)), (d.begin, (5, 5, 5, me, (), {})), (portal.send, (None,)),
            (portal._drive, (None,)), (d.Wakeup(switching.WaitBase.__new__(switching.WaitBase)), ()),
        ):
            try:
                function(*args)
            except RuntimeError:
                pass
            else:
                raise AssertionError(function)
        print("refused")
    """
    root = str(Path(__file__).parents[1])
    assert run("-c", textwrap.dedent(code), root).split() == ["refused"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("pure", ["", "1"])
@pytest.mark.parametrize("others", [[], ["threads"]])
def test_shared_primitives_lose_nothing_whoever_uses_them_and_is_interrupted(
    loop: str, pure: str, others: list[str]
) -> None:
    assert "things were done" in run(SHARED_PRIMITIVES, loop, "7", "60", *others, pure=pure)
