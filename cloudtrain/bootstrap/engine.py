"""Brings a machine to where its steps hold: check, apply what is missing, check again.

All checks are one round trip. What is missing is applied side by side in the order of
`needs`, over the one connection; a failed step stops only what depends on it. The
engine knows nothing of what any step does, and takes no decision about a reboot.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from cloudtrain.bootstrap.limits import refusals
from cloudtrain.bootstrap.scripts import (
    REBOOT_NEEDED,
    Checked,
    Verdict,
    log_path,
    owner_commands,
    run_apply,
    run_checks,
)
from cloudtrain.bootstrap.step import Step
from cloudtrain.errors import ConnectError, DidNotConverge, StepError, UsageError
from cloudtrain.events import Note, Timeline
from cloudtrain.models.run import Layout
from cloudtrain.models.training import StepReport
from cloudtrain.ssh.remote import Remote

NOTICED_S = 0.05
"""A shorter wait for a lock is none."""
Apply = Callable[[Remote, Step, Layout], Verdict]
GOES_ON = "correct the cause and run `cloudtrain up` again: it continues there"


def converge(
    remote: Remote,
    steps: tuple[Step, ...],
    layout: Layout,
    timeline: Timeline,
    *,
    dry_run: bool = False,
    only: str | None = None,
    workers: int = 4,
    project_ready: threading.Event | None = None,
    apply: Apply = run_apply,
) -> tuple[StepReport, ...]:
    """Make every step hold, and report each in the order given.

    `only` keeps one step and what it needs. `dry_run` applies nothing and reports what
    is pending and why. `workers` bounds how many applies run at once. Steps with
    `waits_for_project` are held back until `project_ready` is set; without an event the
    project counts as there. `apply` runs one step. **The caller must set the event also when its push failed.**

    Raises `StepError` once everything independent has finished: for a step that failed
    (`DidNotConverge` when its check still fails after its apply), and for a refused one
    that is `required`. Raises `ConnectError` when the line broke: the machine finishes
    what it had begun, and the next call waits for that. A step that needs a reboot is
    `changed` with the detail `REBOOT_NEEDED`, and what depends on it is `skipped`.
    """
    chosen = select(steps, only)
    early = tuple(s for s in chosen if _checkable(s, project_ready) or dry_run)
    with timeline.stage("check steps") as stage:
        checked = run_checks(remote, early)
        missing = [s.name for s in chosen if s.name not in checked or not checked[s.name].ok]
        stage.outcome = f"{len(chosen) - len(missing)} of {len(chosen)} hold"
    if dry_run:
        return tuple(_planned(step, checked[step.name]) for step in chosen)
    work = _Work(remote, chosen, layout, timeline, checked, project_ready, workers, apply)
    return work.run()


def select(steps: tuple[Step, ...], only: str | None) -> tuple[Step, ...]:
    """Return all steps, or `only` and everything it needs. Raises `UsageError` for no such step."""
    if only is None:
        return steps
    if only not in {step.name for step in steps}:
        names = ", ".join(step.name for step in steps)
        raise UsageError(f"this machine has no step `{only}`", hint=f"its steps are: {names}")
    wanted = {only, *_ancestors(steps)[only]}
    return tuple(step for step in steps if step.name in wanted)


def _checkable(step: Step, ready: threading.Event | None) -> bool:
    return not step.waits_for_project or ready is None or ready.is_set()


def _planned(step: Step, checked: Checked) -> StepReport:
    if checked.ok:
        return StepReport(step.name, "satisfied", 0.0)
    why = step.reason + (f" ({checked.said})" if checked.said else "")
    by_hand = (f"; as root: {step.by_hand}" if step.by_hand else "; needs root") if step.root else ""
    return StepReport(step.name, "pending", 0.0, why + by_hand)


def _ancestors(steps: tuple[Step, ...]) -> dict[str, set[str]]:
    needs = {step.name: step.needs for step in steps}
    found: dict[str, set[str]] = {}
    for name in TopologicalSorter(needs).static_order():
        direct = set(needs.get(name, ()))
        found[name] = direct.union(*(found[need] for need in direct))
    return found


@dataclass(slots=True)
class _Work:
    """One convergence: its state belongs to the calling thread, workers only answer."""

    remote: Remote
    steps: tuple[Step, ...]
    layout: Layout
    timeline: Timeline
    checked: dict[str, Checked]
    ready: threading.Event | None
    workers: int
    apply: Apply
    reports: dict[str, StepReport] = field(default_factory=dict[str, StepReport])
    errors: dict[str, Exception] = field(default_factory=dict[str, Exception])
    answers: queue.SimpleQueue[tuple[str, StepReport | Exception]] = field(
        default_factory=queue.SimpleQueue[tuple[str, StepReport | Exception]]
    )
    locks: dict[str, threading.Lock] = field(default_factory=dict[str, threading.Lock])
    held: dict[str, str] = field(default_factory=dict[str, str])
    """By lock the step that had it last."""

    def run(self) -> tuple[StepReport, ...]:
        by_name = {step.name: step for step in self.steps}
        ancestors = _ancestors(self.steps)
        graph = TopologicalSorter({s.name: _present(s.needs, by_name) for s in self.steps})
        graph.prepare()
        self.locks.update({s.lock: threading.Lock() for s in self.steps if s.lock})
        slots = threading.BoundedSemaphore(self.workers)
        while graph.is_active():
            for name in graph.get_ready():
                self._begin(by_name[name], ancestors[name], slots)
            name, answer = self.answers.get()
            if isinstance(answer, Exception):
                self.errors[name] = answer
                answer = StepReport(name, "failed", 0.0, str(answer))
            self.reports[name] = answer
            graph.done(name)
        self._raise()
        return tuple(self.reports[step.name] for step in self.steps)

    def _begin(self, step: Step, ancestors: set[str], slots: threading.BoundedSemaphore) -> None:
        """Answer at once for a step that holds or cannot be tried; else start its thread."""
        before = [self.reports[name] for name in ancestors if name in self.reports]
        blocked = next((report for report in before if _blocks(report)), None)
        checked = self.checked.get(step.name)
        if blocked is not None:
            why = blocked.detail.partition("\n")[0]
            detail = f"waits for `{blocked.name}`: {why}"
            self.answers.put((step.name, StepReport(step.name, "skipped", 0.0, detail)))
        elif checked and checked.ok and all(report.outcome != "changed" for report in before):
            self.answers.put((step.name, StepReport(step.name, "satisfied", 0.0)))
        else:
            # A daemon: Ctrl-C must not wait for an installation that the machine ends by itself.
            threading.Thread(target=self._perform, args=(step, slots), daemon=True).start()

    def _perform(self, step: Step, slots: threading.BoundedSemaphore) -> None:
        try:
            if step.waits_for_project and self.ready is not None:
                self.ready.wait()
            begun = self.timeline.clock()
            with self.locks.get(step.lock or "") or threading.Lock(), slots:
                waited = self.timeline.clock() - begun > NOTICED_S
                before = self.held.get(step.lock or "") if waited else None
                if step.lock:
                    self.held[step.lock] = step.name
                answer: StepReport | Exception = self._apply(step, (before,) if before else step.needs)
        except Exception as error:  # noqa: BLE001 - a worker's error is raised by the caller's thread
            answer = error
        self.answers.put((step.name, answer))

    def _apply(self, step: Step, after: tuple[str, ...]) -> StepReport:
        begun = self.timeline.clock()
        with self.timeline.stage(step.name, step.reason, after) as stage:
            verdict = self.apply(self.remote, step, self.layout)
            stage.outcome = verdict.word
            for line in verdict.tail.splitlines() if verdict.word == "changed" else ():
                self.timeline.reporter.emit(Note(f"step `{step.name}`: {line}", level="warning"))
            seconds = self.timeline.clock() - begun
            return _report(step, verdict, self.layout, seconds)

    def _raise(self) -> None:
        for step in self.steps:
            error = self.errors.get(step.name)
            if isinstance(error, ConnectError):
                raise error
        others = [name for name in self.reports if name in self.errors]
        for step in self.steps:
            error = self.errors.get(step.name)
            if error is not None:
                rest = ", ".join(f"`{name}`" for name in others if name != step.name)
                if rest and isinstance(error, StepError):
                    error.hint += f"; failed too: {rest}"
                if isinstance(error, StepError):  # it may have failed for want of what root alone may do
                    error.hint += "".join(f"\n{text}" for text in refusals(self.reports.values()))
                raise error
            report = self.reports[step.name]
            if report.outcome == "refused" and step.required:
                raise StepError(
                    f"step `{step.name}` needs root, which we are not: {report.detail}",
                    hint="have the machine's owner run that, then `cloudtrain up` again",
                )


def _present(needs: Iterable[str], by_name: dict[str, Step]) -> tuple[str, ...]:
    return tuple(need for need in needs if need in by_name)


def _blocks(report: StepReport) -> bool:
    rebooting = report.outcome == "changed" and report.detail == REBOOT_NEEDED
    return rebooting or report.outcome in ("failed", "skipped")


def _report(step: Step, verdict: Verdict, layout: Layout, seconds: float) -> StepReport:
    """Turn a verdict into a report, or into the error that names log, last lines and way on."""
    match verdict.word:
        case "satisfied":
            return StepReport(step.name, "satisfied", seconds)
        case "changed":
            return StepReport(step.name, "changed", seconds, verdict.tail)
        case "reboot":
            return StepReport(step.name, "changed", seconds, REBOOT_NEEDED)
        case "refused":
            return StepReport(step.name, "refused", seconds, owner_commands(step, layout))
        case "unchanged":
            raise DidNotConverge(
                f"step `{step.name}` ran and its check still fails: {verdict.detail or step.reason}"
                f"{_log(step, verdict, layout)}",
                hint=GOES_ON,
            )
        case "failed" | "busy" | "broken":
            raise StepError(
                f"step `{step.name}` {_how(step, verdict)}{_log(step, verdict, layout)}", hint=GOES_ON
            )


def _how(step: Step, verdict: Verdict) -> str:
    if verdict.word == "busy":
        return f"waited {step.timeout_s:.0f} s for another one of its kind on the machine"
    if verdict.word == "broken":
        return f"did not run: {verdict.detail}"
    if verdict.detail in ("124", "137"):
        return f"was ended after {step.timeout_s:.0f} s" if verdict.detail == "124" else "was killed"
    return f"failed (exit {verdict.detail})"


def _log(step: Step, verdict: Verdict, layout: Layout) -> str:
    tail = f", which ends with:\n{verdict.tail}" if verdict.tail else ""
    return f"; its log on the machine is `{log_path(step, layout)}`{tail}"
