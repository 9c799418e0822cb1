"""The steps as Fabric tasks: `fab -H host STEP`, over our verified connection.

    fab --search-root "$(cloudtrain fab-path)" -H helmets torch
    fab --search-root "$(cloudtrain fab-path)" -H 203.0.113.7 --list

or, in a fabfile.py of your own: `from cloudtrain.bootstrap.fabfile import namespace`.
The host is a run's name, its `name-id`, or its machine's last known address; a host
that is none of these is refused before anything is sent. The steps are those of the
configuration that `up` last applied. Run-time flags of `fab` that concern its own
connection (`-i`, `--ssh-config`, `--prompt-for-…`) change nothing here.
"""

from __future__ import annotations

import sys

from cloudtrain.bootstrap.engine import converge
from cloudtrain.bootstrap.steps import NAMES, steps
from cloudtrain.config import from_dict
from cloudtrain.errors import StepError, UsageError
from cloudtrain.events import Silent, Timeline
from cloudtrain.facts import gather
from cloudtrain.journal.folder import RunFolder, all_runs
from cloudtrain.models.config import Config
from cloudtrain.models.machine import SshTarget
from cloudtrain.models.run import Layout
from cloudtrain.models.training import StepReport
from cloudtrain.ssh.fabtasks import Body, collection
from cloudtrain.ssh.remote import Remote


def run_of(host: str) -> RunFolder:
    """Return the open run that `host` names. Raises `UsageError` when none or several do.

    Reads the run folders only; nothing is asked of any network.
    """
    found: list[RunFolder] = []
    for folder in all_runs():
        record = folder.record()
        if record.ended is None and host in (record.name, folder.path.name, record.address):
            found.append(folder)
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"`{host}` is no machine of an open run: nothing was sent to it",
            hint="name a run as `cloudtrain status` shows it, or its machine's address",
        )
    names = ", ".join(f"`{folder.path.name}`" for folder in found)
    raise UsageError(f"`{host}` fits several runs", hint=f"name one in full: {names}")


def _target(host: str) -> SshTarget:
    return run_of(host).target()


def _config(folder: RunFolder) -> Config:
    saved = folder.load_config()
    if saved is None:
        raise UsageError(
            f"run `{folder.path.name}` has applied no configuration yet",
            hint="run `cloudtrain up` first",
        )
    return from_dict(saved)


def _converge(host: str, remote: Remote, *, only: str | None, dry_run: bool) -> None:
    folder = run_of(host)
    found = gather(remote)
    layout = Layout(f"{found.home}/cloudtrain/{folder.path.name}")
    chosen = steps(_config(folder), found, layout)
    if only is not None and only not in {step.name for step in chosen}:
        _say(StepReport(only, "satisfied", 0.0, "this machine has no use for it"))
        return
    timeline = Timeline(Silent())
    reports = converge(remote, chosen, layout, timeline, only=only, dry_run=dry_run)
    for report in reports:
        _say(report)
    refused = [report.name for report in reports if report.outcome == "refused"]
    if refused:
        raise StepError(f"needs root, which we are not: {', '.join(refused)}")


def _say(report: StepReport) -> None:
    detail = f"  {report.detail}" if report.detail else ""
    sys.stdout.write(f"{report.name:<14}{report.outcome:<11}{report.seconds:6.1f} s{detail}\n")


def _step(name: str) -> Body:
    return lambda host, remote: _converge(host, remote, only=name, dry_run=False)


def _all(host: str, remote: Remote) -> None:
    _converge(host, remote, only=None, dry_run=False)


def _pending(host: str, remote: Remote) -> None:
    _converge(host, remote, only=None, dry_run=True)


namespace = collection(
    (
        *((name, f"Make step `{name}` hold, and what it needs.", _step(name)) for name in NAMES),
        ("converge", "Make every step hold.", _all),
        ("pending", "Show what would be done, and why; change nothing.", _pending),
    ),
    _target,
)
