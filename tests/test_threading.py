"""bridge.threading: what patching takes from it; nothing is patched here."""

from __future__ import annotations

import gc
import threading as std
from typing import Any

import pytest

import bridge
from bridge import threading


def active() -> dict[int, Any]:
    found: dict[int, Any] = std._active  # type: ignore[attr-defined]
    return found


def test_the_module_says_what_it_has() -> None:
    for name in threading.__implements__:
        assert getattr(threading, name) is not getattr(std, name), name
    assert threading.Thread is std.Thread and threading.Timer is std.Timer
    assert threading.main_native_thread() is std.main_thread()


@pytest.fixture
def idents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the idents are those of greenlets."""
    monkeypatch.setattr(std, "get_ident", threading.get_ident)
    for name in ("_make_thread_handle", "_DeleteDummyThreadOnDel"):
        if hasattr(std, name):
            monkeypatch.setattr(std, name, getattr(threading, name))


@pytest.mark.usefixtures("idents")
def test_a_dummy_thread_is_forgotten_when_its_greenlet_has_ended() -> None:
    before = len(active())
    made: list[Any] = []
    counted: list[int] = []

    def run() -> None:
        made.append(threading._DummyThread())
        counted.append(len(active()))
        bridge.sleep(0)

    g = bridge.spawn(run)
    bridge.sleep(0)
    g.join()
    assert counted == [before + 1] and len(active()) == before
    assert made[0].name.startswith("Dummy-")
    assert isinstance(made[0], std.Thread)


@pytest.mark.usefixtures("idents")
def test_a_dummy_thread_is_there_for_who_waited_for_its_greenlet() -> None:
    seen = bridge.event.Event()

    def run() -> None:
        threading._DummyThread()
        seen.set()

    g = bridge.spawn(run)
    seen.wait()
    assert threading.get_ident(g) in active()
    bridge.sleep(0)
    assert threading.get_ident(g) not in active()


@pytest.mark.usefixtures("idents")
def test_a_dummy_thread_of_a_raw_greenlet_is_forgotten_with_it() -> None:
    before = len(active())
    g = bridge.spawn_raw(threading._DummyThread)
    while not g.dead:
        bridge.sleep(0)
    assert len(active()) == before + 1
    del g
    gc.collect()
    assert len(active()) == before


def test_a_killed_thread_ends_in_silence_and_an_error_goes_to_the_excepthook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caught: list[Any] = []
    monkeypatch.setattr(std, "excepthook", lambda args: caught.append(args.exc_value))
    hook = threading._make_invoke_excepthook()
    for exception in (bridge.GreenletExit(), ValueError("error"), SystemExit()):
        try:
            raise exception
        except BaseException:
            hook(std.current_thread())
    assert [type(e) for e in caught] == [ValueError, SystemExit]


@pytest.mark.engines("owned")
def test_keyboard_interrupt_in_a_thread_is_raised_in_the_main_greenlet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caught: list[Any] = []
    monkeypatch.setattr(std, "excepthook", lambda args: caught.append(args.exc_type))
    hook = threading._make_invoke_excepthook()

    def run() -> None:
        try:
            raise KeyboardInterrupt("of the thread")
        except BaseException:
            hook(std.current_thread())

    bridge.spawn(run)
    with pytest.raises(KeyboardInterrupt, match="of the thread"):
        bridge.sleep(10)
    assert caught == [KeyboardInterrupt]
    try:
        raise KeyboardInterrupt
    except BaseException:
        hook(std.current_thread())  # in the main greenlet: who raises it handles it
    bridge.sleep(0)
