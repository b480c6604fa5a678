"""``bridge.run``: the main entry of a program that has both kinds of functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from ._aio.awaiting import await_
from ._aio.portal import install_task_factory
from ._core.census import all_greenlets
from ._core.hub import get_hub
from ._killing import killall

__all__ = ["run"]

T = TypeVar("T")


def run(main: Callable[..., Any] | Coroutine[Any, Any, T], *args: Any) -> Any:
    """Run a coroutine (function) or a plain function on the loop; return its result.

    Like ``asyncio.run``, on uvloop where it is installed: a coroutine runs as a task, a plain function in
    the calling greenlet. All tasks that are made meanwhile are portals: they may block anywhere. In the
    end the tasks that are left are cancelled and the greenlets killed.
    RuntimeError where a loop is running (use ``await`` or ``bridge.await_`` there). Blocks.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is not None:
        if inspect.iscoroutine(main):
            main.close()
        raise RuntimeError(
            "bridge.run() cannot be called while a loop is running in this thread; there write "
            "'await main()' in a coroutine, 'bridge.await_(main())' in a greenlet"
        )
    hub = get_hub()
    before = set(_children(hub))
    aio = hub.aio_loop
    task_factory = aio.get_task_factory()
    install_task_factory(aio)
    try:
        result = main(*args) if callable(main) else main
        if inspect.isawaitable(result):
            result = await_(result)
        return result
    finally:
        try:
            _clean_up(hub, before)
        finally:
            aio.set_task_factory(task_factory)


def _clean_up(hub: Any, before: set[greenlet]) -> None:
    aio = hub.loop.aio
    tasks = asyncio.all_tasks(aio)
    for task in tasks:
        task.cancel()
    if tasks:
        await_(asyncio.gather(*tasks, return_exceptions=True))
    current = getcurrent()
    left = [g for g in _children(hub) if g not in before and g is not current]
    if left:
        killall(left, GreenletExit)
    if hub.loop.shared:
        await_(aio.shutdown_asyncgens())


def _children(hub: Any) -> list[greenlet]:
    return [g for g in all_greenlets() if not g.dead and g.parent is hub]
