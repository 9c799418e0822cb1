"""Which names stay at home: caches and outputs, what the user ignores, and secrets.

Rules are looked up from the most particular to the most general, and the last
word in a file wins, as in git: `project.exclude`, then `.cloudtrainignore`, then
`.gitignore` (each: deeper folders first), then the list built in here. Secrets stay at
home unless `.cloudtrainignore` or `project.exclude` names them with `!`: the key
of a cloud account beside the code is common, and must never travel by accident.
A rule that names only the folder around them (`!vendor/`), or everything (`!*`), does
not name them; nor does it name `.git` and caches.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

BUILT_IN = (
    ".git", ".hg", ".svn", "__pycache__/", "*.py[co]", ".venv/", "venv/", "node_modules/",
    ".cache/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".ipynb_checkpoints/", ".tox/", ".nox/",
    ".eggs/", "*.egg-info/", ".DS_Store", "Thumbs.db", "__MACOSX/",
)  # fmt: skip
"""Left out unless a rule of the user's says `!…`; so is `runs/` at the top, where both trainers write."""

IN_DATA = (".git", ".git/", "__MACOSX/", ".DS_Store")
"""Left out of a dataset, where a folder called `runs/` or `venv/` holds images like any other."""

SECRET_FILES = (
    "*.pem", "*.ppk", "*.p12", "*.pfx", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
    ".env", ".env.*", ".netrc", ".pgpass", ".git-credentials", ".pypirc", "kaggle.json",
)  # fmt: skip
SECRET_FOLDERS = (".aws", ".ssh", ".gnupg", ".azure", ".kube")
HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist", "*.pub")
"""Look like secrets and are meant to be shared."""


def _any(patterns: tuple[str, ...], flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """Return one pattern for many: every name is asked for."""
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns), flags)


_SECRET, _HARMLESS = _any(SECRET_FILES, re.IGNORECASE), _any(HARMLESS, re.IGNORECASE)
_IN_DATA = _any(IN_DATA)
_EITHER_WAY = (*BUILT_IN, *(f"{name}/" for name in BUILT_IN if not name.endswith("/")))
_BUILT_IN = _any(_EITHER_WAY)
_MARKED = _any(
    (*SECRET_FILES, "id_*", "*.key", *(f"{name}/" for name in SECRET_FOLDERS), "runs/", *_EITHER_WAY),
    re.IGNORECASE,
)
"""Every name that anything in here speaks of: of the others one look is enough."""

Verdict = Literal["keep", "wanted", "ignored", "built-in", "secret"]
"""`wanted`: a rule of the user's own says that it goes, whatever it is."""


@dataclass(frozen=True, slots=True)
class Word:
    """What the rules say of one path, and the pattern that says it."""

    ignored: bool
    pattern: str


@dataclass(frozen=True, slots=True)
class Rules:
    """One ignore file, or list, and where it lies.

    `folder` is its place below the scanned root (`""` or `a/b/`); `above` is the way from its
    place down to the root when it lies above it.
    """

    folder: str
    spec: GitIgnoreSpec | None
    above: str = ""

    def decide(self, path: str) -> Word | None:
        """Say whether `path` (a folder ends in `/`) is ignored; None when no pattern speaks of it."""
        if self.spec is None or not path.startswith(self.folder):
            return None
        found = self.spec.check_file(self.above + path[len(self.folder) :])
        if found.include is None or found.index is None:
            return None
        return Word(found.include, str(getattr(self.spec.patterns[found.index], "pattern", "")))


@dataclass(frozen=True, slots=True)
class Ignore:
    """All rules in force in one folder, the most particular first."""

    own: tuple[Rules, ...] = ()
    git: tuple[Rules, ...] = ()
    data: bool = False
    """Whether it is a dataset's folder, where less is left out by default."""

    def inside(self, folder: Path, prefix: str) -> Ignore:
        """Return the rules in force in `folder`, whose path from the root is `prefix` (`a/b/`)."""
        own, git = self.own, self.git
        if rules := load(folder / ".cloudtrainignore", prefix):
            own = (*own[:1], rules, *own[1:])
        if rules := load(folder / ".gitignore", prefix):
            git = (rules, *git)
        return Ignore(own, git, self.data) if (own, git) != (self.own, self.git) else self

    def verdict(self, path: str, source: str) -> Verdict:
        """Say whether `path` stays at home. A folder's path ends in `/`."""
        mine, theirs = _first(self.own, path), _first(self.git, path)
        if mine is None and theirs is None and not _MARKED.match(path[path.rfind("/", 0, -1) + 1 :]):
            return "keep"
        if mine is not None and mine.ignored:
            return "ignored"
        if not _names(mine, path) and _is_secret(path, source):
            return "secret"
        if mine is None and theirs is not None and theirs.ignored:
            return "ignored"
        if not _names(mine or theirs, path) and _is_built_in(path, data=self.data):
            return "built-in"
        return "keep" if mine is None else "wanted"


