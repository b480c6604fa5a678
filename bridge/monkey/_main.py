"""The command line: patch first, then run a program."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["USAGE", "main"]

USAGE = """\
usage: python -m bridge.monkey [OPTIONS] SCRIPT [ARGS...]
       python -m bridge.monkey [OPTIONS] --module MODULE [ARGS...]

Patches the standard library, then runs a program as python would run it. SCRIPT may be a file, or a
folder or zip file with a __main__.py; with --module (or -m) the program is the module of that name.

Without options everything is patched, as by patch_all(). --NAME patches only what is named, --no-NAME
all but what is named; NAME is an argument of patch_all().

options:
  -h, --help    show this text
  --verbose     say what is patched, and print the path and the modules that are loaded by then
  -m, --module  run a module
"""


def main(patch_all: Callable[..., object]) -> None:
    """Do what ``sys.argv`` says; ``sys.argv`` is then that of the program."""
    known = [p.name for p in inspect.signature(patch_all).parameters.values() if p.kind is not p.VAR_KEYWORD]
    arguments = sys.argv[1:]
    given: dict[str, bool] = {}
    verbose = as_module = False
    while arguments and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option in ("-h", "--help"):
            print(USAGE + "  --[no-]" + ", --[no-]".join(known))
            return
        if option == "--verbose":
            verbose = True
            continue
        if option in ("-m", "--module"):
            as_module = True
            continue
        name = option.removeprefix("--")
        wanted = not name.startswith("no-")
        name = name.removeprefix("no-")
        if not option.startswith("--") or name not in known:
            _fail(f"Cannot patch {option.removeprefix('--')!r}: it is not one of {', '.join(known)}")
        given[name] = wanted
    settings: dict[str, Any] = dict(given)
    if any(given.values()):
        # how something is patched is not what is patched
        settings = {name: False for name in known if name not in ("aggressive", "Event", "dns")} | settings
    if verbose:
        _print_state(settings)
    patch_all(**settings)
    if not arguments:
        print(USAGE, end="")
        return
    sys.argv[:] = arguments
    _run(as_module)


def _run(as_module: bool) -> None:
    import runpy

    if as_module:
        # As `python -m`; as there, the folder we were started in stays in front of sys.path.
        run_module: Callable[..., object] = runpy._run_module_as_main  # type: ignore[attr-defined]
        run_module(sys.argv[0])
    else:
        from bridge.__main__ import _run_script

        # Where python puts the program's folder in place of ours, gevent puts none: have both.
        _run_script(sys.argv[0], package="", keep=True)


def _print_state(settings: dict[str, Any]) -> None:
    import os
    from pprint import pformat

    arguments = ", ".join(f"{name}={value}" for name, value in settings.items())
    print(f"bridge.monkey.patch_all({arguments})")
    print(f"sys.version={sys.version}")
    print(f"sys.path={pformat(sys.path)}")
    print(f"sys.modules={pformat(sorted(sys.modules))}")
    print(f"cwd={os.getcwd()}")


def _fail(message: str) -> NoReturn:
    sys.exit(f"{USAGE}\n{message}")
