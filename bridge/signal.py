"""Signal handlers; twin of :mod:`gevent.signal`, and of :mod:`signal`.

Nothing of ours needs SIGCHLD (children are watched by descriptors), so it belongs to the program:

- :func:`signal` runs a handler of SIGCHLD in a greenlet of its own, so that it may block. It is called for
  every child, however that was made; as everywhere, several that end at once may be reported together.
- :func:`getsignal` does not show the handlers that stand for ``loop.signal`` and ``signal_handler``.
- :func:`set_wakeup_fd` works beside a loop that has taken the wake-up descriptor of the process for itself.
"""

from __future__ import annotations

import os as _os
import signal as __signal__
import sys as _sys
from asyncio import _get_running_loop as _running_loop
from typing import TYPE_CHECKING, Any

from ._core.current import MAIN_THREAD_IDENT
from ._core.loop import loop as _Loop
from ._core.oswatchers import signals as _signals
from ._core.poller import READ, Interest
from ._mirror import mirror
from .greenlet import Greenlet
from .hub import _get_hub, get_hub

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


__implements__ = ["signal", "getsignal", "set_wakeup_fd"]
__extensions__: list[str] = []
__all__ = ["getsignal", "set_wakeup_fd", "signal"]

_signal_signal = __signal__.signal
_signal_getsignal = __signal__.getsignal
_signal_set_wakeup_fd = __signal__.set_wakeup_fd

_SIGCHLD = getattr(__signal__, "SIGCHLD", None)

#: The program's handler of SIGCHLD, while _on_sigchld stands for it.
_child_handler: Any = None


def getsignal(signalnum: int) -> Any:
    """The program's handler of a signal: a callable, SIG_IGN, SIG_DFL, or None for one not set from Python.

    As ``signal.getsignal``, but what :func:`signal` has set for SIGCHLD is what comes back, and watchers are
    not shown. ValueError for what is no signal. Does not block.
    """
    handler = _signals.get_beneath(signalnum)
    return _child_handler if handler is _on_sigchld else handler


def signal(signalnum: int, handler: Any) -> Any:
    """Set the handler of a signal; return the one before, as :func:`getsignal`.

    As ``signal.signal``, but a handler of SIGCHLD is called in a new greenlet, with None for the frame, when
    the hub runs; directly where there is no hub any more. If SIGCHLD is ignored, the statuses of children
    are lost, until the next child is watched: that ends the ignoring. TypeError and ValueError as there; only
    in the main thread. Does not block.
    """
    global _child_handler
    if _SIGCHLD is None or signalnum != _SIGCHLD:
        return _signal_signal(signalnum, handler)
    if handler is None or not (callable(handler) or isinstance(handler, int)):
        raise TypeError("signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object")
    old = getsignal(signalnum)
    if callable(handler):
        get_hub()  # for the greenlet that will run it
    # an integer that is neither of the two is left for the real function to refuse
    _signals.set_beneath(signalnum, _on_sigchld if callable(handler) else handler)
    _child_handler = handler
    return old


def _on_sigchld(signum: int, frame: Any) -> None:
    # Not get_hub(): we may have interrupted just that.
    hub = _get_hub()
    if hub is None or hub.loop is None or hub.loop.is_closed():
        _child_handler(signum, frame)  # there are no greenlets, or none any more
    else:
        hub.loop.wake_from_signal(_spawn_handler)


def _spawn_handler() -> None:
    if callable(_child_handler):
        Greenlet.spawn(_child_handler, _SIGCHLD, None)


# -- the wake-up descriptor -----------------------------------------------------------------------------


