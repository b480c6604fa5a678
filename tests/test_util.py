"""Looking at a running program."""

from __future__ import annotations

import contextlib
import gc
import inspect
import io
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import greenlet as raw
import pytest

import bridge
from bridge import util
from bridge.local import local
from bridge.util import GreenletTree, assert_switches, wrap_errors

ROOT = Path(__file__).resolve().parents[1]


class MyLocal(local):
    def __init__(self, foo: object) -> None:
        self.foo = foo


class Unprintable:
    def __repr__(self) -> str:
        raise LookupError


@pytest.fixture(autouse=True)
def no_greenlets_of_other_tests() -> None:
    gc.collect()


QUIET = {"running_stacks": False, "spawning_stacks": False}


def section(text: str, label: str) -> list[str]:
    """The lines about the greenlet whose line has *label*, and about its children."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if label in line and ("+---" in line or i == 0))
    depth = lines[start].find("+---")
    rest = lines[start + 1 :]
    end = next((i for i, line in enumerate(rest) if "+---" in line and line.find("+---") <= depth), len(rest))
    return [lines[start], *rest[:end]]


# -- wrap_errors ---------------------------------------------------------------------------------------


def test_wrap_errors() -> None:
    def divide(a: int, *, by: int) -> float:
        """Divide."""
        return a / by

    divide.mark = 5  # type: ignore[attr-defined]
    wrapped = wrap_errors((ZeroDivisionError, KeyError), divide)
    assert wrapped(6, by=2) == 3
    assert isinstance(wrapped(1, by=0), ZeroDivisionError)
    with pytest.raises(TypeError):
        wrapped(1, by="x")
    assert (str(wrapped), repr(wrapped)) == (str(divide), repr(divide))
    assert wrapped.__name__ == "divide"
    assert wrapped.__doc__ == "Divide."
    assert wrapped.mark == 5
    divide.mark = 6  # type: ignore[attr-defined]
    assert wrapped.mark == 6
    with pytest.raises(AttributeError):
        _ = wrapped.nope
    assert isinstance(wrap_errors(ValueError, int)("x"), ValueError)
    with pytest.raises(AttributeError):
        _ = wrap_errors.__new__(wrap_errors).anything


def test_wrap_errors_in_a_greenlet() -> None:
    def fail() -> None:
        raise LookupError("expected")

    g = bridge.spawn(wrap_errors(LookupError, fail))
    assert isinstance(g.get(), LookupError)
    assert g.successful()


# -- run info ------------------------------------------------------------------------------------------


@pytest.mark.engines("none")
def test_run_info_with_raw_greenlets_only() -> None:
    program = """
import threading
from bridge import util

def somewhere():
    return chr(10).join(util.format_run_info())

text = somewhere()
assert "* Threads" in text and "* Greenlets" in text
assert f"Thread {threading.get_ident():#x} (MainThread) (CURRENT)" in text
assert text.count("in somewhere") == 2
assert "in format_run_info" not in text
for absent in ("Spawned at", "Spawn Tree Locals", "Hub"):
    assert absent not in text, text
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


def test_run_info_of_greenlets() -> None:
    rl = local()
    rl.some_attr = 1

    def root() -> str:
        mine, empty = MyLocal(42), local()
        assert mine.foo == 42 and empty.__dict__ == {}
        bridge.getcurrent().spawn_tree_locals["a value"] = 42  # type: ignore[attr-defined]
        out = io.StringIO()
        bridge.spawn(util.print_run_info, file=out).join()
        return out.getvalue()

    g = bridge.spawn(root)
    g.name = "Printer"
    value = g.get()
    for expected in ("Spawned at:", "Parent: <Hub", "Spawn Tree Locals", "Greenlet Locals:", "MyLocal"):
        assert expected in value
    assert "'some_attr': 1" in value
    assert "{'a value': 42}" in value
    assert "Printer" in value
    # other greenlets may be alive, with frames that have such text in them
    assert not any(line.rstrip().endswith(" {}") for line in value.splitlines())
    assert value.endswith("\n")
    assert value.count("{'a value': 42}") == 1


