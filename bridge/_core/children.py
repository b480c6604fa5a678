"""Who waits for which child process, and how it is learnt that one has ended.

Theory of operation
===================

*One taker.* The kernel gives the status of a child once. Several may want it: child watchers, of several
loops perhaps, greenlets in ``waitpid``, the table of ``fork_and_watch``. So whatever of ours takes a status
takes it through :func:`collect` or :func:`collect_any`, and these hand it to all who asked for that pid.
Invariant: a :class:`ChildWatch` that is started is told exactly once, unless it is stopped before.

*Learning of it.* ``pidfd_open``: one fd for each watch, and nothing that belongs to the whole process: no
SIGCHLD handler to share with the program, no wake-up descriptor, no child of others touched, and a child
that had ended before is seen at once. Where there is no pidfd, a timer looks after 1 ms, 2 ms, ... and
then every 50 ms.

*Taken by others.* Code that is not ours may have called the real ``waitpid``. The status is unknown then,
and those who wait are told None.

*Fork.* The children of the parent are not those of the child: there all watches end silently.

*A loop that was closed* with watches in it leaves them and their pidfds behind, and nobody says so. The table
is swept of them whenever it has grown to twice what the last sweep left.
"""

from __future__ import annotations

import os
import signal as _signal
from _thread import RLock, _local, get_ident
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .callbacks import Callback
from .clock import monotonic
from .poller import READ, Interest

if TYPE_CHECKING:
    from .engine import Timer
    from .loop import loop as Loop

__all__ = [
    "FIRST_LOOK",
    "LONGEST_LOOK",
    "ChildWatch",
    "collect",
    "collect_any",
    "listeners",
    "lock",
    "natively",
    "need_statuses",
    "usage_of",
]

#: Seconds between two looks at a child where nothing tells us of its end.
FIRST_LOOK = 0.001
LONGEST_LOOK = 0.05

# Taken now: monkey patching replaces the names in os and signal by ours.
_waitpid = getattr(os, "waitpid", None)
_wait4 = getattr(os, "wait4", None)
_pidfd_open = getattr(os, "pidfd_open", None)
_getsignal = _signal.getsignal
_set_signal = _signal.signal
_SIGCHLD = getattr(_signal, "SIGCHLD", None)

#: Started watches, by pid.
_watches: dict[int, list[ChildWatch]] = {}
#: Called with pid and status of each child that has ended, after its watches were told; in any thread.
listeners: list[Callable[[int, int], object]] = []
#: Between a status taken and all told nobody else may conclude that it was stolen; who holds it knows that
#: no child of his is reaped meanwhile. Reentrant, since a signal handler may call waitpid.
lock = RLock()


class _Natively(_local):
    now = False


#: ``natively.now`` is true in a thread in which the standard library starts a child. It is to get the
#: system's ``waitpid`` and ``posix_spawn`` then, whether or not those of ``os`` have been replaced.
natively = _Natively()
#: When there are so many pids in the table, those of closed loops are sought.
_sweep_at = 64


class ChildWatch:
    """Calls ``tell(status)`` once, when the child process ``pid`` has ended; None for an unknown status.

    ``tell`` is called in the loop's thread, from any greenlet; it must not switch and must not raise.

    :param ref: whether this is a reason for the loop to go on.
    """

    __slots__ = ("_delay", "_interest", "_pidfd", "_timer", "loop", "pid", "ref", "started", "tell")

    def __init__(self, loop: Loop, pid: int, tell: Callable[[int | None], object], ref: bool) -> None:
        self.loop = loop
        self.pid = pid
        self.tell = tell
        self.ref = ref
        self.started = False
        self._pidfd: int | None = None
        self._interest: Interest | None = None
        self._timer: Timer | None = None
        self._delay = FIRST_LOOK

    def start(self) -> None:
        """Begin to watch. In the loop's thread."""
        _register_at_fork()
        if len(_watches) >= _sweep_at:
            _sweep()
        self.started = True
        _watches.setdefault(self.pid, []).append(self)
        if _pidfd_open is not None:
            try:
                self._pidfd = _pidfd_open(self.pid)
            except ProcessLookupError:
                pass  # no such process: the first look will say so
            except OSError:
                pass  # no fd left, or forbidden: look from time to time
            else:
                self._interest = Interest(self._pidfd, READ, self._ended, self.ref)
                self.loop.get_poller().add(self._interest)
                return
        self._look_later()

    def stop(self) -> None:
        """Cease to watch; may be repeated. In the loop's thread."""
        self._leave_table()
        if self._timer is not None:
            self.loop.cancel(self._timer)
            self._timer = None
        if self._pidfd is not None:
            poller = self.loop.get_poller()
            if self._interest is not None:
                poller.remove(self._interest)
            poller.forget(self._pidfd)
            os.close(self._pidfd)
            self._interest = self._pidfd = None

    def _leave_table(self) -> None:
        if self.started:
            self.started = False
            there = _watches.get(self.pid, [])
            if self in there:
                there.remove(self)
                if not there:
                    _watches.pop(self.pid, None)

    def _abandon(self) -> None:
        """:meth:`stop` where the loop is closed: its poller is of no use any more."""
        self._leave_table()
        self._timer = self._interest = None
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            os.close(pidfd)

    def _look_later(self) -> None:
        self._timer = self.loop.call_at(monotonic() + self._delay, ChildWatch._look, self, self.ref)
        self._delay = min(self._delay * 2, LONGEST_LOOK)

    def _look(self) -> None:
        self._timer = None
        self._collect()
        if self.started:
            self._look_later()

    def _ended(self, _events: int) -> None:
        # Called while the poller goes through what is ready, where no fd may be closed: it may be in the
        # poller's list as well.
        if self._interest is not None:
            self.loop.get_poller().remove(self._interest)
            self._interest = None
            self.loop.call(self._collect)

    def _collect(self) -> None:
        if self.started:
            try:
                collect(self.pid)
            except ChildProcessError:
                pass  # we have been told

    def _told(self, status: int | None) -> None:
        if self.started:
            self.stop()
            self.tell(status)


