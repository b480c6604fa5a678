"""The standard library's :mod:`_thread`, but threads are greenlets; twin of :mod:`gevent.thread`.

Meant for :func:`bridge.monkey.patch_thread`; write ``bridge.spawn`` and :mod:`bridge.lock` yourself.

:mod:`threading` is written in Python on top of a few functions and types of :mod:`_thread`. They are imitated
here as exactly as it relies on them, so that its own classes work unchanged, subclasses and objects that
existed before patching included:

- *Idents.* A greenlet's is a number of its own. The root greenlet of a thread has the ident of the thread, so
  that what was registered under it stays valid, and ``signal.pthread_kill`` and ``sys._current_frames``
  understand it. So has the hub: tasks and callbacks, which run in it, are in the thread of their loop,
  whichever greenlet runs that (uvicorn, for one, handles signals in the main thread only). Those of an
  ``asyncio.run()`` in a thread that is a greenlet have the ident of that one.
- *The end of a thread* shows, up to Python 3.12, in a lock that CPython releases (`_set_sentinel`), and from
  3.13 on in a handle (`_ThreadHandle`).
- *Starting*: ``Thread.start`` waits until the new thread runs. It runs on until it blocks. In a callback or a
  coroutine, where nothing may wait, the thread counts as started at once and runs later.

A thread that ends by SystemExit does so in silence; other errors go to the hub, as those of all greenlets.
It starts with an empty context (``contextvars``), as threads do.
"""

from __future__ import annotations

import _thread as __thread__
import os
import signal
import sys as _sys
import threading as _threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import ref

from greenlet import GreenletExit, getcurrent, greenlet

from ._core.current import runner_thread
from ._core.errors import BlockingSwitchOutError
from ._core.hub import Hub, blocking_place, get_hub, get_hub_if_exists, hub_local
from ._core.waiting import Link
from ._killing import throw_next
from ._threadlocks import LockType as LockType
from ._threadlocks import Sentinel
from .greenlet import Greenlet
from .local import local as _local  # noqa: F401 - among __implements__

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


__target__ = "_thread"

#: Where a Thread has its handle, since 3.13.
_HANDLE = "_os_thread_handle" if _sys.version_info >= (3, 14) else "_handle"

_since_3_13 = ["start_joinable_thread", "lock", "_ThreadHandle", "_make_thread_handle"]

__implements__ = [
    name
    for name in (
        "allocate_lock",
        "get_ident",
        "exit",
        "LockType",
        "stack_size",
        "start_new_thread",
        "_local",
        *_since_3_13,
        # gevent leaves these as they are
        "allocate",
        "exit_thread",
        "interrupt_main",
        "start_new",
    )
    if hasattr(__thread__, name)
]
__imports__ = [
    name
    for name in ("error", "TIMEOUT_MAX", "get_native_id", "daemon_threads_allowed", "RLock")
    if hasattr(__thread__, name)
]
__all__ = [name for name in (*__implements__, *__imports__) if name != "_local"]

for _name in __imports__:
    globals()[_name] = getattr(__thread__, _name)
del _name

_native_get_ident = __thread__.get_ident
_native_interrupt_main: Any = __thread__.interrupt_main
_native_start_new_thread = __thread__.start_new_thread
_native_shutdown = getattr(__thread__, "_shutdown", None)
_original_stack_size = __thread__.stack_size

allocate_lock = allocate = lock = LockType


# -- idents ----------------------------------------------------------------------------------------------


def get_ident(gr: Any = None) -> int:
    """The ident of the current greenlet, or of the greenlet *gr*.

    That of a thread's root greenlet and of its hub is the thread's; of the others that live each has its own.
    What ``asyncio.run()`` runs for a thread that is a greenlet has the ident of that.
    Does not block; callable from everywhere.
    """
    if gr is None:
        gr = getcurrent()
        if gr.parent is not None and gr is not hub_local.hub:
            return id(gr)
        thread = runner_thread.get()
        return _native_get_ident() if thread is None or thread.dead else id(thread)
    if isinstance(gr, Hub):
        return gr.thread_ident
    if gr.parent is None:
        root = getcurrent()
        while root.parent is not None:
            root = root.parent
        if gr is root:
            return _native_get_ident()
    return id(gr)


