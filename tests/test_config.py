"""Settings: the environment, assignment, validation."""

from __future__ import annotations

import ast
import asyncio
import io
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import bridge
from bridge import _config
from bridge._config import Config, InvalidChoice, resolve_loop

pytestmark = pytest.mark.engines("none")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in list(os.environ):
        if key.startswith(("BRIDGE_", "GEVENT")):
            monkeypatch.delenv(key)


@pytest.fixture
def config() -> Config:
    return Config()


@pytest.fixture
def things(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A module to import things from."""
    module = types.ModuleType("things_to_import")
    module.one = object()  # type: ignore[attr-defined]
    module.Maker = type("Maker", (), {"make": staticmethod(asyncio.SelectorEventLoop)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield module


# -- the object ----------------------------------------------------------------------------------------


def test_bridge_config_is_the_object() -> None:
    assert bridge.config is _config.config
    assert isinstance(bridge.config, Config)


def test_gevents_settings_and_ours() -> None:
    gevents = {
        "ares_flags", "ares_ndots", "ares_servers", "ares_tcp_port", "ares_timeout", "ares_tries",
        "ares_udp_port", "disable_watch_children", "fileobject", "format_context", "libev_backend", "loop",
        "max_blocking_time", "max_memory_usage", "memory_monitor_period", "monitor_thread",
        "print_blocking_reports", "resolver", "resolver_nameservers", "resolver_timeout", "threadpool",
        "threadpool_idle_task_timeout", "trace_malloc", "track_greenlet_tree",
    }  # fmt: skip
    assert set(dir(bridge.config)) == gevents | {"aio_loop_factory", "inherit_context", "monitor_class"}
    assert sorted(bridge.config.settings) == dir(bridge.config)
    assert set(Config.__annotations__) - {"settings"} == set(bridge.config.settings)


def test_settings_that_hold_what_has_no_literal_are_importable_ones(config: Config) -> None:
    # who writes the others into the command of a child process has to tell these by their kind
    for name, setting in config.settings.items():
        if not isinstance(setting, _config.ImportableSetting):
            value = getattr(config, name)
            assert ast.literal_eval(repr(value)) == value, name
    assert isinstance(config.settings["loop"], _config.ImportableSetting)
    assert "uvloop" in type(config.settings["loop"]).kind_desc


def test_defaults(config: Config) -> None:
    assert config.inherit_context is True
    assert config.track_greenlet_tree is True
    assert config.monitor_thread is False
    assert config.print_blocking_reports is True
    assert config.disable_watch_children is False
    assert config.max_blocking_time == 0.1
    assert config.memory_monitor_period == 5
    assert config.max_memory_usage is None
    assert config.threadpool_idle_task_timeout == 5.0
    assert config.trace_malloc == 0
    assert config.libev_backend is None
    assert config.resolver_nameservers is None
    assert config.format_context({}) == "{}"


def test_unknown_setting(config: Config) -> None:
    with pytest.raises(AttributeError, match="No configuration setting for: 'no_such_setting'"):
        _ = config.no_such_setting  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"No configuration setting for: 'no such setting'.*resolver"):
        config.set("no such setting", True)
    assert not hasattr(config, "no_such_setting")
    config.remark = 5  # type: ignore[attr-defined]
    assert config.remark == 5  # type: ignore[attr-defined]
    del config.remark  # type: ignore[attr-defined]
    assert not hasattr(config, "remark")


def test_value_is_kept_in_the_instance(config: Config) -> None:
    assert "inherit_context" not in vars(config)
    assert config.inherit_context is True
    assert vars(config)["inherit_context"] is True
    config.settings["inherit_context"].set(False)
    assert config.inherit_context is False
    assert config.__getattr__("inherit_context") is False


def test_configs_are_independent(config: Config) -> None:
    config.inherit_context = False
    assert Config().inherit_context is True
    assert config.inherit_context is False


# -- environment ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gevents", "ours"),
    [
        ("max_memory_usage", "GEVENT_MONITOR_MEMORY_MAX", "BRIDGE_MONITOR_MEMORY_MAX"),
        ("ares_tries", "GEVENTARES_TRIES", "BRIDGE_ARES_TRIES"),
    ],
)
def test_ours_comes_before_gevents(
    name: str, gevents: str, ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gevents, "5")
    assert getattr(Config(), name) == 5
    monkeypatch.setenv(ours, "6")
    assert getattr(Config(), name) == 6


def test_every_setting_has_its_variables() -> None:
    for name, setting in bridge.config.settings.items():
        keys = setting.environment_keys
        if name == "aio_loop_factory":
            assert keys == ()
        elif name == "trace_malloc":
            assert keys == ("PYTHONTRACEMALLOC",)
        else:
            assert keys[0].startswith("BRIDGE_"), name
            assert keys[-1] == setting.environment_key
            assert all(f"``{key}``" in setting.desc for key in keys)


def test_environment_is_read_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEVENT_MAX_BLOCKING_TIME", "7")
    assert config.max_blocking_time == 7.0
    monkeypatch.setenv("GEVENT_MAX_BLOCKING_TIME", "8")
    assert config.max_blocking_time == 7.0
    assert Config().max_blocking_time == 8.0
    del config.max_blocking_time
    assert config.max_blocking_time == 8.0


def test_assignment_and_deletion(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_INHERIT_CONTEXT", "off")
    config.inherit_context = True
    assert config.inherit_context is True
    del config.inherit_context
    assert config.inherit_context is False


def test_mock_and_monkeypatch_restore(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with mock.patch.object(config, "track_greenlet_tree", False):
        assert config.track_greenlet_tree is False
    assert config.track_greenlet_tree is True
    with monkeypatch.context() as patch:
        patch.setattr(config, "max_blocking_time", 3)
        assert config.max_blocking_time == 3.0
    assert config.max_blocking_time == 0.1


@pytest.mark.parametrize(
    ("key", "text", "name", "value"),
    [
        ("GEVENT_TRACK_GREENLET_TREE", "0", "track_greenlet_tree", False),
        ("GEVENT_TRACK_GREENLET_TREE", "", "track_greenlet_tree", False),
        ("GEVENT_MONITOR_THREAD_ENABLE", " Yes ", "monitor_thread", True),
        ("GEVENT_NOWAITPID", "true", "disable_watch_children", True),
        ("GEVENT_MONITOR_PRINT_BLOCKING_REPORTS", "no", "print_blocking_reports", False),
        ("GEVENT_MONITOR_MEMORY_PERIOD", "2.5", "memory_monitor_period", 2.5),
        ("GEVENT_MONITOR_MEMORY_MAX", "100", "max_memory_usage", 100),
        ("GEVENT_MONITOR_MEMORY_MAX", "3kb", "max_memory_usage", 3 * 1024),
        ("GEVENT_MONITOR_MEMORY_MAX", "1.5 MB", "max_memory_usage", 1536 * 1024),
        ("GEVENT_MONITOR_MEMORY_MAX", "2gb", "max_memory_usage", 2 * 1024**3),
        ("GEVENT_THREADPOOL_IDLE_TASK_TIMEOUT", "-1", "threadpool_idle_task_timeout", -1),
        ("GEVENT_RESOLVER_NAMESERVERS", "1.1.1.1, 8.8.8.8", "resolver_nameservers", ["1.1.1.1", "8.8.8.8"]),
        ("GEVENT_RESOLVER_TIMEOUT", "3", "resolver_timeout", 3.0),
        ("GEVENTARES_SERVERS", "1.1.1.1", "ares_servers", ["1.1.1.1"]),
        ("GEVENTARES_TIMEOUT", "0.5", "ares_timeout", 0.5),
        ("GEVENTARES_UDP_PORT", "53", "ares_udp_port", 53),
        ("GEVENT_BACKEND", "select", "libev_backend", "select"),
        ("PYTHONTRACEMALLOC", "10", "trace_malloc", 10),
        ("GEVENT_FORMAT_CONTEXT", "builtins.repr", "format_context", repr),
    ],
)
def test_values_of_the_environment(
    config: Config, monkeypatch: pytest.MonkeyPatch, key: str, text: str, name: str, value: object
) -> None:
    monkeypatch.setenv(key, text)
    assert getattr(config, name) == value
    assert type(getattr(config, name)) in (type(value), int, float)


# -- bad values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "name", "choices"),
    [
        ("BRIDGE_TRACK_GREENLET_TREE", "maybe", "track_greenlet_tree", "choose 1, true, on, yes or 0"),
        ("GEVENT_MAX_BLOCKING_TIME", "soon", "max_blocking_time", "a number"),
        ("GEVENT_MAX_BLOCKING_TIME", "-1", "max_blocking_time", "not be negative"),
        ("GEVENT_MONITOR_MEMORY_MAX", "3zb", "max_memory_usage", "kb, mb or gb"),
        ("GEVENT_MONITOR_MEMORY_MAX", "-3kb", "max_memory_usage", "not be negative"),
        ("GEVENTARES_TRIES", "few", "ares_tries", "a whole number"),
        ("GEVENT_RESOLVER", "zork", "resolver", "choose from .*'ares', 'thread', 'block', 'dnspython'"),
        ("GEVENT_FORMAT_CONTEXT", "builtins.nope", "format_context", "Cannot import 'nope'"),
    ],
)
def test_bad_value_names_variable_value_and_choices(
    config: Config, monkeypatch: pytest.MonkeyPatch, key: str, text: str, name: str, choices: str
) -> None:
    monkeypatch.setenv(key, text)
    with pytest.raises(ValueError, match=f"(?i){key}='{text}'.*{choices}"):
        getattr(config, name)
    monkeypatch.delenv(key)
    with pytest.raises(ValueError, match=f"(?i)config.{name} = '{text}'.*{choices}"):
        setattr(config, name, text)


def test_a_refused_value_changes_nothing(config: Config) -> None:
    config.max_blocking_time = 2
    with pytest.raises(ValueError):
        config.max_blocking_time = -2
    assert config.max_blocking_time == 2.0
    config.loop = "asyncio"
    with pytest.raises(ValueError):
        config.loop = "zork"
    assert config.aio_loop_factory is asyncio.SelectorEventLoop


def test_validate_bool() -> None:
    assert _config.validate_bool("on") is True
    assert _config.validate_bool("1") is True
    assert _config.validate_bool("off") is False
    assert _config.validate_bool("0") is False
    assert _config.validate_bool("") is False
    assert _config.validate_bool(None) is False
    with pytest.raises(ValueError, match="' hmm '"):
        _config.validate_bool(" hmm ")
    with pytest.raises(ValueError):
        _config.validate_invalid(1)
    assert _config.validate_anything(1) == 1


# -- things to import ----------------------------------------------------------------------------------


def test_importable(config: Config, things: Any) -> None:
    config.resolver = "things_to_import.one"
    assert config.resolver is things.one
    config.resolver = "things_to_import:Maker.make"
    assert config.resolver is asyncio.SelectorEventLoop
    config.resolver = "no_such_module.x,things_to_import.one"
    assert config.resolver is things.one
    config.resolver = ["no_such_module.x", things.Maker]
    assert config.resolver is things.Maker
    config.resolver = config.resolver
    assert config.resolver is things.Maker
    with pytest.raises(ImportError):  # as in gevent
        config.resolver = "no_such_module.x,neither_this.y"


def test_gevents_paths_mean_ours(config: Config) -> None:
    config.format_context = "gevent.util.format_run_info"
    from bridge.util import format_run_info

    assert config.format_context is format_run_info


def test_an_error_inside_a_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_thing.py").write_text("import not_installed_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="not_installed_at_all"):
        Config().resolver = "broken_thing.Resolver"


def test_importable_setting() -> None:
    setting = _config.ImportableSetting()
    path = list(sys.path)
    with pytest.raises(ImportError, match="Cannot import from empty list"):
        setting._import_one_of([])
    with pytest.raises(ImportError, match=r"Cannot import 'foo/bar/gevent\.no_such_module'"):
        setting._import_one("foo/bar/gevent.no_such_module")
    with pytest.raises(ImportError, match=r"Required format: \[package\.\]module\.class"):
        setting._import_one("foo")
    assert sys.path == path
    assert setting._import_one(setting) is setting
    assert setting.get_options() == {}
    setting.shortname_map = {"foo": "bad/path", "dumps": "json.dumps"}
    options = setting.get_options()
    assert isinstance(options["foo"], ImportError)
    assert callable(options["dumps"])


def test_resolver_keeps_gevents_key() -> None:
    assert _config.Resolver.environment_key == "GEVENT_RESOLVER"
    assert _config.Resolver.environment_keys == ("BRIDGE_RESOLVER", "GEVENT_RESOLVER")


# -- loops ---------------------------------------------------------------------------------------------


def _uvloop() -> Any:
    return pytest.importorskip("uvloop")


def test_loop_is_the_class_of_loops(config: Config) -> None:
    from bridge._core.loop import loop

    assert config.loop is loop
    config.loop = "asyncio"
    assert config.loop is loop
    config.loop = config.loop
    assert config.loop is loop
    assert config.aio_loop_factory is asyncio.SelectorEventLoop
    made = config.loop(default=False)
    made.destroy()


def test_a_loop_class_of_ones_own(config: Config) -> None:
    from bridge._core.loop import loop

    class own(loop):
        pass

    config.loop = own
    assert config.loop is own
    del config.loop
    assert config.loop is loop


def test_default_loop_is_uvloop(config: Config) -> None:
    assert config.aio_loop_factory is _uvloop().Loop


def test_default_without_uvloop(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert config.aio_loop_factory is asyncio.SelectorEventLoop
    with pytest.raises(
        ValueError, match=r"config\.loop = 'uvloop'.*choose uvloop, asyncio or module:factory"
    ):
        config.loop = "uvloop"
    config.loop = "uvloop,asyncio"
    assert config.aio_loop_factory is asyncio.SelectorEventLoop
    config.loop = "libev-cext"
    assert config.aio_loop_factory is asyncio.SelectorEventLoop


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("asyncio", lambda: asyncio.SelectorEventLoop),
        ("uvloop", lambda: _uvloop().Loop),
        ("asyncio:new_event_loop", lambda: asyncio.new_event_loop),
        ("things_to_import:Maker.make", lambda: asyncio.SelectorEventLoop),
        ("no_such_module:x, asyncio", lambda: asyncio.SelectorEventLoop),
        ("libuv", lambda: _uvloop().Loop),
        ("libev-cext,libev-cffi", lambda: _uvloop().Loop),
        ("", lambda: _uvloop().Loop),
    ],
)
@pytest.mark.parametrize("key", ["BRIDGE_LOOP", "GEVENT_LOOP"])
def test_loop_of_the_environment(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    things: object,
    key: str,
    text: str,
    expected: Callable[[], object],
) -> None:
    monkeypatch.setenv(key, text)
    assert config.aio_loop_factory is expected()


@pytest.mark.parametrize("text", ["zork", "asyncio:zork", "no_such_module:x", "sys:path"])
def test_bad_loop(config: Config, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("BRIDGE_LOOP", text)
    with pytest.raises(InvalidChoice, match=f"BRIDGE_LOOP='{text}'"):
        _ = config.aio_loop_factory
    with pytest.raises(ValueError, match=f"config.loop = '{text}'"):
        config.loop = text
    with pytest.raises(ImportError, match=f"config.aio_loop_factory = '{text}'"):
        config.aio_loop_factory = text  # type: ignore[assignment]


def test_setting_the_factory_itself(config: Config) -> None:
    config.loop = asyncio.new_event_loop
    assert config.aio_loop_factory is asyncio.new_event_loop
    config.loop = "asyncio"
    assert config.aio_loop_factory is asyncio.SelectorEventLoop
    config.aio_loop_factory = asyncio.new_event_loop
    config.loop = "asyncio"
    assert config.aio_loop_factory is asyncio.new_event_loop
    del config.aio_loop_factory
    assert config.aio_loop_factory is asyncio.SelectorEventLoop
    with pytest.raises(ValueError, match="5"):
        config.loop = 5


def test_resolve_loop() -> None:
    assert resolve_loop("asyncio") is asyncio.SelectorEventLoop
    assert resolve_loop(["no_such_module:x", "asyncio"]) is asyncio.SelectorEventLoop
    assert resolve_loop(resolve_loop) is resolve_loop
    assert resolve_loop() is _uvloop().Loop
    loop = resolve_loop("asyncio")()
    loop.close()


def test_loop_options() -> None:
    options = _config.Loop().get_options()
    assert options["asyncio"] is bridge.config.loop
    for name in ("libev-cext", "libev-cffi", "libuv-cffi", "libuv"):
        assert isinstance(options[name], ImportError)


# -- help and weight -----------------------------------------------------------------------------------


def test_every_setting_is_described() -> None:
    for setting in bridge.config.settings.values():
        assert setting.desc == type(setting).__doc__
        assert len(setting.desc.split("\n\n")[0]) > 20
    out = io.StringIO()
    bridge.config.print_help(lambda line: print(line, file=out))
    assert all(f"\n{name}\n    " in f"\n{out.getvalue()}" for name in bridge.config.settings)


def test_module_can_be_run() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "bridge._config"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    assert "BRIDGE_LOOP" in done.stdout


def test_module_imports_nothing_heavy() -> None:
    program = (
        "import importlib, os, sys, types; "
        "p = sys.modules['p'] = types.ModuleType('p'); p.__path__ = [os.path.dirname(sys.argv[1])]; "
        "importlib.import_module('p._config').config.inherit_context; "
        "heavy = {'asyncio', 'logging', 'uvloop', 'selectors', 'greenlet', 'pprint'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-I", "-c", program, _config.__file__]
    subprocess.run(command, check=True, timeout=60)
