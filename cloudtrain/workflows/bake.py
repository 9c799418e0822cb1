"""`bake`: an image of a machine whose steps hold, so that the next machine's hold from the start.

A bake is a run of its own, known by its folder like any other: what it launches carries its
tags, and whatever interrupts it, the same command goes on or begins anew after ending what
was left. Its machine ends itself at the end of its lease, and half an hour after cleaning.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cloudtrain import bootstrap, facts
from cloudtrain.catalog import recipe
from cloudtrain.config import dump, from_dict
from cloudtrain.errors import CloudError, RefusedError, UsageError
from cloudtrain.events import Note, Waterfall
from cloudtrain.journal.folder import RunFolder, create, open_runs
from cloudtrain.models.config import Config, Dataset, Project
from cloudtrain.models.image import BakedImage
from cloudtrain.models.plan import Observation
from cloudtrain.models.run import Layout
from cloudtrain.models.tags import RECIPE, USER, run_tags
from cloudtrain.models.training import StepReport
from cloudtrain.providers.base import Provider
from cloudtrain.provision.apply import apply_up, target_of
from cloudtrain.provision.end import find_everything, prove_nothing_left, receipt, terminate_all
from cloudtrain.provision.hostkey import secure_host_key
from cloudtrain.provision.launch import Applying
from cloudtrain.provision.look import observe_settled
from cloudtrain.provision.plan import Wanted, plan_up
from cloudtrain.render import render
from cloudtrain.ssh.remote import Remote, connect_when_ready
from cloudtrain.workflows.context import Context, telling_what_runs, with_way_in
from cloudtrain.workflows.converged import converged
from cloudtrain.workflows.park import Parking, wait_stopped

LEASE_H = 3.0
"""Hours that a bake's machine may live at most."""
IMAGE_S = 3600.0
"""How long AWS may take for an image; some 10 minutes for a disk of 60 GB."""
NOTHING = Observation((), None, None)
_LOCAL = ("-", ".", "/", "file:")


@dataclass(frozen=True, slots=True)
class Bake:
    """What was baked. `steps` is empty where an interrupted bake had only the image to wait for."""

    image: BakedImage
    steps: tuple[StepReport, ...]
    cost: float | None
    waterfall: Waterfall


def bake(context: Context, *, sleep: Callable[[float], None] = time.sleep) -> Bake:
    """Launch, converge what the recipe bakes, clean, make the image, end the machine.

    Raises `UsageError` for hosts of the user's own, `StepError`, `CloudError`, and
    `RefusedError` when something private is still on the disk after cleaning.
    """
    config = to_bake(context.config)
    provider = context.provider()
    job = _Job(replace(context, config=config), provider, recipe.digest(config), sleep)
    folder = _unfinished(job)
    if folder is None or not _imaged(folder):
        folder, steps = _made(job, folder)
    else:
        steps = ()
    with telling_what_runs(folder, context.reporter, context.provider):
        return _finished(job, folder, steps)


def to_bake(config: Config) -> Config:
    """Return the configuration that a bake launches: no code, no data, no training."""
    if config.provider == "ssh":
        raise UsageError(
            "a host of your own is not baked: what was installed there stays",
            hint="`cloudtrain bake --provider aws` makes an image on EC2",
        )
    instance = replace(config.instance, image=recipe.base_of(config), market="on-demand")
    limits = replace(
        config.lease, hours=min(config.lease.hours, LEASE_H), idle_minutes=None, after_training="terminate"
    )
    return replace(
        config,
        name=f"{config.name}-bake",
        instance=instance,
        lease=limits,
        project=Project(path=config.project.path),
        dataset=Dataset(),
    )


@dataclass(frozen=True, slots=True)
class _Job:
    context: Context
    provider: Provider
    digest: str
    sleep: Callable[[float], None]

    @property
    def place(self) -> Path:
        """What the run folder says it belongs to: no folder of a project, or `up` would take it up."""
        return self.context.base / ".cloudtrain-bake"


def _unfinished(job: _Job) -> RunFolder | None:
    """Return an interrupted bake that can go on; one that cannot is ended first."""
    found = open_runs(project=job.place)
    if not found:
        return None
    folder = found[-1]
    stored = folder.load_config()
    same = stored is not None and recipe.digest(from_dict(stored)) == job.digest
    here = folder.record().provider == job.provider.name
    half = _last(folder) == "cleaning"  # nobody gets in any more, nor knows how clean it is
    if same and here and not half:
        return with_way_in(folder, job.context.config, job.context.provider, job.context.reporter)
    if not here:
        raise UsageError(
            f"an unfinished bake is open with provider `{folder.record().provider}`",
            hint=f"`cloudtrain down --name {folder.path.name}` ends it",
        )
    job.context.reporter.emit(Note(f"the unfinished bake {folder.path.name} cannot go on: it is ended"))
    _end(job, folder)
    return None


