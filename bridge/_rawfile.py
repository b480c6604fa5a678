"""A raw file that waits cooperatively, and the layers of the standard library on top of it.

Theory of operation
===================

:class:`CooperativeFileIO` is ``io.FileIO`` with its file in non-blocking mode: an operation is tried, and
where FileIO returns None ("would block") the greenlet waits for the file to be ready and tries again. Buffers
and text are the standard library's, on top of that, so that greenlets are switched *inside* BufferedReader,
BufferedWriter and TextIOWrapper. The buffers know that they are busy and refuse a second greenlet
("reentrant call"), which also concerns ``close()``. So whoever closes a file under a waiting greenlet closes
the raw file, which wakes the greenlet with an error; the layers above see that it is closed.

*Registered once.* A file whose descriptor is closed by nobody else waits for edges, as sockets do (see
:mod:`bridge._core.edges`; each wait follows an attempt that has failed with EAGAIN). Others, and a second
greenlet that waits for the same, go through the poller, as nothing may be believed of a bare number.

*Regular files* are never "not ready": they are read at once, as the kernel does not offer anything else.

*Threads.* Who waits is known, so that close() ends the waits of every thread. The poller of another
thread is not touched; what is registered there of a file that is closed finds nothing any more.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from typing import IO, TYPE_CHECKING, Any

from ._core.current import hub_local
from ._core.edges import READ, WRITE, Channel
from ._core.poller import Interest
from ._core.waiting import Wait
from .hub import _get_hub, get_hub

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = [
    "BorrowingText",
    "CooperativeFileIO",
    "FileObjectClosed",
    "Mode",
    "WholeWritesFileIO",
    "open_cooperative",
    "open_standard",
]

_FileIO = io.FileIO


class FileObjectClosed(OSError):
    """The file was closed before, or while the greenlet waited for it: an OSError with EBADF."""

    def __init__(self) -> None:
        super().__init__(errno.EBADF, "Bad file descriptor (FileObject was closed)")


class CooperativeFileIO(io.FileIO):
    """``io.FileIO`` whose file is in non-blocking mode, and whose methods block only the greenlet.

    :param source: an object whose file it is: it is closed with this one, unless ``closefd`` is false.

    Who waits while it is closed gets :class:`FileObjectClosed`.
    """

    def __init__(
        self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None, source: Any = None
    ) -> None:
        self._channel = Channel()
        #: those who wait, but the channel's
        self._waits: list[Wait] = []
        self._source = None
        if source is None:
            super().__init__(file, mode, closefd, opener)
        else:
            # one of the two closes the descriptor: the source, which knows what else is to be done
            super().__init__(file, mode, False)
            if closefd:
                self._source = source
            try:
                self.name = source.name
            except AttributeError:
                del self.name
        try:
            os.set_blocking(self.fileno(), False)
        except BaseException:
            self.close()
            raise

    def _wait(self, events: int) -> None:
        wait = Wait()
        hub = hub_local.hub
        assert hub is not None  # the Wait has seen to that
        engine = hub.loop
        channel = self._channel
        before = channel.reader if events == READ else channel.writer
        edges = None
        if self.closefd and (before is None or before.abandoned()):
            edges = engine.edges
            if edges is None:
                edges = engine.get_poller().get_edges()
        if edges is None:
            self._wait_by_number(engine, events, wait)
        else:
            if events == READ:
                channel.reader = wait
            else:
                channel.writer = wait
            try:
                if (channel.home is edges and not events & ~channel.mask) or edges.watch(
                    self.fileno(), channel, events, wait
                ):
                    wait.block()
                else:
                    self._wait_by_number(engine, events, wait)
            finally:
                if channel.reader is wait:
                    channel.reader = None
                elif channel.writer is wait:
                    channel.writer = None
        if self.closed:
            raise FileObjectClosed

    def _wait_by_number(self, engine: Any, events: int, wait: Wait) -> None:
        interest = Interest(self.fileno(), events, lambda _events: wait.wake())
        poller = engine.get_poller()
        try:
            poller.add(interest)
            self._waits.append(wait)
            wait.block()
        finally:
            if wait in self._waits:
                self._waits.remove(wait)
            poller.remove(interest)

    @property
    def busy(self) -> bool:
        """True if a greenlet waits for the file."""
        return self._channel.waited_for() or any(not wait.abandoned() for wait in tuple(self._waits))

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read up to ``len(buffer)`` bytes; return how many, 0 at the end. Blocks the greenlet."""
        while True:
            count: int | None = _FileIO.readinto(self, buffer)
            if count is not None:
                return count
            self._wait(READ)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes, none at the end; up to the end if negative. Blocks the greenlet."""
        if size is None or size < 0:
            return self.readall()
        while True:
            data: bytes | None = _FileIO.read(self, size)
            if data is not None:
                return data
            self._wait(READ)

    def readall(self) -> bytes:
        """Read up to the end. Blocks the greenlet."""
        chunks = []
        while True:
            data: bytes | None = _FileIO.readall(self)
            if data is None:
                self._wait(READ)
            elif data:
                chunks.append(data)  # up to the end, or up to where it would have had to wait
            else:
                return b"".join(chunks)

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what there is room for; return the number of bytes. Blocks the greenlet."""
        while True:
            count: int | None = _FileIO.write(self, data)
            if count is not None:
                return count
            self._wait(WRITE)

    def close(self) -> None:
        """Close the file. Greenlets that wait for it are woken. Does not block."""
        channel = self._channel
        if not self.closed:
            fd = self.fileno()
            home = channel.home
            if home is not None:
                home.drop(fd, channel)
            hub = _get_hub()
            if hub is not None and hub.loop is not None and (self.closefd or self._source is not None):
                hub.loop.closing_fd(fd)
        try:
            super().close()
        finally:
            channel.release(READ | WRITE)
            for wait in tuple(self._waits):
                wait.wake()
            source, self._source = self._source, None
            if source is not None:
                source.close()


