"""What the machine does alone says how far it is, and two that do it do not spoil each other's work."""

from __future__ import annotations

import fcntl
import http.server
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloudtrain.errors import TransferError
from cloudtrain.events import Event, Note, Progress
from cloudtrain.models.config import Config, Dataset
from cloudtrain.models.lent import Lent
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote, Result, connect
from cloudtrain.transfer.dataset import DatasetSource, inspect_dataset
from cloudtrain.transfer.push import push_dataset
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.told import Told
from cloudtrain.transfer.unpack import fetch_objects
from cloudtrain.transfer.wire import Sink, exchange, failure
from tests.support.sshd import Sshd
from tests.transfer.conftest import Seen

TABLE = bytes(range(256)) * 4096


class Reacting(Seen):
    """A reporter that does something at the first progress it is waiting for."""

    def __init__(self, waits_for: Callable[[Progress], bool], then: Callable[[], object]) -> None:
        super().__init__()
        self.waits_for: Callable[[Progress], bool] | None = waits_for
        self.then = then

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, Progress) and self.waits_for is not None and self.waits_for(event):
            self.waits_for = None
            self.then()

    def progress(self) -> list[Progress]:
        return [event for event in self.events if isinstance(event, Progress)]


class Halting(http.server.BaseHTTPRequestHandler):
    """Serves one body; stands still in its middle until it may go on. Knows ranges, unless told not to."""

    body: ClassVar[bytes]
    go_on: ClassVar[threading.Event]
    asked: ClassVar[list[str]]
    ranges: ClassVar[bool]
    refuses: ClassVar[bool] = False
    version: ClassVar[tuple[str, str]] = ("", "")
    if_range: ClassVar[bool] = True
    cut: ClassVar[bool] = False

    def from_there(self) -> int:
        """Where it is to begin: at its beginning for who has the begin of another version."""
        said, of = self.headers["Range"], self.headers["If-Range"]
        if not said or not self.ranges or (self.if_range and of not in (None, self.version[1])):
            return 0
        return int(said.removeprefix("bytes=").split("-")[0])

    def do_GET(self) -> None:
        if self.refuses:
            self.send_response(403)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"no, a")
            return
        begin = self.from_there()
        self.asked.append(self.headers["Range"] or "")
        if begin >= len(self.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.body)}")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if self.version[0]:
            self.send_header(*self.version)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(self.body) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(self.body) - begin))
        self.end_headers()
        middle = max(begin, len(self.body) // 2)
        self.wfile.write(self.body[begin:middle])
        if self.cut:
            return
        self.go_on.wait(60)
        self.wfile.write(self.body[middle:])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def machine(sshd: Sshd) -> Sshd:
    return sshd


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "a.csv").write_bytes(TABLE)
    with tarfile.open(tmp_path / "set.tar", "w") as made:
        made.add(tmp_path / "a.csv", "a.csv")
    return tmp_path / "set.tar"


@pytest.fixture
def halting(archive: Path) -> Iterator[tuple[str, type[Halting]]]:
    own: dict[str, Any] = {
        "body": archive.read_bytes(),
        "go_on": threading.Event(),
        "asked": [],
        "ranges": True,
    }
    handler = type("Handler", (Halting,), own)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/set.tar", handler
    handler.go_on.set()
    server.shutdown()
    server.server_close()


def source_of(dataset: Dataset, base: Path) -> DatasetSource:
    found = inspect_dataset(Config(dataset=dataset), base)
    assert found is not None
    return found


def from_address(url: str, base: Path) -> tuple[DatasetSource, tuple[Lent, ...]]:
    return source_of(Dataset(source="s3://data/set.tar"), base), (Lent("set.tar", 1, url, "v"),)


def test_a_download_says_how_far_it_is(
    line: Remote, layout: Layout, base: Path, halting: tuple[str, type[Halting]]
) -> None:
    url, handler = halting
    half = len(handler.body) // 2 - 65536  # what curl holds back
    seen = Reacting(lambda at: at.done >= half, handler.go_on.set)
    source, lent = from_address(url, base)
    push_dataset(line, source, layout, seen, lent=lent)
    at = next(one for one in seen.progress() if one.done >= half)
    assert (at.total, at.unit, at.detail) == (len(handler.body), "bytes", "downloads")
    assert (Path(layout.data) / "a.csv").read_bytes() == TABLE
    assert not list(Path(layout.root).rglob("*.size"))


