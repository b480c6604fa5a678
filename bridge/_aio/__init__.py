"""The asyncio side: awaiting in greenlets, blocking in coroutines.

Layout (imports go downwards only)::

    asyncwait   one wait of one coroutine: the twin of ``_core.waiting.Wait``
    entering    greenlets entered at once, out of callbacks and steps
    portal      blocking code directly inside coroutines
    awaiting    await_: a greenlet waits for an awaitable
    sharing     the hub's loop in the hands of others
    second      loops that a greenlet runs beside the hub (only after patching)
    nested      asyncio.run() inside a greenlet (only after patching)
"""

from __future__ import annotations

from . import sharing as sharing  # it is to know of every loop that the hub gives away
