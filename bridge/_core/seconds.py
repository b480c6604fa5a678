"""What counts as a number of seconds."""

from __future__ import annotations

from typing import Any

__all__ = ["as_seconds"]


def as_seconds(
    value: Any, message: str = "timeout={!r}: a number of seconds, a Timeout or None is needed"
) -> float:
    """``value`` as a float, whatever counts as a number: Decimal, Fraction, numpy; else TypeError."""
    try:
        if isinstance(value, (str, bytes, bytearray)):  # which float() would read
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(message.format(value)) from None
