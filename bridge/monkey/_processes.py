"""multiprocessing after patching: waiting for other processes blocks the greenlet only.

Theory of operation
===================

``Process.join`` and ``multiprocessing.connection.wait`` need nothing: they call what is patched. Three things
read or wait in ways that nobody patches, so that pools hang (as they do with gevent), managers fail, and a
queue stops the loop:

- *Connections* call ``os.read`` and ``os.write``, which they keep as default arguments. These become
  functions that wait first, where a greenlet runs. In a thread without a hub and in coroutines they block,
  as ever.
- *Semaphores* wait in C, and no file tells when another process releases one. So a greenlet tries again
  and again, with growing pauses.
- *ProcessPoolExecutor* in coroutines has the same need as pools of threads (see :mod:`._pools`): who leaves
  ``with ProcessPoolExecutor()`` waits for its manager's thread, which therefore must not be a greenlet of
  the same thread. Where a loop runs when it gets its first job, that thread is a real one.

*The end of a process*: it joins the threads that feed its queues, which are greenlets, in a function for
:mod:`atexit`. In the processes that multiprocessing starts it registers that before anything of ours is
imported, so that it would be called after the end of the hub. It is registered anew.

And one is wrong for another reason. *Connections and sockets that are sent to other processes* are served by
a thread that blocks all signals. In a greenlet that would take SIGTERM and Ctrl-C from the whole program, so
it is a real thread.

The modules are imported by few programs, and take long; so this is done after they have been imported,
whenever that is (:mod:`bridge._imports`). Only the modules' own classes are touched: plugins of patch_all()
(geventmp is one) put cooperative classes of their own in their place, built otherwise.
"""

from __future__ import annotations

import atexit
import functools
import os
import select
import threading
from asyncio import _get_running_loop as running_loop
from select import PIPE_BUF
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from bridge._core.clock import monotonic
from bridge._fdwait import wait_read, wait_write
from bridge.hub import sleep

from .._imports import after_import
from ._native import Thread, in_greenlet
from ._views import View, copy_class, rebase_class

__all__ = ["bind"]

_read = os.read
_write = os.write
_poll: Any = getattr(select, "poll", None)

#: Seconds between two attempts to get a semaphore.
_PAUSES = (0.0005, 0.02)


def bind(views: dict[str, ModuleType]) -> None:
    """Do what is told above when the modules are imported."""
    after_import("multiprocessing.util", _bind_end)
    after_import("multiprocessing.connection", _bind_connections)
    after_import("multiprocessing.synchronize", _bind_semaphores)
    after_import("concurrent.futures.process", functools.partial(_bind_executor, views))
    after_import("multiprocessing.resource_sharer", functools.partial(_bind_sharer, views))


def _own(module: ModuleType, name: str) -> Any:
    """The module's class of that name; None if somebody has put another there."""
    cls = getattr(module, name)
    return cls if cls.__module__ == module.__name__ else None


# -- the end ------------------------------------------------------------------------------------------


def _bind_end(util: Any) -> None:
    """multiprocessing.util has been imported: its end comes before ours."""
    atexit.unregister(util._exit_function)
    atexit.register(util._exit_function)


# -- connections ----------------------------------------------------------------------------------------


def read(fd: int, size: int) -> bytes:
    """``os.read``, but in a greenlet only the greenlet blocks; a non-blocking file is waited for, too."""
    while True:
        if in_greenlet():
            wait_read(fd)
        try:
            return _read(fd, size)
        except BlockingIOError:
            _wait_natively(fd, "POLLIN")


def write(fd: int, data: Any) -> int:
    """``os.write``, but in a greenlet only the greenlet blocks; a non-blocking file is waited for, too."""
    while True:
        if in_greenlet():
            wait_write(fd)
            # so much a pipe takes without blocking when it is ready
            data = data[:PIPE_BUF]
        try:
            return _write(fd, data)
        except BlockingIOError:
            _wait_natively(fd, "POLLOUT")


def _wait_natively(fd: int, event: str) -> None:
    if not in_greenlet():
        poll = _poll()
        poll.register(fd, getattr(select, event))
        poll.poll()


def _bind_connections(module: Any) -> None:
    cls = _own(module, "Connection")
    if cls is None:
        return
    receive, send = cls._recv, cls._send

    def _recv(self: Any, size: int, read: Any = read) -> Any:
        return receive(self, size, read)

    def _send(self: Any, buf: Any, write: Any = write) -> Any:
        return send(self, memoryview(buf), write)  # whose slices copy nothing

    cls._recv, cls._send = _recv, _send


# -- semaphores -----------------------------------------------------------------------------------------


def _acquire(semaphore: Any, block: bool = True, timeout: float | None = None) -> bool:
    if not block or not in_greenlet():
        return semaphore.acquire(block, timeout)  # type: ignore[no-any-return]
    deadline = None if timeout is None else monotonic() + max(timeout, 0)
    pause, longest = _PAUSES
    while not semaphore.acquire(False):
        if deadline is not None:
            left = deadline - monotonic()
            if left <= 0:
                return False
            pause = min(pause, left)
        sleep(pause)
        pause = min(pause * 2, longest)
    return True


def _bind_semaphores(module: Any) -> None:
    cls = _own(module, "SemLock")
    if cls is None:
        return
    make_methods = cls._make_methods

    def _make_methods(self: Any) -> None:
        make_methods(self)
        self.acquire = functools.partial(_acquire, self._semlock)

    def __enter__(self: Any) -> Any:
        return self.acquire()

    cls._make_methods, cls.__enter__ = _make_methods, __enter__


# -- what is sent to other processes ----------------------------------------------------------------------


def _bind_sharer(views: dict[str, ModuleType], module: Any) -> None:
    module.threading = views["threading"]


# -- executors ------------------------------------------------------------------------------------------


def _bind_executor(views: dict[str, ModuleType], module: Any) -> None:
    view = View(module)
    own = vars(view)
    own["threading"] = views["threading"]
    own["queue"] = views["queue"]
    own["_threads_wakeups"] = WeakKeyDictionary()
    # these two go to the other process, by name
    own["_process_worker"] = module._process_worker
    own["_process_chunk"] = module._process_chunk
    own["_ExecutorManagerThread"] = rebase_class(module._ExecutorManagerThread, Thread, own)
    threading._register_atexit(own["_python_exit"])  # type: ignore[attr-defined]
    executor = module.ProcessPoolExecutor
    native = copy_class(executor, own)
    classes: dict[type, type] = {executor: native}
    submit: Any = executor.submit
    native_submit: Any = native.submit  # type: ignore[attr-defined]

    @functools.wraps(submit)
    def submit_chosen(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        cls = type(self)
        if not issubclass(cls, native):
            if running_loop() is None or self._executor_manager_thread is not None:
                return submit(self, fn, *args, **kwargs)
            if cls not in classes:
                classes[cls] = type(cls.__name__, (cls, native), {"__module__": cls.__module__})
            self.__class__ = classes[cls]
        # Not self.submit(): that may be a subclass's, which has called us.
        return native_submit(self, fn, *args, **kwargs)

    executor.submit = submit_chosen
