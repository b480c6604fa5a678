"""One measured process: runs one case of one implementation, a round per "go" line.

Started by `rounds.py` as `python worker.py …` (gevent, asyncio on uvloop) or
`python -m bridge worker.py …` (bridge). Arguments: implementation, module, case, operations,
whether to warm up (0 or 1). Each answer is one line of JSON on what was standard output;
whatever the case prints goes to standard error instead.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from stopwatch import Stopwatch

VERSIONS_OF = ("gevent", "gevent-bridge", "greenlet", "uvloop")


def versions() -> dict[str, str]:
    """Return the installed versions of what this process may be measuring."""
    found = {"python": sys.version.split()[0]}
    for name in VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def refuse_mistaken_identity(implementation: str) -> None:
    """Raise RuntimeError if `gevent` is not what this column of the table claims to be."""
    bridged = "bridge" in sys.modules and sys.modules["gevent.queue"] is sys.modules.get("bridge.queue")
    if implementation == "gevent" and "bridge" in sys.modules:
        raise RuntimeError("the gevent worker has bridge loaded: it would measure bridge against itself")
    if implementation == "bridge" and not bridged:
        raise RuntimeError(f"the bridge worker got a gevent that is not bridge: {sys.modules['gevent']!r}")


def load(implementation: str, module: str, name: str) -> Callable[[int, Stopwatch], float | None] | None:
    """Return the case's function as a plain callable, or None if there is no twin of it."""
    if implementation != "uvloop":
        importlib.import_module("gevent.queue")
        refuse_mistaken_identity(implementation)
        loaded = importlib.import_module(f"cases.{module}")
        function: Callable[[int, Stopwatch], float | None] = getattr(loaded, name)
        return function
    import asyncio

    import uvloop

    coroutine_function = getattr(importlib.import_module(f"twins.{module}"), name, None)
    if coroutine_function is None:
        return None
    # one loop for all rounds, as the hub of the others lives through all of them
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    return lambda operations, measure: runner.run(coroutine_function(operations, measure))


def one_round(function: Callable[[int, Stopwatch], float | None], operations: int) -> dict[str, Any]:
    """Run the case once and return what it measured."""
    gc.collect()
    measure = Stopwatch()
    value = function(operations, measure)
    if value is None and not measure.used:
        raise RuntimeError("the case neither used its stopwatch nor returned a value")
    return {"wall": measure.wall, "cpu": measure.cpu, "value": value}


def main(implementation: str, module: str, name: str, operations: int, warm: bool) -> None:
    """Serve rounds until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    function = load(implementation, module, name)
    if function is None:
        answer({"twin": False})
        return
    if warm:
        one_round(function, operations)
    answer({"twin": True, "versions": versions()})
    # a blocking read of the plain file: an idle worker takes no time from the one being measured
    for line in sys.stdin:
        if line.strip() == "go":
            answer(one_round(function, operations))
    # what an exit costs is not measured, and half a round's greenlets need not be unwound
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "1")
