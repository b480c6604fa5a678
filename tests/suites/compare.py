"""Runs gevent's own tests on bridge and compares what passes with the committed list gevent_passing.txt.

    python tests/suites/compare.py SUITE [--only PATTERNS] [--jobs N] [--update]

SUITE is the folder of the harness: its run.py installs what it needs, runs gevent's tests with bridge in
gevent's place, and writes a file with all results. Only the modules of the list are run; what fails is run
once more, since some of those tests compare times. Exit status 1 if a test of the list failed twice.

With --update the list becomes what passes now: for the modules that were run, that is; --only names others
than those of the list.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

LIST = Path(__file__).with_name("gevent_passing.txt")
PROJECT = Path(__file__).parents[2]


def listed() -> set[str]:
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def run(suite: Path, only: list[str], jobs: int) -> tuple[dict[str, str], set[str]]:
    """Run what matches *only*; return {``module::test``: result} and the names of the modules run."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.json")
        command = [sys.executable, str(suite / "run.py"), "--impl", "bridge", "--project", str(PROJECT)]
        command += ["--only", ",".join(only), "--jobs", str(jobs), "--json", str(out)]
        subprocess.run(command, check=True)
        found = json.loads(out.read_text(encoding="utf-8"))
    if found["problem"]:
        sys.exit(f"the suite could not run: {found['problem']}")
    results = {
        f"{module}::{test}": result["s"]
        for module, outcome in found["modules"].items()
        for test, result in outcome["tests"].items()
    }
    return results, set(found["modules"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("suite", type=Path, help="folder of the harness")
    parser.add_argument("--only", help="modules to run, with commas between; those of the list if not given")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--update", action="store_true", help="make the list what passes now")
    options = parser.parse_args()

    expected = listed()
    only = options.only.split(",") if options.only else sorted({test.split("::")[0] for test in expected})
    if not only:
        print(f"{LIST.name} is empty: nothing to run")
        return 0
    results, modules = run(options.suite, only, options.jobs)
    expected_here = {test for test in expected if test.split("::")[0] in modules or not options.only}
    passed = {test for test, result in results.items() if result == "pass"}
    failed = expected_here - passed
    if failed:
        print(f"\n{len(failed)} tests of the list failed and are run once more")
        again, _ = run(options.suite, sorted(failed), 1)
        passed |= {test for test, result in again.items() if result == "pass"}
        failed -= passed
    new = passed - expected
    if options.update:
        head = [line for line in LIST.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        kept = {test for test in expected if test.split("::")[0] not in modules}
        LIST.write_text("\n".join([*head, *sorted(kept | passed)]) + "\n", encoding="utf-8")
    good = len(expected_here) - len(failed)
    print(f"\n{good} of {len(expected_here)} tests of the list pass, and {len(new)} others")
    for test in sorted(new):
        print(f"  new     {test}")
    for test in sorted(failed):
        print(f"  FAILED  {test} ({results.get(test, 'missing')})")
    return 1 if failed and not options.update else 0


if __name__ == "__main__":
    sys.exit(main())
