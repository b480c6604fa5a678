"""Native threads for functions that block or compute; twin of :mod:`gevent.threadpool`.

Theory of operation
===================

*Crews.* A :class:`_Crew` is a queue of calls and the threads that take from it. Any thread may add to
it: its numbers change under its lock or atomically (in the sense of :mod:`bridge._core.waiting`). A
:class:`ThreadPool` is a crew for the greenlets of one thread, with a limit on the calls that wait; a
:class:`ThreadPoolExecutor` one for everybody, with futures and without that limit.

*No call is overlooked.* Who adds a call first puts it into the queue and then looks whether there are
workers enough; a worker that is about to leave first takes itself out of ``size`` and then looks whether
the queue is empty. So one of them sees the other, whatever the order.

*Results* are set by the worker itself. Each waiter wakes in its own loop, whichever that is by then:
loops may come and go while a thread works. Two things go to the hub of who asked, by way of
``append_threadsafe``: the error that is to be printed, and the news that none of its calls is left
(:class:`_Flights`), as calls in flight are reasons for a loop to go on. A greenlet that no longer wants
the result changes nothing in this: the worker gives the slot back when the call has ended.

*Leaving.* A None in the queue dismisses one worker, after the calls that were put before it. An orphaned
crew, whose pool is gone or whose process ends, hands one None round.

The way not taken is to deliver results through a callback in the hub of who asked, as gevent does. It
costs the same; but when a loop ends between call and result, which is common under ``asyncio.run``, the
result and its slot would be lost with it.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import concurrent.futures.thread
import os
import sys
import threading
import traceback
from _queue import Empty, SimpleQueue
from _thread import RLock, allocate_lock, get_ident, start_new_thread
from collections.abc import Callable, Generator, Mapping, Sequence
from contextvars import Context, copy_context
from operator import index
from time import monotonic
from types import BuiltinFunctionType, CoroutineType
from typing import Any, Generic, TypeVar
from weakref import ref

from greenlet import getcurrent, greenlet

from ._aio.awaiting import await_
from ._config import config
from ._core.callbacks import Callback
from ._core.errors import BlockingSwitchOutError, InvalidThreadUseError
from ._core.hub import get_hub, get_hub_if_exists, hub_local
from ._core.waiting import Wait, WaitLine
from .event import AsyncResult, Event
from .greenlet import Greenlet, _is_async
from .lock import Semaphore
from .pool import GroupMappingMixin

__all__ = ["ThreadPool", "ThreadPoolExecutor", "ThreadResult"]

T = TypeVar("T")

if not isinstance(start_new_thread, BuiltinFunctionType):
    raise ImportError(
        f"_thread.start_new_thread is {start_new_thread!r}: bridge.threadpool needs native threads and has to be "
        "imported before _thread is patched"
    )

_get_thread_profile = threading.getprofile
_get_thread_trace = threading.gettrace

#: What locks of threading are as long as nobody has patched it.
_NATIVE_LOCK = threading.Lock

# Sets of weak references, not WeakSets: threads come and go while somebody looks, and copying a set is atomic.
_owners: set[ref[Any]] = set()
_crews: set[ref[_Crew]] = set()
_exiting = False


def idle_worker_count() -> int:
    """How many native threads of all pools wait for something to do. From any thread; never blocks."""
    return sum(max(crew.alive - crew.undelivered, 0) for crew in _living(_crews))


def _living(refs: set[ref[T]]) -> list[T]:
    return [obj for r in tuple(refs) if (obj := r()) is not None]


# -- calls ---------------------------------------------------------------------------------------------


class _Flights:
    """The calls that one hub has in flight: together one reason for its loop to go on."""

    __slots__ = ("count", "held", "hub", "loop")

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.loop = hub.loop
        self.count = 0
        self.held = False

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
        if self.loop.thread_ident == get_ident() and not self.loop.destroyed:
            self.settle()


class _Call:
    """A function that a worker is to call, and where its result goes."""

    __slots__ = ("args", "context", "flights", "func", "kwargs", "result", "slots")

    def __init__(
        self, func: Any, args: Any, kwargs: Any, result: Any, flights: _Flights, slots: Semaphore | None
    ) -> None:
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.result = result
        self.flights = flights
        self.slots = slots
        self.context: Context | None = None

    def begin(self) -> bool:
        """In the worker: is the result still wanted?"""
        return True

    def succeed(self, value: Any) -> None:
        """In the worker: the function has returned."""
        # who has the result shall not find the arguments still alive
        self.func = self.args = self.kwargs = self.context = None
        self.slots.release()  # type: ignore[union-attr]
        self.result.set(value)

    def fail(self, worker: greenlet, error: BaseException) -> None:
        """In the worker: the function has raised."""
        self.slots.release()  # type: ignore[union-attr]
        info = (type(error), error, error.__traceback__)
        hub = self.flights.hub
        # queued before the result is set: printed before anybody handles it
        self.flights.loop.append_threadsafe(Callback(_report, (hub, (worker, self.func), *info)))
        self.result.set_exception(error, info)


class _Answer:
    """The result of :meth:`ThreadPool.apply`: an AsyncResult reduced to one waiter that is there already."""

    __slots__ = ("error", "value", "wait")

    def __init__(self) -> None:
        self.wait = Wait()
        self.value: Any = None
        self.error: BaseException | None = None

    def set(self, value: Any) -> None:
        self.value = value
        self.wait.wake()

    def set_exception(self, error: BaseException, exc_info: Any) -> None:
        self.error = error
        self.wait.wake()

    def get(self) -> Any:
        self.wait.block()
        error = self.error
        if error is None:
            return self.value
        self.error = None
        try:
            raise error
        finally:
            del error  # the traceback refers to this frame


def _report(hub: Any, *error: Any) -> None:
    # handle_error is looked up now: programs assign it
    hub.handle_error(*error)


class _FutureCall(_Call):
    """A call whose result goes to a future."""

    __slots__ = ()

    def begin(self) -> bool:
        return bool(self.result.set_running_or_notify_cancel())

    def succeed(self, value: Any) -> None:
        self.func = self.args = self.kwargs = None
        self.result.set_result(value)

    def fail(self, worker: greenlet, error: BaseException) -> None:
        self.result.set_exception(error)


# -- threads -------------------------------------------------------------------------------------------


class _NativeWait:
    """A wait of a thread that has no hub and needs none: the thread blocks."""

    __slots__ = ("dead", "lock", "woken")

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self.lock.acquire()
        self.woken = self.dead = False

    def block(self, timeout: float | None = None) -> bool:
        return self.lock.acquire(True, -1 if timeout is None else max(timeout, 0))

    def wake(self) -> None:
        if not self.woken:  # atomic
            self.woken = True
            self.lock.release()


class _Crew:
    """A queue of calls and the threads that work on it; see the module's theory."""

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

    def __init__(self, maxsize: int, idle_timeout: float) -> None:
        self.maxsize = maxsize
        #: seconds after which an idle worker leaves; None: never
        self.idle_timeout = idle_timeout if idle_timeout >= 0 else None
        self.queue: SimpleQueue[_Call | None] = SimpleQueue()
        self.lock = RLock()  # reentrant: a collection that sets in may run anybody's finalizer
        #: workers that have not begun to leave. Under the lock
        self.size = 0
        #: how many of them will leave: the number of Nones in the queue, or just taken from it
        self.quitting = 0
        #: threads, those included that are about to end
        self.alive = 0
        #: calls that have not ended; what workers are needed for
        self.unfinished = 0
        #: calls whose results have not been set; lags a little behind
        self.undelivered = 0
        #: set when undelivered is 0, and when a thread has ended
        self.changed = Event()
        self.orphaned = False
        _crews.add(ref(self, _crews.discard))

    def add(self, call: _Call, owner: Any) -> None:
        """Have a worker make the call. RuntimeError if there is none and no thread can be started."""
        self.unfinished += 1
        self.undelivered += 1
        if not self.size:
            try:
                self.adjust(owner)
            except BaseException:
                self.unfinished -= 1
                self.undelivered -= 1
                raise
        call.flights.take_off()
        self.queue.put(call)
        if self.unfinished > self.size - self.quitting and self.size < self.maxsize:
            self.adjust(owner)

    def adjust(self, owner: Any, least: int = 0) -> None:
        """Start threads: one for each call, or ``least``; dismiss those that are too many."""
        with self.lock:
            while self.size < self.maxsize and self.size - self.quitting < max(self.unfinished, least):
                self.size += 1
                self.alive += 1
                try:
                    # in a list, as the arguments live as long as the thread, but the pool should not
                    start_new_thread(_work, ([owner], self))
                except BaseException:
                    self.size -= 1
                    self.alive -= 1
                    if not self.size:
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
        """A worker has been dismissed or has been idle for long: may it leave? If so it is out of ``size``."""
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

    def orphan(self) -> None:
        """Nobody will add a call any more. May be called at any point of any thread: takes no lock."""
        self.orphaned = True
        self.queue.put(None)

    def done(self, call: _Call) -> None:
        """The result of a call has been set."""
        self.undelivered -= 1
        if not self.undelivered:
            self.changed.set()
        # last: from here on whoever waits for the above may be told that nothing can wake him
        call.flights.land()

    def drain(self) -> list[_Call]:
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
        """Block until ``condition()``; not at all where blocking is impossible or the process ends."""
        hub = get_hub_if_exists()
        if hub is None or hub.loop is None:
            self._wait_natively(condition)
            return
        loop = get_hub().loop
        loop.ref_add()
        try:
            while not condition() and not _exiting:
                self.changed.clear()
                if not condition():
                    self.changed.wait()
        except BlockingSwitchOutError:
            pass
        finally:
            loop.ref_drop()

    def _wait_natively(self, condition: Callable[[], bool]) -> None:
        while not condition() and not _exiting:
            wait = _NativeWait()
            self.changed._line_of_waiters().append(wait)
            if condition():
                wait.wake()
            wait.block()

    def forget(self) -> None:
        """In a forked child: the threads are gone, and with them the calls."""
        self.alive = self.size = self.quitting = self.unfinished = self.undelivered = 0
        self.changed.set()


