"""Whether the directory of a zip archive agrees with itself and with what it lists.

Reading every member proves the bytes that a loader reads; this proves the directory
that leads to them (PKWARE's APPNOTE 4.3.7, 4.3.12, 4.3.14, 4.3.16). A loader may ignore what is
wrong here, but a file with any wrong byte is not the file that was written.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import IO

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")


def disagreement(path: Path, archive: zipfile.ZipFile) -> str:
    """Return what does not fit together, "" when all does."""
    members = archive.infolist()
    with path.open("rb") as file:
        file.seek(archive.start_dir)
        directory = file.read()
        position, entries = 0, list[tuple[int, ...]]()
        for member in members:
            if directory[position : position + 4] != b"PK\x01\x02":
                return "its directory has a gap"
            fields = _CENTRAL.unpack_from(directory, position)
            entries.append(tuple(fields[1:]))
            if wrong := _member(file, member):
                return wrong
            position += _CENTRAL.size + fields[10] + fields[11] + fields[12]
    if is_torch(members) and _mixed(entries):
        return "an entry of its directory is unlike the others"
    return _end(directory[position:], len(members), archive.start_dir, position)


def is_torch(members: list[zipfile.ZipInfo]) -> bool:
    """Whether PyTorch wrote an archive of these members."""
    return len(members) > 2 and any(member.filename.endswith("/data.pkl") for member in members)


def _mixed(entries: list[tuple[int, ...]]) -> bool:
    """Whether entries differ in what PyTorch writes in one way: version, disk, attributes, comment.

    The version needed follows from the method: TorchScript deflates its code and stores its tensors.
    """
    if any(len({entry[index] for entry in entries}) > 1 for index in (0, 11, 12, 13, 14)):
        return True
    return len({(entry[1], entry[3]) for entry in entries}) > len({entry[3] for entry in entries})


def _member(file: IO[bytes], member: zipfile.ZipInfo) -> str:
    file.seek(member.header_offset)
    raw = file.read(_LOCAL.size)
    if len(raw) < _LOCAL.size:
        return f"`{member.filename}` is missing"
    _, _, flags, method, time, date, crc, packed, size, *_ = _LOCAL.unpack(raw)
    year, month, day, hour, minute, second = member.date_time
    when = (hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
    if (flags, method, (time, date)) != (member.flag_bits, member.compress_type, when):
        return f"`{member.filename}` is listed otherwise than it is"
    later = bool(flags & 8)  # sizes and CRC come after the data, and zeros stand here
    for here, there in ((crc, member.CRC), (packed, member.compress_size), (size, member.file_size)):
        if here not in (there, 0xFFFFFFFF) and not (later and here == 0):
            return f"`{member.filename}` is listed with another size or sum"
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        return f"`{member.filename}` has two sizes"
    return ""


def _end(rest: bytes, count: int, begin: int, size: int) -> str:
    if rest[:4] == b"PK\x06\x06":
        if len(rest) < _END64.size + 20:
            return "its end is missing"
        _, length, _, needed, disk, start, *counts = _END64.unpack_from(rest)
        if (length, needed, disk, start, counts) != (_END64.size - 12, 45, 0, 0, [count, count, size, begin]):
            return "its end counts otherwise"
        locator = rest[_END64.size : _END64.size + 20]
        if locator != struct.pack("<4sLQL", b"PK\x06\x07", 0, begin + size, 1):
            return "its end is not where it says"
        rest = rest[_END64.size + 20 :]
    return _last(rest, count, begin, size)


def _last(rest: bytes, count: int, begin: int, size: int) -> str:
    if len(rest) < _END.size or rest[:4] != b"PK\x05\x06":
        return "its end is missing"
    _, disk, start, here, total, length, offset, comment = _END.unpack_from(rest)
    many = min(count, 0xFFFF)
    if (disk, start, here, total) != (0, 0, many, many) or len(rest) != _END.size + comment:
        return "its end counts otherwise"
    if length not in (size, 0xFFFFFFFF) or offset not in (begin, 0xFFFFFFFF):
        return "its end points elsewhere"
    return ""
