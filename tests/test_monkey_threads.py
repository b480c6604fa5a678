"""Patched threads, each script in a fresh process.

A script ends by printing what it has found; the test compares, and nothing else may have been written.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engines("none")

ROOT = Path(__file__).parents[1]

PATCH = """
from bridge import monkey
monkey.patch_all()
import threading, _thread, time, queue, logging, os, sys
import bridge
"""


def run(script: str, before: str = "", stderr: str | None = "", code: int = 0, loop: str = "") -> str:
    """What the script prints; *before* is what it does before it patches."""
    environment = dict(os.environ)
    if loop:
        environment["BRIDGE_LOOP"] = loop
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + PATCH + script],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    if stderr is not None:
        assert done.stderr == stderr
    assert done.returncode == code, done.stderr
    return done.stdout


# -- threads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_threads_are_greenlets(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    out = run(
        """
native = monkey.get_original("_thread", "get_ident")
seen = []
def work(n, event):
    me = threading.current_thread()
    assert native() == main_ident and isinstance(bridge.getcurrent(), bridge.Greenlet)
    assert threading.get_ident() == me.ident != main_ident
    assert me.native_id == threading.get_native_id() == threading.main_thread().native_id
    event.wait()
    seen.append((n, me.name, me.daemon))
main_ident = native()
assert threading.get_ident() == threading.main_thread().ident == main_ident
event = threading.Event()
threads = [threading.Thread(target=work, args=(i, event), name=f"t{i}", daemon=i == 1) for i in range(3)]
assert threads[0].ident is None and not threads[0].is_alive()
for t in threads:
    t.start()
assert all(t.is_alive() for t in threads)
assert threading.enumerate() == [threading.main_thread(), *threads] and threading.active_count() == 4
threads[0].join(0.001)
assert threads[0].is_alive()
event.set()
for t in threads:
    t.join()
assert not any(t.is_alive() for t in threads) and threading.active_count() == 1
try:
    threads[0].start()
except RuntimeError as e:
    seen.append(str(e))
print(seen)
""",
        loop=loop,
    )
    assert out == (
        "[(0, 't0', False), (1, 't1', True), (2, 't2', False), 'threads can only be started once']\n"
    )


def test_a_started_thread_has_run_until_it_blocks() -> None:
    out = run(
        """
seen = []
t = threading.Thread(target=lambda: (seen.append("ran"), time.sleep(0), seen.append("again")))
t.start()
print(seen)
t.join()
print(seen)
"""
    )
    assert out == "['ran']\n['ran', 'again']\n"


def test_classes_and_objects_of_before_are_greenlets_too() -> None:
    out = run(
        """
class_of_before = Sub(); class_of_before.start()
thread.start()
sleeping = Thread(target=time.sleep, args=(0.001,)); sleeping.start()
timer = threading.Timer(0.001, seen.append, ("timer",)); timer.start()
for t in (class_of_before, thread, sleeping, timer):
    t.join()
assert isinstance(thread, threading.Thread)
native = monkey.get_original("_thread", "get_ident")
assert seen.pop() == "timer"
print(seen == [native()] * 2)
""",
        before="""
import threading
from threading import Thread
from _thread import get_ident
seen = []
class Sub(threading.Thread):
    def run(self):
        seen.append(get_ident())
thread = threading.Thread(target=lambda: seen.append(get_ident()))
""",
    )
    assert out == "True\n"


def test_a_join_that_is_interrupted_does_not_end_the_thread() -> None:
    out = run(
        """
event = threading.Event()
t = threading.Thread(target=event.wait)
t.start()
try:
    with bridge.Timeout(0.001):
        t.join()
except bridge.Timeout:
    print(t.is_alive())
joiner = bridge.spawn(t.join)
bridge.sleep(0)
joiner.kill()
print(t.is_alive())
event.set()
t.join()
print(t.is_alive())
"""
    )
    assert out == "True\nTrue\nFalse\n"


def test_a_thread_may_be_started_where_nothing_may_block() -> None:
    out = run(
        """
import asyncio
def work():
    assert threading.current_thread() is threads[-1]
    seen.append("ran")
threads, seen = [], []
def start():
    threads.append(threading.Thread(target=work))
    threads[-1].start()
    assert threads[-1].is_alive() and threads[-1].ident and not seen
    assert threads[-1] in threading.enumerate()
