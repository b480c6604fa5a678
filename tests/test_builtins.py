"""The twin of builtins has the same functions."""

from __future__ import annotations

import builtins

from bridge import builtins as twin


def test_everything_is_the_original() -> None:
    assert twin.__target__ == "builtins" and twin.__implements__ == []
    assert {"open", "print", "Exception", "input"} <= set(twin.__imports__)
    assert all(getattr(twin, name) is getattr(builtins, name) for name in twin.__imports__)
