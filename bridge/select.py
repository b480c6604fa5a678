"""Waiting for several files; twin of :mod:`gevent.select`, and of :mod:`select`.

`select` and `poll` block only the greenlet that calls them. They are more exact than gevent's: exceptional
conditions (``xlist``, POLLPRI) are reported, error and hang-up bits too, fds above 1023 can be selected,
and what another greenlet has read in the meantime is not reported as ready.
"""

from __future__ import annotations

import errno
import os as _os
import select as __select__
import selectors as __selectors__
from _socket import socket as _SocketType
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ._core.current import get_hub_if_exists
from ._core.seconds import checked_seconds
from ._fdset import FdSet, wait_ready
from ._fdwait import (
    ERR,
    HUP,
    IN,
    NVAL,
    OUT,
    PRI,
    HasFileno,
    _new_epoll,
    _new_poll,
    get_fileno,
    let_others_run,
)
from ._mirror import mirror
from .timeout import Timeout, counting

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


__implements__ = ["select", "poll"]
__all__ = ["error", "poll", "select"]

error = __select__.error
__imports__ = mirror(__select__, globals(), "error", *__implements__)

# Looked up at each call: tests replace it.
_original_select = _real_original_select = __select__.select

#: From this number on, the real select() takes no fd.
_FD_SETSIZE = 1024


