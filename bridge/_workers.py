"""Native threads that make calls: what the pools and the executor of :mod:`bridge.threadpool` have in common.

Theory of operation
===================

*Crews.* A :class:`Crew` is a queue of calls and the threads that take from it. Any thread may add to it:
its numbers change under its lock, or atomically (in the sense of :mod:`bridge._core.waiting`).

*No call is overlooked.* Who adds a call first puts it into the queue and then looks whether there are
workers enough; a worker that is about to leave first takes itself out of ``size`` and then looks whether
the queue is empty. So one of them sees the other, whatever the order.

*Results* are set by the worker itself. Each waiter wakes in its own loop, whichever that is by then:
loops may come and go while a thread works. Two things go to the hub of who asked, by way of
``append_threadsafe``: the error that is to be printed, and the news that none of its calls is left
(:class:`Flights`), as calls in flight are reasons for a loop to go on. A greenlet that no longer wants the
result changes nothing in this: the worker gives the slot back when the call has ended.

*Leaving.* A None in the queue dismisses one worker, after the calls that were put before it. An orphaned
crew, whose pool is gone or whose process ends, hands one None round.

The way not taken is to deliver results through a callback in the hub of who asked, as gevent does. It
costs the same; but when a loop ends between call and result, which is common under ``asyncio.run``, the
result and its slot would be lost with it.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from _queue import Empty, SimpleQueue
from _thread import RLock, allocate_lock, get_ident, start_new_thread
from _thread import _local as ThreadLocal
from collections.abc import Callable
from contextvars import Context
from types import BuiltinFunctionType, CoroutineType
from typing import Any, TypeVar
from weakref import ref

from greenlet import greenlet

from ._aio.awaiting import await_
from ._core.callbacks import Callback
from ._core.clock import monotonic
from ._core.current import before_the_end
from ._core.engine import Engine
from ._core.errors import BlockingSwitchOutError
from ._core.hub import get_hub, get_hub_if_exists, hub_local, of_thread
from ._life import is_async
from ._threadwait import ThreadWait
from .event import Event

__all__ = [
    "Call",
    "Crew",
    "Flights",
    # originals, for modules that may be imported after patching
    "ThreadLocal",
    "WorkerGreenlet",
    "format_hub",
    "idle_worker_count",
    "register",
    "start_new_thread",
]

T = TypeVar("T")

# Debuggers and profilers wrap start_new_thread, which still starts native threads; who makes greenlets of
# threads has to replace get_ident as well.
if not isinstance(get_ident, BuiltinFunctionType):
    raise ImportError(
        f"_thread.get_ident is {get_ident!r}: bridge.threadpool needs native threads; "
        "import it before patching _thread"
    )

get_thread_profile = threading.getprofile
get_thread_trace = threading.gettrace

# Sets of weak references, not WeakSets: threads come and go while somebody looks; copying a set is atomic.
_owners: set[ref[Any]] = set()
_crews: set[ref[Crew]] = set()
_flights: set[ref[Flights]] = set()
_exiting = False


def idle_worker_count() -> int:
    """How many native threads of all pools wait for something to do. From any thread; never blocks."""
    return sum(max(crew.alive - crew.undelivered, 0) for crew in _living(_crews))


def _living(refs: set[ref[T]]) -> list[T]:
    return [obj for r in tuple(refs) if (obj := r()) is not None]


Engine.idle_threads = staticmethod(idle_worker_count)


# -- calls ---------------------------------------------------------------------------------------------


class Flights:
    """The calls that one hub has in flight: together one reason for its loop to go on."""

    __slots__ = ("__weakref__", "count", "held", "hub", "loop")

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.loop = hub.loop
        self.count = 0
        self.held = False
        _flights.add(ref(self, _flights.discard))

    def take_off(self) -> None:
        """A call begins; to be called in the hub's thread."""
        self.count += 1
        if not self.held:
            self.held = True
            self.loop.ref_add()

    def land(self) -> None:
        """A call has ended; from any thread."""
        self.count -= 1
        if not self.count:
            self.loop.append_threadsafe(Callback(self.settle, ()))

    def settle(self) -> None:
        """In the hub: drop the reference if nothing is in flight."""
        if self.held and not self.count:
            self.held = False
            self.loop.ref_drop()

    def forget(self) -> None:
        """In a forked child: none of the calls will ever land."""
        self.count = 0
        if self.loop is not None and self.loop.thread_ident == get_ident() and not self.loop.destroyed:
            self.settle()


