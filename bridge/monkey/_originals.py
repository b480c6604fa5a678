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
   functions, whose globals are those of the view. Classes stay the same objects, but for four: the socket,
   whose ``accept()`` makes sockets; ``Popen``, which spawns and waits; the thread (:mod:`._native`); and the
   pool of threads.
   Exceptions, flags and constants must be the same objects on both sides, and are; this is why the modules
   are not simply executed a second time, as eventlet does. The two classes of selectors that are patched in
   place become native again when they are given to a loop.
3. *Pools and futures* of ``concurrent.futures``, where both worlds meet: see :mod:`._pools`.
4. *uvloop* has taken what it needs into C variables when it was imported, so it is imported here if it is
   installed. But the classes of its pool and of the thread that ends the pool follow the patches, so the
   three methods that use them are overridden.

The way not taken: to put the originals back for as long as asyncio's code runs. A loop's callbacks are
anybody's code, which has to see the patched modules.
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib
import importlib.util
import select
import selectors
import sys
from asyncio import selector_events, trsock
from types import ModuleType
from typing import Any

from . import _native, _pools, _processes
from ._views import View, copy_class, copy_function

__all__ = ["keep_originals", "view_of"]

#: What has to be loaded before the first patch: modules of ours that take originals when they are imported.
_ENGINE = (
    "bridge._core.hub",
    "bridge._futures",
    "bridge._sockets",
    "bridge._workers",
    "bridge.local",
    "bridge.queue",
    "bridge.resolver.thread",
    "bridge.threadpool",
)

#: The modules whose originals asyncio keeps.
_VIEWED = ("os", "queue", "select", "selectors", "signal", "socket", "ssl", "subprocess", "threading", "time")

_views: dict[str, ModuleType] = {}

_POLL_BITS = {
    selectors.EVENT_READ: getattr(select, "POLLIN", 0),
    selectors.EVENT_WRITE: getattr(select, "POLLOUT", 0),
}


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
    pool = _pools.bind(_views)
    _bind_asyncio(pool)
    _bind_selectors()
    _bind_uvloop(pool)
    _processes.bind(_views)


def _finish_views() -> None:
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
    # asyncio waits for its children itself: a posix_spawn() that watches them would reap them first.
    subprocess = _views["subprocess"].__dict__
    subprocess["os"] = _views["os"]
    subprocess["Popen"] = copy_class(subprocess["Popen"], subprocess, "_posix_spawn", "_try_wait")
    # They find themselves by name, `super(SSLContext, SSLContext)`, and would not, once it is replaced there.
    ssl = _views["ssl"].__dict__
    for name, value in list(vars(ssl["SSLContext"]).items()):
        if isinstance(value, property):
            functions: list[Any] = [value.fget, value.fset, value.fdel]
            fget, fset, fdel = (function and copy_function(function, ssl) for function in functions)
            setattr(ssl["SSLContext"], name, property(fget, fset, fdel, value.__doc__))


# -- asyncio ----------------------------------------------------------------------------------------------


def _bind_asyncio(pool: type) -> None:
    """Bind the names of modules in all modules of asyncio to the views."""
    futures = _views["concurrent.futures"] = View(concurrent.futures)
    futures.__dict__["ThreadPoolExecutor"] = pool
    package = _views["concurrent"] = View(concurrent)
    package.__dict__["futures"] = futures
    views = {id(view.__dict__["__real__"]): view for view in _views.values()}
    for name, module in list(sys.modules.items()):
        if name.startswith("asyncio.") and type(module) is ModuleType:
            for attr, value in list(vars(module).items()):
                if type(value) is ModuleType and id(value) in views:
                    setattr(module, attr, views[id(value)])
    _give_out_sockets_of_the_program()


def _give_out_sockets_of_the_program() -> None:
    """A duplicate of a transport's socket is the program's: of the class that is in `socket` now."""
    transport_socket: Any = trsock.TransportSocket
    original = transport_socket.dup

    @functools.wraps(original)
    def dup(self: Any) -> Any:
        sock = original(self)
        public = vars(_views["socket"])["__real__"].socket
        if isinstance(sock, public):
            return sock
        timeout = sock.gettimeout()
        given = public(sock.family, sock.type, sock.proto, fileno=sock.detach())
        given.settimeout(timeout)
        return given

    transport_socket.dup = dup


def _bind_selectors() -> None:
    """Have loops wait natively when they are made with a selector whose class has been patched."""
    native: Any = _views["select"]
    poll_selector: Any = getattr(selectors, "PollSelector", ())
    loop: Any = selector_events.BaseSelectorEventLoop
    init = loop.__init__

    @functools.wraps(init)
    def init_natively(self: Any, selector: Any = None) -> None:
        if isinstance(selector, selectors.SelectSelector):
            selector._select = native.select  # type: ignore[attr-defined]
        elif isinstance(selector, poll_selector):
            poll = native.poll()
            for key in selector.get_map().values():
                poll.register(key.fd, sum(_POLL_BITS[bit] for bit in _POLL_BITS if bit & key.events))
            selector._selector = poll
        init(self, selector)

    loop.__init__ = init_natively


def _bind_uvloop(pool: type) -> None:
    if "uvloop" in sys.modules or importlib.util.find_spec("uvloop") is not None:
        from . import _uvloop

        _uvloop.bind(pool)
