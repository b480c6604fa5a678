"""What all servers have in common; twin of :mod:`gevent.baseserver`.

Theory of operation
===================

*Accepting.* While a server accepts, its listening socket is watched by the poller of the hub in which
:meth:`BaseServer.start_accepting` was called. The poller's callback only queues a call of ``_accept``, which
so runs in the hub, between greenlets: there ``spawn=None`` may call the handler, and there nothing may block.
It takes up to ``max_accept`` connections and starts a greenlet for each. The watch is level-triggered: what
is left comes with the next poll.

The way not taken is a greenlet that loops around ``accept()``: it costs two switches for each burst of
connections, and a handler in the hub would be impossible.

*Not accepting.* The watch is taken off, as it would otherwise report the same connections again and again,

- while there is no room in the pool: ``_wait_for_room`` asks the pool's semaphore to call when there is;
- for a while after an error: to run out of file descriptors (EMFILE) is not over at once;
- by :meth:`BaseServer.stop_accepting`.

Invariant: of the watch, the timer and the link to the semaphore there is at most one.

*Whose loop.* A server belongs to no loop until it accepts. If the loop in which it accepted was closed,
``start()`` begins anew in the current one. In a forked child the poller of the hub watches what the parent's
watched, so a server started before the fork accepts in both processes; and one that was made before and is
started in each child is how to use several processors.
"""

from __future__ import annotations

import errno
import os
import socket as __socket__
import stat
import sys
from collections.abc import Callable
from types import CoroutineType
from typing import Any, ClassVar, TypeVar

from ._aio.awaiting import await_
from ._core.clock import monotonic
from ._core.hub import get_hub
from ._core.poller import READ, Interest
from ._sockets import socket
from .event import Event
from .greenlet import Greenlet
from .hub import spawn_raw
from .pool import Pool
from .timeout import Timeout

__all__ = ["BaseServer"]

S = TypeVar("S", bound="BaseServer")


