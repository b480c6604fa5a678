"""Time limits for code that waits; twin of :mod:`gevent.timeout`.

A timeout takes effect at the next switch: it cannot interrupt code that computes or that blocks the
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from greenlet import getcurrent, greenlet

from ._aio.portal import depth_here, raise_in_portal
from ._aio.task import raise_inside
from ._core.callbacks import Callback
from ._core.clock import monotonic
from ._core.engine import Engine, parks, throw_into
from ._core.engine import Timer as _HeapEntry
from ._core.hub import get_hub, hub_local
from ._core.seconds import as_seconds
from ._core.waiting import Wait

__all__ = ["Timeout", "with_timeout"]

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

_UNSET: Any = object()


class Timeout(BaseException):
    """An exception that is raised in the greenlet that started it, once its time is over.

    :param seconds: seconds; None never expires; 0 or less expires at the next but one switch.
    :param exception: what to raise instead of this object: an exception class or instance. False in a
        ``with`` statement: raise nothing, just leave the block.
    :param ref: whether the pending timeout is a reason for the loop to go on.
    :param priority: accepted for compatibility.

    ::

        with Timeout(5, False):
            data = slow()          # given up after five seconds, silently

    Follows gevent: a timeout runs in the greenlet that calls ``start()``; neither constructing nor
    starting it blocks.
    """

    __slots__ = (
        "__weakref__", "_closed", "_depth", "_engine", "_entry", "_greenlet", "_one_shot", "_queued",
        "_ref", "exception", "seconds",
    )  # fmt: skip

    seconds: float | None
    exception: Any
    # While it counts: its place in the heap. When its time has come: the call in the ready queue.
    _entry: _HeapEntry | None
    _queued: Callback | None
    _engine: Engine
    _greenlet: greenlet | None
    #: if it was started in a step of a coroutine (which may be one that a greenlet awaits): how many
    #: ``await_`` are under way in the portal; else -1
    _depth: int

    def __init__(
        self,
        seconds: float | None = None,
        exception: Any = None,
        ref: bool = True,
        priority: int = -1,
        _one_shot: bool = False,
    ) -> None:
        BaseException.__init__(self)
        if seconds is not None and type(seconds) is not float and type(seconds) is not int:
            seconds = as_seconds(
                seconds, "Timeout(seconds={!r}): seconds must be a number or None, as in Timeout(2.5)"
            )
        self.seconds = seconds
        self.exception = exception
        self._ref = ref
        self._one_shot = _one_shot
        self._entry = self._queued = None
        self._closed = False

    # -- starting and stopping

    def start(self) -> None:
        """Begin to count. AssertionError if it is counting already or was closed."""
        if self._entry is not None or self._queued is not None:
            if self.pending:
                raise AssertionError(f"{self!r} is already started; to restart it, cancel it first")
        if self._closed:
            raise AssertionError(f"{self!r} was closed; make a new Timeout")
        seconds = self.seconds
        if seconds is None:
            return
        hub = hub_local.hub
        if hub is None or hub.loop.probe() is not None:
            hub = get_hub()
            self._depth = depth_here() if hub.loop.get_running() is not None else -1
        else:
            self._depth = -1
        self._engine = engine = hub.loop
        self._greenlet = getcurrent()
        try:
            if seconds > 0:
                self._entry = engine.call_at(monotonic() + seconds, Timeout._ring, self, self._ref)
            else:
                # what is ready now runs first, as a timer of libev would have it; a sleep(0) gets through
                self._queued = engine.call(self._ring)
        except BaseException:
            self._greenlet = None  # of a signal handler, in between: should it count, it is for nobody
            raise

    def _ring(self) -> None:
        """The time is over; not in the hub yet."""
        if self._greenlet is None:
            self._entry = None
            return
        self._queued = self._engine.call(self._on_expiration, self._greenlet, self._to_throw())
        self._entry = None

    def _to_throw(self) -> Any:
        # raising an instance again and again is what users ask for; True and False mean the timeout itself
        exception = self.exception
        own = exception is None or exception is False or exception is True or isinstance(exception, str)
        return self if own else exception

    def _on_expiration(self, prev_greenlet: greenlet, ex: Any) -> None:
        """Called in the hub when the time is over; raises ``ex`` in the greenlet."""
        if prev_greenlet.dead:
            return
        if self._depth >= 0 and (
            raise_inside(prev_greenlet, ex) or raise_in_portal(prev_greenlet, ex, self._depth)
        ):
            return
        throw_into(prev_greenlet, ex)

    @classmethod
    def start_new(
        cls, timeout: Any = None, exception: Any = None, ref: bool = True, _one_shot: bool = False
    ) -> Timeout:
        """Make and start a timeout of ``timeout`` seconds; a Timeout given is started if need be.

        Returns the started Timeout.
        """
        if isinstance(timeout, Timeout):
            if not timeout.pending:
                timeout.start()
            return timeout
        started = cls(timeout, exception, ref=ref, _one_shot=_one_shot)
        started.start()
        return started

    @staticmethod
    def _start_new_or_dummy(timeout: Any, exception: Any = None, ref: bool = True) -> Any:
        return _FakeTimer if timeout is None else Timeout.start_new(timeout, exception, ref, _one_shot=True)

    @property
    def pending(self) -> bool:
        """True while it counts, or is about to be raised."""
        return self._entry is not None or (self._queued is not None and self._queued.pending)

    @property
    def timer(self) -> Timeout:
        """What counts: the timeout itself (gevent has a watcher here)."""
        return self

    def cancel(self) -> None:
        """Stop counting; it may be started again."""
        entry = self._entry
        if entry is not None:
            self._entry = self._greenlet = None
            self._engine.cancel(entry)
        elif self._queued is not None:
            self._queued.stop()
            self._queued = self._greenlet = None

    def close(self) -> None:
        """Stop counting for good."""
        self.cancel()
        self._closed = True

    # -- in a with statement

    def __enter__(self) -> Self:
        try:
            if self._entry is None and not self.pending:
                self.start()
        except BaseException:
            self.cancel()  # a signal handler has raised when it counted already: nobody calls __exit__
            raise
        return self

    def __exit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        self.close()
        return value is self and self.exception is False

    # -- texts

    def __str__(self) -> str:
        seconds = self.seconds
        if seconds is None:
            return ""
        suffix = "" if seconds == 1 else "s"
        if self.exception is None:
            return f"{seconds} second{suffix}"
        if self.exception is False:
            return f"{seconds} second{suffix} (silent)"
        return f"{seconds} second{suffix}: {self.exception}"

    def __repr__(self) -> str:
        pending = " pending" if self.pending else ""
        exception = "" if self.exception is None else f" exception={self.exception!r}"
        return f"<{type(self).__name__} at {id(self):#x} seconds={self.seconds}{exception}{pending}>"


class _FakeTimerType:
    """Stands for a timeout that never expires, without the cost of one."""

    pending = False
    seconds = timer = exception = None

    def start(self) -> None:
        raise AssertionError("non-expiring timer cannot be started")

    def cancel(self) -> None:
        """Nothing to cancel."""

    close = stop = cancel

    def __enter__(self) -> _FakeTimerType:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


_FakeTimer = _FakeTimerType()


@parks
def wait_limited(wait: Wait, timeout: Any) -> bool:
    """``wait.block(timeout)`` where a caller's ``timeout`` may be seconds, None or a Timeout.

    True if woken, False when the time was over. A Timeout object is started if it is not pending; its own
    expiry counts as False here, any other one goes on.
    """
    if timeout is None or type(timeout) is float or type(timeout) is int:
        return wait.block(timeout)
    if isinstance(timeout, _FakeTimerType):
        return wait.block(None)
    if not isinstance(timeout, Timeout):
        return wait.block(as_seconds(timeout))
    try:
        with counting(timeout):
            return wait.block(None)
    except BaseException as e:
        if e is timeout:
            return False
        raise


@contextmanager
def counting(timeout: Timeout) -> Iterator[None]:
    """A block in which a caller's ``timeout`` counts: it is started if need be, and then stopped again."""
    with_start = not timeout.pending
    if with_start:
        timeout.start()
    try:
        yield
    finally:
        if with_start:
            timeout.cancel()


def expired(timeout: Any) -> BaseException:
    """What to raise after a wait that is over: the Timeout that was given, or one for the seconds."""
    return timeout if isinstance(timeout, Timeout) else Timeout(timeout)


@overload
def with_timeout(
    seconds: float | None, function: Callable[..., R], *args: Any, timeout_value: V, **kwds: Any
) -> R | V: ...
@overload
def with_timeout(
    seconds: float | None, function: Callable[P, R], *args: P.args, **kwds: P.kwargs
) -> R: ...
def with_timeout(seconds: float | None, function: Callable[..., Any], *args: Any, **kwds: Any) -> Any:
    """Call ``function(*args, **kwds)``, for ``seconds`` at the most; return what it returns.

    When the time is over Timeout is raised, or the keyword argument ``timeout_value`` is returned if it was
    given. Blocks the greenlet as long as the function does.
    """
    timeout_value = kwds.pop("timeout_value", _UNSET)
    timeout = Timeout.start_new(seconds, _one_shot=True)
    try:
        return function(*args, **kwds)
    except Timeout as e:
        if e is timeout and timeout_value is not _UNSET:
            return timeout_value
        raise
    finally:
        timeout.close()