# -- starting --------------------------------------------------------------------------------------------


class ThreadGreenlet(Greenlet[Any]):
    """What a thread is."""

    #: For those who may not import this module.
    is_thread = True

    #: Called at the end, in whatever greenlet learns of it: must neither switch nor raise.
    at_end: list[Callable[[], object]]

    def _report(self, exception: BaseException, tb: TracebackType | None) -> None:
        if not isinstance(exception, SystemExit):
            super()._report(exception, tb)


class _End(Link):
    """The link by which the end of a thread becomes known."""

    __slots__ = ()

    def notify(self, source: ThreadGreenlet) -> None:
        for call in source.at_end:
            call()
        source.at_end = []


_END = _End()


def _start(
    function: Callable[..., Any],
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    at_end: Callable[[], object] | None = None,
) -> ThreadGreenlet:
    if kwargs:
        function = partial(function, **kwargs)
    g = ThreadGreenlet(function, *args)
    g.gr_context = None
    g.at_end = [] if at_end is None else [at_end]
    g._links = _END
    if not _may_block():
        _count_as_started(function, g)
    g.start()
    return g


def _may_block() -> bool:
    hub = get_hub()
    current = getcurrent()
    if hub.loop.probe() is None and current is not hub:
        return True
    try:
        blocking_place(current)
    except BlockingSwitchOutError:
        return False
    return True


def _count_as_started(function: Any, g: ThreadGreenlet) -> None:
    """Have ``Thread.start`` return although nothing may wait for the thread to run."""
    thread = getattr(function, "__self__", None)
    if not isinstance(thread, _threading.Thread):
        return
    facts: Any = thread
    facts._ident = id(g)
    facts._native_id = __thread__.get_native_id()
    if hasattr(_threading, "_set_sentinel"):
        # until the thread runs and makes its own
        facts._tstate_lock = sentinel = Sentinel()
        sentinel.acquire()
        g.at_end.append(sentinel.end)
        if not thread.daemon:
            module: Any = _threading
            with module._shutdown_locks_lock:  # the interpreter must not end before it has run
                module._shutdown_locks.add(sentinel)
    facts._started.set()


