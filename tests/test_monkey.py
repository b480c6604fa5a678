"""The mechanism of monkey patching: replacing attributes of modules, and what was before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from bridge import events, monkey
from bridge.monkey import MonkeyPatchWarning, api

pytestmark = pytest.mark.engines("none")


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
