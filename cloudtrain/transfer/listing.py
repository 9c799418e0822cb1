"""Which files of a session come home, and under which names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import get_args

from cloudtrain.models.training import ArtifactKind
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.containers import is_checkpoint
from cloudtrain.transfer.results import Kind
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.wire import exchange

WANTED = re.compile(
    r"(.*/)?weights/(best|last)\.pt|results\.csv|args\.yaml|opt\.yaml|hyp\.yaml|"
    r"evolve\.csv|hyp_evolve\.yaml|tune_results\.ndjson|best_hyperparameters\.yaml|[^/]+\.(png|jpg|jpeg)|events\.out\.tfevents[^/]*",
)
"""What a trainer's own folder is worth without being asked for everything."""
RUN = "run"
RESERVED = frozenset(
    (
        *("outputs", "secured", "earlier", "train.log"),
        *(".parts", ".fetch.lock", ".index.json", ".index.new", ".torn.json"),
    )
)
"""What lies at home for other reasons than that the run's folder holds a file of that name."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file on the machine. `name` is its path at home; `mtime` seconds, as text."""

    kind: ArtifactKind
    remote: str
    name: str
    size: int
    mtime: str

    @property
    def grows(self) -> bool:
        """Whether it is only ever appended to, so that any beginning of it is good."""
        return self.kind in ("log", "results") or PurePosixPath(self.name).name.startswith(
            "events.out.tfevents"
        )

    @property
    def weights(self) -> bool:
        """Whether it holds weights, which must be proven whole."""
        return self.kind in ("best", "last", "checkpoint")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for of one session; see `pull`."""

    run_dir: str
    log: str
    kind: Kind
    project: str
    outputs: tuple[str, ...]
    everything: bool
    secured: str = ""
    """The folder of secured copies, where those are asked for as well."""


def list_files(remote: Remote, wanted: Wanted) -> tuple[Found, ...]:
    """Ask the machine, in one round trip, what there is of what is wanted."""
    args = (wanted.run_dir, wanted.log, wanted.project, wanted.secured, wanted.kind)
    answer = exchange(remote, script("pull-list"), *args)
    records = [os.fsdecode(record).split(" ", 3) for record in answer.split(b"\0")[:-1]]
    wanted = _as_started(wanted, records)
    links = _links(records)
    found: dict[str, Found] = {}
    for mark, size, mtime, path in records:
        for way in _ways(path, links) if mark == "P" else (path,):
            name = _name(mark, way, wanted)
            if name is not None and _safe(name):
                found.setdefault(name, Found(_kind(mark, name), way, name, int(size), mtime))
                break
    return tuple(found[name] for name in sorted(found))


def _as_started(wanted: Wanted, records: list[list[str]]) -> Wanted:
    """Return what is wanted of a session by its own plan: what is configured now may be of the next one."""
    text = next((path for mark, _, _, path in records if mark == "J"), "")
    try:
        plan = json.loads(text or "{}")
        kind, outputs = plan.get("kind", wanted.kind), tuple(str(one) for one in plan.get("outputs", ()))
    except (ValueError, AttributeError, TypeError):
        return wanted
    if kind not in get_args(Kind):
        return wanted
    return replace(wanted, kind=kind, outputs=tuple(dict.fromkeys((*outputs, *wanted.outputs))))


def _links(records: list[list[str]]) -> list[tuple[str, str]]:
    """Return every link to a folder of the project, and that folder."""
    links = [path for mark, _, _, path in records if mark == "D"]
    return list(zip(links, (path for mark, _, _, path in records if mark == "T"), strict=False))


def _ways(path: str, links: list[tuple[str, str]]) -> Iterator[str]:
    """Return the names of a file of the project: its own, and those through links to folders above it."""
    yield path
    for link, folder in links:
        if path.startswith(f"{folder}/"):
            yield link + path[len(folder) :]


def glob_pattern(pattern: str) -> re.Pattern[str]:
    """Translate a path pattern: `**/` any folders, `*` and `?` within one name, `[…]` a set."""
    out = ""
    for part in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", pattern.removeprefix("./"), re.DOTALL):
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        if part in known:
            out += known[part]
        elif len(part) > 1:
            out += part.replace("[!", "[^", 1)
        else:
            out += re.escape(part)
    try:
        return re.compile(out, re.DOTALL)
    except re.error:  # `[z-a]` is no set: a name like any other
        return re.compile(re.escape(pattern))


def _name(mark: str, path: str, wanted: Wanted) -> str | None:
    if mark == "L":
        return PurePosixPath(path).name
    if mark == "S":
        return f"secured/{PurePosixPath(path).name}"
    if mark in ("J", "D", "T"):
        return None
    if mark == "P":
        rest = path.removeprefix(f"{wanted.project}/")
        hit = any(glob_pattern(pattern).fullmatch(rest) for pattern in wanted.outputs)
        return f"outputs/{rest}" if hit else None
    rest = path.removeprefix(f"{wanted.run_dir}/")
    if wanted.everything or wanted.kind == "script" or WANTED.fullmatch(rest):
        return _run_name(rest)
    return None


def _run_name(rest: str) -> str:
    """Return where a file of the run's folder comes to lie: as it is called, unless that place is ours.

    Then it is below `run/`, and so is what would be taken for such a one.
    """
    parts = PurePosixPath(rest).parts
    first = next((part for part in parts if part != RUN), None)
    return f"{RUN}/{rest}" if first is None or first in RESERVED else rest


def _safe(name: str) -> bool:
    """Whether a name stays below the destination: the machine is not believed in this."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and not parts[-1].endswith(".part")


def _kind(mark: str, name: str) -> ArtifactKind:
    path = PurePosixPath(name)
    if mark == "L":
        return "log"
    if is_checkpoint(name):
        return "best" if path.stem == "best" else "last" if path.stem == "last" else "checkpoint"
    return "results" if path.name == "results.csv" else "other"
