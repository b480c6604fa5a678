"""The cooperative TLS socket class.

Theory of operation
===================

*Two parents.* :class:`SSLSocket` is the standard library's SSLSocket *and* the cooperative socket, in this
order: ``super()`` in the standard class leads to the cooperative one, so connecting, accepting, closing and
everything about certificates, sessions and protocols are inherited, with the differences between versions of
python, and only what exchanges TLS records is written here. The way not taken, a copy of ``ssl.py``'s class,
ages with each of its security fixes.

*Try first.* The file is non-blocking, so OpenSSL says SSLWantReadError or SSLWantWriteError where it
would have to wait. Its last system call has failed with EAGAIN then, which is what the wait for an edge
requires (see :mod:`bridge._core.edges`).

*Or wait first.* A failed attempt costs 1.3 µs, most of it for the exception, and the usual one is the read
that follows the last record of a message. OpenSSL takes exactly one record from the kernel, which may hold
more, so nothing can be known; but after a record that was not a full one there is probably no other. The next
read then begins with a wait that has the kernel look (``_idle``), which costs 0.3 µs.

*The other direction.* A read may have to send first (an answer to a key update, a renegotiation), and a write
to receive, while another greenlet writes or reads in its own right. Such a wait, and the one of ``unwrap``,
does not take the place of the reader or the writer; it goes through the poller, and is listed in
``_crossing`` so that closing the socket ends it, too. Two who wait for the same thing, in two ways: the first
one to run takes what has come, be it for itself or for the other, and then nothing is reported to the other
any more. So who goes on after a wait, or tries, wakes the others, who try in turn.

*One writer.* A record that OpenSSL could send only in part must be finished with the same data. A second
greenlet that wrote meanwhile would have its own data taken for the rest. So, unlike for a plain socket, a
second writer is refused before it tries.

*Killed in a handshake.* ``wrap_socket`` has taken the file from the socket it was given by then; nobody
could close it any more. So :meth:`SSLSocket._create` does the handshake itself, and closes the file
whatever ends it.
"""

from __future__ import annotations

import ssl as __ssl__
from typing import TYPE_CHECKING, Any

from ._core.clock import monotonic
from ._core.current import get_hub
from ._core.errors import BlockingSwitchOutError
from ._core.poller import READ, WRITE, Interest
from ._core.waiting import Wait
from ._sockets import cancel_wait_ex, socket, timeout_default
from ._sslcontext import SSLContext

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["SSLSocket"]

# Taken now: monkey patching replaces it.
_Standard: Any = __ssl__.SSLSocket

_SSLError = __ssl__.SSLError
_WantRead = __ssl__.SSLWantReadError
_WantWrite = __ssl__.SSLWantWriteError
_EOF = __ssl__.SSL_ERROR_EOF
_BOTH = READ | WRITE
#: How many bytes are in a full record.
_FULL = 16384
#: A read that was filled by less may have been made for a message of just that size; more is likely to be the
#: buffer of somebody who reads on.
_SMALL = 4096


class _Parents(_Standard, socket):  # type: ignore[misc]
    """Where ``ssl.SSLSocket._create`` finds the constructor.

    It calls ``super(SSLSocket, self).__init__``: that of the cooperative socket, or this one when
    ``ssl.SSLSocket`` has been replaced by ours. (That of the standard class refuses to be called.)
    """

    __slots__ = ()

    def __init__(self, family: int, type: int, proto: int, fileno: int) -> None:
        socket.__init__(self, family, type, proto, fileno)


