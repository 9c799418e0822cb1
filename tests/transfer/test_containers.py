"""A torn checkpoint is never taken for a whole one."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudtrain.errors import TornCheckpoint
from cloudtrain.transfer.containers import CHECKPOINTS, is_checkpoint, prove


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


@pytest.mark.parametrize("suffix", CHECKPOINTS)
def test_zeros(tmp_path: Path, suffix: str) -> None:
    """What a machine that lost its power leaves: all of a file's length, and nothing in it."""
    path = tmp_path / f"a{suffix}"
    for raw in (bytes(1), bytes(5000), bytes(4096) + b"x" * 1000):
        path.write_bytes(raw)
        with pytest.raises(TornCheckpoint):
            prove(path)


@pytest.mark.parametrize("suffix", CHECKPOINTS)
def test_cut_in_the_first_bytes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    legacy = make_legacy(tmp_path / "legacy").read_bytes()
    for raw in (b"PK\x03\x04", b"\x80", b"\x89HDF\r\n\x1a\n", legacy[:41]):
        for length in range(1, len(raw)):
            path.write_bytes(raw[:length])
            with pytest.raises(TornCheckpoint):
                prove(path)


@pytest.mark.parametrize(
    ("name", "make"), [("best.pth.tar", make_pt), ("a.bin", make_pt), ("a.bin", make_legacy)]
)
def test_cut_anywhere(tmp_path: Path, name: str, make: Callable[[Path], Path]) -> None:
    whole = make(tmp_path / name).read_bytes()
    for offset in [*range(60), *range(60, len(whole), 97)]:
        (tmp_path / name).write_bytes(whole[:offset])
        with pytest.raises(TornCheckpoint):
            prove(tmp_path / name)


def test_pth_tar_is_judged_like_pt(tmp_path: Path) -> None:
    """Unless it is what it is called."""
    path = tmp_path / "a.pth.tar"
    path.write_bytes(b"neither" * 1000)
    with pytest.raises(TornCheckpoint):
        prove(path)
    for mode in ("w", "w:gz"):
        with tarfile.open(path, mode) as archive:
            archive.add(make_pt(tmp_path / "a.pt"))
        assert prove(path) == "still"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_called_bin(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.bin"
    whole = pickle.dumps({"epoch": 1, "weights": b"x" * 100}, protocol)
    path.write_bytes(whole)
    assert prove(path) == "pickle"
    for offset in range(len(whole)):
        path.write_bytes(whole[:offset])
        with pytest.raises(TornCheckpoint):
            prove(path)


def make_hdf5(version: int, width: int, size: int) -> bytes:
    """Write the beginning of an HDF5 file of `size` bytes, and random ones for what it holds."""
    address = {8: "<Q", 4: "<L"}[width]
    none = b"\xff" * width
    head = bytes([version, 0, 0, 0, 0, width, width, 0, 4, 0, 16, 0, 0, 0, 0, 0]) + bytes(4 * version)
    if version > 1:
        head = bytes([version, width, width, 0])
    addresses = struct.pack(address, 0) + none + struct.pack(address, size)
    head = b"\x89HDF\r\n\x1a\n" + head + addresses
    return head + random.Random(1).randbytes(size - len(head))


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("name", ["a.h5", "a.hdf5", "a.keras"])
def test_hdf5_shorter_than_it_says(tmp_path: Path, version: int, width: int, name: str) -> None:
    whole = make_hdf5(version, width, 3000)
    path = tmp_path / name
    for good in (whole, whole + b"more"):
        path.write_bytes(good)
        assert prove(path) == "still"
    for offset in [*range(100), 1500, 2999]:
        path.write_bytes(whole[:offset])
        with pytest.raises(TornCheckpoint):
            prove(path)


def test_hdf5_that_nobody_can_tell(tmp_path: Path) -> None:
    """A version to come is taken; addresses of no length are damage."""
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n\x04" + bytes(20))
    assert prove(tmp_path / "a.h5") == "still"
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(TornCheckpoint):
        prove(tmp_path / "a.h5")


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