def test_two_that_fetch_one_archive_fetch_it_once(
    machine: Sshd, layout: Layout, base: Path, halting: tuple[str, type[Halting]]
) -> None:
    """The first is what a line that broke has left: it goes on."""
    url, handler = halting
    source, lent = from_address(url, base)
    failed: list[BaseException] = []
    both: list[threading.Thread] = []

    def fetch(seen: Seen) -> None:
        try:
            with connect(machine.target) as line:
                push_dataset(line, source, layout, seen, lent=lent)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    second = Reacting(lambda at: at.done > 0, handler.go_on.set)  # it waits, and shows how far the first is
    both.append(threading.Thread(target=fetch, args=(second,)))
    first = Reacting(lambda at: at.done > 0, both[0].start)
    both.append(threading.Thread(target=fetch, args=(first,)))
    both[1].start()
    both[1].join(60)
    both[0].join(60)
    assert failed == []
    assert handler.asked == [""]
    assert second.progress()


def fetched_once(
    line: Remote, layout: Layout, base: Path, halting: tuple[str, type[Halting]]
) -> tuple[DatasetSource, tuple[Lent, ...], Path]:
    """Fetch the archive from a server that stands still no more; return it, and where it lies there."""
    url, handler = halting
    handler.go_on.set()
    source, lent = from_address(url, base)
    push_dataset(line, source, layout, Seen(), lent=lent)
    (there,) = (Path(layout.root) / "archives").glob("*.tar")
    return source, lent, there


def test_what_is_there_already_is_not_fetched_again(
    line: Remote, layout: Layout, base: Path, halting: tuple[str, type[Halting]]
) -> None:
    handler = halting[1]
    source, lent, there = fetched_once(line, layout, base, halting)
    every = len(handler.body)
    for kept, ranges, asked in (
        (every, True, 1),
        (1000, True, 1),
        (1000, False, 2),
        (every, False, 2),
        (every + 10, True, 2),  # of an earlier, longer file
    ):
        handler.ranges = ranges
        handler.asked.clear()
        there.with_name(there.name + ".part").write_bytes(handler.body[:kept].ljust(kept, b"x"))
        there.unlink()
        push_dataset(line, source, layout, Seen(), lent=lent)
        assert there.read_bytes() == handler.body
        assert len(handler.asked) <= asked, (kept, ranges, handler.asked)


def test_an_address_that_has_ended_costs_nothing_of_what_came(
    line: Remote, layout: Layout, base: Path, halting: tuple[str, type[Halting]]
) -> None:
    handler = halting[1]
    source, lent, there = fetched_once(line, layout, base, halting)
    part = there.rename(there.with_name(there.name + ".part"))
    handler.refuses = True
    with pytest.raises(TransferError, match="403"):
        push_dataset(line, source, layout, Seen(), lent=lent)
    assert part.read_bytes() == handler.body


DATES = ("Sat, 01 Aug 2026 00:00:00 GMT", "Sun, 02 Aug 2026 00:00:00 GMT")


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize(
    ("header", "before", "after", "goes_on"),
    [
        ("ETag", '"a"', '"b"', False),
        ("ETag", '"a\\"', '"a\\"', True),
        ("Last-Modified", *DATES, False),
        ("Last-Modified", DATES[0], DATES[0], True),
        ("ETag", 'W/"a"', 'W/"b"', True),  # it says nothing about bytes: none can be asked for by it
    ],
)
def test_a_file_that_changed_on_its_server_comes_from_its_beginning(
    line: Remote,
    layout: Layout,
    base: Path,
    halting: tuple[str, type[Halting]],
    header: str,
    before: str,
    after: str,
    goes_on: bool,
    if_range: bool,
) -> None:
    """Half of one and half of the other would be an archive of nobody's."""
    url, handler = halting
    source, lent = from_address(url, base)
    handler.go_on.set()
    handler.cut, handler.if_range, handler.version = True, if_range, (header, before)
    with pytest.raises(TransferError):
        push_dataset(line, source, layout, Seen(), lent=lent)
    handler.cut, handler.version = False, (header, after)
    if not goes_on:
        handler.body = handler.body.replace(TABLE, TABLE[::-1])
    handler.asked.clear()
    push_dataset(line, source, layout, Seen(), lent=lent)
    (there,) = (path for path in (Path(layout.root) / "archives").iterdir() if path.name[0] != ".")
    assert there.read_bytes() == handler.body
    assert handler.asked[0].startswith("bytes=")
    assert handler.asked[1:] == ([] if goes_on else [""])


