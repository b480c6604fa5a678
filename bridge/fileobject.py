"""Files that block only the greenlet; twin of :mod:`gevent.fileobject`.

Three classes with the same parameters, those of ``io.open``, and with the methods of the file that
``io.open`` would return:

- :class:`FileObjectPosix` puts the file into non-blocking mode and waits for it with the loop. For pipes,
  terminals and sockets; it takes regular files, too, whose reads and writes are short, but do block. There
  is none on Windows.
- :class:`FileObjectThread` has a native thread call each method. For regular files, and for what is no
  file of the system.
- :class:`FileObjectBlock` blocks the whole thread.

`FileObject` is the one that ``bridge.config.fileobject`` names (in the environment: ``BRIDGE_FILE`` or
``GEVENT_FILE``: ``posix``, ``thread``, ``block`` or the full name of a class) when this module is imported.

One greenlet at a time may use a buffered FileObjectPosix; a second one gets RuntimeError.
"""

from __future__ import annotations

import io as _io
import os
import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import IO, Any, TypeVar

from ._config import config
from ._core.current import get_hub_if_exists
from ._core.errors import BlockingSwitchOutError
from ._rawfile import (
    BorrowingText,
    CooperativeFileIO,
    FileObjectClosed,
    Mode,
    open_cooperative,
    open_standard,
)
from .hub import get_hub
from .lock import DummySemaphore, Semaphore

__all__ = ["FileObject", "FileObjectBlock", "FileObjectThread"]

_S = TypeVar("_S", bound="FileObjectBase")

#: Methods of the file within that are kept in the object once they were asked for.
_METHODS = frozenset({
    "fileno", "flush", "isatty", "peek", "read", "read1", "readable", "readall", "readinto", "readinto1",
    "readline", "readlines", "seek", "seekable", "tell", "truncate", "writable", "write", "writelines",
})  # fmt: skip
#: Those that never block.
_IMMEDIATE = frozenset({"fileno", "isatty", "readable", "seekable", "writable"})
#: Those that may block the thread where the greenlet cannot be blocked: nobody waits for something to come.
_SHORT = frozenset({"close", "flush", "seek", "tell", "truncate", "write", "writelines"})


class _Closed:
    """Stands where the file was."""

    closed = True

    def __getattr__(self, name: str) -> Any:
        raise FileObjectClosed


_CLOSED: Any = _Closed()


