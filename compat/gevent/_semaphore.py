"""Semaphores: names that libraries import from this private module of gevent."""

from __future__ import annotations

from bridge.lock import BoundedSemaphore, Semaphore

__all__ = ["BoundedSemaphore", "Semaphore"]
