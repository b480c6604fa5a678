"""Which hub is this thread's, and may the current greenlet block.

See :mod:`.hub` for the theory; that module registers the class of which hubs are made.
"""

from __future__ import annotations

import atexit
import sys
from _thread import _local, allocate_lock, get_ident
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from .errors import BlockingSwitchOutError
from .loop import loop as Loop
from .switching import HubLocal

if TYPE_CHECKING:
    from .hub import Hub

__all__ = [
    "MAIN_THREAD_IDENT",
    "before_the_end",
    "blocking_place",
    "get_hub",
    "get_hub_class",
    "get_hub_if_exists",
    "get_loop",
    "hub_local",
    "in_portal",
    "of_thread",
    "runner_thread",
    "set_default_hub_class",
    "set_hub",
    "set_loop",
    "set_loop_sharer",
    "set_portal_finder",
]

#: The thread (as a greenlet) whose ``asyncio.run()`` the code in the hub belongs to, told by its context.
#: None: the thread that the hub is in.
runner_thread: ContextVar[greenlet | None] = ContextVar("bridge_runner_thread", default=None)

MAIN_THREAD_IDENT = get_ident()


class _ThreadEnd:
    """Kept among a thread's locals, which go while the thread can still run Python: ends its hubs."""

    def __init__(self) -> None:
        self.hubs: list[Hub] = []

    def __del__(self) -> None:
        # The locals are not to be asked any more: new ones would be made, and never told of the thread's end.
        if _forget is not None:  # it is, when the interpreter is going down
            _forget()
        for hub in self.hubs:
            if hub.thread_ident != MAIN_THREAD_IDENT and hub.loop is not None:
                if get_ident() == hub.thread_ident:
                    if hub.loop.owned:
                        hub._destroy()
                    elif hub.loop.is_closed():
                        hub._retire()


class _OfThread(_local):
    hub: Hub | None = None
    #: hubs of owned loops that are set aside while an adopted loop runs
    aside: tuple[Hub, ...] = ()
    #: the asyncio or gevent loop that the next hub of this thread is to use
    next_loop: Loop | None = None
    #: the loop for the hub that is being made
    loop_of_new: Loop | None = None

    def __init__(self) -> None:
        # Once in each thread, before anything else is stored: so it is the first to go when the thread ends.
        self.guard = _ThreadEnd()

    def forget(self) -> None:
        """See HubLocal."""


of_thread = _OfThread()
#: for the attribute ``hub``, which is asked for at every wait
hub_local = HubLocal(of_thread)
_forget = hub_local.forget

_WAYS_OUT = (
    "Blocking here would stop the event loop itself. Ways out:\n"
    "    await ...                        # use the asynchronous face: await event, await queue.aget()\n"
    "    await bridge.sync_to_async(f)()  # run the blocking function in a greenlet\n"
    "    @bridge.portal                   # let this coroutine function block\n"
    "    bridge.spawn(f)                  # run it beside, in a greenlet of its own"
)


def _no_portal(_current: greenlet) -> Any:
    return None


_find_portal: Callable[[greenlet], Any] = _no_portal


def set_portal_finder(finder: Callable[[greenlet], Any]) -> None:
    """Called by the asyncio side: ``finder(greenlet)`` gives the portal that it is in, or None."""
    global _find_portal
    _find_portal = finder


def in_portal(g: greenlet) -> bool:
    """Whether ``g`` may block although a loop is running."""
    return _find_portal(g) is not None


def _leave_alone(_hub: Any) -> None:
    """Without the asyncio side nobody else has our loop."""


#: Called with a hub before somebody else gets hold of its loop, or gets it back.
share_loop: Callable[[Hub], None] = _leave_alone


def set_loop_sharer(sharer: Callable[[Hub], None]) -> None:
    """Called by the asyncio side: ``sharer(hub)`` prepares the loop for being run by others, too."""
    global share_loop
    share_loop = sharer


def blocking_place(current: greenlet) -> Any:
    """Where the current greenlet may wait although the quick test says no: its portal, or a loop.

    Raises BlockingSwitchOutError if it may not.
    """
    running = _running_loop()
    if running is not None:
        hub = hub_local.hub
        loop = hub.loop if hub is not None else None
        if loop is None or loop.aio is not running or (loop.owned and not loop.running):
            get_hub()  # from here on the hub of the thread is the one of this loop
        portal = _find_portal(current)
        if portal is not None:
            return portal
        raise BlockingSwitchOutError(
            f"A blocking call was made in a coroutine or a callback of asyncio. {_WAYS_OUT}"
        )
    hub = get_hub()
    if current is hub:
        raise BlockingSwitchOutError(f"A blocking call was made in a callback of the hub. {_WAYS_OUT}")
    return hub.loop


