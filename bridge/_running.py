"""``bridge.run``: the main entry of a program that has both kinds of functions."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, overload
from weakref import WeakSet

from greenlet import GreenletExit, getcurrent, greenlet

from ._aio.awaiting import await_
from ._aio.portal import install_task_factory
from ._core.census import all_greenlets
from ._core.hub import get_hub
from ._killing import killall
from .hub import sleep

__all__ = ["run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@overload
def run(main: Coroutine[Any, Any, T]) -> T: ...
@overload
def run(main: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T: ...
@overload
def run(main: Callable[[*Ts], T], *args: *Ts) -> T: ...
def run(main: Callable[[*Ts], Any] | Coroutine[Any, Any, Any], *args: *Ts) -> Any:
    """Run a coroutine (function) or a plain function on the loop; return its result.

    Like ``asyncio.run``, on uvloop where it is installed: a coroutine runs as a task, a plain function in
    the calling greenlet. All tasks that are made meanwhile are portals: they may block anywhere. In the
    end the tasks that are left are cancelled and the greenlets killed.
    RuntimeError where a loop is running (use ``await`` or ``bridge.await_`` there), TypeError for what can
    be neither called nor awaited. Blocks.
    """
    if not callable(main) and not inspect.isawaitable(main):
        raise TypeError(f"bridge.run() takes a function, a coroutine function or a coroutine, not {main!r}")
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
    hook = _NotingHook()
    try:
        if not hub.loop.running:
            sleep(0)  # the loop's own hooks are there from when it begins to run
        hook.before = sys.get_asyncgen_hooks().firstiter
        sys.set_asyncgen_hooks(firstiter=hook)
        result = main(*args) if callable(main) else main
        if inspect.isawaitable(result):
            result = await_(result)
        return result
    finally:
        try:
            _clean_up(hub, before, hook.generators)
        finally:
            in_force: Any = sys.get_asyncgen_hooks().firstiter
            if in_force is hook:
                sys.set_asyncgen_hooks(firstiter=hook.before)
            aio.set_task_factory(task_factory)


class _NotingHook:
    """The hook for the first step of asynchronous generators: those of this run are closed at its end.

    Not ``loop.shutdown_asyncgens()``: the loop goes on afterwards, and would warn of every later generator.
    """

    before: Callable[[Any], object] | None = None

    def __init__(self) -> None:
        self.generators: WeakSet[Any] = WeakSet()

    def __call__(self, generator: Any) -> None:
        self.generators.add(generator)
        if self.before is not None:
            self.before(generator)


async def _close_generators(aio: Any, generators: list[Any]) -> None:
    results = await asyncio.gather(*[g.aclose() for g in generators], return_exceptions=True)
    for result, generator in zip(results, generators, strict=True):
        if isinstance(result, Exception):
            aio.call_exception_handler({
                "message": f"an error occurred during closing of asynchronous generator {generator!r}",
                "exception": result,
                "asyncgen": generator,
            })  # fmt: skip


def _clean_up(hub: Any, before: set[greenlet], generators: WeakSet[Any]) -> None:
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
    if generators:
        await_(_close_generators(aio, list(generators)))


def _children(hub: Any) -> list[greenlet]:
    return [g for g in all_greenlets() if not g.dead and g.parent is hub]
