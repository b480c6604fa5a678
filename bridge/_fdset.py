"""Waiting for many file descriptors at once: ``select``, ``poll`` and the selectors.

Theory of operation
===================

500 registrations for each call of ``select`` would cost as much as gevent's 500 watchers. So a set of fds is
an epoll instance of its own, kept from one wait to the next, and for the hub's poller it is one fd:
:class:`FdSet`. A set of up to ``FEW`` fds, and where there is no epoll every set, is waited for fd by fd.

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
from _thread import _local, get_ident
from collections.abc import Callable, Mapping
from math import ceil
from typing import TypeVar

from ._core.clock import monotonic
from ._core.poller import PRIORITY, READ, WRITE, Interest
from ._core.waiting import Wait
from ._fdwait import IN, OUT, PRI, _new_epoll, _Ready
from .hub import get_hub, sleep

__all__ = ["FdSet", "wait_ready"]

T = TypeVar("T")

#: Up to so many fds are waited for one by one.
FEW = 4
#: Seconds after which a wait makes sure that its kept set is right.
SURE = 0.002
#: The longest pause, in seconds, between two looks where epoll and the probe do not agree.
LONGEST_PAUSE = 0.02
#: Sets kept for the next select() of a thread.
SPARES = 4

#: What the poller can wait for, too.
_PLAIN = IN | PRI | OUT

#: How often this process has been forked off another one.
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


def _after_fork_in_child() -> None:
    global _generation
    _generation += 1
    _spares.sets = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
