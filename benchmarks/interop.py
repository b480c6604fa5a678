"""Greenlets and coroutines together: bridge beside the libraries that join the two worlds, in one run.

    python benchmarks/interop.py                          # on uvloop and on asyncio's own loop
    python benchmarks/interop.py --quick --loop uvloop
    python benchmarks/interop.py --asyncio-gevent venv/bin/python

Figures are microseconds per operation, medians of rounds in which all take turns. SQLAlchemy (greenlet_spawn,
await_only), greenback and greenletio are measured if they are installed where this runs; asyncio-gevent needs
gevent, hence an interpreter of its own. "bare" is what asyncio takes for the same without greenlets.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Work = Callable[[int], Awaitable[Any]]

#: cases[name][column] = a coroutine function that does it n times
cases: dict[str, dict[str, Work]] = {}


def case(name: str, column: str) -> Callable[[Work], Work]:
    def register(work: Work) -> Work:
        cases.setdefault(name, {})[column] = work
        return work

    return register


async def ready() -> int:
    return 1


async def waiting() -> int:
    await asyncio.sleep(0)
    return 1


def nothing() -> int:
    return 1


def bare() -> None:
    @case("a step of a task", "bare")
    async def step(n: int) -> None:
        for _ in range(n):
            await asyncio.sleep(0)

    @case("await a coroutine that waits", "bare")
    async def wait(n: int) -> None:
        for _ in range(n):
            await waiting()

    @case("await a coroutine that is ready", "bare")
    async def at_once(n: int) -> None:
        for _ in range(n):
            await ready()

    @case("await a greenlet", "bare")
    async def task(n: int) -> None:
        for _ in range(n):
            await asyncio.create_task(ready())


def with_bridge() -> None:
    import bridge

    def in_greenlet(work: Callable[[int], object]) -> Work:
        async def run(n: int) -> None:
            await bridge.spawn(work, n)

        return run

    def at_once(n: int) -> None:
        for _ in range(n):
            bridge.await_(ready())

    def wait(n: int) -> None:
        for _ in range(n):
            bridge.await_(waiting())

    case("await a coroutine that is ready", "bridge")(in_greenlet(at_once))
    case("await a coroutine that waits", "bridge")(in_greenlet(wait))

    @case("await a greenlet", "bridge")
    async def greenlet(n: int) -> None:
        for _ in range(n):
            await bridge.spawn(nothing)

    @case("call a function that does not block", "bridge")
    async def plain(n: int) -> None:
        call = bridge.sync_to_async(nothing)
        for _ in range(n):
            await call()

    @case("call a function that awaits", "bridge")
    async def blocking(n: int) -> None:
        call = bridge.sync_to_async(lambda: bridge.await_(waiting()))
        for _ in range(n):
            await call()

    @case("call a function that sleeps", "bridge")
    async def sleeping(n: int) -> None:
        call = bridge.sync_to_async(bridge.sleep)
        for _ in range(n):
            await call(0)

    @case("block in a portal", "bridge")
    @bridge.portal
    async def block(n: int) -> None:
        for _ in range(n):
            bridge.sleep(0)

    @case("await in a portal", "bridge")
    @bridge.portal
    async def in_portal(n: int) -> None:
        for _ in range(n):
            bridge.await_(waiting())

    @case("a step of a task", "bridge")
    async def step(n: int) -> None:
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        bridge.install_task_factory(loop)
        try:
            task = loop.create_task(cases["a step of a task"]["bare"](n))  # type: ignore[arg-type, var-annotated]
        finally:
            loop.set_task_factory(before)
        await task


def with_sqlalchemy() -> None:
    concurrency: Any = importlib.import_module("sqlalchemy.util.concurrency")
    _in_its_greenlet("SQLAlchemy", concurrency.greenlet_spawn, concurrency.await_only)


def with_greenletio() -> None:
    greenletio: Any = importlib.import_module("greenletio")

    def call(function: Any, *args: Any) -> Any:
        return greenletio.async_(function)(*args)

    _in_its_greenlet("greenletio", call, greenletio.await_)


def with_greenback() -> None:
    greenback: Any = importlib.import_module("greenback")
    _in_its_greenlet("greenback", greenback.with_portal_run_sync, greenback.await_)

    @case("a step of a task", "greenback")
    async def step(n: int) -> None:
        await greenback.ensure_portal()
        await cases["a step of a task"]["bare"](n)

    @case("await in a portal", "greenback")
    async def in_portal(n: int) -> None:
        await greenback.ensure_portal()
        for _ in range(n):
            greenback.await_(waiting())


def _in_its_greenlet(column: str, call: Any, await_: Any) -> None:
    def at_once(n: int) -> None:
        for _ in range(n):
            await_(ready())

    def wait(n: int) -> None:
        for _ in range(n):
            await_(waiting())

    @case("await a coroutine that is ready", column)
    async def spawn_ready(n: int) -> None:
        await call(at_once, n)

    @case("await a coroutine that waits", column)
    async def spawn_waiting(n: int) -> None:
        await call(wait, n)

    @case("call a function that does not block", column)
    async def plain(n: int) -> None:
        for _ in range(n):
            await call(nothing)

    def awaits() -> Any:
        return await_(waiting())

    @case("call a function that awaits", column)
    async def blocking(n: int) -> None:
        for _ in range(n):
            await call(awaits)


#: Run by the interpreter that has asyncio-gevent; prints seconds.
ASYNCIO_GEVENT = """
import asyncio, sys, time, warnings
warnings.simplefilter("ignore")
import gevent, asyncio_gevent
asyncio.set_event_loop_policy(asyncio_gevent.EventLoopPolicy())
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
async def main(n):
    for _ in range(n):
        await asyncio_gevent.greenlet_to_future(gevent.spawn(int))
