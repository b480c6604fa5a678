"""The resolver that asks the system in the hub's thread pool: the default.

It finds whatever a program without greenlets would find, and blocks no more than the greenlet. As many
lookups run at a time as the pool has threads; the others wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._core.hub import get_hub
from . import AbstractResolver, call_in_pool

__all__ = ["Resolver"]


class Resolver(AbstractResolver):
    """``Resolver(hub=None)``: its functions block the greenlet; call them in the thread of the hub."""

    def __init__(self, hub: Any = None) -> None:
        super().__init__(get_hub() if hub is None else hub)

    @property
    def pool(self) -> Any:
        """The hub's thread pool, in which names are looked up."""
        return self.hub.threadpool

    def __repr__(self) -> str:
        name = f"{type(self).__module__}.{type(self).__name__}"
        return f"<{name} at {id(self):#x} pool={self.hub._threadpool!r}>"

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return call_in_pool(self.pool, function, args)
