"""Which loop and which task asyncio takes for the running ones: hiding and showing, and asking, quickly."""

from __future__ import annotations

import asyncio
import sys
from asyncio import _get_running_loop, _set_running_loop
from collections.abc import Callable
from typing import Any

from .accelerated import accelerator

__all__ = ["current_task", "get_running", "set_running"]

# later versions have quick ones themselves
_compiled = accelerator("_running") if sys.version_info < (3, 12) else None

#: ``set_running(loop)``, or None: none runs.
set_running: Callable[[Any], None] = _set_running_loop if _compiled is None else _compiled.set_running_loop

#: ``get_running()``: the loop that runs in this thread, or None.
get_running: Callable[[], Any] = _get_running_loop if _compiled is None else _compiled.get_running_loop

#: ``current_task(loop)``: the task of that loop whose step is being made; None without one.
current_task: Callable[[Any], Any] = asyncio.current_task
if sys.version_info < (3, 12):
    current_task = asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]
