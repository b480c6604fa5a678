"""Ready queue, timers and the drain: what makes greenlets run on an asyncio loop.

Theory of operation
===================

*Who resumes whom.* A greenlet is only ever resumed from :meth:`Engine.drain`, which runs as a
``call_soon`` callback of the asyncio loop, or by another greenlet that is giving up the thread inside
a drain (:meth:`Engine.park`); where nothing else is ready, also out of another ``call_soon`` callback, that
of a future (:mod:`bridge._aio.entering`). Timers, readers and other threads do nothing but append to
``ready``. The reason is libuv: while it walks its timers or its poll results it keeps list heads and arrays
on the C stack, and a greenlet resumed there moves that part of the stack away. uvloop's ``call_soon``
callbacks run from its one idle handle, where no such list is live.

*What is in* ``ready``, first in, first out: waits (:class:`bridge._core.waiting.Wait`) that are over,
whose ``target`` is switched to, or None if the wake-up was taken back; greenlets, which are switched to (they
are to start, or did a ``sleep(0)``); and :class:`Callback` objects, which are called in the greenlet that
drains (the hub). A greenlet that is killed while it is there itself has an entry in ``stale`` that cancels
its earliest one. Marks instead of ``ready.remove``: undoing 10,000 wake-ups must not cost 10,000 scans.

*Handing over.* A greenlet that blocks takes the next entry itself and switches straight to it, which
saves the way through the hub. It goes to the hub when the next entry is a callback (those expect to
run in the hub), when nothing is ready, or when its ``turns`` are used up. Then the hub looks at the
clock: a drain goes on for ``BUDGET`` seconds, then the loop gets to poll its files and run its tasks.
Looking at the clock at each switch would cost as much as a third of the switch. A drain polls the sockets by
itself, as a look at them costs a tenth of a round of the loop: now and then while it is busy, and before it
ends.

*Armed* means that an append to ``ready`` will be seen without further ado: a drain is running, or one
is scheduled, or the loop is not running and will drain first thing when it is. Whoever appends while
``armed`` is false must call :meth:`arm`. At the end of a
drain ``armed`` is cleared *before* ``ready`` is looked at for the last time, so that an append by
another thread in between is seen by one side or the other.

*Who sleeps.* When nothing is ready the drain ends, and the loop sleeps until a file, a timer or another
thread has something for us. If the loop is ours alone, the drain sleeps instead, where sockets are waited
for, or whoever blocks last, on behalf of the drain: see "Who sleeps" in :mod:`.edges`, and
:meth:`Engine._doze` for the conditions.

*The running loop is hidden* from asyncio for as long as a drain runs, so that a greenlet sees what a
thread without asyncio sees. So "is a loop running?" is the question whether coroutines or greenlets run
at the moment, and ``probe()``, which asks it, is how a wait finds out whether it may block: it gives None
while greenlets run. For a loop that is not ours it also notices that the loop has ended.

*Nothing left.* Where the loop is ours (owned) and a drain ends with nothing ready, the engine asks
what could still make something ready; if there is nothing, the loop is stopped and the hub raises
LoopExit in the main greenlet. No counters are kept for the frequent things: the heap, the poller and
the asyncio tasks are looked at, at this point only, and mostly the first look is enough.

Simpler ways not taken: one ``call_soon`` per switch costs 0.4 to 0.9 µs each and lets asyncio's own
callbacks interleave with ready greenlets; ``call_later`` for each timeout costs 1 to 2 µs, and nearly
every timeout is cancelled.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop
from types import CodeType
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from .callbacks import Callback
from .clock import monotonic
from .switching import EngineBase, Timer, use_engines, use_running
from .threadcount import thread_count

if TYPE_CHECKING:
    import asyncio

    from .edges import Edges
    from .poller import Poller

__all__ = ["Engine", "Timer"]

#: Seconds for which one drain may go on before the loop polls again.
BUDGET = 0.0002
#: Seconds after which a drain that is busy looks at the sockets by itself.
LOOK = 0.00005
#: Hand-overs between two looks at the clock.
TURNS = 16

#: Not to be asked later: when threads are patched, the hub is none of those that `threading` knows.
_main_thread_ident = threading.main_thread().ident


F = TypeVar("F", bound=Callable[..., Any])

#: Code below which a greenlet is parked by :meth:`Engine.park`, which looks at what it was switched to with.
_parking_code: set[CodeType] = set()


def parks(function: F) -> F:
    """Decorator for functions that block many greenlets: what is thrown into them gets there more quickly.

    Such a function must not switch by itself in any other way than by ``park()`` or a wait's ``block()``.
    Where the switching is compiled, these have no frame by which to see that a greenlet is parked.
    """
    _parking_code.add(function.__code__)
    return function


class Thrown:
    """Passed to a parked greenlet for it to raise."""

    __slots__ = ("exception",)

    def __init__(self, exception: Any) -> None:
        self.exception = exception


def _no_interrupter(g: greenlet, exception: Any) -> bool:
    return False


_interrupt: Callable[[greenlet, Any], bool] = _no_interrupter


def register_interrupter(interrupter: Callable[[greenlet, Any], bool]) -> None:
    """Called by the asyncio side: ``interrupter(g, exception)`` throws into a portal; False: none."""
    global _interrupt
    _interrupt = interrupter


def throw_into(g: greenlet, exception: Any) -> Any:
    """Switch to ``g`` and have ``exception`` (class or instance) raised there.

    ``greenlet.throw`` goes by way of a C++ exception, which costs 5 µs; a greenlet that is in
    :meth:`Engine.park` can be told to raise it itself.
    """
    frame = g.gr_frame
    if frame is not None and frame.f_code in _parking_code:
        return greenlet.switch(g, Thrown(exception))
    if _interrupt(g, exception):
        return ()
    return greenlet.throw(g, exception)


def _run_forever(aio: Any) -> None:
    # not the object's own, which may have been made to wait for us: see bridge._aio.sharing
    type(aio).run_forever(aio)


def _nothing() -> None:
    """The callback of a drain that only has to happen."""


class Engine(EngineBase):
    """The ready queue, the timers and the poller of one asyncio loop."""

    #: how many threads exist that only wait for work of ours; the thread pool sets it
    idle_threads: Callable[[], int] = staticmethod(int)
    #: Receives ``handle_error(context, type, value, tb)``; None: print.
    error_handler: Any = None
    #: what runs the loop; where run_forever() is patched: the original
    run_loop: Callable[[Any], None] = staticmethod(_run_forever)

    def __init__(self, aio: asyncio.AbstractEventLoop | None, owned: bool = True) -> None:
        from .running import get_running, set_running

        use_running(get_running)
        self.owned = owned
        self.ready: deque[Any] = deque()
        self.stale: dict[greenlet, int] = {}
        self.heap: list[Timer] = []
        self.armed = owned  # see "Armed" above: an owned loop is not running yet
        self.turns = 0
        #: reasons to go on that are neither timers nor files: thread-pool jobs, async watchers ...
        self.refs = 0
        #: somebody outside has had the asyncio loop in hand and may have scheduled what we cannot see
        self.shared = not owned
        #: The loop was asked to watch another file, since the last drain began or in the one before. It does
        #: so when it polls next, so it must not be kept from that.
        self._asked = self._asked_before = True
        self.poller: Poller | None = None
        #: where sockets are registered; the poller makes it
        self.edges: Edges | None = None
        self.thread_ident = get_ident()
        self.draining = False
        #: the greenlet that was switched to without a drain (see :mod:`bridge._aio.entering`)
        self.entered: greenlet | None = None
        self.to_runner: Callable[[], Any] = _nothing  # switch to the greenlet that drains
        self.entry: Callable[[], None] = self._own_round
        #: callables run at the beginning and at the end of each drain (prepare and check watchers)
        self.before: list[Callable[[], None]] = []
        self.after: list[Callable[[], None]] = []
        #: called when a drain ends with nothing ready; true if that made work (idle watchers)
        self.on_idle: Callable[[], bool] | None = None
        #: how many wait in hub.join()
        self.joining = 0
        self.stopping = False
        self.destroyed = False
        self._called = False  # another thread has asked for a drain
        self._cancelled = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._context = contextvars.Context()
        self.set_running = set_running
        self.get_running: Callable[[], Any] = get_running
        self.running = False  # inside run_owned
        self._watched_tasks: Any = None
        self._bare_check: asyncio.TimerHandle | None = None
        self._thread_check: asyncio.TimerHandle | None = None
        self.pid = os.getpid()
        #: whether ``aio`` is there, or is made at its first use
        self.has_aio = False
        if aio is not None:
            self._use(aio)

    def _use(self, aio: asyncio.AbstractEventLoop) -> None:
        """``aio`` is the loop from now on."""
        self.aio = aio
        self._schedule = self._scheduler()
        self.has_aio = True

    def is_closed(self) -> bool:
        """True if the asyncio loop was closed: nothing will ever happen here. From any thread."""
        return self.has_aio and self.aio.is_closed()

    # -- the ready queue ------------------------------------------------------------------------

    def arm(self) -> None:
        """Make sure that a drain comes. To be called from any thread, when ``armed`` was seen to be false."""
        if get_ident() != self.thread_ident:
            self._arm_from_afar()
            return
        self.armed = True
        try:
            self._schedule(self.entry, context=self._context)
        except BaseException as e:
            self.armed = False
            if isinstance(e, RuntimeError) and self.is_closed():
                return  # whoever waits in a closed loop has been abandoned with it
            raise

    def _arm_again(self) -> None:
        if not self.armed and not self.destroyed:
            self.arm()

    def append_threadsafe(self, item: Any) -> None:
        """Append to ``ready`` from any thread. Whoever waits in a closed loop stays where he is."""
        self.ready.append(item)
        if not self.armed:
            self.arm()

    def _arm_from_afar(self) -> None:
        """:meth:`arm` in another thread: one call for all who ask until it is answered."""
        if self._called:
            return
        self._called = True
        try:
            self.aio.call_soon_threadsafe(self._answer_call, context=self._context)
        except RuntimeError:
            self._called = False
            if not self.is_closed():
                raise

    def _answer_call(self) -> None:
        self._called = False
        if not self.armed and not self.destroyed:
            self.armed = True
            self.entry()

    def make_ready(self, g: greenlet) -> None:
        """Have the hub switch to ``g``. This thread only."""
        self.ready.append(g)
        if not self.armed:
            self.arm()

    def unready(self, g: greenlet) -> None:
        """Cancel the earliest queued wake-up of ``g``: the wait that it was for is over."""
        self.stale[g] = self.stale.get(g, 0) + 1
        self.turns = 0  # no handing over until the tombstone is gone: only the drain looks for them

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Have the loop call ``callback(*args)`` whenever ``fd`` is readable; in the drain, or outside."""
        self._asked = True
        self.aio.add_reader(fd, callback, *args)

    def drain(self) -> None:
        """Run what is ready for as long as the budget lasts. Runs in the hub."""
        self.draining = True
        ready = self.ready
        stale = self.stale
        heap = self.heap
        edges = self.edges
        deadline = look_at = 0.0
        self.turns = 0
        self._asked_before, self._asked = self._asked, False
        if edges is not None:
            edges.loop_calls = False
        for hook in self.before:
            hook()
        try:
            while True:
                if self.turns <= 0:
                    now = monotonic()
                    if heap and heap[0][0] <= now:
                        self.expire(now)
                    if not deadline:
                        deadline = now + BUDGET
                        look_at = now + LOOK
                    elif now >= look_at:
                        if now >= deadline and self._loop_is_due(edges):
                            break
                        look_at = now + LOOK
                        if edges is not None:
                            edges.look(self)
                    self.turns = 1 if stale else TURNS
                if not ready:
                    # where one was ready more may be by now: the way through the loop costs ten times as much
                    if edges is None:
                        edges = self.edges
                    if edges is None:
                        break
                    if not edges.look_again(self):
                        if not self._doze(edges):
                            break
                        deadline = 0.0
                        self.turns = 0
                        continue
                self.run_ready()
        except GreenletExit:
            # Thrown into the hub itself (a raw greenlet turns its own into a value): the hub is to end.
            self.stopping = True
            if self.owned:
                self._stop_loop()
            return
        finally:
            self.draining = False
        for hook in self.after:
            hook()
        self._drained()

    def _doze(self, edges: Edges) -> bool:
        """Sleep until something happens; false if it is the loop's turn, to sleep or to do something.

        Nothing is ready. We may only sleep in its place if all that it could wake up for shows in its poller:
        nobody else has had it in hand (it may have timers), its watchers are at work, and nothing is to be
        done before it sleeps. And not if there is nothing to wait for, as that is to be found out thoroughly.
        """
        if not self._may_doze(edges) or (edges.loop_fd < 0 and not edges.watch_loop(self)):
            return False
        self.armed = False
        if self.ready:  # see "Armed" above
            self.armed = True
            return True
        timeout = -1.0
        when = self._earliest()
        if when is not None:
            timeout = when - monotonic()
            if timeout <= 0:
                self.armed = True
                return True
        try:
            edges.look(self, timeout)
        except Exception:
            # raised by somebody's signal handler
            self.armed = True
            self.call(self.handle_error, None, *sys.exc_info())
        self.armed = True
        return not edges.loop_calls

    def _stop_loop(self) -> None:
        # not by the object's own stop(), which may be for somebody who waits: see bridge._aio.sharing
        aio = self.aio
        type(aio).stop(aio)

    def _may_doze(self, edges: Edges) -> bool:
        return (
            self.owned
            and not self.shared
            and not self._asked
            and not self._asked_before
            and not self.stopping
            and not self.before
            and not self.after
            and self.on_idle is None
            and (edges.waiting() or self.refs > 0 or self._has_timer())
        )

    def _has_timer(self) -> bool:
        """True if a timer is a reason to go on."""
        return any(timer[2] is not None and timer[4] for timer in self.heap)

    def _loop_is_due(self, edges: Edges | None) -> bool:
        """After a long drain: true unless the loop is known to have nothing to do."""
        return edges is None or edges.loop_fd < 0 or edges.loop_calls or self.shared or self._asked

    def _drop_stale(self, g: greenlet) -> None:
        left = self.stale[g] - 1
        if left:
            self.stale[g] = left
        else:
            del self.stale[g]

    def _drained(self) -> None:
        """Decide how the loop goes on: drain again, wait for a timer, or end for want of work."""
        if self.stopping:
            self._stop_loop()
            self.armed = True
            return
        edges = self.edges
        if edges is not None and edges.loop_fd >= 0:
            if self.ready or self._may_doze(edges):
                # after one round of the loop; as we are in a callback of it, it need not be woken for that
                self.aio.call_soon(self.entry, context=self._context)
                return
            edges.unwatch_loop(self)
        if not self.ready:
            self.armed = False
            if not self.ready:  # see "Armed" above
                if self.on_idle is not None and self.on_idle():
                    if not self.armed:
                        self.arm()
                    return
                if self.owned and not self.is_alive():
                    self.armed = True
                    self._stop_loop()
                elif self.heap:
                    self._set_alarm()
                return
            self.armed = True
        self._schedule(self.entry, context=self._context)

    # -- timers ---------------------------------------------------------------------------------

    def _rebuild_heap(self) -> None:
        """Take all those out that were cancelled."""
        heap = self.heap
        heap[:] = [timer for timer in heap if timer[2] is not None]
        heapify(heap)
        self._cancelled = 0

    def _earliest(self) -> float | None:
        """When the next timer goes off, None if there is none."""
        heap = self.heap
        while heap and heap[0][2] is None:
            heappop(heap)
            if self._cancelled:
                self._cancelled -= 1
        return heap[0][0] if heap else None

    def _set_alarm(self) -> None:
        """Have the loop wake us for the earliest timer. One that stands earlier is left to ring in vain."""
        when = self._earliest()
        if when is None:
            return
        now = monotonic()
        if self._alarm is not None:
            if now < self._alarm_at <= when:
                return
            # one that should have rung by now may have been in vain: a signal handler has raised in it
            self._alarm.cancel()
            self._alarm = None
        # libuv counts whole milliseconds and uvloop rounds to the nearest: round up, or the loop would
        # wake too early and spin until the time has come
        delay = when - now
        delay = (int(delay * 1000) + 1) / 1000 if delay > 0 else 0
        self._alarm = self.aio.call_later(delay, self._ring, context=self._context)
        self._alarm_at = when

    def _ring(self) -> None:
        if not self.armed:
            try:
                self.arm()
            except BaseException:
                # a program's own exception handler of the loop does not see to it that we go on
                self._alarm = self.aio.call_later(0.001, self._ring, context=self._context)
                raise
        self._alarm = None

    # -- running --------------------------------------------------------------------------------

    def _own_round(self) -> None:
        """One drain in an owned loop: the greenlet that runs the loop is the one that drains."""
        try:
            self.set_running(None)
            self.drain()
        except Exception:
            self.go_on_after_error()
        finally:
            self.set_running(self.aio)

    def go_on_after_error(self) -> None:
        """A drain was left in the middle by the current exception, which a signal handler has raised.

        The hub takes the error, in another drain, which goes on from here.
        """
        self.armed = True
        self._schedule(self.entry, context=self._context)
        self.call(self.handle_error, None, *sys.exc_info())

    def run_owned(self) -> None:
        """Run the loop in the current greenlet until nothing is left to do or it is stopped."""
        aio = self.aio
        # not getcurrent().switch: a hub's own method makes checks that a parked greenlet has made already
        self.to_runner = greenlet.switch.__get__(getcurrent())
        self.armed = True
        self.running = True
        self._schedule(self.entry, context=self._context)
        if aio.get_exception_handler() is None:
            aio.set_exception_handler(self._loop_failed)
        try:
            self.run_loop(aio)
        finally:
            self.running = False
            self.armed = True
            self.draining = False
            self.stopping = False

    def _loop_failed(self, aio: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The exception handler of an owned loop."""
        error = context.get("exception")
        ours = isinstance(error, Exception) and _is_of_ours(error)
        if ours or self._has_lost_a_drain(context):
            # a signal handler has raised before a drain could begin, or when it had ended: another is to come
            self._called = False
            self.armed = True
            self._schedule(self.entry, context=self._context)
        if isinstance(error, Exception) and (ours or "_read_from_self" in context.get("message", "")):
            # the loop's own callback for signals: what it raises has come out of somebody's signal handler
            self.call(self.handle_error, None, type(error), error, error.__traceback__)
        else:
            aio.default_exception_handler(context)

    def _has_lost_a_drain(self, context: dict[str, Any]) -> bool:
        """Whether there was no memory to call what may have been ours, and was to see to a drain."""
        return (
            isinstance(context.get("exception"), MemoryError)
            and "handle" in context
            and self.running
            and not self.draining
            and get_ident() == self.thread_ident
        )

    def adopt(self, entry: Callable[[], None]) -> None:
        """The loop is run by somebody else from now on; ``entry`` is what it shall call for a drain."""
        self.owned = False
        self.shared = True
        self.entry = entry
        self.armed = False
        if self.edges is not None and self.edges.loop_fd >= 0:
            self.edges.unwatch_loop(self)
        if self.ready or self.heap:
            self.arm()

    def own(self) -> None:
        """The loop has been left by who ran it: it is ours to run."""
        self.owned = True
        self.turns = 0  # nobody hands over until the hub has run
        self.entry = self._own_round
        self.armed = True

    def renew(self, aio: asyncio.AbstractEventLoop | None) -> None:
        """In a forked child: go on with a loop of our own, with the same queue and the same timers.

        :param aio: the loop; None if none has been made, which stays so.
        """
        global _main_thread_ident
        _main_thread_ident = get_ident()
        self.pid = os.getpid()
        self.set_running(None)
        self.thread_ident = get_ident()
        self.own()
        self.running = self.draining = self.stopping = self._called = False
        self._alarm = self._bare_check = self._thread_check = self._watched_tasks = self.entered = None
        self._context = contextvars.Context()  # the old one is entered, for ever, by the parked hub
        if aio is not None:
            self._use(aio)
        if self.poller is not None:
            self.poller.after_fork()

    def _scheduler(self) -> Callable[..., Any]:
        # A Python signal handler that runs inside select() cannot make the standard loop return from
        # it by call_soon; uvloop wakes up for signals by itself.
        if get_ident() == _main_thread_ident and not _is_uvloop(self.aio):
            return self.aio.call_soon_threadsafe
        return self.aio.call_soon

    # -- is there anything to wait for? ---------------------------------------------------------

    def is_alive(self) -> bool:
        """True if something, here or outside, may still make a greenlet ready."""
        if self.refs > 0 or self.ready or (self.edges is not None and self.edges.waiting()):
            return True
        if self._has_timer():
            return True
        if self.poller is not None and self.poller.waiting():
            return True
        # hub.join() asks what is left to do here; what another thread may do is not that
        return self._asyncio_alive() or (not self.joining and self._other_threads())

    def _other_threads(self) -> bool:
        """True if another thread runs, which might wake us. Idle workers of thread pools do not count."""
        if thread_count() - 1 - self.idle_threads() <= 0:
            return False
        # the last of them may end without a word: ask again now and then
        if self._thread_check is None:
            self._thread_check = self.aio.call_later(0.5, self._thread_checked)
        return True

    def _thread_checked(self) -> None:
        self._thread_check = None
        self._arm_again()

    def _asyncio_alive(self) -> bool:
        import asyncio

        if not self.shared:
            return False
        tasks = asyncio.all_tasks(self.aio)
        if tasks:
            if self._watched_tasks is None:
                import weakref

                self._watched_tasks = weakref.WeakSet()
            for task in tasks - set(self._watched_tasks):
                # when the last one ends without waking anybody, the question has to be asked again
                self._watched_tasks.add(task)
                if not getattr(task, "of_greenlet", False):  # else the end of that drain asks
                    task.add_done_callback(self._look_again)
            return True
        own = (getattr(self.aio, "_read_from_self", None), self._arm_again, self.entry)
        if any(h._callback not in own and not h._cancelled for h in getattr(self.aio, "_ready", ())):
            # calls that are to come, as those that a task makes which has just ended: ask again after them
            self.aio.call_soon(self._arm_again)
            return True
        scheduled = getattr(self.aio, "_scheduled", None)
        if scheduled is None:
            return True  # uvloop lists neither its timers nor its files: it may be
        for handle in scheduled:
            if handle not in (self._alarm, self._bare_check, self._thread_check) and not handle.cancelled():
                if self._bare_check is None:
                    self._bare_check = self.aio.call_at(handle.when(), self._bare_checked)
                return True
        selector = getattr(self.aio, "_selector", None)
        wake_up = getattr(self.aio, "_ssock", None)
        ours = {
            -1 if self.poller is None else self.poller.fileno(),
            -1 if self.edges is None else self.edges.fileno(),
            -1 if wake_up is None else wake_up.fileno(),
        }
        return selector is not None and any(key.fd not in ours for key in selector.get_map().values())

    def _look_again(self, _task: object) -> None:
        self._arm_again()

    def _bare_checked(self) -> None:
        self._bare_check = None
        self._arm_again()

    # -- errors ---------------------------------------------------------------------------------

    def handle_error(self, context: object, type: Any, value: Any, tb: Any) -> None:
        """Hand an error of a callback or a raw greenlet to the hub, or print it."""
        handler = self.error_handler
        if handler is not None:
            try:
                # looked up at each use: programs assign hub.handle_error
                handler.handle_error(context, type, value, tb)
                return
            except GreenletExit:
                raise  # the hub is to end
            except BaseException as e:
                # their own handler is broken; it shows what it was to handle as its context
                type, value, tb = e.__class__, e, e.__traceback__
        import traceback

        traceback.print_exception(type, value, tb)


#: The code of what the loop calls to have a drain.
_drainers = {f.__code__ for f in (Engine._own_round, Engine._answer_call, Engine._ring, Engine._arm_again)}


def _is_of_ours(error: Exception) -> bool:
    """Whether it came out of what the loop calls to have a drain. (A handle of uvloop does not tell.)"""
    tb = error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code in _drainers:
            return True
        tb = tb.tb_next
    return False


def _is_uvloop(aio: object) -> bool:
    return type(aio).__module__.partition(".")[0] in ("uvloop", "winloop")


use_engines(Callback, Thrown, GreenletExit)
if hasattr(Engine.park, "__code__"):  # the compiled one has no frame
    parks(Engine.park)
