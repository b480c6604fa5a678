"""The iterators behind ``imap`` and ``imap_unordered``.

Theory of operation
===================

An iterator is a greenlet, the *feeder*: it takes items from the input, one at a time, and starts a job for
each with the ``spawn`` of the pool, which blocks while the pool is full. So the input is consumed as
lazily as the pool demands. When a job ends, the hub files its outcome (by way of :mod:`bridge._ends`), and
``next()`` takes outcomes from there.

*Order.* Each job gets a *place*, a number, when it is started. Whoever wants results in the order of the
input waits for the outcome of one place; whoever wants them as they come, for any. That is all the difference
between the two classes.

*Credits* are what ``maxsize`` limits. A job costs one, ``next()`` brings one as soon as it is called (who
stands there with open hands lets nothing pile up), and takes it back if it is interrupted. The count
may therefore be negative for a while. Invariant: jobs started = maxsize + calls of ``next()`` that were
not interrupted - credits.

*The line of readers* follows the rule "told, not given" of :mod:`bridge._core.waiting`: an outcome that
arrives tells the head of the line, the head takes it when it runs, so a reader that is killed in between
loses nothing.

*Exceptions.* An outcome is a value, or a :class:`_Raised`, which ``next()`` takes like any other and then
raises: so what a job raised comes out once, where its value would have, and the next call goes on behind it.
A killed job gave its GreenletExit as a value, as everywhere. An error of the input is an outcome, too: in the
place of the job that could not be started, or at once where there is no order. So is the GreenletExit of an
iterator that was killed, for its readers must not take it for the end.

*The end.* Nothing more comes when the feeder has ended (``_feeding`` is false) and no job is outstanding.
That is a state and not a message, so it holds for every reader and every call that comes later. (A mark
for the end in a queue would be consumed by one call; the next one would wait for ever.)

*Abandoned iterators.* A feeder that waits for credits is referred to by its own frames, which the garbage
collector does not look into: it would stay for ever if its iterator were dropped half read. So the
methods of pools hand out an :class:`Abandonable` in place of a bounded iterator, which the feeder does
not know; when that goes, no credit can come any more, and the feeder ends where it waits for one. An
unbounded feeder goes on to the end of its input, read or not, as in gevent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from operator import index as as_index
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from greenlet import GreenletExit

from ._core.waiting import Wait, WaitLine
from ._ends import also
from .greenlet import Greenlet

if TYPE_CHECKING:
    from collections.abc import Sized

__all__ = ["IMap", "IMapUnordered"]

R = TypeVar("R")

#: There is no outcome in that place yet.
_NONE: Any = object()


class _Raised:
    """The outcome of a job that raised, or of an input that did."""

    __slots__ = ("_error", "_job")

    def __init__(self, error: BaseException, job: Any = None) -> None:
        self._error = error
        #: it raises its error by itself, with the right traceback
        self._job = job

    def again(self) -> NoReturn:
        """Raise the exception."""
        if self._job is not None:
            self._job.get()
        raise self._error


def _as_limit(maxsize: object) -> int:
    """``maxsize`` as a number; 0 for no limit."""
    if not maxsize:
        return 0
    try:
        number = as_index(maxsize)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"imap(maxsize={maxsize!r}): maxsize is the number of finished results that may wait to be read; "
            "pass an int, or None for no limit"
        ) from None
    if number < 0:
        raise ValueError(
            f"imap(maxsize={maxsize!r}): maxsize must not be negative; pass None (or 0) for no limit"
        )
    return number


class IMapUnordered(Greenlet[None], Generic[R]):
    """Iterator over the results of jobs, in the order in which they finish.

    It is the greenlet that starts the jobs, itself to be started with ``spawn``, as in
    ``IMapUnordered.spawn(func, iterable, spawn=pool.spawn)``.

    :param func: called with each item of ``iterable``, with ``*item`` if ``_zipped``, by way of
        ``spawn(func, item)``.
    :param spawn: starts a job; may block while there is no room. What it returns has ``rawlink``,
        ``successful``, ``value``, ``exception`` and ``get``.
    :param maxsize: no more than that many finished results accumulate: further jobs are started as results
        are taken. None or 0: no limit. ValueError if negative, TypeError if no integer.

    ``next()`` blocks the greenlet until a result is there. It raises what a job raised, and may then be
    called again; what the input raised; ``GreenletExit`` if the iterator was killed; and StopIteration
    after the last result. An interrupted ``next()`` loses no result. Several greenlets of one thread may
    read from one iterator; a coroutine only in a portal.
    """

    def __init__(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        spawn: Callable[..., Any],
        maxsize: int | None = None,
        _zipped: bool = False,
    ) -> None:
        limit = _as_limit(maxsize)
        super().__init__()
        self._source: tuple[Callable[..., R], Iterable[Any], Callable[..., Any], bool] | None
        self._source = func, iterable, spawn, _zipped
        self._bounded = limit > 0
        self._credits = limit
        self._credit_wait: Wait | None = None
        self._abandoned = False
        self._readers = WaitLine()
        self._outstanding = 0
        self._feeding = True
        self._filed: Any = self._cabinet()
        # killed before it has begun, the feeder never gets to _run
        self.rawlink(self._on_feeder_end)

    @property
    def queue(self) -> Sized:
        """The finished results that nobody has taken yet."""
        return self._filed  # type: ignore[no-any-return]

    # -- where outcomes are filed, and taken from: what the other class overrides -------------------

    def _cabinet(self) -> Any:
        return deque()

    def _readable(self) -> bool:
        """Is the outcome there that is to be read next?"""
        return bool(self._filed)

    def _file_error(self, place: int, error: BaseException) -> None:
        self._filed.append(_Raised(error))

    def _on_end(self, place: int, job: Any) -> None:
        # in the hub
        self._outstanding -= 1
        self._filed.append(job.value if job.successful() else _Raised(job.exception, job))
        line = self._readers
        if line and not line[0].woken:  # line.tell() without the call
            line[0].wake()

    def __next__(self) -> R:
        """The next result. Blocks the greenlet."""
        if self._bounded:
            self._add_credit()
        filed = self._filed
        if not filed:
            self._await_outcome()
        outcome = filed.popleft()
        if type(outcome) is _Raised:
            outcome.again()
        return outcome  # type: ignore[no-any-return]

    # -- reading --------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def next(self) -> R:
        """The same as ``next(self)``."""
        return self.__next__()

    def _await_outcome(self) -> None:
        """Block until an outcome can be taken; StopIteration if there will be none."""
        line = self._readers
        enter = line.append
        try:
            while not self._readable():
                if not self._feeding and self._outstanding <= 0:
                    raise StopIteration
                wait = Wait()
                try:
                    enter(wait)
                    wait.block()
                finally:
                    line.discard(wait)
                enter = line.appendleft  # a running greenlet was faster: keep the place
        except BaseException:
            if self._bounded:
                self._credits -= 1
            raise
        finally:
            line.tell()  # whoever comes next looks for himself whether there is more

    # -- credits --------------------------------------------------------------------------------

    def _add_credit(self) -> None:
        self._credits += 1
        wait = self._credit_wait
        if wait is not None and self._credits > 0:
            wait.wake()

    def _take_credit(self) -> None:
        while self._credits <= 0:
            if self._abandoned:
                raise GreenletExit
            wait = Wait()
            try:
                self._credit_wait = wait
                wait.block()
            finally:
                self._credit_wait = None
        self._credits -= 1

    def _abandon(self) -> None:
        """Nobody will ask for a result any more. Called from any thread, at any point of a program."""
        self._abandoned = True
        wait = self._credit_wait
        if wait is not None:
            try:
                wait.wake()
            except RuntimeError:
                pass  # the loop is closed, and the feeder lost with it

    # -- feeding --------------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._source is not None
        func, iterable, spawn, zipped = self._source
        self._source = None  # what that refers to may end with the feeder
        on_end = self._on_end
        place = 0
        try:
            for item in iterable:
                if self._bounded:
                    self._take_credit()
                job = spawn(func, *item) if zipped else spawn(func, item)
                also(job, on_end, place)
                self._outstanding += 1
                place += 1
        except BaseException as error:
            self._end_feeding(place, error)
            raise
        self._end_feeding(place)

    def _end_feeding(self, place: int, error: BaseException | None = None) -> None:
        self._feeding = False
        if error is not None:
            self._file_error(place, error)
        self._readers.tell()

    def _on_feeder_end(self, _feeder: object) -> None:
        # in the hub
        if self._feeding:  # it never began
            self._source = None
            self._end_feeding(0, self.value if self.exception is None else self.exception)


class IMap(IMapUnordered[R]):
    """Iterator over the results of jobs, in the order of the input.

    Otherwise as :class:`IMapUnordered`. Results that are finished before their turn are kept.
    """

    #: the place whose result is to be returned next
    index = 0

    def _cabinet(self) -> Any:
        return {}

    def _readable(self) -> bool:
        return self.index in self._filed

    def _file_error(self, place: int, error: BaseException) -> None:
        self._filed[place] = _Raised(error)

    def _on_end(self, place: int, job: Any) -> None:
        # in the hub
        self._outstanding -= 1
        self._filed[place] = job.value if job.successful() else _Raised(job.exception, job)
        if place == self.index:  # else it is nobody's turn
            self._readers.tell()

    def __next__(self) -> R:
        """The next result in the order of the input. Blocks the greenlet."""
        if self._bounded:
            self._add_credit()
        outcome = self._filed.pop(self.index, _NONE)
        if outcome is _NONE:
            self._await_outcome()
            outcome = self._filed.pop(self.index)
        self.index += 1
        if type(outcome) is _Raised:
            outcome.again()
        return outcome  # type: ignore[no-any-return]


class Abandonable(Generic[R]):
    """Stands for a bounded iterator, and lets its feeder end when the last reference to it goes.

    Everything but reading is left to the iterator: it has its attributes, compares and hashes like it, and
    passes for it with ``isinstance``.
    """

    def __init__(self, iterator: IMapUnordered[R]) -> None:
        self._iterator = iterator

    def __del__(self) -> None:
        self._iterator._abandon()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        return self._iterator.__next__()

    def next(self) -> R:
        """The same as ``next(self)``."""
        return self._iterator.__next__()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._iterator.__class__

    def __getattr__(self, name: str) -> Any:
        if name == "_iterator":  # not set: __init__ has failed, or a copy is being made
            raise AttributeError(name)
        return getattr(self._iterator, name)

    def __repr__(self) -> str:
        return repr(self._iterator)

    def __bool__(self) -> bool:
        return bool(self._iterator)

    def __eq__(self, other: object) -> bool:
        return self._iterator == (other._iterator if type(other) is Abandonable else other)

    def __hash__(self) -> int:
        return hash(self._iterator)

    def __enter__(self) -> Self:
        self._iterator.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> Any:
        return self._iterator.__exit__(*exc_info)

    def __await__(self) -> Generator[Any, None, None]:
        return self._iterator.__await__()
