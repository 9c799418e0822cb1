"""One folder a run, under the user's data directory.

    <data>/runs/<name>-<id>/
        run.json       who and where; rewritten whole
        config.json    the configuration `up` last applied
        journal.jsonl  what was asked of the cloud
        key, key.pub   the user key, 0600, made here, never sent
        host_key.json  the first-boot host key, 0600; erased when it is rotated
        known_hosts    the pinned host key
        requests/      launch requests, byte for byte, 0600
        timing.jsonl   how long the stages of each command took
    artifacts/     checkpoints and results, proven whole

Losing it costs convenience, never money: the cloud's tags name everything.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloudtrain.errors import RefusedError, UsageError
from cloudtrain.events import StageTime, Waterfall
from cloudtrain.journal.log import Journal
from cloudtrain.models.machine import Login, SshTarget
from cloudtrain.models.run import RunRef
from cloudtrain.paths import data_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """run.json. `ended` is set once the cloud confirmed that nothing is left."""

    name: str
    id: str
    owner: str
    provider: str
    region: str
    project: str
    created: str
    machine: str | None = None
    address: str | None = None
    port: int = 22
    user: str = "ubuntu"
    price_hour: float | None = None
    currency: str = "USD"
    volume_gb: int = 0
    deadline: str | None = None
    parked: bool = False
    """Stopped on purpose: its address is nobody's, or somebody else's by now."""
    ended: str | None = None
    cost: float | None = None
    ingress: str | None = None
    """The address of this computer that the machine's security group admits."""
    tagged_key: str | None = None
    """The public host key that the machine's tag says."""
    rotation: str | None = None
    """How replacing the first host key ended, when it cannot be done on this machine."""
    own: bool = False
    """A machine of the user's own: not the run's key opens it, but what follows here."""
    identity: str | None = None
    password: bool = False
    bake: bool = False
    """A run that makes an image: nothing on its machine is ever to be brought home."""
    proxy_jump: str | None = None
    proxy_command: str | None = None
    account: str | None = None
    """The cloud account that the run lives in; another one shows nothing of it."""
    profile: str | None = None
    """The profile of the credentials that it was begun with."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the stages of one command took. `at` is when it ended, in UTC."""

    at: str
    verb: str
    waterfall: Waterfall


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path
    readmit: Callable[[], bool] | None = field(default=None, compare=False, repr=False)
    """Lets this computer in again where its address has changed; says whether it had."""
    refind: Callable[[], bool] | None = field(default=None, compare=False, repr=False)
    """Asks the cloud for the machine's address; says whether it is another than the last known."""

    @property
    def key(self) -> Path:
        """The user's private key."""
        return self.path / "key"

    @property
    def known_hosts(self) -> Path:
        """The pinned host key."""
        return self.path / "known_hosts"

    @property
    def host_key(self) -> Path:
        """The first-boot host key, until it is rotated."""
        return self.path / "host_key.json"

    @property
    def artifacts(self) -> Path:
        """What came home."""
        return self.path / "artifacts"

    @property
    def journal(self) -> Journal:
        """What was asked of the cloud."""
        return Journal(self.path / "journal.jsonl")

    def record(self) -> RunRecord:
        """Read run.json. Raises `UsageError` when it is damaged."""
        try:
            data = json.loads((self.path / "run.json").read_text())
            known = {one.name for one in fields(RunRecord)}
            return RunRecord(**{key: value for key, value in data.items() if key in known})
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(
                f"the run folder `{self.path}` is damaged: {error}",
                hint="`cloudtrain audit` finds what it opened, by its tags",
            ) from error

    def update(self, **changes: object) -> RunRecord:
        """Change fields of run.json and return the whole."""
        record = replace(self.record(), **changes)  # pyright: ignore[reportArgumentType]
        write_durably(self.path / "run.json", json.dumps(asdict(record), indent=1).encode())
        return record

    def admit(self, login: Login | None) -> None:
        """Remember how to get in to a machine of the user's own; None: by the run's key."""
        if login is not None:
            self.update(
                own=True,
                port=login.port,
                user=login.user,
                identity=login.key,
                password=login.password,
                proxy_jump=login.proxy_jump,
                proxy_command=login.proxy_command,
            )

    def run(self) -> RunRef:
        """Name the run."""
        record = self.record()
        return RunRef(record.name, record.id, record.owner)

    def target(self) -> SshTarget:
        """Return the last known way to the machine. Raises `UsageError` when there was none."""
        record = self.record()
        if record.address is None:
            raise UsageError(
                f"run `{record.name}` has no machine to talk to yet",
                hint="run `cloudtrain up` first",
            )
        if record.parked:
            raise UsageError(
                f"the machine of run `{record.name}` is stopped",
                hint="`cloudtrain start` starts it again; `cloudtrain down` brings the weights home and ends it",
            )
        return SshTarget(
            address=record.address,
            port=record.port,
            user=record.user,
            key=(Path(record.identity) if record.identity else None) if record.own else self.key,
            known_hosts=self.known_hosts,
            alias=self.path.name,
            proxy_jump=record.proxy_jump,
            proxy_command=record.proxy_command,
            password=record.password,
        )

    def store(self, token: str, request: bytes) -> None:
        """Keep a launch request byte for byte, 0600, on the disk before the call."""
        write_durably(self.path / "requests" / f"{token}.json", request)

    def load(self, token: str) -> bytes | None:
        """Return the request kept under `token`, or None."""
        path = self.path / "requests" / f"{token}.json"
        return path.read_bytes() if path.exists() else None

    def save_config(self, config: dict[str, object]) -> None:
        """Keep the configuration as it was applied."""
        write_durably(self.path / "config.json", json.dumps(config, indent=1).encode())

    def load_config(self) -> dict[str, object] | None:
        """Return the configuration as it was last applied, or None."""
        path = self.path / "config.json"
        return json.loads(path.read_text()) if path.exists() else None

    def keep_timing(self, verb: str, waterfall: Waterfall) -> None:
        """Keep how long the stages of a command took, beside those of earlier ones."""
        row = {"at": datetime.now(UTC).isoformat(), "verb": verb, **asdict(waterfall)}
        with (self.path / "timing.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def timings(self) -> tuple[Timing, ...]:
        """Return the timings that were kept, oldest first; a torn line is left out."""
        path = self.path / "timing.jsonl"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return tuple(found for line in lines if (found := _timing(line)) is not None)

    def forget_keys(self) -> None:
        """Delete the private keys: of a run that has ended they open nothing any more."""
        self.key.unlink(missing_ok=True)
        self.host_key.unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the folder: of a run that was never taken over nothing is kept."""
        shutil.rmtree(self.path, ignore_errors=True)

    def changing(self, patience_s: float = 0) -> AbstractContextManager[None]:
        """Hold the run's lock around one mutation; reading takes none.

        Raises `RefusedError` when another cloudtrain holds it, at once or after `patience_s`:
        two changes of one run at a time would each see half of the other.
        """
        return self._alone("lock", "changing", patience_s)

    def settling(self) -> AbstractContextManager[None]:
        """Hold the lock of bringing the machine to where training can start, for minutes maybe.

        Raises `RefusedError` at once when another cloudtrain is at it.
        """
        return self._alone("settle.lock", "setting up the machine of")

    @contextmanager
    def _alone(self, name: str, doing: str, patience_s: float = 0) -> Generator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / name, timeout=patience_s)
        try:
            lock.acquire()
        except Timeout as error:
            raise RefusedError(
                f"another cloudtrain is {doing} run `{self.path.name}` right now",
                hint="wait for it, or stop it with Ctrl-C there; then run this again",
            ) from error
        try:
            yield
        finally:
            lock.release()


def runs_dir() -> Path:
    """Return the folder of all run folders."""
    return data_dir() / "runs"


def create(
    *,
    name: str,
    owner: str,
    provider: str,
    region: str,
    project: Path,
    run_id: str | None = None,
    account: str | None = None,
    profile: str | None = None,
) -> RunFolder:
    """Make the folder of a new run with a random id, durably; `run_id` names one that exists.

    Raises `RefusedError` when another command has begun one for `project` meanwhile:
    two at a time would rent two machines for one training.
    """
    from filelock import FileLock

    runs_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(runs_dir() / ".create.lock", timeout=30):
        other = open_runs(project=project)
        if other:
            raise RefusedError(
                f"another command has just begun run `{other[0].path.name}` for this folder",
                hint="wait for it, then run this again: it joins that run",
            )
        run = RunRef(name, run_id or secrets.token_hex(4), owner)
        folder = RunFolder(runs_dir() / run.slug)
        if (folder.path / "run.json").exists():
            raise RefusedError(
                f"run `{run.slug}` is known on this computer already",
                hint=f"`cloudtrain status --name {run.slug}` shows it",
            )
        folder.path.mkdir(mode=0o700, exist_ok=True)
        record = RunRecord(
            name=name,
            id=run.id,
            owner=owner,
            provider=provider,
            region=region,
            project=str(project),
            created=datetime.now(UTC).isoformat(),
            account=account,
            profile=profile,
        )
        write_durably(folder.path / "run.json", json.dumps(asdict(record), indent=1).encode())
    return folder


def all_runs() -> tuple[RunFolder, ...]:
    """Return every readable run folder, oldest first."""
    root = runs_dir()
    if not root.is_dir():
        return ()
    found = [RunFolder(path) for path in root.iterdir() if (path / "run.json").is_file()]
    return tuple(sorted(found, key=_created))


def open_runs(*, project: Path | None = None, name: str | None = None) -> tuple[RunFolder, ...]:
    """Return the runs that have not ended, oldest first, by folder or by name or both.

    A run belongs to the folder it was started in, so that two projects with runs of
    the same name on one machine never meet. `name` is a run's name, or `name-id` where
    several have it. Damaged folders are left out: `damaged_runs` names them.
    """
    found: list[RunFolder] = []
    for folder in all_runs():
        try:
            record = folder.record()
        except UsageError:
            continue
        here = project is None or Path(record.project) == project
        if record.ended is None and here and name in (None, record.name, folder.path.name):
            found.append(folder)
    return tuple(found)


def damaged_runs() -> tuple[RunFolder, ...]:
    """Return the run folders whose record cannot be read: nobody knows whose they are."""
    return tuple(folder for folder in all_runs() if not _created(folder))


def write_durably(path: Path, data: bytes) -> None:
    """Write a file 0600 whole or not at all, and have it on the disk before returning."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f"{path.name}.{secrets.token_hex(3)}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _timing(line: str) -> Timing | None:
    try:
        row: dict[str, Any] = json.loads(line)
        stages = tuple(_stage(one) for one in row["stages"])
        shown = Waterfall(stages, row["total_s"], tuple(row["critical"]))
        return Timing(row["at"], row["verb"], shown)
    except (ValueError, TypeError, KeyError):
        return None


def _stage(row: dict[str, Any]) -> StageTime:
    return StageTime(row["stage"], row["start"], row["end"], row["outcome"], row["ok"], tuple(row["after"]))


def _created(folder: RunFolder) -> str:
    try:
        return folder.record().created
    except UsageError:
        return ""
