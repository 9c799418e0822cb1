"""The dataset of a configuration: is it there, how big is it, what moves.

`inspect_dataset` runs before anything is created in a cloud, so everything that
can be wrong with a dataset here is said then, with file and line. Nothing on this
machine is changed; the machine's data.yaml is written from the local one.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cloudtrain.errors import ConfigError, Problem
from cloudtrain.models.config import Config
from cloudtrain.transfer.datayaml import DataYaml, read_data_yaml
from cloudtrain.transfer.scan import file_entry, scan_data
from cloudtrain.transfer.tree import Entry, Tree, made, tree_of
from cloudtrain.transfer.yamlfile import key_lines

COMMON = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""What can be looked into here, and unpacked with what every Linux machine has."""
ARCHIVES = (*COMMON, ".tar.zst", ".tzst", ".7z", ".rar")
"""What can be unpacked: the others by libarchive's bsdtar on the machine."""
BEGINNINGS = (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"PK", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
"""How files begin that bsdtar unpacks, whatever they are called; those of zstd and plain tars besides."""


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A dataset that was found to be in order.

    `size_bytes` is the room it takes on the machine, archives unpacked (an estimate
    where an archive does not say); 0 when nobody here can know. `files` and `bytes`
    are what moves. `where` is the file, the folder or the address.
    """

    kind: Literal["yaml", "folder", "archive", "remote", "objects", "command"]
    where: str
    files: int
    bytes: int
    size_bytes: int
    tree: Tree
    data_yaml: DataYaml | None = None
    sha256: str | None = None


def inspect_dataset(config: Config, base: Path) -> DatasetSource | None:
    """Find and check the configured dataset; None when none is configured.

    `base` is the folder of cloudtrain.yaml. Raises `ConfigError` with file, line and
    next step when something is missing or broken.
    """
    if config.dataset.source is not None or config.dataset.command is not None:
        return _remote(config, base)
    path = _locate(config, base)
    if path is None:
        return None
    if path.is_dir():
        return _folder(path, base)
    if _is_archive(path):
        return _archive(path, base)
    found = _read_yaml(path, config, base)
    tree = _yaml_tree(found)
    return DatasetSource("yaml", str(path), len(tree.files), tree.bytes, tree.bytes, tree, found)


def dataset_tree(source: DatasetSource) -> Tree:
    """Look again at what moves for a dataset: it may have changed since it was inspected."""
    if source.data_yaml is not None:
        return _yaml_tree(source.data_yaml)
    if source.kind == "folder":
        return scan_data(Path(source.where), skip=_is_cache)
    if source.kind == "archive":
        path = Path(source.where)
        return tree_of([file_entry(path, path.name)], [])
    return source.tree


def dataset_digest(source: DatasetSource) -> str:
    """Return a digest of the dataset's names, sizes and times; equal means unchanged."""
    return source.tree.digest


def dataset_places(config: Config, base: Path) -> dict[str, str]:
    """Map the real path of each folder (or archive) that moves as dataset to its place there.

    Places are relative to the remote dataset. Counts no files. Raises `ConfigError`.
    """
    path = _locate(config, base)
    if path is None:
        return {}
    if path.is_dir() or _is_archive(path):
        return {os.path.realpath(path): ""}
    found = _read_yaml(path, config, base)
    return {os.path.realpath(folder): remote for folder, remote in found.folders}


def _locate(config: Config, base: Path) -> Path | None:
    """Find the data.yaml, folder or archive that `dataset.path` means."""
    given = config.dataset.path
    if given is None:
        return None
    path = base / os.path.expanduser(given)  # noqa: PTH111  (this one raises nothing)
    if not os.path.exists(path):  # noqa: PTH110
        raise _problem(base, "path", f"`dataset.path: {given}` is not there (looked for `{path}`)")
    if path.is_dir() and config.train.kind != "script":
        path = next((path / name for name in ("data.yaml", "dataset.yaml") if (path / name).is_file()), path)
    if path.is_dir() or (path.is_file() and (_is_archive(path) or path.suffix.lower() in (".yaml", ".yml"))):
        return path
    known = f"neither a data.yaml, nor a folder, nor one of {', '.join(ARCHIVES)}"
    raise _problem(base, "path", f"`dataset.path: {given}` is {known}")


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def _read_yaml(path: Path, config: Config, base: Path) -> DataYaml:
    shown = os.path.relpath(path, base) if path.is_relative_to(base) else str(path)
    return read_data_yaml(path, shown, (base, base / config.project.path, Path.cwd()))


def _yaml_tree(found: DataYaml) -> Tree:
    entries: list[Entry] = []
    left_out = list(found.notes)
    for folder, remote in found.folders:
        part = scan_data(folder, f"{remote}/" if remote else "", skip=_is_cache)
        entries += part.entries
        left_out += part.left_out
    entries += [file_entry(path, remote) for path, remote in found.files]
    entries += [made(name, text.encode()) for name, text in found.lists]
    return tree_of(entries, left_out, follow=True)


def _is_cache(name: str) -> bool:
    """Whether a trainer made it: both write `*.cache` beside the labels, for one machine only."""
    return name.endswith((".cache", ".cache.npy"))


def _folder(path: Path, base: Path) -> DatasetSource:
    tree = scan_data(path, skip=_is_cache)
    if not tree.files:
        raise _problem(base, "path", f"the dataset folder `{path}` holds no files")
    return DatasetSource("folder", str(path), len(tree.files), tree.bytes, tree.bytes, tree)


def _archive(path: Path, base: Path) -> DatasetSource:
    try:
        unpacked = _unpacked_size(path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        said = (str(error).splitlines() or ["it is damaged"])[0].rstrip(":")
        raise _problem(base, "path", f"the archive `{path}` cannot be read: {said}") from error
    if unpacked is None:
        raise _problem(base, "path", f"the archive `{path}` holds no files")
    tree = tree_of([file_entry(path, path.name)], [])
    return DatasetSource("archive", str(path), 1, tree.bytes, tree.bytes + unpacked, tree)


def _unpacked_size(path: Path) -> int | None:
    """Bytes after unpacking: read from a zip's directory or a plain tar's headers, else guessed.

    None when it is seen to hold no files.
    """
    name = path.name.lower()
    if not name.endswith(COMMON):
        _check_beginning(path)
        return 3 * path.stat().st_size
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            sizes = [member.file_size for member in archive.infolist() if not member.is_dir()]
        return sum(sizes) if sizes else None
    with tarfile.open(path) as archive:
        if name.endswith(".tar"):
            sizes = [member.size for member in archive if not member.isdir()]
            return sum(sizes) if sizes else None
        return None if archive.next() is None else 3 * path.stat().st_size


def _check_beginning(path: Path) -> None:
    """Raise `ValueError` for what is an archive only by its name, such as a page of a web server."""
    with path.open("rb") as file:
        head = file.read(512)
    zstd = head[1:4] in (b"\xb5\x2f\xfd", b"\x2a\x4d\x18")  # a frame, and one to be skipped
    if not head.startswith(BEGINNINGS) and not zstd and head[257:262] != b"ustar":
        raise ValueError("it is no archive" if head else "it is empty")


def _remote(config: Config, base: Path) -> DatasetSource:
    given = {key: getattr(config.dataset, key) for key in ("path", "source", "command")}
    named = [f"`dataset.{key}`" for key, value in given.items() if value is not None]
    if len(named) > 1:
        raise _problem(base, "path", f"give one of {' and '.join(named)}, not both")
    source, command = config.dataset.source or "", config.dataset.command
    if command is not None:
        return DatasetSource("command", command, 0, 0, 0, _described(f"command\n{command}"))
    if not source.startswith(("https://", "s3://")):
        raise _problem(
            base, "source", f"`{source}` cannot be fetched by the machine: give an https:// or s3:// address"
        )
    if source.startswith("s3://") and (source.endswith("/") or source.count("/") == 2):
        return DatasetSource("objects", source, 0, 0, 0, _described(source))
    if not source.split("?", 1)[0].lower().endswith(ARCHIVES):
        more = ", or for s3:// a folder, ending in /"
        raise _problem(base, "source", f"`{source}` must name an archive: {', '.join(ARCHIVES)}{more}")
    tree = _described(f"{source}\n{config.dataset.sha256 or ''}")
    return DatasetSource("remote", source, 0, 0, 0, tree, sha256=config.dataset.sha256)


def _described(text: str) -> Tree:
    """A tree that changes when what was asked for does."""
    return tree_of([made("source", text.encode())], [])


def _problem(base: Path, key: str, message: str) -> ConfigError:
    file = base / "cloudtrain.yaml"
    try:
        line = key_lines(file.read_text(encoding="utf-8")).get(f"dataset.{key}", 0)
    except OSError:
        line = 0
    return ConfigError(
        (Problem("cloudtrain.yaml", line, message),),
        hint="set `dataset.path` in cloudtrain.yaml; paths are relative to that file",
    )
