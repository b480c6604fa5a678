"""The quick half of the engine: the ready queue's entries, and handing over from one greenlet to the next.

Every wait of every primitive goes through these few methods, some of them several times. What they do is
told in :mod:`.engine` and :mod:`.waiting`, whose classes are made of the ones here. There are two of each:
this one, and its compiled twin in ``_switching.c``, which is used where it is there. Nothing else may tell
them apart.

They know of one another by what they find in the ready queue. The classes that are really in it, and what a
wait needs to know of its thread, are made known by :func:`use_engines` and :func:`use_waits`.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from greenlet import greenlet

from .accelerated import accelerator

if TYPE_CHECKING:
    from .callbacks import Callback
    from .hub import Hub

__all__ = [
    "CallbackBase", "EngineBase", "HubLocal", "LineBase", "Timer", "WaitBase", "WaiterBase",
    "use_engines", "use_hubs", "use_running", "use_waiters", "use_waits",
]  # fmt: skip

#: A timer in the heap: [when (monotonic seconds), serial, function or None, argument, counts as a reason
#: to go on]. A list, since heapq compares lists and tuples in C and the function has to be cleared.
Timer = list[Any]

_serial = count().__next__

#: What switch() gives when nothing was passed: the one empty tuple.
_NOTHING: tuple[()] = ()

_callback_class: Any = None
_thrown_class: Any = None
_wait_class: Any = None
_greenlet_exit: Any = None
_get_running: Callable[[], Any]
_hub_local: Any = None
_get_hub: Callable[[], Any]
_blocking_place: Callable[[Any], Any]
_getcurrent: Callable[[], Any]
_unset: Any = None


def use_engines(callback_class: type[Any], thrown_class: type[Any], greenlet_exit: Any, /) -> None:
    """Called once, by :mod:`.engine`: the classes of callbacks and of what a parked greenlet is to raise."""
    global _callback_class, _thrown_class, _greenlet_exit
    _callback_class = callback_class
    _thrown_class = thrown_class
    _greenlet_exit = greenlet_exit


def use_hubs(hub_class: type[Any], /) -> None:
    """Called once, by :mod:`.hub`: the class of hubs, which has a slot named ``loop``."""


def use_running(get_running: Callable[[], Any], /) -> None:
    """Called when an engine is made (asyncio is not imported before): how to ask which loop runs."""
    global _get_running
    _get_running = get_running


def use_waits(
    wait_class: type[Any],
    hub_local: Any,
    get_hub: Callable[[], Any],
    blocking_place: Callable[[Any], Any],
    getcurrent: Callable[[], Any],
    /,
) -> None:
    """Called once, by :mod:`.waiting`: the class of waits, and how to find the place where one waits."""
    global _wait_class, _hub_local, _get_hub, _blocking_place, _getcurrent
    _wait_class = wait_class
    _hub_local = hub_local
    _get_hub = get_hub
    _blocking_place = blocking_place
    _getcurrent = getcurrent


def use_waiters(unset: Any, /) -> None:
    """Called once, by :mod:`.waiter`: what stands for "nothing yet"."""
    global _unset
    _unset = unset


if TYPE_CHECKING:

    class HubLocal:
        """Where the hub of each thread is found.

        The compiled one remembers the last answer and for which thread it was, which takes a fifth of the
        time. It does not own that hub, so that threads that have ended keep nothing.

        :param local: a ``threading.local`` with the attribute ``hub`` and the method ``forget``.
        """

        #: The hub of the current thread, or None.
        hub: Hub | None

        def __init__(self, local: Any) -> None: ...

        def forget(self) -> None:
            """The hubs of this thread are about to go."""

else:

    def HubLocal(local: Any) -> Any:
        """Nothing in Python would be quicker than the local itself."""
        return local


class CallbackBase:
    """A call that the hub will make."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args: tuple[Any, ...] | None = args

    def stop(self) -> None:
        """Do not make the call if it has not begun; never blocks."""
        self.callback = None
        self.args = None