def _work(box: list[Any], crew: _Crew) -> None:
    """What a thread does, from beginning to end."""
    try:
        owner = box.pop()
        try:
            worker = owner._WorkerGreenlet(owner)
        finally:
            del owner
        worker.switch()
    except BaseException:
        with crew.lock:
            crew.size -= 1
        _print_failure(sys.stderr)
    finally:
        try:
            _end_hubs()
        except BaseException:
            _print_failure(sys.stderr)
        crew.alive -= 1
        crew.changed.set()


def _print_failure(stream: Any) -> None:
    if stream is not None:
        stream.write("Failed to run worker thread\n" + traceback.format_exc())


def _end_hubs() -> None:
    """Destroy the hubs that calls have made in this thread."""
    aside, hub_local.aside = hub_local.aside, ()
    for hub in (*aside, hub_local.hub):
        if hub is not None and hub.loop is not None:
            hub.destroy(destroy_loop=True)


class _WorkerGreenlet(greenlet):
    """The greenlet in which a worker thread makes its calls."""

    def __init__(self, threadpool: Any) -> None:
        super().__init__()
        self._crew: _Crew = threadpool._crew
        hub = threadpool.hub
        self._hub = ref(hub) if hub is not None else _no_hub
        self.thread_ident = get_ident()
        #: has the initializer of an executor been called here?
        self.initialized = False

    def __repr__(self) -> str:
        return (
            f"<ThreadPoolWorker at {id(self):#x} thread_ident={self.thread_ident:#x} "
            f"threadpool-hub={_format_hub(self._hub())}>"
        )

    def run(self) -> None:
        crew = self._crew
        take = crew.queue.get
        perform = self._perform
        patience = crew.idle_timeout
        while True:
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

    def _perform(self, call: _Call) -> None:
        """Make a call and see that its result arrives."""
        crew = self._crew
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
                if type(value) is CoroutineType and _is_async(func):
                    value = await_(value) if context is None else context.run(await_, value)
            finally:
                self._after_run_task(func, args, kwargs, call)
        except BaseException as e:
            error = e
        # before the result is there: who has it shall find the worker free
        crew.unfinished -= 1
        if error is None:
            del func, args, kwargs, context
            call.succeed(value)
        else:
            # without this frame, which is nobody's business and would make a cycle
            tb = error.__traceback__
            error.__traceback__ = tb.tb_next if tb is not None else None
            call.fail(self, error)
        crew.done(call)

    def _before_run_task(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        call: Any,
        _sys: Any = sys,
        _get_thread_profile: Callable[[], Any] = _get_thread_profile,
        _get_thread_trace: Callable[[], Any] = _get_thread_trace,
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


def _no_hub() -> None:
    return None


def _format_hub(hub: Any) -> str:
    if hub is None:
        return "None"
    return f"<{type(hub).__name__} at {id(hub):#x} thread_ident={hub.thread_ident:#x}>"


# -- pools ---------------------------------------------------------------------------------------------


class ThreadPool(GroupMappingMixin):
    """A pool of native threads for the greenlets and coroutines of one thread.

    :param maxsize: how many threads there may be. They are started when they are needed. ValueError if negative,
        TypeError if no integer. May be changed later.
    :param hub: the hub whose greenlets use the pool; this thread's by default.
    :param idle_task_timeout: seconds after which a thread that has nothing to do ends; -1: never.

    ``get_hub().threadpool`` is a pool that is always there. All methods of
    :class:`bridge.pool.Pool` for running functions are here, too. Only the thread that the hub belongs to may
    use the pool; elsewhere, and in the pool's own threads, :meth:`apply` calls the function directly.

    An exception that a function raises is printed as well as given to who asks for the result. While it runs,
    the functions given to :func:`threading.setprofile` and :func:`threading.settrace` are in force. A
    function that blocks by means of bridge gets a hub of its own in the thread. The threads
    do not keep the interpreter from exiting.

    ``len(pool)`` is the number of calls that have not ended; a pool without any is false.
    """

    _WorkerGreenlet = _WorkerGreenlet

    def __init__(self, maxsize: int, hub: Any = None, idle_task_timeout: float = -1) -> None:
        _check_maxsize(maxsize)
        self.hub = hub if hub is not None else get_hub()
        self.pid = os.getpid()
        #: the greenlet that waits until the threads are no more than ``maxsize``, None while there is none
        self.manager: Greenlet[None] | None = None
        self._thread: int = self.hub.thread_ident
        self._crew = _Crew(maxsize, idle_task_timeout)
        # One call more than there are threads may wait, so that a thread finds its next one at once.
        self._slots = Semaphore(maxsize + 1)
        self._flights = _Flights(self.hub)
        _register(self)

    def __del__(self) -> None:
        crew = getattr(self, "_crew", None)
        if crew is not None:
            crew.orphan()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} at {id(self):#x} tasks={len(self)} size={self.size} "
            f"maxsize={self.maxsize} hub={_format_hub(self.hub)}>"
        )

    def __len__(self) -> int:
        return self._crew.unfinished

    # -- size -----------------------------------------------------------------------------------

    @property
    def maxsize(self) -> int:
        """How many threads there may be. One call more may be in the pool; then :meth:`spawn` blocks.

        Setting it does not block: threads that are too many leave when they are done.
        """
        return self._crew.maxsize

    @maxsize.setter
    def maxsize(self, value: int) -> None:
        _check_maxsize(value)
        self._slots.counter += value - self._crew.maxsize
        self._crew.maxsize = value
        self.adjust()
        self._slots._link_left()

    @property
    def size(self) -> int:
        """How many threads there are.

        Setting it starts or ends threads and, for the latter, blocks until they have ended. ValueError if it
        is negative or more than ``maxsize``.
        """
        return self._crew.size

    @size.setter
    def size(self, value: int) -> None:
        value = index(value)
        if value < 0:
            raise ValueError(f"Size of the pool cannot be negative: {value!r}")
        if value > self.maxsize:
            raise ValueError(f"Size of the pool cannot be bigger than maxsize: {value!r} > {self.maxsize!r}")
        crew = self._crew
        crew.adjust(self, value)
        crew.dismiss(value)
        crew.wait_for(lambda: crew.alive <= value)

    def _adjust_step(self) -> None:
        """Start the threads that are missing, dismiss those that are too many. Does not block."""
        self._crew.adjust(self)

    def adjust(self) -> None:
        """Have as many threads as there is work for, but no more than ``maxsize``. Does not block."""
        self._adjust_step()
        crew = self._crew
        if crew.size > crew.maxsize and not self.manager and get_hub_if_exists() is self.hub:
            self.manager = Greenlet.spawn(self._await_adjusted)

    def _await_adjusted(self) -> None:
        crew = self._crew
        try:
            crew.wait_for(lambda: crew.alive <= crew.maxsize)
        finally:
            self.manager = None

    # -- calls ----------------------------------------------------------------------------------

    def spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> AsyncResult[Any]:
        """Have a thread call ``func(*args, **kwargs)``; return an AsyncResult for what comes of it.

        Blocks the greenlet while the pool is full, that is while it has more calls than ``maxsize``. Raises
        InvalidThreadUseError in another thread than that of the pool's hub. A coroutine function may be
        given, too; it runs on a loop of the thread's own.
        """
        result: AsyncResult[Any] = AsyncResult()
        self._submit(func, args, kwargs, result)
        return result

    def _submit(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if get_ident() != self._thread:
            raise InvalidThreadUseError(
                f"{self!r}.spawn() was called in the thread {get_ident():#x}; a pool belongs to the thread of its "
                "hub: use get_hub().threadpool here, or a ThreadPoolExecutor, which any thread may use"
            )
        hub = get_hub()
        if hub is not self.hub:
            # the loop of the thread has changed
            self.hub = hub
            self._flights = _Flights(hub)
        slots = self._slots
        slots.acquire()
        call = _Call(func, args, kwargs, result, self._flights, slots)
        if config.inherit_context:
            call.context = copy_context()
        try:
            self._crew.add(call, self)
        except BaseException:
            slots.release()
            raise

    def apply(
        self,
        func: Callable[..., T],
        args: Sequence[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
    ) -> T:
        """Have a thread call ``func(*args, **kwds)``, wait for it and return its result, or raise what it raised.

        In other threads than that of the pool's hub, so in the pool's own, ``func`` is called at once and
        in place. Blocks the greenlet. One that is killed, or has a Timeout, leaves the call to the thread.
        """
        if get_ident() != self._thread:
            return super().apply(func, args, kwds)
        answer = _Answer()  # refuses where nothing may block, before anything has begun
        self._submit(func, args or (), kwds or {}, answer)
        return answer.get()  # type: ignore[no-any-return]

    def apply_e(
        self,
        expected_errors: Any,
        function: Callable[..., T],
        args: Any = None,
        kwargs: Any = None,
    ) -> T:
        """:meth:`apply`; ``expected_errors`` is ignored. For old programs."""
        return self.apply(function, args, kwargs)

    def _apply_immediately(self) -> bool:
        return get_ident() != self._thread

    def _apply_async_use_greenlet(self) -> bool:
        return True  # spawn may block

    def _apply_async_cb_spawn(self, callback: Callable[[Any], object], result: Any) -> None:
        callback(result)

    # -- end ------------------------------------------------------------------------------------

    def join(self) -> None:
        """Wait until all calls have ended. Blocks the greenlet."""
        crew = self._crew
        crew.wait_for(lambda: not crew.undelivered)

    def kill(self) -> None:
        """Wait until all calls have ended, and end the threads. The pool can be used again.

        Blocks the greenlet; in the hub and in coroutines, where that is not possible, the threads end later.
        """
        crew = self._crew
        crew.dismiss(0)
        if get_hub_if_exists() is not None:  # else the thread itself is ending
            crew.wait_for(lambda: not crew.alive)

    def _on_fork(self) -> None:
        """In a forked child: begin anew, without threads; calls that had not ended are lost."""
        if self.pid == os.getpid():
            return
        self.pid = os.getpid()
        old, self._crew = self._crew, _copy_for_child(self._crew)
        own = self._thread == get_ident()
        flights, self._flights = self._flights, _Flights(self.hub) if own else self._flights
        self._thread = get_ident()
        if own:
            flights.forget()
            old.forget()
            self._slots.counter = old.maxsize + 1
            self._slots._link_left()
        else:
            self._slots = Semaphore(old.maxsize + 1)  # those in line were greenlets of a thread that is gone


def _copy_for_child(crew: _Crew) -> _Crew:
    return _Crew(crew.maxsize, -1 if crew.idle_timeout is None else crew.idle_timeout)


def _check_maxsize(maxsize: Any) -> None:
    if not isinstance(maxsize, int):
        raise TypeError(f"maxsize must be integer: {maxsize!r}")
    if maxsize < 0:
        raise ValueError(f"maxsize must not be negative: {maxsize!r}")


class ThreadResult:
    """A message that any thread can send to a hub, once; for programs that run threads of their own.

    :param receiver: called in the hub with this object, when it has a value or an error.
    :param hub: the hub.
    :param call_when_ready: called in the hub before ``receiver``, without arguments.

    Waiting for the message is a reason for the hub's loop to go on. Make it in the hub's thread. A thread pool's
    own results are instances of AsyncResult, which need no message.
    """

    __slots__ = ("_call_when_ready", "_loop", "context", "exc_info", "hub", "receiver", "value")

    def __init__(self, receiver: Any, hub: Any, call_when_ready: Callable[[], object] | None) -> None:
        self.receiver = receiver
        self.hub = hub
        #: what the error is printed with
        self.context: Any = None
        self.value: Any = None
        self.exc_info: tuple[Any, ...] = ()
        self._call_when_ready = call_when_ready
        self._loop: Any = hub.loop
        self._loop.ref_add()

    @property
    def exception(self) -> BaseException | None:
        """The exception, None without one."""
        return self.exc_info[1] if self.exc_info else None

    def successful(self) -> bool:
        """True unless it is an error."""
        return self.exception is None

    def set(self, value: Any) -> None:
        """Send a value. From any thread; never blocks."""
        self.value = value
        self._send()

    def handle_error(self, context: Any, exc_info: tuple[Any, ...]) -> None:
        """Send an exception, as (type, value, traceback), which the hub prints. From any thread."""
        self.context = context
        self.exc_info = exc_info
        self._send()

    def _send(self) -> None:
        loop = self._loop
        if loop is not None:
            loop.append_threadsafe(Callback(self._arrive, ()))

    def _arrive(self) -> None:
        if self._loop is None:
            return
        hub, receiver, call_when_ready = self.hub, self.receiver, self._call_when_ready
        self.destroy_in_main_thread()
        try:
            if call_when_ready is not None:
                call_when_ready()
            if self.exc_info:
                hub.handle_error(self.context, *self.exc_info)
            if receiver is not None:
                receiver(self)
        finally:
            self.value = self.context = None
            if self.exc_info:
                self.exc_info = (*self.exc_info[:2], None)

    def destroy_in_main_thread(self) -> None:
        """Stop waiting for the message. Only in the hub's thread."""
        loop, self._loop = self._loop, None
        if loop is not None:
            self.receiver = _ignore
            self.hub = self._call_when_ready = None
            loop.ref_drop()


def _ignore(_source: object) -> None:
    """The receiver of a message that has been received."""


# -- concurrent.futures --------------------------------------------------------------------------------


class _Condition:
    """A :class:`threading.Condition`, as far as futures need one, whose ``wait`` blocks only the greenlet.

    The lock is native and held for moments; workers and other threads take it, too.
    """

    __slots__ = ("_line", "_lock", "acquire", "release")

    def __init__(self) -> None:
        self._lock: Any = RLock()
        self.acquire = self._lock.acquire
        self.release = self._lock.release
        self._line = WaitLine()

    def __enter__(self) -> bool:
        return bool(self.acquire())

    def __exit__(self, *exc: object) -> None:
        self.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Give the lock up until woken, for ``timeout`` seconds at the most; was it that?"""
        wait: Any = _NativeWait() if get_hub_if_exists() is None else Wait()
        line = self._line
        line.append(wait)
        state = self._lock._release_save()
        try:
            return bool(wait.block(timeout))
        finally:
            self._lock._acquire_restore(state)
            line.discard(wait)

    def notify_all(self) -> None:
        """Wake all who wait."""
        self._line.wake_all()


class _Waiters(list[Any]):
    """Where concurrent.futures registers who waits for several futures: makes that cooperative, too."""

    def __init__(self, future: Future[Any]) -> None:
        super().__init__()
        self._future = ref(future)

    def append(self, waiter: Any) -> None:
        future = self._future()
        if future is not None and not future.done() and _as_gevent_unpatched():
            raise AttributeError(
                "wait() and as_completed() of concurrent.futures need a patched threading in gevent; use gevent.wait()"
            )
        # nobody waits for the event yet: futures tell it about themselves before that
        if not isinstance(waiter.event, Event):
            waiter.event = Event()
        super().append(waiter)


def _as_gevent_unpatched() -> bool:
    """Is this the module gevent.threadpool? There such waiting is refused unless threading is patched."""
    return threading.Lock is _NATIVE_LOCK and sys.modules.get("gevent.threadpool") is sys.modules[__name__]


class _InHub:
    """A callback of a future that is to run in the hub of who registered it."""

    __slots__ = ("callback", "hub")

    def __init__(self, callback: Callable[[Any], object], hub: Any) -> None:
        self.callback = callback
        self.hub = hub

    def __call__(self, future: Any) -> None:
        loop = self.hub.loop
        if loop is None or loop.aio.is_closed():
            self.callback(future)
        else:
            loop.append_threadsafe(Callback(self._run, (future,)))

    def _run(self, future: Any) -> None:
        try:
            self.callback(future)
        except BaseException:
            self.hub.handle_error((self.callback, future), *sys.exc_info())


class Future(concurrent.futures.Future[T], Generic[T]):
    """The future of a :class:`ThreadPoolExecutor`: waiting for it blocks only the greenlet.

    ``bridge.wait([future])`` and ``await future`` work, too. Callbacks run in the hub of who registered them;
    where there is none, in the worker's thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._condition: Any = _Condition()
        self._waiters: Any = _Waiters(self)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Have ``fn(future)`` called when the future is done, at once if it is. ``fn`` must not block."""
        hub = get_hub_if_exists()
        super().add_done_callback(fn if hub is None or self.done() else _InHub(fn, hub))

    def ready(self) -> bool:
        """:meth:`done`"""
        return self.done()

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Have ``callback(future)`` called in the hub when the future is done, soon if it is."""
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        super().add_done_callback(_InHub(callback, get_hub()))

    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Take back :meth:`rawlink`; nothing if there is no such callback."""
        callbacks: list[Any] = self._done_callbacks  # type: ignore[attr-defined]
        with self._condition:
            for link in callbacks:
                if type(link) is _InHub and link.callback == callback:
                    callbacks.remove(link)
                    return

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()


class ThreadPoolExecutor(concurrent.futures.ThreadPoolExecutor):
    """A :class:`concurrent.futures.ThreadPoolExecutor` that has native threads even when threading is patched.

    :param max_workers: how many threads there may be.
    :param thread_name_prefix: accepted for compatibility; native threads have no names.
    :param initializer: called in each thread before its first call, with ``initargs``.

    Waiting for its futures (``result()``, ``wait()``, ``as_completed()``, ``map()``, ``shutdown()``) blocks only
    the greenlet, patched or not; ``loop.run_in_executor(executor, ...)`` works as well. Any thread may
    use it. An exception is given to who asks the future, and not printed. The threads do not keep the
    interpreter from exiting.
    """

    _WorkerGreenlet = _WorkerGreenlet

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(max_workers, thread_name_prefix, initializer, initargs, **kwargs)
        self._initialize = initializer
        self._initialize_args = initargs
        self._why_broken = ""
        self.hub = get_hub_if_exists()
        self._flights: _Flights | None = None
        self._crew = _Crew(self._max_workers, -1)
        _register(self)

    def __del__(self) -> None:
        crew = getattr(self, "_crew", None)
        if crew is not None:
            crew.orphan()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:  # type: ignore[override]
        """Have a thread call ``fn(*args, **kwargs)``; return a future. Never blocks; from any thread.

        RuntimeError after :meth:`shutdown`, BrokenThreadPool if the initializer has failed.
        """
        if self._why_broken:
            raise concurrent.futures.thread.BrokenThreadPool(self._why_broken)
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        hub = get_hub()
        flights = self._flights
        if flights is None or flights.hub is not hub:
            flights = self._flights = _Flights(hub)
        future: Future[T] = Future()
        if self._initialize is not None:
            args = (fn, *args)
            fn = self._initialized
        self._crew.add(_FutureCall(fn, args, kwargs, future, flights, None), self)
        return future

    def _initialized(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """In a worker: call ``fn``, after the initializer if that has not been called here."""
        worker: Any = getcurrent()
        if not worker.initialized:
            if not self._why_broken:
                try:
                    self._initialize(*self._initialize_args)  # type: ignore[misc]
                except BaseException:
                    concurrent.futures._base.LOGGER.critical("Exception in initializer:", exc_info=True)
                    self._why_broken = "A thread initializer failed, the thread pool is not usable anymore"
            if self._why_broken:
                raise concurrent.futures.thread.BrokenThreadPool(self._why_broken)
            worker.initialized = True
        return fn(*args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the threads when those that there are have ended.

        :param wait: block the greenlet until then.
        :param cancel_futures: cancel the calls that have not begun.
        """
        self._shutdown = True
        crew = self._crew
        if cancel_futures:
            for call in crew.drain():
                call.result.cancel()
                crew.unfinished -= 1
                crew.done(call)
        crew.dismiss(0)
        if wait:
            crew.wait_for(lambda: not crew.alive)

    kill = shutdown

    def _on_fork(self) -> None:
        """In a forked child: begin anew, without threads; calls that had not ended are lost."""
        old, self._crew = self._crew, _copy_for_child(self._crew)
        flights, self._flights = self._flights, None
        if flights is not None and flights.loop.thread_ident == get_ident():
            flights.forget()
            old.forget()


# -- the process ---------------------------------------------------------------------------------------


def _register(owner: Any) -> None:
    _owners.add(ref(owner, _owners.discard))
    # anew for each: before the hub is taken down, which would wait for its pool
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def _after_fork() -> None:
    for owner in _living(_owners):
        owner._on_fork()


def _at_exit() -> None:
    """End the threads that have nothing to do; the others are left to the end of the process.

    A thread that is idle while the interpreter is taken down is harmless, but one that is just about to run
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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