_POINTS = ("cleaning", "cleaned", "imaging", "image")


def _last(folder: RunFolder) -> str:
    """Return the last point that a bake is known to have reached."""
    return next((str(row["event"]) for row in reversed(folder.journal.rows()) if row["event"] in _POINTS), "")


def _imaged(folder: RunFolder) -> bool:
    return _last(folder) in ("cleaned", "imaging", "image")


def _made(job: _Job, folder: RunFolder | None) -> tuple[RunFolder, tuple[StepReport, ...]]:
    """Launch, converge and clean; the machine is still running then."""
    context, provider = job.context, job.provider
    with context.timeline.stage("plan") as stage:
        identity = provider.identity()
        survey = provider.survey(context.config)
        observed = observe_settled(folder, provider) if folder else NOTHING
        plan = plan_up(
            Wanted(
                config=context.config,
                survey=survey,
                observed=observed,
                dataset_bytes=0,
                now=datetime.now(UTC),
            )
        )
        stage.outcome = f"{len(plan.actions)} changes"
    if not plan.empty:
        context.show_plan(plan)
        if not context.confirm("Go ahead?"):
            raise UsageError("nothing was created")
    if folder is None:
        folder = create(
            name=context.config.name,
            owner=identity.owner,
            provider=provider.name,
            region=identity.region,
            project=job.place,
        )
        folder.save_config(dump(context.config))
        folder.update(bake=True)
        folder = with_way_in(folder, context.config, context.provider, context.reporter)
    applying = Applying(
        provider=provider,
        folder=folder,
        config=context.config,
        survey=survey,
        timeline=context.timeline,
        run_tags=run_tags(folder.run()),
        known=frozenset(machine.id for machine in observed.machines),
    )
    with telling_what_runs(folder, context.reporter, context.provider), folder.settling():
        machine = apply_up(plan, applying, observed)
        target = target_of(machine, applying)
        with context.timeline.stage("connect", f"{target.address}") as stage:
            remote = connect_when_ready(target)
            stage.outcome = "host key verified"
        with remote:
            secure_host_key(remote, folder, provider, context.timeline)
            steps = _converge(job, remote)
            _clean(job, folder, remote)
    return folder, steps


def _converge(job: _Job, remote: Remote) -> tuple[StepReport, ...]:
    context = job.context
    with context.timeline.stage("facts") as stage:
        found = facts.gather(remote)
        stage.outcome = f"{found.os_id} {found.os_version}, {len(found.gpus)} GPU"
    layout = Layout(f"{found.home}/.cloudtrain/baked")
    names = set(recipe.recipe().bake)
    if not _send_requirements(job, remote, layout):
        names.discard("requirements")
    # What is not baked is not done either, but for what the others wait for.
    names |= {"cloud-init", "apt-mirror"}
    ready = threading.Event()
    ready.set()
    return converged(
        remote,
        lambda seen: tuple(
            step for step in bootstrap.steps(context.config, seen, layout) if step.name in names
        ),
        found,
        layout,
        context.timeline,
        ready=ready,
        drained=lambda: None,
        ours=True,
    )


def _send_requirements(job: _Job, remote: Remote, layout: Layout) -> bool:
    """Send the requirements file alone; False where there is none, or it needs what lies beside it."""
    named = job.context.config.environment.requirements
    path = job.context.base / job.context.config.project.path / (named or "requirements.txt")
    if named is None or not path.is_file():
        return False
    text = path.read_bytes()
    if any(line.strip().startswith(_LOCAL) for line in text.decode(errors="replace").splitlines()):
        job.context.reporter.emit(Note(f"`{named}` names other files: it is left to `up`"))
        return False
    remote.put(text, f"{layout.project}/{named}")
    return True


def _clean(job: _Job, folder: RunFolder, remote: Remote) -> None:
    """Take from the disk what is of this machine and of this user. Raises `RefusedError`."""
    script = cleaning(remote.home, secrets_of(job.context.config))
    with job.context.timeline.stage("clean", "keys, histories, caches, lists") as stage:
        folder.journal.append("cleaning")
        done = remote.script(_as_root(script), timeout=600, check=False)
        if done.code != 0:
            raise RefusedError(
                f"no image is made: cleaning the machine failed\n{done.stdout.strip()[-2000:]}",
                hint="`cloudtrain bake` again begins on a new machine",
            )
        folder.journal.append("cleaned")
        stage.outcome = "no key, host key, history or secret is left"


