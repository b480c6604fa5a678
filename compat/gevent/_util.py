"""Small tools that libraries import from this private module of gevent."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

__all__ = ["Lazy", "LazyOnClass", "gmctime", "readproperty"]

T = TypeVar("T")


class readproperty(Generic[T]):
    """A property without a setter function: assigning to it gives the instance a value of its own.

    The function is called at each access until then.
    """

    def __init__(self, func: Callable[[Any], T]) -> None:
        self.func = func
        self.__doc__ = func.__doc__

    @overload
    def __get__(self, inst: None, owner: type) -> readproperty[T]: ...

    @overload
    def __get__(self, inst: object, owner: type) -> T: ...

    def __get__(self, inst: object, owner: type) -> T | readproperty[T]:
        return self if inst is None else self.func(inst)


class Lazy(cached_property[T]):
    """A property that is computed at the first access and then kept in the instance's ``__dict__``."""


class LazyOnClass(readproperty[T]):
    """A property that is computed at the first access by any instance and then kept in the class."""

    def __init__(self, func: Callable[[Any], T], name: str | None = None) -> None:
        super().__init__(func)
        self.name = name or func.__name__

    def __get__(self, inst: Any, owner: type) -> Any:
        if inst is None:
            return self
        value = self.func(inst)
        setattr(owner, self.name, value)
        return value


def gmctime() -> str:
    """Return the time now as text, in UTC: ``2026-11-23T04:31:00Z`` (RFC 3339)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
