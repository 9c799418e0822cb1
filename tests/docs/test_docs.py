"""Documentation that a program can check: links lead somewhere, commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from cloudtrain.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "examples", ROOT / "benchmarks", ROOT / "ami")
    for path in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
)
COMMAND: Any = typer.main.get_command(app)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_commands_and_options_exist(page: Path) -> None:
    calls = re.findall(r"(?:`| {4})cloudtrain ([a-z][a-z-]*)([^`\n#]*)", page.read_text())
    for verb, rest in calls:
        assert verb in COMMAND.commands, f"`cloudtrain {verb}`"
        command = COMMAND.commands[verb]
        known = {word for param in command.params for word in param.opts + param.secondary_opts}
        own = rest.split(" -- ")[0]
        used = set(re.findall(r"(?<=\s)--?[a-z][a-z0-9-]*", own))
        inner: Any = getattr(command, "commands", {})
        known |= {w for sub in inner.values() for p in sub.params for w in p.opts + p.secondary_opts}
        assert used <= known, f"`cloudtrain {verb}{rest}`"
