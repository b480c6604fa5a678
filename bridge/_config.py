"""Settings: ``bridge.config``, an object of `Config` with one attribute per setting.

A setting is read from the environment the first time its attribute is read: from ``BRIDGE_X``, else from
gevent's ``GEVENT_X``, else it has its default. Assigning to the attribute overrides that (strings are
converted as those of the environment are), deleting it goes back to environment and default.
``python -m bridge._config`` lists all settings.

Reading a setting costs as much as reading any attribute: the value, once it is known, is kept in the
instance, and greenlets ask for two settings each time one is made. This module imports nothing heavy;
what a setting names (a loop, a resolver) is imported when the setting is first read.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ._settings import (  # noqa: F401 - all kinds are found here, as in gevent
    ALL_SETTINGS,
    BoolSettingMixin,
    ByteCountSettingMixin,
    FloatSettingMixin,
    ImportableSetting,
    IntSettingMixin,
    InvalidChoice,
    Setting,
    _dedent,
    _import_module,
    _names,
    _number,
    _PositiveValueMixin,
    validate_anything,
    validate_bool,
    validate_invalid,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["config"]

# -- loops ---------------------------------------------------------------------------------------------

LOOPS = {"uvloop": "uvloop:Loop", "asyncio": "asyncio:SelectorEventLoop"}
# What GEVENT_LOOP may say on a machine that is set up for gevent: no preference among asyncio loops.
_GEVENT_LOOPS = ("libev-cext", "libev-cffi", "libuv-cffi", "libuv")
_DEFAULT_LOOPS = ("uvloop", "asyncio")


def resolve_loop(choice: Any = None) -> Callable[[], AbstractEventLoop]:
    """The function without arguments that makes the asyncio loop named by ``choice``.

    ``choice``: ``"uvloop"``, ``"asyncio"``, ``"module:factory"``, several of them separated by commas or
    in a list (the first that can be imported is used), such a function itself, or None for the default:
    uvloop where it is installed, else asyncio. Raises `InvalidChoice` (a `ValueError`).
    """
    if choice is not None and not isinstance(choice, (str, list, tuple)):
        if not callable(choice):
            raise InvalidChoice(f"{choice!r} is neither the name of a loop nor a function that makes one")
        return choice  # type: ignore[no-any-return]
    candidates: list[Any] = []
    for name in _names(choice) or _DEFAULT_LOOPS:
        candidates.extend(_DEFAULT_LOOPS if name in _GEVENT_LOOPS else (name,))
    importer = ImportableSetting()
    importer.shortname_map = LOOPS
    try:
        found = importer.validate(candidates)
    except ImportError as ex:
        raise InvalidChoice(f"{ex}; choose uvloop, asyncio or module:factory") from ex
    if not callable(found):
        raise InvalidChoice(f"{choice!r} is {found!r}, not a function that makes a loop")
    return found  # type: ignore[no-any-return]


class Loop(ImportableSetting):
    name = "loop"
    environment_key = "GEVENT_LOOP"
    default: Any = list(_DEFAULT_LOOPS)  # noqa: RUF012
    shortname_map: dict[str, str] = LOOPS
    kind_desc = (
        "It is set to ``uvloop``, ``asyncio``, ``module:factory``, a list of these of which the first that "
        "can be imported is used, a function that makes an asyncio loop, or a class with gevent's loop API. "
        "gevent's own names (``libev-cext``, ``libuv`` …) are accepted and mean the default."
    )
    desc = """
    The asyncio loop on which hubs run that find no loop running.

    Reading it gives the class with gevent's loop API, whose instances stand on such a loop:
    ``config.loop(default=False)`` makes one. :attr:`aio_loop_factory` is the asyncio loop's own maker.
    """

    _factory: Callable[[], AbstractEventLoop] | None = None

    def get_options(self) -> dict[str, Any]:
        """Each name with the class that `get` would return, or with the exception that stands against it."""
        options: dict[str, Any] = {}
        for name in (*LOOPS, *_GEVENT_LOOPS):
            try:
                if name in _GEVENT_LOOPS:
                    raise ImportError(f"there is no loop {name!r} in bridge, which runs on asyncio loops")
                resolve_loop(name)
                options[name] = self.get()
            except ImportError as ex:
                options[name] = ex
        return options

    def set(self, value: Any) -> None:
        if isinstance(value, type) and hasattr(value, "run_callback"):
            super().set(value)
            return
        try:
            self._factory = resolve_loop(value)
        except InvalidChoice as ex:
            raise InvalidChoice(f"config.loop = {value!r}: {ex}") from ex
        self._changed()

    def reset(self) -> None:
        self._factory = None
        super().reset()

    def aio_factory(self) -> Callable[[], AbstractEventLoop]:
        """The function that makes the asyncio loop. Raises `InvalidChoice`, naming the variable."""
        if self._factory is None:
            found = self._environment()
            key, text = found if found is not None and found[1].strip() else ("", None)
            try:
                self._factory = resolve_loop(text)
            except InvalidChoice as ex:
                raise InvalidChoice(f"{key}={text!r}: {ex}") from ex
        return self._factory

    def _default(self) -> Any:
        return importlib.import_module("bridge._core.loop").loop

    def _changed(self) -> None:
        super()._changed()
        if self.owner is not None:
            self.owner.__dict__.pop("aio_loop_factory", None)


class AioLoopFactory(ImportableSetting):
    name = "aio_loop_factory"
    kind_desc = "It is set to whatever :attr:`loop` may be set to, and overrides that."
    desc = "The function without arguments that makes an asyncio loop: what :attr:`loop` names."

    def _default(self) -> Any:
        loop = self.owner.settings["loop"] if self.owner is not None else Loop()
        assert isinstance(loop, Loop)
        return loop.aio_factory()

    def get(self) -> Any:
        # Not kept here: it follows config.loop for as long as it is not set itself.
        return self.__dict__["value"] if "value" in self.__dict__ else self._default()

    def validate(self, value: Any) -> Any:
        return resolve_loop(value)


# -- the settings --------------------------------------------------------------------------------------


class Resolver(ImportableSetting):
    name = "resolver"
    environment_key = "GEVENT_RESOLVER"
    default: Any = ["thread", "dnspython", "ares", "block"]  # noqa: RUF012
    shortname_map: dict[str, str] = {  # noqa: RUF012
        "ares": "bridge.resolver.ares.Resolver",
        "thread": "bridge.resolver.thread.Resolver",
        "block": "bridge.resolver.blocking.Resolver",
        "dnspython": "bridge.resolver.dnspython.Resolver",
    }
    desc = "What makes ``hub.resolver``, which looks up names of hosts."


class Threadpool(ImportableSetting):
    name = "threadpool"
    environment_key = "GEVENT_THREADPOOL"
    default: Any = "bridge.threadpool.ThreadPool"
    desc = "What makes ``hub.threadpool``, in which blocking calls run."


class ThreadpoolIdleTaskTimeout(FloatSettingMixin):
    name = "threadpool_idle_task_timeout"
    environment_key = "GEVENT_THREADPOOL_IDLE_TASK_TIMEOUT"
    default: Any = 5.0
    desc = """
    How many seconds a thread of the hub's thread pool may be idle before it ends. -1: for ever.
    """

    def validate(self, value: Any) -> Any:
        return value if value == -1 else super().validate(value)


class FormatContext(ImportableSetting):
    name = "format_context"
    environment_key = "GEVENT_FORMAT_CONTEXT"
    default: Any = "pprint.saferepr"
    desc = "The function that makes a string of the context in which an error happened, to print it."


class LibevBackend(Setting):
    name = "libev_backend"
    environment_key = "GEVENT_BACKEND"
    desc = "Which system call libev would poll with. Kept for gevent's sake; asyncio loops choose themselves."


class FileObject(ImportableSetting):
    name = "fileobject"
    environment_key = "GEVENT_FILE"
    default: Any = ["posix", "thread"]  # noqa: RUF012
    shortname_map: dict[str, str] = {  # noqa: RUF012
        "thread": "bridge.fileobject.FileObjectThread",
        "posix": "bridge.fileobject.FileObjectPosix",
        "block": "bridge.fileobject.FileObjectBlock",
    }
    desc = "The class behind ``bridge.fileobject.FileObject``."


class WatchChildren(BoolSettingMixin):
    name = "disable_watch_children"
    environment_key = "GEVENT_NOWAITPID"
    default: Any = False
    desc = """
    Leave child processes alone: ``bridge.os`` then has no ``fork_and_watch`` and a plain ``waitpid``.
    """


class TraceMalloc(IntSettingMixin):
    name = "trace_malloc"
    environment_key = "PYTHONTRACEMALLOC"
    default: Any = False
    desc = "Whether Python was told to trace allocations. Kept for gevent's sake; it changes nothing here."


class TrackGreenletTree(BoolSettingMixin):
    name = "track_greenlet_tree"
    environment_key = "GEVENT_TRACK_GREENLET_TREE"
    default: Any = True
    desc = """
    Whether each greenlet remembers who spawned it and where: ``spawning_greenlet``, ``spawn_tree_locals``
    and ``spawning_stack``. Without it spawning is faster and takes less memory.
    """


class InheritContext(BoolSettingMixin):
    name = "inherit_context"
    environment_key = "BRIDGE_INHERIT_CONTEXT"
    default: Any = True
    desc = """
    Whether a greenlet runs in a copy of the `contextvars` context that spawned it, as an asyncio task does.
    If not it starts with an empty one, as in gevent; so it is in drop-in mode.
    """


class MonitorThread(BoolSettingMixin):
    name = "monitor_thread"
    environment_key = "GEVENT_MONITOR_THREAD_ENABLE"
    default: Any = False
    desc = """
    Whether each hub starts a thread, when it first runs, that watches it for trouble: a loop blocked for
    longer than :attr:`max_blocking_time` is reported on the hub's exception stream and to
    `bridge.events`. ``hub.start_periodic_monitoring_thread()`` starts it by hand.
    """


class MonitorClass(ImportableSetting):
    name = "monitor_class"
    environment_key = "BRIDGE_MONITOR_CLASS"
    default: Any = "bridge._monitor.PeriodicMonitoringThread"
    desc = "What makes the monitoring thread of a hub; it is called with the hub."


class MaxBlockingTime(FloatSettingMixin):
    name = "max_blocking_time"
    environment_key = "GEVENT_MAX_BLOCKING_TIME"
    default: Any = 0.1
    desc = """
    With :attr:`monitor_thread`: about how many seconds the loop may be blocked before it is reported.
    The monitor uses ``greenlet.settrace``: a trace function that was there before is still called, one
    that is installed later takes its place, and then there are no reports.
    """


class PrintBlockingReports(BoolSettingMixin):
    name = "print_blocking_reports"
    environment_key = "GEVENT_MONITOR_PRINT_BLOCKING_REPORTS"
    default: Any = True
    desc = "Whether the monitoring thread prints its report of a blocked loop. Events are sent in any case."


class MonitorMemoryPeriod(FloatSettingMixin):
    name = "memory_monitor_period"
    environment_key = "GEVENT_MONITOR_MEMORY_PERIOD"
    default: Any = 5
    desc = """
    With :attr:`monitor_thread`: about how many seconds lie between two looks at the memory in use. That
    look is not cheap, so there is a lower limit.
    """


class MonitorMemoryMaxUsage(ByteCountSettingMixin):
    name = "max_memory_usage"
    environment_key = "GEVENT_MONITOR_MEMORY_MAX"
    desc = """
    With :attr:`monitor_thread`: how many bytes of memory the process may use before events are sent (see
    `bridge.events`). As a string with ``kb``, ``mb`` or ``gb`` behind the number. None: no limit.
    """


class AresSettingMixin(Setting):
    """A setting of the c-ares resolver."""

    @property
    def kwarg_name(self) -> str:
        """The name of the resolver's argument."""
        return self.name.partition("_")[2]

    def _convert(self, value: Any) -> Any:
        return _number(value, int)


