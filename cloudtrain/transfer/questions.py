"""What is asked before the code is sent: environment files and big files.

The answer is a line in .cloudtrainignore, where it can be read, changed and shared. Where nobody
can be asked these files stay at home, and that is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cloudtrain.models.config import Config
from cloudtrain.transfer.push import project_root, project_tree

_LEFT = re.compile(r"(?P<path>.+) \((?P<why>looks like a secret|bigger than 256 MiB).*\)", re.DOTALL)


def ask_about(config: Config, base: Path, ask: Callable[[str], bool]) -> None:
    """Ask about every environment file and big file of the project that no rule speaks of yet."""
    if config.project.git is not None:
        return
    for line in project_tree(config, base).left_out:
        found = _LEFT.fullmatch(line)
        if found is None:
            continue
        path, why = found["path"], found["why"]
        name = path.rsplit("/", 1)[-1]
        if why.startswith("bigger") or name == ".env" or name.startswith(".env."):
            yes = ask(
                f"`{path}` {why if why[0] == 'l' else 'is ' + why}: send it? (.cloudtrainignore keeps the answer)"
            )
            _remember(project_root(config, base) / ".cloudtrainignore", path, yes=yes)


def _remember(file: Path, path: str, *, yes: bool) -> None:
    before = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
    end = "" if not before or before.endswith("\n") else "\n"
    plain = re.sub(r"([\\*?\[\] !#])", r"\\\1", path)
    file.write_text(
        f"{before}{end}{'!' if yes else ''}/{plain}\n", encoding="utf-8", errors="surrogateescape"
    )
