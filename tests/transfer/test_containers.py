"""A torn checkpoint is never taken for a whole one."""

from __future__ import annotations

import json
import os
import random
import zipfile
from pathlib import Path

import pytest

from cloudtrain.errors import TornCheckpoint
from cloudtrain.transfer.containers import prove


def make_pt(path: Path, size: int = 20_000, seed: int = 0) -> Path:
    """Write a zip laid out as PyTorch does: stored members, data.pkl first."""
    chance = random.Random(seed)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("last/data.pkl"), b"\x80\x02}q\x00." + chance.randbytes(200))
        archive.writestr(zipfile.ZipInfo("last/version"), "3\n")
        for number in range(4):
            archive.writestr(zipfile.ZipInfo(f"last/data/{number}"), chance.randbytes(size // 4))
    return path


def make_safetensors(path: Path) -> Path:
    header = {
        "__metadata__": {"a": "b"},
        "w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "v": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]},
    }
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(24))
    return path


def test_whole_ones(tmp_path: Path) -> None:
    assert prove(make_pt(tmp_path / "a.pt")) == "zip"
    assert prove(make_safetensors(tmp_path / "a.safetensors")) == "safetensors"
    (tmp_path / "old.pt").write_bytes(b"\x80\x02\x8a")
    assert prove(tmp_path / "old.pt") == "still"
    (tmp_path / "a.onnx").write_bytes(b"x")
    assert prove(tmp_path / "a.onnx") == "still"


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_truncated_at_100_offsets(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    whole = (make_pt(path) if name == "a.pt" else make_safetensors(path)).read_bytes()
    chance = random.Random(7)
    for offset in [0, 1, 4, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(100))]:
        (tmp_path / name).write_bytes(whole[:offset])
        with pytest.raises(TornCheckpoint):
            prove(tmp_path / name)


def test_flipped_bytes(tmp_path: Path) -> None:
    """Any byte of a member's data or of the directory's signatures, names and CRCs."""
    path = make_pt(tmp_path / "a.pt")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start, spans = archive.start_dir, [(m.header_offset + 40, m.file_size) for m in archive.infolist()]
    chance = random.Random(3)
    offsets = [start, start + 16, start + 20, start + 42, start + 48, len(whole) - 6, len(whole) - 22]
    offsets += [
        begin + 10 + chance.randrange(size - 20) for begin, size in spans if size > 30 for _ in range(10)
    ]
    for offset in offsets:
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x55]) + whole[offset + 1 :])
        with pytest.raises(TornCheckpoint):
            prove(path)


def test_garbage(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "a.pt").write_bytes(b"PK\x03\x04" + os.urandom(number * 50))
        with pytest.raises(TornCheckpoint):
            prove(tmp_path / "a.pt")
        (tmp_path / "a.safetensors").write_bytes(os.urandom(number))
        with pytest.raises(TornCheckpoint):
            prove(tmp_path / "a.safetensors")