# -- which hub ------------------------------------------------------------------------------------

_hub_class: type[Hub]
_hub_class_lock = allocate_lock()


def get_hub_class() -> type[Hub]:
    """The class that new hubs are made of."""
    return _hub_class


def set_default_hub_class(hubtype: type[Hub]) -> None:
    """Have new hubs made of ``hubtype``, a subclass of Hub; for testing."""
    global _hub_class
    with _hub_class_lock:
        _hub_class = hubtype


def get_hub() -> Hub:
    """The hub of this thread, made if there is none; the running asyncio loop is adopted.

    Does not block. From any thread, greenlet or coroutine.
    """
    hub = hub_local.hub
    if hub is None or hub.loop.probe() is not None:
        return _reconsider(hub)
    return hub


def get_hub_if_exists() -> Hub | None:
    """The hub of this thread, or None; makes none."""
    return hub_local.hub


def set_hub(hub: Hub | None) -> None:
    """Make ``hub`` the hub of this thread; None: the next one who asks gets a new one."""
    if hub is not None and not isinstance(hub, greenlet):
        raise TypeError(f"set_hub({hub!r}): a Hub is needed, or None for a new one")
    hub_local.hub = hub


def get_loop() -> Loop | None:
    """The loop that the next hub of this thread will use, None for a new one."""
    return of_thread.next_loop


def set_loop(loop: Loop | None) -> None:
    """Have the next hub of this thread use ``loop``."""
    of_thread.next_loop = loop


def _reconsider(hub: Hub | None) -> Hub:
    """A loop is running, or there is no usable hub: find or make the right one."""
    running = _running_loop()
    if running is None:
        return _own(hub)
    if hub is not None:
        loop = hub.loop
        if loop.aio is running:
            if loop.owned and not loop.running:
                # made for us, but run by somebody else: hub.aio_loop.run_until_complete(...)
                loop.adopt(hub._enter)
            return hub
        if loop.owned:
            of_thread.aside = (*of_thread.aside, hub)
    return _new_hub(Loop(aio=running, owned=False, default=False))


def _own(hub: Hub | None) -> Hub:
    if hub is not None and hub.loop is not None and not hub.loop.owned:
        # the loop that was adopted has ended
        if of_thread.aside:
            *rest, hub = of_thread.aside
            of_thread.aside = tuple(rest)
        elif not hub.loop.is_closed():
            hub.loop.own()
            share_loop(hub)
        else:
            hub = None
        if hub is not None:
            hub_local.hub = hub
            _guard(hub)
            return hub
    if hub is not None and hub.loop is not None:
        return hub
    loop, of_thread.next_loop = of_thread.next_loop, None
    if loop is not None and (loop.destroyed or not loop.owned):
        loop = None
    return _new_hub(loop)


def _new_hub(loop: Loop | None) -> Hub:
    # Not as an argument: the class may be one of the program's, whose __init__ takes none.
    of_thread.loop_of_new = loop
    try:
        hub = get_hub_class()()
    finally:
        of_thread.loop_of_new = None
    if not hub.loop.owned:
        hub.loop.adopt(hub._enter)
    hub_local.hub = hub
    _guard(hub)
    return hub


def _running_loop() -> Any:
    events = sys.modules.get("asyncio.events")
    return events._get_running_loop() if events is not None else None


def _guard(hub: Hub) -> None:
    guard = of_thread.guard
    # a hub that another one has put aside is still there
    others = [h for h in guard.hubs if h is not hub and h.loop is not None]
    guard.hubs = [h for h in others if not h.loop.is_closed()]
    guard.hubs.append(hub)
    for other in others:
        if not other.loop.owned and other.loop.is_closed():
            other._retire()


#: What is called at the end of the process before the hub of the main thread ends.
_before_the_end: list[Callable[[], object]] = []


def before_the_end(function: Callable[[], object]) -> None:
    """Have ``function()`` called at the end of the process, while the main thread still has its hub."""
    _before_the_end.append(function)


def _at_exit() -> None:
    """Leave the loop and close it, so that the interpreter ends without warnings."""
    for function in reversed(_before_the_end):
        function()
    for hub in (*of_thread.aside, hub_local.hub):
        if hub is not None and hub.loop is not None and hub.loop.owned and hub.parent is getcurrent():
            hub.destroy(destroy_loop=True)


# Now, not when the first hub is made: functions for the end of the process are called in reverse order, and
# those that programs and libraries register may still need greenlets, for example to join thread-greenlets.
atexit.register(_at_exit)
