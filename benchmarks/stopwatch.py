"""What a case is given to measure and to verify with; knows no implementation."""

from __future__ import annotations

import gc
import os
import sys
import time
from types import TracebackType


class WrongResult(Exception):
    """A case did its work and got something else than it should have."""


def check(condition: object, what: str) -> None:
    """Raise `WrongResult(what)` unless *condition* is true; unlike `assert`, under `python -O` too."""
    if not condition:
        raise WrongResult(what)


class Stopwatch:
    """Adds up wall and CPU seconds of the `with` blocks it is used in; may be used several times.

    CPU is that of the whole process, all threads included. Garbage that the preparations left is
    collected before the first block, so that no implementation pays for another part of a case.
    """

    def __init__(self) -> None:
        self.wall = 0.0
        self.cpu = 0.0
        self.used = False
        self._wall_begin = 0.0
        self._cpu_begin = 0.0

    def __enter__(self) -> Stopwatch:
        if not self.used:
            gc.collect()
            self.used = True
        self._cpu_begin = time.process_time()
        self._wall_begin = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall += time.perf_counter() - self._wall_begin
        self.cpu += time.process_time() - self._cpu_begin

    def add(self, other: Stopwatch) -> None:
        """Add what *other* measured."""
        self.used = self.used or other.used
        self.wall += other.wall
        self.cpu += other.cpu


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes.

    Where the current figure cannot be read (no /proc), the peak so far is returned instead: right
    as long as the process only grows, which is why memory cases get a fresh process each time.
    """
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        import resource  # not on Windows, where there is no figure to give

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
