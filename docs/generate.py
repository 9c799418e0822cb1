"""Write docs/reference from the code; with `--check` only say whether it is up to date.

The texts are taken from the commands and the configuration themselves, so they cannot
drift; nothing of a terminal's width or a library's layout goes into them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from cloudtrain.cli.app import app
from cloudtrain.config import reference

HERE = Path(__file__).parent / "reference"
MADE = "<!-- made by `make docs` from the code: change it there -->\n\n"


def main() -> int:
    """Write or compare; return the exit code."""
    check = "--check" in sys.argv
    stale = [name for name, text in pages().items() if not same(HERE / name, text)]
    for name in stale:
        if check:
            sys.stderr.write(
                f"error: docs/reference/{name} is out of date\nhint: `make docs` writes it anew\n"
            )
        else:
            HERE.mkdir(exist_ok=True)
            (HERE / name).write_text(pages()[name])
            sys.stdout.write(f"wrote docs/reference/{name}\n")
    return 1 if check and stale else 0


def same(path: Path, text: str) -> bool:
    """Whether a file holds exactly this text."""
    return path.is_file() and path.read_text() == text


def pages() -> dict[str, str]:
    """Return the pages by name."""
    commands = "\n".join(command_lines("cloudtrain", typer.main.get_command(app)))
    return {"commands.md": f"{MADE}# Commands\n\n{commands}", **reference.pages()}


def command_lines(name: str, command: Any) -> Iterator[str]:  # noqa: ANN401 - a click command, whichever click it is
    """Yield a section for a command and for those below it."""
    below: dict[str, Any] = getattr(command, "commands", {})
    arguments = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([name, *(["COMMAND"] if below else []), *arguments, "[OPTIONS]"])
    yield f"## {name}\n"
    yield f"{one_line(command.help)}\n\n    {usage}\n"
    options = [
        p
        for p in command.params
        if p.param_type_name == "option" and not p.hidden and "completion" not in p.name
    ]
    yield from (f"- `{spelled(option)}`: {one_line(option.help)}" for option in options)
    if options:
        yield ""
    if command.epilog:
        yield f"{one_line(command.epilog)}\n"
    for word, inner in below.items():
        yield from command_lines(f"{name} {word}", inner)


def spelled(option: Any) -> str:  # noqa: ANN401 - a click option
    """Return every spelling of an option, with the word for its value."""
    words = ", ".join([*option.opts, *option.secondary_opts])
    return words if option.is_flag else f"{words} {option.metavar or 'VALUE'}"


def one_line(text: str | None) -> str:
    """Return a text without its line breaks."""
    return " ".join((text or "").split())


if __name__ == "__main__":
    sys.exit(main())
