"""`sweep status`: how a search for hyperparameters stands."""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain import training
from cloudtrain.errors import UsageError
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.sweeping import SweepStatus
from cloudtrain.models.training import Session
from cloudtrain.training.sweeping import sweep_status
from cloudtrain.workflows.context import connect_run, layout_on


@dataclass(frozen=True, slots=True)
class Swept:
    """A session, and the search that it is."""

    run: str
    session: Session
    sweep: SweepStatus


def status(folder: RunFolder) -> Swept:
    """Ask the machine. Raises `UsageError` when the newest session is no search."""
    with connect_run(folder) as remote:
        layout = layout_on(remote, folder)
        found = training.sessions(remote, layout)
        known = sweep_status(remote, layout, found[-1].number) if found else None
    if known is None:
        raise UsageError(
            "the newest session is no search for hyperparameters",
            hint="`sweep: {trials: 40}` in cloudtrain.yaml makes `cloudtrain train` one",
        )
    return Swept(folder.path.name, found[-1], known)
