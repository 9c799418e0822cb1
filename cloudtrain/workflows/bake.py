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

from cloudtrain import bootstrap, facts
from cloudtrain.catalog import recipe
from cloudtrain.config import dump, from_dict
from cloudtrain.errors import RefusedError, UsageError
from cloudtrain.events import Note, Waterfall
from cloudtrain.journal.folder import RunFolder, create, open_runs
from cloudtrain.models.config import Config, Dataset, Project
from cloudtrain.models.image import BakedImage
from cloudtrain.models.plan import Observation
from cloudtrain.models.run import Layout
from cloudtrain.models.tags import run_tags
from cloudtrain.models.training import StepReport
from cloudtrain.provision.apply import apply_up, target_of
from cloudtrain.provision.hostkey import secure_host_key
from cloudtrain.provision.launch import Applying
from cloudtrain.provision.look import observe_settled
from cloudtrain.provision.plan import Wanted, plan_up
from cloudtrain.ssh.remote import Remote, connect_when_ready
from cloudtrain.workflows.context import Context, telling_what_runs, timed, with_way_in
from cloudtrain.workflows.converged import converged
from cloudtrain.workflows.imaging import Job, clean, end, finished, imaged, last_point

LEASE_H = 3.0
"""Hours that a bake's machine may live at most."""
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
    job = Job(replace(context, config=config), provider, recipe.digest(config), sleep)
    folder = _unfinished(job)
    if folder is None or not imaged(folder):
        folder, steps = _made(job, folder)
    else:
        steps = ()
    telling = telling_what_runs(folder, context.reporter, context.provider)
    with telling, timed(folder, "bake", context.timeline):
        image, cost = finished(job, folder)
    return Bake(image, steps, cost, context.timeline.waterfall())


def to_bake(config: Config) -> Config:
    """Return the configuration that a bake launches: no code, no data, no training."""
    if config.provider == "ssh":
        raise UsageError(
            "a host of your own is not baked: what was installed there stays",
            hint="`cloudtrain bake --provider aws` makes an image on EC2",
        )
    instance = replace(config.instance, image=recipe.base_of(config), market="on-demand")
    limits = replace(
        config.lease,
        hours=min(config.lease.hours or LEASE_H, LEASE_H),
        idle_minutes=None,
        after_training="terminate",
    )
    return replace(
        config,
        name=f"{config.name}-bake",
        instance=instance,
        lease=limits,
        project=Project(path=config.project.path),
        dataset=Dataset(),
    )


def _unfinished(job: Job) -> RunFolder | None:
    """Return an interrupted bake that can go on; one that cannot is ended first."""
    found = open_runs(project=job.place)
    if not found:
        return None
    folder = found[-1]
    stored = folder.load_config()
    same = stored is not None and recipe.digest(from_dict(stored)) == job.digest
    here = folder.record().provider == job.provider.name
    half = last_point(folder) == "cleaning"  # nobody gets in any more, nor knows how clean it is
    if same and here and not half:
        return with_way_in(folder, job.context.config, job.context.provider, job.context.reporter)
    if not here:
        raise UsageError(
            f"an unfinished bake is open with provider `{folder.record().provider}`",
            hint=f"`cloudtrain down --name {folder.path.name}` ends it",
        )
    job.context.reporter.emit(Note(f"the unfinished bake {folder.path.name} cannot go on: it is ended"))
    end(job, folder)
    return None


def _made(job: Job, folder: RunFolder | None) -> tuple[RunFolder, tuple[StepReport, ...]]:
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
            steps = _converge(job, folder, remote)
            clean(job, folder, remote)
    return folder, steps


def _converge(job: Job, folder: RunFolder, remote: Remote) -> tuple[StepReport, ...]:
    context = job.context
    with context.timeline.stage("facts") as stage:
        found = facts.gather(remote)
        stage.outcome = f"{found.os_id} {found.os_version}, {len(found.gpus)} GPU"
    if not found.privileged:
        end(job, folder)
        raise RefusedError(
            "cleaning a machine for an image needs root, which we are not there; it was ended",
            hint="rehearse a bake with `CLOUDTRAIN_SANDBOX_MACHINES=nspawn`, which needs root on Linux",
        )
    layout = Layout(f"{found.home}/.cloudtrain/baked")
    names = set(recipe.recipe().bake)
    if not _send_requirements(job, remote, layout):
        names.discard("requirements")
    if context.config.docker.dockerfile:
        names.discard("image")
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


def _send_requirements(job: Job, remote: Remote, layout: Layout) -> bool:
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
