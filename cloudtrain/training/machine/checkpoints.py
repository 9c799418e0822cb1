"""Checkpoints on the machine: proven whole, copied, found again.

Both YOLO trainers write last.pt in place, so a copy taken at the wrong moment, a kill or a full
disk leaves a torn one. A secured checkpoint is a copy of its own (a link would be truncated with
the original) that was looked at twice, read as the container it is, flushed, and only then
renamed; its sidecar, JSON of the same name, says what it is:
{"file", "source", "epoch", "metrics", "size", "sha256", "at"}; `epoch` counts finished epochs.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import time
import zipfile
from pathlib import Path
from typing import Any

KEPT = 2


def whole(path: Path, suffix: str = "") -> bool:
    """Whether a checkpoint is complete, by its container: a zip's directory, a safetensors header.

    `suffix` says what it is where its name does not.
    """
    suffix = suffix or path.suffix
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            if suffix == ".safetensors":
                length = int.from_bytes(head, "little")
                header: dict[str, Any] = json.loads(file.read(min(length, size)))
                ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
                return size == 8 + length + max(ends or [0])
        if head[:2] == b"PK":
            with zipfile.ZipFile(path) as container:
                return bool(container.infolist())
        # Any other format proves nothing; a .pt or .pth is a zip since torch 1.6, or an old pickle.
        return size > 0 and (suffix not in (".pt", ".pth") or head[:1] == b"\x80")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return False


def proves_itself(path: Path) -> bool:
    """Whether the format can tell a whole file from one that is being written: zip and safetensors."""
    try:
        with path.open("rb") as file:
            return path.suffix == ".safetensors" or file.read(2) == b"PK"
    except OSError:
        return False


def secure(
    source: Path, folder: Path, *, epoch: int | None, metrics: dict[str, Any], session: Path | None = None
) -> Path | None:
    """Copy a checkpoint into `folder` and return the copy, None when it changed meanwhile or is torn.

    The last two of its kind are kept: names that differ only in their digits are one kind.
    Raises `OSError`, a full disk for one; nothing half-made stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{source.name}.{os.getpid()}.part"
    try:
        copied = _copy(source, part)
        if copied is None:
            return None
        stamp = time.time()
        name = f"{_number(folder):05d}-{source.name}"
        known = {"file": name, "source": str(source), "epoch": epoch, "metrics": finite(metrics), "at": stamp}
        sidecar = dict(known, size=part.stat().st_size, sha256=copied)
        write(folder / f"{name}.json", sidecar)
        part.replace(folder / name)
        _flush(folder)
    finally:
        part.unlink(missing_ok=True)
    _forget(folder, source)
    if session is not None:
        write(session / "secured", dict(sidecar, path=str(folder / name)))
    return folder / name


def secured(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the secured checkpoints with their sidecars, the furthest and newest first."""
    found: list[tuple[Path, dict[str, Any]]] = []
    for sidecar in folder.glob("*.json"):
        path = sidecar.with_suffix("")
        try:
            known: dict[str, Any] = json.loads(sidecar.read_text())
            if path.stat().st_size == known["size"] and whole(path):
                found.append((path, known))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda one: (one[1].get("epoch") or 0, one[1].get("at") or 0), reverse=True)


def restore(source: Path, target: Path) -> None:
    """Put a checkpoint where a trainer looks for it, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        if _copy(source, part) is None:
            raise OSError(f"{source} changed while it was copied")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)  # on a full disk it would keep the disk full
    _flush(target.parent)


def trim(results: Path, last: int) -> bool:
    """Drop a results.csv's rows after epoch `last` (as the trainer counts), torn and double ones.

    The row is written before the checkpoint, so a resumed training would write it again.
    Returns whether there was anything to drop.
    """
    if not results.is_file():
        return False
    before = results.read_text()
    lines = before.splitlines()
    if not lines:
        return False
    width = len(next(csv.reader([lines[0]])))
    rows: dict[int, str] = {}
    for line in lines[1:]:
        cells = [*csv.reader([line]), [""]][0]
        number = cells[0].strip() if cells else ""
        if len(cells) == width and re.fullmatch(r"\d+(\.0*)?", number) and int(float(number)) <= last:
            rows[int(float(number))] = line
    after = "\n".join([lines[0], *(rows[number] for number in sorted(rows))]) + "\n"
    if after == before:
        return False
    part = results.with_name(f".{results.name}.part")
    with part.open("w") as file:
        file.write(after)
        file.flush()
        os.fsync(file.fileno())
    part.replace(results)
    return True


def finite(metrics: dict[str, Any]) -> dict[str, float]:
    """Return what JSON can say of metrics: finite numbers."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            found[str(name)] = number
    return found


def write(path: Path, value: dict[str, Any]) -> None:
    """Write JSON whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _copy(source: Path, target: Path) -> str | None:
    """Copy and flush; return the sha256, None when the source changed or the copy is not whole."""
    before = source.stat()
    digest = hashlib.sha256()
    with source.open("rb") as old, target.open("wb") as new:
        while True:
            piece = old.read(1 << 20)
            if not piece:
                break
            digest.update(piece)
            new.write(piece)
        new.flush()
        os.fsync(new.fileno())
    after = source.stat()
    same = (before.st_ino, before.st_size, before.st_mtime_ns) == (
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    )
    return digest.hexdigest() if same and whole(target, source.suffix) else None


def _number(folder: Path) -> int:
    numbers = [int(one.name[:5]) for one in folder.glob("[0-9][0-9][0-9][0-9][0-9]-*")]
    return max(numbers, default=0) + 1


def _forget(folder: Path, source: Path) -> None:
    """Remove all but the last two of the source's kind."""
    mine = [one for one in secured(folder) if _kind(str(one[1].get("source"))) == _kind(str(source))]
    newest = sorted(mine, key=lambda one: one[0].name, reverse=True)
    for path, _ in newest[KEPT:]:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".json").unlink(missing_ok=True)


def _kind(source: str) -> str:
    """Return what checkpoints of one kind share; not the folders above, for a run may be moved."""
    return re.sub(r"\d+", "#", "/".join(source.split("/")[-2:]))


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
