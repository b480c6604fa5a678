"""The watchers of gevent's loop API for signals, child processes and files that change."""

from __future__ import annotations

import os
import signal as _signal
from operator import index
from typing import TYPE_CHECKING, Any

from .children import ChildWatch
from .clock import monotonic
from .engine import Timer as _HeapEntry
from .watchers import counted, watcher

if TYPE_CHECKING:
    from .loop import loop as Loop

__all__ = ["child", "signal", "signals", "stat"]

# Taken now: monkey patching replaces the names in signal by ours.
_set_signal = _signal.signal
_getsignal = _signal.getsignal


class signal(watcher):
    """A call when the process receives a signal.

    Made of :func:`signal.signal` and a thread-safe wake-up, so that the program's own use of
    ``signal.set_wakeup_fd`` and of other signals is left alone. Only in the main thread.
    """

    _shown = ("signum",)

    def __init__(self, loop: Loop, signum: int, ref: bool = True, priority: int | None = None) -> None:
        try:
            signum = index(signum)
        except TypeError:
            raise TypeError(f"a signal is an integer, such as signal.SIGTERM, not {signum!r}") from None
        if not 0 < signum < _signal.NSIG:
            raise ValueError(f"illegal signal number: {signum!r}")
        self.signum = signum
        super().__init__(loop, ref, priority)

    def _begin(self) -> None:
        signals.add(self)

    def _end(self) -> None:
        signals.remove(self)

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
signals = _Signals()


class child(counted):
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
        super().__init__(loop, ref, priority)

    @property
    def pid(self) -> int:
        """The process that is watched."""
        return self._pid

    def _begin(self) -> None:
        self.loop.install_sigchld()
        self._source = ChildWatch(self.loop, self._pid, self._told, self._ref)
        self._source.start()

    def _end(self) -> None:
        if self._source is not None:
            self._source.stop()
            self._source = None

    def _told(self, status: int | None) -> None:
        self._source = None
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
