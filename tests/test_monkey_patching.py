"""patch_all() and its parts. Each test in a process of its own."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge import monkey

pytestmark = pytest.mark.engines("none")

Run = Callable[..., str]
Command = Callable[..., tuple[str, str]]

#: gevent's signatures.
SIGNATURES = {
    "patch_all": "(socket=True, dns=True, time=True, select=True, thread=True, os=True, ssl=True, "
    "subprocess=True, sys=False, aggressive=True, Event=True, builtins=True, signal=True, queue=True, "
    "contextvars=True, **kwargs)",
    "patch_builtins": "()",
    "patch_contextvars": "()",
    "patch_dns": "()",
    "patch_item": "(module, attr, newitem)",
    "patch_module": "(target_module, source_module, items=None, _warnings=None, _patch_kwargs=None, "
    "_notify_will_subscribers=True, _notify_did_subscribers=True, _call_hooks=True)",
    "patch_os": "()",
    "patch_queue": "()",
    "patch_select": "(aggressive=True)",
    "patch_selectors": "(aggressive=True)",
    "patch_signal": "()",
    "patch_socket": "(dns=True, aggressive=True)",
    "patch_ssl": "(_warnings=None, _first_time=True)",
    "patch_subprocess": "()",
    "patch_sys": "(stdin=True, stdout=True, stderr=True)",
    "patch_thread": "(threading=True, _threading_local=True, Event=True, logging=True, existing_locks=True, "
    "_warnings=None)",
    "patch_time": "()",
    "get_original": "(mod_name, item_name)",
    "is_module_patched": "(mod_name)",
    "is_object_patched": "(mod_name, item_name)",
    "remove_item": "(module, attr)",
    "main": "()",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_gevent_s(name: str) -> None:
    signature = inspect.signature(getattr(monkey, name))
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


LISTEN = """
import warnings
from bridge import events, monkey
heard = []
events.subscribers.append(lambda e: heard.append((type(e).__name__, getattr(e, "module_name", None))))
def announced():
    names = [module for kind, module in heard if kind == "GeventWillPatchModuleEvent"]
    return list(dict.fromkeys(names))
def warned(function, *args, **kwargs):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = function(*args, **kwargs)
    assert all(w.category is monkey.MonkeyPatchWarning and w.filename == "<string>" for w in found), found
    return result, [str(w.message) for w in found]
"""


def test_patch_all_patches_in_gevent_s_order_and_publishes_it(run_fresh: Run) -> None:
    out = run_fresh(
        LISTEN
        + """
import os, _thread, threading, time, socket, select, selectors, ssl, subprocess, signal, queue, logging
assert not monkey.is_anything_patched()
assert monkey.patch_all(mine=1) is True
print(*announced())
print(heard[0][0], *[kind for kind, _ in heard[-2:]])
import bridge.time, bridge.socket, bridge.select, bridge.selectors, bridge.os, bridge.queue, bridge.signal
import bridge.subprocess
assert time.sleep is bridge.time.sleep and socket.socket is bridge.socket.socket
assert socket.getaddrinfo is bridge.socket.getaddrinfo and select.select is bridge.select.select
assert selectors.DefaultSelector is bridge.selectors.GeventSelector and os.fork is bridge.os.fork
assert queue.SimpleQueue is bridge.queue.SimpleQueue and signal.signal is bridge.signal.signal
assert subprocess.Popen is bridge.subprocess.Popen
assert not hasattr(select, "epoll") and not hasattr(selectors, "EpollSelector")
for name, objects in monkey.saved.items():
    assert monkey.is_module_patched(name) and all(monkey.is_object_patched(name, o) for o in objects)
    assert not any("bridge" in repr(o) for o in objects.values()), name