def test_run_info_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    util.print_run_info(thread_stacks=False, greenlet_stacks=False)
    captured = capsys.readouterr()
    assert "* Threads" in captured.err
    assert captured.out == ""


def test_run_info_of_other_threads() -> None:
    started, go_on = threading.Event(), threading.Event()

    def here_it_waits() -> None:
        with contextlib.suppress(bridge.Timeout), bridge.Timeout(10):
            started.set()
            go_on.wait(10)

    def thread() -> None:
        bridge.spawn(here_it_waits).join()

    other = threading.Thread(target=thread, name="the other")
    other.start()
    started.wait(10)
    try:
        text = "\n".join(util.format_run_info())
        marked = util.format_run_info(current_thread_ident=other.ident)
        brief = "\n".join(util.format_run_info(thread_stacks=False, greenlet_stacks=False))
        shallow = util.format_run_info(limit=1)
        trees = GreenletTree.forest()
        current = [tree for tree in trees if tree.is_current_tree]
    finally:
        go_on.set()
        other.join()
    assert f"Thread {other.ident:#x} (the other)" in text
    assert "here_it_waits" in text.split("* Greenlets")[0]
    assert text.count("---- Thread boundary") >= 2
    assert f"Thread {other.ident:#x} (the other) (CURRENT)" in marked
    assert "the other" in brief and "Running:" not in brief
    assert "here_it_waits" not in brief.split("* Greenlets")[0]
    assert len(shallow) < len(text.splitlines())
    assert len(current) == 1 and current[0].root
    assert current[0].greenlet is not None and "MainThread" in text


def test_idle_workers_are_not_shown_in_full() -> None:
    started, go_on = threading.Event(), threading.Event()

    def pool_worker() -> None:
        bridge_threadpool_worker_idle = True
        assert bridge_threadpool_worker_idle
        started.set()
        go_on.wait(10)

    thread = threading.Thread(target=pool_worker, name="lazy")
    thread.start()
    started.wait(10)
    try:
        lines = util.format_run_info()
    finally:
        go_on.set()
        thread.join()
    where = next(i for i, line in enumerate(lines) if "(lazy)" in line)
    assert "idle worker" in lines[where + 1]


def test_run_info_does_not_make_a_hub() -> None:
    made: list[object] = []

    def thread() -> None:
        from bridge._core.current import get_hub_if_exists

        util.format_run_info()
        made.append(get_hub_if_exists())

    other = threading.Thread(target=thread)
    other.start()
    other.join()
    assert made == [None]


def test_old_name() -> None:
    assert util.dump_stacks is util.format_run_info


# -- trees ---------------------------------------------------------------------------------------------


def test_tree_of_a_finished_family() -> None:
    kept: list[Any] = []

    def spawn(f: Any) -> Any:
        g = bridge.spawn(f)
        kept.append(g)
        return g

    def fail() -> None:
        raise LookupError("expected")

    def middle() -> Any:
        g = spawn(lambda: "leaf")
        g.name = "Leaf"
        return "middle value"

    def top() -> None:
        bridge.getcurrent().spawn_tree_locals["stl"] = "STL"  # type: ignore[attr-defined]
        g = spawn(middle)
        g.name = "Middle"

    tops = spawn(top)
    tops.name = "Top"
    bridge.joinall([tops])
    bridge.joinall(kept)
    hub = bridge.get_hub()
    hub.handle_error = lambda *args: None
    try:
        failing = spawn(fail)
        failing.name = "Failing"
        failing.join()
    finally:
        del hub.handle_error
    tree = GreenletTree.current_tree()
    assert tree.root and tree.is_current_tree
    assert tree.greenlet in (raw.getcurrent(), hub.parent)
    assert tree.dead is False  # an attribute of the greenlet
    simple = str(tree)
    assert "Parent" not in simple
    assert simple == tree.format(details=False) == "\n".join(tree.format_lines(details=False))
    text = tree.format(details=QUIET)
    assert text.splitlines()[1] == " :    Parent: None"
    # each generation is five columns further in
    columns = [section(text, f'"{name}"')[0].index("+---") for name in ("Top", "Middle", "Leaf")]
    assert [column - columns[0] for column in columns] == [0, 5, 10]
    assert text.count("Spawn Tree Locals") == text.count("{'stl': 'STL'}") == 1
    assert "; finished with value 'middle value'" in section(text, '"Middle"')[0]
    assert "; finished with value 'leaf'" in section(text, '"Leaf"')[0]
    assert "; finished with exception LookupError('expected')" in section(text, '"Failing"')[0]
    detailed = tree.format()
    assert "Spawned at:" in detailed
    assert "test_tree_of_a_finished_family" in detailed


def test_shape_of_a_tree() -> None:
    bridge.get_hub()  # no hub, no numbers

    class Fake:
        parent = None
        dead = False

        def __init__(self, name: str, number: int | None = None) -> None:
            self.name = name
            if number is not None:
                self.minimal_ident = number

        def __repr__(self) -> str:
            return self.name

    def tree(name: str, number: int | None, *children: GreenletTree) -> GreenletTree:
        made = GreenletTree(Fake(name, number))
        for child in children:
            made.add_child(child)
        return made

    family = tree(
        "root",
        None,
        tree("without number", None),
        tree("second", 2, tree("grandchild", 4, tree("great-grandchild", 5))),
        tree("first", 1, tree("b", 8), tree("a", 7, tree("c", 9))),
    )
    family.add_child(family)  # no
    assert str(family).splitlines() == [
        "root",
        " +--- first",
        " |    +--- a",
        " |    |    +--- c",
        " |    +--- b",
        " +--- second",
        " |    +--- grandchild",
        " |         +--- great-grandchild",
        " +--- without number",
    ]
    detailed = family.format({**QUIET, "locals": False})
    assert detailed.splitlines()[:7] == [
        "root",
        " :    Parent: None",
        " +--- first",
        " :          Parent: None",
        " |    +--- a",
        " :                Parent: None",
        " |    |    +--- c",
    ]
    assert detailed.splitlines()[-2:] == [" +--- without number", "            Parent: None"]


def test_details() -> None:
    def sleeping() -> None:
        mine = MyLocal(Unprintable())
        assert mine
        bridge.sleep(10)

    g = bridge.spawn(sleeping)
    g.name = "Sleeper"
    bridge.sleep(0)
    try:
        tree = GreenletTree.current_tree()
        everything = "\n".join(section(tree.format(), '"Sleeper"'))
        no_locals = "\n".join(section(tree.format(details={"locals": False}), '"Sleeper"'))
        quiet = "\n".join(section(tree.format(details=QUIET), '"Sleeper"'))
        shallow = "\n".join(section(tree.format(details={"running_stack_limit": 1}), '"Sleeper"'))
    finally:
        g.kill()
    assert "Running:" in everything and "in sleeping" in everything
    assert "Spawned at:" in everything and "in test_details" in everything
    assert "its text failed with LookupError" in everything
    assert "Locals" not in no_locals and "Running:" in no_locals
    assert "Running:" not in quiet and "Spawned at:" not in quiet and "Greenlet Locals:" in quiet
    assert "in sleeping" not in shallow.split("Spawned at:")[0]
    assert "not running" not in everything


def test_greenlets_that_do_not_run() -> None:
    unstarted = bridge.Greenlet(bridge.sleep)
    unstarted.name = "Unstarted"
    assert "; not running" in section(str(GreenletTree.current_tree()), '"Unstarted"')[0]