class WaitBase:
    """A wait of one greenlet: where it waits, and whether it is over."""

    __slots__ = ("away", "dead", "engine", "greenlet", "item", "queued", "target", "timed_out", "woken")

    #: where it waits: the engine of the thread, or a portal, which has the same face
    engine: Any
    #: whose wait it is; None when it is over
    greenlet: Any
    #: who is to be switched to when the entry in the ready queue comes up
    target: Any
    #: free for who made the wait
    item: Any
    #: it has left its line
    dead: bool
    woken: bool
    timed_out: bool
    #: it is in the ready queue
    queued: bool
    #: its greenlet is not in block(), and must not be switched to: it has not got there yet, or an exception
    #: (of a signal handler) has kept it from getting there and from withdrawing
    away: bool

    def __init__(self) -> None:
        hub = _hub_local.hub
        if hub is None:
            hub = _get_hub()
        self.greenlet = current = _getcurrent()
        engine = hub.loop
        if engine.probe() is None and current is not hub:
            self.engine = engine
        else:
            # the hub itself, a portal, or a hub whose loop has ended
            self.engine = _blocking_place(current)
        self.woken = self.dead = self.timed_out = self.queued = False
        self.away = True

    def wake(self) -> None:
        """End the wait. From any thread, greenlet or callback; does nothing the second time."""
        if not self.woken:
            self.woken = True
            self.target = self.greenlet
            if not self.queued:
                self.queued = True
                engine = self.engine
                try:
                    engine.ready.append(self)
                except MemoryError:  # somebody may try again
                    self.woken = self.queued = False
                    self.target = None
                    raise
                if not engine.armed:
                    engine.arm()

    def _expire(self) -> None:
        """The time limit of the wait is over."""
        if self.woken:
            # no timer is left to end the wait: the wake-up that is queued must not be taken back any more
            self.queued = False
            return
        self.timed_out = True
        try:
            self.wake()
        except MemoryError:
            self.timed_out = self.woken
            raise

    def notify(self, source: Any) -> None:
        """What the wait was for has finished: :meth:`wake`."""
        self.wake()

    def again(self) -> None:
        """A wake-up was in vain, if there was one: it is void, and the next one counts."""
        # ours may still be queued, if another thread gave it before we blocked
        self.target = None
        self.woken = False

    def give_up(self) -> None:
        """The wait is over, without its wake-up: one that is queued, or comes later, is for nobody."""
        # not the greenlet either: this wait is in the traceback of what the greenlet may end with
        self.target = self.greenlet = None
        self.woken = True


    def block(self, timeout: float | None = None) -> bool:
        """Let others run until :meth:`wake`; True if woken, False after ``timeout`` seconds.

        An exception thrown into the greenlet comes out of here; the wait is over then, and a wake-up
        that was on its way is void. The caller withdraws from where it was registered.
        """
        if self.woken and not self.queued and not self.engine.awake:
            # It came too early, when the greenlet waited for something else since this wait was registered:
            # in the handler of a signal, say, or in a destructor. Nobody will come again.
            return True
        try:
            self.away = False
            if timeout is not None:
                return self._block_for(timeout)
            self.engine.park()
            if self.woken:
                return True
            raise self._invalid()
        except BaseException:
            self.give_up()
            raise
        finally:
            self.away = True

    def turn(self) -> None:
        """Let those run who are ready now, once."""
        engine = self.engine
        pause = getattr(engine, "pause", None)  # a portal has its own way
        if pause is not None:
            pause()
            return
        # wake() and block() without the calls
        self.target = self.greenlet
        self.woken = self.queued = True
        self.away = False
        try:
            engine.ready.append(self)
            if not engine.armed:
                engine.arm()
            engine.park()
        except BaseException:
            self.give_up()
            raise
        finally:
            self.away = True

    if TYPE_CHECKING:

        def _block_for(self, timeout: float) -> bool: ...
        def _invalid(self) -> Exception: ...