class _Wakeup:
    """The program's wake-up descriptor.

    The process has one. While uvloop runs it owns that one, as it would not notice signals otherwise;
    asyncio's loop does for its ``add_signal_handler``. Then ours goes in, the writing end of a pipe, and
    what comes out of the pipe is passed on to both, the loop and the program.
    """

    def __init__(self) -> None:
        #: the program's descriptor
        self.fd = -1
        self.warn = True
        self._hooked = False
        self._pipe: tuple[int, int] | None = None
        #: the loop's descriptor, while it is behind ours
        self._behind = -1
        self._loop: _Loop | None = None
        self._interest: Interest | None = None

    def set(self, fd: int, warn: bool) -> int:
        real = _signal_set_wakeup_fd(fd, warn_on_full_buffer=warn)
        old = self.fd
        if self._pipe is not None and real == self._pipe[1]:
            real = self._behind
        elif self.fd == -1 and real != -1 and not _main_loop_runs():
            old = real  # the program has set it by the real function
        if self._interest is not None:
            self._pass_on(0)  # what came before is for the old one
        self.fd, self.warn = fd, warn
        if real in (-1, old):
            self._withdraw()
        else:
            self._put_before(real)
        if not self._hooked:
            self._hooked = True
            _Loop.run_hooks.append(self._on_run)
            if hasattr(_os, "register_at_fork"):
                _os.register_at_fork(after_in_child=self._after_fork)
        return old

    def _put_before(self, real: int) -> None:
        """The loop owns the descriptor of the process: get in front of it, or out of the way."""
        if self.fd == -1:
            self._withdraw()
            _signal_set_wakeup_fd(real, warn_on_full_buffer=False)
            return
        reading, writing = self._ends()
        _signal_set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._behind = real
        if self._interest is None:
            self._loop = get_hub().loop
            self._interest = Interest(reading, READ, self._pass_on, ref=False)
            self._loop.get_poller().add(self._interest)

    def _ends(self) -> tuple[int, int]:
        if self._pipe is None:
            self._pipe = _os.pipe()
            for end in self._pipe:
                _os.set_blocking(end, False)
        return self._pipe

    def _withdraw(self) -> None:
        self._behind = -1  # it may be closed already
        if self._interest is not None and self._loop is not None:
            if not self._loop.destroyed:
                self._loop.get_poller().remove(self._interest)
            self._interest = self._loop = None
            self._pass_on(0)

    def _pass_on(self, _events: int) -> None:
        try:
            signals = _os.read(self._ends()[0], 4096)
        except BlockingIOError:
            return
        for fd, warn in ((self._behind, False), (self.fd, self.warn)):
            if fd != -1:
                try:
                    _os.write(fd, signals)
                except OSError as e:
                    if (warn or not isinstance(e, BlockingIOError)) and _sys.stderr is not None:
                        print(f"Could not write to the signal wakeup fd {fd}: {e}", file=_sys.stderr)

    def _on_run(self, loop: _Loop, phase: str) -> None:
        """An owned loop is about to run, is running, has run."""
        if self.fd == -1 or loop.thread_ident != MAIN_THREAD_IDENT:
            return
        if phase == "before":
            # uvloop will put back, some day, what it finds now; the program's may be closed by then
            _signal_set_wakeup_fd(self._ends()[1], warn_on_full_buffer=False)
            return
        if phase == "after":
            self._withdraw()
        real = _signal_set_wakeup_fd(self.fd, warn_on_full_buffer=self.warn)
        if phase == "running" and real != self._ends()[1]:
            self._put_before(real)

    def _after_fork(self) -> None:
        """The pipe is the parent's."""
        if self._pipe is not None:
            reading, writing = self._pipe
            self._pipe = None
            _os.close(writing)
            self._withdraw()
            _os.close(reading)
            if _get_hub() is not None and self.fd != -1:
                _signal_set_wakeup_fd(self.fd, warn_on_full_buffer=self.warn)


def _main_loop_runs() -> bool:
    hub = _get_hub()
    if hub is not None and hub.loop is not None and hub.loop.has_aio and hub.loop.aio.is_running():
        return True
    return _running_loop() is not None


_wakeup = _Wakeup()


def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int:
    """Have each signal's number written to *fd*, as a byte, when it arrives; return the fd before, or -1.

    As ``signal.set_wakeup_fd``, but the loop is still woken by signals, too. *fd* must be in non-blocking
    mode (ValueError); -1 ends it. Only in the main thread. Does not block.
    """
    return _wakeup.set(fd, warn_on_full_buffer)


__imports__ = mirror(__signal__, globals(), *__implements__)
