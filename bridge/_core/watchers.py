"""The watchers of gevent's loop API: files, timers, other threads, and the phases of the loop.

A watcher is started with a callback, which is then called in the hub each time the event happens, until
the watcher is stopped; ``ref`` says whether an active watcher is a reason for the loop to go on. Those for
signals, processes and changing files are in :mod:`.oswatchers`, the loop itself in :mod:`.loop`.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .callbacks import Callback
from .engine import Timer as _HeapEntry
from .poller import READ, WRITE, Interest
from .seconds import as_seconds

if TYPE_CHECKING:
    from .loop import loop as Loop

__all__ = [
    "EVENTS", "MAXPRI", "MINPRI", "READ", "WRITE",
    "async_", "check", "fork", "idle", "io", "prepare", "timer", "watcher",
]  # fmt: skip

#: Passed to a watcher's start() as an argument that stands for the events that happened.
EVENTS = type("GEVENT_CORE_EVENTS", (), {"__repr__": lambda self: "gevent.core.EVENTS"})()
MINPRI = -2
MAXPRI = 2


class watcher:
    """What all watchers have; a subclass says how an event is watched for.

    :param loop: the loop that watches.
    :param ref: whether an active watcher keeps the loop going.
    :param priority: kept for compatibility, from -2 to 2.
    """

    #: constructor arguments shown by repr
    _shown: tuple[str, ...] = ()

    # Here, as many are made that are never started, or stopped at once.
    _priority = 0
    _callback: Callable[..., Any] | None = None
    _args: tuple[Any, ...] | None = None
    _active = False
    _queued: Callback | None = None

    def __init__(self, loop: Loop, ref: bool = True, priority: int | None = None) -> None:
        self.loop: Loop = loop
        self._ref = bool(ref)
        if priority is not None:
            self.priority = priority

    # -- what gevent documents

    @property
    def ref(self) -> bool:
        """Whether this watcher, while active, is a reason for the loop to go on."""
        return self._ref

    @ref.setter
    def ref(self, value: bool) -> None:
        value = bool(value)
        if value != self._ref:
            if self._active:
                self._unhold()
            self._ref = value
            if self._active:
                self._hold()

    @property
    def priority(self) -> int:
        """A number from -2 to 2; cannot be changed while the watcher is active (AttributeError)."""
        return self._priority

    @priority.setter
    def priority(self, value: int) -> None:
        if self._active:
            raise AttributeError("Cannot set priority of an active watcher; stop() it first")
        if not isinstance(value, int):
            raise TypeError(f"priority must be an integer, not {value!r}")
        self._priority = max(MINPRI, min(MAXPRI, value))

    @property
    def active(self) -> bool:
        """True while started."""
        return self._active

    @property
    def pending(self) -> bool:
        """True if the event has happened and the callback is about to be called."""
        return self._queued is not None and self._queued.pending

    @property
    def callback(self) -> Callable[..., Any] | None:
        """What is called when the event happens; may be replaced while the watcher is active."""
        return self._callback

    @callback.setter
    def callback(self, value: Callable[..., Any] | None) -> None:
        if value is not None and not callable(value):
            raise TypeError(f"Expected callable, not {value!r}")
        self._callback = value

    @callback.deleter
    def callback(self) -> None:
        self._callback = None

    @property
    def args(self) -> tuple[Any, ...] | None:
        """The arguments for the callback; a tuple."""
        return self._args

    @args.setter
    def args(self, value: tuple[Any, ...] | None) -> None:
        if value is not None and not isinstance(value, tuple):
            raise TypeError(f"args must be a tuple or None, not {value!r}")
        self._args = value

    @args.deleter
    def args(self) -> None:
        self._args = None

    def start(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call ``callback(*args)`` in the hub each time the event happens, until :meth:`stop`."""
        if not callable(callback):
            raise TypeError(f"Expected callable, not {callback!r}")
        self._check_open("start")
        self._callback = callback
        self._args = args
        if not self._active:
            self._active = True
            try:
                self._begin()
            except BaseException:
                self._active = False
                self._callback = self._args = None
                raise
            self._hold()

    def stop(self) -> None:
        """Stop watching and forget the callback; a call that was about to be made is not made."""
        if self._active:
            self._active = False
            self._unhold()
            self._end()
        if self._queued is not None:
            self._queued.stop()
            self._queued = None
        self._callback = self._args = None

    def close(self) -> None:
        """Stop for good."""
        self.stop()

    def feed(self, revents: int, callback: Callable[..., Any], *args: Any) -> None:
        """Have the callback called as if the event had happened, without starting to watch."""
        if not callable(callback):
            raise TypeError(f"Expected callable, not {callback!r}")
        self._callback = callback
        self._args = args
        self._queue(revents)

    def __enter__(self) -> watcher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = (" active" if self._active else "") + (" pending" if self.pending else "")
        shown = "".join(f" {name}={getattr(self, name)!r}" for name in self._shown)
        if self._callback is not None:
            shown += f" callback={self._callback!r}"
        if self._args is not None:
            shown += f" args={self._args!r}"
        return f"<{type(self).__name__} at {id(self):#x}{state}{shown}>"

    # -- for subclasses

    def _begin(self) -> None:
        """Begin to watch."""

    def _end(self) -> None:
        """Cease to watch."""

    def _hold(self) -> None:
        if self._ref:
            self.loop.refs += 1

    def _unhold(self) -> None:
        if self._ref:
            self.loop.refs -= 1

    def _check_open(self, action: str) -> None:
        if self.loop.destroyed:
            raise ValueError(f"Cannot {action} {type(self).__name__}: its loop has been destroyed")

    def _queue(self, revents: int = 0) -> None:
        """The event has happened: have the hub call us. Called in the loop's thread."""
        if self._queued is None or not self._queued.pending:
            self._queued = self.loop.call(self._call, revents)

    def _call(self, revents: int) -> None:
        self._queued = None
        callback, args = self._callback, self._args
        if callback is None:
            return
        if args and args[0] is EVENTS:
            args = (revents, *args[1:])
        try:
            callback(*(args or ()))
        except BaseException:
            self.loop.handle_error(self, *sys.exc_info())

    @property
    def _watcher(self) -> object:
        return self if not self.loop.destroyed else None


