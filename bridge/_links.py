"""Links: what is called when a greenlet has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from greenlet import greenlet

from ._core.hub import get_hub

__all__ = ["FailureSpawnedLink", "SpawnedLink", "SuccessSpawnedLink"]


class SpawnedLink:
    """A link whose callback is called in a new greenlet of its own."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[Any], object]) -> None:
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        self.callback = callback

    def __call__(self, source: Any) -> None:
        g = greenlet(self.callback, get_hub())
        g.switch(source)

    def __hash__(self) -> int:
        return hash(self.callback)

    def __eq__(self, other: object) -> bool:
        return self.callback == getattr(other, "callback", other)

    def __str__(self) -> str:
        return str(self.callback)

    def __repr__(self) -> str:
        return repr(self.callback)

    def __getattr__(self, item: str) -> Any:
        if item == "callback":
            raise AttributeError(item)
        return getattr(self.callback, item)


class SuccessSpawnedLink(SpawnedLink):
    """Called only if the source ended without an exception."""

    __slots__ = ()

    def __call__(self, source: Any) -> None:
        if source.successful():
            super().__call__(source)


class FailureSpawnedLink(SpawnedLink):
    """Called only if the source ended by an exception."""

    __slots__ = ()

    def __call__(self, source: Any) -> None:
        if not source.successful():
            super().__call__(source)
