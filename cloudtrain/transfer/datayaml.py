"""A detection dataset as a data.yaml describes it, and what of it has to move.

Follows what the two trainers do with such a file (ultralytics 8.4
`check_det_dataset`, yolov5 `check_dataset`): `path` is the root, relative to the
file, the working folder or the checkout; `train`, `val` and `test` are folders,
lists of image paths (.txt), or YAML lists of either; the labels of an image lie
where the last `/images/` of its path reads `/labels/`, else beside it. The
local file is only read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cloudtrain.errors import ConfigError, Problem
from cloudtrain.transfer.yamlfile import NoYaml, key_lines, parsed

SPLITS = ("train", "val", "test")
IMAGES = frozenset(
    "avif bmp dng heic heif jp2 jpeg jpeg2000 jpg mpo pfm png tif tiff webp".split()  # noqa: SIM905
)
"""Suffixes that the trainers take for images."""


@dataclass(frozen=True, slots=True)
class DataYaml:
    """What moves: `folders` whole and `files` singly, here to there; `lists` are written anew.

    Remote paths are relative to the dataset's folder on the machine, "" is itself.
    """

    file: Path
    document: dict[str, Any]
    folders: tuple[tuple[Path, str], ...]
    files: tuple[tuple[Path, str], ...]
    lists: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    def render(self, data: str) -> str:
        """Return the text of the remote data.yaml when the dataset lies in `data`."""
        import yaml

        kept = {key: value for key, value in self.document.items() if key not in ("path", "download")}
        return yaml.safe_dump({"path": data, **kept}, sort_keys=False, allow_unicode=True, width=4096)


def read_data_yaml(file: Path, shown: str, bases: tuple[Path, ...]) -> DataYaml:
    """Read and check a data.yaml. `shown` is its name in messages.

    A relative `path` is looked for from the file's folder and then from `bases`.
    Raises `ConfigError` with every problem at once.
    """
    document, lines = _load(file, shown)
    if "val" not in document and "validation" in document:
        document["val"] = document.pop("validation")
    reader = _Reader(file, shown, lines, document)
    reader.check_names()
    for split in ("train", "val"):
        if not document.get(split):
            reader.problem(split, f"`{split}:` is missing: the trainers need both `train` and `val`")
    if not reader.problems:
        reader.choose_root(bases)
        for split in SPLITS:
            reader.split(split)
    if reader.problems:
        raise ConfigError(
            tuple(reader.problems), hint=f"correct `{shown}`, or name another with `dataset.path`"
        )
    return reader.result()


def _load(file: Path, shown: str) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        document = parsed(text)
    except NoYaml as error:
        raise ConfigError((Problem(shown, error.line, f"this is no YAML: {error}"),)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError((Problem(shown, 0, f"cannot be read: {error}"),)) from error
    if not isinstance(document, dict):
        raise ConfigError((Problem(shown, 1, "expected `train:`, `val:` and `names:`"),))
    return cast("dict[str, Any]", document), key_lines(text)


@dataclass(slots=True)
class _Reader:
    file: Path
    shown: str
    lines: dict[str, int]
    document: dict[str, Any]
    root: Path = field(default_factory=Path)
    rootless: bool = False
    problems: list[Problem] = field(default_factory=list[Problem])
    notes: list[str] = field(default_factory=list[str])
    folders: dict[Path, str] = field(default_factory=dict[Path, str])
    files: dict[Path, str] = field(default_factory=dict[Path, str])
    lists: dict[str, str] = field(default_factory=dict[str, str])
    anchors: dict[Path, str] = field(default_factory=dict[Path, str])

    def problem(self, key: str, message: str) -> None:
        self.problems.append(Problem(self.shown, self.lines.get(key, 0), message))

    def check_names(self) -> None:
        names, count = self.document.get("names"), self.document.get("nc")
        if names is None and count is None:
            self.problem("names", "`names:` is missing: the trainers need the classes' names")
        elif names is not None and not isinstance(names, (list, dict)):
            self.problem("names", "`names:` must be a list, or a mapping from number to name")
        elif names is not None and count is not None and str(len(cast("list[Any]", names))) != str(count):
            self.problem("nc", f"`nc: {count}`, but `names:` has {len(cast('list[Any]', names))}")

    def choose_root(self, bases: tuple[Path, ...]) -> None:
        given = str(self.document.get("path") or "")
        home = self.file.parent
        if not given:
            candidates = [home, *bases]
        else:
            candidates = [base / os.path.expanduser(given) for base in (home, *bases, home.parent)]  # noqa: PTH111
        required = [value for split in ("train", "val") for value in _values(self.document[split])]
        there = [root for root in candidates if os.path.isdir(root)]  # noqa: PTH112  (no name raises)
        fits = (root for root in there if all(_find(root, value) for value in required))
        root = next(fits, there[0] if there else None)
        if root is None and given:
            self.problem("path", f"`path: {given}` is not there (looked for `{candidates[0]}`)")
            self.rootless = True
        else:
            self.root = Path(os.path.realpath(root or home))

    def split(self, split: str) -> None:
        """Find one split, note what moves for it, and rewrite it in the document."""
        given = self.document.get(split)
        if not given or self.rootless:
            self.document.pop(split, None)
            return
        remote: list[str] = []
        for value in _values(given):
            path = _find(self.root, value)
            if path is None and split == "test":
                self.notes.append(f"test: {value} (not there; `test:` is left out on the machine)")
            elif path is None:
                self.problem(split, f"`{split}: {value}` is not there (looked for `{self.root / value}`)")
            elif path.is_dir():
                remote.append(self.folder(split, path) or ".")
            else:
                remote.append(self.list_file(split, path))
        self.document[split] = remote if isinstance(given, list) else (remote or [""])[0]
        if not remote:
            self.document.pop(split)

    def folder(self, split: str, path: Path) -> str:
        """Take a folder of images and its labels; return where it will lie."""
        if not _any_file(path, IMAGES):
            self.problem(split, f"`{split}:` has no images: nothing of a known suffix in `{path}`")
        labels = _labels_of(path)
        self.folders[path] = self.place(path)
        if labels is not None and labels.is_dir():
            self.folders[labels] = _labelled(self.folders[path])
        if split == "train" and not _any_file(labels or path, frozenset(("txt",))):
            self.problem(split, f"`{split}:` has no labels: no .txt in `{labels or path}`")
        return self.folders[path]

    def list_file(self, split: str, path: Path) -> str:
        """Take every image that a list names, and its label; return where the new list will lie."""
        rows: list[str] = []
        missing = 0
        lines = self.lines_of(split, path)
        for number, line in enumerate(lines or (), 1):
            if not (given := line.strip()):
                continue
            image = self.listed(path, given)
            if image is None:
                missing += 1
                if missing == 1:
                    self.problems.append(Problem(str(path), number, f"`{given}` is not there"))
                continue
            folder = self.place(image.parent)
            self.files[image] = f"{folder}/{image.name}".lstrip("/")
            label = _label_of(image)
            if label.is_file():
                self.files[label] = f"{_labelled(folder)}/{label.name}".lstrip("/")
            rows.append(f"./{self.files[image]}")
        if lines is not None and not rows and not missing:
            self.problem(split, f"`{split}:` names no image: `{path}` is empty")
        name = f"{split}-{len(self.lists)}.txt"
        self.lists[name] = "".join(f"{row}\n" for row in rows)
        return name

    def lines_of(self, split: str, path: Path) -> list[str] | None:
        """Read a list of images; None for what is none, which is a problem that names it."""
        if path.suffix[1:].lower() in IMAGES:
            self.problem(
                split, f"`{split}:` names one image, `{path}`: name its folder, or a .txt that lists it"
            )
            return None
        try:
            return path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError:
            self.problems.append(
                Problem(str(path), 0, "is no text in UTF-8: write this list of images anew in it")
            )
        except OSError as error:
            self.problems.append(Problem(str(path), 0, f"cannot be read: {error.strerror}"))
        return None

    def listed(self, file: Path, given: str) -> Path | None:
        base = file.parent if given.startswith("./") else self.root
        for folder in (base, file.parent, self.file.parent):
            path = Path(os.path.abspath(folder / given))  # noqa: PTH100  (a linked image keeps its name)
            if os.path.isfile(path):  # noqa: PTH113  (false for a name that no file can have)
                return path
        return None

    def place(self, folder: Path) -> str:
        """Return where a folder of images will lie, so that the trainers find the labels from there.

        Below the remote dataset as below the root, unless the `images` of its path that becomes
        `labels` is the root or above it: the labels lie outside then, and so must the images.
        """
        at = _deciding(folder.parts)
        if folder.is_relative_to(self.root) and (at is None or at >= len(self.root.parts)):
            rest = folder.relative_to(self.root).as_posix()
            return "" if rest == "." else rest
        anchor = folder if at is None else Path(*folder.parts[:at])
        name = self.anchors.setdefault(anchor, f"outside-{len(self.anchors) + 1}")
        rest = folder.relative_to(anchor).as_posix()
        return name if rest == "." else f"{name}/{rest}"

    def result(self) -> DataYaml:
        return DataYaml(
            self.file,
            self.document,
            tuple(self.folders.items()),
            tuple(self.files.items()),
            tuple(self.lists.items()),
            tuple(self.notes),
        )


def _values(given: object) -> list[str]:
    if isinstance(given, list):
        return [str(value) for value in cast("list[object]", given)]
    return [str(given)]


def _find(root: Path, value: str) -> Path | None:
    """Resolve one split as ultralytics does: a `../` too many is forgiven (Roboflow writes it)."""
    options = [root / value]
    if value.startswith("../"):
        options.append(root / value[3:])
    for option in options:
        if os.path.exists(option):  # noqa: PTH110  (false for a name that no file can have)
            return Path(os.path.abspath(option))  # noqa: PTH100  (`/images/` may be a link's name)
    return None


def _deciding(parts: Sequence[str]) -> int | None:
    """Which part of a folder's path becomes `labels`; None when the labels lie beside the images."""
    return max((at for at, name in enumerate(parts) if name == "images"), default=None)


def _labels_of(folder: Path) -> Path | None:
    """The labels' folder of a folder of images; None when they lie inside it."""
    at = _deciding(folder.parts)
    return None if at is None else Path(*folder.parts[:at], "labels", *folder.parts[at + 1 :])


def _labelled(place: str) -> str:
    """Where the labels of the images in a folder there must lie."""
    parts = place.split("/")
    if (at := _deciding(parts)) is not None:
        parts[at] = "labels"
    return "/".join(parts)


def _label_of(image: Path) -> Path:
    return ((_labels_of(image.parent) or image.parent) / image.name).with_suffix(".txt")


def _any_file(folder: Path, suffixes: frozenset[str]) -> bool:
    for _, _, names in os.walk(folder, followlinks=True):
        if any(name.rpartition(".")[-1].lower() in suffixes for name in names):
            return True
    return False
