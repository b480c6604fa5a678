"""The old name of :mod:`gevent.resolver.ares`."""

from __future__ import annotations

import warnings

from gevent.resolver.ares import Resolver

__all__ = ["Resolver"]

warnings.warn(
    "gevent.resolver_ares is an old name; import gevent.resolver.ares instead",
    DeprecationWarning,
    stacklevel=2,
)
