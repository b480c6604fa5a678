"""Edges of sockets: one more epoll instance for each engine, for files whose owner tells when they are
closed.

Theory of operation
===================

:class:`.poller.Poller` is asked for bare numbers, of which nothing may be believed from one wait to the next.
A socket object is better: it owns its file, it sees each attempt to read and to write, and it is told before
the file is closed. So it is registered once, *edge-triggered*, in an epoll instance of its own kind, and
stays registered until it is closed; a wait costs no system call and an event that nobody waits for no second
report.

*The rule of edges*: wait only after an attempt that has failed with EAGAIN, or that has used up what there
was. Whatever the kernel gets after that attempt is an edge: either it is still to be reported, or the
registration is still to be made, which reports what is ready by then. Nothing polls between the attempt and
the wait, as both happen in one thread without a switch. Who cannot be sure of an attempt (somebody waits for
``connect``, say) calls :meth:`Edges.watch`, which has the kernel look anew; one ``epoll_ctl``.

*Drained.* A read of TCP that returns less than was asked for has emptied the buffer (epoll(7), question 9),
so the next read may begin with the wait and save an attempt, with its exception, for each message.
``drained`` says so; each edge clears it. It is set *before* the attempt and cleared after one that was
filled, so that an edge that another thread reports meanwhile is never overwritten. Short reads prove nothing
where there is urgent data (a read stops at the mark), after the end of the stream or an error (reported once,
and perhaps before the read that was short), where file descriptors are passed (a read stops at each), and
where messages have limits: there ``stream`` is false, and only EAGAIN counts.

*Who sleeps.* Mostly the loop does, and the instance is one of the files that it watches. A loop that is ours
and nobody else's has nothing else to do, though, and the way through it costs as much as the work of one
message: it polls, calls us, polls again and calls the drain. There it is the other way around: the instance
watches the loop (whose poller is a file as well, ``loop_fd``), and the drain sleeps in it. What concerns the
loop, a signal, a call from another thread, a file of the poller, makes that file readable, and then the drain
leaves the thread to the loop for one round. See ``Engine._doze`` for when that is right.

In the compiled twin nobody switches to the drain for that: the greenlet that blocks when nothing is ready
sleeps in the instance itself (``doze_in_greenlet`` in ``_edges.c``), and goes on if it is woken first, or
switches to who is. Nobody can tell, as nothing runs meanwhile, but two switches for each message of a lone
connection are saved, a fifth of its cost. The hub does it where its stack is asked for: handlers of signals
run there, timers go off there, and where greenlet has a trace function each wait is to be seen as a switch.

*Ghosts.* Where a duplicate of a closed file lives on, in a forked child for instance, and was not taken out
before, the kernel goes on reporting it under the old number. Edge-triggered that is a wake-up in vain now and
then, after which the attempt fails and the wait begins anew; there is nothing to be done about it, unlike in
the poller.

*Who refers to whom.* A socket may outlive the loop in which it was used, and must not keep it: it refers to
its :class:`Channel`, and that to :class:`Edges`, which refers to its engine only weakly. The engine refers to
the edges, the edges to the channels, and no channel to its socket, so that sockets are freed by reference
counting.

*Threads.* A channel is at home with one engine at a time. Another thread may close the socket: ``epoll_ctl``
and dict operations may be used from any thread, and a wait can be woken from any. It may also wait for the
socket, by way of its own poller, level-triggered, as long as the channel is at home elsewhere.

*Fork.* The child shares the instance with the parent and may only close it, never change it: what is left
over from before a fork is known by its ``generation``.

A way not taken: registering for reading and writing at once would save one system call for those that ever
wait for writing, but a Unix socket and UDP report an edge for each packet that is taken from the send buffer.
"""

from __future__ import annotations

import os
import select
import weakref
from _thread import get_ident
from typing import TYPE_CHECKING, Any

from .accelerated import accelerator

if TYPE_CHECKING:
    from .engine import Engine
    from .waiting import Wait

__all__ = ["READ", "WRITE", "Channel", "Edges"]

READ = 1
WRITE = 2

_IN: int = getattr(select, "EPOLLIN", 1)
_OUT: int = getattr(select, "EPOLLOUT", 4)
_BROKEN: int = getattr(select, "EPOLLERR", 8) | getattr(select, "EPOLLHUP", 16)
_READABLE = _IN | _BROKEN | getattr(select, "EPOLLRDHUP", 0x2000)
_WRITABLE = _OUT | _BROKEN
#: What is asked for, whatever is waited for: what makes short reads prove nothing, and edges only.
_ALWAYS: int = (
    getattr(select, "EPOLLRDHUP", 0x2000)
    | getattr(select, "EPOLLPRI", 2)
    | getattr(select, "EPOLLET", 1 << 31)
)
_BITS = (0, _ALWAYS | _IN, _ALWAYS | _OUT, _ALWAYS | _IN | _OUT)

#: How often this process has been forked off another one.
_generation = 0


