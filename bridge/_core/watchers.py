"""gevent's event loop API on top of an engine: ``hub.loop`` and its watchers.

Libraries reach for ``loop.io``, ``loop.timer``, ``loop.async_``, ``loop.run_callback`` and the like. A
watcher is started with a callback, which is then called in the hub each time the event happens, until
the watcher is stopped; ``ref`` says whether an active watcher is a reason for the loop to go on.

Every callback goes through the ready queue (see :mod:`.engine`), so it may switch to greenlets.
Priorities are accepted and kept but have no effect: there is one queue, first in, first out.
"""

from __future__ import annotations

import os
import signal as _signal
import sys
from _thread import get_ident
from collections.abc import Callable
from time import monotonic
from typing import Any, ClassVar

from .callbacks import Callback
from .children import ChildWatch, need_statuses
from .engine import Engine
from .engine import Timer as _HeapEntry
from .poller import READ, WRITE, Interest, Poller

__all__ = [
    "EVENTS", "MAXPRI", "MINPRI", "READ", "WRITE",
    "async_", "check", "child", "fork", "idle", "io", "loop", "prepare", "signal", "stat", "timer", "watcher",
]  # fmt: skip

# Taken now: monkey patching replaces the names in signal by ours.
_set_signal = _signal.signal
_getsignal = _signal.getsignal

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

    def __init__(self, loop: Loop, ref: bool = True, priority: int | None = None) -> None:
        self.loop: Loop = loop
        self._ref = bool(ref)
        self._priority = 0
        self._callback: Callable[..., Any] | None = None
        self._args: tuple[Any, ...] | None = None
        self._active = False
        self._queued: Callback | None = None
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


class io(watcher):
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
        # Only while it watches: it refers to us, and a stopped watcher shall be freed at once.
        self._interest: Interest | None = None
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
        self._interest = interest

    def _end(self) -> None:
        if self._interest is not None:
            self.loop.get_poller().remove(self._interest)
            self._interest = None

    # the poller counts for us
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
            if self._active:
                self._end()
                self._begin()

    def start(self, callback: Callable[..., Any], *args: Any, pass_events: bool = False) -> None:
        """Call ``callback(*args)`` while the fd is ready; with ``pass_events`` the events come first."""
        super().start(callback, *((EVENTS, *args) if pass_events else args))


class timer(watcher):
    """A call after some seconds, and every ``repeat`` seconds after that if ``repeat`` is not 0."""

    def __init__(
        self,
        loop: Loop,
        after: float = 0.0,
        repeat: float = 0.0,
        ref: bool = True,
        priority: int | None = None,
    ) -> None:
        if repeat < 0.0:
            raise ValueError(f"repeat must be positive or zero: {repeat!r}")
        self._after = after
        self._repeat = repeat
        self._entry: _HeapEntry | None = None
        super().__init__(loop, ref, priority)

    @property
    def at(self) -> float:
        """When it goes off next, in the time of ``loop.now()``."""
        return float(self._entry[0]) if self._entry is not None else 0.0

    def start(self, callback: Callable[..., Any], *args: Any, update: bool | None = None) -> None:
        """Start counting, from the loop's cached time, or from now with ``update=True``."""
        if not callable(callback):
            raise TypeError(f"Expected callable, not {callback!r}")
        self._check_open("start")
        if update:
            self.loop.update_now()
        self._callback = callback
        self._args = args
        if not self._active:
            self._active = True
            self._set(self._after)

    def _set(self, after: float) -> None:
        loop = self.loop
        self._entry = loop.call_at(loop.now() + after, timer._due, self, self._ref)

    def _due(self) -> None:
        if self._repeat:
            self._set(self._repeat)
        else:
            self._entry = None
        self._queue()

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
        if self._entry is not None:
            self.loop.cancel(self._entry)
            self._entry = None
        if self._queued is not None:
            self._queued.stop()
            self._queued = None
        self._callback = self._args = None

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


class signal(watcher):
    """A call when the process receives a signal.

    Made of :func:`signal.signal` and a thread-safe wake-up, so that the program's own use of
    ``signal.set_wakeup_fd`` and of other signals is left alone. Only in the main thread.
    """

    _shown = ("signum",)

    def __init__(self, loop: Loop, signum: int, ref: bool = True, priority: int | None = None) -> None:
        if not 0 < signum < _signal.NSIG:
            raise ValueError(f"illegal signal number: {signum!r}")
        self.signum = signum
        super().__init__(loop, ref, priority)

    def _begin(self) -> None:
        _signals.add(self)

    def _end(self) -> None:
        _signals.remove(self)

    def _deliver(self) -> None:
        if self._active:
            self._queue()