def test_tree_of_greenlets_with_a_fake_root() -> None:
    def run() -> GreenletTree:
        inner = raw.greenlet(GreenletTree.current_tree)
        inner.parent.greenlet_tree_is_ignored = True  # type: ignore[union-attr]
        inner.greenlet_tree_is_root = True  # type: ignore[attr-defined]
        return inner.switch()  # type: ignore[no-any-return]

    outer = raw.greenlet(run)
    tree = outer.switch()
    lines = tree.format(details=QUIET).splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("; not running")
    assert lines[1] == f" :    Parent: {outer!r}"


def test_spawner_that_is_gone() -> None:
    kept: list[bridge.Greenlet[Any]] = []

    def spawner() -> None:
        kept.append(bridge.spawn(bridge.sleep, 10))

    bridge.spawn(spawner).join()
    gc.collect()
    kept[0].name = "Orphan"
    try:
        assert '"Orphan"' in str(GreenletTree.current_tree())
        assert sum('"Orphan"' in str(tree) for tree in GreenletTree.forest()) == 1
    finally:
        kept[0].kill()


def test_long_chain() -> None:
    chain: list[Any] = []

    def link(number: int) -> None:
        if number:
            chain.append(bridge.spawn(link, number - 1))

    chain.append(bridge.spawn(link, 2000))
    bridge.joinall([chain[0]])
    while len(chain) < 2001:
        bridge.sleep(0)
    bridge.joinall(chain)
    lines = GreenletTree.current_tree().format_lines(details=False)
    assert max(line.find("+---") for line in lines) >= 1 + 5 * 2000


def test_without_tracking() -> None:
    tracked = bridge.config.track_greenlet_tree
    bridge.config.track_greenlet_tree = False
    try:
        g = bridge.spawn(bridge.sleep, 10)
        g.name = "Untracked"
        bridge.sleep(0)
        lines = section(GreenletTree.current_tree().format(), '"Untracked"')
        g.kill()
    finally:
        bridge.config.track_greenlet_tree = tracked
    assert not any("Spawned at" in line for line in lines)


# -- assert_switches -----------------------------------------------------------------------------------


def test_no_switch_at_all() -> None:
    with pytest.raises(AssertionError) as caught, assert_switches():
        time.sleep(0.001)
    assert isinstance(caught.value, util._FailedToSwitch)
    message = str(caught.value)
    assert message.startswith("To any greenlet in ")
    assert "appears to be blocked" in message
    assert "test_no_switch_at_all" in message
    assert "* Greenlets" in message


def test_switching_is_enough() -> None:
    with assert_switches() as entered:
        bridge.sleep(0.001)
    assert isinstance(entered, assert_switches)
    assert entered.hub is None and entered.tracer is None
    with assert_switches():
        raw.greenlet(lambda: None).switch()


def test_time_limit() -> None:
    limit = r"(?s)To any greenlet in .*\(max allowed 0\.0010 seconds\)"
    with pytest.raises(AssertionError, match=limit), assert_switches(0.001):
        time.sleep(0.02)
    with assert_switches(1.0):
        pass
    with assert_switches(max_blocking_time=5, hub_only=False):
        time.sleep(0)


def test_time_limit_between_switches() -> None:
    with pytest.raises(AssertionError, match="To any greenlet"), assert_switches(0.02):
        bridge.sleep(0)
        time.sleep(0.05)
        bridge.sleep(0)
    with assert_switches(0.5):
        for _ in range(3):
            bridge.sleep(0.001)


def test_waiting_in_the_hub_is_not_blocking() -> None:
    for hub_only in (False, True):
        with assert_switches(0.25, hub_only=hub_only):
            bridge.sleep(0.3)


