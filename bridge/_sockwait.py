"""What a socket does when it has to wait: the lower half of the cooperative socket class.

Theory of operation
===================

The file is always non-blocking underneath, and the time limit that the program sets is kept beside it
(``_timeout``). Each operation is tried, BlockingIOError leads to a wait, and after that it is tried again.

*Edges.* Mostly the wait is one for an edge (:mod:`bridge._core.edges`): the socket is registered at its first
wait, and stays so until it is closed. :meth:`WaitingSocket._wait_edge` may only be used after an attempt that
has failed with EAGAIN; ``_wait_for`` needs no attempt, and costs a system call.

*Without edges*: where there is no epoll, where the socket is at home with the loop of another thread, and
where a second object for the same fd is waited for, the wait goes through the poller like that of a bare
number.

*Compiled.* What each message goes through, :meth:`WaitingSocket._wait_edge` and four methods of the socket,
has twins in ``_core/_edges.c``, which replace these methods where they are built. They do the frequent cases
and call what they have replaced for all others, so that those here are never out of use.

*Closing.* ``_channel.reader`` and ``_channel.writer`` are who waits, one each. Whoever closes or shuts down
the socket takes them out and wakes them; a waiter that does not find itself there any more raises
:class:`cancel_wait_ex`. That works from any thread.
"""

from __future__ import annotations

import _socket
import errno
import socket as __socket__
from collections.abc import Callable
from typing import Any

from ._core.clock import monotonic
from ._core.current import hub_local
from ._core.edges import READ, WRITE, Channel
from ._core.engine import parks
from ._core.errors import BlockingSwitchOutError, ConcurrentObjectUseError
from ._core.poller import Interest
from ._core.waiting import Wait

__all__ = ["READ", "UNLESS_ALONE", "WRITE", "WaitingSocket", "cancel_wait_ex", "left_until"]

# Taken now: monkey patching replaces it.
_Socket = __socket__.socket
_c_socket: Any = _socket.socket
_c_fileno: Callable[[Any], int] = _c_socket.fileno
_family: Callable[[Any], int] = _c_socket.family.__get__
_type: Callable[[Any], int] = _c_socket.type.__get__
_proto: Callable[[Any], int] = _c_socket.proto.__get__

_AF_INET = int(__socket__.AF_INET)
_AF_INET6 = int(getattr(__socket__, "AF_INET6", -1))
_SOCK_STREAM = int(__socket__.SOCK_STREAM)
#: What says TCP; some of its relatives (MPTCP, SCTP) keep other rules.
_TCP = (0, int(getattr(_socket, "IPPROTO_TCP", 6)))


#: How to wait for an edge. There was no attempt before: the kernel is to look now, too.
ANEW = 1
#: Not at all if nobody else is ready to run: then an attempt is the quickest way to find out whether a fast
#: peer has answered. As for any other hand-over, only so many times until the hub has looked at the clock.
UNLESS_ALONE = 2


class cancel_wait_ex(OSError):
    """What a wait is ended with when the file is closed under it: an OSError with EBADF."""

    __module__ = f"{__package__}.socket"

    def __init__(self) -> None:
        super().__init__(errno.EBADF, "File descriptor was closed in another greenlet")


