"""What can be imported, and how it may be called, is what gevent has."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import subprocess
import sys
from typing import Any

import pytest

import bridge
from bridge import Greenlet, Timeout
from bridge.hub import Hub, Waiter

pytestmark = pytest.mark.engines("none")

#: ``gevent.__all__``
GEVENT = {
    "Greenlet", "GreenletExit", "Timeout", "config", "fork", "get_hub", "getcurrent", "getswitchinterval",
    "idle", "iwait", "joinall", "kill", "killall", "reinit", "setswitchinterval", "signal_handler", "sleep",
    "spawn", "spawn_later", "spawn_raw", "wait", "with_timeout",
}  # fmt: skip

#: What bridge adds (DESIGN: Names).
OURS = {
    "async_context", "async_iter", "async_to_sync", "await_", "install_as_gevent", "install_task_factory",
    "portal", "run", "sync_to_async",
}  # fmt: skip

#: ``__all__`` of gevent's modules, or what they document where they have none.
MODULES = {
    "greenlet": {"Greenlet", "joinall", "killall"},
    "timeout": {"Timeout", "with_timeout"},
    "hub": {
        "GreenletExit", "Hub", "Waiter", "get_hub", "getcurrent", "kill", "reinit", "signal", "sleep",
        "spawn_raw",
    },
}  # fmt: skip

#: Names that programs and libraries import although they are in no ``__all__``.
USED = {
    "greenlet": {"SpawnedLink", "SuccessSpawnedLink", "FailureSpawnedLink", "getcurrent"},
    "hub": {
        "HubDestroyed", "LoopExit", "MAIN_THREAD_IDENT", "RawGreenlet", "TrackedRawGreenlet", "get_loop",
        "idle", "iwait", "set_default_hub_class", "set_hub", "set_loop", "wait", "IdentRegistry",
    },
    "exceptions": {
        "BlockingSwitchOutError", "ConcurrentObjectUseError", "GreenletExit", "HubDestroyed",
        "InvalidSwitchError", "InvalidThreadUseError", "LoopExit",
    },
}  # fmt: skip


def test_the_package_exports_gevent_s_names_and_its_own() -> None:
    assert set(bridge.__all__) == GEVENT | OURS
    assert len(bridge.__all__) == len(set(bridge.__all__))
    for name in bridge.__all__:
        assert getattr(bridge, name) is not None


@pytest.mark.parametrize("module", MODULES)
def test_modules_export_gevent_s_names(module: str) -> None:
    twin = importlib.import_module(f"bridge.{module}")
    assert set(twin.__all__) == MODULES[module]
    assert all(hasattr(twin, name) for name in twin.__all__)


@pytest.mark.parametrize("module", USED)
def test_names_that_others_import_are_there(module: str) -> None:
    twin = importlib.import_module(f"bridge.{module}")
    assert [name for name in sorted(USED[module]) if not hasattr(twin, name)] == []


def test_one_thing_is_the_same_under_all_its_names() -> None:
    assert bridge.Greenlet is bridge.greenlet.Greenlet
    assert bridge.Timeout is bridge.timeout.Timeout
    assert bridge.sleep is bridge.hub.sleep and bridge.kill is bridge.hub.kill
    assert bridge.GreenletExit is bridge.hub.GreenletExit is bridge.exceptions.GreenletExit
    assert bridge.hub.LoopExit is bridge.exceptions.LoopExit
    assert bridge.hub.signal is not None


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        bridge.nonsense  # noqa: B018


def parameters(function: Any) -> list[str]:
    """Names of parameters as in a call; stars are kept, defaults and annotations are not."""
    result = []
    for p in inspect.signature(function).parameters.values():
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        result.append(stars + p.name)
    return result


#: From gevent's documentation.
FUNCTIONS: dict[str, list[str]] = {
    "idle": ["priority"],
    "iwait": ["objects", "timeout", "count"],
    "joinall": ["greenlets", "timeout", "raise_error", "count"],
    "kill": ["greenlet", "exception"],
    "killall": ["greenlets", "exception", "block", "timeout"],
    "reinit": ["hub"],
    "signal_handler": ["signalnum", "handler", "*args", "**kwargs"],
    "sleep": ["seconds", "ref"],
    "spawn": ["*args", "**kwargs"],
    "spawn_later": ["seconds", "*args", "**kwargs"],
    "spawn_raw": ["function", "*args", "**kwargs"],
    "wait": ["objects", "timeout", "count"],
    "with_timeout": ["seconds", "function", "*args", "**kwds"],
    "get_hub": [],
}

METHODS: dict[type, dict[str, list[str]]] = {
    Greenlet: {
        "__init__": ["self", "run", "*args", "**kwargs"],
        "spawn": ["*args", "**kwargs"],
        "spawn_later": ["seconds", "*args", "**kwargs"],
        "start": ["self"],
        "start_later": ["self", "seconds"],
        "ready": ["self"],
        "successful": ["self"],
        "join": ["self", "timeout"],
        "get": ["self", "block", "timeout"],
        "kill": ["self", "exception", "block", "timeout"],
        "throw": ["self", "*args"],
        "has_links": ["self"],
        "link": ["self", "callback", "SpawnedLink"],
        "link_value": ["self", "callback", "SpawnedLink"],
        "link_exception": ["self", "callback", "SpawnedLink"],
        "rawlink": ["self", "callback"],
        "unlink": ["self", "callback"],
        "unlink_all": ["self"],
        "run": ["self"],
        "_run": ["self"],
        "add_spawn_callback": ["callback"],
        "remove_spawn_callback": ["callback"],
        "_formatinfo": ["self"],
        "_maybe_kill_before_start": ["self", "exception"],
        "_notify_links": ["self"],
    },
    Timeout: {
        "__init__": ["self", "seconds", "exception", "ref", "priority", "_one_shot"],
        "start": ["self"],
        "start_new": ["timeout", "exception", "ref", "_one_shot"],
        "_start_new_or_dummy": ["timeout", "exception", "ref"],
        "cancel": ["self"],
        "close": ["self"],
        "_on_expiration": ["self", "prev_greenlet", "ex"],
    },
    Hub: {
        "__init__": ["self", "loop", "default"],
        "cancel_wait": ["self", "watcher", "error", "close_watcher"],
        "cancel_waits_close_and_then": ["self", "watchers", "exc_kind", "then", "*then_args"],
        "destroy": ["self", "destroy_loop"],
        "handle_error": ["self", "context", "type", "value", "tb"],
        "handle_system_error": ["self", "type", "value", "tb"],
        "join": ["self", "timeout"],
        "print_exception": ["self", "context", "t", "v", "tb"],
        "run": ["self"],
        "start_periodic_monitoring_thread": ["self"],
        "switch_out": ["self"],
        "wait": ["self", "watcher"],
        "_normalize_exception": ["self", "t", "v", "tb"],
    },
    Waiter: {
        "clear": ["self"],
        "get": ["self"],
        "ready": ["self"],
        "successful": ["self"],
        "switch": ["self", "value"],
        "switch_args": ["self", "*args"],
        "throw": ["self", "*throw_args"],
    },
}

#: Properties and attributes of instances.
ATTRIBUTES: dict[type, set[str]] = {
    Greenlet: {
        "args", "dead", "exc_info", "exception", "kwargs", "loop", "minimal_ident", "name",
        "spawn_tree_locals", "spawning_greenlet", "spawning_stack", "spawning_stack_limit", "started",
        "value",
    },
    Timeout: {"pending", "seconds", "exception"},
    Hub: {
        "NOT_ERROR", "SYSTEM_ERROR", "backend", "exception_stream", "ident_registry", "loop", "loop_class",
        "main_hub", "name", "periodic_monitoring_thread", "resolver", "resolver_class", "thread_ident",
        "threadpool", "threadpool_class", "threadpool_size", "minimal_ident", "format_context",
    },
    Waiter: {"exc_info", "greenlet", "hub", "value"},
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_what_gevent_documents(name: str) -> None:
    assert parameters(getattr(bridge, name)) == FUNCTIONS[name]


@pytest.mark.parametrize("cls", METHODS, ids=lambda c: c.__name__)
def test_methods_take_what_gevent_documents(cls: type) -> None:
    assert {name: parameters(getattr(cls, name)) for name in METHODS[cls]} == METHODS[cls]


@pytest.mark.parametrize("cls", ATTRIBUTES, ids=lambda c: c.__name__)
def test_attributes_that_gevent_documents_are_there(cls: type) -> None:
    declared = {name for c in cls.__mro__ for name in (*vars(c), *vars(c).get("__annotations__", ()))}
    assert ATTRIBUTES[cls] - declared == set()


def test_defaults_are_gevent_s() -> None:
    def defaults(function: Any) -> dict[str, Any]:
        found = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in found if p.default is not p.empty}

    assert defaults(Greenlet.kill) == {"exception": bridge.GreenletExit, "block": True, "timeout": None}
    assert defaults(Greenlet.get) == {"block": True, "timeout": None}
    assert defaults(bridge.killall) == {"exception": bridge.GreenletExit, "block": True, "timeout": None}
    assert defaults(bridge.joinall) == {"timeout": None, "raise_error": False, "count": None}
    assert defaults(bridge.sleep) == {"seconds": 0, "ref": True}
    assert defaults(bridge.wait) == {"objects": None, "timeout": None, "count": None}
    expected = {"seconds": None, "exception": None, "ref": True, "priority": -1, "_one_shot": False}
    assert defaults(Timeout.__init__) == expected


def test_everything_public_has_a_docstring() -> None:
    for name in bridge.__all__:
        thing = getattr(bridge, name)
        if callable(thing) and thing is not bridge.GreenletExit:
            assert pydoc.getdoc(thing), name
    for cls in (Greenlet, Timeout, Hub, Waiter):
        for name in METHODS[cls]:
            if not name.startswith("_"):
                assert pydoc.getdoc(getattr(cls, name)), f"{cls.__name__}.{name}"


def test_import_loads_nothing_that_is_not_needed() -> None:
    script = "import sys, bridge; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    lazy = {
        f"bridge.{name}" for name in ("threadpool", "queue", "pool", "lock", "event", "os", "util", "local")
    }
    assert lazy & set(out.split()) == set()
    assert "bridge.hub" in out.split()


@pytest.mark.parametrize("name", ["resolver", "subprocess"])
def test_all_is_what_a_module_implements_imports_and_adds(name: str) -> None:
    module = importlib.import_module(f"bridge.{name}")
    parts = [getattr(module, f"__{part}__", []) for part in ("implements", "imports", "extensions")]
    assert sorted(module.__all__) == sorted(n for part in parts for n in part)
