"""bridge: gevent's API and programming model on an asyncio event loop.

A greenlet that blocks gives the thread back to the loop, so greenlets and coroutines live side by side in
one thread and wait for each other. Every public module ``gevent.X`` has its twin ``bridge.X``; the modules
that need more than the engine are loaded when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, overload

from ._aio.awaiting import await_
from ._aio.portal import install_task_factory, portal
from ._config import config
from ._convert import async_context, async_iter, async_to_sync, sync_to_async
from ._dropin import install_as_gevent
from ._joining import iwait, joinall, wait
from ._killing import killall
from ._running import run
from .greenlet import Greenlet
from .hub import (
    GreenletExit,
    get_hub,
    getcurrent,
    idle,
    kill,
    reinit,
    signal_handler,
    sleep,
    spawn_raw,
)
from .timeout import Timeout, with_timeout

if TYPE_CHECKING:
    from .os import fork as fork

__all__ = [
    "Greenlet",
    "GreenletExit",
    "Timeout",
    "async_context",
    "async_iter",
    "async_to_sync",
    "await_",
    "config",
    "fork",
    "get_hub",
    "getcurrent",
    "getswitchinterval",
    "idle",
    "install_as_gevent",
    "install_task_factory",
    "iwait",
    "joinall",
    "kill",
    "killall",
    "portal",
    "reinit",
    "run",
    "setswitchinterval",
    "signal_handler",
    "sleep",
    "spawn",
    "spawn_later",
    "spawn_raw",
    "sync_to_async",
    "wait",
    "with_timeout",
]

#: The version of bridge.
__version__ = "0.1.0"


class _VersionInfo(NamedTuple):
    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: int


version_info = _VersionInfo(0, 1, 0, "final", 0)

getswitchinterval = sys.getswitchinterval
setswitchinterval = sys.setswitchinterval


_P = ParamSpec("_P")
_T = TypeVar("_T")


@overload
def spawn(
    run: Callable[_P, Coroutine[Any, Any, _T]], *args: _P.args, **kwargs: _P.kwargs
) -> Greenlet[_T]: ...
@overload
def spawn(run: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Greenlet[_T]: ...
def spawn(*args: Any, **kwargs: Any) -> Greenlet[Any]:
    """Run a function in a new greenlet: ``spawn(function, *args, **kwargs)``. Returns it; does not block.

    A coroutine function may be given: the greenlet awaits it. TypeError if it can't be called.
    """
    # Greenlet is looked up here at each call: tracers replace bridge.Greenlet.
    g: Greenlet[Any] = Greenlet(*args, **kwargs)
    g.start()
    return g


@overload
def spawn_later(
    seconds: float, run: Callable[_P, Coroutine[Any, Any, _T]], *args: _P.args, **kwargs: _P.kwargs
) -> Greenlet[_T]: ...
@overload
def spawn_later(
    seconds: float, run: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> Greenlet[_T]: ...
def spawn_later(seconds: float, *args: Any, **kwargs: Any) -> Greenlet[Any]:
    """Run a function in a new greenlet in ``seconds``. Returns it; does not block."""
    return Greenlet.spawn_later(seconds, *args, **kwargs)


#: What ``bridge.X`` loads at the first use.
_LAZY_MODULES = frozenset({
    "asgi", "backdoor", "baseserver", "builtins", "contextvars", "core", "event", "events", "exceptions",
    "fileobject", "gunicorn", "local", "lock", "monkey", "os", "pool", "pywsgi", "queue", "resolver",
    "select", "selectors", "server", "signal", "socket", "ssl", "subprocess", "thread", "threading",
    "threadpool", "time", "util",
})  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in ("load_ipython_extension", "unload_ipython_extension"):  # %load_ext bridge
        return getattr(importlib.import_module(f"{__name__}._ipython"), name)
    if name == "fork":
        value = importlib.import_module(f"{__name__}.os").fork
        globals()["fork"] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
