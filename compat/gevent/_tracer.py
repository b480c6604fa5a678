"""Tracers of switches: names that libraries import from this private module of gevent."""

from __future__ import annotations

from bridge.util import GreenletTracer, HubSwitchTracer, MaxSwitchTracer

__all__ = ["GreenletTracer", "HubSwitchTracer", "MaxSwitchTracer"]
