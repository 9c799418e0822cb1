"""Fetching from a real sshd while a trainer writes, tears and finishes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from cloudtrain.errors import CloudtrainError, ConnectError, TornCheckpoint, TransferError
from cloudtrain.events import Event, Note, Progress, Reporter, Silent
from cloudtrain.models.training import Artifact
from cloudtrain.ssh.remote import Remote, connect
from cloudtrain.transfer.earlier import set_aside, settle
from cloudtrain.transfer.fetch import Fetch
from cloudtrain.transfer.index import Index, Record, stamp
from cloudtrain.transfer.listing import Found
from cloudtrain.transfer.pull import newest_unproven, pull
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.wire import Meter, exchange
from tests.support.sshd import Sshd
from tests.transfer.conftest import Seen
from tests.transfer.test_containers import make_pt

HEAD = "epoch,time,metrics/mAP50(B),metrics/mAP50-95(B)\n"


@dataclass
class Trainer:
    """What a trainer leaves on the machine, written by hand."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "runs" / "001"

    @property
    def session(self) -> Path:
        return self.root / "sessions" / "001"

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def log(self) -> Path:
        return self.session / "train.log"

    def begin(self) -> Trainer:
        for folder in (self.run / "weights", self.session, self.project):
            folder.mkdir(parents=True)
        (self.session / "started").touch()
        self.log.write_text("begun\n")
        (self.run / "args.yaml").write_text("epochs: 3\n")
        (self.run / "results.csv").write_text(HEAD)
        (self.run / "BoxPR curve.png").write_bytes(os.urandom(3000))
        (self.run / "events.out.tfevents.1").write_bytes(b"ev")
        (self.run / "other.bin").write_bytes(b"not asked for")
        return self

    def epoch(self, number: int, score: float, *, best: bool = True, size: int = 50_000) -> None:
        with (self.run / "results.csv").open("a") as file:
            file.write(f"{number},1,{score},{score}\n")
        make_pt(self.run / "weights" / "last.pt", size, seed=number)
        if best:
            make_pt(self.run / "weights" / "best.pt", size, seed=number)
        with self.log.open("a") as file:
            file.write(f"epoch {number}\n")


@pytest.fixture
def trainer(machine: Sshd) -> Trainer:
    return Trainer(machine.home / "the run").begin()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "at home"


def no_pause(_: float) -> None:
    """Try again at once."""


def fetch(
    remote: Remote,
    trainer: Trainer,
    home: Path,
    reporter: Reporter | None = None,
    *,
    kind: Literal["yolo", "yolov5", "script"] = "yolo",
    outputs: tuple[str, ...] = (),
    everything: bool = False,
    pause: Callable[[float], object] = no_pause,
) -> dict[str, Artifact]:
    listed = pull(
        remote,
        str(trainer.run),
        str(trainer.log),
        home,
        reporter or Silent(),
        kind=kind,
        project=str(trainer.project),
        outputs=outputs,
        everything=everything,
        pause=pause,
    )
    return {artifact.path.relative_to(home).as_posix(): artifact for artifact in listed}


def here(home: Path) -> set[str]:
    return {
        p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file() and not p.name.startswith(".")
    }


def test_first_then_nothing_then_the_change(line: Remote, trainer: Trainer, home: Path) -> None:
    trainer.epoch(1, 0.2)
    trainer.epoch(2, 0.5)
    trainer.epoch(3, 0.4, best=False)
    first = fetch(line, trainer, home)
    usual = {
        "weights/best.pt",
        "weights/last.pt",
        "results.csv",
        "args.yaml",
        "train.log",
        "BoxPR curve.png",
        "events.out.tfevents.1",
    }
    assert set(first) == usual == here(home)
    assert all(one.complete and one.fetched for one in first.values())
    assert (first["weights/best.pt"].epoch, first["weights/last.pt"].epoch) == (2, 3)
    assert first["weights/best.pt"].metrics == {"metrics/mAP50(B)": 0.5, "metrics/mAP50-95(B)": 0.5}
    assert first["weights/best.pt"].kind == "best"
    assert first["results.csv"].kind == "results"
    assert first["train.log"].kind == "log"
    for name in ("weights/best.pt", "results.csv"):
        assert (home / name).read_bytes() == (trainer.run / name).read_bytes()
    second = fetch(line, trainer, home)
    assert not any(one.fetched for one in second.values())
    assert second["weights/best.pt"].epoch == 2
    trainer.epoch(4, 0.3, best=False)
    third = fetch(line, trainer, home)
    assert {name for name, one in third.items() if one.fetched} == {
        "weights/last.pt",
        "results.csv",
        "train.log",
    }
    assert (third["weights/last.pt"].epoch, third["weights/best.pt"].epoch) == (4, 2)
    assert not list(home.rglob("*.part"))


