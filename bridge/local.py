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
- Only the first use of a local in a greenlet, and whatever ends, is dealt with here. Looking attributes up
  is all in `LocalBase`, which has a compiled twin in *bridge/_core/_local.c*; the one here is used where that
  is not built.
"""

from __future__ import annotations

from _thread import _local as _thread_local
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from greenlet import getcurrent as _getcurrent

from ._core.accelerated import accelerator
from ._core.waiting import Link

__all__ = ["local"]

# Typed loosely once, here: the attributes we hang on greenlets are not in greenlet's type stubs.
_current: Callable[[], Any] = _getcurrent

_Values = dict[str, Any]

_serial = count()


class _State:
    """What one local has in every greenlet: its values by greenlet key, and the arguments of __init__."""

    __slots__ = ("__weakref__", "args", "data_names", "dicts", "kwargs", "owner")
    data_names: dict[str, bool]  # see _data_names; only where LocalBase is not compiled

    def __init__(self, owner: local, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.owner = ref(owner)
        self.args = args
        self.kwargs = kwargs
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


def _values_of(obj: LocalBase) -> _Values:
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


def _no_attribute(obj: LocalBase, name: str) -> AttributeError:
    return AttributeError(f"{type(obj).__name__!r} object has no attribute {name!r}", name=name, obj=obj)


def _read_only(obj: LocalBase, name: str) -> AttributeError:
    text = f"{type(obj).__name__!r} object attribute {name!r} is read-only"
    return AttributeError(text, name=name, obj=obj)


_data_names_of: WeakKeyDictionary[type, dict[str, bool]] = WeakKeyDictionary()


def _data_names(cls: type) -> dict[str, bool]:
    """The names of the data descriptors (slots, properties …) of *cls*, which are asked before the values.

    With each, whether it is asked for the value as well: one without ``__get__`` is passed over in reading.
    """
    names = _data_names_of.get(cls)
    if names is None:
        names = {}
        for name in {name for base in cls.__mro__ for name in vars(base)}:
            _note_data_name(cls, name, names)
        # Not in the class when a subclass defines __slots__, and never to be stored as a value.
        names["__dict__"] = True
        _data_names_of[cls] = names
    return names


def _note_data_name(cls: type, name: str, names: dict[str, bool]) -> bool:
    for base in cls.__mro__:
        namespace = vars(base)
        if name in namespace:
            kind = type(namespace[name])
            if not (hasattr(kind, "__set__") or hasattr(kind, "__delete__")):
                return False
            names[name] = hasattr(kind, "__get__")
            return True
    return False


class LocalBase:
    """Access to the attributes of a local."""

    __slots__ = ("__weakref__", "_local__dicts", "_local__state")

    def __getattribute__(self, name: str) -> Any:
        state = _state_of(self)
        try:
            values = state.dicts[_current()._bridge_local]
        except (KeyError, AttributeError):
            values = _values_of(self)
        if name in state.data_names and state.data_names[name]:  # noqa: RUF019 (a call costs more)
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
        state = _state_of(self)
        values = _values_of(self)
        if name in state.data_names or (name not in values and _learn_data_name(self, name)):
            if name == "__dict__":
                raise _read_only(self, name)
            object.__delattr__(self, name)
        elif name in values:
            del values[name]
        else:
            raise _no_attribute(self, name)


def _learn_data_name(obj: LocalBase, name: str) -> bool:
    # The class may have got a property after its names were collected; ask it before the first store.
    if not isinstance(name, str):
        raise TypeError(f"attribute name must be string, not {type(name).__name__!r}")
    return _note_data_name(type(obj), name, _state_of(obj).data_names)


_compiled = accelerator("_local")
if not TYPE_CHECKING and _compiled is not None:
    LocalBase = _compiled.LocalBase
    _compiled.use_locals(_values_of, _no_attribute, _read_only)

# To reach what is in the slots without a look at the values.
_state_of: Callable[[LocalBase], _State] = LocalBase.__dict__["_local__state"].__get__
_set_state: Callable[[LocalBase, _State], None] = LocalBase.__dict__["_local__state"].__set__
_set_dicts: Callable[[LocalBase, dict[str, _Values]], None] = LocalBase.__dict__["_local__dicts"].__set__


class local(LocalBase):
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

    __slots__ = ()

    def __new__(cls, /, *args: Any, **kwargs: Any) -> local:
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError(
                f"Initialization arguments are not supported: {cls.__name__}() got "
                f"{args!r} {kwargs!r}; define __init__ in a subclass to take them"
            )
        self = object.__new__(cls)
        state = _State(self, args, kwargs)
        if _compiled is None:
            state.data_names = _data_names(cls)
        _set_state(self, state)
        _set_dicts(self, state.dicts)
        greenlet = _current()
        # Registered before the interpreter calls __init__, which may already use the attributes.
        _home_of(greenlet).add(state, greenlet)
        return self

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
            found.append(((type(obj), id(obj)), values))
    return found
