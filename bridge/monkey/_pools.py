"""Pools of threads, and futures of ``concurrent.futures``: where greenlets, coroutines and real threads meet.

Theory of operation
===================

*Two kinds of pools.* ``concurrent.futures.ThreadPoolExecutor`` follows the patches, since its module finds
threads and queues in ``threading`` and ``queue``: a program's pools use greenlets, as with gevent. The
pools of asyncio must not (gevent#2213). They are of a subclass that has copies of the methods, with
globals in which the originals are: `native_pool`.

*Which kind it is*, is decided when a pool gets its first job. Where a loop is running (in a coroutine, with
or without a portal) the pool becomes a native one: ``loop.run_in_executor(pool, ...)`` asks for threads,
and ``with ThreadPoolExecutor() as pool:`` in a coroutine must be able to wait for its workers in the end. In
greenlets, where no loop is seen to run, its workers are greenlets. Who wants threads there takes
:class:`bridge.threadpool.ThreadPoolExecutor`. A pool that has real threads when it is patched goes on with
real threads.

*Futures.* A real thread sets one, a coroutine adds a callback to it, a greenlet waits for it. What guards one
is held for a few instructions, never across a switch, by any of them. A lock of greenlets would do badly: a
coroutine cannot wait for it when a thread happens to hold it. So the guard is a real lock, in a
Condition whose waiters wait as greenlets do.
"""

from __future__ import annotations

import concurrent.futures._base as base
import concurrent.futures.thread as module
import functools
import os
import threading
from asyncio import _get_running_loop as running_loop
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from bridge._core.census import instances

from . import _native
from ._views import Front, View, copy_class

__all__ = ["bind"]


class _AnyPool(type):
    """``isinstance(pool, native_pool)``, which is what asyncio asks, means any pool of threads."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


def bind(views: dict[str, ModuleType]) -> type:
    """Make the native pool, from the other views; have pools and futures be as is told above. Returns it."""
    _guard_futures()
    native_pool = _make_native_pool(views)
    _choose_at_first_job(native_pool)
    return native_pool


def _make_native_pool(views: dict[str, ModuleType]) -> type:
    view = View(module)
    own = vars(view)
    own["queue"] = views["queue"]
    own["threading"] = views["threading"]
    lock = own["_global_shutdown_lock"] = _native.allocate_lock()
    own["_threads_queues"] = WeakKeyDictionary()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire,
            after_in_child=lock._at_fork_reinit,  # type: ignore[attr-defined]
            after_in_parent=lock.release,
        )
    # Joins the threads of the pools when the interpreter ends, as the original does with its own.
    threading._register_atexit(own["_python_exit"])  # type: ignore[attr-defined]
    own["ThreadPoolExecutor"] = copy_class(ThreadPoolExecutor, own, metaclass=_AnyPool)
    return own["ThreadPoolExecutor"]  # type: ignore[no-any-return]


def _choose_at_first_job(native_pool: type) -> None:
    own: dict[str, Any] = native_pool.__init__.__globals__  # type: ignore[misc]
    classes: dict[type, type] = {ThreadPoolExecutor: native_pool}

    def make_native(pool: Any) -> None:
        cls = type(pool)
        if cls not in classes:
            classes[cls] = type(native_pool)(cls.__name__, (cls, native_pool), {"__module__": cls.__module__})
        pool.__class__ = classes[cls]

    if module._threads_queues:
        for pool in instances(ThreadPoolExecutor):
            if getattr(pool, "_threads", None):
                make_native(pool)

    submit: Any = ThreadPoolExecutor.submit
    native_submit: Any = native_pool.submit  # type: ignore[attr-defined]

    @functools.wraps(submit)
    def submit_chosen(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(type(self), _AnyPool):
            if running_loop() is None or self._threads or self._shutdown:
                return submit(self, fn, *args, **kwargs)
            make_native(self)
            self._work_queue = own["queue"].SimpleQueue()
            self._idle_semaphore = own["threading"].Semaphore(0)
            self._shutdown_lock = own["threading"].Lock()
        # Not self.submit(): that may be a subclass's, which has called us.
        return native_submit(self, fn, *args, **kwargs)

    ThreadPoolExecutor.submit = submit_chosen  # type: ignore[method-assign]


def _guard_futures() -> None:
    def condition(lock: Any = None) -> Any:
        return threading.Condition(_native.RLock() if lock is None else lock)

    # The events that it makes for waiters are to be what is in threading then.
    front = Front(threading)
    front.__dict__.update(Condition=condition, Lock=_native.allocate_lock)
    base.threading = front  # type: ignore[attr-defined]
