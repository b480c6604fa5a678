"""Runs the workers of a case, one round of one of them at a time."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from catalogue import Case
from environments import Implementation, cache_folder, worker_environment

PATIENCE = 300.0
"""Seconds after which a worker that does not answer is taken for hung and killed."""


class Failed(Exception):
    """A worker got a wrong result, crashed or hung; the message says which.

    All that it wrote to standard error is in `failure_record`.
    """


def failure_record(implementation: str, case: str) -> Path:
    """Return where the last words of a failed worker are kept."""
    return cache_folder() / f"failed-{implementation}-{case}.txt"


class NoTwin(Exception):
    """This implementation has no such case."""


@dataclass(frozen=True)
class Sample:
    """What one round measured: wall and CPU seconds, and the value if the case returns one."""

    wall: float
    cpu: float
    value: float | None


@dataclass
class Result:
    """Everything measured for one case; the lists are parallel, one sample per round."""

    case: Case
    operations: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)


class Worker:
    """A live process that runs one case of one implementation whenever told to."""

    def __init__(self, implementation: Implementation, case: Case, operations: int, errors: IO[str]) -> None:
        self.name = implementation.name
        self._case = case
        self._errors = errors
        arguments = [case.module, case.name, str(operations), "0" if case.fresh else "1"]
        self._process = subprocess.Popen(
            [*implementation.command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=cache_folder(),
            env=worker_environment(),
        )
        self.versions: dict[str, str] = {}

    def wait_ready(self) -> None:
        """Wait until it has warmed up; raises `NoTwin` or `Failed`."""
        answer = self._answer()
        if not answer["twin"]:
            raise NoTwin(self.name)
        self.versions = answer["versions"]

    def round(self) -> Sample:
        """Run the case once; raises `Failed`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead: _answer() finds out what it said last
        return Sample(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            self._process.kill()

        alarm = threading.Timer(PATIENCE, give_up)
        alarm.start()
        try:
            line = self._process.stdout.readline()
        finally:
            alarm.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        if hung.is_set():
            raise Failed(f"no answer within {PATIENCE:g} s")
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip()
        if not said:
            raise Failed(f"ended with status {status} and without a word")
        failure_record(self.name, self._case.name).write_text(said + "\n")
        raise Failed(said.splitlines()[-1])

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def _orders(present: list[Implementation], rounds: int) -> Iterator[list[Implementation]]:
    """Yield A B C, C B A, A B C …: a drift of the machine's speed hits all of them alike."""
    for i in range(rounds):
        yield present if i % 2 == 0 else present[::-1]


def measure(case: Case, present: list[Implementation], repeat: int, quick: bool) -> Result:
    """Return what *repeat* interleaved rounds of *case* give; failures are part of the result."""
    result = Result(case, case.size(quick))
    for order in _with_workers(case, present, min(repeat, case.rounds), result):
        for worker in order:
            if worker.name in result.failures:
                continue
            try:
                sample = worker.round()
            except Failed as reason:
                result.failures[worker.name] = str(reason)
            else:
                result.samples.setdefault(worker.name, []).append(sample)
    return result


def _start(case: Case, implementation: Implementation, result: Result, stack: ExitStack) -> Worker | None:
    if implementation.name in result.failures:
        return None
    errors = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115  (the stack closes it)
    stack.enter_context(errors)
    worker = stack.enter_context(Worker(implementation, case, result.operations, errors))
    try:
        worker.wait_ready()
    except NoTwin:
        return None
    except Failed as reason:
        result.failures[implementation.name] = str(reason)
        return None
    result.versions[implementation.name] = worker.versions
    return worker


def _with_workers(
    case: Case, present: list[Implementation], rounds: int, result: Result
) -> Iterator[Iterator[Worker]]:
    """Yield, for every round, its workers in their order: the same ones, or new ones for *fresh* cases."""
    with ExitStack() as lasting:
        workers: dict[str, Worker] = {}
        if not case.fresh:
            for implementation in present:
                worker = _start(case, implementation, result, lasting)
                if worker is not None:
                    workers[implementation.name] = worker
        for order in _orders(present, rounds):
            if case.fresh:
                yield _one_after_the_other(case, order, result)
            else:
                yield iter([workers[i.name] for i in order if i.name in workers])


def _one_after_the_other(case: Case, order: list[Implementation], result: Result) -> Iterator[Worker]:
    """Yield new workers, each ended before the next begins."""
    for implementation in order:
        with ExitStack() as stack:
            worker = _start(case, implementation, result, stack)
            if worker is not None:
                yield worker