bridge.get_hub().loop.run_callback(start)
bridge.sleep(0)
threads[-1].join()
print(seen, threads[-1].is_alive())
del seen[:]

async def main():
    start()
    await asyncio.sleep(0.001)
    return threads[-1].is_alive()
print(asyncio.run(main()), seen)
"""
    )
    assert out == "['ran'] False\nFalse ['ran']\n"


def test_plain_greenlets_have_dummy_threads() -> None:
    out = run(
        """
def work():
    me = threading.current_thread()
    return me is threading.current_thread(), me.daemon, me.name.startswith("Dummy-"), me.is_alive()
print(bridge.spawn(work).get(), bridge.spawn(work).get())
bridge.sleep(0)
print(threading.active_count())
"""
    )
    assert out == "(True, True, True, True) (True, True, True, True)\n1\n"


def test_errors_go_to_the_excepthook_and_kills_to_nobody() -> None:
    out = run(
        """
threading.excepthook = lambda args: print(args.exc_type.__name__, args.thread.name)
def fail():
    raise ValueError
for target in (fail, sys.exit, _thread.exit):
    t = threading.Thread(target=target, name="failing")
    t.start(); t.join()
def work():
    greenlets.append(bridge.getcurrent())
    time.sleep(10)
greenlets = []
t = threading.Thread(target=work)
t.start()
greenlets[0].kill()
t.join()
print(t.is_alive())
"""
    )
    assert out == "ValueError failing\nSystemExit failing\nFalse\n"


def test_keyboard_interrupt_reaches_the_main_greenlet() -> None:
    out = run(
        """
import signal
threading.excepthook = lambda args: None
def spin():
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass
for target in (_thread.interrupt_main, spin):
    t = threading.Thread(target=target)
    try:
        t.start()
        t.join()
        print("not interrupted")
    except KeyboardInterrupt:
        print("interrupted")
    t.join()
"""
    )
    assert out == "interrupted\ninterrupted\n"


def test_trace_functions_are_set_in_threads() -> None:
    out = run(
        """
seen = set()
def trace(frame, event, arg):
    seen.add((frame.f_code.co_name, event))
def work():
    pass
threading.settrace(trace)
t = threading.Thread(target=work)
t.start(); t.join()
threading.settrace(None)
sys.settrace(None)
threading.setprofile(lambda frame, event, arg: seen.add((frame.f_code.co_name, "profile", event)))
t = threading.Thread(target=work)
t.start(); t.join()
sys.setprofile(None)
print(("work", "call") in seen, ("work", "profile", "call") in seen)
"""
    )
    assert out == "True True\n"


# -- locks -----------------------------------------------------------------------------------------------


def test_all_of_threading_cooperates() -> None:
    out = run(
        """
seen = []
barrier = threading.Barrier(3)
semaphore = threading.BoundedSemaphore(1)
condition = threading.Condition()
lock, rlock = threading.Lock(), threading.RLock()
items = queue.Queue(1)
def work(n):
    barrier.wait()
    with semaphore, lock, rlock, rlock:
        time.sleep(0.001)
        seen.append(n)
    with condition:
        condition.notify_all()
    items.put(n)
threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
for t in threads:
    t.start()
with condition:
    assert condition.wait_for(lambda: len(seen) == 3, timeout=10)
assert sorted(items.get() for _ in threads) == [0, 1, 2]
for t in threads:
    t.join()
assert not lock.locked() and rlock._recursion_count() == 0
simple = queue.SimpleQueue()
threading.Timer(0.001, simple.put, ("item",)).start()
print(sorted(seen), simple.get())
local = threading.local()
local.x = 1
t = threading.Thread(target=lambda: print(hasattr(local, "x")))
t.start(); t.join()
"""
    )
    assert out == "[0, 1, 2] item\nFalse\n"


BEFORE_LOCKS = """
import threading, queue, tempfile, functools, logging, _thread
class Slots:
    __slots__ = ("lock",)
class Plain:
    shared = threading.Lock()
    reentrant = threading.RLock()
