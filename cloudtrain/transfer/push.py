"""Project, dataset and model on their way to the machine.

A push is: look (one round trip; unchanged ends it), begin (deletions and the
small things, in one stream), the bulk when there is any, compare, record.
Only what earlier pushes put there is ever deleted; what the training wrote is
not ours. A file that changes while it is sent is seen afterwards and sent again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cloudtrain.errors import TransferError, UsageError
from cloudtrain.events import Note, Reporter
from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.models.training import PushReport
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer import bulk
from cloudtrain.transfer.dataset import DatasetSource, dataset_places, dataset_tree, inspect_dataset
from cloudtrain.transfer.manifest import Place, There, begin, begin_and_commit, commit, look, same_each
from cloudtrain.transfer.scan import file_entry, scan_project
from cloudtrain.transfer.tree import Entry, Tree, human, made, tree_of
from cloudtrain.transfer.unpack import unpack
from cloudtrain.transfer.wire import Meter, Sink

ROUNDS = 3
"""How often files that change during a push are sent before giving up."""
HEADROOM = 64 << 20

What = Literal["project", "dataset", "model"]


def push_project(
    remote: Remote, config: Config, base: Path, layout: Layout, reporter: Reporter
) -> PushReport:
    """Mirror the project folder to `layout.project`; nothing moves when nothing changed.

    `base` is the folder of cloudtrain.yaml. Files that the machine made stay. A
    project that comes from git is not pushed. Raises `UsageError` when the folder is
    missing, `TransferError` when bytes did not arrive, `ConnectError` when the line broke.
    """
    if config.project.git is not None:
        return PushReport("project", 0, 0, 0, 0, 0.0)
    push = _Push(remote, _project_place(layout), "project", reporter)
    return push.run(lambda: _project_tree(config, base))


def push_dataset(remote: Remote, source: DatasetSource, layout: Layout, reporter: Reporter) -> PushReport:
    """Put the dataset into `layout.data`, with `data.yaml` there when it has one.

    An archive is sent once and unpacked there; an address is fetched by the machine
    itself. Raises as `push_project`.
    """
    if source.kind in ("archive", "remote"):
        return _push_archive(remote, source, layout, reporter)
    push = _Push(remote, _data_place(layout), "dataset", reporter)
    return push.run(lambda: _data_tree(dataset_tree(source), source, layout))


def push_model(remote: Remote, model_path: Path, layout: Layout, reporter: Reporter) -> PushReport:
    """Put a local model file to `<root>/models/<name>`. Raises as `push_project`."""
    if not model_path.is_file():
        raise UsageError(f"the model `{model_path}` is not there", hint="correct `train.model`")
    place = Place(f"{layout.root}/models", f"{layout.root}/manifests/model-{model_path.name}")
    push = _Push(remote, place, "model", reporter)
    return push.run(lambda: tree_of([file_entry(model_path, model_path.name)], [], follow=True))


def project_digest(config: Config, base: Path) -> str:
    """Return a digest of what `push_project` would send: names, sizes, times, no contents."""
    if config.project.git is not None:
        return f"git {config.project.git} {config.project.ref or ''}"
    return _project_tree(config, base).digest


def differs(remote: Remote, config: Config, base: Path, layout: Layout) -> tuple[str, ...]:
    """Say which of `project` and `dataset` differ from what the machine has, in one round trip."""
    wanted: list[tuple[str, Place, Tree]] = []
    if config.project.git is None:
        wanted.append(("project", _project_place(layout), _project_tree(config, base)))
    source = inspect_dataset(config, base)
    if source is not None and source.kind in ("archive", "remote"):
        wanted.append(("dataset", _archive_place(layout), source.tree))
    elif source is not None:
        wanted.append(("dataset", _data_place(layout), _data_tree(source.tree, source, layout)))
    if not wanted:
        return ()
    answers = same_each(remote, [(place, tree) for _, place, tree in wanted])
    return tuple(name for (name, _, _), same in zip(wanted, answers, strict=True) if not same)


@dataclass(slots=True)
class _Push:
    """One push of one kind, with its rounds."""

    remote: Remote
    place: Place
    what: What
    reporter: Reporter
    sent: set[bytes] = field(default_factory=set[bytes])
    sent_bytes: int = 0

    def run(self, scan: Callable[[], Tree]) -> PushReport:
        began = time.monotonic()
        for _ in range(ROUNDS):
            tree = scan()
            if self.round(tree):
                seconds = time.monotonic() - began
                self.say(tree)
                return PushReport(
                    self.what,
                    len(tree.files),
                    tree.bytes,
                    len(self.sent),
                    self.sent_bytes,
                    seconds,
                    tree.left_out,
                )
        raise TransferError(
            f"files of the {self.what} keep changing while they are sent",
            hint="stop what writes them, or leave them out with `project.exclude`",
        )

    def round(self, tree: Tree) -> bool:
        """Send what differs; False when what arrived is not what was looked at."""
        there = look(self.remote, self.place, tree)
        if there.same:
            return True
        moving = [entry for entry in tree.files if there.lacks(entry)]
        self.check_room(there, moving)
        return self.send(tree, moving, there) and _unchanged(moving)

    def check_room(self, there: There, moving: list[Entry]) -> None:
        need = there.room_needed(moving)
        if moving and there.free_bytes is not None and need + HEADROOM > there.free_bytes:
            raise TransferError(
                f"the {self.what} needs {human(need)} on the machine, and {human(there.free_bytes)} are free",
                hint="give `instance.volume_gb` more, or push less with `project.exclude`",
            )

    def send(self, tree: Tree, moving: list[Entry], there: There) -> bool:
        meter = Meter(self.reporter, f"push {self.what}", sum(entry.size for entry in moving))
        if bulk.choose(moving, rsync_there=there.rsync) == "rsync":
            groups = bulk.group(moving)
            folders = [Entry(below.rstrip("/"), "dir") for _, below in groups if below]
            self.begin(tree, [*folders, *(entry for entry in moving if entry.source is None)], meter)
            bulk.rsync(self.remote, groups, self.place.folder, meter, follow=tree.follow)
            arrived = commit(self.remote, self.place, tree)
        else:
            arrived = self.begin(tree, moving, meter, last=True)
        self.sent.update(entry.raw for entry in moving)
        self.sent_bytes += sum(entry.size for entry in moving)
        meter.finish()
        return arrived

    def begin(self, tree: Tree, inline: list[Entry], meter: Meter, *, last: bool = False) -> bool:
        """Delete, and send links, empty folders and `inline`; compare at once if it is the last."""
        small = [entry for entry in tree.entries if entry.kind != "file"]

        def feed(sink: Sink) -> None:
            bulk.write_tar(sink, [*small, *inline], meter)

        if last:
            return begin_and_commit(self.remote, self.place, tree, feed)
        begin(self.remote, self.place, tree, feed)
        return False

    def say(self, tree: Tree) -> None:
        secrets = [line for line in tree.left_out if "looks like a secret" in line]
        if secrets:
            names = ", ".join(f"`{line.split(' (')[0]}`" for line in secrets[:5])
            more = f" and {len(secrets) - 5} more" if len(secrets) > 5 else ""
            self.reporter.emit(
                Note(
                    f"{names}{more} looked like secrets and stayed at home",
                    "warning",
                    hint="`!name` in .cloudtrainignore sends one nevertheless",
                )
            )


def _unchanged(entries: list[Entry]) -> bool:
    """Whether files still are what they were when they were listed."""
    for entry in entries:
        if entry.source is None:
            continue
        try:
            info = entry.source.stat()
        except OSError:
            return False
        if (info.st_size, info.st_mtime_ns) != (entry.size, entry.mtime_ns):
            return False
    return True


def _push_archive(remote: Remote, source: DatasetSource, layout: Layout, reporter: Reporter) -> PushReport:
    began = time.monotonic()
    name = source.where.split("?", 1)[0].rsplit("/", 1)[-1]
    report = _Push(remote, _archive_place(layout), "dataset", reporter).run(lambda: dataset_tree(source))
    if source.kind == "remote":
        report = PushReport("dataset", 0, 0, 0, 0, 0.0)
    unpack(remote, source, layout, name)
    seconds = time.monotonic() - began
    return PushReport("dataset", report.files, report.bytes, report.sent_files, report.sent_bytes, seconds)


def _project_tree(config: Config, base: Path) -> Tree:
    root = (base / config.project.path).resolve()
    if not root.is_dir():
        raise UsageError(f"the project folder `{root}` is not there", hint="correct `project.path`")
    elsewhere = {
        path: f"../data/{remote}".rstrip("/")
        for path, remote in dataset_places(config, base).items()
        if path != str(root)
    }
    return scan_project(root, config.project.exclude, elsewhere=elsewhere)


def _data_tree(tree: Tree, source: DatasetSource, layout: Layout) -> Tree:
    if source.data_yaml is None:
        return tree
    text = source.data_yaml.render(layout.data).encode()
    return tree_of([made("data.yaml", text), *tree.entries], list(tree.left_out), follow=tree.follow)


def _project_place(layout: Layout) -> Place:
    return Place(layout.project, f"{layout.root}/manifests/project")


def _data_place(layout: Layout) -> Place:
    return Place(layout.data, f"{layout.root}/manifests/dataset")


def _archive_place(layout: Layout) -> Place:
    return Place(f"{layout.root}/archives", f"{layout.root}/manifests/archive")
