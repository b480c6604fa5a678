"""bridge.core."""

from __future__ import annotations

import time

import pytest

import bridge
from bridge import core
from bridge._core.callbacks import Callback
from bridge._core.loop import loop as Loop


def test_the_loop_and_its_watchers() -> None:
    assert core.loop is Loop
    assert isinstance(bridge.get_hub().loop, core.loop)
    loop = bridge.get_hub().loop
    made = {
        core.io: loop.io(1, core.READ),
        core.timer: loop.timer(1),
        core.signal: loop.signal(2),
        core.idle: loop.idle(),
        core.prepare: loop.prepare(),
        core.check: loop.check(),
        core.fork: loop.fork(),
        core.async_: loop.async_(),
        core.stat: loop.stat("."),
        core.child: loop.child(1),
    }
    for kind, watcher in made.items():
        assert type(watcher) is kind
        assert isinstance(watcher, core.watcher)
    assert getattr(core, "async") is core.async_
    assert type(loop.run_callback(bool)) is core.callback is Callback


def test_events_have_names() -> None:
    assert (core.READ, core.WRITE, core.READWRITE) == (1, 2, 3)
    assert core._events_to_str(core.READWRITE) == "READ|WRITE"
    assert core._events_to_str(core.TIMER | core.READ) == "READ|TIMER"
    assert core._events_to_str(0x10 | core.WRITE) == "WRITE|0x10"
    assert core._events_to_str(core.NONE) == "0x0"
    assert repr(core.EVENTS) == str(core.EVENTS) == "gevent.core.EVENTS"
    assert (core.MINPRI, core.MAXPRI) == (-2, 2)
    assert core._events_to_str(core.PERIODIC | core.EMBED) == "PERIODIC|EMBED"


def test_the_numbers_of_libevs_backends_are_there_and_none_is_in_use() -> None:
    backends = [value for name, value in vars(core).items() if name.startswith("BACKEND_")]
    assert sorted(backends) == [1 << n for n in range(8)]
    assert bridge.get_hub().loop.backend_int not in backends


@pytest.mark.parametrize(
    ("setting", "version"), [("asyncio", r"asyncio-3\.\d+"), ("uvloop", r"uvloop-\d+\.\d+")]
)
@pytest.mark.engines("none")
def test_the_version_is_that_of_the_loop(setting: str, version: str) -> None:
    before = bridge.config.aio_loop_factory
    try:
        bridge.config.loop = setting
        assert core.get_version() == core.get_header_version()
        assert __import__("re").match(version, core.get_version())
        assert setting in core.supported_backends()
        assert core.recommended_backends() == core.supported_backends()
        assert core.embeddable_backends() == []
    finally:
        bridge.config.aio_loop_factory = before
        del bridge.config.loop
        del bridge.config.aio_loop_factory


def test_time_is_that_of_the_wall() -> None:
    assert abs(core.time() - time.time()) < 1


@pytest.mark.engines("owned")
def test_a_loop_of_ones_own() -> None:
    log: list[int] = []
    loop = core.loop(default=False)
    loop.run_callback(log.append, 1)
    loop.run()
    assert log == [1]
    assert not loop.default
    loop.destroy()