class BaseServer:
    """A listening socket and a function that is called for whatever comes in.

    :param listener: an address, or a socket that is bound (and listens, for TCP). An address is a pair of
        host and port; text such as ``"127.0.0.1:80"``, ``"[::1]:80"`` or ``":80"`` (all interfaces); a port
        number (all interfaces); ``"unix:/path"``; or ``"fd://3"``, an open file descriptor, as an init system
        passes it.
    :param handle: the function; a subclass may define a method ``handle`` instead. It may be a coroutine
        function. TypeError if there is neither. When it returns, the connection is closed.
    :param spawn: how the function is run:

        - ``"default"``: in a greenlet of its own;
        - ``"raw"`` or :func:`bridge.spawn_raw`: in a bare greenlet, which is a little cheaper;
        - a :class:`bridge.pool.Pool`, or a number: a pool of that size. While it is full, nothing is
          accepted;
        - None: in the hub, where the function must not block;
        - anything that can be called as ``spawn(function, *args)``, and does not block.

    Nothing happens before :meth:`start`. To be used in one thread; another one ends it by
    ``loop.run_callback_threadsafe(server.close)``. As a context manager it stops at the end.
    """

    #: Seconds for which nothing is accepted after an error; doubled with each error that follows.
    min_delay: float = 0.01
    #: The longest such pause, in seconds.
    max_delay: float = 1
    #: How many connections are accepted before other greenlets run.
    max_accept: int = 100
    #: What ``spawn="default"`` means.
    _spawn: Any = Greenlet.spawn
    #: Seconds that :meth:`stop` gives the handlers in a pool.
    stop_timeout: float | Timeout | None = 1
    #: Numbers of the errors after which there is no point in going on: the server closes.
    fatal_errors: ClassVar[tuple[int, ...]] = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)

    #: The pool in which handlers run, None without one.
    pool: Any
    #: Address family of the listening socket.
    family: int
    #: Where the server listens: as given, and once it is bound, as ``getsockname()`` has it.
    address: Any
    #: The listening socket; there is no such attribute while the server is closed.
    socket: Any
    #: Seconds of the next pause after an error.
    delay: float

    def __init__(
        self, listener: Any, handle: Callable[..., Any] | None = None, spawn: Any = "default"
    ) -> None:
        self._stop_event = Event()
        self._stop_event.set()
        self._watcher: Interest | None = None
        self._timer: Any = None
        self._loop: Any = None  # the one that has the watch or the timer
        self._queued = False  # a call of _accept is in the ready queue
        self._linked: Any = None  # the semaphore that is to tell us of room
        self._handle: Any = None
        self._given = False  # the socket was made by somebody else
        self.pool = None
        self.set_listener(listener)
        self.set_spawn(spawn)
        self.set_handle(handle)
        self.delay = self.min_delay

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # -- what it is made of -------------------------------------------------------------------------------

    def set_listener(self, listener: Any) -> None:
        """Set the socket or the address to listen at, as in the constructor. Does not bind."""
        if hasattr(listener, "accept") or hasattr(listener, "recvfrom"):
            if hasattr(listener, "do_handshake"):
                raise TypeError(
                    f"{type(self).__name__}({listener!r}): a plain socket is expected, not one with TLS; "
                    "pass ssl_context=... beside it"
                )
            self.family = listener.family
            self.address = listener.getsockname()
            self.socket = listener
            self._given = True
        elif isinstance(listener, str) and listener.startswith("fd://"):
            try:
                fd = int(listener[5:])
            except ValueError:
                raise ValueError(
                    f"Failed to parse address {listener!r}: 'fd://' and the number of an open file descriptor"
                ) from None
            self.set_listener(socket(fileno=fd))
        else:
            self.family, self.address = parse_address(listener)
            self._given = False

    def set_spawn(self, spawn: Any) -> None:
        """Set how handlers are run, as in the constructor; TypeError for what can't be."""
        self.pool = None
        if spawn == "default":
            self._spawn = type(self)._spawn
        elif spawn == "raw":
            self._spawn = spawn_raw
        elif spawn is None:
            self._spawn = None
        elif isinstance(spawn, int):
            self.pool = Pool(spawn)
            self._spawn = self.pool.spawn
        elif hasattr(spawn, "spawn") and hasattr(spawn, "full"):
            self.pool = spawn
            self._spawn = spawn.spawn
        elif callable(spawn):
            self._spawn = spawn
        else:
            raise TypeError(
                f"{type(self).__name__}(spawn={spawn!r}): expected a pool, a number, 'default', 'raw', None, "
                "or a function such as bridge.spawn"
            )

    def set_handle(self, handle: Callable[..., Any] | None) -> None:
        """Set the function to call for whatever comes in; None: the method ``handle`` of a subclass."""
        if handle is not None:
            self.handle = handle
        if not callable(getattr(self, "handle", None)):
            raise TypeError(
                f"{type(self).__name__}(handle={handle!r}): 'handle' must be provided: pass a function, or "
                "define the method in a subclass"
            )
        self._handle = self._get_handle()

    def _get_handle(self) -> Callable[..., Any]:
        """The function that a greenlet calls with what do_read() returned."""
        return self.handle

    # -- accepting ----------------------------------------------------------------------------------------

    def start_accepting(self) -> None:
        """Begin or go on to accept, after :meth:`stop_accepting`; nothing if it does. Does not block."""
        loop = get_hub().loop
        if self._watcher is not None:
            if self._loop is loop or not self._loop.is_closed():
                return
        self._stop_watching()
        self._queued = False  # what a loop has queued that was closed will never run
        watcher = Interest(self.socket.fileno(), READ, self._on_readable)
        self._loop = loop
        loop.get_poller().add(watcher)
        self._watcher = watcher

    def _start_accepting_if_started(self, _source: object = None) -> None:
        self._timer = self._linked = None
        if self.started and self._watcher is None:
            try:
                self.start_accepting()
            except Exception as e:
                self._failed(e)

    def stop_accepting(self) -> None:
        """Accept nothing more until :meth:`start_accepting`; the listening socket stays open.

        Connections that were not accepted wait in the backlog. Does not block.
        """
        self._stop_watching()

    def _stop_watching(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None and watcher.active:
            self._loop.get_poller().remove(watcher)
        timer, self._timer = self._timer, None
        if timer is not None:
            self._loop.cancel(timer)
        linked, self._linked = self._linked, None
        if linked is not None:
            linked.unlink(self._start_accepting_if_started)

    def _on_readable(self, _events: int) -> None:
        """From the poller: must neither switch nor raise."""
        if not self._queued:
            self._loop.call(self._accept)
            self._queued = True  # after it: a signal handler that raises in between shall not end it all

    def _accept(self) -> None:
        """In the hub: take what has come."""
        self._queued = False
        watcher = self._watcher
        if watcher is None:
            return  # stopped meanwhile
        if not watcher.active:
            self._failed(OSError(errno.EBADF, "the listening socket was closed, but not by the server"))
            return
        for _ in range(self.max_accept):
            if self.full():
                self._wait_for_room()
                return
            try:
                args = self.do_read()
            except Exception as e:
                self._failed(e)
                return
            self.delay = self.min_delay
            if not args:
                return
            try:
                self.do_handle(*args)
            except Exception:
                get_hub().handle_error((args[1:], self), *sys.exc_info())
                self._pause()
                return
            if self._watcher is not watcher:
                return  # stopped by the handler

    def _failed(self, error: Exception) -> None:
        """Accepting has failed: give up if that is for good, otherwise try again later."""
        get_hub().handle_error(self, type(error), error, error.__traceback__)
        if self.is_fatal_error(error):
            self.close()
            sys.stderr.write(f"ERROR: {self} failed with {error}\n")
        else:
            self._pause()

    def _pause(self) -> None:
        """Accept nothing for a while."""
        if not self.started or self.delay < 0:
            return
        self.stop_accepting()
        self._loop = loop = get_hub().loop
        self._timer = loop.call_at(monotonic() + self.delay, loop.call, self._start_accepting_if_started)
        self.delay = min(self.max_delay, self.delay * 2)

    def _wait_for_room(self) -> None:
        """Accept nothing until the pool has room again."""
        self.stop_accepting()
        semaphore = getattr(self.pool, "_semaphore", None)
        if semaphore is not None:
            self._linked = semaphore
            semaphore.rawlink(self._start_accepting_if_started)
        elif self.pool is not None:
            # somebody's own kind of pool, which does not tell
            self._loop = loop = get_hub().loop
            when = monotonic() + self.min_delay
            self._timer = loop.call_at(when, loop.call, self._start_accepting_if_started)
        # Without a pool it is a subclass whose full() says so, and which is to call start_accepting().

    def do_read(self) -> tuple[Any, ...] | None:
        """In the hub: take one connection or message; the arguments for the handler, or None."""
        raise TypeError(f"{type(self).__name__} must define do_read(); or use StreamServer or DatagramServer")

    def do_handle(self, *args: Any) -> None:
        """Have the handler called with ``args``, and then :meth:`do_close`. In the hub; must not block."""
        spawn = self._spawn
        try:
            if spawn is None:
                _handle_and_close_when_done(self._handle, self.do_close, args)
            else:
                spawn(_handle_and_close_when_done, self._handle, self.do_close, args)
        except BaseException:
            self.do_close(*args)
            raise

    def do_close(self, *args: Any) -> None:
        """Called with the handler's arguments when it is done. May be called twice."""

    def full(self) -> bool:
        """True if there is no room in the pool, so that nothing is accepted."""
        pool = self.pool
        return False if pool is None else bool(pool.full())

    def is_fatal_error(self, ex: Any) -> bool:
        """True if there is no point in going on after ``ex``: one of :attr:`fatal_errors`."""
        return isinstance(ex, OSError) and ex.errno in self.fatal_errors

    # -- from start to stop -------------------------------------------------------------------------------

    def init_socket(self) -> None:
        """Have :attr:`socket` listen. Called by :meth:`start`; to be overridden, not to be called."""

    @property
    def started(self) -> bool:
        """True from start() to the end, whether it accepts at the moment or not."""
        return not self._stop_event.is_set()

    @property
    def closed(self) -> bool:
        """True if it has no socket."""
        return not hasattr(self, "socket")

    def start(self) -> None:
        """Listen, if an address was given, and begin to accept. Does nothing the second time.

        A server that was stopped may be started again if it was given an address; it listens at the same
        port. OSError if it can't be bound. Does not block; may be called in a coroutine.
        """
        if self.started:
            if self._loop is None or not self._loop.is_closed():
                return
            self.stop_accepting()  # that loop is gone: go on in this one
        if self._given and self.closed:
            raise OSError(
                errno.EBADF,
                f"{type(self).__name__}.start(): the socket that it was given was closed by stop(); "
                "pass an address, or make another server",
            )
        self.init_socket()
        if self._handle is None:  # taken off by close()
            self._handle = self._get_handle()
        self._stop_event.clear()
        try:
            self.start_accepting()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop accepting and close the listening socket. Handlers go on. Does not block."""
        self._stop_event.set()
        self.stop_accepting()
        self._handle = None  # mostly a method of ours: so that a server is freed by reference counting
        sock = self.__dict__.pop("socket", None)
        if sock is not None:
            self._close_listener(sock)

    def _close_listener(self, sock: Any) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            fd = sock.fileno()
            if fd >= 0:
                loop.closing_fd(fd)  # a socket of the standard library would not tell
        self._loop = None
        sock.close()

    def stop(self, timeout: float | Timeout | None = None) -> None:
        """Stop accepting, close the listening socket and wait for the handlers in the pool.

        :param timeout: seconds for the handlers; those that are left are killed then. None:
            :attr:`stop_timeout`.

        Handlers that run in no pool go on, and are not waited for. Blocks the greenlet if there are some in a
        pool: in a coroutine use ``await bridge.sync_to_async(server.stop)()``.
        """
        self.close()
        pool = self.pool
        if not pool:
            return
        if timeout is None:
            timeout = self.stop_timeout
        if isinstance(timeout, (int, float)):
            timeout = max(timeout, 0)
        pool.join(timeout=timeout)
        pool.kill(block=True, timeout=1)

    def serve_forever(self, stop_timeout: float | Timeout | None = None) -> None:
        """Start, unless it is started, and wait until it is stopped; then :meth:`stop`.

        :param stop_timeout: seconds for the handlers, as for :meth:`stop`.

        Being killed, or Ctrl-C, stops the server too. Blocks the greenlet.
        """
        if not self.started:
            self.start()
        try:
            self._stop_event.wait()
        finally:
            # in a greenlet: who is interrupted again here does not interrupt that
            Greenlet.spawn(self.stop, timeout=stop_timeout).join()

    # -- information --------------------------------------------------------------------------------------

    @property
    def loop(self) -> Any:
        """The loop of the hub of this thread."""
        return get_hub().loop

    @property
    def server_host(self) -> Any:
        """The host that the server is bound to; None for a Unix socket."""
        return self.address[0] if isinstance(self.address, tuple) else None

    @property
    def server_port(self) -> Any:
        """The port that the server is bound to; None for a Unix socket."""
        return self.address[1] if isinstance(self.address, tuple) else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {self._formatinfo()}>"

    def __str__(self) -> str:
        return f"<{type(self).__name__} {self._formatinfo()}>"

    def _where(self) -> str:
        address = self.__dict__.get("address")
        if isinstance(address, tuple) and len(address) == 2:
            return f"{address[0]}:{address[1]}"
        return str(address)

    def _formatinfo(self) -> str:
        parts = []
        if not self.closed:
            try:
                parts.append(f"fileno={self.socket.fileno()}")
            except Exception as e:
                parts.append(f"fileno={e!r}")
        parts.append(f"address={self._where()}")
        handle = self.__dict__.get("handle")  # not the method of a subclass, which says nothing new
        if handle is not None and self._handle is not None:
            if getattr(handle, "__self__", None) is self:
                # its repr would be ours again
                parts.append(f"handle=<bound method {type(self).__name__}.{handle.__name__} of self>")
            else:
                parts.append(f"handle={handle!r}")
        return " ".join(parts)


def _handle_and_close_when_done(
    handle: Callable[..., Any], close: Callable[..., object], args: tuple[Any, ...]
) -> Any:
    """What runs in the greenlet of a connection."""
    try:
        result = handle(*args)
        return await_(result) if type(result) is CoroutineType else result
    finally:
        close(*args)


_AF_INET = int(__socket__.AF_INET)
_AF_INET6 = int(getattr(__socket__, "AF_INET6", _AF_INET))
_AF_UNIX: int | None = getattr(__socket__, "AF_UNIX", None)
# Taken now: monkey patching replaces it.
_Socket = __socket__.socket


def _extract_family(host: str) -> tuple[int, str]:
    if host.startswith("[") and host.endswith("]"):
        return _AF_INET6, host[1:-1]
    return _AF_INET, host


def _parse_address(address: Any) -> tuple[int, Any]:
    if isinstance(address, tuple):
        if not address[0] or (isinstance(address[0], str) and ":" in address[0]):
            return _AF_INET6, address
        return _AF_INET, address
    if isinstance(address, str):
        if address.startswith("unix:"):
            if _AF_UNIX is None:
                raise ValueError("this platform has no Unix sockets")
            return int(_AF_UNIX), address[5:]
        if ":" not in address:
            return _AF_INET6, ("", int(address))
        host, port = address.rsplit(":", 1)
        family, host = _extract_family(host)
        return family, ("" if host == "*" else host, int(port))
    if isinstance(address, int):
        return _AF_INET6, ("", address)
    raise TypeError(
        f"Expected tuple or string, got {type(address)}: pass ('127.0.0.1', 80), '[::1]:80', ':80', a port "
        "number, 'unix:/path', 'fd://3' or a socket"
    )


def parse_address(address: Any) -> tuple[int, Any]:
    """The address family and the address that ``address``, as given to a server, means.

    TypeError or ValueError if it is none. Does not block.
    """
    try:
        return _parse_address(address)
    except ValueError as e:
        raise ValueError(f"Failed to parse address {address!r}: {e}") from e


def remove_stale(path: str) -> None:
    """Remove the file of a Unix socket that nobody listens at any more; nothing else. Does not block."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except (OSError, ValueError):
        return
    with _Socket(__socket__.AF_UNIX, __socket__.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # somebody is there, but busy; or it is of another type: bind() will tell
