"""One wait of one greenlet, and lines of those who wait.

Theory of operation
===================

Every blocking call of the library is the same four steps::

    w = Wait()                      # refuses where nothing may block
    try:
        line.append(w)              # say where the wake-up is to come from
        w.block(timeout)            # others run until w.wake() or the timeout
    except BaseException:           # kill, Timeout, Task.cancel, KeyboardInterrupt
        line.discard(w)             # undo, pass on what was meant for us
        raise

``wake()`` may come from anywhere: another greenlet, the hub, a coroutine, a callback of the loop, another
thread. It puts the wait into the ready queue of *its* engine, unless it is ``queued`` there already, and
says to whom to switch (``target``). Invariant: ``woken`` is true from the wake-up on, or if the wait is over
and wake-ups are void. A wait that ends by an exception clears its ``target``, and so does :meth:`take_back`;
the ready queue passes over such entries.

*Signals.* A handler may raise after any call of code in Python. So what is registered is so inside the
``try``; and a wake-up of a wait that is not in ``block()`` switches to nobody (``away``): the greenlet may be
about to get there, and then sees that it was woken, or it was kept from it and waits for something else.

*Told, not given.* A primitive with something to give (a permit, an item) tells the **head** of its line and
leaves it there; the head takes what it was told of when it runs, leaves the line, and tells the next one
if there is more. In between a running greenlet may snatch it, as in gevent; the head then waits on in
its place, mostly without having been switched to, as the snatcher takes its wake-up back. So nothing is
ever in flight in a wake-up, an undone wait has nothing to return, and first come is first served.
Invariant of such a line: *if there is something to take and the line is not empty, the head has been told*.
The way not taken, giving the thing to the waiter with the wake-up, needs every abort to give it back in
the right order, and a way to show it as neither taken nor free.

*Threads.* The primitives are used by several threads without a lock of their own. What makes that sound
is that CPython changes threads only when a function is entered, at a backward jump and after a call. So
a test followed by stores, or by one call into C, is atomic::

    if self.counter > 0:            # no other thread can run between these lines
        self.counter -= 1

    if line and not line[0].woken:  # nor here, up to and including the call
        line[0].wake()

Code that relies on it says "atomic". A lock would cost more than the rest of an uncontended acquire.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections import deque
from typing import Any

from greenlet import GreenletExit, getcurrent

from .callbacks import Callback
from .clock import monotonic
from .current import blocking_place, get_hub, hub_local
from .engine import parks
from .errors import InvalidSwitchError
from .switching import LineBase, WaitBase, use_waits

__all__ = ["Wait", "WaitLine"]


class Link:
    """Something that a finishing greenlet (or a set result) tells at once, without a call in the hub.

    Only for wake-ups: ``notify`` must neither switch nor raise.
    """

    __slots__ = ()

    def notify(self, source: Any) -> None:
        """``source`` has finished."""
        raise TypeError(f"{type(self).__name__} must define notify()")

    def notify_late(self, source: Any) -> None:
        """``source`` had finished before it was linked."""
        self.notify(source)


class Wait(WaitBase, Link):
    """A wait of the current greenlet (or, in a portal, of the current task).

    Raises BlockingSwitchOutError where blocking is impossible: in the hub and in a coroutine without
    a portal.
    """

    __slots__ = ()

    @parks
    def _block_for(self, timeout: float) -> bool:
        engine = self.engine
        timer: Any = None
        try:
            # what a signal handler raises may come before the timer is stored, which then finds the wait over
            if timeout > 0:
                timer = engine.call_at(monotonic() + timeout, Wait._expire, self)
            else:
                # those who are ready now run first: one of them may be what we wait for
                timer = engine.call(self._expire)
            engine.park()
            if not self.woken:
                raise self._invalid()
        except BaseException:
            self.give_up()
            if timer is not None:
                self._stop(timer)
            raise
        if self.timed_out:
            return False
        self._stop(timer)
        return True

    def _stop(self, timer: Any) -> None:
        if isinstance(timer, Callback):
            timer.stop()
        else:
            self.engine.cancel(timer)

    def _invalid(self) -> InvalidSwitchError:
        return InvalidSwitchError(
            f"Invalid switch: {self.greenlet!r} was switched to while it waits for something else; "
            "wake it through what it waits for (event.set(), queue.put() ...; kill() ends a sleep), "
            "not by switch()"
        )

    def take_back(self) -> None:
        """Undo a wake-up that has not arrived: what it was for is gone. Nothing if it cannot be undone."""
        # ``queued`` is cleared by the thread that is about to resume us: only it knows that there is time
        if self.queued and self.engine.thread_ident == get_ident() and not self.timed_out:
            self.target = None
            self.woken = False

    def wake_next(self) -> None:
        """:meth:`wake`, and go on before whatever else is ready: what the waker does is part of the wake-up.

        In gevent a callback of the hub switches to several greenlets in turn, with nobody in between.
        """
        engine = self.engine
        if not self._is_here() or self.woken or self.queued:
            self.wake()
            return
        self.woken = self.queued = True  # atomic, with the test
        self.target = self.greenlet
        engine.ready.appendleft(self)
        if not engine.armed:
            engine.arm()

    def run_now(self) -> bool:
        """In a callback of the hub: end the wait, and switch to the greenlet until it waits again or ends.

        False if that cannot be: we are elsewhere, or it does not wait in this hub.
        """
        engine = self.engine
        hub: Any = hub_local.hub
        g = self.greenlet
        # in a drain, not in whatever else the loop calls in the hub: that is no safe point
        if not self._is_here() or not engine.draining or getcurrent() is not hub:
            return False
        if g is None or g.dead or self.away:
            return False
        self.woken = True
        self.target = None  # where it stands in the ready queue it is passed over
        engine.turns = 0  # it comes straight back, instead of handing over to others
        try:
            g.switch()
        except GreenletExit:
            raise  # for the hub itself
        except BaseException:
            engine.handle_error(g, *sys.exc_info())
        return True

    def _is_here(self) -> bool:
        """True if it waits in the engine of the current thread itself, not in a portal."""
        hub = hub_local.hub
        return hub is not None and hub.loop is self.engine

    def abandoned(self) -> bool:
        """True if the loop in which it waits was closed: it will never go on."""
        return self.engine.is_closed()  # type: ignore[no-any-return]


use_waits(Wait, hub_local, get_hub, blocking_place, getcurrent)


class WaitLine(LineBase):
    """Those who wait for one thing, in order of arrival.

    Invariant: neither the first nor the last entry is dead, so an empty line is false and ``line[0]``
    is somebody. Leaving from the middle leaves a tombstone, as a search for the place would make the
    death of n waiters cost n²; tombstones go when they reach an end, or when they are the majority.
    """

    #: About how many entries in the middle have left: says only when to clean up. (Threads may change between
    #: a removal and the count, so that nothing else may rely on it.)
    tombstones = 0  # of the class until there is one: a line is made without a call of Python code

    def _bury(self) -> None:
        """One more entry in the middle has left."""
        self.tombstones += 1
        if self.tombstones * 2 > len(self):
            self._compact()

    def trim(self) -> None:
        """Remove the tombstones at both ends."""
        # not "while self and self[0].dead": threads may change between the test of a while and its body
        while True:
            if self and self[0].dead:  # atomic
                self.popleft()
            elif self and self[-1].dead:  # atomic
                self.pop()
            else:
                return
            if self.tombstones > 0:
                self.tombstones -= 1

    def _compact(self) -> None:
        """Remove all tombstones, unless somebody comes or leaves meanwhile."""
        before = tuple(self)
        alive = [w for w in before if not w.dead]
        worthwhile = len(alive) < len(before)
        # Who left the middle meanwhile is dead in ``alive``, as he would be in the line. Atomic:
        if worthwhile and self and self[0] is before[0] and self[-1] is before[-1]:
            self.tombstones = 0
            _refill(self, alive)
        if self and (self[0].dead or self[-1].dead):
            self.trim()

    def prune(self) -> None:
        """Drop those at the head whose loop was closed: told or not, they will never leave by themselves."""
        try:
            while (head := self[0]).abandoned() and self.discard(head):
                pass
        except IndexError:
            pass  # nobody is left

    def tell_next(self) -> None:
        """:meth:`tell`, when the head before was just served: it goes on before whatever else is ready."""
        if self and not (head := self[0]).woken:  # atomic
            wake_next = getattr(head, "wake_next", None)
            if wake_next is not None:
                wake_next()
            else:
                head.wake()

    def waiting(self) -> int:
        """How many are in line."""
        return sum(1 for wait in tuple(self) if not wait.dead)

    def wake_all(self) -> None:
        """Wake everybody who is in line now and empty it."""
        while True:  # see _trim
            if not self:
                return
            wait = self[0]  # atomic up to the popleft
            if wait.dead:
                self.popleft()
            else:
                wait.dead = True
                self.popleft()
                wait.wake()


#: Clears a deque and fills it again in one call into C.
_refill = deque.__init__
