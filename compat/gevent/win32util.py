"""What the system says of its error numbers."""

from __future__ import annotations

import os
import sys

__all__ = ["formatError"]


def formatError(errorcode: int) -> str:
    """The system's text for an error number: on Windows that of its own numbers. Does not block."""
    if sys.platform == "win32":
        from ctypes import FormatError

        text = FormatError(errorcode)
        if not text.startswith("<no description>"):
            return text
    return os.strerror(errorcode)
