"""Turns results into a table, and into a file for whoever wants the single rounds."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rounds import Result, Sample

COLUMNS = ("gevent", "bridge", "uvloop")
ABSENT = "-"
HEADINGS = ("case", "what", "n", *COLUMNS, "gevent/bridge", "min..max", "uvloop/bridge", "min..max")
NUMERIC_FROM = 2
"""Columns from this one on are aligned to the right."""


def _figure(result: Result, sample: Sample, clock: str) -> float:
    """Return what a round counts for: its value, or seconds per operation on *clock*."""
    if sample.value is not None:
        return sample.value
    return (sample.wall if clock == "wall" else sample.cpu) / result.operations


def _figures(result: Result, name: str, clock: str) -> list[float]:
    """Return the figures of all rounds; none for an implementation that failed in any of them."""
    if name in result.failures:
        return []
    return [_figure(result, sample, clock) for sample in result.samples.get(name, [])]


def _show(figure: float, unit: str) -> str:
    if unit == "exponent":
        return f"{figure:.2f}"
    if unit == "B":
        return f"{figure:,.0f} B"
    for factor, symbol in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if (scaled := figure * factor) >= 1:
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {symbol}"
    return f"{figure * 1e9:.0f} ns"


def _show_ratio(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio < 0.1 else f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0f}"


def ratio(result: Result, other: str, clock: str) -> float | None:
    """Return median of *other* over median of bridge, above 1 where bridge is better; None without both."""
    theirs, ours = _figures(result, other, clock), _figures(result, "bridge", clock)
    if not theirs or not ours or not result.case.compared or not statistics.median(ours):
        return None
    return statistics.median(theirs) / statistics.median(ours)


def _ratio_cells(result: Result, other: str, clock: str) -> tuple[str, str]:
    """Return the ratio of the medians, and the range of the ratios within single rounds."""
    middle = ratio(result, other, clock)
    if middle is None:
        return ABSENT, ABSENT
    pairs = zip(_figures(result, other, clock), _figures(result, "bridge", clock), strict=True)
    single = [theirs / ours for theirs, ours in pairs if ours]
    return _show_ratio(middle), f"{_show_ratio(min(single))}..{_show_ratio(max(single))}"


def row(result: Result, clock: str) -> tuple[str, ...]:
    """Return the cells of one case."""
    cells = [result.case.name, result.case.work, f"{result.operations:,}"]
    for name in COLUMNS:
        figures = _figures(result, name, clock)
        if name in result.failures:
            cells.append("FAILED")
        else:
            cells.append(_show(statistics.median(figures), result.case.unit) if figures else ABSENT)
    return (*cells, *_ratio_cells(result, "gevent", clock), *_ratio_cells(result, "uvloop", clock))


def _aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(len(line[i]) for line in rows) for i in range(len(rows[0]))]
    return [
        [
            cell.rjust(width) if i >= NUMERIC_FROM else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in rows
    ]


def table(results: Sequence[Result], clock: str, markdown: bool) -> str:
    """Return all cases as a table for the terminal or in Markdown."""
    lines = _aligned([HEADINGS, *(row(result, clock) for result in results)])
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = [
        "-" * (len(cell) - 1) + ":" if i >= NUMERIC_FROM else "-" * len(cell)
        for i, cell in enumerate(lines[0])
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _versions(results: Sequence[Result], name: str) -> dict[str, str]:
    return next((result.versions[name] for result in results if name in result.versions), {})


def heading(results: Sequence[Result], clock: str) -> str:
    """Return what was measured and on what."""
    found = []
    for name in COLUMNS:
        versions = _versions(results, name)
        wanted = {
            "gevent": ("gevent", "greenlet"),
            "bridge": ("gevent-bridge", "greenlet", "uvloop"),
            "uvloop": ("uvloop",),
        }
        known = [f"{package} {versions[package]}" for package in wanted[name] if package in versions]
        if known:
            found.append(f"{name}: {', '.join(known)}")
    loop = os.environ.get("BRIDGE_LOOP")
    lines = [
        f"CPython {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} CPUs; {'; '.join(found)}" + (f"; BRIDGE_LOOP={loop}" if loop else ""),
        f"{'wall' if clock == 'wall' else 'CPU'} time per operation, median of the rounds; "
        "ratios above 1: bridge is faster",
    ]
    return "\n".join(lines)


def summary(results: Sequence[Result], clock: str) -> str:
    """Return geometric mean and worst case of the ratios, or nothing if there is no ratio."""
    lines = []
    for other in ("gevent", "uvloop"):
        steady = [r for r in results if r.case.steady]
        ratios = {r.case.name: found for r in steady if (found := ratio(r, other, clock)) is not None}
        if len(ratios) > 1:
            mean = math.exp(statistics.fmean(math.log(found) for found in ratios.values()))
            worst = min(ratios, key=lambda name: ratios[name])
            lines.append(
                f"{other}/bridge: geometric mean {_show_ratio(mean)} of {len(ratios)} cases, "
                f"worst {_show_ratio(ratios[worst])} ({worst})"
            )
    return "\n".join(lines)


def failures(results: Sequence[Result]) -> list[str]:
    """Return a line for every way in which an implementation went wrong, with its cases."""
    cases: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for name, reason in result.failures.items():
            cases.setdefault((name, reason), []).append(result.case.name)
    return [f"{name}: {reason} ({', '.join(names)})" for (name, reason), names in cases.items()]


def save(results: Sequence[Result], path: Path) -> None:
    """Write every round, on both clocks, to *path* as JSON."""
    path.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