slots, plain = Slots(), Plain()
slots.lock = threading.Lock()
plain.lock = threading.Lock()
plain.acquire = plain.lock.acquire
plain.condition = threading.Condition()
plain.queue = queue.Queue()
module_lock = threading.Lock()
in_list = [threading.Lock()]
def closure():
    lock = threading.Lock()
    return lambda: lock
closure = closure()
in_tuple = (threading.Lock(),)
held = threading.Lock()
held.acquire()
held_rlock = threading.RLock()
held_rlock.acquire()
other = threading.Lock()
partial = functools.partial(other.acquire)
native_lock, native_rlock = type(_thread.allocate_lock()), _thread.RLock
"""


def test_free_locks_of_before_are_replaced() -> None:
    out = run(
        """
from bridge.thread import LockType
from bridge._threadlocks import RLock
q = plain.queue
for lock in (slots.lock, Plain.shared, plain.lock, module_lock, in_list[0], closure(), q.mutex):
    assert isinstance(lock, LockType), lock
assert plain.acquire.__self__ is plain.lock
assert isinstance(Plain.reentrant, RLock) and isinstance(plain.condition._lock, RLock)
assert plain.condition.acquire.__self__ is plain.condition._lock
assert q.mutex is q.not_empty._lock is q.not_full._lock is q.not_empty.release.__self__
t = threading.Thread(target=lambda: (time.sleep(0.001), q.put("item")))
t.start()
assert q.get() == "item"
def notify():
    with plain.condition:
        plain.condition.notify()
with plain.condition:
    threading.Thread(target=notify).start()
    assert plain.condition.wait(10)
print("replaced")
""",
        before=BEFORE_LOCKS,
    )
    assert out == "replaced\n"


def test_locks_that_are_held_or_referred_to_from_elsewhere_stay() -> None:
    out = run(
        """
for lock in (held, in_tuple[0], other, partial.func.__self__):
    assert type(lock) is native_lock, lock
assert type(held_rlock) is native_rlock
held.release()
held_rlock.release()
assert type(threading._active_limbo_lock) is native_rlock
import importlib._bootstrap
assert not any("bridge" in repr(lock) for lock in list(importlib._bootstrap._module_locks.values()))
print("kept")
""",
        before=BEFORE_LOCKS,
    )
    assert out == "kept\n"


def test_existing_locks_may_be_left_alone() -> None:
    out = run(
        "",
        before=BEFORE_LOCKS
        + """
from bridge import monkey
monkey.patch_thread(existing_locks=False, logging=False, Event=False, _threading_local=False)
import _threading_local
assert type(module_lock) is native_lock and type(logging._lock) is native_rlock
assert isinstance(threading.Event(), threading.Event) and not monkey.is_object_patched("threading", "Event")
assert not monkey.is_module_patched("_threading_local")
monkey.patch_thread()
assert type(module_lock) is not native_lock and monkey.is_object_patched("threading", "Event")
print("left alone")
import os; os._exit(0)
""",
        stderr=None,
    )
    assert out == "" or out == "left alone\n"


def test_native_threads_and_greenlets_share_the_locks() -> None:
    out = run(
        """
start_native = monkey.get_original("_thread", "start_new_thread")
lock, rlock, condition = threading.Lock(), threading.RLock(), threading.Condition()
done, inside, total = threading.Semaphore(0), [0], [0]
def work():
    for _ in range(200):
        with lock, rlock:
            inside[0] += 1
            assert inside[0] == 1
            total[0] += 1
            inside[0] -= 1
    with condition:
        condition.notify()
    done.release()
def greenlet():
    for _ in range(200):
        with lock:
            time.sleep(0)
    work()
for _ in range(3):
    start_native(work, ())
    threading.Thread(target=greenlet).start()
for _ in range(6):
    done.acquire()
from bridge._core.current import hub_local
hubs = []
event = threading.Event()
start_native(lambda: (work(), hubs.append(hub_local.hub), event.set()), ())
event.wait()
print(total, hubs)
"""
    )
    assert out == "[1400] [None]\n"


# -- threads of before -----------------------------------------------------------------------------------

BEFORE_NATIVE = """
import threading, _thread
stop, ready, seen = _thread.allocate_lock(), _thread.allocate_lock(), []
stop.acquire(); ready.acquire()
def work():
    me = threading.current_thread()
    ready.release()
    with stop:
        # its ident, and so what is registered under it, stays valid
        seen.append(threading.current_thread() is me and threading.get_ident() == me.ident)
