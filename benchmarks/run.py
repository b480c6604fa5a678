"""Measure gevent, bridge and plain asyncio on uvloop side by side: `python benchmarks/run.py`.

README.md beside this file says how to read the table.
"""

from __future__ import annotations

import argparse
import sys

import catalogue
import environments
import report
import rounds


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description="Measure gevent, bridge and asyncio on uvloop side by side.")
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        default="*",
        help="cases (shell pattern, part of a name, or a group), comma-separated",
    )
    parser.add_argument(
        "--repeat", metavar="N", type=_positive, help="rounds per case (default 7, with --quick 3)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="less work per round: for a first look, and to check the cases"
    )
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what the table shows")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    """Tell whoever is waiting; the table alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Return the exit status: 1 if any implementation that is here failed a case, else 0."""
    options = parse()
    try:
        cases = catalogue.select(options.only)
    except ValueError as reason:
        say(str(reason))
        return 2
    if options.list:
        for case in cases:
            print(f"{case.module:10} {case.name:28} {case.work}")
        return 0
    present, missing = environments.available()
    for name, why in missing.items():
        say(f"{name} is not measured: {why}")
    if not present:
        return 1
    repeat = options.repeat or (3 if options.quick else 7)
    results: list[rounds.Result] = []
    try:
        for number, case in enumerate(cases, 1):
            say(f"{number}/{len(cases)} {case.name}")
            results.append(rounds.measure(case, present, repeat, options.quick))
    except KeyboardInterrupt:
        say(f"interrupted: {len(results)} of {len(cases)} cases are complete")
    if not results:
        return 1
    print(report.heading(results, options.clock))
    print()
    print(report.table(results, options.clock, options.markdown))
    if summary := report.summary(results, options.clock):
        print(f"\n{summary}")
    record = environments.cache_folder() / "results.json"
    report.save(results, record)
    say(f"every round, wall and CPU: {record}")
    failed = report.failures(results)
    for line in failed:
        say(f"FAILED {line}")
    if failed:
        say(f"what they wrote before: {rounds.failure_record('IMPLEMENTATION', 'CASE')}")
    return 1 if failed or len(results) < len(cases) else 0


if __name__ == "__main__":
    sys.exit(main())
