"""The ends of many greenlets, told to the hub in one callback.

Theory of operation
===================

Who keeps account of greenlets (a group of its members, an iterator of its jobs) has to act when one ends, and
not in the middle of that greenlet's last switch: *when* a place becomes free, or a result readable, decides
who runs next, and has to be that of gevent, where each end has a callback of its own in the hub.

A callback for each end costs more than what it does. But greenlets of one account mostly end one after
another, and then their callbacks would stand one behind the other in the ready queue. So an end that finds
the callback of its own account as the last entry adds itself to that. It is received exactly when a callback
of its own would have been, as nothing stands between the two. An entry that is being called is in the queue
no more, so nothing is added to what may have been read already.

*Heirs.* A job of ``imap`` concerns two accounts: its pool's, then the iterator's. A second link would double
the cost of the end. So the second account may ask the link that is there to be told next (:func:`also`).
There is one heir at the most; whoever comes later has a link of his own, and is told after him. A link that
is taken back gives its heir a link of his own (:meth:`Ends.leave`).

*Threads.* Greenlets end in the thread of their hub, except those that another thread kills before they have
begun: only there the loop has to be called from outside.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable
from functools import partial
from typing import Any

from ._core.callbacks import Callback
from ._core.hub import get_hub
from ._core.waiting import Link
from .greenlet import Greenlet

__all__ = ["Ends", "also"]


class Ends(Link):
    """A link: has the hub call ``receive(greenlet)`` for each greenlet that it is linked to, when that ends.

    It must not block. What it raises is reported by the hub. To be made and linked in the thread of the
    greenlets.
    """

    __slots__ = ("_heirs", "receive")

    def __init__(self, receive: Callable[[Any], object]) -> None:
        self.receive = receive
        self._heirs: dict[Any, tuple[Callable[[Any, Any], object], Any]] = {}

    def notify(self, source: Any) -> None:
        try:
            engine = source.parent.loop
        except AttributeError:  # no child of the hub: a program may set parents
            engine = get_hub().loop
        if engine.thread_ident != get_ident():
            engine.append_threadsafe(Callback(_receive, (self, [source])))
            return
        ready = engine.ready
        if (
            ready
            and type(last := ready[-1]) is Callback
            and last.callback is _receive
            and (pending := last.args)[0] is self  # type: ignore[index]
        ):
            pending[1].append(source)  # type: ignore[index]
        else:
            engine.call(_receive, self, [source])

    __call__ = notify  # for what has a rawlink() of its own kind

    def leave(self, member: Any) -> None:
        """Take this link back from a greenlet; whoever is its heir there is linked in its place."""
        unlink = getattr(member, "unlink", None)
        if unlink is not None:
            unlink(self)
            heir = self._heirs.pop(member, None)
            if heir is not None:
                receive, token = heir
                member.rawlink(partial(receive, token))


def also(job: Any, receive: Callable[[Any, Any], object], token: Any) -> None:
    """Have ``receive(token, job)`` called in the hub when ``job`` ends, after whoever is linked already.

    ``job`` is anything with ``rawlink``. Does not block.
    """
    if isinstance(job, Greenlet):
        link = job._links
        # atomic: another thread may kill it, but not between these lines
        if link.__class__ is Ends and job not in link._heirs:
            link._heirs[job] = receive, token
            return
    job.rawlink(partial(receive, token))


def _receive(link: Ends, ended: list[Any]) -> None:
    """In the hub."""
    receive, heirs = link.receive, link._heirs
    for greenlet in ended:
        try:
            receive(greenlet)
        except BaseException:
            get_hub().handle_error((receive, greenlet), *sys.exc_info())
        if heirs:
            heir = heirs.pop(greenlet, None)
            if heir is not None:
                try:
                    heir[0](heir[1], greenlet)
                except BaseException:
                    get_hub().handle_error((heir[0], greenlet), *sys.exc_info())
