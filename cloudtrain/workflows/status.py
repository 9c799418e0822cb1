"""How it goes: the machine as the cloud sees it, the training as its files tell it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cloudtrain.errors import CloudtrainError, ConnectError, HostKeyMismatch
from cloudtrain.journal.folder import RunFolder, RunRecord
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Observation, Receipt
from cloudtrain.models.training import TrainingStatus
from cloudtrain.providers.base import Provider


@dataclass(frozen=True, slots=True)
class RunStatus:
    """Everything `status` shows. What could not be asked is None and named in `missing`."""

    run: str
    record: RunRecord
    machine: Machine | None
    training: TrainingStatus | None
    receipt: Receipt | None
    missing: tuple[str, ...]


def status(folder: RunFolder, config: Config, provider: Callable[[], Provider]) -> RunStatus:
    """Ask cloud and machine at the same time; neither waits for, or fails with, the other."""
    from cloudtrain.provision.end import receipt

    with ThreadPoolExecutor(2, thread_name_prefix="status") as pool:
        cloud = pool.submit(lambda: provider().observe(folder.run()))
        session = pool.submit(training_status, folder, config)
        missing: list[str] = []
        observed = None
        try:
            observed = cloud.result()
        except CloudtrainError as error:
            missing.append(f"the cloud was not reached: {error.message}")
        found = None
        try:
            found = session.result()
        except HostKeyMismatch:
            if not _elsewhere(observed):
                raise
        except ConnectError as error:
            if not _elsewhere(observed):
                missing.append(f"the machine was not reached: {error.message}")
    machines = [machine for machine in observed.machines if machine.alive] if observed else []
    machines = machines or (list(observed.machines) if observed else [])
    return RunStatus(
        run=folder.path.name,
        record=folder.record(),
        machine=machines[-1] if machines else None,
        training=found,
        receipt=receipt(folder, observed) if observed else None,
        missing=tuple(missing),
    )


def _elsewhere(observed: Observation | None) -> bool:
    """Whether the address that was last seen can belong to somebody else by now."""
    return observed is not None and all(m.state not in ("running", "pending") for m in observed.machines)


def training_status(folder: RunFolder, config: Config) -> TrainingStatus | None:
    """Ask the machine alone; None when it has no session, or never was reached."""
    from cloudtrain import training
    from cloudtrain.workflows.context import connect_run, layout_on

    record = folder.record()
    if record.address is None:
        return None
    if record.parked and not (folder.refind is not None and folder.refind()):
        return None
    with connect_run(folder) as remote:
        return training.status(remote, layout_on(remote, folder), config)
