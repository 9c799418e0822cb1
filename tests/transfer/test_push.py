"""Pushing to a real sshd, with rsync there and without."""

from __future__ import annotations

import gzip
import os
import threading
import time
from pathlib import Path

import pytest

from cloudtrain.errors import CloudtrainError, TransferError
from cloudtrain.events import Event, Note, Progress, Silent
from cloudtrain.models.config import Config, Dataset, Project
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote, connect
from cloudtrain.transfer.dataset import inspect_dataset
from cloudtrain.transfer.lane import Lane
from cloudtrain.transfer.push import differs, project_digest, push_dataset, push_model, push_project
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.wire import exchange
from tests.support.sshd import Sshd
from tests.transfer.conftest import Seen
from tests.transfer.test_dataset import make_dataset

ODD = [
    "a b.py",
    "-n",
    "new\nline.txt",
    "grün.py",
    "quote'\".py",
    "$(touch pwned)",
    "tail ",
    " head",
    "tab\t",
    "*",
    "\\x",
]


def contents(folder: Path) -> dict[str, bytes | str]:
    """Read a tree: bytes of files, targets of links."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[name] = "(empty folder)"
    return found


def fill(folder: Path, files: int = 100, size: int = 1000) -> None:
    for number in range(files):
        path = folder / f"part {number % 7}" / f"f{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))


@pytest.mark.parametrize("extra", [0, 80])
def test_odd_names_arrive(line: Remote, layout: Layout, base: Path, seen: Seen, extra: int) -> None:
    """Every name a file system allows, links, empty folders and files: the same there, by any mover."""
    fill(base, extra)
    for name in ODD:
        (base / name).write_text(f"<{name}>")
    (base / os.fsdecode(b"bad\xffbytes")).write_text("x")
    (base / "empty" / "deeper").mkdir(parents=True)
    (base / "zero").touch()
    (base / "sub").mkdir()
    (base / "sub" / "run.sh").write_text("echo")
    (base / "sub" / "run.sh").chmod(0o755)
    (base / "sub" / "up").symlink_to("../zero")
    (base / "to folder").symlink_to("sub")
    report = push_project(line, Config(), base, layout, seen)
    there = Path(layout.project)
    assert contents(there) == contents(base)
    assert (there / "sub" / "run.sh").stat().st_mode & 0o111
    assert report.files == report.sent_files == len(ODD) + 3 + extra
    assert report.bytes == report.sent_bytes
    assert not list(Path(there).rglob("pwned"))


def test_no_change_costs_nothing(line: Remote, machine: Sshd, layout: Layout, base: Path, seen: Seen) -> None:
    fill(base)
    push_project(line, Config(), base, layout, seen)
    assert differs(line, Config(), base, layout) == ()
    before, inodes = machine.handshakes(), {p: p.stat().st_ctime_ns for p in Path(layout.project).rglob("*")}
    report = push_project(line, Config(), base, layout, seen)
    assert (report.sent_files, report.sent_bytes, report.files) == (0, 0, 100)
    assert machine.handshakes() == before
    assert {p: p.stat().st_ctime_ns for p in Path(layout.project).rglob("*")} == inodes


def test_small_change_needs_no_second_connection(
    line: Remote, machine: Sshd, layout: Layout, base: Path, seen: Seen
) -> None:
    fill(base)
    push_project(line, Config(), base, layout, seen)
    digest = project_digest(Config(), base)
    (base / "part 1" / "f1.bin").write_bytes(b"edited")
    (base / "part 2" / "f2.bin").unlink()
    assert project_digest(Config(), base) != digest
    assert differs(line, Config(), base, layout) == ("project",)
    before = machine.handshakes()
    report = push_project(line, Config(), base, layout, seen)
    assert (report.sent_files, report.sent_bytes) == (1, 6)
    assert machine.handshakes() == before
    assert contents(Path(layout.project)) == contents(base)


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_file_moved_over_one_of_its_size_and_second(
    line: Remote, layout: Layout, base: Path, seen: Seen, place: str
) -> None:
    """The machine keeps whole seconds: only the bytes tell."""
    fill(base)
    second = int(time.time()) - 3600
    other = (base if place == "inside" else base.parent) / "other.yaml"
    for path, text, part in ((base / "config.yaml", "lr: 0.01", 1), (other, "lr: 0.99", 2)):
        path.write_text(text)
        os.utime(path, ns=(0, second * 10**9 + part))
    push_project(line, Config(), base, layout, seen)
    other.replace(base / "config.yaml")
    assert differs(line, Config(), base, layout) == ("project",)
    report = push_project(line, Config(), base, layout, seen)
    assert report.sent_files == 1
    assert contents(Path(layout.project)) == contents(base)
    assert push_project(line, Config(), base, layout, seen).sent_files == 0


def test_outputs_stay_and_only_our_own_is_deleted(
    line: Remote, layout: Layout, base: Path, seen: Seen
) -> None:
    (base / "src" / "old").mkdir(parents=True)
    (base / "src" / "old" / "gone.py").write_text("1")
    (base / "out").mkdir()
    (base / "out" / "note.txt").write_text("2")
    push_project(line, Config(), base, layout, seen)
    there = Path(layout.project)
    (there / "out" / "weights.pt").write_text("made there")
    (base / "src" / "old" / "gone.py").unlink()
    (base / "src" / "old").rmdir()
    (base / "src").rmdir()
    (base / "out" / "note.txt").unlink()
    push_project(line, Config(), base, layout, seen)
    assert (there / "out" / "weights.pt").read_text() == "made there"
    assert not (there / "out" / "note.txt").exists()
    assert not (there / "src").exists()


def test_things_change_their_kind(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    """File to folder, folder to link, link to file, empty folder to file."""
    (base / "a").write_text("file")
    (base / "b").mkdir()
    (base / "b" / "x").write_text("1")
    (base / "c").symlink_to("a")
    (base / "d").mkdir()
    push_project(line, Config(), base, layout, seen)
    (base / "a").unlink()
    (base / "a").mkdir()
    (base / "a" / "inner").write_text("2")
    (base / "b" / "x").unlink()
    (base / "b").rmdir()
    (base / "b").symlink_to("a")
    (base / "c").unlink()
    (base / "c").write_text("3")
    (base / "d").rmdir()
    (base / "d").write_text("4")
    push_project(line, Config(), base, layout, seen)
    assert contents(Path(layout.project)) == contents(base)


def test_what_was_changed_on_the_machine_is_put_right(
    line: Remote, layout: Layout, base: Path, seen: Seen
) -> None:
    fill(base, 5)
    push_project(line, Config(), base, layout, seen)
    (Path(layout.project) / "part 0" / "f0.bin").write_text("broken")
    (Path(layout.project) / "part 1" / "f1.bin").unlink()
    assert differs(line, Config(), base, layout) == ("project",)
    assert push_project(line, Config(), base, layout, seen).sent_files == 2
    assert contents(Path(layout.project)) == contents(base)


class CutAt:
    """A reporter that cuts the line at the first progress past a share of the bytes."""

    def __init__(self, machine: Sshd, share: float) -> None:
        self.machine, self.share, self.cut = machine, share, threading.Event()

    def emit(self, event: Event) -> None:
        if isinstance(event, Progress) and event.done >= self.share * event.total and not self.cut.is_set():
            self.cut.set()
            self.machine.drop_connections()


@pytest.mark.parametrize("share", [0.0, 0.001])
def test_cut_line_then_again(machine: Sshd, layout: Layout, base: Path, share: float) -> None:
    fill(base, 120, 300_000)
    cut = CutAt(machine, share)
    with connect(machine.target) as first, pytest.raises(CloudtrainError) as caught:
        push_project(first, Config(), base, layout, cut)
    assert cut.cut.is_set()
    assert caught.value.exit_code in (4, 6)
    with connect(machine.target) as second:
        assert differs(second, Config(), base, layout) == ("project",)
        push_project(second, Config(), base, layout, Silent())
        assert differs(second, Config(), base, layout) == ()
    assert contents(Path(layout.project)) == contents(base)


def test_dataset_moves_and_project_links_to_it(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    yaml_file = make_dataset(base / "data", images=40)
    (base / "train.py").write_text("pass")
    config = Config(dataset=Dataset(path="data/data.yaml"))
    source = inspect_dataset(config, base)
    assert source is not None
    before = yaml_file.read_bytes()
    assert differs(line, config, base, layout) == ("project", "dataset")
    report = push_dataset(line, source, layout, seen)
    push_project(line, config, base, layout, seen)
    assert differs(line, config, base, layout) == ()
    assert report.files == source.files + 1
    assert yaml_file.read_bytes() == before
    there = Path(layout.project)
    assert (there / "data" / "images" / "train").is_symlink()
    assert contents(there / "data" / "images" / "train") == contents(base / "data" / "images" / "train")
    assert push_dataset(line, source, layout, seen).sent_files == 0


def test_archive_is_sent_once_and_unpacked(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    import shutil

    make_dataset(base / "raw", images=3)
    shutil.make_archive(str(base / "set"), "zip", base / "raw")
    config = Config(dataset=Dataset(path="set.zip"), project=Project(exclude=("raw/",)))
    source = inspect_dataset(config, base)
    assert source is not None
    assert source.kind == "archive"
    assert source.size_bytes > source.bytes
    assert push_dataset(line, source, layout, seen).sent_files == 1
    assert f"path: {layout.data}\n" in (Path(layout.data) / "data.yaml").read_text()
    assert contents(Path(layout.data) / "images") == contents(base / "raw" / "images")
    assert push_dataset(line, source, layout, seen).sent_files == 0
    push_project(line, config, base, layout, seen)
    assert contents(Path(layout.project)) == {}


def test_model_is_sent(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    model = base / "my model.pt"
    model.write_bytes(os.urandom(5_000_000))
    assert push_model(line, model, layout, seen).sent_files == 1
    assert (Path(layout.root) / "models" / "my model.pt").read_bytes() == model.read_bytes()
    assert push_model(line, model, layout, seen).sent_files == 0


def test_file_that_changes_while_it_is_sent(line: Remote, layout: Layout, base: Path) -> None:
    """The copy that arrives in the end is the one that lies here in the end."""
    fill(base, 90, 60_000)

    class Editor:
        def __init__(self) -> None:
            self.left = 1

        def emit(self, event: Event) -> None:
            if isinstance(event, Progress) and self.left:
                self.left -= 1
                (base / "part 6" / "f6.bin").write_bytes(b"changed")

    push_project(line, Config(), base, layout, Editor())
    assert contents(Path(layout.project)) == contents(base)


def test_no_room_is_said_before_anything_moves(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    """A sparse file larger than any disk here."""
    with (base / "huge.bin").open("wb") as file:
        file.truncate(15 << 40)
    (base / ".cloudtrainignore").write_text("!/huge.bin\n")
    with pytest.raises(TransferError, match="are free") as caught:
        push_project(line, Config(), base, layout, seen)
    assert "volume_gb" in caught.value.hint
    assert not (Path(layout.project) / "huge.bin").exists()


def test_secret_stays_and_is_said(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    (base / "key.pem").write_text("secret")
    (base / "train.py").write_text("pass")
    report = push_project(line, Config(), base, layout, seen)
    assert set(contents(Path(layout.project))) == {"train.py"}
    assert any("key.pem" in line for line in report.left_out)
    assert any("key.pem" in getattr(event, "text", "") for event in seen.events)


def test_archive_with_a_link_out_of_it_is_refused(
    line: Remote, layout: Layout, base: Path, seen: Seen
) -> None:
    import tarfile

    with tarfile.open(base / "evil.tar", "w") as archive:
        link = tarfile.TarInfo("images")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    source = inspect_dataset(Config(dataset=Dataset(path="evil.tar")), base)
    assert source is not None
    with pytest.raises(TransferError, match="leads out of it"):
        push_dataset(line, source, layout, seen)
    assert not Path(layout.data).exists()


@pytest.mark.parametrize("kind", ["link", "file", "big file"])
def test_a_folder_that_the_machine_wrote_into_becomes_something_else(
    line: Remote, layout: Layout, base: Path, seen: Seen, kind: str
) -> None:
    """What the machine wrote is kept beside it, under a free name."""
    (base / "out").mkdir()
    (base / "out" / "a.txt").write_text("a")
    (base / "target").write_text("t")
    push_project(line, Config(), base, layout, seen)
    there = Path(layout.project)
    (there / "out" / "made.pt").write_text("made there")
    (there / "out.cloudtrain-kept").write_text("taken")
    (base / "out" / "a.txt").unlink()
    (base / "out").rmdir()
    if kind == "link":
        (base / "out").symlink_to("target")
    else:
        (base / "out").write_bytes(b"x" * (6_000_000 if kind == "big file" else 1))
    for _ in range(2):
        push_project(line, Config(), base, layout, seen)
    kept = {"out.cloudtrain-kept": b"taken", "out.cloudtrain-kept-2/made.pt": b"made there"}
    assert contents(there) == {**contents(base), **kept}


@pytest.mark.parametrize("size", [10, 5 << 20])
@pytest.mark.parametrize("what", ["file", "link to nothing", "link to a folder", "our file"])
@pytest.mark.parametrize("machine", ["tar"], indirect=True)
def test_a_file_of_the_machine_where_a_folder_must_be(
    line: Remote, layout: Layout, base: Path, seen: Seen, what: str, size: int
) -> None:
    """It is kept; a link to a folder is followed; what an earlier push put there is deleted."""
    (base / "train.py").write_text("x")
    if what == "our file":
        (base / "out").write_text("pushed before")
    push_project(line, Config(), base, layout, seen)
    there = Path(layout.project)
    kept: dict[str, bytes | str] = {}
    if what == "file":
        (there / "out").write_text("made there")
        kept = {"out.cloudtrain-kept": b"made there"}
    elif what == "link to nothing":
        (there / "out").symlink_to("/nowhere/x")
        kept = {"out.cloudtrain-kept": "/nowhere/x"}
    elif what == "link to a folder":
        (there.parent / "disk").mkdir()
        (there / "out").symlink_to("../disk")
    else:
        (base / "out").unlink()
    (base / "out" / "deep\n er").mkdir(parents=True)
    (base / "out" / "deep\n er" / "a.bin").write_bytes(os.urandom(size))
    for _ in range(2):
        push_project(line, Config(), base, layout, seen)
    if what == "link to a folder":
        assert contents(there.parent / "disk") == contents(base / "out")
    else:
        assert contents(there) == {**contents(base), **kept}


@pytest.mark.parametrize("machine", ["tar"], indirect=True)
def test_a_link_to_nothing_where_a_first_push_has_a_folder(
    line: Remote, layout: Layout, base: Path, seen: Seen
) -> None:
    there = Path(layout.project)
    there.mkdir(parents=True)
    for name in ("out", "fold"):
        (there / name).symlink_to("/nowhere")
        (base / name).mkdir()
    (there / "old").write_text("made there")  # no folder's name, but the end of one
    fill(base / "out", 100, 30_000)
    push_project(line, Config(), base, layout, seen)
    kept = {"out.cloudtrain-kept": "/nowhere", "fold.cloudtrain-kept": "/nowhere", "old": b"made there"}
    assert contents(there) == {**contents(base), **kept}


def test_a_file_that_the_machine_made_a_folder_of_is_deleted_here(
    line: Remote, layout: Layout, base: Path, seen: Seen
) -> None:
    (base / "a").write_text("1")
    (base / "b").write_text("1")
    push_project(line, Config(), base, layout, seen)
    there = Path(layout.project)
    (there / "a").unlink()
    (there / "a").mkdir()
    (there / "a" / "made").write_text("made there")
    (base / "a").unlink()
    push_project(line, Config(), base, layout, seen)
    assert contents(there) == {"b": b"1", "a/made": b"made there"}


def test_a_big_file_in_a_folder_with_a_newline(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    (base / "end\n").mkdir()
    (base / "end\n" / "big").write_bytes(os.urandom(5_000_000))
    push_project(line, Config(), base, layout, seen)
    assert contents(Path(layout.project)) == contents(base)
    assert not (Path(layout.project) / "end").exists()


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_placing_many_big_files_gives_signs_of_life(line: Remote, layout: Layout) -> None:
    """Each takes some processes: of tens of thousands, nobody would hear for minutes."""
    manifest = f"{layout.root}/manifests/project"
    parts = Path(f"{manifest}.parts")
    parts.mkdir(parents=True)
    for number in range(301):
        (parts / f"id{number}").write_text("x")
    data = b"".join(b"id%d\x001\x00644\0f%d\0" % (number, number) for number in range(301))
    Path(f"{manifest}.owner").write_text("\n")
    order = b"place %d\n%send\n" % (len(data), data)
    said = exchange(
        line,
        script("push-lib", "push-lane"),
        layout.project,
        manifest,
        feed=lambda sink: sink.write(order),
    )
    assert said == b"...\nok\n"
    assert len(list(Path(layout.project).iterdir())) == 301
    with line.open("echo ...; echo ...; echo ok") as command:
        assert Lane(command).answer() == "ok"


def test_parts_of_other_files_go_before_anything_comes(line: Remote, layout: Layout) -> None:
    """They take room that the push counts on."""
    manifest = f"{layout.root}/manifests/project"
    parts = Path(f"{manifest}.parts")
    parts.mkdir(parents=True)
    for name in ("old", "old.done", "new", "new.done"):
        (parts / name).write_text("x")
    data = gzip.compress(b"fa\0") + gzip.compress(b"pnew\0")
    said = exchange(
        line,
        script("push-lib", "push-lane"),
        layout.project,
        manifest,
        feed=lambda sink: sink.write(b"begin %d\n%send\n" % (len(data), data)),
    )
    assert said == b"ok\n"
    assert {path.name for path in parts.iterdir()} == {"new", "new.done"}


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_what_stays_at_home_is_said(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    """One line for all that is left out as usual; by name what cannot be read."""
    make_dataset(base / "data")
    (base / "data" / "images" / "train" / "gone.png").symlink_to("nowhere")
    for name in (".git/config", ".venv/pyvenv.cfg", "runs/1/best.pt", "a.log"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("x")
    (base / ".gitignore").write_text("*.log\n")
    (base / "out").symlink_to("/tmp")
    config = Config(dataset=Dataset(path="data/data.yaml"))
    push_project(line, config, base, layout, seen)
    source = inspect_dataset(config, base)
    assert source is not None
    push_dataset(line, source, layout, seen)
    notes = [event for event in seen.events if isinstance(event, Note)]
    said = (
        "left at home of the project: 1 run folder, 2 of .git and caches, 1 link out of the folder, 1 ignored"
    )
    assert [note.text for note in notes if note.level == "info"] == [said]
    warning = next(note for note in notes if note.level == "warning")
    assert warning.text == "`images/train/gone.png` cannot be read and stayed at home"
    assert warning.hint
