"""What events and locks have in common: a name that libraries import from this private module of gevent."""

from __future__ import annotations

from bridge._linkable import AbstractLinkable

__all__ = ["AbstractLinkable"]
