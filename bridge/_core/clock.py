"""The clock that all waiting goes by: seconds that only go forward.

It is the standard library's ``time.monotonic``, as a function object of our own. Libraries that stop the
clock for tests (freezegun) replace that function in every module that holds it; with the same object in ours
no timeout would ever end, and no greenlet wake from its sleep. gevent waits by its loop's own clock, which
they cannot stop. A module that is loaded a second time, beside the one in ``sys.modules``, gives the same
function under another identity, at the same speed, and the real one even where bridge is imported while the
clock is stopped.
"""

from __future__ import annotations

import sys
import time
from asyncio import AbstractEventLoop, BaseEventLoop
from collections.abc import Callable
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec

__all__ = ["keep_time", "monotonic"]


def _own_monotonic() -> Callable[[], float]:
    if sys.implementation.name == "cpython":
        spec = BuiltinImporter.find_spec("time")
        if spec is not None and spec.loader is not None:
            own = module_from_spec(spec)
            spec.loader.exec_module(own)
            return own.monotonic  # type: ignore[no-any-return]
    return time.monotonic


#: Seconds since some moment in the past; no change of the system's clock moves it.
monotonic: Callable[[], float] = _own_monotonic()


def keep_time(aio: AbstractEventLoop) -> None:
    """Let a loop that we made go by this clock, too; uvloop has libuv's, and others may have their own."""
    if type(aio).time is BaseEventLoop.time:
        aio.time = monotonic  # type: ignore[method-assign]