def start_new_thread(
    function: Callable[..., Any], args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> int:
    """Start a greenlet that calls ``function(*args, **kwargs)``; its ident.

    TypeError if the function can't be called. Does not block: it runs when the caller blocks.
    """
    if not callable(function):
        raise TypeError(f"start_new_thread({function!r}): the first argument must be callable")
    return id(_start(function, args, kwargs))


_start_new_greenlet = start_new = start_new_thread


def exit() -> None:
    """End the current thread: raises GreenletExit."""
    raise GreenletExit


exit_thread = exit


def interrupt_main(signum: int = signal.SIGINT) -> None:
    """Simulate the arrival of a signal: have the main thread run its handler.

    Python's own handler for SIGINT raises KeyboardInterrupt; that is raised in the main greenlet, whichever
    runs now. ValueError for an unknown signal. Does not block.
    """
    current = getcurrent()
    if (
        current.parent is not None
        and signum == signal.SIGINT
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        and _native_get_ident() == _threading.main_thread().ident
    ):
        hub: Any = get_hub_if_exists()
        if hub is not None and hub.parent is not None:
            throw_next(hub.parent, KeyboardInterrupt)
            return
    _native_interrupt_main(signum)


_stack_size = 0


def stack_size(size: int | None = None) -> int:
    """What :func:`stack_size` was called with before, 0 in the beginning; *size* is kept for the next call.

    Greenlets have no stacks of a size of their own, and native threads, which run library code, keep their
    default. ValueError for a size that threads could not have. Does not block.
    """
    global _stack_size
    before = _stack_size
    size = size or 0
    _original_stack_size(_original_stack_size(size))  # checks it, and takes it back
    _stack_size = size
    return before


# -- ending, up to Python 3.12 -----------------------------------------------------------------------------


def _set_sentinel() -> Sentinel:
    """A lock that is released when the current greenlet ends; it is to be acquired by the caller."""
    sentinel = Sentinel()
    current: Any = getcurrent()
    if isinstance(current, ThreadGreenlet):
        current.at_end.append(sentinel.end)
    elif isinstance(current, Greenlet):
        current.rawlink(lambda _: sentinel.end())
    return sentinel


# -- ending, since Python 3.13 -----------------------------------------------------------------------------


class _ThreadHandle:
    """What knows whether a thread lives, and waits for its end; see ``threading.Thread._handle``."""

    __slots__ = ("__weakref__", "_begun", "_greenlet", "_pid", "_sentinel", "ident")

    def __init__(self) -> None:
        #: the thread's ident, 0 before it is started
        self.ident = 0
        self._begun = False
        self._sentinel = Sentinel()
        self._greenlet: Any = None
        self._pid = 0

    def __repr__(self) -> str:
        state = "done" if self.is_done() else "running" if self._begun else "not started"
        return f"<{type(self).__name__} {state} ident={self.ident:#x} at {id(self):#x}>"

    def _begin(self, g: greenlet) -> None:
        self._begun = True
        self._sentinel.acquire()
        self._greenlet = ref(g)
        self._pid = os.getpid()
        self.ident = get_ident(g)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread, for *timeout* seconds at the most. Blocks the greenlet.

        RuntimeError if it has not been started, and in the thread itself.
        """
        if not self._begun:
            raise RuntimeError("thread not started")
        if self.is_done():
            return
        if self._greenlet() is getcurrent():
            raise RuntimeError("Cannot join current thread")
        self._sentinel.acquire(True, -1 if timeout is None or timeout < 0 else timeout)

    def is_done(self) -> bool:
        """Whether the thread has ended."""
        if not self._begun:
            return False
        # in a forked child only the thread that forked is there: see _survive
        return self._sentinel.counter > 0 or self._pid != os.getpid()

    def _survive(self) -> None:
        """In a forked child: this is the thread that forked."""
        self._pid = os.getpid()

    def _set_done(self) -> None:
        """The thread counts as ended. RuntimeError if it has not been started."""
        if not self._begun:
            raise RuntimeError("thread not started")
        self._sentinel.end()
        _unfinished.discard(self)


#: The handles of threads for which the interpreter waits before it ends.
_unfinished: set[Any] = set()


def _make_thread_handle(*_args: Any) -> _ThreadHandle:
    """A handle for the current greenlet, which was not started as a thread."""
    handle = _ThreadHandle()
    current: Any = getcurrent()
    handle._begin(current)
    if isinstance(current, ThreadGreenlet):
        current.at_end.append(handle._set_done)
    elif isinstance(current, Greenlet):
        current.rawlink(lambda _: handle._set_done())
    return handle


def start_joinable_thread(function: Callable[[], Any], handle: Any = None, daemon: bool = True) -> Any:
    """Start a greenlet that calls ``function()``; the handle with which to wait for its end.

    :param handle: one that has not been used.
    :param daemon: False: the interpreter waits for the thread before it ends.

    TypeError if the function can't be called, RuntimeError if the handle is in use. Does not block.
    """
    if not callable(function):
        raise TypeError(f"start_joinable_thread({function!r}): the first argument must be callable")
    if not isinstance(handle, _ThreadHandle):
        thread = getattr(function, "__self__", None)
        given, handle = handle, _ThreadHandle()
        if isinstance(thread, _threading.Thread):
            setattr(thread, _HANDLE, handle)  # it was made before patching
        elif given is not None:
            raise TypeError(f"start_joinable_thread(handle={given!r}): it must be a _ThreadHandle")
    if handle._begun:
        raise RuntimeError("thread already started")
    handle._begin(_start(function, at_end=handle._set_done))
    if not daemon:
        _unfinished.add(handle)
    return handle


def _shutdown() -> None:
    """At the end of the interpreter: wait for all threads that are not daemons, greenlets and others."""
    while _unfinished:
        for handle in tuple(_unfinished):
            handle.join()
            _unfinished.discard(handle)
    if _native_shutdown is not None:
        _native_shutdown()