class AresFlags(AresSettingMixin):
    name = "ares_flags"
    environment_key = "GEVENTARES_FLAGS"
    desc = "The flags of the ares resolver, a number."


class AresTimeout(AresSettingMixin):
    name = "ares_timeout"
    environment_key = "GEVENTARES_TIMEOUT"
    desc = "How many seconds the ares resolver waits. Deprecated in favour of :attr:`resolver_timeout`."

    def _convert(self, value: Any) -> Any:
        return _number(value, float)


class AresTries(AresSettingMixin):
    name = "ares_tries"
    environment_key = "GEVENTARES_TRIES"
    desc = "How often the ares resolver asks each server."


class AresNdots(AresSettingMixin):
    name = "ares_ndots"
    environment_key = "GEVENTARES_NDOTS"
    desc = "How many dots a name needs for the ares resolver to look it up as it is first."


class AresUDPPort(AresSettingMixin):
    name = "ares_udp_port"
    environment_key = "GEVENTARES_UDP_PORT"
    desc = "The UDP port that the ares resolver asks."


class AresTCPPort(AresSettingMixin):
    name = "ares_tcp_port"
    environment_key = "GEVENTARES_TCP_PORT"
    desc = "The TCP port that the ares resolver asks."


class AresServers(AresSettingMixin):
    name = "ares_servers"
    environment_key = "GEVENTARES_SERVERS"
    desc = """
    The addresses of the servers that the ares resolver asks, a list of strings (in the environment:
    separated by commas). Deprecated in favour of :attr:`resolver_nameservers`.
    """

    def _convert(self, value: Any) -> Any:
        return _names(value)