class WholeWritesFileIO(CooperativeFileIO):
    """A raw file whose ``write`` writes everything."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all bytes; return the number. Blocks the greenlet."""
        first: int | None = _FileIO.write(self, data)
        if type(data) is bytes and first == len(data):
            return first  # mostly
        if first is None:
            self._wait(WRITE)
        with memoryview(data) as view, view.cast("B") as rest:
            size = len(rest)
            done = first or 0
            while done < size:
                with rest[done:] as part:
                    done += super().write(part)
        return size


class _FlushingWriter(io.BufferedWriter):
    """A buffer that keeps nothing back: for text without buffering, which the layers do not know."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all bytes; return the number."""
        count = super().write(data)
        self.flush()
        return count


class BorrowingText(io.TextIOWrapper):
    """A text layer on top of a buffer that somebody else closes."""

    def close(self) -> None:
        """Write what is pending, and let go of the buffer."""
        try:
            self.detach()
        except ValueError:
            pass  # done before


class Mode:
    """The parameters of ``io.open``, checked; TypeError and ValueError as there."""

    def __init__(
        self, mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None
    ) -> None:
        if not isinstance(mode, str):
            raise TypeError(f"invalid mode: {mode!r}")
        if not isinstance(buffering, int):
            raise TypeError(f"invalid buffering: {buffering!r}")
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"invalid {name}: {value!r}")
        letters = set(mode)
        if letters - set("axrwb+tU") or len(mode) > len(letters):
            raise ValueError(f"invalid mode: {mode!r}")
        if "U" in letters:
            # what text has been by default since there is newline=None
            if letters & set("wax+"):
                raise ValueError("mode U cannot be combined with 'x', 'w', 'a', or '+'")
            letters = letters - {"U"} | {"r"}
        kind = letters & set("rwax")
        if "t" in letters and "b" in letters:
            raise ValueError("can't have text and binary mode at once")
        if len(kind) > 1:
            raise ValueError("can't have read/write/append mode at once")
        if not kind:
            raise ValueError("must have exactly one of read/write/append mode")
        self.binary = "b" in letters
        if self.binary:
            for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
                if value is not None:
                    raise ValueError(f"binary mode doesn't take an {name} argument")
            if buffering == 1:
                warnings.warn(
                    "line buffering (buffering=1) isn't supported in binary mode, "
                    "the default buffer size will be used",
                    RuntimeWarning,
                    stacklevel=3,
                )
        self.kind = kind.pop()
        self.updating = "+" in letters
        #: as FileIO takes it
        self.raw = self.kind + ("b" if self.binary else "") + ("+" if self.updating else "")
        #: as io.open takes it, and as a text file shows it
        self.text = mode
        self.buffering = buffering
        self.encoding = encoding
        self.errors = errors
        self.newline = newline

    @property
    def writing(self) -> bool:
        """True if the file can be written to."""
        return self.updating or self.kind != "r"

    def as_text(
        self,
        buffer: Any,
        line_buffering: bool = False,
        write_through: bool = False,
        kind: type[io.TextIOWrapper] = io.TextIOWrapper,
    ) -> io.TextIOWrapper:
        """The text layer on top of ``buffer``."""
        encoding = io.text_encoding(self.encoding)
        wrapper = kind(buffer, encoding, self.errors, self.newline, line_buffering, write_through)
        wrapper.mode = self.text  # type: ignore[misc]
        return wrapper


