"""A user's typed program. mypy checks it (strict), so that an editor knows what each call gives.

Nobody runs it. ``assert_type`` says what has to be inferred; each ``type: ignore`` marks a wrong use
that has to be an error (mypy reports those that are not needed).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, assert_type

import bridge
from bridge import Greenlet, Timeout
from bridge.event import AsyncResult, Event
from bridge.lock import BoundedSemaphore, RLock, Semaphore
from bridge.pool import Group, Pool
from bridge.queue import Channel, PriorityQueue, Queue, SimpleQueue
from bridge.server import StreamServer
from bridge.socket import create_connection, getaddrinfo, socket
from bridge.ssl import SSLContext, SSLSocket
from bridge.subprocess import Popen, check_output, run
from bridge.thread import LockType
from bridge.threadpool import ThreadPool, ThreadPoolExecutor


def work(n: int, name: str = "a") -> str:
    return name * n


async def awork(n: int) -> bytes:
    return b"x" * n


async def numbers() -> AsyncIterator[int]:
    yield 1


@asynccontextmanager
async def connection() -> AsyncIterator[str]:
    yield "open"


class Actor(Greenlet[None]):
    def __init__(self) -> None:
        self.inbox: Queue[str] = Queue()
        super().__init__()

    def _run(self) -> None:
        self.inbox.get()


class Plain(Greenlet):
    """As a gevent program writes it."""


def greenlets() -> None:
    g = bridge.spawn(work, 3, name="b")
    assert_type(g, Greenlet[str])
    assert_type(g.get(), str)
    assert_type(g.get(timeout=3), str)
    assert_type(g.value, str | None)
    assert_type(bridge.spawn(awork, 3), Greenlet[bytes])
    assert_type(bridge.spawn(lambda: 3), Greenlet[int])
    assert_type(bridge.spawn(partial(work, 3)), Greenlet[str])
    assert_type(bridge.spawn(int, "3"), Greenlet[int])
    assert_type(bridge.spawn_later(0.5, work, 3), Greenlet[str])
    assert_type(Greenlet(work, 3), Greenlet[str])
    assert_type(Greenlet(awork, 3), Greenlet[bytes])
    assert_type(Greenlet.spawn(work, 3), Greenlet[Any])
    assert_type(Actor.spawn(), Actor)
    assert_type(Plain.spawn(work, 3), Plain)
    Actor().inbox.put("x")
    bridge.spawn_raw(work, 3)
    bridge.spawn(work, "3")  # type: ignore[call-overload]
    bridge.spawn(work(3))  # type: ignore[call-overload]
    Greenlet(work, nmae="b")  # type: ignore[call-overload]
    g.link(lambda ended: print(ended.value))

    other = bridge.spawn(awork, 3)
    for ended in bridge.joinall([g, other], timeout=1, raise_error=True):
        print(ended.value)
    assert_type(bridge.joinall([g]), list[Greenlet[str]])
    assert_type(bridge.wait([g], count=1), list[Greenlet[str]])
    assert_type(bridge.wait(timeout=1), bool)
    for ready in bridge.iwait([g]):
        assert_type(ready, Greenlet[str])
    bridge.killall([g, other], block=False)


def pools() -> None:
    pool = Pool(3)
    assert_type(pool.spawn(work, 3), Greenlet[str])
    assert_type(pool.map(work, [1, 2]), list[str])
    assert_type(list(pool.imap(work, [1, 2])), list[str])
    assert_type(list(pool.imap_unordered(work, [1, 2], maxsize=1)), list[str])
    assert_type(pool.apply(work, (3,)), str)
    assert_type(pool.apply_async(work, (3,)), Greenlet[str])
    assert_type(pool.map_async(work, [3]), Greenlet[list[str]])
    assert_type(Group().spawn(awork, 3), Greenlet[bytes])
    assert_type(ThreadPool(2).spawn(work, 3), AsyncResult[str])
    assert_type(ThreadPool(2).apply(work, (3,)), str)
    assert_type(ThreadPoolExecutor(2).submit(work, 3).result(), str)


def primitives() -> None:
    queue: Queue[int] = Queue()
    queue.put(3)
    queue.put("x")  # type: ignore[arg-type]
    assert_type(queue.get(timeout=1), int)
    for item in queue:
        assert_type(item, int)
    assert_type(PriorityQueue[tuple[int, str]]().get(), tuple[int, str])
    assert_type(Channel[bytes]().get(), bytes)
    assert_type(SimpleQueue[int]().get(), int)
    result: AsyncResult[int] = AsyncResult()
    result.set(3)
    assert_type(result.get(), int)
    assert_type(result.wait(1), int | None)
    assert_type(Event().wait(1), bool)
    assert_type(RLock().acquire(timeout=1), bool)
    assert_type(Semaphore(3).release(), int)
    with BoundedSemaphore(2), RLock(), LockType():
        pass


def limits() -> str:
    assert_type(bridge.with_timeout(1, work, 3), str)
    assert_type(bridge.with_timeout(1, work, 3, timeout_value=None), str | None)
    assert_type(Timeout.start_new(3), Timeout)
    with Timeout(3) as timeout:
        assert_type(timeout, Timeout)
    with Timeout(3, False):
        return work(3)
    return "late"


def awaiting() -> None:
    assert_type(bridge.await_(awork(3)), bytes)
    future: asyncio.Future[float] = asyncio.get_event_loop().create_future()
    assert_type(bridge.await_(future), float)
    with bridge.async_context(connection()) as c:
        assert_type(c, str)
    for n in bridge.async_iter(numbers()):
        assert_type(n, int)
    assert_type(bridge.async_to_sync(awork)(3), bytes)


async def in_coroutines() -> int:
    g = bridge.spawn(work, 3)
    assert_type(await g, str)
    assert_type(await g.aget(), str)
    assert_type(await bridge.spawn(awork, 3), bytes)
    assert_type(await bridge.sync_to_async(work)(3, name="b"), str)
    await bridge.sync_to_async(work)("x")  # type: ignore[arg-type]
    queue: Queue[int] = Queue()
    await queue.aput(3)
    assert_type(await queue.aget(timeout=3), int)
    async for item in queue:
        assert_type(item, int)
    result: AsyncResult[int] = AsyncResult()
    assert_type(await result, int)
    assert_type(await Event(), bool)
    async with RLock(), Semaphore(3):
        pass
    return 3


@bridge.portal
async def legacy(n: int) -> str:
    return work(n)


@bridge.sync_to_async
def blocking(n: int) -> str:
    return work(n)


@bridge.async_to_sync
async def wrapped(n: int) -> str:
    return work(n)


def decorated() -> None:
    portal: Callable[[int], Coroutine[Any, Any, str]] = legacy
    coroutine: Callable[[int], Coroutine[Any, Any, str]] = blocking
    plain: Callable[[int], str] = wrapped
    print(portal, coroutine, plain)
    assert_type(bridge.run(in_coroutines), int)
    assert_type(bridge.run(in_coroutines()), int)
    assert_type(bridge.run(work, 3), str)
    bridge.run(legacy)  # type: ignore[call-arg, arg-type]
    bridge.run(in_coroutines, 3)  # type: ignore[arg-type]


def handle(sock: socket, _address: tuple[str, int]) -> None:
    assert_type(sock.recv(3), bytes)


def the_rest(context: SSLContext) -> None:
    StreamServer(("127.0.0.1", 0), handle).start()
    assert_type(create_connection(("localhost", 1)), socket)
    context.wrap_socket(create_connection(("localhost", 1))).close()
    print(SSLSocket.__name__)
    getaddrinfo("localhost", 80)
    assert_type(Popen(["true"]).wait(3), int)
    assert_type(check_output(["true"]), bytes)
    assert_type(run(["true"], check=True).returncode, int)
    bridge.signal_handler(3, work, 3)
