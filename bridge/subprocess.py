"""Child processes; twin of :mod:`gevent.subprocess`, and of :mod:`subprocess`.

Everything of the standard module is here. Waiting for a child, and reading and writing its pipes, block only
the greenlet. How a child is started and reaped: see :mod:`bridge._popen`.

*Communicating.* The readers read the fd itself, in pieces, and keep them: whatever interrupts
:meth:`Popen.communicate` loses nothing, and the next call goes on where the last one stopped. If the program
has read from the file before, some of the output may be in the file's buffers; then the file reads the rest.
"""

from __future__ import annotations

import errno as _errno
import os as _os
import subprocess as __subprocess__
from collections.abc import Callable
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any

from . import fileobject as _fileobject
from ._core.clock import monotonic
from ._core.poller import READ as _READ
from ._core.poller import WRITE as _WRITE
from ._core.seconds import checked_seconds as _checked_seconds
from ._core.waiting import Wait as _Wait
from ._fdwait import wait_fd as _wait_fd
from ._mirror import mirror
from .event import Event as _Event
from .fileobject import FileObject as FileObject
from .greenlet import Greenlet as _Greenlet
from .greenlet import killall as _killall
from .hub import get_hub
from .timeout import Timeout as _Timeout
from .timeout import counting as _counting

if TYPE_CHECKING:
    from subprocess import call as call
    from subprocess import check_call as check_call
    from subprocess import check_output as check_output
    from subprocess import getoutput as getoutput
    from subprocess import getstatusoutput as getstatusoutput
    from subprocess import run as run

    from ._popen import PosixPopen as _BasePopen

    def __getattr__(name: str) -> Any: ...

elif __subprocess__._mswindows:
    from ._winpopen import WindowsPopen as _BasePopen
else:
    from ._popen import PosixPopen as _BasePopen


__implements__ = ["Popen", "call", "check_call", "check_output", "run", "getoutput", "getstatusoutput"]
mirror(__subprocess__, globals(), *__implements__)  # also names that are not public: libraries use them
__imports__ = [name for name in __subprocess__.__all__ if name not in __implements__]
__all__ = list(__implements__) + __imports__  # noqa: PLE0605

_Popen = __subprocess__.Popen
_TimeoutExpired = __subprocess__.TimeoutExpired
# Taken now: monkey patching replaces them.
_read = _os.read
_write = _os.write

#: The class whose files are non-blocking; none on Windows.
_Nonblocking: Any = getattr(_fileobject, "FileObjectPosix", ())
#: Bytes to read at once: what a pipe holds.
_PIECE = 65536
#: Methods that leave something in the buffers of a file.
_READING = frozenset({"peek", "read", "read1", "readinto", "readinto1", "readline", "readlines"})


class _Reader(_Greenlet[None]):
    """Reads a pipe to its end, and keeps what it has read. Several greenlets may wait for it."""

    def __init__(self, file: Any, text: bool, before: _Reader | None = None) -> None:
        super().__init__()
        self.file = file
        self.text = text
        self.encoding = self.errors = ""
        self.pieces: list[bytes] = [] if before is None else before.pieces
        self.whole: Any = None
        self.failure: BaseException | None = None
        self.complete = False
        self.over = _Event()

    def is_lost(self) -> bool:
        """True if the loop in which it read was closed before the end."""
        return not self.over.is_set() and self.loop.is_closed()

    def _run(self) -> None:
        try:
            file = self.file
            if file.closed is True:
                pass  # the program does not want it
            elif isinstance(file, _Nonblocking) and _READING.isdisjoint(vars(file)):
                if self.text:
                    self.encoding, self.errors = file.encoding, file.errors
                self._read_pieces(file.fileno())
                file.close()
            else:
                self.whole = file.read()
            self.complete = True
        except Exception as e:
            self.failure = e
        finally:
            self.over.set()

    def _read_pieces(self, fd: int) -> None:
        while True:
            try:
                piece = _read(fd, _PIECE)
            except BlockingIOError:
                _wait_fd(fd, _READ)
            else:
                if not piece:
                    return
                self.pieces.append(piece)

    def output(self, popen: Popen) -> Any:
        """All that has been read; raises what has ended the reading before the end of the file."""
        if self.failure is not None:
            raise self.failure
        if not self.complete:
            raise OSError(_errno.EBADF, "communicate(): the pipes were closed by leaving the with statement")
        if self.whole is not None:
            return self.whole
        data = b"".join(self.pieces)
        if not self.text:
            return data
        return popen._translate_newlines(data, self.encoding, self.errors)  # type: ignore[attr-defined]


