"""The cooperative socket class.

It is the standard class, whose blocking operations are tried first, and wait if need be; how they wait, and
the theory of it, is in :mod:`bridge._sockwait`. So everything that takes a socket takes ours (asyncio, ssl,
``multiprocessing``), and what cannot block is inherited.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket as __socket__
from collections.abc import Iterable
from functools import partial
from operator import index
from typing import IO, TYPE_CHECKING, Any

from ._core.clock import monotonic
from ._core.current import hub_local
from ._core.edges import READ, WRITE, Channel, compiled
from ._core.errors import BlockingSwitchOutError
from ._core.waiting import Wait
from ._names import resolve_address
from ._sockwait import (
    UNLESS_ALONE,
    WaitingSocket,
    _family,
    _proto,
    _type,
    cancel_wait_ex,
    left_until,
)
from .hub import get_hub, sleep

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["cancel_wait_ex", "socket", "timeout_default"]

#: Says "the time limit of the socket", where None says "none".
timeout_default: Any = object()

# Taken now: monkey patching replaces them.
_c_socket: Any = _socket.socket
_getdefaulttimeout = __socket__.getdefaulttimeout
_GiveupOnSendfile: Any = getattr(__socket__, "_GiveupOnSendfile", OSError)
_sendfile: Any = getattr(os, "sendfile", None)

_c_accept = _c_socket._accept
_c_connect_ex = _c_socket.connect_ex
_c_recv = _c_socket.recv
_c_recv_into = _c_socket.recv_into
_c_recvfrom = _c_socket.recvfrom
_c_recvfrom_into = _c_socket.recvfrom_into
_c_send = _c_socket.send
_c_sendto = _c_socket.sendto
_c_shutdown = _c_socket.shutdown
_c_fileno = _c_socket.fileno

_DONTWAIT: int = getattr(_socket, "MSG_DONTWAIT", 0)
_NONBLOCK: int = getattr(_socket, "SOCK_NONBLOCK", 0)
_AF_INET = int(__socket__.AF_INET)
_AF_INET6 = int(getattr(__socket__, "AF_INET6", -1))

_IN_PROGRESS = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})
_WOULD_BLOCK = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
#: From here on a time limit does not fit into the 64 bits of nanoseconds that the standard library has.
_TOO_LONG = 2**63 / 1e9
#: Hosts, in tuples of one, that are addresses, not names; so many at most.
_numeric: set[tuple[str]] = set()
_MANY = 4096
#: The shortest and the longest pause, in seconds, between two attempts where the kernel does not tell when
#: the next one may succeed.
_PAUSES = (0.0005, 0.02)


# -- the class ------------------------------------------------------------------------------------------


class socket(WaitingSocket):
    """``socket.socket`` whose methods block only the greenlet that calls them.

    Arguments, results and errors are the standard library's: TimeoutError when the time limit of
    :meth:`settimeout` is over, BlockingIOError where a socket with a limit of 0 would have to wait. Below a
    portal a coroutine can use any socket; elsewhere one with a limit of 0, as by ``loop.sock_recv()`` and
    its like (BlockingSwitchOutError where another would have to wait).

    One greenlet may read and another one write at the same time; a second one that had to wait for the same
    raises ConcurrentObjectUseError. Who waits when the socket is closed, detached or shut down gets
    :class:`cancel_wait_ex`, an OSError (EBADF).
    """

    __module__ = f"{__package__}.socket"
    __slots__ = ()

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        self._channel = Channel()
        super().__init__(family, type, proto, fileno)
        self._timeout = 0.0 if type > 0 and type & _NONBLOCK else _getdefaulttimeout()
        _c_socket.setblocking(self, False)

    # -- time limits

    def settimeout(self, value: float | None, /) -> None:
        """Have operations raise TimeoutError after ``value`` seconds; None: never; 0: do not wait at all.

        ValueError if negative, TypeError if it is no number. Does not block.
        """
        if value is not None:
            if isinstance(value, (str, bytes, bytearray)) or not (
                hasattr(value, "__float__") or hasattr(value, "__index__")
            ):
                raise TypeError(
                    f"settimeout({value!r}): a number of seconds or None is required, "
                    f"not {type(value).__name__}"
                )
            value = float(value)
            if value != value:
                raise ValueError("Invalid value NaN (not a number)")
            if value < 0:
                raise ValueError(f"Timeout value out of range: settimeout({value!r}) must not be negative")
            if value >= _TOO_LONG:
                raise OverflowError(f"timeout doesn't fit into C timeval: settimeout({value!r})")
        self._timeout = value

    def gettimeout(self) -> float | None:
        """The time limit of operations in seconds, None if there is none."""
        return self._timeout

    @property
    def timeout(self) -> float | None:
        """The time limit, as of :meth:`gettimeout`; may be set as by :meth:`settimeout`."""
        return self._timeout

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        self.settimeout(value)

    def setblocking(self, flag: bool) -> None:
        """``settimeout(None)`` if ``flag`` is true, otherwise ``settimeout(0)``."""
        self._timeout = None if flag else 0.0

    def getblocking(self) -> bool:
        """False if the time limit is 0."""
        return self._timeout != 0

    # -- what gevent's sockets have besides

    @property
    def closed(self) -> bool:
        """True after :meth:`close` and :meth:`detach`."""
        return self._closed  # type: ignore[attr-defined, no-any-return]

    @property
    def ref(self) -> bool:
        """Whether a wait for this socket is a reason for the loop to go on; true unless set."""
        return self._channel.ref

    @ref.setter
    def ref(self, value: bool) -> None:
        self._channel.ref = bool(value)

    @property
    def hub(self) -> Any:
        """The hub of the current thread."""
        return get_hub()

    @property
    def _sock(self) -> socket:
        # libraries look for the socket within: it is the same
        return self

    # -- opening and closing

    def _real_close(self, _ss: Any = _c_socket) -> None:
        # called by close() once the last file of makefile() is closed, too
        self._leave_loop()
        super()._real_close(_ss)  # type: ignore[misc]

    def detach(self) -> int:
        """Close the object, but not the file; returns the fd, which is non-blocking. Does not block."""
        self._leave_loop()
        return super().detach()

    def shutdown(self, how: int) -> None:
        """Shut down one direction of the connection or both (SHUT_RD, SHUT_WR, SHUT_RDWR).

        Who waits for that direction gets :class:`cancel_wait_ex`. Does not block.
        """
        _c_shutdown(self, how)
        if how == _socket.SHUT_RD:
            self._channel.release(READ)
        elif how == _socket.SHUT_WR:
            self._channel.release(WRITE)
        else:
            self._channel.release(READ | WRITE)

    def accept(self) -> tuple[socket, Any]:
        """Wait for a connection; returns a socket for it, and the address of its other end.

        The new socket has the default time limit. Blocks the greenlet.
        """
        try:
            fd, address = _c_accept(self)
        except BlockingIOError:
            if self._timeout == 0:
                raise
            fd = -1
        if fd < 0:
            fd, address = self._retry(READ, _c_accept)
        try:
            sock = socket(_family(self), _type(self), _proto(self), fd)
        except BaseException:
            os.close(fd)
            raise
        return sock, address

    def connect(self, address: Any) -> None:
        """Connect to ``address``; the name of a host is looked up by the hub's resolver.

        OSError if that fails, gaierror for an unknown host. Blocks the greenlet.
        """
        error = self._connect(address)
        if error:
            raise OSError(error, os.strerror(error))

    def connect_ex(self, address: Any) -> int:
        """As :meth:`connect`, but returns the error number, 0 if connected, EAGAIN when the time is over.

        gaierror for an unknown host. Blocks the greenlet.
        """
        try:
            return self._connect(address)
        except TimeoutError:
            return errno.EAGAIN
        except cancel_wait_ex:
            return errno.EBADF

    def _connect(self, address: Any) -> int:
        timeout = self._timeout
        deadline = None if timeout is None else monotonic() + timeout
        if _c_fileno(self) >= 0:
            try:
                address = self._resolve(address)
            except BlockingSwitchOutError:
                if timeout != 0:
                    raise
                # a non-blocking socket in a coroutine: to look it up blocks the thread, as always
        pause = _PAUSES[0]
        while True:
            error: int = _c_connect_ex(self, address)
            if timeout == 0 or not error:
                return error
            if error in _IN_PROGRESS:
                self._wait_for(WRITE, left_until(deadline))
                error = self.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
                if error:
                    return error
                # no error, but only this tells whether the wake-up was true
                error = _c_connect_ex(self, address)
                if error in _IN_PROGRESS:
                    continue
                return 0 if error == errno.EISCONN else error
            if error not in _WOULD_BLOCK or _family(self) in (_AF_INET, _AF_INET6):
                return error
            # The queue of a listening Unix socket is full. No event says when there is room.
            left = left_until(deadline)
            sleep(pause if left is None else min(pause, left))
            pause = min(pause * 2, _PAUSES[1])

    # -- receiving

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive up to ``bufsize`` bytes; none at the end of the connection. Blocks the greenlet."""
        if type(bufsize) is not int:
            bufsize = index(bufsize)  # to compare with it
        channel = self._channel
        deadline = None
        while True:
            if channel.drained and not flags and bufsize > 0:  # see bridge._core.edges
                if self._timeout is None:
                    try:
                        self._wait_edge(READ, None, UNLESS_ALONE)
                    except BlockingSwitchOutError:
                        pass  # where nothing may block, the attempt decides whether that was needed
                elif self._timeout:
                    deadline = self._wait_first(deadline)
            channel.drained = channel.stream
            try:
                data: bytes = _c_recv(self, bufsize, flags)
            except BlockingIOError:
                if self._timeout == 0 or flags & _DONTWAIT:
                    raise
            except BaseException:
                channel.drained = False
                raise
            else:
                if len(data) >= bufsize or flags or not data:
                    channel.drained = False
                return data
            # not in the handler: what the wait ends with has nothing to do with that error
            deadline = self._wait_until(deadline, READ)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive up to ``nbytes`` bytes (0: what fits) into ``buffer``; returns how many.

        Blocks the greenlet.
        """
        room = memoryview(buffer).nbytes
        wanted = index(nbytes) or room
        channel = self._channel
        deadline = None
        while True:
            if channel.drained and not flags and 0 < wanted <= room:  # see bridge._core.edges
                if self._timeout is None:
                    try:
                        self._wait_edge(READ, None, UNLESS_ALONE)
                    except BlockingSwitchOutError:
                        pass  # where nothing may block, the attempt decides whether that was needed
                elif self._timeout:
                    deadline = self._wait_first(deadline)
            channel.drained = channel.stream
            try:
                size: int = _c_recv_into(self, buffer, nbytes, flags)
            except BlockingIOError:
                if self._timeout == 0 or flags & _DONTWAIT:
                    raise
            except BaseException:
                channel.drained = False
                raise
            else:
                if size >= wanted or flags or not size:
                    channel.drained = False
                return size
            # not in the handler: what the wait ends with has nothing to do with that error
            deadline = self._wait_until(deadline, READ)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As :meth:`recv`; returns the bytes and the address of the sender. Blocks the greenlet."""
        try:
            # an argument less to parse in C
            return _c_recvfrom(self, bufsize, flags) if flags else _c_recvfrom(self, bufsize)  # type: ignore[no-any-return]
        except BlockingIOError:
            if self._timeout == 0 or flags & _DONTWAIT:
                raise
        return self._retry(READ, _c_recvfrom, bufsize, flags)  # type: ignore[no-any-return]

    def recvfrom_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As :meth:`recv_into`; returns the number and the address of the sender. Blocks the greenlet."""
        try:
            return _c_recvfrom_into(self, buffer, nbytes, flags)  # type: ignore[no-any-return]
        except BlockingIOError:
            if self._timeout == 0 or flags & _DONTWAIT:
                raise
        return self._retry(READ, _c_recvfrom_into, buffer, nbytes, flags)  # type: ignore[no-any-return]

    if hasattr(_c_socket, "recvmsg"):

        def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
            """Receive bytes and ancillary data, as ``socket.recvmsg``. Blocks the greenlet."""
            try:
                return _c_socket.recvmsg(self, bufsize, ancbufsize, flags)
            except BlockingIOError:
                if self._timeout == 0 or flags & _DONTWAIT:
                    raise
            return self._retry(READ, _c_socket.recvmsg, bufsize, ancbufsize, flags)

        def recvmsg_into(
            self, buffers: Iterable[WriteableBuffer], ancbufsize: int = 0, flags: int = 0, /
        ) -> Any:
            """As :meth:`recvmsg`, into ``buffers``. Blocks the greenlet."""
            buffers = list(buffers)  # an iterator would be used up by the first attempt
            try:
                return _c_socket.recvmsg_into(self, buffers, ancbufsize, flags)
            except BlockingIOError:
                if self._timeout == 0 or flags & _DONTWAIT:
                    raise
            return self._retry(READ, _c_socket.recvmsg_into, buffers, ancbufsize, flags)

    # -- sending

    def send(self, data: ReadableBuffer, flags: int = 0, timeout: Any = timeout_default) -> int:
        """Send what there is room for; returns the number of bytes, which may be less than all of ``data``.

        :param timeout: seconds, instead of the time limit of the socket; None waits for ever.

        Blocks the greenlet.
        """
        try:
            return _c_send(self, data, flags)  # type: ignore[no-any-return]
        except BlockingIOError:
            limit = self._timeout if timeout is timeout_default else timeout
            if limit == 0 or flags & _DONTWAIT:
                raise
        deadline = None if limit is None else monotonic() + limit
        while True:
            self._wait_edge(WRITE, left_until(deadline))
            try:
                return _c_send(self, data, flags)  # type: ignore[no-any-return]
            except BlockingIOError:
                pass  # somebody else was faster

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Send all of ``data``. After an error nobody knows how much has been sent.

        The time limit of the socket is for the whole. A socket with a limit of 0 raises BlockingIOError when
        there is no more room. Blocks the greenlet.
        """
        try:
            sent = _c_send(self, data, flags)
        except BlockingIOError:
            if self._timeout == 0 or flags & _DONTWAIT:
                raise
            sent = 0
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        if sent < size:
            self._send_rest(data, sent, size, flags)

    def _send_rest(self, data: ReadableBuffer, sent: int, size: int, flags: int) -> None:
        timeout = self._timeout
        deadline = None
        waiting = timeout != 0 and not flags & _DONTWAIT
        full = not sent
        with _bytes_of(data) as view:
            while True:
                if waiting:
                    # what was sent in part has filled the buffer; a fast reader may have made room since
                    deadline = self._wait_until(deadline, WRITE, 0 if full else UNLESS_ALONE)
                try:
                    with view[sent:] as rest:
                        sent += _c_send(self, rest, flags)
                    full = False
                except BlockingIOError:
                    if not waiting:
                        raise
                    full = True
                if sent >= size:
                    return

    def sendto(self, data: ReadableBuffer, *args: Any) -> int:
        """``sendto(data[, flags], address)``: send a datagram; returns the number of bytes.

        The name of a host is looked up by the hub's resolver. Blocks the greenlet.
        """
        timeout = self._timeout
        if timeout != 0 and args:
            address = args[-1]
            if type(address) is not tuple or address[:1] not in _numeric:
                args = (*args[:-1], self._resolve(address))
        try:
            return _c_sendto(self, data, *args)  # type: ignore[no-any-return]
        except BlockingIOError:
            if timeout == 0 or (len(args) > 1 and args[0] & _DONTWAIT):
                raise
        return self._retry(WRITE, _c_sendto, data, *args)  # type: ignore[no-any-return]

    def _resolve(self, address: Any) -> Any:
        """``address`` without a name that would have to be looked up."""
        resolved = resolve_address(_family(self), address)
        if resolved is address and type(address) is tuple and _family(self) in (_AF_INET, _AF_INET6):
            # nobody has to look at it again
            if len(_numeric) >= _MANY:
                _numeric.clear()
            _numeric.add(address[:1])
        return resolved

    if hasattr(_c_socket, "sendmsg"):

        def sendmsg(
            self, buffers: Iterable[ReadableBuffer], ancdata: Any = (), flags: int = 0, address: Any = None
        ) -> int:
            """Send ``buffers`` and ancillary data, as ``socket.sendmsg``; returns how many bytes.

            Blocks the greenlet.
            """
            buffers, ancdata = list(buffers), list(ancdata)  # iterators would be used up by the first attempt
            if address is not None and self._timeout != 0:
                address = self._resolve(address)
            try:
                return _c_socket.sendmsg(self, buffers, ancdata, flags, address)  # type: ignore[no-any-return]
            except BlockingIOError:
                if self._timeout == 0 or flags & _DONTWAIT:
                    raise
            return self._retry(  # type: ignore[no-any-return]
                WRITE, _c_socket.sendmsg, buffers, ancdata, flags, address
            )

    if hasattr(_c_socket, "sendmsg_afalg"):

        def sendmsg_afalg(self, *args: Any, **kwds: Any) -> int:
            """Set parameters of an AF_ALG socket and send data, as the standard library. Blocks."""
            if args:
                args = (list(args[0]), *args[1:])  # an iterator would be used up by the first attempt
            try:
                return _c_socket.sendmsg_afalg(self, *args, **kwds)  # type: ignore[no-any-return]
            except BlockingIOError:
                if self._timeout == 0:
                    raise
            send = partial(_c_socket.sendmsg_afalg, **kwds)
            return self._retry(WRITE, send, *args)  # type: ignore[no-any-return]

    def _sendfile_use_sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> int:
        # the part of sendfile() that would wait by a selector
        if _sendfile is None:
            raise _GiveupOnSendfile("os.sendfile() is not available on this platform")
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]
        if self._timeout == 0:
            raise ValueError("sendfile(): non-blocking sockets are not supported; use send(), or a timeout")
        try:
            source = file.fileno()
            size = os.fstat(source).st_size
        except (AttributeError, OSError) as e:  # io.UnsupportedOperation, too: no regular file
            raise _GiveupOnSendfile(e) from e
        if not size:
            return 0
        at_once = min(count or size, 2**30)  # as the standard library
        total = 0
        try:
            while True:
                chunk = at_once if count is None else min(count - total, at_once)
                if chunk <= 0:
                    break
                try:
                    sent = _sendfile(_c_fileno(self), source, offset, chunk)
                except BlockingIOError:
                    sent = -1
                except OSError as e:
                    if not total:
                        # perhaps this file cannot be sent so; send() will tell
                        raise _GiveupOnSendfile(e) from e
                    raise
                if sent < 0:
                    self._wait_edge(WRITE, self._timeout)
                    continue
                if not sent:
                    break
                offset += sent
                total += sent
            return total
        finally:
            if total and hasattr(file, "seek"):
                file.seek(offset)


def _bytes_of(data: ReadableBuffer) -> memoryview:
    """A view of single bytes on whatever may be sent."""
    view = memoryview(data)
    if view.ndim == 1 and view.itemsize == 1 and view.format == "B":
        return view
    try:
        return view.cast("B")
    except TypeError:
        # formats of ctypes, or not contiguous
        return memoryview(view.tobytes())


if compiled is not None:
    try:
        compiled.use_sockets(
            socket, WaitingSocket, Wait, hub_local, cancel_wait_ex, BlockingSwitchOutError, _c_socket
        )
    except TypeError:
        pass  # this Python's sockets look otherwise than expected: it works without, slower
