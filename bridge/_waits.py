"""Who waits for whom, and where: greenlets and asyncio tasks in one tree, as text.

What somebody waits for is read from where he stands: from the frames of a parked greenlet, from the chain of
coroutines of a task, from the future that a task or a portal waits for. Nothing is recorded while the
program runs.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from greenlet import getcurrent, greenlet

from . import _calling
from ._aio.portal import Portal
from ._aio.task import GreenletTask
from ._core.hub import Hub
from .greenlet import Greenlet

__all__ = ["format_waits"]

#: Frames in which nobody looks for where his program stands.
_OURS = (os.path.dirname(__file__) + os.sep, os.path.dirname(asyncio.__file__) + os.sep)

#: Code that waits for the end of a greenlet, and the name of the variable that has it.
_WAITING = {
    Greenlet._wait.__code__: "self",
    Greenlet._await_end.__code__: "self",
    Greenlet.__await__.__code__: "self",
    _calling.end_of.__code__: "g",
}


def format_waits() -> list[str]:
    """Lines that show all greenlets and tasks that wait, below each what it waits for. May be called
    anywhere."""
    nodes: dict[int, Any] = {}
    tasks_of_greenlets: dict[int, Any] = {}
    for obj in gc.get_objects():
        kind = type(obj)
        if issubclass(kind, Hub):
            if obj.loop is not None and obj.loop.has_aio and not obj.loop.is_closed():
                for task in asyncio.all_tasks(obj.loop.aio):
                    if not isinstance(task, GreenletTask):
                        nodes[id(task)] = task
        elif issubclass(kind, greenlet) and not obj.dead:
            task = obj.__dict__.get("_bridge_task")
            if task is not None and task.awaiting is not None:
                tasks_of_greenlets[id(task)] = obj
            if obj.gr_frame is not None and _is_one(obj):
                nodes[id(obj)] = obj
    waited: dict[int, list[Any]] = {}
    for node in nodes.values():
        waited[id(node)] = [
            tasks_of_greenlets.get(id(each), each) for each in _waits_for(node) if each is not node
        ]
    inner = {id(each) for targets in waited.values() for each in targets}
    roots = [node for node in nodes.values() if id(node) not in inner]
    seen: set[int] = set()
    lines: list[str] = []
    # a circle of waits has no root: whoever is left over begins it
    for node in [*roots, *nodes.values()]:
        if id(node) not in seen:
            lines.extend(_tree(node, waited, seen))
    return lines


def _is_one(g: Any) -> bool:
    """Not those that are part of something else that is shown, and not the main greenlet of a thread that
    runs."""
    return g is not getcurrent() and hasattr(type(g), "portal") is False and not isinstance(g, Hub)


def _tree(root: Any, waited: dict[int, list[Any]], seen: set[int]) -> Iterator[str]:
    pending: list[tuple[Any, int]] = [(root, 0)]
    while pending:
        node, depth = pending.pop()
        indent = " " + "     " * (depth - 1) + "+--- " if depth else ""
        if id(node) in seen:
            yield f"{indent}{_name(node)}; see above"
            continue
        seen.add(id(node))
        yield f"{indent}{_name(node)}{_where(node)}"
        pending.extend((each, depth + 1) for each in reversed(waited.get(id(node), [])))


def _name(node: Any) -> str:
    if isinstance(node, asyncio.Task):
        coroutine = node.get_coro()
        name = getattr(coroutine, "__qualname__", None) or repr(coroutine)
        return f"Task {node.get_name()!r} ({name})"
    if isinstance(node, asyncio.Future):
        return repr(node)
    try:
        return repr(node)
    except Exception as e:
        return f"<{type(node).__name__} at {id(node):#x}; its text failed with {type(e).__name__}>"


def _where(node: Any) -> str:
    """Where it stands in the program; empty for what does not stand anywhere."""
    place = None
    for frame in _frames(node):
        if not frame.f_code.co_filename.startswith(_OURS):
            place = frame
    if place is None:
        return ""
    code = place.f_code
    return f" waits in {code.co_qualname} ({code.co_filename}:{place.f_lineno})"


def _frames(node: Any) -> list[FrameType]:
    """The frames of a greenlet, or of a task with its coroutines, the innermost last."""
    if isinstance(node, asyncio.Task):
        return list(_frames_of_coroutine(node.get_coro()))
    if not isinstance(node, greenlet):
        return []
    frames: list[FrameType] = []
    frame = sys._getframe() if node is getcurrent() else node.gr_frame
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    frames.reverse()
    task = node.__dict__.get("_bridge_task")
    if task is not None and task.awaiting is not None:
        frames.extend(_frames_of_coroutine(task.awaiting))
    return frames


def _frames_of_coroutine(coroutine: Any) -> Iterator[FrameType]:
    while coroutine is not None:
        if isinstance(coroutine, Portal):
            yield from _frames_of_portal(coroutine)
            return
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield frame
        following = getattr(coroutine, "cr_await", None)
        if following is None:
            following = getattr(coroutine, "gi_yieldfrom", None)
        if following is None and frame is not None and isinstance(frame.f_locals.get("self"), Portal):
            following = frame.f_locals["self"]  # Portal.__await__
        coroutine = following


def _frames_of_portal(portal: Portal[Any]) -> Iterator[FrameType]:
    inside = portal._inside
    if inside is not None and inside.gr_frame is not None:
        frames: list[FrameType] = []
        frame: FrameType | None = inside.gr_frame
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        yield from reversed(frames)
    # the coroutine stands on that stack only while it runs code that blocks; else it waits as all do
    if portal._future is None:
        yield from _frames_of_coroutine(portal.coroutine)


def _waits_for(node: Any) -> Iterator[Any]:
    """Tasks and greenlets that it waits for."""
    for frame in _frames(node):
        variable = _WAITING.get(frame.f_code)
        if variable is not None:
            target = frame.f_locals.get(variable)
            if target is not None:
                yield target
    future: Any = None
    if isinstance(node, asyncio.Task):
        future = node._fut_waiter  # type: ignore[attr-defined]
    else:
        task = node.__dict__.get("_bridge_task")
        if task is not None:
            future = task._fut_waiter  # of a coroutine, or of the greenlet itself
    children = getattr(future, "_children", None)  # asyncio.gather()
    for each in [future] if children is None else children:
        if isinstance(each, asyncio.Task) and not each.done():
            yield each
