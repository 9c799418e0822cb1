"""Which files of this machine a push covers.

Only looks: nothing is opened but ignore files, and nothing is changed. A link that
stays inside the tree is kept as a link; one that leaves it would point to nothing
on the machine, so it is left out and said. Folders that hold nothing are kept.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cloudtrain.errors import TransferError
from cloudtrain.transfer.ignore import Ignore, rules_for
from cloudtrain.transfer.tree import Entry, Tree, tree_of

REASONS = {
    "ignored": "ignored",
    "built-in": "left out by default",
    "secret": "looks like a secret; `!{}` in .cloudtrainignore sends it",
    "big": "bigger than 256 MiB; `!{}` in .cloudtrainignore sends it",
}
KINDS = (
    (r"runs/ \(left out", "run folder", "run folders"),
    (r".*\(left out by default", "of .git and caches", "of .git and caches"),
    (r".*\(a link", "link out of the folder", "links out of the folder"),
    (r".*\(ignored", "ignored", "ignored"),
    (r".*\(neither a file", "neither file nor folder", "neither file nor folder"),
    (r".*\(not there", "split that is not there", "splits that are not there"),
)
"""What is only counted of what stayed at home: a line of `left_out`, and words for one and for many."""
BIG_FILE = 256 << 20
"""Bytes from which a file of the project (not of the dataset) goes only when it is asked for."""
QUIET = ("__pycache__", ".pyc", ".pyo", ".DS_Store")
"""Left out without a word: nobody misses them."""


def scan_project(
    root: Path, exclude: tuple[str, ...] = (), *, elsewhere: dict[str, str] | None = None
) -> Tree:
    """List what a project folder pushes, by the rules of ignore.py.

    `elsewhere` are folders that travel on their own (the dataset's), real path here
    to path from the project's root there: a link to that place stands for each, so
    that code which opens them by their old names still can. `root` must be a real
    path. Raises `TransferError` when a folder cannot be read.
    """
    walk = _Walk(root, elsewhere=elsewhere or {})
    walk.folder(root, "", rules_for(root.absolute(), exclude))
    return tree_of(walk.entries, walk.left_out)


def scan_data(root: Path, prefix: str = "", *, skip: Callable[[str], bool] = lambda _: False) -> Tree:
    """List everything below a folder of data, links followed.

    Ignore files are not asked here: data is what the user named, and is ignored by
    git more often than not. Secrets, `.git` and what macOS adds stay at home nevertheless. `prefix`
    is put before every path; `skip` sees file names.
    """
    walk = _Walk(root, prefix=prefix, follow=True, skip=skip)
    walk.folder(root, prefix, Ignore(data=True))
    return tree_of(walk.entries, walk.left_out, follow=True)


def left_at_home(left_out: tuple[str, ...]) -> str:
    """Count in a phrase what stayed at home and surprises nobody; "" when nothing did."""
    counts = [0] * len(KINDS)
    for line in left_out:
        for number, (pattern, _, _) in enumerate(KINDS):
            if re.match(pattern, line, re.DOTALL):
                counts[number] += 1
                break
    said = zip(counts, KINDS, strict=True)
    return ", ".join(f"{count} {one if count == 1 else many}" for count, (_, one, many) in said if count)


def file_entry(source: Path, path: str) -> Entry:
    """Return the entry of one file here, links followed. Raises `TransferError` if it is not one."""
    try:
        info = source.stat()
    except OSError as error:
        raise TransferError(f"cannot read `{source}`: {error.strerror}") from error
    return Entry(path, "file", info.st_size, info.st_mtime_ns, stat.S_IMODE(info.st_mode), str(source))


@dataclass(slots=True)
class _Walk:
    root: Path
    prefix: str = ""
    follow: bool = False
    elsewhere: dict[str, str] = field(default_factory=dict[str, str])
    skip: Callable[[str], bool] = lambda _: False
    entries: list[Entry] = field(default_factory=list[Entry])
    left_out: list[str] = field(default_factory=list[str])
    open: list[str] = field(default_factory=list[str])
    """Real paths of the folders we are in, so that a link to one of them ends."""

    def folder(self, folder: Path, path: str, rules: Ignore) -> None:
        rules = rules.inside(folder, path[len(self.prefix) :]) if not self.follow else rules
        try:
            with os.scandir(folder) as listing:
                found = sorted(listing, key=lambda item: item.name)
        except OSError as error:
            raise TransferError(
                f"cannot read the folder `{folder}`: {error.strerror}",
                hint="change its permissions, or leave it out with `project.exclude`",
            ) from error
        self.open.append(os.path.realpath(folder))
        before = len(self.entries)
        for item in found:
            self.item(item, path + item.name, rules)
        self.open.pop()
        if not found and path != self.prefix and len(self.entries) == before:
            self.entries.append(Entry(path.rstrip("/"), "dir"))

    def item(self, item: os.DirEntry[str], path: str, rules: Ignore) -> None:
        try:
            real = os.path.realpath(item.path) if item.is_symlink() else item.path
            if there := self.elsewhere.get(real):
                self.moved(item, path, there)
                return
            is_dir = item.is_dir(follow_symlinks=self.follow)
            verdict = rules.verdict(path[len(self.prefix) :] + "/" * is_dir, item.path)
            if verdict == "keep" and not is_dir and not self.follow:
                verdict = self.sized(item)
            if verdict not in ("keep", "wanted"):
                self.leave(path + "/" * is_dir, REASONS[verdict].format(path[len(self.prefix) :]))
            elif item.is_symlink() and not self.follow:
                self.link(item, path)
            elif is_dir:
                self.descend(item, path, rules)
            else:
                self.file(item, path)
        except OSError as error:
            self.leave(path, f"cannot be read: {error.strerror}")

    def sized(self, item: os.DirEntry[str]) -> Literal["keep", "big"]:
        """Whether a file of the code is so big that nobody would call it code."""
        big = not item.is_symlink() and item.stat(follow_symlinks=False).st_size > BIG_FILE
        return "big" if big else "keep"

    def moved(self, item: os.DirEntry[str], path: str, there: str) -> None:
        """Let a link stand for a folder that travels on its own; a file (an archive) just goes."""
        if item.is_dir():
            self.entries.append(Entry(path, "link", link="../" * path.count("/") + there))

    def descend(self, item: os.DirEntry[str], path: str, rules: Ignore) -> None:
        if os.path.realpath(item.path) in self.open:
            self.leave(path, "a link back to a folder above it")
        else:
            self.folder(Path(item.path), path + "/", rules)

    def file(self, item: os.DirEntry[str], path: str) -> None:
        if self.skip(item.name):
            return
        info = item.stat(follow_symlinks=self.follow)
        if not stat.S_ISREG(info.st_mode):
            self.leave(path, "neither a file nor a folder")
            return
        mode = stat.S_IMODE(info.st_mode)
        self.entries.append(Entry(path, "file", info.st_size, info.st_mtime_ns, mode, item.path))

    def link(self, item: os.DirEntry[str], path: str) -> None:
        target = os.readlink(item.path)  # noqa: PTH115  (DirEntry, and bytes kept as they are)
        here = os.path.dirname(os.path.abspath(item.path))  # noqa: PTH100, PTH120
        wanted = os.path.normpath(os.path.join(here, target))  # noqa: PTH118
        top = os.path.abspath(self.root)  # noqa: PTH100
        real = os.path.realpath(item.path)
        if _below(wanted, top) and _below(real, os.path.realpath(top)):
            self.entries.append(Entry(path, "link", link=os.path.relpath(wanted, here)))
        else:
            self.leave(path, f"a link that leaves the project: {target}")

    def leave(self, path: str, why: str) -> None:
        if not path.rstrip("/").endswith(QUIET):
            self.left_out.append(f"{path} ({why})")


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
