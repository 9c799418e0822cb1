"""Which steps are at work at the same time: as many as may be, and so the longest chain is all there is.

Time is virtual: a step ends when the test says so, and the test says so in the order in which
steps of these durations would end. What is compared is who is at work at each of those instants.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cache

import pytest

from cloudtrain.bootstrap import Step, converge
from cloudtrain.bootstrap.scripts import Verdict
from cloudtrain.events import Silent, Timeline
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote

Script = dict[str, tuple[float, tuple[str, ...], str | None]]
"""By step its seconds, what it needs, and its lock."""

MACHINE: Script = {
    "cloud-init": (3, (), None),
    "base": (25, ("cloud-init",), "apt"),
    "driver": (90, ("base",), "apt"),
    "miniconda": (40, ("base",), None),
    "environment": (30, ("base", "miniconda"), "env"),
    "torch": (60, ("environment",), "env"),
    "trainer": (20, ("environment", "torch"), "env"),
    "requirements": (10, ("environment", "torch", "trainer"), "env"),
    "opencv": (5, ("requirements",), "env"),
    "gpu": (8, ("driver", "opencv"), "env"),
}
INDEPENDENT: Script = {name: (seconds, (), None) for name, seconds in zip("abcd", (7, 3, 5, 6), strict=True)}
ONE_LOCK: Script = {name: (seconds, (), "apt") for name, seconds in zip("abc", (7, 3, 5), strict=True)}


@dataclass
class Workshop:
    """Stands in for the machine: a step is at work from its beginning until it is told to end."""

    at_work: set[str] = field(default_factory=set[str])
    ended: dict[str, threading.Event] = field(default_factory=dict[str, threading.Event])
    changed: threading.Condition = field(default_factory=threading.Condition)

    def apply(self, remote: Remote, step: Step, layout: Layout) -> Verdict:
        del remote, layout
        ended = threading.Event()
        with self.changed:
            self.ended[step.name] = ended
            self.at_work.add(step.name)
            self.changed.notify_all()
        assert ended.wait(60)
        return Verdict("changed", "", "")

    def wait_for(self, names: set[str]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.at_work == names, 30), (self.at_work, names)

    def end(self, name: str) -> None:
        with self.changed:
            self.at_work.remove(name)
        self.ended[name].set()


def critical_path(script: Script) -> float:
    @cache
    def until(name: str) -> float:
        seconds, needs, _ = script[name]
        return seconds + max((until(need) for need in needs), default=0.0)

    return max(until(name) for name in script)


def played(remote: Remote, layout: Layout, script: Script, workers: int) -> float:
    """Converge under virtual time and return how long that takes."""
    shop = Workshop()
    steps = tuple(
        Step(name=name, reason="scripted", check="false", apply="", needs=needs, lock=lock)
        for name, (_, needs, lock) in script.items()
    )
    done: list[object] = []
    thread = threading.Thread(
        target=lambda: done.append(
            converge(remote, steps, layout, Timeline(Silent()), workers=workers, apply=shop.apply)
        )
    )
    thread.start()
    now, ends, finished = 0.0, dict[str, float](), set[str]()
    while len(finished) < len(script):
        for name in _may_begin(script, finished, set(ends), workers):
            ends[name] = now + script[name][0]
        shop.wait_for(set(ends))
        name = min(ends, key=lambda one: ends[one])
        now = ends.pop(name)
        finished.add(name)
        shop.end(name)
    thread.join(30)
    assert done
    return now


def _may_begin(script: Script, finished: set[str], at_work: set[str], workers: int) -> list[str]:
    """Return what an ideal plan begins now, first come first served."""
    chosen: list[str] = []
    held = {script[name][2] for name in at_work} - {None}
    for name, (_, needs, lock) in script.items():
        free = len(at_work) + len(chosen) < workers and lock not in held
        if free and name not in finished | at_work and set(needs) <= finished:
            chosen.append(name)
            held |= {lock} - {None}
    return chosen


@pytest.mark.parametrize("script", [MACHINE, INDEPENDENT], ids=["a machine", "independent"])
def test_it_takes_as_long_as_the_longest_chain(remote: Remote, script: Script) -> None:
    layout = Layout(f"{remote.home}/cloudtrain/x")
    assert played(remote, layout, script, workers=4) <= critical_path(script) * 1.1


def test_one_at_a_time_takes_the_sum(remote: Remote) -> None:
    layout = Layout(f"{remote.home}/cloudtrain/x")
    assert critical_path(MACHINE) == 201
    first = {name: MACHINE[name] for name in ("cloud-init", "base")}
    assert played(remote, layout, first, workers=1) == 28


def test_steps_of_one_lock_take_turns_and_hold_up_nobody(remote: Remote) -> None:
    layout = Layout(f"{remote.home}/cloudtrain/x")
    timeline = Timeline(Silent())
    begun: list[str] = []
    overlap = threading.Lock()

    def apply(remote: Remote, step: Step, layout: Layout) -> Verdict:
        del remote, layout
        assert overlap.acquire(blocking=False)
        begun.append(step.name)
        overlap.release()
        return Verdict("changed", "", "")

    steps = tuple(
        Step(name=name, reason="scripted", check="false", apply="", lock="apt") for name in ONE_LOCK
    )
    converge(remote, steps, layout, timeline, apply=apply)
    assert sorted(begun) == sorted(ONE_LOCK)