native = threading.Thread(target=work, daemon=%s)
native.start()
ready.acquire()
"""


def test_a_native_thread_is_waited_for_by_the_greenlet_alone() -> None:
    out = run(
        """
assert native.is_alive() and native in threading.enumerate()
native.join(0.001)
try:
    with bridge.Timeout(0.001):
        native.join()
except bridge.Timeout:
    assert native.is_alive()
threading.Timer(0.001, stop.release).start()  # a greenlet
native.join()
print(seen, native.is_alive())
native.join()
""",
        before=BEFORE_NATIVE % "True",
    )
    assert out == "[True] False\n"


def test_the_end_of_the_interpreter_waits_for_native_threads_and_greenlets() -> None:
    out = run(
        """
def last():
    threading.main_thread().join()
    print("main has ended", flush=True)
    time.sleep(0.001)
    stop.release()
    native.join()
    print("last", seen, flush=True)
threading.Thread(target=last).start()
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
def too_late():
    t = threading.Thread(target=time.sleep, args=(0.001,))
    t.start(); t.join()
    print("hook", flush=True)
threading._register_atexit(too_late)
print("end of main", flush=True)
""",
        before=BEFORE_NATIVE % "False",
    )
    assert out == "end of main\nhook\nmain has ended\nlast [True]\n"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the end of a thread is no lock there")
def test_joiners_of_a_native_thread_do_not_get_in_each_others_way() -> None:
    """Each takes the lock of its end for a moment; here another one has it whenever it is looked at."""
    out = run(
        """
joins = [bridge.spawn(native.join) for _ in range(2)]
with bridge.Timeout(0.001, False):
    native.join()
assert native.is_alive()
stop.release()
bridge.joinall(joins, raise_error=True)
print(seen, native.is_alive(), native in threading.enumerate())
""",
        before=BEFORE_NATIVE % "False"
        + """
class Contended:
    def __init__(self, lock):
        self.lock, self.taken = lock, False
    def acquire(self, blocking=True, timeout=-1):
        return not self.taken and self.lock.acquire(blocking, timeout)
    def release(self):
        self.taken = True
    def locked(self):
        return self.taken or self.lock.locked()
ends = threading._shutdown_locks
ends.discard(native._tstate_lock)
native._tstate_lock = Contended(native._tstate_lock)
ends.add(native._tstate_lock)
""",
    )
    assert out == "[True] False False\n"


def test_waits_for_a_native_thread_leave_nothing_behind() -> None:
    out = run(
        """
before = len(sys._current_frames())
for _ in range(5):
    with bridge.Timeout(0.001, False):
        native.join()
    native.join(0.001)
assert native.is_alive()
print(len(sys._current_frames()) - before)
stop.release()
""",
        before=BEFORE_NATIVE % "False",
    )
    assert out == "1\n"  # that which waits for the thread, for all


def test_a_native_thread_that_forks_is_the_main_one_in_the_child() -> None:
    out = run(
        """
joins = [bridge.spawn(native.join) for _ in range(2)]
bridge.sleep(0)
stop.release()
bridge.joinall(joins, raise_error=True)
print(native.is_alive())
""",
        before="""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork() with threads, from Python 3.12 on
"""
        + BEFORE_NATIVE.replace("        seen.append(", "        fork(); _ = (") % "False"
        + """
def fork():
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        return
    try:
        assert threading.main_thread() is threading.current_thread() is native and native.is_alive()
        def last():
            native.join()
            print("the end of the child's main thread", flush=True)
        threading.Thread(target=last).start()
        threading._shutdown()
        os._exit(7)
    finally:
        os._exit(1)
""",
    )
    assert out == "the end of the child's main thread\nFalse\n"


def test_greenlets_run_while_the_end_of_the_interpreter_waits_for_a_native_thread() -> None:
    out = run(
        """
def release():
    print("a greenlet", flush=True)
    stop.release()
bridge.spawn(release)
""",
        before=BEFORE_NATIVE.replace("        seen.append(", "        print('native', ") % "False",
    )
    assert out == "a greenlet\nnative True\n"


def test_the_end_of_the_interpreter_waits_for_threads_that_were_started_where_nothing_may_block() -> None:
    out = run(
        """