class counted(watcher):
    """A watcher whose source, made by ``_begin``, is itself what counts as a reason to go on."""

    #: what there is between ``_begin`` and ``_end``
    _source: Any = None

    def _hold(self) -> None:
        pass

    def _unhold(self) -> None:
        pass

    @property
    def ref(self) -> bool:
        """Whether this watcher, while active, is a reason for the loop to go on."""
        return self._ref

    @ref.setter
    def ref(self, value: bool) -> None:
        if bool(value) != self._ref:
            self._ref = bool(value)
            if self._source is not None:
                self._end()
                self._begin()


class io(counted):
    """Level-triggered readiness of a file descriptor; ``events`` is READ (1), WRITE (2) or both."""

    _shown = ("fd", "events_str")

    def __init__(
        self, loop: Loop, fd: int, events: int, ref: bool = True, priority: int | None = None
    ) -> None:
        if fd < 0:
            raise ValueError(f"fd must be non-negative: {fd!r}")
        if events & ~(READ | WRITE | 128) or not events & (READ | WRITE):
            raise ValueError(f"illegal event mask: {events!r}; use READ (1), WRITE (2) or both")
        self._fd = fd
        self._events = events & (READ | WRITE)
        super().__init__(loop, ref, priority)

    @property
    def fd(self) -> int:
        """The file descriptor; may be set while the watcher is stopped."""
        return self._fd

    @fd.setter
    def fd(self, value: int) -> None:
        self._check_stopped()
        self._fd = value

    @property
    def events(self) -> int:
        """READ, WRITE or both; may be set while the watcher is stopped."""
        return self._events

    @events.setter
    def events(self, value: int) -> None:
        self._check_stopped()
        self._events = value & (READ | WRITE)

    @property
    def events_str(self) -> str:
        """The events in words."""
        return "|".join(n for bit, n in ((READ, "READ"), (WRITE, "WRITE")) if self._events & bit)

    def _check_stopped(self) -> None:
        if self._active:
            raise AttributeError("'io' watcher attribute is read-only while watcher is active")

    def _begin(self) -> None:
        interest = Interest(self._fd, self._events, self._queue, self._ref)
        self.loop.get_poller().add(interest)
        # Only while it watches: it refers to us, and a stopped watcher shall be freed at once.
        self._source = interest

    def _end(self) -> None:
        if self._source is not None:
            self.loop.get_poller().remove(self._source)
            self._source = None

    def start(self, callback: Callable[..., Any], *args: Any, pass_events: bool = False) -> None:
        """Call ``callback(*args)`` while the fd is ready; with ``pass_events`` the events come first."""
        super().start(callback, *((EVENTS, *args) if pass_events else args))


