"""Drop-in mode: the name `gevent` stands for bridge.

Theory of operation
===================

:func:`install_as_gevent` puts one finder in front of ``sys.meta_path``. It answers for three kinds of
names and leaves all others, and the loading of files, to the import system:

1. ``gevent`` itself is the ordinary package in the folder ``compat/gevent``, found by the ordinary
   path finder. So ``__file__``, ``__spec__``, ``__path__`` and reloading are what they always are.
2. ``gevent.X``, where gevent has a module X and bridge has it too, is the *same module object* as
   ``bridge.X``: a patch or an ``isinstance`` test made through one name holds for the other.
3. Below such a module (``gevent.monkey.api``) whatever bridge has counts. Otherwise python would find the
   file through ``gevent.monkey.__path__`` and load it a second time, with a state of its own.

Everything else, ``gevent.coros`` for instance, python finds by itself through ``gevent.__path__``, to which
anybody may append. A module that bridge happens to have and gevent has not stays out of the way there.

*Other processes.* A program that multiprocessing starts anew (spawn, forkserver) imports the main module
again, and with it gevent. What the parent sends to the child therefore carries one thing more, which
puts the child into drop-in mode as it is unpickled, before the main module is imported. Before that, too,
gevent may be imported there: by modules that the fork server is told to preload, or by what a plugin has
put in front of the command. So where a command is a list and needs no quoting (everywhere but on Windows)
it begins with the same step.

*gunicorn's worker.* ``gunicorn -k gevent`` names a worker, not a module: one whose own parser takes ten times
as long as anything it asks of gevent, so that it would be as slow on bridge as it is on gevent. In drop-in
mode the name stands for bridge's worker, as `gevent` does everywhere; gunicorn's is there by its full name.

The way not taken: one loop over ``sys.modules`` at installation. It would import everything, and would
make every program look as if it had imported gevent, which libraries test for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from ._imports import after_import

if TYPE_CHECKING:
    # 8 ms at run time: it imports importlib.resources, tempfile and zipfile
    from importlib.abc import InspectLoader, Loader, MetaPathFinder
else:
    InspectLoader = Loader = MetaPathFinder = object

__all__ = ["install_as_gevent", "is_installed"]

#: The modules of gevent 26.9 that bridge gives to `gevent` when it has them: all public ones, and those
#: private ones whose names and contents bridge keeps for the sake of libraries that import them.
SHARED = frozenset(
    [
        "ares",
        "backdoor",
        "baseserver",
        "builtins",
        "contextvars",
        "core",
        "event",
        "events",
        "exceptions",
        "fileobject",
        "greenlet",
        "hub",
        "local",
        "lock",
        "monkey",
        "os",
        "pool",
        "pywsgi",
        "queue",
        "resolver",
        "resolver_ares",
        "resolver_thread",
        "select",
        "selectors",
        "server",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "thread",
        "threading",
        "threadpool",
        "time",
        "timeout",
        "util",
        "win32util",
        "_config",
        "_ident",
        "_imap",
        "_monitor",
    ]
)


def install_as_gevent() -> None:
    """Make ``import gevent`` and ``import gevent.*`` give bridge, from now on and in the whole process.

    Wins over an installed gevent. ``gevent.queue is bridge.queue`` holds for every module that both
    have; submodules which bridge does not define are looked for in ``gevent.__path__``. Processes that
    multiprocessing starts are in drop-in mode too. ``asyncio.run()`` and second loops work in greenlets
    from then on. Sets ``bridge.config.inherit_context`` to false, since
    gevent's greenlets start with an empty context. Calling it again changes nothing.

    Raises RuntimeError if the real gevent is already imported. Does not block; callable from any thread
    and from coroutines, but meant for the first lines of a program.
    """
    installed = is_installed()
    real = _real_gevent(installed)
    if real is not None:
        raise RuntimeError(
            f"install_as_gevent(): {real!r} is already imported, and what has been taken from it would stay. "
            "Call bridge.install_as_gevent() before the first import of gevent, or start the program with "
            "`python -m bridge`."
        )
    if installed:
        return
    from bridge import config
    from bridge._aio.nested import install

    config.inherit_context = False
    install()
    if "gevent" in sys.modules and sys.modules["gevent"] is None:
        del sys.modules["gevent"]  # None forbids the import
    sys.meta_path.insert(0, _Finder())
    after_import("multiprocessing.spawn", _tell_children)
    after_import("multiprocessing.util", _begin_children)
    after_import("gunicorn.workers", _provide_worker)


def is_installed() -> bool:
    """Whether the name gevent stands for bridge. Does not block."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def _real_gevent(installed: bool) -> ModuleType | None:
    """Return a module of the real gevent, if there is one."""
    package = sys.modules.get("gevent")
    if package is not None:
        return None if getattr(package, "__file__", None) == _package_spec().origin else package
    if installed:
        return None
    # submodules without their package: an import that failed, or somebody emptied sys.modules
    return next((m for name, m in sys.modules.items() if name.startswith("gevent.") and m is not None), None)