#: What children have used that ended lately, as struct_rusage; the oldest is the first.
_usages: dict[int, Any] = {}
_USAGES = 1000


def _take(pid: int, options: int) -> tuple[int, int]:
    """``waitpid``, and keep what the child has used."""
    if _wait4 is None:
        assert _waitpid is not None
        found, status = _waitpid(pid, options)
        return found, status
    found, status, usage = _wait4(pid, options)
    if found:
        _usages.pop(found, None)
        _usages[found] = usage
        if len(_usages) > _USAGES:
            del _usages[next(iter(_usages))]
    return found, status


def usage_of(pid: int) -> Any:
    """What the child that has ended has used, as a ``resource.struct_rusage``; None if it is not known."""
    return _usages.get(pid)


def collect(pid: int) -> int | None:
    """The status of the child ``pid``, taken from the kernel; None if it runs.

    ChildProcessError if it is no child of ours, or its status was taken before. From any thread; never
    blocks.
    """
    with lock:
        try:
            found, status = _take(pid, os.WNOHANG)
        except ChildProcessError:
            _tell(pid, None)
            raise
        if not found:
            return None
        _tell(pid, status)
    return int(status)


def collect_any(pid: int, options: int) -> tuple[int, int]:
    """``os.waitpid(pid, options | WNOHANG)`` that lets the watches know; never blocks."""
    with lock:
        found, status = _take(pid, options | os.WNOHANG)
        if found and (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
            _tell(found, status)
    return found, status


def _tell(pid: int, status: int | None) -> None:
    thread = get_ident()
    for watch in _watches.pop(pid, ()):
        if watch.loop.is_closed():
            watch._abandon()
        elif watch.loop.thread_ident == thread:
            watch._told(status)
        else:
            watch.loop.append_threadsafe(Callback(watch._told, (status,)))
    if status is not None:
        for listener in tuple(listeners):
            listener(pid, status)


def _sweep() -> None:
    """Forget the watches of closed loops."""
    global _sweep_at
    for there in list(_watches.values()):
        for watch in list(there):
            if watch.loop.is_closed():
                watch._abandon()
    _sweep_at = max(64, 2 * len(_watches))


def need_statuses() -> None:
    """If SIGCHLD is ignored, the kernel throws the statuses of children away: stop that.

    Only the main thread can; elsewhere this does nothing.
    """
    if _SIGCHLD is not None and _getsignal(_SIGCHLD) == _signal.SIG_IGN:
        try:
            _set_signal(_SIGCHLD, _signal.SIG_DFL)
        except ValueError:
            pass  # not the main thread


_registered = False


def _register_at_fork() -> None:
    # At the first use, and so after the hook that gives the child's hub a loop of its own: the pidfds are
    # then taken out of the child's epoll instance, not out of the parent's.
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=_forget_all)


def _forget_all() -> None:
    lock._at_fork_reinit()  # type: ignore[attr-defined]
    watches = [watch for there in _watches.values() for watch in there]
    _watches.clear()
    for watch in watches:
        # those of other threads are gone together with their threads
        if watch.loop.pid == os.getpid():
            watch.stop()