class timer(watcher):
    """A call after some seconds, and every ``repeat`` seconds after that if ``repeat`` is not 0."""

    _entry: _HeapEntry | None = None

    def __init__(
        self,
        loop: Loop,
        after: float = 0.0,
        repeat: float = 0.0,
        ref: bool = True,
        priority: int | None = None,
    ) -> None:
        if type(after) is not float and type(after) is not int:
            after = as_seconds(after, "loop.timer(after={!r}): a number of seconds is needed")
        if type(repeat) is not float and type(repeat) is not int:
            repeat = as_seconds(repeat, "loop.timer(repeat={!r}): a number of seconds is needed")
        if repeat < 0.0:
            raise ValueError(f"repeat must be positive or zero: {repeat!r}")
        self._after = after
        self._repeat = repeat
        super().__init__(loop, ref, priority)

    @property
    def at(self) -> float:
        """When it goes off next, in the time of ``loop.now()``."""
        return float(self._entry[0]) if self._entry is not None else 0.0

    def start(self, callback: Callable[..., Any], *args: Any, update: bool | None = None) -> None:
        """Start counting, from the loop's cached time, or from now with ``update=True``."""
        if not callable(callback):
            raise TypeError(f"Expected callable, not {callback!r}")
        loop = self.loop
        if loop.destroyed:
            self._check_open("start")
        if update:
            loop.update_now()
        self._callback = callback
        self._args = args
        if not self._active:
            self._active = True
            self._set(self._after)

    def _set(self, after: float) -> None:
        loop = self.loop
        self._entry = loop.call_at(loop.now() + after, timer._due, self, self._ref)

    def _due(self) -> None:
        self._queue()
        if self._repeat:
            self._set(self._repeat)
        else:
            self._entry = None

    def _call(self, revents: int) -> None:
        if self._repeat:
            return super()._call(revents)
        # it has done its duty before the callback runs: the callback may start it again
        self._queued = None
        callback, args = self._callback, self._args
        self._active = False
        try:
            if callback is not None:
                callback(*(args or ()))
        except BaseException:
            self.loop.handle_error(self, *sys.exc_info())
        finally:
            if not self._active:
                self._callback = self._args = None

    def stop(self) -> None:
        """Stop counting and forget the callback."""
        self._active = False
        entry = self._entry
        if entry is not None:
            self.loop.cancel(entry)
            self._entry = None
        if self._queued is not None:
            self._queued.stop()
            self._queued = None
        self._callback = self._args = None

    def close(self) -> None:
        """Stop for good."""
        if self._callback is not None or self._entry is not None or self._queued is not None:
            self.stop()

    def again(self, callback: Callable[..., Any], *args: Any, update: bool = True) -> None:
        """Start anew, in ``repeat`` seconds; without ``repeat`` it stops."""
        self.stop()
        if self._repeat:
            if update:
                self.loop.update_now()
            self._check_open("start")
            self.callback = callback
            self._args = args
            self._active = True
            self._set(self._repeat)

    @property
    def ref(self) -> bool:
        """Whether this watcher, while active, is a reason for the loop to go on."""
        return self._ref

    @ref.setter
    def ref(self, value: bool) -> None:
        self._ref = bool(value)
        if self._entry is not None:
            self._entry[4] = self._ref


class async_(watcher):
    """A call that any thread may ask for with :meth:`send`."""

    _sent = False

    def send(self) -> None:
        """Have the callback called in the loop's thread. From any thread; never blocks."""
        self._sent = True
        if get_ident() == self.loop.thread_ident:
            self._arrived()
        else:
            self.loop.append_threadsafe(Callback(self._arrived, ()))

    def send_ignoring_arg(self, _ignored: object) -> None:
        """:meth:`send`, for places that pass an argument."""
        self.send()

    def _arrived(self) -> None:
        self._sent = False
        if self._active:
            self._queue()

    @property
    def pending(self) -> bool:
        """True if a send() was not answered yet."""
        return self._sent or super().pending


class _phase(watcher):
    """A call at a fixed point of each round of the hub."""

    def _hooks(self) -> list[Callable[[], None]]:
        raise TypeError(f"{type(self).__name__} has no place in the round")

    def _begin(self) -> None:
        self._hooks().append(self._due)

    def _end(self) -> None:
        self._hooks().remove(self._due)

    def _due(self) -> None:
        # Not queued: a callback in the queue would itself make the next round necessary.
        self._call(0)


class prepare(_phase):
    """A call at the end of each round, before the loop looks for events."""

    def _hooks(self) -> list[Callable[[], None]]:
        return self.loop.after


class check(_phase):
    """A call at the beginning of each round, after the loop has looked for events."""

    def _hooks(self) -> list[Callable[[], None]]:
        return self.loop.before


class idle(watcher):
    """A call each time the hub has nothing else to do; keeps the loop from sleeping while active."""

    def _begin(self) -> None:
        self.loop.idlers.append(self)
        self.loop.on_idle = self.loop._run_idle
        if not self.loop.armed:
            self.loop.arm()

    def _end(self) -> None:
        self.loop.idlers.remove(self)
        if not self.loop.idlers:
            self.loop.on_idle = None


class fork(watcher):
    """A call in the child after :func:`bridge.os.fork` or ``reinit()``."""

    def _begin(self) -> None:
        self.loop.fork_watchers.append(self)

    def _end(self) -> None:
        self.loop.fork_watchers.remove(self)
