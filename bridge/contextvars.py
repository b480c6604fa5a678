"""Context variables that belong to greenlets alone; twin of :mod:`gevent.contextvars`.

The standard library's :mod:`contextvars` works with greenlets: each has a context of its own. This module
has the same interface (:pep:`567`), but its contexts know nothing of asyncio's tasks and are strictly local
to a greenlet: a new greenlet starts with an empty one, and all coroutines share that of the hub. Write new
programs with the standard library's. Nothing is patched with this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, final

from .local import local

__all__ = ["Context", "ContextVar", "Token", "copy_context"]
__implements__ = ["ContextVar", "Context", "copy_context", "Token"]

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")


class _Missing:
    def __repr__(self) -> str:
        return "<Token.MISSING>"


_MISSING: Any = _Missing()


class _Current(local):
    """The context that is current in this greenlet; made when it is needed."""

    context: Context | None = None


_current = _Current()


def _get_context() -> Context:
    context = _current.context
    if context is None:
        context = _current.context = Context()
    return context


def copy_context() -> Context:
    """A copy of the current context of this greenlet. Does not block."""
    return _get_context().copy()


@final
class Context(Mapping["ContextVar[Any]", Any]):
    """Values of context variables. Can be entered (:meth:`run`) by one caller at a time."""

    def __init__(self) -> None:
        #: Never changed, only replaced: copies share it.
        self._values: dict[ContextVar[Any], Any] = {}
        self._entered = False
        self._outer: Context | None = None

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'Context' is not an acceptable base type")

    def run(self, callable: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``callable(*args, **kwargs)`` in this context, and return what it returns.

        RuntimeError if the context is entered already. Blocks if the function does.
        """
        if self._entered:
            raise RuntimeError(f"cannot enter context: {self} is already entered")
        self._outer = _get_context()
        self._entered = True
        _current.context = self
        try:
            return callable(*args, **kwargs)
        finally:
            _current.context = self._outer
            self._outer = None
            self._entered = False

    def copy(self) -> Context:
        """A copy that shares nothing that can change."""
        new = Context()
        new._values = self._values
        return new

    def __getitem__(self, var: ContextVar[T]) -> T:
        value: T = self._values[_check(var)]
        return value

    def __contains__(self, var: object) -> bool:
        return _check(var) in self._values

    def __iter__(self) -> Iterator[ContextVar[Any]]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _check(var: Any) -> ContextVar[Any]:
    if not isinstance(var, ContextVar):
        raise TypeError(f"a ContextVar key was expected, got {var!r}")
    return var


@final
class ContextVar(Generic[T]):
    """A variable with a value in each context.

    :param name: for introspection.
    :param default: what :meth:`get` gives where it has no value.
    """

    __slots__ = ("_default", "_name")

    def __init__(self, name: str, *, default: Any = _MISSING) -> None:
        if not isinstance(name, str):
            raise TypeError("context variable name must be a str")
        self._name = name
        self._default = default

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'ContextVar' is not an acceptable base type")

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    def get(self, default: Any = _MISSING, /) -> Any:
        """The value in the current context; else *default*, else the variable's; LookupError without one."""
        value = _get_context()._values.get(self, _MISSING)
        if value is not _MISSING:
            return value
        if default is not _MISSING:
            return default
        if self._default is not _MISSING:
            return self._default
        raise LookupError(self)

    def set(self, value: T, /) -> Token[T]:
        """Set the value in the current context. Returns what :meth:`reset` takes."""
        context = _get_context()
        token = Token(context, self, context._values.get(self, _MISSING), _made_here)
        context._values = {**context._values, self: value}
        return token

    def reset(self, token: Token[T], /) -> None:
        """Put back what was there before the :meth:`set` that gave *token*.

        RuntimeError if that has been done; ValueError in another context, or for another variable.
        """
        if not isinstance(token, Token):
            raise TypeError(f"expected an instance of Token, got {token!r}")
        if token._used:
            raise RuntimeError(f"{token!r} has already been used once")
        if token._var is not self:
            raise ValueError(f"{token!r} was created by a different ContextVar")
        context = _get_context()
        if token._context is not context:
            raise ValueError(f"{token!r} was created in a different Context")
        values = dict(context._values)
        if token._old_value is _MISSING:
            values.pop(self, None)
        else:
            values[self] = token._old_value
        context._values = values
        token._used = True

    def __repr__(self) -> str:
        default = "" if self._default is _MISSING else f" default={self._default!r}"
        return f"<ContextVar name={self._name!r}{default} at {id(self):#x}>"


_made_here = object()


@final
class Token(Generic[T]):
    """What :meth:`ContextVar.set` gives, for :meth:`ContextVar.reset`. As a context manager it resets."""

    __slots__ = ("_context", "_old_value", "_used", "_var")

    #: What `old_value` is if there was none.
    MISSING: ClassVar[Any] = _MISSING

    def __init__(
        self,
        context: Context | None = None,
        var: ContextVar[T] | None = None,
        old_value: Any = _MISSING,
        key: object = None,
    ) -> None:
        if key is not _made_here or context is None or var is None:
            raise RuntimeError("Tokens can only be created by ContextVars")
        self._context = context
        self._var = var
        self._old_value = old_value
        self._used = False

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'Token' is not an acceptable base type")

    @property
    def var(self) -> ContextVar[T]:
        """The variable that was set."""
        return self._var

    @property
    def old_value(self) -> Any:
        """Its value before; `MISSING` if it had none."""
        return self._old_value

    def __enter__(self) -> Token[T]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._var.reset(self)

    def __repr__(self) -> str:
        used = " used" if self._used else ""
        return f"<Token{used} var={self._var!r} at {id(self):#x}>"
