"""Second loops: a loop of asyncio that a greenlet runs beside the hub, without stopping the others.

Theory of operation
===================

Legacy code has loops of its own: ``loop = asyncio.new_event_loop(); loop.run_until_complete(main())``, in
what it takes for a thread and what is a greenlet. Such a loop B spends its life in ``B._run_once``, which
waits in one place only: ``B._selector.select(timeout)``. So while B runs beside a hub its selector is
replaced by :class:`_Sharing`, which has the hub's poller wait for the selector's own fd (an epoll instance
can be waited for like a socket) and then asks the real selector without waiting. Nothing else of B is
touched; its transports, timers and tasks are asyncio's own.

*What belongs to the thread, and must follow the greenlet.* asyncio keeps one running loop for each thread,
the interpreter one pair of hooks for asynchronous generators, bridge one hub. The selector is the only
place where the greenlet G that runs B gives up the thread, so there all three are exchanged for those of
the outer loop, and back. Invariant: *when a greenlet other than G runs, the outer loop's state is in
force.* Coroutines of B that spawn greenlets have a hub of their own, which has adopted B; those greenlets
are resumed in callbacks of B, hence below G, and for them B's state is right.

*Who wakes B.* A callback that another greenlet of the same thread gives to B would not be noticed by a B
that waits in the hub. In plain asyncio that cannot happen, as nobody else runs in the thread then. So for
the time of the run ``call_soon``, ``call_at`` and ``stop`` of that loop object also end its wait.

*uvloop* waits inside libuv and lends nobody its timers, so a loop of uvloop can't share the thread. Where
one is made in a greenlet, a standard loop is made instead; one that was made elsewhere and is run in a
greenlet raises an error that says so. (In a thread's main greenlet it runs, as it always did: the hub
adopts it.)

*In a portal* a loop runs in the thread already. There a second one runs in a greenlet made for it, while the
portal waits.

The way not taken: run every second loop's coroutine on the hub's loop. A loop object has an identity that
its users rely on: they create futures on it, call it from threads, stop it, and close it.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import weakref
from asyncio import _set_running_loop, events
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from greenlet import getcurrent, greenlet

from bridge._core.current import get_hub, hub_local, of_thread
from bridge._core.engine import Engine, throw_into
from bridge._core.errors import BlockingSwitchOutError
from bridge._core.hub import Hub
from bridge._core.poller import READ, WRITE, Interest
from bridge._core.waiting import Wait

from . import signals
from .awaiting import wait_for_task
from .sharing import beside, in_portal, runs_already
from .signals import share_signals

__all__ = ["install"]

_run_forever = BaseEventLoop.run_forever
_run_until_complete = BaseEventLoop.run_until_complete


class _Sharing:
    """Stands for the selector of a loop that runs beside a hub: ``select()`` blocks the greenlet only."""

    def __init__(self, selector: Any, run: _Run) -> None:
        self._selector = selector
        self._run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)

    def select(self, timeout: float | None = None) -> Any:
        """What the real one gives, after a wait in the hub; others run in any case."""
        fds = self._fds()
        with self._run.parked() as wait:
            if fds is None or (timeout is not None and timeout <= 0):
                wait.wake()
                wait.block()
            else:
                self._wait(wait, fds, timeout)
        return self._selector.select(timeout if fds is None else 0)

    def _wait(self, wait: Wait, fds: list[tuple[int, int]], timeout: float | None) -> None:
        def fire(_events: int) -> None:
            wait.wake()

        assert self._run.outer.loop is not None
        poller = self._run.outer.loop.get_poller()
        interests = []
        try:
            for fd, events in fds:
                interest = Interest(fd, events, fire)
                poller.add(interest)
                interests.append(interest)
            wait.block(timeout)
        finally:
            for interest in interests:
                poller.remove(interest)

    def _fds(self) -> list[tuple[int, int]] | None:
        """What to wait for; None: a selector without real descriptors, as tests have, which waits itself."""
        try:
            fds = [(self._selector.fileno(), READ)]
        except AttributeError:
            # select() and poll() have no fd of their own; the numbers of the events are those of selectors
            fds = [(key.fd, key.events & (READ | WRITE)) for key in self._selector.get_map().values()]
        return fds if all(isinstance(fd, int) for fd, _ in fds) else None

    def forget(self) -> None:
        """The run is over: the selector may be closed from now on."""
        loop = self._run.outer.loop
        if loop is not None and loop.poller is not None:
            for fd, _events in self._fds() or ():
                if fd in loop.poller.fds:
                    loop.poller.forget(fd)


class _Run:
    """One loop that runs, or has run, beside a hub. See the theory above for what is exchanged when."""

    def __init__(self, aio: Any) -> None:
        self.aio = aio
        self.outer: Hub
        #: the hub of B's own greenlets, once there is one
        self.inner: Hub | None = None
        self.aside: tuple[Hub, ...] = ()
        #: hooks for asynchronous generators, and the depth of origins that debug mode keeps for coroutines
        self.outer_state = self.inner_state = _interpreter_state()
        #: the wait of the selector, while there is one
        self.waiting: Wait | None = None

    @contextmanager
    def sharing(self, outer: Hub) -> Iterator[None]:
        """Around ``run_forever``."""
        aio: Any = self.aio
        self.outer = outer
        self.aside = of_thread.aside
        self.outer_state = _interpreter_state()
        running = asyncio._get_running_loop()
        share_signals(aio)
        selector = aio._selector
        sharing = aio._selector = _Sharing(selector, self)
        for name in ("call_soon", "call_at", "stop"):
            setattr(aio, name, self._waking(getattr(aio, name)))
        if self.inner is not None:
            hub_local.hub = self.inner
        try:
            yield
        finally:
            for name in ("call_soon", "call_at", "stop"):
                delattr(aio, name)
            aio._selector = selector
            if hub_local.hub is not self.outer:
                self.inner = hub_local.hub
            hub_local.hub = self.outer
            of_thread.aside = self.aside
            _set_interpreter_state(self.outer_state)
            # the loop has done that too, but by asyncio.events._set_running_loop, which may be another one
            _set_running_loop(running)
            sharing.forget()

    def _waking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if self.waiting is not None:
                self.waiting.wake()
            return result

        return call

    @contextmanager
    def parked(self) -> Iterator[Wait]:
        """The greenlet is about to give up the thread: the outer loop's state holds until it is back."""
        hub = hub_local.hub
        if hub is not self.outer:
            self.inner = hub
        inner_aside = of_thread.aside
        hub_local.hub = self.outer
        of_thread.aside = self.aside
        self.inner_state = _interpreter_state()
        _set_interpreter_state(self.outer_state)
        _set_running_loop(None)
        try:
            wait = self.waiting = Wait()
            yield wait
        finally:
            self.waiting = None
            outer = hub_local.hub
            if outer is not None:
                self.outer = outer  # another one, in a forked child
            self.aside = of_thread.aside
            if self.inner is not None:
                hub_local.hub = self.inner
            of_thread.aside = inner_aside
            self.outer_state = _interpreter_state()
            _set_interpreter_state(self.inner_state)
            _set_running_loop(self.aio)


