"""Greenlets with a result, links and names; twin of :mod:`gevent.greenlet`.

A :class:`Greenlet` goes through these phases, and each change of phase is made by one place::

    NEW ── start() ──> QUEUED ── the hub switches to it ──> RUNNING ── run() ends ──> ENDED
     │                   │  (LATER: the same, by a timer)                               ^
     └── kill(), throw() ┴───────────────── without ever having run ───────────────────┘

Only the hub's ready queue switches to a greenlet. ``kill()`` has the hub throw the exception in; the wait in
which the greenlet is undoes itself.

When it ends, its links are told in the order in which they were made: waits (``join``, ``get``,
``joinall``) are woken at once, callbacks are queued for the hub.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from types import GenericAlias, TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar, cast, overload

from greenlet import GreenletExit, getcurrent, greenlet

from ._aio.asyncwait import AsyncWait
from ._calling import End, begin_if_next, interrupted
from ._config import config
from ._core.clock import monotonic
from ._core.engine import parks
from ._core.errors import BlockingSwitchOutError
from ._core.hub import get_hub, hub_local
from ._core.loop import loop as Loop
from ._core.seconds import as_seconds
from ._core.waiting import Link, Wait
from ._joining import joinall as joinall
from ._killing import hub_of, is_exception, killall, no_exception, throw_soon
from ._life import ENDED, LATER, NEW, NO_KWARGS, QUEUED, RUNNING, life
from ._links import FailureSpawnedLink, SpawnedLink, SuccessSpawnedLink
from ._origin import Frame, callers, line_of
from .hub import signal
from .timeout import Timeout, expired, wait_limited

__all__ = ["Greenlet", "joinall", "killall"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    # The class methods cannot name what the function gives (they return what they are called on): Any then.
    T_co = TypeVarWithDefault("T_co", default=Any, covariant=True)
else:
    T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S")
P = ParamSpec("P")
G = TypeVar("G", bound="Greenlet[Any]")

#: Has the greenlet below ended? (``Greenlet.dead`` is true for one killed before it ran, too.)
_has_ended: Callable[[greenlet], bool] = greenlet.dead.__get__

#: Where the latest greenlet was made.
_latest_stack: tuple[Any, ...] = ()

_spawn_callbacks: set[Callable[[Any], object]] = set()


def _run(self: Any) -> None:
    """What ``Greenlet._run`` is, for who calls the method that it was in gevent: nothing."""


class _Run:
    """``greenlet._run``: the function, which a subclass may override by a method of that name.

    The function has a slot, so that most greenlets do without a dictionary.
    """

    def __get__(self, g: Any, cls: type[Any]) -> Any:
        return _run if g is None else g._function

    def __set__(self, g: Any, function: Callable[..., Any]) -> None:
        g._function = function


class Greenlet(greenlet, Generic[T_co]):
    """A function that runs beside others in one thread, until it blocks.

    :param run: the function; None for a subclass that overrides ``_run``. A coroutine function may be given
        too: it is awaited and its result is the greenlet's. TypeError if it cannot be called.
    :param args: arguments for the function, as ``kwargs``.

    ``Greenlet(f)`` does not run until :meth:`start`; :meth:`spawn` does both. Make it, start it and wait for
    it in one thread. In a coroutine ``await greenlet`` gives its value.
    """

    __slots__ = (
        "_exception",
        "_function",
        "_kwargs",
        "_links",
        "_phase",
        "_quiet",
        "_stack",
        "_timer",
        "_traceback",
        "args",
        "spawn_tree_locals",
        "spawning_greenlet",
        "value",
    )

    #: How many frames of the spawner are kept for ``spawning_stack``.
    spawning_stack_limit: ClassVar[int] = 10

    #: The result; None until there is one. A greenlet ended by GreenletExit has that as its value.
    value: T_co | None
    args: tuple[Any, ...]
    #: A weak reference to the greenlet that made this one; None if ``config.track_greenlet_tree`` is off.
    spawning_greenlet: Callable[[], greenlet | None] | None
    #: A dictionary that is shared by all greenlets that descend from one made by the main greenlet.
    spawn_tree_locals: dict[str, Any] | None

    def __class_getitem__(cls, item: Any) -> GenericAlias:
        """``Greenlet[int]``, but of every subclass too: tracers put one of their own in this one's place."""
        return GenericAlias(cls, item)

    @overload
    def __init__(
        self: Greenlet[S], run: Callable[P, Coroutine[Any, Any, S]], *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def __init__(self: Greenlet[S], run: Callable[P, S], *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def __init__(self, run: None = None, *args: Any, **kwargs: Any) -> None: ...
    def __init__(self, run: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> None:
        global _latest_stack
        hub = hub_local.hub
        if hub is None or hub.loop.probe() is not None:
            hub = get_hub()
        self.parent = hub  # greenlet.__init__(self, None, hub) would do nothing else
        if run is not None and not callable(run):
            raise TypeError(
                f"The run argument or self._run must be callable, not {run!r}; pass the function and its "
                "arguments apart: spawn(func, arg), not spawn(func(arg))"
            )
        self._function: Callable[..., Any] | None
        kind = type(self)
        if kind is _base or not _overrides_run(kind):
            self._function = _do_nothing if run is None else run
        else:
            self._function = None
            if run is not None:
                self._run = run  # type: ignore[method-assign]
        self.args = args
        self._kwargs = kwargs or NO_KWARGS
        self.value = None
        self._exception: BaseException | None = None
        self._links: Any = None
        self._phase = NEW
        self._quiet = False
        if config.track_greenlet_tree:
            spawner = getcurrent()
            self.spawning_greenlet = weakref.ref(spawner)
            tree = getattr(spawner, "spawn_tree_locals", None)
            if tree is None:
                tree = {}
                if spawner.parent is not None:
                    # not for the main greenlet: each of its children is the root of a tree
                    spawner.spawn_tree_locals = tree  # type: ignore[attr-defined]
            self.spawn_tree_locals = tree
            self._stack = _latest_stack = callers(self.spawning_stack_limit, _latest_stack)
        else:
            self.spawning_greenlet = self.spawn_tree_locals = None
        if config.inherit_context:
            self.gr_context = copy_context()

    # -- life -------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def _run(self, *args: Any, **kwargs: Any) -> Any:
            """The function; a subclass may override it."""

    else:
        _run = _Run()

    run = life

    def _ended(self, value: Any) -> None:
        self.value = value
        self._phase = ENDED
        # nothing that was needed for running is kept
        self.args = ()
        self._kwargs = NO_KWARGS
        if self._links is not None:
            self._tell()

    def _failed(self, exception: BaseException) -> None:
        if isinstance(exception, GreenletExit):
            # a value from now on, which does not need the frames with all their variables
            exception.__traceback__ = None
            self._ended(exception)
            return
        tb = exception.__traceback__
        if tb is not None and tb.tb_next is not None:
            tb = tb.tb_next  # without run() itself
        self._exception = exception
        self._traceback = tb
        self._phase = ENDED
        if self._links is not None:
            self._tell()
        try:
            # unless cancelled by who awaits it, and who gets the exception
            if not self._quiet:
                self._report(exception, tb)  # shows the arguments
        finally:
            exception.__traceback__ = tb
            self.args = ()
            self._kwargs = NO_KWARGS

    def _report(self, exception: BaseException, tb: TracebackType | None) -> None:
        hub: Any = self.parent
        if not hasattr(hub, "handle_error"):
            hub = get_hub()
        hub.handle_error(self, type(exception), exception, tb)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments for the function; empty after the end."""
        if self._kwargs is NO_KWARGS:
            self._kwargs = {}  # not one for each greenlet that has none
        return self._kwargs

    @property
    def loop(self) -> Loop:
        """The loop that this greenlet belongs to."""
        return hub_of(self).loop

    @classmethod
    def spawn(cls: type[G], *args: Any, **kwargs: Any) -> G:
        """Make a greenlet and start it: ``spawn(function, *args, **kwargs)``. Does not block."""
        g = cls(*args, **kwargs)
        g.start()
        return g

    @classmethod
    def spawn_later(cls: type[G], seconds: float, *args: Any, **kwargs: Any) -> G:
        """Make a greenlet and start it in ``seconds``. Does not block."""
        if cls is Greenlet and not args and "run" not in kwargs:
            raise TypeError("spawn_later(seconds, function, *args, **kwargs): the function is missing")
        g = cls(*args, **kwargs)
        g.start_later(seconds)
        return g

    def start(self) -> None:
        """Have the hub switch to this greenlet after what is ready now. Does nothing the second time."""
        if self._phase == NEW:
            self._phase = QUEUED
            if _spawn_callbacks:
                _call_spawn_callbacks(self)
            loop = self.parent.loop  # type: ignore[union-attr]
            loop.ready.append(self)
            if not loop.armed:
                loop.arm()

    def start_later(self, seconds: float) -> None:
        """Start in ``seconds``."""
        if self._phase == NEW:
            loop = self.loop
            if type(seconds) is not float and type(seconds) is not int:
                seconds = as_seconds(seconds, "start_later({!r}): a number of seconds is needed")
            self._timer = loop.call_at(monotonic() + seconds, Greenlet._start_due, self)
            self._phase = LATER
            if _spawn_callbacks:
                _call_spawn_callbacks(self)

    def _start_due(self) -> None:
        self._phase = QUEUED
        self.loop.ready.append(self)

    @staticmethod
    def add_spawn_callback(callback: Callable[[Any], object]) -> None:
        """Have ``callback(greenlet)`` called whenever a Greenlet is started; once, however often added."""
        _spawn_callbacks.add(callback)

    @staticmethod
    def remove_spawn_callback(callback: Callable[[Any], object]) -> None:
        """Take back :meth:`add_spawn_callback`; nothing if it was not added."""
        _spawn_callbacks.discard(callback)

    # -- state ------------------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """True from start() to the end."""
        return NEW < self._phase < ENDED

    def __bool__(self) -> bool:
        return NEW < self._phase < ENDED

    @property
    def dead(self) -> bool:
        """True if it has ended, or was killed before it ran."""
        return self._phase == ENDED or _has_ended(self)

    def ready(self) -> bool:
        """True if it has ended."""
        return self._phase == ENDED or self.dead

    def successful(self) -> bool:
        """True if it has ended without an exception; being killed counts as success."""
        return self._phase == ENDED and self._exception is None

    @property
    def exception(self) -> BaseException | None:
        """The exception that ended it, None without one."""
        return self._exception

    @property
    def exc_info(self) -> Any:
        """The exception as (type, value, traceback); None without one."""
        e = self._exception
        return None if e is None else (type(e), e, self._traceback)

    @property
    def spawning_stack(self) -> Any:
        """Where the greenlet was made: something like a frame, for ``traceback.print_stack``; or None."""
        try:
            stack = self._stack
        except AttributeError:
            return None
        frame: Frame | None = None
        for i in range(len(stack) - 2, -2, -2):
            frame = Frame(stack[i], line_of(stack[i], stack[i + 1]), frame)
        return frame

    @property
    def minimal_ident(self) -> int:
        """A small number that no other live greenlet has; it is used again after this one is gone."""
        # In the coroutine's step in which it begins it has another parent. Else that must be a hub.
        hub: Any = hub_of(self) if greenlet.__bool__(self) else self.parent
        ident: int = hub.ident_registry.get_ident(self)
        self.__dict__["_ident"] = ident  # shown by repr() from now on
        return ident

    @property
    def name(self) -> str:
        """A name for people; ``Greenlet-N`` unless assigned."""
        own = self.__dict__.get("name")
        if own is None:
            own = self.__dict__["name"] = f"Greenlet-{self.minimal_ident}"  # of subclasses too, as in gevent
        return own

    @name.setter
    def name(self, value: str) -> None:
        self.__dict__["name"] = value

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self._named()} at {id(self):#x}: {self._formatinfo()}>"

    def _named(self) -> str:
        return f' "{self.name}"' if "name" in self.__dict__ or "_ident" in self.__dict__ else ""

    def _formatinfo(self) -> str:
        # with its function even after the end; with the arguments then only if they were shown before
        shown: str | None = self.__dict__.get("_shown")
        if shown is not None:
            return shown
        func: Any = self._run
        bound = getattr(func, "__self__", None)
        name = getattr(func, "__name__", None)
        if name is None or inspect.ismodule(bound):
            info = repr(func)
        elif bound is None or bound is self:
            info = name
        else:
            info = f"<bound method {type(bound).__name__}.{name} of {bound!r}>"
        if self.args or self.kwargs:
            arguments = [repr(a)[:50] for a in self.args]
            arguments += [f"{k}={repr(v)[:50]}" for k, v in self.kwargs.items()]
            self.__dict__["_shown"] = info = f"{info}({', '.join(arguments)})"
        return info

    # -- ending it from outside -------------------------------------------------------------------

    def _cancel_start(self) -> bool:
        """If it has not begun to run, see to it that it never does; True then."""
        phase = self._phase
        if phase == QUEUED:
            self.loop.unready(self)
        elif phase == LATER:
            loop = self.loop
            if not loop.cancel(self._timer):
                loop.unready(self)  # the timer has gone off: it is in the ready queue
        elif phase != NEW:
            return False
        return True

    def _has_begun(self) -> bool:
        return self._phase >= RUNNING

    def _die_unstarted(self, exception: Any) -> None:
        if not isinstance(exception, BaseException):
            exception = exception() if is_exception(exception) else no_exception(exception)
        self._failed(exception)

    def _maybe_kill_before_start(self, exception: Any) -> bool:
        if self._phase < RUNNING and self._cancel_start():
            self._die_unstarted(exception)
        return self._phase == ENDED

    def throw(self, *args: Any) -> Any:
        """Switch to this greenlet at once and raise the exception in it.

        Only for the hub: called elsewhere, nothing switches back. Use :meth:`kill`.
        """
        if self._phase < RUNNING:
            typ, value, tb = (*args, None, None, None)[:3]
            if typ is not None and not is_exception(typ):
                raise TypeError(f"throw({typ!r}): an exception class or instance is needed")
            self._cancel_start()
            if isinstance(typ, BaseException):
                value = typ
            elif value is None:
                value = typ() if typ is not None else GreenletExit()
            elif not isinstance(value, BaseException):
                value = typ(value)
            if tb is not None:
                value.__traceback__ = tb
            self._die_unstarted(value)
            return None
        if self.dead:
            return None
        return greenlet.throw(self, *args)

    def kill(
        self,
        exception: type[BaseException] | BaseException = GreenletExit,
        block: bool = True,
        timeout: float | Timeout | None = None,
    ) -> None:
        """Have ``exception`` raised in the greenlet, and wait until it has ended.

        :param block: False: do not wait.
        :param timeout: seconds to wait at the most; returns silently when they are over.

        Nothing happens if it has ended. One that has not begun never will. If ``exception`` is no
        exception, a TypeError that says so is raised in the greenlet. May be called in the greenlet itself:
        the exception arrives when it blocks next.
        """
        if self._maybe_kill_before_start(exception):
            return
        if not block:
            throw_soon(self, exception)
            return
        try:
            delivered = Wait()
        except BlockingSwitchOutError:
            throw_soon(self, exception)
            raise
        throw_soon(self, exception, delivered)
        # we go on right after the exception has been raised, mostly to find the greenlet ended
        delivered.block()
        self.join(timeout)

    # -- waiting for it ---------------------------------------------------------------------------

    def join(self, timeout: float | Timeout | None = None) -> None:
        """Wait until the greenlet has ended, for ``timeout`` seconds at the most. Blocks."""
        if self.ready():
            return
        self._wait(timeout)

    @parks
    def _wait(self, timeout: float | Timeout | None) -> bool:
        wait = Wait()
        try:
            if self._links is None:
                self._links = wait
            else:
                self._add(wait)
            return wait.block() if timeout is None else wait_limited(wait, timeout)
        finally:
            if self._links is not None:
                self.unlink(wait)

    def get(self, block: bool = True, timeout: float | Timeout | None = None) -> T_co:
        """The value, or raise the exception, of the greenlet; waits for its end.

        Raises Timeout after ``timeout`` seconds, or at once if ``block`` is false and it has not ended.
        """
        if self._phase != ENDED and not self.dead:
            if not block:
                raise Timeout()
            if not self._wait(timeout):
                raise expired(timeout)
        if self._exception is not None:
            raise self._exception.with_traceback(self._traceback)
        return cast(T_co, self.value)

    def __enter__(self: G) -> G:
        return self

    def __exit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        # structured: leaving the block normally waits for the end, by an exception ends it with that
        if typ is not None:
            self.kill(value if value is not None else typ)
            return
        try:
            self.join()
        finally:
            self.kill()  # the wait may have been interrupted

    def __await__(self) -> Generator[Any, None, T_co]:
        """In a coroutine: the value; cancelling the waiting task cancels the greenlet."""
        if self._phase == QUEUED:
            begin_if_next(self)
        if self._phase != ENDED and not self.dead:
            wait = AsyncWait()
            end = wait.future = End(self, wait.aio)
            self._add(wait)
            interruption: BaseException | None
            try:
                yield from end
                interruption = end.interruption()
            except GeneratorExit:
                raise  # the coroutine is closed, and may not wait for anything
            except BaseException as e:
                interruption = e
                yield from interrupted(end).__await__()
            finally:
                wait.woken = True
                if self._links is not None:
                    self.unlink(wait)
            end.greenlet = None
            if interruption is not None:
                try:
                    if not isinstance(self._exception, CancelledError | None):
                        # an error of its own, which nobody else would get to know
                        if isinstance(interruption, CancelledError):
                            self.get(block=False)
                        self._report(self._exception, self._traceback)
                    raise interruption
                finally:
                    del interruption  # its traceback refers to this frame: no cycle through it
        return self.get(block=False)

    async def aget(self, timeout: float | None = None) -> T_co:
        """In a coroutine: wait for the end and give the value; never touches the greenlet.

        Raises its exception, or Timeout after ``timeout`` seconds.
        """
        if not await self._await_end(timeout):
            raise Timeout(timeout)
        return self.get(block=False)

    async def ajoin(self, timeout: float | None = None) -> None:
        """In a coroutine: wait for the end, for ``timeout`` seconds at the most."""
        await self._await_end(timeout)

    async def _await_end(self, timeout: float | None) -> bool:
        if self.ready():
            return True
        wait = AsyncWait()
        self._add(wait)
        try:
            return await wait.block(timeout)
        finally:
            if self._links is not None:
                self.unlink(wait)

    # -- links ------------------------------------------------------------------------------------

    def has_links(self) -> bool:
        """True if somebody is to be told of the end."""
        return self._links is not None and self._links != []

    def _add(self, link: Any) -> None:
        # most greenlets have one link or none: a list only for more
        links = self._links
        if links is None:
            self._links = link
        elif type(links) is list:
            links.append(link)
        else:
            self._links = [links, link]

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Have ``callback(greenlet)`` called in the hub at the end; it must not block.

        Called even if the greenlet has ended already. TypeError if it can't be called.
        """
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        if self._phase != ENDED and not _has_ended(self):
            if self._links is None:
                self._links = callback
            else:
                self._add(callback)
        elif isinstance(callback, Link):
            callback.notify_late(self)
        else:
            self._add(callback)
            self.loop.run_callback(_call_link, callback, self)

    def link(
        self, callback: Callable[[Any], object], SpawnedLink: Callable[[Any], Any] = SpawnedLink
    ) -> None:
        """Have ``callback(greenlet)`` called in a greenlet of its own at the end."""
        self.rawlink(SpawnedLink(callback))

    def link_value(
        self, callback: Callable[[Any], object], SpawnedLink: Callable[[Any], Any] = SuccessSpawnedLink
    ) -> None:
        """Like :meth:`link`, but only if it ends without an exception."""
        self.link(callback, SpawnedLink=SpawnedLink)

    def link_exception(
        self, callback: Callable[[Any], object], SpawnedLink: Callable[[Any], Any] = FailureSpawnedLink
    ) -> None:
        """Like :meth:`link`, but only if it ends by an exception."""
        self.link(callback, SpawnedLink=SpawnedLink)

    def unlink(self, callback: Any) -> None:
        """Take back one link made with ``callback``; nothing if there is none."""
        links = self._links
        if type(links) is list:
            try:
                links.remove(callback)
            except ValueError:
                pass
        elif links is not None and links == callback:
            self._links = None

    def unlink_all(self) -> None:
        """Forget all links."""
        self._links = None

    def _tell(self) -> None:
        links = self._links
        self._links = None
        if isinstance(links, Link):
            links.notify(self)
            return
        for link in links if type(links) is list else (links,):
            if isinstance(link, Link):
                link.notify(self)
            else:
                # it stays among the links until it is called: it may be unlinked before
                self._add(link)
                self.loop.call(_call_link, link, self)

    def _take_link(self, link: Any) -> bool:
        """Take out this very link; False if it was taken back."""
        links = self._links
        if type(links) is list:
            for i, each in enumerate(links):
                if each is link:
                    del links[i]
                    return True
            return False
        if links is not link:
            return False
        self._links = None
        return True

    _notify_links = _tell


_base = Greenlet


def _overrides_run(cls: type[Greenlet[Any]]) -> bool:
    """Whether a subclass has a ``_run`` of its own."""
    for each in cls.__mro__:
        if "_run" in vars(each):
            return each is not _base
    return False


def _call_link(link: Callable[[Any], object], source: Any) -> None:
    """In the hub: call one link of a greenlet that has ended."""
    if not source._take_link(link):
        return
    try:
        link(source)
    except BaseException:
        get_hub().handle_error((link, source), *sys.exc_info())


def _do_nothing() -> None:
    """What ``spawn(None)`` runs, as in gevent."""


_do_nothing.__name__ = "_run"


def _call_spawn_callbacks(g: Any) -> None:
    for callback in tuple(_spawn_callbacks):
        callback(g)


signal.greenlet_class = Greenlet