n = int(sys.argv[1])
loop.run_until_complete(main(n // 10))
begin = time.perf_counter()
loop.run_until_complete(main(n))
print(time.perf_counter() - begin)
"""


def measure(factory: Any, n: int, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds per operation, by case and column."""
    times: dict[str, dict[str, list[float]]] = {}
    with asyncio.Runner(loop_factory=factory) as runner:
        for name, columns in cases.items():
            found = times[name] = {column: [] for column in columns}
            for work in columns.values():
                runner.run(work(n // 10))  # type: ignore[arg-type]
            for turn in range(rounds):
                order = list(columns.items())
                for column, work in order if turn % 2 else reversed(order):
                    begin = time.perf_counter()
                    runner.run(work(n))  # type: ignore[arg-type]
                    found[column].append((time.perf_counter() - begin) / n * 1e6)
    return {name: {c: statistics.median(t) for c, t in columns.items()} for name, columns in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, 3 rounds")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), action="append")
    parser.add_argument("--asyncio-gevent", metavar="PYTHON", help="an interpreter that has asyncio-gevent")
    options = parser.parse_args()
    n, rounds = (2000, 3) if options.quick else (10000, 7)
    bare()
    columns = ["bare", "bridge"]
    with_bridge()
    for name, setup in (
        ("SQLAlchemy", with_sqlalchemy),
        ("greenback", with_greenback),
        ("greenletio", with_greenletio),
    ):
        try:
            setup()
        except ImportError as e:
            print(f"{name}: not measured, {e}", file=sys.stderr)
        else:
            columns.append(name)
    own = None
    if options.asyncio_gevent:
        columns.append("asyncio-gevent")
        command = [options.asyncio_gevent, "-c", ASYNCIO_GEVENT, str(n // 5)]
        runs = [float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
        own = statistics.median(runs) / (n // 5) * 1e6
    for loop in options.loop or ("uvloop", "asyncio"):
        factory = asyncio.SelectorEventLoop if loop == "asyncio" else importlib.import_module("uvloop").Loop
        figures = measure(factory, n, rounds)
        if own is not None:
            figures["await a greenlet"]["asyncio-gevent"] = own
        print(f"\n{loop}, microseconds".ljust(38) + "".join(column.rjust(16) for column in columns))
        for name, row in figures.items():
            cells = (f"{row[column]:.2f}" if column in row else "-" for column in columns)
            print(name.ljust(37) + "".join(cell.rjust(16) for cell in cells))


if __name__ == "__main__":
    main()
