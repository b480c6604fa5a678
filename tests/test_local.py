"""Greenlet-local objects."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import copy
import gc
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import greenlet
import pytest

import bridge
import bridge.local
from bridge.local import all_local_dicts_for_greenlet, local


class Thing:
    pass


class Sub(local):
    """An ordinary subclass; its attribute access takes the general way."""

    shared = "class"

    def method(self) -> object:
        return self


KINDS = [local, Sub]


@pytest.fixture
def no_gc() -> Iterator[None]:
    """What is freed here is freed by counting references."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def in_raw(f: Callable[..., Any], *args: Any) -> Any:
    return greenlet.greenlet(f).switch(*args)


def in_spawned(f: Callable[..., Any], *args: Any) -> Any:
    return bridge.spawn(f, *args).get()


def in_thread(f: Callable[..., Any], *args: Any) -> Any:
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(f(*args)))
    thread.start()
    thread.join()
    return result[0]


ELSEWHERE = [in_raw, in_spawned, in_thread]


# -- values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("kind", KINDS)
def test_each_greenlet_has_its_own(kind: type[local], elsewhere: Callable[..., Any]) -> None:
    x = kind()
    x.a = 1
    x.__dict__["b"] = 2

    def other() -> dict[str, Any]:
        assert not hasattr(x, "a")
        assert x.__dict__ == {}
        with pytest.raises(AttributeError, match="no attribute 'b'"):
            del x.b
        x.a = 10
        x.c = 20
        assert x.a == 10
        return x.__dict__

    values = elsewhere(other)
    assert values == {"a": 10, "c": 20}
    assert x.__dict__ == vars(x) == {"a": 1, "b": 2}
    assert (x.a, x.b) == (1, 2)
    assert not hasattr(x, "c")
    assert {"a", "b", "__class__"} <= set(dir(x))
    del x.a
    assert not hasattr(x, "a")


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_of_an_object(kind: type[local]) -> None:
    x = kind()
    with pytest.raises(AttributeError, match=f"'{kind.__name__}' object has no attribute 'nope'") as caught:
        _ = x.nope
    assert caught.value.name == "nope"
    assert caught.value.obj is x
    assert caught.value.__context__ is None
    with pytest.raises(AttributeError, match=f"'{kind.__name__}' object has no attribute 'nope'"):
        del x.nope
    with pytest.raises(AttributeError, match="'__dict__' is read-only"):
        x.__dict__ = {}
    with pytest.raises(AttributeError, match="'__dict__' is read-only"):
        del x.__dict__
    assert getattr(x, "nope", 5) == 5


def test_arguments() -> None:
    for call in (lambda: local("foo"), lambda: local(kw="foo"), lambda: Sub(1)):
        with pytest.raises(TypeError, match="Initialization arguments are not supported"):
            call()

    class WithNew(local):
        def __new__(cls, *args: Any) -> Any:
            return super().__new__(cls)

    assert vars(WithNew(1, 2)) == {}


def test_init_is_called_in_each_greenlet_with_the_same_arguments() -> None:
    calls: list[Any] = []

    class Init(local):
        number = 2

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            calls.append((greenlet.getcurrent(), args, kwargs))
            self.__dict__.update(kwargs)
            self.args = args

    x = Init(1, color="red")
    del x.color
    for elsewhere in ELSEWHERE:
        assert elsewhere(lambda: (x.color, x.args, x.number)) == ("red", (1,), 2)
        assert elsewhere(lambda: x.number) == 2
    assert not hasattr(x, "color")
    assert len(calls) == 7
    assert len({id(where) for where, _, _ in calls}) >= 2
    assert all((args, kwargs) == ((1,), {"color": "red"}) for _, args, kwargs in calls)


@pytest.mark.parametrize("use", ["get", "set", "delete", "dict", "slot", "method", "class", "copy"])
def test_any_use_calls_init_first_and_once(use: str) -> None:
    calls: list[str] = []

    class Init(local):
        __slots__ = ("slot",)

        def __init__(self) -> None:
            calls.append(use)
            self.a = 1
            self.slot = 2

        def method(self) -> None:
            pass

    x = Init()
    uses: dict[str, Callable[[], object]] = {
        "get": lambda: x.a,
        "set": lambda: setattr(x, "b", 1),
        "delete": lambda: delattr(x, "a"),
        "dict": lambda: x.__dict__,
        "slot": lambda: x.slot,
        "method": lambda: x.method,
        "class": lambda: x.__class__,
        "copy": lambda: copy.copy(x),
    }
    calls.clear()

    def twice() -> None:
        uses[use]()
        if use != "delete":
            uses[use]()

    in_raw(twice)
    assert len(calls) == (3 if use == "copy" else 1)


