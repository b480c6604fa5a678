"""What is below :class:`bridge.subprocess.Popen` on Windows.

The files of the base class become files that are read in threads, and a greenlet looks for the end of the
child from time to time.
"""

from __future__ import annotations

import subprocess
from typing import Any

from .event import AsyncResult
from .fileobject import FileObjectThread
from .greenlet import Greenlet
from .hub import sleep

__all__ = ["WindowsPopen"]

# Taken now: monkey patching replaces it.
_Popen = subprocess.Popen


class WindowsPopen(_Popen[Any]):
    """What Popen needs of the system: starting a child, and learning of its end."""

    #: The return code, when there is one.
    result: AsyncResult[int]

    def __init__(self, args: Any, bufsize: int, *rest: Any, threadpool: Any, **options: Any) -> None:
        self.result = AsyncResult()
        self.threadpool = threadpool
        super().__init__(args, bufsize, *rest, **options)
        for name in ("stdin", "stdout", "stderr"):
            file = getattr(self, name)
            if file is not None:
                setattr(self, name, FileObjectThread(file, file.mode, threadpool=threadpool))
        self._looker: Greenlet[None] = Greenlet.spawn(self._look_for_the_end)

    def _look_for_the_end(self) -> None:
        pause = 0.001
        while self._internal_poll() is None:
            sleep(pause)
            pause = min(2 * pause, 0.05)

    def _internal_poll(self, *args: Any) -> int | None:
        super()._internal_poll(*args)  # type: ignore[misc]
        if self.returncode is not None and not self.result.ready():
            self.result.set(self.returncode)
        return self.returncode

    def _wait(self, timeout: float | None) -> int | None:
        if self._internal_poll() is None:
            self.result.wait(timeout)
            if self._internal_poll() is None:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode
