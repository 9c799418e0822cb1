"""The checkpoint that was at home before: it stays where the newer one turns out to be of an earlier epoch.

That happens when a training went back: resumed from an older copy, or begun again in its folder.
What epoch a checkpoint is of is known only once it is here, so the one before is set aside first,
under its epoch; a fetch that breaks in between leaves it to the next one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cloudtrain.transfer.index import Index

FOLDER = "earlier"
"""Below a session's folder at home."""
_ASIDE = ".aside"
_MARK = "-epoch"


def set_aside(destination: Path, name: str, epoch: int | None) -> None:
    """Keep a second name of a file that is about to be replaced; it costs no room until then.

    One of which the epoch is not known could never be told to be the later one.
    """
    if epoch is None:
        return
    path = destination / FOLDER / _ASIDE / name
    aside = path.with_name(f"{path.stem}{_MARK}{epoch}{path.suffix}")
    aside.parent.mkdir(parents=True, exist_ok=True)
    aside.unlink(missing_ok=True)
    try:
        os.link(destination / name, aside)
    except FileNotFoundError:
        return
    except OSError:  # a file system without links
        shutil.copyfile(destination / name, aside)


def settle(destination: Path, index: Index) -> tuple[str, ...]:
    """Keep what was set aside where it is of a later epoch than what came, and say so; remove the rest."""
    folder = destination / FOLDER
    said: list[str] = []
    for aside in sorted((folder / _ASIDE).rglob(f"*{_MARK}*")):
        stem, _, epoch = aside.stem.rpartition(_MARK)
        name = aside.with_name(f"{stem}{aside.suffix}").relative_to(folder / _ASIDE).as_posix()
        now = index.record(name)
        if now is None or now.epoch is None:
            continue  # nobody can tell yet
        if now.epoch < int(epoch):
            aside.replace(folder / aside.name)
            said.append(
                f"`{name}` is of epoch {now.epoch} on the machine; "
                f"the one of epoch {epoch} stays as `{FOLDER}/{aside.name}`"
            )
        else:
            aside.unlink()
    if not any(path.is_file() for path in (folder / _ASIDE).rglob("*")):
        shutil.rmtree(folder / _ASIDE, ignore_errors=True)
    return tuple(said)
