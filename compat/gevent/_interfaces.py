"""The interfaces of the event loop and its parts, which gevent documents although the module is private.

They are protocols, for annotations and ``isinstance``. Where zope.interface is installed, they are its
interfaces instead, as in gevent, and the loop and its callbacks declare to provide them, so that
``providedBy`` and ``zope.interface.verify.verifyObject`` work.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from bridge._core.callbacks import Callback
from bridge._core.loop import loop

__all__ = ["ICallback", "ILoop", "IWatcher"]


@runtime_checkable
class IWatcher(Protocol):
    """Something that the loop watches, such as a timer or a file descriptor."""

    def start(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        """Call *callback* with *args* in the hub when the event occurs, until stopped."""

    def stop(self) -> Any:
        """Watch no longer; the watcher can be started again."""

    def close(self) -> Any:
        """Stop for good and give back what the watcher holds."""


@runtime_checkable
class ICallback(Protocol):
    """A call that waits for its turn in the hub."""

    #: true until the call has begun or was stopped
    pending: bool

    def stop(self) -> Any:
        """Do not make the call, if it has not begun."""

    def close(self) -> Any:
        """The same as :meth:`stop`."""


@runtime_checkable
class ILoop(Protocol):
    """The event loop of one thread.

    Times are in seconds; a watcher whose *ref* is false does not keep the loop going.
    """

    #: the precision of timers, in seconds
    approx_timer_resolution: float
    #: whether this is the loop of the main thread's hub
    default: bool

    def run(self, nowait: bool = False, once: bool = False) -> Any:
        """Run until nothing referenced is left, or, with a flag, without waiting or for one round only."""

    def now(self) -> float:
        """Return the time at which the loop began its round."""

    def update_now(self) -> Any:
        """Bring :meth:`now` up to date."""

    def destroy(self) -> Any:
        """Give back what the loop holds; it cannot be used afterwards."""

    def io(self, fd: int, events: int, ref: bool = True, priority: int | None = None) -> Any:
        """Return a watcher that waits for *fd* to become readable (1), writable (2) or either (3)."""

    def closing_fd(self, fd: int) -> bool:
        """Say that *fd* is about to be closed; return whether the loop knew it."""

    def timer(self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None) -> Any:
        """Return a watcher that fires *after* seconds, then every *repeat* seconds if that is not 0."""

    def signal(self, signum: int, ref: bool = True, priority: int | None = None) -> Any:
        """Return a watcher for a signal."""

    def idle(self, ref: bool = True, priority: int | None = None) -> Any:
        """Return a watcher that fires while there is nothing else to do."""

    def prepare(self, ref: bool = True, priority: int | None = None) -> Any:
        """Return a watcher that fires before the loop waits for events."""

    def check(self, ref: bool = True, priority: int | None = None) -> Any:
        """Return a watcher that fires after the loop has waited for events."""

    def fork(self, ref: bool = True, priority: int | None = None) -> Any:
        """Return a watcher that fires in the child after a fork."""

    def async_(self, ref: bool = True, priority: int | None = None) -> Any:
        """Return a watcher that other threads can fire."""

    def child(self, pid: int, trace: int = 0, ref: bool = True) -> Any:
        """Return a watcher for the end of the child process *pid*, of any child if 0."""

    def stat(self, path: str, interval: float = 0.0, ref: bool = True, priority: int | None = None) -> Any:
        """Return a watcher that looks at *path* every *interval* seconds and fires when it has changed."""

    def run_callback(self, func: Callable[..., object], *args: Any) -> Any:
        """Have *func* called in the hub, in order of these calls; return an :class:`ICallback`."""

    def run_callback_threadsafe(self, func: Callable[..., object], *args: Any) -> Any:
        """The same, from any thread."""


def _as_zope_interfaces() -> None:
    """Replace the protocols by interfaces of zope.interface with the same members, if it is installed."""
    try:
        from zope.interface import Attribute, Interface, classImplements
        from zope.interface.interface import InterfaceClass, fromFunction
    except ImportError:
        return
    for protocol in (IWatcher, ICallback, ILoop):
        members: dict[str, Any] = {name: Attribute(name) for name in inspect.get_annotations(protocol)}
        for name, function in vars(protocol).items():
            if inspect.isfunction(function) and not name.startswith("_"):
                # the first argument is self, which zope's interfaces leave out
                members[name] = fromFunction(function, imlevel=1)
        name = protocol.__name__
        globals()[name] = InterfaceClass(name, (Interface,), members, protocol.__doc__, __name__)
    classImplements(loop, ILoop)
    classImplements(Callback, ICallback)


_as_zope_interfaces()
