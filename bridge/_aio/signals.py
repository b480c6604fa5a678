"""Signal handlers of second loops: each loop has its own, and the hub's goes on hearing of its own.

A process has one fd to which Python writes the number of each signal, and a loop of asyncio takes it when it
gets its first handler; from then on only that loop learns of signals. One that runs beside a hub must not do
so, and has no need to: its handlers are called from a handler in Python, which runs in the main thread,
wherever that is, and writes to the loop's own pipe. The fd is left to who had it, and serves to wake the
thread up. When a handler is removed, the one that it had replaced is back.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from _thread import get_ident
from collections.abc import Callable
from typing import Any

from bridge._core.current import MAIN_THREAD_IDENT

__all__ = ["install", "share_signals"]

#: The attribute of loops that share: what handlers theirs have replaced, by signal.
_REPLACED = "_bridge_replaced_signals"


def _signal() -> Any:
    """The module as asyncio has it: the functions are those of the system, after patching too."""
    return sys.modules["asyncio.unix_events"].signal


def _get_wakeup_fd() -> int:
    fd: int = _signal().set_wakeup_fd(-1)
    _set_wakeup_fd(fd)
    return fd


def _set_wakeup_fd(fd: int) -> None:
    if fd != -1:
        try:
            _signal().set_wakeup_fd(fd, warn_on_full_buffer=False)
        except (OSError, ValueError):
            pass  # closed meanwhile: it is nobody's


def share_signals(aio: Any) -> None:
    """``aio`` runs, or is to run, beside a hub: from now on it leaves the signals of others alone."""
    if _REPLACED in vars(aio) or not hasattr(aio, "_signal_handlers"):
        return
    setattr(aio, _REPLACED, {})
    aio._bridge_wakeup_fd = aio._csock.fileno()
    aio._process_self_data = _nothing  # the numbers would be handled twice
    for sig in tuple(aio._signal_handlers):
        _listen(aio, sig, None)


def _nothing(_data: object) -> None:
    """To be woken up is enough."""


def _listen(aio: Any, sig: int, before: Any) -> None:
    def received(number: int, _frame: object) -> None:
        aio._handle_signal(number)

    replaced = vars(aio)[_REPLACED]
    replaced[sig] = received, replaced[sig][1] if sig in replaced else before
    _signal().signal(sig, received)
    _signal().siginterrupt(sig, False)


def install(is_second: Callable[[Any], bool]) -> None:
    """Once. ``is_second(loop)``: does it run, or would it run, beside a hub?"""
    cls: Any = asyncio.SelectorEventLoop
    if not hasattr(cls, "_handle_signal"):
        return  # loops have no signal handlers on this system
    add, remove = cls.add_signal_handler, cls.remove_signal_handler

    @functools.wraps(add)
    def add_signal_handler(self: Any, sig: int, callback: Any, *args: Any) -> None:
        # elsewhere than in the main thread asyncio refuses
        if get_ident() != MAIN_THREAD_IDENT or not is_second(self):
            add(self, sig, callback, *args)
            return
        share_signals(self)
        fd = _get_wakeup_fd()
        before = _signal().getsignal(sig) if sig in _signal().valid_signals() else None
        try:
            add(self, sig, callback, *args)
            _listen(self, sig, before)
        finally:
            # where nobody had it, it is the loop's: better than none
            _set_wakeup_fd(fd)

    @functools.wraps(remove)
    def remove_signal_handler(self: Any, sig: int) -> bool:
        replaced = vars(self).get(_REPLACED)
        if not replaced or sig not in replaced:
            return bool(remove(self, sig))
        fd = _get_wakeup_fd()
        current = _signal().getsignal(sig)
        removed = bool(remove(self, sig))
        received, before = replaced.pop(sig)
        if current is not received:
            before = current  # somebody else's by now
        if before is not None:
            _signal().signal(sig, before)
        # the loop's own goes with its last handler; it is closed already if the loop is
        if fd != self._bridge_wakeup_fd:
            _set_wakeup_fd(fd)
        return removed

    cls.add_signal_handler = add_signal_handler
    cls.remove_signal_handler = remove_signal_handler
