"""Groups and pools of greenlets.

A :class:`Group` knows which of its greenlets are still running; a :class:`Pool` limits how many there are at
a time. Both can be waited for and killed as a whole, and both map functions over data.

The book-keeping of one greenlet is a place in a set, and a link, shared by all members, that takes it out
again when it has ended: all that end in one round of the hub in one callback. Events exist only while
somebody waits for the group: most groups fill and empty many times without being watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import Full as QueueFull
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from ._aio.awaiting import await_
from ._imap import Abandonable, BatchLink, IMap, IMapUnordered
from ._killing import killall
from .event import Event
from .greenlet import Greenlet, _is_async
from .lock import DummySemaphore, Semaphore
from .timeout import Timeout

__all__ = ["Group", "Pool", "PoolFull"]

R = TypeVar("R")


class GroupMappingMixin:
    """The mapping methods of groups, pools and thread pools.

    A subclass defines

    - ``spawn(func, *args, **kwargs)``, which starts ``func`` and returns something with ``get`` (blocks for
      the result) and ``rawlink`` (has a callback called when it is there). It may block while there is
      no room.
    - ``_apply_immediately()``: shall :meth:`apply` call the function itself, here and now?
    - ``_apply_async_use_greenlet()``: true if ``spawn`` would block, so that :meth:`apply_async` must leave
      it to a greenlet of its own.
    - ``_apply_async_cb_spawn(callback, result)``: call ``callback(result)``, now or later.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def spawn(self, *args: Any, **kwargs: Any) -> Any: ...
        def _apply_immediately(self) -> bool: ...
        def _apply_async_use_greenlet(self) -> bool: ...
        def _apply_async_cb_spawn(self, callback: Callable[[Any], object], result: Any) -> None: ...

    # Greenlet, IMap and IMapUnordered are looked up in this module at each use: tracing tools replace them.

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
        if args is None:
            args = ()
        if kwds is None:
            kwds = {}
        if self._apply_immediately():
            value: Any = func(*args, **kwds)
            if type(value) is CoroutineType and _is_async(func):
                value = await_(value)  # as a greenlet would
            return value  # type: ignore[no-any-return]
        return self.spawn(func, *args, **kwds).get()  # type: ignore[no-any-return]

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
        result = self.apply(func, args, kwds)
        if callback is not None:
            self._apply_async_cb_spawn(callback, result)
        return result

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
        if args is None:
            args = ()
        if kwds is None:
            kwds = {}
        if self._apply_async_use_greenlet():
            return Greenlet.spawn(self.apply_cb, func, args, kwds, callback)
        job: Greenlet[R] = self.spawn(func, *args, **kwds)
        if callback is not None:
            job.link(pass_value(callback))
        return job

    def map(self, func: Callable[..., R], iterable: Iterable[Any]) -> list[R]:
        """The list of ``func(item)`` for each item of ``iterable``, in order.

        The jobs run at the same time, as many as there is room for. Raises what the first job (in order)
        that failed raised, or the iterable; the other jobs run on. Blocks the greenlet.
        """
        return Greenlet.spawn(self._map_here, func, iterable).get()

    def _map_here(self, func: Callable[..., R], iterable: Iterable[Any]) -> list[R]:
        spawn = self.spawn
        jobs = [spawn(func, item) for item in iterable]
        return [job.get() for job in jobs]

    def map_cb(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        callback: Callable[[list[R]], object] | None = None,
    ) -> list[R]:
        """As :meth:`map`, and call ``callback`` with the list before returning it. Blocks the greenlet."""
        result = self.map(func, iterable)
        if callback is not None:
            callback(result)
        return result

    def map_async(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        callback: Callable[[list[R]], object] | None = None,
    ) -> Greenlet[list[R]]:
        """As :meth:`map_cb`, but return at once a greenlet whose value will be the list."""
        return Greenlet.spawn(self.map_cb, func, iterable, callback)

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
        it: IMap[R] = IMap.spawn(
            func, zip(*iterables, strict=False), spawn=self.spawn, _zipped=True, maxsize=maxsize
        )
        return Abandonable(it) if maxsize else it  # type: ignore[return-value]

    def imap_unordered(
        self, func: Callable[..., R], *iterables: Iterable[Any], maxsize: int | None = None
    ) -> IMapUnordered[R]:
        """As :meth:`imap`, with the results in the order in which the jobs finish."""
        it: IMapUnordered[R] = IMapUnordered.spawn(
            func, zip(*iterables, strict=False), spawn=self.spawn, _zipped=True, maxsize=maxsize
        )
        return Abandonable(it) if maxsize else it  # type: ignore[return-value]


