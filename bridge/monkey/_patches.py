"""The functions that patch one module each."""

from __future__ import annotations

import importlib
import sys

from bridge._dropin import is_installed
from bridge._sockets import socket as _socket

from . import _originals
from ._state import is_object_patched
from ._util import outside_references, patch_twin
from .api import process_warnings

__all__ = [
    "patch_builtins",
    "patch_contextvars",
    "patch_dns",
    "patch_os",
    "patch_queue",
    "patch_select",
    "patch_selectors",
    "patch_signal",
    "patch_socket",
    "patch_ssl",
    "patch_subprocess",
    "patch_sys",
    "patch_thread",
    "patch_time",
]


def patch_os() -> None:
    """Replace ``os.fork``, ``waitpid``, ``wait``, ``posix_spawn`` and the like, and ``close``.

    Those of `bridge.os` take their places. Does not block.
    """
    patch_twin("os")


def patch_queue() -> None:
    """Replace the classes of :mod:`queue` by those of :mod:`bridge.queue`.

    Their documented attributes are the same; what is inside is not. Does not block.
    """
    patch_twin("queue", ["SimpleQueue", "PriorityQueue", "LifoQueue", "Queue"])


def patch_time() -> None:
    """Replace ``time.sleep`` by :func:`bridge.sleep`. Does not block."""
    patch_twin("time")


def patch_contextvars() -> None:
    """Does nothing: greenlets have contexts of their own. It exists since gevent has it."""


def patch_builtins() -> None:
    """Does nothing: imports need no help. It exists since gevent has it."""


def patch_sys(stdin: bool = True, stdout: bool = True, stderr: bool = True) -> None:
    """Does nothing: the standard streams stay as they are. It exists since gevent has it."""


def patch_thread(
    threading: bool = True,
    _threading_local: bool = True,
    Event: bool = True,
    logging: bool = True,
    existing_locks: bool = True,
    _warnings: list[str] | None = None,
) -> None:
    """Make threads greenlets: replace what is in ``_thread`` and :mod:`threading`.

    :param threading: whether to patch :mod:`threading`, and not ``_thread`` alone.
    :param _threading_local: whether to patch ``_threading_local`` too.
    :param Event: whether ``threading.Event`` is replaced as well.
    :param logging: whether the locks that :mod:`logging` has already are replaced.
    :param existing_locks: whether locks that are held now can be released afterwards.

    Pools of ``concurrent.futures`` that are made from now on use greenlets; asyncio's own use threads, and
    :class:`bridge.threadpool.ThreadPoolExecutor` does for everybody.

    Warns if it is not called in the main thread. Does not block.
    """
    _originals.keep_originals()
    threads = importlib.import_module("._threads", __package__)
    texts: list[str] = [] if _warnings is None else _warnings
    threads.patch_thread(threading, _threading_local, Event, logging, existing_locks, texts)
    if _warnings is None:
        process_warnings(texts)


def patch_socket(dns: bool = True, aggressive: bool = True) -> None:
    """Replace sockets and what makes them by those of :mod:`bridge.socket`.

    :param dns: whether names are looked up cooperatively too, as by :func:`patch_dns`.
    :param aggressive: accepted as gevent does; there is nothing that would have to be removed.

    Does not block.
    """
    from bridge import socket

    if is_installed():
        # Where our name is gevent: programs look for the word in repr(socket.socket).
        _socket.__module__ = "gevent.socket"
    patch_twin("socket", [name for name in socket.__implements__ if dns or name not in socket.__dns__])


def patch_dns() -> None:
    """Replace the functions of :mod:`socket` that look up names. Does not block."""
    from bridge import socket

    patch_twin("socket", list(socket.__dns__))


def patch_ssl(_warnings: list[str] | None = None, _first_time: bool = True) -> None:
    """Replace ``SSLSocket``, ``SSLContext`` and what makes them by those of :mod:`bridge.ssl`.

    Only useful together with :func:`patch_socket`. Warns about modules that have taken names from
    :mod:`ssl` already, and about classes derived from ``SSLContext``: they keep the original. Does not block.
    """
    texts: list[str] = [] if _warnings is None else _warnings
    if _first_time:
        text = _late_for_ssl()
        if text:
            texts.append(text)
    patch_twin("ssl", _warnings=texts)
    if _warnings is None:
        process_warnings(texts)


def _late_for_ssl() -> str:
    """Who has taken from ssl what will be replaced there, as a text; empty if nobody has."""
    ssl = sys.modules.get("ssl")
    if ssl is None or is_object_patched("ssl", "SSLContext"):
        return ""
    modules = outside_references([ssl.SSLContext], "ssl")
    classes = [repr(cls) for cls in ssl.SSLContext.__subclasses__() if not _is_ours(cls)]
    text = ""
    if modules:
        text += f" Modules that had direct imports (NOT patched): {modules}."
    if classes:
        text += f" Subclasses (NOT patched): {classes}."
    if text:
        text = (
            "Monkey-patching ssl after it has been used: TLS connections that are made through these "
            f"block the whole thread. Call patch_all() earlier, before they are imported.{text}"
        )
    return text


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "bridge"


def patch_select(aggressive: bool = True) -> None:
    """Replace ``select.select`` and ``select.poll`` by those of :mod:`bridge.select`.

    :param aggressive: whether to remove ``epoll``, ``kqueue``, ``kevent`` and ``devpoll`` from :mod:`select`,
        too: they can only block the thread.

    Does not block.
    """
    patch_twin("select", _patch_kwargs={"aggressive": aggressive})


def patch_selectors(aggressive: bool = True) -> None:
    """Replace ``selectors.DefaultSelector`` by that of :mod:`bridge.selectors`.

    :param aggressive: whether to remove ``EpollSelector``, ``KqueueSelector`` and ``DevpollSelector`` too:
        they can only block the thread.

    Does not block.
    """
    patch_twin("selectors", _patch_kwargs={"aggressive": aggressive})


def patch_subprocess() -> None:
    """Replace ``Popen``, ``run``, ``call`` and the others by those of :mod:`bridge.subprocess`.

    Where :mod:`multiprocessing` would start processes anew by default (macOS, and from Python 3.14 on
    everywhere), it forks from now on, as with gevent. Does not block.
    """
    if not patch_twin("subprocess"):
        return
    if sys.platform == "darwin" or (sys.platform != "win32" and sys.version_info >= (3, 14)):
        from multiprocessing import set_start_method

        set_start_method("fork", force=True)


def patch_signal() -> None:
    """Replace ``signal``, ``getsignal`` and ``set_wakeup_fd`` by those of :mod:`bridge.signal`.

    Does not block. To be called in the main thread.
    """
    patch_twin("signal")
