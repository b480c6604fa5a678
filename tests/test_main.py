"""``python -m bridge``: the program cannot tell it from python, but for what `import gevent` gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

#: Prints what the program sees of its own start.
PROBE = """
import json, sys
main = sys.modules["__main__"]
facts = {
    "names": sorted(k for k in vars(main) if k.startswith("__")),
    "name": __name__,
    "file": vars(main).get("__file__"),
    "package": __package__,
    "loader": getattr(__loader__, "__name__", type(__loader__).__name__),
    "spec": __spec__ and [__spec__.name, __spec__.origin],
    "cached": vars(main).get("__cached__"),
    "doc": __doc__,
    "builtins": type(__builtins__).__name__,
    "argv": sys.argv,
    "path": sys.path,
    "same": vars(main) is globals(),
}
print(json.dumps(facts))
"""

ROOT = Path(__file__).parents[1]

# everything here runs in processes of its own
pytestmark = pytest.mark.engines("none")


def python(
    *arguments: str, cwd: Path, stdin: str = "", flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, *arguments],
        cwd=cwd,
        input=stdin,
        # the project may be tested without being installed
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=60,
    )


def bridge(
    *arguments: str, cwd: Path, stdin: str = "", flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return python("-m", "bridge", *arguments, cwd=cwd, stdin=stdin, flags=flags)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the probe in every form that python runs."""
    for name in ["script.py", "a b.py", "folder/__main__.py", "package/__main__.py", "package/module.py"]:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(PROBE)
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "link.py").symlink_to(tmp_path / "script.py")
    (tmp_path / "no_main").mkdir()
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", PROBE)
    (tmp_path / "failing.py").write_text("def f():\n    1 / 0\n\nf()\n")
    (tmp_path / "wrong.py").write_text("def :\n")
    return tmp_path


FORMS = [
    ["script.py"],
    ["script.py", "-m", "x", "--", "-h"],
    ["./script.py"],
    ["a b.py", "c d"],
    ["links/link.py"],
    ["folder", "x"],
    ["archive.zip", "x"],
    ["-m", "script", "x"],
    ["-m", "package", "-c"],
    ["-m", "package.module"],
    ["-mpackage.module", "x"],
    ["-c", PROBE, "x", "-y"],
    ["-", "x"],
]


@pytest.mark.parametrize("flags", [(), ("-P",)], ids=["", "safe path"])
@pytest.mark.parametrize("arguments", FORMS, ids=lambda a: " ".join(a).replace(PROBE, "PROBE"))
def test_program_sees_what_python_would_show_it(
    programs: Path, arguments: list[str], flags: tuple[str, ...]
) -> None:
    stdin = PROBE if arguments[0] == "-" else ""
    if flags and arguments[0].startswith("-m"):
        # found without the working directory
        arguments = ["-m", "json.tool", "-h"]
    expected = python(*arguments, cwd=programs, stdin=stdin, flags=flags)
    result = bridge(*arguments, cwd=programs, stdin=stdin, flags=flags)
    assert (result.returncode, result.stderr) == (expected.returncode, expected.stderr) == (0, "")
    if arguments[1:2] != ["json.tool"]:
        assert json.loads(result.stdout) == json.loads(expected.stdout)
    else:
        assert result.stdout == expected.stdout


def test_compiled_script(programs: Path) -> None:
    python("-m", "compileall", "-b", "-q", "script.py", cwd=programs)
    expected = python("script.pyc", cwd=programs)
    assert bridge("script.pyc", cwd=programs).stdout == expected.stdout != ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["failing.py"],
        ["wrong.py"],
        ["missing.py"],
        ["no_main"],
        ["-m", "failing"],
        ["-m", "missing"],
        ["-m", "package.missing"],
        ["-m", "no_main"],
        ["-c", "import sys; sys.exit(3)"],
        ["-c", "import sys; sys.exit('words')"],
        ["-c", "import sys; sys.exit()"],
        ["-c", "raise KeyboardInterrupt"],
        ["-c", "import sys; sys.excepthook = lambda t, v, tb: print(t, v, tb); raise ValueError(1)"],
        ["-c", "import os, atexit; atexit.register(lambda: os._exit(5))"],
    ],
    ids=" ".join,
)
def test_end_of_the_program_is_that_under_python(programs: Path, arguments: list[str]) -> None:
    if arguments[0] == "-c":
        # `python -c` shows source lines from 3.13 on
        (programs / "generated.py").write_text(arguments[1])
        arguments = ["generated.py"]
    expected = python(*arguments, cwd=programs)
    result = bridge(*arguments, cwd=programs)
    assert (result.returncode, result.stderr) == (expected.returncode, expected.stderr)
    if "at 0x" not in expected.stdout:  # an object is shown
        assert result.stdout == expected.stdout