"""
    )
    order, marks = out.splitlines()
    modules = "os _thread threading time socket select selectors ssl subprocess signal queue"
    assert order == modules
    assert marks == "GeventWillPatchAllEvent GeventDidPatchBuiltinModulesEvent GeventDidPatchAllEvent"


def test_the_events_of_patch_all_tell_its_arguments(run_fresh: Run) -> None:
    run_fresh("""
        from bridge import events, monkey
        heard = []
        events.subscribers.append(heard.append)
        monkey.patch_all(thread=False, mine=1)
        for event in (heard[0], heard[-1], heard[-2]):
            assert event.patch_all_kwargs == {"mine": 1}
            arguments = event.patch_all_arguments
            assert arguments["thread"] is False and arguments["socket"] is True
            assert "mine" not in arguments and len(arguments) == 15
        assert heard[0].will_patch_module("socket") and not heard[0].will_patch_module("thread")
        assert not monkey.is_module_patched("threading")
    """)


def test_patching_the_same_again_does_nothing(run_fresh: Run) -> None:
    run_fresh(
        LISTEN
        + """
assert warned(monkey.patch_all) == (True, [])
saved = {name: dict(objects) for name, objects in monkey.saved.items()}
del heard[:]
assert warned(monkey.patch_all) == (None, [])
assert heard == [] and saved == monkey.saved
"""
    )


def test_patching_with_other_arguments_warns_and_patches_the_rest(run_fresh: Run) -> None:
    run_fresh(
        LISTEN
        + """
