"""The IPython extension: ``%load_ext bridge`` makes cells portals, so that blocking calls work in them.

In a notebook the kernel's loop runs all the time, and a cell runs in a coroutine of it. With the extension
every cell is a task and a portal: ``bridge.sleep(1)``, ``queue.get()`` or a patched ``requests`` block the
cell and nothing else; greenlets and tasks go on, between the cells too, and interrupting the kernel cancels
the cell.

In a terminal no loop runs while a plain cell does, so blocking calls work anyway. There the extension has
the hub use IPython's loop, which runs while you type: greenlets go on meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
from contextvars import ContextVar
from typing import Any

from ._aio.portal import portal
from ._aio.sharing import in_portal
from ._core.hub import get_hub_if_exists, set_loop
from ._core.loop import loop as Loop

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

#: Set while IPython runs a cell for somebody who does not await it, and who needs what IPython always did.
_called: ContextVar[bool] = ContextVar("bridge_ipython", default=False)


async def _look_up() -> None:
    """Wake the loop now and then while a cell runs.

    The kernel's handler of SIGINT cancels the cell by a ``call_soon``, which a loop that sleeps in select()
    does not notice: without this an interrupt would be heeded at the next event of another kind.
    """
    while True:
        await asyncio.sleep(0.2)


class _Extension:
    """What has been changed in one shell."""

    names = ("run_cell", "run_cell_async", "should_run_async")

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        run_cell = shell.run_cell
        should_run_async = shell.should_run_async

        @functools.wraps(run_cell)
        def run_cell_here(*args: Any, **kwargs: Any) -> Any:
            token = _called.set(True)
            try:
                return run_cell(*args, **kwargs)
            finally:
                _called.reset(token)

        @functools.wraps(should_run_async)
        def should_run_async_here(raw_cell: str, **kwargs: Any) -> bool:
            # Asked by a kernel, which then makes a task of the cell; a cell inside a cell is in its portal.
            as_task = (
                asyncio._get_running_loop() is not None
                and kwargs.get("preprocessing_exc_tuple") is None
                and not _called.get()
                and not in_portal()
            )
            return as_task or bool(should_run_async(raw_cell, **kwargs))

        run_cell_async = shell.run_cell_async
        in_a_portal = portal(run_cell_async)

        @functools.wraps(run_cell_async)
        async def run_cell_async_here(*args: Any, **kwargs: Any) -> Any:
            if asyncio._get_running_loop() is None:
                return await run_cell_async(*args, **kwargs)  # a terminal's: it may block anyway
            looking = asyncio.create_task(_look_up())
            try:
                return await in_a_portal(*args, **kwargs)
            finally:
                looking.cancel()

        shell.run_cell = run_cell_here
        shell.run_cell_async = run_cell_async_here
        shell.should_run_async = should_run_async_here
        if asyncio._get_running_loop() is None:
            self._share_loop_of_terminal()

    def _share_loop_of_terminal(self) -> None:
        hub = get_hub_if_exists()
        if hub is None or hub.loop is None:
            set_loop(Loop(aio=importlib.import_module("IPython.core.async_helpers").get_asyncio_loop()))

    def remove(self) -> None:
        """Give the shell back what was its own."""
        for name in self.names:
            delattr(self.shell, name)


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext bridge`` calls. Calling it again changes nothing."""
    if getattr(shell, "_bridge_extension", None) is None:
        shell._bridge_extension = _Extension(shell)


def unload_ipython_extension(shell: Any) -> None:
    """What ``%unload_ext bridge`` calls: cells are what they were before."""
    extension = getattr(shell, "_bridge_extension", None)
    if extension is not None:
        extension.remove()
        shell._bridge_extension = None
