"""Which file descriptors are ready: one epoll instance for each engine.

Theory of operation
===================

``loop.add_reader`` around every wait costs 6 µs, uvloop aborts the process when a registered fd is closed
before the next poll, and an fd number that is closed and used again while it is registered never wakes
again. So the poller has an epoll instance of its own, whose single fd is registered with the loop once.

*Kept registrations.* An fd stays registered (level-triggered) for the events that were last waited for.
When epoll reports an fd that nobody waits for any more, the registration is narrowed then, not before:
a connection that is read, answered and waited for again needs no system call for the wait.

*Closed and reused fds.* The kernel forgets an fd when its last duplicate is closed, so ours may be
wrong about what is registered. Whoever owns a socket calls :meth:`Poller.forget` before closing. For
bare numbers we cannot know: :meth:`Poller.add` with ``trust`` false asks the kernel again (one
``epoll_ctl``) and registers anew on ENOENT.

*Ghosts.* Worse, where a duplicate lives on (in a forked child, say), the kernel goes on reporting the closed
file under the old number, and no ``epoll_ctl`` can reach that registration any more. A ghost betrays itself
by an event for a number that is not registered, or not for that event; where the number is in use
again for the same event, a registration that was once found gone is *doubtful*, and its events are checked
by a ``poll()`` of the fd itself. A ghost seen means a new epoll instance.

*Fork.* The instance is shared with the child, which may only close it: :meth:`Poller.after_fork`.

The callback of the loop only appends to the ready queue (see :mod:`.engine`). Where there is no epoll, each
fd is registered with the loop itself for the time of the wait; there the loop's own limits apply.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from typing import Any

from .edges import Edges
from .engine import Engine

__all__ = ["PRIORITY", "READ", "WRITE", "Interest", "Poller"]

#: The bits of gevent's watchers.
READ = 1
WRITE = 2
#: Urgent data; only where there is epoll. Not part of READ: recv() would not take it, and not block.
PRIORITY = 4

_ALL = READ | WRITE | PRIORITY

_IN = getattr(select, "EPOLLIN", 1)
_OUT = getattr(select, "EPOLLOUT", 4)
_PRI = getattr(select, "EPOLLPRI", 2)
_BROKEN = getattr(select, "EPOLLERR", 8) | getattr(select, "EPOLLHUP", 16)

# Taken now: monkey patching removes the one and replaces the other.
_new_epoll: Any = getattr(select, "epoll", None)
_new_poll: Any = getattr(select, "poll", None)

#: What a backend says of a registration.
_DONE = 0
_ALWAYS = 1  #: a regular file: never blocks, and epoll does not take it
_ANEW = 2  #: what we believed to be registered was not


class Interest:
    """Somebody who wants to know when ``fd`` is ready for ``events`` (READ, WRITE, PRIORITY).

    ``fire(events)`` is called in a callback of the loop for every poll that finds it ready, until the
    interest is removed; it must not switch and must not raise.
    """

    __slots__ = ("active", "events", "fd", "fire", "ref")

    def __init__(self, fd: int, events: int, fire: Callable[[int], object], ref: bool = True) -> None:
        self.fd = fd
        self.events = events
        self.fire = fire
        self.ref = ref
        self.active = False


class _Registration:
    """What is known of one fd number."""

    __slots__ = ("doubtful", "interests", "mask")

    def __init__(self) -> None:
        self.mask = 0  # what we believe the kernel watches for us: READ | WRITE | PRIORITY
        self.doubtful = False  # see "Ghosts" above
        self.interests: list[Interest] = []

    def wanted(self) -> int:
        mask = 0
        for interest in self.interests:
            mask |= interest.events
        return mask


class Poller:
    """File descriptors of one engine. All calls in the engine's own thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.fds: dict[int, _Registration] = {}
        self._refs = 0
        #: called with each fd that :meth:`forget` is told of
        self.closing: list[Callable[[int], object]] = []
        self._backend: _Epoll | _LoopReaders = _Epoll(self) if _new_epoll is not None else _LoopReaders(self)

    def fileno(self) -> int:
        """The fd of the epoll instance, -1 without one."""
        return self._backend.fileno()

    def get_edges(self) -> Edges | None:
        """Where sockets are registered, made at the first use; None where there is no epoll."""
        edges = self.engine.edges
        if edges is None and _new_epoll is not None:
            edges = self.engine.edges = Edges(self.engine)
        return edges

    def waiting(self) -> bool:
        """True if somebody who counts waits for an fd."""
        return self._refs > 0 or (self.engine.edges is not None and self.engine.edges.waiting())

    def count(self) -> int:
        """How many wait for an fd who count."""
        return self._refs + (self.engine.edges.count() if self.engine.edges is not None else 0)

    def add(self, interest: Interest, trust: bool = False) -> None:
        """Begin to watch; OSError (EBADF) for a number that is no open fd.

        With ``trust`` the caller guarantees that the fd was not closed since it was last added, but
        through :meth:`forget`.
        """
        fd = interest.fd
        reg = self.fds.get(fd)
        if reg is None:
            reg = self.fds[fd] = _Registration()
            trust = True
        if not trust or interest.events & ~reg.mask:
            mask = reg.wanted() | interest.events | (reg.mask if trust else 0)
            try:
                found = self._backend.watch(fd, mask, known=reg.mask != 0)
            except BaseException:  # whatever is raised for what is no fd at all, too
                if not reg.interests:
                    del self.fds[fd]
                raise
            if found == _ALWAYS:
                if not reg.interests:
                    del self.fds[fd]
                self._fire_soon(interest)
                return
            if found == _ANEW:
                reg.doubtful = True
            reg.mask = mask
        reg.interests.append(interest)
        interest.active = True
        if interest.ref:
            self._refs += 1

    def _fire_soon(self, interest: Interest) -> None:
        interest.active = True
        if interest.ref:
            self._refs += 1

        def fire() -> None:
            if interest.active:
                interest.fire(interest.events)
                if interest.active:  # level-triggered: a file is ready again and again
                    self.engine.call(fire)

        self.engine.call(fire)

    def remove(self, interest: Interest) -> None:
        """Stop watching; may be repeated. The kernel's registration goes when it next proves idle."""
        if not interest.active:
            return
        interest.active = False
        if interest.ref:
            self._refs -= 1
        reg = self.fds.get(interest.fd)
        if reg is not None and interest in reg.interests:
            reg.interests.remove(interest)
            if not reg.interests and self._backend.eager:
                self._narrow(interest.fd, reg)

    def forget(self, fd: int) -> list[Interest]:
        """The fd is about to be closed: drop it; returns who still waited, removed but not told."""
        if self.closing:
            for hook in tuple(self.closing):
                hook(fd)
        reg = self.fds.pop(fd, None)
        if reg is None:
            return []
        if reg.mask:
            self._backend.unwatch(fd)
        for interest in reg.interests:
            interest.active = False
            if interest.ref:
                self._refs -= 1
        return reg.interests

    def _narrow(self, fd: int, reg: _Registration) -> None:
        """The fd is ready for something nobody waits for: watch only what is wanted."""
        wanted = reg.wanted()
        if wanted:
            try:
                if self._backend.watch(fd, wanted, known=True) == _ANEW:
                    reg.doubtful = True
                reg.mask = wanted
                return
            except OSError:
                # closed behind our back: those who wait shall try and see the error
                for interest in list(reg.interests):
                    interest.fire(interest.events)
        else:
            self._backend.unwatch(fd)
        reg.mask = 0
        if not reg.interests:
            self.fds.pop(fd, None)

    def ready(self, fd: int, events: int, broken: bool = False) -> None:
        """The backend found ``fd`` ready for ``events``, or (``broken``) that it is in error."""
        reg = self.fds.get(fd)
        if reg is None:
            if not self._backend.unwatch(fd):
                self._renew()
            return
        if broken:
            events = _ALL
        if (not broken and events & ~reg.mask) or (reg.doubtful and not _is_ready(fd, reg.mask)):
            self._renew()
            return
        unwanted = events & reg.mask
        for interest in tuple(reg.interests):
            hit = events & interest.events
            if hit:
                unwanted &= ~hit
                interest.fire(hit)
        if unwanted:
            self._narrow(fd, reg)

    def _renew(self) -> None:
        """There is a ghost in the epoll instance: take another one."""
        self._backend.close()
        self._watch_anew()

    def after_fork(self) -> None:
        """In a forked child: leave the parent's epoll instances alone, watch everything anew."""
        edges, self.engine.edges = self.engine.edges, None
        if edges is not None:
            new = self.get_edges()
            assert new is not None
            edges.move_to(new)
        self._backend.abandon()
        self._watch_anew()

    def _watch_anew(self) -> None:
        self._backend = type(self._backend)(self)
        for fd, reg in list(self.fds.items()):
            reg.mask = 0
            reg.doubtful = False
            wanted = reg.wanted()
            if not wanted:
                del self.fds[fd]
                continue
            try:
                self._backend.watch(fd, wanted, known=False)
                reg.mask = wanted
            except OSError:
                # closed behind our back: those who wait shall try and see the error
                for interest in list(reg.interests):
                    self.engine.call(interest.fire, interest.events)

    def close(self) -> None:
        """Let go of the epoll instance; the loop is ending."""
        edges, self.engine.edges = self.engine.edges, None
        if edges is not None:
            edges.close(self.engine.aio)
        self._backend.close()
        self.fds.clear()


