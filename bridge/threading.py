"""What patching replaces in the standard library's :mod:`threading`; twin of :mod:`gevent.threading`.

Meant for :func:`bridge.monkey.patch_thread`. ``Thread`` and ``Timer`` are the standard library's own classes:
on top of :mod:`bridge.thread` their threads are greenlets, also those of classes and objects that were made
before patching. The other functions and types are those of :mod:`bridge.thread` under the names that
:mod:`threading` has for them.
"""
# ruff: noqa: F401 - most names are here to be taken by patching

from __future__ import annotations

import sys
import threading as __threading__
from collections.abc import Callable
from threading import Thread, Timer
from types import ModuleType
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent

from ._core.hub import get_hub_if_exists
from ._killing import throw_next
from ._threadlocks import LockType, Sentinel
from ._threadlocks import RLock as _CRLock
from .greenlet import Greenlet
from .local import local
from .lock import RLock
from .thread import (
    _make_thread_handle,
    _native_get_ident,
    _set_sentinel,
    _shutdown,
    _start,
    _ThreadHandle,
    allocate_lock,
    get_ident,
    start_joinable_thread,
    start_new_thread,
)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


_allocate_lock = Lock = LockType
_start_new_thread = start_new_thread
_start_joinable_thread = start_joinable_thread
_get_ident = get_ident
_thread_shutdown = _shutdown

#: Names of greenlets are no names of the operating system's threads.
_set_name = None

_DummyThread_: Any = __threading__._DummyThread
_MainThread_ = __threading__._MainThread  # type: ignore[attr-defined]
_native_make_invoke_excepthook = __threading__._make_invoke_excepthook  # type: ignore[attr-defined]

__implements__ = [
    name
    for name in (
        "local",
        "_allocate_lock",
        "Lock",
        "_DummyThread",
        "_start_new_thread",
        "_start_joinable_thread",
        "_ThreadHandle",
        "_make_thread_handle",
        "_set_sentinel",
        "get_ident",
        "_CRLock",
        # gevent leaves these as they are, or replaces what calls them
        "_make_invoke_excepthook",
        "_set_name",
        "_DeleteDummyThreadOnDel",
        "_thread_shutdown",
    )
    if hasattr(__threading__, name)
]
__extensions__: list[str] = []


# -- dummy threads ---------------------------------------------------------------------------------------


#: All threads by ident: the register of :mod:`threading`, which is never another object.
_active: Any = __threading__._active  # type: ignore[attr-defined]


def _forget(thread: Any, active: Any = _active) -> None:
    """The greenlet of a dummy thread has ended."""
    if active.get(thread.ident) is thread:
        active.pop(thread.ident, None)


class _Ended:
    """Kept among the locals of a raw greenlet or a thread, which go when it ends."""

    __slots__ = ("thread",)

    def __init__(self, thread: Any) -> None:
        self.thread = thread

    def __del__(self, forget: Callable[..., None] = _forget) -> None:
        forget(self.thread)  # an argument, as globals may be gone at the end of the interpreter


_own = local()


class _DummyThread(_DummyThread_):  # type: ignore[misc]
    """What ``current_thread()`` gives in a greenlet that was not started as a thread.

    It is forgotten when the greenlet has ended, but not before who was waiting for it has run.
    """

    def __init__(self) -> None:
        super().__init__()
        current = getcurrent()
        if isinstance(current, Greenlet):
            current.rawlink(lambda _: _forget(self))
        else:
            _own.ended = _Ended(self)

    if sys.version_info < (3, 13):

        def _reset_internal_locks(self, is_alive: bool) -> None:
            super()._reset_internal_locks(is_alive)
            if is_alive and __threading__._main_thread is self:  # type: ignore[attr-defined]
                # In a forked child: who has forked is the main thread there, as later Pythons have it, too.
                self.__class__ = _MainThread_
                self._name = "MainThread"
                self._daemonic = False
                self._set_tstate_lock()


def _DeleteDummyThreadOnDel(_dummy: object) -> None:
    """What :mod:`threading` uses from Python 3.13 on to forget them: not needed."""


# -- errors ----------------------------------------------------------------------------------------------


def _make_invoke_excepthook() -> Callable[[Thread], None]:
    """What a thread calls when its function has raised: ``threading.excepthook``, with two exceptions.

    A thread that is killed ends in silence. KeyboardInterrupt, which a signal raises in whatever greenlet
    runs, is meant for the main one: it is raised there as well.
    """
    invoke = _native_make_invoke_excepthook()

    def invoke_excepthook(thread: Thread) -> None:
        exception = sys.exception()
        if isinstance(exception, GreenletExit):
            return
        try:
            invoke(thread)
            if isinstance(exception, KeyboardInterrupt):
                _interrupt_main(exception)
        finally:
            exception = None

    return invoke_excepthook


def _interrupt_main(exception: BaseException) -> None:
    hub: Any = get_hub_if_exists()
    if (
        hub is not None
        and hub.parent is not None
        and getcurrent() is not hub.parent
        and _native_get_ident() == __threading__.main_thread().ident
    ):
        throw_next(hub.parent, exception.with_traceback(None))


def main_native_thread() -> Thread:
    """The Thread object of the process's main thread."""
    return __threading__._main_thread  # type: ignore[attr-defined, no-any-return]


def _gevent_will_monkey_patch(
    native_module: ModuleType, items: list[str], warn: Callable[[str], object]
) -> None:
    if _native_get_ident() != main_native_thread().ident:
        warn(
            "Monkey-patching outside the main native thread. Some APIs will not be available. "
            "Expect a KeyError to be printed at shutdown."
        )
