"""Greenlet-local objects.

The twin of ``threading.local`` for greenlets: every greenlet sees its own attributes of a `local`, and
what it stored there is dropped when it ends. Coroutines that run in the hub share the hub's values, as
code of one thread shares those of a ``threading.local``.

How it is built, because the obvious ways are either slow or wrong:

- Each local holds ``{key: values}`` and each greenlet carries its key as an attribute. The key is an
  object of its own, not the greenlet, so that a local never keeps a greenlet alive; and looking values
  up by the running greenlet's key, instead of swapping the instance's dictionary when the greenlet
  changes, means that threads which use one local at once cannot see each other's values.
- The values live with the local, so a cycle through a value back to its local is collected. A `_Home`
  in the greenlet's own dictionary removes them when the greenlet is freed, whatever kind of greenlet it
  is; those that have ``rawlink`` also tell when they end.
- A plain ``local()`` is an instance of a hidden subclass whose ``__getattribute__`` and ``__setattr__``
  are *slots*: they hold functions that belong to the one instance and have its dictionary in a closure.
  That saves reading the instance's state at each access, a third of the whole cost.
"""

from __future__ import annotations

from _thread import _local as _thread_local
from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary, ref

from greenlet import getcurrent as _getcurrent

from ._core.waiting import Link

__all__ = ["local"]

# Typed loosely once, here: the attributes we hang on greenlets are not in greenlet's type stubs.
_current: Callable[[], Any] = _getcurrent

_Values = dict[str, Any]

_serial = count()


