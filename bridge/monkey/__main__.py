"""``python -m bridge.monkey``: patch, then run a program; see :func:`bridge.monkey.main`."""

from __future__ import annotations

from . import main

if __name__ == "__main__":
    main()
