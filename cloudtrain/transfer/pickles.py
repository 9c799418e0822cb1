"""Is a pickle whole? Walked opcode by opcode, never run: nothing in it is imported or called.

`torch.save` wrote before its 1.6 (and writes still when asked) five pickles, and after them each storage
as its count of elements and their bytes (torch.serialization, `_legacy_save`). The fourth names every
storage with its type, from which follows where the file must end. Of any other pickle only its own end
is looked for. What is not understood counts as whole: a good file must never be refused.
"""

from __future__ import annotations

import os
import pickletools
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch's magic number ends as a pickle, of any protocol from 2 on."""
PLAIN = (b"}q\0", b"]q\0", b"ccollections\nOrderedDict\nq\0")
"""How a pickle of a dict or a list goes on after its protocol, 2 or 3."""
ELEMENT = {
    **dict.fromkeys(("Byte", "Char", "Bool", "QInt8", "QUInt8", "Untyped"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
"""Bytes of one element in a storage of that type."""


def is_torch_pickle(start: bytes) -> bool:
    """Whether a file that begins so is of torch's older format."""
    return start[:1] == b"\x80" and MAGIC in start[:32]


def is_pickle(start: bytes) -> bool:
    """Whether a file that begins so can hardly be anything but a pickle, whatever it is called.

    All of a file of less than 32 bytes may be the beginning of torch's magic number.
    """
    if start[:1] != b"\x80" or start[1:2] not in (b"\2", b"\3", b"\4", b"\5"):
        return False
    framed = start[1] > 3 and start[2:3] == b"\x95" and start[8:11] == bytes(3)
    return len(start) < 32 or framed or start[2:].startswith(PLAIN) or is_torch_pickle(start)


def missing(path: Path) -> str:
    """Return what a pickle lacks of its end, "" when it has it or nobody can tell."""
    with path.open("rb") as file:
        of_torch = is_torch_pickle(file.read(32))
        file.seek(0)
        seen: list[_Seen] = []
        for _ in range(5 if of_torch else 1):
            seen.append(_Seen())
            if fault := _walk(file, seen[-1]):
                cut = not file.read(1) and not seen[-1].foreign  # else it is what nobody can tell
                return f"its pickle does not end: {fault}" if cut or of_torch else ""
        return _missing_storage(file, path.stat().st_size, seen) if of_torch else ""


@dataclass(slots=True)
class _Seen:
    """What one pickle holds of what matters here."""

    texts: list[str] = field(default_factory=list[str])
    storages: dict[str, str] = field(default_factory=dict[str, str])
    """Name of the type by key."""
    foreign: bool = False
    """Whether joblib wrote it, which puts bare arrays between the opcodes."""
    big_endian: bool = False
    end: int = 0
    _row: list[object] = field(default_factory=list[object])
    """What was pushed since the last mark; None for what is not followed."""
    _tuple: list[object] = field(default_factory=list[object])
    _memo: dict[int, object] = field(default_factory=dict[int, object])

    def take(self, name: str, arg: object) -> None:
        """Follow one opcode as far as the names of storages need it."""
        if name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else int(str(arg))] = (self._row or [None])[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self._row.append(self._memo.get(int(str(arg))))
        elif name == "MARK":
            self._row = []
        elif name == "TUPLE":
            self._tuple, self._row = self._row, [None]
        elif name == "BINPERSID":
            self.storage()
        else:
            self._row.append(self.value(name, arg))

    def value(self, name: str, arg: object) -> object:
        """Return what an opcode pushes, None when that is of no interest."""
        if name == "STACK_GLOBAL":
            arg = " ".join(str(one) for one in self._row[-2:])
            del self._row[-2:]
        if name in ("GLOBAL", "STACK_GLOBAL"):
            self.foreign = self.foreign or str(arg).startswith("joblib")
            return arg
        if "UNICODE" in name:
            self.texts.append(str(arg))
            return arg
        if name == "NEWFALSE" and self._row and self._row[-1] == "little_endian":
            self.big_endian = True
        return None

    def storage(self) -> None:
        """Note the storage that the tuple before a persistent id names."""
        if len(self._tuple) > 2 and self._tuple[0] == "storage":
            kind = str(self._tuple[1]).replace(".", " ").rsplit(" ", 1)[-1]
            self.storages[str(self._tuple[2])] = kind.removesuffix("Storage")
        self._row.append(None)


class _Bounded:
    """A file of which nobody is given room for more than it holds: a wrong length may say anything."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.readline, self.tell = file.readline, file.tell

    def read(self, length: int) -> bytes:
        """Return so many bytes; none, at the end of the file, when it has fewer."""
        if length > self._size - self._file.tell():
            self._file.seek(0, os.SEEK_END)
            return b""
        return self._file.read(length)


def _walk(file: IO[bytes], seen: _Seen) -> str:
    """Read one pickle to its end; return why that failed."""
    try:
        for opcode, arg, _ in pickletools.genops(cast("IO[bytes]", _Bounded(file))):
            seen.take(opcode.name, arg)
    except (ValueError, OverflowError, IndexError, struct.error) as error:
        return str(error)
    seen.end = file.tell()
    return ""


def _missing_storage(file: IO[bytes], size: int, seen: list[_Seen]) -> str:
    keys, types = seen[4].texts, seen[3].storages
    if seen[2].big_endian or any(types.get(key) not in ELEMENT for key in keys):
        return ""
    position = seen[4].end
    for number, key in enumerate(keys, 1):
        file.seek(position)
        count = int.from_bytes(file.read(8), "little", signed=True)
        position += 8 + count * ELEMENT[types[key]]
        if count < 0 or position > size:
            return f"it ends in storage {number} of {len(keys)}"
    return ""
