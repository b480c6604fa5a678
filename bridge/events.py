"""Publish and subscribe: what happens in the life of the process, told to whoever asked.

An event is an object; a subscriber is a function of one argument, the event, in the list `subscribers`.
Where ``zope.event`` is installed, `subscribers` and `notify` are its own, so that frameworks built on it
hear of our events. Where ``zope.interface`` is installed, the interfaces here are interfaces in its sense
and the events implement them; without it they are small classes that describe the same, and whose
``providedBy`` and ``implementedBy`` answer the same. Neither package is needed.

Subscribers run where the event happens, in the order of the list; one that raises stops the others, and
its exception goes to whoever published the event.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

__all__ = [
    "DoNotPatch",
    "EventLoopBlocked",
    "GeventDidPatchAllEvent",
    "GeventDidPatchBuiltinModulesEvent",
    "GeventDidPatchModuleEvent",
    "GeventPatchEvent",
    "GeventWillPatchAllEvent",
    "GeventWillPatchEvent",
    "GeventWillPatchModuleEvent",
    "IEventLoopBlocked",
    "IGeventDidPatchAllEvent",
    "IGeventDidPatchBuiltinModulesEvent",
    "IGeventDidPatchEvent",
    "IGeventDidPatchModuleEvent",
    "IGeventPatchEvent",
    "IGeventWillPatchAllEvent",
    "IGeventWillPatchEvent",
    "IGeventWillPatchModuleEvent",
    "IMemoryUsageThresholdExceeded",
    "IMemoryUsageUnderThreshold",
    "IPeriodicMonitorThread",
    "IPeriodicMonitorThreadStartedEvent",
    "MemoryUsageThresholdExceeded",
    "MemoryUsageUnderThreshold",
    "PeriodicMonitorThreadStartedEvent",
    "subscribers",
]

C = TypeVar("C", bound=type)

# -- interfaces without zope.interface -----------------------------------------------------------------


class Attribute:
    """An attribute that an interface promises, with what it means."""

    def __init__(self, __doc__: str) -> None:
        self.__doc__ = __doc__


class Interface:
    """The root of the interfaces."""

    @classmethod
    def implementedBy(cls, implementation: type) -> bool:
        """Whether the instances of a class have this interface."""
        declared: set[type] = set()
        for base in implementation.__mro__:
            declared.update(vars(base).get("__bridge_implements__", ()))
        return any(issubclass(interface, cls) for interface in declared)

    @classmethod
    def providedBy(cls, obj: object) -> bool:
        """Whether an object has this interface."""
        return cls.implementedBy(type(obj))


def implementer(*interfaces: type) -> Callable[[C], C]:
    """A class decorator: the instances have these interfaces."""

    def declare(cls: C) -> C:
        cls.__bridge_implements__ = interfaces  # type: ignore[attr-defined]
        return cls

    return declare


if not TYPE_CHECKING:
    try:
        from zope.interface import Attribute, Interface, implementer
    except ImportError:
        pass

# -- publishing ----------------------------------------------------------------------------------------

#: The functions that are called with each event.
subscribers: list[Callable[[Any], object]] = []


def notify(event: object) -> None:
    """Call each of the `subscribers` with ``event``."""
    for subscriber in subscribers:
        subscriber(event)


if not TYPE_CHECKING:
    try:
        from zope.event import notify, subscribers
    except ImportError:
        pass


def notify_and_call_entry_points(event: Any) -> None:
    """`notify`, and then call what installed packages registered for this kind of event.

    A package registers a function of one argument, the event, as an entry point in the group
    ``event.ENTRY_POINT_NAME``, which is gevent's, or in the same group with ``bridge`` in place of
    ``gevent``; one that is in both is called once.
    """
    notify(event)
    group: str = event.ENTRY_POINT_NAME
    entry_points = _find_entry_points()
    seen: set[str] = set()
    for name in (group, group.replace("gevent.", "bridge.", 1)):
        for entry_point in entry_points.get(name, ()):
            if entry_point.value.startswith("gevent."):
                continue  # the original's own, if that is installed too: what it is for is done by us
            if entry_point.value not in seen:
                seen.add(entry_point.value)
                entry_point.load()(event)


#: The value of ``sys.path`` and the entry points that were found then, by group. To patch publishes dozens
#: of events, and a look at all that is installed takes milliseconds.
_entry_points: tuple[list[str], dict[str, tuple[Any, ...]]] | None = None


def _find_entry_points() -> dict[str, tuple[Any, ...]]:
    global _entry_points
    if _entry_points is None or _entry_points[0] != sys.path:
        path, by_group = list(sys.path), {}
        if any(_may_have_plugins(folder) for folder in path):
            # Costs 20 ms: not before it has something to find.
            from importlib.metadata import entry_points

            found = entry_points()
            groups = [name for name in found.groups if name.startswith(_GROUPS)]
            by_group = {name: tuple(found.select(group=name)) for name in groups}
        _entry_points = (path, by_group)
    return _entry_points[1]


_GROUPS = ("gevent.plugins.", "bridge.plugins.")


def _may_have_plugins(folder: str) -> bool:
    """Whether a package in a folder of ``sys.path`` may have entry points for us; in an archive it may."""
    try:
        names = os.listdir(folder or ".")
    except NotADirectoryError:
        return True
    except OSError:
        return False
    for name in names:
        if name.endswith(".egg"):
            return True
        if name.endswith((".dist-info", ".egg-info")):
            try:
                with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                    text = file.read()
            except OSError:
                continue
            if any(group in text for group in _GROUPS):
                return True
    return False


# -- monitoring ----------------------------------------------------------------------------------------


class IPeriodicMonitorThread(Interface):
    """The thread that watches a hub."""

    def add_monitoring_function(function: Any, period: Any) -> Any:
        """Call ``function(hub)`` about every ``period`` seconds.

        It is called in the monitoring thread, not in the hub's: it must not use anything that blocks a
        greenlet. For a function that is called already this changes the period; None removes it.
        Raises `ValueError` if ``period`` is not above zero.
        """


class IPeriodicMonitorThreadStartedEvent(Interface):
    """A hub has started its monitoring thread. The occasion to add monitoring functions of one's own."""

    monitor = Attribute("The `IPeriodicMonitorThread` that was started.")


@implementer(IPeriodicMonitorThreadStartedEvent)
class PeriodicMonitorThreadStartedEvent:
    """What implements `IPeriodicMonitorThreadStartedEvent`."""

    #: Its group of entry points.
    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.hub.periodic_monitor_thread_started"

    def __init__(self, monitor: Any) -> None:
        self.monitor = monitor

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.monitor!r}>"


class IEventLoopBlocked(Interface):
    """A loop has been blocked for too long. Published in the monitoring thread."""

    greenlet = Attribute("The greenlet that seems to block the loop.")
    blocking_time = Attribute("For how many seconds, about, the loop has been blocked.")
    info = Attribute("Lines that say more, in a list; subscribers may change it.")
    hub = Attribute("The hub that is blocked, or None.")


@implementer(IEventLoopBlocked)
class EventLoopBlocked:
    """What implements `IEventLoopBlocked`."""

    def __init__(self, greenlet: Any, blocking_time: float, info: list[str], *, hub: Any = None) -> None:
        self.greenlet = greenlet
        self.blocking_time = blocking_time
        self.info = info
        self.hub = hub

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.greenlet!r} for {self.blocking_time}s>"


class IMemoryUsageThresholdExceeded(Interface):
    """The process uses more memory than ``config.max_memory_usage``. Published in the monitoring thread.

    Published again only while usage goes on growing, or after it was below the limit once more.
    """

    mem_usage = Attribute("How many bytes the process uses.")
    max_allowed = Attribute("How many bytes it may use.")
    memory_info = Attribute("The tuple of numbers that psutil gave.")


class IMemoryUsageUnderThreshold(Interface):
    """Memory usage was above ``config.max_memory_usage`` and is below it now.

    Published in the monitoring thread, once for each `IMemoryUsageThresholdExceeded` or series of them.
    """

    mem_usage = Attribute("How many bytes the process uses.")
    max_allowed = Attribute("How many bytes it may use.")
    max_memory_usage = Attribute("How many bytes it used when it was last found above the limit.")
    memory_info = Attribute("The tuple of numbers that psutil gave.")


class _AbstractMemoryEvent:
    def __init__(self, mem_usage: int, max_allowed: int, memory_info: Any) -> None:
        self.mem_usage = mem_usage
        self.max_allowed = max_allowed
        self.memory_info = memory_info

    def __repr__(self) -> str:
        numbers = f"used={self.mem_usage} max={self.max_allowed}"
        return f"<{type(self).__name__} {numbers} details={self.memory_info!r}>"


@implementer(IMemoryUsageThresholdExceeded)
class MemoryUsageThresholdExceeded(_AbstractMemoryEvent):
    """What implements `IMemoryUsageThresholdExceeded`."""


@implementer(IMemoryUsageUnderThreshold)
class MemoryUsageUnderThreshold(_AbstractMemoryEvent):
    """What implements `IMemoryUsageUnderThreshold`."""

    def __init__(self, mem_usage: int, max_allowed: int, memory_info: Any, max_usage: int) -> None:
        super().__init__(mem_usage, max_allowed, memory_info)
        self.max_memory_usage = max_usage


# -- patching ------------------------------------------------------------------------------------------


class IGeventPatchEvent(Interface):
    """The root of everything published about monkey patching."""

    source = Attribute("What the replacements are taken from.")
    target = Attribute("What is patched.")


class IGeventWillPatchEvent(IGeventPatchEvent):
    """Something is about to be patched; a subscriber that raises `DoNotPatch` prevents it."""


class IGeventDidPatchEvent(IGeventPatchEvent):
    """Something has been patched."""


class IGeventWillPatchModuleEvent(IGeventWillPatchEvent):
    """A module is about to be patched. ``source`` and ``target`` are modules."""

    module_name = Attribute("The name of the module: ``target.__name__``.")
    target_item_names = Attribute("The names that will be replaced, in a list; it may be changed, with care.")