def test_init_that_fails_is_tried_again() -> None:
    outcomes = [True, False, False, True]

    class Init(local):
        def __init__(self) -> None:
            self.begun = 1
            if not outcomes.pop(0):
                raise LookupError("not yet")
            self.done = 1

    x = Init()

    def other() -> None:
        for _ in range(2):
            with pytest.raises(LookupError):
                x.a = 1
        assert x.done == 1

    in_spawned(other)


def test_init_may_block() -> None:
    class Init(local):
        def __init__(self) -> None:
            self.me = greenlet.getcurrent()
            bridge.sleep(0.001)
            self.after = greenlet.getcurrent()

    x = Init()

    def other() -> None:
        assert x.me is x.after is greenlet.getcurrent()

    bridge.joinall([bridge.spawn(other) for _ in range(10)], raise_error=True)


# -- classes -------------------------------------------------------------------------------------------


class ReadProperty:
    """A descriptor that a value may shadow."""

    def __get__(self, obj: Any, cls: Any) -> Any:
        return self if obj is None else 42


class Slotted(local):
    __slots__ = ("initialized", "obj")
    path = ""
    type_path = "MyPath"
    read_property = ReadProperty()

    def __init__(self, obj: object) -> None:
        super().__init__()
        if not hasattr(self, "initialized"):
            self.obj = obj
        self.path = ""


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_slots_are_shared(elsewhere: Callable[..., Any]) -> None:
    x = Slotted(Thing())
    x.initialized = 1

    def other() -> None:
        assert x.initialized == 1
        x.initialized = 2

    elsewhere(other)
    assert x.initialized == 2
    x.__dict__["initialized"] = 42
    assert x.initialized == 2
    del x.initialized
    assert not hasattr(x, "initialized")
    assert "initialized" in x.__dict__


def test_class_attributes() -> None:
    x = Slotted(None)
    del x.path
    assert x.path == ""
    with pytest.raises(AttributeError):
        del x.path
    assert x.read_property == 42
    x.read_property = 1
    assert x.read_property == 1
    assert in_raw(lambda: x.read_property) == 42
    assert isinstance(Slotted.read_property, ReadProperty)
    assert x.type_path == "MyPath"
    assert "type_path" not in x.__dict__
    x.type_path = "Local"
    assert x.type_path == "Local"
    assert in_raw(lambda: x.type_path) == "MyPath"
    assert Sub().method.__self__.shared == "class"  # type: ignore[attr-defined]


def test_properties_come_before_values() -> None:
    class Prop(local):
        @property
        def me(self) -> object:
            return self

        @property
        def doubled(self) -> int:
            return self.half * 2  # type: ignore[no-any-return]

        @doubled.setter
        def doubled(self, value: int) -> None:
            self.half = value // 2

        @doubled.deleter
        def doubled(self) -> None:
            del self.half

    x = Prop()
    assert x.me is x
    x.doubled = 10
    assert x.__dict__ == {"half": 5}
    x.__dict__["doubled"] = 1
    assert x.doubled == 10
    del x.doubled
    assert x.__dict__ == {"doubled": 1}
    with pytest.raises(AttributeError):
        x.me = 1  # type: ignore[misc]
    assert in_raw(lambda: hasattr(x, "doubled")) is False


def test_class_that_changes_later() -> None:
    class Changing(local):
        pass

    x = Changing()
    seen: list[Any] = []
    Changing.late = 7  # type: ignore[attr-defined]
    assert x.late == 7
    x.late = 8
    assert (x.late, in_raw(lambda: x.late)) == (8, 7)
    Changing.prop = property(lambda self: 5, lambda self, value: seen.append(value))  # type: ignore[attr-defined]
    x.prop = 3
    assert (seen, x.prop) == ([3], 5)
    x.__dict__["prop"] = 9
    assert x.prop == 5


