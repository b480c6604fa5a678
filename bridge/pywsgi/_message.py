"""The header fields of a request as a message object."""

from __future__ import annotations

from collections.abc import Iterator
from email.parser import Parser
from http.client import HTTPMessage
from typing import Any

__all__ = ["OldMessage", "headers_factory"]


class OldMessage(HTTPMessage):
    """A message with a few names of the class that Python 2 had."""

    def getheader(self, name: str, default: Any = None) -> Any:
        """The value of the first field called ``name``."""
        return self.get(name, default)

    @property
    def headers(self) -> Iterator[str]:
        """The fields as lines."""
        for name, value in self.items():
            yield f"{name}: {value}\r\n"

    @property
    def typeheader(self) -> Any:
        """The value of Content-Type."""
        return self.get("content-type")


def headers_factory(fp: Any, *_args: Any) -> OldMessage:
    """Read header fields from ``fp``, up to an empty line."""
    lines = []
    while (line := fp.readline()) not in (b"\r\n", b"\n", b""):
        lines.append(line)
    return Parser(_class=OldMessage).parsestr(b"".join(lines).decode("latin-1"), headersonly=True)