class IGeventDidPatchModuleEvent(IGeventDidPatchEvent):
    """A module has been patched. ``source`` and ``target`` are modules."""

    module_name = Attribute("The name of the module: ``target.__name__``.")


class IGeventWillPatchAllEvent(IGeventWillPatchEvent):
    """``patch_all()`` begins. A subscriber that raises `DoNotPatch` prevents all of it.

    What follows: an `IGeventWillPatchModuleEvent` and an `IGeventDidPatchModuleEvent` for each module,
    one `IGeventDidPatchBuiltinModulesEvent`, and at the very end `IGeventDidPatchAllEvent`. ``source``
    and ``target`` mean nothing.
    """

    patch_all_arguments = Attribute("All arguments of ``patch_all``, by name; not to be changed.")
    patch_all_kwargs = Attribute("Those arguments that ``patch_all`` does not know; not to be changed.")

    def will_patch_module(module_name: Any) -> Any:
        """Whether the module of that name will be patched."""


class IGeventDidPatchBuiltinModulesEvent(IGeventDidPatchEvent):
    """The standard library has been patched: the time to patch other packages.

    ``source`` and ``target`` mean nothing.
    """

    patch_all_arguments = Attribute("All arguments of ``patch_all``, by name; not to be changed.")
    patch_all_kwargs = Attribute("Those arguments that ``patch_all`` does not know; not to be changed.")


class IGeventDidPatchAllEvent(IGeventDidPatchEvent):
    """All modules are patched, and all that subscribers patched themselves.

    ``source`` and ``target`` mean nothing.
    """


class DoNotPatch(BaseException):
    """Raised by a subscriber of an event that announces a patch, to prevent it."""


@implementer(IGeventPatchEvent)
class GeventPatchEvent:
    """What implements `IGeventPatchEvent`."""

    def __init__(self, source: Any, target: Any) -> None:
        self.source = source
        self.target = target

    def __repr__(self) -> str:
        return f"<{type(self).__name__} source={self.source!r} target={self.target!r} at {id(self):x}>"


@implementer(IGeventWillPatchEvent)
class GeventWillPatchEvent(GeventPatchEvent):
    """What implements `IGeventWillPatchEvent`."""


@implementer(IGeventDidPatchEvent)
class GeventDidPatchEvent(GeventPatchEvent):
    """What implements `IGeventDidPatchEvent`."""


@implementer(IGeventWillPatchModuleEvent)
class GeventWillPatchModuleEvent(GeventWillPatchEvent):
    """What implements `IGeventWillPatchModuleEvent`."""

    #: Its group of entry points.
    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.will_patch_module"

    def __init__(self, module_name: str, source: Any, target: Any, items: list[str]) -> None:
        super().__init__(source, target)
        self.module_name = module_name
        self.target_item_names = items


@implementer(IGeventDidPatchModuleEvent)
class GeventDidPatchModuleEvent(GeventDidPatchEvent):
    """What implements `IGeventDidPatchModuleEvent`."""

    #: Its group of entry points.
    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.did_patch_module"

    def __init__(self, module_name: str, source: Any, target: Any) -> None:
        super().__init__(source, target)
        self.module_name = module_name


class _PatchAllMixin(GeventPatchEvent):
    def __init__(self, patch_all_arguments: Mapping[str, Any], patch_all_kwargs: Mapping[str, Any]) -> None:
        super().__init__(None, None)
        self._patch_all_arguments = patch_all_arguments
        self._patch_all_kwargs = patch_all_kwargs

    @property
    def patch_all_arguments(self) -> dict[str, Any]:
        """All arguments of ``patch_all``, by name; a copy."""
        return dict(self._patch_all_arguments)

    @property
    def patch_all_kwargs(self) -> dict[str, Any]:
        """Those arguments of ``patch_all`` that it does not know, by name; a copy."""
        return dict(self._patch_all_kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._patch_all_arguments!r} at {id(self):x}>"


@implementer(IGeventWillPatchAllEvent)
class GeventWillPatchAllEvent(_PatchAllMixin, GeventWillPatchEvent):
    """What implements `IGeventWillPatchAllEvent`."""

    #: Its group of entry points.
    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.will_patch_all"

    def will_patch_module(self, module_name: str) -> bool:
        """Whether the module of that name will be patched."""
        return bool(self._patch_all_arguments.get(module_name))


@implementer(IGeventDidPatchBuiltinModulesEvent)
class GeventDidPatchBuiltinModulesEvent(_PatchAllMixin, GeventDidPatchEvent):
    """What implements `IGeventDidPatchBuiltinModulesEvent`."""

    #: Its group of entry points.
    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.did_patch_builtins"


@implementer(IGeventDidPatchAllEvent)
class GeventDidPatchAllEvent(_PatchAllMixin, GeventDidPatchEvent):
    """What implements `IGeventDidPatchAllEvent`."""

    #: Its group of entry points.
    ENTRY_POINT_NAME: ClassVar[str] = "gevent.plugins.monkey.did_patch_all"