def _interpreter_state() -> tuple[Any, int]:
    # as a plain tuple: the garbage collector does not look into what sys gives, which refers to the loop
    return tuple(sys.get_asyncgen_hooks()), sys.get_coroutine_origin_tracking_depth()


def _set_interpreter_state(state: tuple[Any, int]) -> None:
    hooks, depth = state
    sys.set_asyncgen_hooks(*hooks)
    if depth != sys.get_coroutine_origin_tracking_depth():
        sys.set_coroutine_origin_tracking_depth(depth)


def _is_second(aio: Any) -> bool:
    """True for a loop that runs beside a hub, or would if it were run here."""
    if aio.is_running():
        return "_bridge_run" in vars(aio)
    try:
        hub = beside()
    except BlockingSwitchOutError:
        hub = hub_local.hub  # in one of its callbacks
    return hub is not None and hub.loop.aio is not aio


def _run_for_portal(function: Callable[..., Any], *args: Any) -> Any:
    """For a portal: call ``function`` in a greenlet, where no loop runs, and wait for it.

    What interrupts the wait is raised in the greenlet, and its end awaited.
    """
    hub = get_hub()
    outcome: list[Any] = []
    wait = Wait()

    def run() -> None:
        try:
            outcome.append(function(*args))
        except BaseException as e:
            outcome.extend((None, e))
        wait.wake()

    g = greenlet(run, hub)
    g.gr_context = copy_context()
    hub.loop.make_ready(g)
    while not outcome:
        try:
            wait.block()
        except BaseException as e:
            wait = Wait()
            hub.loop.call(_throw_into_living, g, e)
    result, *exceptions = outcome
    for exception in exceptions:
        raise exception
    return result


def _throw_into_living(g: greenlet, exception: BaseException) -> None:
    """In the hub. ``g`` has begun: it was made ready before."""
    if not g.dead:
        throw_into(g, exception)


def _run_forever_beside(self: Any) -> None:
    """Run until :meth:`stop`; in a greenlet the others go on meanwhile."""
    if in_portal() and asyncio._get_running_loop() is not self:
        return _run_for_portal(_run_forever_beside, self)  # type: ignore[no-any-return]
    hub = beside()
    if hub is None or hub.loop.aio is self:
        return _run_forever(self)
    if not hasattr(getattr(self, "_selector", None), "get_map"):
        raise RuntimeError(
            f"{self!r} cannot run in a greenlet beside others: it does not wait in a selector. "
            "Call asyncio.run(), which runs a coroutine on the hub's loop, or use asyncio.SelectorEventLoop()"
        )
    run = self.__dict__.get("_bridge_run")
    if run is None:
        run = self.__dict__["_bridge_run"] = _Run(self)
    with run.sharing(hub):
        _run_forever(self)
    return None