def test_exception_hook_and_last_traceback_show_the_program_only(programs: Path) -> None:
    (programs / "hook.py").write_text(
        "import sys, traceback\n"
        "def hook(kind, value, tb):\n"
        "    print([f.name for f in traceback.extract_tb(tb)])\n"
        "    print(tb is value.__traceback__ is sys.last_traceback)\n"
        "    print(sys.excepthook is hook)\n"
        "sys.excepthook = hook\n"
        "def f():\n"
        "    raise ValueError\n"
        "f()\n"
    )
    assert bridge("hook.py", cwd=programs).stdout == "['<module>', 'f']\nTrue\nTrue\n"


def test_keyboard_interrupt_ends_it_as_it_ends_python(programs: Path) -> None:
    (programs / "waiting.py").write_text(
        "import gevent\n"
        "try:\n    print('waiting', flush=True)\n    gevent.sleep(1000)\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n    raise\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", "waiting.py"],
        cwd=programs,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell may have started us with SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == "interrupted\n"
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt") and "__main__.py" not in err


def test_gevent_is_bridge(programs: Path) -> None:
    (programs / "program.py").write_text(
        "import gevent, sys\n"
        "import gevent.queue\n"
        "assert gevent.queue is sys.modules['bridge.queue']\n"
        "print(gevent.__version__, gevent.spawn(lambda: __name__).get())\n"
    )
    assert bridge("program.py", cwd=programs).stdout == "26.9.0 __main__\n"


def test_main_module_outlives_the_program(programs: Path) -> None:
    """Threads, atexit functions and pickles need it after the last line."""
    (programs / "late.py").write_text(
        "import atexit, pickle, sys, threading, time\n"
        "class C:\n    pass\n"
        "def late():\n"
        "    assert sys.modules['__main__'].C is C is pickle.loads(pickle.dumps(C))\n"
        "    print('late')\n"
        "atexit.register(late)\n"
        "threading.Timer(0.1, late).start()\n"
    )
    result = bridge("late.py", cwd=programs)
    assert (result.stdout, result.stderr) == ("late\nlate\n", "")


@pytest.mark.parametrize("form", ["script", "module"])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_multiprocessing_starts_the_program_anew(programs: Path, method: str, form: str) -> None:
    (programs / "parallel.py").write_text(
        "import gevent, multiprocessing\n"
        "def square(n):\n"
        "    gevent.sleep(0)\n"
        "    return n * n, __name__, gevent.__version__\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context({method!r}).Pool(1) as pool:\n"
        "        print(pool.map(square, [1, 2]))\n"
        "        pool.close(); pool.join()\n"
    )
    result = bridge(*(["parallel.py"] if form == "script" else ["-m", "parallel"]), cwd=programs)
    assert result.stderr == ""
    assert result.stdout == "[(1, '__mp_main__', '26.9.0'), (4, '__mp_main__', '26.9.0')]\n"


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(tmp_path: Path, option: str) -> None:
    result = bridge(option, cwd=tmp_path)
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith("usage: python -m bridge SCRIPT [ARGS...]\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m bridge"),
        (["-m"], "Argument expected for the -m option\nusage:"),
        (["-c"], "Argument expected for the -c option\nusage:"),
        (["-x", "script.py"], "Unknown option: -x\nusage:"),
        (["--nope"], "Unknown option: --nope\nusage:"),
    ],
    ids=["none", "m", "c", "x", "nope"],
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = bridge(*arguments, cwd=tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith(message)
