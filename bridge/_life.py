"""What runs in a greenlet: its function, and what comes of that.

Theory of operation
===================

It is there twice. A greenlet's first frame of Python makes CPython map 16 KiB of memory, and unmap it when
the greenlet ends: 8 µs, more than all the rest of its life costs. A function that is written in C needs no
frame, but somebody has to call it and to keep the result. The frame of a *generator* lies in the generator.
So where that memory is not cached (see :mod:`bridge._core.accelerated`) a generator does it for such
functions, advanced by ``next()``. When all goes well it calls nothing in Python, but leaves telling the links
to the hub, where the greenlet comes out.

For functions in Python, and where the memory is cached, a plain function takes less time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from functools import partial
from types import CoroutineType, FunctionType, MethodType, NoneType
from typing import Any

from ._aio.awaiting import await_
from ._core.accelerated import FRAME_CACHE

__all__ = ["ENDED", "LATER", "NEW", "NO_KWARGS", "QUEUED", "RUNNING", "is_async", "life"]

#: The phases of a greenlet; see :mod:`bridge.greenlet`.
NEW, QUEUED, LATER, RUNNING, ENDED = range(5)

NO_KWARGS: dict[str, Any] = {}


def is_async(func: Any) -> bool:
    """Whether calling it gives a coroutine that is to be awaited."""
    while isinstance(func, partial):
        func = func.func
    # an object with an asynchronous __call__, too
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(type(func).__call__)


def run(self: Any) -> None:
    """Call the function and keep the result. Called by the first switch, never directly."""
    if self._phase == ENDED:  # killed before it could begin, then switched to by hand
        return
    self._phase = RUNNING
    try:
        function = self._function
        if function is None:
            function = self._run
        args = self.args
        if self._kwargs:
            value = function(*args, **self._kwargs)
        elif args:
            value = function(*args)
        else:
            # this way a function in Python is called without frames in C, which would be kept while it blocks
            value = function()
        if type(value) is CoroutineType and is_async(function):
            value = await_(value)
    except BaseException as e:
        self._failed(e)
        # The traceback refers to this frame: no cycle through it.
        del self
        return
    self._ended(value)


def _run_frameless(self: Any) -> Generator[None]:
    """:func:`run` as a generator."""
    if self._phase == ENDED:
        return
    self._phase = RUNNING
    try:
        function = self._function
        if self._kwargs:
            value = function(*self.args, **self._kwargs)
        else:
            value = function(*self.args)
        if type(value) is CoroutineType and is_async(function):
            value = await_(value)
    except BaseException as e:
        self._failed(e)
        del self
        return
    # as _ended() does
    self.value = value
    self._phase = ENDED
    self.args = ()
    self._kwargs = NO_KWARGS
    if self._links is not None:
        loop = getattr(self.parent, "loop", None)
        if loop is None or not loop.armed:
            self._tell()  # it comes out elsewhere
        else:
            told = _Told()
            told.greenlet = self
            loop.ready.appendleft(told)
    return
    yield


#: What certainly needs a frame. (None: a subclass has a ``_run`` of its own.)
_IN_PYTHON = frozenset({FunctionType, MethodType, NoneType})


class _Told:
    """An entry of the ready queue: the links of a greenlet that has just ended are told."""

    __slots__ = ("greenlet",)
    greenlet: Any

    def switch(self) -> None:
        """In the hub, before anything else."""
        if self.greenlet._links is not None:
            self.greenlet._tell()


class _Frameless:
    """``greenlet.run``: what the first switch calls, or the function for who wants the method."""

    def __get__(self, g: Any, cls: type[Any]) -> Callable[..., None]:
        if g is None:
            return run
        if type(g._function) in _IN_PYTHON:
            return MethodType(run, g)
        return partial(next, _run_frameless(g), None)


#: ``Greenlet.run``
life: Any = run if FRAME_CACHE else _Frameless()
