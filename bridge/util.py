"""Tools for looking at a running program: who runs, who waits where, who blocks.

`format_run_info` and `GreenletTree` show threads and greenlets as text for people, whose form may change.
`assert_switches` finds code that blocks its thread. `wrap_errors` makes a function return its exceptions.
"""

from __future__ import annotations

import functools
import pprint
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter, strftime
from types import FrameType, TracebackType
from typing import Any, ClassVar
from weakref import ref

from greenlet import getcurrent, gettrace, settrace

from ._core.census import all_greenlets
from ._core.current import get_hub, get_hub_if_exists
from ._waits import format_waits
from .local import all_local_dicts_for_greenlet

__all__ = [
    "GreenletTree",
    "assert_switches",
    "format_run_info",
    "print_run_info",
    "wrap_errors",
]

_NONE: Any = object()
_RULE = "*" * 80
# As much of the result of a greenlet as is shown.
_MAX_RESULT = 30


class wrap_errors:
    """``wrap_errors(errors, func)``: the function ``func``, but returning certain exceptions.

    ``errors`` is an exception class or a tuple of them. What ``func`` raises of these is returned; anything
    else is raised. For greenlets and links, where an exception that nobody expects would be printed.
    All other attributes, and ``str`` and ``repr``, are those of ``func``.
    """

    def __init__(
        self, errors: type[BaseException] | tuple[type[BaseException], ...], func: Callable[..., Any]
    ) -> None:
        self.__errors = errors
        self.__func = func
        # __dict__ is left out: attributes of the function are found by __getattr__, as they are then.
        functools.update_wrapper(self, func, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        func = self.__func
        try:
            return func(*args, **kwargs)
        except self.__errors as ex:
            return ex

    def __str__(self) -> str:
        return str(self.__func)

    def __repr__(self) -> str:
        return repr(self.__func)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_wrap_errors__"):
            raise AttributeError(name)
        return getattr(self.__func, name)


# -- text ----------------------------------------------------------------------------------------------


def _text_of(obj: object, to_text: Callable[[Any], str] = repr) -> str:
    try:
        return to_text(obj)
    except Exception as ex:
        return f"<{type(obj).__name__} object at {id(obj):#x}; its text failed with {type(ex).__name__}>"


def _stack_lines(frame: Any, limit: int | None) -> list[str]:
    return "".join(traceback.format_stack(frame, limit)).splitlines()


def _caller_frame() -> FrameType | None:
    """The innermost running frame outside this module."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    return frame


def format_run_info(
    thread_stacks: bool = True,
    greenlet_stacks: bool = True,
    limit: int | None = _NONE,
    current_thread_ident: int | None = None,
) -> list[str]:
    """What threads and greenlets there are in this process, where each is and where it comes from: lines.

    At the end come all greenlets and asyncio tasks that wait, each below who waits for it, and where it
    stands.

    ``thread_stacks`` and ``greenlet_stacks``: whether to show the stack of each running one (where
    greenlets were spawned is shown in any case). ``limit``: show so many frames of a stack at the most.
    ``current_thread_ident``: the thread to mark as the current one, by default the caller's.
    Does not block; may be called from any greenlet and thread.
    """
    if current_thread_ident is None:
        current_thread_ident = threading.get_ident()
    frames = None if limit is _NONE else limit
    lines = [_RULE, "* Threads"]
    for ident, frame in sys._current_frames().items():
        lines.append(_RULE)
        lines.extend(_thread_lines(ident, frame, thread_stacks, frames, current_thread_ident))
    lines += [_RULE, "* Greenlets", _RULE]
    details = {"running_stacks": greenlet_stacks, "running_stack_limit": frames}
    for tree in GreenletTree.forest():
        lines.append("---- Thread boundary")
        lines.extend(tree.format_lines(details=details))
    waits = format_waits()
    if waits:
        lines += [_RULE, "* Waits", _RULE, *waits]
    return lines


dump_stacks = format_run_info


def _thread_lines(
    ident: int, frame: FrameType | None, stacks: bool, limit: int | None, current_ident: int
) -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    name = names.get(ident)
    label = f"Thread {ident:#x}" + ("" if name is None else f" ({name})")
    if ident == current_ident:
        label += " (CURRENT)"
    yield label
    if ident == threading.get_ident():
        frame = _caller_frame()
    if is_idle_threadpool_worker(frame):
        yield "  is an idle worker of a thread pool"
    elif stacks:
        yield from _stack_lines(frame, limit)


def is_idle_threadpool_worker(frame: FrameType | None) -> bool:
    """Whether a thread whose innermost frame this is waits, in a thread pool of ours, for work.

    The pool marks that by a true local variable ``bridge_threadpool_worker_idle`` around the wait.
    """
    mark = "bridge_threadpool_worker_idle"
    while frame is not None:
        # f_locals of a running frame is not cheap: ask only where there is something to find
        if mark in frame.f_code.co_varnames and frame.f_locals.get(mark):
            return True
        frame = frame.f_back
    return False


def print_run_info(
    thread_stacks: bool = True, greenlet_stacks: bool = True, limit: int | None = _NONE, file: Any = None
) -> None:
    """Print `format_run_info` (which see) to ``file``, by default ``sys.stderr``."""
    lines = format_run_info(thread_stacks=thread_stacks, greenlet_stacks=greenlet_stacks, limit=limit)
    print("\n".join(lines), file=sys.stderr if file is None else file)


def clear_stack_frames(frame: FrameType | None) -> None:
    """Drop the local variables of a frame and of all frames that called it, where that is possible.

    It is not for frames that are running.
    """
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:
            pass
        frame = frame.f_back


# -- trees of greenlets --------------------------------------------------------------------------------


class GreenletTree:
    """A greenlet and, as trees again, those that it spawned.

    The parent of a greenlet is nearly always the hub and says little, so it is who spawned it that makes
    the tree: its root is the main greenlet of a thread. Attributes of the greenlet are attributes of its
    tree. ``str`` of it gives names only; see `format`. `forest` and `current_tree` make trees.
    """

    #: What `format` shows, and how much.
    DEFAULT_DETAILS: ClassVar[dict[str, Any]] = {
        "running_stacks": True,
        "running_stack_limit": None,
        "spawning_stacks": True,
        "locals": True,
    }

    greenlet: Any = None
    #: Whether the current greenlet is in this tree; only set for roots.
    is_current_tree = False

    def __init__(self, greenlet: Any) -> None:
        self.greenlet = greenlet
        self.child_trees: list[GreenletTree] = []

    def add_child(self, tree: GreenletTree) -> None:
        """Add the tree of a greenlet that this one spawned."""
        if tree is not self:
            self.child_trees.append(tree)

    @property
    def root(self) -> bool:
        """Whether the greenlet is a main greenlet: it has no parent."""
        return self.greenlet.parent is None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.greenlet, name)

    def __str__(self) -> str:
        return self.format(details=False)

    def format(self, details: bool | dict[str, Any] = True) -> str:
        """The lines of `format_lines` as one string."""
        return "\n".join(self.format_lines(details=details))

    def format_lines(self, details: bool | dict[str, Any] = True) -> list[str]:
        """One line for each greenlet of the tree, and with ``details`` more about each.

        ``details``: a boolean, or what is to be different from `DEFAULT_DETAILS`.
        """
        if details is True:
            details = {}
        wanted = None if details is False else {**self.DEFAULT_DETAILS, **details}
        lines: list[str] = []
        # Not by recursion: a chain in which each greenlet spawns the next may be of any length.
        pending: list[tuple[GreenletTree, tuple[bool, ...]]] = [(self, ())]
        while pending:
            tree, followed = pending.pop()
            # followed: for this tree and each tree around it, below the root, whether a sibling comes after
            bars = "".join("|    " if more else "     " for more in followed[:-1])
            lines.append(f" {bars}+--- {_label(tree.greenlet)}" if followed else _label(tree.greenlet))
            if wanted is not None:
                edge = " :" if not followed or followed[0] else "  "
                indent = edge + " " * (4 + 6 * len(followed))
                lines.extend(indent + line for line in _detail_lines(tree.greenlet, wanted))
            children = sorted(tree.child_trees, key=_order)
            pending.extend(
                (child, (*followed, number > 0)) for number, child in enumerate(reversed(children))
            )
        return lines

    @classmethod
    def forest(cls) -> list[GreenletTree]:
        """The trees of all threads: each greenlet that there is, is in one of them."""
        return cls._forest()[0]

    @classmethod
    def current_tree(cls) -> GreenletTree:
        """The tree of the current thread."""
        roots, trees = cls._forest()
        return next((root for root in roots if root.is_current_tree), trees[getcurrent()])

    @classmethod
    def _forest(cls) -> tuple[list[GreenletTree], dict[Any, GreenletTree]]:
        trees: dict[Any, GreenletTree] = {}
        for obj in [*all_greenlets(), getcurrent()]:
            if not _flag(obj, "greenlet_tree_is_ignored"):
                trees[obj] = cls(obj)
        roots: list[GreenletTree] = []
        for obj, tree in trees.items():
            above = None if _flag(obj, "greenlet_tree_is_root") else _spawner(obj, trees)
            if above is None:
                roots.append(tree)
            else:
                trees[above].add_child(tree)
        current: Any = getcurrent()
        while current is not None and current in trees:
            trees[current].is_current_tree = True
            current = None if _flag(current, "greenlet_tree_is_root") else _spawner(current, trees)
        return roots, trees


def _flag(obj: Any, name: str) -> bool:
    return bool(getattr(obj, name, False))


def _spawner(obj: Any, known: dict[Any, GreenletTree]) -> Any:
    """The greenlet below which *obj* is shown; None for a root."""
    spawning_greenlet = getattr(obj, "spawning_greenlet", None)
    spawner = spawning_greenlet() if isinstance(spawning_greenlet, ref) else None
    if spawner is None or spawner not in known:
        spawner = obj.parent
        while spawner is not None and spawner not in known:
            spawner = spawner.parent
    return spawner if spawner is not obj else None


def _order(tree: GreenletTree) -> tuple[bool, int]:
    # Raw greenlets have no number and stay in the order in which they were found. Numbers come from a hub,
    # and one is not made for this.
    number = None if get_hub_if_exists() is None else getattr(tree.greenlet, "minimal_ident", None)
    return (number is None, number or 0)


def _label(obj: Any) -> str:
    label = _text_of(obj)
    if _flag(obj, "dead") and hasattr(obj, "successful"):
        if obj.successful():
            return f"{label}; finished with value {_text_of(obj.value)[:_MAX_RESULT]}"
        return f"{label}; finished with exception {_text_of(obj.exception)[:_MAX_RESULT]}"
    return label if obj else f"{label}; not running"


def _detail_lines(obj: Any, wanted: dict[str, Any]) -> Iterator[str]:
    yield f"Parent: {_text_of(obj.parent)}"
    if wanted["running_stacks"]:
        frame = _caller_frame() if obj is getcurrent() else obj.gr_frame
        if frame is not None:
            yield "Running:"
            yield from _stack_lines(frame, wanted["running_stack_limit"])
    stack = getattr(obj, "spawning_stack", None) if wanted["spawning_stacks"] else None
    if stack is not None:
        yield "Spawned at:"
        yield from _stack_lines(stack, None)
    if wanted["locals"]:
        tree_locals = getattr(obj, "spawn_tree_locals", None)
        # All greenlets of a tree share them: they are shown where they begin.
        spawning_greenlet = getattr(obj, "spawning_greenlet", None)
        spawner = spawning_greenlet() if isinstance(spawning_greenlet, ref) else None
        if tree_locals and tree_locals is not getattr(spawner, "spawn_tree_locals", None):
            yield "Spawn Tree Locals"
            yield from _text_of(tree_locals, pprint.pformat).splitlines()
        filled = [(key, values) for key, values in all_local_dicts_for_greenlet(obj) if values]
        if filled:
            yield "Greenlet Locals:"
        for (kind, ident), values in filled:
            yield f"  Local {kind!r} at {ident:#x}"
            for line in _text_of(values, pprint.pformat).splitlines():
                yield f"    {line}"


# -- watching switches ---------------------------------------------------------------------------------


class GreenletTracer:
    """A trace function for greenlets that counts switches; it is installed by making it.

    It calls the one that was installed before. Use it, and `kill` it, in one thread.
    """

    def __init__(self) -> None:
        #: Events since the last `did_block_hub`.
        self.greenlet_switch_counter = 0
        #: The greenlet that was switched to last; None if that is not known or not of interest.
        self.active_greenlet: Any = None
        self.previous_trace_function: Any = settrace(self)

    def kill(self) -> None:
        """Put back the trace function that was there before."""
        installed: Any = gettrace()
        if installed is self:
            settrace(self.previous_trace_function)

    def __call__(self, event: str, args: Any) -> None:
        self.greenlet_switch_counter += 1
        origin = target = None
        if event in ("switch", "throw"):
            origin, target = args
        self.active_greenlet = target
        self._switched(origin, target)
        if self.previous_trace_function is not None:
            self.previous_trace_function(event, args)

    def _switched(self, origin: Any, target: Any) -> None:
        pass

    def did_block_hub(self, hub: Any) -> Any:
        """The greenlet that has kept ``hub`` from running since this was last asked; None if none has."""
        switched = self.greenlet_switch_counter != 0
        self.greenlet_switch_counter = 0
        active = self.active_greenlet
        return None if switched or active is hub else active

    def ignore_current_greenlet_blocking(self) -> None:
        """Report nothing until the next switch."""
        self.active_greenlet = None

    def monitor_current_greenlet_blocking(self) -> None:
        """Hold the current greenlet responsible for what happens before the next switch."""
        self.active_greenlet = getcurrent()

    def did_block_hub_report(
        self, hub: Any, active_greenlet: Any, format_kwargs: dict[str, Any]
    ) -> list[str]:
        """Lines that say who blocks and where; ``format_kwargs`` go to `format_run_info`."""
        ident = hub.thread_ident
        here = ident == threading.get_ident()
        frame = _caller_frame() if here else sys._current_frames().get(ident)
        lines = [
            "=" * 80,
            "",
            f"{strftime('%Y-%m-%dT%H:%M:%S')} : Greenlet {_text_of(active_greenlet)} appears to be blocked",
            f"    Reported by {_text_of(self)}",
        ]
        if frame is not None:
            lines.append(f"Blocked Stack (for thread id {ident:#x}):")
            lines.extend(_stack_lines(frame, None))
        lines += ["", "Info:"]
        lines.extend(format_run_info(**format_kwargs))
        return lines


class _TimingTracer(GreenletTracer):
    """Measures for how long, at the most, there was no switch of the kind that counts.

    Time in the loop does not count: there the thread waits, which is what it should do.
    """

    def __init__(self, hub: Any, max_blocking_time: float) -> None:
        self.hub: Any = hub
        self.max_blocking_time = max_blocking_time
        self.longest = 0.0
        self.counted = 0
        self._busy_since: float | None = None if self._is_loop(getcurrent()) else perf_counter()
        super().__init__()

    def _is_loop(self, greenlet: Any) -> bool:
        # An adopted loop runs in the greenlet of whoever runs it, above the hub.
        hub = self.hub
        if greenlet is hub:
            return True
        loop = getattr(hub, "loop", None)  # any greenlet may be given for the hub
        return loop is not None and greenlet is hub.parent and not loop.owned

    def _counts(self, target: Any) -> bool:
        return True

    def _switched(self, origin: Any, target: Any) -> None:
        if not self._counts(target):
            if self._busy_since is None and self._is_loop(origin):
                self._busy_since = perf_counter()
            return
        self.counted += 1
        now = perf_counter()
        if self._busy_since is not None:
            self.longest = max(self.longest, now - self._busy_since)
        self._busy_since = None if self._is_loop(target) else now

    def _exceeded(self) -> bool:
        since = self._busy_since
        last = 0.0 if since is None else perf_counter() - since
        return max(self.longest, last) > self.max_blocking_time

    def did_block_hub(self, hub: Any) -> Any:
        return (self.active_greenlet or getcurrent()) if self._exceeded() else None


class MaxSwitchTracer(_TimingTracer):
    """Finds more than ``max_blocking_time`` seconds without a switch to any greenlet."""


class HubSwitchTracer(_TimingTracer):
    """Finds more than ``max_blocking_time`` seconds without a switch to the hub, or no such switch at all."""

    def _counts(self, target: Any) -> bool:
        return self._is_loop(target)

    def _exceeded(self) -> bool:
        return self.counted == 0 or super()._exceeded()


class _FailedToSwitch(AssertionError):
    pass


class assert_switches:
    """A context manager that raises if its body does not give other greenlets a chance.

    ``max_blocking_time``: None, and the body must switch to another greenlet at least once; or for how many
    seconds it may run between two switches. ``hub_only``: only switches to the hub count, and there must
    be one; without ``max_blocking_time`` it changes nothing. Raises an `AssertionError` that shows who
    blocked and what there is; an exception from the body passes unchanged. For tests and for debugging:
    while it is active every switch takes longer. Enter and leave it in one thread.

    ::

        with assert_switches():                        # raises: nothing switched
            pass

        with assert_switches(max_blocking_time=1.0):   # does not: nothing switched, but in no time
            pass
    """

    hub: Any = None
    tracer: GreenletTracer | None = None
    _entered: float | None = None

    def __init__(self, max_blocking_time: float | None = None, hub_only: bool = False) -> None:
        self.max_blocking_time = max_blocking_time
        self.hub_only = hub_only

    def __enter__(self) -> assert_switches:
        self.hub = hub = get_hub()
        if self.max_blocking_time is None:
            self.tracer = GreenletTracer()
        else:
            kind = HubSwitchTracer if self.hub_only else MaxSwitchTracer
            self.tracer = kind(hub, self.max_blocking_time)
        self.tracer.monitor_current_greenlet_blocking()
        self._entered = perf_counter()
        return self

    def __exit__(
        self, t: type[BaseException] | None, v: BaseException | None, tb: TracebackType | None
    ) -> None:
        tracer, hub, entered = self.tracer, self.hub, self._entered
        self.tracer = self.hub = self._entered = None
        assert tracer is not None and entered is not None
        tracer.kill()
        if t is not None:
            return
        blocker = tracer.did_block_hub(hub)
        if blocker is not None:
            raise _FailedToSwitch("\n".join(self._report(tracer, hub, blocker, perf_counter() - entered)))

    def _report(self, tracer: GreenletTracer, hub: Any, blocker: Any, seconds: float) -> Iterable[str]:
        to_hub = self.hub_only and self.max_blocking_time is not None
        headline = f"{'To the hub' if to_hub else 'To any greenlet'} in {seconds:.4f} seconds"
        if self.max_blocking_time is not None:
            headline += f" (max allowed {self.max_blocking_time:.4f} seconds)"
        yield headline
        yield from tracer.did_block_hub_report(hub, blocker, {})