def start():
    threading.Thread(target=print, args=("ran",)).start()
    threading.Thread(target=print, args=("a daemon",), daemon=True).start()
    main.switch()
main = bridge.getcurrent()
bridge.get_hub().loop.run_callback(start)
bridge.get_hub().switch()
print("end of main")
"""
    )
    assert out.startswith("end of main\nran\n")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_asyncio_run_is_in_the_main_thread_also_if_greenlets_were_first(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    out = run(
        """
import asyncio
async def main():
    me = threading.current_thread()
    return me is threading.main_thread(), threading.get_ident() == me.ident, threading.active_count()
time.sleep(0)  # from now on the loop runs in a greenlet of its own
print(asyncio.run(main()))
print(bridge.spawn(lambda: asyncio.run(main())).get())
""",
        loop=loop,
    )
    assert out == "(True, True, 1)\n(True, True, 1)\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_asyncio_run_in_a_thread_is_in_that_thread(loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    out = run(
        """
import asyncio
def here():
    return threading.current_thread().name, threading.get_ident() == threading.current_thread().ident
async def main(started):
    loop = asyncio.get_running_loop()
    called, ended = loop.create_future(), asyncio.Event()
    loop.call_soon(lambda: called.set_result(here()))
    async def child():
        return here()
    started(loop, ended, threading.get_ident())
    await ended.wait()
    return here(), await called, await asyncio.create_task(child()), loop is bridge.get_hub().aio_loop
told = []
ready = threading.Event()
def note(*args):
    told.extend(args)
    ready.set()
thread = threading.Thread(target=lambda: print(asyncio.run(main(note))), name="T")
thread.start()
ready.wait()
loop, ended, ident = told
print(ident == thread.ident, ident == threading.get_ident())  # as anyio's portals find out who is calling
loop.call_soon_threadsafe(ended.set)
thread.join()
async def name():
    return here()
print(asyncio.run(name()))
# nothing is left of the thread
async def later(told):
    me, loop = threading.current_thread(), asyncio.get_running_loop()
    def look():
        loop.call_soon(look) if me.is_alive() else told.set(here()[0])
    loop.call_soon(look)
from bridge.event import AsyncResult
late = AsyncResult()
threading.Thread(target=lambda: asyncio.run(later(late)), name="short").start()
print(late.get())
""",
        loop=loop,
    )
    assert out == (
        "True False\n(('T', True), ('T', True), ('T', True), True)\n('MainThread', True)\nMainThread\n"
    )


def test_patching_in_another_thread_warns() -> None:
    out = run(
        "",
        before="""
import threading, warnings
def patch():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from bridge import monkey
        monkey.patch_thread()
    print(*(str(w.message).partition(".")[0] for w in caught), sep="|")
    me = threading.current_thread()
    t = threading.Thread(target=lambda: print(threading.current_thread() is not me))
    t.start(); t.join()
t = threading.Thread(target=patch)
t.start(); t.join()
import sys; sys.exit()
""",
    )
    warned, ran = out.splitlines()
    assert warned == (
        "Monkey-patching outside the main native thread|Monkey-patching not on the main thread; threading"
    )
    assert ran == "True"


# -- pools -----------------------------------------------------------------------------------------------


def test_pools_of_concurrent_futures_use_greenlets() -> None:
    out = run(
        """
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
native = monkey.get_original("_thread", "get_ident")
main = native()
def work(n):
    time.sleep(0.001 * n)
    return n, native() == main
with ThreadPoolExecutor(3) as pool:
    futures = [pool.submit(work, n) for n in (3, 2, 1)]
    print([f.result() for f in as_completed(futures)])
    print(list(pool.map(work, range(2))))
    print(len(wait(futures).done))
left_open = ThreadPoolExecutor(1)  # the end of the interpreter ends it
print(left_open.submit(work, 0).result())

from bridge.threadpool import ThreadPoolExecutor as Native
with Native(1) as pool:
    print(pool.submit(work, 0).result())
"""
    )
    assert out == ("[(1, True), (2, True), (3, True)]\n[(0, True), (1, True)]\n3\n(0, True)\n(0, False)\n")


# -- logging ---------------------------------------------------------------------------------------------


def test_logging_waits_for_greenlets_but_never_in_the_hub() -> None:
    out = run(
        """
