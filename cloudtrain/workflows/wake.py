"""Starting a parked machine: asked under the run's lock, and waited for where there is no capacity."""

from __future__ import annotations

from cloudtrain.errors import CapacityError
from cloudtrain.events import Reporter
from cloudtrain.journal.folder import RunFolder
from cloudtrain.providers.base import Provider
from cloudtrain.provision.plan import storage_hour
from cloudtrain.provision.wait import Patience, patiently
from cloudtrain.workflows.context import check_open


def wake(
    folder: RunFolder, provider: Provider, machine_id: str, patience: Patience, reporter: Reporter
) -> None:
    """Start a parked machine; while there is no room for it, keep asking as long as `patience` says.

    Raises `CapacityError` with the price of waiting when there still is none, and
    `GoneError` when another command ended the run meanwhile.
    """
    patiently(lambda: _ask(folder, provider, machine_id), patience, reporter)


def _ask(folder: RunFolder, provider: Provider, machine_id: str) -> None:
    with folder.changing():
        check_open(folder)
        folder.journal.append("starting", machine=machine_id)
        try:
            provider.start(machine_id)
        except CapacityError as error:
            record = folder.record()
            price = storage_hour(record.volume_gb)
            raise CapacityError(
                f"there is no capacity for {machine_id} now: {error.message}; meanwhile its disk costs {price:.4f} {record.currency} an hour",
                hint="`cloudtrain start --wait-for-capacity HOURS` keeps asking; "
                "`cloudtrain down --discard` gives its disk up",
                code=error.code,
            ) from error
        folder.journal.append("start", machine=machine_id)
