"""Where the server writes its logs, and dates."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

__all__ = [
    "LoggingLogAdapter",
    "_NoopLog",
    "cached_http_date",
    "cached_log_date",
    "format_date_time",
    "log_to",
]

_WEEKDAYNAME = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHNAME = (
    None, "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip


class LoggingLogAdapter:
    """Makes a :class:`logging.Logger` a file to which a :class:`WSGIServer` can write.

    :param logger: anything with a method ``log(level, message)``.
    :param level: the level of all messages; by default INFO.

    Attributes are those of the logger. A logger may block, and a lock or a socket of a handler that was made
    before monkey patching blocks the thread.
    """

    __module__ = __package__
    __slots__ = ("_level", "_logger")

    def __init__(self, logger: Any, level: int = logging.INFO) -> None:
        object.__setattr__(self, "_logger", logger)
        object.__setattr__(self, "_level", level)

    def write(self, msg: str) -> None:
        """Log ``msg``; a line feed at its end is left out."""
        self._logger.log(self._level, msg.rstrip("\n"))

    def writelines(self, lines: Iterable[str]) -> None:
        """Log each of ``lines``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing: files have it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in LoggingLogAdapter.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._logger, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._logger, name)


class _NoopLog:
    """A log that nobody keeps."""

    def write(self, *_args: Any) -> None:
        """Nothing."""

    def writelines(self, *_args: Any) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


def log_to(target: Any, level: int) -> Any:
    """The file to write to for what was given as ``log`` or ``error_log``."""
    if target is None:
        return _NoopLog()
    if not hasattr(target, "write") and hasattr(target, "log"):
        return LoggingLogAdapter(target, level)
    return target


def format_date_time(timestamp: float) -> bytes:
    """``timestamp``, in seconds since 1970, as HTTP has it: ``b"Thu, 01 Jan 1970 00:00:00 GMT"``."""
    year, month, day, hours, minutes, seconds, weekday, _yearday, _dst = time.gmtime(timestamp)
    text = (
        f"{_WEEKDAYNAME[weekday]}, {day:02d} {_MONTHNAME[month]} {year:4d} "
        f"{hours:02d}:{minutes:02d}:{seconds:02d} GMT"
    )
    return text.encode("latin-1")


# Both change once in a second. A pair each, as threads with servers of their own share them.
_http_date: tuple[int, bytes] = (-1, b"")
_log_date: tuple[int, str] = (-1, "")


def cached_http_date(now: float) -> bytes:
    """As :func:`format_date_time`, for the present."""
    global _http_date
    second = int(now)
    kept = _http_date
    if kept[0] != second:
        kept = _http_date = (second, format_date_time(second))
    return kept[1]


def cached_log_date(now: float) -> str:
    """Local time as in the access log, for the present."""
    global _log_date
    second = int(now)
    kept = _log_date
    if kept[0] != second:
        kept = _log_date = (second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second)))
    return kept[1]
