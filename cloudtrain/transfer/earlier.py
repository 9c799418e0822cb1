"""The checkpoint that was at home before: it stays where the newer one turns out to be of an earlier epoch.

That happens when a training went back: resumed from an older copy, or begun again in its folder.
What epoch a checkpoint is of is known only once it is here, so the one before is set aside first.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from cloudtrain.transfer.index import Record

FOLDER = "earlier"
"""Below a session's folder at home."""


def set_aside(destination: Path, name: str) -> None:
    """Keep a second name of a file that is about to be replaced; it costs no room until then."""
    aside = _aside(destination, name)
    aside.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        aside.parent.mkdir(exist_ok=True)
        try:
            os.link(destination / name, aside)
        except PermissionError:  # a file system without links
            shutil.copyfile(destination / name, aside)


def settle(destination: Path, name: str, before: Record | None, now: Record | None) -> str:
    """Keep what was set aside where it is of a later epoch than what came; say so, else nothing."""
    aside = _aside(destination, name)
    if not aside.exists():
        return ""
    was = before.epoch if before is not None else None
    came = now.epoch if now is not None else None
    if was is None or came is None or came >= was:
        aside.unlink()
        with suppress(OSError):
            aside.parent.rmdir()  # others lie there
        return ""
    path = Path(name)
    kept = aside.parent / f"{path.stem}-epoch{was}{path.suffix}"
    aside.replace(kept)
    return (
        f"`{name}` is of epoch {came} on the machine; the one of epoch {was} stays as `{FOLDER}/{kept.name}`"
    )


def _aside(destination: Path, name: str) -> Path:
    return destination / FOLDER / f".{name.replace('/', '-')}"