def test_getattr_hook() -> None:
    class WithGetattr(local):
        def __getattr__(self, name: str) -> Any:
            if name == "foo":
                return 42
            return super().__getattr__(name)  # type: ignore[misc]

    x = WithGetattr()
    assert x.foo == 42
    x.foo = "baz"
    assert x.foo == "baz"
    assert in_raw(lambda: x.foo) == 42
    with pytest.raises(AttributeError):
        _ = x.bar


def test_overridden_access() -> None:
    log: list[str] = []

    class Access(local):
        def __getattribute__(self, name: str) -> Any:
            return 3 if name == "magic" else super().__getattribute__(name)

        def __setattr__(self, name: str, value: Any) -> None:
            log.append(name)
            local.__setattr__(self, name, value)

        def __delattr__(self, name: str) -> None:
            local.__delattr__(self, name)

    x = Access()
    x.a = 1
    assert (x.a, x.magic, x.__dict__, log) == (1, 3, {"a": 1}, ["a"])
    del x.a
    assert x.__dict__ == {}


@pytest.mark.parametrize("kind", KINDS)
def test_unbound_methods(kind: type[local]) -> None:
    x = kind()
    local.__setattr__(x, "a", 1)
    assert local.__getattribute__(x, "a") == x.__getattribute__("a") == 1
    local.__delattr__(x, "a")
    x.__setattr__("b", 2)
    assert x.__dict__ == {"b": 2}


def test_abstract_base_class() -> None:
    class LocalMapping(local, Mapping[str, int]):
        def __getitem__(self, name: str) -> int:
            return self.d[name]  # type: ignore[no-any-return]

        def __iter__(self) -> Iterator[str]:
            return iter(self.d)

        def __len__(self) -> int:
            return len(self.d)

    x = LocalMapping()
    x.d = {"a": 1}
    assert ("a" in x, list(x.keys()), dict(x), len(x)) == (True, ["a"], {"a": 1}, 1)


def test_static_and_class_methods() -> None:
    class Methods(local):
        @staticmethod
        def static() -> int:
            return 42

        @classmethod
        def cls(cls) -> object:
            return cls

    x = Methods()
    assert x.static() == 42
    assert x.cls() is Methods


def test_no_hash_needed() -> None:
    class Odd(local):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    x = Odd()
    x.a = 1
    assert x.a == 1
    assert copy.copy(x).a == 1


def test_a_local_is_an_instance_of_its_class() -> None:
    x = local()
    assert type(x) is x.__class__ is local
    assert repr(x).startswith("<bridge.local.local object at ")
    assert local.__name__ == local.__qualname__ == "local"
    assert local.__module__ == "bridge.local"

    class Other(Sub):
        pass

    y = Sub()
    y.a = 1
    y.__class__ = Other
    assert (type(y), y.a) == (Other, 1)


class Getter:
    """Only ``__get__``: a value comes before it."""

    def __get__(self, obj: Any, cls: Any) -> Any:
        return self if obj is None else "got"


class Setter:
    """Only ``__set__``: asked to store, and passed over in reading."""

    def __set__(self, obj: Any, value: object) -> None:
        obj.__dict__["seen"] = value


class StoringSetter:
    def __set__(self, obj: Any, value: object) -> None:
        obj.__dict__["name"] = ["stored", value]


class Deleter:
    """Only ``__delete__``: in CPython that goes for a setter as well, one that refuses."""

    def __delete__(self, obj: Any) -> None:
        obj.__dict__["seen"] = "deleted"


class GetterSetter(Getter, Setter):
    pass


class All(Getter, Setter, Deleter):
    pass


class Failing:
    def __get__(self, obj: Any, cls: Any) -> Any:
        raise LookupError("get")

    def __set__(self, obj: Any, value: object) -> None:
        raise LookupError("set")

    def __delete__(self, obj: Any) -> None:
        raise AttributeError("delete")