class WaiterBase:
    """A value that the hub hands to one greenlet: see :class:`bridge._core.waiter.Waiter`."""

    __slots__ = ("_exception", "greenlet", "hub", "value")

    #: who waits
    greenlet: Any
    #: None: there is a value
    _exception: Any

    def __init__(self, hub: Hub | None = None) -> None:
        self.hub: Any = hub if hub is not None else _get_hub()
        self.greenlet = None
        self.value: Any = None
        self._exception = _unset

    def switch(self, value: Any) -> None:
        """Hand ``value`` to the greenlet that waits in get(), or keep it. In the hub."""
        if self.greenlet is None:
            self.value = value
            self._exception = None
        else:
            self._hand_over(value)

    def get(self) -> Any:
        """Wait for the value and return it, or raise the exception. Blocks the greenlet.

        ConcurrentObjectUseError if another greenlet waits already.
        """
        return self.value if self._exception is None else self._get()

    if TYPE_CHECKING:

        def _hand_over(self, value: Any) -> None: ...
        def _get(self) -> Any: ...


class LineBase(deque[Any]):
    """Those who wait for one thing: the invariant is told in :class:`bridge._core.waiting.WaitLine`."""

    __slots__ = ()

    if TYPE_CHECKING:

        def trim(self) -> None: ...
        def _bury(self) -> None: ...

    def discard(self, wait: Any) -> bool:
        """Take ``wait`` out of the line, wherever it is; False if it has left."""
        if wait.dead or not self:
            return False
        wait.dead = True  # atomic: the test, this mark, and leaving the line
        if self[0] is wait:
            self.popleft()
        elif self[-1] is wait:
            self.pop()
        else:
            self._bury()
            return True
        if self and (self[0].dead or self[-1].dead):  # atomic
            self.trim()
        return True

    def leave(self) -> Any:
        """Take the head out of the line and return it. IndexError if nobody is in line."""
        while True:
            head = self[0]  # atomic up to the popleft
            if not head.dead:
                break
            self.popleft()
        head.dead = True  # to a later discard
        self.popleft()
        if self and self[0].dead:
            self.trim()
        return head

    def tell(self) -> None:
        """Wake the head, if there is one that was not told yet. It stays in line."""
        if self and not (head := self[0]).woken:  # atomic
            head.wake()