def _opener(path: Any, flags: int) -> int:
    """``os.open`` which waits cooperatively for the other end of a named pipe."""
    try:
        is_pipe = stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        is_pipe = False  # open() shall say it
    return _open_pipe(path, flags) if is_pipe else os.open(path, flags, 0o666)


def _open_pipe(path: Any, flags: int) -> int:
    found: list[int] = []
    left = False

    def open_it() -> None:
        found.append(os.open(path, flags))
        if left:
            close_it()

    def close_it() -> None:
        try:
            os.close(found.pop())
        except IndexError:
            pass  # not open yet; or the other thread was faster

    try:
        get_hub().threadpool.apply(open_it)
    except BaseException:
        left = True
        close_it()
        raise
    return found.pop()


def open_cooperative(
    file: Any, mode: Mode, closefd: bool, whole_writes: bool = False
) -> tuple[CooperativeFileIO, IO[Any]]:
    """The raw file, and the top of the layers that ``mode`` asks for.

    :param file: a descriptor, a path, or an object that has ``fileno()``.
    :param whole_writes: without buffering, have write() write everything.

    OSError if it can't be opened. Blocks the greenlet for a named pipe without another end.
    """
    source = None
    opener = None
    if hasattr(file, "fileno"):
        source = file
        file = source.fileno()
        if mode.writing and hasattr(source, "flush"):
            source.flush()  # what was written there comes first
    elif not isinstance(file, int):
        file = os.fspath(file)
        opener = _opener
    elif file < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({file})")
    kind = WholeWritesFileIO if whole_writes and not mode.buffering else CooperativeFileIO
    raw = kind(file, mode.raw, closefd, opener, source)
    return raw, _on_top(raw, mode)


def open_standard(file: Any, mode: Mode, closefd: bool) -> IO[Any]:
    """``io.open`` with a descriptor or a path. Blocks the greenlet for a named pipe without another end."""
    opener = None
    if not isinstance(file, int):
        file = os.fspath(file)
        opener = _opener
    raw = io.FileIO(file, mode.raw, closefd, opener)
    return _on_top(raw, mode)


def _on_top(raw: io.FileIO, mode: Mode) -> IO[Any]:
    try:
        return _layers(raw, mode)
    except BaseException:
        raw.close()
        raise


def _layers(raw: io.FileIO, mode: Mode) -> IO[Any]:
    unbuffered = mode.buffering == 0
    if unbuffered and mode.binary:
        return raw
    line_buffering = not mode.binary and (mode.buffering == 1 or (mode.buffering < 0 and raw.isatty()))
    size = mode.buffering
    if size < 0:
        size = max(os.fstat(raw.fileno()).st_blksize, io.DEFAULT_BUFFER_SIZE)
    elif size < 2:
        size = io.DEFAULT_BUFFER_SIZE
    buffer: Any
    if mode.updating:
        buffer = io.BufferedRandom(raw, size)
    elif mode.kind == "r":
        buffer = io.BufferedReader(raw, size)
    else:
        buffer = (_FlushingWriter if unbuffered else io.BufferedWriter)(raw, size)
    if mode.binary:
        return buffer  # type: ignore[no-any-return]
    return mode.as_text(buffer, line_buffering, unbuffered)