import asyncio
class Slow(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("slow"):
            time.sleep(0.005)
        print(record.getMessage(), flush=True)
for handler in (early, Slow()):
    logging.getLogger().handlers[:] = [handler]
    handler.emit = Slow.emit.__get__(handler)
    slow = threading.Thread(target=logging.warning, args=("slow",))
    slow.start()
    waiting = threading.Thread(target=logging.warning, args=("waiting",))
    waiting.start()
    bridge.get_hub().loop.run_callback(logging.warning, "in the hub")
    async def log():
        logging.warning("in a coroutine")
    asyncio.run(log())
    slow.join(); waiting.join()
    assert not handler.lock._is_owned() and handler.lock._borrowed == 0
""",
        before="import logging\nearly = logging.StreamHandler()\nlogging.getLogger().addHandler(early)\n",
    )
    assert sorted(out.splitlines()[:2]) == ["in a coroutine", "in the hub"]
    assert out.splitlines()[2:4] == ["slow", "waiting"]
    assert len(out.splitlines()) == 8


def test_logging_at_the_end_of_the_interpreter() -> None:
    out = run(
        """
class Logs:
    def __del__(self):
        logging.warning("finalized")
logging.basicConfig(stream=sys.stdout, format="%(message)s")
kept = Logs()
kept.itself = kept
sys.kept = kept
handler = logging.Handler()
"""
    )
    assert out in ("", "finalized\n")


# -- fork ------------------------------------------------------------------------------------------------


def test_threads_do_not_get_into_a_forked_child() -> None:
    out = run(
        """
parent = os.getpid()
lock, items, events, go = threading.Lock(), queue.Queue(), [], threading.Event()
def sleeps():
    try:
        time.sleep(0.01)
    finally:
        events.append("slept")
def gets():
    try:
        events.append(items.get())
    finally:
        events.append("got")
def holds():
    with lock:
        go.wait()
def unstarted():
    events.append("started")
def child():
    del events[:]
    plain = bridge.spawn(lambda: events.append("a plain greenlet"))
    assert threading.enumerate() == [threading.current_thread()]
    assert not any(t.is_alive() for t in threads)
    for t in threads:
        t.join()
    items.put("child")
    time.sleep(0.02)
    assert (items.get_nowait(), events) == ("child", ["a plain greenlet"]), events
    assert not lock.acquire(timeout=0.001)
    t = threading.Thread(target=events.append, args=("new",))
    t.start(); t.join()
    assert events[1:] == ["new"]
    assert threading.main_thread() is threading.current_thread()
threads = [threading.Thread(target=f) for f in (sleeps, gets, holds)]
for t in threads:
    t.start()
_thread.start_new_thread(unstarted, ())
def fork():
    pid = os.fork()
    if not pid:
        status = 1
        try:
            child()
            status = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitpid(pid, 0)[1]
assert fork() == 0
statuses = []
t = threading.Thread(target=lambda: statuses.append(fork()))
threads.append(t)
def child_of_thread():
    assert threading.current_thread() is threading.main_thread() is t and t.is_alive()
    del threads[-1]
    child_of_main()
child_of_main, child = child, child_of_thread
t.start(); t.join()
del threads[-1]
items.put("parent")
go.set()
for t in threads:
    t.join()
print(statuses, sorted(events))
"""
    )
    assert out == "[0] ['got', 'parent', 'slept', 'started']\n"


def test_nothing_switches_inside_a_fork() -> None:
    out = run(
        """
import concurrent.futures.thread
switched = []
def hold():
    with logging._lock, concurrent.futures.thread._global_shutdown_lock:
        time.sleep(0.001)
t = threading.Thread(target=hold)
t.start()
os.register_at_fork(before=lambda: switched.append("before"))
others = bridge.spawn(switched.append, "switched")
pid = os.fork()
if not pid:
    os._exit(0)
print(switched)
os.waitpid(pid, 0)
t.join()
"""
    )
    assert out == "['before']\n"


def test_a_greenlet_may_fork_and_end_first_in_the_child() -> None:
    out = run(
        """
g = bridge.spawn(os.fork)
g.join()
if not g.value:
    t = threading.Thread(target=time.sleep, args=(0,))
    t.start(); t.join()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(g.value, 0)[1]))
