"""rsync over OpenSSH, for big files that changed: it sends what differs in them, and no more.

It must be on both ends. Everything else goes by lanes (lanes.py), which are faster for
what the machine has not got: rsync is one stream, and a stream stops at 2 MiB a round trip.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import IO, cast

from cloudtrain.errors import ConnectError
from cloudtrain.ssh import openssh
from cloudtrain.ssh.remote import Remote
from cloudtrain.transfer.tree import Entry
from cloudtrain.transfer.wire import Meter, failure

LOST = (10, 12, 30, 35, 255)
"""rsync's exit codes for a line that broke: socket, protocol stream, timeouts, and ssh's own."""
PART = ".cloudtrain-part"


@functools.cache
def rsync_here() -> bool:
    """Whether this machine has ssh and an rsync of 3.1 or newer (it must report progress)."""
    if not shutil.which("rsync") or not shutil.which("ssh"):
        return False
    said = subprocess.run(["rsync", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"rsync\s+version (\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= (3, 1)


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
            # rsync takes a line that begins with `#` or `;` for a comment, even with --from0.
            groups.setdefault(key, []).append(b"./" + os.fsencode("/".join(there[-same:])))
    return groups


def rsync(remote: Remote, groups: Groups, folder: str, meter: Meter) -> None:
    """Send files by rsync into `folder`, where the folders of the groups must be.

    Raises `ConnectError` when the line broke, `TransferError` for anything else but
    files that vanished meanwhile, which the caller finds by comparing.
    """
    for (here, there), names in groups.items():
        _rsync_group(remote, here, names, f"{folder}/{there}", meter)


def _rsync_group(remote: Remote, base: str, names: list[bytes], destination: str, meter: Meter) -> None:
    address = f"[{remote.target.address}]" if ":" in remote.target.address else remote.target.address
    # What comes here is known to differ; by itself rsync would leave out a file whose size is the
    # same and whose time is within the same second (rsync(1), --modify-window).
    args = [
        "rsync", "-tpL", "--ignore-times", "--files-from=-", "--from0", "--protect-args",
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
