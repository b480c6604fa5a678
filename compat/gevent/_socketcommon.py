"""Sockets: libraries import from this private module of gevent; its names are those of `gevent.socket`."""

from __future__ import annotations

from bridge.socket import *  # noqa: F403
from bridge.socket import __all__ as __all__
from bridge.socket import cancel_wait_ex as cancel_wait_ex
from bridge.socket import timeout_default as timeout_default
