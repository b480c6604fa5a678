"""Real threads with the face of threading's, views of modules, and functions called after imports."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import bridge
from bridge._imports import after_import
from bridge.monkey._native import Semaphore, Thread, in_greenlet
from bridge.monkey._views import View, copy_class, rebase_class

Run = Callable[..., str]


def test_a_thread_runs_natively_under_its_name() -> None:
    found: list[object] = []

    def work(*args: object, **kwargs: object) -> None:
        found.extend([args, kwargs, threading.get_ident(), threading.current_thread().name])

    thread = Thread(target=work, name="mine", args=(1,), kwargs={"a": 2}, daemon=True)
    assert repr(thread) == "<Thread(mine, initial daemon None)>" and not thread.is_alive()
    thread.start()
    thread.join()
    assert found == [(1,), {"a": 2}, thread.ident, "mine"] and thread.ident != threading.get_ident()
    assert not thread.is_alive() and "stopped" in repr(thread)
    thread.join(0)
    assert all(t.name != "mine" for t in threading.enumerate())


def test_joining_blocks_the_greenlet_only() -> None:
    lock = threading.Lock()
    lock.acquire()
    thread = Thread(target=lock.acquire)
    thread.start()
    bridge.sleep(0)
    assert in_greenlet()
    bridge.spawn(lock.release)  # runs while we wait
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.engines("none")
def test_joining_without_a_hub_blocks_the_thread() -> None:
    release = threading.Lock()
    release.acquire()
    thread = Thread(target=release.acquire)
    thread.start()
    assert not in_greenlet()
    thread.join(0.001)
    assert thread.is_alive()
    release.release()
    thread.join()
    assert not thread.is_alive()


@pytest.mark.engines("none")
def test_what_a_thread_refuses() -> None:
    thread = Thread()
    with pytest.raises(RuntimeError, match="before it is started"):
        thread.join()
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="only be started once"):
        thread.start()
    errors: list[BaseException] = []

    def join_itself() -> None:
        try:
            threads[0].join()
        except RuntimeError as e:
            errors.append(e)

    threads = [Thread(target=join_itself)]
    threads[0].start()
    threads[0].join()
    assert "current thread" in str(errors[0])


@pytest.mark.engines("none")
def test_errors_of_a_thread_are_reported_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def fail() -> None:
        raise ValueError("wrong")

    for target in (fail, sys.exit):
        thread = Thread(target=target, name="failing")
        thread.start()
        thread.join()
    (args,) = reported
    assert args.exc_type is ValueError and args.thread is not None and args.thread.name == "failing"


@pytest.mark.engines("none")
def test_a_semaphore_gives_its_permits() -> None:
    semaphore = Semaphore(1)
    assert semaphore.acquire(timeout=0) and not semaphore.acquire(timeout=0)
    assert not semaphore.acquire(blocking=False)
    semaphore.release(2)
    assert semaphore.acquire() and semaphore.acquire()


@pytest.mark.engines("none")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_does_not_wait_for_the_threads_of_its_parent(run_fresh: Run) -> None:
    out = run_fresh("""
        import os, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        from bridge.monkey._native import Thread
        lock = threading.Lock()
        lock.acquire()
        thread = Thread(target=lock.acquire)
        thread.start()
        pid = os.fork()
        if not pid:
            thread.join()
            os._exit(5 if not thread.is_alive() else 6)
        _, status = os.waitpid(pid, 0)
        assert thread.is_alive()
        lock.release()
        thread.join()
        print(os.waitstatus_to_exitcode(status))
    """)
    assert out == "5\n"


CODE = """
limit = 1
class Base:
    def get(self):
        return limit
class Derived(Base):
    def __init__(self):
        super().__init__()
        self.made = helper()
    def get(self):
        return super().get(), limit
def helper():
    return limit
"""


@pytest.mark.engines("none")
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="there are no masks of signals")
def test_sending_a_descriptor_to_another_process_blocks_no_signals(run_fresh: Run) -> None:
    run_fresh("""
        from bridge import monkey
        monkey.patch_all()
        import bridge, os, signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        from multiprocessing import resource_sharer
        r, w = os.pipe()
        sent = resource_sharer.DupFd(w)
        with bridge.Timeout(30):
            received = sent.detach()  # as the other process does: asks a thread of this one
            os.write(received, b"x")
            assert os.read(r, 1) == b"x"
            assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
            resource_sharer.stop(30)
    """)


@pytest.fixture
def module() -> ModuleType:
    made = ModuleType("example")
    exec(CODE, made.__dict__)
    return made


@pytest.mark.engines("none")
def test_functions_of_a_view_see_the_view(module: ModuleType) -> None:
    view = View(module)
    module.limit = 2
    assert (module.helper(), view.helper(), view.limit) == (2, 1, 1)
    assert view.Base is module.Base and view.Base().get() == 2
    copied = copy_class(module.Base, vars(view))
    assert issubclass(copied, module.Base) and copied().get() == 1
    module.added = 3
    assert view.added == 3
    with pytest.raises(AttributeError):
        _ = view.missing


@pytest.mark.engines("none")
def test_a_class_can_be_given_another_base(module: ModuleType) -> None:
    view = View(module)
    module.limit = 2

    class Other:
        def get(self) -> str:
            return "other"

    made = rebase_class(module.Derived, Other, vars(view))
    assert made.__bases__ == (Other,) and made().get() == ("other", 1) and made().made == 1
    assert module.Derived().get() == (2, 2)


@pytest.mark.engines("none")
def test_functions_are_called_after_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_later.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen: list[object] = []
    after_import("imported_later", lambda module: seen.append(module.value))
    assert seen == []
    import imported_later  # type: ignore[import-not-found]

    assert seen == [1]
    after_import("imported_later", lambda module: seen.append(module))
    assert seen == [1, imported_later]
    assert type(imported_later.__spec__.loader).__name__ == "SourceFileLoader"
    assert imported_later.__spec__.loader is imported_later.__loader__