class EngineBase:
    """The ready queue of an engine, and the greenlets' way through it."""

    ready: deque[Any]
    #: how many of its queued wake-ups a greenlet has cancelled
    stale: dict[Any, int]
    #: hand-overs that are left until somebody looks at the clock
    turns: int
    #: see "Armed" in :mod:`.engine`
    armed: bool
    #: who was switched to last, in a drain
    recent: Any = None
    #: switch to the greenlet that drains
    to_runner: Callable[[], Any]
    thread_ident: int
    #: the loop is ours to run, see :mod:`.hub`
    owned: bool
    draining: bool
    #: a portal's: a wake-up has come since it parked last, or is on its way
    awake: bool = False
    #: a portal's: sleep(0)
    pause: Any = None
    heap: list[Timer]
    #: about how many in the heap were cancelled
    _cancelled: int

    if TYPE_CHECKING:

        def arm(self) -> None: ...
        def handle_error(self, context: object, type: Any, value: Any, tb: Any) -> None: ...
        def _drop_stale(self, g: Any) -> None: ...
        def _rebuild_heap(self) -> None: ...

    def park(self) -> Any:
        """Give the thread to others until somebody switches back; the heart of every wait.

        To be called by a greenlet that may block (``probe()`` is None, it is not the hub) after it has
        arranged for its wake-up. Raises what is thrown into the greenlet meanwhile. (The compiled twin may
        sleep before it switches: see "Who sleeps" in :mod:`.edges`.)
        """
        ready = self.ready
        turns = self.turns
        while turns > 0 and ready:
            item = ready.popleft()
            kind = type(item)
            if kind is _wait_class:
                item.queued = False
                item = None if item.away else item.target
                if item is None:
                    continue
            elif not issubclass(kind, greenlet):
                # callbacks, and exceptions that are to be delivered: those are for the hub
                ready.appendleft(item)
                came = self.to_runner()
                break
            self.turns = turns - 1
            self.recent = item
            # This frame refers to whom it switches to for as long as it is parked. The compiled twin does
            # not, so that what has ended meanwhile is freed.
            came = item.switch()
            break
        else:
            came = self.to_runner()
        if came is not _NOTHING and type(came) is _thrown_class:
            exception = came.exception
            came = item = None
            try:
                raise exception
            finally:
                exception = None  # its traceback refers to this frame: no cycle through it
        return came

    def run_ready(self) -> None:
        """In the hub: run what is ready until the turns are used up or nothing is ready.

        Errors go to ``handle_error``; GreenletExit, which is for the hub itself, comes out.
        """
        ready = self.ready
        stale = self.stale
        item = callback = None
        try:
            while self.turns > 0 and ready:
                item = ready.popleft()
                self.turns -= 1
                kind = type(item)
                if kind is _wait_class:
                    item.queued = False
                    item = None if item.away else item.target
                    if item is None:
                        continue
                elif kind is _callback_class:
                    callback = item.callback
                    if callback is not None:
                        item.callback = None
                        try:
                            callback(*item.args)
                        except BaseException:
                            # GreenletExit is the callback's own; the hub's end (HubDestroyed) comes out again
                            self.handle_error(item, *sys.exc_info())
                    item.args = None
                    continue
                elif stale and item in stale:
                    self._drop_stale(item)
                    continue
                self.recent = item
                try:
                    item.switch()
                except _greenlet_exit:
                    raise
                except BaseException:
                    # who has come back to us is the last of those who have handed over to one another
                    self.handle_error(self.recent, *sys.exc_info())
        finally:
            item = callback = self.recent = None  # a traceback may keep this frame

    def probe(self) -> Any:
        """None if greenlets run at the moment, so that the current one may block.

        Else the loop that runs, or, for an adopted loop that has ended, something else.
        """
        running = _get_running()
        if running is None and not self.owned and not self.draining:
            return self  # not a loop, but not None
        return running

    def call_at(self, when: float, fn: Callable[[Any], object], arg: Any, ref: bool = True) -> Timer:
        """Have ``fn(arg)`` called at ``when`` (monotonic seconds). This thread only.

        ``fn`` is called from the drain; it must not raise and must not switch: mostly it is
        ``ready.append``. After a MemoryError it is called once more.
        """
        timer: Timer = [when, _serial(), fn, arg, ref]
        heappush(self.heap, timer)
        if not self.armed:
            try:
                self.arm()
            except BaseException:
                self.cancel(timer)
                raise
        return timer

    def cancel(self, timer: Timer, /) -> bool:
        """Cancel a timer; False if it has gone off or was cancelled before."""
        if timer[2] is None:
            return False
        timer[2] = timer[3] = None
        heap = self.heap
        if heap and heap[-1] is timer:  # a leaf may go at once; that is the timeout around a quick operation
            heap.pop()
        else:
            self._cancelled += 1
            if self._cancelled > 64 and self._cancelled * 2 > len(heap):
                self._rebuild_heap()
        return True

    def expire(self, now: float, /) -> None:
        """Call what is due at ``now``."""
        heap = self.heap
        while heap and heap[0][0] <= now:
            timer = heappop(heap)
            fn = timer[2]
            if fn is None:
                if self._cancelled:
                    self._cancelled -= 1
            else:
                arg = timer[3]
                timer[2] = timer[3] = None
                try:
                    fn(arg)
                except MemoryError:
                    # there was none to do what it is there for: it stays, as somebody relies on it
                    timer[2], timer[3] = fn, arg
                    heappush(heap, timer)
                    raise

    def call(self, callback: Callable[..., Any], /, *args: Any) -> Callback:
        """Have the hub call ``callback(*args)`` after what is ready now. This thread only."""
        item: Callback = _callback_class(callback, args)
        self.ready.append(item)
        if not self.armed:
            self.arm()
        return item

    def run_callback(self, func: Callable[..., Any], /, *args: Any) -> Callback:
        """Call ``func(*args)`` in the hub, after what is ready now. Not from other threads."""
        if not callable(func):
            raise TypeError(f"Expected callable, not {func!r}")
        return self.call(func, *args)


if not TYPE_CHECKING and (_compiled := accelerator("_switching")) is not None:
    CallbackBase = _compiled.CallbackBase
    EngineBase = _compiled.EngineBase
    HubLocal = _compiled.HubLocal
    LineBase = _compiled.LineBase
    WaitBase = _compiled.WaitBase
    WaiterBase = _compiled.WaiterBase
    use_engines = _compiled.use_engines
    use_hubs = _compiled.use_hubs
    use_running = _compiled.use_running
    use_waiters = _compiled.use_waiters
    use_waits = _compiled.use_waits
