"""The class of sockets: libraries import it from this private module of gevent, as `gevent.socket` has it."""

from __future__ import annotations

from bridge.socket import *  # noqa: F403
from bridge.socket import __all__ as __all__
from bridge.socket import cancel_wait_ex as cancel_wait_ex
from bridge.socket import timeout_default as timeout_default
