"""Making the standard library cooperative; twin of :mod:`gevent.monkey`.

:func:`patch_all`, called in the first lines of a program, replaces what blocks the thread in the standard
library by what blocks the greenlet, so that libraries that know nothing of greenlets cooperate. Each part
has a function of its own. Patch in the main thread, and before there are others; who has imported a name
before (``from socket import socket``) keeps the original.

What has been replaced can be asked (:func:`is_module_patched`, :func:`is_object_patched`), and the originals
can be had (:func:`get_original`). :func:`patch_module` replaces attributes of any module. What happens is
published as events, to subscribers and to plugins: see :mod:`bridge.events`.

asyncio itself keeps the originals, whatever was imported first: ``run_in_executor`` and ``to_thread`` use
real threads, and subprocesses, signal handlers, streams and servers work as before. After :func:`patch_all`,
``asyncio.run()`` may be called inside greenlets.

``python -m bridge.monkey`` patches and then runs a program: see :func:`main`.
"""

from __future__ import annotations

from typing import Any

from bridge._aio import nested
from bridge.events import (
    DoNotPatch,
    GeventDidPatchAllEvent,
    GeventDidPatchBuiltinModulesEvent,
    GeventWillPatchAllEvent,
    notify_and_call_entry_points,
)

from . import _main
from ._errors import MonkeyPatchWarning
from ._patches import (
    patch_builtins,
    patch_contextvars,
    patch_dns,
    patch_os,
    patch_queue,
    patch_select,
    patch_selectors,
    patch_signal,
    patch_socket,
    patch_ssl,
    patch_subprocess,
    patch_sys,
    patch_thread,
    patch_time,
)
from ._state import is_anything_patched, is_module_patched, is_object_patched, saved
from .api import get_original, patch_item, patch_module, remove_item
from .api import process_warnings as _process_warnings

__all__ = [
    "MonkeyPatchWarning",
    "get_original",
    "is_anything_patched",
    "is_module_patched",
    "is_object_patched",
    "main",
    "patch_all",
    "patch_builtins",
    "patch_contextvars",
    "patch_dns",
    "patch_item",
    "patch_module",
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
    "remove_item",
    "saved",
]

#: Where `saved` keeps what patch_all() was called with.
_SETTINGS = "_gevent_saved_patch_all_module_settings"


def patch_all(
    socket: bool = True,
    dns: bool = True,
    time: bool = True,
    select: bool = True,
    thread: bool = True,
    os: bool = True,
    ssl: bool = True,
    subprocess: bool = True,
    sys: bool = False,
    aggressive: bool = True,
    Event: bool = True,
    builtins: bool = True,
    signal: bool = True,
    queue: bool = True,
    contextvars: bool = True,
    **kwargs: Any,
) -> bool | None:
    """Make the standard library cooperative: call the other patch functions.

    :param aggressive: whether to remove what can only block the thread, too: see :func:`patch_select`.
    :param Event: whether ``threading.Event`` is replaced as well.
    :param select: :func:`patch_select` and :func:`patch_selectors`.
    :param sys: accepted as gevent does; does nothing.
    :param builtins: accepted as gevent does; does nothing, as `contextvars`.
    :param kwargs: for subscribers of the events.

    The others say whether the module of that name is patched. Called again with the same arguments it does
    nothing and returns None. Called with others it warns and patches what was not wanted before; it takes
    nothing back. Returns True, or False if a subscriber or plugin prevented it.

    Issues :class:`MonkeyPatchWarning`. Does not block. To be called in the main thread.
    """
    arguments = {name: value for name, value in locals().items() if name != "kwargs"}
    texts: list[str] = []
    first = _SETTINGS not in saved
    if not _to_be_done(arguments, texts):
        _process_warnings(texts)
        return None

    try:
        notify_and_call_entry_points(GeventWillPatchAllEvent(arguments, kwargs))
    except DoNotPatch:
        return False

    # In gevent's order, which subscribers and plugins see.
    if os:
        patch_os()
    if thread:
        patch_thread(Event=Event, _warnings=texts)
    if time:
        patch_time()
    if socket:
        patch_socket(dns=dns, aggressive=aggressive)
    if select:
        patch_select(aggressive=aggressive)
        patch_selectors(aggressive=aggressive)
    if ssl:
        patch_ssl(_warnings=texts, _first_time=first)
    if subprocess:
        patch_subprocess()
    if builtins:
        patch_builtins()
    if signal:
        if not os:
            texts.append(
                "Patching signal but not os: os.fork() and os.waitpid() stay as they are, so that a handler "
                "of SIGCHLD that calls os.waitpid() blocks the whole thread and may take the status of "
                "children that bridge.subprocess waits for"
            )
        patch_signal()
    if queue:
        patch_queue()
    if contextvars:
        patch_contextvars()
    if sys:
        patch_sys()

    nested.install()
    notify_and_call_entry_points(GeventDidPatchBuiltinModulesEvent(arguments, kwargs))
    notify_and_call_entry_points(GeventDidPatchAllEvent(arguments, kwargs))
    _process_warnings(texts)
    return True


def _to_be_done(arguments: dict[str, bool], texts: list[str]) -> bool:
    """Whether *arguments* want something that was not wanted before; keeps in mind what is wanted now."""
    before = saved.get(_SETTINGS)
    if before is None:
        saved[_SETTINGS] = arguments
        return True
    if before == arguments:
        return False
    texts.append("Patching more than once will result in the union of all True parameters being patched")
    if all(before.get(name) for name, wanted in arguments.items() if wanted):
        return False
    saved[_SETTINGS] = {name: wanted or before.get(name, False) for name, wanted in arguments.items()}
    return True


def main() -> None:
    """What ``python -m bridge.monkey`` does: patch as ``sys.argv`` says, then run a program as ``__main__``.

    ``python -m bridge.monkey [OPTIONS] SCRIPT [ARGS...]``, or ``--module`` (``-m``) and the name of a module
    in place of SCRIPT. Without options everything is patched; ``--no-ssl`` leaves out ssl, ``--socket``
    patches sockets only, and so on for each argument of :func:`patch_all`; ``--verbose`` tells about it.

    Raises what the program raises, and SystemExit for wrong arguments.
    """
    _main.main(patch_all)