def rules_for(root: Path, exclude: tuple[str, ...]) -> Ignore:
    """Return the rules above `root`: `project.exclude`, and git's up to the repository's top."""
    git = tuple(
        Rules("", _spec(lines), root.relative_to(folder).as_posix() + "/")
        for folder in _above(root)
        if (lines := _lines(folder / ".gitignore"))
    )
    return Ignore((Rules("", _spec(exclude)),), git)


def load(file: Path, prefix: str) -> Rules | None:
    """Read one ignore file; None when there is none."""
    lines = _lines(file)
    return Rules(prefix, _spec(lines)) if lines else None


def _above(root: Path) -> list[Path]:
    if (root / ".git").exists():
        return []
    for depth, folder in enumerate(root.parents):
        if (folder / ".git").exists():
            return list(root.parents[: depth + 1])
    return []


def _spec(lines: tuple[str, ...]) -> GitIgnoreSpec | None:
    if not lines:
        return None
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(lines)
    except (ValueError, re.error):
        return GitIgnoreSpec.from_lines([line for line in lines if _is_pattern(line)])


def _is_pattern(line: str) -> bool:
    r"""Whether pathspec understands a line: what it refuses (`!`, `a\`, `[z-a]`) never matches in git."""
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error):
        return False
    return True


def _is_built_in(path: str, *, data: bool) -> bool:
    """Whether the built-in list names it; what lies above it was asked before, and is kept."""
    name = path.rstrip("/").rsplit("/", 1)[-1]
    if data:
        return _IN_DATA.match(name + "/" * path.endswith("/")) is not None
    if path.endswith("/"):
        return path == "runs/" or _BUILT_IN.match(name + "/") is not None
    return _BUILT_IN.match(name) is not None


def _lines(file: Path) -> tuple[str, ...]:
    try:
        if not file.is_file():
            return ()
        return tuple(file.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines())
    except OSError:
        return ()


def _first(rules: tuple[Rules, ...], path: str) -> Word | None:
    for one in rules:
        if (answer := one.decide(path)) is not None:
            return answer
    return None


def _names(word: Word | None, path: str) -> bool:
    """Whether a rule sends `path` by its own name, or by that of a secret or built-in folder around it."""
    if word is None or word.ignored:
        return False
    segments = [one for one in word.pattern.lstrip("!").split("/") if one.strip("*")]
    last = segments[-1] if segments else ""
    if not re.search(r"\w", re.sub(r"\[[^\]]*\]", "", last)):
        return False  # `*.*` names nothing
    wanted = re.compile(fnmatch.translate(re.sub(r"\\(.)", r"[\1]", last)))
    *above, name = path.rstrip("/").split("/")
    return wanted.match(name) is not None or any(
        wanted.match(one) for one in above if one.lower() in SECRET_FOLDERS or _BUILT_IN.match(f"{one}/")
    )


def _is_secret(path: str, source: str) -> bool:
    name = path.rstrip("/").rsplit("/", 1)[-1]
    if path.endswith("/"):
        return name.lower() in SECRET_FOLDERS
    if _SECRET.match(name):
        return not _HARMLESS.match(name)
    if not name.lower().startswith("id_") and not name.lower().endswith(".key"):
        return False
    return not _HARMLESS.match(name) and _private_key_inside(source)


def _private_key_inside(source: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(source).st_mode):  # noqa: PTH116
            return False  # opening a pipe would wait for ever
        with open(source, "rb") as file:  # noqa: PTH123
            return b"PRIVATE KEY-----" in file.read(256)
    except OSError:
        return False
