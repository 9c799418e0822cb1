"""What of a session is at home already, proven: `.index.json` beside the fetched files.

A record is believed only while the file here still has the size and time it was
accepted with; anything else is fetched again. A lost index costs a fetch, nothing more.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from cloudtrain.transfer.room import writing

NAME = ".index.json"
NEW = ".index.new"
"""Records since the index was last written, a line each: what a process that is killed leaves."""
TORN = ".torn.json"
"""Checkpoints that were never whole, as they were listed: name to path, size and time on the machine,
and the name of the secured copy that stands in for it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted file: what it was on the machine, and what it is here.

    `mtime` is the machine's own text, "" when the file went on changing while it was
    fetched. `epoch` and `metrics` are those of the moment it was fetched.
    """

    remote: str
    size: int
    mtime: str
    sha256: str
    here: tuple[int, int]
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])


class Index:
    """The records of one destination, by path below it."""

    def __init__(self, destination: Path) -> None:
        self._folder = destination
        self._records = _load(destination / NAME)
        _add(self._records, destination / NEW)
        self._new: list[str] = []
        self._lock = threading.Lock()
        self._torn = _torn(destination / TORN)
        self._rewritten: set[str] = set()

    def record(self, name: str) -> Record | None:
        """Return the record of a file that is here as it was accepted; None otherwise."""
        record = self._records.get(name)
        return record if record is not None and stamp(self._folder / name) == record.here else None

    def proves(self, name: str, remote: str, size: int, mtime: str) -> bool:
        """Whether exactly this file of the machine is here."""
        record = self.record(name)
        return record is not None and (record.remote, record.size, record.mtime) == (remote, size, mtime)

    def refuse(self, name: str, remote: str, size: int, mtime: str, copy: str) -> None:
        """Remember a checkpoint that is torn on the machine and stands still, and whose `copy` is here."""
        self._torn[name] = [remote, str(size), mtime, copy]

    def torn(self, name: str, remote: str, size: int, mtime: str) -> bool:
        """Whether exactly this file of the machine was found torn, and its own copy is here."""
        said = self._torn.get(name, [])
        return len(said) == 4 and said[:3] == [remote, str(size), mtime] and self.record(said[3]) is not None

    def rewrite(self, name: str) -> None:
        """Remember that the copy here is no beginning of the machine's file, until another is accepted."""
        self._rewritten.add(name)

    def begins(self, name: str) -> bool:
        """Whether the copy here may be the beginning of a file that grows."""
        return name not in self._rewritten

    def accept(self, name: str, record: Record) -> None:
        """Remember a file that was proven and renamed into place."""
        self._records[name] = record
        self._rewritten.discard(name)
        self._new.append(name)

    def keep(self) -> None:
        """Write what was accepted since the last time, and no more than that. Raises `OSError`."""
        with self._lock:
            new, self._new = self._new, []
            if new:
                lines = (json.dumps([name, asdict(self._records[name])]) for name in new)
                with (self._folder / NEW).open("a", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in lines)
                    file.flush()
                    os.fsync(file.fileno())

    def describe(self, name: str, epoch: int | None, metrics: dict[str, float]) -> None:
        """Add what is known of a checkpoint."""
        self._records[name] = replace(self._records[name], epoch=epoch, metrics=metrics)

    def save(self) -> None:
        """Write the index whole or not at all. Raises `TransferError` when the disk refuses it."""
        with writing(self._folder):
            self._write()

    def _write(self) -> None:
        part = self._folder / f"{NAME}.part"
        text = json.dumps({name: asdict(record) for name, record in self._records.items()}, indent=1)
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / NAME)
        (self._folder / NEW).unlink(missing_ok=True)
        self._new = []
        if self._torn:
            (self._folder / TORN).write_text(json.dumps(self._torn), encoding="utf-8")


def stamp(path: Path) -> tuple[int, int] | None:
    """Return size and nanoseconds of a file here, None when there is none."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_size, info.st_mtime_ns


def _torn(file: Path) -> dict[str, list[str]]:
    try:
        return cast("dict[str, list[str]]", json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _load(file: Path) -> dict[str, Record]:
    try:
        loaded = cast("dict[str, dict[str, Any]]", json.loads(file.read_text(encoding="utf-8")))
        return {name: _record(values) for name, values in loaded.items()}
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return {}


def _add(records: dict[str, Record], file: Path) -> None:
    """Add what a process that was killed had accepted; a line that it did not end is none."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            name, values = cast("tuple[str, dict[str, Any]]", json.loads(line))
            record, known = _record(values), records.get(name)
            # The index was written after it, and says more.
            if known is None or (known.here, known.sha256) != (record.here, record.sha256):
                records[name] = record


def _record(values: dict[str, Any]) -> Record:
    size, mtime_ns = values.pop("here")
    return Record(**values, here=(int(size), int(mtime_ns)))