@pytest.mark.parametrize(
    "kind", [int, Getter, Setter, StoringSetter, Deleter, GetterSetter, All, Failing, property, None]
)
@pytest.mark.parametrize("inherited", [False, True])
def test_attributes_are_looked_up_as_those_of_the_systems_thread_local(kind: Any, inherited: bool) -> None:
    def trace(base: type) -> list[object]:
        found: list[object] = []
        attribute = kind() if kind else None
        cls: Any = type("Case", (base,), {"name": attribute} if kind else {})
        if inherited:
            cls = type("Case", (cls,), {"__slots__": ("slot",)})

        def note(function: Callable[..., object], *args: object) -> None:
            try:
                result = function(*args)
            except Exception as error:
                words = str(error) if isinstance(error, LookupError) else ""
                found.append((type(error), words))
            else:
                found.append("descriptor" if result is attribute and kind is not None else result)

        x = cls()
        rest = random.Random(1)
        for name in ("name", "slot", "other"):
            steps: list[Callable[[], object]] = [
                lambda n=name: note(getattr, x, n),
                lambda n=name: note(getattr, x, n, "default"),
                lambda n=name: note(setattr, x, n, len(found)),
                lambda n=name: note(delattr, x, n),
                lambda n=name: x.__dict__.__setitem__(n, len(found)),
                lambda n=name: x.__dict__.pop(n, None),
                lambda n=name: note(hasattr, x, n),
                lambda: note(lambda: dict(x.__dict__)),
            ]
            for _ in range(60):
                rest.choice(steps)()
        return found

    assert trace(local) == trace(_thread._local)


@pytest.mark.parametrize("kind", KINDS)
def test_names_need_not_be_interned(kind: type[local]) -> None:
    class Name(str):
        pass

    x = kind()
    x.attribute = 1
    for make in ("".join, lambda parts: Name("".join(parts))):
        assert getattr(x, make(["attri", "bute"])) == 1
        assert getattr(x, make(["__di", "ct__"])) is x.__dict__
        with pytest.raises(AttributeError, match="read-only"):
            setattr(x, make(["__di", "ct__"]), {})
        with pytest.raises(AttributeError, match="read-only"):
            delattr(x, make(["__di", "ct__"]))
        setattr(x, make(["eight", "888"]), 2)
        assert x.eight888 == 2
        assert getattr(x, make(["__doc", "__"])) is kind.__doc__
        delattr(x, make(["eight", "888"]))
    for call in (local.__getattribute__, lambda x, name: local.__setattr__(x, name, 1), local.__delattr__):
        with pytest.raises(TypeError, match="must be string"):
            call(x, 5)  # type: ignore[operator]
    assert x.__dict__ == {"attribute": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_looking_up_may_drop_the_values(kind: type[local]) -> None:
    def drop() -> None:
        greenlet.getcurrent().__dict__.clear()

    class Name(str):
        def __hash__(self) -> int:
            drop()
            return super().__hash__()

        def __eq__(self, other: object) -> bool:
            drop()
            return super().__eq__(other)

    class Dropping(kind):  # type: ignore[misc, valid-type]
        @property
        def prop(self) -> int:
            drop()
            return 1

        @prop.setter
        def prop(self, value: int) -> None:
            drop()

    def use() -> None:
        x = Dropping()
        for _ in range(10):
            x.a = Thing()
            x.prop = x.prop
            x.a = Thing()
            for use in (getattr, delattr, lambda x, name: setattr(x, name, 2)):
                with contextlib.suppress(AttributeError):
                    use(x, Name("a"))
        assert all_local_dicts_for_greenlet(greenlet.getcurrent()) == []

    in_raw(use)


def test_zope_interfaces() -> None:
    interface = pytest.importorskip("zope.interface")

    class IFoo(interface.Interface):  # type: ignore[misc, name-defined]
        pass

    @interface.implementer(IFoo)
    class Base:
        pass

    class Derived(Base, local):
        pass

    assert list(interface.providedBy(Derived())) == [IFoo]


# -- copies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_copy_has_this_greenlets_values(kind: type[local]) -> None:
    x = kind()
    x.obj = Thing()
    x.path = "123"
    y = copy.copy(x)
    assert type(y) is type(x)
    assert y.__dict__ == x.__dict__ and y.__dict__ is not x.__dict__
    assert y.obj is x.obj
    y.path = "321"
    assert x.path == "123"
    assert in_raw(lambda: y.__dict__) == {}
    assert in_raw(lambda: copy.copy(x).__dict__) == {}


def test_copy_of_a_class_with_init() -> None:
    x = Slotted(Thing())
    x.path = "123"
    del x.path
    x.more = 1
    y = copy.copy(x)
    assert y.__dict__ == {"more": 1}
    assert y.obj is x.obj
    assert in_raw(lambda: y.__dict__) == {"path": ""}
    assert in_raw(lambda: copy.copy(x).__dict__) == {"path": ""}


@pytest.mark.parametrize("kind", KINDS)
def test_no_pickle_and_no_deep_copy(kind: type[local]) -> None:
    x = kind()
    x.a = 1
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(x, protocol)
    with pytest.raises(TypeError, match="pickle"):
        copy.deepcopy(x)


# -- what is freed, and when ---------------------------------------------------------------------------


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("kind", KINDS)
def test_values_go_with_the_local(kind: type[local]) -> None:
    x = kind()
    x.thing = Thing()
    thing, this = weakref.ref(x.thing), weakref.ref(x)
    del x
    assert this() is None
    assert thing() is None
    assert all(key[1] for key, _ in all_local_dicts_for_greenlet(greenlet.getcurrent()))


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("kind", KINDS)
def test_values_go_with_a_raw_greenlet(kind: type[local]) -> None:
    x = kind()
    things: list[weakref.ref[Thing]] = []

    def use(stop: bool) -> None:
        x.thing = Thing()
        things.append(weakref.ref(x.thing))
        if stop:
            greenlet.getcurrent().parent.switch()  # type: ignore[union-attr]

    for stop in (False, True):
        g = greenlet.greenlet(use)
        g.switch(stop)
        assert things[-1]() is not None
        del g
        assert things[-1]() is None
    state = bridge.local._state_of(x)
    assert len(state.dicts) == 1


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("kind", KINDS)
def test_values_go_at_the_end_of_a_greenlet(kind: type[local]) -> None:
    x = kind()
    things: list[weakref.ref[Thing]] = []

    def use(end: str) -> None:
        x.thing = Thing()
        things.append(weakref.ref(x.thing))
        bridge.sleep(10 if end == "killed" else 0)
        assert x.thing is things[-1]()

    for end in ("returned", "killed"):
        g = bridge.spawn(use, end)
        bridge.sleep(0)
        assert things[-1]() is not None
        if end == "killed":
            g.kill()
        g.join()
        assert things[-1]() is None
        assert not all_local_dicts_for_greenlet(g)
    assert len(bridge.local._state_of(x).dicts) == 1


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("kind", KINDS)
def test_values_go_with_a_thread(kind: type[local]) -> None:
    x = kind()

    def use() -> weakref.ref[Thing]:
        x.thing = Thing()
        return weakref.ref(x.thing)

    for _ in range(20):
        assert in_thread(use)() is None
    assert len(bridge.local._state_of(x).dicts) == 1


@pytest.mark.usefixtures("no_gc")
def test_short_lived_locals_leave_nothing_in_a_long_lived_greenlet() -> None:
    alive: list[int] = []

    class Counted(local):
        def __init__(self) -> None:
            self.thing = Thing()
            weakref.finalize(self.thing, alive.pop)
            alive.append(1)

    def run() -> None:
        me = bridge.getcurrent()
        for _ in range(1000):
            x = Counted()
            assert x.thing is not None
            del x
            assert alive == []
        assert not me.has_links()
        assert all_local_dicts_for_greenlet(me) == []

    g = bridge.spawn(run)
    bridge.sleep(0)
    g.get()


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("kind", KINDS)
def test_many_greenlets_leave_nothing_in_a_long_lived_local(kind: type[local]) -> None:
    x = kind()
    x.mine = 1

    def use(i: int) -> None:
        x.i = i
        bridge.sleep(0)
        assert x.i == i

    greenlets = [bridge.spawn(use, i) for i in range(1000)]
    bridge.joinall(greenlets, raise_error=True)
    assert len(bridge.local._state_of(x).dicts) == 1
    for _ in range(100):
        in_raw(lambda: setattr(x, "i", 1))
    assert len(bridge.local._state_of(x).dicts) == 1
    assert x.__dict__ == {"mine": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_cycles_are_collected(kind: type[local]) -> None:
    x = kind()
    thing = Thing()
    thing.local = x  # type: ignore[attr-defined]
    x.thing = thing
    x.me = x
    this = weakref.ref(thing)
    del x, thing
    gc.collect()
    assert this() is None


def test_a_finalizer_in_a_cycle_may_use_the_local() -> None:
    seen: list[object] = []

    class Finalized(local):
        def __init__(self) -> None:
            self.a = 1

        def __del__(self) -> None:
            seen.append((self.a, self.__dict__.get("me") is self))
            self.b = seen

    x = Finalized()
    x.me = x
    this = weakref.ref(x)
    del x
    gc.collect()
    in_raw(Finalized).me = None
    assert seen == [(1, True), (1, False)]
    assert this() is None


def test_classes_of_locals_are_collected() -> None:
    class Short(local):
        @property
        def prop(self) -> object:
            return self

    x = Short()
    x.me = x
    assert x.prop is x
    cls = weakref.ref(Short)
    del x, Short
    gc.collect()
    assert cls() is None


@pytest.mark.engines("none")
def test_locals_that_outlive_greenlet_do_no_harm() -> None:
    code = """
        import sys
        from bridge.local import local

        class Sub(local):
            pass

        class Late:
            def __init__(self, kinds=(local, Sub)):
                self.locals = [kind() for kind in kinds]
                for x in self.locals:
                    x.a = 1

            def __del__(self, write=sys.stderr.write):
                for x in self.locals:
                    for use in (getattr, lambda x, name: setattr(x, name, 1), delattr):
                        try:
                            use(x, "a")
                        except Exception:
                            pass
                write("used")

        sys.kept_to_the_end = Late()
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "used")


def test_freeing_a_value_may_use_the_local() -> None:
    x = local()
    seen: list[Any] = []

    class Nosy:
        def __del__(self) -> None:
            seen.append(getattr(x, "name", "none"))
            x.late = Thing()

    def use() -> None:
        x.name = "other"
        x.nosy = Nosy()

    x.name = "main"
    in_spawned(use)
    g = greenlet.greenlet(use)
    g.switch()
    del g
    gc.collect()
    assert len(seen) == 2
    assert seen[1] == "main"
    assert x.name == "main"


# -- threads, tasks, many at once ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_threads_at_once_see_only_their_own(kind: type[local]) -> None:
    x = kind()
    failures: list[object] = []
    barrier = threading.Barrier(4)

    def run(number: int) -> None:
        try:
            barrier.wait()
            switch = [greenlet.greenlet(work) for _ in range(3)]
            pending = [(g, (number, i)) for i, g in enumerate(switch)]
            for g, mark in pending:
                g.switch(mark)
            for _ in range(300):
                g = random.choice(switch)
                if g:
                    g.switch()
            x.mark = number
            assert x.mark == number
            assert x.__dict__ == {"mark": number}
        except BaseException as ex:
            failures.append(ex)

    def work(mark: object) -> None:
        x.mark = mark
        x.count = 0
        for i in range(100):
            assert x.mark is mark
            assert x.count == i
            x.count = i + 1
            assert x.__dict__ == {"mark": mark, "count": i + 1}
            greenlet.getcurrent().parent.switch()  # type: ignore[union-attr]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_locals_made_and_freed_in_threads() -> None:
    x = local()
    failures: list[object] = []

    def run() -> None:
        try:
            for i in range(300):
                y = Sub()
                y.a = x.a = i
                assert (x.a, y.a) == (i, i)
                kept.append(y)
                if len(kept) > 10:
                    kept.pop(0)  # most often another thread's
        except BaseException as ex:
            failures.append(ex)

    kept: list[local] = []
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.engines("none")
def test_coroutines_of_a_thread_share_the_hubs_values() -> None:
    x = local()

    async def one() -> None:
        x.a = 1
        await asyncio.sleep(0)

    async def two() -> Any:
        await asyncio.sleep(0)
        return x.a

    async def main() -> Any:
        return (await asyncio.gather(one(), two()))[1]

    assert asyncio.run(main()) == 1


def test_local_dicts_for_greenlet() -> None:
    found: list[Any] = []

    def run() -> None:
        x, y = local(), Sub()
        y.bar = 1
        x.foo = 42
        found.extend([id(x), id(y)])
        found.extend(all_local_dicts_for_greenlet(bridge.getcurrent()))

    in_spawned(run)
    assert found[2:] == [((local, found[0]), {"foo": 42}), ((Sub, found[1]), {"bar": 1})]
    assert all_local_dicts_for_greenlet(greenlet.greenlet()) == []


def test_names() -> None:
    assert bridge.local.__all__ == ["local"]
