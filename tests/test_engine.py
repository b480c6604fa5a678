"""The engine: safe points, fairness, readiness, what ends a wait and what cannot."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import greenlet
import pytest

import bridge
from bridge._core.census import instances
from bridge._core.poller import READ, WRITE, Interest
from bridge._core.waiting import Wait, WaitLine
from bridge.event import Event
from bridge.exceptions import BlockingSwitchOutError, InvalidSwitchError, LoopExit


def run_script(script: str, loop: str, timeout: float = 50) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "BRIDGE_LOOP": loop},
    )


LOOPS = ["asyncio", "uvloop"]


# -- the two regressions of the safe point --------------------------------------------------------


@pytest.mark.engines("owned")
def test_timer_cancelled_by_a_greenlet_that_another_timer_resumed() -> None:
    """On a naive engine main is resumed inside uv__run_timers, and libuv then walks a list that has moved."""
    loop = bridge.get_hub().loop
    for _ in range(300):
        fired = []
        due = time.monotonic() + 0.0005
        loop.call_at(due, fired.append, 1)
        late = bridge.get_hub().aio_loop.call_later(0.001, fired.append, 2)
        time.sleep(0.003)  # both are due in one pass of the loop
        bridge.sleep(0.0001)
        late.cancel()
    assert fired


def test_reader_removed_by_a_greenlet_while_others_are_ready() -> None:
    pairs = [socket.socketpair() for _ in range(20)]
    woken: list[int] = []
    poller = bridge.get_hub().loop.get_poller()

    def reader(index: int) -> None:
        wait = Wait()
        interest = Interest(pairs[index][0].fileno(), READ, lambda events: wait.wake())
        poller.add(interest)
        wait.block()
        woken.append(index)
        for each in interests:
            poller.remove(each)
        # and one closes its neighbour's descriptor, which is ready as well
        pairs[(index + 1) % 20][0].close()

    interests: list[Interest] = []
    greenlets = [bridge.spawn(reader, i) for i in range(20)]
    bridge.sleep(0)
    for _, b in pairs:
        b.send(b"x")
    bridge.joinall(greenlets, timeout=10)
    for a, b in pairs:
        a.close()
        b.close()
    assert sorted(woken) == list(range(20))


# -- fairness -------------------------------------------------------------------------------------


def test_a_busy_pair_starves_neither_socket_nor_timer_nor_task() -> None:
    stop: list[bool] = []
    a, b = socket.socketpair()
    a.setblocking(False)
    seen: list[str] = []

    def spin() -> None:
        while not stop:
            bridge.sleep(0)

    def read() -> None:
        wait = Wait()
        interest = Interest(a.fileno(), READ, lambda events: wait.wake())
        bridge.get_hub().loop.get_poller().add(interest)
        wait.block()
        bridge.get_hub().loop.get_poller().remove(interest)
        seen.append(a.recv(10).decode())

    async def task() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        seen.append("task")

    spinners = [bridge.spawn(spin), bridge.spawn(spin)]
    others = [bridge.spawn(read), bridge.spawn(lambda: (bridge.sleep(0.005), seen.append("timer")))]
    others.append(bridge.spawn(task))
    bridge.sleep(0)
    b.send(b"socket")
    bridge.joinall(others, timeout=20)
    stop.append(True)
    bridge.joinall(spinners)
    a.close()
    b.close()
    assert sorted(seen) == ["socket", "task", "timer"]


def test_greenlets_made_ready_run_first_in_first_out() -> None:
    order: list[object] = []
    event = Event()

    def waiter(n: int) -> None:
        event.wait()
        order.append(n)

    loop = bridge.get_hub().loop
    waiters = [bridge.spawn(waiter, n) for n in range(5)]
    bridge.sleep(0)
    event.set()
    loop.run_callback(order.append, "callback")
    bridge.spawn(order.append, "spawned")
    bridge.joinall(waiters)
    bridge.sleep(0)
    assert order == [0, 1, 2, 3, 4, "callback", "spawned"]


def test_a_timeout_ends_a_loop_of_sleep_0() -> None:
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.01):
        while True:
            bridge.sleep(0)


# -- timers ---------------------------------------------------------------------------------------


def test_timers_go_off_in_order_of_time() -> None:
    order: list[int] = []
    due: dict[int, float] = {}
    begin = time.monotonic() + 0.001

    def sleeper(n: int) -> None:
        now = time.monotonic()
        due[n] = max(begin + n * 0.003, now + 0.0001)  # whenever this one begins
        bridge.sleep(due[n] - now)
        order.append(n)

    numbers = list(range(10))
    random.Random(3).shuffle(numbers)
    bridge.joinall([bridge.spawn(sleeper, n) for n in numbers])
    assert sorted(order) == list(range(10))
    assert order == sorted(order, key=due.__getitem__)


def test_sleep_never_ends_early() -> None:
    for seconds in (0.0002, 0.001, 0.0033):
        before = time.monotonic()
        bridge.sleep(seconds)
        assert time.monotonic() - before >= seconds


def test_cancelled_timers_do_not_pile_up() -> None:
    loop = bridge.get_hub().loop
    keep = [loop.call_at(time.monotonic() + 1000 + n, print, n) for n in range(10)]
    for n in range(10_000):
        loop.cancel(loop.call_at(time.monotonic() + 100 + n % 7, print, n))
    rnd = random.Random(1)
    many = [loop.call_at(time.monotonic() + rnd.random() * 100, print, n) for n in range(2_000)]
    for timer in many:
        assert loop.cancel(timer)
    assert len(loop.heap) < 300
    loop.verify()
    for timer in keep:
        assert loop.cancel(timer)
        assert not loop.cancel(timer)


# -- files ----------------------------------------------------------------------------------------


def _wait_fd(fd: int, events: int = READ, timeout: float = 5) -> bool:
    wait = Wait()
    poller = bridge.get_hub().loop.get_poller()
    interest = Interest(fd, events, lambda found: wait.wake())
    poller.add(interest)
    try:
        return wait.block(timeout)
    finally:
        poller.remove(interest)


def test_fd_closed_and_reused_while_it_is_waited_for_wakes_the_new_waiter() -> None:
    a, b = socket.socketpair()
    fd = a.fileno()
    old = bridge.spawn(_wait_fd, fd)
    bridge.sleep(0.001)  # registered
    a.close()
    c, d = socket.socketpair()
    if c.fileno() != fd:
        os.dup2(c.fileno(), fd)
        c.close()
        c = socket.socket(fileno=fd)
    new = bridge.spawn(_wait_fd, fd)
    bridge.sleep(0.001)
    d.send(b"x")
    assert new.get(timeout=5) is True
    old.kill()
    for s in (b, c, d):
        s.close()


def test_registered_fd_closed_before_the_next_poll_does_no_harm() -> None:
    """uvloop aborts the process when that happens to one of its own."""
    for _ in range(5):
        a, b = socket.socketpair()
        waiting = bridge.spawn(_wait_fd, a.fileno())
        bridge.sleep(0)
        b.send(b"x")
        a.close()
        b.close()
        bridge.sleep(0.001)
        waiting.kill()
    assert not bridge.get_hub().loop.get_poller().waiting()


def test_several_wait_for_one_fd() -> None:
    a, b = socket.socketpair()
    readers = [bridge.spawn(_wait_fd, a.fileno()) for _ in range(3)]
    writer = bridge.spawn(_wait_fd, a.fileno(), WRITE)
    assert writer.get(timeout=5)
    b.send(b"x")
    assert [g.get(timeout=5) for g in readers] == [True] * 3
    a.close()
    b.close()


def test_a_fd_that_is_never_read_does_not_spin() -> None:
    a, b = socket.socketpair()
    b.send(b"x")
    assert _wait_fd(a.fileno())
    loop = bridge.get_hub().loop
    calls: list[int] = []
    ready = loop.get_poller().ready
    loop.get_poller().ready = lambda *found: (calls.append(1), ready(*found))  # type: ignore[method-assign]
    bridge.sleep(0.02)
    assert len(calls) <= 1
    assert _wait_fd(a.fileno())  # and it is found ready again when it is asked for
    a.close()
    b.close()


def test_regular_file_is_always_ready(tmp_path: object) -> None:
    with open(__file__, "rb") as f:
        assert _wait_fd(f.fileno())


def test_bad_fd_is_refused() -> None:
    bridge.get_hub().loop.get_poller()  # before, or it would be given the number that is bad
    a, b = socket.socketpair()
    fd = a.fileno()
    a.close()
    b.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        _wait_fd(fd)


# -- waits and lines ------------------------------------------------------------------------------


def test_switching_to_a_waiting_greenlet_by_hand_is_an_error_there() -> None:
    event = Event()
    g = bridge.spawn(event.wait)
    bridge.sleep(0)

    def meddle() -> None:
        g.switch("not yours")

    bridge.get_hub().loop.run_callback(meddle)
    g.join()
    assert isinstance(g.exception, InvalidSwitchError)
    assert event.linkcount() == 0


def test_killed_after_it_was_woken_leaves_no_wake_up_behind() -> None:
    event = Event()
    slept: list[float] = []

    def f() -> None:
        try:
            event.wait()
        except bridge.GreenletExit:
            before = time.monotonic()
            bridge.sleep(0.01)
            slept.append(time.monotonic() - before)

    g = bridge.spawn(f)
    bridge.sleep(0)
    bridge.get_hub().loop.run_callback(event.set)
    bridge.get_hub().loop.run_callback(g.throw)
    g.join()
    assert slept[0] >= 0.01


def test_killed_in_sleep_0_leaves_no_wake_up_behind() -> None:
    slept: list[float] = []

    def f() -> None:
        try:
            bridge.sleep(0)
        except bridge.GreenletExit:
            before = time.monotonic()
            bridge.sleep(0.01)
            slept.append(time.monotonic() - before)

    g = bridge.spawn(f)
    bridge.get_hub().loop.run_callback(g.throw)
    g.join()
    assert slept[0] >= 0.01


def test_line_survives_any_order_of_leaving() -> None:
    class Entry:
        dead = woken = False

        def wake(self) -> None:
            self.woken = True

    rnd = random.Random(7)
    for _ in range(200):
        line = WaitLine()
        alive: list[Entry] = []
        for _ in range(rnd.randrange(1, 60)):
            if rnd.random() < 0.6 or not alive:
                entry = Entry()
                line.append(entry)
                alive.append(entry)
            elif rnd.random() < 0.3:
                assert line.leave() is alive.pop(0)
            else:
                line.discard(alive.pop(rnd.randrange(len(alive))))
            assert line.waiting() == len(alive)
            assert bool(line) == bool(alive)
            if alive:
                assert line[0] is alive[0] and line[-1] is alive[-1]
        assert [e for e in line if not e.dead] == alive
        line.wake_all()
        assert all(e.woken for e in alive) and not line


# -- blocking where it is impossible --------------------------------------------------------------


def test_blocking_in_a_callback_of_the_hub_raises_and_names_the_ways_out() -> None:
    caught: list[BaseException] = []

    def callback() -> None:
        for block in (bridge.sleep, Event().wait, bridge.spawn(int).join):
            try:
                block()
            except BlockingSwitchOutError as e:
                caught.append(e)

    bridge.get_hub().loop.run_callback(callback)
    bridge.sleep(0.001)
    assert len(caught) == 3
    assert all("spawn" in str(e) and "await" in str(e) for e in caught)


def test_plain_greenlets_see_no_running_loop_and_coroutines_do() -> None:
    def plain() -> list[object]:
        seen: list[object] = []
        for _ in range(3):
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            bridge.sleep(0)
            seen.append(bridge.await_(coroutine()))
        return seen

    async def coroutine() -> object:
        await asyncio.sleep(0)
        assert asyncio.current_task() is not None
        return asyncio.get_running_loop()

    greenlets = [bridge.spawn(plain) for _ in range(3)]
    for g in greenlets:
        assert g.get() == [bridge.get_hub().aio_loop] * 3


# -- nothing can wake us --------------------------------------------------------------------------


@pytest.mark.engines("owned")
def test_loop_exit_says_who_waits_where_and_the_hub_lives_on() -> None:
    def stuck() -> None:
        Event().wait()

    g = bridge.spawn(stuck)
    with pytest.raises(LoopExit) as caught:
        Event().wait()
    assert caught.value.hub is bridge.get_hub()
    assert "stuck" in str(caught.value)
    bridge.sleep(0.001)
    g.kill()


@pytest.mark.engines("owned")
def test_unreferenced_sleep_alone_raises_loop_exit() -> None:
    with pytest.raises(LoopExit):
        bridge.sleep(10, ref=False)


@pytest.mark.engines("owned")
def test_wait_without_objects_waits_until_nothing_is_left() -> None:
    done: list[int] = []
    bridge.spawn_later(0.005, done.append, 1)
    assert bridge.wait() is True
    assert done == [1]
    bridge.spawn_later(10, done.append, 2)
    assert bridge.wait(timeout=0.001) is False


@pytest.mark.engines("owned")
def test_a_task_that_ends_without_waking_anybody_leads_to_loop_exit(engine: str) -> None:
    async def short() -> None:
        await asyncio.sleep(0.001)

    if engine.startswith("uvloop"):
        pytest.skip("uvloop does not list its timers: the program has used the loop, so nobody can know")
    task = bridge.get_hub().aio_loop.create_task(short())
    with pytest.raises(LoopExit):
        Event().wait()
    assert task.done()


# -- threads --------------------------------------------------------------------------------------


def test_event_set_by_a_thread_wakes_a_greenlet() -> None:
    event = Event()
    threads = [threading.Timer(0.005, event.set)]
    threads[0].start()
    assert event.wait(5)
    threads[0].join()


def test_each_thread_has_a_hub_that_ends_with_it() -> None:
    import gc

    def hubs() -> int:
        gc.collect()
        return len(instances(bridge.hub.Hub))

    event = Event()
    results: list[object] = []

    def work() -> None:
        results.append(bridge.spawn(lambda: (bridge.sleep(0.001), bridge.get_hub())[1]).get())
        event.set()

    before = hubs()
    thread = threading.Thread(target=work)
    thread.start()
    assert event.wait(5)
    thread.join()
    assert results[0] is not bridge.get_hub()
    results.clear()
    del thread
    assert hubs() <= before + 1


# -- signals, exit, fork: in processes of their own -------------------------------------------------


@pytest.mark.engines("none")
@pytest.mark.parametrize("loop", LOOPS)
def test_keyboard_interrupt_in_a_greenlet_is_printed_and_raised_in_main(loop: str) -> None:
    result = run_script(
        """
        import bridge
        def f():
            bridge.sleep(0.001)
            raise KeyboardInterrupt
        g = bridge.spawn(f)
        try:
            bridge.sleep(10)
        except KeyboardInterrupt:
            print("main")
        bridge.sleep(0.01)
        print(repr(g.exception))
        """,
        loop,
    )
    assert result.stdout.split() == ["main", "KeyboardInterrupt()"], result.stderr
    assert "KeyboardInterrupt" in result.stderr


@pytest.mark.engines("none")
@pytest.mark.parametrize("loop", LOOPS)
def test_ctrl_c_reaches_a_main_greenlet_that_waits(loop: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent("""
            import bridge
            print("ready", flush=True)
            try:
                bridge.sleep(20)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            bridge.sleep(0.001)
            print("goes on", flush=True)
        """)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BRIDGE_LOOP": loop},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    while not _sleeping(process.pid):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out == "interrupted\ngoes on\n", err
    assert process.returncode == 0 and err == ""


def _sleeping(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return True


@pytest.mark.engines("none")
@pytest.mark.parametrize("loop", LOOPS)
def test_program_that_ends_while_greenlets_and_tasks_wait_ends_silently(loop: str) -> None:
    result = run_script(
        """
        import asyncio, bridge
        async def for_ever():
            await asyncio.sleep(1000)
        bridge.spawn(bridge.sleep, 1000)
        bridge.spawn(for_ever)
        bridge.sleep(0.01)
        task = bridge.get_hub().aio_loop.create_task(for_ever())
        bridge.sleep(0)
        print("end")
        """,
        loop,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "end\n", "")


@pytest.mark.engines("none")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("loop", LOOPS)
def test_hub_works_on_both_sides_of_a_fork(loop: str) -> None:
    result = run_script(
        """
        import os, socket, sys, warnings, bridge
        from bridge._core.poller import Interest, READ
        from bridge._core.waiting import Wait
        warnings.simplefilter("ignore")
        a, b = socket.socketpair()
        def wait():
            w = Wait()
            interest = Interest(a.fileno(), READ, lambda events: w.wake())
            poller = bridge.get_hub().loop.get_poller()
            poller.add(interest)
            w.block(5)
            poller.remove(interest)
            return w.timed_out
        other = bridge.spawn(lambda: bridge.sleep(0.02))
        g = bridge.spawn(wait)
        bridge.sleep(0.001)
        pid = os.fork()
        if not pid:
            other.join()                   # timers of the parent go on in the child
            b.send(b"x")
            assert g.get() is False        # and so do its files
            bridge.spawn(bridge.sleep, 0.001).join()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        bridge.sleep(0.001)                # the parent's epoll instance was left alone
        assert g.get() is False
        print("both")
        """,
        loop,
    )
    assert result.stdout == "both\n", result.stderr


@pytest.mark.engines("none")
@pytest.mark.parametrize("loop", LOOPS)
def test_loops_one_after_another_in_one_thread(loop: str) -> None:
    result = run_script(
        """
        import asyncio, bridge
        from bridge.event import Event
        event = Event()
        async def main(n):
            g = bridge.spawn(lambda: (event.wait(), n)[1])
            await asyncio.sleep(0.001)
            event.set()
            event.clear()
            return await g
        factory = bridge.config.aio_loop_factory
        for n in range(3):
            with asyncio.Runner(loop_factory=factory) as runner:
                print(runner.run(main(n)))
        bridge.sleep(0.001)
        print(bridge.spawn(lambda: 3).get())
        """,
        loop,
    )
    assert result.stdout.split() == ["0", "1", "2", "3"], result.stderr


@pytest.mark.engines("none")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("loop", LOOPS)
def test_lazy_proxies_that_raise_when_asked_for_their_class_harm_nothing(loop: str) -> None:
    result = run_script(
        """
        import os, warnings, bridge, bridge.event
        warnings.simplefilter("ignore")
        class Proxy:
            @property
            def __class__(self):
                raise LookupError("not configured")
        proxies = [Proxy() for _ in range(10)]
        bridge.sleep(0.001)
        pid = os.fork()
        if not pid:
            print(bridge.spawn(bridge.sleep, 0.001).get(), flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        try:
            bridge.event.Event().wait()
        except bridge.exceptions.LoopExit as e:
            print("LoopExit")
        bridge.run(bridge.sleep, 0.001)
        from bridge import monkey
        monkey.patch_all()
        print("patched")
        """,
        loop,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "None\nLoopExit\npatched\n", "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_is_to_be_switched_to_lives_though_a_destructor_on_the_way_there_blocks() -> None:
    """It had been taken out of the ready queue, and was freed when the destructor let others run."""
    hub = bridge.get_hub()
    loop = hub.loop
    seen: list[str] = []

    class Blocks:
        def __del__(self) -> None:
            seen.append("blocks")
            bridge.sleep(0.001)

    def parent() -> None:
        child: Any = greenlet.greenlet(lambda: "ended")
        child.blocks = Blocks()
        loop.make_ready(child)
        del child
        seen.append(hub.switch())  # to the child, which comes back here; it was the last that was switched to
        for name in "abc":
            loop.make_ready(greenlet.greenlet(lambda name=name: seen.append(name), hub))
        bridge.sleep(0)

    loop.make_ready(greenlet.greenlet(parent, hub))
    bridge.sleep(0.05)
    assert seen[0] == "ended"
    assert sorted(seen[1:]) == ["a", "b", "blocks", "c"]


@pytest.mark.parametrize("timeout", [None, 30])
def test_a_wake_up_that_came_while_something_else_was_waited_for_is_not_lost(timeout: float | None) -> None:
    """As in a handler of a signal, or in a destructor, after the wait has been registered."""
    wait = Wait()
    bridge.spawn(wait.wake)
    assert not Event().wait(0.001)  # it does not disturb this one
    before = time.monotonic()
    assert wait.block(timeout)
    assert time.monotonic() < before + 20


# -- what goes wrong in the middle: signal handlers that raise, and memory that is not there ------------


class Trouble(Exception):
    """What a signal handler raises."""


def then_trouble(function: Any) -> Any:
    """As a signal handler that runs, and raises, when ``function`` has just returned."""

    def call(*args: Any, **kwargs: Any) -> Any:
        function(*args, **kwargs)
        raise Trouble

    return call


@pytest.mark.engines("owned")
@pytest.mark.parametrize("wait", [bridge.sleep, lambda time: Event().wait(time)], ids=["sleep", "event"])
def test_what_a_handler_raises_before_a_timer_is_known_leaves_no_wake_up(wait: Any) -> None:
    loop = bridge.get_hub().loop
    loop.call_at = then_trouble(loop.call_at)
    try:
        with pytest.raises(Trouble):
            wait(0.002)
    finally:
        del loop.call_at
    bridge.sleep(0.01)  # nobody switches to us meanwhile
    bridge.spawn(bridge.sleep, 0.001).join()


@pytest.mark.engines("owned")
def test_an_entry_of_a_sleeper_that_is_interrupted_before_it_parks_is_void() -> None:
    loop = bridge.get_hub().loop

    class Ready(type(loop.ready)):  # type: ignore[misc]
        append = then_trouble(type(loop.ready).append)

    before = loop.ready
    loop.ready = Ready(before)
    try:
        with pytest.raises(Trouble):
            bridge.sleep(0)
        before.extend(loop.ready)
    finally:
        loop.ready = before
    for _ in range(3):
        bridge.sleep(0.001)


@pytest.mark.engines("owned")
@pytest.mark.parametrize("error", [Trouble, MemoryError])
@pytest.mark.parametrize("handler", ["ours", "of the program"])
def test_an_alarm_that_fails_is_not_the_last(error: Any, handler: str) -> None:
    hub = bridge.get_hub()
    loop = hub.loop
    failed: list[Any] = []
    hub.aio_loop.set_exception_handler(  # the loop is shared: a greenlet does not sleep in place of it
        loop._loop_failed if handler == "ours" else lambda _loop, context: failed.append(context)
    )
    arm, rings = loop.arm, 0

    def broken() -> None:
        nonlocal rings
        if sys._getframe(1).f_code.co_name == "_ring":
            rings += 1
            if rings == 1:
                raise error
        arm()

    loop.arm = broken
    try:
        if handler == "ours":
            with pytest.raises(error):  # it is the main greenlet's
                bridge.sleep(0.002)
        bridge.sleep(0.002)
        bridge.sleep(0.002)
    finally:
        del loop.arm
        loop.aio.set_exception_handler(loop._loop_failed)
    assert rings
    assert [type(context["exception"]) for context in failed] == [error] * (handler != "ours")


def test_a_wake_up_for_which_there_was_no_memory_can_be_given_again() -> None:
    class Place:
        armed = True

        def __init__(self) -> None:
            self.ready = self
            self.entries: list[Any] = []
            self.full = True

        def append(self, entry: Any) -> None:
            if self.full:
                raise MemoryError
            self.entries.append(entry)

    def check() -> None:
        wait = Wait()
        place = wait.engine = Place()
        for wake in (wait.wake, wait._expire):
            with pytest.raises(MemoryError):
                wake()
            assert not wait.woken
            assert not wait.queued
            assert not wait.timed_out
        place.full = False
        wait.wake()
        assert place.entries == [wait]

    bridge.spawn(check).get()


@pytest.mark.engines("owned")
def test_a_timer_for_which_there_was_no_memory_is_not_lost() -> None:
    loop = bridge.get_hub().loop
    calls = []

    def due(arg: int) -> None:
        calls.append(arg)
        if len(calls) == 1:
            raise MemoryError

    timer = loop.call_at(0.0, due, 7, False)
    with pytest.raises(MemoryError):
        loop.expire(time.monotonic())
    assert timer[2] is due
    loop.expire(time.monotonic())
    assert calls == [7, 7]
    assert not loop.cancel(timer)


@pytest.mark.engines("owned")
def test_a_timer_whose_alarm_cannot_be_set_is_not_there() -> None:
    loop = bridge.get_hub().loop
    before = list(loop.heap)
    armed, loop.armed = loop.armed, False
    loop.arm = then_trouble(int)
    try:
        with pytest.raises(Trouble):
            loop.call_at(time.monotonic() + 60, print, None)
    finally:
        loop.armed = armed
        del loop.arm
    assert [t for t in loop.heap if t[2] is not None and t not in before] == []