def select(
    rlist: Iterable[int | HasFileno],
    wlist: Iterable[int | HasFileno],
    xlist: Iterable[int | HasFileno],
    timeout: float | Timeout | None = None,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Wait until something in one of the lists is ready: for reading, for writing, exceptionally.

    :param timeout: seconds, or a Timeout; None waits for ever, 0 only looks.

    Returns three lists with those that are ready, three empty ones when the time is over. A socket that
    another greenlet closes meanwhile counts as ready: using it says what is wrong. ValueError for a negative
    timeout or fd, OSError (EBADF) for a number that is not open, TypeError for what has no fd. Blocks the
    greenlet, and lets others run in any case; in a coroutine only below a portal.
    """
    if isinstance(timeout, Timeout):
        try:
            with counting(timeout):
                return select(rlist, wlist, xlist)
        except Timeout as e:
            if e is not timeout:
                raise
            return [], [], []
    if timeout is not None:
        timeout = checked_seconds(timeout)
        if timeout < 0:
            raise ValueError(f"timeout must be non-negative, not {timeout!r}")
    # The caller's own lists are what is looked at; only what can be looked at but once is copied.
    rlist, wlist, xlist = (
        fds if isinstance(fds, (list, tuple)) else list(fds) for fds in (rlist, wlist, xlist)
    )
    closed: Any = ()
    if get_hub_if_exists() is not None:
        # Where there is none yet, there are no others; and a new hub opens files, which may take the very
        # numbers that are asked for and are not open.
        if timeout != 0:
            closed = _closed_sockets(rlist, wlist, xlist)
        let_others_run(timeout != 0)

    def probe() -> tuple[list[Any], list[Any], list[Any]] | None:
        try:
            found = _original_select(rlist, wlist, xlist, 0)
        except ValueError:
            masks = _masks_of(rlist, wlist, xlist)  # raises, for a negative one
            if not any(fd >= _FD_SETSIZE for fd in masks):
                raise
            found = _select_by_poll(rlist, wlist, xlist, masks)
        return found if any(found) else None

    try:
        found = probe()
        if found is None and timeout != 0:
            found = wait_ready(_masks_of(rlist, wlist, xlist), probe, timeout)
    except ValueError:
        if timeout == 0 or any(closed):
            raise
        found = _closed_sockets(rlist, wlist, xlist)
        if not any(found):
            raise
    return found if found is not None else ([], [], [])


def _closed_sockets(*lists: Iterable[Any]) -> Any:
    # Sockets only: the fileno() of anything else may do whatever it likes, and is not called once too often.
    return tuple([s for s in fds if isinstance(s, _SocketType) and s.fileno() < 0] for fds in lists)


def _masks_of(rlist: Iterable[Any], wlist: Iterable[Any], xlist: Iterable[Any]) -> dict[int, int]:
    """What to wait for, as bits of poll() by fd."""
    masks = dict.fromkeys([fd if type(fd) is int else get_fileno(fd) for fd in rlist], IN)
    for bit, fds in ((OUT, wlist), (PRI, xlist)):
        for each in fds:
            fd = each if type(each) is int else get_fileno(each)
            masks[fd] = masks.get(fd, 0) | bit
    if masks and min(masks) < 0:
        get_fileno(min(masks))
    return masks


#: By bit that was asked for, the bits of poll() that select() counts as an answer to it, as Linux has it.
_ANSWERS = {IN: IN | HUP | ERR, OUT: OUT | ERR, PRI: PRI}


def _select_by_poll(
    rlist: Iterable[Any], wlist: Iterable[Any], xlist: Iterable[Any], masks: dict[int, int]
) -> tuple[list[Any], list[Any], list[Any]]:
    """What the real select() would find now, if it took all fds."""
    probe = _new_poll()
    for fd, mask in masks.items():
        probe.register(fd, mask)
    bits = dict(probe.poll(0))
    if any(found & NVAL for found in bits.values()):
        raise OSError(errno.EBADF, _os.strerror(errno.EBADF))
    lists = tuple(
        [each for each in fds if bits.get(get_fileno(each), 0) & _ANSWERS[bit]]
        for bit, fds in ((IN, rlist), (OUT, wlist), (PRI, xlist))
    )
    return lists  # type: ignore[return-value]


class poll:
    """``select.poll``: waits for any number of files, registered one by one.

    It is there on systems too that have no ``select.poll``. After a fork the child has a copy of its own.
    """

    def __init__(self) -> None:
        self._poll = _new_poll()
        self._masks: dict[int, int] = {}
        self._kept: FdSet | None = None

    def register(self, fd: int | HasFileno, eventmask: int = IN | PRI | OUT) -> None:
        """Have *fd*, a number or something with ``fileno()``, watched for the events in *eventmask*.

        Registering again changes the mask. TypeError or ValueError for what is no fd. Does not block.
        """
        self._poll.register(fd, eventmask)
        number = fd if type(fd) is int else get_fileno(fd)
        self._masks[number] = eventmask
        if self._kept is not None:
            self._kept.touch(number)

    def modify(self, fd: int | HasFileno, eventmask: int) -> None:
        """Change the mask of *fd*; one that is not registered is registered. Does not block."""
        self.register(fd, eventmask)

    def unregister(self, fd: int | HasFileno) -> None:
        """Stop watching *fd*; KeyError if it is not registered. Does not block."""
        self._poll.unregister(fd)
        del self._masks[get_fileno(fd)]

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Wait until something registered is ready; return pairs of fd and events.

        :param timeout: *milliseconds*; None or less than 0 waits for ever, 0 only looks.

        An fd that was closed is reported with POLLNVAL, errors and hang-ups with POLLERR and POLLHUP whatever
        the mask. Blocks the greenlet, and lets others run in any case; in a coroutine only below a portal.
        """
        seconds: float | None = None
        if timeout is not None:
            try:
                seconds = timeout / 1000 if timeout >= 0 else None
            except TypeError:
                raise TypeError(
                    f"poll(timeout={timeout!r}): timeout must be a number of milliseconds or None"
                ) from None
        let_others_run(seconds != 0)
        found = self._probe()
        if not found and seconds != 0:
            kept = self._kept
            if kept is None and _new_epoll is not None and len(self._masks) > _KEEP:
                kept = self._kept = FdSet()
            found = wait_ready(self._masks, self._probe, seconds, kept) or []
        return found

    def _probe(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = self._poll.poll(0)
        return found


#: A poll object with more fds than this keeps its epoll instance from one call to the next.
_KEEP = 16


def _gevent_do_monkey_patch(patch_request: Any) -> None:
    """How :func:`bridge.monkey.patch_select` patches: blocking calls that have no twin here are removed."""
    patch_request.default_patch_items()
    if patch_request.target_module is __select__:
        _patch_selectors()
    if patch_request.patch_kwargs.get("aggressive", True):
        patch_request.remove_item("epoll", "kqueue", "kevent", "devpoll")


def _patch_selectors() -> None:
    """Two classes of the module selectors have taken the real functions for themselves."""

    def _select(
        self: Any, r: Iterable[int], w: Iterable[int], x: Iterable[int], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        return select(r, w, x, timeout)

    _select._gevent_monkey = True  # type: ignore[attr-defined] # how gevent marks it
    __selectors__.SelectSelector._select = _select  # type: ignore[attr-defined]
    if hasattr(__selectors__, "PollSelector"):
        __selectors__.PollSelector._selector_cls = poll  # type: ignore[attr-defined]
