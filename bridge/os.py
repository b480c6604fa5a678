"""Low-level functions of the operating system; twin of :mod:`gevent.os`, and of :mod:`os`.

`nb_read` and `nb_write` wait for descriptors in non-blocking mode, `tp_read` and `tp_write` use the thread
pool for those that have none, such as regular files. Neither pair takes the place of ``os.read`` and
``os.write`` when the standard library is patched.

`fork`, `forkpty`, `posix_spawn` and `posix_spawnp` watch the child they make: it is reaped when it ends, and
its status is kept for `waitpid`, which blocks only the greenlet, and for `wait`, `wait3` and `wait4`. Every
child can be waited for, not only those; one that ends at once is not missed either.
"""

from __future__ import annotations

import errno
import os as _os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ._config import config
from ._core.children import (
    FIRST_LOOK,
    LONGEST_LOOK,
    ChildWatch,
    collect,
    collect_any,
    listeners,
    natively,
    need_statuses,
    usage_of,
)
from ._core.clock import monotonic
from ._core.waiting import Wait
from ._fdwait import wait_for
from ._mirror import mirror
from .hub import _get_hub, get_hub, reinit

if TYPE_CHECKING:
    from ._core.loop import Loop
    from ._core.oswatchers import child

    def __getattr__(name: str) -> Any: ...


T = TypeVar("T")

__implements__ = ["fork", "close"]
__extensions__ = ["tp_read", "tp_write"]

_read = _os.read
_write = _os.write
_close = _os.close

ignored_errors = [errno.EAGAIN, errno.EINTR]


# -- reading and writing --------------------------------------------------------------------------------

if hasattr(_os, "set_blocking"):
    __extensions__ += ["make_nonblocking", "nb_read", "nb_write"]

    def make_nonblocking(fd: int) -> bool:
        """Put a file descriptor into non-blocking mode; True. OSError if it is not open. Does not block."""
        _os.set_blocking(fd, False)
        return True

    def nb_read(fd: int, n: int) -> bytes:
        """Read up to *n* bytes from *fd*, which must be in non-blocking mode; empty bytes at the end of file.

        Blocks the greenlet until there is something to read. OSError as from ``os.read``; EBADF also if
        :func:`close` is called for *fd* meanwhile.
        """
        return _when_ready(_read, fd, n, 1)

    def nb_write(fd: int, buf: Any) -> int:
        """Write some bytes of *buf* to *fd*, which must be in non-blocking mode; return how many.

        Blocks the greenlet until something can be written. OSError as from ``os.write``; EBADF also if
        :func:`close` is called for *fd* meanwhile.
        """
        return _when_ready(_write, fd, buf, 2)


def _when_ready(function: Callable[[int, Any], T], fd: int, argument: Any, event: int) -> T:
    """Call *function* again and again until it need not wait any more."""
    hub = watcher = None
    try:
        while True:
            try:
                return function(fd, argument)
            except OSError as e:
                if e.errno not in ignored_errors:
                    raise
            if watcher is None:
                hub = get_hub()
                watcher = hub.loop.io(fd, event)
            wait_for(hub, watcher)
    finally:
        if watcher is not None:
            watcher.close()


def tp_read(fd: int, n: int) -> bytes:
    """Read up to *n* bytes from *fd* in the thread pool; blocks the greenlet."""
    return get_hub().threadpool.apply(_read, (fd, n))  # type: ignore[no-any-return]


def tp_write(fd: int, buf: Any) -> int:
    """Write bytes of *buf* to *fd* in the thread pool; return how many. Blocks the greenlet."""
    return get_hub().threadpool.apply(_write, (fd, buf))  # type: ignore[no-any-return]


