"""Drop-in mode: `import gevent` gives bridge. Each test in its own process: the mode is for a process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

START = "import bridge, sys\nbridge.install_as_gevent()\n"

# everything here runs in processes of its own
pytestmark = pytest.mark.engines("none")


def run(code: str, *, start: str = START, path: Path | None = None, **environ: str) -> str:
    """Run *code* after *start* in a new python, with *path* on ``sys.path``; return what it prints."""
    env = {**os.environ, **environ}
    # the project may be tested without being installed
    paths = [str(path)] if path else []
    env["PYTHONPATH"] = os.pathsep.join([*paths, str(Path(__file__).parents[1]), env.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", start + textwrap.dedent(code)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout


@pytest.fixture
def real_gevent(tmp_path: Path) -> Path:
    """A folder with something that looks like an installed gevent."""
    package = tmp_path / "gevent"
    package.mkdir()
    (package / "__init__.py").write_text("real = True\n")
    (package / "queue.py").write_text("real = True\n")
    (package / "onlyreal.py").write_text("")
    return tmp_path


# -- names --------------------------------------------------------------------------------------------


def test_every_module_that_both_have_is_one_object() -> None:
    out = run("""
        import importlib, pkgutil, sys
        from bridge._dropin import SHARED
        have = sorted(SHARED & {m.name for m in pkgutil.iter_modules(bridge.__path__)})
        for name in have:
            ours = importlib.import_module("bridge." + name)
            theirs = importlib.import_module("gevent." + name)
            assert ours is theirs is sys.modules["gevent." + name], name
            assert getattr(sys.modules["gevent"], name) is ours, name
            assert ours.__spec__.name == ours.__name__ == "bridge." + name, name
        print(len(have))
    """)
    assert int(out) >= 10


@pytest.mark.parametrize(
    "statement",
    [
        "import gevent.queue as q",
        "from gevent import queue as q",
        "import gevent.queue; q = gevent.queue",
        "import gevent.queue; import gevent; q = gevent.queue",
        "import importlib; q = importlib.import_module('gevent.queue')",
        "import importlib; q = importlib.import_module('.queue', 'gevent')",
        "q = __import__('gevent.queue', fromlist=['Queue'])",
        "import pkgutil; q = pkgutil.resolve_name('gevent.queue')",
        "import gevent.queue, importlib; q = importlib.reload(gevent.queue)",
        "import gevent, gevent.queue, importlib; importlib.reload(gevent); q = gevent.queue",
    ],
)
def test_every_way_to_import_gives_the_module_of_bridge(statement: str) -> None:
    run(f"{statement}\nimport bridge.queue\nassert q is bridge.queue is sys.modules['gevent.queue'], q")


def test_names_of_the_package_are_those_of_bridge() -> None:
    run("""
        import gevent
        for name in gevent.__all__:
            assert getattr(gevent, name) is getattr(bridge, name), name
        names = {}
        exec("from gevent import *", names)
        assert set(names) - {"__builtins__"} == set(gevent.__all__)
    """)


def test_package_looks_like_a_package() -> None:
    run("""
        import gevent, importlib.util, os
        assert gevent.__version__ == "26.9.0"
        assert gevent.version_info == (20, 0, 0, "dev", 0) and gevent.version_info.major == 20
        assert gevent.__name__ == gevent.__package__ == gevent.__spec__.name == "gevent"
        assert os.path.basename(gevent.__file__) == "__init__.py" and os.path.exists(gevent.__file__)
        assert type(gevent.__path__) is list
        assert gevent.__spec__.origin == gevent.__file__
        assert importlib.util.find_spec("gevent") is gevent.__spec__
        assert repr(gevent).startswith("<module 'gevent' from ")
    """)


def test_import_gevent_is_enough_for_what_gevent_imports_itself() -> None:
    run("""
        import gevent, sys
        for name in ["event", "exceptions", "greenlet", "hub", "os", "timeout"]:
            assert getattr(gevent, name) is sys.modules["gevent." + name] is sys.modules["bridge." + name]
    """)


def test_what_patching_has_loaded_needs_no_import_of_its_own() -> None:
    run("""
        from gevent import monkey
        monkey.patch_all()
        import bridge.queue, gevent, sys
        assert "gevent.queue" not in sys.modules
        assert gevent.queue is bridge.queue and gevent.local.local is bridge.local.local
        assert gevent.socket.socket is sys.modules["socket"].socket
        assert not hasattr(gevent, "backdoor") and not hasattr(gevent, "no_such_module")
    """)


def test_installing_imports_no_gevent() -> None:
    """Libraries take ``'gevent' in sys.modules`` for a sign that the program uses gevent."""
    run("assert not [name for name in sys.modules if name.split('.')[0] == 'gevent']")


def test_missing_modules_are_named_as_the_program_named_them() -> None:
    run("""
        import importlib
        for name in ["gevent.nope", "gevent._core", "gevent._dropin", "gevent.queue.nope", "gevent.no.no"]:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as e:
                assert e.name.startswith("gevent.") and name.startswith(e.name), e
            else:
                raise AssertionError(name)
        import gevent
        for action in ["gevent.nope", "from gevent import nope"]:
            try:
                exec(action)
            except (AttributeError, ImportError) as e:
                assert "nope" in str(e) and "gevent" in str(e), e
            else:
                raise AssertionError(action)
    """)


def test_specs_can_be_asked_for_before_the_import() -> None:
    run("""
        from importlib.util import find_spec
        spec = find_spec("gevent.queue")
        assert spec.name == "gevent.queue" and "gevent.queue" not in sys.modules
        import bridge.queue
        assert spec.origin == bridge.queue.__file__
        assert spec.loader.get_source("gevent.queue") == bridge.queue.__loader__.get_source("bridge.queue")
        assert spec.loader.get_code("gevent.queue").co_filename == bridge.queue.__file__
        assert not spec.loader.is_package("gevent.queue")
        assert find_spec("gevent.nope") is None
    """)


def test_patches_and_pickles_hold_under_both_names() -> None:
    run("""
        import pickle
        from unittest import mock
        import gevent.queue, bridge.queue
        with mock.patch("gevent.queue.Queue") as fake:
            assert bridge.queue.Queue is fake
        with mock.patch("bridge.queue.Queue") as fake:
            assert gevent.queue.Queue is fake
        assert pickle.loads(pickle.dumps(gevent.queue.Queue)) is bridge.queue.Queue
        assert pickle.loads(b"cgevent.queue\\nQueue\\n.") is bridge.queue.Queue
        assert isinstance(bridge.queue.Queue(), gevent.queue.Queue)
    """)


def test_exceptions_name_gevent_s_modules_as_programs_print_and_look_for_them() -> None:
    run("""
        import bridge.exceptions, bridge.pool
        assert bridge.exceptions.LoopExit.__module__ == "bridge.exceptions"
        assert bridge.Timeout.__module__ == "bridge.timeout"
        import gevent.exceptions, gevent.pool, gevent.socket, pickle
        names = [
            gevent.exceptions.LoopExit, gevent.Timeout, gevent.pool.PoolFull, gevent.socket.cancel_wait_ex,
        ]
        assert [f"{e.__module__}.{e.__name__}" for e in names] == [
            "gevent.exceptions.LoopExit", "gevent.timeout.Timeout", "gevent.pool.PoolFull",
            "gevent.socket.cancel_wait_ex",
        ]
        for e in names:
            assert pickle.loads(pickle.dumps(e)) is e
    """)


def test_replacing_a_name_of_the_package_replaces_it_in_bridge() -> None:
    run("""
        from unittest import mock
        import gevent
        class Traced(gevent.Greenlet):
            pass
        original = gevent.Greenlet
        gevent.Greenlet = Traced
        assert bridge.Greenlet is Traced and type(gevent.spawn(print)) is Traced
        gevent.Greenlet = original
        with mock.patch("gevent.sleep") as fake:
            bridge.sleep(1000)
        fake.assert_called_once_with(1000)
        assert gevent.sleep is bridge.sleep is not fake
        gevent.something = 1
        assert not hasattr(bridge, "something")
    """)


def test_a_tracer_may_replace_greenlets_before_anything_is_patched() -> None:
    run("""
        import gevent, gevent.greenlet
        class Traced(gevent.Greenlet):
            pass
        gevent.greenlet.Greenlet = gevent.Greenlet = Traced
        import gevent.monkey
        gevent.monkey.patch_all()
        import subprocess, threading, gevent.pool
        seen = []
        thread = threading.Thread(target=lambda: seen.append(gevent.getcurrent()))
        thread.start()
        thread.join()
        assert isinstance(seen[0], Traced)
        assert list(gevent.pool.Pool(2).imap(abs, [-1, -2])) == [1, 2]
        assert subprocess.check_output(["echo", "x"]) == b"x\\n"
    """)


# -- installing ---------------------------------------------------------------------------------------


def test_installing_again_changes_nothing() -> None:
    run("""
        import gevent
        before = list(sys.meta_path), gevent, dict(sys.modules)
        bridge.install_as_gevent()
        assert (sys.meta_path, sys.modules["gevent"], sys.modules) == before
    """)


def test_wins_over_an_installed_gevent(real_gevent: Path) -> None:
    run(
        """
        import gevent, gevent.queue
        assert not hasattr(gevent, "real") and not hasattr(gevent.queue, "real")
        try:
            import gevent.onlyreal
        except ModuleNotFoundError:
            print("not mixed")
        """,
        path=real_gevent,
    )


@pytest.mark.parametrize(
    "first",
    ["import gevent.queue", "import gevent.queue, sys; del sys.modules['gevent']"],
    ids=["package", "module"],
)
def test_real_gevent_already_imported_is_an_error(real_gevent: Path, first: str) -> None:
    out = run(
        f"""
        {first}
        import bridge
        for i in range(2):
            try:
                bridge.install_as_gevent()
            except RuntimeError as e:
                print(e)
        import sys
        assert sys.modules["gevent.queue"].real and bridge.config.inherit_context
        """,
        start="",
        path=real_gevent,
    )
    assert len(out.splitlines()) == 2
    for part in ["install_as_gevent()", str(real_gevent), "already imported", "python -m bridge"]:
        assert part in out


def test_forbidden_import_is_allowed_again() -> None:
    run("import gevent", start=f"import sys; sys.modules['gevent'] = None\n{START}")


def test_greenlets_start_with_an_empty_context() -> None:
    run("""
        import contextvars, gevent
        assert bridge.config.inherit_context is False
        var = contextvars.ContextVar("var", default="default")
        var.set("main")
        assert gevent.spawn(var.get).get() == "default"
    """)


def test_python_path_of_the_package_is_honoured(tmp_path: Path) -> None:
    """As the harness does that runs gevent's own tests: with packages appended to the path."""
    (tmp_path / "testing").mkdir()
    (tmp_path / "testing" / "__init__.py").write_text("from gevent import queue\nfrom . import part\n")
    (tmp_path / "testing" / "part.py").write_text("import gevent.testing\n")
    (tmp_path / "queue.py").write_text("shadowed = True\n")
    run(f"""
        import gevent
        gevent.__path__.append({str(tmp_path)!r})
        import gevent.testing.part, gevent.queue, bridge.queue
        assert gevent.testing.__file__.startswith({str(tmp_path)!r})
        assert gevent.testing.queue is gevent.queue is bridge.queue
    """)