class _OutOfTime(Exception):
    """The time limit of a communicate() is over."""


class Popen(_BasePopen):
    """``subprocess.Popen`` whose methods block only the greenlet; with its arguments, and one more.

    :param threadpool: the pool for pipes that are read in threads (the setting ``fileobject``, and Windows);
        by default the hub's.

    Starting a child blocks the thread until the child runs its program; that is longest with ``preexec_fn``.
    May be used from any thread, greenlet and coroutine; what waits needs a portal in a coroutine. The pipes
    are those of :class:`bridge.fileobject.FileObject`.

    ``result`` is the return code as an :class:`bridge.event.AsyncResult`. If SIGCHLD is ignored, the first
    child sets it back to its default, as statuses would be lost.
    """

    __module__ = f"{__package__}.subprocess"

    #: who reads stdout and stderr for communicate(); None before the first call
    _readers: list[_Reader | None] | None

    # of the standard class
    _input: Any
    _input_offset: int
    _communication_started: bool
    _sigint_wait_secs: float

    def __init__(
        self, args: Any, bufsize: int = -1, *rest: Any, threadpool: Any = None, **options: Any
    ) -> None:
        self._readers = None
        self._output: tuple[Any, Any] | None = None
        super().__init__(args, bufsize, *rest, threadpool=threadpool, **options)

    if not TYPE_CHECKING:
        __init__.__wrapped__ = _Popen.__init__  # for inspect and help()

    def wait(self, timeout: Any = None) -> int:
        """Wait until the child has ended; return its return code.

        :param timeout: seconds, or a Timeout.

        TimeoutExpired when the time is over. Blocks the greenlet.
        """
        if isinstance(timeout, _Timeout):
            try:
                with _counting(timeout):
                    return super().wait()
            except _Timeout as e:
                if e is not timeout:
                    raise
                raise _TimeoutExpired(self.args, timeout) from None  # type: ignore[arg-type]
        return super().wait(None if timeout is None else _checked_seconds(timeout))

    def rawlink(self, callback: Callable[[Popen], object]) -> None:
        """Have ``callback(self)`` called once in the hub when the child has ended; it must not block."""
        self.result.rawlink(_Link(callback, self))

    def unlink(self, callback: Callable[[Popen], object]) -> None:
        """Take back :meth:`rawlink`; nothing if there is no such callback."""
        self.result.unlink(callback)

    # -- communicating

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Send ``input``, read the pipes to their ends, and wait until the child has ended.

        :param timeout: seconds.

        Returns what was read from ``stdout`` and ``stderr``, None for what is no pipe; the same again if it
        is called again. Raises TimeoutExpired, with what has been read so far: nothing is lost, and calling
        again goes on. ValueError for input after the first call. Blocks the greenlet.
        """
        if input and self._communication_started:
            raise ValueError("Cannot send input after starting communication")
        if input is not None and self.text_mode and not isinstance(input, str):
            raise TypeError(f"communicate({input!r:.40}): a str is needed, as the pipes are open for text")
        if self._output is not None:
            return self._output
        deadline = None if timeout is None else monotonic() + _checked_seconds(timeout)
        try:
            output = self._communicate(input, deadline, timeout)
        except KeyboardInterrupt:
            # as in the standard library: the child has got it too, and shall have time to end
            seconds, self._sigint_wait_secs = self._sigint_wait_secs, 0
            try:
                self._wait(seconds if deadline is None else min(seconds, deadline - monotonic()))
            except _TimeoutExpired:
                pass
            raise
        finally:
            self._communication_started = True
        self._output = output
        return output

    def _communicate(self, input: Any, endtime: float | None, orig_timeout: float | None) -> tuple[Any, Any]:
        if self.stdin is not None or self.stdout is not None or self.stderr is not None:
            _Wait().give_up()  # refuses where nothing may block, before something has happened
        readers = self._read_pipes()
        try:
            self._send_input(input, endtime)
            for reader in readers:
                if reader is not None and not reader.over.wait(_left(endtime)):
                    raise _OutOfTime
            self.wait(_left(endtime))
        except (_OutOfTime, _TimeoutExpired):
            assert orig_timeout is not None
            so_far = [None if reader is None else b"".join(reader.pieces) or None for reader in readers]
            raise _TimeoutExpired(self.args, orig_timeout, *so_far) from None
        out, err = [None if reader is None else reader.output(self) for reader in readers]
        for reader in readers:
            if reader is not None:
                reader.file.close()
        return out, err

    def _read_pipes(self) -> list[_Reader | None]:
        """Have the pipes read; returns who reads stdout and stderr."""
        readers = self._readers
        if readers is None:
            text = bool(self.text_mode)
            files = (self.stdout, self.stderr)
            readers = self._readers = [None if file is None else _Reader(file, text) for file in files]
            fresh = readers
        else:
            fresh = []
            for i, reader in enumerate(readers):
                if reader is not None and reader.is_lost():
                    readers[i] = reader = _Reader(reader.file, reader.text, reader)
                    fresh.append(reader)
        for reader in fresh:
            if reader is not None:
                reader.start()
        return readers

    @property
    def _communicating_greenlets(self) -> list[_Reader] | None:
        return None if self._readers is None else [r for r in self._readers if r is not None]

    def _send_input(self, input: Any, deadline: float | None) -> None:
        stdin: Any = self.stdin
        if stdin is None:
            return
        if stdin.closed is True:
            if input and not self._communication_started:
                stdin.write(input)  # which says what is wrong
            return
        if not self._communication_started:
            self._save_input(input)  # type: ignore[attr-defined]
        try:
            stdin.flush()  # what the program has written before; may block, and be interrupted
        except BrokenPipeError:
            pass  # of no interest here
        if self._input and not isinstance(stdin, _Nonblocking):
            self._stdin_write(input)  # type: ignore[attr-defined]  # closes it, too
            return
        if self._input:
            fd = stdin.fileno()
            with memoryview(self._input) as view, view.cast("B") as octets:
                while self._input_offset < len(octets):
                    with octets[self._input_offset :] as rest:
                        try:
                            self._input_offset += _write(fd, rest)
                            continue
                        except BrokenPipeError:
                            break
                        except BlockingIOError:
                            pass
                    _wait_fd(fd, _WRITE, _left(deadline), _OutOfTime)
        try:
            stdin.close()
        except BrokenPipeError:
            pass

    def __exit__(
        self, exc_type: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        # those who read for an abandoned communicate() are in the midst of the files that are to be closed
        readers = [r for r in self._communicating_greenlets or () if not r.over.is_set() and not r.is_lost()]
        if readers:
            _killall(readers, block=get_hub().loop.probe() is None)
            for reader in readers:
                reader.over.set()  # those that had not begun don't do it
        super().__exit__(exc_type, value, tb)


class _Link:
    """A callback for the end of a child, which gets the child."""

    __slots__ = ("callback", "popen")

    def __init__(self, callback: Callable[[Popen], object], popen: Popen) -> None:
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        self.callback = callback
        self.popen = popen

    def __call__(self, _result: object) -> None:
        self.callback(self.popen)

    def __eq__(self, other: object) -> bool:
        return bool(self.callback == other)

    __hash__ = None  # type: ignore[assignment]


def _left(deadline: float | None) -> float | None:
    """The seconds up to a deadline."""
    return None if deadline is None else deadline - monotonic()


# -- the functions --------------------------------------------------------------------------------------


def _with_our_popen(function: Any) -> Any:
    """A function of the standard library that finds the names of this module, where it looks for Popen."""
    ours = FunctionType(
        function.__code__, globals(), function.__name__, function.__defaults__, function.__closure__
    )
    ours.__kwdefaults__ = function.__kwdefaults__
    ours.__doc__ = function.__doc__
    ours.__module__ = __name__
    return ours


if not TYPE_CHECKING:
    call = _with_our_popen(__subprocess__.call)
    check_call = _with_our_popen(__subprocess__.check_call)
    check_output = _with_our_popen(__subprocess__.check_output)
    run = _with_our_popen(__subprocess__.run)
    getoutput = _with_our_popen(__subprocess__.getoutput)
    getstatusoutput = _with_our_popen(__subprocess__.getstatusoutput)
