"""The low-level Waiter: names that libraries import from this private module of gevent."""

from __future__ import annotations

from bridge._core.waiter import MultipleWaiter, Waiter

__all__ = ["MultipleWaiter", "Waiter"]
