"""Who runs when: what a program sees of it is what it sees on gevent (the lists were made by gevent 26.9)."""

from __future__ import annotations

from typing import Any

import bridge
from bridge.event import Event
from bridge.lock import Semaphore
from bridge.queue import Queue


def talking(log: list[Any], name: str) -> None:
    log.append(f"{name} begins")
    bridge.sleep(0)
    log.append(f"{name} ends")


def stubborn(log: list[Any], name: str) -> None:
    try:
        bridge.sleep(100)
    finally:
        log.append(f"{name} is killed")
        bridge.sleep(0)
        log.append(f"{name} ends")


def test_who_kills_goes_on_right_after_the_end_of_the_killed() -> None:
    log: list[Any] = []
    victim = bridge.spawn(bridge.sleep, 100)
    bridge.sleep(0)
    others = [bridge.spawn(talking, log, name) for name in "ab"]
    bridge.sleep(0)
    victim.link(lambda _: log.append("link"))
    victim.kill()
    log.append("killed")
    bridge.sleep(0)
    assert log == ["a begins", "b begins", "a ends", "b ends", "killed", "link"]

    log.clear()
    victim = bridge.spawn(bridge.sleep, 100)
    bridge.sleep(0)

    def kill() -> None:
        victim.kill()
        log.append("killed")

    others = [bridge.spawn(kill), *[bridge.spawn(talking, log, name) for name in "ab"]]
    bridge.joinall(others)
    assert log == ["a begins", "b begins", "killed", "a ends", "b ends"]


def test_who_kills_all_goes_on_right_after_the_end_of_the_killed() -> None:
    log: list[Any] = []
    victims = [bridge.spawn(bridge.sleep, 100) for _ in range(2)]
    bridge.sleep(0)

    def kill() -> None:
        bridge.killall(victims)
        log.append("killed")

    bridge.joinall([bridge.spawn(kill), bridge.spawn(talking, log, "a")])
    assert log == ["a begins", "killed", "a ends"]


def test_killall_reaches_all_before_anybody_else_runs() -> None:
    log: list[Any] = []
    victims = [bridge.spawn(stubborn, log, name) for name in "xy"]
    bridge.sleep(0)

    def kill() -> None:
        bridge.killall(victims)
        log.append("killed")

    bridge.joinall([bridge.spawn(kill), bridge.spawn(talking, log, "a")])
    assert log == ["a begins", "x is killed", "y is killed", "a ends", "x ends", "y ends", "killed"]


def test_several_items_wake_several_getters_with_nobody_in_between() -> None:
    log: list[Any] = []
    queue: Queue[int] = Queue()

    def get() -> None:
        log.append(queue.get())

    getters = [bridge.spawn(get) for _ in range(3)]
    bridge.sleep(0)
    for i in range(3):
        queue.put(i)
    bridge.joinall([bridge.spawn(talking, log, "a"), *getters])
    assert log == [0, 1, 2, "a begins", "a ends"]


def test_several_permits_wake_several_with_nobody_in_between() -> None:
    log: list[Any] = []
    semaphore = Semaphore(0)

    def acquire(name: str) -> None:
        semaphore.acquire()
        log.append(name)

    waiting = [bridge.spawn(acquire, name) for name in "xyz"]
    bridge.sleep(0)
    for _ in range(3):
        semaphore.release()
    bridge.joinall([bridge.spawn(talking, log, "a"), *waiting])
    assert log == ["x", "y", "z", "a begins", "a ends"]


def test_wait_gives_events_and_greenlets_in_the_order_in_which_they_became_ready() -> None:
    event = Event()
    first = bridge.spawn(event.set)
    second = bridge.spawn(bridge.sleep, 0)
    assert bridge.wait([second, event, first]) == [event, first, second]


def test_what_is_ready_already_comes_in_the_order_in_which_it_was_given() -> None:
    event = Event()
    event.set()
    g = bridge.spawn(bridge.sleep, 0)
    while not g.ready():
        bridge.sleep(0)
    assert bridge.wait([event, g]) == [event, g]
    assert bridge.wait([g, event]) == [g, event]


def test_waiting_for_what_has_ended_already_lets_others_run() -> None:
    g = bridge.spawn(bridge.sleep, 0)
    while not g.ready():
        bridge.sleep(0)
    log: list[Any] = []
    other = bridge.spawn(talking, log, "a")
    bridge.joinall([g])
    assert log == ["a begins"]
    other.join()


def test_iwait_goes_on_before_what_was_ready_later() -> None:
    log: list[Any] = []
    first, second = Event(), Event()

    def wait() -> None:
        for event in bridge.iwait([first, second]):
            log.append("first" if event is first else "second")

    waiting = bridge.spawn(wait)
    bridge.sleep(0)
    first.set()
    other = bridge.spawn(talking, log, "a")
    second.set()
    bridge.joinall([waiting, other])
    assert log == ["first", "a begins", "second", "a ends"]
