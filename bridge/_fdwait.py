"""Waiting for file descriptors: the one wait of a greenlet that everything with a bare fd shares.

Theory of operation
===================

*One fd*: :func:`wait_fd` registers an interest with the poller of the thread's hub for the time of the wait.
Nothing is assumed about the fd between two waits (``trust`` false): it may have been closed and its number
used again.

*Many fds*: 500 registrations for each call of ``select`` would cost as much as gevent's 500 watchers. So a
set of fds is an epoll instance of its own, kept from one wait to the next, and for the hub's poller it is one
fd: :class:`FdSet`. A set of up to ``FEW`` fds, and where there is no epoll every set, is waited for fd by
fd.

*An epoll instance only tells when to look.* What is ready says a probe, which is the real ``select`` or
``poll`` with a timeout of zero: so order, duplicates, error codes and closed fds are the standard library's.
A wake-up after which the probe finds nothing (another greenlet was faster) goes on waiting.

*A kept set may be wrong*: the kernel drops an fd from it when the fd is closed, and does not notice that the
number is in use again. A wait that lasts longer than ``SURE`` seconds therefore asks for each fd again; what
became ready by then, and was missed, is noticed then, as epoll is level-triggered here. The other way
round, where a duplicate of a closed fd lives on, epoll reports what the probe cannot see: a set that cries
wolf twice is made anew, and if that does not help the wait falls back to looking from time to time.

*Fork*: an epoll instance is shared with a forked child, which may only close it. Each set knows the
generation of the process it was made in.
"""

from __future__ import annotations

import errno
import os
import select as _select
from _thread import _local, get_ident
from collections.abc import Callable, Mapping
from math import ceil
from time import monotonic
from typing import Any, Protocol, TypeVar

from ._core.errors import BlockingSwitchOutError
from ._core.poller import PRIORITY, READ, WRITE, Interest
from ._core.waiting import Wait
from .hub import get_hub, sleep
from .timeout import Timeout, wait_limited

__all__ = [
    "FdSet",
    "get_fileno",
    "let_others_run",
    "wait_fd",
    "wait_for",
    "wait_read",
    "wait_readwrite",
    "wait_ready",
    "wait_write",
]

T = TypeVar("T")

#: Up to so many fds are waited for one by one.
FEW = 4
#: Seconds after which a wait makes sure that its kept set is right.
SURE = 0.002
#: The longest pause, in seconds, between two looks where epoll and the probe do not agree.
LONGEST_PAUSE = 0.02
#: Sets kept for the next select() of a thread.
SPARES = 4

# Taken now: monkey patching removes the one and replaces the other.
_new_epoll: Any = getattr(_select, "epoll", None)
_original_poll: Any = getattr(_select, "poll", None)

# The bits of poll(), which are those of epoll; the numbers are Linux's, for where there is no poll.
IN = getattr(_select, "POLLIN", 1)
PRI = getattr(_select, "POLLPRI", 2)
OUT = getattr(_select, "POLLOUT", 4)
ERR = getattr(_select, "POLLERR", 8)
HUP = getattr(_select, "POLLHUP", 16)
NVAL = getattr(_select, "POLLNVAL", 32)

#: What the poller can wait for, too.
_PLAIN = IN | PRI | OUT

_UNSET: Any = object()


class HasFileno(Protocol):
    """What has a file descriptor."""

    def fileno(self) -> int: ...


def get_fileno(obj: int | HasFileno) -> int:
    """The file descriptor that ``obj`` is or has; ValueError if negative, TypeError if it has none."""
    if isinstance(obj, int):
        fd = obj
    else:
        try:
            method = obj.fileno
        except AttributeError:
            raise TypeError(f"argument must be an int, or have a fileno() method, not {obj!r}") from None
        fd = method()
        if not isinstance(fd, int):
            raise TypeError(f"fileno() of {obj!r} returned {fd!r}, which is not an integer")
    if fd < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
    return fd


def let_others_run(blocking: bool) -> None:
    """``sleep(0)``, so that a loop around a call that never has to wait starves nobody.

    Where nothing may block, a call that is not ``blocking`` goes on without.
    """
    try:
        sleep(0)
    except BlockingSwitchOutError:
        if blocking:
            raise


# -- one file descriptor --------------------------------------------------------------------------------


class _Ready:
    """Wakes one wait, and remembers for which events."""

    __slots__ = ("events", "wait")

    def __init__(self, wait: Wait) -> None:
        self.wait = wait
        self.events = 0

    def __call__(self, events: int) -> None:
        self.events |= events
        self.wait.wake()