class Call:
    """A function that a worker is to call; subclasses say where the result goes."""

    __slots__ = ("_token", "args", "context", "flights", "func", "kwargs", "result", "withdrawn")

    def __init__(self, func: Any, args: Any, kwargs: Any, result: Any, flights: Flights) -> None:
        self._token = [None]
        #: nobody will make it, as add() has failed
        self.withdrawn = False
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.result = result
        self.flights = flights
        #: what to run the function in; None: the worker's own context
        self.context: Context | None = None

    def claim(self) -> bool:
        """Make it one's own: true for the first who asks, from whatever thread."""
        try:
            self._token.pop()  # atomic
        except IndexError:
            return False
        return True

    def begin(self) -> bool:
        """In the worker: is the result still wanted?"""
        return True

    def succeed(self, value: Any) -> None:
        """In the worker: the function has returned."""
        raise TypeError(f"{type(self).__name__} must define succeed()")

    def fail(self, worker: greenlet | None, error: BaseException) -> None:
        """In the worker: the function has raised. Without one: there is none to call it."""
        raise TypeError(f"{type(self).__name__} must define fail()")


# -- threads -------------------------------------------------------------------------------------------


class Crew:
    """A queue of calls and the threads that work on it; see the module's theory.

    :param maxsize: how many threads there may be.
    :param idle_timeout: seconds after which a worker without work leaves; None: never.
    """

    __slots__ = (
        "__weakref__",
        "alive",
        "changed",
        "idle_timeout",
        "lock",
        "maxsize",
        "orphaned",
        "queue",
        "quitting",
        "size",
        "undelivered",
        "unfinished",
    )

    def __init__(self, maxsize: int, idle_timeout: float | None) -> None:
        self.maxsize = maxsize
        self.idle_timeout = idle_timeout
        self.queue: SimpleQueue[Call | None] = SimpleQueue()
        self.lock = RLock()  # reentrant: a collection that sets in may run anybody's finalizer
        #: workers that have not begun to leave; changed under the lock
        self.size = 0
        #: how many of them will leave: the Nones in the queue, or just taken from it; under the lock
        self.quitting = 0
        #: threads, those included that are about to end
        self.alive = 0
        #: calls that have not ended; what workers are needed for
        self.unfinished = 0
        #: calls whose results have not been set; lags a little behind
        self.undelivered = 0
        #: set when undelivered becomes 0, and when a thread has ended
        self.changed = Event()
        self.orphaned = False
        _crews.add(ref(self, _crews.discard))

    def add(self, call: Call, owner: Any) -> None:
        """Have a worker make the call. RuntimeError if there is none and no thread can be started."""
        flying = False
        self.unfinished += 1
        self.undelivered += 1
        try:
            if not self.size:
                try:
                    self.adjust(owner)
                except BaseException:
                    if not _exiting:
                        raise
                    # CPython 3.12 starts no thread any more: better here than not at all
                    call.flights.take_off()
                    owner._WorkerGreenlet(owner)._perform(call)
                    return
            call.flights.take_off()
            flying = True
            self.queue.put(call)
        except BaseException:
            # no thread can be started; or a signal handler has raised, and it may be in the queue
            if call.claim():
                call.withdrawn = True
                self.unfinished -= 1
                if flying:
                    self.done(call)
                else:
                    self.undelivered -= 1
            raise
        if self.unfinished > self.size - self.quitting and self.size < self.maxsize:
            try:
                self.adjust(owner)
            except RuntimeError as e:
                self._fail_queued(e)  # the last worker has left meanwhile

    def adjust(self, owner: Any, least: int = 0) -> None:
        """Start threads: one for each call, or ``least``; dismiss those that are too many."""
        with self.lock:
            while self.size < self.maxsize and self.size - self.quitting < max(self.unfinished, least):
                # in a list, as the arguments live as long as the thread, but the pool should not
                box = [owner]
                self.size += 1
                self.alive += 1
                try:
                    start_new_thread(_work, (box, self))
                except BaseException as e:
                    try:
                        box.pop()  # atomic; a thread that has been started all the same finds nothing to do
                    except IndexError:
                        raise e from None  # of a signal handler: the thread works already
                    self.size -= 1
                    self.alive -= 1
                    if not self.size or not isinstance(e, RuntimeError):
                        raise
                    break  # those who are there will get through the work
        self.dismiss(self.maxsize)

    def dismiss(self, remaining: int) -> None:
        """Have all workers but ``remaining`` leave after the calls that are in the queue now."""
        with self.lock:
            while self.size - self.quitting > remaining:
                self.quitting += 1
                self.queue.put(None)

    def may_leave(self, dismissed: bool) -> bool:
        """May a worker leave that was dismissed, or was idle for long? If so it is out of ``size``."""
        with self.lock:
            self.size -= 1
            if self.orphaned:
                self.queue.put(None)
                needed = self.unfinished > self.size
            else:
                if dismissed:
                    self.quitting -= 1
                needed = (
                    self.queue.qsize() > self.quitting  # there are calls, not only dismissals
                    and self.unfinished > self.size - self.quitting
                    and self.size < self.maxsize
                )
            if needed:
                self.size += 1
            return not needed

    def lost(self, error: BaseException) -> None:
        """A worker has failed to work: the calls fail if it was the only one."""
        with self.lock:
            self.size -= 1
            alone = not self.size
        if alone:
            self._fail_queued(error)

    def _fail_queued(self, error: BaseException) -> None:
        for call in self.drain():
            if call.claim():
                self.unfinished -= 1
                call.fail(None, error)
                self.done(call)

    def orphan(self) -> None:
        """Nobody will add a call any more. May be called at any point of any thread: takes no lock."""
        self.orphaned = True
        self.queue.put(None)

    def done(self, call: Call) -> None:
        """The result of a call has been set."""
        self.undelivered -= 1
        if not self.undelivered:
            self.changed.set()
        # last: from here on whoever waits for the above may be told that nothing can wake him
        call.flights.land()

    def drain(self) -> list[Call]:
        """Take all calls out of the queue."""
        calls = []
        dismissals = 0
        while True:
            try:
                call = self.queue.get_nowait()
            except Empty:
                break
            if call is None:
                dismissals += 1
            else:
                calls.append(call)
        for _ in range(dismissals):
            self.queue.put(None)
        return calls

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Block until ``condition()``, natively in a thread without a usable hub."""
        hub = get_hub_if_exists()
        if hub is None or hub.loop is None or hub.loop.is_closed():
            self._wait_natively(condition)
            return
        loop = get_hub().loop
        loop.ref_add()
        try:
            while not condition() and not _exiting:
                self.changed.clear()
                if not condition():
                    self.changed.wait()
        finally:
            loop.ref_drop()

    def shrink(self, most: int) -> None:
        """:meth:`dismiss`, and block until it is so; not where blocking is impossible."""

        def reached() -> bool:
            self.dismiss(most)  # again: others may go on adding calls, for which threads are started
            return self.alive <= most

        self.dismiss(most)
        try:
            self.wait_for(reached)
        except BlockingSwitchOutError:
            pass

    def _wait_natively(self, condition: Callable[[], bool]) -> None:
        while not condition() and not _exiting:
            wait = ThreadWait()
            self.changed._line_of_waiters().append(wait)
            if condition():
                wait.wake()
            wait.block()

    def heir(self) -> Crew:
        """In a forked child: an empty crew in place of this one."""
        return Crew(self.maxsize, self.idle_timeout)

    def forget(self) -> None:
        """In a forked child: the threads are gone, and with them the calls. Wakes who waits for either."""
        self.alive = self.size = self.quitting = self.unfinished = self.undelivered = 0
        self.changed.set()


def _work(box: list[Any], crew: Crew) -> None:
    """What a thread does, from beginning to end."""
    try:
        owner = box.pop()
    except IndexError:
        return  # given up by who has started it
    try:
        try:
            worker = owner._WorkerGreenlet(owner)
        finally:
            del owner
        worker.switch()
    except BaseException as e:
        _print_failure()
        crew.lost(e)
    finally:
        try:
            _end_hubs()
        except BaseException:
            _print_failure()
        crew.alive -= 1
        crew.changed.set()


def _print_failure() -> None:
    stream = sys.stderr
    if stream is not None:
        stream.write("Failed to run worker thread\n" + traceback.format_exc())


def _end_hubs() -> None:
    """Destroy the hubs that calls have made in this thread."""
    aside, of_thread.aside = of_thread.aside, ()
    for hub in (*aside, hub_local.hub):
        if hub is not None and hub.loop is not None:
            hub.destroy(destroy_loop=True)


class WorkerGreenlet(greenlet):
    """The greenlet in which a worker thread makes its calls."""

    def __init__(self, threadpool: Any) -> None:
        super().__init__()
        self._crew: Crew = threadpool._crew
        hub = threadpool.hub
        self._hub = ref(hub) if hub is not None else None
        self.thread_ident = get_ident()
        #: has the initializer of an executor been called here?
        self.initialized = False

    def __repr__(self) -> str:
        hub = self._hub() if self._hub is not None else None
        return (
            f"<ThreadPoolWorker at {id(self):#x} thread_ident={self.thread_ident:#x} "
            f"threadpool-hub={format_hub(hub)}>"
        )

    def run(self) -> None:
        """Make calls until there is nothing more to do here."""
        crew = self._crew
        take = crew.queue.get
        perform = self._perform
        patience = crew.idle_timeout
        while True:
            # for a hub that a call has made: neither waiting for work nor the next call itself blocks it
            hub = hub_local.hub
            if hub is not None and hub.periodic_monitoring_thread is not None:
                hub.periodic_monitoring_thread.ignore_current_greenlet_blocking()
            hub = None
            bridge_threadpool_worker_idle = True
            try:
                call = take(True, patience)
                dismissed = call is None
            except Empty:
                call = None
                dismissed = False
            bridge_threadpool_worker_idle = False  # noqa: F841 - bridge.util reads it in the frame
            if call is not None:
                perform(call)
                call = None
            elif crew.may_leave(dismissed):
                return

    def _perform(self, call: Call) -> None:
        """Make a call and see that its result arrives."""
        crew = self._crew
        if not call.claim():
            return
        if not call.begin():
            crew.unfinished -= 1
            crew.done(call)
            return
        func, args, kwargs, context = call.func, call.args, call.kwargs, call.context
        value: Any = None
        error: BaseException | None = None
        try:
            try:
                self._before_run_task(func, args, kwargs, call)
                value = func(*args, **kwargs) if context is None else context.run(func, *args, **kwargs)
                if type(value) is CoroutineType and is_async(func):
                    value = await_(value) if context is None else context.run(await_, value)
            finally:
                self._after_run_task(func, args, kwargs, call)
        except BaseException as e:
            error = e
        # before the result is there: who has it shall find the worker free
        crew.unfinished -= 1
        if error is None:
            # who has the result shall not find the arguments still alive
            del func, args, kwargs, context
            call.func = call.args = call.kwargs = call.context = None
            call.succeed(value)
        else:
            tb = error.__traceback__
            error.__traceback__ = tb.tb_next if tb is not None else None  # this frame is nobody's business
            call.fail(self, error)
        crew.done(call)
        # the frames in the traceback go on to refer to this one
        del call, error

    def _before_run_task(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        call: Any,
        _sys: Any = sys,
        _get_thread_profile: Callable[[], Any] = get_thread_profile,
        _get_thread_trace: Callable[[], Any] = get_thread_trace,
    ) -> None:
        """Set the profile and trace functions of the moment, for the time of one call."""
        # not with None: the setters are audited
        profile = _get_thread_profile()
        if profile is not None:
            _sys.setprofile(profile)
        trace = _get_thread_trace()
        if trace is not None:
            _sys.settrace(trace)

    def _after_run_task(self, func: Any, args: Any, kwargs: Any, call: Any, _sys: Any = sys) -> None:
        """Clear them, and what the call itself may have set."""
        if _sys.getprofile() is not None:
            _sys.setprofile(None)
        if _sys.gettrace() is not None:
            _sys.settrace(None)


def format_hub(hub: Any) -> str:
    """A short text for a hub: its own would show its pool, which shows the hub ..."""
    if hub is None:
        return "None"
    return f"<{type(hub).__name__} at {id(hub):#x} thread_ident={hub.thread_ident:#x}>"


# -- the process ---------------------------------------------------------------------------------------


def register(owner: Any) -> None:
    """See to it that ``owner``, a pool, is told of a fork."""
    _owners.add(ref(owner, _owners.discard))


def _after_fork() -> None:
    for owner in _living(_owners):
        owner._on_fork()
    for flights in _living(_flights):
        flights.forget()


def _at_exit() -> None:
    """End the threads that have nothing to do; the others are left to the end of the process.

    A thread that is idle while the interpreter is taken down is harmless; one that is just about to run
    is not always.
    """
    global _exiting
    _exiting = True
    crews = _living(_crews)
    for crew in crews:
        crew.orphan()
    pause = allocate_lock()
    pause.acquire()
    deadline = monotonic() + 0.5
    while any(crew.alive > crew.undelivered for crew in crews) and monotonic() < deadline:
        pause.acquire(True, 0.0005)


# the end of the hub would wait for its pool
before_the_end(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
