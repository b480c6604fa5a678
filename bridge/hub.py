"""The hub and what switches to it directly; twin of :mod:`gevent.hub`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from ._config import config
from ._core.clock import monotonic
from ._core.current import (
    MAIN_THREAD_IDENT as MAIN_THREAD_IDENT,
)
from ._core.current import (
    get_hub,
)
from ._core.current import (
    get_hub_class as get_hub_class,
)
from ._core.current import (
    get_hub_if_exists as get_hub_if_exists,
)
from ._core.current import (
    get_loop as get_loop,
)
from ._core.current import (
    set_default_hub_class as set_default_hub_class,
)
from ._core.current import (
    set_hub as set_hub,
)
from ._core.current import (
    set_loop as set_loop,
)
from ._core.engine import parks
from ._core.errors import HubDestroyed as HubDestroyed
from ._core.errors import LoopExit as LoopExit
from ._core.forking import reinit
from ._core.hub import Hub
from ._core.seconds import as_seconds
from ._core.waiter import Waiter
from ._core.waiting import Wait
from ._ident import IdentRegistry as IdentRegistry
from ._joining import iwait as iwait
from ._joining import wait as wait
from ._killing import throw_soon

__all__ = [
    "GreenletExit",
    "Hub",
    "Waiter",
    "get_hub",
    "getcurrent",
    "kill",
    "reinit",
    "signal",
    "sleep",
    "spawn_raw",
]

GEVENT_CONFIG = config
RawGreenlet = greenlet
get_hub_noargs = _get_hub_noargs = get_hub
_get_hub = get_hub_if_exists


class TrackedRawGreenlet(greenlet):
    """What :func:`spawn_raw` makes: a greenlet that remembers who spawned it."""

    spawning_greenlet: Any = None
    spawn_tree_locals: dict[str, Any] | None = None
    loop: Any = None


def spawn_raw(function: Callable[..., Any], *args: Any, **kwargs: Any) -> greenlet:
    """Have ``function(*args, **kwargs)`` run in a bare greenlet, without result, links and name.

    Cheaper than :func:`bridge.spawn`. TypeError if the function cannot be called. Does not block.
    """
    if not callable(function):
        raise TypeError(f"function must be callable, not {function!r}")
    hub = get_hub()
    if args or kwargs:
        function = partial(function, *args, **kwargs)
    g = TrackedRawGreenlet(function, hub)
    loop = g.loop = hub.loop
    if config.track_greenlet_tree:
        import weakref

        spawner = getcurrent()
        g.spawning_greenlet = weakref.ref(spawner)
        tree = getattr(spawner, "spawn_tree_locals", None)
        if tree is None:
            tree = {}
            if spawner.parent is not None:
                spawner.spawn_tree_locals = tree  # type: ignore[attr-defined]
        g.spawn_tree_locals = tree
    if config.inherit_context:
        import contextvars

        g.gr_context = contextvars.copy_context()
    loop.ready.append(g)
    if not loop.armed:
        loop.arm()
    return g


@parks
def sleep(seconds: float = 0, ref: bool = True) -> None:
    """Let others run for ``seconds``; 0 or less: for one round of those who are ready now.

    :param ref: whether the sleep is a reason for the loop to go on.

    Blocks the greenlet. In a coroutine only below a portal.
    """
    wait = Wait()
    try:
        only_yields = seconds <= 0
    except TypeError:
        seconds = as_seconds(seconds, "sleep({!r}): a number of seconds is needed")
        only_yields = seconds <= 0
    if only_yields:
        wait.turn()
        return
    try:
        due = monotonic() + seconds
    except TypeError:
        due = monotonic() + as_seconds(seconds, "sleep({!r}): a number of seconds is needed")
    timer = None
    try:
        timer = wait.engine.call_at(due, Wait.wake, wait, ref)
        wait.block()
    except BaseException:
        wait.give_up()
        if timer is not None:
            wait.engine.cancel(timer)
        raise


def idle(priority: int = 0) -> None:
    """Wait until the hub has nothing else to do. Blocks; priorities have no effect."""
    if not isinstance(priority, int):
        raise TypeError(f"idle(priority={priority!r}): an integer from -2 to 2 is needed")
    hub = get_hub()
    watcher = hub.loop.idle()
    hub.wait(watcher)


def kill(greenlet: RawGreenlet, exception: Any = GreenletExit) -> None:
    """Have ``exception`` raised in ``greenlet``, which may be a raw or the main one. Does not block.

    If it is the current greenlet the exception arrives when it blocks next.
    """
    if not isinstance(greenlet, RawGreenlet):
        raise TypeError(f"kill() takes a greenlet, not {greenlet!r}")
    if greenlet.dead:
        return
    own = getattr(greenlet, "_maybe_kill_before_start", None)
    if own is not None and own(exception):
        return
    throw_soon(greenlet, exception)


class signal:
    """Have ``handler(*args, **kwargs)`` run in a greenlet of its own when the process gets a signal.

    :param signalnum: the signal; ValueError if it is none.
    :param ref: whether waiting for the signal is a reason for the loop to go on.

    Exported as :func:`bridge.signal_handler`. Only in the main thread. Keep the object:
    :meth:`cancel` ends it.
    """

    #: What the handler runs in; :class:`bridge.Greenlet`, from when that is defined.
    greenlet_class: Any = greenlet

    def __init__(self, signalnum: int, handler: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if not callable(handler):
            raise TypeError(f"signal handler must be callable, not {handler!r}")
        self.hub = get_hub()
        self.watcher = self.hub.loop.signal(signalnum, ref=False)
        self.handler = handler
        self.args = args
        self.kwargs = kwargs
        self.watcher.start(self._start)

    @property
    def ref(self) -> bool:
        """Whether this is a reason for the loop to go on."""
        return self.watcher.ref

    @ref.setter
    def ref(self, value: bool) -> None:
        self.watcher.ref = value

    def cancel(self) -> None:
        """Stop calling the handler."""
        self.watcher.stop()
        self.watcher.close()
        self.handler = _no_handler
        self.args = ()
        self.kwargs = {}

    def _start(self) -> None:
        g = self.greenlet_class(self.handle)
        g.switch()

    def handle(self) -> None:
        """Call the handler; errors go to the hub."""
        try:
            self.handler(*self.args, **self.kwargs)
        except BaseException:
            self.hub.handle_error(None, *sys.exc_info())


def _no_handler(*args: Any, **kwargs: Any) -> None:
    """The handler after cancel()."""


def signal_handler(signalnum: int, handler: Callable[..., Any], *args: Any, **kwargs: Any) -> signal:
    """Have ``handler(*args, **kwargs)`` run in a greenlet when the process gets the signal ``signalnum``.

    Returns an object with ``cancel()``. TypeError if the handler can't be called. Only in the main thread.
    """
    return signal(signalnum, handler, *args, **kwargs)
