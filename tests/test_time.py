"""bridge.time."""

from __future__ import annotations

import time as real_time

import bridge
from bridge import time


def test_sleep_blocks_only_the_greenlet() -> None:
    ran: list[int] = []
    bridge.spawn(ran.append, 1)
    begin = time.monotonic()
    time.sleep(0.005)
    assert time.monotonic() - begin >= 0.005
    assert ran == [1]
    assert time.sleep is bridge.sleep


def test_everything_else_is_the_real_one() -> None:
    assert time.__all__ == time.__implements__ == ["sleep"]
    names = {name for name in dir(real_time) if not name.startswith("__")}
    assert names - {"sleep"} == set(time.__imports__)
    for name in time.__imports__:
        assert getattr(time, name) == getattr(real_time, name)  # tzset() makes tzname anew