class Group(GroupMappingMixin):
    """A set of greenlets that are still running; those that end leave it.

    ``Group()`` or ``Group(greenlets)``. ``len``, ``in`` and iteration (in no particular order) tell who is
    in it; an empty group is false. Raises AssertionError for more than one argument and TypeError for
    what is no iterable of greenlets.
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
        self._link: BatchLink | None = None  # while there are members: an empty group is in no cycle
        self._emptied: Event | None = None  # set when nobody is left
        self._buried: Event | None = None  # set when nobody is dying
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
        return f"<{self.__class__.__name__} at {id(self):#x} {self.greenlets}>"

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
        rawlink = getattr(member, "rawlink", None)
        if rawlink is None:
            if not isinstance(member, greenlet):
                raise TypeError(
                    f"{type(self).__name__}.add({member!r}): not a greenlet; spawn(function, *args) runs one"
                )
            self.greenlets.add(member)  # the main greenlet, for example: it stays until it is discarded
            return
        link = self._link
        if link is None:
            link = self._link = BatchLink(self._discard)
        self.greenlets.add(member)
        try:
            rawlink(link)
        except BaseException:
            self.greenlets.discard(member)
            raise

    def _discard(self, greenlet: greenlet) -> None:
        """A member has ended, or is no longer to be tracked."""
        try:
            self.greenlets.remove(greenlet)
        except KeyError:
            return
        if not self.greenlets or self.dying:
            self._departed(greenlet)

    def _departed(self, member: greenlet) -> None:
        """``member`` has left: tell those who wait for the last one or for the last dying one."""
        dying = self.dying
        if dying:
            dying.discard(member)
            if not dying and self._buried is not None:
                self._buried.set()
                self._buried = None
        if not self.greenlets:
            self._link = None
            if self._emptied is not None:
                self._emptied.set()
                self._emptied = None

    def discard(self, greenlet: greenlet) -> None:
        """Stop tracking ``greenlet``; nothing if it is not a member. Does not block."""
        link = self._link
        self._discard(greenlet)
        unlink = getattr(greenlet, "unlink", None)
        if unlink is not None and link is not None:
            unlink(link)

    def start(self, greenlet: Greenlet[Any]) -> None:
        """Track ``greenlet``, which has not been started, and start it."""
        self.add(greenlet)
        greenlet.start()

    def spawn(self, *args: Any, **kwargs: Any) -> Greenlet[Any]:
        """Make a greenlet (``greenlet_class(*args, **kwargs)``), track and start it, and return it.

        ``Pool.spawn`` blocks while the pool is full.
        """
        greenlet = self.greenlet_class(*args, **kwargs)
        self.start(greenlet)
        return greenlet

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
        watched = list(self.greenlets) if raise_error else ()
        emptied = True
        if self.greenlets:
            event = self._emptied
            if event is None:
                event = self._emptied = Event()
            emptied = bool(event.wait(timeout))
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
        """
        if not block:
            self._kill_members(exception)
            return
        started = not (isinstance(timeout, Timeout) and timeout.pending)
        timer = Timeout.start_new(timeout)
        try:
            while self.greenlets:
                self._kill_members(exception)
                if self.dying:
                    event = self._buried
                    if event is None:
                        event = self._buried = Event()
                    event.wait()
        except Timeout as raised:
            if raised is not timer:
                raise
        finally:
            if started:
                timer.cancel()

    def _kill_members(self, exception: type[BaseException] | BaseException) -> None:
        self._kill(self.greenlets - self.dying, exception)

    def _kill(self, members: set[greenlet], exception: type[BaseException] | BaseException) -> None:
        if not isinstance(exception, BaseException) and not (
            isinstance(exception, type) and issubclass(exception, BaseException)
        ):
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

        With ``block`` wait until it has ended, at most ``timeout`` seconds.
        """
        if greenlet in self.greenlets and greenlet not in self.dying:
            self._kill({greenlet}, exception)
            if block and isinstance(greenlet, Greenlet):
                greenlet.join(timeout)

    # -- what the mapping methods ask ------------------------------------------------------------

    def _apply_immediately(self) -> bool:
        return getcurrent() in self

    def _apply_async_cb_spawn(self, callback: Callable[[Any], object], result: Any) -> None:
        Greenlet.spawn(callback, result)

    def _apply_async_use_greenlet(self) -> bool:
        return self.full()


class PoolFull(QueueFull):
    """There was no room in the pool, and the caller would not wait, or not longer."""


class Pool(Group):
    """A group of at most ``size`` greenlets; to add another one blocks until there is room.

    ``size``: None for no limit; 0 for a pool that never has room. ``greenlet_class``: what :meth:`spawn`
    makes instead of ``Greenlet``. Raises ValueError for a negative ``size`` and TypeError for one that is
    no number.
    """

    def __init__(self, size: int | None = None, greenlet_class: type[Greenlet[Any]] | None = None) -> None:
        if size is not None:
            size = _as_size(type(self).__name__, size)
        super().__init__()
        self.size = size
        if greenlet_class is not None:
            self.greenlet_class = greenlet_class
        # Invariant: its counter + len(self) + those between acquire and _track = size
        self._semaphore: Semaphore | DummySemaphore = DummySemaphore() if size is None else Semaphore(size)

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
        if self.size is None:
            return 1
        return max(0, self.size - len(self.greenlets))

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
        if greenlet in self.greenlets:
            return
        semaphore = self._semaphore
        if not semaphore.acquire(blocking, timeout):
            raise PoolFull(
                f"Pool.add({greenlet!r}): no room among {self.size} greenlets"
                f"{f' within {timeout} seconds' if blocking else ''}; "
                "wait longer, make the pool larger, or wait_available() first"
            )
        if greenlet in self.greenlets:  # added by somebody else while we waited
            semaphore.release()
            return
        try:
            self._track(greenlet)
        except BaseException:
            semaphore.release()
            raise

    def _discard(self, greenlet: greenlet) -> None:
        try:
            self.greenlets.remove(greenlet)
        except KeyError:
            return  # its place was given back when it was discarded
        if not self.greenlets or self.dying:
            self._departed(greenlet)
        self._semaphore.release()


def _as_size(name: str, size: Any) -> int:
    try:
        number = int(size) if isinstance(size, float) else size.__index__()
    except (AttributeError, TypeError):
        raise TypeError(f"{name}(size={size!r}): size must be a number, or None for no limit") from None
    if number < 0:
        raise ValueError(f"{name}(size={size!r}): size must not be negative; pass None for no limit")
    return number


class pass_value:
    """A link that calls ``callback`` with the value of what it is linked to, if that has succeeded.

    It equals ``callback``, so that ``unlink(callback)`` finds it, and has its attributes.
    """

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[Any], object]) -> None:
        self.callback = callback

    def __call__(self, source: Any) -> None:
        if source.successful():
            self.callback(source.value)

    def __eq__(self, other: object) -> bool:
        return bool(self.callback == (other.callback if isinstance(other, pass_value) else other))

    def __hash__(self) -> int:
        return hash(self.callback)

    def __repr__(self) -> str:
        return repr(self.callback)

    def __getattr__(self, name: str) -> Any:
        if name == "callback":  # not set yet: a copy is being made
            raise AttributeError(name)
        return getattr(self.callback, name)