def test_an_archive_says_how_far_it_is_read(
    machine: Sshd, layout: Layout, base: Path, tmp_path: Path, archive: Path
) -> None:
    (base / "set.tar").write_bytes(archive.read_bytes())
    gate = tmp_path / "gate"
    half = archive.stat().st_size // 2
    there = f"{layout.root}/archives/set.tar"
    machine.bring({"tar": f"""
        if [ "$2" = '{there}' ]; then
            exec 7<'{there}'
            head -c {half} <&7 >/dev/null
            until [ -e '{gate}' ]; do sleep 0.05; done
            exec 7<&-
        fi
        exec /bin/tar "$@"
    """})  # fmt: skip
    seen = Reacting(lambda at: at.detail == "unpacks" and at.done >= half, gate.touch)
    with connect(machine.target) as line:
        push_dataset(line, source_of(Dataset(path="set.tar"), base), layout, seen)
    at = next(one for one in seen.progress() if one.detail == "unpacks" and one.done >= half)
    assert at.total == archive.stat().st_size


def test_a_server_that_stands_still_holds_nobody_up(
    machine: Sshd, layout: Layout, base: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    machine.bring({"curl": f"echo \"$@\" >> '{asked}'; echo 'curl: (28) too slow' >&2; exit 28"})
    source, lent = from_address("http://127.0.0.1:9/a", base)
    with connect(machine.target) as line:
        with pytest.raises(TransferError, match="too slow"):
            push_dataset(line, source, layout, Seen(), lent=lent)
        with pytest.raises(TransferError, match="did not come whole"):
            fetch_objects(line, layout, Seen(), (Lent("a", 1, "http://127.0.0.1:9/a", "v"),))
    begun = [one for one in asked.read_text().splitlines() if "--retry" in one]
    assert len(begun) == 2
    assert all("--connect-timeout 30 --speed-limit 1 --speed-time 60 " in one for one in begun)


def test_what_cannot_fit_is_not_begun(
    machine: Sshd, layout: Layout, base: Path, halting: tuple[str, type[Halting]]
) -> None:
    url, handler = halting
    machine.bring({"df": "echo; echo x x x 1000 x x"})
    source, lent = from_address(url, base)
    with connect(machine.target) as line:
        with pytest.raises(TransferError, match="disk is full"):
            push_dataset(line, source, layout, Seen(), lent=lent)
        handler.asked.clear()
        with pytest.raises(TransferError, match="disk is full"):
            fetch_objects(line, layout, Seen(), (Lent("a", len(handler.body), url, "v"),))
    assert handler.asked == []
    assert not list(Path(layout.root).rglob("*.part"))


def side_by_side(
    machine: Sshd, push: Callable[[Remote, Seen], object], *seens: Seen
) -> list[threading.Thread]:
    """Return threads that push over lines of their own; what fails is an event of theirs."""

    def run(seen: Seen) -> None:
        try:
            with connect(machine.target) as line:
                push(line, seen)
        except TransferError as error:
            seen.emit(Note(error.message, "warning"))

    return [threading.Thread(target=run, args=(seen,)) for seen in seens]


def failed(seen: Seen) -> list[str]:
    return [event.text for event in seen.events if isinstance(event, Note)]


def test_a_corrected_command_ends_the_one_that_hangs(
    line: Remote, machine: Sshd, layout: Layout, base: Path, tmp_path: Path
) -> None:
    """With all that it has started; the lock and the folder are the later one's."""
    hangs = f"echo $$ > '{tmp_path}/pid'; sleep 300 & wait"
    begun = threading.Event()
    seen = Reacting(lambda _: (tmp_path / "pid").exists(), begun.set)
    (first,) = side_by_side(
        machine,
        lambda line, seen: push_dataset(line, source_of(Dataset(command=hangs), base), layout, seen),
        seen,
    )
    first.start()
    assert begun.wait(30)
    push_dataset(line, source_of(Dataset(command="echo x > a"), base), layout, Seen())
    first.join(30)
    (said,) = failed(seen)
    assert "a later command has other work there" in said
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
    assert (Path(layout.data) / "a").read_text() == "x\n"


def test_the_same_command_again_waits_and_says_so(
    machine: Sshd, layout: Layout, base: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    command = f"echo x >> ran; until [ -e '{gate}' ]; do sleep 0.05; done"
    source = source_of(Dataset(command=command), base)
    second = Reacting(lambda at: at.detail == "waits for an earlier one", gate.touch)
    first = Reacting(lambda _: (Path(layout.data) / "ran").exists(), Seen)
    both = side_by_side(machine, lambda line, seen: push_dataset(line, source, layout, seen), first, second)
    first.then = both[1].start
    both[0].start()
    both[0].join(60)
    both[1].join(60)
    assert (failed(first), failed(second)) == ([], [])
    assert gate.exists()
    assert (Path(layout.data) / "ran").read_text() == "x\n"


def test_all_input_is_taken_before_a_lock_is_waited_for(line: Remote, layout: Layout) -> None:
    """Who sends it gives up when nothing is taken for a while."""
    marker = Path(layout.root) / "manifests" / "dataset.unpacked"
    marker.parent.mkdir(parents=True)
    held = Path(f"{marker}.lock").open("w")  # noqa: SIM115
    fcntl.flock(held, fcntl.LOCK_EX)

    def feed(sink: Sink) -> None:
        for number in range(16):
            sink.write(b"%d\x000\0http://127.0.0.1:9/%s\0" % (number, b"x" * (1 << 19)))
        held.close()

    text = script("told-lib", "dataset-lib", "dataset-objects")
    exchange(line, text, layout.data, str(marker), "d", "1", "0", feed=feed, silence=5)
    assert len(list(Path(layout.data).iterdir())) == 16


def test_the_text_of_a_command_is_in_no_process_list(line: Remote, layout: Layout, base: Path) -> None:
    command = "cat /proc/[0-9]*/cmdline > all 2> /dev/null; ls -l $0 > mode; : t0ken-of-mine"
    push_dataset(line, source_of(Dataset(command=command), base), layout, Seen())
    every = (Path(layout.data) / "all").read_bytes()
    assert b"dataset.unpacked" in every
    assert b"t0ken-of-mine" not in every
    mode, *_, file = (Path(layout.data) / "mode").read_text().split()
    assert mode.startswith("-rw-------")
    assert not Path(file).exists()


class Steps(Seen):
    """Makes a file at the second progress after each of the others came to be."""

    def __init__(self, *steps: tuple[Path, Path]) -> None:
        super().__init__()
        self.steps, self.after = list(steps), 0

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, Progress) and self.steps and self.steps[0][0].exists():
            self.after += 1
            if self.after == 2:
                self.steps.pop(0)[1].touch()
                self.after = 0


def test_an_archive_that_nobody_reads_just_now_says_where_it_stands(
    machine: Sshd, layout: Layout, base: Path, tmp_path: Path, archive: Path
) -> None:
    """While its unpacker is installed, and while its links are looked at: silence is a dead line."""
    (base / "set.tar").write_bytes(archive.read_bytes())
    half = archive.stat().st_size // 2
    there = f"{layout.root}/archives/set.tar"
    before, begun, reads, seen_it, after, ended = (tmp_path / f"{number}" for number in range(6))
    machine.bring({"tar": f"""
        await() {{ for i in $(seq 100); do [ -e "$1" ] && return; sleep 0.1; done; exit 1; }}
        if [ "$2" = '{there}' ]; then
            touch '{before}'; await '{begun}'
            exec 7<'{there}'; head -c {half} <&7 >/dev/null
            touch '{reads}'; await '{seen_it}'
            exec 7<&-; touch '{after}'; await '{ended}'
        fi
        exec /bin/tar "$@"
    """})  # fmt: skip
    seen = Steps((before, begun), (reads, seen_it), (after, ended))
    with connect(machine.target) as line:
        push_dataset(line, source_of(Dataset(path="set.tar"), base), layout, seen)
    at = [one.done for one in seen.events if isinstance(one, Progress) and one.detail == "unpacks"]
    assert at.count(0) >= 2
    far = next(number for number, done in enumerate(at) if done >= half)
    assert min(at[far : far + 3]) >= half


def test_a_command_shows_its_last_line(line: Remote, layout: Layout, base: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"printf 'begun\\n 10%%\\r half way\\t50%%\\r'; until [ -e '{gate}' ]; do sleep 0.05; done; echo x > a"
    seen = Reacting(lambda at: "half way" in at.detail, gate.touch)
    push_dataset(line, source_of(Dataset(command=command), base), layout, seen)
    assert (Path(layout.data) / "a").read_text() == "x\n"
    assert next(one.detail for one in seen.progress() if "half" in one.detail).strip() == "half way 50%"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    there = tmp_path / "there"
    subprocess.run(["git", "init", "-q", str(there)], check=True)
    for number in range(20):
        (there / f"f{number}").write_text(f"{number}")
    git(there, "add", ".")
    git(there, "commit", "-qm", "x")
    return there


def git(there: Path, *args: str) -> None:
    own = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(there), *own, *args], check=True)


