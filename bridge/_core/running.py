"""Which loop asyncio takes for the running one of this thread: hiding and showing it."""

from __future__ import annotations

import sys
from asyncio import _set_running_loop
from collections.abc import Callable
from typing import Any

from .accelerated import accelerator

__all__ = ["set_running"]

# later versions have a quick one themselves
_compiled = accelerator("_running") if sys.version_info < (3, 12) else None

#: ``set_running(loop)``, or None: none runs.
set_running: Callable[[Any], None] = _set_running_loop if _compiled is None else _compiled.set_running_loop
