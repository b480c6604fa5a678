"""bridge.thread: threads that are greenlets, and their locks; nothing is patched here."""

from __future__ import annotations

import _thread
import contextvars
import signal
import sys
import threading
from typing import Any

import pytest

import bridge
from bridge import thread
from bridge._core.current import hub_local
from bridge._threadlocks import HandlerLock, RLock, Sentinel
from bridge._threadwait import ThreadWait, waiting_place
from bridge.exceptions import BlockingSwitchOutError

# -- Lock ------------------------------------------------------------------------------------------------


def test_lock_has_the_face_of_the_standard_librarys() -> None:
    lock = thread.allocate_lock()
    assert isinstance(lock, thread.LockType)
    assert repr(lock) == f"<unlocked bridge._threadlocks.LockType object at {id(lock):#x}>"
    assert lock.acquire() is True
    assert lock.locked() and lock.locked_lock()
    assert repr(lock).startswith("<locked ")
    assert lock.release() is None  # type: ignore[func-returns-value]
    assert not lock.locked()
    with lock as entered:
        assert entered is True and lock.locked()
    assert not lock.locked()
    for name in (n for n in dir(_thread.allocate_lock()) if not n.startswith("__")):
        assert hasattr(lock, name), name


def test_releasing_a_free_lock_is_an_error() -> None:
    lock = thread.allocate_lock()
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        lock.release()
    with pytest.raises(RuntimeError, match="release unlocked lock"), lock:
        lock.release()


def test_locks_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (thread.LockType,), {})


@pytest.mark.parametrize("make", [thread.LockType, RLock])
def test_acquire_refuses_what_the_standard_librarys_refuses(make: Any) -> None:
    lock = make()
    with pytest.raises(ValueError, match="non-blocking"):
        lock.acquire(False, 1)
    with pytest.raises(ValueError, match="timeout=-2"):
        lock.acquire(True, -2)
    with pytest.raises(OverflowError, match="TIMEOUT_MAX"):
        lock.acquire(True, _thread.TIMEOUT_MAX * 2)
    assert not lock.locked()


def test_a_failing_attempt_lets_others_run() -> None:
    lock = thread.allocate_lock()
    lock.acquire()
    bridge.spawn(lock.release)
    attempts = 0
    while not lock.acquire(False):
        attempts += 1
        assert attempts < 10, "the greenlet that releases the lock must get to run"


def test_an_attempt_with_timeout_zero_lets_others_run() -> None:
    lock = thread.allocate_lock()
    lock.acquire()
    bridge.spawn(lock.release)
    assert lock.acquire(True, 0)


def test_those_who_wait_get_the_lock_in_order() -> None:
    lock = thread.allocate_lock()
    order: list[int] = []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    lock.acquire()
    greenlets = [bridge.spawn(take, i) for i in range(5)]
    bridge.sleep(0)
    lock.release()
    bridge.joinall(greenlets, raise_error=True)
    assert order == [0, 1, 2, 3, 4]


def test_a_timeout_leaves_the_lock_to_others() -> None:
    lock = thread.allocate_lock()
    lock.acquire()
    assert lock.acquire(True, 0.001) is False
    lock.release()
    assert lock.acquire(True, 0.001) is True


def test_who_is_killed_on_his_way_to_the_lock_loses_it_to_the_next() -> None:
    lock = thread.allocate_lock()
    lock.acquire()
    first, second = bridge.spawn(lock.acquire), bridge.spawn(lock.acquire)
    bridge.sleep(0)
    first.kill(block=False)
    lock.release()  # tells the first
    assert second.get() is True
    assert isinstance(first.get(), bridge.GreenletExit)


def test_a_snatched_lock_goes_to_who_waited_afterwards() -> None:
    lock = thread.allocate_lock()
    lock.acquire()
    waiting = bridge.spawn(lock.acquire)
    bridge.sleep(0)
    lock.release()
    assert lock.acquire(False)
    bridge.sleep(0)
    assert not waiting.ready()
    lock.release()
    assert waiting.get() is True


