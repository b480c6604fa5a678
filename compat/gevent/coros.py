"""The name that :mod:`gevent.lock` had until gevent 1.0; gevent dropped it in 1.3."""

from __future__ import annotations

from bridge.lock import BoundedSemaphore, DummySemaphore, RLock, Semaphore

__all__ = ["BoundedSemaphore", "DummySemaphore", "RLock", "Semaphore"]
