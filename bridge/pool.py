"""Groups and pools of greenlets.

Theory of operation
===================

A :class:`Group` knows which of its greenlets are still running. They are in a set, and a link that all of
them share (:mod:`bridge._ends`) takes them out in the hub, shortly after they have ended: until then an ended
greenlet is a member. Greenlets of the ``greenlet`` library have no links; such a member stays until it is
taken out by hand.

A :class:`Pool` has a number of *places*, the counter of a semaphore. Invariant: free places + members + those
who have taken a place and are about to become members = size. Whoever fails in between gives his place back,
and a member that leaves gives it back once, however often it is discarded.

Who waits for a group waits for one of two states. Whoever joins it waits for "nobody is left" as for any
event, and goes on with a later round. Whoever kills it waits for "nobody is dying", goes on before anybody
else, as after ``greenlet.kill()``, and looks whether somebody has come meanwhile. There is an event, and a
line of killers, only while somebody waits: most groups fill and empty many times without being watched.

*Mapping.* Whatever has a ``spawn`` can map functions over data, thread pools too: that is
:class:`GroupMappingMixin`, which is told three things by those who use it: whether ``spawn`` may block now,
whether waiting for a job here would be waiting for ourselves, and where callbacks are called.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from queue import Full as QueueFull
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from greenlet import GreenletExit, getcurrent, greenlet

from ._aio.awaiting import await_
from ._core.hub import get_hub
from ._core.waiting import Wait, WaitLine
from ._ends import Ends
from ._imap import Abandonable, IMap, IMapUnordered
from ._killing import is_exception, killall
from ._life import is_async
from ._links import SpawnedLink
from .event import Event
from .greenlet import Greenlet
from .lock import DummySemaphore, Semaphore
from .timeout import Timeout, wait_limited

__all__ = ["Group", "Pool", "PoolFull"]

P = ParamSpec("P")
R = TypeVar("R")

_NOTHING: tuple[Any, ...] = ()
_NO_NAMES: dict[str, Any] = {}


class pass_value(SpawnedLink):
    """A link that calls back with the *value* of a greenlet, in a greenlet of its own; not if it failed."""

    __slots__ = ()

    def __call__(self, source: Any) -> None:
        if source.successful():
            greenlet(self.callback, get_hub()).switch(source.value)


class GroupMappingMixin:
    """The mapping methods of groups, pools and thread pools.

    A subclass defines ``spawn(func, *args, **kwargs)``, which starts ``func`` and returns something with
    ``get`` (blocks for the result) and ``rawlink`` (has a callback called when it is there), and which may
    block while there is no room; and the three methods below that raise here.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def spawn(self, *args: Any, **kwargs: Any) -> Any: ...

    # Greenlet, IMap and IMapUnordered are looked up in this module at each use: tracing tools replace them.

    def _waits_for_itself(self) -> bool:
        """Would whoever waits here for a job occupy the room that the job needs?"""
        raise TypeError(f"{type(self).__name__} must define _waits_for_itself()")

    def _may_block(self) -> bool:
        """Might ``spawn`` block now?"""
        raise TypeError(f"{type(self).__name__} must define _may_block()")

    def _call_back(self, callback: Callable[[Any], object], value: Any) -> None:
        """Call ``callback(value)``, here or in a greenlet."""
        raise TypeError(f"{type(self).__name__} must define _call_back()")

    def apply(
        self,
        func: Callable[..., R],
        args: Sequence[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
    ) -> R:
        """Run ``func(*args, **kwds)`` in this group, wait for it and return its result.

        In a greenlet that is itself a member, ``func`` is called at once and in place, as a full pool could
        never get to it. Raises what ``func`` raises. Blocks the greenlet.
        """
        if not self._waits_for_itself():
            return self._begin(func, args, kwds).get()  # type: ignore[no-any-return]
        value: Any = func(*_NOTHING if args is None else args, **_NO_NAMES if kwds is None else kwds)
        if type(value) is CoroutineType and is_async(func):
            value = await_(value)  # as a greenlet would
        return value  # type: ignore[no-any-return]

    def _begin(self, func: Callable[..., Any], args: Any, kwds: Any) -> Any:
        return self.spawn(func, *_NOTHING if args is None else args, **_NO_NAMES if kwds is None else kwds)

    def apply_cb(
        self,
        func: Callable[..., R],
        args: Sequence[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[R], object] | None = None,
    ) -> R:
        """As :meth:`apply`; a ``callback`` gets the result, unless ``func`` raised.

        Groups and pools call it in a greenlet of its own, which they do not track; a thread pool
        calls it before this method returns. Blocks the greenlet.
        """
        value = self.apply(func, args, kwds)
        if callback is not None:
            self._call_back(callback, value)
        return value

    def apply_async(
        self,
        func: Callable[..., R],
        args: Sequence[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[R], object] | None = None,
    ) -> Greenlet[R]:
        """As :meth:`apply`, but return a greenlet at once, whose value will be the result.

        A ``callback`` gets the result once it is there, unless ``func`` raised. Never blocks, even if
        the group is full. Wait for the greenlet, not for the group: it need not be a member.
        """
        job: Greenlet[R]
        if self._may_block():
            # somebody else shall wait for room
            job = Greenlet(self.apply_cb, func, args, kwds, callback)
            job.start()
        else:
            job = self._begin(func, args, kwds)
            if callback is not None:
                job.rawlink(pass_value(callback))
        return job

    def map(self, func: Callable[..., R], iterable: Iterable[Any]) -> list[R]:
        """The list of ``func(item)`` for each item of ``iterable``, in order.

        The jobs run at the same time, as many as there is room for. Raises what the first job (in order)
        that failed raised, or the iterable; the other jobs run on. Blocks the greenlet.
        """
        g: Greenlet[list[R]] = Greenlet.spawn(self._start_and_collect, func, iterable)
        return g.get()

    def map_cb(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        callback: Callable[[list[R]], object] | None = None,
    ) -> list[R]:
        """As :meth:`map`, and call ``callback`` with the list before returning it. Blocks the greenlet."""
        values = self.map(func, iterable)
        if callback is not None:
            callback(values)
        return values

    def map_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        callback: Callable[[list[R]], object] | None = None,
    ) -> Greenlet[list[R]]:
        """As :meth:`map_cb`, but return at once a greenlet whose value will be the list."""
        # not _start_and_collect at once: in which round the first item is taken is part of the order
        return Greenlet.spawn(self.map_cb, func, iterable, callback)

    def _start_and_collect(self, func: Callable[..., R], iterable: Iterable[Any]) -> list[R]:
        """In a greenlet of its own, which is no member: whoever kills it has not killed the jobs."""
        spawn = self.spawn
        jobs = [spawn(func, item) for item in iterable]  # all of them, before the first error is raised
        return [job.get() for job in jobs]

    def imap(self, func: Callable[..., R], *iterables: Iterable[Any], maxsize: int | None = None) -> IMap[R]:
        """An iterator over ``func(*items)`` for the items of ``iterables`` in parallel, in order.

        Jobs are started by a greenlet of the iterator, before anybody asks for results, as many at a
        time as there is room for in this group; the input is consumed no faster. With a ``maxsize`` not
        more than that many finished results wait to be read, then no more jobs are started. Results
        that are finished before their turn count too: :meth:`imap_unordered` makes better use of it.

        ``next()`` raises what a job raised, and goes on with the next result when it is called
        again. Does not block; ``next()`` does. Raises TypeError if one of ``iterables`` is none, or for
        a ``maxsize`` that is no integer, and ValueError for a negative one.
        """
        return self._iterator(IMap, func, iterables, maxsize)  # type: ignore[no-any-return]

    def imap_unordered(
        self, func: Callable[..., R], *iterables: Iterable[Any], maxsize: int | None = None
    ) -> IMapUnordered[R]:
        """As :meth:`imap`, with the results in the order in which the jobs finish."""
        return self._iterator(IMapUnordered, func, iterables, maxsize)  # type: ignore[no-any-return]

    def _iterator(
        self, cls: Any, func: Callable[..., Any], iterables: tuple[Iterable[Any], ...], maxsize: int | None
    ) -> Any:
        alone = len(iterables) == 1
        items: Iterable[Any] = iter(iterables[0]) if alone else zip(*iterables, strict=False)
        made = cls.spawn(func, items, spawn=self.spawn, _zipped=not alone, maxsize=maxsize)
        return Abandonable(made) if maxsize else made


