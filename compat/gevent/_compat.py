"""What gevent knows of platforms and Python versions; libraries import it from this private module."""

from __future__ import annotations

import io
import os
import sys
from abc import ABC
from os import PathLike, fsdecode, fsencode, fspath
from time import get_clock_info, monotonic, perf_counter
from types import TracebackType
from typing import NoReturn

from bridge._monitor import this_process as get_this_psutil_process

__all__ = [
    "ABC",
    "LINUX",
    "MAC",
    "OSX",
    "PURE_PYTHON",
    "PYPY",
    "WIN",
    "NativeStrIO",
    "PathLike",
    "exc_clear",
    "fsdecode",
    "fsencode",
    "fspath",
    "get_clock_info",
    "get_this_psutil_process",
    "hostname_types",
    "integer_types",
    "iteritems",
    "itervalues",
    "izip",
    "monotonic",
    "native_path_types",
    "perf_counter",
    "reraise",
    "string_types",
    "text_type",
    "thread_mod_name",
    "xrange",
]

PYPY = hasattr(sys, "pypy_version_info")
WIN = sys.platform.startswith("win")
LINUX = sys.platform.startswith("linux")
OSX = MAC = sys.platform == "darwin"

#: Whether the user asked for no compiled code.
PURE_PYTHON = PYPY or bool(os.environ.get("PURE_PYTHON") or os.environ.get("GEVENT_PURE_PYTHON"))

# the differences between Python 2 and 3 that old libraries still ask for

string_types = (str,)
integer_types = (int,)
text_type = str
native_path_types = (str, bytes)
hostname_types = (str, bytes, bytearray)
thread_mod_name = "_thread"
xrange = range
izip = zip
iteritems = dict.items
itervalues = dict.values
NativeStrIO = io.StringIO
_fspath = fspath


def exc_clear() -> None:
    """Do nothing: Python 3 forgets an exception at the end of its ``except`` clause."""


def reraise(t: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:
    """Raise *value* with the traceback *tb*, or with the one it has."""
    if tb is None or value.__traceback__ is tb:
        raise value
    raise value.with_traceback(tb)
