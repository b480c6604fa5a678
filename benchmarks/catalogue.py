"""Which cases there are. Imports no implementation, so that `run.py` needs none in its interpreter."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One measured piece of work: function *name* of module `cases.<module>`.

    The twin, if the work makes sense in plain asyncio, is the function of that name in `twins.<module>`.
    """

    module: str
    name: str
    work: str
    operations: int
    """What the function is called with, and what the measured time is divided by."""
    unit: str = "s"
    """`s`: seconds per operation, as the stopwatch says; else the unit of the value returned."""
    quick: int = 10
    """`--quick` divides the operations by this; they must stay a multiple of what the case needs."""
    fresh: bool = False
    """A new process for every round and no warm-up: for cases that a used heap would falsify."""
    rounds: int = 100
    """At most that many rounds, for cases that are long and steady."""

    def size(self, quick: bool) -> int:
        """Return how many operations one round does."""
        return self.operations // self.quick if quick else self.operations

    steady: bool = True
    """False where even equals differ by factors: its ratio is shown, but stays out of the summary."""

    @property
    def compared(self) -> bool:
        """Whether a ratio means something: that of two growth exponents does not."""
        return self.unit != "exponent"


CASES: tuple[Case, ...] = (
    Case("greenlets", "spawn_join", "spawn all, join each", 10_000, quick=1),
    Case("greenlets", "spawn_join_batches", "spawn and join, batches of 100", 10_000),
    Case("greenlets", "spawn_join_one", "spawn(f).join(), one at a time", 10_000),
    Case("greenlets", "spawn_raw", "spawn_raw, until all have run", 10_000),
    Case("greenlets", "spawn_later", "spawn_later in 0..10 ms, joinall", 10_000, quick=1),
    Case("greenlets", "joinall", "joinall of 1000 new greenlets", 10_000),
    Case("greenlets", "wait", "wait for 1000 new greenlets", 10_000),
    Case("greenlets", "iwait", "iwait over 1000 new greenlets", 10_000),
    Case("greenlets", "link", "spawn, link a callback, until all are called", 10_000),
    Case("greenlets", "kill_one", "kill sleeping greenlets one at a time", 5_000),
    Case("greenlets", "killall_sleeping", "killall of sleeping greenlets", 10_000),
    Case("greenlets", "killall_unstarted", "killall of greenlets not yet started", 20_000),
    Case("sleeping", "sleep0_pair", "sleep(0), two greenlets in turn", 40_000),
    Case("sleeping", "sleep0_100", "sleep(0) among 100 greenlets", 40_000),
    Case("sleeping", "sleep0_main", "sleep(0) in the main greenlet alone", 40_000),
    Case("sleeping", "sleep_timers", "a greenlet each, sleeps 0..50 ms", 100_000, quick=2),
    Case("timeouts", "timeout_with", "with Timeout(10): pass", 40_000),
    Case("timeouts", "timeout_start_close", "Timeout.start_new(10).close()", 40_000),
    Case("timeouts", "with_timeout", "with_timeout(10, f)", 30_000),
    Case("timeouts", "timeout_fire", "Timeouts of 0..10 ms that fire", 10_000, quick=1),
    Case("events", "event_pingpong", "two Events, two greenlets", 20_000),
    Case("events", "asyncresult_pingpong", "AsyncResult there, AsyncResult back", 20_000),
    Case("events", "event_1000", "Event.set() wakes 1000", 50_000),
    Case("queues", "queue_pingpong", "two Queues, two greenlets", 20_000),
    Case("queues", "channel_pingpong", "two Channels, two greenlets", 20_000),
    Case("queues", "queue_unbounded", "Queue() put, get", 200_000),
    Case("queues", "queue_bounded_1", "Queue(1) put, get", 20_000),
    Case("queues", "queue_bounded_100", "Queue(100) put, get", 200_000),
    Case("queues", "queue_joinable", "JoinableQueue(100) put, get, task_done", 200_000),
    Case("queues", "queue_priority", "PriorityQueue(100) put, get", 100_000),
    Case("queues", "queue_lifo", "LifoQueue(100) put, get", 100_000),
    Case("queues", "queue_simple", "SimpleQueue put, get", 200_000),
    Case("queues", "queue_nowait", "Queue put_nowait, get_nowait", 200_000),
    Case("locks", "semaphore", "Semaphore acquire, release, free", 200_000),
    Case("locks", "bounded_semaphore", "BoundedSemaphore acquire, release, free", 200_000),
    Case("locks", "rlock", "RLock acquire, release, free", 200_000),
    Case("locks", "semaphore_contended", "Semaphore, 100 greenlets, sleep(0) inside", 20_000),
    Case("locks", "bounded_semaphore_contended", "BoundedSemaphore, the same", 20_000),
    Case("locks", "rlock_contended", "RLock, the same", 20_000),
    Case("locals", "local_get_set", "local attribute get and set", 300_000),
    Case("pools", "pool_map", "Pool(100).map", 10_000),
    Case("pools", "pool_imap", "Pool(100).imap", 10_000),
    Case("pools", "pool_imap_unordered", "Pool(100).imap_unordered", 10_000),
    Case("pools", "pool_spawn", "Pool(100).spawn, join", 10_000),
    Case("pools", "group_join", "Group of 1000: spawn, join", 10_000),
    Case("loops", "run_callback", "loop.run_callback, until all have run", 200_000),
    Case("loops", "loop_timer", "loop.timer start, stop, close", 100_000),
    Case("threads", "threadpool_apply", "threadpool.apply", 2_000, steady=False),
    Case("patched", "patched_lock", "patched Lock, with, free", 200_000),
    Case("patched", "patched_lock_contended", "patched Lock, 100 threads, sleep(0) inside", 20_000),
    Case("patched", "patched_rlock", "patched RLock, with, free", 200_000),
    Case("patched", "patched_condition", "patched Condition, two threads in turn", 20_000),
    Case("patched", "patched_queue", "patched queue.Queue(100) put, get", 100_000),
    Case("patched", "patched_event", "patched Event, wait, set", 50_000),
    Case("patched", "patched_thread", "patched Thread start, join", 5_000),
    Case("sockets", "socket_beside_spinners", "socket pair ping-pong, ten sleep(0) spinners", 200),
    Case("connections", "echo_100", "TCP echo of 1 KiB, 100 connections", 10_000),
    Case("connections", "connect_close", "connect, accept, one byte, close", 2_000),
    Case("connections", "udp_echo", "UDP echo of 64 B, 20 sockets", 10_000),
    Case("connections", "makefile_lines", "lines through makefile()", 50_000),
    Case("connections", "select_500", "select of 500 sockets", 500),
    Case("tls", "tls_echo", "TLS echo, 20 connections, 1 KiB", 10_000),
    Case("tls", "tls_stream", "TLS, 64 KiB sent and received", 2_000),
    Case("tls", "tls_handshake", "TLS connect, handshake, close", 200, quick=2),
    Case("processes", "subprocess_communicate", "Popen(cat).communicate, one at a time", 200, quick=4),
    Case("processes", "subprocess_wait", "call(true), ten at a time", 200, quick=4),
    Case("processes", "getaddrinfo_localhost", "getaddrinfo of localhost", 2_000),
    Case("scale", "asleep_100k", "all asleep at once, then killed", 100_000, fresh=True, rounds=5),
    Case("scale", "memory_idle", "memory per sleeping greenlet", 100_000, "B", fresh=True, rounds=3),
    Case("scale", "growth_spawn", "growth up to n: spawn, join", 100_000, "exponent", fresh=True, rounds=1),
    Case("scale", "growth_timers", "growth up to n: timers", 100_000, "exponent", fresh=True, rounds=1),
    Case(
        "scale",
        "growth_event",
        "growth up to n: waiters of an Event",
        100_000,
        "exponent",
        fresh=True,
        rounds=1,
    ),
    Case(
        "scale",
        "growth_queue",
        "growth up to n: waiters of a Queue",
        100_000,
        "exponent",
        fresh=True,
        rounds=1,
    ),
)


def select(patterns: str) -> list[Case]:
    """Return the cases that match one of the comma-separated *patterns*.

    A pattern is the name of a module (all its cases), of a case, a shell pattern, or a part of a name;
    the first of these that fits counts.
    Raises ValueError for a pattern that matches nothing: a typing error must not look like success.
    """
    chosen: set[str] = set()
    for pattern in filter(None, (part.strip() for part in patterns.split(","))):
        found = (
            {case.name for case in CASES if case.module == pattern}
            or {case.name for case in CASES if fnmatch.fnmatch(case.name, pattern)}
            or {case.name for case in CASES if pattern in case.name}
        )
        if not found:
            raise ValueError(f"no case matches {pattern!r}; --list shows what there is")
        chosen |= found
    return [case for case in CASES if case.name in chosen]
