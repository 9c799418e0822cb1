"""Interleaved pairs: what is compared takes turns, so a busy minute hits both alike."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 9
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one thing took against its yardstick, in seconds, and the ratio it should keep."""

    name: str
    yardstick: str
    seconds: tuple[float, ...]
    yardstick_seconds: tuple[float, ...]
    bar: float

    @property
    def ratio(self) -> float:
        """The ratio of the medians."""
        return statistics.median(self.seconds) / statistics.median(self.yardstick_seconds)


def interleave(
    contestants: Mapping[str, Callable[[], float]], rounds: int = ROUNDS
) -> dict[str, tuple[float, ...]]:
    """Run all of them in turn, `rounds` times, in alternating order; each returns its seconds.

    One more round comes first and does not count: it warms the caches of the disk.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        names = list(contestants) if number % 2 else list(contestants)[::-1]
        for name in names:
            seconds = contestants[name]()
            if number:
                taken[name].append(seconds)
    return {name: tuple(values) for name, values in taken.items()}


def report(title: str, comparisons: list[Comparison], extra: Mapping[str, object] | None = None) -> None:
    """Print a table and write it, with every single time, below benchmarks/results."""
    print(f"{title}, medians of {len(comparisons[0].seconds)} interleaved pairs")
    for one in comparisons:
        mine, theirs = statistics.median(one.seconds), statistics.median(one.yardstick_seconds)
        verdict = "kept" if one.ratio <= one.bar else "MISSED"
        print(f"  {one.name:<34} {mine:7.3f} s   {one.yardstick:<34} {theirs:7.3f} s")
        print(f"  {'':<34} {one.ratio:7.2f} times, bar {one.bar:g}: {verdict}")
    RESULTS.mkdir(exist_ok=True)
    rows = [
        {
            "name": one.name,
            "yardstick": one.yardstick,
            "ratio": one.ratio,
            "bar": one.bar,
            "seconds": one.seconds,
            "yardstick_seconds": one.yardstick_seconds,
        }
        for one in comparisons
    ]
    machine = {"python": platform.python_version(), "system": platform.platform()}
    path = RESULTS / f"{title.replace(' ', '-')}.json"
    path.write_text(json.dumps({"machine": machine, "rows": rows, **(extra or {})}, indent=1) + "\n")
    print(f"  every time: {path}")
