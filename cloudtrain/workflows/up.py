"""`up`: from a folder to a running training, once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cloudtrain import training
from cloudtrain.config import dump, from_dict
from cloudtrain.errors import UsageError
from cloudtrain.events import Note, Waterfall
from cloudtrain.journal.folder import RunFolder, create
from cloudtrain.journal.log import last_session
from cloudtrain.models.machine import Machine
from cloudtrain.models.plan import Observation, Plan, Survey
from cloudtrain.models.tags import run_tags
from cloudtrain.models.training import Session
from cloudtrain.providers.base import Identity, Provider
from cloudtrain.provision.apply import apply_up, target_of
from cloudtrain.provision.hostkey import secure_host_key
from cloudtrain.provision.inside import said_of
from cloudtrain.provision.launch import Applying
from cloudtrain.provision.look import observe_settled
from cloudtrain.provision.plan import Wanted, plan_up
from cloudtrain.provision.wait import Patience, patiently
from cloudtrain.ssh.remote import Remote, connect_when_ready
from cloudtrain.transfer.dataset import DatasetSource
from cloudtrain.transfer.push import differs as differs_there
from cloudtrain.workflows.checks import check_project
from cloudtrain.workflows.context import (
    Context,
    check_account,
    check_open,
    find_run,
    layout_on,
    telling_what_runs,
    timed,
    with_way_in,
)
from cloudtrain.workflows.resume import Copy, best_copy, give_up, place_copy
from cloudtrain.workflows.settle import Settled, settle, start_session

NOTHING = Observation((), None, None)


@dataclass(frozen=True, slots=True)
class Up:
    """What `up` did. `differs` names what changed here since and `train` would apply."""

    run: str
    machine: str
    address: str
    session: Session
    created: bool
    differs: tuple[str, ...]
    waterfall: Waterfall


def up(context: Context) -> Up:
    """Launch what is missing, converge, push and start; the second time change nothing.

    Raises the typed error of whatever stopped it, after saying what still runs.
    """
    source = check_project(context.config, context.base, launches=True)
    folder = find_run(context.base, None)
    _same_run(context, folder)
    provider = context.provider()
    with context.timeline.stage("plan") as stage:
        identity = provider.identity() if folder is None else check_account(folder, provider)
        survey = provider.survey(context.config)
        observed = observe_settled(folder, provider) if folder else NOTHING
        chosen = best_copy(context, folder) if context.resume else None
        plan = _plan(context, survey, _without_parked(observed) if chosen else observed, source)
        stage.outcome = f"{len(plan.actions)} changes"
    if not plan.empty:
        context.show_plan(plan)
        if not context.confirm("Go ahead?"):
            raise UsageError("nothing was created")
    known = frozenset(machine.id for machine in observed.machines)
    if folder is not None and chosen is not None:
        observed = give_up(context, folder, observed, chosen)
    folder = folder or _new_run(context, provider, identity)
    folder = with_way_in(folder, context.config, context.provider, context.reporter)
    with telling_what_runs(folder, context.reporter, context.provider), timed(folder, "up", context.timeline):
        applying = Applying(
            provider=provider,
            folder=folder,
            config=context.config,
            survey=survey,
            timeline=context.timeline,
            run_tags=run_tags(folder.run()),
            known=known,
        )
        return _reach(context, applying, plan, observed, _Begin(source, chosen))


@dataclass(frozen=True, slots=True)
class _Begin:
    """What a first session begins with."""

    source: DatasetSource | None
    chosen: Copy | None


def _without_parked(observed: Observation) -> Observation:
    """Return what is there without a machine that stands still: going on elsewhere leaves it."""
    rest = tuple(one for one in observed.machines if one.state in ("running", "pending"))
    return replace(observed, machines=rest)


def _new_run(context: Context, provider: Provider, identity: Identity) -> RunFolder:
    return create(
        name=context.config.name,
        owner=identity.owner,
        provider=provider.name,
        region=identity.region,
        project=context.base,
        account=identity.account or None,
        profile=context.config.profile,
    )


def _reach(context: Context, applying: Applying, plan: Plan, observed: Observation, begin: _Begin) -> Up:
    folder = applying.folder
    machine = patiently(
        lambda: apply_up(plan, applying, observed), Patience(hours=context.wait_hours), context.reporter
    )
    target = target_of(machine, applying)
    with context.timeline.stage("connect", f"{target.address}") as stage:
        remote = connect_when_ready(target)
        stage.outcome = "host key verified"
    with remote:
        secure_host_key(remote, folder, applying.provider, context.timeline)
        return _train_once(context, folder, remote, machine, begin, created=not plan.empty)


def _train_once(
    context: Context,
    folder: RunFolder,
    remote: Remote,
    machine: Machine,
    begin: _Begin,
    *,
    created: bool,
) -> Up:
    """Start the first session; where there is one already, only say what differs."""
    layout = layout_on(remote, folder)
    before = training.sessions(remote, layout)
    if before:
        with folder.settling():
            settled = settle(_as_applied(context, folder), remote, folder, begin.source, push=False)
        differs = differs_there(remote, context.config, context.base, layout) + _config_changes(
            context, folder
        )
        session = before[-1]
        if not settled.changed and not created:
            context.reporter.emit(_unchanged(folder, session, differs))
    else:
        with folder.settling():
            folder.save_config(dump(context.config))
            settled = settle(context, remote, folder, begin.source)
            session = _start_first(context, folder, remote, settled, begin.chosen)
        differs = ()
    return Up(
        run=folder.path.name,
        machine=machine.id,
        address=machine.address or "",
        session=session,
        created=created,
        differs=differs,
        waterfall=context.timeline.waterfall(),
    )


def _start_first(
    context: Context, folder: RunFolder, remote: Remote, settled: Settled, chosen: Copy | None
) -> Session:
    with folder.changing():
        check_open(folder)
        number = last_session(folder.journal.rows()) + 1
        checkpoint = None
        if chosen is not None:
            with context.timeline.stage("push checkpoint", str(chosen)) as stage:
                checkpoint = place_copy(remote, folder, settled.layout, chosen, number, stage)
        return start_session(context, remote, folder, settled, number=number, resume_from=checkpoint)


def _plan(context: Context, survey: Survey, observed: Observation, source: DatasetSource | None) -> Plan:
    return plan_up(
        Wanted(
            config=context.config,
            survey=survey,
            observed=observed,
            dataset_bytes=source.size_bytes if source else 0,
            now=datetime.now(UTC),
            reached=said_of(survey.inside) if survey.inside else "",
        )
    )


def _same_run(context: Context, folder: RunFolder | None) -> None:
    """Raise `UsageError` when the folder's open run is not the one that is wanted now."""
    if folder is None:
        return
    record = folder.record()
    wanted = {"name": context.config.name, "provider": context.config.provider}
    if context.config.region and record.provider == "aws":
        wanted["region"] = context.config.region
    for what, value in wanted.items():
        known = getattr(record, what)
        if known != value:
            raise UsageError(
                f"this folder's open run has {what} `{known}`, now `{value}` is asked for",
                hint=f"end it with `cloudtrain down`, or go on with it by {what} `{known}`",
            )


def _as_applied(context: Context, folder: RunFolder) -> Context:
    """Return the context with the configuration that the machine was last given."""
    stored = folder.load_config()
    return replace(context, config=from_dict(stored)) if stored else context


def _config_changes(context: Context, folder: RunFolder) -> tuple[str, ...]:
    """Name the top-level parts of the configuration that differ from what was applied."""
    old = folder.load_config() or {}
    new = dump(context.config)
    keys = sorted(set(old) | set(new))
    return tuple(f"config `{key}`" for key in keys if old.get(key) != new.get(key))


def _unchanged(folder: RunFolder, session: Session, differs: tuple[str, ...]) -> Note:
    name = folder.record().name
    if not differs:
        return Note(f"nothing to change: `{name}` is up, session {session.number:03d} is {session.how}")
    return Note(
        f"nothing was changed; different here since: {', '.join(differs)}",
        hint="`cloudtrain train` pushes it and starts a new session",
    )
