"""Who waits for whom, over both worlds; and LoopExit and the end over both."""

from __future__ import annotations

import asyncio
import gc
import re
from typing import Any

import pytest

import bridge
from bridge.event import Event
from bridge.util import format_run_info

pytestmark = [pytest.mark.asyncio, pytest.mark.engines("none")]


def lines() -> list[str]:
    """The tree of waits, without addresses, directories and line numbers."""
    gc.collect()  # what other tests have left may go between two looks
    text = bridge.get_hub().format_run_info()
    assert text[-1] == format_run_info()[-1]
    tree = text[text.index("* Waits") + 2 :]
    return [re.sub(r" at 0x[0-9a-f]+|<locals>\.|/[^ ]*/|:\d+\)|_of_[\w]+\.", "", line) for line in tree]


def below(tree: list[str], first: str) -> list[str]:
    """The part of the tree that begins with the line that contains ``first``."""
    start = next(i for i, line in enumerate(tree) if first in line)
    depth = len(tree[start]) - len(tree[start].lstrip())
    part = [tree[start]]
    for line in tree[start + 1 :]:
        if len(line) - len(line.lstrip()) <= depth and not line.lstrip().startswith("+---"):
            break
        part.append(line)
    return part


async def test_tasks_and_greenlets_are_one_tree() -> None:
    event = Event()

    def last() -> None:
        event.wait()

    def joins(g: Any) -> None:
        g.join()

    async def middle(g: Any) -> None:
        await g

    def awaits(task: Any) -> None:
        bridge.await_(waits(task))

    async def waits(task: Any) -> None:
        await task

    end = bridge.spawn(last)
    joining = bridge.spawn(joins, end)
    task = asyncio.create_task(middle(joining), name="middle")
    outer = bridge.spawn(awaits, task)
    first = asyncio.create_task(middle(outer), name="first")
    for _ in range(5):
        await asyncio.sleep(0)
    part = below(lines(), "'first'")
    assert [re.split("[ :]", line.lstrip(" +-"))[0] for line in part] == [
        "Task", "<Greenlet", "Task", "<Greenlet", "<Greenlet",
    ]  # fmt: skip
    assert "waits in" in part[0] and "middle (test_run_info.py" in part[0]
    assert "awaits" in part[1] and "waits (test_run_info.py" in part[1]
    assert "'middle'" in part[2]
    assert "joins (test_run_info.py" in part[3]
    assert "last (test_run_info.py" in part[4]
    event.set()
    await first


async def test_gather_portals_and_sync_to_async() -> None:
    event = Event()

    @bridge.portal
    async def portal() -> None:
        event.wait()

    def blocking() -> None:
        event.wait()

    async def both() -> None:
        await asyncio.gather(
            asyncio.create_task(portal(), name="portal"),
            asyncio.create_task(bridge.sync_to_async(blocking)(), name="converted"),  # type: ignore[arg-type]
        )

    task = asyncio.create_task(both(), name="both")
    for _ in range(5):
        await asyncio.sleep(0)
    part = below(lines(), "'both'")
    assert "both (test_run_info.py" in part[0]
    found = {
        name: line for line in part[1:] for name in ("'portal'", "'converted'", "<Call") if name in line
    }
    assert "portal (test_run_info.py" in found["'portal'"]
    assert "blocking (test_run_info.py" in found["<Call"]
    event.set()
    await task


async def test_a_circle_is_shown_once() -> None:
    greenlets: list[Any] = []

    def in_a_circle(n: int) -> None:
        greenlets[n].join()

    greenlets += [bridge.spawn(in_a_circle, 1), bridge.spawn(in_a_circle, 0)]
    for _ in range(3):
        await asyncio.sleep(0)
    tree = [line for line in lines() if "in_a_circle" in line]
    assert len(tree) == 3 and tree[2].endswith("see above")
    greenlets[0].kill(block=False)
    await greenlets[1].ajoin()


async def test_nothing_is_said_of_nothing() -> None:
    text = format_run_info()
    assert "* Threads" in text and "* Greenlets" in text
