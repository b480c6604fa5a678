"""gevent's low-level Waiter: one value or exception handed from the hub to one greenlet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from .current import blocking_place
from .errors import ConcurrentObjectUseError
from .loop import loop as Loop
from .switching import WaiterBase, use_waiters
from .waiting import Wait

if TYPE_CHECKING:
    from .hub import Hub

__all__ = ["MultipleWaiter", "Waiter"]

_UNSET: Any = object()
use_waiters(_UNSET)


class Waiter(WaiterBase):
    """A value that the hub hands to the greenlet that waits for it, or keeps until it asks.

    ``switch()`` and ``throw()`` are to be called in the hub (from callbacks of the loop), ``get()`` in
    another greenlet. Prefer Event, AsyncResult or Queue, which may be used from everywhere.
    """

    __slots__ = ()

    def clear(self) -> None:
        """Forget value and exception, for another use."""
        self.greenlet = None
        self.value = None
        self._exception = _UNSET

    def __str__(self) -> str:
        if self._exception is _UNSET:
            return f"<{type(self).__name__} greenlet={self.greenlet}>"
        if self._exception is None:
            return f"<{type(self).__name__} greenlet={self.greenlet} value={self.value!r}>"
        return f"<{type(self).__name__} greenlet={self.greenlet} exc_info={self.exc_info!r}>"

    def ready(self) -> bool:
        """True if a value or an exception is there."""
        return self._exception is not _UNSET

    def successful(self) -> bool:
        """True if a value is there."""
        return self._exception is None

    @property
    def exc_info(self) -> Any:
        """The exception as the tuple that throw() was given; None without one."""
        return self._exception if self._exception is not _UNSET else None

    def _check_hub(self, name: str) -> None:
        current = getcurrent()
        hub = self.hub
        while hub is not current and hub is not None:
            hub = hub._heir  # of a forked child, where greenlets wait on
        if hub is None:
            raise AssertionError(
                f"Can only use Waiter.{name} method from the Hub greenlet; "
                f"use hub.loop.run_callback(waiter.{name})"
            )

    def _hand_over(self, value: Any) -> None:
        waiting = self.greenlet
        if self.hub is not getcurrent():
            self._check_hub("switch")
        try:
            waiting.switch(value)
        except BaseException:
            self.hub.handle_error(waiting.switch, *sys.exc_info())

    def switch_args(self, *args: Any) -> None:
        """``switch(args)``"""
        self.switch(args)

    def throw(self, *throw_args: Any) -> None:
        """Raise an exception in the greenlet that waits in get(), or keep it. In the hub."""
        waiting = self.greenlet
        if waiting is None:
            self._exception = throw_args
            return
        self._check_hub("throw")
        try:
            waiting.throw(*throw_args)
        except BaseException:
            self.hub.handle_error(waiting.throw, *sys.exc_info())

    def _get(self) -> Any:
        if self._exception is not _UNSET:
            current: Any = getcurrent()
            current.throw(*self._exception)
        if self.greenlet is not None:
            raise ConcurrentObjectUseError(f"This Waiter is already used by {self.greenlet!r}")
        self.greenlet = current = getcurrent()
        hub = self.hub
        try:
            loop = hub.loop
            if loop.probe() is None:
                if hub._heir is None and not hasattr(current, "switch_out"):  # the hub itself has one
                    return loop.park()  # else hub.switch() knows what to do
            elif not isinstance(blocking_place(current), Loop):
                # in a portal: who is switched to is the task, by its loop
                task = self.greenlet = _TaskOfPortal()
                return task.get()
            return hub.switch()
        finally:
            self.greenlet = None

    def __call__(self, source: Any) -> None:
        """As a callback of ``rawlink``: take over the value or exception of ``source``."""
        if source.exception is None:
            self.switch(source.value)
        else:
            self.throw(source.exception)


class _TaskOfPortal:
    """What a Waiter switches to, instead of a greenlet, when it is waited for in a portal."""

    def __init__(self) -> None:
        self.wait = Wait()
        self.value: Any = None
        self.throw_args: Any = None

    def get(self) -> Any:
        self.wait.block()
        if self.throw_args is not None:
            current: Any = getcurrent()
            current.throw(*self.throw_args)
        return self.value

    def switch(self, value: Any) -> None:
        self.value = value
        self.wait.wake()

    def throw(self, *throw_args: Any) -> None:
        self.throw_args = throw_args
        self.wait.wake()


class MultipleWaiter(Waiter):
    """A Waiter that keeps every value it is switched to with, in order."""

    __slots__ = ("_values",)

    def __init__(self, hub: Hub | None = None) -> None:
        super().__init__(hub)
        self._values: list[Any] = []

    def switch(self, value: Any) -> None:
        """Add a value."""
        self._values.append(value)
        Waiter.switch(self, True)

    def get(self) -> Any:
        """The oldest value not yet returned. Blocks the greenlet while there is none."""
        if not self._values:
            Waiter.get(self)
            Waiter.clear(self)
        return self._values.pop(0)
