"""The old name of :mod:`gevent.resolver.cares`."""

from __future__ import annotations

import warnings

from gevent.resolver.cares import channel

__all__ = ["channel"]

warnings.warn(
    "gevent.ares is an old name; import gevent.resolver.cares instead", DeprecationWarning, stacklevel=2
)
