"""How many threads there are: what the engine asks before it says that nothing can wake a greenlet."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["thread_count"]

_api: Any = None


def thread_count() -> int:
    """How many threads run Python code, those included that were started and have not begun to.

    These have no frame yet, so that ``sys._current_frames()``, which is quick, does not know of them. Does
    not block; may be called from any thread.
    """
    count = len(sys._current_frames())
    if count > 1:
        return count
    api = _load()
    if api is None:
        return count
    count = 0
    state = api.PyInterpreterState_ThreadHead(api.PyInterpreterState_Get())
    while state:
        count += 1
        state = api.PyThreadState_Next(state)
    return count


def _load() -> Any:
    """The functions of CPython's C API; None where they cannot be had."""
    global _api
    if _api is None:
        try:
            from ctypes import PyDLL, c_void_p

            api: Any = PyDLL(None)  # of our own: ctypes.pythonapi is everybody's
            api.PyInterpreterState_Get.restype = c_void_p
            for function in (api.PyInterpreterState_ThreadHead, api.PyThreadState_Next):
                function.argtypes = [c_void_p]
                function.restype = c_void_p
        except (ImportError, AttributeError, OSError, TypeError):  # another Python, or Windows
            api = False
        _api = api
    return _api or None
