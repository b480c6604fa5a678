"""Locks that were made before patching: in modules, classes and objects they are replaced by ours.

A native lock that a greenlet holds across a switch blocks the thread of the next one who wants it, and with
it the greenlet that holds it: for ever. A native RLock lets all greenlets of a thread in.

*All or nothing.* Two parties must never use different locks for one thing. So a lock is replaced only if it
is free and all that refers to it has been found and can be changed: the collector knows who refers to a lock,
and the reference count says whether it knows all of them. A lock that is on some thread's stack, in a tuple
or in a structure of C stays as it is; so does one that belongs to those who must keep the originals.
The same goes for bound methods: a Condition keeps ``lock.acquire`` and others as attributes of its own.

What the count is of an object that nobody else refers to depends on the interpreter; a probe tells.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
from _thread import RLock as _NativeRLock
from _thread import allocate_lock as _native_lock
from collections.abc import Callable
from concurrent.futures import Future
from types import BuiltinMethodType, CellType, MemberDescriptorType, ModuleType
from typing import Any

from bridge._threadlocks import LockType, RLock

from ._state import saved

__all__ = ["replace_locks"]

_replacement: dict[type, Callable[[], Any]] = {type(_native_lock()): LockType, _NativeRLock: RLock}

#: Packages whose locks stay: they are part of what makes greenlets possible, or are not held across switches.
_KEEPERS = {
    "_frozen_importlib",
    "_thread",
    "asyncio",
    "bridge",
    "concurrent",
    "functools",
    "greenlet",
    "importlib",
    "logging",
    "threading",
    "uvloop",
    "zipimport",
}

Setter = Callable[[Any], object]


class _Kept(Exception):
    """Something refers to an object that cannot or must not refer to another one."""


def replace_locks() -> int:
    """Replace the native locks that are free; how many were replaced. Does not block."""
    interval = sys.getswitchinterval()
    # no other thread shall take a lock between the look at it and its replacement
    sys.setswitchinterval(1000)
    try:
        return _replace_locks()
    finally:
        sys.setswitchinterval(interval)


def _replace_locks() -> int:
    locks = _free_locks()
    if not locks:
        return 0
    probe = _native_lock()
    lock_probe = id(probe)
    locks[lock_probe] = probe
    methods: dict[int, Any] = {}
    users = _users(locks, methods)
    method: Any = probe.acquire
    method_probe = id(method)
    methods[method_probe] = method
    del probe, method
    method_users = _users(methods, {})
    unused_lock = _count(locks, lock_probe) - 1  # without its bound method
    unused_method = _count(methods, method_probe)
    del locks[lock_probe]
    owners = _owners([user for found in (users, method_users) for each in found.values() for user in each])
    replaced = 0
    for key in list(locks):
        try:
            setters = [(set_, None) for user in users[key] for set_ in _places(user, locks[key], owners)]
            found = len(setters)
            for method_key in [k for k, m in methods.items() if id(m.__self__) == key]:
                found += 1
                method = methods[method_key]
                name = method.__name__
                if any(type(user) is list for user in method_users[method_key]):
                    raise _Kept  # os.register_at_fork keeps what it calls in lists: nothing may switch there
                users_of_it = method_users[method_key]
                places = [(set_, name) for user in users_of_it for set_ in _places(user, method, owners)]
                del method
                if len(places) != _count(methods, method_key) - unused_method:
                    raise _Kept
                setters += places
            if found != _count(locks, key) - unused_lock:
                raise _Kept
        except _Kept:
            continue
        new = _replacement[type(locks[key])]()
        for set_, name in setters:
            set_(new if name is None else getattr(new, name))
        replaced += bool(setters)
    return replaced


def _count(objects: dict[int, Any], key: int) -> int:
    return sys.getrefcount(objects[key])


def _free_locks() -> dict[int, Any]:
    """All native locks that nobody holds, by id."""
    locks = {}
    guards = set()
    # There are many objects and few types. Not isinstance(): it would ask lazy proxies what they stand for.
    objects = gc.get_objects()
    types = set(map(type, objects))
    futures = {kind for kind in types if issubclass(kind, Future)}
    interesting = futures | (types & _replacement.keys())
    for obj in objects:
        kind = type(obj)
        if kind not in interesting:
            continue
        if kind in futures:
            # taken by real threads and by loops: see _originals
            guards.add(id(getattr(vars(obj).get("_condition"), "_lock", None)))
        elif _is_free(obj):
            locks[id(obj)] = obj
    del objects, obj
    for key in guards & locks.keys():
        del locks[key]
    return locks


def _is_free(lock: Any) -> bool:
    if hasattr(lock, "_is_owned") and lock._is_owned():  # the RLock: we could acquire it again
        return False
    if not lock.acquire(False):
        return False
    lock.release()
    return True


def _users(objects: dict[int, Any], methods: dict[int, Any]) -> dict[int, list[Any]]:
    """Who refers to each of *objects*, but for that dictionary; bound methods go to *methods* instead."""
    users: dict[int, list[Any]] = {key: [] for key in objects}
    arguments = tuple(objects.values())
    for user in gc.get_referrers(*arguments):
        if user is objects or user is arguments:
            continue
        if type(user) is BuiltinMethodType and id(user.__self__) in objects:
            methods[id(user)] = user
            continue
        for key in {id(each) for each in gc.get_referents(user)} & users.keys():
            users[key].append(user)
    return users


def _places(user: Any, obj: Any, owners: dict[int, Any]) -> list[Setter]:
    """For each place in *user* that refers to *obj* a function that puts something else there.

    Raises _Kept if there is none.
    """
    kind = type(user)
    places: list[Setter] = []
    if kind is dict:
        owner = owners.get(id(user), user)
        if _keeps(owner):
            raise _Kept
        for key, value in user.items():
            if value is obj:
                set_ = _attribute_setter(owner, key) if isinstance(owner, type) else _item_setter(user, key)
                places.append(set_)
    elif kind is list:
        places += [_item_setter(user, i) for i, value in enumerate(user) if value is obj]
    elif kind is CellType:
        places.append(_attribute_setter(user, "cell_contents"))
    else:
        if _keeps(user):
            raise _Kept
        namespace = getattr(user, "__dict__", None)
        if type(namespace) is dict:
            places += [_item_setter(namespace, key) for key, value in namespace.items() if value is obj]
        for cls in kind.__mro__:
            for member in vars(cls).values():
                if type(member) is MemberDescriptorType and _value_of(member, user) is obj:
                    places.append(_member_setter(member, user))
    if not places:
        raise _Kept
    return places


def _value_of(member: Any, user: Any) -> Any:
    try:
        return member.__get__(user)
    except AttributeError:
        return None


def _owners(users: list[Any]) -> dict[int, Any]:
    """The modules, classes and objects whose namespaces the dictionaries among *users* are, by their ids."""
    owners: dict[int, Any] = {}
    namespaces: dict[int, Any] = {}
    for user in users:
        if type(user) is dict:
            name = user.get("__name__")
            module = sys.modules.get(name) if isinstance(name, str) else None
            if module is not None and vars(module) is user:
                owners[id(user)] = module
            else:
                namespaces[id(user)] = user
    # for all at once, as it means to look at every object that there is
    for user in gc.get_referrers(*namespaces.values()) if namespaces else ():
        own = type if issubclass(type(user), type | ModuleType) else getattr(user, "__dict__", None)
        for key in {id(each) for each in gc.get_referents(user)} & namespaces.keys():
            if own is type or own is namespaces[key]:
                owners.setdefault(key, user)
    return owners


def _keeps(owner: Any) -> bool:
    """Whether it is one of those whose locks stay."""
    if isinstance(owner, logging.Handler):
        return True  # see _threads
    if any(owner is originals for originals in saved.values()):
        return True
    if isinstance(owner, ModuleType):
        # views of modules, for asyncio, are of a class of ours
        name = owner.__name__ if type(owner) is ModuleType else type(owner).__module__
    else:
        name = (owner if isinstance(owner, type) else type(owner)).__module__
        if isinstance(owner, threading.Condition):
            return False
    return isinstance(name, str) and name.partition(".")[0] in _KEEPERS


def _item_setter(container: Any, key: Any) -> Setter:
    return lambda new: container.__setitem__(key, new)


def _attribute_setter(obj: Any, name: str) -> Setter:
    return lambda new: setattr(obj, name, new)


def _member_setter(member: Any, obj: Any) -> Setter:
    return lambda new: member.__set__(obj, new)
