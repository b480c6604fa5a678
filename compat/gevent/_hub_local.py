"""The hub of the current thread: names that libraries import from this private module of gevent."""

from __future__ import annotations

from bridge._core.hub import (
    Hub,
    get_hub,
    get_hub_class,
    get_hub_if_exists,
    get_loop,
    set_default_hub_class,
    set_hub,
    set_loop,
)

__all__ = [
    "Hub",
    "get_hub",
    "get_hub_class",
    "get_hub_if_exists",
    "get_hub_noargs",
    "get_loop",
    "set_default_hub_class",
    "set_hub",
    "set_loop",
]

get_hub_noargs = get_hub
