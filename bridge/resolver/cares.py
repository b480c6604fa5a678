"""c-ares on a loop: DNS look-ups without threads, by `pycares <https://github.com/saghul/pycares>`_.

Theory of operation
===================

c-ares does everything but wait. It says which of its sockets it wants to read and write (`channel._want`),
and when it has to be called at the latest. So there is one watcher for each socket, and one timer. Both call
into c-ares from the hub; answers come out of these calls, and may not switch there, as C code of c-ares is on
the stack: they wake who waits for them, nothing more.

*Fork.* The sockets are shared with a forked child. A channel belongs to one process: the child only stops
watching them, and makes a new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

try:
    import pycares
except ImportError as e:
    raise ImportError("The ares resolver needs the library pycares: pip install 'gevent-bridge[ares]'") from e

from .._workers import start_new_thread

__all__ = ["channel", "pycares"]

_NO_SOCKET = pycares.ARES_SOCKET_BAD


class channel:
    """A channel of c-ares that lives on a loop.

    :param loop: the loop, ``get_hub().loop``.
    :param options: those of ``pycares.Channel``, for instance ``servers``, ``timeout`` (seconds), ``tries``,
        ``ndots``, ``udp_port``, ``tcp_port``, ``flags``.

    In the loop's thread. Functions take a callback, which is called in the hub with result and error number
    of c-ares; it must not switch. They don't block.
    """

    def __init__(self, loop: Any, **options: Any) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self._watchers: dict[int, Any] = {}
        self._timer: Any = None
        self._asked = 0
        if "servers" in options:
            options["servers"] = _as_list(options["servers"])
        self._channel: Any = None
        self._channel = pycares.Channel(sock_state_cb=self._want, **options)

    # -- waiting

    def _want(self, fd: int, readable: bool, writable: bool) -> None:
        """c-ares wants to know when one of its sockets is ready; neither: it is about to close it."""
        if self._channel is None:
            return  # destroyed: this is the thread of pycares
        watcher = self._watchers.pop(fd, None)
        if watcher is not None:
            watcher.close()
        if readable or writable:
            watcher = self._watchers[fd] = self.loop.io(fd, (1 if readable else 0) | (2 if writable else 0))
            watcher.start(self._ready, fd, pass_events=True)
        else:
            self.loop.closing_fd(fd)

    def usable(self) -> bool:
        """False after :meth:`destroy`, in a forked child, and when its loop has ended."""
        return self._channel is not None and self.pid == os.getpid() and not self.loop.is_closed()

    def _ready(self, events: int, fd: int) -> None:
        if self.pid != os.getpid():
            self.destroy()
        elif self._channel is not None:
            self._channel.process_fd(fd if events & 1 else _NO_SOCKET, fd if events & 2 else _NO_SOCKET)
            self._set_timer()

    def _late(self) -> None:
        self._timer = None
        if self.pid != os.getpid():
            self.destroy()
        elif self._channel is not None:
            self._channel.process_fd(_NO_SOCKET, _NO_SOCKET)
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if self._asked:
            seconds = self._channel.timeout()
            self._timer = self.loop.timer(max(seconds, 0.001) if seconds is not None else 1.0)
            self._timer.start(self._late)

    # -- asking

    def _ask(self, function: Callable[..., Any], callback: Callable[[Any, int | None], object]) -> None:
        if self._channel is None:
            raise pycares.AresError(pycares.errno.ARES_EDESTRUCTION, "this ares channel has been destroyed")

        def answered(result: Any, error: int | None) -> None:
            self._asked -= 1
            callback(result, error)

        self._asked += 1
        try:
            function(callback=answered)
        except BaseException:
            self._asked -= 1
            raise
        self._set_timer()

    def getaddrinfo(
        self,
        callback: Callable[[Any, int | None], object],
        name: str,
        service: int | None = None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> None:
        """Look up the addresses of a name: a ``pycares.AddrInfoResult``."""
        options: Any = {"family": family, "type": type, "proto": proto, "flags": flags}
        self._ask(lambda **call: self._channel.getaddrinfo(name, service, **options, **call), callback)

    def query(self, callback: Callable[[Any, int | None], object], name: str, kind: int) -> None:
        """Look up records of a kind, for instance ``pycares.QUERY_TYPE_PTR``: a ``pycares.DNSResult``."""
        self._ask(lambda **call: self._channel.query(name, kind, **call), callback)

    def gethostbyaddr(self, callback: Callable[[Any, int | None], object], addr: str) -> None:
        """Look up the names of an address: a ``pycares.HostResult``."""
        self._ask(lambda **call: self._channel.gethostbyaddr(addr, **call), callback)

    def getnameinfo(self, callback: Callable[[Any, int | None], object], sockaddr: Any, flags: int) -> None:
        """Look up the names of a socket address: a ``pycares.NameInfoResult``."""
        self._ask(lambda **call: self._channel.getnameinfo(sockaddr, flags, **call), callback)

    def set_servers(self, servers: Any = None) -> None:
        """Ask these servers from now on; without an argument those of the system."""
        if servers is None:
            self._channel.reinit()
        else:
            self._channel.servers = _as_list(servers)

    def destroy(self) -> None:
        """Close it; who waits for an answer gets an error. May be repeated; in the loop's thread."""
        gone, self._channel = self._channel, None
        if gone is None:
            return
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        watchers, self._watchers = self._watchers, {}
        if not self.loop.destroyed and self.loop.pid == os.getpid():
            for fd, watcher in watchers.items():
                watcher.close()
                self.loop.closing_fd(fd)  # before a thread of pycares closes it
        gone.close()


def _as_list(servers: Any) -> list[str]:
    if isinstance(servers, str):
        return [each.strip() for each in servers.split(",") if each.strip()]
    return list(servers)


class _OneByOne:
    """In place of the queue in which pycares keeps the channels that its thread is to free.

    That thread waits for ever, in C. Where monkey patching has made greenlets of threads it would block
    everything; and as long as there is a thread, a hub cannot tell that nothing will wake it any more. So
    each channel is freed in a thread of its own.
    """

    def __init__(self, manager: Any) -> None:
        self._work = type(manager)._run_safe_shutdown_loop

    def put(self, item: Any) -> None:
        """Free a channel. From any thread."""
        try:
            start_new_thread(self._work, (_Once(item),))
        except RuntimeError:
            pass  # the process is at its end, and everything goes with it


class _Once:
    """A queue, and who has it, for one item."""

    def __init__(self, item: Any) -> None:
        self._queue = self
        self._items = [item]

    def get(self) -> Any:
        """The item; SystemExit, which ends the thread, if there is none."""
        if not self._items:
            raise SystemExit
        return self._items.pop()


def _without_a_thread_for_ever() -> None:
    manager = getattr(pycares, "_shutdown_manager", None)
    if manager is not None and manager._thread is None:
        manager._thread = manager._queue = _OneByOne(manager)


_without_a_thread_for_ever()