"""
    )
    assert out == "7\n"


def test_a_greenlet_that_holds_a_handlers_lock_goes_on_in_the_child() -> None:
    out = run(
        """
handler = logging.Handler()
held = threading.Event()
def hold():
    with handler.lock, logging._lock:
        held.set()
        time.sleep(0.001)
    return "released"
g = bridge.spawn(hold)
held.wait()
pid = os.fork()
released = g.get()
if not pid:
    with handler.lock:
        os._exit(released == "released")
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), released)
"""
    )
    assert out == "1 released\n"


def test_in_a_forked_child_the_greenlet_that_forked_is_the_main_thread(run_fresh: Any) -> None:
    out = run_fresh("""
        from bridge import monkey
        monkey.patch_all()
        import os, threading, warnings
        import bridge
        warnings.simplefilter("ignore", DeprecationWarning)  # fork() with threads, from Python 3.12 on
        def fork():
            threading.current_thread()  # as logging does: from here on there is a dummy
            pid = os.fork()
            if pid:
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
                return
            main = threading.main_thread()
            assert main is threading.current_thread() and threading.enumerate() == [main]
            print(type(main).__name__, main.name, main.is_alive(), main.daemon, flush=True)
            threading.Thread(target=print, args=["a thread"], kwargs={"flush": True}).start()
            raise SystemExit(7)  # after the threads have ended
        bridge.spawn(fork).get()
        print(type(threading.current_thread()).__name__)
    """)
    assert out.splitlines() == ["_MainThread MainThread True False", "a thread", "_MainThread"]


# -- the end of the process --------------------------------------------------------------------------------


def test_functions_for_the_end_of_the_process_have_the_hub_and_the_threads() -> None:
    """Also those that were registered before there was a hub."""
    out = run(
        """
import atexit, socket

@atexit.register
def end():
    stop.set()
    thread.join()
    print("joined", bridge.spawn(int, "7").get(), bridge.get_hub().threadpool.apply(int, ("5",)))
    print(socket.getaddrinfo("127.0.0.1", 80)[0][4])

def work():
    stop.wait()
    print("stopped")

stop = threading.Event()
thread = threading.Thread(target=work, daemon=True)
thread.start()
bridge.get_hub().threadpool.apply(int)
"""
    )
    assert out == "stopped\njoined 7 5\n('127.0.0.1', 80)\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_end_with_what_they_put_into_queues_delivered(method: str, tmp_path: Path) -> None:
    """The thread that feeds a queue is a greenlet, joined when the process ends."""
    program = tmp_path / "program.py"
    program.write_text(
        "from bridge import monkey; monkey.patch_all()\n"
        "import multiprocessing, sys\n"
        "def child(q):\n"
        "    q.put('x' * 100000)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context(sys.argv[1])\n"
        "    q = context.Queue()\n"
        "    process = context.Process(target=child, args=(q,))\n"
        "    process.start()\n"
        "    print(len(q.get()), flush=True)\n"
        "    process.join()\n"
        "    print(process.exitcode)\n"
        "    q.put('ours')\n"
    )
    command = [sys.executable, "-W", "error", str(program), method]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr, done.returncode) == ("100000\n0\n", "", 0)


# -- what patching loads ---------------------------------------------------------------------------------


def test_the_tools_for_looking_at_programs_load_when_they_are_used_and_work_natively() -> None:
    out = run(
        """
tools = {"bridge._monitor", "bridge.util", "pprint", "dataclasses"}
if sys.version_info >= (3, 14):
    tools.discard("dataclasses")  # asyncio itself needs it there
print(sorted(tools & sys.modules.keys()))
hub = bridge.get_hub()
monitor = hub.start_periodic_monitoring_thread()
native = monkey.get_original("_thread", "get_ident")
seen = []
started = bridge.event.Event()

def look(hub):
    seen.append((native() != hub.thread_ident, bridge.getcurrent().parent is None))
    started.set()

monitor.add_monitoring_function(look, 0.001)
print(started.wait(30), seen[0])
monitor.kill()
"""
    )
    assert out == "[]\nTrue (True, True)\n"