class FileObjectBase:
    """What the classes have in common: an object with the methods and attributes of the file within it.

    :param fobj: a descriptor, a path, or an open file.
    :param mode: as for ``io.open``.
    :param buffering: as for ``io.open``; text files may be unbuffered (0), too.
    :param closefd: whether closing this closes the descriptor or the open file; must be true for a path.
    :param encoding: as for ``io.open``, and so are ``errors`` and ``newline``.
    :param bufsize: the same as ``buffering``, and ``close`` as ``closefd``; for old programs.
    :param atomic_write: without buffering, have ``write()`` write everything.

    TypeError and ValueError for parameters that are wrong, OSError if the file can't be opened.
    """

    _io: Any
    _closefd: bool
    #: the open file that this was made of: it may close itself when it is collected
    _source: Any = None

    def __init__(
        self,
        fobj: Any,
        mode: str = "r",
        buffering: int | None = None,
        closefd: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        bufsize: int | None = None,
        close: bool | None = None,
        atomic_write: bool = False,
    ) -> None:
        self._io = _CLOSED
        buffering = _one_of("buffering", buffering, "bufsize", bufsize, -1)
        self._closefd = _one_of("closefd", closefd, "close", close, True)
        self._io = self._open(fobj, Mode(mode, buffering, encoding, errors, newline), atomic_write)
        try:
            self.name = self._io.name
        except AttributeError:
            pass

    def _open(self, fobj: Any, mode: Mode, atomic_write: bool) -> IO[Any]:
        """The file to use."""
        if isinstance(fobj, (int, str, bytes, os.PathLike)):
            return open_standard(fobj, mode, self._closefd)
        if not any(hasattr(fobj, name) for name in ("read", "write", "fileno")):
            raise TypeError(f"expected a descriptor, a path or an open file, not {type(fobj).__name__}")
        self._source = fobj
        if isinstance(fobj, FileObjectBase):
            fobj = fobj.io
        if isinstance(fobj, _io.TextIOBase) or hasattr(fobj, "encoding"):
            if mode.binary:
                fobj = getattr(fobj, "buffer", fobj)
            return fobj  # type: ignore[no-any-return]
        if mode.binary:
            return fobj  # type: ignore[no-any-return]
        if isinstance(fobj, _io.RawIOBase):
            fobj = _io.BufferedReader(fobj) if mode.kind == "r" else _io.BufferedWriter(fobj)
        kind = _io.TextIOWrapper if self._closefd else BorrowingText
        return mode.as_text(fobj, mode.buffering == 1, kind=kind)

    def _wrap_method(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """What to call instead of a method of the file."""
        return method

    def __getattr__(self, name: str) -> Any:
        # what is neither here nor kept
        if name == "name":
            raise AttributeError(f"{self!r} has no name: what it was made of has none")
        value = getattr(self.__dict__["_io"], name)
        if name in _METHODS:
            value = self.__dict__[name] = self._wrap_method(name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._io)})

    @property
    def io(self) -> Any:
        """The file within, of a class of the module :mod:`io` as a rule."""
        return self._io

    @property
    def closed(self) -> bool:
        """True if the file is closed."""
        return self._io.closed  # type: ignore[no-any-return]

    def close(self) -> None:
        """Write what is in the buffers and close the file; nothing if it is closed.

        With ``closefd`` false the descriptor, or the open file, stays open. Later calls raise an OSError
        (EBADF). May block the greenlet.
        """
        file = self._io
        if file is not _CLOSED:
            self._io = _CLOSED
            for name in _METHODS.intersection(self.__dict__):
                del self.__dict__[name]
            self._do_close(file, self._closefd)

    def _do_close(self, fobj: Any, closefd: bool) -> None:
        if closefd or self._source is None or isinstance(fobj, BorrowingText):
            fobj.close()
        elif not fobj.closed:
            fobj.flush()
        self._source = None

    def __iter__(self: _S) -> _S:
        return self

    def __next__(self) -> Any:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    next = __next__

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(
        self, t: type[BaseException] | None, v: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._io is _CLOSED else f"_fobj={self._io!r}"
        return f"<{type(self).__name__} at {id(self):#x} {state}{self._extra_repr()}>"

    def _extra_repr(self) -> str:
        return ""


def _one_of(name: str, value: Any, old_name: str, old: Any, default: Any) -> Any:
    """A parameter that has an old name, too."""
    if value is None:
        return default if old is None else old
    if old is not None and old != value:
        raise TypeError(f"Cannot specify both {name}={value!r} and {old_name}={old!r}: they mean the same")
    return value


class FileObjectBlock(FileObjectBase):
    """A file that blocks the whole thread: for tests, and for comparison.

    The parameters are those of ``io.open``; see FileObjectPosix.
    """


class FileObjectThread(FileObjectBase):
    """A file whose methods are called by native threads, so that they block only the greenlet.

    :param fobj: a descriptor, a path, or an open file, which need not be one of the system.
    :param lock: False lets several threads call methods at the same time.
    :param threadpool: whose threads; by default those of the hub of who calls.

    The other parameters are those of ``io.open``; ``closefd=False`` leaves the descriptor, or the open file,
    open. Where nothing may block (in the hub, in a coroutine), methods that write are called in place, so
    that ``print`` works everywhere; those that read raise BlockingSwitchOutError. A greenlet that is killed
    meanwhile, or has a Timeout, leaves the call to the thread.
    """

    def __init__(self, *args: Any, lock: bool = True, threadpool: Any = None, **kwargs: Any) -> None:
        self.lock: Any = Semaphore(1) if lock else DummySemaphore()
        self._pool = threadpool
        super().__init__(*args, **kwargs)

    @property
    def threadpool(self) -> Any:
        """The pool of threads; without one of its own, that of the current hub."""
        return self._pool if self._pool is not None else get_hub().threadpool

    @property
    def buffer(self) -> FileObjectThread:
        """The binary file under a text file, as a FileObjectThread. AttributeError if there is none."""
        under = FileObjectThread(self._io.buffer, "rb", closefd=False, threadpool=self._pool)
        under.lock = self.lock
        return under

    def _wrap_method(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        if name in _IMMEDIATE:
            return method
        # without a reference to self, which would not be collected at once then
        return partial(_in_thread, self.lock, self._pool, name in _SHORT, method)

    def _do_close(self, fobj: Any, closefd: bool) -> None:
        _in_thread(self.lock, self._pool, True, super()._do_close, fobj, closefd)

    def _extra_repr(self) -> str:
        return f" threadpool={self._pool!r}" if self._pool is not None else ""


def _in_thread(
    lock: Any, pool: Any, short: bool, method: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Have a thread call ``method``; if ``short``, and where nothing may block, call it."""
    if short and get_hub_if_exists() is None:
        # No hub, so there is nobody who could run meanwhile: the program has just begun, or is ending, when
        # the interpreter flushes what stands for sys.stdout and starts no more threads.
        return method(*args, **kwargs)
    try:
        lock.acquire()
    except BlockingSwitchOutError:
        if not short:
            raise
        return method(*args, **kwargs)
    try:
        if pool is None:
            pool = get_hub().threadpool
        try:
            value, error = pool.apply(_outcome, (method, args, kwargs))
        except BlockingSwitchOutError:
            if not short:
                raise
            return method(*args, **kwargs)
    finally:
        lock.release()
    if error is None:
        return value
    try:
        raise error
    finally:
        del error  # its traceback refers to this frame


def _outcome(method: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, BaseException | None]:
    """The result, or the exception as a result: the pool prints those that are raised."""
    try:
        return method(*args, **kwargs), None
    except BaseException as e:
        return None, e


if sys.platform != "win32":
    __all__ += ["FileObjectPosix"]

    class FileObjectPosix(FileObjectBase):
        """A file in non-blocking mode, whose methods block only the greenlet.

        :param fobj: a descriptor, a path, or an object that has ``fileno()``, such as a socket. The file
            is put into non-blocking mode, for everybody who has it open.
        :param mode: as for ``io.open``.
        :param buffering: as for ``io.open``; text files may be unbuffered (0), too.
        :param closefd: whether closing this closes the descriptor or the object; must be true for a path.
        :param encoding: as for ``io.open``, and so are ``errors`` and ``newline``.
        :param bufsize: the same as ``buffering``, and ``close`` as ``closefd``; for old programs.
        :param atomic_write: without buffering, have ``write()`` write everything.

        TypeError and ValueError for parameters that are wrong, OSError if the file can't be opened. Opening
        blocks the greenlet for a named pipe without another end.

        Who reads or writes while it is closed gets an OSError (EBADF). A read of a buffered file that is
        interrupted, by a Timeout for instance, may lose what it had got so far, as with the standard
        library's files; ``read(n)`` of an unbuffered one loses nothing.
        """

        default_bufsize = _io.DEFAULT_BUFFER_SIZE

        #: the raw file, which has no buffer
        fileio: CooperativeFileIO

        def _open(self, fobj: Any, mode: Mode, atomic_write: bool) -> IO[Any]:
            self.fileio, top = open_cooperative(fobj, mode, self._closefd, atomic_write)
            return top

        def _do_close(self, fobj: Any, closefd: bool) -> None:
            # the layers refuse to be closed while a greenlet waits in them
            (self.fileio if self.fileio.busy else fobj).close()


#: The class that the setting ``fileobject`` names.
FileObject: Any = config.fileobject