def test_a_training_that_went_back_does_not_replace_the_later_checkpoint(
    line: Remote, trainer: Trainer, home: Path, seen: Seen
) -> None:
    for epoch in (1, 2, 3):
        trainer.epoch(epoch, 0.1 * epoch)
    fetch(line, trainer, home)
    good = {name: (home / "weights" / f"{name}.pt").read_bytes() for name in ("best", "last")}
    table = trainer.run / "results.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")  # begun again in its folder
    trainer.epoch(1, 0.15)
    came = fetch(line, trainer, home, seen)
    assert came["weights/last.pt"].epoch == 1
    for name, whole in good.items():
        assert (home / "earlier" / f"{name}-epoch3.pt").read_bytes() == whole
    said = [event.text for event in seen.events if isinstance(event, Note)]
    assert any("the one of epoch 3 stays as `earlier/last-epoch3.pt`" in text for text in said)
    trainer.epoch(2, 0.2)
    fetch(line, trainer, home)
    assert sorted(path.name for path in (home / "earlier").iterdir()) == ["best-epoch3.pt", "last-epoch3.pt"]


def test_what_was_set_aside_outlives_a_fetch_that_broke(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    last, index = tmp_path / "weights" / "last.pt", Index(tmp_path)

    def came(epoch: int | None) -> None:
        before = index.record("weights/last.pt")
        if before is not None:
            set_aside(tmp_path, "weights/last.pt", before.epoch)
            last.unlink()
        last.write_text(f"epoch {epoch}")
        here = stamp(last)
        assert here is not None
        index.accept("weights/last.pt", Record("/last.pt", here[0], "", "", here, epoch))

    came(3)
    came(None)  # the line broke before anybody could tell its epoch
    assert settle(tmp_path, index) == ()
    came(1)
    assert settle(tmp_path, index) != ()
    assert (tmp_path / "earlier" / "last-epoch3.pt").read_text() == "epoch 3"
    came(2)
    assert settle(tmp_path, index) == ()
    assert [path.name for path in (tmp_path / "earlier").rglob("*")] == ["last-epoch3.pt"]


def test_everything(line: Remote, trainer: Trainer, home: Path) -> None:
    trainer.epoch(1, 0.2)
    assert "other.bin" in fetch(line, trainer, home, everything=True)


def test_row_without_its_checkpoint(line: Remote, trainer: Trainer, home: Path) -> None:
    """A row is written before its checkpoint: last.pt is still that of the row before."""
    trainer.epoch(1, 0.2)
    trainer.epoch(2, 0.3)
    with (trainer.run / "results.csv").open("a") as file:
        file.write("3,1,0.9,0.9\n")
    late = (trainer.run / "weights" / "last.pt").stat().st_mtime_ns + 2_000_000_000
    os.utime(trainer.run / "results.csv", ns=(late, late))
    came = fetch(line, trainer, home)
    assert (came["weights/last.pt"].epoch, came["weights/best.pt"].epoch) == (2, 2)


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_table_that_was_rewritten_comes_home(
    line: Remote, trainer: Trainer, home: Path, seen: Seen
) -> None:
    """What is here is no beginning of it; the checkpoint is described by the new one."""
    trainer.epoch(1, 0.2)
    fetch(line, trainer, home)
    table = trainer.run / "results.csv"
    for score in (0.3, 0.4):  # longer than the copy here, and as long
        table.write_text(HEAD.replace("time", "seconds"))
        trainer.epoch(7, score)
        came = fetch(line, trainer, home, seen)
        assert (home / "results.csv").read_bytes() == table.read_bytes()
        assert came["results.csv"].fetched
        assert (came["weights/last.pt"].epoch, came["weights/best.pt"].epoch) == (7, 7)
    assert not [event for event in seen.events if isinstance(event, Note)]


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_growing_file_that_is_never_had_whole_is_named(
    line: Remote, machine: Sshd, trainer: Trainer, home: Path, seen: Seen
) -> None:
    machine.bring({"sha256sum": '/usr/bin/sha256sum "$@" | tr 0-9 1-90'})
    trainer.epoch(1, 0.2)
    with connect(machine.target) as line, suppress(TornCheckpoint):
        fetch(line, trainer, home, seen)
    notes = [event.text for event in seen.events if isinstance(event, Note)]
    assert any(text.startswith("`results.csv` is not whole") for text in notes)


def test_torn_is_never_accepted_and_the_last_good_stays(
    line: Remote, trainer: Trainer, home: Path, seen: Seen
) -> None:
    """Torn at random places: each fetch keeps the good copy, its epoch, and says so."""
    trainer.epoch(1, 0.2)
    fetch(line, trainer, home)
    last, good = trainer.run / "weights" / "last.pt", (home / "weights" / "last.pt").read_bytes()
    trainer.epoch(2, 0.1, best=False)
    whole = last.read_bytes()
    chance = random.Random(1)
    for offset in [0, *(chance.randrange(1, len(whole)) for _ in range(2))]:
        last.write_bytes(whole[:offset])
        came = fetch(line, trainer, home, seen)
        assert (home / "weights" / "last.pt").read_bytes() == good
        kept = came["weights/last.pt"]
        assert (kept.epoch, kept.fetched, kept.behind) == (1, False, True)
        assert newest_unproven(line, str(trainer.run), home, kind="yolo", project=str(trainer.project)) == (
            str(last),
        )
    notes = [event for event in seen.events if isinstance(event, Note)]
    assert len(notes) == 3
    assert "the last good one of epoch 1 stays" in notes[0].text
    last.write_bytes(whole)
    come = fetch(line, trainer, home)["weights/last.pt"]
    assert (come.epoch, come.behind) == (2, False)
    assert newest_unproven(line, str(trainer.run), home, kind="yolo", project=str(trainer.project)) == ()


def test_torn_and_nothing_at_home(line: Remote, trainer: Trainer, home: Path) -> None:
    (trainer.run / "weights" / "last.pt").write_bytes(b"PK\x03\x04half")
    with pytest.raises(TornCheckpoint, match=r"weights/last\.pt"):
        fetch(line, trainer, home)
    assert "results.csv" in here(home)
    assert "weights/last.pt" not in here(home)


def test_no_checkpoint_yet(line: Remote, trainer: Trainer, home: Path) -> None:
    assert {one.kind for one in fetch(line, trainer, home).values()} == {"results", "log", "other"}
    assert newest_unproven(line, str(trainer.run), home, kind="yolo", project=str(trainer.project)) == ()


def test_whole_after_a_moment(line: Remote, trainer: Trainer, home: Path) -> None:
    """A checkpoint being written when it is first looked at comes with the next try."""
    trainer.epoch(1, 0.2)
    last = trainer.run / "weights" / "last.pt"
    whole = last.read_bytes()
    last.write_bytes(whole[:9000])
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        last.write_bytes(whole)

    assert fetch(line, trainer, home, pause=pause)["weights/last.pt"].fetched
    assert len(waited) == 1


def test_a_trainer_that_never_rests(line: Remote, trainer: Trainer, home: Path) -> None:
    """Everything accepted while it writes without pause is whole, and matches its epoch."""
    trainer.epoch(1, 0.001)
    stop = threading.Event()

    def write() -> None:
        number = 1
        while not stop.wait(0.02):  # file times tick in 4 ms: rows must not share a tick with checkpoints
            number += 1
            trainer.epoch(number, number / 1000)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            try:
                came = fetch(line, trainer, home)
            except TornCheckpoint:
                continue
            for name in ("weights/last.pt", "weights/best.pt"):
                if name in came and (epoch := came[name].epoch) is not None:
                    assert (home / name).read_bytes() == make_pt(
                        home / "wanted", 50_000, seed=epoch
                    ).read_bytes()
    finally:
        stop.set()
        writer.join()
    came = fetch(line, trainer, home)
    assert came["weights/last.pt"].epoch == came["weights/best.pt"].epoch is not None


RENAMING = """
import os, sys
while True:
    for number in range(500):
        open(f"{sys.argv[1]}/{number}.new", "w").close()
    for number in range(500):
        os.replace(f"{sys.argv[1]}/{number}.new", f"{sys.argv[1]}/{number}")
"""


def test_a_file_may_vanish_while_it_is_listed(line: Remote, trainer: Trainer, home: Path) -> None:
    trainer.epoch(1, 0.2)
    writer = subprocess.Popen([sys.executable, "-c", RENAMING, trainer.project])
    try:
        for _ in range(20):
            fetch(line, trainer, home, kind="script", outputs=("*.pt",))
    finally:
        writer.kill()
        writer.wait()
    assert (home / "weights" / "best.pt").read_bytes() == (trainer.run / "weights" / "best.pt").read_bytes()


def test_local_copy_that_was_touched_is_fetched_again(line: Remote, trainer: Trainer, home: Path) -> None:
    trainer.epoch(1, 0.2)
    fetch(line, trainer, home)
    (home / "weights" / "best.pt").write_bytes(b"spoilt")
    assert len(newest_unproven(line, str(trainer.run), home, kind="yolo", project=str(trainer.project))) == 1
    assert fetch(line, trainer, home)["weights/best.pt"].fetched
    assert (home / "weights" / "best.pt").read_bytes() == (trainer.run / "weights" / "best.pt").read_bytes()


def test_script_outputs_newer_than_the_session(line: Remote, trainer: Trainer, home: Path) -> None:
    old, new = trainer.project / "base.pt", trainer.project / "out dir" / "a\nb.pt"
    new.parent.mkdir()
    make_pt(old)
    os.utime(old, (1_600_000_000, 1_600_000_000))
    make_pt(new)
    (trainer.project / "note.txt").write_text("x")
    came = fetch(line, trainer, home, kind="script", outputs=("**/*.pt",))
    assert "outputs/out dir/a\nb.pt" in came
    assert came["outputs/out dir/a\nb.pt"].kind == "checkpoint"
    assert "outputs/base.pt" not in came
    assert "outputs/note.txt" not in came
    assert "other.bin" in came


class CutAt:
    def __init__(self, machine: Sshd) -> None:
        self.machine, self.done = machine, False

    def emit(self, event: Event) -> None:
        if isinstance(event, Progress) and not self.done:
            self.done = True
            self.machine.drop_connections()


def test_cut_line_then_again(machine: Sshd, trainer: Trainer, home: Path) -> None:
    trainer.epoch(1, 0.2, size=30_000_000)
    with connect(machine.target) as first, pytest.raises(ConnectError) as caught:
        fetch(first, trainer, home, CutAt(machine))
    assert isinstance(caught.value, CloudtrainError)
    assert not list(home.rglob("*.part"))
    for path in home.rglob("*.pt"):
        assert path.read_bytes() == (trainer.run / "weights" / path.name).read_bytes()
    with connect(machine.target) as second:
        fetch(second, trainer, home)
    for name in ("best.pt", "last.pt"):
        assert (home / "weights" / name).read_bytes() == (trainer.run / "weights" / name).read_bytes()


def test_a_checkpoint_torn_for_ever_has_its_secured_copy_brought_home(
    line: Remote, trainer: Trainer, home: Path
) -> None:
    """The machine was cut off in the middle of a write, and nothing will write it again."""
    trainer.epoch(1, 0.1)
    secured = trainer.root / "secured" / "001"
    secured.mkdir(parents=True)
    for number in (1, 2):
        make_pt(secured / f"0000{number}-last.pt", 50_000, seed=number)
        (secured / f"0000{number}-last.pt.json").write_text(f'{{"epoch": {number}, "metrics": {{"m": 0.5}}}}')
    for name in ("last", "best"):
        path = trainer.run / "weights" / f"{name}.pt"
        path.write_bytes(path.read_bytes()[:700])
    found = pull(
        line, str(trainer.run), str(trainer.log), home, Silent(),
        kind="yolo", project=str(trainer.project), pause=lambda _: None,
    )  # fmt: skip
    (copy,) = [one for one in found if one.kind == "checkpoint"]
    assert copy.path.name == "00002-last.pt"
    assert (copy.epoch, copy.metrics, copy.complete) == (2, {"m": 0.5}, True)
    assert not (home / "weights" / "last.pt").exists()

    def unproven() -> tuple[str, ...]:
        project, log = str(trainer.project), str(trainer.log)
        return newest_unproven(line, str(trainer.run), home, kind="yolo", project=project, log=log)

    assert unproven() == ()
    (trainer.run / "weights" / "last.pt").touch()  # somebody writes it after all
    assert unproven() == (str(trainer.run / "weights" / "last.pt"),)


SCRIPT = ("**/*.pt",)


def left_by(line: Remote, trainer: Trainer, home: Path) -> set[str]:
    """What of a script's checkpoints is not proven at home, below its project."""
    project, log = str(trainer.project), str(trainer.log)
    left = newest_unproven(
        line, str(trainer.run), home, kind="script", project=project, outputs=SCRIPT, log=log
    )
    return {path.removeprefix(f"{project}/") for path in left}


@pytest.mark.parametrize(
    ("sources", "own"),
    [
        ({1: "{project}/G/last.pt", 2: "{project}/D/last.pt"}, {1}),
        ({1: "/before/it/moved/project/G/last.pt", 2: "/before/it/moved/project/D/last.pt"}, {1}),
        ({2: "{project}/D/last.pt"}, set[int]()),
        ({1: "", 2: "{project}/D/last.pt"}, set[int]()),
    ],
)
def test_only_its_own_secured_copy_stands_in_for_a_torn_checkpoint(
    line: Remote, trainer: Trainer, home: Path, sources: dict[int, str], own: set[int]
) -> None:
    """Two checkpoints of one name: the sidecar tells whose a copy is, and one that tells nothing is nobody's."""
    secured = trainer.root / "secured" / "001"
    secured.mkdir(parents=True)
    for number, name in ((1, "G"), (2, "D")):
        (trainer.project / name).mkdir()
        make_pt(trainer.project / name / "last.pt", seed=number)
    make_pt(trainer.project / "my-last.pt", seed=3)
    for number, source in sources.items():
        make_pt(secured / f"0000{number}-last.pt", seed=number)
        said = {"source": source.format(project=trainer.project), "epoch": number}
        (secured / f"0000{number}-last.pt.json").write_text(json.dumps(said) if source else "no JSON")
    os.truncate(trainer.project / "G" / "last.pt", 900)
    came = fetch(line, trainer, home, kind="script", outputs=SCRIPT)
    copies = {name for name in came if name.startswith("secured/") and name.endswith(".pt")}
    assert copies == {f"secured/0000{number}-last.pt" for number in own}
    assert left_by(line, trainer, home) == (set() if own else {"G/last.pt"})
    for name in copies:
        (home / name).unlink()
        assert left_by(line, trainer, home) == {"G/last.pt"}, "a copy that is gone covers nothing"


def test_a_copy_of_a_longer_name_is_another_checkpoints(line: Remote, trainer: Trainer, home: Path) -> None:
    secured = trainer.root / "secured" / "001"
    secured.mkdir(parents=True)
    make_pt(trainer.project / "my-last.pt", seed=1)
    make_pt(secured / "00001-my-last.pt", seed=1)
    (trainer.project / "last.pt").write_bytes(make_pt(home.with_name("x.pt"), seed=2).read_bytes()[:900])
    came = fetch(line, trainer, home, kind="script", outputs=SCRIPT)
    assert not [name for name in came if name.startswith("secured/")]
    assert left_by(line, trainer, home) == {"last.pt"}
    make_pt(secured / "00002-last.pt", seed=2)  # without a sidecar, and one checkpoint of its name
    assert "secured/00002-last.pt" in fetch(line, trainer, home, kind="script", outputs=SCRIPT)
    assert left_by(line, trainer, home) == set()


def test_names_that_are_ours_hide_no_file_of_the_run(line: Remote, trainer: Trainer, home: Path) -> None:
    """A script may write to its run folder what our own places at home are called."""
    make_pt(trainer.project / "best.pt", seed=1)
    mine = {"train.log": b"its own", "outputs/best.pt": b"", "secured": b"a", "earlier": b"b"}
    mine |= dict.fromkeys((".parts", ".fetch.lock", ".index.json", ".torn.json"), b"[]")
    mine |= {"run/train.log": b"deeper", "run/usual.txt": b"usual", "sub/train.log": b"usual"}
    for name, data in mine.items():
        (trainer.run / name).parent.mkdir(exist_ok=True)
        (trainer.run / name).write_bytes(data)
    make_pt(trainer.run / "outputs" / "best.pt", seed=2)
    for _ in range(2):
        came = fetch(line, trainer, home, kind="script", outputs=("*.pt",))
        assert {"run/usual.txt", "sub/train.log", "other.bin"} <= set(came)
        for name in mine:
            at = name if name in ("run/usual.txt", "sub/train.log") else f"run/{name}"
            assert (home / at).read_bytes() == (trainer.run / name).read_bytes()
        assert (home / "train.log").read_bytes() == trainer.log.read_bytes()
        assert (home / "outputs" / "best.pt").read_bytes() == (trainer.project / "best.pt").read_bytes()
    again = fetch(line, trainer, home, kind="script", outputs=("*.pt",))
    assert not any(one.fetched for one in again.values())


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_hash_may_take_longer_than_the_line_may_be_silent(machine: Sshd) -> None:
    machine.bring({"sha256sum": 'sleep 2; exec /usr/bin/sha256sum "$@"'})
    path = machine.home / "a b"
    path.write_bytes(b"bytes")
    with connect(machine.target) as line:
        answer = exchange(
            line, script("pull-verify"), "0.2", silence=0.9,
            feed=lambda sink: sink.write(b"5\0%s\0" % os.fsencode(path) * 2),
        )  # fmt: skip
    records = [record for record in answer.split(b"\0") if record]
    assert [record.split(b" ")[0].decode() for record in records] == [
        hashlib.sha256(b"bytes").hexdigest()
    ] * 2
    assert records[0].split(b" ", 3)[3] == os.fsencode(path)


def test_what_was_accepted_is_known_to_the_next_fetch_after_a_kill(
    line: Remote, trainer: Trainer, home: Path
) -> None:
    """Nothing runs at the end of a process that is killed; what it had proven is not fetched again."""

    trainer.epoch(1, 0.2)
    for number in range(3):
        (trainer.run / f"{number}.png").write_bytes(bytes(1_100_000))
    files = tuple(
        Found("other", str(path), path.name, path.stat().st_size, "1.0") for path in trainer.run.glob("*.png")
    )
    home.mkdir()
    Fetch(line, home, Index(home), Meter(Silent(), "fetch", 0)).run(files)  # and no index is saved
    again = Index(home)
    for one in files:
        record = again.record(one.name)
        assert record is not None
        assert (record.remote, record.size) == (one.remote, one.size)
    (home / ".index.new").write_text((home / ".index.new").read_text() + '["torn.png", {"remo')
    assert Index(home).record(files[0].name) is not None
    again.describe(files[0].name, 7, {})
    again.save()
    assert not (home / ".index.new").exists()


def test_a_checkpoint_that_a_killed_fetch_brought_is_described(
    line: Remote, trainer: Trainer, home: Path
) -> None:
    trainer.epoch(1, 0.2)
    fetch(line, trainer, home)
    index = Index(home)
    index.describe("weights/last.pt", None, {})
    index.save()
    came = fetch(line, trainer, home)["weights/last.pt"]
    assert (came.fetched, came.epoch) == (False, 1)


def test_one_file_that_the_disk_refuses_leaves_the_others_of_its_lot(
    line: Remote, trainer: Trainer, home: Path
) -> None:
    trainer.epoch(1, 0.2)
    (home / "weights" / "last.pt" / "x").mkdir(parents=True)
    with pytest.raises(TransferError, match=r"last\.pt") as caught:
        fetch(line, trainer, home)
    assert "room" not in caught.value.hint
    assert {"weights/best.pt", "results.csv", "args.yaml"} <= here(home)
    (home / "weights" / "last.pt" / "x").rmdir()
    (home / "weights" / "last.pt").rmdir()
    came = fetch(line, trainer, home)
    assert {name for name, one in came.items() if one.fetched} == {"weights/last.pt"}


def test_a_lane_that_breaks_in_an_unknown_way_is_told(line: Remote, trainer: Trainer, home: Path) -> None:
    trainer.epoch(1, 0.2)

    class Odd:
        def emit(self, event: Event) -> None:
            raise ZeroDivisionError("odd")

    home.mkdir()
    path = trainer.run / "args.yaml"
    found = Found("other", str(path), "args.yaml", path.stat().st_size, "1.0")
    with pytest.raises(TransferError, match="ZeroDivisionError: odd"):
        Fetch(line, home, Index(home), Meter(Odd(), "fetch", 0)).run((found,))


def test_a_destination_that_cannot_be_is_told(line: Remote, trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "x")
    (tmp_path / "locked" / ".fetch.lock").mkdir(parents=True)
    for name in ("file", "link", "locked"):
        with pytest.raises(TransferError, match=f"cannot write below .*{name}") as caught:
            fetch(line, trainer, tmp_path / name)
        assert "move it away" in caught.value.hint


def test_links_of_a_script_come_home(line: Remote, trainer: Trainer, home: Path) -> None:
    """A link counts as the file it leads to, and none leads out of the project and the run's folder."""
    secret = trainer.root / "secret.pt"
    make_pt(trainer.project / "old.pt", seed=9)
    os.utime(trainer.project / "old.pt", (1, 1))
    (trainer.project / "a b").mkdir()
    make_pt(trainer.project / "a b" / "e12.pt", seed=1)
    make_pt(trainer.run / "e13.pt", seed=2)
    make_pt(secret, seed=3)
    links = {"best.pt": "a b/e12.pt", "old-link.pt": "old.pt", "out.pt": str(secret), "gone.pt": "nothing"}
    links |= {
        "new\nline.pt": "a b/../a b/e12.pt",
        "of the run.pt": str(trainer.run / "e13.pt"),
        "folder.pt": "a b",
    }
    for name, target in links.items():
        (trainer.project / name).symlink_to(target)
    (trainer.run / "last.pt").symlink_to("e13.pt")
    (trainer.run / "chain.pt").symlink_to(trainer.project / "out.pt")
    found = fetch(line, trainer, home, kind="script", outputs=("**/*.pt",))
    came = {name for name in found if name.endswith(".pt")}
    outputs = {"best.pt", "a b/e12.pt", "new\nline.pt", "of the run.pt"}
    assert came == {f"outputs/{name}" for name in outputs} | {"e13.pt", "last.pt"}
    assert (home / "outputs" / "best.pt").read_bytes() == (trainer.project / "a b" / "e12.pt").read_bytes()
    assert not (home / "outputs" / "best.pt").is_symlink()
    project, log = str(trainer.project), str(trainer.log)
    left = newest_unproven(
        line, str(trainer.run), home, kind="script", project=project, outputs=("**/*.pt",), log=log
    )
    assert left == ()
    make_pt(trainer.project / "a b" / "e14.pt", seed=5)
    (trainer.project / "best.pt").unlink()
    (trainer.project / "best.pt").symlink_to("a b/e14.pt")
    fetch(line, trainer, home, kind="script", outputs=("best.pt",))
    assert (home / "outputs" / "best.pt").read_bytes() == (trainer.project / "a b" / "e14.pt").read_bytes()


def test_a_place_that_cannot_be_written_is_told(line: Remote, trainer: Trainer, home: Path) -> None:
    """Also for what has come whole before anything is asked for: here a file of no bytes."""
    (trainer.project / "empty.txt").touch()
    home.mkdir()
    (home / "outputs").write_text("a file stands where the folder must")
    found = Found("other", str(trainer.project / "empty.txt"), "outputs/empty.txt", 0, "1.0")
    with pytest.raises(TransferError, match="cannot write below"):
        Fetch(line, home, Index(home), Meter(Silent(), "fetch", 0)).run((found,))
