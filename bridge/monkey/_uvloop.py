"""Has uvloop use real threads for its executor; see :mod:`._originals`."""

from __future__ import annotations

import asyncio
import gc
import warnings
from concurrent.futures import Executor
from typing import Any
from weakref import WeakKeyDictionary

from . import _native

#: The default executor of each loop that has been looked at.
_executors: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def bind(native_pool: Any) -> None:
    """Override the methods of ``uvloop.Loop`` that deal with the default executor."""
    import uvloop

    base: Any = uvloop.Loop.__bases__[0]

    def find(loop: Any) -> Any:
        """The default executor of a loop. It does not tell; its garbage collection has to."""
        if loop not in _executors:
            held = [obj for obj in gc.get_referents(loop) if isinstance(obj, Executor)]
            _executors[loop] = held[0] if held else None
        return _executors[loop]

    def run_in_executor(self: Any, executor: Any, func: Any, *args: Any) -> Any:
        if executor is None and find(self) is None:
            self.set_default_executor(native_pool(thread_name_prefix="uvloop"))
        return base.run_in_executor(self, executor, func, *args)

    def set_default_executor(self: Any, executor: Any) -> None:
        base.set_default_executor(self, executor)
        _executors[self] = executor

    async def shutdown_default_executor(self: Any, timeout: float | None = None) -> None:
        """Wait for the threads of the default executor to end, for *timeout* seconds at most."""
        executor = find(self)
        base.set_default_executor(self, None)
        _executors[self] = None
        await base.shutdown_default_executor(self)  # from now on it refuses
        if executor is None:
            return
        ended = self.create_future()

        def set_unless_done(error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result(error)

        def shut_down() -> None:
            error = None
            try:
                executor.shutdown(wait=True)
            except Exception as e:
                error = e
            self.call_soon_threadsafe(set_unless_done, error)

        thread = _native.Thread(target=shut_down)
        thread.start()
        try:
            async with asyncio.timeout(timeout):
                error = await ended
        except TimeoutError:
            warnings.warn(
                f"The executor did not finish joining its threads within {timeout} seconds.",
                RuntimeWarning,
                stacklevel=2,
            )
            executor.shutdown(wait=False)
        else:
            thread.join()
            if error is not None:
                raise error

    for method in (run_in_executor, set_default_executor, shutdown_default_executor):
        method.__qualname__ = f"Loop.{method.__name__}"
        setattr(uvloop.Loop, method.__name__, method)
