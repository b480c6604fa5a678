"""Where a greenlet was made: what remains of the frames of its spawner."""

from __future__ import annotations

from types import CodeType
from typing import Any

__all__ = ["Frame", "line_of"]


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
