"""Is an HDF5 file as long as it says? Its superblock holds where the file ends.

The library opens no file that is shorter (HDF5 File Format Specification 3.0, II.A: Disk Format Level 0A).
"""

from __future__ import annotations

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def shortfall(start: bytes, size: int) -> str:
    """Return what a file of `size` bytes lacks that begins so, "" when nothing or nobody can tell."""
    version = int.from_bytes(start[8:9], "little")
    if version > 3:
        return ""  # not known here
    width = int.from_bytes(start[13:14] if version < 2 else start[9:10], "little")
    position = (24, 28, 12, 12)[version]
    if len(start) < position + 3 * width:
        return "it ends in its superblock"
    if width not in (2, 4, 8, 16, 32):
        return "its addresses have no such length"
    addresses = (start[at : at + width] for at in range(position, position + 3 * width, width))
    base, _, end = (int.from_bytes(address, "little") for address in addresses)
    return f"it has {size} bytes of {end - base}" if size < end - base else ""