def left_until(deadline: float | None) -> float | None:
    """Seconds until ``deadline``; TimeoutError if it is over."""
    if deadline is None:
        return None
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class WaitingSocket(_Socket):
    """A standard socket that can wait for its file."""

    __slots__ = ("_channel", "_timeout")

    _timeout: float | None
    _channel: Channel

    @parks
    def _wait_edge(self, events: int, timeout: float | None, how: int = 0) -> None:
        """Wait until the socket becomes ready for READ or for WRITE, which it was not at the last attempt.

        :param timeout: seconds; None waits for ever.
        :param how: 0, or ANEW or UNLESS_ALONE, which see.

        TimeoutError when the time is over, :class:`cancel_wait_ex` if the socket is closed meanwhile,
        ConcurrentObjectUseError if another greenlet waits for the same. Blocks the greenlet.
        """
        wait = Wait()
        engine = wait.engine
        if how == UNLESS_ALONE and not engine.ready and engine.turns > 0:
            engine.turns -= 1
            return
        channel = self._channel
        if events == READ:
            if channel.reader is not None and not channel.reader.abandoned():
                raise self._busy("read from")
            channel.reader = wait
        else:
            if channel.writer is not None and not channel.writer.abandoned():
                raise self._busy("write to")
            channel.writer = wait
        try:
            if how == ANEW or channel.home is not engine.edges or events & ~channel.mask:
                woken = self._enrol(events, wait, timeout, how == ANEW)
            else:
                woken = wait.block(timeout)
        except BaseException:
            if channel.reader is wait:
                channel.reader = None
            elif channel.writer is wait:
                channel.writer = None
            raise
        if channel.reader is wait:
            channel.reader = None
        elif channel.writer is wait:
            channel.writer = None
        else:
            raise cancel_wait_ex()
        if not woken:
            raise TimeoutError("timed out")

    def _wait_for(self, events: int, timeout: float | None) -> None:
        """Wait until the socket is ready for READ or for WRITE, whatever was attempted before.

        Errors as for :meth:`_wait_edge`.
        """
        self._wait_edge(events, timeout, ANEW)

    def _enrol(self, events: int, wait: Wait, timeout: float | None, anew: bool) -> bool:
        """Register with the loop of this thread, unless it is done, and have ``wait`` block."""
        channel = self._channel
        engine = hub_local.hub.loop  # type: ignore[union-attr] # not the wait's, which may be a portal
        edges = engine.edges
        if edges is None:
            edges = engine.get_poller().get_edges()
        elif channel.home is edges and not events & ~channel.mask and not anew:
            return wait.block(timeout)
        fd = _c_fileno(self)
        if fd < 0:
            raise cancel_wait_ex()  # by another thread, since the attempt
        if edges is not None:
            at_home = channel.home is edges
            if edges.watch(fd, channel, events, wait):
                if not at_home:
                    channel.stream = (
                        _family(self) in (_AF_INET, _AF_INET6)
                        and _type(self) == _SOCK_STREAM
                        and _proto(self) in _TCP
                    )
                return wait.block(timeout)
        interest = Interest(fd, events, lambda _events: wait.wake(), channel.ref)
        poller = engine.get_poller()
        try:
            poller.add(interest)
            return wait.block(timeout)
        finally:
            poller.remove(interest)

    def _busy(self, what: str) -> ConcurrentObjectUseError:
        return ConcurrentObjectUseError(
            f"This socket is already used by another greenlet, which waits to {what} it: {self!r}; "
            "let one greenlet do that, or take turns by a lock"
        )

    def _wait_first(self, deadline: float | None) -> float | None:
        """Wait for something to read before an attempt, as the last one took it all; as `_wait_until`."""
        try:
            return self._wait_until(deadline, READ, UNLESS_ALONE)
        except BlockingSwitchOutError:
            return deadline  # where nothing may block, the attempt decides whether that was needed

    def _wait_until(self, deadline: float | None, events: int, how: int = 0) -> float | None:
        """An attempt has failed with EAGAIN: wait; returns when the time is over.

        :param deadline: what the last wait for the same operation has returned; None if this is the first.
        """
        timeout = self._timeout
        if deadline is not None:
            timeout = left_until(deadline)
        elif timeout is not None:
            deadline = monotonic() + timeout
        self._wait_edge(events, timeout, how)
        return deadline

    def _retry(self, events: int, function: Callable[..., Any], *args: Any) -> Any:
        """``function(self, *args)`` has just raised BlockingIOError: wait, and call it until it does not."""
        deadline = None
        while True:
            deadline = self._wait_until(deadline, events)
            try:
                return function(self, *args)
            except BlockingIOError:
                pass  # somebody else was faster

    def _leave_loop(self) -> None:
        """The fd is about to be somebody else's, or nobody's."""
        fd = _c_fileno(self)
        if fd >= 0:
            channel = self._channel
            home = channel.home
            if home is not None:
                home.drop(fd, channel)
            hub = hub_local.hub
            if hub is not None and hub.loop is not None:
                hub.loop.closing_fd(fd)
            channel.drained = False  # the next attempt is to see the error
            channel.release(READ | WRITE)