def test_a_lock_is_shared_with_threads_that_get_no_hub_for_it() -> None:
    lock = thread.allocate_lock()
    turns: list[str] = []
    hubs: list[Any] = []
    entered = thread.allocate_lock()
    entered.acquire()

    def native() -> None:
        entered.release()
        with lock:
            turns.append("native")
        hubs.append(hub_local.hub)

    lock.acquire()
    other = threading.Thread(target=native)
    other.start()
    entered.acquire()
    turns.append("greenlet")
    lock.release()
    other.join()
    assert turns == ["greenlet", "native"]
    assert hubs == [None]


def test_a_greenlet_waits_for_a_thread_and_others_run() -> None:
    lock = thread.allocate_lock()
    go = _thread.allocate_lock()
    go.acquire()
    held = bridge.event.Event()

    def native() -> None:
        with lock:
            held.set()
            go.acquire()

    other = threading.Thread(target=native)
    other.start()
    held.wait()
    bridge.spawn(go.release)
    assert lock.acquire()
    other.join()


def test_the_timeout_of_a_thread_without_a_hub() -> None:
    lock = thread.allocate_lock()
    lock.acquire()
    outcomes: list[Any] = []
    other = threading.Thread(target=lambda: outcomes.extend([lock.acquire(True, 0.001), hub_local.hub]))
    other.start()
    other.join()
    assert outcomes == [False, None]
    lock.release()
    assert lock.acquire(False)


def in_hub(function: Any) -> Any:
    """What *function* returns or raises in a callback of the hub."""
    outcome: list[Any] = []
    done = bridge.event.Event()

    def call() -> None:
        try:
            outcome.append(function())
        except BaseException as e:
            outcome.append(e)
        done.set()

    bridge.get_hub().loop.run_callback(call)
    done.wait()
    return outcome[0]


def test_the_hub_takes_a_free_lock_and_tries_a_held_one() -> None:
    lock = thread.allocate_lock()
    assert in_hub(lock.acquire) is True
    assert in_hub(lambda: lock.acquire(False)) is False
    assert in_hub(lambda: lock.acquire(True, 0)) is False


