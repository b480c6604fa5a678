"""The object that stands for one call in the hub's ready queue."""

from __future__ import annotations

from typing import final

from .switching import CallbackBase

__all__ = ["Callback"]


@final
class Callback(CallbackBase):
    """A call that the hub will make once; what :meth:`loop.run_callback` returns.

    It is true (and ``pending``) until it has begun to run or was stopped. It may be stopped from the
    thread that made it.

    Final: the drain tells greenlets from callbacks by ``type(item) is Callback``.
    """

    __slots__ = ()

    close = CallbackBase.stop

    @property
    def pending(self) -> bool:
        """True until the call has begun or was stopped."""
        return self.callback is not None

    def __bool__(self) -> bool:
        # true while the callback runs too: args is cleared after the call
        return self.args is not None

    def __repr__(self) -> str:
        state = "" if self else " stopped"
        details = f" callback={self.callback!r}" if self.callback is not None else ""
        if self.args is not None:  # while it runs, too
            details += f" args={self.args!r}"
        return f"<callback at {id(self):#x}{state}{details}>"
