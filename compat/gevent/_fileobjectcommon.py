"""Cooperative files: names that libraries import from this private module of gevent."""

from __future__ import annotations

from bridge.fileobject import FileObjectBase, FileObjectBlock, FileObjectThread
from bridge.socket import cancel_wait_ex

__all__ = ["FileObjectBase", "FileObjectBlock", "FileObjectThread", "cancel_wait_ex"]
