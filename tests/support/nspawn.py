"""Machines of kind `nspawn` for tests: root on Linux, and on a build server no excuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloudtrain.errors import CloudtrainError
from cloudtrain.models.machine import SshTarget
from cloudtrain.providers import sandbox
from cloudtrain.sandbox.nspawn.kind import PROGRAMS
from tests.sandbox.conftest import Cloud
from tests.sandbox.support import DELAYS

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def require_nspawn() -> None:
    """Skip where such machines cannot be had; fail instead where CI is set."""
    why = None
    if sys.platform != "linux" or os.geteuid() != 0:
        why = "machines of kind nspawn need root on Linux"
    elif missing := [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]:
        why = f"not installed: {', '.join(missing)}"
    if why is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


@contextmanager
def started(state: Path) -> Generator[Cloud]:
    """Start a sandbox whose machines are of kind nspawn, and end it with everything in it."""
    require_nspawn()
    os.environ["CLOUDTRAIN_SANDBOX_DELAYS"] = DELAYS
    try:
        yield Cloud(state, sandbox.ensure(state, machines="nspawn"))
    except CloudtrainError as error:
        pytest.fail(f"{error.message} {error.hint}")
    finally:
        del os.environ["CLOUDTRAIN_SANDBOX_DELAYS"]
        sandbox.stop(state)
        assert left_of(state) == []


def target(cloud: Cloud, name: str) -> SshTarget:
    """Return how to reach a machine by the product's own connection."""
    return SshTarget(
        address=cloud.address(name),
        port=cloud.endpoint.ssh_port,
        user=cloud.endpoint.login_user,
        key=cloud.folder / "key",
        known_hosts=cloud.folder / "known_hosts",
        alias="machine",
    )


def left_of(state: Path, name: str = "") -> list[str]:
    """Return what the host still has of a machine, or of the whole sandbox: nothing, it is hoped."""
    from cloudtrain.sandbox.nspawn.network import bridge_name

    mark = name or str(state)
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if mark in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            found += _process_of(entry, mark)
    found += [str(path) for path in _cgroups(name)] if name else []
    found += [str(path) for path in Path("/run/systemd/nspawn").rglob("*") if mark in path.name]
    found += [str(path) for path in (state / "disks").glob(f"{name or ''}*")]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    bridge = bridge_name(state)
    if name:
        found += [line for line in links.splitlines() if f"vb-{name[:10]}" in line]
    else:
        rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
        found += [line for line in (links + rules).splitlines() if bridge in line]
    return found


def _process_of(entry: Path, mark: str) -> list[str]:
    try:
        seen = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        groups = (entry / "cgroup").read_text()
    except OSError:
        return []
    return [f"process {entry.name}"] if mark.encode() in seen or mark in groups else []


def _cgroups(name: str) -> list[Path]:
    # Not rglob, which fails when systemd removes a group that it is about to enter.
    wanted = f"cloudtrain-{name}"
    return [Path(top, wanted) for top, names, _ in os.walk("/sys/fs/cgroup") if wanted in names]
