"""What several sessions wrote comes home, each its own, wherever a script put it."""

from __future__ import annotations

import pytest

from cloudtrain.journal.folder import RunFolder
from tests.support.road import CONFIG, TRAIN, Road

pytestmark = pytest.mark.road


def homes(way: Road, number: int) -> dict[str, bytes]:
    """What is at home of a session's outputs."""
    runs = [RunFolder(path.parent) for path in (way.home / "data" / "runs").glob("*/run.json")]
    (run,) = (run for run in runs if run.record().project == str(way.project))
    top = run.artifacts / f"{number:03d}" / "outputs"
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def train(way: Road, script: str | None = None, config: str | None = None, code: int | None = 0) -> None:
    """Start another session, changed like that, and wait for its end."""
    if script is not None:
        (way.project / "train.py").write_text(script)
    if config is not None:
        (way.project / "cloudtrain.yaml").write_text(config)
    way.call("train", code=code)
    way.wait_for_end()


def test_a_later_session_replaces_nothing_of_an_earlier_one(way: Road) -> None:
    """It writes to the same places, by other patterns in the end: the first session's are its own."""
    way.call("up", "-y")
    way.wait_for_end()
    way.call("fetch-weights")
    first = homes(way, 1)
    assert sorted(first) == ["out/best.pt", "out/last.pt"]
    train(way, TRAIN.replace("two", "three"))
    elsewhere = TRAIN.replace("out", "kept").replace("two", "four")
    train(way, elsewhere, CONFIG.replace('"out/*.pt"', '"kept"'))
    way.call("down")
    assert homes(way, 1) == first
    assert sorted(homes(way, 2)) == ["out/best.pt", "out/last.pt"], (
        "what is configured now is not what it wrote"
    )
    assert homes(way, 2)["out/best.pt"] != first["out/best.pt"]
    assert sorted(homes(way, 3)) == ["kept/best.pt", "kept/last.pt"], "a folder is all that lies in it"
    assert way.left() == []


def test_a_folder_that_is_a_link_comes_home(way: Road) -> None:
    link = (
        'os.makedirs("runs/2024", exist_ok=True)\nos.path.islink("out") or os.symlink("runs/2024", "out")\n'
    )
    (way.project / "train.py").write_text(TRAIN.replace('os.makedirs("out", exist_ok=True)\n', link))
    way.call("up", "-y")
    way.wait_for_end()
    way.call("down")
    assert sorted(homes(way, 1)) == ["out/best.pt", "out/last.pt"]


def test_down_refuses_what_lies_where_it_is_not_fetched_from(way: Road) -> None:
    link = 'far = os.path.expanduser("~/far")\nos.makedirs(far, exist_ok=True)\nos.symlink(far, "out")\n'
    (way.project / "train.py").write_text(TRAIN.replace('os.makedirs("out", exist_ok=True)\n', link))
    way.call("up", "-y")
    way.wait_for_end()
    assert "none came home" in way.call("down", code=7).stderr
    way.call("down", "--discard")


def test_a_torn_session_holds_up_no_other(way: Road) -> None:
    torn = TRAIN.replace(
        'save("best.pt", "two")', 'open("out/best.pt", "wb").write(b"PK\\x03\\x04 cut"); sys.exit(1)'
    )
    (way.project / "train.py").write_text(torn.replace('save("last.pt", "one")\n', ""))
    (way.project / "cloudtrain.yaml").write_text(CONFIG.replace("out/*.pt", "out*/*.pt"))
    way.call("up", "-y")
    way.wait_for_end()
    assert way.call("fetch-weights", "--watch", code=6, timeout=60).stderr.count("trying again") == 0
    train(way, TRAIN.replace("out", "out2"))
    train(way, TRAIN.replace("out", "out3"))
    assert "out/best.pt" in way.call("down", code=7).stderr
    assert sorted(homes(way, 2)) == ["out2/best.pt", "out2/last.pt"]
    assert sorted(homes(way, 3)) == ["out3/best.pt", "out3/last.pt"]
    way.call("down", "--discard")


def test_a_watch_of_a_machine_that_was_ended_ends(way: Road) -> None:
    way.call("up", "-y")
    way.wait_for_end()
    way.running.provider().terminate((way.alive()[0],), 60)
    assert "terminated" in way.call("fetch-weights", "--watch", code=4, timeout=60).stderr
