"""Converging a machine for as often as it has to reboot in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from cloudtrain import bootstrap, facts
from cloudtrain.errors import ConnectError, StepError
from cloudtrain.events import Timeline
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.models.training import StepReport
from cloudtrain.ssh.remote import Remote

REBOOTS = 3
BACK_S = 600
"""A rented machine with a GPU takes two to four minutes."""
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def converged(
    remote: Remote,
    steps_of: Callable[[Facts], tuple[bootstrap.Step, ...]],
    found: Facts,
    layout: Layout,
    timeline: Timeline,
    *,
    ready: threading.Event,
    drained: Callable[[], None],
    ours: bool,
    only: str | None = None,
) -> tuple[StepReport, ...]:
    """Make every step hold, rebooting the machine where one asks for it, and report each once.

    After a reboot the facts may be others, so the steps are asked for anew. `drained`
    returns when nothing else uses the machine, or raises: neither a push nor a training
    may be cut by our own reboot. A machine that is not `ours` is never rebooted.

    `only` keeps one step and what it needs. Raises what `bootstrap.converge` raises, and `StepError` for a step that still asks
    for a reboot after three of them, or on a machine that is the user's own.
    """
    reports = bootstrap.converge(remote, steps_of(found), layout, timeline, only=only, project_ready=ready)
    for _ in range(REBOOTS):
        waiting = _waiting(reports)
        if not waiting:
            return reports
        if not ours:
            raise StepError(
                f"step `{waiting}` needs a reboot, and this machine is yours",
                hint="reboot it when nobody works on it, then `cloudtrain up` again",
            )
        drained()
        reboot(remote, timeline, waiting)
        again = bootstrap.converge(remote, steps_of(facts.gather(remote)), layout, timeline, only=only)
        reports = _merged(reports, again)
    waiting = _waiting(reports)
    if waiting:
        raise StepError(
            f"step `{waiting}` asks for a reboot again and again",
            hint="its log on the machine may say why: `cloudtrain ssh`",
        )
    return reports


def reboot(remote: Remote, timeline: Timeline, why: str) -> None:
    """Reboot the machine and connect anew. Raises `ConnectError` when it does not come back."""
    with timeline.stage("reboot", f"for `{why}`") as stage:
        before = remote.run(_BOOT_ID).stdout.strip()
        with suppress(ConnectError):  # it may be quicker than its answer
            remote.run("sudo -n systemctl reboot || sudo -n reboot", check=False, timeout=30)
        end = timeline.clock() + BACK_S
        while True:
            remote.reopen(deadline_s=max(1.0, end - timeline.clock()))
            try:
                after = remote.run(_BOOT_ID).stdout.strip()
            except ConnectError:
                after = before  # still on its way down
            if after != before:
                break
            if timeline.clock() > end:
                raise ConnectError("the machine did not reboot", hint="`cloudtrain ssh` shows what keeps it")
            threading.Event().wait(0.2)
        stage.outcome = "connected again"


def _waiting(reports: tuple[StepReport, ...]) -> str | None:
    return next((r.name for r in reports if r.detail == bootstrap.REBOOT_NEEDED), None)


def _merged(before: tuple[StepReport, ...], after: tuple[StepReport, ...]) -> tuple[StepReport, ...]:
    """Report each step once: what was changed before the reboot stays changed."""
    changed = {report.name: report for report in before if report.outcome == "changed"}
    return tuple(_of(changed.get(report.name), report) for report in after)


def _of(before: StepReport | None, after: StepReport) -> StepReport:
    if before is None or after.outcome != "satisfied":
        return after
    said = "" if before.detail == bootstrap.REBOOT_NEEDED else before.detail
    return StepReport(before.name, "changed", before.seconds + after.seconds, said)
