"""A second computer: found by tags, let in by Instance Connect, verified against the tag."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.tags import HOST_KEY
from cloudtrain.ssh import keys
from tests.support.faults import arm, disarm
from tests.support.road import Road, until

pytestmark = pytest.mark.road


@pytest.fixture
def lost(tmp_path: Path, shared: Path) -> Generator[Road]:
    """A run whose first computer, its run folder and its key, is gone."""
    first = Road(tmp_path / "first", shared)
    first.call("up", "-y")
    until(lambda: first.json("status")["result"]["training"]["session"]["state"] != "running", timeout=60)
    runs = [RunFolder(path.parent) for path in (shared / "data" / "runs").glob("road-*/run.json")]
    folder = next(run for run in runs if run.record().project == str(first.project))
    shutil.move(folder.path, tmp_path / "gone")
    second = Road(tmp_path / "second", shared)
    yield second
    disarm(second)
    second.call("down", "--discard", "--stop-training", code=None)
    if second.alive():
        provider = second.running.provider()
        provider.terminate(tuple(second.alive()), 60)
        provider.release_access(RunFolder(tmp_path / "gone").run())


def test_adopt_brings_the_weights_home_and_ends_the_run(lost: Road) -> None:
    adopted = lost.json("adopt", "road", "--provider", "sandbox")["result"]
    assert adopted["session"]["number"] == 1
    assert lost.call("logs").stdout.splitlines()[-1] == "last line"
    assert "known on this computer" in lost.call("adopt", adopted["run"], code=7).stderr
    assert lost.json("status")["result"]["record"]["price_hour"] > 0
    assert "best.pt" in lost.call("down").stdout
    assert lost.left() == []


def test_adopt_of_what_is_not_there_names_what_is(lost: Road) -> None:
    refused = lost.call("adopt", "other", code=2)
    assert "road-" in refused.stderr


def test_adopt_refuses_a_machine_with_another_key_before_authentication(lost: Road) -> None:
    machine = lost.alive()[0]
    other = " ".join(keys.generate("other").public.split()[:2])
    lost.running.provider().tag(machine, {HOST_KEY: other})
    log = lost.state / "machines" / machine / "sshd.log"
    before = log.read_text().count("Accepted")
    lost.call("adopt", "road", code=4)
    assert log.read_text().count("Accepted") == before
    assert "no open run" in lost.call("logs", code=2).stderr


def test_adopt_says_what_is_needed_where_no_key_can_be_pushed(lost: Road) -> None:
    arm(lost, at=1, call="SendSSHPublicKey", when="before", error="AccessDeniedException", status=403)
    refused = lost.call("adopt", "road", code=3)
    assert "SendSSHPublicKey" in refused.stderr
    assert "run's folder" in refused.stderr
    disarm(lost)
    lost.call("adopt", "road")
