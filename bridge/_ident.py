"""Small numbers for objects: what a greenlet's ``minimal_ident`` is taken from."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from weakref import ref

__all__ = ["IdentRegistry"]


class _Ident(ref[object]):
    """A weak reference to an object that has a number, and that number."""

    __slots__ = ("key", "number", "registry")
    key: int
    number: int
    registry: ref[IdentRegistry]


class IdentRegistry:
    """Gives each object the smallest number, from 0 on, that no other living object has.

    A number is free again as soon as its object is. Objects are told apart by identity and must be
    weakly referenceable. May be used from several threads.
    """

    __slots__ = ("__weakref__", "_free", "_idents", "_unused")

    def __init__(self) -> None:
        # By id(object): while the object lives nobody else has that id, and then its entry goes first.
        self._idents: dict[int, _Ident] = {}
        self._free: list[int] = []
        self._unused = count()

    def get_ident(self, obj: object) -> int:
        """The number of ``obj``, a new one if it has none. `TypeError` if it can't be weakly referenced."""
        key = id(obj)
        ident = self._idents.get(key)
        if ident is None:
            ident = _Ident(obj, _forget)
            ident.key = key
            ident.registry = ref(self)
            try:
                ident.number = number = heappop(self._free)
            except IndexError:
                # None was given back, so all below the counter are taken.
                ident.number = number = next(self._unused)
            # Of two threads that ask for the same object at once one is right.
            ident = self._idents.setdefault(key, ident)
            if ident.number != number:
                heappush(self._free, number)
        return ident.number

    def __len__(self) -> int:
        """How many living objects have a number."""
        return len(self._idents)


def _forget(ident: _Ident) -> None:
    registry = ident.registry()
    if registry is not None and registry._idents.get(ident.key) is ident:
        del registry._idents[ident.key]
        heappush(registry._free, ident.number)