# -- what gevent has and bridge has not ---------------------------------------------------------------


def test_old_name_of_the_locks() -> None:
    run("""
        from gevent.coros import BoundedSemaphore, DummySemaphore, RLock, Semaphore
        import bridge.lock
        assert BoundedSemaphore is bridge.lock.BoundedSemaphore and Semaphore is bridge.lock.Semaphore
        assert DummySemaphore is bridge.lock.DummySemaphore and RLock is bridge.lock.RLock
    """)


def test_signal_is_a_module_and_can_be_called_as_in_gevent_1_0() -> None:
    out = run("""
        import os, signal
        import gevent
        assert gevent.signal is sys.modules["bridge.signal"]
        done = gevent.event.Event()
        def handler(*args, **kwargs):
            print(args, kwargs, gevent.getcurrent() is not gevent.get_hub())
            done.set()
        watching = gevent.signal(signal.SIGUSR1, handler, 1, two=2)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert done.wait(10)
        watching.cancel()
        import gevent.signal
        assert gevent.signal is bridge.signal and gevent.signal.getsignal(signal.SIGINT)
    """)
    assert out == "(1,) {'two': 2} True\n"


def test_signal_of_bridge_is_an_ordinary_module_without_drop_in_mode() -> None:
    run("import bridge.signal, types; assert type(bridge.signal) is types.ModuleType", start="")


