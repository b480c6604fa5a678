"""The iterators behind ``imap`` and ``imap_unordered``.

Theory of operation
===================

An iterator is a greenlet, the *feeder*: it takes items from the input, one at a time, and starts a job for
each with the ``spawn`` of the pool, which blocks while the pool is full. So the input is consumed as
lazily as the pool demands. Each job has a link by which its result is filed when it has ended, and
``next()`` takes results from there.

*Credits* are what ``maxsize`` limits. A job costs one, ``next()`` brings one as soon as it is called (who
stands there with open hands lets nothing pile up), and takes it back if it is interrupted. The count
may therefore be negative for a while. Invariant: jobs started = maxsize + calls of ``next()`` that were
not interrupted - credits.

*The line of readers* follows the rule "told, not given" of :mod:`bridge._core.waiting`: a result that
arrives tells the head of the line, the head takes the result when it runs, so a reader that is killed
in between loses nothing.

*The end.* Nothing more comes when the feeder has ended (``_feeding`` is false) and no job is outstanding.
An error of the input is filed like a result: in its place in order, or at once in arbitrary order.

*Abandoned iterators.* A feeder that waits for credits is referred to by its own frames, which the garbage
collector does not look into: it would stay for ever if its iterator were dropped half read. So the
methods of pools hand out an :class:`Abandonable` in place of a bounded iterator, which the feeder does
not know; when that goes, no credit can come any more, and the feeder ends where it waits for one. An
unbounded feeder goes on to the end of its input, read or not, as in gevent.

The way not taken is a queue with a mark for the end: a mark is consumed by one reader and one call, so
the second reader, and the second call after the end, would wait for ever.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from operator import index as as_index
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from greenlet import GreenletExit

from ._core.callbacks import Callback
from ._core.hub import get_hub
from ._core.waiting import Link, Wait, WaitLine
from .greenlet import Greenlet

if TYPE_CHECKING:
    from collections.abc import Sized

__all__ = ["IMap", "IMapUnordered"]

R = TypeVar("R")


class Failure:
    """What stands in the place of a result when a job, or the input, raised.

    ``exc`` is the exception; ``raise_exception``, if not None, a function that raises it with its
    traceback.
    """

    __slots__ = ("exc", "raise_exception")

    def __init__(self, exc: BaseException, raise_exception: Callable[[], object] | None = None) -> None:
        self.exc = exc
        self.raise_exception = raise_exception

    def throw(self) -> NoReturn:
        """Raise the exception."""
        if self.raise_exception is not None:
            self.raise_exception()
        raise self.exc


def _outcome(job: Any) -> Any:
    """The value of a finished job that is no greenlet (a result of a thread pool), or its Failure."""
    if job.successful():
        return job.value
    return Failure(job.exception, job.get)


def _as_maxsize(maxsize: object) -> int | None:
    """``maxsize`` as a positive number, None for no limit."""
    if not maxsize:
        return None
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


class BatchLink(Link):
    """Has the hub call ``receive(source)`` for each greenlet that ends, one callback for many of them.

    Those that end one after another share the callback that is last in the ready queue. So each is received
    where a callback of its own would have been: in which order greenlets start, and results come,
    depends on that, and is that of gevent. (Acting when told would be cheaper still, and wrong in this.)
    """

    __slots__ = ("receive",)

    def __init__(self, receive: Callable[[Any], object]) -> None:
        self.receive = receive

    def notify(self, source: Any) -> None:
        try:
            engine = source.parent.loop
        except AttributeError:  # no child of the hub: a program may set parents
            engine = get_hub().loop
        if engine.thread_ident != get_ident():  # killed by another thread before it began
            engine.append_threadsafe(Callback(_deliver, ([(self.receive, source)],)))
            return
        ready = engine.ready
        if ready and type(last := ready[-1]) is Callback and last.callback is _deliver and last.args:
            last.args[0].append((self.receive, source))
        else:
            engine.call(_deliver, [(self.receive, source)])

    __call__ = notify  # for what has a rawlink() of its own kind


def _deliver(ended: list[tuple[Callable[[Any], object], Any]]) -> None:
    """In the hub."""
    for receive, source in ended:
        try:
            receive(source)
        except BaseException:
            get_hub().handle_error((receive, source), *sys.exc_info())


class IMapUnordered(Greenlet[None], Generic[R]):
    """Iterator over the results of jobs, in the order in which they finish.

    It is the greenlet that starts the jobs, itself to be started with ``spawn``, as in
    ``IMapUnordered.spawn(func, iterable, spawn=pool.spawn)``.

    ``func`` is called with each item of ``iterable`` (with ``*item`` if ``_zipped``) by way of
    ``spawn(func, item)``, whose result has ``rawlink``, ``successful``, ``value`` and ``exception``. With a
    ``maxsize`` other than None and 0, no more than that many finished results accumulate: further jobs
    are started as results are taken.

    ``next()`` blocks the greenlet until a result is there. It raises what a job raised, and may then be
    called again; what the input raised; ``GreenletExit`` if the iterator was killed; and StopIteration
    after the last result. Several greenlets of one thread may read from one iterator. An interrupted
    ``next()`` loses no result.

    Raises ValueError for a negative and TypeError for a non-integer ``maxsize``.
    """

    _results: Any  # a deque here, a dict in IMap

    def __init__(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        spawn: Callable[..., Any],
        maxsize: int | None = None,
        _zipped: bool = False,
    ) -> None:
        limit = _as_maxsize(maxsize)
        super().__init__()
        self._func: Callable[..., R] | None = func
        self._iterable: Iterable[Any] | None = iterable
        self._spawn_job: Callable[..., Any] | None = spawn
        self._zipped = _zipped
        self._bounded = limit is not None
        self._credits = limit or 0
        self._credit_wait: Wait | None = None
        self._abandoned = False
        self._readers = WaitLine()
        self._outstanding = 0
        self._feeding = True
        self._results = self._make_results()
        # killed before it has begun, the feeder never gets to _run
        self.rawlink(self._on_feeder_end)

    def _make_results(self) -> Any:
        return deque()

    @property
    def queue(self) -> Sized:
        """The finished results that nobody has taken yet."""
        return self._results  # type: ignore[no-any-return]

    # -- reading --------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R:
        """The next result. Blocks the greenlet."""
        if self._bounded:
            self._add_credit()
        results = self._results
        if not results:
            self._await_result()
        result = results.popleft()
        if type(result) is Failure:
            result.throw()
        return result  # type: ignore[no-any-return]

    def next(self) -> R:
        """The same as ``next(self)``."""
        return self.__next__()

    def _available(self) -> bool:
        return bool(self._results)

    def _await_result(self) -> None:
        """Block until a result can be taken; StopIteration if there will be none."""
        line = self._readers
        enter = line.append
        try:
            while not self._available():
                if not self._feeding and self._outstanding <= 0:
                    raise StopIteration
                wait = Wait()
                enter(wait)
                try:
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

    # -- feeding --------------------------------------------------------------------------------

    def _add_credit(self) -> None:
        self._credits += 1
        wait = self._credit_wait
        if wait is not None and self._credits > 0:
            wait.wake()

    def _take_credit(self) -> None:
        while self._credits <= 0:
            if self._abandoned:
                raise GreenletExit
            self._credit_wait = wait = Wait()
            try:
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

    def _run(self) -> None:
        func, iterable, spawn = self._func, self._iterable, self._spawn_job
        assert func is not None and iterable is not None and spawn is not None
        self._func = self._iterable = self._spawn_job = None  # what they refer to may end with the feeder
        try:
            self._feed(func, iterable, spawn)
        except BaseException as exc:
            self._end_feeding(exc)
            raise
        self._end_feeding(None)

    def _feed(self, func: Callable[..., R], iterable: Iterable[Any], spawn: Callable[..., Any]) -> None:
        """Start a job for each item. Blocks for want of credits and where ``spawn`` does."""
        zipped, bounded = self._zipped, self._bounded
        link = BatchLink(self._on_result)
        for item in iterable:
            if bounded:
                self._take_credit()
            job = spawn(func, *item) if zipped else spawn(func, item)
            rawlink = job.rawlink
            self._outstanding += 1
            # what is no greenlet may be set by another thread: have the hub of this one call back
            rawlink(link if isinstance(job, Greenlet) else self._on_other_result)

    def _on_result(self, job: Greenlet[Any]) -> None:
        # in the hub
        self._outstanding -= 1
        exception = job._exception
        self._results.append(job.value if exception is None else Failure(exception, job.get))
        if (line := self._readers) and (not line[0].woken or not self._outstanding):
            self._tell_readers()

    def _on_other_result(self, job: Any) -> None:
        # in the hub
        self._outstanding -= 1
        self._results.append(_outcome(job))
        self._tell_readers()

    def _tell_readers(self) -> None:
        if self._outstanding > 0 or self._feeding:
            self._readers.tell()
        else:
            self._readers.wake_all()

    def _file_error(self, failure: Failure) -> None:
        self._results.append(failure)

    def _end_feeding(self, error: BaseException | None) -> None:
        self._feeding = False
        if error is not None:
            self._file_error(Failure(error))
        self._tell_readers()

    def _on_feeder_end(self, _feeder: object) -> None:
        # in the hub
        if self._feeding:
            self._func = self._spawn_job = self._iterable = None
            value: Any = self.value  # the GreenletExit that killed it
            self._end_feeding(value if self.exception is None else self.exception)


class IMap(IMapUnordered[R]):
    """Iterator over the results of jobs, in the order of the input.

    Otherwise as :class:`IMapUnordered`. Results that are finished before their turn are kept.
    """

    def __init__(
        self,
        func: Callable[..., R],
        iterable: Iterable[Any],
        spawn: Callable[..., Any],
        maxsize: int | None = None,
        _zipped: bool = False,
    ) -> None:
        self._started = 0  # jobs started so far
        self._indices: dict[Any, int] = {}  # of the greenlets among the outstanding jobs
        self.index = 0  # of the result to return next
        super().__init__(func, iterable, spawn, maxsize, _zipped)

    def _make_results(self) -> Any:
        return {}

    def __next__(self) -> R:
        """The next result in the order of the input. Blocks the greenlet."""
        if self._bounded:
            self._add_credit()
        results = self._results
        if self.index not in results:
            self._await_result()
        result = results.pop(self.index)
        self.index += 1
        if type(result) is Failure:
            result.throw()
        return result  # type: ignore[no-any-return]

    def _available(self) -> bool:
        return self.index in self._results

    def _feed(self, func: Callable[..., R], iterable: Iterable[Any], spawn: Callable[..., Any]) -> None:
        zipped, bounded, indices = self._zipped, self._bounded, self._indices
        link = BatchLink(self._on_result)
        for item in iterable:
            if bounded:
                self._take_credit()
            job = spawn(func, *item) if zipped else spawn(func, item)
            rawlink = job.rawlink
            index = self._started
            self._started = index + 1
            self._outstanding += 1
            if isinstance(job, Greenlet):
                indices[job] = index
                rawlink(link)
            else:
                rawlink(partial(self._on_indexed_result, index))

    def _on_result(self, job: Greenlet[Any]) -> None:
        # in the hub
        self._outstanding -= 1
        exception = job._exception
        index = self._indices.pop(job)
        self._results[index] = job.value if exception is None else Failure(exception, job.get)
        if self._readers and (index == self.index or not self._outstanding):
            self._tell_readers()

    def _on_indexed_result(self, index: int, job: Any) -> None:
        # in the hub
        self._outstanding -= 1
        self._results[index] = _outcome(job)
        self._tell_readers()

    def _file_error(self, failure: Failure) -> None:
        self._results[self._started] = failure


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
