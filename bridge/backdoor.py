"""A Python console in a running program, over the network; twin of :mod:`gevent.backdoor`.

Each connection has a greenlet of its own, in which ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` are the
connection. gevent replaces these three whenever such a greenlet is switched to. Here greenlets hand over to
each other without anybody noticing, so that as long as somebody is connected, the three are objects which ask
at each use which greenlet runs; for all others they are what was there before.
"""

from __future__ import annotations

import code
import io
import socket as __socket__
import sys
from collections.abc import Callable, Iterator
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from .pool import Pool
from .server import StreamServer

__all__ = ["BackdoorServer"]


class BackdoorServer(StreamServer):
    """Lets whoever connects (``telnet 127.0.0.1 5001``) type Python statements, which this program runs.

    :param listener: where to listen, see :class:`bridge.baseserver.BaseServer`. There is no authentication:
        who can connect can do whatever this program can. Listen at ``127.0.0.1``, or at a Unix socket in a
        private folder.
    :param locals: names that everybody has at the beginning, a dictionary.
    :param banner: what to print in the beginning; by default the version of Python.
    :param server_args: arguments for :class:`bridge.server.StreamServer`.

    Each connection has variables of its own. It ends by ``quit()``, or when the server is stopped.
    """

    def __init__(
        self,
        listener: Any,
        locals: dict[str, Any] | None = None,
        banner: str | None = None,
        **server_args: Any,
    ) -> None:
        server_args.setdefault("spawn", Pool())
        super().__init__(listener, **server_args)
        #: The names that each connection begins with.
        self.locals: dict[str, Any] = {"__doc__": None, "__name__": "__console__", **(locals or {})}
        self.banner = banner

    def _create_interactive_locals(self) -> dict[str, Any]:
        import builtins

        return {"__builtins__": builtins, "builtins": builtins, **self.locals}

    def handle(self, conn: Any, _address: Any) -> None:
        """Serve one connection. Blocks the greenlet until it ends."""
        if conn.family != getattr(__socket__, "AF_UNIX", None):
            # what a print() writes goes out bit by bit, and should not wait for the other end to confirm it
            conn.setsockopt(__socket__.IPPROTO_TCP, __socket__.TCP_NODELAY, 1)
        output = _Output(conn)
        with conn.makefile("r", encoding="utf-8", errors="replace") as lines:
            _open(_Input(lines, conn), output, output)
            try:
                InteractiveConsole(self._create_interactive_locals()).interact(banner=self.banner, exitmsg="")
            except SystemExit:
                pass  # quit()
            except ConnectionError:
                pass  # ours: errors in what is run never get here
            finally:
                _close()


class InteractiveConsole(code.InteractiveConsole):
    """The standard library's, which can be ended from outside."""

    def raw_input(self, prompt: str = "") -> str:
        _make_sure()
        return super().raw_input(prompt)

    def runcode(self, code: Any) -> None:
        _make_sure()
        try:
            exec(code, self.locals)
        except (SystemExit, GreenletExit):
            raise  # the latter is swallowed by the standard library's
        except BaseException:
            self.showtraceback()


# -- streams --------------------------------------------------------------------------------------------


class _Stream(io.TextIOBase):
    """One direction of a connection, which ends with its handler and not with this."""

    how = "strict"

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return self.how

    def fileno(self) -> int:
        return int(self.conn.fileno())

    def close(self) -> None:
        """Nothing; called by quit()."""


class _Output(_Stream):
    """``sys.stdout`` and ``sys.stderr`` of a connection."""

    how = "backslashreplace"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.conn.sendall(text.encode(self.encoding, self.how))
        return len(text)


class _Input(_Stream):
    """``sys.stdin`` of a connection."""

    how = "replace"

    def __init__(self, lines: Any, conn: Any) -> None:
        super().__init__(conn)
        self.lines = lines

    def readable(self) -> bool:
        return True

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        return str(self.lines.readline(size))

    def read(self, size: int | None = -1) -> str:
        return str(self.lines.read(size))


class _Nowhere(io.TextIOBase):
    """For programs whose ``sys.stdout`` is None: to print there is no error."""

    def write(self, text: str) -> int:
        return len(text)


class _Shared:
    """In place of ``sys.stdin``, ``sys.stdout`` or ``sys.stderr``: each greenlet's own, or the one before."""

    def __init__(self, name: str) -> None:
        self.__dict__.update(_name=name, _own={}, _before=None)

    def _stream(self) -> Any:
        state = self.__dict__
        return state["_own"].get(getcurrent()) or state["_before"] or _Nowhere()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._stream(), name, value)

    def __repr__(self) -> str:
        return repr(self._stream())

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream())

    def __next__(self) -> str:
        return str(next(self._stream()))

    def __enter__(self) -> Any:
        return self._stream().__enter__()

    def __exit__(self, *exc: object) -> Any:
        return self._stream().__exit__(*exc)


_shared = (_Shared("stdin"), _Shared("stdout"), _Shared("stderr"))


def _each(function: Callable[[dict[str, Any], _Shared], None]) -> None:
    for shared in _shared:
        function(shared.__dict__, shared)


def _open(*streams: Any) -> None:
    """From now on the three are ``streams`` in the current greenlet."""
    current: greenlet = getcurrent()
    for shared, stream in zip(_shared, streams, strict=True):
        shared.__dict__["_own"][current] = stream
    _make_sure()


def _make_sure() -> None:
    """Put ours in place; somebody may have replaced them since."""

    def put(state: dict[str, Any], shared: _Shared) -> None:
        present = getattr(sys, state["_name"])
        if present is not shared:
            state["_before"] = present
            setattr(sys, state["_name"], shared)

    _each(put)


def _close() -> None:
    """The connection of the current greenlet has ended; after the last one all is as it was."""
    current: greenlet = getcurrent()

    def take(state: dict[str, Any], shared: _Shared) -> None:
        del state["_own"][current]
        if not state["_own"] and getattr(sys, state["_name"]) is shared:
            # who has kept ours, as a logging handler may have, still gets to what was there before
            setattr(sys, state["_name"], state["_before"])

    _each(take)