def _package_spec() -> ModuleSpec:
    """Return the spec of the package `gevent` that is ours."""
    bridge = Path(__file__).parent
    # an installed wheel carries the folder inside bridge; a checkout has it beside bridge
    for folder in (bridge / "_compat", bridge.parent / "compat"):
        spec = PathFinder.find_spec("gevent", [str(folder)])
        if spec is not None and spec.loader is not None:
            return spec
    raise ModuleNotFoundError(
        f"the folder with bridge's gevent package is missing from {bridge}: install gevent-bridge anew",
        name="gevent",
    )


class _Finder(MetaPathFinder):
    """Answers for `gevent`, and for the modules that gevent and bridge both have."""

    def __init__(self) -> None:
        #: What is being answered for, while the others are asked.
        self.answers: dict[str, ModuleSpec] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.answers:
            return self.answers[fullname]
        spec = None
        if fullname.startswith("gevent."):
            spec = _alias(fullname)
        elif fullname == "gevent":
            spec = _package_spec()
        if spec is not None:
            self.answers[fullname] = spec
            try:
                self._show(spec, path, target)
            finally:
                del self.answers[fullname]
        return spec

    def _show(self, spec: ModuleSpec, path: Sequence[str] | None, target: ModuleType | None) -> None:
        """Let import hooks that were there before see this spec, and put a loader of theirs around its own.

        A tracer that was started before the program (`ddtrace-run`, `newrelic-admin`) waits for the import of
        gevent in a finder, which asks all finders for the spec. What it returns is not heeded: bridge wins.
        """
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :] if self in sys.meta_path else []
        for finder in behind:
            if isinstance(finder, type):
                break  # python's own, which are classes, and what is behind them
            if hasattr(finder, "find_spec") and finder.find_spec(spec.name, path, target) is spec:
                break


def _alias(fullname: str) -> ModuleSpec | None:
    """Return a spec that gives the module of bridge for ``gevent.X``, None if it is not to be bridge's."""
    parts = fullname.split(".")
    if parts[1] not in SHARED:
        return None
    if len(parts) > 2 and sys.modules.get(f"gevent.{parts[1]}") is not sys.modules.get(f"bridge.{parts[1]}"):
        return None
    try:
        real = find_spec("bridge" + fullname.removeprefix("gevent"))
    except ModuleNotFoundError:
        return None
    if real is None:
        return None
    spec = ModuleSpec(fullname, _Alias(real), origin=real.origin)
    spec.submodule_search_locations = real.submodule_search_locations
    return spec


