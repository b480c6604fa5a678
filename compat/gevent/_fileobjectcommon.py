"""Cooperative files: names that libraries import from this private module of gevent."""

from __future__ import annotations

from typing import Any

from bridge.fileobject import FileObjectBase, FileObjectBlock, FileObjectThread
from bridge.socket import cancel_wait_ex

__all__ = [
    "FileObjectBase", "FileObjectBlock", "FileObjectThread", "OpenDescriptor", "WriteallMixin",
    "cancel_wait_ex",
]  # fmt: skip


class WriteallMixin:
    """For raw files, whose ``write`` may take a part only."""

    def writeall(self, value: Any) -> None:
        """Write all of ``value``, in as many steps as it takes."""
        with memoryview(value).cast("B") as rest:
            done = 0
            while done < len(rest):
                done += self.write(rest[done:]) or 0  # type: ignore[attr-defined]


class OpenDescriptor:
    """The arguments of ``open()``, kept until somebody calls :meth:`open`.

    :param fobj: a path, a descriptor, or a file object, which is taken as it is.
    :param bufsize: the old name of ``buffering``; ValueError for both.
    """

    def __init__(
        self,
        fobj: Any,
        mode: str = "r",
        bufsize: int | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        buffering: int | None = None,
        closefd: bool | None = None,
        atomic: bool = False,
    ) -> None:
        if bufsize is not None and buffering is not None:
            raise ValueError("bufsize and buffering are the same: give one of them")
        self.fobj = fobj
        self.mode = mode
        self.buffering = bufsize if buffering is None else buffering
        self.encoding = encoding
        self.errors = errors
        self.newline = newline
        self.closefd = closefd is None or closefd
        self.atomic = atomic

    def open(self) -> Any:
        """The file, as ``io.open`` gives it. Blocks the thread as that does."""
        if hasattr(self.fobj, "read") or hasattr(self.fobj, "write"):
            return self.fobj
        buffering = -1 if self.buffering is None else self.buffering
        return open(
            self.fobj, self.mode, buffering, self.encoding, self.errors, self.newline, self.closefd
        )
