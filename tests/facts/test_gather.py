"""The questions, asked of a real shell over a real sshd."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cloudtrain.facts import gather
from cloudtrain.models.machine import Gpu
from cloudtrain.paths import shipped
from cloudtrain.ssh.remote import Remote, connect
from tests.support.sshd import Sshd


def _program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def test_asks_a_real_machine(remote: Remote, sshd: Sshd) -> None:
    found = gather(remote)
    assert found.home == str(sshd.home)
    assert found.cpus == os.cpu_count()
    assert found.memory_mib > 100
    assert found.disk_free_mib > 0
    assert found.root == (os.geteuid() == 0)
    assert found.rsync == shutil.which("rsync", path=sshd.path)
    assert found.kernel == os.uname().release


def test_the_driver_speaks_for_its_gpus(sshd: Sshd) -> None:
    smi = (
        "#!/bin/bash\n"
        'case "$*" in *compute_cap*) echo "Field \\"compute_cap\\" is not a valid field to query."; exit 2;; esac\n'
        'echo "Tesla T4, 15109, 440.33.01"; echo "Tesla T4, 15109, 440.33.01"\n'
    )
    programs = sshd.bring({"nvidia-smi": smi})
    with connect(sshd.target) as remote:
        found = gather(remote)
        assert found.gpus == (Gpu("Tesla T4", 15109, "440.33.01"),) * 2
        assert found.nvidia_smi_error is None
        _program(programs, "nvidia-smi", "echo; echo 'Driver/library version mismatch'; echo more; exit 18")
        assert gather(remote).nvidia_smi_error == "Driver/library version mismatch"


FAILED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure, it runs."


@pytest.mark.parametrize("stream", ["1", "2"])
def test_a_driver_that_warns_is_a_driver_and_one_that_fails_is_none(sshd: Sshd, stream: str) -> None:
    warning = "WARNING: infoROM is corrupted at gpu 0000:00:1E.0"
    row = "echo 'Tesla T4, 15360, 580.95.05, 7.5'"
    programs = sshd.bring({"nvidia-smi": f"echo '{warning}' >&{stream}; {row}; exit 14"})
    with connect(sshd.target) as remote:
        found = gather(remote)
        assert found.gpus == (Gpu("Tesla T4", 15360, "580.95.05", (7, 5)),)
        assert found.nvidia_smi_error is None
        _program(programs, "nvidia-smi", f'echo >&{stream}; echo "{FAILED}" >&{stream}; exit 9')
        assert gather(remote).nvidia_smi_error == FAILED


def test_our_own_tools_are_found_without_a_login_shell(remote: Remote, sshd: Sshd) -> None:
    for name, folder in (("uv", ".cloudtrain/bin"), ("conda", ".cloudtrain/miniconda3/bin")):
        (sshd.home / folder).mkdir(parents=True)
        _program(sshd.home / folder, name, "exit 0")
    (sshd.home / ".cloudtrain/miniconda3/.whole").touch()
    found = gather(remote)
    assert (found.uv, found.conda) == (
        shutil.which("uv", path=sshd.path) or f"{sshd.home}/.cloudtrain/bin/uv",
        shutil.which("conda", path=sshd.path) or f"{sshd.home}/.cloudtrain/miniconda3/bin/conda",
    )


def test_asking_changes_nothing(remote: Remote, sshd: Sshd) -> None:
    before = sorted(sshd.home.rglob("*"))
    gather(remote)
    assert sorted(sshd.home.rglob("*")) == before


def test_shellcheck() -> None:
    path = shipped("templates") / "facts.sh"
    done = subprocess.run(
        ["shellcheck", "-s", "bash", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may change what lies under /run, for a shell of its own"
)
@pytest.mark.parametrize(
    ("booted", "container"), [("lxc", "1"), ("docker", "1"), ("systemd-nspawn", "0"), ("wsl", "0"), ("", "0")]
)
def test_what_systemd_was_booted_in_tells_a_container(booted: str, container: str) -> None:
    """Under cgroup v2 the group of process 1 tells nothing."""
    hidden = "mount -t tmpfs none /run && mkdir /run/systemd"
    said = f"printf %s {booted} >/run/systemd/container"
    script = f"{hidden}; {said}; exec bash {shipped('templates') / 'facts.sh'}"
    words = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    if Path("/.dockerenv").exists():
        container = "1"
    assert f"\ncontainer={container}\n" in done.stdout
