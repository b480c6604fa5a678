"""How child processes are started and reaped: what is below :class:`bridge.subprocess.Popen`, but on Windows.

Theory of operation
===================

*Ours is the standard class.* It checks the arguments, makes the pipes and starts the child, by ``vfork`` or
``posix_spawn`` where it can: the thread stands still until the child has begun to run its program, as always.
What is replaced is what waits. The class is subclassed at these methods:

``_get_handles``
    keeps the parent's ends of the pipes to itself, so that the base class makes no blocking files of them;
``_execute_child``
    makes cooperative ones, gives the ends back to the base class for the time of the start, and begins to
    watch the child;
``_internal_poll``, ``_wait``
    take the exit status by way of :mod:`bridge._core.children`, so that everybody who wants it gets it.

*Who reaps.* Each child is watched from birth by the hub of the thread that made it: no zombie is left when
nobody waits. The status arrives in :func:`_on_end`, in whatever thread it was taken, and there the object
gets its ``returncode``; so a ``waitpid`` of the program, a poll in another thread and a wait here see it.
If that hub's loop does not run any more (another ``asyncio.run()`` has begun, another thread waits), a wait
watches the child from its own loop. Invariant: while ``_running`` has an entry for a child, nobody of ours
has taken its status.

*Born dead.* A child may end, and a signal handler may reap it, before the base class has told us its pid. So
while a start is under way the statuses of unknown children are kept, and looked at afterwards.
"""

from __future__ import annotations

import codecs
import os
import subprocess
from functools import partial
from typing import Any
from weakref import ref

from ._core.children import ChildWatch, collect, listeners, lock, natively, need_statuses
from .event import AsyncResult
from .fileobject import FileObject, FileObjectThread
from .hub import get_hub
from .os import _keep, _no_news, _watched_children

__all__ = ["PosixPopen"]

# Taken now: monkey patching replaces it.
_Popen = subprocess.Popen

#: Where `_execute_child` takes the parent's ends of the pipes.
_ENDS = [
    _Popen._execute_child.__code__.co_varnames.index(name) - 1  # type: ignore[attr-defined]
    for name in ("p2cwrite", "c2pread", "errread")
]


# -- who wants the status of which child ----------------------------------------------------------------


class _Record:
    """A running child. It outlives the Popen object, as callbacks may wait for the end of the child."""

    __slots__ = ("popen", "result")

    def __init__(self, popen: PosixPopen) -> None:
        self.popen = ref(popen)
        self.result = popen.result


_running: dict[int, _Record] = {}
#: How many children are being started, and statuses of unknown ones that ended meanwhile.
_starting = 0
_born_dead: dict[int, int] = {}


def _on_end(pid: int, status: int) -> None:
    """The status of a child has been taken from the kernel. In any thread, under the lock of children."""
    record = _running.pop(pid, None)
    if record is not None:
        _keep(pid, status)  # for a waitpid that comes later
        popen = record.popen()
        if popen is not None:
            popen._end(status)
        else:
            record.result.set(os.waitstatus_to_exitcode(status))
    elif _starting:
        _born_dead[pid] = status


def _on_stolen(pid: int) -> None:
    """Somebody has called the system's waitpid: nobody knows the status any more."""
    record = _running.pop(pid, None)
    if record is not None:
        popen = record.popen()
        if popen is not None:
            popen._end(None)
        else:
            record.result.set(0)


def _told(pid: int, status: int | None) -> None:
    """A watch was told; by then the listener has been called if the status is known."""
    if status is None:
        _on_stolen(pid)


listeners.append(_on_end)
if hasattr(os, "register_at_fork"):
    # the children of the parent are not the child's
    os.register_at_fork(after_in_child=_running.clear)


# -- the class ------------------------------------------------------------------------------------------