def test_shutdown_ends_a_blocked_main_greenlet() -> None:
    out = run("""
        import atexit, os, signal
        import gevent
        atexit.register(print, "atexit")
        gevent.signal(signal.SIGQUIT, gevent.shutdown)
        thread = gevent.spawn(gevent.sleep, 1000)
        gevent.spawn_later(0.01, os.kill, os.getpid(), signal.SIGQUIT)
        try:
            thread.join()
        finally:
            print("main ends")
    """)
    assert out == "main ends\natexit\n"


def test_shutdown_ends_main_at_once_when_main_calls_it() -> None:
    assert run("import gevent\nprint('before')\ngevent.shutdown()\nprint('after')") == "before\n"


def test_private_hub_names() -> None:
    run("""
        from gevent._hub_local import get_hub, get_hub_class, get_hub_if_exists, get_hub_noargs, get_loop
        import gevent.hub
        assert get_hub_if_exists() is None
        hub = gevent.get_hub()
        assert get_hub() is get_hub_noargs() is get_hub_if_exists() is hub and get_loop() is None
        assert get_hub_class() is gevent.hub.Hub
    """)


def test_private_modules_that_bridge_keeps_are_its_own() -> None:
    run("""
        import gevent._config, gevent._ident, gevent._imap, bridge._config, bridge._ident, bridge._imap
        assert gevent._config is bridge._config and gevent._config.config is gevent.config
        assert gevent._ident is bridge._ident and gevent._imap is bridge._imap
    """)


