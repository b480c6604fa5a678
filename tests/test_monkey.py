"""The mechanism of monkey patching: replacing attributes of modules, and what was before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bridge import events, monkey
from bridge.monkey import MonkeyPatchWarning, api

pytestmark = pytest.mark.engines("none")

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = {name: dict(items) for name, items in monkey.saved.items()}
    yield
    monkey.saved.clear()
    monkey.saved.update(before)


@pytest.fixture
def published() -> Iterator[list[Any]]:
    found: list[Any] = []
    events.subscribers.append(found.append)
    yield found
    events.subscribers.remove(found.append)


def module(name: str, **names: object) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(names)
    return made


def test_patch_module_replaces_what_the_source_implements(published: list[Any]) -> None:
    target = module("target", a=1, b=2)
    source = module("source", a=10, b=20, c=30, __implements__=["a", "c"])
    assert not monkey.is_module_patched("target")
    assert monkey.patch_module(target, source) is True
    assert (target.a, target.b, target.c) == (10, 2, 30)
    assert monkey.saved["target"] == {"a": 1}
    assert monkey.is_module_patched("target") and monkey.is_anything_patched()
    assert monkey.is_object_patched("target", "a")
    assert not monkey.is_object_patched("target", "b")
    assert not monkey.is_object_patched("no_such_module", "b")
    will, did = published
    assert isinstance(will, events.GeventWillPatchModuleEvent)
    assert (will.module_name, will.source, will.target) == ("target", source, target)
    assert will.target_item_names == ["a", "c"]
    assert isinstance(did, events.GeventDidPatchModuleEvent) and did.module_name == "target"
    # the first original counts
    assert monkey.patch_module(target, module("other", a=11), items=["a"])
    assert target.a == 11 and monkey.saved["target"] == {"a": 1}


def test_a_source_must_say_what_it_implements_and_have_it() -> None:
    target = module("target", a=1)
    with pytest.raises(AttributeError, match="__implements__"):
        monkey.patch_module(target, module("source"))
    with pytest.raises(AttributeError, match="no_such_name"):
        monkey.patch_module(target, module("source", a=2), items=["a", "no_such_name"])
    assert target.a == 1, "half of it must not be patched"


def test_hooks_are_called_around_patching_and_may_change_the_items() -> None:
    log: list[Any] = []

    def will(target: ModuleType, items: list[str], warn: Any, **kwargs: object) -> None:
        log.append(("will", target.__name__, list(items), kwargs, target.__dict__.get("a")))
        items.remove("b")
        warn("careful")

    def did(target: ModuleType, items: list[str], warn: Any, **kwargs: object) -> None:
        log.append(("did", items, target.__dict__.get("a")))

    target = module("target", a=1, b=2)
    source = module(
        "source",
        a=10,
        b=20,
        __implements__=["a", "b"],
        _gevent_will_monkey_patch=will,
        _gevent_did_monkey_patch=did,
    )
    with pytest.warns(MonkeyPatchWarning, match="careful"):
        assert monkey.patch_module(target, source, _patch_kwargs={"x": 1})
    assert (target.a, target.b) == (10, 2)
    assert log == [("will", "target", ["a", "b"], {"x": 1}, 1), ("did", ["a"], 10)]
    assert source.__implements__ == ["a", "b"]
    collected: list[str] = []
    assert monkey.patch_module(target, source, _warnings=collected)
    assert collected == ["careful"]
    assert monkey.patch_module(target, source, _call_hooks=False)
    assert target.b == 20


def test_a_source_may_patch_by_itself() -> None:
    def do(request: api.PatchRequest) -> None:
        requests.append(request)
        request.default_patch_items()
        request.remove_item("gone", "never_there")

    requests: list[api.PatchRequest] = []
    target = module("target", a=1, gone=2)
    source = module("source", a=10, __implements__=["a"], _gevent_do_monkey_patch=do)
    assert monkey.patch_module(target, source, _patch_kwargs={"aggressive": True})
    assert target.a == 10 and not hasattr(target, "gone")
    assert monkey.saved["target"] == {"a": 1, "gone": 2}
    [request] = requests
    assert request.patch_kwargs == {"aggressive": True} and request.items == ["a"]
    assert request.get_original("os", "getpid") is os.getpid
    assert "target" in repr(request)


def test_who_raises_do_not_patch_prevents_it() -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise events.DoNotPatch

    target = module("target", a=1)
    source = module("source", a=10, __implements__=["a"], _gevent_will_monkey_patch=refuse)
    assert monkey.patch_module(target, source) is False
    del source._gevent_will_monkey_patch
    events.subscribers.append(refuse)
    try:
        assert monkey.patch_module(target, source) is False
        assert target.a == 1
        assert monkey.patch_module(
            target, source, _notify_will_subscribers=False, _notify_did_subscribers=False
        )
    finally:
        events.subscribers.remove(refuse)
    assert target.a == 10


def test_get_original(monkeypatch: pytest.MonkeyPatch) -> None:
    getpid, getppid = os.getpid, os.getppid
    monkeypatch.setattr(os, "getpid", getpid)  # put back at the end
    monkey.patch_item(os, "getpid", "replaced")
    assert os.getpid == "replaced"  # type: ignore[comparison-overlap]
    assert monkey.get_original("os", "getpid") is getpid
    assert monkey.get_original("os", "getppid") is getppid
    assert monkey.get_original(["no_such_module", "os"], ["getpid", "getppid"]) == [getpid, getppid]
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        monkey.get_original("no_such_module", "x")
    with pytest.raises(ImportError):
        monkey.get_original([], "x")
    with pytest.raises(AttributeError, match="no_such_name"):
        monkey.get_original("os", "no_such_name")


def test_patch_item_and_remove_item() -> None:
    target = module("target", a=1)
    monkey.patch_item(target, "new", 2)
    assert target.new == 2 and "target" not in monkey.saved
    monkey.patch_item(target, "a", 3)
    monkey.remove_item(target, "a")
    monkey.remove_item(target, "never_there")
    assert not hasattr(target, "a")
    assert monkey.saved["target"] == {"a": 1}


def test_the_warning_is_a_runtime_warning() -> None:
    assert issubclass(MonkeyPatchWarning, RuntimeWarning)
    with pytest.warns(MonkeyPatchWarning):
        api.process_warnings(["x"])


TWINS_IN_PLACE = """
import asyncio, multiprocessing, os, select, selectors, signal, socket, subprocess, sys, threading, time
import bridge, bridge.os, bridge.select, bridge.selectors, bridge.signal, bridge.time
from bridge import monkey

