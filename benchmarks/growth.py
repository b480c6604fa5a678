"""How cost grows with number: the slope that the growth cases report."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stopwatch import Stopwatch

REPEATS = 3
"""How often each size is measured; the best counts, since noise only ever adds."""
LONG = 5.0
"""A size that takes more seconds than this is not repeated: noise is then small beside it."""


class Costs:
    """Wall seconds of the same work at three sizes, a factor of ten apart.

    Use: `for size, watch in costs.rounds(): …` does the work for *size* things under *watch*,
    then `costs.exponent()`. All that was measured is added to *total*.
    """

    def __init__(self, largest: int, total: Stopwatch) -> None:
        self._sizes = (largest // 100, largest // 10, largest)
        self._total = total
        self._best: dict[int, float] = {}

    def rounds(self) -> Iterator[tuple[int, Stopwatch]]:
        """Yield what to do: the smallest size to warm up, then each size up to `REPEATS` times."""
        yield self._sizes[0], Stopwatch()
        for size in self._sizes:
            for _ in range(REPEATS):
                watch = Stopwatch()
                yield size, watch
                self._best[size] = min(watch.wall, self._best.get(size, math.inf))
                self._total.add(watch)
                if watch.wall > LONG:
                    break

    def exponent(self) -> float:
        """Return the slope of the line through (log size, log cost): 1 is in proportion, 2 quadratic.

        The line is the one of least squares.
        """
        points = [(math.log(size), math.log(cost)) for size, cost in self._best.items()]
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
