"""The old name of :mod:`gevent.resolver.thread`."""

from __future__ import annotations

import warnings

from gevent.resolver.thread import Resolver

__all__ = ["Resolver"]

warnings.warn(
    "gevent.resolver_thread is an old name; import gevent.resolver.thread instead",
    DeprecationWarning,
    stacklevel=2,
)