def test_the_hub_refuses_to_wait_for_a_greenlet(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = thread.allocate_lock()
    lock.acquire()
    monkeypatch.setattr("bridge._threadwait.PATIENCE", 0.001)
    assert isinstance(in_hub(lock.acquire), BlockingSwitchOutError)
    lock.release()
    assert lock.acquire(False), "the hub must not have stayed in line"


def test_the_hub_waits_a_moment_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge._threadwait.PATIENCE", 30)
    lock = thread.allocate_lock()
    in_line = _thread.allocate_lock()
    in_line.acquire()
    held = bridge.event.Event()

    def native() -> None:
        with lock:
            held.set()
            in_line.acquire()

    other = threading.Thread(target=native)
    other.start()
    held.wait()

    def take() -> bool:
        # as late as possible before it waits
        threading.Thread(target=in_line.release).start()
        return lock.acquire()

    assert in_hub(take) is True
    other.join()


@pytest.mark.asyncio
async def test_a_coroutine_may_wait_for_a_lock() -> None:
    lock = thread.allocate_lock()
    lock.acquire()
    bridge.spawn(lock.release)
    async with lock:
        assert lock.locked()
    assert not lock.locked()


def test_a_wake_up_of_a_thread_is_neither_lost_nor_counted_twice() -> None:
    wait = ThreadWait()
    wait.wake()
    wait.wake()
    assert wait.block(0) is True
    wait.again()
    assert wait.block(0) is False
    wait.wake()
    wait.again()
    assert wait.block(0) is False
    wait.give_up()
    wait.wake()
    assert wait.block(0) is False


@pytest.mark.engines("owned")
def test_the_hub_has_nobody_to_wait_for_without_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_current_frames", lambda: {1: None})
    assert isinstance(in_hub(waiting_place), BlockingSwitchOutError)


# -- RLock -----------------------------------------------------------------------------------------------


def test_rlock_belongs_to_a_greenlet() -> None:
    lock = RLock()
    assert lock.acquire() and lock.acquire()
    assert bridge.spawn(lock.acquire, False).get() is False
    with pytest.raises(RuntimeError, match="un-acquired"):
        in_greenlet(lock.release)
    lock.release()
    assert lock._is_owned() and lock._recursion_count() == 1
    lock.release()
    assert not lock._is_owned()
    assert bridge.spawn(lock.acquire).get() is True
    assert "locked" in repr(lock) and "count=1" in repr(lock)


def in_greenlet(function: Any) -> Any:
    def outcome() -> Any:
        try:
            return function()
        except Exception as e:
            return e

    result = bridge.spawn(outcome).get()
    if isinstance(result, Exception):
        raise result
    return result


def test_rlock_waits_and_goes_on_in_order() -> None:
    lock = RLock()
    order: list[int] = []

    def take(number: int) -> None:
        with lock, lock:
            bridge.sleep(0)
            order.append(number)

    bridge.joinall([bridge.spawn(take, i) for i in range(3)], raise_error=True)
    assert order == [0, 1, 2]


@pytest.mark.parametrize("make", [thread.LockType, RLock, lambda: None])
def test_conditions_work_on_it(make: Any) -> None:
    lock = make() or RLock()
    condition = threading.Condition(lock)
    condition_wait = bridge.lock.Semaphore(0)
    seen: list[str] = []

    def consumer() -> None:
        with condition:
            condition_wait.release()
            # a Condition makes the lock on which it waits by this name
            while not seen:
                condition.wait()
            seen.append("taken")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "_allocate_lock", thread.allocate_lock)
        g = bridge.spawn(consumer)
        condition_wait.acquire()
        with condition:
            seen.append("put")
            condition.notify()
        g.get()
    assert seen == ["put", "taken"]
    assert not lock.locked()


def test_condition_refuses_who_does_not_hold_the_lock() -> None:
    for lock in (thread.LockType(), RLock()):
        condition = threading.Condition(lock)
        with pytest.raises(RuntimeError, match="un-acquired"):
            condition.notify()
        with pytest.raises(RuntimeError, match="un-acquired"):
            condition.wait(0)


def test_saving_a_free_rlock_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="un-acquired"):
        RLock()._release_save()


def test_a_fork_frees_the_locks() -> None:
    for lock in (thread.LockType(), RLock(), HandlerLock()):
        lock.acquire()
        lock._at_fork_reinit()
        assert not lock.locked()
        assert lock.acquire(False)


def test_the_lock_of_a_handler_is_borrowed_where_nothing_may_block() -> None:
    lock = HandlerLock()
    lock.acquire()
    assert in_hub(lock.acquire) is True
    assert lock._borrowed == 1
    in_hub(lock.release)
    assert lock._borrowed == 0 and lock._is_owned()

    def nested() -> None:
        with lock, lock:
            pass

    assert in_hub(nested) is None
    lock.release()
    assert not lock.locked()
    with pytest.raises(RuntimeError, match="un-acquired"):
        lock.release()


def test_the_lock_of_a_handler_is_an_ordinary_one_for_greenlets() -> None:
    lock = HandlerLock()
    lock.acquire()
    g = bridge.spawn(lock.acquire)
    bridge.sleep(0)
    assert not g.ready()
    lock.release()
    assert g.get() is True


# -- idents ----------------------------------------------------------------------------------------------


@pytest.mark.engines("owned")
def test_the_ident_of_a_threads_root_greenlet_is_the_threads() -> None:
    assert thread.get_ident() == _thread.get_ident() == thread.get_ident(bridge.getcurrent())
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(thread.get_ident()))
    other.start()
    other.join()
    assert found == [other.ident]