import time, queue
sleep = time.sleep
monkey.patch_all(time=False, queue=False)
assert time.sleep is sleep
result, (text,) = warned(monkey.patch_all, time=False)
assert result is True and "more than once" in text
assert time.sleep is sleep and monkey.is_module_patched("queue")
result, (text,) = warned(monkey.patch_all, os=False, time=False)  # nothing is taken back
assert result is None and "more than once" in text
assert monkey.is_module_patched("os") and time.sleep is sleep
result, (text,) = warned(monkey.patch_all)
assert result is True and time.sleep is not sleep
assert monkey.get_original("time", "sleep") is sleep
assert warned(monkey.patch_all) == (None, [])
"""
    )


def test_a_subscriber_may_prevent_patching(run_fresh: Run) -> None:
    run_fresh("""
        from bridge import events, monkey
        def veto(event):
            if isinstance(event, events.GeventWillPatchAllEvent):
                raise events.DoNotPatch
        events.subscribers.append(veto)
        assert monkey.patch_all() is False
        assert not monkey.is_module_patched("time")
        assert monkey.patch_all() is None

        def veto_time(event):
            if getattr(event, "module_name", None) == "time":
                raise events.DoNotPatch
        events.subscribers[:] = [veto_time]
        assert monkey.patch_time() is None
        assert not monkey.is_module_patched("time")
    """)


def test_plugins_hear_of_patching(tmp_path: Path, run_fresh: Run) -> None:
    (tmp_path / "my_plugin.py").write_text("heard = []\n")
    info = tmp_path / "my_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[gevent.plugins.monkey.did_patch_builtins]\nmine = my_plugin:heard.append\n"
        "[bridge.plugins.monkey.will_patch_module]\nmine = my_plugin:heard.append\n"
    )
    out = run_fresh(
        """
        from bridge import monkey
        import my_plugin
        monkey.patch_all(thread=False)
        print(*[getattr(e, "module_name", type(e).__name__) for e in my_plugin.heard])
        """,
        path=tmp_path,
    )
    assert out == (
        "os time socket select selectors ssl subprocess signal queue GeventDidPatchBuiltinModulesEvent\n"
    )


def test_what_a_plugin_puts_into_multiprocessing_stays_as_it_is(run_fresh: Run) -> None:
    out = run_fresh("""
        import multiprocessing.connection, multiprocessing.synchronize
        from bridge import events, monkey
        class SemLock:
            pass
        class Connection(multiprocessing.connection.Connection):
            def _recv(self, size): ...
            def _send(self, buf): ...
        def replace(event):
            if isinstance(event, events.GeventWillPatchAllEvent):
                multiprocessing.synchronize.SemLock = SemLock
                multiprocessing.connection.Connection = Connection
        events.subscribers.append(replace)
        before = dict(vars(SemLock)), dict(vars(Connection))
        assert monkey.patch_all()
        print((dict(vars(SemLock)), dict(vars(Connection))) == before)
    """)
    assert out == "True\n"


@pytest.mark.parametrize(
    ("call", "patched"),
    [
        ("patch_time()", "time"),
        ("patch_os()", "os"),
        ("patch_signal()", "signal"),
        ("patch_select()", "select"),
        ("patch_selectors()", "selectors"),
        ("patch_socket()", "socket"),
        ("patch_dns()", "socket"),
        ("patch_queue()", "queue"),
        ("patch_subprocess()", "subprocess"),
        ("patch_ssl()", "ssl"),
        ("patch_builtins()", ""),
        ("patch_contextvars()", ""),
        ("patch_sys()", ""),
    ],
)
def test_each_part_patches_its_module_only(call: str, patched: str, run_fresh: Run) -> None:
    out = run_fresh(f"from bridge import monkey\nassert monkey.{call} is None\nprint(*monkey.saved)")
    assert out == patched + "\n"


def test_arguments_that_say_how_something_is_patched(run_fresh: Run) -> None:
    run_fresh("""
        import select, selectors, socket, threading
        from bridge import monkey
        kept = threading.Event, select.epoll, selectors.EpollSelector, socket.getaddrinfo
        monkey.patch_all(Event=False, aggressive=False, dns=False)
        assert kept == (threading.Event, select.epoll, selectors.EpollSelector, socket.getaddrinfo)
        assert monkey.is_object_patched("socket", "socket")
        monkey.patch_dns()
        assert monkey.is_object_patched("socket", "getaddrinfo")
    """)


def test_in_drop_in_mode_the_socket_says_that_it_is_gevent_s(run_fresh: Run) -> None:
    code = "import bridge, socket\nMODE\nfrom bridge import monkey\nmonkey.patch_all()\nprint(socket.socket)"
    assert run_fresh(code.replace("MODE", "")) == "<class 'bridge.socket.socket'>\n"
    out = run_fresh(
        code.replace("MODE", "bridge.install_as_gevent()") + "\nimport gevent.socket, pickle\n"
        "assert pickle.loads(pickle.dumps(socket.socket)) is gevent.socket.socket is bridge.socket.socket"
    )
    assert out == "<class 'gevent.socket.socket'>\n"


# -- warnings -----------------------------------------------------------------------------------------


def test_patching_signal_without_os_warns(run_fresh: Run) -> None:
    run_fresh(
        LISTEN + "_, (text,) = warned(monkey.patch_all, os=False)\nassert 'signal but not os' in text, text"
    )


def test_patching_beside_the_main_thread_warns(run_fresh: Run) -> None:
    run_fresh(
        LISTEN
        + """
import _thread
lock, done = _thread.allocate_lock(), []
lock.acquire()
def patch():
    try:
        done.append(warned(monkey.patch_all))
    finally:
        lock.release()
start = _thread.start_new_thread
start(patch, ())
lock.acquire()
(result, texts), = done
assert result is True and any("main" in text and "thread" in text for text in texts), texts
"""
    )


USES_SSL = """
import warnings
IMPORT
from bridge import monkey
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    monkey.patch_all()
    monkey.patch_all()
