"""A torn checkpoint is never taken for a whole one."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.errors import TornCheckpoint
from cloudtrain.transfer.containers import is_checkpoint, prove


def make_pt(path: Path, size: int = 20_000, seed: int = 0) -> Path:
    """Write a zip laid out as PyTorch does: stored members, data.pkl first."""
    chance = random.Random(seed)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("last/data.pkl"), b"\x80\x02}q\x00." + chance.randbytes(200))
        archive.writestr(zipfile.ZipInfo("last/version"), "3\n")
        for number in range(4):
            archive.writestr(zipfile.ZipInfo(f"last/data/{number}"), chance.randbytes(size // 4))
    return path


def make_script(path: Path) -> Path:
    """Write a zip laid out as TorchScript does: stored tensors of version 0, deflated code of version 20."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "code/a.py", "code/a.py.debug_pkl", "data/0", "data/1", "version"):
            method = zipfile.ZIP_DEFLATED if name.startswith("code/") else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(f"script/{name}"), name.encode() * 50, method)
    with zipfile.ZipFile(path) as archive:
        members, position = archive.infolist(), archive.start_dir
    raw = bytearray(path.read_bytes())
    for member in members:
        needed = 20 if member.compress_type else 0
        raw[member.header_offset + 4] = raw[position + 6] = needed
        position += 46 + len(member.filename)
    path.write_bytes(raw)
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
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"epoch": 1}))
    assert prove(tmp_path / "old.pt") == "pickle"
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


def test_script_is_whole_and_its_directory_is_compared(tmp_path: Path) -> None:
    """Members of two methods need two versions; any other byte of the directory's is wrong as ever."""
    path = make_script(tmp_path / "script.pt")
    assert prove(path) == "zip"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    for offset in range(start, len(whole)):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x55]) + whole[offset + 1 :])
        with pytest.raises(TornCheckpoint):
            prove(path)


def drop_sums(path: Path, count: int) -> Path:
    """Write 0 for the CRC of an archive's first members, as PyTorch does when told to compute none."""
    with zipfile.ZipFile(path) as archive:
        members, position = archive.infolist(), archive.start_dir
    raw = bytearray(path.read_bytes())
    for member in members[:count]:
        raw[member.header_offset + 14 : member.header_offset + 18] = raw[position + 16 : position + 20] = (
            bytes(4)
        )
        position += 46 + len(member.filename)
    path.write_bytes(raw)
    return path