def clone(line: Remote, folder: str, address: str, ref: str, seen: Seen) -> Result:
    told = Told(seen, unit="objects")
    text = script("told-lib", "project-clone")
    return line.script(text, folder, address, ref, on_line=told.line, check=False)


def test_a_clone_says_how_far_it_is(line: Remote, layout: Layout, repository: Path) -> None:
    seen = Seen()
    said = clone(line, layout.project, f"file://{repository}", "", seen)
    assert len(said.stdout.split()[-1]) >= 7
    at = [event for event in seen.events if isinstance(event, Progress)]
    assert any(one.detail == "Receiving objects" and one.done == one.total == 22 for one in at)
    assert all(one.unit == "objects" for one in at)
    none = clone(line, f"{layout.project}-2", f"file://{repository}-not", "", Seen())
    assert not none.ok
    assert "-not" in none.stderr


def test_a_tag_that_was_moved_is_followed(line: Remote, layout: Layout, repository: Path) -> None:
    git(repository, "tag", "v1")
    for text in ("one", "two"):
        said = clone(line, layout.project, f"file://{repository}", "v1", Seen())
        assert said.ok, said.stderr
        (repository / "f0").write_text(text)
        git(repository, "commit", "-qam", text)
        git(repository, "tag", "--force", "v1")
    assert (Path(layout.project) / "f0").read_text() == "one"