def _is_ready(fd: int, mask: int) -> bool:
    """Ask the file itself; true also for what is no fd any more."""
    probe = _new_poll()
    probe.register(fd, _bits(mask))
    return bool(probe.poll(0))


def _bits(mask: int) -> int:
    # epoll and poll have the same bits
    return (_IN if mask & READ else 0) | (_OUT if mask & WRITE else 0) | (_PRI if mask & PRIORITY else 0)


class _Epoll:
    """Linux."""

    eager = False

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.epoll = _new_epoll()
        self._registered = poller.engine.aio
        poller.engine.add_reader(self.epoll.fileno(), self._on_ready)

    def fileno(self) -> int:
        return int(self.epoll.fileno())

    def watch(self, fd: int, mask: int, known: bool) -> int:
        events = _bits(mask)
        found = _DONE
        try:
            if known:
                try:
                    self.epoll.modify(fd, events)
                    return found
                except OSError as e:
                    if e.errno != errno.ENOENT:
                        raise
                    found = _ANEW
            try:
                self.epoll.register(fd, events)
            except FileExistsError:
                self.epoll.modify(fd, events)
        except PermissionError:
            return _ALWAYS
        return found

    def unwatch(self, fd: int) -> bool:
        """Stop watching; False if the kernel knows of no such registration."""
        try:
            self.epoll.unregister(fd)
        except (OSError, ValueError):
            # closed already: forgotten by the kernel, or a ghost from now on
            return False
        return True

    def _on_ready(self) -> None:
        ready = self.poller.ready
        for fd, events in self.epoll.poll(0):
            mask = 0
            if events & _IN:
                mask = READ
            if events & _OUT:
                mask |= WRITE
            if events & _PRI:
                mask |= PRIORITY
            ready(fd, mask, events & _BROKEN != 0)
            if self.epoll.closed:
                break  # another one has taken its place, and reports the rest

    def abandon(self) -> None:
        self.epoll.close()

    def close(self) -> None:
        if not self.epoll.closed:
            if not self._registered.is_closed():
                self._registered.remove_reader(self.epoll.fileno())
            self.epoll.close()


class _LoopReaders:
    """Anything else: the loop's own add_reader and add_writer, for as long as somebody waits."""

    eager = True

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.aio: Any = poller.engine.aio
        self._watched: dict[int, int] = {}

    def fileno(self) -> int:
        return -1

    def watch(self, fd: int, mask: int, known: bool) -> int:
        before = self._watched.get(fd, 0) if known else 0
        try:
            if mask & READ and not before & READ:
                self.poller.engine.add_reader(fd, self.poller.ready, fd, READ)
            if mask & WRITE and not before & WRITE:
                self.aio.add_writer(fd, self.poller.ready, fd, WRITE)
        except PermissionError:
            return _ALWAYS
        if before & READ and not mask & READ:
            self.aio.remove_reader(fd)
        if before & WRITE and not mask & WRITE:
            self.aio.remove_writer(fd)
        self._watched[fd] = mask
        return _DONE

    def unwatch(self, fd: int) -> bool:
        mask = self._watched.pop(fd, 0)
        if mask and not self.aio.is_closed():
            self.aio.remove_reader(fd)
            self.aio.remove_writer(fd)
        return True

    def abandon(self) -> None:
        self._watched.clear()

    def close(self) -> None:
        for fd in list(self._watched):
            self.unwatch(fd)
