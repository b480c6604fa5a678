"""Waiting for a file descriptor: what everything with a bare fd shares. Many at a time: :mod:`bridge._fdset`.

:func:`wait_fd` registers an interest with the poller of the thread's hub for the time of the wait. Nothing is
assumed about the fd between two waits (``trust`` false): it may have been closed and its number used again.

Here are also the real ``poll`` and what stands for it where the system has none: the *probe*, which says what
is ready now.
"""

from __future__ import annotations

import errno
import os
import select as _select
from typing import Any, Protocol

from ._core.errors import BlockingSwitchOutError
from ._core.poller import READ, WRITE, Interest
from ._core.seconds import checked_seconds
from ._core.waiting import Wait
from .hub import get_hub, sleep
from .timeout import Timeout, wait_limited

__all__ = [
    "HasFileno",
    "get_fileno",
    "let_others_run",
    "wait_fd",
    "wait_for",
    "wait_read",
    "wait_readwrite",
    "wait_write",
]

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


# -- waiting --------------------------------------------------------------------------------------------


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
    if timeout is not None and not isinstance(timeout, Timeout) and checked_seconds(timeout) <= 0:
        let_others_run(True)
        found = _look(fd, events)
        if not found:
            raise _expired(timeout, timeout_exc)
        return found
    try:
        poller.add(interest)
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