class _StandIn(ModuleType):
    """What is done to it is done to the real module."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.__dict__["_real"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__dict__["_real"], name)


class _Alias(InspectLoader):
    """Loads ``gevent.X`` by putting ``bridge.X`` in its place."""

    def __init__(self, real: ModuleSpec) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # The import system takes from sys.modules what it finds there after this. Handing out the real
        # module from create_module() would have it write our spec into that module.
        sys.modules[module.__name__] = real = importlib.import_module(self.real.name)
        module.__class__ = _StandIn  # import hooks are shown this module, not the real one
        module.__dict__["_real"] = real
        # Tracebacks and logs name exceptions in full, and programs look for the word gevent in them.
        for value in tuple(vars(real).values()):
            if (
                isinstance(value, type)
                and issubclass(value, BaseException)
                and value.__module__ == real.__name__
            ):
                value.__module__ = module.__name__

    # runpy (`python -m gevent.monkey`), pkgutil and inspect ask for the rest

    def get_code(self, fullname: str) -> CodeType | None:
        return self._inspect().get_code(self.real.name)

    def get_source(self, fullname: str) -> str | None:
        return self._inspect().get_source(self.real.name)

    def is_package(self, fullname: str) -> bool:
        return self.real.submodule_search_locations is not None

    def _inspect(self) -> InspectLoader:
        loader: Any = self.real.loader
        if not hasattr(loader, "get_code"):
            raise ImportError(f"{loader!r} cannot show the code of {self.real.name}", name=self.real.name)
        return loader  # type: ignore[no-any-return]


def _tell_children(spawn: ModuleType) -> None:
    """Have multiprocessing put the processes that it starts anew into drop-in mode."""
    get_preparation_data = spawn.get_preparation_data
    if getattr(get_preparation_data, "__module__", None) == __name__:
        return

    def get_preparation_data_with_gevent(name: str) -> dict[str, Any]:
        data: dict[str, Any] = get_preparation_data(name)
        if sys._getframe(1).f_code.co_name == "ensure_running":
            # For the fork server itself, which gets these values on its command line. It may import the
            # main module beforehand, to save its children the time; that would be without us.
            data.pop("init_main_from_path", None)
            data.pop("init_main_from_name", None)
        else:
            data["gevent"] = _InChild(data.get("sys_path", sys.path))
        return data

    spawn.get_preparation_data = get_preparation_data_with_gevent  # type: ignore[attr-defined]


def _provide_worker(workers: Any) -> None:
    """Have gunicorn's name "gevent" for a worker stand for bridge's."""
    from gunicorn import version_info  # type: ignore[import-untyped]

    known = getattr(workers, "SUPPORTED_WORKERS", {})
    if version_info >= (23,) and known.get("gevent") == "gunicorn.workers.ggevent.GeventWorker":
        known["gevent"] = "bridge.gunicorn.BridgeWorker"


class _InChild:
    """Unpickling it calls install_as_gevent(), with the parent's ``sys.path``.

    Needs nothing but the standard library to be unpickled: the child has its own idea of ``sys.path`` until
    then, which need not lead to bridge.
    """

    def __init__(self, path: list[str]) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (_BEGIN.format(path=self.path), {})


#: What a child does first.
_BEGIN = "import sys; sys.path[:] = {path!r}; import bridge; bridge.install_as_gevent()"


def _begin_children(util: ModuleType) -> None:
    """Have the commands of the processes that multiprocessing starts anew begin with drop-in mode."""
    spawnv_passfds = util.spawnv_passfds
    if getattr(spawnv_passfds, "__module__", None) == __name__:
        return

    def spawnv_passfds_with_gevent(path: Any, args: Sequence[Any], passfds: Any) -> Any:
        return spawnv_passfds(path, _beginning_so(args), passfds)

    util.spawnv_passfds = spawnv_passfds_with_gevent  # type: ignore[attr-defined]


def _beginning_so(args: Sequence[Any]) -> list[Any]:
    """These arguments of an interpreter, with the step in front, if it is for a child or fork server."""
    command = list(args)
    for number, code in enumerate(command[1:], 1):
        if (
            command[number - 1] == "-c"
            and isinstance(code, str)
            and ("spawn_main" in code or "multiprocessing.forkserver" in code)
        ):
            # as multiprocessing tells its children
            here = sys.modules["multiprocessing.process"].ORIGINAL_DIR
            path = [here if entry == "" and here is not None else entry for entry in sys.path]
            command[number] = f"{_BEGIN.format(path=path)}\n{code}"
            break
    return command
