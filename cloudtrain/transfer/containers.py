"""Is a checkpoint whole? Answered from its container, never by unpickling it.

A pickle runs code when it is loaded, and a machine that trained other people's
code must not run any here. PyTorch writes zip archives: the directory is at the
very end, and every member has a CRC-32, so reading all of it proves every byte
that a loader would read; the directory is compared with what it lists. safetensors
says in its header how long the file must be, HDF5 where it ends. A pickle, as PyTorch
wrote them before, is walked to its end without running it. For anything else only its
hash, and its standing still, can speak. What a file is its first bytes tell before its name.
"""

from __future__ import annotations

import errno
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Literal, cast

from cloudtrain.errors import TornCheckpoint
from cloudtrain.transfer.hdf5 import SIGNATURE, shortfall
from cloudtrain.transfer.pickles import is_pickle, missing
from cloudtrain.transfer.zipdirectory import disagreement, is_torch

Proof = Literal["zip", "safetensors", "pickle", "still"]
CHECKPOINTS = (".pt", ".pth", ".pth.tar", ".ckpt", ".safetensors", ".onnx", ".bin", ".h5", ".keras", ".npz")
ZIPPED = (".pt", ".pth", ".pth.tar", ".ckpt", ".keras", ".npz")
PICKLED = (".pt", ".pth", ".pth.tar", ".ckpt")
ZIP = b"PK\x03\x04"
HEAD = 4096
"""How much of a file's beginning is looked at, in bytes."""
HEADER_LIMIT = 100_000_000
"""The longest header that the safetensors format allows, in bytes."""


def is_checkpoint(name: str) -> bool:
    """Whether a file of this name holds weights."""
    return name.lower().endswith(CHECKPOINTS)


def prove(path: Path, name: str = "") -> Proof:
    """Read a file as the container that its name promises (`name`, else the path's own).

    Returns how it was proven; `still` means that the format has no proof of its own,
    and that its hash and its standing still must do. Raises `TornCheckpoint`.
    """
    try:
        return _prove(path, (name or path.name).lower())
    except TornCheckpoint:
        raise
    except Exception as error:
        # What reads a broken file fails as it likes (MemoryError, RecursionError, LZMAError); a seek to where
        # the file points is EINVAL, and bz2 gives no number. Any other OSError is of the disk here.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise TornCheckpoint(f"`{path.name}` is not whole: {error or type(error).__name__}") from error


def _prove(path: Path, name: str) -> Proof:
    size = path.stat().st_size
    if size == 0:
        raise TornCheckpoint(f"`{path.name}` is empty")
    with path.open("rb") as file:
        start = file.read(HEAD)
    if wrong := _broken_head(start, name):
        raise TornCheckpoint(f"`{path.name}` is not whole: {wrong}")
    if name.endswith(".safetensors"):
        _prove_safetensors(path, size)
        return "safetensors"
    pickled = is_pickle(start) or (name.endswith(PICKLED) and start[:1] == b"\x80")
    if pickled or start.startswith(SIGNATURE):
        if what := missing(path) if pickled else shortfall(start, size):
            raise TornCheckpoint(f"`{path.name}` is not whole: {what}")
        return "pickle" if pickled else "still"
    return _prove_zip(path) if start.startswith(ZIP) or _must_be_zip(path, name, start) else "still"


def _broken_head(start: bytes, name: str) -> str:
    """Return what is wrong with a file's first bytes whatever it is, "" when nothing is."""
    if is_checkpoint(name) and not start.strip(b"\0"):
        return "it begins with zeros alone"  # a machine that loses power leaves files of their length so
    if any(start != magic and magic.startswith(start) for magic in (ZIP, SIGNATURE, b"\x80\x02")):
        return "it ends in its first bytes"
    return ""


def _must_be_zip(path: Path, name: str, start: bytes) -> bool:
    """Whether a file that begins like nothing known can only be a broken archive."""
    if not name.endswith(ZIPPED) or start[:1] == b"\x80":
        return False
    return not (name.endswith(".tar") and tarfile.is_tarfile(path))  # it may be what it is called


def _prove_zip(path: Path) -> Proof:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if not members:
            raise TornCheckpoint(f"`{path.name}` is an empty archive")
        if wrong := disagreement(path, archive):
            raise TornCheckpoint(f"`{path.name}` is not a whole archive: {wrong}")
        summed = not is_torch(members) or any(member.compress_type or member.CRC for member in members)
        for member in members:
            _read(archive, member, summed=summed)
    return "zip" if summed else "still"


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, summed: bool) -> None:
    """Read a member to its end; unless `summed`, PyTorch was told to write no CRC, and 0 stands for all."""
    with archive.open(member) as file:
        try:
            while file.read(1 << 20):  # the CRC is compared when the end is read
                pass
        except zipfile.BadZipFile:  # of a stored member, only that comparison
            if summed:
                raise


def _prove_safetensors(path: Path, size: int) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > HEADER_LIMIT or 8 + length > size:
            raise TornCheckpoint(f"`{path.name}` is shorter than its header")
        raw = file.read(length)
    try:
        header = cast("dict[str, dict[str, Any]]", json.loads(raw))
        spans = sorted(
            (int(tensor["data_offsets"][0]), int(tensor["data_offsets"][1]))
            for name, tensor in header.items()
            if name != "__metadata__"
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise TornCheckpoint(f"the header of `{path.name}` cannot be read") from error
    end = 0
    for start, stop in spans:
        if start != end or stop < start:
            raise TornCheckpoint(f"the tensors of `{path.name}` do not follow each other")
        end = stop
    if 8 + length + end != size:
        raise TornCheckpoint(f"`{path.name}` has {size} bytes and its header says {8 + length + end}")