def _closer(close_now: Callable[[int], None], is_finalizing: Callable[[], bool]) -> Callable[[int], None]:
    """`close`, with what it needs at hand when the interpreter has taken this module apart.

    Objects that close a descriptor when they are freed may be older than we, and are freed last.
    """

    def close(fd: int) -> None:
        """Close a file descriptor. Greenlets of this thread that wait for it are woken, and get EBADF.

        Does not block. OSError as from ``os.close``.
        """
        if not is_finalizing():
            hub = _get_hub()
            if hub is not None and hub.loop is not None and type(fd) is int:
                hub.loop.closing_fd(fd)
        close_now(fd)

    close.__qualname__ = "close"
    return close


close = _closer(_close, sys.is_finalizing)


# -- child processes ------------------------------------------------------------------------------------

#: Children that are watched for waitpid: the watcher, or when it has ended status, time, and whether it is no
#: news any more to a wait for any child.
_watched_children: dict[int, child | tuple[int, float, bool]] = {}
#: Statuses are kept for so many seconds at the least, and at the least so many.
_KEPT_SECONDS = 60
_KEPT = 1000


def _on_child(watcher: child, callback: Callable[[child], object] | None) -> None:
    pid = watcher.pid
    # waitpid may have had it already
    if _watched_children.get(pid) is watcher:
        if watcher.stolen:
            del _watched_children[pid]
        else:
            _keep(pid, watcher.rstatus)
    watcher.close()
    if callback is not None:
        callback(watcher)


def _keep(pid: int, status: int) -> None:
    """Keep the status of a child that has ended and been reaped, for `waitpid`. From any thread."""
    # to the end: the oldest is the first
    _watched_children.pop(pid, None)
    _watched_children[pid] = (status, monotonic(), False)
    if len(_watched_children) > _KEPT:
        _reap_children()


def _no_news(pid: int) -> None:
    """Somebody has been given the kept status of a child: no wait for *any* child shall find it again."""
    entry = _watched_children.get(pid)
    if isinstance(entry, tuple):
        _watched_children[pid] = (entry[0], entry[1], True)


def _reap_children(timeout: float = _KEPT_SECONDS) -> None:
    """Forget the statuses of children that ended more than *timeout* seconds ago."""
    oldest = monotonic() - timeout
    for pid, entry in _watched_children.copy().items():
        if isinstance(entry, tuple):
            if entry[1] > oldest:
                break
            _watched_children.pop(pid, None)


def _watch_child(pid: int, callback: Any = None, loop: Loop | None = None, ref: bool = False) -> None:
    if loop is None:
        loop = get_hub().loop
    watcher = loop.child(pid, ref=ref)
    _watched_children[pid] = watcher
    watcher.start(_on_child, watcher, callback)


def _take_kept(pid: int) -> int | None:
    """The status of a child that has ended and been reaped, or None; it is not kept any longer."""
    entry = _watched_children.get(pid)
    if isinstance(entry, tuple):
        _watched_children.pop(pid, None)
        return entry[0]
    if entry is not None and entry.rpid and not entry.stolen:
        del _watched_children[pid]
        return entry.rstatus
    return None


def _take_any_kept() -> tuple[int, int] | None:
    for pid, entry in _watched_children.copy().items():
        if isinstance(entry, tuple) and entry[2]:
            continue
        status = _take_kept(pid)
        if status is not None:
            return pid, status
    return None


def _wait_for_one(pid: int, block: bool) -> tuple[int, int]:
    """waitpid() for one child."""
    while True:
        status = _take_kept(pid)
        if status is None:
            status = collect(pid)  # ChildProcessError: there is no such child
            if status is not None:
                _watched_children.pop(pid, None)
        if status is not None:
            return pid, status
        if not block:
            return 0, 0
        wait = Wait()
        found: list[int | None] = []

        def tell(status: int | None, wait: Wait = wait, found: list[int | None] = found) -> None:
            found.append(status)
            wait.wake()

        watch = ChildWatch(get_hub().loop, pid, tell, ref=True)
        try:
            watch.start()
            wait.block()
        finally:
            watch.stop()
        if found and found[0] is not None:
            # Several greenlets that wait for one child all get its status.
            _take_kept(pid)
            return pid, found[0]


