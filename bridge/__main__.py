"""``python -m bridge``: runs a program on bridge as python would run it, with bridge in gevent's place.

The program finds the ``__main__`` module, ``sys.argv`` and ``sys.path[0]`` that python itself would have
given it. It runs in a new ``__main__`` module, not by ``runpy.run_path`` or ``run_module``: these take
their module away again when its last line has run, and threads, ``atexit`` functions and
multiprocessing still need it then.
"""

from __future__ import annotations

import builtins
import io
import os
import pkgutil
import runpy
import sys
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import NoReturn

from bridge._dropin import install_as_gevent

#: What `python -m` itself calls.
_run_module_as_main: Callable[..., object] = runpy._run_module_as_main  # type: ignore[attr-defined]

USAGE = """\
usage: python -m bridge SCRIPT [ARGS...]
       python -m bridge -m MODULE [ARGS...]
       python -m bridge -c CODE [ARGS...]
       python -m bridge - [ARGS...]

Runs a program in which `import gevent` and `import gevent.*` give bridge: gevent's API on an
asyncio event loop. SCRIPT may be a file, or a folder or zip file with a __main__.py; - stands for
the standard input. BRIDGE_LOOP=uvloop|asyncio|module:factory chooses the loop.
"""


def main(arguments: list[str]) -> None:
    """Run the program that *arguments* name; they are those after ``python -m bridge``.

    Raises whatever the program raises, and SystemExit for wrong arguments.
    """
    if not arguments:
        _fail(USAGE)
    first, *rest = arguments
    if first in ("-h", "--help"):
        print(USAGE, end="")
        return
    option = first[:2]
    run: Callable[[str], None]
    if first == "-" or not first.startswith("-"):
        run, name = (_run_stdin if first == "-" else _run_script), first
    elif option in ("-m", "-c"):
        run = _run_module if option == "-m" else _run_code_argument
        # both `-m name` and `-mname`, as with python
        if len(first) > 2:
            name = first[2:]
        elif rest:
            name, *rest = rest
        else:
            _fail(f"Argument expected for the {option} option\n{USAGE}")
    else:
        _fail(f"Unknown option: {first}\n{USAGE}")
    sys.argv[:] = [option if run in (_run_module, _run_code_argument) else first, *rest]
    install_as_gevent()
    try:
        run(name)
    except SystemExit:
        raise
    except BaseException as error:
        # the traceback begins with this function and those that it called here, which python has not
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_globals is globals():
            traceback = traceback.tb_next
        _show_only(error, traceback)
        raise


def _run_module(name: str) -> None:
    _new_main()
    _run_module_as_main(name)


def _run_code_argument(code: str) -> None:
    _set_path("")
    _exec(compile(code, "<string>", "exec", dont_inherit=True), _new_main())


def _run_stdin(_name: str) -> None:
    _set_path("")
    module = _new_main()
    _set_file(module, "<stdin>")
    _exec(compile(sys.stdin.buffer.read(), "<stdin>", "exec", dont_inherit=True), module)


def _run_script(name: str, package: str | None = None, keep: bool = False) -> None:
    """Run a file, folder or zip file; with *keep*, ``sys.path[0]`` stays, behind the program's folder."""
    if keep and not sys.flags.safe_path:
        sys.path.insert(0, "")  # to be replaced
    # python makes the path absolute and does not normalise it
    path = os.path.join(os.getcwd(), name)
    if pkgutil.get_importer(path) is not None:  # a folder or a zip file
        if sys.flags.safe_path:
            sys.path.insert(0, path)
        else:
            sys.path[0] = path
        _new_main()
        _run_module_as_main("__main__", False)
        return
    module = _new_main()
    module.__package__ = package
    try:
        with io.open_code(path) as file:
            # runs a .pyc file too
            code: CodeType | None = pkgutil.read_code(file)
        compiled = code is not None
        if code is None:
            with io.open_code(path) as file:
                source = file.read()
    except OSError as error:
        _fail(f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n")
    _set_path(os.path.dirname(os.path.realpath(path)))
    _set_file(module, path)
    module.__loader__ = (SourcelessFileLoader if compiled else SourceFileLoader)("__main__", path)
    if code is None:
        code = compile(source, path, "exec", dont_inherit=True)
    _exec(code, module)


def _new_main() -> ModuleType:
    """Put an empty ``__main__`` in place, as python has it before it runs anything."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    module.__loader__ = BuiltinImporter
    if sys.version_info < (3, 14):  # which gives it none
        module.__annotations__ = {}
    sys.modules["__main__"] = module
    return module


def _set_file(module: ModuleType, path: str) -> None:
    module.__file__ = path
    if "__cached__" in globals():
        module.__dict__["__cached__"] = None


def _set_path(folder: str) -> None:
    """Replace the folder that `python -m` put in front of ``sys.path``, unless it was told to put none."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _exec(code: CodeType, module: ModuleType) -> None:
    exec(code, module.__dict__)


def _show_only(error: BaseException, traceback: TracebackType | None) -> None:
    """Have *error* shown with *traceback*, when python comes to show it as the end of the program."""
    hook = sys.excepthook

    def excepthook(kind: type[BaseException], value: BaseException, tb: TracebackType | None) -> None:
        sys.excepthook = hook
        if value is error:
            tb = value.__traceback__ = sys.last_traceback = traceback
        hook(kind, value, tb)

    sys.excepthook = excepthook


def _fail(message: str) -> NoReturn:
    sys.stderr.write(message)
    sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
