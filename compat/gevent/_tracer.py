"""Tracers of switches: names that libraries import from this private module of gevent."""

from __future__ import annotations

from bridge._monitor import GreenletTracer

__all__ = ["GreenletTracer"]