class ResolverNameservers(AresSettingMixin):
    name = "resolver_nameservers"
    environment_key = "GEVENT_RESOLVER_NAMESERVERS"
    desc = """
    The addresses of the servers that the dnspython and ares resolvers ask, a list of strings (in the
    environment: separated by commas), in place of those the system is configured with. The thread and
    block resolvers, which are the system's own, take no notice.
    """

    @property
    def kwarg_name(self) -> str:
        return "servers"

    def _convert(self, value: Any) -> Any:
        return _names(value)


class ResolverTimeout(FloatSettingMixin, AresSettingMixin):
    name = "resolver_timeout"
    environment_key = "GEVENT_RESOLVER_TIMEOUT"
    desc = "How many seconds the dnspython and ares resolvers spend on one lookup. The others ignore it."


def make_settings() -> dict[str, Setting]:
    """A new object of each class of setting, by name."""
    return {cls.name: cls() for cls in ALL_SETTINGS}


class Config:
    """All settings as attributes; see the module's text. ``settings`` has the `Setting` objects by name."""

    settings: dict[str, Setting]

    loop: Any
    aio_loop_factory: Callable[[], AbstractEventLoop]
    resolver: Any
    threadpool: Any
    threadpool_idle_task_timeout: float
    format_context: Callable[[object], str]
    libev_backend: str | None
    fileobject: Any
    disable_watch_children: bool
    trace_malloc: int
    track_greenlet_tree: bool
    inherit_context: bool
    monitor_thread: bool
    monitor_class: Any
    max_blocking_time: float
    print_blocking_reports: bool
    memory_monitor_period: float
    max_memory_usage: int | None
    ares_flags: int | None
    ares_timeout: float | None
    ares_tries: int | None
    ares_ndots: int | None
    ares_udp_port: int | None
    ares_tcp_port: int | None
    ares_servers: list[str] | None
    resolver_nameservers: list[str] | None
    resolver_timeout: float | None

    def __init__(self) -> None:
        settings = self.__dict__["settings"] = make_settings()
        for setting in settings.values():
            setting.owner = self

    def __getattr__(self, name: str) -> Any:
        settings: dict[str, Setting] = self.__dict__.get("settings", {})
        setting = settings.get(name)
        if setting is None:
            raise _no_setting(name, settings)
        value = self.__dict__[name] = setting.get()
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.settings:
            self.set(name, value)
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.settings:
            self.settings[name].reset()
        else:
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return list(self.settings)

    def set(self, name: str, value: Any) -> None:
        """Assign ``value`` to the setting ``name``.

        Raises `AttributeError` if there is no such setting and `ValueError` if the value is not valid.
        """
        if name not in self.settings:
            raise _no_setting(name, self.settings)
        self.settings[name].set(value)

    def print_help(self, write: Callable[[str], object] = print) -> None:
        """Print each setting's name and description."""
        for setting in sorted(self.settings.values(), key=lambda each: each.order):
            write(setting.name)
            for line in setting.desc.splitlines():
                write(f"    {line}" if line else "")
            write("")


def _no_setting(name: str, settings: Iterable[str]) -> AttributeError:
    return AttributeError(f"No configuration setting for: {name!r}; there are: {', '.join(settings)}")


config = Config()

if __name__ == "__main__":
    # The module python runs as __main__ is a second copy of the one that everybody imports.
    importlib.import_module("bridge._config").config.print_help()