def wait_fd(fd: int | HasFileno, events: int, timeout: Any = None, timeout_exc: Any = _UNSET) -> int:
    """Wait until ``fd`` is ready for ``events``: READ (1), WRITE (2) or both; return those it is ready for.

    :param timeout: seconds; None waits for ever; 0 or less only looks. Or a Timeout.
    :param timeout_exc: what to raise when the time is over, as for Timeout; by default
        ``TimeoutError('timed out')``.

    Raises OSError (EBADF) if it is no open fd, or another greenlet closes it by ``bridge.os.close`` or as a
    socket meanwhile; ValueError if it is negative. A regular file is always ready. Several may wait for
    one fd. Blocks the greenlet; in a coroutine only below a portal.
    """
    if type(fd) is not int or fd < 0:
        fd = get_fileno(fd)
    wait = Wait()
    ready = _Ready(wait)
    interest = Interest(fd, events, ready)
    poller = get_hub().loop.get_poller()
    if timeout is not None and not isinstance(timeout, Timeout) and timeout <= 0:
        let_others_run(True)
        found = _look(fd, events)
        if not found:
            raise _expired(timeout, timeout_exc)
        return found
    poller.add(interest)
    try:
        woken = wait.block(timeout) if timeout is None else wait_limited(wait, timeout)
    except BaseException:
        poller.remove(interest)
        raise
    if not interest.active:
        raise OSError(errno.EBADF, "File descriptor was closed in another greenlet")
    poller.remove(interest)
    if not woken:
        raise _expired(timeout, timeout_exc)
    return ready.events


def _look(fd: int, events: int) -> int:
    """Which of ``events`` ``fd`` is ready for now."""
    probe = _new_poll()
    probe.register(fd, (IN if events & READ else 0) | (OUT if events & WRITE else 0))
    found = 0
    for _fd, bits in probe.poll(0):
        if bits & NVAL:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        found = events if bits & (ERR | HUP) else (READ if bits & IN else 0) | (WRITE if bits & OUT else 0)
    return found


def _expired(timeout: Any, timeout_exc: Any) -> BaseException:
    if isinstance(timeout, Timeout):
        return timeout
    if timeout_exc is _UNSET:
        return TimeoutError("timed out")
    if isinstance(timeout_exc, type) and issubclass(timeout_exc, BaseException):
        return timeout_exc()
    if isinstance(timeout_exc, BaseException):
        return timeout_exc
    return Timeout(timeout, timeout_exc)


def wait_read(fileno: int | HasFileno, timeout: Any = None, timeout_exc: Any = _UNSET) -> None:
    """Wait until there is something to read from ``fileno``; parameters and errors as for `wait_fd`."""
    wait_fd(fileno, READ, timeout, timeout_exc)


def wait_write(fileno: int | HasFileno, timeout: Any = None, timeout_exc: Any = _UNSET) -> None:
    """Wait until ``fileno`` can be written to; parameters and errors as for `wait_fd`."""
    wait_fd(fileno, WRITE, timeout, timeout_exc)


def wait_readwrite(fileno: int | HasFileno, timeout: Any = None, timeout_exc: Any = _UNSET) -> None:
    """Wait until ``fileno`` can be read from or written to; parameters and errors as for `wait_fd`."""
    wait_fd(fileno, READ | WRITE, timeout, timeout_exc)


def wait_for(hub: Any, watcher: Any) -> None:
    """``hub.wait(watcher)``, and below a portal too: wait until the event of ``watcher`` happens."""
    if get_hub().loop.probe() is None:
        hub.wait(watcher)
        return
    wait = Wait()
    watcher.start(wait.wake)
    try:
        wait.block()
    finally:
        watcher.stop()


# -- many file descriptors ------------------------------------------------------------------------------

_generation = 0


class _Few:
    """Waits for each of some fds by itself."""

    __slots__ = ("masks",)

    def __init__(self, masks: Mapping[int, int]) -> None:
        self.masks = masks

    def wait(self, timeout: float | None, wait: Wait) -> bool | None:
        """True if one is ready, False when the time is over, None if one is no open fd (it is left out)."""
        poller = get_hub().loop.get_poller()
        interests = []
        broken = False
        try:
            for fd, mask in self.masks.items():
                interest = Interest(fd, _as_events(mask), _Ready(wait))
                try:
                    poller.add(interest)
                except OSError as e:
                    if e.errno != errno.EBADF:
                        raise
                    broken = True
                else:
                    interests.append(interest)
            if broken:
                self.masks = {i.fd: self.masks[i.fd] for i in interests}
                return None
            return wait.block(timeout)
        finally:
            for interest in interests:
                poller.remove(interest)

    def renew(self) -> None:
        """Nothing is kept that could be wrong."""


