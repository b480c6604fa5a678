"""What gevent keeps below its hub; libraries look here for all greenlets of the process."""

from __future__ import annotations

from typing import Any

from greenlet import getcurrent, greenlet

from bridge._core.census import all_greenlets

__all__ = ["get_memory", "get_reachable_greenlets", "getcurrent"]


def get_reachable_greenlets() -> list[greenlet]:
    """Return the greenlets that the garbage collector knows, of all threads.

    Left out are those with a true attribute ``greenlet_tree_is_ignored``. Costs a walk through every
    object of the process; does not block the greenlet.
    """
    return [found for found in all_greenlets() if not getattr(found, "greenlet_tree_is_ignored", False)]


def get_memory(data: Any) -> Any:
    """Return *data* as something that can be sliced without copying: a memoryview, or *data* if it is one."""
    return data if isinstance(data, memoryview) else memoryview(data)
