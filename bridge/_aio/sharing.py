"""The hub's loop in the hands of others: what they may do while the hub is in the middle of running it.

Somebody has taken the loop from ``hub.aio_loop``, or has run it before the hub took it over: a Runner, a
fixture of pytest-asyncio, IPython. The hub never comes back from ``run_forever``, so to them the loop would
be running for ever: ``run_until_complete`` and ``run_forever`` would refuse, and ``close`` as well. On such a
loop, on that object only, the first two wait while the hub goes on, ``run_forever`` until ``stop`` is called,
and ``close`` ends the hub.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from greenlet import getcurrent

from bridge._core.current import blocking_place, hub_local, set_loop_sharer
from bridge._core.hub import Hub
from bridge._core.waiting import Wait

from .awaiting import wait_for_task
from .portal import find_portal

__all__ = ["beside", "in_portal", "runs_already"]


def beside() -> Hub | None:
    """The hub beside which a loop would run that the current greenlet runs now; None: there is none.

    Raises BlockingSwitchOutError in a callback of the hub, where nothing may block.
    """
    hub = hub_local.hub
    if hub is None or hub.loop is None or hub._closing or hub.dead:
        return None
    loop = hub.loop
    if loop.get_running() is not None or not (loop.owned or loop.draining) or loop.is_closed():
        return None
    current = getcurrent()
    if current is hub:
        blocking_place(current)  # raises
    return hub


def in_portal() -> bool:
    """True if the current code blocks in a portal, where a loop is running."""
    return asyncio._get_running_loop() is not None and find_portal(getcurrent()) is not None


def runs_already(aio: Any) -> bool:
    """True if ``aio`` is the loop of the greenlet's hub, or the portal's: to wait is enough there."""
    if in_portal():
        return asyncio._get_running_loop() is aio
    hub = beside()
    return hub is not None and hub.loop.aio is aio and (hub.loop.owned or bool(aio.is_running()))


def share_loop(hub: Hub) -> None:
    """Prepare the hub's loop for others; see above."""
    aio: Any = hub.loop.aio
    if "_bridge_shared" in getattr(aio, "__dict__", {"_bridge_shared": True}):
        return  # done, or a loop whose methods can't be replaced
    run_until_complete, close = aio.run_until_complete, aio.close
    run_forever, stop = aio.run_forever, aio.stop
    #: who waits in run_forever()
    waiting: list[Wait] = []

    @functools.wraps(run_until_complete)
    def run_until_complete_shared(future: Any) -> Any:
        return wait_for_task(aio, future) if runs_already(aio) else run_until_complete(future)

    @functools.wraps(close)
    def close_shared() -> None:
        hub = hub_local.hub
        if aio.is_running() and hub is not None and runs_already(aio):
            hub.destroy(destroy_loop=True)
        else:
            close()

    @functools.wraps(run_forever)
    def run_forever_shared() -> None:
        if not runs_already(aio) or in_portal():
            run_forever()
            return
        wait = Wait()
        engine = wait.engine
        engine.refs += 1
        try:
            waiting.append(wait)
            wait.block()
        finally:
            engine.refs -= 1
            if wait in waiting:
                waiting.remove(wait)

    @functools.wraps(stop)
    def stop_shared() -> None:
        if waiting:
            waiting.pop().wake()
        else:
            stop()

    aio._bridge_shared = True
    aio.run_forever = run_forever_shared
    aio.stop = stop_shared
    aio.run_until_complete = run_until_complete_shared
    aio.close = close_shared


set_loop_sharer(share_loop)