def test_without_sums(tmp_path: Path) -> None:
    """PyTorch can leave out all CRCs: then only standing still speaks. Fewer than all is damage."""
    whole = drop_sums(make_pt(tmp_path / "a.pt"), 6).read_bytes()
    assert prove(tmp_path / "a.pt") == "still"
    for offset in (0, 40, len(whole) // 2, len(whole) - 100, len(whole) - 1):
        (tmp_path / "a.pt").write_bytes(whole[:offset])
        with pytest.raises(TornCheckpoint):
            prove(tmp_path / "a.pt")
    for count in range(1, 6):
        with pytest.raises(TornCheckpoint):
            prove(drop_sums(make_pt(tmp_path / "a.pt"), count))
    with pytest.raises(TornCheckpoint):  # TorchScript compresses, and then it writes sums
        prove(drop_sums(make_script(tmp_path / "a.pt"), 6))


def test_garbage(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "a.pt").write_bytes(b"PK\x03\x04" + os.urandom(number * 50))
        with pytest.raises(TornCheckpoint):
            prove(tmp_path / "a.pt")
        (tmp_path / "a.safetensors").write_bytes(os.urandom(number))
        with pytest.raises(TornCheckpoint):
            prove(tmp_path / "a.safetensors")


def make_legacy(path: Path, kind: bytes = b"torch\nFloatStorage", element: int = 4) -> Path:
    """Write two storages of seven elements as torch did before 1.6 (torch.serialization, `_legacy_save`)."""

    def named(key: bytes, storage: bytes) -> bytes:
        return storage + b"X\x01\0\0\0" + key + b"X\x03\0\0\0cpuq\x06K\x07NtQ"

    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    first = named(b"1", b"(X\x07\0\0\0storageq\x03c" + kind + b"\nq\x04")
    model = b"\x80\x02]q\x00" + first + b"a" + named(b"2", b"(h\x03h\x04") + b"a."
    heads = [pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, about)]
    storage = struct.pack("<q", 7) + bytes(range(7)) * element
    path.write_bytes(b"".join((*heads, model, pickle.dumps(["1", "2"], 2), storage, storage)))
    return path


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("pytorch_model.bin", make_pt),
        ("last.pth.tar", make_pt),
        ("old.pt", make_legacy),
        ("old.pth.tar", make_legacy),
        ("pytorch_model.bin", make_legacy),
    ],
)
def test_torn_whatever_it_is_called(tmp_path: Path, name: str, make: Callable[[Path], Path]) -> None:
    """What a file is its first bytes tell; it is refused wherever it ends."""
    assert is_checkpoint(name)
    whole = make(tmp_path / name).read_bytes()
    assert prove(tmp_path / name) in ("zip", "pickle")
    for offset in {40, len(whole) // 2, *range(max(40, len(whole) - 90), len(whole))}:
        (tmp_path / name).write_bytes(whole[:offset])
        with pytest.raises(TornCheckpoint):
            prove(tmp_path / name)


def test_pickles_that_nobody_can_tell_are_taken(tmp_path: Path) -> None:
    """A good file is never refused: unknown types, other formats, what joblib puts between opcodes."""
    assert prove(make_legacy(tmp_path / "a.pt", b"torch\nNewStorage", 3)) == "pickle"
    (tmp_path / "model.bin").write_bytes(b"\x80\x02" + bytes(range(256)) * 4)
    assert prove(tmp_path / "model.bin") == "still"
    joblib = (
        b"\x80\x04\x8c\x13joblib.numpy_pickle\x94\x8c\x11NumpyArrayWrapper\x94\x93\x94\x8e" + b"\xff" * 40
    )
    (tmp_path / "forest.pt").write_bytes(joblib)
    assert prove(tmp_path / "forest.pt") == "pickle"
    (tmp_path / "two.pt").write_bytes(pickle.dumps([1]) + pickle.dumps([2]) + b"more")
    assert prove(tmp_path / "two.pt") == "pickle"


LONG = b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"x" * 50


@pytest.mark.parametrize("raw", [LONG, pickle.dumps(0x1950A86A20F9469CFC6C, 2) + LONG])
def test_pickle_that_promises_more_than_there_is(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(raw)
    with pytest.raises(TornCheckpoint, match="does not end"):
        prove(tmp_path / "a.pt")


def refused(path: Path, offsets: range) -> int:
    """Return at how many offsets a flipped byte has the file refused."""
    whole, count = path.read_bytes(), 0
    for offset in offsets:
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0xFF]) + whole[offset + 1 :])
        try:
            prove(path)
        except TornCheckpoint:
            count += 1
    return count


def test_legacy_with_any_byte_flipped_is_judged(tmp_path: Path) -> None:
    """Whatever a flipped byte makes of a length, the answer is one of the two."""
    path = make_legacy(tmp_path / "a.pt")
    assert refused(path, range(path.stat().st_size)) > 100


@pytest.mark.parametrize(
    "raw",
    [b"[" * 200_000, b'{"a":{"data_offsets":[0,Infinity]}}', b'{"a":{"data_offsets":[0,NaN]}}', b"\xff\xfe"],
)
def test_safetensors_whose_header_is_nonsense(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(TornCheckpoint):
        prove(tmp_path / "a.safetensors")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_with_flipped_bytes(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/x", b"y" * 5000)
    assert refused(path, range(33, 53)) > 10  # lzma says there, too, what memory it may use


def test_a_disk_that_fails_tears_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        prove(tmp_path / "a.pt")
    with pytest.raises(IsADirectoryError):
        prove(tmp_path, "a.pt")


def test_every_file_that_torch_writes(tmp_path: Path) -> None:
    """In its older format, by every protocol and of every type; without its last byte none."""
    torch = pytest.importorskip("torch")
    shared = torch.arange(12.0)
    kinds = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128 uint16 float8_e5m2"
    states: list[object] = [torch.zeros(3, dtype=getattr(torch, kind)) for kind in kinds.split()]
    states += [
        {"a": shared, "b": shared[3:], "n": 1},
        torch.nn.Linear(3, 4).state_dict(),
        torch.nn.Linear(3, 4),
        7,
    ]
    states.append({"optimizer": [None] * 3000, "many": {str(n): torch.zeros(1) for n in range(400)}})
    for protocol in (2, 3, 4, 5):
        for state in states:
            path = tmp_path / "a.pt"
            torch.save(state, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
            assert prove(path) == "pickle"
            path.write_bytes(path.read_bytes()[:-1])
            with pytest.raises(TornCheckpoint):
                prove(path)
