"""What counts as a number of seconds."""

from __future__ import annotations

from typing import Any

__all__ = ["as_seconds", "checked_seconds"]


_MESSAGE = "timeout={!r}: a number of seconds, a Timeout or None is needed"


def as_seconds(value: Any, message: str = _MESSAGE) -> float:
    """``value`` as a float, whatever counts as a number: Decimal, Fraction, numpy; else TypeError."""
    try:
        if isinstance(value, (str, bytes, bytearray)):  # which float() would read
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(message.format(value)) from None


def checked_seconds(value: Any, message: str = _MESSAGE) -> float:
    """An int or a float as it is, anything else by :func:`as_seconds`."""
    kind = type(value)
    return value if kind is float or kind is int else as_seconds(value, message)
