"""``python -m bridge.pywsgi [-b ADDRESS] MODULE:APPLICATION`` serves a WSGI application."""

from __future__ import annotations

import argparse
import pkgutil
import sys

from . import WSGIServer

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Serve the application that the arguments name, patched, until the process ends."""
    parser = argparse.ArgumentParser(prog="python -m bridge.pywsgi")
    parser.add_argument("-b", "--bind", default="127.0.0.1:8080", help="the address to listen at")
    parser.add_argument("app", help="the WSGI application [module:callable]")
    options = parser.parse_args(argv)

    from .. import monkey

    monkey.patch_all()
    if "" not in sys.path:
        sys.path.insert(0, "")
    WSGIServer(options.bind, pkgutil.resolve_name(options.app)).serve_forever()


if __name__ == "__main__":
    main()
