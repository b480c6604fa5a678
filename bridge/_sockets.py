"""The cooperative socket class, and looking up names.

Theory of operation
===================

*Ours is the standard class*, with the file always non-blocking underneath, and with the time limit that the
program sets kept beside it (``_timeout``). So everything that takes a socket takes ours (asyncio, ssl,
``multiprocessing``), and what cannot block is inherited.

*Try first.* Each operation is tried at once, and only BlockingIOError leads to a wait, after which it is
tried again. The wait relies on the poller's kept registrations (see :mod:`bridge._core.poller`): a
connection that is answered and waited for again needs no system call for it.

*Whose registration it is.* That an fd is still registered may only be believed if it was this object that
was registered, with this poller: ``_poller_id`` says so. A number only, as a socket may outlive the hub of
a thread, and must not keep it. Should another poller get the same number, what it knows of our fd it has
learned while the fd was ours.

*Closing.* ``_reading`` and ``_writing`` are who waits, one each. Whoever closes or shuts down the socket
takes them out and wakes them; a waiter that does not find itself there any more raises
:class:`cancel_wait_ex`. That works across threads: the poller of another thread is not touched, as nobody
will believe in the registration that is left there.
"""

from __future__ import annotations

import _socket
import errno
import os
import socket as __socket__
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import IO, TYPE_CHECKING, Any

from ._core.current import hub_local
from ._core.errors import BlockingSwitchOutError, ConcurrentObjectUseError
from ._core.poller import READ, WRITE, Interest
from ._core.waiting import Wait
from .hub import get_hub, sleep

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "cancel_wait_ex",
    "getaddrinfo",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "socket",
    "timeout_default",
]

#: Says "the time limit of the socket", where None says "none".
timeout_default: Any = object()

# Taken now: monkey patching replaces them.
_Socket = __socket__.socket
_c_socket: Any = _socket.socket
_std_getaddrinfo = __socket__.getaddrinfo
_std_gethostbyaddr = __socket__.gethostbyaddr
_std_gethostbyname = __socket__.gethostbyname
_std_gethostbyname_ex = __socket__.gethostbyname_ex
_std_gethostname = __socket__.gethostname
_std_getnameinfo = __socket__.getnameinfo
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
_family: Callable[[Any], int] = _c_socket.family.__get__
_type: Callable[[Any], int] = _c_socket.type.__get__
_proto: Callable[[Any], int] = _c_socket.proto.__get__

_DONTWAIT: int = getattr(_socket, "MSG_DONTWAIT", 0)
_NONBLOCK: int = getattr(_socket, "SOCK_NONBLOCK", 0)
_AF_INET = int(__socket__.AF_INET)
_AF_INET6 = int(getattr(__socket__, "AF_INET6", -1))

_IN_PROGRESS = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})
_WOULD_BLOCK = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
#: From here on a time limit does not fit into the 64 bits of nanoseconds that the standard library has.
_TOO_LONG = 2**63 / 1e9
#: The shortest and the longest pause, in seconds, between two attempts where the kernel does not tell when
#: the next one may succeed.
_PAUSES = (0.0005, 0.02)


class cancel_wait_ex(OSError):
    """What a wait is ended with when the file is closed under it: an OSError with EBADF."""

    def __init__(self) -> None:
        super().__init__(errno.EBADF, "File descriptor was closed in another greenlet")


def _look_up(function: Callable[..., Any], *args: Any) -> Any:
    """Call one of the standard library's functions by way of the hub's resolver. Blocks the greenlet."""
    return getattr(get_hub().resolver, function.__name__)(*args)


def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
    """Find the addresses of a host and a service; arguments, result and errors as ``socket.getaddrinfo``.

    Blocks the greenlet; in a coroutine only below a portal.
    """
    return _look_up(_std_getaddrinfo, host, port, family, type, proto, flags)


def gethostbyname(hostname: Any) -> Any:
    """The IPv4 address of a host, as text; gaierror if there is none. Blocks the greenlet."""
    return _look_up(_std_gethostbyname, hostname)


def gethostbyname_ex(hostname: Any) -> Any:
    """Name, aliases and IPv4 addresses of a host; gaierror if it is not known. Blocks the greenlet."""
    return _look_up(_std_gethostbyname_ex, hostname)


def gethostbyaddr(ip_address: Any) -> Any:
    """Name, aliases and addresses of the host with an address; herror or gaierror. Blocks the greenlet."""
    return _look_up(_std_gethostbyaddr, ip_address)


def getnameinfo(sockaddr: Any, flags: int) -> Any:
    """Names of the host and the service of a socket address, by the NI_* *flags*. Blocks the greenlet."""
    return _look_up(_std_getnameinfo, sockaddr, flags)


