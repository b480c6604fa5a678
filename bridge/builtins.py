"""The standard library's :mod:`builtins`; twin of :mod:`gevent.builtins`. There is nothing to replace."""

from __future__ import annotations

import builtins as __gbuiltins__
from typing import TYPE_CHECKING, Any

from ._mirror import mirror

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


__target__ = "builtins"
__implements__: list[str] = []
__all__: list[str] = []
__imports__ = mirror(__gbuiltins__, globals())
