"""Events and results that greenlets, coroutines and threads wait for; twin of :mod:`gevent.event`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, TypeVar, cast

from ._aio.asyncwait import AsyncWait
from ._core.engine import parks
from ._core.errors import BlockingSwitchOutError
from ._core.waiting import Wait, WaitLine
from ._linkable import AbstractLinkable
from .timeout import Timeout, expired, wait_limited

__all__ = ["AsyncResult", "Event"]

T = TypeVar("T")


class _Waitable(AbstractLinkable):
    """Waiting for something that, once there, is there for all: everybody in line is woken."""

    __slots__ = ()

    @parks
    def _wait_ready(self, timeout: float | Timeout | None) -> bool:
        """Block until woken (True) or for ``timeout`` (False); called when not ready."""
        wait = Wait()
        line = self._line
        if line is None:
            line = self._line_of_waiters()
        try:
            line.append(wait)
            if self.ready():  # set by another thread before we were in line
                wait.wake()
            if timeout is None:
                return wait.block()
            woken = wait_limited(wait, timeout)
        except BaseException:
            line.discard(wait)
            raise
        if not woken:
            line.discard(wait)
        return woken

    @parks
    def _wait_unlimited(self) -> None:
        """:meth:`_wait_ready` for the most frequent case."""
        wait = Wait()
        line = self._line
        if line is None:
            line = self._line = WaitLine()
        try:
            line.append(wait)
            if self.ready():
                wait.wake()
            wait.block()
        except BaseException:
            line.discard(wait)
            raise

    async def _await_ready(self, timeout: float | None) -> bool:
        wait = AsyncWait()
        line = self._line_of_waiters()
        try:
            line.append(wait)
            if self.ready():
                wait.wake()
            return await wait.block(timeout)
        finally:
            line.discard(wait)


class Event(_Waitable):
    """A flag that greenlets, coroutines and threads wait for.

    ``set()`` wakes all who wait at that moment, also if ``clear()`` follows at once. In a coroutine write
    ``await event``.
    """

    __slots__ = ("_flag", "_told")

    #: the last greenlet that set() has woken, until it is seen to have run
    _told: Wait | None

    def __init__(self) -> None:
        self._line = None
        self._flag = False
        self._told = None

    def __str__(self) -> str:
        return (
            f"<{type(self).__name__} at {id(self):#x} {'set' if self._flag else 'clear'} {self._links_str()}>"
        )

    def is_set(self) -> bool:
        """True if the flag is set."""
        return self._flag

    def isSet(self) -> bool:
        """:meth:`is_set`"""
        return self._flag

    def ready(self) -> bool:
        """:meth:`is_set`"""
        return self._flag

    def set(self) -> None:
        """Set the flag and wake all who wait. From any greenlet, coroutine, callback or thread."""
        self._flag = True
        line = self._line
        if line:
            last = line[-1]
            self._told = last if type(last) is Wait else None
            if line[0] is last and not last.dead:  # atomic: line.wake_all() without the call, for one
                last.dead = True
                line.popleft()
                last.wake()
            else:
                line.wake_all()

    def clear(self) -> None:
        """Clear the flag: those who come now wait."""
        self._flag = False

    @parks
    def wait(self, timeout: float | Timeout | None = None) -> bool:
        """Block until the flag is set, for ``timeout`` seconds at the most; whether it was set."""
        if self._flag:
            if self._told is not None:
                self._after_those_told()
            return True
        if timeout is not None:
            try:
                return self._wait_ready(timeout) or self._flag
            finally:
                told = self._told  # another thread may change it
                if told is not None and not told.queued:
                    self._told = None
        # _wait_unlimited() without the calls
        wait = Wait()
        line = self._line
        if line is None:
            line = self._line = WaitLine()
        try:
            line.append(wait)
            if self._flag:
                wait.wake()
            wait.block()
        except BaseException:
            line.discard(wait)
            raise
        finally:
            if self._told is wait:  # or an event that is kept would keep the greenlet
                self._told = None
        return True

    def _after_those_told(self) -> None:
        """Whoever waited when the flag was set runs before who comes later, as in gevent."""
        told, self._told = self._told, None
        if told is not None and told.queued:
            try:
                wait = Wait()
            except BlockingSwitchOutError:
                return
            wait.wake()
            wait.block()

    async def await_set(self, timeout: float | None = None) -> bool:
        """In a coroutine: :meth:`wait`."""
        return self._flag or await self._await_ready(timeout) or self._flag

    def __await__(self) -> Generator[Any, None, bool]:
        return self.await_set().__await__()

    def _at_fork_reinit(self) -> None:
        self._line = None


_UNSET: Any = object()


class AsyncResult(_Waitable, Generic[T]):
    """A value or an exception that comes later, for any number of waiters.

    May be linked to a greenlet (``greenlet.link(result)``). ``await result`` waits in a coroutine.
    """

    __slots__ = ("_exc_info", "_value")

    def __init__(self) -> None:
        self._line = None
        self._value: Any = _UNSET
        self._exc_info: tuple[Any, Any, Any] | tuple[()] = ()

    def __str__(self) -> str:
        shown = ""
        if self._value is not _UNSET:
            shown += f"value={self._value!r} "
        exception = self.exception
        if exception is not None:
            shown += f"exception={exception!r} "
        if not self.ready():
            shown += "unset "
        return f"<{type(self).__name__} {shown}{self._links_str()}>"

    @property
    def _exception(self) -> Any:
        return self._exc_info[1] if self._exc_info else (None if self._value is not _UNSET else _UNSET)

    @property
    def value(self) -> T | None:
        """The value, None if there is none (yet)."""
        return self._value if self._value is not _UNSET else None

    @property
    def exc_info(self) -> Any:
        """The exception as (type, value, traceback); an empty tuple if there is none."""
        return self._exc_info

    @property
    def exception(self) -> BaseException | None:
        """The exception, None if there is none."""
        return self._exc_info[1] if self._exc_info else None

    def ready(self) -> bool:
        """True if there is a value or an exception."""
        return self._value is not _UNSET or bool(self._exc_info)

    def successful(self) -> bool:
        """True if there is a value."""
        return self._value is not _UNSET and not self._exc_info

    def set(self, value: T | None = None) -> None:
        """Store the value and wake all who wait. From anywhere, any thread.

        Setting again replaces the value, and takes back an exception.
        """
        self._exc_info = ()
        self._value = value
        line = self._line
        if line:
            line.wake_all()

    def set_exception(self, exception: Any, exc_info: Any = None) -> None:
        """Store an exception, with its traceback if ``exc_info`` has one, and wake all who wait."""
        if exc_info:
            self._exc_info = (exc_info[0], exc_info[1], exc_info[2])
        else:
            self._exc_info = (type(exception), exception, getattr(exception, "__traceback__", None))
        self._value = _UNSET
        line = self._line
        if line:
            line.wake_all()

    def _raise_exception(self) -> None:
        _typ, value, tb = self._exc_info  # type: ignore[misc]
        if isinstance(value, BaseException):
            try:
                raise value.with_traceback(tb)
            finally:
                del value, tb  # the traceback refers to this frame: no cycle through it
        raise TypeError(f"set_exception({value!r}) was given something that is no exception")

    def get(self, block: bool = True, timeout: float | Timeout | None = None) -> T:
        """The value, or raise the exception; blocks until one is there.

        Raises Timeout after ``timeout`` seconds, or at once if ``block`` is false.
        """
        if self._value is not _UNSET:
            return self._value  # type: ignore[no-any-return]
        if not self._exc_info:
            if not block:
                raise Timeout()
            if timeout is None:
                self._wait_unlimited()
            elif not self._wait_ready(timeout) and not self.ready():
                raise expired(timeout)
        if self._exc_info:
            self._raise_exception()
        return cast(T, self._value)

    def get_nowait(self) -> T:
        """The value, or raise the exception, or Timeout if neither is there. Never blocks."""
        return self.get(block=False)

    def wait(self, timeout: float | Timeout | None = None) -> T | None:
        """Block until there is a value or an exception; the value, None after an exception or timeout."""
        if not self.ready():
            self._wait_ready(timeout)
        return self.value

    async def aget(self, timeout: float | None = None) -> T:
        """In a coroutine: :meth:`get`."""
        if not self.ready() and not await self._await_ready(timeout) and not self.ready():
            raise Timeout(timeout)
        return self.get(block=False)

    def __await__(self) -> Generator[Any, None, T]:
        return self.aget().__await__()

    # what concurrent.futures.Future is used with

    def done(self) -> bool:
        """:meth:`ready`"""
        return self.ready()

    def cancel(self) -> bool:
        """Never possible: False."""
        return False

    def cancelled(self) -> bool:
        """Never: False."""
        return False

    def result(self, timeout: float | Timeout | None = None) -> T:
        """:meth:`get`"""
        return self.get(timeout=timeout)

    def set_result(self, value: T | None = None) -> None:
        """:meth:`set`"""
        self.set(value)

    def __call__(self, source: Any) -> None:
        """As a link: take over the value or the exception of ``source``."""
        if source.successful():
            self.set(source.value)
        else:
            self.set_exception(source.exception, getattr(source, "exc_info", None))

    def _at_fork_reinit(self) -> None:
        self._line = None
