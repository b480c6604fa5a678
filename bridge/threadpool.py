"""Native threads for functions that block or compute; twin of :mod:`gevent.threadpool`.

How the threads work, and how results come back, is told in :mod:`bridge._workers`.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.thread
import os
from _thread import get_ident
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from operator import index
from typing import Any, ParamSpec, TypeVar, overload

from greenlet import getcurrent, greenlet

from ._config import config
from ._core.callbacks import Callback
from ._core.errors import InvalidThreadUseError
from ._core.hub import get_hub, get_hub_if_exists
from ._core.waiting import Wait
from ._futures import Future
from ._workers import (
    Call,
    Crew,
    Flights,
    WorkerGreenlet,
    format_hub,
    get_thread_profile,
    get_thread_trace,
    idle_worker_count,
    register,
)
from .event import AsyncResult
from .greenlet import Greenlet
from .lock import Semaphore
from .pool import GroupMappingMixin

__all__ = ["ThreadPool", "ThreadPoolExecutor", "ThreadResult", "idle_worker_count"]

P = ParamSpec("P")
T = TypeVar("T")

_WorkerGreenlet = WorkerGreenlet
_get_thread_profile = get_thread_profile
_get_thread_trace = get_thread_trace


class _PoolCall(Call):
    """A call that occupies a slot of a pool; its result goes to an AsyncResult or an _Answer."""

    __slots__ = ("slots",)

    slots: Semaphore

    def succeed(self, value: Any) -> None:
        self.slots.release()
        self.result.set(value)

    def fail(self, worker: greenlet | None, error: BaseException) -> None:
        self.slots.release()
        info = (type(error), error, error.__traceback__)
        flights = self.flights
        # queued before the result is set: printed before anybody handles it
        flights.loop.append_threadsafe(Callback(_report, (flights.hub, (worker, self.func), *info)))
        self.result.set_exception(error, info)


def _report(hub: Any, *error: Any) -> None:
    # handle_error is looked up now: programs assign it
    hub.handle_error(*error)


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


class ThreadPool(GroupMappingMixin):
    """A pool of native threads for the greenlets and coroutines of one thread.

    :param maxsize: how many threads there may be; they are started when they are needed. ValueError if
        negative, TypeError if no integer. May be changed later.
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
        self._crew = Crew(maxsize, idle_task_timeout if idle_task_timeout >= 0 else None)
        # One call more than there are threads may wait, so that a thread finds its next one at once.
        self._slots = Semaphore(maxsize + 1)
        self._flights = Flights(self.hub)
        register(self)

    def __del__(self) -> None:
        crew = getattr(self, "_crew", None)
        if crew is not None:
            crew.orphan()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} at {id(self):#x} tasks={len(self)} size={self.size} "
            f"maxsize={self.maxsize} hub={format_hub(self.hub)}>"
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

        Setting it starts or ends threads and, for the latter, blocks until they have ended (not in the hub
        and in coroutines). ValueError if it is negative or more than ``maxsize``.
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
        crew.shrink(value)

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
            crew.shrink(crew.maxsize)
        finally:
            self.manager = None

    # -- calls ----------------------------------------------------------------------------------

    @overload
    def spawn(
        self, func: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncResult[T]: ...
    @overload
    def spawn(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> AsyncResult[T]: ...
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
                f"{self!r}.spawn() was called in the thread {get_ident():#x}; a pool belongs to the thread "
                "of its hub: use get_hub().threadpool here, or a ThreadPoolExecutor, which any thread may use"
            )
        hub = get_hub()
        if hub is not self.hub:
            # the loop of the thread has changed
            self.hub = hub
            self._flights = Flights(hub)
        slots = self._slots
        slots.acquire()
        call: _PoolCall | None = None
        try:
            call = _PoolCall(func, args, kwargs, result, self._flights)
            call.slots = slots
            if config.inherit_context:
                call.context = copy_context()
            self._crew.add(call, self)
        except BaseException:
            if call is None or call.withdrawn or call.claim():
                slots.release()  # else a thread has the call, and will
            raise

    def apply(
        self,
        func: Callable[..., T],
        args: Sequence[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
    ) -> T:
        """Have a thread call ``func(*args, **kwds)``; return its result, or raise what it raised.

        In other threads than that of the pool's hub, so in the pool's own, ``func`` is called at once and
        in place. Blocks the greenlet. One that is killed, or has a Timeout, leaves the call to the thread.
        """
        if get_ident() != self._thread or type(self).spawn is not ThreadPool.spawn:
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

    def _waits_for_itself(self) -> bool:
        return get_ident() != self._thread

    def _may_block(self) -> bool:
        return True  # spawn may block

    def _call_back(self, callback: Callable[[Any], object], value: Any) -> None:
        callback(value)

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
        if get_hub_if_exists() is not None:
            crew.shrink(0)
        else:
            crew.dismiss(0)  # the thread itself is ending

    def _dismiss(self) -> None:
        """:meth:`kill` without waiting."""
        self._crew.dismiss(0)

    def _on_fork(self) -> None:
        """In a forked child: begin anew, without threads; calls that had not ended are lost."""
        if self.pid == os.getpid():
            return
        self.pid = os.getpid()
        old, self._crew = self._crew, self._crew.heir()
        own = self._thread == get_ident()
        self._thread = get_ident()
        if own:
            old.forget()
            self._slots.counter = old.maxsize + 1
            self._slots._link_left()
        else:
            self._slots = Semaphore(old.maxsize + 1)  # those in line were greenlets of a thread that is gone


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

    Waiting for the message is a reason for the hub's loop to go on. Make it in the hub's thread. The results
    of a thread pool are instances of AsyncResult, which needs no message.
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
            # who is ready now runs first, also if we are in the hub's thread: the message comes from outside
            loop.append_threadsafe(Callback(loop.run_callback, (self._arrive,)))

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


class _FutureCall(Call):
    """A call whose result goes to a future."""

    __slots__ = ()

    def begin(self) -> bool:
        return bool(self.result.set_running_or_notify_cancel())

    def succeed(self, value: Any) -> None:
        self.result.set_result(value)

    def fail(self, worker: greenlet | None, error: BaseException) -> None:
        self.result.set_exception(error)


class ThreadPoolExecutor(concurrent.futures.ThreadPoolExecutor):
    """A :class:`concurrent.futures.ThreadPoolExecutor` with native threads, also if threading is patched.

    :param max_workers: how many threads there may be.
    :param thread_name_prefix: accepted for compatibility; native threads have no names.
    :param initializer: called in each thread before its first call, with ``initargs``.

    Waiting for its futures (``result()``, ``wait()``, ``as_completed()``, ``map()``, ``shutdown()``) blocks
    only the greenlet, patched or not; ``loop.run_in_executor(executor, ...)`` works as well. Any thread
    may use it. An exception is given to who asks the future, and not printed. The threads do not keep the
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
        self._flights: Flights | None = None
        self._crew = Crew(self._max_workers, None)
        register(self)

    def __del__(self) -> None:
        crew = getattr(self, "_crew", None)
        if crew is not None:
            crew.orphan()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
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
            flights = self._flights = Flights(hub)
        future: Future[T] = Future()
        if self._initialize is not None:
            call = _FutureCall(self._initialized, (fn, *args), kwargs, future, flights)
        else:
            call = _FutureCall(fn, args, kwargs, future, flights)
        self._crew.add(call, self)
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

        :param wait: block the greenlet until then; in the hub and in coroutines it has no effect.
        :param cancel_futures: cancel the calls that have not begun.
        """
        self._shutdown = True
        crew = self._crew
        if cancel_futures:
            for call in crew.drain():
                if call.claim():
                    call.result.cancel()
                    crew.unfinished -= 1
                    crew.done(call)
        if wait:
            crew.shrink(0)
        else:
            crew.dismiss(0)

    kill = shutdown

    def _on_fork(self) -> None:
        """In a forked child: begin anew, without threads; calls that had not ended are lost."""
        old, self._crew = self._crew, self._crew.heir()
        old.forget()