class PosixPopen(_Popen[Any]):
    """What Popen needs of the system: starting a child, and learning of its end."""

    #: The return code, when there is one.
    result: AsyncResult[int]
    #: The pool for pipes that are read in threads, None for the hub's.
    threadpool: Any
    _watch: ChildWatch | None
    #: the parent's ends of the pipes for stdin, stdout and stderr, -1 for what is none or is a file by now
    _ends: list[int]
    #: nobody has been given the return code
    _news: bool

    # of the base class
    text_mode: Any
    encoding: str | None
    errors: str | None

    def __init__(self, args: Any, bufsize: int, *rest: Any, threadpool: Any, **options: Any) -> None:
        self.result = AsyncResult()
        self.threadpool = threadpool
        self._watch = None
        self._news = True
        self._bufsize = -1 if bufsize is None else bufsize
        self._ends = [-1, -1, -1]
        try:
            super().__init__(args, bufsize, *rest, **options)
        except BaseException:
            # the base class closes the files that have been opened
            for fd in self._ends:
                if fd != -1:
                    os.close(fd)
            raise

    # -- starting

    def _get_handles(self, stdin: Any, stdout: Any, stderr: Any) -> Any:
        if stdout is subprocess.STDOUT:
            raise ValueError("STDOUT can only be used for stderr")  # before 3.13 it is a bad descriptor
        handles = super()._get_handles(stdin, stdout, stderr)  # type: ignore[misc]
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = handles
        self._ends = [p2cwrite, c2pread, errread]
        for given, fd in ((stdin, p2cread), (stdout, c2pwrite), (stderr, errwrite)):
            if given is not None and given not in (subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL):
                _let_block(fd)
        return p2cread, -1, -1, c2pwrite, -1, errwrite

    def _execute_child(self, *args: Any) -> None:
        global _starting
        handles = list(args)
        for index, fd in zip(_ENDS, self._ends, strict=True):
            handles[index] = fd
        self._open_pipes()
        need_statuses()
        _starting += 1
        before = natively.now  # true in a signal handler that has interrupted this
        natively.now = True
        try:
            super()._execute_child(*handles)  # type: ignore[misc]
        finally:
            natively.now = before
            _starting -= 1
            status = _born_dead.pop(self.pid, None)
            if not _starting:
                _born_dead.clear()
        if status is None:
            self._begin_to_watch()
        else:
            _keep(self.pid, status)
            self._end(status)

    def _open_pipes(self) -> None:
        if self.text_mode:
            # a file that fails at its own layers closes the descriptor; here it is still ours
            codecs.lookup(self.encoding or "")
            codecs.lookup_error(self.errors or "strict")
        for i, (name, mode) in enumerate((("stdin", "w"), ("stdout", "r"), ("stderr", "r"))):
            fd = self._ends[i]
            if fd != -1:
                self._ends[i] = -1
                setattr(self, name, self._open_pipe(fd, mode))

    def _open_pipe(self, fd: int, mode: str) -> Any:
        options: dict[str, Any] = {}
        if self.text_mode:
            options = {"encoding": self.encoding, "errors": self.errors}
        else:
            mode += "b"
        if self.threadpool is not None and FileObject is FileObjectThread:
            options["threadpool"] = self.threadpool
        return FileObject(fd, mode, self._bufsize, **options)

    def _begin_to_watch(self) -> None:
        pid = self.pid
        if isinstance(_watched_children.get(pid), tuple):
            _watched_children.pop(pid, None)  # of an older child of that number
        _running[pid] = _Record(self)
        try:
            self._watch = watch = ChildWatch(get_hub().loop, pid, partial(_told, pid), ref=True)
            watch.start()
        except OSError:
            self._watch = None  # no descriptor is left; who waits for the child will try again

    # -- the end

    def _end(self, status: int | None) -> None:
        """The child has ended; None: with a status that is lost. From any thread."""
        if self.returncode is None:
            if status is None:
                self.returncode = 0  # as in the standard library
            else:
                self._handle_exitstatus(status)  # type: ignore[attr-defined]
            self.result.set(self.returncode)

    def _give(self) -> int | None:
        """The return code, as the program gets to know it."""
        if self._news and self.returncode is not None:
            self._news = False
            _no_news(self.pid)
        return self.returncode

    def _internal_poll(self, _deadstate: int | None = None, *_: Any) -> int | None:
        if self.returncode is None:
            try:
                status = collect(self.pid)
            except ChildProcessError:
                # if it was taken by us, we were told before we could get here
                if self.returncode is None and _deadstate is not None:
                    self.returncode = _deadstate
                self._end(None)
            else:
                if status is not None:
                    self._end(status)  # nobody tells an object that is about to be freed
        return self._give()

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._internal_poll() is None:
            loop = get_hub().loop
            watch = self._watch
            own = None
            if watch is None or not watch.started or watch.loop is not loop:
                own = ChildWatch(loop, self.pid, partial(_told, self.pid), ref=True)
                own.start()
            try:
                self.result.wait(timeout)
            finally:
                if own is not None:
                    own.stop()
            if self.returncode is None:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
        return self._give()

    def send_signal(self, sig: int) -> None:
        """Send a signal to the child; nothing if it has ended. Does not block."""
        with lock:  # while we hold it nobody reaps the child, and so its number is its own
            super().send_signal(sig)


def _let_block(fd: int) -> None:
    """A file that the child is to use must not be in non-blocking mode, which no program expects."""
    try:
        if not os.get_blocking(fd):
            os.set_blocking(fd, True)
    except OSError:
        pass  # no such fd: the child will say so