def _as_events(mask: int) -> int:
    events = (READ if mask & IN else 0) | (WRITE if mask & OUT else 0) | (PRIORITY if mask & PRI else 0)
    # errors and hang-ups are reported to everybody
    return events or READ


class FdSet:
    """Some fds with masks of poll() bits, whose readiness is that of one fd: an epoll instance."""

    __slots__ = ("_epoll", "_generation", "_missing", "_unsure", "_waits", "always", "masks")

    def __init__(self) -> None:
        self.masks: dict[int, int] = {}
        #: regular files, which are always ready, and which epoll does not take
        self.always: set[int] = set()
        self._unsure: set[int] = set()
        self._missing: set[int] = set()
        self._waits: list[Wait] = []
        self._open()

    def _open(self) -> None:
        self._epoll = _new_epoll()
        self._generation = _generation

    def set(self, masks: dict[int, int]) -> None:
        """Make the set hold exactly ``masks``. Fds that are not open are kept in mind, and no error."""
        self._check_fork()
        if masks != self.masks:
            for fd in self.masks.keys() - masks.keys():
                self.discard(fd)
            for fd, mask in masks.items() - self.masks.items():
                self._put(fd, mask)

    def add(self, fd: int, mask: int) -> None:
        """Add ``fd``, or change its mask; OSError (EBADF) if it is not open."""
        self._check_fork()
        try:
            try:
                self._epoll.register(fd, mask)
            except FileExistsError:
                self._epoll.modify(fd, mask)
            self.always.discard(fd)
        except PermissionError:
            self.always.add(fd)
        self.masks[fd] = mask

    def discard(self, fd: int) -> None:
        """Remove ``fd``; nothing if it is not there."""
        self._check_fork()
        if self.masks.pop(fd, None) is not None and fd not in self.always:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass  # closed, and so forgotten by the kernel
        self.always.discard(fd)

    def touch(self, fd: int) -> None:
        """The number may mean another file from now on."""
        self._unsure.add(fd)

    def ready(self, seconds: float | None = 0) -> list[tuple[int, int]]:
        """Fds with what they are ready for, as far as epoll knows; regular files too.

        Blocks the *thread* for up to ``seconds``, with None until there is one.
        """
        self._check_fork()
        if seconds is None:
            seconds = -1
        elif seconds > 0:
            seconds = ceil(seconds * 1000) / 1000  # epoll rounds down
        if self.always:
            seconds = 0
        found: list[tuple[int, int]] = self._epoll.poll(seconds, max(len(self.masks), 1))
        if self.always:
            found += [(fd, self.masks[fd] & (IN | OUT)) for fd in self.always]
        return found

    def make_sure(self) -> bool:
        """Ask the kernel again for every fd; true if something was not as we thought."""
        modify = self._epoll.modify
        wrong = False
        for fd, mask in self.masks.items():
            try:
                modify(fd, mask)
            except OSError:
                if fd not in self.always and (self._put(fd, mask) or fd not in self._missing):
                    wrong = True
                    self._missing.add(fd)  # or was missing, and is there again
        return wrong

    def _put(self, fd: int, mask: int) -> bool:
        try:
            self.add(fd, mask)
        except OSError:
            self.masks[fd] = mask  # the probe will tell
            return False
        self._missing.discard(fd)
        return True

    def renew(self) -> None:
        """Take another epoll instance."""
        self._epoll.close()
        self._open()
        self._unsure.clear()
        for fd, mask in self.masks.items():
            self._put(fd, mask)
        for wait in tuple(self._waits):
            wait.wake()  # on the old instance; to wait anew

    def _check_fork(self) -> None:
        if self._generation != _generation:
            # threads, and what waits in them, do not get into the child
            self._waits = [w for w in self._waits if w.engine.thread_ident == get_ident()]
            self.renew()

    def wait(self, timeout: float | None, wait: Wait) -> bool | None:
        """True if one is ready, False when the time is over, None if something has changed: probe again."""
        for fd in self._unsure & self.masks.keys():
            self._put(fd, self.masks[fd])
        self._unsure.clear()
        if timeout is None or timeout > SURE:
            if self._block(SURE, wait):
                return True
            if self.make_sure():
                return None
            if timeout is not None:
                timeout -= SURE
            wait = Wait()
        return self._block(timeout, wait)

    def _block(self, timeout: float | None, wait: Wait) -> bool:
        poller = get_hub().loop.get_poller()
        interest = Interest(self._epoll.fileno(), READ, _Ready(wait))
        poller.add(interest)

        def closing(fd: int) -> None:
            if fd in self.masks:
                wait.wake()

        poller.closing.append(closing)
        self._waits.append(wait)
        try:
            return wait.block(timeout)
        finally:
            self._waits.remove(wait)
            poller.closing.remove(closing)
            poller.remove(interest)

    @property
    def closed(self) -> bool:
        """True after close()."""
        return bool(self._epoll.closed)

    def close(self) -> None:
        """Let go of the epoll instance; those who wait are woken."""
        self._epoll.close()
        for wait in tuple(self._waits):
            wait.wake()