class Group(GroupMappingMixin):
    """A set of greenlets that are still running; those that end leave it.

    ``Group()`` or ``Group(greenlets)``. ``len``, ``in`` and iteration (in no particular order) tell who is
    in it; an empty group is false. Raises AssertionError for more than one argument and TypeError for
    what is no iterable of greenlets. For the greenlets of one thread; its coroutines may call what does not
    block, and below a portal everything.
    """

    #: What :meth:`spawn` makes; may be changed in a subclass, on the class and on an instance.
    greenlet_class: type[Greenlet[Any]] = Greenlet

    def __init__(self, *args: Iterable[greenlet]) -> None:
        assert len(args) <= 1, (
            f"{type(self).__name__}{args!r}: takes one iterable of greenlets; put them into a list"
        )
        self.greenlets: set[greenlet] = set()
        #: members that were killed and have not ended yet; nobody is killed twice
        self.dying: set[greenlet] = set()
        self._link: Ends | None = None  # while there are members: an empty group is in no cycle
        self._emptied: Event | None = None  # set when nobody is left
        self._killers: WaitLine | None = None  # who waits until nobody is dying
        if args:
            try:
                members = iter(args[0])
            except TypeError:
                raise TypeError(
                    f"{type(self).__name__}({args[0]!r}): expects an iterable of greenlets"
                ) from None
            for member in members:
                self._track(member)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {self.greenlets}>"

    def __len__(self) -> int:
        return len(self.greenlets)

    def __contains__(self, item: object) -> bool:
        return item in self.greenlets

    def __iter__(self) -> Iterator[greenlet]:
        return iter(self.greenlets)

    # -- members --------------------------------------------------------------------------------

    def add(self, greenlet: greenlet) -> None:
        """Track ``greenlet`` until it ends; nothing if it is a member already. Does not block.

        Any greenlet may be added, but only instances of ``Greenlet`` leave by themselves. Raises TypeError
        for anything else.
        """
        if greenlet not in self.greenlets:
            self._track(greenlet)

    def _track(self, member: greenlet) -> None:
        try:
            rawlink = member.rawlink  # type: ignore[attr-defined]
        except AttributeError:
            if not isinstance(member, greenlet):
                raise TypeError(
                    f"{type(self).__name__}.add({member!r}): not a greenlet; spawn(function, *args) runs one"
                ) from None
            self.greenlets.add(member)  # the main greenlet, for example: it stays until it is discarded
            return
        link = self._link
        if link is None:
            link = self._link = Ends(self._discard)
        self.greenlets.add(member)
        try:
            rawlink(link)
        except BaseException:
            self.greenlets.discard(member)
            raise

    def _discard(self, greenlet: greenlet) -> None:
        """A member has ended, or is no longer to be tracked. Nothing if it is none. Subclasses extend it."""
        members = self.greenlets
        if greenlet in members:
            members.remove(greenlet)
            if self.dying or not members:
                self._departed(greenlet)

    def _departed(self, member: greenlet) -> None:
        """``member`` has left: tell those who wait for the last one or for the last dying one."""
        dying = self.dying
        if dying:
            dying.discard(member)
            if not dying and self._killers is not None:
                killers, self._killers = self._killers, None
                for wait in reversed(killers):  # each goes before the one behind
                    wait.wake_next()
        if not self.greenlets:
            self._link = None
            if self._emptied is not None:
                self._emptied.set()
                self._emptied = None

    def discard(self, greenlet: greenlet) -> None:
        """Stop tracking ``greenlet``; nothing if it is not a member. Does not block."""
        link = self._link
        self._discard(greenlet)
        if link is not None:
            link.leave(greenlet)

    def start(self, greenlet: Greenlet[Any]) -> None:
        """Track ``greenlet``, which has not been started, and start it. Does not block."""
        self.add(greenlet)
        greenlet.start()

    @overload
    def spawn(
        self, run: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> Greenlet[R]: ...
    @overload
    def spawn(self, run: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Greenlet[R]: ...
    @overload
    def spawn(self, run: None = None, *args: Any, **kwargs: Any) -> Greenlet[Any]: ...
    def spawn(self, *args: Any, **kwargs: Any) -> Greenlet[Any]:
        """Make a greenlet (``greenlet_class(*args, **kwargs)``), track and start it, and return it.

        ``Pool.spawn`` blocks while the pool is full.
        """
        member = self.greenlet_class(*args, **kwargs)
        self.start(member)
        return member

    def full(self) -> bool:
        """False: there is always room in a group."""
        return False

    def wait_available(self, timeout: float | Timeout | None = None) -> int | None:
        """Block until there is room: there always is in a group. Returns None."""
        return None

    # -- all of them ----------------------------------------------------------------------------

    def join(self, timeout: float | Timeout | None = None, raise_error: bool = False) -> bool:
        """Wait until the group is empty; true if it was at some time, false after ``timeout`` seconds.

        New members may have come by the time the caller goes on. With ``raise_error`` an exception that
        a greenlet ended with while this was waiting is raised afterwards; of several, any one.
        Blocks the greenlet.
        """
        watched = tuple(self.greenlets) if raise_error else ()
        emptied = True
        if self.greenlets:
            if self._emptied is None:
                self._emptied = Event()
            emptied = self._emptied.wait(timeout)
        for member in watched:
            if getattr(member, "exception", None) is not None:
                member.get()  # type: ignore[attr-defined]
        return emptied

    def kill(
        self,
        exception: type[BaseException] | BaseException = GreenletExit,
        block: bool = True,
        timeout: float | Timeout | None = None,
    ) -> None:
        """Kill all members, by raising ``exception`` in each.

        With ``block`` wait until the group is empty, at most ``timeout`` seconds; those who join while
        this is waiting are killed too. Returns None in any case: ``len(group)`` tells who is left. Nobody
        is killed twice. Members that are no ``Greenlet`` but plain greenlets leave the group at once.
        TypeError if ``exception`` is none.
        """
        self._condemn(self.greenlets - self.dying, exception)
        if not block or not self.dying:
            return
        # one limit for as many waits as it takes; if the caller has started it, he ends it
        theirs = timeout if isinstance(timeout, Timeout) and timeout.pending else None
        limit = theirs or Timeout.start_new(timeout)
        try:
            while self._await_burial(limit) and self.greenlets:
                self._condemn(self.greenlets - self.dying, exception)
        finally:
            if theirs is None:
                limit.cancel()

    def _await_burial(self, limit: Any) -> bool:
        """Wait until nobody is dying; False if the time was over before."""
        if not self.dying:
            return True
        wait = Wait()
        line = self._killers
        if line is None:
            line = self._killers = WaitLine()
        try:
            line.append(wait)
            return wait_limited(wait, limit)
        finally:
            line.discard(wait)

    def _condemn(self, members: set[greenlet], exception: type[BaseException] | BaseException) -> None:
        """Have ``exception`` raised in ``members`` soon."""
        if not is_exception(exception):
            raise TypeError(
                f"{type(self).__name__}.kill(exception={exception!r}): an exception class or instance "
                "is needed"
            )
        for member in members:
            if isinstance(member, Greenlet):
                self.dying.add(member)
            else:
                self.discard(member)  # nobody would tell us of its end
        killall(members, exception, block=False)

    def killone(
        self,
        greenlet: greenlet,
        exception: type[BaseException] | BaseException = GreenletExit,
        block: bool = True,
        timeout: float | Timeout | None = None,
    ) -> None:
        """Kill ``greenlet`` if it is a member that has not been killed yet.

        With ``block`` wait until it has ended, at most ``timeout`` seconds; returns None in any case.
        """
        if greenlet in self.greenlets and greenlet not in self.dying:
            self._condemn({greenlet}, exception)
            if block and isinstance(greenlet, Greenlet):
                greenlet.join(timeout)

    # -- what the mapping methods ask ------------------------------------------------------------

    def _waits_for_itself(self) -> bool:
        return getcurrent() in self

    def _may_block(self) -> bool:
        return self.full()

    def _call_back(self, callback: Callable[[Any], object], value: Any) -> None:
        Greenlet.spawn(callback, value)


class PoolFull(QueueFull):
    """There was no room in the pool, and the caller would not wait, or not longer."""


class Pool(Group):
    """A group of at most ``size`` greenlets; to add another one blocks until there is room.

    :param size: None for no limit; 0 for a pool that never has room. ValueError if negative, TypeError if it
        is no number.
    :param greenlet_class: what :meth:`spawn` makes instead of ``Greenlet``.
    """

    def __init__(self, size: int | None = None, greenlet_class: type[Greenlet[Any]] | None = None) -> None:
        super().__init__()
        self.size = size if size is None else _as_size(type(self).__name__, size)
        #: the free places; its counter may be changed together with ``size``, as celery does
        self._semaphore: Semaphore | DummySemaphore
        self._semaphore = DummySemaphore() if self.size is None else Semaphore(self.size)
        if greenlet_class is not None:
            self.greenlet_class = greenlet_class

    def wait_available(self, timeout: float | Timeout | None = None) -> int:
        """Block until there is room, at most ``timeout`` seconds.

        Returns how many greenlets can be added without blocking, 0 after the timeout.
        """
        return self._semaphore.wait(timeout=timeout)

    def full(self) -> bool:
        """True if there is no room, so that :meth:`add` would block."""
        return self.free_count() <= 0

    def free_count(self) -> int:
        """How many more members there is room for, approximately; 1 where there is no limit."""
        size = self.size
        return 1 if size is None else max(size - len(self.greenlets), 0)

    def start(
        self, greenlet: Greenlet[Any], blocking: bool = True, timeout: float | Timeout | None = None
    ) -> None:
        """Track ``greenlet``, which has not been started, and start it; arguments as for :meth:`add`."""
        self.add(greenlet, blocking, timeout)
        greenlet.start()

    def add(self, greenlet: greenlet, blocking: bool = True, timeout: float | Timeout | None = None) -> None:
        """Track ``greenlet`` until it ends; nothing if it is a member already.

        Blocks until there is room, at most ``timeout`` seconds, or not at all if ``blocking`` is false; then
        raises PoolFull. Better not add a greenlet that has been started: it runs on while this waits.
        """
        members = self.greenlets
        if greenlet in members:
            return
        places = self._semaphore
        if not places.acquire(blocking, timeout):
            raise PoolFull(
                f"Pool.add({greenlet!r}): no room among {self.size} greenlets"
                f"{f' within {timeout} seconds' if blocking else ''}; "
                "wait longer, make the pool larger, or wait_available() first"
            )
        try:
            # somebody else may have added it while we waited
            if greenlet not in members:
                self._track(greenlet)
                return
        except BaseException:
            places.release()
            raise
        places.release()

    def _discard(self, greenlet: greenlet) -> None:
        members = self.greenlets
        if greenlet in members:  # else its place was given back when it was discarded
            members.remove(greenlet)
            if self.dying or not members:
                self._departed(greenlet)
            self._semaphore.release()


def _as_size(name: str, size: Any) -> int:
    try:
        number = int(size) if isinstance(size, float) else size.__index__()
    except (AttributeError, TypeError):
        raise TypeError(f"{name}(size={size!r}): size must be a number, or None for no limit") from None
    if number < 0:
        raise ValueError(f"{name}(size={size!r}): size must not be negative; pass None for no limit")
    return int(number)
