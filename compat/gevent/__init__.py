"""The name `gevent`, as bridge provides it (see :func:`bridge.install_as_gevent`).

Names are those of gevent 26.9. The public modules of this package are bridge's own
(``gevent.queue is bridge.queue``). The files in this folder hold what gevent has and bridge should not:
modules and names that gevent itself has given up (`gevent.coros`, `gevent.wsgi`, :func:`shutdown`, calling
``gevent.signal``), and private ones that well-known libraries import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import bridge
from bridge import (
    Greenlet,
    GreenletExit,
    Timeout,
    config,
    fork,
    get_hub,
    getcurrent,
    getswitchinterval,
    idle,
    iwait,
    joinall,
    kill,
    killall,
    reinit,
    setswitchinterval,
    signal_handler,
    sleep,
    spawn,
    spawn_later,
    spawn_raw,
    wait,
    with_timeout,
)
from bridge._dropin import SHARED
from gevent import event as event
from gevent import exceptions as exceptions
from gevent import greenlet as greenlet
from gevent import hub as hub
from gevent import os as os
from gevent import signal as signal
from gevent import timeout as timeout

__all__ = [
    "Greenlet",
    "GreenletExit",
    "Timeout",
    "config",
    "fork",
    "get_hub",
    "getcurrent",
    "getswitchinterval",
    "idle",
    "iwait",
    "joinall",
    "kill",
    "killall",
    "reinit",
    "setswitchinterval",
    "signal_handler",
    "sleep",
    "spawn",
    "spawn_later",
    "spawn_raw",
    "wait",
    "with_timeout",
]

#: The version of gevent whose API this is.
__version__ = "26.9.0"


class _VersionInfo(NamedTuple):
    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: int


#: What every version of gevent says since 20.5; ``__version__`` is the one to look at.
version_info = _VersionInfo(20, 0, 0, "dev", 0)


class _SignalModule(ModuleType):
    """`gevent.signal`, which can be called as in gevent 1.0: ``gevent.signal(SIGQUIT, gevent.shutdown)``."""

    def __call__(self, signalnum: int, handler: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        """Return :func:`signal_handler` of the arguments: a new greenlet calls *handler* at each signal."""
        return signal_handler(signalnum, handler, *args, **kwargs)


# `gevent.signal` has to be `bridge.signal`, and calling is an attribute of the class; so the module's class
# changes, in drop-in mode only.
signal.__class__ = _SignalModule


def shutdown() -> NoReturn:
    """End the program with exit status 0, as gevent 0.13 offered it for signal handlers.

    Raises SystemExit. In a greenlet, such as that of a signal handler, this ends the main greenlet, wherever
    it blocks: its ``finally`` clauses and ``atexit`` functions run. The other greenlets do not run again.
    """
    raise SystemExit


def __getattr__(name: str) -> ModuleType:
    """A module that is loaded already is there without an import of its own.

    After ``monkey.patch_all()`` programs write ``gevent.queue.Queue()``: in gevent patching has imported it.
    """
    if name in SHARED and f"bridge.{name}" in sys.modules:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Package(ModuleType):
    """This module, whose names are bridge's in both directions: who replaces one here replaces it there.

    Tracers put a class of their own in the place of `gevent.Greenlet`, and tests put a mock anywhere.
    """

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in __all__:
            setattr(bridge, name, value)


sys.modules[__name__].__class__ = _Package