def getfqdn(name: str = "") -> str:
    """The fully qualified name of a host, by default of this one; *name* itself if none is known.

    Blocks the greenlet.
    """
    name = name.strip()
    if not name or name in ("0.0.0.0", "::"):
        name = _std_gethostname()
    try:
        host, aliases, _addresses = gethostbyaddr(name)
    except OSError:
        return name
    for candidate in (host, *aliases):
        if "." in candidate:
            return str(candidate)
    return str(host)


def _is_numeric(family: int, host: Any) -> bool:
    """True for an address that nobody has to look up, as far as inet_pton() knows."""
    try:
        __socket__.inet_pton(family, host if isinstance(host, str) else host.decode("ascii"))
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _resolve_addr(sock: Any, address: Any) -> Any:
    """``address`` as ``sock`` can take it without looking up a name, which would block the thread."""
    family = sock.family
    if family not in (_AF_INET, _AF_INET6) or not isinstance(address, tuple) or len(address) < 2:
        return address
    host = address[0]
    if not isinstance(host, (str, bytes, bytearray)) or host in ("", b"", "<broadcast>", b"<broadcast>"):
        return address
    if _is_numeric(family, host):
        return address
    # without the port: if that is wrong, connect() shall say so
    found = getaddrinfo(host, None, family, int(__socket__.SOCK_STREAM))[0][4]
    if family == _AF_INET6 and len(address) < 4 and found[3]:
        flow = address[2] if len(address) > 2 else 0
        return (found[0], address[1], flow, found[3])  # the scope that was in the name: fe80::1%eth0
    return (found[0], *address[1:])


# -- the class ------------------------------------------------------------------------------------------


