"""Waiting for objects and files: names that libraries import from this private module of gevent."""

from __future__ import annotations

from bridge import iwait as iwait_on_objects
from bridge import wait as wait_on_objects
from bridge._core.hub import Hub
from bridge.socket import wait as wait_on_watcher
from bridge.socket import wait_read, wait_readwrite, wait_write

__all__ = [
    "WaitOperationsGreenlet",
    "iwait_on_objects",
    "wait_on_objects",
    "wait_on_watcher",
    "wait_read",
    "wait_readwrite",
    "wait_write",
]

#: The greenlet that has ``wait(watcher)``: the hub itself.
WaitOperationsGreenlet = Hub