class Channel:
    """One open file as its owner and the edges know it. See the theory for the fields."""

    __slots__ = ("ample", "drained", "home", "mask", "patience", "reader", "ref", "stream", "writer")

    #: who waits to read and to write; whoever takes a wait out of here and wakes it has ended it
    reader: Wait | None
    writer: Wait | None
    #: where it is registered, and for what (READ | WRITE)
    home: Edges | None
    mask: int

    def __init__(self) -> None:
        self.drained = self.stream = False
        self.reader = self.writer = self.home = None
        self.mask = 0
        #: only the compiled twin asks: the last message was long; whether attempts before waits are in vain
        self.ample = False
        self.patience = 0
        #: whether a wait is a reason for the loop to go on
        self.ref = True

    def waited_for(self, but: Wait | None = None) -> bool:
        """True if somebody waits, other than ``but``, whose loop was not closed."""
        return any(
            wait is not None and wait is not but and not wait.abandoned()
            for wait in (self.reader, self.writer)
        )

    def release(self, events: int) -> bool:
        """End the waits for ``events``, in any thread; true if there was one."""
        leaving = []
        if events & READ and self.reader is not None:
            leaving.append(self.reader)
            self.reader = None
        if events & WRITE and self.writer is not None:
            leaving.append(self.writer)
            self.writer = None
        for wait in leaving:
            wait.wake()
        return bool(leaving)