texts = [str(w.message) for w in found]
"""


def test_who_has_taken_names_from_ssl_is_warned_of(run_fresh: Run) -> None:
    code = USES_SSL.replace("IMPORT", "from ssl import SSLContext\nclass Mine(SSLContext): pass")
    out = run_fresh(code + "print(*texts)")
    assert "Modules that had direct imports (NOT patched): ['__main__ (None)']" in out
    assert "Subclasses (NOT patched): [\"<class '__main__.Mine'>\"]" in out
    out = run_fresh(
        USES_SSL.replace("IMPORT", "import ssl\nclass Mine(ssl.SSLContext): pass") + "print(*texts)"
    )
    assert "direct imports" not in out and "Subclasses (NOT patched)" in out and "bridge" not in out


def test_who_takes_names_from_patched_ssl_is_not_warned_of(run_fresh: Run) -> None:
    run_fresh("""
        from bridge import monkey
        monkey.patch_ssl()
        from ssl import SSLContext
        monkey.patch_ssl()
    """)


def test_ssl_may_be_imported_before(run_fresh: Run) -> None:
    assert (
        run_fresh(USES_SSL.replace("IMPORT", "import ssl, asyncio, urllib.request") + "print(texts)")
        == "[]\n"
    )


# -- python -m bridge.monkey ----------------------------------------------------------------------------

PROGRAM = """\
import os, sys, time
from bridge import monkey
print(__name__, sys.argv, sorted(name for name in monkey.saved if name in ("time", "socket", "queue")))
print(sys.modules["__main__"].__dict__ is globals())
"""


@pytest.fixture
def command(tmp_path: Path, environment: Callable[..., dict[str, str]]) -> Command:
    """``command(*arguments, code=0)`` runs python where program.py is; it returns stdout and stderr."""
    (tmp_path / "program.py").write_text(PROGRAM)

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    return run


@pytest.mark.parametrize("start", [["-m", "bridge.monkey"], ["-m", "bridge", "-m", "gevent.monkey"]])
def test_the_command_patches_and_runs_a_script(start: list[str], command: Command) -> None:
    out, _ = command(*start, "program.py", "--x", "y")
    assert out == "__main__ ['program.py', '--x', 'y'] ['queue', 'socket', 'time']\nTrue\n"


@pytest.mark.parametrize("option", ["--module", "-m"])
def test_the_command_runs_a_module(tmp_path: Path, option: str, command: Command) -> None:
    out, _ = command("-m", "bridge.monkey", option, "program", "a")
    path = str(tmp_path / "program.py")
    assert out == f"__main__ [{path!r}, 'a'] ['queue', 'socket', 'time']\nTrue\n"


def test_the_command_patches_what_it_is_told_to(command: Command) -> None:
    out, _ = command("-m", "bridge.monkey", "--time", "--queue", "program.py")
    assert "['queue', 'time']" in out
    out, _ = command("-m", "bridge.monkey", "--no-socket", "--no-Event", "program.py")
    assert "['queue', 'time']" in out


def test_the_command_refuses_what_it_does_not_know(command: Command) -> None:
    _, err = command("-m", "bridge.monkey", "--no-such", "program.py", code=1)
    assert "Cannot patch 'no-such'" in err and "usage" in err
    _, err = command("-m", "bridge.monkey", "missing.py", code=2)
    assert "missing.py" in err


def test_the_command_helps(command: Command) -> None:
    for arguments in (["--help"], []):
        out, _ = command("-m", "bridge.monkey", *arguments)
        assert out.startswith("usage: python -m bridge.monkey")


def test_the_command_tells_what_it_does(command: Command) -> None:
    out, _ = command("-m", "bridge.monkey", "--verbose", "--no-time", "program.py")
    assert out.startswith("bridge.monkey.patch_all(time=False)\nsys.version=")
    assert "'bridge.monkey'" in out and "['queue', 'socket']" in out


def test_a_script_finds_its_neighbours_and_the_current_folder(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "neighbour.py").write_text("")
    (tmp_path / "here.py").write_text("")
    (folder / "app.py").write_text("import neighbour, here\nprint('found')\n")
    assert command("-m", "bridge.monkey", "bin/app.py")[0] == "found\n"


def test_a_folder_can_be_run(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "__main__.py").write_text("import time\nprint(__name__, time.sleep.__module__)\n")
    assert command("-m", "bridge.monkey", "app")[0] == "__main__ bridge.hub\n"