class SSLSocket(_Parents):
    """``ssl.SSLSocket`` whose methods block only the greenlet that calls them.

    Made by :meth:`SSLContext.wrap_socket`, or ``SSLSocket(sock, **parameters)`` as gevent offers it: with the
    parameters of ``ssl.wrap_socket`` as it was up to python 3.11, and ``server_hostname``, ``_session`` and
    ``_context``.

    Arguments, results and errors are the standard library's: TimeoutError when the time limit of
    :meth:`settimeout` is over, SSLWantReadError or SSLWantWriteError where a socket with a limit of 0
    would have to wait. One greenlet may read and another one write at the same time; a second one that reads
    or writes raises ConcurrentObjectUseError. Who waits when the socket is closed or shut down gets an
    OSError (EBADF). Below a portal a coroutine can use it, too.
    """

    __module__ = f"{__package__}.ssl"

    _sslobj: Any
    #: see "The other direction" above
    _crossing: tuple[Wait, ...] = ()
    #: see "Or wait first" above
    _idle = False

    def __new__(cls, sock: Any = None, *args: Any, **kwargs: Any) -> Any:
        if sock is not None:
            return cls._wrap(sock, *args, **kwargs)
        if "fileno" not in kwargs:
            raise TypeError("SSLSocket() needs a socket; better use SSLContext.wrap_socket(socket)")
        return super().__new__(cls)  # for _create

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass  # __new__ has done it

    @classmethod
    def _wrap(
        cls,
        sock: Any,
        keyfile: Any = None,
        certfile: Any = None,
        server_side: bool = False,
        cert_reqs: Any = __ssl__.CERT_NONE,
        ssl_version: Any = __ssl__.PROTOCOL_TLS,
        ca_certs: Any = None,
        do_handshake_on_connect: bool = True,
        family: Any = None,  # this one and the next three: that of the socket, whatever is given
        type: Any = None,
        proto: Any = None,
        fileno: Any = None,
        suppress_ragged_eofs: bool = True,
        npn_protocols: Any = None,
        ciphers: Any = None,
        server_hostname: Any = None,
        _session: Any = None,
        _context: Any = None,
    ) -> Any:
        context = _context
        if context is None:
            if server_side and not certfile:
                raise ValueError("certfile must be specified for server-side operations")
            if keyfile and not certfile:
                raise ValueError("certfile must be specified")
            context = SSLContext(ssl_version)
            context.verify_mode = cert_reqs
            if ca_certs:
                context.load_verify_locations(ca_certs)
            if certfile:
                context.load_cert_chain(certfile, keyfile)
            if npn_protocols:
                context.set_npn_protocols(npn_protocols)
            if ciphers:
                context.set_ciphers(ciphers)
        return cls._create(
            sock,
            server_side=server_side,
            do_handshake_on_connect=do_handshake_on_connect,
            suppress_ragged_eofs=suppress_ragged_eofs,
            server_hostname=server_hostname,
            context=context,
            session=_session,
        )

    @classmethod
    def _create(
        cls,
        sock: Any,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: Any = None,
        context: Any = None,
        session: Any = None,
    ) -> Any:
        self = super()._create(
            sock,
            server_side=server_side,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=suppress_ragged_eofs,
            server_hostname=server_hostname,
            context=context,
            session=session,
        )
        self.do_handshake_on_connect = do_handshake_on_connect
        if do_handshake_on_connect and self._connected:
            try:
                if self._timeout == 0:
                    raise ValueError(
                        "do_handshake_on_connect should not be specified for non-blocking sockets"
                    )
                self.do_handshake()
            except BaseException:
                self.close()
                raise
        return self

    # -- waiting

    def _wait_tls(
        self, events: int, own: int, timeout: float | None, deadline: float, what: str, anew: bool = False
    ) -> float:
        """Wait until OpenSSL may try again.

        :param events: what it wants, READ or WRITE.
        :param own: for which of them the caller is the socket's reader, or writer.
        :param timeout: the time limit of the operation in seconds.
        :param deadline: what this method returned for the same operation before, at first 0.
        :param what: the operation, for the error message.
        :param anew: it has not tried yet.
        """
        if timeout is not None:
            now = monotonic()
            if not deadline:
                deadline = now + timeout
            else:
                timeout = max(deadline - now, 0)
        try:
            if events & own:
                self._wait_edge(events, timeout, anew)
            else:
                self._wait_across(events, timeout)
        except TimeoutError as e:
            if e.args != ("timed out",):
                raise  # somebody has thrown it
            raise TimeoutError(f"The {what} operation timed out") from None
        if self._crossing or not events & own:
            self._wake_all()
        return deadline

    def _wait_idle(self) -> float:
        """Wait for the next record, before the first attempt to read it."""
        self._idle = False
        try:
            return self._wait_tls(READ, READ, self._timeout, 0.0, "read", True)
        except BlockingSwitchOutError:
            return 0.0  # where nothing may block, the attempt decides whether that was needed
        except TimeoutError:
            return -1.0  # long past: one attempt, as if it had been the first

    def _wait_across(self, events: int, timeout: float | None) -> None:
        """Wait for READ or WRITE without being the socket's reader or writer."""
        wait = Wait()
        interest = Interest(self.fileno(), events, lambda _events: wait.wake(), self._channel.ref)
        poller = get_hub().loop.get_poller()
        try:
            poller.add(interest)
            self._crossing += (wait,)
            woken = wait.block(timeout)
        finally:
            poller.remove(interest)
            mine = wait in self._crossing
            self._crossing = tuple(other for other in self._crossing if other is not wait)
        if not mine:
            raise cancel_wait_ex()
        if not woken:
            raise TimeoutError("timed out")

    def _wake_all(self) -> None:
        """We are about to take what has come. Have all others who wait try, after us."""
        channel = self._channel
        for wait in (*self._crossing, channel.reader, channel.writer):
            if wait is not None:
                wait.wake()

    def _end_crossing(self) -> None:
        crossing, self._crossing = self._crossing, ()
        for wait in crossing:
            wait.wake()

    # -- receiving

    def read(self, len: int = 1024, buffer: WriteableBuffer | None = None) -> Any:
        """Receive up to ``len`` bytes, or into ``buffer``: then returns how many. Blocks the greenlet."""
        sslobj = self._sslobj
        if sslobj is None:
            raise ValueError("Read on closed or unwrapped SSL socket.")
        deadline = self._wait_idle() if self._idle and len > 0 and self._timeout != 0 else 0.0
        if self._crossing:
            self._wake_all()
        while True:
            try:
                if buffer is None:
                    found = sslobj.read(len)
                    size = found.__len__()
                else:
                    found = size = sslobj.read(len, buffer)
            except _WantRead:
                if self._timeout == 0:
                    raise
                events = READ
            except _WantWrite:
                if self._timeout == 0:
                    raise
                events = WRITE
            except _SSLError as e:
                if e.args[0] != _EOF or not self.suppress_ragged_eofs:
                    raise
                return b"" if buffer is None else 0
            else:
                if 0 < size < len:
                    self._idle = size < _FULL
                elif 0 < size < _SMALL:
                    self._idle = not sslobj.pending()
                return found
            deadline = self._wait_tls(events, READ, self._timeout, deadline, "read")

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Receive up to ``buflen`` bytes; none at the end of the connection. Blocks the greenlet."""
        if self._sslobj is None:
            return socket.recv(self, buflen, flags)
        if flags:
            raise self._no_flags("recv")
        return self.read(buflen)  # type: ignore[no-any-return]

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive up to ``nbytes`` bytes (by default: what fits) into ``buffer``; returns how many.

        Blocks the greenlet.
        """
        if self._sslobj is None:
            return socket.recv_into(self, buffer, nbytes or 0, flags)
        if flags:
            raise self._no_flags("recv_into")
        if nbytes is None:
            nbytes = 1024 if buffer is None else memoryview(buffer).nbytes
        return self.read(nbytes, buffer)  # type: ignore[no-any-return]

    # -- sending

    def write(self, data: ReadableBuffer) -> int:
        """Send what there is room for; returns the number of bytes. Blocks the greenlet."""
        if self._sslobj is None:
            raise ValueError("Write on closed or unwrapped SSL socket.")
        return self._write(data, self._timeout, 0.0)

    def _write(self, data: ReadableBuffer, timeout: float | None, deadline: float) -> int:
        writer = self._channel.writer
        if writer is not None and not writer.abandoned():
            raise self._busy("write to")
        if self._crossing:
            self._wake_all()
        sslobj = self._sslobj
        while True:
            try:
                return sslobj.write(data)  # type: ignore[no-any-return]
            except _WantWrite:
                if timeout == 0:
                    raise
                events = WRITE
            except _WantRead:
                if timeout == 0:
                    raise
                events = READ
            deadline = self._wait_tls(events, WRITE, timeout, deadline, "write")

    def send(self, data: ReadableBuffer, flags: int = 0, timeout: Any = timeout_default) -> int:
        """Send what there is room for; returns the number of bytes, which may be less than all of ``data``.

        :param timeout: seconds, instead of the time limit of the socket; None waits for ever.

        Blocks the greenlet.
        """
        if self._sslobj is None:
            return socket.send(self, data, flags, timeout)
        if flags:
            raise self._no_flags("send")
        return self._write(data, self._timeout if timeout is timeout_default else timeout, 0.0)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Send all of ``data``. After an error nobody knows how much has been sent.

        The time limit of the socket is for the whole. A socket with a limit of 0 raises SSLWantWriteError
        when there is no more room. Blocks the greenlet.
        """
        if self._sslobj is None:
            return socket.sendall(self, data, flags)
        if flags:
            raise self._no_flags("sendall")
        timeout = self._timeout
        deadline = monotonic() + timeout if timeout else 0.0
        sent = 0
        if type(data) is bytes:
            sent = self._write(data, timeout, deadline) if data else 0
            if sent == len(data):
                return None
        with memoryview(data) as view, view.cast("B") as rest:
            size = rest.nbytes
            while sent < size:
                if self._sslobj is None:
                    raise cancel_wait_ex()  # by another greenlet, between two records
                with rest[sent:] as part:
                    sent += self._write(part, timeout, deadline)
        return None

    def _no_flags(self, method: str) -> ValueError:
        return ValueError(f"non-zero flags not allowed in calls to {method}() on {self.__class__}")

    # -- beginning and ending

    def do_handshake(self, block: bool = False) -> None:
        """Perform the TLS handshake. Blocks the greenlet.

        :param block: wait for it even if the time limit of the socket is 0.
        """
        self._check_connected()
        timeout = self._timeout
        if timeout == 0 and block:
            timeout = None
        sslobj = self._sslobj
        deadline = 0.0
        while True:
            try:
                return sslobj.do_handshake()  # type: ignore[no-any-return]
            except _WantRead:
                if timeout == 0:
                    raise
                events = READ
            except _WantWrite:
                if timeout == 0:
                    raise
                events = WRITE
            deadline = self._wait_tls(events, _BOTH, timeout, deadline, "handshake")

    def unwrap(self) -> Any:
        """End TLS in good order; returns a socket for what follows unencrypted, which is this one.

        ValueError without TLS. Blocks the greenlet, until the other side agrees.
        """
        sslobj = self._sslobj
        if not sslobj:
            raise ValueError("No SSL wrapper around " + str(self))
        deadline = 0.0
        while True:
            try:
                plain = sslobj.shutdown()
                break
            except _WantRead:
                if self._timeout == 0:
                    raise
                events = READ
            except _WantWrite:
                if self._timeout == 0:
                    raise
                events = WRITE
            deadline = self._wait_tls(events, 0, self._timeout, deadline, "shutdown")
        self._sslobj = None
        return plain

    def shutdown(self, how: int) -> None:
        """Shut down one direction of the connection or both (SHUT_RD, SHUT_WR, SHUT_RDWR), without TLS's own.

        Does not block.
        """
        super().shutdown(how)
        self._end_crossing()

    def _leave_loop(self) -> None:
        super()._leave_loop()
        self._end_crossing()


SSLContext.sslsocket_class = SSLSocket