class _Signals:
    """Which watchers wait for which signal; one Python handler for each watched signal."""

    def __init__(self) -> None:
        self.watchers: dict[int, list[signal]] = {}
        self.previous: dict[int, Any] = {}

    def add(self, w: signal) -> None:
        there = self.watchers.setdefault(w.signum, [])
        if not there:
            try:
                self.previous[w.signum] = _set_signal(w.signum, self.handle)
            except BaseException:
                del self.watchers[w.signum]
                raise
        there.append(w)

    def remove(self, w: signal) -> None:
        there = self.watchers.get(w.signum, [])
        if w in there:
            there.remove(w)
        if not there and w.signum in self.watchers:
            del self.watchers[w.signum]
            previous = self.previous.pop(w.signum)
            # only what we have set ourselves; bound methods are equal, not identical
            if _getsignal(w.signum) == self.handle:
                _set_signal(w.signum, _signal.SIG_DFL if previous is None else previous)

    def get_beneath(self, signum: int) -> Any:
        """The handler of the program, whether or not watchers are in front of it."""
        if signum in self.watchers:
            return self.previous[signum]
        return _getsignal(signum)

    def set_beneath(self, signum: int, handler: Any) -> None:
        """Set the handler of the program, but leave watchers in front of it."""
        if signum in self.watchers and _getsignal(signum) == self.handle:
            self.previous[signum] = handler
        else:
            _set_signal(signum, handler)

    def handle(self, signum: int, frame: object) -> None:
        # A signal handler: it must not switch, and the loop may be blocked in select(): the thread-safe
        # way in wakes it.
        for w in tuple(self.watchers.get(signum, ())):
            w.loop.wake_from_signal(w._deliver)
        if signum in _SHARED:
            previous = self.previous.get(signum)
            if callable(previous):
                previous(signum, frame)


#: A watcher takes a signal away from the program's handler, as in gevent. But SIGCHLD comes because of
#: others too, and gevent has the program's handler and its own watchers side by side.
_SHARED = frozenset({getattr(_signal, "SIGCHLD", None)})
_signals = _Signals()


class child(watcher):
    """A call when the child process ``pid`` has ended; ``rstatus`` is its wait status then.

    On every loop and in every thread, unlike in gevent. The child is reaped. If somebody else has
    called the real ``waitpid`` for it, the status is unknown and 0.
    """

    _shown = ("pid", "rstatus")

    def __init__(
        self, loop: Loop, pid: int, trace: int = 0, ref: bool = True, priority: int | None = None
    ) -> None:
        if pid <= 0:
            raise ValueError(f"loop.child(pid={pid!r}): the pid of one child is needed, a positive number")
        self.rpid = 0
        self.rstatus = 0
        #: true if it has ended, but somebody else has taken its status
        self.stolen = False
        self._pid = pid
        self._watch: ChildWatch | None = None
        super().__init__(loop, ref, priority)

    @property
    def pid(self) -> int:
        """The process that is watched."""
        return self._pid

    def _begin(self) -> None:
        self.loop.install_sigchld()
        self._watch = ChildWatch(self.loop, self._pid, self._told, self._ref)
        self._watch.start()

    def _end(self) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    # the watch counts for us
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
            if self._watch is not None:
                self._end()
                self._begin()

    def _told(self, status: int | None) -> None:
        self._watch = None
        self.rpid = self._pid
        if status is None:
            self.stolen = True
        else:
            self.rstatus = status
        self._queue()


class stat(watcher):
    """A call when the result of ``os.stat(path)`` changes; looked at every ``interval`` seconds."""

    _shown = ("path", "interval")

    def __init__(
        self,
        loop: Loop,
        path: str | bytes | os.PathLike[Any],
        interval: float = 0.0,
        ref: bool = True,
        priority: int | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._paths = os.fsencode(self.path)
        self.interval = interval
        self.attr: os.stat_result | None = None
        self.prev: os.stat_result | None = None
        self._entry: _HeapEntry | None = None
        super().__init__(loop, ref, priority)
        self.attr = self._look()

    def _look(self) -> os.stat_result | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found if found.st_nlink else None

    def _begin(self) -> None:
        # libev's own are 5 s, for where it has no inotify, and 0.1 s at the least
        self.interval = max(self.interval, 0.1) if self.interval else 0.5
        self.attr = self._look()
        self._set()

    def _set(self) -> None:
        self._entry = self.loop.call_at(monotonic() + self.interval, stat._due, self, self._ref)

    def _due(self) -> None:
        self._set()
        now = self._look()
        if now != self.attr:
            self.prev, self.attr = self.attr, now
            self._queue()

    def _end(self) -> None:
        if self._entry is not None:
            self.loop.cancel(self._entry)
            self._entry = None

    # the timer counts for us
    def _hold(self) -> None:
        if self._entry is not None:
            self._entry[4] = self._ref

    def _unhold(self) -> None:
        if self._entry is not None:
            self._entry[4] = False


class loop(Engine):
    """gevent's event loop API.

    ``loop(default=True)`` is what a hub runs. Others may be made with ``default=False`` and run by hand
    with :meth:`run`, in any greenlet of the thread that made them.
    """

    MINPRI = MINPRI
    MAXPRI = MAXPRI

    #: ``hook(loop, phase)``, called "before" an owned loop runs, when it is "running", "after" it has run
    run_hooks: ClassVar[list[Callable[[Loop, str], None]]] = []

    def __init__(
        self, flags: object = None, default: bool | None = None, *, aio: Any = None, owned: bool = True
    ) -> None:
        if aio is None:
            from bridge._config import config

            aio = config.aio_loop_factory()
        super().__init__(aio, owned)
        self.default = bool(default) if default is not None else True
        self._now = monotonic()
        self._by_hand = False
        self.idlers: list[idle] = []
        self.fork_watchers: list[fork] = []

    # -- time

    def now(self) -> float:
        """The loop's cached time in seconds; monotonic."""
        return monotonic() if self.running or not self.owned else self._now

    def update_now(self) -> None:
        """Refresh the cached time."""
        self._now = monotonic()

    update = update_now

    # -- callbacks

    def run_callback(self, func: Callable[..., Any], *args: Any) -> Callback:
        """Call ``func(*args)`` in the hub, after what is ready now. Not from other threads."""
        if not callable(func):
            raise TypeError(f"Expected callable, not {func!r}")
        item = Callback(func, args)
        self.ready.append(item)
        if not self.armed:
            self.arm()
        return item

    def run_callback_threadsafe(self, func: Callable[..., Any], *args: Any) -> Callback:
        """:meth:`run_callback` from any thread."""
        if not callable(func):
            raise TypeError(f"Expected callable, not {func!r}")
        item = Callback(func, args)
        self.append_threadsafe(item)
        return item

    def wake_from_signal(self, func: Callable[[], Any]) -> None:
        """Have ``func`` called in the hub; may be called from a signal handler."""
        if not self.destroyed and not self.aio.is_closed():
            self.ready.append(Callback(func, ()))
            self.aio.call_soon_threadsafe(self._arm_again)

    # -- life

    def run(self, nowait: bool = False, once: bool = False) -> None:
        """Run until nothing that counts is left; ``once``: one round; ``nowait``: one without waiting."""
        if once or nowait:
            if nowait:
                self.call_at(monotonic(), self._break_at_end, None)
            else:
                self.after.append(self._break_once)
        self._by_hand = True
        try:
            self.run_owned()
        finally:
            self._by_hand = False
            if self._break_once in self.after:
                self.after.remove(self._break_once)
            self.update_now()

    def run_owned(self) -> None:
        """Run the loop in the current greenlet until nothing is left to do or it is stopped."""
        hooks = tuple(self.run_hooks)
        for hook in hooks:
            hook(self, "before")
            self.ready.appendleft(Callback(hook, (self, "running")))
        try:
            super().run_owned()
        finally:
            for hook in hooks:
                hook(self, "after")

    def _other_threads(self) -> bool:
        # They keep a blocked greenlet from a LoopExit; whoever runs the loop by hand blocks nobody.
        return not self._by_hand and super()._other_threads()

    def _break_at_end(self, _ignored: object) -> None:
        self.stopping = True

    def _break_once(self) -> None:
        self.stopping = True

    def break_(self, how: int = 1) -> None:
        """Make :meth:`run` return after this round."""
        self.stopping = True
        if not self.armed:
            self.arm()

    def ref(self) -> None:
        """Give the loop a reason to go on, until :meth:`unref`."""
        self.refs += 1

    def unref(self) -> None:
        """Take back :meth:`ref`."""
        self.refs -= 1

    def ref_add(self) -> None:
        """Something outside (a thread, say) has begun that will wake us."""
        self.refs += 1

    def ref_drop(self) -> None:
        """It has ended."""
        self.refs -= 1
        if not self.refs and not self.armed and not self.destroyed:
            self.arm()

    def destroy(self) -> bool | None:
        """Free the loop; it can't be run again. True if it had not been destroyed before."""
        if self.destroyed:
            return None
        self.destroyed = True
        self.error_handler = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self.poller is not None:
            self.poller.close()
        self.heap.clear()
        self.ready.clear()
        self.stale.clear()
        for each in [w for there in _signals.watchers.values() for w in there if w.loop is self]:
            each.stop()
        self.before.clear()
        self.after.clear()
        if self.owned and not self.aio.is_running() and not self.aio.is_closed():
            self.aio.close()
        return True

    def reinit(self) -> None:
        """Prepare for running in a forked child; done by ``bridge.reinit()``."""
        self._run_fork_watchers()

    def _run_fork_watchers(self) -> None:
        for each in tuple(self.fork_watchers):
            each._queue()

    def _run_idle(self) -> bool:
        for each in tuple(self.idlers):
            each._queue()
        return bool(self.idlers)

    def get_poller(self) -> Poller:
        """The poller, made at the first use."""
        poller = self.poller
        if poller is None:
            poller = self.poller = Poller(self)
        return poller

    def closing_fd(self, fd: int) -> bool:
        """An fd is about to be closed: forget it, and wake who waits for it. True if somebody did."""
        if self.poller is None:
            return False
        waiting = self.poller.forget(fd)
        for interest in waiting:
            interest.fire(interest.events)
        edges = self.edges
        return (edges is not None and edges.forget(fd)) or bool(waiting)

    # -- information

    @property
    def WatcherType(self) -> type[watcher]:
        """The base class of the watchers."""
        return watcher

    @property
    def backend(self) -> str:
        """The name of the asyncio loop below: ``uvloop`` or ``asyncio``, or its module."""
        return type(self.aio).__module__.partition(".")[0]

    backend_int = 0
    sig_pending = 0
    sigfd = -1
    origflags_int = 0
    origflags: tuple[str, ...] = ()

    @property
    def activecnt(self) -> int:
        """How many things keep the loop going."""
        timers = sum(1 for t in self.heap if t[2] is not None and t[4])
        return self.refs + timers + (self.poller.count() if self.poller is not None else 0)

    @property
    def pendingcnt(self) -> int:
        """How many callbacks and greenlets are ready to run."""
        return len(self.ready)

    @property
    def approx_timer_resolution(self) -> float:
        """Seconds by which a timer may be late on an idle machine."""
        return 0.001

    def fileno(self) -> int | None:
        """The fd of the poller, None before the first file was waited for."""
        return self.poller.fileno() if self.poller is not None else None

    def install_sigchld(self) -> None:
        """Make sure that the statuses of children can be had: SIGCHLD must not be ignored.

        Nothing else is to be done, as children are watched without SIGCHLD.
        """
        need_statuses()

    def reset_sigchld(self) -> None:
        """Nothing to do: children are watched without SIGCHLD."""

    def verify(self) -> None:
        """Check the invariants of the timer heap (AssertionError)."""
        heap = self.heap
        assert all(heap[(i - 1) // 2] <= heap[i] for i in range(1, len(heap))), "timer heap"

    def _format_details(self) -> str:
        default = " default" if self.default else ""
        counts = f"pending={self.pendingcnt} ref={self.activecnt}"
        return f"{self.backend}{default} {counts} fileno={self.fileno()}"

    def _format(self) -> str:
        return "destroyed" if self.destroyed else self._format_details()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {self._format()}>"

    # -- watchers

    def io(self, fd: int, events: int, ref: bool = True, priority: int | None = None) -> io:
        """Watch a file descriptor; ``events``: READ (1), WRITE (2) or both."""
        return io(self, fd, events, ref, priority)

    def timer(
        self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None
    ) -> timer:
        """Call after ``after`` seconds, then every ``repeat`` seconds if that is not 0."""
        return timer(self, after, repeat, ref, priority)

    def signal(self, signum: int, ref: bool = True, priority: int | None = None) -> signal:
        """Call when the process receives ``signum``."""
        return signal(self, signum, ref, priority)

    def idle(self, ref: bool = True, priority: int | None = None) -> idle:
        """Call whenever there is nothing else to do."""
        return idle(self, ref, priority)

    def prepare(self, ref: bool = True, priority: int | None = None) -> prepare:
        """Call at the end of each round."""
        return prepare(self, ref, priority)

    def check(self, ref: bool = True, priority: int | None = None) -> check:
        """Call at the beginning of each round."""
        return check(self, ref, priority)

    def fork(self, ref: bool = True, priority: int | None = None) -> fork:
        """Call in the child after a fork."""
        return fork(self, ref, priority)

    def async_(self, ref: bool = True, priority: int | None = None) -> async_:
        """Call when a thread asks for it."""
        return async_(self, ref, priority)

    def child(self, pid: int, trace: int = 0, ref: bool = True) -> child:
        """Call when a child process has ended."""
        return child(self, pid, trace, ref)

    def stat(
        self,
        path: str | bytes | os.PathLike[Any],
        interval: float = 0.0,
        ref: bool = True,
        priority: bool | None = None,
    ) -> stat:
        """Call when a file changes."""
        return stat(self, path, interval, ref, priority)


#: The class under a name that no attribute and no argument has.
Loop = loop

setattr(loop, "async", loop.async_)  # a keyword since 3.7; gevent keeps the name reachable
