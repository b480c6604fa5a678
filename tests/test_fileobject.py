"""Files that block only the greenlet, and are otherwise the standard library's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import io
import os
import socket as std_socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge import fileobject
from bridge.exceptions import BlockingSwitchOutError
from bridge.fileobject import FileObjectBlock, FileObjectPosix, FileObjectThread
from bridge.threadpool import ThreadPool

#: More than what a pipe holds.
LARGE = 1_000_000

ALL = pytest.mark.parametrize("kind", [FileObjectPosix, FileObjectThread, FileObjectBlock])
COOPERATIVE = pytest.mark.parametrize("kind", [FileObjectPosix, FileObjectThread])

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    r, w = os.pipe()
    inode = os.fstat(r).st_ino
    yield r, w
    for fd in (r, w):
        with contextlib.suppress(OSError):
            if os.fstat(fd).st_ino == inode:  # the test may have closed it, and the loop got the number
                os.close(fd)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "file"
    found.write_bytes(b"one\ntwo\r\nthree")
    return found


def read_all(kind: Any, fd: int) -> bytes:
    with kind(fd, "rb") as f:
        return f.read()  # type: ignore[no-any-return]


# -- like io.open ---------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize(
    ("mode", "kwargs"),
    [
        ("r", {}),
        ("rt", {"newline": ""}),
        ("r", {"newline": "\n", "encoding": "latin-1"}),
        ("r", {"encoding": "ascii", "errors": "replace"}),
        ("r", {"buffering": 1}),
        ("rb", {}),
        ("rb", {"buffering": 0}),
        ("r+", {}),
        ("r+b", {"buffering": 5}),
    ],
)
def test_reads_what_open_reads(kind: Any, path: Path, mode: str, kwargs: Any) -> None:
    with open(path, mode, **kwargs) as f:
        expected = [*f]
    with kind(path, mode, **kwargs) as f:
        assert [*f] == expected
    with kind(str(path), mode, **kwargs) as f:
        assert f.readlines() == expected
    with kind(os.open(path, os.O_RDWR), mode, **kwargs) as f:
        assert f.read() == expected[0][:0].join(expected)


@ALL
@pytest.mark.parametrize(
    ("mode", "data"), [("w", "a\nb"), ("wb", b"a\nb"), ("a", "c"), ("x", "d"), ("w+", "ef")]
)
def test_writes_what_open_writes(kind: Any, tmp_path: Path, mode: str, data: Any) -> None:
    for name, opener in (("standard", open), ("ours", kind)):
        target = tmp_path / name
        if mode == "a":
            target.write_text("before ")
        with opener(target, mode) as f:
            assert f.write(data) == len(data)
            f.writelines([data, data])
            assert f.tell() == target.stat().st_size or not f.seekable() or f.tell() > 0
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "standard").read_bytes()


@ALL
def test_seek_tell_truncate(kind: Any, path: Path) -> None:
    with kind(path, "r+b") as f:
        assert f.seekable()
        assert f.seek(4) == 4
        assert f.read(3) == b"two"
        assert f.tell() == 7
        f.seek(0)
        assert f.write(b"ONE") == 3
        assert f.truncate(5) == 5
    assert path.read_bytes() == b"ONE\nt"


@ALL
def test_readinto_and_iteration_of_regular_files(kind: Any, path: Path) -> None:
    with kind(path, "rb") as f:
        buffer = bytearray(5)
        assert f.readinto(buffer) == 5
        assert buffer == b"one\nt"
        assert next(f) == b"wo\r\n"
        assert f.next() == b"three"
        with pytest.raises(StopIteration):
            next(f)


@ALL
@pytest.mark.parametrize(
    ("mode", "kwargs", "error", "text"),
    [
        (42, {}, TypeError, "mode"),
        ("r", {"buffering": "x"}, TypeError, "buffering"),
        ("r", {"encoding": 42}, TypeError, "encoding"),
        ("r", {"errors": 42}, TypeError, "errors"),
        ("q", {}, ValueError, "mode"),
        ("rr", {}, ValueError, "mode"),
        ("wU", {}, ValueError, "mode U cannot be combined"),
        ("rtb", {}, ValueError, "text and binary"),
        ("rw", {}, ValueError, "append mode at once"),
        ("+", {}, ValueError, "exactly one"),
        ("rb", {"encoding": "ascii"}, ValueError, "take an encoding"),
        ("rb", {"errors": "strict"}, ValueError, "take an errors"),
        ("rb", {"newline": "\n"}, ValueError, "take an newline"),
        ("r", {"closefd": True, "close": False}, TypeError, "closefd"),
        ("r", {"buffering": 1, "bufsize": 2}, TypeError, "bufsize"),
    ],
)
def test_wrong_parameters_are_refused(
    kind: Any, path: Path, mode: Any, kwargs: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        kind(path, mode, **kwargs)


@ALL
def test_line_buffering_of_binary_files_is_warned_of_as_by_open(kind: Any, path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="line buffering"):
        kind(path, "rb", 1).close()


@ALL
def test_what_cannot_be_opened_raises_what_open_raises(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kind(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        kind(tmp_path)
    with pytest.raises(TypeError):
        kind(object())
    with pytest.raises(TypeError):
        kind(None)
    with pytest.raises(ValueError, match="negative"):
        kind(-1)
    r, w = os.pipe()
    os.close(r)
    os.close(w)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kind(r)


@ALL
def test_names_and_modes(kind: Any, path: Path, pipe: Pipe) -> None:
    for mode, shown in (("rb", "rb"), ("r", "r")):
        with kind(path, mode) as f:
            assert f.mode == shown
            assert f.name == str(path)
        assert f.name == str(path)
    with kind(pipe[1], "wb", closefd=False) as f:
        assert f.mode == "wb"
        assert f.name == pipe[1] == f.fileno()
        assert "read" in dir(f)
    with open(path) as source, kind(source) as f:
        assert f.name == source.name

    class Nameless:
        closed = False

        def fileno(self) -> int:
            return pipe[0]

        def close(self) -> None:
            pass

        flush = close

        def readable(self) -> bool:
            return True

        seekable = writable = lambda self: False

    nameless = kind(Nameless(), "rb")
    assert not hasattr(nameless, "name")
    nameless.close()
    assert not hasattr(nameless, "name")


@ALL
def test_a_closed_file_says_so(kind: Any, pipe: Pipe) -> None:
    f = kind(pipe[0], "rb")
    assert not f.closed
    f.close()
    assert f.closed
    f.close()
    for call in (lambda: f.read(1), lambda: next(f), lambda: f.fileno(), lambda: f.mode):
        with pytest.raises(OSError, match="FileObject was closed") as info:
            call()
        assert info.value.errno == errno.EBADF
    assert iter(f) is f
    assert "closed" in repr(f)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pipe[0])


@ALL
def test_closefd_false_leaves_descriptors_and_files_open(kind: Any, path: Path, pipe: Pipe) -> None:
    with kind(pipe[1], "w", closefd=False) as f:
        f.write("x")
    assert os.read(pipe[0], 2) == b"x"
    for mode in ("r", "rb"):
        with open(path, mode) as source:
            for wanted in ("r", "rb"):
                f = kind(source, wanted, closefd=False)
                f.close()
                assert f.closed
                assert not source.closed
                f = kind(source, wanted, close=False)
                del f
                gc.collect()
                assert not source.closed
                os.fstat(source.fileno())


@ALL
def test_closing_closes_the_file_it_was_made_of(kind: Any, path: Path) -> None:
    for mode in ("r", "rb"):
        for wanted in ("r", "rb"):
            source = open(path, mode)  # noqa: SIM115
            kind(source, wanted).close()
            assert source.closed


@ALL
def test_text_can_be_unbuffered(kind: Any, pipe: Pipe) -> None:
    with kind(pipe[1], "w", 0, closefd=False) as f:
        f.write("x")
        assert os.read(pipe[0], 2) == b"x"
    with kind(pipe[1], "w", 1, closefd=False) as f:
        assert f.line_buffering
        f.write("a\nb")
        assert os.read(pipe[0], 4) == b"a\nb"


@ALL
def test_dropped_files_are_freed_at_once(kind: Any, path: Path) -> None:
    with pytest.warns(ResourceWarning):
        f = kind(path, "rb")
        assert f.read(1) == b"o"
        fd = f.fileno()
        ref = weakref.ref(f)
        del f
        gc.collect()
    assert ref() is None
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


@pytest.mark.parametrize("kind", [FileObjectThread, FileObjectBlock])
def test_files_that_are_not_the_system_s(kind: Any) -> None:
    assert kind(io.BytesIO(b"abc"), "rb").read() == b"abc"
    assert kind(io.BytesIO(b"abc"), "r").read() == "abc"
    assert kind(io.StringIO("abc")).read() == "abc"
    kept = io.BytesIO()
    f = kind(kept, "w", closefd=False, encoding="utf-16-le")
    f.write("ab")
    f.close()
    assert kept.getvalue() == b"a\0b\0"


@ALL
def test_methods_that_a_subclass_defines_win(kind: Any, path: Path) -> None:
    class Mine(kind):  # type: ignore[misc]
        def read(self, size: int = -1) -> str:
            return "mine " + str(super().__getattr__("read")(size))

    with Mine(path) as f:
        assert f.read(3) == "mine one"


# -- waiting --------------------------------------------------------------------------------------------


@COOPERATIVE
@pytest.mark.parametrize(
    "operation",
    [
        lambda f: f.read(3),
        lambda f: f.readline(),
        lambda f: next(f),
        lambda f: f.read(),
        lambda f: f.readlines()[0],
        lambda f: f.peek(1)[:3],
        lambda f: f.read1(3),
    ],
)
def test_reading_lets_others_run(kind: Any, pipe: Pipe, operation: Callable[[Any], Any]) -> None:
    f = kind(pipe[0], "rb")

    def write() -> None:
        os.write(pipe[1], b"ab\n")
        os.close(pipe[1])

    writer = bridge.spawn(write)
    assert operation(f) == b"ab\n"
    assert writer.dead
    f.close()


@COOPERATIVE
def test_readinto_lets_others_run(kind: Any, pipe: Pipe) -> None:
    f = kind(pipe[0], "rb")
    writer = bridge.spawn(os.write, pipe[1], b"hello")
    buffer = bytearray(32)
    assert f.readinto1(buffer) == 5
    assert buffer[:5] == b"hello"
    assert writer.dead
    f.close()


@COOPERATIVE
@pytest.mark.parametrize("buffering", [-1, 0])
def test_writing_lets_others_run(kind: Any, pipe: Pipe, buffering: int) -> None:
    reader = bridge.spawn(read_all, kind, pipe[0])
    data = bytes(range(250)) * (LARGE // 250)
    with kind(pipe[1], "wb", buffering) as f:
        done = 0
        while done < LARGE:
            done += f.write(data[done:])
    assert reader.get() == data


def test_an_unbuffered_atomic_write_writes_everything(pipe: Pipe) -> None:
    reader = bridge.spawn(read_all, FileObjectPosix, pipe[0])
    with FileObjectPosix(pipe[1], "wb", 0, atomic_write=True) as f:
        assert f.write(b"x" * LARGE) == LARGE
    assert reader.get() == b"x" * LARGE


@COOPERATIVE
def test_text_through_a_pipe(kind: Any, pipe: Pipe) -> None:
    def write() -> None:
        with kind(pipe[1], "w", encoding="utf-8") as f:
            for line in ("\N{SNOWMAN}\n", "zwei\r", "drei\r\n", "vier"):
                for character in line:
                    f.write(character)
                    f.flush()

    writer = bridge.spawn(write)
    with kind(pipe[0], encoding="utf-8") as f:
        assert not hasattr(f, "read1")
        assert [*f] == ["\N{SNOWMAN}\n", "zwei\n", "drei\n", "vier"]
    writer.get()


def test_a_timeout_in_a_read_leaves_the_file_usable(pipe: Pipe) -> None:
    for buffering in (0, -1):
        with FileObjectPosix(pipe[0], "rb", buffering, closefd=False) as f:
            os.write(pipe[1], b"one\n")
            assert f.readline() == b"one\n"
            with bridge.Timeout(0, False):
                f.readline()
                pytest.fail("there was no line")
            os.write(pipe[1], b"two\n")
            assert f.readline() == b"two\n"


def test_closing_wakes_who_reads(pipe: Pipe) -> None:
    for mode in ("r", "rb"):
        f = FileObjectPosix(os.dup(pipe[0]), mode)
        reader = bridge.spawn(f.readline)
        bridge.sleep(0)
        f.close()
        reader.join()
        assert isinstance(reader.exception, OSError)
        assert reader.exception.errno == errno.EBADF
        assert f.closed


@pytest.mark.engines("owned")
def test_closing_wakes_who_reads_in_another_thread(pipe: Pipe) -> None:
    f = FileObjectPosix(pipe[0], "rb")
    caught: list[BaseException] = []

    def read() -> None:
        try:
            f.readline()
        except OSError as e:
            caught.append(e)
        finally:
            bridge.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=read)
    thread.start()
    while not f.fileio.busy:
        bridge.sleep(0)
    f.close()
    thread.join()
    assert [e.errno for e in caught] == [errno.EBADF]


def test_closing_wakes_who_writes(pipe: Pipe) -> None:
    f = FileObjectPosix(pipe[1], "wb")
    writer = bridge.spawn(f.write, b"x" * LARGE)
    bridge.sleep(0)
    f.close()
    writer.join()
    assert isinstance(writer.exception, OSError)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pipe[1])


def test_a_descriptor_that_is_not_ours_to_close_wakes_its_readers_too(pipe: Pipe) -> None:
    f = FileObjectPosix(pipe[0], "rb", closefd=False)
    reader = bridge.spawn(f.read, 1)
    bridge.sleep(0)
    f.close()
    reader.join()
    assert isinstance(reader.exception, OSError)
    os.fstat(pipe[0])


def test_a_number_that_is_used_again_wakes_its_new_reader() -> None:
    for _ in range(3):
        r, w = os.pipe()
        f = FileObjectPosix(r, "rb", 0)
        reader = bridge.spawn(f.read, 1)
        bridge.sleep(0)
        os.write(w, b"x")
        assert reader.get() == b"x"
        second = bridge.spawn(f.read, 1)
        bridge.sleep(0)
        f.close()
        second.join()
        os.close(w)


def test_several_may_wait_for_an_unbuffered_file(pipe: Pipe) -> None:
    with FileObjectPosix(pipe[0], "rb", 0) as f:
        readers = [bridge.spawn(f.read, 1) for _ in range(3)]
        bridge.sleep(0)
        os.write(pipe[1], b"abc")
        assert sorted(reader.get() for reader in readers) == [b"a", b"b", b"c"]


def test_killing_a_reader_leaves_the_file_usable(pipe: Pipe) -> None:
    with FileObjectPosix(pipe[0], "rb", 0) as f:
        reader = bridge.spawn(f.read, 1)
        bridge.sleep(0)
        reader.kill()
        assert not f.fileio.busy
        os.write(pipe[1], b"x")
        assert f.read(1) == b"x"


def test_a_broken_pipe_is_told_by_close(pipe: Pipe) -> None:
    os.close(pipe[0])
    f = FileObjectPosix(pipe[1], "w")
    f.write("x")
    with pytest.raises(BrokenPipeError):
        f.close()
    assert f.closed
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pipe[1])


def test_sockets(pipe: Pipe) -> None:
    a, b = bridge.socket.socketpair()
    f = FileObjectPosix(a, "rb")
    sender = bridge.spawn(b.sendall, b"line\n")
    assert f.readline() == b"line\n"
    sender.get()
    reader = bridge.spawn(f.read)
    bridge.sleep(0)
    f.close()
    assert a.fileno() == -1
    reader.join()
    assert isinstance(reader.exception, OSError)
    b.close()


def test_a_socket_can_be_read_and_written_at_once() -> None:
    a, b = std_socket.socketpair()
    with FileObjectPosix(a, "r+b", 0) as f, b:
        reader = bridge.spawn(f.read, 2)
        bridge.sleep(0)
        assert f.write(b"out") == 3
        assert b.recv(3) == b"out"
        b.sendall(b"in")
        assert reader.get() == b"in"


def test_a_named_pipe_is_opened_without_blocking_the_loop(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        with fileobject.FileObject(fifo, "w") as f:
            f.write("through")

    writer = bridge.spawn(write)
    with fileobject.FileObject(fifo) as f:
        assert f.read() == "through"
    writer.get()


def test_a_terminal() -> None:
    master, slave = os.openpty()
    with FileObjectPosix(slave) as f, FileObjectPosix(master, "wb", 0) as other:
        assert f.isatty()
        assert f.line_buffering
        reader = bridge.spawn(f.readline)
        bridge.sleep(0)
        other.write(b"typed\n")
        assert reader.get() == "typed\n"


def test_seeking_in_a_pipe_fails_as_the_system_says(pipe: Pipe) -> None:
    with FileObjectPosix(pipe[0], "r") as f:
        with pytest.raises(OSError, match="Illegal seek") as info:
            f.fileio.seek(0)
        assert info.value.errno == errno.ESPIPE


# -- native threads -------------------------------------------------------------------------------------


def test_calls_of_one_file_come_one_by_one(pipe: Pipe) -> None:
    f = FileObjectThread(pipe[0], "rb", 0)
    readers = [bridge.spawn(f.readline) for _ in range(3)]
    bridge.sleep(0)
    os.write(pipe[1], b"1\n2\n3\n")
    assert {reader.get() for reader in readers} == {b"1\n", b"2\n", b"3\n"}
    f.close()


def test_errors_of_native_threads_are_raised_and_not_printed(
    pipe: Pipe, errors: list[tuple[Any, BaseException]]
) -> None:
    with FileObjectThread(pipe[0], "rb") as f, pytest.raises(io.UnsupportedOperation):
        f.seek(0)
    bridge.sleep(0)
    assert not errors


def test_a_pool_of_its_own() -> None:
    pool = ThreadPool(1)
    threads: list[int] = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            threads.append(threading.get_ident())
            return b"x"

    f = FileObjectThread(File(), "rb", threadpool=pool, lock=False)
    assert f.threadpool is pool
    assert "threadpool=" in repr(f)
    f.read()
    assert threads and threads[0] != threading.get_ident()
    pool.kill()


def test_threads_share_a_file(path: Path) -> None:
    f = FileObjectThread(path, "rb")
    assert f.readline() == b"one\n"
    lines: list[bytes] = []

    def read() -> None:
        lines.append(f.readline())
        bridge.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=read)
    thread.start()
    while thread.is_alive():
        bridge.sleep(0)
    thread.join()
    assert lines == [b"two\r\n"]
    f.close()


def test_the_buffer_of_a_text_file_is_cooperative(pipe: Pipe) -> None:
    f = FileObjectThread(pipe[0])
    assert isinstance(f.buffer, FileObjectThread)
    reader = bridge.spawn(f.buffer.readline)
    bridge.sleep(0)
    os.write(pipe[1], b"x\n")
    assert reader.get() == b"x\n"
    f.close()
    assert not hasattr(FileObjectThread(io.BytesIO(), "rb"), "buffer")


@pytest.mark.engines("none")
def test_writing_works_where_nothing_may_block_and_reading_says_so(pipe: Pipe) -> None:
    async def main() -> None:
        f = FileObjectThread(pipe[1], "w", closefd=False)
        print("from a coroutine", file=f, flush=True)
        assert os.read(pipe[0], 100) == b"from a coroutine\n"
        f.lock.acquire()
        f.write("x")
        f.flush()
        assert os.read(pipe[0], 100) == b"x"
        f.lock.release()
        f.close()
        with pytest.raises(BlockingSwitchOutError), FileObjectThread(pipe[0], closefd=False) as g:
            g.read()

    asyncio.run(main())


# -- as standard streams, and which class ---------------------------------------------------------------


@pytest.mark.engines("none")
@pytest.mark.parametrize("kind", ["posix", "thread"])
def test_as_standard_streams(kind: str) -> None:
    program = """if True:
        import sys, bridge
        from bridge.fileobject import FileObject
        sys.stdin = FileObject(sys.__stdin__, "r", closefd=False)
        sys.stdout = FileObject(sys.__stdout__, "w", closefd=False)
        bridge.spawn(print, "others run", flush=True)
        line = input()
        print(f"{len(line)} characters", FileObject.__name__)
        print(sys.stdin.read().upper(), end="")
        sys.stdout.flush()
        """
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GEVENT_FILE": kind},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "others run\n"  # while it waits for input
        out, err = child.communicate("hello\nrest\n")
    assert err == ""
    name = {"posix": "FileObjectPosix", "thread": "FileObjectThread"}[kind]
    assert out == f"5 characters {name}\nREST\n"


@pytest.mark.engines("none")
def test_the_default_class_and_what_is_exported() -> None:
    assert fileobject.FileObject is FileObjectPosix
    assert set(fileobject.__all__) == {
        "FileObject", "FileObjectBlock", "FileObjectPosix", "FileObjectThread",
    }  # fmt: skip


@pytest.mark.engines("owned")
def test_a_forked_child_goes_on_reading(pipe: Pipe) -> None:
    f = FileObjectPosix(pipe[0], "rb")
    bridge.spawn(os.write, pipe[1], b"parent\n")
    assert f.readline() == b"parent\n"
    back_r, back_w = os.pipe()
    pid = bridge.os.fork()
    if not pid:
        status = 1
        try:
            bridge.spawn(os.write, pipe[1], b"child\n")
            os.write(back_w, f.readline())
            status = 0
        finally:
            os._exit(status)
    os.close(back_w)
    with FileObjectPosix(back_r, "rb") as back:
        assert back.read() == b"child\n"
    assert bridge.os.waitpid(pid, 0)[1] == 0
    f.close()
