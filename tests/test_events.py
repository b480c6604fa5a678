"""Events, subscribers and entry points."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge import events

pytestmark = pytest.mark.engines("none")

ROOT = Path(__file__).resolve().parents[1]

EVENTS: list[tuple[Any, Any]] = [
    (events.EventLoopBlocked(None, 1.5, ["line"]), events.IEventLoopBlocked),
    (events.MemoryUsageThresholdExceeded(3, 2, ()), events.IMemoryUsageThresholdExceeded),
    (events.MemoryUsageUnderThreshold(1, 2, (), 3), events.IMemoryUsageUnderThreshold),
    (events.PeriodicMonitorThreadStartedEvent(None), events.IPeriodicMonitorThreadStartedEvent),
    (events.GeventPatchEvent(sys, sys), events.IGeventPatchEvent),
    (events.GeventWillPatchEvent(sys, sys), events.IGeventWillPatchEvent),
    (events.GeventDidPatchEvent(sys, sys), events.IGeventDidPatchEvent),
    (events.GeventWillPatchModuleEvent("sys", sys, sys, ["a"]), events.IGeventWillPatchModuleEvent),
    (events.GeventDidPatchModuleEvent("sys", sys, sys), events.IGeventDidPatchModuleEvent),
    (events.GeventWillPatchAllEvent({"os": True}, {}), events.IGeventWillPatchAllEvent),
    (
        events.GeventDidPatchBuiltinModulesEvent({"os": True}, {"x": 1}),
        events.IGeventDidPatchBuiltinModulesEvent,
    ),
    (events.GeventDidPatchAllEvent({"os": True}, {}), events.IGeventDidPatchAllEvent),
]


@pytest.fixture
def received() -> Iterator[list[Any]]:
    collected: list[Any] = []
    before = events.subscribers[:]
    events.subscribers.append(collected.append)
    try:
        yield collected
    finally:
        events.subscribers[:] = before


@pytest.mark.parametrize(("event", "interface"), EVENTS, ids=lambda value: type(value).__name__)
def test_each_event_has_its_interface(event: Any, interface: Any) -> None:
    assert interface.providedBy(event)
    assert interface.implementedBy(type(event))
    assert not interface.providedBy(object())
    assert type(event).__name__ in repr(event)


def test_interfaces_are_inherited() -> None:
    event = events.GeventWillPatchAllEvent({}, {})
    assert events.IGeventWillPatchEvent.providedBy(event)
    assert events.IGeventPatchEvent.providedBy(event)
    assert not events.IGeventDidPatchEvent.providedBy(event)
    assert not events.IEventLoopBlocked.providedBy(event)


@pytest.mark.parametrize(("event", "interface"), EVENTS, ids=lambda value: type(value).__name__)
def test_zope_agrees(event: Any, interface: Any) -> None:
    verify = pytest.importorskip("zope.interface.verify")
    assert verify.verifyObject(interface, event)
    assert verify.verifyClass(interface, type(event))


def test_zope_event_is_used_if_there() -> None:
    event = pytest.importorskip("zope.event")
    assert events.subscribers is event.subscribers
    assert events.notify is event.notify


def test_without_zope() -> None:
    program = """
import sys
sys.modules["zope"] = sys.modules["zope.interface"] = sys.modules["zope.event"] = None
from bridge import events
got = []
events.subscribers.append(got.append)
event = events.GeventWillPatchAllEvent({"os": True, "ssl": False}, {})
events.notify(event)
events.notify_and_call_entry_points(event)
assert got == [event, event]
assert events.IGeventPatchEvent.providedBy(event)
assert events.IGeventPatchEvent.implementedBy(events.GeventDidPatchAllEvent)
assert not events.IEventLoopBlocked.providedBy(event)
assert events.IEventLoopBlocked.hub.__doc__
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


def test_attributes() -> None:
    hub, greenlet = object(), object()
    blocked = events.EventLoopBlocked(greenlet, 2.0, ["a"], hub=hub)
    assert (blocked.greenlet, blocked.blocking_time, blocked.info, blocked.hub) == (greenlet, 2.0, ["a"], hub)
    assert events.EventLoopBlocked(greenlet, 2.0, []).hub is None
    under = events.MemoryUsageUnderThreshold(1, 2, (3,), 4)
    assert (under.mem_usage, under.max_allowed, under.memory_info, under.max_memory_usage) == (1, 2, (3,), 4)
    assert repr(under) == "<MemoryUsageUnderThreshold used=1 max=2 details=(3,)>"
    will = events.GeventWillPatchModuleEvent("os", 1, 2, ["fork"])
    assert (will.module_name, will.source, will.target, will.target_item_names) == ("os", 1, 2, ["fork"])
    everything = events.GeventWillPatchAllEvent({"os": True, "ssl": False}, {"x": 1})
    assert everything.patch_all_arguments == {"os": True, "ssl": False}
    assert everything.patch_all_kwargs == {"x": 1}
    assert everything.will_patch_module("os") is True
    assert everything.will_patch_module("ssl") is False
    assert everything.will_patch_module("other") is False
    with pytest.raises(AttributeError):
        everything.patch_all_arguments = {}  # type: ignore[misc]
    assert issubclass(events.DoNotPatch, BaseException) and not issubclass(events.DoNotPatch, Exception)


def test_notify_calls_subscribers_in_order_until_one_raises(received: list[Any]) -> None:
    def refuse(event: object) -> None:
        raise events.DoNotPatch

    events.notify("one")
    events.subscribers.append(refuse)
    events.subscribers.append(lambda event: received.append("not reached"))
    with pytest.raises(events.DoNotPatch):
        events.notify("two")
    assert received == ["one", "two"]


def test_entry_points_of_both_names(
    received: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "my_plugins.py").write_text("called = []\nfrom functools import partial\n")
    info = tmp_path / "my_plugins-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugins\nVersion: 1\n")
    # gevent.monkey: what the original gevent has, which may be installed beside
    (info / "entry_points.txt").write_text(
        "[gevent.plugins.monkey.did_patch_module]\n"
        "one = my_plugins:called.append\nboth = my_plugins:called.count\nown = gevent.monkey:f\n"
        "[bridge.plugins.monkey.did_patch_module]\n"
        "both = my_plugins:called.count\ntwo = my_plugins:called.extend.__self__.append\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    event = events.GeventDidPatchModuleEvent("os", None, None)
    events.notify_and_call_entry_points(event)
    assert received == [event]
    import my_plugins  # type: ignore[import-not-found]

    assert my_plugins.called == [event, event]
    # nobody registered for this one
    events.notify_and_call_entry_points(events.GeventDidPatchAllEvent({}, {}))
    assert my_plugins.called == [event, event]


def test_groups_of_entry_points() -> None:
    groups = {
        events.PeriodicMonitorThreadStartedEvent: "gevent.plugins.hub.periodic_monitor_thread_started",
        events.GeventWillPatchModuleEvent: "gevent.plugins.monkey.will_patch_module",
        events.GeventDidPatchModuleEvent: "gevent.plugins.monkey.did_patch_module",
        events.GeventWillPatchAllEvent: "gevent.plugins.monkey.will_patch_all",
        events.GeventDidPatchBuiltinModulesEvent: "gevent.plugins.monkey.did_patch_builtins",
        events.GeventDidPatchAllEvent: "gevent.plugins.monkey.did_patch_all",
    }
    assert {cls: cls.ENTRY_POINT_NAME for cls in groups} == groups


def test_all_names_are_there() -> None:
    assert all(hasattr(events, name) for name in events.__all__)
