"""The loop and its watchers; twin of :mod:`gevent.core`, which gevent calls deprecated.

libev's constants are here: kinds of events, flags and the numbers of its backends. Flags and backends have no
effect, as asyncio's loops choose for themselves; ``loop.backend_int`` is 0, which is none of them.
"""

from __future__ import annotations

import platform
from importlib import metadata
from importlib.util import find_spec
from sys import getswitchinterval as getswitchinterval
from time import time as time

from ._config import config as config
from ._core.callbacks import Callback as callback  # noqa: F401
from ._core.errors import HubDestroyed as HubDestroyed
from ._core.loop import loop as loop
from ._core.oswatchers import child as child
from ._core.oswatchers import signal as signal
from ._core.oswatchers import stat as stat
from ._core.watchers import EVENTS as EVENTS
from ._core.watchers import MAXPRI as MAXPRI
from ._core.watchers import MINPRI as MINPRI
from ._core.watchers import READ as READ
from ._core.watchers import WRITE as WRITE
from ._core.watchers import async_ as async_
from ._core.watchers import check as check
from ._core.watchers import fork as fork
from ._core.watchers import idle as idle
from ._core.watchers import io as io
from ._core.watchers import prepare as prepare
from ._core.watchers import timer as timer
from ._core.watchers import watcher as watcher

__all__ = [
    "embeddable_backends",
    "get_header_version",
    "get_version",
    "loop",
    "recommended_backends",
    "supported_backends",
    "time",
]

#: Bits for events, as watchers and ``feed`` have them.
UNDEF = -1
NONE = 0
READWRITE = READ | WRITE
TIMER = 0x100
PERIODIC = 0x200
SIGNAL = 0x400
CHILD = 0x800
STAT = 0x1000
IDLE = 0x2000
PREPARE = 0x4000
CHECK = 0x8000
EMBED = 0x10000
FORK = 0x20000
CLEANUP = 0x40000
ASYNC = 0x80000
CUSTOM = 0x1000000
ERROR = -0x80000000

#: The numbers of libev's backends.
BACKEND_SELECT = 1
BACKEND_POLL = 2
BACKEND_EPOLL = 4
BACKEND_KQUEUE = 8
BACKEND_DEVPOLL = 16
BACKEND_PORT = 32
BACKEND_LINUXAIO = 64
BACKEND_IOURING = 128

#: Flags of libev's loops.
NOINOTIFY = 0x100000
SIGNALFD = 0x200000
NOSIGMASK = 0x400000
FORKCHECK = 0x2000000

_events = (
    (READ, "READ"),
    (WRITE, "WRITE"),
    (TIMER, "TIMER"),
    (PERIODIC, "PERIODIC"),
    (SIGNAL, "SIGNAL"),
    (CHILD, "CHILD"),
    (STAT, "STAT"),
    (IDLE, "IDLE"),
    (PREPARE, "PREPARE"),
    (CHECK, "CHECK"),
    (EMBED, "EMBED"),
    (FORK, "FORK"),
    (CLEANUP, "CLEANUP"),
    (ASYNC, "ASYNC"),
    (CUSTOM, "CUSTOM"),
)

globals()["async"] = async_  # a keyword since 3.7; gevent keeps the name reachable


def _events_to_str(events: int) -> str:
    """The names of the bits, with ``|`` between; bits without a name in hexadecimal."""
    names = []
    for bit, name in _events:
        if events > 0 and events & bit:
            names.append(name)
            events &= ~bit
    if events or not names:
        names.append(f"{events:#x}")
    return "|".join(names)


def supported_backends() -> list[str]:
    """The loops that can be chosen by name (``BRIDGE_LOOP``, ``config.loop``) and are installed."""
    return [name for name in ("uvloop", "asyncio") if find_spec(name) is not None]


def recommended_backends() -> list[str]:
    """Those of :func:`supported_backends` to be recommended, the best first."""
    return supported_backends()


def embeddable_backends() -> list[str]:
    """Loops that can run inside another loop: none."""
    return []


def get_version() -> str:
    """Name and version of the loop that new hubs use, such as ``uvloop-0.22.1`` or ``asyncio-3.12.4``."""
    name = config.aio_loop_factory.__module__.partition(".")[0]
    if name == "asyncio":
        return f"{name}-{platform.python_version()}"
    try:
        return f"{name}-{metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name}-unknown"


get_header_version = get_version
