"""Exceptions of the engine; their public home is :mod:`bridge.exceptions`."""

from __future__ import annotations

from greenlet import GreenletExit

__all__ = [
    "BlockingSwitchOutError",
    "ConcurrentObjectUseError",
    "HubDestroyed",
    "InvalidSwitchError",
    "InvalidThreadUseError",
    "LoopExit",
]


_HOME = "bridge.exceptions"


class LoopExit(Exception):
    """The hub has nothing left that could wake the greenlet that blocks.

    Its arguments are a message, the hub, and a description of what is blocked where. The
    hub can be used again afterwards.
    """

    __module__ = _HOME

    @property
    def hub(self) -> object | None:
        """The hub that had nothing left to do, None where it is not known."""
        return self.args[1] if len(self.args) > 1 else None

    def __repr__(self) -> str:
        if len(self.args) == 3:
            return f"{self.args[0]}\n\tHub: {self.args[1]!r}\n\tHandles:\n{self.args[2]}"
        return super().__repr__()

    def __str__(self) -> str:
        return repr(self) if len(self.args) == 3 else super().__str__()


class BlockingSwitchOutError(AssertionError):
    """A blocking call was made where no greenlet can be switched away from.

    That is the hub itself: a callback of the loop, or a coroutine that runs without a portal.
    """

    __module__ = _HOME


class InvalidSwitchError(AssertionError):
    """A greenlet that waits was switched to by something other than what it waits for."""

    __module__ = _HOME


class ConcurrentObjectUseError(AssertionError):
    """Two greenlets wait for the same thing where only one at a time may."""

    __module__ = _HOME


class InvalidThreadUseError(RuntimeError):
    """An object of one thread's hub was used from another thread."""

    __module__ = _HOME


class HubDestroyed(GreenletExit):
    """The hub of this thread was destroyed while a greenlet was waiting in it."""

    __module__ = _HOME

    def __init__(self, destroy_loop: bool) -> None:
        super().__init__(destroy_loop)
        self.destroy_loop = destroy_loop