def _run_until_complete_beside(self: Any, future: Any) -> Any:
    """Run until ``future`` is done, and return its result; in a greenlet the others go on meanwhile."""
    if runs_already(self):
        return wait_for_task(self, future)
    if in_portal():
        return _run_for_portal(_run_until_complete, self, future)
    return _run_until_complete(self, future)


def _install_uvloop() -> None:
    try:
        import uvloop
    except ImportError:
        return  # there it has no loops either
    loop_class: Any = uvloop.Loop
    run_forever = loop_class.run_forever
    run_until_complete = loop_class.run_until_complete
    new_event_loop = uvloop.new_event_loop
    uvloop_run: Any = uvloop.run

    def check(self: Any) -> None:
        if in_portal():
            beside_others = asyncio._get_running_loop() is not self
        else:
            hub = beside()
            beside_others = hub is not None and hub.loop.aio is not self and getcurrent().parent is not None
        if beside_others:
            raise RuntimeError(
                f"{self!r} cannot run in a greenlet: uvloop cannot share a thread, all other greenlets would "
                "stop. Call asyncio.run(), which runs a coroutine on the hub's loop, or make the loop in the "
                "greenlet with asyncio.new_event_loop()"
            )

    @functools.wraps(run_forever)
    def run_forever_alone(self: Any) -> None:
        check(self)
        run_forever(self)

    @functools.wraps(run_until_complete)
    def run_until_complete_beside(self: Any, future: Any) -> Any:
        if runs_already(self):
            return wait_for_task(self, future)
        try:
            check(self)
        except RuntimeError:
            if asyncio.iscoroutine(future):
                future.close()  # or it would warn that it was never awaited
            raise
        return run_until_complete(self, future)

    @functools.wraps(new_event_loop)
    def new_event_loop_beside() -> Any:
        return asyncio.SelectorEventLoop() if in_portal() or beside() is not None else new_event_loop()

    @functools.wraps(uvloop_run)
    def run_beside(main: Any, *args: Any, **kwargs: Any) -> Any:
        if not in_portal() and beside() is None:
            return uvloop_run(main, *args, **kwargs)
        # its own one insists on a loop of uvloop, which the hub's need not be
        kwargs.pop("loop_factory", None)
        with asyncio.Runner(**kwargs) as runner:
            return runner.run(main)

    loop_class.run_forever = run_forever_alone
    loop_class.run_until_complete = run_until_complete_beside
    uvloop.new_event_loop = new_event_loop_beside
    uvloop.run = run_beside
    _originals.append((loop_class, run_forever))


#: Who runs loops of which class without all this: the hub.
_originals: list[tuple[type[Any], Callable[[Any], None]]] = []


def _run_hub(aio: Any) -> None:
    for cls, run_forever in _originals:
        if isinstance(aio, cls):
            run_forever(aio)
            return
    type(aio).run_forever(aio)


class _LoopsOfGreenlets:
    """What ``set_event_loop()`` sets: for plain greenlets each its own, as for threads.

    Stands for the thread-local object of an event loop policy. A greenlet that has set nothing sees what
    its thread's main greenlet, or a coroutine, has set.
    """

    def __init__(self, of_thread: Any) -> None:
        vars(self).update(_of_thread=of_thread, _own=weakref.WeakKeyDictionary())

    def _place(self, writing: bool) -> Any:
        current = getcurrent()
        own = self._own.get(current)
        if own is None:
            if not writing or current.parent is None or beside() is None:
                return self._of_thread
            own = self._own[current] = type(self._of_thread)()
        return own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place(False), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._place(True), name, value)


def _install_loops_of_greenlets() -> None:
    policy_class: Any = getattr(events, "BaseDefaultEventLoopPolicy", None)
    if policy_class is None or not hasattr(policy_class, "_Local"):
        policy_class = getattr(events, "_BaseDefaultEventLoopPolicy", None)
    of_thread = getattr(policy_class, "_Local", None)
    if of_thread is None:
        return  # event loop policies are gone, and set_event_loop() with them
    policy_class._Local = staticmethod(lambda: _LoopsOfGreenlets(of_thread()))
    policy: Any = getattr(events, "_event_loop_policy", None)
    if policy is not None and isinstance(getattr(policy, "_local", None), of_thread):
        policy._local = _LoopsOfGreenlets(policy._local)


def install() -> None:
    """Make loops that greenlets run beside a hub let the others go on. Once."""
    base: Any = BaseEventLoop
    _originals.append((base, _run_forever))
    base.run_forever = functools.wraps(_run_forever)(_run_forever_beside)
    base.run_until_complete = functools.wraps(_run_until_complete)(_run_until_complete_beside)
    _install_uvloop()
    signals.install(_is_second)
    Engine.run_loop = staticmethod(_run_hub)
    _install_loops_of_greenlets()
