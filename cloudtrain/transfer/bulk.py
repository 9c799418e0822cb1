"""The moving itself: a tar stream over the control connection, or rsync over OpenSSH.

A tar stream needs nothing but tar there and no second handshake, so it takes what
is small, and everything where one end has no rsync. rsync takes the rest: it
moves more than twice as much a second as a stream through paramiko, and goes on
where a broken push stopped. (Several channels of one OpenSSH connection would beat
both on a long fat line; `choose` is where that would be decided.)
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Literal, cast

from cloudtrain.errors import ConnectError, TransferError
from cloudtrain.ssh import openssh
from cloudtrain.ssh.remote import CHUNK, Remote
from cloudtrain.transfer.tree import Entry
from cloudtrain.transfer.wire import Meter, Sink, failure

SMALL_FILES = 64
SMALL_BYTES = 4_000_000
LOST = (10, 12, 30, 35, 255)
"""rsync's exit codes for a line that broke: socket, protocol stream, timeouts, and ssh's own."""
PART = ".cloudtrain-part"


def choose(entries: list[Entry], *, rsync_there: bool) -> Literal["tar", "rsync"]:
    """Say how to move these files."""
    small = len(entries) < SMALL_FILES and sum(entry.size for entry in entries) < SMALL_BYTES
    return "rsync" if not small and rsync_there and rsync_here() else "tar"


@functools.cache
def rsync_here() -> bool:
    """Whether this machine has ssh and an rsync of 3.1 or newer (it must report progress)."""
    if not shutil.which("rsync") or not shutil.which("ssh"):
        return False
    said = subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"rsync\s+version (\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= (3, 1)


def write_tar(sink: Sink, entries: Iterable[Entry], meter: Meter) -> None:
    """Write entries as a GNU tar stream, folders implied.

    A file that shrank or vanished meanwhile is padded or passed over: the caller
    compares afterwards and sends it again. Raises `TransferError` for one that
    cannot be read.
    """
    with tarfile.open(
        fileobj=cast("IO[bytes]", _Counted(sink, meter)),
        mode="w|",
        bufsize=CHUNK,
        format=tarfile.GNU_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for entry in entries:
            _add(archive, entry)


Groups = dict[tuple[str, str], list[bytes]]
"""Names by (folder here, folder below the destination there), each "" or ended by a slash."""


def group(entries: list[Entry]) -> Groups:
    """Group files that one rsync can send: the same name below one folder here and one there."""
    groups: Groups = {}
    for entry in entries:
        if entry.source is not None:
            here, there = os.fspath(entry.source).split("/"), entry.path.split("/")
            same = 0
            while same < min(len(here), len(there)) and here[-1 - same] == there[-1 - same]:
                same += 1
            key = "/".join([*here[:-same], ""]), "/".join([*there[:-same], ""])
            groups.setdefault(key, []).append(os.fsencode("/".join(there[-same:])))
    return groups


def rsync(remote: Remote, groups: Groups, folder: str, meter: Meter, *, follow: bool) -> None:
    """Send files by rsync into `folder`, where the folders of the groups must be.

    Raises `ConnectError` when the line broke, `TransferError` for anything else but
    files that vanished meanwhile, which the caller finds by comparing.
    """
    for (here, there), names in groups.items():
        _rsync_group(remote, here, names, f"{folder}/{there}", meter, follow=follow)


def _rsync_group(
    remote: Remote, base: str, names: list[bytes], destination: str, meter: Meter, *, follow: bool
) -> None:
    address = f"[{remote.target.address}]" if ":" in remote.target.address else remote.target.address
    args = [
        "rsync", "-tp", "-L" if follow else "-l", "--files-from=-", "--from0", "--protect-args",
        f"--partial-dir={PART}", "--info=progress2", "--no-inc-recursive", "--outbuf=L",
        "-e", openssh.rsync_shell(remote.target), "--", base, f"{address}:{destination}",
    ]  # fmt: skip
    before = meter.done
    with subprocess.Popen(
        args,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**openssh.environment(remote.target), "LC_ALL": "C"},
    ) as process:
        errors: list[bytes] = []
        streams = process.stdin, process.stdout, process.stderr
        stdin, stdout, stderr = (cast("IO[bytes]", stream) for stream in streams)
        sides = [
            threading.Thread(target=_give, args=(stdin, b"\0".join(names) + b"\0"), daemon=True),
            threading.Thread(target=lambda: errors.append(stderr.read()), daemon=True),
        ]
        try:
            for side in sides:
                side.start()
            _watch(stdout, lambda done: meter.at(before + done))
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
        finally:
            for side in sides:
                side.join(10)
    _judge(code, b"".join(errors).decode("utf-8", "replace"))


def _judge(code: int, said: str) -> None:
    if "No space left" in said or "Disk quota exceeded" in said:
        raise failure(said, code)
    if code in LOST:
        raise ConnectError(
            f"the line broke while files were sent: {(said.strip().splitlines() or [f'rsync exit {code}'])[-1]}",
            hint="run the same command again; it continues where it stopped",
        )
    if code == 23 and "Permission denied" in said:
        raise failure(said, code)
    if code not in (0, 23, 24):
        raise failure(said, code)


def _give(stdin: IO[bytes], data: bytes) -> None:
    try:
        stdin.write(data)
        stdin.close()
    except OSError:
        return  # rsync ended first; its exit code says why


def _watch(stdout: IO[bytes], on_bytes: Callable[[int], None]) -> None:
    """Read the running total from lines such as `  1,234,567  12%  10.20MB/s  0:00:01`."""
    while chunk := os.read(stdout.fileno(), 65536):
        totals = re.findall(rb"(?:^|[\r\n])\s*([\d,]+)\s+\d+%", chunk)
        if totals:
            on_bytes(int(totals[-1].replace(b",", b"")))


class _Counted:
    """A sink that counts what passes."""

    def __init__(self, sink: Sink, meter: Meter) -> None:
        self._sink = sink
        self._meter = meter

    def write(self, data: bytes) -> int:
        self._sink.write(data)
        self._meter.add(len(data))
        return len(data)


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mtime = entry.mtime
    info.mode = entry.mode & 0o777
    if entry.kind == "link":
        info.type, info.linkname = tarfile.SYMTYPE, entry.link
    elif entry.kind == "dir":
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    if entry.kind != "file":
        archive.addfile(info)
        return
    info.size = entry.size
    if entry.source is None:
        archive.addfile(info, _Padded(None, entry.content))
        return
    file = _open(entry.source)
    if file is not None:
        with file:
            archive.addfile(info, _Padded(file))


def _open(source: Path) -> IO[bytes] | None:
    try:
        return source.open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TransferError(
            f"cannot read `{source}`: {error.strerror}",
            hint="change its permissions, or leave it out with `project.exclude`",
        ) from error


class _Padded(IO[bytes]):
    """A file that never ends early: a tar header cannot be taken back."""

    def __init__(self, file: IO[bytes] | None, content: bytes = b"") -> None:
        self._file = file
        self._content = content

    def read(self, size: int = -1, /) -> bytes:
        if self._file is None:
            data, self._content = self._content[:size], self._content[size:]
        else:
            data = self._file.read(size)
        return data.ljust(size, b"\0") if size > 0 else data
