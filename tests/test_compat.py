"""The private modules of gevent that libraries import, in drop-in mode."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engines("none")


def run(code: str) -> None:
    start = "import bridge; bridge.install_as_gevent()\n"
    command = [sys.executable, "-c", start + textwrap.dedent(code)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize(
    ("module", "name", "public"),
    [
        ("_semaphore", "Semaphore", "gevent.lock"),
        ("_semaphore", "BoundedSemaphore", "gevent.lock"),
        ("_waiter", "Waiter", "gevent.hub"),
        ("_hub_primitives", "wait_read", "gevent.socket"),
        ("_hub_primitives", "wait_write", "gevent.socket"),
        ("_hub_local", "get_hub", "gevent"),
        ("_hub_primitives", "wait_readwrite", "gevent.socket"),
        ("_socketcommon", "wait_read", "gevent.socket"),
        ("_socketcommon", "cancel_wait_ex", "gevent.socket"),
        ("_socketcommon", "gethostbyname", "gevent.socket"),
        ("_socket3", "socket", "gevent.socket"),
        ("_fileobjectcommon", "FileObjectThread", "gevent.fileobject"),
        ("_fileobjectcommon", "cancel_wait_ex", "gevent.socket"),
    ],
)
def test_private_name_is_the_public_one(module: str, name: str, public: str) -> None:
    run(f"""
        import importlib
        private = getattr(importlib.import_module("gevent.{module}"), "{name}")
        assert private is getattr(importlib.import_module("{public}"), "{name}")
    """)


def test_wait_on_objects_is_wait() -> None:
    run("""
        import gevent
        from gevent._hub_primitives import iwait_on_objects, wait_on_objects
        a, b = gevent.spawn(int, 1), gevent.spawn(int, 2)
        assert set(wait_on_objects([a, b])) == {a, b} == set(iwait_on_objects([a, b]))
    """)


def test_native_queue_blocks_its_thread_alone_and_times_out() -> None:
    run("""
        from gevent import monkey; monkey.patch_all()
        import gevent
        from gevent._threading import EmptyTimeout, Lock, Queue
        start = monkey.get_original("_thread", "start_new_thread")
        questions, answers = Queue(), Queue()
        def work():
            cookie = questions.allocate_cookie()
            while (n := questions.get(cookie)) is not None:
                answers.put(n * n)
                questions.task_done()
        start(work, ())
        for n in range(10):
            questions.put(n)
        questions.put(None)
        assert [answers.get(None, 10) for _ in range(10)] == [n * n for n in range(10)]
        assert questions.unfinished_tasks == 1 and questions.empty() and not questions.full()
        try:
            answers.get(None, 0.001)
        except EmptyTimeout:
            pass
        else:
            raise AssertionError("an item from nowhere")
        questions.task_done()
        try:
            questions.task_done()
        except ValueError:
            pass
        else:
            raise AssertionError("one task_done() too many")
        answers.put(1); answers.kill()
        assert answers.qsize() == 0
    """)


def test_hub_is_what_waits_for_watchers() -> None:
    run("""
        import gevent
        from gevent._hub_primitives import WaitOperationsGreenlet
        from gevent._abstract_linkable import AbstractLinkable
        from gevent._tracer import GreenletTracer
        import gevent.event, gevent.util
        assert isinstance(gevent.get_hub(), WaitOperationsGreenlet)
        assert issubclass(gevent.event.Event, AbstractLinkable)
        assert GreenletTracer().kill() is None
    """)


def test_what_old_libraries_need_of_both_pythons() -> None:
    run("""
        from gevent._compat import exc_clear, iteritems, itervalues, izip, xrange
        assert list(izip(iteritems({1: 2}), itervalues({1: 2}), xrange(5))) == [((1, 2), 2, 0)]
        assert exc_clear() is None
    """)


def test_error_numbers_have_the_texts_of_the_system() -> None:
    run("""
        import errno, os
        from gevent.win32util import formatError
        assert formatError(errno.ENOENT) == os.strerror(errno.ENOENT)
    """)


def test_private_helpers_of_files_do_what_their_names_say(run_fresh: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    out = run_fresh(
        f"""
        import bridge, io
        bridge.install_as_gevent()
        from gevent._fileobjectcommon import OpenDescriptor, WriteallMixin

        class Slow(WriteallMixin):
            def __init__(self):
                self.parts = []
            def write(self, data):
                self.parts.append(bytes(data[:3]))
                return len(self.parts[-1])

        slow = Slow()
        slow.writeall(b"abcdefgh")
        print(slow.parts)
        with OpenDescriptor({str(path)!r}, "w", encoding="utf-8").open() as f:
            f.write("hello")
        with OpenDescriptor({str(path)!r}, "rb", bufsize=0).open() as f:
            print(type(f) is io.FileIO, f.read(), OpenDescriptor(f).open() is f)
        try:
            OpenDescriptor(1, bufsize=1, buffering=1)
        except ValueError as e:
            print("ValueError")
        """
    )
    assert out.splitlines() == ["[b'abc', b'def', b'gh']", "True b'hello' True", "ValueError"]
