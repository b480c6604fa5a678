"""Small numbers for objects."""

from __future__ import annotations

import gc
import threading

import pytest

from bridge._ident import IdentRegistry

pytestmark = pytest.mark.engines("none")


class Target:
    pass


class Equal:
    """All of a kind are equal to each other, and have no hash."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def test_smallest_free_number_first() -> None:
    registry = IdentRegistry()
    targets = [Target() for _ in range(5)]
    assert [registry.get_ident(target) for target in targets] == [0, 1, 2, 3, 4]
    assert [registry.get_ident(target) for target in targets] == [0, 1, 2, 3, 4]
    assert len(registry) == 5
    del targets[3]
    del targets[1]
    assert len(registry) == 3
    new = [Target(), Target(), Target()]
    assert [registry.get_ident(target) for target in new] == [1, 3, 5]
    assert [registry.get_ident(target) for target in targets] == [0, 2, 4]


def test_numbers_stay_small() -> None:
    registry = IdentRegistry()
    kept: list[Target | None] = [None] * 3
    for i in range(1000):
        target = Target()
        kept[i % 3] = target
        assert registry.get_ident(target) <= 3


def test_objects_are_told_apart_by_identity() -> None:
    registry = IdentRegistry()
    one, other = Equal(), Equal()
    assert (registry.get_ident(one), registry.get_ident(other)) == (0, 1)
    del one
    assert len(registry) == 1
    assert registry.get_ident(other) == 1


def test_needs_weak_references() -> None:
    registry = IdentRegistry()
    with pytest.raises(TypeError, match="weak reference"):
        registry.get_ident(5)
    assert len(registry) == 0
    assert registry.get_ident(Target) == 0


def test_registry_is_freed_before_its_objects_and_after() -> None:
    target = Target()
    gc.disable()
    try:
        registry = IdentRegistry()
        registry.get_ident(target)
        del registry
        del target  # its registry is gone: nothing to tell
    finally:
        gc.enable()


def test_threads_get_different_numbers() -> None:
    registry = IdentRegistry()
    shared = [Target() for _ in range(200)]
    numbers: list[list[int]] = []
    kept: list[Target] = []

    def run() -> None:
        own = [Target() for _ in range(500)]
        kept.extend(own)
        mine = [registry.get_ident(target) for target in own]
        numbers.append([registry.get_ident(target) for target in shared] + mine)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tuple(some[:200]) for some in numbers}) == 1
    own_numbers = [number for some in numbers for number in some[200:]] + numbers[0][:200]
    assert len(set(own_numbers)) == len(own_numbers) == len(registry) == 2200
