"""How long converging takes against the longest chain of its steps, and against one after the other.

The steps are those of a machine with a GPU and conda, over a real sshd; each takes a scripted
time, a tenth of what it takes on a machine.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Comparison, interleave, report
from cloudtrain.bootstrap import Step, converge
from cloudtrain.events import Silent, Timeline
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote, connect
from tests.bootstrap.test_schedule import MACHINE, critical_path
from tests.support.sshd import Sshd

SCALE = 0.1
"""Seconds for a second."""
CHAIN = "the longest chain of needs"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sshd = Sshd(Path(folder))
        sshd.start()
        try:
            with connect(sshd.target) as remote:
                taken = interleave(
                    {
                        "side by side": converging(remote, 4),
                        "one after the other": converging(remote, 1),
                    },
                    rounds=3,
                )
        finally:
            sshd.stop()
    rounds = len(taken["side by side"])
    chain = (critical_path(MACHINE) * SCALE,) * rounds
    total = (sum(seconds for seconds, _, _ in MACHINE.values()) * SCALE,) * rounds
    report(
        "converge",
        [
            Comparison("side by side", CHAIN, taken["side by side"], chain, 1.1),
            Comparison("one after the other", "the sum of all", taken["one after the other"], total, 1.1),
        ],
    )


def converging(remote: Remote, workers: int) -> Callable[[], float]:
    """Return a function that converges a new run and tells its seconds."""

    def once() -> float:
        layout = Layout(f"{remote.home}/{time.monotonic_ns()}")
        steps = tuple(_step(layout, name) for name in MACHINE)
        start = time.perf_counter()
        done = converge(remote, steps, layout, Timeline(Silent()), workers=workers)
        taken = time.perf_counter() - start
        assert {report.outcome for report in done} == {"changed"}
        return taken

    return once


def _step(layout: Layout, name: str) -> Step:
    seconds, needs, lock = MACHINE[name]
    mark = f"{layout.root}/{name}"
    return Step(
        name=name,
        reason="scripted",
        check=f"[ -e {mark} ]",
        apply=f"sleep {seconds * SCALE}\ntouch {mark}",
        needs=needs,
        lock=lock,
    )


if __name__ == "__main__":
    main()