def test_a_second_clone_waits_for_the_first(
    machine: Sshd, layout: Layout, tmp_path: Path, repository: Path
) -> None:
    """It would remove what the first one has begun."""
    gate, began = tmp_path / "gate", tmp_path / "began"
    machine.bring({"git": f"""
        case " $* " in *" clone "*)
            echo x >> '{began}'
            printf 'Receiving objects: 1%% (1/2)\\r' >&2
            until [ -e '{gate}' ]; do sleep 0.05; done
        esac
        exec /usr/bin/git "$@"
    """})  # fmt: skip
    second = Reacting(lambda at: at.detail == "waits for an earlier one", gate.touch)
    first = Reacting(lambda _: began.exists(), Seen)
    said: list[Result] = []
    both = side_by_side(
        machine,
        lambda line, seen: said.append(clone(line, layout.project, f"file://{repository}", "", seen)),
        first,
        second,
    )
    first.then = both[1].start
    both[0].start()
    both[0].join(60)
    both[1].join(60)
    assert [one.ok for one in said] == [True, True]
    assert began.read_text() == "x\n"


def test_rate_and_time_left() -> None:
    seen, now = Seen(), [0.0]
    told = Told(seen, "downloads", clock=lambda: now[0])
    for at, done in ((0.0, 500), (1.0, 600), (2.0, 900), (3.0, 100)):  # at last from its beginning again
        now[0] = at
        told.line(f"@at\t{done}\t1000\t0\t0\t")
    told.line("@at\tx")
    told.line("other")
    said = [event for event in seen.events if isinstance(event, Progress)]
    assert [(one.rate, one.best, one.eta_s) for one in said] == [
        (None, None, None), (100, 100, 4), (200, 300, 0.5), (None, None, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "said", ["Failure writing output to destination", "Failed writing body (0 != 16384)"]
)
def test_a_full_disk_in_the_words_of_curl(said: str) -> None:
    assert "disk is full" in failure(f"curl: (23) {said}", 65).message
    assert "disk is full" not in failure(f"a: Permission denied\ncurl: (23) {said}", 65).message