def test_hub_only() -> None:
    limit = r"(?s)To the hub in .*\(max allowed 5\.0000 seconds\)"
    with pytest.raises(AssertionError, match=limit), assert_switches(5, hub_only=True):
        raw.greenlet(lambda: None).switch()
    with pytest.raises(AssertionError, match="To the hub"), assert_switches(0.02, hub_only=True):
        bridge.sleep(0.001)
        raw.greenlet(lambda: time.sleep(0.05)).switch()
    with assert_switches(hub_only=True):  # no time given: no effect
        raw.greenlet(lambda: None).switch()


def test_in_a_greenlet() -> None:
    def run() -> str:
        with pytest.raises(AssertionError) as caught, assert_switches():
            pass
        with assert_switches():
            bridge.sleep(0)
        return str(caught.value)

    g = bridge.spawn(run)
    g.name = "Blocker"
    assert '"Blocker"' in g.get().split("appears to be blocked")[0]


def test_exception_of_the_body_passes() -> None:
    with pytest.raises(NameError), assert_switches():
        raise NameError
    assert raw.gettrace() is None


def test_nested() -> None:
    target: Any = object()
    before = raw.gettrace()
    with pytest.raises(AssertionError), assert_switches() as outer:
        assert raw.gettrace() is outer.tracer  # type: ignore[comparison-overlap]
        assert outer.tracer is not None and outer.tracer.active_greenlet is raw.getcurrent()
        with assert_switches() as inner:
            assert raw.gettrace() is inner.tracer  # type: ignore[comparison-overlap]
            assert inner.tracer is not None and inner.tracer.previous_trace_function is outer.tracer
            inner.tracer("switch", (target, target))
            assert inner.tracer.active_greenlet is target
            assert outer.tracer.active_greenlet is target
        assert raw.gettrace() is outer.tracer  # type: ignore[comparison-overlap]
        outer.tracer.did_block_hub(None)
    assert raw.gettrace() is before


def test_tracer() -> None:
    seen: list[Any] = []
    old = raw.settrace(lambda *args: seen.append(args))
    try:
        tracer = util.GreenletTracer()
        assert (tracer.greenlet_switch_counter, tracer.active_greenlet) == (0, None)
        tracer("unknown", None)
        assert (tracer.greenlet_switch_counter, tracer.active_greenlet) == (1, None)
        here, hub = object(), object()
        tracer("switch", (hub, here))
        assert (tracer.greenlet_switch_counter, tracer.active_greenlet) == (2, here)
        assert tracer.did_block_hub(hub) is None
        assert tracer.did_block_hub(hub) is here
        tracer("throw", (here, hub))
        tracer.did_block_hub(hub)
        assert tracer.did_block_hub(hub) is None
        tracer.monitor_current_greenlet_blocking()
        assert tracer.did_block_hub(hub) is raw.getcurrent()
        tracer.ignore_current_greenlet_blocking()
        assert tracer.did_block_hub(hub) is None
        tracer.kill()
        tracer.kill()
        assert raw.gettrace() is not tracer  # type: ignore[comparison-overlap]
        assert [event for event, _ in seen] == ["unknown", "switch", "throw"]
    finally:
        raw.settrace(old)


# -- the rest ------------------------------------------------------------------------------------------


def test_clear_stack_frames() -> None:
    completed: list[int] = []

    def run() -> None:
        util.clear_stack_frames(inspect.currentframe())
        completed.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert completed == [1]

    def fail() -> None:
        big = [1]
        raise LookupError(big)

    try:
        fail()
    except LookupError as ex:
        assert ex.__traceback__ is not None and ex.__traceback__.tb_next is not None
        frame = ex.__traceback__.tb_next.tb_frame
    assert "big" in frame.f_locals
    util.clear_stack_frames(frame)
    assert "big" not in frame.f_locals
    util.clear_stack_frames(None)


def test_names() -> None:
    assert set(util.__all__) == {
        "format_run_info", "print_run_info", "GreenletTree", "wrap_errors", "assert_switches",
    }  # fmt: skip
    assert util.is_idle_threadpool_worker(sys._getframe()) is False