def _wait_for_some(pid: int, options: int) -> tuple[int, int]:
    """waitpid() for any child, for a process group, or with options that concern more than the end."""
    delay = FIRST_LOOK
    while True:
        kept = _take_any_kept() if pid == -1 else None
        if pid > 0 and (status := _take_kept(pid)) is not None:
            kept = pid, status
        if kept is not None:
            return kept
        found, status = collect_any(pid, options)
        if found:
            if _os.WIFEXITED(status) or _os.WIFSIGNALED(status):
                _watched_children.pop(found, None)
            return found, status
        if options & _os.WNOHANG:
            return 0, 0
        wait = Wait()
        taken: list[tuple[int, int]] = []

        def listen(pid: int, status: int, wait: Wait = wait, taken: list[tuple[int, int]] = taken) -> None:
            entry = _watched_children.get(pid)
            if entry is None or (isinstance(entry, tuple) and not entry[2] and not wait.woken):
                # from nowhere else can we have it, or somebody else might take it before we run
                _no_news(pid)
                taken.append((pid, status))
            wait.wake()

        if pid == -1:
            # a child that is watched wakes us at once
            listeners.append(listen)
        try:
            wait.block(delay)
        finally:
            if pid == -1:
                listeners.remove(listen)
        if taken:
            return taken[0]
        delay = min(delay * 2, LONGEST_LOOK)


def fork_gevent() -> int:
    """``os.fork()``, with a hub that can be used in the child; returns 0 there, else the child's pid.

    The parent does not watch the child. Greenlets that are ready or sleep go on in the child too. Does not
    block.
    """
    pid = _raw_fork()
    if not pid:
        reinit()
    return pid  # type: ignore[no-any-return]


def fork_and_watch(
    callback: Callable[[child], object] | None = None,
    loop: Loop | None = None,
    ref: bool = False,
    fork: Callable[[], int] = fork_gevent,
) -> int:
    """Fork, and watch the child in the parent, so that it is reaped and :func:`waitpid` knows its status.

    :param callback: called with the child watcher, in the hub, when the child has ended.
    :param loop: the loop that watches; by default the current hub's.
    :param ref: whether the child is a reason for the loop to go on.
    :param fork: what forks; pass the real ``os.fork`` if the child needs no hub.

    Returns 0 in the child, the child's pid in the parent. Does not block.
    """
    need_statuses()
    pid = fork()
    if pid:
        _watch_child(pid, callback, loop, ref)
    return pid


if hasattr(_os, "fork"):
    _raw_fork: Any = _os.fork
    __extensions__ += ["fork_gevent"]
else:
    __implements__.remove("fork")
    del fork_gevent, fork_and_watch

if hasattr(_os, "forkpty"):
    _raw_forkpty: Any = _os.forkpty
    __implements__ += ["forkpty"]
    __extensions__ += ["forkpty_gevent"]

    def forkpty_gevent() -> tuple[int, int]:
        """:func:`fork_gevent` with a new terminal for the child; returns pid and the terminal's master fd."""
        pid, master_fd = _raw_forkpty()
        if not pid:
            reinit()
        return pid, master_fd


_WATCH = hasattr(_os, "fork") and hasattr(_os, "WNOHANG") and not config.disable_watch_children

