"""Turning blocking functions into asynchronous ones and the reverse."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from ._aio.awaiting import await_
from ._calling import Blocked, call, end_of

__all__ = ["async_context", "async_iter", "async_to_sync", "sync_to_async"]

P = ParamSpec("P")
T = TypeVar("T")

_END: Any = object()


def sync_to_async(func: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make an async function of a blocking one: each call runs in a greenlet, in a copy of the context.

    It begins at once; if it does not block, the coroutine has its result without having been suspended.
    Its exceptions go to who awaits it and are not printed. Cancelling the task that awaits raises
    CancelledError where the function blocks. TypeError for a coroutine function: that needs no greenlet.
    """
    if not callable(func):
        raise TypeError(
            f"sync_to_async() takes a function, not {func!r}; "
            "write sync_to_async(f)(x), not sync_to_async(f(x))"
        )
    if inspect.iscoroutinefunction(func):
        raise TypeError(
            f"sync_to_async() takes a blocking function; {func!r} is asynchronous already: await it"
        )

    @functools.wraps(func)
    async def in_greenlet(*args: P.args, **kwargs: P.kwargs) -> T:
        result = call(func, args, kwargs)
        return result if type(result) is not Blocked else await end_of(result)  # type: ignore[no-any-return]

    return in_greenlet


def async_to_sync(func: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Make a blocking function of an async one, for greenlets: a call waits with ``await_``.

    ``func`` may also be a plain function that returns an awaitable; it is called where a loop is running.
    TypeError if it can't be called.
    """
    if not callable(func):
        raise TypeError(
            f"async_to_sync() takes a function, not {func!r}; to await an object write await_({func!r})"
        )

    asynchronous = inspect.iscoroutinefunction(func)

    @functools.wraps(func)
    def in_coroutine(*args: P.args, **kwargs: P.kwargs) -> T:
        return await_(func(*args, **kwargs) if asynchronous else _call(func, *args, **kwargs))

    return in_coroutine


async def _call(func: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    return await func(*args, **kwargs)


class async_context(AbstractContextManager[T]):
    """``with async_context(acm) as x:`` in a greenlet, for what would be ``async with acm as x:``.

    Many managers want a running loop when they are made. Those are given as a function and its arguments:
    ``with async_context(aiohttp.ClientSession, timeout=limit) as session:``

    Entering and leaving block the greenlet. TypeError if it is no async context manager.
    """

    @overload
    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None: ...
    @overload
    def __init__(
        self, manager: Callable[P, AbstractAsyncContextManager[T]], *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    def __init__(self, manager: Any, *args: Any, **kwargs: Any) -> None:
        if not _is_manager(manager) and not callable(manager):
            raise TypeError(f"async_context() takes an async context manager, not {manager!r}")
        if (args or kwargs) and _is_manager(manager):
            raise TypeError(
                f"async_context({manager!r}, ...): arguments are for a function that makes a manager"
            )
        self.manager = manager
        self._args = args
        self._kwargs = kwargs

    def __enter__(self) -> T:
        return await_(self._enter())  # type: ignore[no-any-return]

    async def _enter(self) -> Any:
        if not _is_manager(self.manager):
            made = self.manager(*self._args, **self._kwargs)
            if not _is_manager(made):
                if inspect.iscoroutine(made):
                    made.close()
                raise TypeError(f"async_context(): {self.manager!r} made {made!r}, no async context manager")
            self.manager = made
        return await self.manager.__aenter__()

    def __exit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        return await_(self.manager.__aexit__(typ, value, tb))  # type: ignore[no-any-return]


def _is_manager(manager: object) -> bool:
    return hasattr(type(manager), "__aenter__") and hasattr(type(manager), "__aexit__")


def async_iter(iterable: AsyncIterable[T]) -> Iterator[T]:
    """``for x in async_iter(aiterable):`` in a greenlet, for what would be ``async for x in aiterable:``.

    Each step blocks the greenlet. An async generator is closed when the loop is left early, as soon as the
    iterator is. TypeError if it cannot be iterated asynchronously.
    """
    if not hasattr(type(iterable), "__aiter__"):
        raise TypeError(f"async_iter() takes an asynchronous iterable, not {iterable!r}")
    return _async_iter(iterable)


async def _next(iterator: Any) -> Any:
    return await anext(iterator, _END)


def _async_iter(iterable: AsyncIterable[T]) -> Iterator[T]:
    iterator = aiter(iterable)
    try:
        while (item := await_(_next(iterator))) is not _END:
            yield item
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await_(close())
