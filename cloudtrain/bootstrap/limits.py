"""What a machine cannot do, said before anybody relies on it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cloudtrain.models.machine import Facts
from cloudtrain.models.training import StepReport


def limits(facts: Facts) -> tuple[str, ...]:
    """Return a sentence for each thing that a machine of ours would have, and this one has not."""
    found = ["a reboot there starts nothing of ours again; `cloudtrain train` goes on"]
    if not facts.screen:
        found.append(
            "no screen: the training is detached with a log of its own; "
            "`cloudtrain attach` shows that log and cannot type into it"
        )
    if not facts.rsync:
        found.append("no rsync: files go as one stream, and a push that broke goes on with that piece")
    return tuple(found)


def refusals(reports: Iterable[StepReport]) -> tuple[str, ...]:
    """Return, for each step that root alone may do, what the machine's owner is to run."""
    return tuple(
        f"step `{report.name}` needs root, which we are not there; its owner runs: {report.detail}"
        for report in reports
        if report.outcome == "refused"
    )
