"""The standard library's :mod:`time`, but `sleep` blocks only the greenlet; twin of :mod:`gevent.time`."""

from __future__ import annotations

import time as __time__
from typing import TYPE_CHECKING, Any

from ._mirror import mirror
from .hub import sleep

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


__implements__ = ["sleep"]
__all__ = ["sleep"]
__imports__ = mirror(__time__, globals(), "sleep")
