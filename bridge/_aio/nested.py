"""``asyncio.run()`` inside a greenlet: the coroutine becomes a task of the hub's loop.

Theory of operation
===================

Code that hides a coroutine behind a plain function calls ``asyncio.run()`` there. In a greenlet (or in a
portal) no loop of its own is needed for that: the hub's loop runs already. :func:`install` has
``asyncio.Runner``, which ``asyncio.run`` and ``uvloop.run`` are made of, find out when it is first used
whether it is in such a place. If so its coroutines run as tasks of that loop while the greenlet waits;
others go on, and any number of greenlets may do it at once. Everywhere else a Runner does what it always
did.

*What a Runner cleans up* in the end is all that its loop has: tasks, asynchronous generators, the
executor. Here the loop has others' as well, so a Runner must know its own. A context variable tells them:
what a Runner starts runs in a context in which the variable says so, tasks inherit the context, and a task
factory notes each new task under the Runner that the context names. In the same way a hook notes
asynchronous generators. The default executor is the loop's and stays.

*Interruptions* (kill, Timeout, KeyboardInterrupt, a cancelled portal) cancel the coroutine, wait for its
clean-up, and then go on, as in ``await_``. A Runner in a greenlet installs no handler for SIGINT:
KeyboardInterrupt comes to the main greenlet, and if that is who waits here, it is an interruption like
others.

*The thread* of the coroutines of a Runner that a thread runs (as a greenlet: ``threading.Thread`` after
patching) is that thread, as anywhere: what it has started in its loop finds it as the current thread, by the
context as well (:data:`runner_thread`). Libraries with a loop in a thread of its own compare idents to refuse
calls that would wait for their own loop: anyio's blocking portal, with it Starlette's test client, took the
main greenlet for it. Other greenlets are no threads, and their coroutines are in the thread of the loop.

The loop of the hub is whatever the hub has; ``loop_factory`` is not asked.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import weakref
from asyncio import runners
from contextvars import Context, ContextVar, copy_context
from typing import Any

from greenlet import getcurrent

from bridge._core.current import runner_thread

from . import second
from .awaiting import wait_for_task
from .sharing import beside, in_portal

__all__ = ["install"]


class _Started:
    """What the coroutines of one Runner have started and what it has to end."""

    def __init__(self) -> None:
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.generators: weakref.WeakSet[Any] = weakref.WeakSet()
        self.debugging = False

    def enter(self, context: Context) -> None:
        """Let *context* say that what runs in it was started by this Runner, in the thread it is made in."""
        context.run(_started.set, self)
        me = getcurrent()
        context.run(runner_thread.set, me if getattr(me, "is_thread", False) else None)


_started: ContextVar[_Started | None] = ContextVar("bridge_runner", default=None)

#: How many Runners want debug mode of a loop, and what it was before.
_debugging: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()


class _NotingFactory:
    """A task factory that notes each task under the Runner of its context."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.makes_portals = getattr(before, "makes_portals", False)

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        task = (
            asyncio.Task(coro, loop=loop, **kwargs)
            if self.before is None
            else self.before(loop, coro, **kwargs)
        )
        context: Context | None = kwargs.get("context")
        started = _started.get() if context is None else context.get(_started)
        if started is not None and not task.done():
            started.tasks.add(task)
        return task


class _NotingHook:
    """The hook for the first step of asynchronous generators, in coroutines of a Runner."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def __call__(self, generator: Any) -> None:
        started = _started.get()
        if started is not None:
            started.generators.add(generator)
        if self.before is not None:
            self.before(generator)


def _note_generators() -> None:
    """In the loop, whose hooks are in force there: add ours, unless it is there already."""
    first = sys.get_asyncgen_hooks().firstiter
    if not isinstance(first, _NotingHook):
        sys.set_asyncgen_hooks(firstiter=_NotingHook(first))


def _shared_loop() -> Any:
    """The running loop on which a coroutine can be run from here; None: it needs one of its own."""
    hub = beside()
    if hub is not None:
        return hub.aio_loop
    return asyncio.get_running_loop() if in_portal() else None


_lazy_init = runners.Runner._lazy_init  # type: ignore[attr-defined]
_run = runners.Runner.run
_close = runners.Runner.close
_asyncio_run: Any = runners.run
_State: Any = runners._State  # type: ignore[attr-defined]


def _lazy_init_here(self: Any) -> None:
    loop = _shared_loop() if self._state is _State.CREATED else None
    if loop is None:
        _lazy_init(self)
        return
    started = self._bridge = _Started()
    self._loop = loop
    self._context = copy_context()
    started.enter(self._context)
    if self._debug:
        started.debugging = True
        entry = _debugging.setdefault(loop, [0, loop.get_debug()])
        entry[0] += 1
        loop.set_debug(True)
    self._state = _State.INITIALIZED


def _run_here(self: Any, coro: Any, *, context: Context | None = None) -> Any:
    """Run a coroutine; in a greenlet on the hub's loop, others go on meanwhile. Returns its result."""
    if self._state is _State.CREATED and asyncio.iscoroutine(coro):
        try:
            self._lazy_init()
        except BaseException:
            coro.close()  # or it would warn that it was never awaited
            raise
    started: _Started | None = self.__dict__.get("_bridge")
    if started is None or self._state is not _State.INITIALIZED:
        return _run(self, coro, context=context)
    if not asyncio.iscoroutine(coro):
        raise ValueError(f"a coroutine was expected, got {coro!r}")
    if context is None:
        context = self._context
    else:
        started.enter(context)
    loop = self._loop
    _tell_asgiref()
    factory = loop.get_task_factory()
    if not isinstance(factory, _NotingFactory):
        loop.set_task_factory(_NotingFactory(factory))
    loop.call_soon(_note_generators)
    return wait_for_task(loop, coro, context)


