"""`adopt`: a run that another computer started, taken over by its tags.

The machine is trusted by the public host key in its tag, which only somebody with the
right to tag it can have written; our own key is let in by EC2 Instance Connect for a
minute, in which it is put beside the others.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloudtrain import training
from cloudtrain.errors import GoneError, RefusedError, UsageError
from cloudtrain.events import Reporter, Timeline
from cloudtrain.journal.folder import RunFolder, create, open_runs
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Found
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import DEADLINE, HOST_KEY, PRICE, USER, read_price
from cloudtrain.models.training import Session
from cloudtrain.providers.base import Provider
from cloudtrain.provision.apply import ensure_user_key
from cloudtrain.ssh import keys
from cloudtrain.ssh.remote import Remote, connect_when_ready
from cloudtrain.workflows.context import layout_on

_AUTHORIZE = """\
set -eu
umask 077
mkdir -p ~/.ssh
touch ~/.ssh/authorized_keys
grep -qxF -- "$1" ~/.ssh/authorized_keys || printf '\\n%s\\n' "$1" >>~/.ssh/authorized_keys
"""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A run that this computer knows now."""

    run: str
    machine: str
    address: str
    session: Session | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopting:
    """What `adopt` is given. `start` starts a machine that is stopped, which costs money."""

    provider: Provider
    config: Config
    project: Path
    reporter: Reporter
    timeline: Timeline
    start: bool = False


def adopt(adopting: Adopting, name: str) -> Adopted:
    """Find the run `name` of the same owner, get in, and remember it here.

    Raises `UsageError` when none or several fit, `RefusedError` for one whose machine is
    stopped, `CloudError` saying what is needed where no key can be pushed, and
    `HostKeyMismatch` when another machine answers. Nothing is kept of what failed.
    """
    provider = adopting.provider
    with adopting.timeline.stage("look", f"for run {name}"):
        identity = provider.identity()
        ref = _named(provider.everything(identity.owner), name, identity.owner)
        machine = _machine(adopting, ref)
        tags = provider.tags_of(machine.id)
    if HOST_KEY not in tags:
        raise RefusedError(
            f"{machine.id} carries no host key as a tag: nobody can tell that it is the right machine",
            hint="copy the run's folder from the computer that launched it",
        )
    folder = create(
        name=ref.name,
        owner=ref.owner,
        account=identity.account or None,
        profile=adopting.config.profile,
        provider=provider.name,
        region=identity.region,
        project=adopting.project,
        run_id=ref.id,
    )
    try:
        return _take_over(adopting, folder, machine, tags)
    except BaseException:
        folder.forget()
        raise


def _take_over(adopting: Adopting, folder: RunFolder, machine: Machine, tags: dict[str, str]) -> Adopted:
    provider = adopting.provider
    user = tags.get(USER) or provider.ssh_user or "ubuntu"
    pair = ensure_user_key(folder)
    keys.pin(folder.known_hosts, folder.path.name, (tags[HOST_KEY],))
    address = provider.caller_address(adopting.config)
    provider.repair_ingress(folder.run(), address)
    price, currency, volume = read_price(tags.get(PRICE, ""))
    folder.update(
        machine=machine.id,
        address=machine.address,
        port=provider.ssh_port,
        user=user,
        ingress=address,
        tagged_key=tags[HOST_KEY],
        price_hour=price,
        currency=currency,
        volume_gb=volume,
        deadline=_deadline(tags.get(DEADLINE, "")),
    )
    with adopting.timeline.stage("connect", machine.address or "") as stage:
        provider.push_key(machine.id, machine.zone, user, pair.public)
        with connect_when_ready(folder.target(), deadline_s=50) as remote:
            stage.outcome = "host key verified"
            remote.script(_AUTHORIZE, pair.public)
            session = _remember(remote, folder, machine)
    return Adopted(folder.path.name, machine.id, machine.address or "", session)


def _remember(remote: Remote, folder: RunFolder, machine: Machine) -> Session | None:
    """Write down what this computer would know had it launched the machine itself."""
    layout = layout_on(remote, folder)
    stored = remote.run(f"cat {shlex.quote(layout.root)}/config.json", check=False)
    if stored.ok:
        folder.save_config(json.loads(stored.stdout))
    folder.journal.append("launched", machine=machine.id, token="", adopted=True)
    found = training.sessions(remote, layout)
    for session in found:
        folder.journal.append("session", number=session.number)
    return found[-1] if found else None


def _named(everything: tuple[Found, ...], name: str, owner: str) -> RunRef:
    mine = {one.run for one in everything if one.mine and one.kind == "instance"}
    fit = sorted(run for run in mine if name in (run, run.rpartition("-")[0]))
    if len(fit) > 1:
        raise UsageError(
            f"several runs fit: {', '.join(fit)}", hint=f"`cloudtrain adopt {fit[-1]}` names one"
        )
    if not fit:
        others = f"; yours here: {', '.join(sorted(mine))}" if mine else ""
        raise UsageError(
            f"no machine of yours in this region belongs to a run `{name}`{others}",
            hint="`cloudtrain audit` shows every region",
        )
    plain, _, run_id = fit[0].rpartition("-")
    known = [folder for folder in open_runs() if folder.path.name == fit[0]]
    if known:
        raise RefusedError(
            f"run `{fit[0]}` is known on this computer already",
            hint=f"`cloudtrain status --name {fit[0]}` shows it",
        )
    return RunRef(plain, run_id, owner)


def _machine(adopting: Adopting, ref: RunRef) -> Machine:
    alive = [machine for machine in adopting.provider.observe(ref).machines if machine.alive]
    if not alive:
        raise GoneError(
            f"run `{ref.slug}` has no machine any more", hint="`cloudtrain audit` shows what is left"
        )
    machine = alive[-1]
    if machine.state in ("stopped", "stopping"):
        if not adopting.start:
            raise RefusedError(
                f"{machine.id} is {machine.state}, and a key can be pushed to a running machine only",
                hint="`cloudtrain adopt --start` starts it first, which costs its hourly price",
            )
        adopting.provider.start(machine.id)
    return adopting.provider.wait_running(machine.id, 600)


def _deadline(value: str) -> str | None:
    return datetime.fromtimestamp(int(value), UTC).isoformat() if value.isdigit() else None