class _Spares(_local):
    sets: list[FdSet] | None = None


_spares = _Spares()


def _take(masks: dict[int, int]) -> FdSet:
    """A set for one select(): if possible one that holds the same already."""
    sets = _spares.sets
    if not sets:
        return FdSet()
    for i, kept in enumerate(sets):
        if kept.masks == masks:
            return sets.pop(i)
    return sets.pop()


def _give_back(used: FdSet) -> None:
    sets = _spares.sets
    if sets is None:
        sets = _spares.sets = []
    sets.append(used)
    if len(sets) > SPARES:
        sets.pop(0).close()


def wait_ready(
    masks: dict[int, int], probe: Callable[[], T], timeout: float | None, kept: FdSet | None = None
) -> T | None:
    """Wait until ``probe()`` finds something; return it, or None when the time is over.

    :param masks: what to wait for: bits of poll() by fd. None is ready now, as far as is known.
    :param timeout: seconds; None waits for ever.
    :param kept: a set that holds ``masks``, if the caller keeps one; otherwise one is found.

    Blocks the greenlet; in a coroutine only below a portal.
    """
    deadline = None if timeout is None else monotonic() + timeout
    wait = Wait()  # may refuse: before anything is taken
    fds: _Few | FdSet
    borrowed = False
    if kept is not None:
        fds = kept
    elif _new_epoll is None or (len(masks) <= FEW and not any(m & ~_PLAIN or not m for m in masks.values())):
        fds = _Few(masks)
    else:
        borrowed = True
        fds = _take(masks)
    if isinstance(fds, FdSet):
        fds.set(masks)
    false_alarms = 0
    try:
        while True:
            woken = fds.wait(timeout, wait)
            if woken is False:
                return None
            found = probe()
            if found:
                return found
            if woken:
                false_alarms += 1
                if false_alarms == 2:
                    fds.renew()
                elif false_alarms > 3:
                    pause = min(0.001 * 2 ** min(false_alarms - 4, 10), LONGEST_PAUSE)
                    sleep(pause if deadline is None else min(pause, max(deadline - monotonic(), 0)))
            if deadline is not None:
                timeout = deadline - monotonic()
                if timeout <= 0:
                    return None
            wait = Wait()
    finally:
        if borrowed:
            _give_back(fds)  # type: ignore[arg-type]


# -- the real probes ------------------------------------------------------------------------------------


class _SelectPoll:
    """``select.poll`` where the system has none, as far as select() goes."""

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}

    def register(self, fd: Any, eventmask: int = IN | PRI | OUT) -> None:
        self._masks[get_fileno(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int) -> None:
        number = get_fileno(fd)
        if number not in self._masks:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._masks[number] = eventmask

    def unregister(self, fd: Any) -> None:
        del self._masks[get_fileno(fd)]

    def poll(self, _timeout: int) -> list[tuple[int, int]]:
        masks = self._masks
        broken = []
        while True:
            try:
                readable, writable, urgent = _real_select(
                    [fd for fd, m in masks.items() if m & IN],
                    [fd for fd, m in masks.items() if m & OUT],
                    list(masks),
                    0,
                )
            except OSError:
                bad = [fd for fd in masks if _is_bad(fd)]
                if not bad:
                    raise
                broken += bad
                masks = {fd: m for fd, m in masks.items() if fd not in bad}
                continue
            found = dict.fromkeys(broken, NVAL)
            for bit, fds in ((IN, readable), (OUT, writable), (PRI, urgent)):
                for fd in fds:
                    found[fd] = found.get(fd, 0) | bit
            return list(found.items())


def _is_bad(fd: int) -> bool:
    try:
        _real_select([fd], [], [], 0)
    except OSError:
        return True
    return False


_real_select = _select.select
_new_poll: Any = _original_poll or _SelectPoll


def _after_fork_in_child() -> None:
    global _generation
    _generation += 1
    _spares.sets = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