real_thread = threading.Thread
for name in ("os", "time", "select", "selectors", "signal"):
    assert monkey.patch_module(sys.modules[name], sys.modules["bridge." + name])
assert not hasattr(select, "epoll") and not hasattr(selectors, "EpollSelector")
assert selectors.DefaultSelector is bridge.selectors.GeventSelector
assert selectors.SelectSelector._select._gevent_monkey

ticks = []
def ticker():
    while True:
        time.sleep(0.005)
        ticks.append(1)
bridge.spawn(ticker)

# selectors of all kinds let others run
a, b = socket.socketpair()
for kind in (selectors.DefaultSelector, selectors.PollSelector, selectors.SelectSelector):
    with kind() as selector:
        key = selector.register(a, selectors.EVENT_READ)
        del ticks[:]
        bridge.spawn_later(0.03, b.send, b"x")
        assert selector.select() == [(key, selectors.EVENT_READ)], kind
        assert ticks, kind
        a.recv(1)

# a thread started now has a hub with epoll all the same
filenos = []
def thread():
    bridge.select.select([a], [], [], 0.001)
    filenos.append(bridge.get_hub().loop.fileno())
t = real_thread(target=thread)
t.start()
t.join()
assert filenos[0] > 0

# children, with a handler that blocks
def handler(signum, frame):
    time.sleep(0)
    handled.append(signum)
handled = []
assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
signal.signal(signal.SIGCHLD, handler)
assert signal.getsignal(signal.SIGCHLD) is handler
for func in (os.fork, lambda: os.forkpty()[0]):
    pid = func()
    if not pid:
        time.sleep(0.02)
        os._exit(3)
    del handled[:]
    with bridge.Timeout(5):
        while not handled:
            time.sleep(0.001)
    while True:
        found, status = os.waitpid(-1, os.WNOHANG)
        if found:
            break
        time.sleep(0.001)
    assert (found, status) == (pid, 3 << 8)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pass
    else:
        raise AssertionError("waited for twice")
watcher = bridge.signal_handler(signal.SIGTERM, handled.append, "term")
os.kill(os.getpid(), signal.SIGTERM)
with bridge.Timeout(5):
    while "term" not in handled:
        time.sleep(0.001)

del ticks[:]
command = ["sh", "-c", "sleep 0.05; cat; exit 4"]
done = subprocess.run(command, input=b"data" * 50000, capture_output=True)
assert (done.returncode, len(done.stdout)) == (4, 200000)
assert subprocess.call(["sh", "-c", "exit 5"]) == 5
process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.03,))
process.start()
process.join()
assert process.exitcode == 0
assert ticks

# a loop of asyncio's in a greenlet
async def main():
    return await asyncio.sleep(0.03, "slept")
del ticks[:]
assert asyncio.run(main()) == "slept"
assert ticks
print("done")
"""


@pytest.mark.parametrize("kind", ["uvloop", "asyncio"])
def test_the_twins_work_in_the_place_of_the_real_modules(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TWINS_IN_PLACE],
        env={**os.environ, "BRIDGE_LOOP": kind},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")
