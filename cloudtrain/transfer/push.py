"""Project, dataset and model on their way to the machine.

What moves and how is mirror.py's; here is what each of them consists of. Only what earlier pushes put there is ever deleted; what the training wrote is
not ours. A file that changes while it is sent is seen afterwards and sent again.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from cloudtrain.errors import UsageError
from cloudtrain.events import Note, Reporter
from cloudtrain.models.config import Config
from cloudtrain.models.lent import Lent
from cloudtrain.models.run import Layout
from cloudtrain.models.training import PushReport
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.dataset import DatasetSource, dataset_places, dataset_tree, inspect_dataset
from cloudtrain.transfer.manifest import Place, same_each
from cloudtrain.transfer.mirror import Mirror
from cloudtrain.transfer.scan import file_entry, scan_project
from cloudtrain.transfer.tree import Tree, made, tree_of
from cloudtrain.transfer.unpack import fetch_objects, run_command, unpack


def push_project(
    remote: Remote,
    config: Config,
    base: Path,
    layout: Layout,
    reporter: Reporter,
    *,
    verify: bool = False,
) -> PushReport:
    """Mirror the project folder to `layout.project`; nothing moves when nothing changed.

    `base` is the folder of cloudtrain.yaml. Files that the machine made stay. `verify` has
    every file's hash compared, changed or not; count and bytes always are. A
    project that comes from git is not pushed. Raises `UsageError` when the folder is
    missing, `TransferError` when bytes did not arrive, `ConnectError` when the line broke.
    """
    if config.project.git is not None:
        return PushReport("project", 0, 0, 0, 0, 0.0)
    push = Mirror(remote, _project_place(layout), "project", reporter, verify)
    return push.run(lambda: project_tree(config, base))


def push_dataset(
    remote: Remote,
    source: DatasetSource,
    layout: Layout,
    reporter: Reporter,
    *,
    verify: bool = False,
    lent: tuple[Lent, ...] = (),
) -> PushReport:
    """Put the dataset into `layout.data`, with `data.yaml` there when it has one.

    An archive is sent once and unpacked there; what has an address is fetched by the machine
    itself, from S3 by the rights in `lent`. `verify` has both come again beside what lies there,
    and compared; of what a command brought there is nothing to compare. Raises as `push_project`.
    """
    if source.kind == "archive":
        return _push_archive(remote, source, layout, reporter, verify=verify)
    if source.kind in ("remote", "objects", "command"):
        return _have_fetched(remote, source, layout, reporter, lent, verify=verify)
    push = Mirror(remote, _data_place(layout), "dataset", reporter, verify)
    return push.run(lambda: _data_tree(dataset_tree(source), source, layout))


def push_model(
    remote: Remote, model_path: Path, layout: Layout, reporter: Reporter, *, verify: bool = False
) -> PushReport:
    """Put a local model file to `<root>/models/<name>`. Raises as `push_project`."""
    if not model_path.is_file():
        raise UsageError(f"the model `{model_path}` is not there", hint="correct `train.model`")
    place = Place(f"{layout.root}/models", f"{layout.root}/manifests/model-{model_path.name}")
    push = Mirror(remote, place, "model", reporter, verify)
    return push.run(lambda: tree_of([file_entry(model_path, model_path.name)], [], follow=True))


def project_digest(config: Config, base: Path) -> str:
    """Return a digest of what `push_project` would send: names, sizes, times, no contents."""
    if config.project.git is not None:
        return f"git {config.project.git} {config.project.ref or ''}"
    return project_tree(config, base).digest


def differs(remote: Remote, config: Config, base: Path, layout: Layout) -> tuple[str, ...]:
    """Say which of `project` and `dataset` differ from what the machine has, in one round trip."""
    wanted: list[tuple[str, Place, Tree]] = []
    if config.project.git is None:
        wanted.append(("project", _project_place(layout), project_tree(config, base)))
    source = inspect_dataset(config, base)
    if source is not None and source.kind == "archive":
        wanted.append(("dataset", _archive_place(layout), source.tree))
    elif source is not None and source.kind in ("yaml", "folder"):
        wanted.append(("dataset", _data_place(layout), _data_tree(source.tree, source, layout)))
    if not wanted:
        return ()
    answers = same_each(remote, [(place, tree) for _, place, tree in wanted])
    return tuple(name for (name, _, _), same in zip(wanted, answers, strict=True) if not same)


def _push_archive(
    remote: Remote, source: DatasetSource, layout: Layout, reporter: Reporter, *, verify: bool
) -> PushReport:
    began = time.monotonic()
    report = Mirror(remote, _archive_place(layout), "dataset", reporter, verify).run(
        lambda: dataset_tree(source)
    )
    unpack(remote, source, layout, _archive_name(source), reporter, verify=verify)
    return replace(report, seconds=time.monotonic() - began)


def _have_fetched(
    remote: Remote,
    source: DatasetSource,
    layout: Layout,
    reporter: Reporter,
    lent: tuple[Lent, ...],
    *,
    verify: bool,
) -> PushReport:
    """Nothing crosses the line of here: the machine fetches at its own speed."""
    began = time.monotonic()
    if source.kind == "command":
        run_command(remote, source, layout, reporter)
        if verify:
            reporter.emit(Note("there is nothing to compare what `dataset.command` brought with", "warning"))
    elif source.kind == "objects":
        fetch_objects(remote, layout, reporter, lent, verify=verify)
    else:
        unpack(remote, source, layout, _archive_name(source), reporter, lent, verify=verify)
    verified = verify and source.kind != "command"
    return PushReport("dataset", 0, 0, 0, 0, time.monotonic() - began, verified=verified)


def _archive_name(source: DatasetSource) -> str:
    return source.where.split("?", 1)[0].rsplit("/", 1)[-1]


def project_root(config: Config, base: Path) -> Path:
    """Return the real path of the project's folder."""
    return (base / config.project.path).resolve()


def project_tree(config: Config, base: Path) -> Tree:
    """List what a push of the project would send. Raises `UsageError` when the folder is missing."""
    root = project_root(config, base)
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