class Edges:
    """The epoll instance, and which channel is registered under which number."""

    __slots__ = (
        "__weakref__",
        "_engine",
        "_found",
        "_generation",
        "_last",
        "_number",
        "channels",
        "epoll",
        "loop_calls",
        "loop_fd",
        "thread_ident",
    )

    def __init__(self, engine: Engine) -> None:
        self.epoll = select_epoll()
        self._number: int = self.epoll.fileno()  # for the compiled twin; -1 when it is closed
        self.channels: dict[int, Channel] = {}
        self.thread_ident = get_ident()
        self._engine = weakref.ref(engine)
        self._generation = _generation
        self._found = 0  # how many events the last look has found
        self._last = -1  # a number whose channel was waited for when we last looked
        #: what the loop polls with, if it is we who watch the loop; -1: it watches us
        self.loop_fd = -1
        #: the last look has found that the loop has something to do
        self.loop_calls = False
        engine.add_reader(self.epoll.fileno(), self.look, engine)
        _all.add(self)

    def fileno(self) -> int:
        """The fd of the epoll instance."""
        return int(self.epoll.fileno())

    # -- registering

    def watch(self, fd: int, channel: Channel, events: int, who: Wait | None = None) -> bool:
        """Report edges of ``fd`` for ``events`` too, and once what it is ready for now, as ``who`` waits for
        it.

        This thread only. False if it cannot be: somebody waits for the channel at its present home, or there
        is another object for the same fd, and somebody waits for that. OSError (EBADF) if it is not open.
        """
        present = self.channels.get(fd)
        at_home = present is channel
        if not at_home:
            home = channel.home
            if home is not None and home is not self:
                if home.in_use() and (home.thread_ident != self.thread_ident or channel.waited_for(who)):
                    return False
                home.drop(fd, channel)
            if present is not None:
                if present.waited_for():
                    return False
                present.home = None
                present.mask = 0
                present.drained = False
        mask = channel.mask | events if at_home else events
        try:
            if at_home:
                self.epoll.modify(fd, _BITS[mask])
            else:
                self.epoll.register(fd, _BITS[mask])
        except FileNotFoundError:  # the file was closed, and the number is in use again
            self.epoll.register(fd, _BITS[mask])
        except FileExistsError:  # somebody else has an object for the same number
            self.epoll.modify(fd, _BITS[mask])
        self.channels[fd] = channel
        channel.home = self
        channel.mask = mask
        return True

    def drop(self, fd: int, channel: Channel) -> None:
        """Forget ``channel``, whose file ``fd`` is still open. From any thread."""
        channel.home = None
        channel.mask = 0
        if self.channels.get(fd) is channel:
            del self.channels[fd]
            if self._generation == _generation:
                try:
                    self.epoll.unregister(fd)
                except (OSError, ValueError):
                    pass  # closed already, the file or the instance

    def in_use(self) -> bool:
        """True if the loop may still report here."""
        engine = self._engine()
        return self._generation == _generation and engine is not None and not engine.is_closed()

    # -- being told

    def look(self, engine: Engine, timeout: float = 0) -> None:
        """Put those into the ready queue who wait for what has happened. By the loop, or in a drain.

        :param timeout: seconds to sleep until something happens, -1 for no limit; only in a drain.
        """
        channels = self.channels
        ready = engine.ready
        found = self.epoll.poll(timeout)
        self._found = len(found)
        if timeout:
            engine.armed = True  # whoever it was that woke us, a drain is under way
        error: BaseException | None = None
        for fd, events in found:
            try:
                channel = channels.get(fd)
                if channel is None:
                    if fd == self.loop_fd:
                        self.loop_calls = True
                    continue
                if events == _IN:
                    channel.drained = False
                    wait = channel.reader
                else:
                    if events & ~(_IN | _OUT):
                        channel.stream = False
                    if events & _WRITABLE:
                        wait = channel.writer
                        if wait is not None:
                            wait.wake()
                    if not events & _READABLE:
                        continue
                    channel.drained = False
                    wait = channel.reader
                if wait is not None and not wait.woken:
                    if wait.engine is engine and not wait.queued:
                        # Wait.wake(), written out
                        wait.woken = wait.queued = True
                        wait.target = wait.greenlet
                        ready.append(wait)
                    else:
                        wait.wake()
            except BaseException as e:
                # the kernel tells each edge once: the others are not to be lost with this one
                error = error or e
        if ready and not engine.armed:
            engine.arm()
        if error is not None:
            try:
                raise error
            finally:
                error = None  # its traceback refers to this frame: no cycle through it

    def watch_loop(self, engine: Engine) -> bool:
        """Let us watch the loop instead of the loop us; False if that is not possible."""
        fd = _poller_of(engine.aio)
        if fd < 0:
            return False
        engine.aio.remove_reader(self.epoll.fileno())
        try:
            self.epoll.register(fd, _IN)
        except OSError:  # the loop watches us in a roundabout way
            engine.add_reader(self.epoll.fileno(), self.look, engine)
            return False
        self.loop_fd = fd
        self.loop_calls = False
        return True

    def unwatch_loop(self, engine: Engine) -> None:
        """Let the loop watch us again."""
        self.epoll.unregister(self.loop_fd)
        self.loop_fd = -1
        self.loop_calls = False
        engine.add_reader(self.epoll.fileno(), self.look, engine)

    def look_again(self, engine: Engine) -> bool:
        """Look, unless there was not much to find the last time; true if there is work now.

        The compiled twin sleeps, too, where that is certainly right: what Engine._doze() would do next.
        """
        if self._found > 1:
            self.look(engine)
        return bool(engine.ready)

    def waiting(self) -> bool:
        """True if somebody waits who is a reason for the loop to go on."""
        channels = self.channels
        channel = channels.get(self._last)
        if channel is not None and channel.ref and (channel.reader is not None or channel.writer is not None):
            return True
        while True:
            try:
                for fd, channel in reversed(channels.items()):  # the latest are the most likely ones
                    if channel.ref and (channel.reader is not None or channel.writer is not None):
                        self._last = fd
                        return True
                return False
            except RuntimeError:
                pass  # another thread has closed one meanwhile

    def count(self) -> int:
        """How many wait who are a reason for the loop to go on."""
        return sum(
            (channel.reader is not None) + (channel.writer is not None)
            for channel in tuple(self.channels.values())
            if channel.ref
        )

    def forget(self, fd: int) -> bool:
        """The file of this number is about to be closed: end the waits for it; true if there was one."""
        channel = self.channels.get(fd)
        if channel is None:
            return False
        self.drop(fd, channel)
        return channel.release(READ | WRITE)

    # -- ending

    def close(self, aio: Any = None) -> None:
        """Let go of the epoll instance, and of ``aio``'s reader for it."""
        if not self.epoll.closed:
            if aio is not None and not aio.is_closed() and self.loop_fd < 0:
                aio.remove_reader(self.epoll.fileno())
            self.epoll.close()
            self._number = -1
        for channel in self.channels.values():
            if channel.home is self:
                channel.home = None
                channel.mask = 0
        self.channels.clear()

    def move_to(self, new: Edges) -> None:
        """In a forked child: those who wait here go on waiting in ``new``."""
        channels = dict(self.channels)
        self.close()
        for fd, channel in channels.items():
            events = (channel.reader is not None and READ) | (channel.writer is not None and WRITE)
            if events:
                try:
                    new.watch(fd, channel, events)
                except OSError:
                    channel.release(events)  # closed behind our back: they shall try and see the error

    def _bury(self) -> None:
        """In a forked child that has not got our thread: nobody waits here any more."""
        for channel in self.channels.values():
            channel.reader = channel.writer = None
        self.close()


def _poller_of(aio: Any) -> int:
    """The fd of what a loop polls with, which can be polled itself; -1 if there is none."""
    try:
        if hasattr(aio, "_get_backend_id"):  # uvloop
            return int(aio._get_backend_id())
        return int(aio._selector.fileno())
    except (AttributeError, ValueError):
        return -1


# Taken now: monkey patching removes it.
select_epoll: Any = getattr(select, "epoll", None)

#: So that a forked child finds those of other threads.
_all: weakref.WeakSet[Edges] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    global _generation
    _generation += 1
    for edges in tuple(_all):
        if edges.thread_ident != get_ident():
            edges._bury()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


#: The compiled twins, which are there if those of waits and engines are.
compiled: Any = accelerator("_edges") if hasattr(select, "epoll") else None

if compiled is not None:
    compiled.use_edges(Edges, Channel)
