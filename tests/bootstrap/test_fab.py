"""The real `fab` against a real sshd: our verified connection, or none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import cloudtrain
from cloudtrain.journal.folder import RunFolder, create
from cloudtrain.models.config import Config, Environment, Train
from cloudtrain.ssh import keys
from tests.support.sshd import Sshd

ROOT = Path(cloudtrain.__file__).parents[1]
CONFIG = Config(
    environment=Environment(manager="existing", python="python3", torch="none"), train=Train(kind="script")
)


@pytest.fixture
def run(sshd: Sshd, tmp_path: Path) -> RunFolder:
    """An open run whose machine is `sshd`."""
    folder = create(name="helmets", owner="0" * 12, provider="ssh", region="", project=tmp_path)
    folder.update(machine="i-1", address="127.0.0.1", port=sshd.port, user=sshd.target.user)
    folder.save_config(json.loads(json.dumps(asdict(CONFIG))))
    shutil.copy(sshd.folder / "key", folder.key)
    keys.pin(folder.known_hosts, folder.path.name, (sshd.host_key.public,))
    return folder


def fab(*args: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fabric", "--search-root", str(ROOT / "cloudtrain" / "bootstrap"), *args]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)},
    )


def test_a_task_a_step(run: RunFolder, sshd: Sshd, tmp_path: Path) -> None:
    listed = fab("--list", home=tmp_path).stdout
    assert all(word in listed for word in ("base", "driver", "environment", "torch", "converge", "pending"))
    assert sshd.log.read_text().count("Connection from") <= 1  # the fixture's own look


@pytest.mark.parametrize("host", ["helmets", "slug", "127.0.0.1"])
def test_a_host_is_a_run_or_its_address(host: str, run: RunFolder, sshd: Sshd, tmp_path: Path) -> None:
    done = fab("-H", run.path.name if host == "slug" else host, "environment", home=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:2] for line in done.stdout.splitlines()]
    assert lines == [["environment", "satisfied"]]
    assert sshd.handshakes() == 1
    assert "no use for it" in fab("-H", "helmets", "driver", home=tmp_path).stdout


def test_a_wrong_host_key_is_refused_before_authentication(
    run: RunFolder, sshd: Sshd, tmp_path: Path
) -> None:
    keys.pin(run.known_hosts, run.path.name, (keys.generate("other").public,))
    done = fab("-H", "127.0.0.1", "environment", home=tmp_path)
    assert done.returncode == 4
    assert "another host key" in done.stderr
    assert "Traceback" not in done.stderr
    log = sshd.log.read_text()
    assert sshd.handshakes() == 0
    assert not any(word in log for word in ("publickey", "Failed", "Postponed", "preauth] user"))


def test_an_ssh_configuration_cannot_weaken_it(run: RunFolder, sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    loose = f"Host *\n  HostName 127.0.0.1\n  Port {sshd.port}\n  StrictHostKeyChecking no\n"
    (tmp_path / ".ssh/config").write_text(loose)
    keys.pin(run.known_hosts, run.path.name, (keys.generate("other").public,))
    assert fab("-H", "helmets", "environment", home=tmp_path).returncode == 4
    assert fab("-H", "stranger", "environment", home=tmp_path).returncode == 2
    assert sshd.handshakes() == 0


def test_a_stranger_is_refused_before_any_network(run: RunFolder, sshd: Sshd, tmp_path: Path) -> None:
    done = fab("-H", "localhost", "environment", home=tmp_path)
    assert done.returncode == 2
    assert "`localhost` is no machine of an open run" in done.stderr
    run.update(ended="2026-01-01T00:00:00+00:00")
    assert fab("-H", "helmets", "environment", home=tmp_path).returncode == 2
    assert sshd.log.read_text().count("Connection from") <= 1  # the fixture's own look


def test_without_a_host_nothing_is_guessed(run: RunFolder, tmp_path: Path) -> None:
    done = fab("environment", home=tmp_path)
    assert done.returncode == 2
    assert "-H NAME" in done.stderr


def test_a_name_of_two_runs_is_not_guessed(run: RunFolder, tmp_path: Path) -> None:
    create(name="helmets", owner="0" * 12, provider="ssh", region="", project=tmp_path / "b")
    done = fab("-H", "helmets", "environment", home=tmp_path)
    assert done.returncode == 2
    assert run.path.name in done.stderr