def test_each_greenlet_has_an_ident() -> None:
    root = bridge.get_hub().parent
    first, second = bridge.spawn(thread.get_ident), bridge.spawn(thread.get_ident)
    idents = [first.get(), second.get(), thread.get_ident(root)]
    assert len(set(idents)) == 3
    assert idents[0] == thread.get_ident(first)
    assert idents[2] == _thread.get_ident()


def test_tasks_and_callbacks_are_in_the_thread_of_their_loop() -> None:
    """Also if the loop does not run in the root greenlet."""

    async def ident() -> int:
        return thread.get_ident()

    called = bridge.event.AsyncResult[int]()
    bridge.get_hub().loop.run_callback(lambda: called.set(thread.get_ident()))

    def ask() -> list[int]:
        hub = bridge.get_hub()
        task = hub.aio_loop.create_task(ident())
        return [bridge.await_(task), called.get(), thread.get_ident(hub), hub.thread_ident]

    assert set(bridge.spawn(ask).get()) == {_thread.get_ident()}


# -- starting --------------------------------------------------------------------------------------------


def test_start_new_thread_starts_a_greenlet() -> None:
    result = bridge.event.AsyncResult[Any]()
    ident = thread.start_new_thread(
        lambda *args, **kw: result.set((args, kw, thread.get_ident())), (1,), {"a": 2}
    )
    assert result.get() == ((1,), {"a": 2}, ident)


def test_start_new_thread_refuses_what_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="callable"):
        thread.start_new_thread(5, ())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="callable"):
        thread.start_joinable_thread(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        thread.start_new_thread(print, 5)  # type: ignore[arg-type]


def test_a_thread_starts_with_an_empty_context() -> None:
    variable = contextvars.ContextVar("variable", default="empty")
    variable.set("set")
    result = bridge.event.AsyncResult[str]()
    thread.start_new_thread(lambda: result.set(variable.get()), ())
    assert result.get() == "empty"


@pytest.mark.parametrize("end", [thread.exit, sys.exit, thread.exit_thread])
def test_a_thread_that_ends_itself_does_so_in_silence(
    end: Any, errors: list[tuple[Any, BaseException]]
) -> None:
    handle = thread.start_joinable_thread(end)
    handle.join()
    assert handle.is_done() and not errors


def test_the_error_of_a_thread_goes_to_the_hub(errors: list[tuple[Any, BaseException]]) -> None:
    def fail() -> None:
        raise ValueError("of the thread")

    thread.start_joinable_thread(fail).join()
    assert [str(e) for _, e in errors] == ["of the thread"]


def test_stack_size_is_remembered_and_checked() -> None:
    native = _thread.stack_size()
    before = thread.stack_size()
    try:
        assert thread.stack_size(262144) == 0
        assert thread.stack_size() == 262144
        assert thread.stack_size() == 0
        assert _thread.stack_size() == native, "that of native threads stays"
        with pytest.raises(ValueError):
            thread.stack_size(1)
    finally:
        thread.stack_size(before)


@pytest.mark.engines("owned")
def test_interrupt_main_interrupts_the_main_greenlet() -> None:
    thread.start_new_thread(thread.interrupt_main, ())
    with pytest.raises(KeyboardInterrupt):
        bridge.sleep(10)


@pytest.mark.engines("owned")
def test_interrupt_main_calls_the_handler_of_a_signal() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        thread.start_joinable_thread(thread.interrupt_main).join()
        assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ValueError):
        thread.interrupt_main(-1)


# -- ending ----------------------------------------------------------------------------------------------


def test_a_sentinel_is_released_at_the_end_of_its_greenlet() -> None:
    made: list[Sentinel] = []
    go = bridge.event.Event()

    def run() -> None:
        made.append(thread._set_sentinel())
        made[-1].acquire()
        go.wait()

    thread.start_new_thread(run, ())
    bridge.spawn(run)
    bridge.sleep(0)
    assert [sentinel.acquire(False) for sentinel in made] == [False, False]
    assert made[0].acquire(timeout=0.001) is False
    go.set()
    assert [sentinel.acquire() for sentinel in made] == [True, True]


