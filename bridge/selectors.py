"""A selector that blocks only the greenlet; twin of :mod:`gevent.selectors`, and of :mod:`selectors`."""

from __future__ import annotations

import errno
import selectors as __selectors__
from asyncio import _get_running_loop as _running_loop
from asyncio import _set_running_loop
from typing import TYPE_CHECKING, Any

from ._fdset import FdSet, wait_ready
from ._fdwait import IN, OUT, HasFileno, _new_epoll, _new_poll, let_others_run
from ._mirror import mirror
from .hub import _get_hub, get_hub

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


__implements__ = ["DefaultSelector"]
__all__ = ["DefaultSelector", "GeventSelector"]
__imports__ = mirror(__selectors__, globals(), *__implements__)

_READ = __selectors__.EVENT_READ
_WRITE = __selectors__.EVENT_WRITE


class GeventSelector(__selectors__._BaseSelectorImpl):
    """A selector in the sense of :mod:`selectors` whose :meth:`select` blocks only the greenlet.

    :param hub: kept for compatibility; ``select`` waits in the hub of the thread that calls it.

    An fd must be unregistered before it is closed. Fds may be registered and unregistered while a greenlet
    is in ``select``; closing the selector ends that with an empty list. Regular files may be registered,
    and are always ready. After a fork the child has a copy of its own.
    """

    def __init__(self, hub: Any = None) -> None:
        super().__init__()
        self._hub = hub
        self._set: FdSet | None = FdSet() if _new_epoll is not None else None
        #: where there is no epoll: what looks, and for what
        self._poll: Any = None if self._set is not None else _new_poll()
        self._masks: dict[int, int] = {}
        self._closed = False

    @property
    def hub(self) -> Any:
        """The hub given, or that of the current thread."""
        return self._hub if self._hub is not None else get_hub()

    def register(self, fileobj: int | HasFileno, events: int, data: Any = None) -> __selectors__.SelectorKey:
        """Watch *fileobj* for EVENT_READ, EVENT_WRITE or both; returns its key. Does not block.

        ValueError for what is no file or is closed, KeyError if it is registered already.
        """
        key = super().register(fileobj, events, data)
        mask = (IN if events & _READ else 0) | (OUT if events & _WRITE else 0)
        try:
            if self._set is not None:
                self._set.add(key.fd, mask)
            else:
                self._poll.register(key.fd, mask)
                self._masks[key.fd] = mask
        except OSError as e:
            self._fd_to_key.pop(key.fd)  # type: ignore[attr-defined]
            # EINVAL: the number of a closed file is that of our own epoll instance now
            if e.errno in (errno.EBADF, errno.EINVAL):
                raise ValueError(f"Invalid file object: {fileobj!r} is closed") from e
            raise
        return key

    def unregister(self, fileobj: int | HasFileno) -> __selectors__.SelectorKey:
        """Stop watching *fileobj*; returns its key. KeyError if it is not registered. Does not block."""
        key = super().unregister(fileobj)
        if self._set is not None:
            self._set.discard(key.fd)
        elif self._masks.pop(key.fd, None) is not None:
            self._poll.unregister(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[__selectors__.SelectorKey, int]]:
        """Wait until something registered is ready; return pairs of key and events.

        :param timeout: seconds; None waits for ever, 0 or less only looks.

        Blocks the greenlet, and lets others run in any case; in a coroutine only below a portal. An asyncio
        loop that a greenlet runs may stand on this selector: other greenlets do not see that it runs.
        """
        running = _running_loop()
        if running is None or getattr(running, "_selector", None) is not self:
            ready: list[tuple[__selectors__.SelectorKey, int]] = self._select(timeout)
            return ready
        hub = _get_hub()
        if hub is None or hub.loop is None or hub.loop.aio is running:
            # The hub itself stands on us: this is where the thread is to sleep.
            ready = self._keys(self._look(timeout))
            return ready
        _set_running_loop(None)
        try:
            ready = self._select(timeout)
            return ready
        finally:
            _set_running_loop(running)

    def _select(self, timeout: float | None) -> list[tuple[__selectors__.SelectorKey, int]]:
        blocking = timeout is None or timeout > 0
        let_others_run(blocking)
        found: list[tuple[int, int]] | None = self._probe()
        if not found and blocking:
            masks = self._set.masks if self._set is not None else self._masks
            found = wait_ready(masks, self._probe, timeout, self._set)
        return self._keys(found or [])

    def _keys(self, found: list[tuple[int, int]]) -> list[tuple[__selectors__.SelectorKey, int]]:
        ready = []
        for fd, bits in found:
            key = self._fd_to_key.get(fd)  # type: ignore[attr-defined]
            if key is not None:
                events = (_READ if bits & ~OUT else 0) | (_WRITE if bits & ~IN else 0)
                if events & key.events:
                    ready.append((key, events & key.events))
        return ready

    def _probe(self) -> list[tuple[int, int]]:
        if self._closed:
            return [(-1, 0)]  # no key; but whoever waits shall come back
        return self._look(0)

    def _look(self, timeout: float | None) -> list[tuple[int, int]]:
        """What is ready; blocks the thread until something is, or the time is over."""
        if timeout is not None and timeout < 0:
            timeout = 0
        if self._set is not None:
            return self._set.ready(timeout)
        found: list[tuple[int, int]] = self._poll.poll(None if timeout is None else timeout * 1000)
        return found

    def close(self) -> None:
        """Let go of everything; may be repeated. Does not block."""
        if not self._closed:
            self._closed = True
            if self._set is not None:
                self._set.close()
            self._masks.clear()
            super().close()


DefaultSelector = GeventSelector


def _gevent_do_monkey_patch(patch_request: Any) -> None:
    """How :func:`bridge.monkey.patch_selectors` patches: selectors that block the thread are removed."""
    patch_request.default_patch_items()
    if patch_request.patch_kwargs.get("aggressive", True):
        patch_request.remove_item("EpollSelector", "KqueueSelector", "DevpollSelector")
