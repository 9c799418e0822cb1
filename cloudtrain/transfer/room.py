"""What to say of a disk here that does not take what comes."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cloudtrain.errors import TransferError

_FULL = "make room there; what came until now is kept"
_TAKEN = "something else lies where this must go: move it away"
_DENIED = "let your user write there, or fetch to another place"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "that file system is mounted read-only: make it writable, or fetch to another place",
    errno.EXDEV: "a link there leads to another disk: put a folder in its place, or all of it on one disk",
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP), _TAKEN),
    **dict.fromkeys((errno.EACCES, errno.EPERM), _DENIED),
}


def cannot_write(error: OSError, folder: Path) -> TransferError:
    """Return the error for a place below `folder` that does not take what comes."""
    path = os.fsdecode(error.filename2 or error.filename or "") or str(folder)
    at = "" if path == str(folder) else f" (`{path}`)"
    return TransferError(
        f"cannot write below `{folder}`: {error.strerror or error}{at}",
        hint=_HINTS.get(error.errno or 0, "look at that place; what came until now is kept"),
    )


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Raise `TransferError` for what the disk here refuses inside."""
    try:
        yield
    except OSError as error:
        raise cannot_write(error, folder) from error
