"""Raising exceptions in other greenlets: ``kill`` and ``killall``.

An exception is delivered by the ready queue, like a wake-up: after what was ready before. The wait in which
the greenlet is undoes itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from greenlet import GreenletExit, greenlet

from ._core.engine import throw_into
from ._core.hub import Hub, get_hub
from ._core.waiting import Wait
from ._joining import wait
from .timeout import Timeout

__all__ = ["hub_of", "is_exception", "killall", "no_exception", "throw_next", "throw_soon"]


def _not_begun(g: Any) -> bool:
    """True for a Greenlet that has not run yet: its own throw() ends it without running it."""
    begun = getattr(g, "_has_begun", None)
    return begun is not None and not begun()


class _Delivery:
    """An entry of the ready queue that raises an exception in a greenlet; the hub switches to it."""

    __slots__ = ("exception", "greenlet", "killer")

    def __init__(self, g: greenlet, exception: Any, killer: Wait | None = None) -> None:
        self.greenlet = g
        self.exception = exception
        #: who waits for the delivery, and goes on right after it
        self.killer = killer

    def switch(self) -> Any:
        """From the hub: nobody hands over to this."""
        if self.killer is not None:
            self.killer.wake_next()
        g = self.greenlet
        if not g.dead:
            if _not_begun(g):
                g.throw(self.exception)
            else:
                return throw_into(g, self.exception)
        return ()


def is_exception(exception: Any) -> bool:
    """True for what can be raised."""
    return isinstance(exception, BaseException) or (
        isinstance(exception, type) and issubclass(exception, BaseException)
    )


def no_exception(exception: Any) -> TypeError:
    """What is raised in the greenlet instead of something that can't be."""
    return TypeError(f"kill(exception={exception!r}): an exception class or instance is needed")


def hub_of(g: greenlet) -> Hub:
    """The hub of a greenlet, which may belong to another thread."""
    parent = g.parent
    return parent if isinstance(parent, Hub) else get_hub()


def throw_soon(g: greenlet, exception: Any, killer: Wait | None = None) -> None:
    """Have ``exception`` raised in ``g`` after what is ready now; then ``killer`` goes on."""
    loop = hub_of(g).loop
    if not is_exception(exception):
        exception = no_exception(exception)
    loop.ready.append(_Delivery(g, exception, killer))
    if not loop.armed:
        loop.arm()


def throw_next(g: greenlet, exception: BaseException | type[BaseException]) -> None:
    """Have ``exception`` raised in ``g`` before anything else runs, as a signal would."""
    loop = hub_of(g).loop
    loop.ready.appendleft(_Delivery(g, exception))
    if not loop.armed:
        loop.arm()


def killall(
    greenlets: Iterable[Any],
    exception: type[BaseException] | BaseException = GreenletExit,
    block: bool = True,
    timeout: float | Timeout | None = None,
) -> None:
    """Have ``exception`` raised in all of them, and wait until they have ended.

    :param block: False: do not wait.
    :param timeout: seconds to wait at the most; then Timeout is raised.

    Raw greenlets may be among them.
    """
    alive = []
    for g in list(greenlets):
        if not isinstance(g, greenlet):
            raise TypeError(f"killall() takes greenlets, not {g!r}")
        kill_unstarted = getattr(g, "_maybe_kill_before_start", None)
        if kill_unstarted is not None and kill_unstarted(exception):
            continue
        if not g.dead:
            alive.append(g)
    if not alive:
        return
    loop = get_hub().loop
    if not is_exception(exception):
        exception = no_exception(exception)
    if not block:
        loop.call(_throw_all, loop, alive, exception)
        return
    me = Wait()
    loop.call(_throw_all, loop, alive, exception, me)
    limit = Timeout._start_new_or_dummy(timeout)
    try:
        me.block()
        # without those that have ended: waiting for these would let others run first
        joinable = [g for g in alive if hasattr(g, "rawlink") and not g.dead]
        if joinable:
            wait(joinable)
    finally:
        limit.close()


def _throw_all(loop: Any, greenlets: list[Any], exception: Any, wait: Wait | None = None) -> None:
    """In the hub: one after the other, with nobody in between, even if one of them blocks again."""
    if wait is not None:
        wait.wake_next()
    loop.ready.extendleft(_Delivery(g, exception) for g in reversed(greenlets))
