"""Puts the folder compat/gevent into the wheel, as bridge/_compat/gevent.

A `force-include` in pyproject.toml would say the same, but hatchling applies that to editable
installations too: site-packages would get a folder `bridge` without an `__init__.py`, which python takes
for a namespace package and prefers to the real one. An editable installation needs no copy, since
`bridge` finds the folder beside itself.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompatHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "standard":
            build_data["force_include"]["compat/gevent"] = "bridge/_compat/gevent"
