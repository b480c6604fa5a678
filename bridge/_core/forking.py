"""What a forked child has to make anew.

The loop of the parent must not be touched in the child: its epoll instance and its pipes are shared. The
child gets a new asyncio loop; the ready queue, the timers and the greenlets go on, as in gevent. The greenlet
of the old hub is parked deep inside ``run_forever`` of the parent's loop and must never be resumed, so the
child gets a new hub greenlet too, and the greenlets get it as their parent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet

from .census import all_greenlets
from .children import natively
from .clock import keep_time
from .current import hub_local
from .hub import Hub

__all__ = ["reinit"]

#: Hubs of the parent process: collecting one would throw GreenletExit into its parked loop.
_kept: list[Any] = []


def reinit(hub: Hub | None = None) -> None:
    """Make a hub, by default this thread's, usable in a forked child. Done by itself after every ``os.fork``.

    Does not block and does not switch. Does nothing where there is no hub.
    """
    if hub is None:
        hub = hub_local.hub
    if hub is None or hub.loop is None:
        return
    pid = os.getpid()
    if getattr(hub.loop, "pid", pid) != pid:
        hub = _renew(hub)
    if hub.periodic_monitoring_thread is not None:
        hub.periodic_monitoring_thread._on_fork(hub)


def _renew(hub: Hub) -> Hub:
    from bridge._config import config

    old = hub.loop
    new_aio = None
    if old.has_aio:
        new_aio = config.aio_loop_factory()
        keep_time(new_aio)
        _kept.append((hub, old.aio, old._alarm))
    started = bool(hub)
    old.renew(new_aio)
    if started:
        hub = _replace(hub)
    else:
        # a coroutine may have begun the greenlet that forked, which would go back to it when it blocks: to
        # the parent's loop
        _prepare(hub)
    if hub._threadpool is not None:
        hub._threadpool._on_fork()
    on_fork = getattr(hub._resolver, "_on_fork", None)
    if on_fork is not None:
        on_fork(hub)
    old.reinit()
    return hub


def _replace(hub: Hub) -> Hub:
    new = type(hub)(hub.loop)
    new.__dict__.update({k: v for k, v in hub.__dict__.items() if k not in ("_switch",)})
    _prepare(new)
    for obj in all_greenlets():
        # not obj.dead: another thread may have been about to make it
        if not isinstance(obj, Hub) and not _has_ended(obj) and obj.parent is hub:
            obj.parent = new
    hub_local.hub = new
    hub._heir = new
    if getcurrent() is hub:
        _make_ordinary(hub)
    return new


def _make_ordinary(hub: Hub) -> None:
    """A coroutine or a callback has forked: what was the hub's greenlet is what runs in the child.

    So it has to be able to block, and to be resumed. Who has kept it and calls ``switch()`` to block is told
    from who resumes it by being that greenlet itself.
    """

    def switch(*args: Any, **kwargs: Any) -> Any:
        if getcurrent() is hub:
            return hub._heir.switch(*args, **kwargs)  # type: ignore[union-attr]
        return greenlet.switch(hub, *args, **kwargs)

    hub.__dict__.update(switch=switch, switch_out=None)


def _prepare(hub: Hub) -> None:
    """``hub`` has not begun: whoever blocks comes to it, and it ends in the thread's main greenlet."""
    hub.loop.to_runner = hub._switch
    # what enters it first may be the end of the greenlet that forked, whose value then comes as argument
    hub.__dict__["run"] = lambda *_: type(hub).run(hub)
    hub.parent = _root(getcurrent())


_has_ended: Callable[[greenlet], bool] = greenlet.dead.__get__


def _root(g: greenlet) -> greenlet:
    while g.parent is not None:
        g = g.parent
    return g


def _after_fork() -> None:
    # A child that subprocess makes calls preexec_fn and is another program then. The parent's thread stands
    # still meanwhile, and a new loop and the search for greenlets would take it 10 to 500 ms.
    if not natively.now:
        reinit()


if hasattr(os, "register_at_fork"):
    # At once, whoever forked: a plain os.fork() too must not use the parent's loop by accident.
    os.register_at_fork(after_in_child=_after_fork)
