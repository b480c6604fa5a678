"""The asyncio side: awaiting in greenlets, blocking in coroutines.

Layout (imports go downwards only)::

    asyncwait   one wait of one coroutine: the twin of ``_core.waiting.Wait``
    awaiting    await_: a greenlet waits for an awaitable
"""
