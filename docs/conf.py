"""Configuration of Sphinx: ``sphinx-build -W docs OUT``, with what ``pip install '.[docs]'`` installs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bridge import __version__, config

project = "bridge"
author = "the authors of bridge"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"bridge {release}"

myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    # what comes from our own bases, most of which are private; shown() leaves out what comes from others
    "inherited-members": True,
}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# what some modules import, and what the documentation can be made without
autodoc_mock_imports = ["dns", "gunicorn", "pycares", "pytest"]

#: Whose names are documented; those of greenlet and queue are few, and part of what is described.
ORIGINS = ("bridge", "greenlet", "queue", "_queue")


def hidden(app: object, what: str, name: str, obj: Any, skip: bool, options: object) -> bool | None:
    """Leave out what belongs to the standard library: the twins have all its names, and it describes them."""
    function = getattr(obj, "fget", None) or getattr(obj, "__func__", None) or obj
    owner = getattr(function, "__objclass__", function)
    module = getattr(owner, "__module__", None) if callable(owner) else None
    if what != "module" and (module is None or module.split(".")[0] != "bridge") and callable(function):
        return True
    if module is not None and module.split(".")[0] not in ORIGINS:
        return True
    return None


def edit(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Take out the theory that opens a hard module, for those who read its source; put in the settings."""
    if "Theory of operation" in lines:
        del lines[lines.index("Theory of operation") :]
    if name == "bridge._config.Config":
        for setting in sorted(config.settings.values(), key=lambda each: each.order):
            lines += ["", f".. py:attribute:: {setting.name}", "   :no-index:", ""]
            lines += [f"   {line}" if line else "" for line in setting.desc.splitlines()]
        lines.append("")


def setup(app: Any) -> None:
    app.connect("autodoc-skip-member", hidden)
    app.connect("autodoc-process-docstring", edit)
