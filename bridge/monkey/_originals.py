"""The engine and asyncio hold the originals, whatever is patched and whatever was imported first.

Theory of operation
===================

Patching changes the attributes of modules. That is right for programs, and wrong for the code that makes
greenlets possible: a loop whose selector, self-pipe or executor waits for greenlets waits for itself
(gevent#2213: ``run_in_executor`` runs the function in a greenlet, which blocks the loop). So before the first
patch :func:`keep_originals` sees to it that everything below keeps what it has now:

1. *The engine.* Our own modules take what they need when they are imported (``from _thread import RLock``);
   those that may be imported later, by name, are imported here. ``import bridge`` imports asyncio, and so
   asyncio and all its modules were always there before the first patch.
2. *asyncio.* Its modules hold modules (``import socket``), and look into them when they run. In each of them
   these names are bound to a *view* instead: a module object that nobody else sees, with the originals in
   it. A copy of the names is not enough, as the functions of a module find their module by their globals:
   the original ``socket.socketpair()`` would make patched sockets. So a view has its own copies of the
   functions, whose globals are those of the view. Classes stay the same objects, but for three: the socket,
   whose ``accept()`` makes sockets; the thread (:mod:`._native`); and the pool of threads.
   Exceptions, flags and constants must be the same objects on both sides, and are; this is why the modules
   are not simply executed a second time, as eventlet does.
3. *Pools.* ``concurrent.futures.ThreadPoolExecutor`` follows the patches: a program's pools use greenlets, as
   with gevent. The pool that asyncio makes for itself is a subclass with copies of the methods that see
   the originals: its threads are real. Pools with threads that exist already go on as such.
4. *Futures of concurrent.futures* are where both worlds meet: a real thread sets one, a coroutine adds a
   callback to it, a greenlet waits for it. What guards one is held for a few instructions, never across a
   switch, by any of them. A lock of greenlets would be wrong: a coroutine cannot wait for it when a thread
   happens to hold it. So the guard is a real lock, in a Condition whose waiters wait as greenlets do.
5. *uvloop* has taken what it needs into C variables when it was imported, so it is imported here if it is
   installed. Three things it looks up late, and these are seen to: which thread is the main one is asked
   once, and so it is made to ask now; the class of its pool and of the thread that ends it
   are those that follow the patches, so the three methods that use them are overridden.

The way not taken: to put the originals back for as long as asyncio's code runs. A loop's callbacks are
anybody's code, which has to see the patched modules.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
from types import FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["keep_originals", "view_of"]

#: What has to be loaded before the first patch: modules of ours that take originals when they are imported.
_ENGINE = (
    "bridge._core.hub",
    "bridge._futures",
    "bridge._monitor",
    "bridge._sockets",
    "bridge._workers",
    "bridge.local",
    "bridge.queue",
    "bridge.resolver.thread",
    "bridge.threadpool",
    "bridge.util",
)

#: The modules whose originals asyncio keeps.
_VIEWED = ("os", "queue", "select", "selectors", "signal", "socket", "ssl", "subprocess", "threading", "time")

_views: dict[str, ModuleType] = {}


class _Front(ModuleType):
    """A module in front of a real one: what it has not is the real one's."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__["__real__"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["__real__"], name)


class View(_Front):
    """A module as it was before it was patched. What is added to the real one later is seen here too."""

    def __init__(self, real: ModuleType) -> None:
        super().__init__(real)
        own = vars(self)
        for name, value in vars(real).items():
            if not name.startswith("__") or name == "__all__":
                own[name] = copy_function(value, own) if _is_function_of(value, real) else value

    def __repr__(self) -> str:
        return f"<{self.__dict__['__real__']!r} before patching>"


def _is_function_of(value: object, module: ModuleType) -> bool:
    return isinstance(value, FunctionType) and value.__globals__ is vars(module)