def test_private_tools() -> None:
    run("""
        import gevent
        from gevent._compat import NativeStrIO, PYPY, WIN, get_this_psutil_process, perf_counter, reraise
        from gevent._greenlet_primitives import get_reachable_greenlets
        from gevent._util import Lazy, LazyOnClass, readproperty
        calls = []
        class Base:
            @Lazy
            def lazy(self):
                calls.append("lazy")
                return 1
            @LazyOnClass
            def shared(self):
                calls.append("shared")
                return 2
            @readproperty
            def plain(self):
                calls.append("plain")
                return 3
        a, b = Base(), Base()
        assert (a.lazy, a.lazy, a.shared, b.shared, Base.shared, a.plain, a.plain) == (1, 1, 2, 2, 2, 3, 3)
        a.plain = 4
        assert a.plain == 4
        assert calls == ["lazy", "shared", "plain", "plain"]
        g = gevent.spawn(gevent.sleep, 1000)
        assert g in get_reachable_greenlets()
        try:
            reraise(ValueError, ValueError("x"), None)
        except ValueError as e:
            assert e.args == ("x",)
    """)


def test_interfaces_are_provided() -> None:
    pytest.importorskip("zope.interface")
    run("""
        import gevent
        from gevent._interfaces import ICallback, ILoop, IWatcher
        from zope.interface.verify import verifyObject
        loop = gevent.get_hub().loop
        assert verifyObject(ILoop, loop)
        assert verifyObject(ICallback, loop.run_callback(print))
        assert verifyObject(ICallback, loop.run_callback_threadsafe(print))
        assert sorted(IWatcher.names()) == ["close", "start", "stop"]
    """)