class socket(_Socket):
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
    __slots__ = ("_poller_id", "_reading", "_timeout", "_writing", "ref")

    _timeout: float | None
    #: see "Closing" above
    _reading: Wait | None
    _writing: Wait | None
    #: see "Whose registration it is" above
    _poller_id: int
    #: whether a wait for this socket is a reason for the loop to go on
    ref: bool

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        self._reading = self._writing = None
        self._poller_id = 0
        self.ref = True
        super().__init__(family, type, proto, fileno)
        self._timeout = 0.0 if type > 0 and type & _NONBLOCK else _getdefaulttimeout()
        _c_socket.setblocking(self, False)

    # -- waiting

    def _wait_for(self, events: int, timeout: float | None) -> None:
        """Wait until the socket is ready for READ or for WRITE; TimeoutError after ``timeout`` seconds."""
        wait = Wait()
        hub = hub_local.hub
        assert hub is not None  # the Wait has seen to that
        interest = Interest(_c_fileno(self), events, lambda _events: wait.wake(), self.ref)
        if events == READ:
            if self._reading is not None and not self._reading.abandoned():
                raise self._busy("read from")
            self._reading = wait
        else:
            if self._writing is not None and not self._writing.abandoned():
                raise self._busy("write to")
            self._writing = wait
        poller = hub.loop.poller
        if poller is None:
            poller = hub.loop.get_poller()
        try:
            number = id(poller)
            trust = self._poller_id == number
            self._poller_id = 0
            poller.add(interest, trust)
            self._poller_id = number
            woken = wait.block(timeout)
        finally:
            if interest.active:
                poller.remove(interest)
            if self._reading is wait:
                self._reading = None
                mine = True
            elif self._writing is wait:
                self._writing = None
                mine = True
            else:
                mine = False
        if not mine:
            raise cancel_wait_ex()
        if not woken:
            raise TimeoutError("timed out")

    def _busy(self, what: str) -> ConcurrentObjectUseError:
        return ConcurrentObjectUseError(
            f"This socket is already used by another greenlet, which waits to {what} it: {self!r}; "
            "let one greenlet do that, or take turns by a lock"
        )

    def _retry(self, events: int, function: Callable[..., Any], *args: Any) -> Any:
        """``function(self, *args)`` would have had to wait: do, and call it until it does not."""
        timeout = self._timeout
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            self._wait_for(events, timeout)
            try:
                return function(self, *args)
            except BlockingIOError:
                pass  # somebody else was faster
            if deadline is not None:
                timeout = deadline - monotonic()
                if timeout <= 0:
                    raise TimeoutError("timed out")

    def _leave(self, events: int = READ | WRITE) -> None:
        """End the waits for ``events``, in any thread."""
        leaving = []
        if events & READ and self._reading is not None:
            leaving.append(self._reading)
            self._reading = None
        if events & WRITE and self._writing is not None:
            leaving.append(self._writing)
            self._writing = None
        for wait in leaving:
            wait.wake()

    def _leave_loop(self) -> None:
        """The fd is about to be somebody else's, or nobody's."""
        fd = _c_fileno(self)
        if fd >= 0:
            self._poller_id = 0
            hub = hub_local.hub
            if hub is not None and hub.loop is not None:
                hub.loop.closing_fd(fd)
            self._leave()

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

    def setblocking(self, flag: bool, /) -> None:
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

    def shutdown(self, how: int, /) -> None:
        """Shut down one direction of the connection or both (SHUT_RD, SHUT_WR, SHUT_RDWR).

        Who waits for that direction gets :class:`cancel_wait_ex`. Does not block.
        """
        _c_shutdown(self, how)
        if how == _socket.SHUT_RD:
            self._leave(READ)
        elif how == _socket.SHUT_WR:
            self._leave(WRITE)
        else:
            self._leave()

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

    def connect(self, address: Any, /) -> None:
        """Connect to ``address``; the name of a host is looked up by the hub's resolver.

        OSError if that fails, gaierror for an unknown host. Blocks the greenlet.
        """
        error = self._connect(address)
        if error:
            raise OSError(error, os.strerror(error))

    def connect_ex(self, address: Any, /) -> int:
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
                address = _resolve_addr(self, address)
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
                self._wait_for(WRITE, _left(deadline))
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
            left = _left(deadline)
            sleep(pause if left is None else min(pause, left))
            pause = min(pause * 2, _PAUSES[1])

    # -- receiving

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive up to ``bufsize`` bytes; none at the end of the connection. Blocks the greenlet."""
        try:
            return _c_recv(self, bufsize, flags)  # type: ignore[no-any-return]
        except BlockingIOError:
            if self._timeout == 0 or flags & _DONTWAIT:
                raise
        return self._retry(READ, _c_recv, bufsize, flags)  # type: ignore[no-any-return]

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive up to ``nbytes`` bytes (0: what fits) into ``buffer``; returns how many.

        Blocks the greenlet.
        """
        try:
            return _c_recv_into(self, buffer, nbytes, flags)  # type: ignore[no-any-return]
        except BlockingIOError:
            if self._timeout == 0 or flags & _DONTWAIT:
                raise
        return self._retry(READ, _c_recv_into, buffer, nbytes, flags)  # type: ignore[no-any-return]

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As :meth:`recv`; returns the bytes and the address of the sender. Blocks the greenlet."""
        try:
            return _c_recvfrom(self, bufsize, flags)  # type: ignore[no-any-return]
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
            self._wait_for(WRITE, _left(deadline))
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
        deadline = None if timeout is None else monotonic() + timeout
        with _bytes_of(data) as view:
            while True:
                if timeout != 0 and not flags & _DONTWAIT:
                    self._wait_for(WRITE, _left(deadline))
                try:
                    with view[sent:] as rest:
                        sent += _c_send(self, rest, flags)
                except BlockingIOError:
                    if timeout == 0 or flags & _DONTWAIT:
                        raise
                if sent >= size:
                    return

    def sendto(self, data: ReadableBuffer, *args: Any) -> int:
        """``sendto(data[, flags], address)``: send a datagram; returns the number of bytes.

        The name of a host is looked up by the hub's resolver. Blocks the greenlet.
        """
        timeout = self._timeout
        if timeout != 0 and args:
            args = (*args[:-1], _resolve_addr(self, args[-1]))
        try:
            return _c_sendto(self, data, *args)  # type: ignore[no-any-return]
        except BlockingIOError:
            if timeout == 0 or (len(args) > 1 and args[0] & _DONTWAIT):
                raise
        return self._retry(WRITE, _c_sendto, data, *args)  # type: ignore[no-any-return]

    if hasattr(_c_socket, "sendmsg"):

        def sendmsg(
            self, buffers: Iterable[ReadableBuffer], ancdata: Any = (), flags: int = 0, address: Any = None
        ) -> int:
            """Send ``buffers`` and ancillary data, as ``socket.sendmsg``; returns how many bytes.

            Blocks the greenlet.
            """
            buffers, ancdata = list(buffers), list(ancdata)  # iterators would be used up by the first attempt
            if address is not None and self._timeout != 0:
                address = _resolve_addr(self, address)
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
                    self._wait_for(WRITE, self._timeout)
                    continue
                if not sent:
                    break
                offset += sent
                total += sent
            return total
        finally:
            if total and hasattr(file, "seek"):
                file.seek(offset)


def _left(deadline: float | None) -> float | None:
    """Seconds until ``deadline``; TimeoutError if it is over."""
    if deadline is None:
        return None
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


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