def copy_function(function: FunctionType, namespace: dict[str, Any]) -> FunctionType:
    """The same function, but with other globals."""
    copy = FunctionType(
        function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = function.__qualname__
    copy.__module__ = function.__module__
    copy.__doc__ = function.__doc__
    copy.__dict__.update(function.__dict__)
    copy.__annotations__ = function.__annotations__
    return copy


def copy_class(cls: type, namespace: dict[str, Any], *names: str, metaclass: type = type) -> type:
    """A subclass with its own copies of the methods *names*, or of all, with other globals."""
    body: dict[str, Any] = {
        name: copy_function(value, namespace)
        for name, value in vars(cls).items()
        if isinstance(value, FunctionType) and (not names or name in names)
    }
    body |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    if "__slots__" in vars(cls):
        body["__slots__"] = ()
    copy: type = metaclass(cls.__name__, (cls,), body)
    return copy


def view_of(name: str) -> ModuleType:
    """The module of that name of the standard library, as it was before the first patch."""
    keep_originals()
    return _views[name]


_kept = False


def keep_originals() -> None:
    """Before the first patch: have the engine and asyncio keep what they have. Then it does nothing."""
    global _kept
    if _kept:
        return
    _kept = True
    for name in _ENGINE:
        importlib.import_module(name)
    for name in _VIEWED:
        _views[name] = View(importlib.import_module(name))
    _finish_views()
    _guard_futures()
    _bind_asyncio()
    _bind_uvloop()


def _finish_views() -> None:
    from . import _native

    socket = _views["socket"].__dict__
    socket["socket"] = socket["SocketType"] = copy_class(socket["socket"], socket, "accept")
    _views["threading"].__dict__.update(
        Thread=_native.Thread,
        Lock=_native.allocate_lock,
        RLock=_native.RLock,
        Semaphore=_native.Semaphore,
        current_thread=_native.current_thread,
        get_ident=_native.get_ident,
    )
    # They find themselves by name, `super(SSLContext, SSLContext)`, and would not, once it is replaced there.
    ssl = _views["ssl"].__dict__
    for name, value in list(vars(ssl["SSLContext"]).items()):
        if isinstance(value, property):
            functions: list[Any] = [value.fget, value.fset, value.fdel]
            fget, fset, fdel = (function and copy_function(function, ssl) for function in functions)
            setattr(ssl["SSLContext"], name, property(fget, fset, fdel, value.__doc__))


# -- concurrent.futures -----------------------------------------------------------------------------------


class _AnyPool(type):
    """``isinstance(pool, ThreadPoolExecutor)``, where asyncio asks, means any pool of threads."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__bases__[0])


def _make_native_pool() -> type:
    import concurrent.futures.thread

    view = _views["concurrent.futures.thread"] = View(concurrent.futures.thread)
    own = vars(view)
    own["queue"] = _views["queue"]
    own["threading"] = _views["threading"]
    lock = own["_global_shutdown_lock"] = _views["threading"].Lock()
    own["_threads_queues"] = WeakKeyDictionary()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_child=lock._at_fork_reinit, after_in_parent=lock.release
        )
    # Joins the threads of the pools when the interpreter ends, as the original does with its own.
    own["threading"]._register_atexit(own["_python_exit"])
    pool = copy_class(concurrent.futures.ThreadPoolExecutor, own, metaclass=_AnyPool)
    own["ThreadPoolExecutor"] = pool
    _adopt_pools(concurrent.futures.thread, pool)
    return pool


def _adopt_pools(module: Any, native: type) -> None:
    """Pools whose threads run already stay what they are: pools of real threads."""
    if not module._threads_queues:
        return
    for pool in gc.get_objects():
        if type(pool) is module.ThreadPoolExecutor and pool._threads:
            pool.__class__ = native


def _guard_futures() -> None:
    import concurrent.futures._base as base
    import threading

    from . import _native

    def condition(lock: Any = None) -> Any:
        return threading.Condition(_native.RLock() if lock is None else lock)

    # The events that it makes for waiters are to be what is in threading then.
    front = _Front(threading)
    front.__dict__.update(Condition=condition, Lock=_native.allocate_lock)
    base.threading = front  # type: ignore[attr-defined]


# -- asyncio ----------------------------------------------------------------------------------------------


def _bind_asyncio() -> None:
    """Bind the names of modules in all modules of asyncio to the views."""
    import concurrent.futures

    futures = _views["concurrent.futures"] = View(concurrent.futures)
    futures.__dict__["ThreadPoolExecutor"] = _make_native_pool()
    package = _views["concurrent"] = View(concurrent)
    package.__dict__["futures"] = futures
    views = {id(view.__dict__["__real__"]): view for view in _views.values()}
    for name, module in list(sys.modules.items()):
        if name.startswith("asyncio.") and type(module) is ModuleType:
            for attr, value in list(vars(module).items()):
                if type(value) is ModuleType and id(value) in views:
                    setattr(module, attr, views[id(value)])


def _bind_uvloop() -> None:
    if "uvloop" not in sys.modules and importlib.util.find_spec("uvloop") is None:
        return
    from . import _uvloop

    _uvloop.bind(_views["concurrent.futures"].ThreadPoolExecutor)