if _WATCH:
    __implements__ += ["waitpid"]
    __extensions__ += ["fork_and_watch"]
    _waitpid = _os.waitpid

    def waitpid(pid: int, options: int) -> tuple[int, int]:
        """Wait for a child process; ``os.waitpid`` that blocks only the greenlet.

        Returns pid and status, ``(0, 0)`` with WNOHANG while nothing has ended; ChildProcessError if there is
        no such child. A wait for any child (-1) or a process group looks about twenty times a second for
        those that were not forked by this module; the others end it at once.
        """
        if natively.now and pid > 0 and not options:
            return _waitpid(pid, options)  # of a child that is about to end, as it could not run its program
        if pid > 0 and not options & ~_os.WNOHANG:
            return _wait_for_one(pid, not options)
        return _wait_for_some(pid, options)

    # gevent leaves these as they are; but they do not find what has been reaped, and block the thread
    if hasattr(_os, "wait"):
        __implements__ += ["wait"]

        def wait() -> tuple[int, int]:
            """Wait for any child: ``waitpid(-1, 0)``, which see."""
            return waitpid(-1, 0)

    if hasattr(_os, "wait3"):
        __implements__ += ["wait3", "wait4"]

        def wait3(options: int) -> tuple[int, int, Any]:
            """``waitpid(-1, options)``, and what the child has used: ``wait4(-1, options)``."""
            return wait4(-1, options)

        def wait4(pid: int, options: int) -> tuple[int, int, Any]:
            """Wait for a child as :func:`waitpid` does; returns pid, status and a ``resource.struct_rusage``.

            That is all zeros for a child that was reaped by others, or long ago.
            """
            pid, status = waitpid(pid, options)
            usage = usage_of(pid) if pid else None
            if usage is None:
                from resource import struct_rusage

                usage = struct_rusage((0,) * struct_rusage.n_sequence_fields)
            return pid, status, usage

    def fork(*args: Any, **kwargs: Any) -> int:
        """:func:`fork_and_watch`, with the same arguments.

        It is :func:`fork_gevent` if the setting ``disable_watch_children`` (in the environment:
        ``BRIDGE_NOWAITPID``, ``GEVENT_NOWAITPID``) was on when this module was imported.
        """
        return fork_and_watch(*args, **kwargs)

    if hasattr(_os, "forkpty"):
        __extensions__ += ["forkpty_and_watch"]

        def forkpty_and_watch(
            callback: Callable[[child], object] | None = None,
            loop: Loop | None = None,
            ref: bool = False,
            forkpty: Callable[[], tuple[int, int]] = forkpty_gevent,
        ) -> tuple[int, int]:
            """:func:`fork_and_watch` with a new terminal; returns pid and the terminal's master fd."""
            master_fd = -1

            def fork() -> int:
                nonlocal master_fd
                pid, master_fd = forkpty()
                return pid

            return fork_and_watch(callback, loop, ref, fork), master_fd

        def forkpty(*args: Any, **kwargs: Any) -> tuple[int, int]:
            """:func:`forkpty_and_watch`, with the same arguments; compare :func:`fork`."""
            return forkpty_and_watch(*args, **kwargs)

    if hasattr(_os, "posix_spawn"):
        __implements__ += ["posix_spawn"]
        _raw_posix_spawn = _os.posix_spawn

        def posix_spawn(*args: Any, **kwargs: Any) -> int:
            """``os.posix_spawn``, and the child is watched as by :func:`fork_and_watch`; returns its pid."""
            if natively.now:
                return _raw_posix_spawn(*args, **kwargs)
            need_statuses()
            pid = _raw_posix_spawn(*args, **kwargs)
            _watch_child(pid)
            return pid

    if hasattr(_os, "posix_spawnp"):
        __implements__ += ["posix_spawnp"]
        _raw_posix_spawnp = _os.posix_spawnp

        def posix_spawnp(*args: Any, **kwargs: Any) -> int:
            """``os.posix_spawnp``, and the child is watched as by :func:`fork_and_watch`; returns its pid."""
            if natively.now:
                return _raw_posix_spawnp(*args, **kwargs)
            need_statuses()
            pid = _raw_posix_spawnp(*args, **kwargs)
            _watch_child(pid)
            return pid

    # the children of the parent are not the child's
    _os.register_at_fork(after_in_child=_watched_children.clear)
elif hasattr(_os, "fork"):
    del fork_and_watch
    fork = fork_gevent
    if hasattr(_os, "forkpty"):
        forkpty = forkpty_gevent

__imports__ = mirror(_os, globals(), *__implements__, *__extensions__)
__all__ = __implements__ + __extensions__  # noqa: PLE0605 - what there is depends on the system
