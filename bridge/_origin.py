"""Where a greenlet was made: what remains of the frames of its spawner."""

from __future__ import annotations

import sys
from types import CodeType
from typing import Any

from ._core.accelerated import accelerator

__all__ = ["Frame", "callers", "line_of"]

#: The compiled one looks no further.
_FAR = 32


def callers(limit: int, like: tuple[Any, ...], /) -> tuple[Any, ...]:
    """Code, offset, code, offset ... of the callers of the current function, the nearest first.

    Pairs, since frames would keep the variables of the spawner alive; line numbers (:func:`line_of`) are only
    worked out for who asks.

    :param limit: how many callers at the most.
    :param like: an earlier result, which is given again if it says the same: most greenlets are made in
        loops, and need not keep a tuple each.
    """
    if limit > _FAR:
        limit = _FAR
    found: list[Any] = []
    frame = sys._getframe(1).f_back  # not (2), which raises if there is none
    while frame is not None and limit > 0:
        found += frame.f_code, frame.f_lasti
        frame = frame.f_back
        limit -= 1
    noted = tuple(found)
    return like if noted == like else noted


if (_compiled := accelerator("_stack")) is not None:
    callers = _compiled.callers


class Frame:
    """What remains of a frame of the spawner: enough for ``traceback.print_stack``."""

    __slots__ = ("f_back", "f_code", "f_globals", "f_lasti", "f_lineno", "f_locals")

    def __init__(self, f_code: CodeType, f_lineno: int, f_back: Frame | None) -> None:
        self.f_code = f_code
        self.f_lineno = f_lineno
        self.f_back = f_back
        self.f_lasti = 0
        self.f_globals: dict[str, Any] = {"__name__": f_code.co_name}
        self.f_locals: dict[str, Any] = {}

    @property
    def tb_frame(self) -> Frame:
        return self


def line_of(code: CodeType, lasti: int) -> int:
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno
