"""gevent's event loop API on top of an engine: ``hub.loop``.

Libraries reach for ``loop.io``, ``loop.timer``, ``loop.async_``, ``loop.run_callback`` and the like.

Every callback goes through the ready queue (see :mod:`.engine`), so it may switch to greenlets.
Priorities are accepted and kept but have no effect: there is one queue, first in, first out.
"""

from __future__ import annotations

import os
import weakref
from _thread import RLock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from .callbacks import Callback
from .children import need_statuses
from .clock import keep_time, monotonic
from .engine import Engine
from .oswatchers import child, signal, signals, stat
from .poller import Poller
from .watchers import MAXPRI, MINPRI, async_, check, fork, idle, io, prepare, timer, watcher

__all__ = ["Loop", "loop"]

#: Held while an asyncio loop is made.
_making = RLock()


def _after_fork() -> None:
    global _making
    _making = RLock()  # another thread may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _close_forgotten(aio: Any, pid: int) -> None:
    """Give back the files of a loop whose hub was never destroyed; uvloop itself never does."""
    if os.getpid() == pid and not aio.is_running() and not aio.is_closed():
        aio.close()


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
        super().__init__(aio, owned)
        #: Closes the asyncio loop if we are forgotten, as long as nobody has had it in hand and it has not
        #: run (then it refers to us, and this to it).
        self._forgotten: weakref.finalize[[Any, int], Loop] | None = None
        self._remembered = False  # somebody else sees to that
        if aio is None:
            from bridge._config import config

            #: makes the asyncio loop
            self._factory: Callable[[], Any] = config.aio_loop_factory
        self.default = bool(default) if default is not None else True
        self._now = monotonic()
        self._by_hand = False
        self.idlers: list[idle] = []
        self.fork_watchers: list[fork] = []

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Half a millisecond and five files, which a hub that never runs does not need.
            if name == "aio":
                return self._make_aio()
            what = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(what, name=name, obj=self)

    def _make_aio(self) -> Any:
        """Make the asyncio loop, unless somebody else has just done it. In any thread."""
        with _making:
            if not self.has_aio:
                aio = self._factory()
                if self.has_aio:  # a signal handler in the middle of that was quicker
                    aio.close()
                    return self.aio
                keep_time(aio)
                if not self._remembered:
                    self._forgotten = weakref.finalize(self, _close_forgotten, aio, os.getpid())
                    self._forgotten.atexit = False
                self._use(aio)
                if self.destroyed:
                    aio.close()
            return self.aio

    def share(self) -> None:
        """Somebody else gets the asyncio loop in hand, and may run it and close it."""
        self.shared = True
        self._remember()

    def _remember(self) -> None:
        """From now on somebody else sees to the end of the asyncio loop."""
        self._remembered = True
        if self._forgotten is not None:
            self._forgotten.detach()
            self._forgotten = None

    # -- time

    def now(self) -> float:
        """The loop's cached time in seconds; monotonic."""
        return monotonic() if self.running or not self.owned else self._now

    def update_now(self) -> None:
        """Refresh the cached time."""
        self._now = monotonic()

    update = update_now

    # -- callbacks

    def run_callback_threadsafe(self, func: Callable[..., Any], *args: Any) -> Callback:
        """:meth:`run_callback` from any thread."""
        if not callable(func):
            raise TypeError(f"Expected callable, not {func!r}")
        item = Callback(func, args)
        self.append_threadsafe(item)
        return item

    @property
    def _callbacks(self) -> list[Callback]:
        """The callbacks that are to be called, as in gevent: for programs that look at them."""
        return [entry for entry in tuple(self.ready) if type(entry) is Callback]

    def wake_from_signal(self, func: Callable[[], Any]) -> None:
        """Have ``func`` called in the hub; may be called from a signal handler."""
        if not self.destroyed and not self.is_closed():
            self.ready.append(Callback(func, ()))
            if self.has_aio:  # else it has not run, and drains first thing when it does
                self.aio.call_soon_threadsafe(self._arm_again)

    # -- life

    def run(self, nowait: bool = False, once: bool = False) -> None:
        """Run until nothing that counts is left; ``once``: one round; ``nowait``: one without waiting.

        ValueError if it was destroyed.
        """
        if self.destroyed:
            raise ValueError("operation on destroyed loop: make another one by config.loop(default=False)")
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
        self._remember()
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
        self._remember()
        self.error_handler = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self.poller is not None:
            self.poller.close()
        self.heap.clear()
        self.ready.clear()
        self.stale.clear()
        for each in [w for there in signals.watchers.values() for w in there if w.loop is self]:
            each.stop()
        self.before.clear()
        self.after.clear()
        if self.has_aio and self.owned and not self.aio.is_running() and not self.aio.is_closed():
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
        kind = self._factory if not self.has_aio and isinstance(self._factory, type) else type(self.aio)
        return kind.__module__.partition(".")[0]

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