class _State:
    """What one local has in every greenlet: its values by greenlet key, and the arguments of __init__."""

    __slots__ = ("__weakref__", "args", "data_names", "dicts", "kwargs", "owner")

    def __init__(self, owner: local, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.owner = ref(owner)
        self.args = args
        self.kwargs = kwargs
        self.data_names = _data_names(type(owner))
        self.dicts: dict[str, _Values] = {}


class _StateRef(ref[_State]):
    """A weak reference to a local's state that knows, weakly, the home it is kept in."""

    __slots__ = ("home",)
    home: ref[_Home]


class _Home(Link):
    """The locals that one greenlet has values in; owned by the greenlet's dictionary and freed with it.

    It is also the link by which a greenlet that has ``rawlink`` tells of its end.
    """

    __slots__ = ("__weakref__", "greenlet", "key", "linked", "states")

    def __init__(self, greenlet: Any) -> None:
        self.greenlet = ref(greenlet)
        # A string, since a dictionary with no other keys is the fastest to look things up in; a fresh one
        # each time, since an id or the greenlet itself would be confused with, or kept alive after, its end.
        self.key = f"greenlet {next(_serial)}"
        self.linked = False
        # In order of first use, which is the order all_local_dicts_for_greenlet lists them in.
        self.states: dict[_StateRef, None] = {}

    def add(self, state: _State, greenlet: Any) -> _Values:
        values = state.dicts[self.key] = {}
        state_ref = _StateRef(state, _state_gone)
        state_ref.home = ref(self)
        self.states[state_ref] = None
        # One that has ended and still runs something keeps what it stores now until it is freed.
        if not self.linked and hasattr(greenlet, "rawlink") and not greenlet.ready():
            self.linked = True
            greenlet.rawlink(self)
        return values

    def notify(self, source: object) -> None:
        self.linked = False
        self._drop()

    # What a greenlet that knows nothing of `Link` does with it.
    __call__ = notify

    def _drop(self) -> None:
        states, self.states = self.states, {}
        for state_ref in states:
            state = state_ref()
            if state is not None:
                state.dicts.pop(self.key, None)

    def __del__(self) -> None:
        self._drop()


def _state_gone(state_ref: _StateRef) -> None:
    # A long-lived greenlet that makes many short-lived locals must not collect their remains.
    home = state_ref.home()
    if home is None:
        return
    home.states.pop(state_ref, None)
    if home.states or not home.linked:
        return
    greenlet = home.greenlet()
    try:
        current = _current()
    except RuntimeError:  # the interpreter is going down
        return
    # From elsewhere (another thread freed the local) the link stays: it does no harm, and the list of
    # links belongs to the greenlet's thread.
    if greenlet is current:
        home.linked = False
        greenlet.unlink(home)


class _ThreadEnd:
    """Drops a home's values when the thread ends that holds this.

    The main greenlet of a thread is freed some time after; values should be gone once ``join()`` returns.
    """

    __slots__ = ("home",)

    def __init__(self, home: _Home) -> None:
        self.home = home

    def __del__(self) -> None:
        self.home._drop()


_of_thread = _thread_local()


def _home_of(greenlet: Any) -> _Home:
    namespace = greenlet.__dict__
    home: _Home | None = namespace.get("_bridge_local_home")
    if home is None:
        home = namespace["_bridge_local_home"] = _Home(greenlet)
        namespace["_bridge_local"] = home.key
        if greenlet.parent is None:
            _of_thread.end = _ThreadEnd(home)
    return home


_data_names_of: WeakKeyDictionary[type, set[str]] = WeakKeyDictionary()


def _data_names(cls: type) -> set[str]:
    """The names of the data descriptors (slots, properties …) of *cls*: these come before the values."""
    names = _data_names_of.get(cls)
    if names is None:
        names = {name for base in cls.__mro__ for name in vars(base) if _is_data_descriptor(cls, name)}
        # Not in the class when a subclass defines __slots__, and never to be stored as a value.
        names.add("__dict__")
        _data_names_of[cls] = names
    return names


def _is_data_descriptor(cls: type, name: str) -> bool:
    for base in cls.__mro__:
        namespace = vars(base)
        if name in namespace:
            kind = type(namespace[name])
            return hasattr(kind, "__set__") or hasattr(kind, "__delete__")
    return False


def _values_of(obj: local) -> _Values:
    """The current greenlet's values of *obj*; calls ``__init__`` if this greenlet has none yet."""
    state = _state_of(obj)
    greenlet = _current()
    home = _home_of(greenlet)
    values = state.dicts.get(home.key)
    if values is None:
        values = home.add(state, greenlet)
        init: Any = type(obj).__init__
        if init is not object.__init__:
            try:
                init(obj, *state.args, **state.kwargs)
            except BaseException:
                # As threading.local does: the next use tries again rather than find half an object.
                state.dicts.pop(home.key, None)
                raise
    return values


def _no_attribute(obj: local, name: str) -> AttributeError:
    return AttributeError(f"{type(obj).__name__!r} object has no attribute {name!r}", name=name, obj=obj)


def _read_only(obj: local, name: str) -> AttributeError:
    text = f"{type(obj).__name__!r} object attribute {name!r} is read-only"
    return AttributeError(text, name=name, obj=obj)


class local:
    """An object whose attributes each greenlet has for itself.

    ``local()`` takes no arguments; a subclass that defines ``__init__`` takes whatever that does, and
    ``__init__`` is called again, with the same arguments, the first time each further greenlet uses the
    object. Class attributes, properties, methods and ``__slots__`` of a subclass are shared by all
    greenlets; ``__dict__`` is the current greenlet's own dictionary and cannot be replaced.
    ``copy.copy()`` makes a new local of the same class with the current greenlet's values.

    A greenlet's values are dropped when the greenlet ends (a raw greenlet: when it is freed) or when the
    local is freed, whichever comes first. Raises `TypeError` for arguments that no ``__init__`` takes.
    Never blocks by itself; may be used from any greenlet, thread or coroutine.
    """

    __slots__ = ("__weakref__", "_local__state")
    _local__state: _State

    def __new__(cls, /, *args: Any, **kwargs: Any) -> local:
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError(
                f"Initialization arguments are not supported: {cls.__name__}() got "
                f"{args!r} {kwargs!r}; define __init__ in a subclass to take them"
            )
        real_cls = _PlainLocal if cls is local else cls
        self = object.__new__(real_cls)
        state = _State(self, args, kwargs)
        _set_state(self, state)
        # Not isinstance(): that reads self.__class__, a first use, which would call __init__.
        if issubclass(real_cls, _PlainLocal):
            _install_access(self, state)
        greenlet = _current()
        # Registered before the interpreter calls __init__, which may already use the attributes.
        _home_of(greenlet).add(state, greenlet)
        return self

    def __getattribute__(self, name: str) -> Any:
        state = _state_of(self)
        try:
            values = state.dicts[_current()._bridge_local]
        except (KeyError, AttributeError):
            values = _values_of(self)
        if name in state.data_names:
            return values if name == "__dict__" else object.__getattribute__(self, name)
        if name in values:
            return values[name]
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        state = _state_of(self)
        try:
            values = state.dicts[_current()._bridge_local]
        except (KeyError, AttributeError):
            values = _values_of(self)
        if name in state.data_names or (name not in values and _learn_data_name(self, name)):
            if name == "__dict__":
                raise _read_only(self, name)
            object.__setattr__(self, name, value)
        else:
            values[name] = value

    def __delattr__(self, name: str) -> None:
        values = _values_of(self)
        if name in _state_of(self).data_names or (name not in values and _learn_data_name(self, name)):
            if name == "__dict__":
                raise _read_only(self, name)
            object.__delattr__(self, name)
        elif name in values:
            del values[name]
        else:
            raise _no_attribute(self, name)

    def __copy__(self) -> local:
        """A new local of the same class: ``__init__`` is called, then it gets this greenlet's values."""
        values = dict(_values_of(self))
        state = _state_of(self)
        duplicate = type(self)(*state.args, **state.kwargs)
        copied = _values_of(duplicate)
        copied.clear()
        copied.update(values)
        return duplicate

    def __getstate__(self) -> object:
        # The default would pickle, and deep-copy, what belongs to this process and this object.
        raise TypeError(f"cannot pickle {type(self).__name__!r} object: its values belong to greenlets")


_state_of: Callable[[local], _State] = local.__dict__["_local__state"].__get__
_set_state: Callable[[local, _State], None] = local.__dict__["_local__state"].__set__


def _learn_data_name(obj: local, name: str) -> bool:
    # The class may have got a property after its names were collected; ask it before the first store.
    if not _is_data_descriptor(type(obj), name):
        return False
    _state_of(obj).data_names.add(name)
    return True


class _PlainLocal(local):
    """What ``local()`` is really an instance of; it passes for `local` in every way but ``type(x)``.

    The two slots shadow the methods of the base class, so that CPython, looking for
    ``type(x).__getattribute__``, finds a descriptor which gives the function kept in this instance.
    """

    __slots__ = ("__getattribute__", "__setattr__")

    @property  # type: ignore[misc]
    def __class__(self) -> type[local]:  # type: ignore[override]
        return local


_PlainLocal.__name__ = local.__name__
_PlainLocal.__qualname__ = local.__qualname__
_PlainLocal.__doc__ = local.__doc__

_set_getter = _PlainLocal.__dict__["__getattribute__"].__set__
_set_setter = _PlainLocal.__dict__["__setattr__"].__set__


def _alive(owner: ref[local]) -> local:
    obj = owner()
    if obj is None:
        raise ReferenceError("the local whose accessor is called no longer exists")
    return obj


def _install_access(obj: local, state: _State) -> None:
    # The functions hold the object weakly: it would be part of a cycle otherwise.
    owner, dicts, current = state.owner, state.dicts, _current

    def get(name: str) -> Any:
        try:
            values = dicts[current()._bridge_local]
        except (KeyError, AttributeError):
            return local.__getattribute__(_alive(owner), name)
        try:
            return values[name]
        except KeyError:
            pass
        return values if name == "__dict__" else local.__getattribute__(_alive(owner), name)

    def set_(name: str, value: Any) -> None:
        if name in {"__class__", "__dict__"}:
            local.__setattr__(_alive(owner), name, value)
            return
        try:
            dicts[current()._bridge_local][name] = value
        except (KeyError, AttributeError):
            _values_of(_alive(owner))[name] = value

    def get_as_subclass(name: str) -> Any:
        return local.__getattribute__(_alive(owner), name)

    def set_as_subclass(name: str, value: Any) -> None:
        local.__setattr__(_alive(owner), name, value)

    # A plain local has no data descriptor that a program could want to reach past a value of the same
    # name, so values come first. Not so in a class that was derived from type(local()).
    plain = type(obj) is _PlainLocal
    _set_getter(obj, get if plain else get_as_subclass)
    _set_setter(obj, set_ if plain else set_as_subclass)


def all_local_dicts_for_greenlet(greenlet: Any) -> list[tuple[tuple[type[local], int], dict[str, Any]]]:
    """What *greenlet* has stored in locals: a list of ``((class, id of the local), values)``.

    For debugging, in the order of first use. The dictionaries are the live ones. Does not block; may be
    called from any greenlet and thread.
    """
    home: _Home | None = getattr(greenlet, "_bridge_local_home", None)
    found: list[tuple[tuple[type[local], int], dict[str, Any]]] = []
    for state_ref in list(home.states) if home is not None else ():
        state = state_ref()
        obj = state.owner() if state is not None else None
        if home is None or state is None or obj is None:
            continue
        values = state.dicts.get(home.key)
        if values is not None:
            cls = type(obj)
            found.append(((local if cls is _PlainLocal else cls, id(obj)), values))
    return found
