"""What events, results and semaphores have in common: a line of waiters, and callbacks in it.

Greenlets, coroutines and callbacks (``rawlink``) stand in one line, in order of arrival; see
:mod:`bridge._core.waiting` for how a line works.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable
from typing import Any

from ._core.callbacks import Callback
from ._core.hub import get_hub, get_hub_if_exists
from ._core.waiting import Link, WaitLine

__all__ = ["AbstractLinkable"]


class _RawLink:
    """A callback that stands in line like a waiter; it is called in the hub of who registered it."""

    __slots__ = ("callback", "dead", "hub", "source", "woken")

    def __init__(self, source: AbstractLinkable, callback: Callable[[Any], object]) -> None:
        self.source = source
        self.callback = callback
        self.hub = get_hub()
        self.woken = False
        self.dead = False

    def wake(self) -> None:
        callback: Any = self.callback
        if self.woken or not isinstance(callback, Link) or self.hub.thread_ident != get_ident():
            self.wake_late()
            return
        # it keeps the order in which things become ready, as finished greenlets tell it at once, too
        self.woken = True
        self.callback = None  # type: ignore[assignment]
        callback.notify(self.source)
        if not self.dead:
            self.source._link_done(self)

    def wake_late(self) -> None:
        """Have the callback called after what is ready now."""
        if not self.woken:
            self.woken = True
            if self.dead:  # it has left the line: unlink() shall find it until it is called
                self.source._leaving(self)
            loop = self.hub.loop  # not kept: tests replace the loop of a hub
            if self.hub.thread_ident == get_ident():
                loop.call(self._run)
            elif loop is not None:  # None: the thread has ended, and its hub
                loop.run_callback_threadsafe(self._run)

    def wake_next(self) -> None:
        """:meth:`wake`, before whatever else is ready: who was told before us was served just now."""
        loop = self.hub.loop
        if self.woken or self.dead or isinstance(self.callback, Link) or self.hub.thread_ident != get_ident():
            self.wake()
            return
        self.woken = True
        loop.ready.appendleft(Callback(self._run, ()))
        if not loop.armed:
            loop.arm()

    def abandoned(self) -> bool:
        """True if the loop in whose hub it was to be called is gone."""
        loop = self.hub.loop
        return loop is None or loop.is_closed()

    def take_back(self) -> None:
        """Nothing: whether there is still something to be told of is seen when it is to be called."""

    def _run(self) -> None:
        source = self.source
        if self.dead:
            source._left(self)
        callback = self.callback
        if callback is None or not source._turn_of(self):  # unlinked meanwhile, or too late
            return
        self.callback = None  # type: ignore[assignment]  # unlink() finds another registration of the same
        try:
            callback(source)
        except BaseException:
            get_hub().handle_error((callback, source), *sys.exc_info())
        finally:
            source._link_done(self)


class AbstractLinkable:
    """An object that greenlets, coroutines and callbacks can wait for."""

    __slots__ = ("__weakref__", "_called_soon", "_line")

    _line: WaitLine | None
    #: Callbacks that were told when everybody left the line; not there before the first.
    _called_soon: list[_RawLink]

    def ready(self) -> bool:
        """True if a wait would not block."""
        raise TypeError(f"{type(self).__name__} must define ready()")

    @property
    def hub(self) -> Any:
        """The hub of the current thread; None before somebody waits, as objects are not bound to a hub."""
        return get_hub_if_exists() if self._line is not None else None

    def linkcount(self) -> int:
        """How many wait: greenlets, coroutines and callbacks."""
        return self._line.waiting() if self._line else 0

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Have ``callback(self)`` called once in the hub when this becomes ready; it must not block.

        If it is ready now, it is called soon. TypeError if it can't be called.
        """
        if not callable(callback) and not isinstance(callback, Link):
            raise TypeError(f"Expected callable: {callback!r}")
        link = _RawLink(self, callback)
        self._line_of_waiters().append(link)
        if self.ready():
            link.wake_late()

    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Take back :meth:`rawlink`, up to the moment of the call; nothing if there is no such callback."""
        for link in tuple(self._line or ()):
            if type(link) is _RawLink and not link.dead and link.callback == callback:
                link.callback = None  # type: ignore[assignment]
                self._line.discard(link)  # type: ignore[union-attr]
                self._link_left()
                return
        for link in getattr(self, "_called_soon", ()):
            if link.callback == callback:
                link.callback = None
                return

    def _line_of_waiters(self) -> WaitLine:
        line = self._line
        if line is None:
            made = WaitLine()
            line = self._line  # atomic from here: another thread may have made one meanwhile
            if line is None:
                line = self._line = made
        return line

    def _leaving(self, link: _RawLink) -> None:
        """A callback was told as it left the line; it is called in the next round."""
        try:
            self._called_soon.append(link)
        except AttributeError:
            self._called_soon = [link]

    def _left(self, link: _RawLink) -> None:
        """It is its turn to be called."""
        soon: list[_RawLink] = getattr(self, "_called_soon", [])
        if link in soon:  # not if it was told before it left
            soon.remove(link)

    def _turn_of(self, link: _RawLink) -> bool:
        """Whether a callback that was told is to be called now; else it waits on in its place."""
        return True

    def _link_done(self, link: _RawLink) -> None:
        """A callback has been called: it leaves the line."""
        if self._line:
            self._line.discard(link)
            self._link_left()

    def _link_left(self) -> None:
        """For lines whose head is told: somebody who may have been told has left."""

    def _links_str(self) -> str:
        return f"_links[{self.linkcount()}]"
