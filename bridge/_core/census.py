"""Which objects of a class there are, as far as the garbage collector knows them."""

from __future__ import annotations

import gc
from typing import TypeVar

from greenlet import greenlet

__all__ = ["all_greenlets", "instances"]

T = TypeVar("T")


def instances(cls: type[T]) -> list[T]:
    """All objects of a class and of classes derived from it. Walks through all objects of the process.

    Not by ``isinstance``: that asks an object for its ``__class__``, and lazy proxies (Django's, say) then
    make up what they stand for, or raise.
    """
    return [obj for obj in gc.get_objects() if issubclass(type(obj), cls)]


def all_greenlets() -> list[greenlet]:
    """All greenlets of all threads, dead ones too."""
    return instances(greenlet)
