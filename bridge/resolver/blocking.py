"""The resolver that asks the system directly: it blocks the thread and all its greenlets.

Without any overhead, for where the system answers at once: from a cache, or from ``/etc/hosts``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import AbstractResolver

__all__ = ["Resolver"]


class Resolver(AbstractResolver):
    """``Resolver(hub=None)``: may be used from any thread, in callbacks and in coroutines."""

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)
