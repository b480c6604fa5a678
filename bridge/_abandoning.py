"""In a forked child: greenlets that are never to go on.

A fork copies all greenlets. Plain ones go on in the child, as in gevent; but a greenlet that is a thread must
not: threads do not get into the child, and :mod:`threading` counts them as ended there. It would do the
parent's work a second time.

Such a greenlet is not killed, as that would run its ``finally`` clauses, which undo things that are the
parent's: close connections, write buffers, remove files. Nor may it be collected, which comes to the same. It
is kept, and everything that could resume it is taken away. Where it stood in line, the next one
gets what it had been told of. The locks that it holds stay locked, as with threads.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterable
from typing import Any

from greenlet import greenlet

from ._core.hub import get_hub_if_exists
from ._core.waiting import Wait, WaitLine
from ._killing import _Delivery

__all__ = ["abandon"]

_kept: list[greenlet] = []


def abandon(greenlets: Iterable[greenlet]) -> None:
    """Have *greenlets*, of this thread, never run again. Does not switch. Only in a forked child."""
    gone = set(greenlets)
    if not gone:
        return
    _kept.extend(gone)
    lines = []
    #: their waits, and whether each has been told that there is something for it
    waits: dict[Wait, bool] = {}
    for obj in gc.get_objects():
        if type(obj) is Wait and obj.greenlet in gone:
            waits[obj] = obj.woken
            obj.give_up()  # from now on it is woken in vain
        elif type(obj) is WaitLine:
            lines.append(obj)
    hub = get_hub_if_exists()
    if hub is not None and hub.loop is not None:
        _forget(hub.loop, gone, waits)
    for line in lines:
        for wait in tuple(line):
            if type(wait) is Wait and wait in waits and line.discard(wait) and waits[wait]:
                line.tell()


def _forget(loop: Any, gone: set[greenlet], waits: dict[Wait, bool]) -> None:
    ready: deque[Any] = loop.ready
    kept = [
        item
        for item in ready
        if not (
            (isinstance(item, greenlet) and item in gone)
            or (isinstance(item, _Delivery) and item.greenlet in gone)
        )
    ]
    ready.clear()
    ready.extend(kept)
    for g in gone:
        loop.stale.pop(g, None)
    for timer in tuple(loop.heap):
        arg = timer[3]
        if (isinstance(arg, greenlet) and arg in gone) or (type(arg) is Wait and arg in waits):
            loop.cancel(timer)
