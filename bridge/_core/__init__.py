"""The engine: hub, ready queue, timers, readiness of file descriptors, waiting.

Layout (imports go downwards only)::

    accelerated what is compiled, where it is
    census      which objects of a class there are
    native      functions of the system, before any patching
    errors      exceptions of the engine
    callbacks   the object that `loop.run_callback` returns
    engine      ready queue, timer heap, the drain that an asyncio loop runs
    poller      which file descriptors are ready, one epoll instance per engine
    watchers    gevent's watchers: io, timer, async_, phases
    oswatchers  ... of signals, children and files that change
    loop        gevent's loop API on top of an engine
    current     which hub is this thread's
    waiting     one wait of one greenlet; lines of waiters
    queues      putting and taking when nobody has to wait
    waiter      gevent's Waiter
    hub         the hub greenlet of a thread, owned or adopted
"""

from . import accelerated as accelerated
from . import native as native
from .hub import Hub as Hub
