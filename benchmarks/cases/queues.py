"""The queue family: one producer, one consumer, numbers from 0 to n - 1."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.queue import Channel, JoinableQueue, LifoQueue, PriorityQueue, Queue, SimpleQueue
from stopwatch import Stopwatch, check


def _pump(queue: Any, n: int, measure: Stopwatch) -> list[int]:
    """Send 0..n-1 through *queue* and return what came out, in its order."""
    received: list[int] = []

    def producer() -> None:
        for i in range(n):
            queue.put(i)

    def consumer() -> None:
        for _ in range(n):
            received.append(queue.get())

    with measure:
        gevent.joinall([gevent.spawn(producer), gevent.spawn(consumer)], raise_error=True)
    check(queue.empty(), "nothing may be left in the queue")
    return received


def _in_order(queue: Any, n: int, measure: Stopwatch) -> None:
    check(_pump(queue, n, measure) == list(range(n)), "items must come out as they went in")


def _complete(queue: Any, n: int, measure: Stopwatch) -> None:
    check(sorted(_pump(queue, n, measure)) == list(range(n)), "every item must come out once")


def _pingpong(ping: Any, pong: Any, n: int, measure: Stopwatch) -> None:
    def partner() -> None:
        for _ in range(n):
            pong.put(ping.get() + 1)

    total = 0
    with measure:
        greenlet = gevent.spawn(partner)
        for i in range(n):
            ping.put(i)
            total += pong.get()
        greenlet.join()
    check(total == n * (n + 1) // 2, "every item must come back one larger")


def queue_pingpong(n: int, measure: Stopwatch) -> None:
    """*n* times there and back."""
    _pingpong(Queue(), Queue(), n, measure)


def channel_pingpong(n: int, measure: Stopwatch) -> None:
    """*n* times there and back; a Channel makes the putter wait for the getter."""
    _pingpong(Channel(), Channel(), n, measure)


def queue_unbounded(n: int, measure: Stopwatch) -> None:
    """The producer never waits."""
    _in_order(Queue(), n, measure)


def queue_bounded_1(n: int, measure: Stopwatch) -> None:
    """A switch per item."""
    _in_order(Queue(1), n, measure)


def queue_bounded_100(n: int, measure: Stopwatch) -> None:
    """A switch per hundred items."""
    _in_order(Queue(100), n, measure)


def queue_joinable(n: int, measure: Stopwatch) -> None:
    """Every item acknowledged, and the producer waits for that in the end."""
    queue = JoinableQueue(100)
    received: list[int] = []

    def producer() -> None:
        for i in range(n):
            queue.put(i)
        queue.join()

    def consumer() -> None:
        for _ in range(n):
            received.append(queue.get())
            queue.task_done()

    with measure:
        gevent.joinall([gevent.spawn(producer), gevent.spawn(consumer)], raise_error=True)
    check(received == list(range(n)), "items must come out as they went in")
    check(queue.unfinished_tasks == 0, "every item must be acknowledged")


def queue_priority(n: int, measure: Stopwatch) -> None:
    """Smallest first among the hundred that are there."""
    _complete(PriorityQueue(100), n, measure)


def queue_lifo(n: int, measure: Stopwatch) -> None:
    """Newest first among the hundred that are there."""
    _complete(LifoQueue(100), n, measure)


def queue_simple(n: int, measure: Stopwatch) -> None:
    """Unbounded, without task_done."""
    _in_order(SimpleQueue(), n, measure)


def queue_nowait(n: int, measure: Stopwatch) -> None:
    """Fill it, then empty it, without any switch."""
    queue = Queue()
    total = 0
    with measure:
        for i in range(n):
            queue.put_nowait(i)
        for _ in range(n):
            total += queue.get_nowait()
    check(total == n * (n - 1) // 2 and queue.empty(), "every item must come out once")
