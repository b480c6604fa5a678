"""The steps of a portal: the quick half of :class:`bridge._aio.portal.Portal`, where the theory is.

There are two of it, this one and its compiled twin in ``_driving.c``, which is used where it is there.
Nothing else may tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from bridge._core.accelerated import accelerator
from bridge._core.engine import Thrown

__all__ = ["PortalBase"]

#: What a portal's greenlet returns when the coroutine has ended.
_ENDED: Any = object()

_switch: Callable[..., Any] = greenlet.switch


class PortalBase:
    """Runs a coroutine in a greenlet, step by step."""

    coroutine: Coroutine[Any, Any, Any]
    #: in which the coroutine runs; made by the first step
    _greenlet: Any
    #: who is to be switched to by the next step: the portal's greenlet, or a foreign one below it
    _inside: Any
    #: who has made the last step
    _runner: Any
    #: what the coroutine has ended with
    _result: Any
    #: what the next step is to raise inside, whatever it sends
    _interruption: Any
    _finished: bool

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self._greenlet = self._inside = self._runner = self._result = self._interruption = None
        self._finished = False

    if TYPE_CHECKING:

        def _prepare(self, runner: greenlet, value: Any) -> Any: ...

    def send(self, value: Any) -> Any:
        """One step, by the task. What comes out is what the coroutine, or the code below it, waits for."""
        current = getcurrent()
        if current is not self._runner or self._interruption is not None:
            value = self._prepare(current, value)
        yielded = self._inside.switch(value)
        if yielded is not _ENDED:
            return yielded
        self._finished = True
        self._inside = self._runner = None  # another step is refused
        result = self._result
        self._result = None
        if type(result) is not Thrown:
            raise StopIteration(result)
        try:
            raise result.exception
        finally:
            result = None  # its traceback refers to this frame: no cycle through it

    def _drive(self, message: Any) -> Any:
        """In the portal's greenlet: drive the coroutine; what it yields goes to who made the step."""
        coroutine = self.coroutine
        send = coroutine.send
        try:
            while True:
                if type(message) is Thrown:
                    yielded = coroutine.throw(message.exception)
                else:
                    yielded = send(message)
                message = self._leave(yielded)
        except StopIteration as e:
            self._result = e.value
        except BaseException as e:
            self._result = Thrown(e)
        return _ENDED

    def _leave(self, value: Any) -> Any:
        """Inside: pass ``value`` to who made the step; returns what the next one sends.

        Not by a method of the runner's own: the hub's makes checks that are for others.
        """
        return _switch(self._runner, value)


if not TYPE_CHECKING and (_compiled := accelerator("_driving", __package__)) is not None:
    PortalBase = _compiled.PortalBase
    _compiled.use_portals(Thrown)