def test_interfaces_do_without_zope() -> None:
    run("""
        sys.modules["zope"] = sys.modules["zope.interface"] = None
        import gevent
        from gevent._interfaces import ICallback, ILoop, IWatcher
        loop = gevent.get_hub().loop
        assert isinstance(loop, ILoop) and not isinstance(loop, ICallback)
        assert isinstance(loop.run_callback(print), ICallback) and isinstance(loop.timer(1), IWatcher)
    """)


def test_import_hooks_from_before_see_the_modules() -> None:
    run(
        """
        import gevent, gevent.queue
        assert seen == ["gevent", "gevent.queue"]
        assert gevent.patched and bridge.queue.patched and gevent.queue is bridge.queue
        assert gevent.__file__ == gevent.__spec__.origin and "compat" in gevent.__file__
        """,
        start=HOOK + START,
    )


HOOK = """
import importlib.util, sys
seen = []
class Loader:
    def __init__(self, loader):
        self.loader = loader
    def create_module(self, spec):
        return self.loader.create_module(spec)
    def exec_module(self, module):
        self.loader.exec_module(module)
        seen.append(module.__name__)
        module.patched = bool(module.__all__)
class Hook:
    asking = False
    def find_spec(self, fullname, path=None, target=None):
        if self.asking or fullname not in ("gevent", "gevent.queue"):
            return None
        self.asking = True
        spec = importlib.util.find_spec(fullname)
        self.asking = False
        spec.loader = Loader(spec.loader)
        return spec
sys.meta_path.insert(0, Hook())
"""


# -- other processes ----------------------------------------------------------------------------------

PROGRAM = """
import multiprocessing, sys
if early:
    import multiprocessing.spawn
import gevent
from gevent.queue import Queue

def work(connection):
    queue = Queue()
    gevent.spawn_later(0.01, queue.put, (gevent.__version__, "bridge" in sys.modules))
    connection.send(queue.get())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    here, there = context.Pipe()
    child = context.Process(target=work, args=(there,))
    child.start()
    there.close()
    print(here.recv())
    child.join()
    print(child.exitcode)
    loader = multiprocessing.spawn.__loader__ if sys.argv[1] != "fork" else None
    assert loader is None or "bridge" not in type(loader).__module__
"""


@pytest.mark.parametrize("early", [True, False], ids=["imported before", "imported after"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_are_in_drop_in_mode(tmp_path: Path, method: str, early: bool) -> None:
    script = tmp_path / "program.py"
    script.write_text(f"early = {early}\n{PROGRAM}")
    before = "import multiprocessing.spawn\n" if early else ""
    # `python -c` has no main module that a child could import; __main__ is the script here
    out = run(
        f"""
        sys.argv = [{str(script)!r}, {method!r}]
        __file__ = {str(script)!r}
        exec(compile({script.read_text()!r}, __file__, "exec"))
        """,
        start=before + START,
    )
    assert out == "('26.9.0', True)\n0\n"


def test_what_the_fork_server_preloads_gets_bridge(tmp_path: Path) -> None:
    (tmp_path / "preloaded.py").write_text("import gevent\nfile = gevent.__file__\n")
    script = tmp_path / "program.py"
    script.write_text(
        "import multiprocessing, sys, gevent\n"
        "def work(connection):\n"
        "    loaded = sys.modules.get('preloaded')\n"
        "    connection.send(loaded and loaded.file == gevent.__file__ and 'bridge' in sys.modules)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('forkserver')\n"
        "    context.set_forkserver_preload(['preloaded'])\n"
        "    here, there = context.Pipe()\n"
        "    child = context.Process(target=work, args=(there,))\n"
        "    child.start()\n"
        "    there.close()\n"
        "    print(here.recv())\n"
        "    child.join()\n"
    )
    out = subprocess.run(
        [sys.executable, "-m", "bridge", str(script)], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout == "True\n", out.stderr