def cleaning(home: str, secrets: tuple[str, ...]) -> str:
    """Render what cleans a machine, and then looks for what must not be there."""
    return render("bake-clean.sh.j2", home=home, secrets=secrets)


def secrets_of(config: Config) -> tuple[str, ...]:
    """Return the passwords in the configured addresses, as they are written and as they are meant."""
    mirrors = config.mirrors
    addresses = (
        mirrors.package_index, mirrors.torch_index, mirrors.conda_installer, mirrors.conda_channel, mirrors.apt,
    )  # fmt: skip
    found = [urlsplit(one).password for one in addresses if one]
    return tuple(dict.fromkeys(word for one in found if one for word in (one, unquote(one))))


def _as_root(script: str) -> str:
    end = "CLOUDTRAIN_CLEAN_ENDS_HERE"
    return f"sudo -n bash -s <<'{end}'\n{script}\n{end}\n"


def _finished(job: _Job, folder: RunFolder, steps: tuple[StepReport, ...]) -> Bake:
    """Stop the machine, make the image, wait for it, end the machine."""
    context = job.context
    machine = folder.record().machine
    name = f"cloudtrain-{folder.path.name}-{job.digest}"
    with context.timeline.stage("image", name) as stage:
        image = _image_id(folder)
        if image is None:
            image = _imaging(job, folder, machine or "", name)
        made = _wait_image(job, folder, image)
        stage.outcome = image
    cost = _end(job, folder)
    return Bake(made, steps, cost, context.timeline.waterfall())


def _image_id(folder: RunFolder) -> str | None:
    row = folder.journal.last("image")
    return str(row["image"]) if row else None


def _imaging(job: _Job, folder: RunFolder, machine: str, name: str) -> str:
    context, provider = job.context, job.provider
    observed = provider.observe(folder.run())
    state = next((one.state for one in observed.machines if one.id == machine), "terminated")
    if state not in ("running", "stopping", "stopped"):
        made = [one for one in provider.images(folder.run().owner) if one.id and one.run == folder.path.name]
        if made:  # the answer was lost, and the machine ended itself meanwhile
            folder.journal.append("image", image=made[0].id)
            return made[0].id
        _end(job, folder)
        raise CloudError(
            f"the machine of this bake is {state}: it ended before its image was made",
            hint="`cloudtrain bake` begins anew; nothing is left of this one",
        )
    with folder.changing():
        with context.timeline.stage("stop", machine):
            provider.stop(machine)
            wait_stopped(Parking(folder, provider, context.reporter, context.timeline), machine, job.sleep)
        record = folder.record()
        tags = {**run_tags(folder.run()), RECIPE: job.digest, USER: record.user}
        folder.journal.append("imaging", name=name)
        image = provider.create_image(machine, name, tags)
        folder.journal.append("image", image=image)
    return image


def _wait_image(job: _Job, folder: RunFolder, image: str) -> BakedImage:
    """Return the image once it is available. Raises `CloudError` when it never is."""
    pause, waited = 0.2, 0.0
    while waited < IMAGE_S:
        found = next((one for one in job.provider.images(folder.run().owner) if one.id == image), None)
        if found is not None and found.state == "available":
            return found
        if found is not None and found.state not in ("pending", "available"):
            _end(job, folder)
            raise CloudError(
                f"image {image} is {found.state}",
                hint="`cloudtrain images --prune` removes it, `cloudtrain bake` makes another",
            )
        job.sleep(pause)
        waited, pause = waited + pause, min(pause * 1.4, 10.0)
    raise CloudError(
        f"image {image} is not available after {IMAGE_S / 60:.0f} minutes",
        hint="`cloudtrain bake` again goes on waiting",
    )


def _end(job: _Job, folder: RunFolder) -> float | None:
    """End the bake's machine and way in, and prove it; images stay. Returns what it cost."""
    provider = job.provider
    observed = find_everything(folder, provider)
    spent = receipt(folder, observed)
    with folder.changing():
        terminate_all(observed, folder, provider, job.context.timeline)
        with job.context.timeline.stage("verify", "nothing but the image is left") as stage:
            prove_nothing_left(folder, provider)
            stage.outcome = "0 left"
        folder.journal.append("ended")
        folder.update(ended=datetime.now(UTC).isoformat(), cost=spent.cost, address=None)
        folder.forget_keys()
    return spent.cost