def test_a_handle_tells_of_the_end() -> None:
    go = bridge.event.Event()
    handle = thread._ThreadHandle()
    assert handle.ident == 0 and not handle.is_done() and "not started" in repr(handle)
    with pytest.raises(RuntimeError, match="not started"):
        handle.join()
    with pytest.raises(RuntimeError, match="not started"):
        handle._set_done()
    assert thread.start_joinable_thread(go.wait, handle) is handle
    with pytest.raises(RuntimeError, match="already started"):
        thread.start_joinable_thread(go.wait, handle)
    handle.join(0.001)
    assert not handle.is_done() and "running" in repr(handle)
    joins = [bridge.spawn(handle.join) for _ in range(2)]
    bridge.sleep(0)
    go.set()
    bridge.joinall(joins, raise_error=True)
    assert handle.is_done() and "done" in repr(handle)
    handle.join()


def test_a_join_that_is_interrupted_leaves_the_thread_alive() -> None:
    go = bridge.event.Event()
    handle = thread.start_joinable_thread(go.wait)
    with pytest.raises(bridge.Timeout), bridge.Timeout(0.001):
        handle.join()
    assert not handle.is_done()
    go.set()
    handle.join()
    assert handle.is_done()


def test_a_thread_cannot_join_itself() -> None:
    handle = thread._ThreadHandle()
    caught = bridge.event.AsyncResult[str]()

    def run() -> None:
        try:
            handle.join()
        except RuntimeError as e:
            caught.set(str(e))

    thread.start_joinable_thread(run, handle)
    assert caught.get() == "Cannot join current thread"


def test_a_thread_killed_before_it_ran_has_ended() -> None:
    handle = thread.start_joinable_thread(bridge.sleep)
    handle._greenlet().kill()
    assert handle.is_done()
    handle.join()


def test_a_handle_for_the_current_greenlet() -> None:
    made: list[Any] = []
    g = bridge.spawn(lambda: made.append(thread._make_thread_handle(thread.get_ident())))
    g.join()
    bridge.sleep(0)
    assert made[0].is_done() and made[0].ident == thread.get_ident(g)


def test_shutdown_waits_for_threads_that_are_no_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "_native_shutdown", None)
    ended: list[str] = []

    def run(name: str) -> None:
        bridge.sleep(0.001)
        ended.append(name)

    thread.start_joinable_thread(lambda: run("first"), daemon=False)

    def starts_another() -> None:
        run("second")
        thread.start_joinable_thread(lambda: run("third"), daemon=False)

    thread.start_joinable_thread(starts_another, daemon=False)
    forever = thread.start_joinable_thread(lambda: bridge.sleep(1000))
    thread._shutdown()
    assert sorted(ended) == ["first", "second", "third"]
    assert not forever.is_done() and not thread._unfinished
    forever._greenlet().kill()


def test_a_handle_of_the_standard_library_is_no_argument() -> None:
    with pytest.raises(TypeError, match="_ThreadHandle"):
        thread.start_joinable_thread(bridge.sleep, object())


def test_the_module_says_what_it_has() -> None:
    for name in thread.__implements__:
        assert getattr(thread, name) is not getattr(_thread, name), name
    for name in thread.__imports__:
        assert getattr(thread, name) is getattr(_thread, name), name
    assert "_local" in thread.__implements__ and "_local" not in thread.__all__


@pytest.mark.engines("owned")
def test_a_native_thread_that_has_not_begun_to_run_may_still_wake_us() -> None:
    for _ in range(50):
        lock = thread.allocate_lock()
        lock.acquire()
        _thread.start_new_thread(lock.release, ())
        assert lock.acquire(timeout=10)
        lock.release()
        lock.acquire()
        _thread.start_new_thread(lock.release, ())
        assert lock.acquire(), "LoopExit: nobody was seen that could release it"