def _close_here(self: Any) -> None:
    """End what the coroutines have left: cancel their tasks, close their asynchronous generators."""
    started: _Started | None = self.__dict__.get("_bridge")
    if started is None or self._state is not _State.INITIALIZED:
        _close(self)
        return
    loop = self._loop
    try:
        tasks = [task for task in started.tasks if not task.done()]
        generators = list(started.generators)
        if tasks or generators:
            wait_for_task(loop, _clean_up(loop, tasks, generators))
    finally:
        if started.debugging:
            entry = _debugging[loop]
            entry[0] -= 1
            if not entry[0]:
                loop.set_debug(entry[1])
                del _debugging[loop]
        self._loop = None
        self._state = _State.CLOSED


async def _clean_up(loop: Any, tasks: list[asyncio.Task[Any]], generators: list[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler({
                "message": "unhandled exception during asyncio.run() shutdown",
                "exception": task.exception(),
                "task": task,
            })  # fmt: skip
    results = await asyncio.gather(*[g.aclose() for g in generators], return_exceptions=True)
    for result, generator in zip(results, generators, strict=True):
        if isinstance(result, Exception):
            loop.call_exception_handler({
                "message": f"an error occurred during closing of asynchronous generator {generator!r}",
                "exception": result,
                "asyncgen": generator,
            })  # fmt: skip


class _PerRunner(dict[Any, Any]):
    """What asgiref keeps for each running loop: here for each Runner, as several share a loop.

    It is in which thread the functions of ``sync_to_async`` are to run below an ``async_to_sync``. With one
    entry for all of them the first to end would take away everybody's.
    """

    @staticmethod
    def _key(loop: Any) -> Any:
        started = _started.get()
        return loop if started is None else (loop, started)

    def __contains__(self, loop: object) -> bool:
        return super().__contains__(self._key(loop))

    def __getitem__(self, loop: Any) -> Any:
        return super().__getitem__(self._key(loop))

    def __setitem__(self, loop: Any, executor: Any) -> None:
        super().__setitem__(self._key(loop), executor)

    def __delitem__(self, loop: Any) -> None:
        super().__delitem__(self._key(loop))


def _tell_asgiref() -> None:
    """Done when something runs on a shared loop, as asgiref may be imported at any time."""
    class_ = getattr(sys.modules.get("asgiref.sync"), "AsyncToSync", None)
    executors = getattr(class_, "loop_thread_executors", None)
    if type(executors) is dict:
        class_.loop_thread_executors = _PerRunner(executors)  # type: ignore[union-attr]


@functools.wraps(_asyncio_run)
def _asyncio_run_here(main: Any, **kwargs: Any) -> Any:
    # asyncio's own refuses in a portal, where a loop is running
    if not in_portal():
        return _asyncio_run(main, **kwargs)
    with asyncio.Runner(**kwargs) as runner:
        return runner.run(main)


_installed = False


def install() -> None:
    """Make ``asyncio.run()``, ``asyncio.Runner`` and second loops work inside greenlets beside the others.

    Calling it again changes nothing. Where no hub is at work they do what they always did. Does not block.
    """
    global _installed
    if _installed:
        return
    _installed = True
    runner: Any = runners.Runner
    runner._lazy_init = _lazy_init_here
    runner.run = functools.wraps(_run)(_run_here)
    runner.close = functools.wraps(_close)(_close_here)
    asyncio.run = runners.run = _asyncio_run_here
    second.install()
