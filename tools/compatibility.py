"""Writes docs/compatibility.md from what other people's tests and programs have said of bridge.

    python tools/compatibility.py --gevent RESULTS [RESULTS ...] --libraries RESULTS [RESULTS ...]

RESULTS are files that the runners of gevent's own suite and of the programs with third-party libraries write
(``run.py --json``). Of each kind there may be several: a later one may hold what was run once more.
The reasons for what does not pass are those of tests/suites/known_failures.md; what there is to say of
modules and libraries is in compatibility.toml. Writes nothing, and fails, if a test does not pass and no
reason is there, if a reason is there that no test needs, or if a module of tests or a program is unknown or
missing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "compatibility.md"
REASONS = ROOT / "tests" / "suites" / "known_failures.md"
KNOWN: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

HEAD = """\
# Compatibility

<!-- Written by tools/compatibility.py: change that, its .toml, or tests/suites/known_failures.md. -->

What gevent's own tests and programs with other people's libraries say of bridge, in the place of gevent
{level}, on CPython {python}. What differs in general, and why, is on the page [Differences](differences.md).

## Modules of gevent

Of gevent's own suite {passed} tests pass. Those count that pass with gevent itself and are not about its
private parts. Every public module of gevent has its twin, but for those at the end of the table.

| gevent's module | tests passed | what differs, and why |
| --- | --- | --- |
"""

PATCHED = """
## The standard library's own tests, patched

Tests of CPython's standard library, run after `patch_all()`. They are part of the number above.

| tests | passed |
| --- | --- |
"""

LEFT = """
## Tests that do not pass

| test | why |
| --- | --- |
"""

PROGRAMS = """
## Libraries

For each there is a program that does real work with the library. It is started by `python -m bridge`, and
checks its results and that slow jobs ran at the same time.

| library | what is tried | result | what differs |
| --- | --- | --- | --- |
"""


class Reason(NamedTuple):
    """A row of known_failures.md."""

    patterns: list[str]
    text: str


class Suite(NamedTuple):
    """What gevent's suite has said."""

    level: str
    python: str
    #: {module: {test: whether it passed}}
    modules: dict[str, dict[str, bool]]


def read_suite(files: Iterable[Path]) -> Suite:
    suite: Suite | None = None
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["problem"]:
            sys.exit(f"{file}: the suite could not run: {found['problem']}")
        suite = suite or Suite(found["gevent"], found["python"], {})
        for module, outcome in found["modules"].items():
            tests = suite.modules.setdefault(module, {})
            tests.update({test: result["s"] == "pass" for test, result in outcome["tests"].items()})
    assert suite is not None
    return suite


def read_programs(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """{program: its result}"""
    programs: dict[str, dict[str, Any]] = {}
    for file in files:
        results = json.loads(file.read_text(encoding="utf-8"))["results"]
        programs.update({result["name"]: result for result in results})
    return programs


def read_reasons(text: str) -> list[Reason]:
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", text, re.MULTILINE)
    return [Reason(re.findall(r"`([^`]+)`", tests), reason) for tests, reason in rows]


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def count(tests: Iterable[bool]) -> str:
    each = list(tests)
    return f"{sum(each)} of {len(each)}" if each else ""


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


class Page:
    """The page as it is written, and what is wrong with its sources."""

    def __init__(self, suite: Suite, reasons: list[Reason], programs: dict[str, dict[str, Any]]) -> None:
        self.suite = suite
        self.wrong: list[str] = []
        everything = (passed for tests in suite.modules.values() for passed in tests.values())
        self.text = HEAD.format(level=suite.level, python=suite.python, passed=count(everything))
        taken = self.write_modules()
        self.write_patched(taken)
        self.write_left(reasons)
        self.write_programs(programs)

    def row(self, *cells: str) -> None:
        self.text += f"| {' | '.join(cells)} |\n"

    def write_modules(self) -> set[str]:
        taken: set[str] = set()
        for entry in KNOWN["modules"]:
            mine = {name for name in self.suite.modules if matches(name, entry["tests"])}
            self.wrong += [f"{name} belongs to two entries of modules" for name in mine & taken]
            self.wrong += [
                f"no test module is called {pattern}"
                for pattern in entry["tests"]
                if not any(fnmatchcase(name, pattern) for name in mine)
            ]
            taken |= mine
            passed = [passed for name in sorted(mine) for passed in self.suite.modules[name].values()]
            what = [entry["text"]] if "text" in entry else []
            if "section" in entry:
                what.append(f"[Differences](differences.md#{entry['section']})")
            if not all(passed):
                what.append(f"{passed.count(False)} [below](#tests-that-do-not-pass)")
            self.row(code(entry["names"]), count(passed), "; ".join(what))
        for entry in KNOWN["missing"]:
            self.row(code(entry["names"]), "", f"missing: {entry['text']}")
        return taken

    def write_patched(self, taken: set[str]) -> None:
        self.text += PATCHED
        for name in sorted(self.suite.modules.keys() - taken):
            if name.startswith("test__"):
                self.wrong.append(f"a module of tests that is in no entry of modules: {name}")
            else:
                self.row(f"`{name}`", count(self.suite.modules[name].values()))

    def write_left(self, reasons: list[Reason]) -> None:
        self.text += LEFT
        left = {
            f"{module}::{test}"
            for module, tests in self.suite.modules.items()
            for test, passed in tests.items()
            if not passed
        }
        for reason in reasons:
            mine = sorted(test for test in left if matches(test, reason.patterns))
            left -= set(mine)
            if mine:
                self.row(code(mine), reason.text)
            else:
                self.wrong.append(f"no test needs this reason of {REASONS.name}: {reason.patterns}")
        self.wrong += [f"there is no reason in {REASONS.name} for {test}" for test in sorted(left)]

    def write_programs(self, programs: dict[str, dict[str, Any]]) -> None:
        self.text += PROGRAMS
        libraries = KNOWN["libraries"]
        self.wrong += [f"an unknown program: {name}" for name in programs.keys() - libraries.keys()]
        for name, library in sorted(libraries.items()):
            program = programs.get(name, {"status": "missing", "line": "it was not run"})
            if program["status"] not in ("passed", "skipped"):
                self.wrong.append(f"{name}: {program['line']}")
            result = "works" if program["status"] == "passed" else "not tried here"
            self.row(library["title"], library["tried"], result, library.get("differs", ""))


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/compatibility.md.")
    parser.add_argument("--gevent", type=Path, nargs="+", required=True, help="results of gevent's own suite")
    parser.add_argument("--libraries", type=Path, nargs="+", required=True, help="results of the programs")
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args()

    reasons = read_reasons(REASONS.read_text(encoding="utf-8"))
    page = Page(read_suite(options.gevent), reasons, read_programs(options.libraries))
    if page.wrong:
        print("\n".join(page.wrong), file=sys.stderr)
        return 1
    options.output.write_text(page.text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
