"""The standard library's threads and locks after patch_all(): each case runs in a process of its own."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import queue  # noqa: E402
import threading  # noqa: E402

import gevent  # noqa: E402
from stopwatch import Stopwatch, check  # noqa: E402

RIVALS = 100


def patched_lock(n: int, measure: Stopwatch) -> None:
    """with threading.Lock(), free."""
    lock = threading.Lock()
    with measure:
        for _ in range(n):
            with lock:
                pass
    check(not lock.locked(), "the lock must be free again")


def patched_lock_contended(n: int, measure: Stopwatch) -> None:
    """threading.Lock among threads, each of which gives way while it holds it."""
    lock = threading.Lock()
    inside = [0]

    def rival() -> None:
        for _ in range(n // RIVALS):
            with lock:
                inside[0] += 1
                check(inside[0] == 1, "only one may be inside")
                gevent.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=rival) for _ in range(RIVALS)]
    with measure:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    check(not lock.locked(), "the lock must be free again")


def patched_rlock(n: int, measure: Stopwatch) -> None:
    """with threading.RLock(), free."""
    lock = threading.RLock()
    with measure:
        for _ in range(n):
            with lock:
                pass
    check(lock.acquire(False), "the lock must be free again")


def patched_condition(n: int, measure: Stopwatch) -> None:
    """Two threads that hand a turn to each other."""
    condition = threading.Condition()
    turn = [0]
    turns = [0, 0]

    def player(me: int) -> None:
        for _ in range(n // 2):
            with condition:
                while turn[0] != me:
                    condition.wait()
                turns[me] += 1
                turn[0] = 1 - me
                condition.notify()

    threads = [threading.Thread(target=player, args=(me,)) for me in (0, 1)]
    with measure:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    check(turns == [n // 2, n // 2], "each must get its turns")


def patched_queue(n: int, measure: Stopwatch) -> None:
    """queue.Queue(100) between two threads."""
    items: queue.Queue[int] = queue.Queue(100)
    total = [0]

    def consumer() -> None:
        for _ in range(n):
            total[0] += items.get()

    thread = threading.Thread(target=consumer)
    with measure:
        thread.start()
        for i in range(n):
            items.put(i)
        thread.join()
    check(total[0] == n * (n - 1) // 2, "every item must arrive once")


def patched_thread(n: int, measure: Stopwatch) -> None:
    """Thread start and join, one at a time."""
    ran = [0]

    def run() -> None:
        ran[0] += 1

    with measure:
        for _ in range(n):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    check(ran[0] == n, "every thread must run")


def patched_event(n: int, measure: Stopwatch) -> None:
    """threading.Event: made, waited for by a thread, set."""
    seen = [0]
    events = [threading.Event() for _ in range(n)]

    def waiter() -> None:
        for event in events:
            event.wait()
            seen[0] += 1

    thread = threading.Thread(target=waiter)
    with measure:
        thread.start()
        for event in events:
            event.set()
        thread.join()
    check(seen[0] == n, "every event must be seen")
