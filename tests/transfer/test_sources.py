"""Datasets that the machine fetches itself: addresses, S3, commands; and archives of every kind."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from cloudtrain.errors import CloudError, TransferError, UsageError
from cloudtrain.models.config import Config, Dataset, Train
from cloudtrain.models.lent import Lent
from cloudtrain.models.run import Layout
from cloudtrain.ssh.remote import Remote, connect
from cloudtrain.transfer.dataset import DatasetSource, inspect_dataset
from cloudtrain.transfer.push import push_dataset
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.unpack import fetch_objects
from cloudtrain.transfer.wire import exchange
from tests.support.sshd import Sshd
from tests.support.thorough import also
from tests.transfer.conftest import Seen, without
from tests.transfer.test_dataset import make_dataset
from tests.transfer.test_push import contents


def found(dataset: Dataset, base: Path) -> DatasetSource:
    source = inspect_dataset(Config(dataset=dataset), base)
    assert source is not None
    return source


def lend(source: str) -> Any:
    from cloudtrain.providers.aws.lend import lend as real

    return real(source, profile=None, region="us-east-1")


def test_a_folder_of_s3(line: Remote, layout: Layout, base: Path, seen: Seen, s3: Any) -> None:
    make_dataset(base / "raw", images=3)
    (base / "raw" / "images" / "train" / 'odd "name" ü+%20.jpg').write_bytes(b"odd")
    for path in (base / "raw").rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), "data", f"set/{path.relative_to(base / 'raw').as_posix()}")
    source = found(Dataset(source="s3://data/set/"), base)
    lent = lend(source.where)
    assert "Signature" not in repr(lent)
    push_dataset(line, source, layout, seen, lent=lent)
    assert contents(Path(layout.data) / "images") == contents(base / "raw" / "images")
    assert f"path: {layout.data}\n" in (Path(layout.data) / "data.yaml").read_text()
    before = {path: path.stat().st_ino for path in Path(layout.data).rglob("*.jpg")}
    push_dataset(line, source, layout, seen, lent=lend(source.where))
    assert {path: path.stat().st_ino for path in Path(layout.data).rglob("*.jpg")} == before
    there = subprocess.run(
        ["grep", "-rl", "-e", "Signature", "-e", "secret-of-the-caller", layout.root],
        stdout=subprocess.PIPE,
        check=False,
    )
    assert there.stdout == b"", "no right stays on the machine"


def test_an_archive_in_s3(line: Remote, layout: Layout, base: Path, seen: Seen, s3: Any) -> None:
    make_dataset(base / "raw", images=3)
    shutil.make_archive(str(base / "set"), "zip", base / "raw")
    s3.upload_file(str(base / "set.zip"), "data", "a/set.zip")
    source = found(Dataset(source="s3://data/a/set.zip"), base)
    push_dataset(line, source, layout, seen, lent=lend(source.where))
    assert contents(Path(layout.data) / "images") == contents(base / "raw" / "images")


def test_s3_without_right_or_thing(s3: Any) -> None:
    with pytest.raises(CloudError, match="nothing-here"):
        lend("s3://nothing-here/a.zip")
    with pytest.raises(UsageError, match="nothing below"):
        lend("s3://data/none/")


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A bucket in eu-west-1: what is asked for another region is refused, as S3 does it."""

    asked: ClassVar[list[str]] = []

    def answer(self, body: bytes) -> None:
        self.asked.append(f"{self.command} {self.path}")
        here = "/eu-west-1/s3/" in self.headers["Authorization"]
        error = b"<Error><Code>PermanentRedirect</Code></Error>"
        self.send_response(200 if here else 400 if self.command == "HEAD" else 301)
        if not here:
            self.send_header("x-amz-bucket-region", "eu-west-1")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body if here else error)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if here else error)

    def do_HEAD(self) -> None:
        self.answer(b"zip")

    def do_GET(self) -> None:
        one = "<Contents><Key>set/a</Key><Size>3</Size><ETag>1</ETag></Contents>"
        self.answer(f"<ListBucketResult><IsTruncated>false</IsTruncated>{one}</ListBucketResult>".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.mark.parametrize("source", ["s3://data/a.zip", "s3://data/set/"])
def test_an_address_is_signed_for_the_region_of_its_bucket(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """What is asked for it are the calls that the least policy has, and no more."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    Elsewhere.asked.clear()
    try:
        (lent,) = lend(source)
    finally:
        server.shutdown()
        server.server_close()
    assert "%2Feu-west-1%2Fs3%2F" in lent.address
    assert lent.size == 3
    assert len(Elsewhere.asked) == 2
    assert all(one.startswith(("HEAD /data/a.zip", "GET /data?list-type=2")) for one in Elsewhere.asked)


def test_hash_of_what_was_fetched(line: Remote, layout: Layout, base: Path, web: str) -> None:
    (base / "web" / "a.zip").write_bytes(b"archive")
    good = hashlib.sha256(b"archive").hexdigest()

    def fetch(archive: str, sha256: str, protocol: str = "http") -> bytes:
        address = f"{web}/a.zip\n".encode()
        return exchange(
            line,
            script("told-lib", "dataset-fetch"),
            archive,
            sha256,
            protocol,
            feed=lambda sink: sink.write(address),
        )

    fetch(f"{layout.root}/archives/a.zip", good)
    assert (Path(layout.root) / "archives" / "a.zip").read_bytes() == b"archive"
    with pytest.raises(TransferError, match=f"another SHA-256 than dataset.sha256: {good}") as caught:
        fetch(f"{layout.root}/archives/b.zip", good.replace(good[0], "0" if good[0] != "0" else "1"))
    assert "write it there" in caught.value.hint
    assert not list((Path(layout.root) / "archives").glob("b.zip*"))
    with pytest.raises(TransferError):
        fetch(f"{layout.root}/archives/c.zip", "", "https")


def fetched_from(
    address: str, base: Path, sha256: str | None = None
) -> tuple[DatasetSource, tuple[Lent, ...]]:
    """Return an archive as it is fetched from S3, with an address of ours."""
    return found(Dataset(source="s3://data/a.zip", sha256=sha256), base), (Lent("a.zip", 1, address, "v"),)


def make_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "1")


@pytest.mark.parametrize("machine", ["rsync", also("tar")], indirect=True)
def test_a_login_page_called_zip_is_fetched_again(
    line: Remote, layout: Layout, base: Path, seen: Seen, web: str
) -> None:
    page = base / "web" / "a.zip"
    page.write_text("<html>log in</html>")
    source, lent = fetched_from(f"{web}/a.zip", base)
    with pytest.raises(TransferError, match="fetches it again"):
        push_dataset(line, source, layout, seen, lent=lent)
    make_zip(page)
    push_dataset(line, source, layout, seen, lent=lent)
    assert contents(Path(layout.data)) == {"a.csv": b"1"}


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_page_whose_hash_was_given_stays(
    line: Remote, layout: Layout, base: Path, seen: Seen, web: str
) -> None:
    """It is what was asked for, whatever it is: fetching it again changes nothing."""
    (base / "web" / "a.zip").write_text("<html>")
    source, lent = fetched_from(f"{web}/a.zip", base, hashlib.sha256(b"<html>").hexdigest())
    with pytest.raises(TransferError):
        push_dataset(line, source, layout, seen, lent=lent)
    assert list((Path(layout.root) / "archives").glob("*a.zip"))


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_an_address_with_every_character(
    line: Remote, layout: Layout, base: Path, seen: Seen, web: str
) -> None:
    make_zip(base / "web" / 'a[1-2]{b,c}"\\n.zip')
    source, lent = fetched_from(f'{web}/a[1-2]{{b,c}}"\\n.zip', base)
    push_dataset(line, source, layout, seen, lent=lent)
    assert contents(Path(layout.data)) == {"a.csv": b"1"}


def test_wget_says_why_and_not_the_address(tmp_path: Path, base: Path, seen: Seen, web: str) -> None:
    server = Sshd(tmp_path / "own", path=without(tmp_path / "bin", "curl")).start()
    try:
        with connect(server.target) as line:
            layout = Layout(f"{server.home}/r")
            source, lent = fetched_from(f"{web}/a.zip?Signature=right", base)
            with pytest.raises(TransferError, match="404") as caught:
                push_dataset(line, source, layout, seen, lent=lent)
            assert "right" not in str(caught.value)
            make_zip(base / "web" / "a.zip")
            push_dataset(line, source, layout, seen, lent=lent)
            assert contents(Path(layout.data)) == {"a.csv": b"1"}
    finally:
        server.stop()


def test_a_command_on_the_machine(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    command = "mkdir -p images/train && echo x > images/train/a.jpg && date +%N > when"
    source = found(Dataset(command=command), base)
    push_dataset(line, source, layout, seen)
    when = (Path(layout.data) / "when").read_text()
    push_dataset(line, source, layout, seen)
    assert (Path(layout.data) / "when").read_text() == when, "it ran once"
    with pytest.raises(TransferError, match="no such thing"):
        push_dataset(line, found(Dataset(command="echo no such thing >&2; false"), base), layout, seen)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "tar.zst", "7z", "zip"])
def test_every_archive(line: Remote, layout: Layout, base: Path, seen: Seen, kind: str) -> None:
    if shutil.which("bsdtar") is None:
        pytest.skip("bsdtar makes these archives, and unpacks some")
    make_dataset(base / "raw", images=2)
    subprocess.run(["bsdtar", "-acf", str(base / f"set.{kind}"), "-C", str(base / "raw"), "."], check=True)
    source = found(Dataset(path=f"set.{kind}"), base)
    assert push_dataset(line, source, layout, seen).sent_files == 1
    assert contents(Path(layout.data) / "images") == contents(base / "raw" / "images")
    assert push_dataset(line, source, layout, seen).sent_files == 0


def make_rar(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a RAR 5 archive, its files stored: nothing that is free makes one.

    https://www.rarlab.com/technote.htm
    """

    def number(value: int) -> bytes:
        low = value & 0x7F
        return bytes([low | 0x80]) + number(value >> 7) if value > 0x7F else bytes([low])

    def block(head: bytes) -> bytes:
        whole = number(len(head)) + head
        return zlib.crc32(whole).to_bytes(4, "little") + whole

    def file(name: str, data: bytes) -> bytes:
        size, named = number(len(data)), name.encode()
        check = zlib.crc32(data).to_bytes(4, "little")
        about = number(4) + size + number(0o100644) + check + number(0) + number(1)
        return block(number(2) + number(2) + size + about + number(len(named)) + named) + data

    parts = [block(number(1) + number(0) + number(0)), *(file(*one) for one in files.items())]
    path.write_bytes(b"Rar!\x1a\x07\x01\x00" + b"".join(parts) + block(number(5) + number(0) + number(0)))


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_rar(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    if shutil.which("bsdtar") is None:
        pytest.skip("bsdtar unpacks them")
    files = {"images/train/a b.jpg": bytes(1000), "images/val/grün.jpg": b"x" * 300}
    make_rar(base / "set.rar", files)
    push_dataset(line, found(Dataset(path="set.rar"), base), layout, seen)
    assert contents(Path(layout.data)) == files
    make_rar(base / "set.rar", {"../../escaped": b"x"})
    with pytest.raises(TransferError):
        push_dataset(line, found(Dataset(path="set.rar"), base), layout, seen)
    assert contents(Path(layout.data)) == files
    assert not list(Path(layout.root).parent.rglob("escaped"))


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
@pytest.mark.parametrize("kind", ["zip", "7z", "tar.zst"])
def test_names_in_any_script(line: Remote, layout: Layout, base: Path, seen: Seen, kind: str) -> None:
    if shutil.which("bsdtar") is None:
        pytest.skip("bsdtar makes these archives, and unpacks them")
    name = "Bïlder/grün 图.jpg"
    (base / "raw" / name).parent.mkdir(parents=True)
    (base / "raw" / name).write_text("x")
    make = ["bsdtar", "-acf", str(base / f"set.{kind}"), "-C", str(base / "raw"), "."]
    subprocess.run(make, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    push_dataset(line, found(Dataset(path=f"set.{kind}"), base), layout, seen)
    assert contents(Path(layout.data)) == {name: b"x"}


def escaping_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../escaped", "x")
        archive.writestr("fine", "x")


def escaping_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("../../escaped", "/tmp/cloudtrain-escaped"):
            info = tarfile.TarInfo(name)
            archive.addfile(info)


def linked_tar(path: Path) -> None:
    """A link out, and a file through it: the second must not follow the first."""
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, "../.."
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("way/escaped"))


@pytest.mark.parametrize(
    ("name", "make"), [("e.zip", escaping_zip), ("e.tar", escaping_tar), ("l.tar", linked_tar)]
)
def test_nothing_escapes(line: Remote, layout: Layout, base: Path, seen: Seen, name: str, make: Any) -> None:
    make(base / name)
    with suppress(TransferError):  # refused, or unpacked without what leads out
        push_dataset(line, found(Dataset(path=name), base), layout, seen)
    assert not list(Path(layout.root).parent.rglob("escaped"))
    assert not Path("/tmp/cloudtrain-escaped").exists()


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_link_to_the_top_of_an_archive_stays_in_it(
    line: Remote, layout: Layout, base: Path, seen: Seen
) -> None:
    with tarfile.open(base / "l.tar", "w") as archive:
        for name, target in (("latest", "."), ("sub/up", "..")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        archive.addfile(tarfile.TarInfo("a.csv"))
    push_dataset(line, found(Dataset(path="l.tar"), base), layout, seen)
    assert contents(Path(layout.data)) == {"a.csv": b"", "latest": ".", "sub/up": ".."}


@pytest.mark.parametrize("machine", ["rsync", also("tar")], indirect=True)
def test_a_bomb(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    """A gigabyte and a half of zeros in a thousandth of that."""
    with zipfile.ZipFile(base / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        zeros = bytes(1 << 24)
        with archive.open("zeros", "w", force_zip64=True) as file:
            for _ in range(96):
                file.write(zeros)
    with pytest.raises(TransferError, match=r"a hundred times|are free"):
        push_dataset(line, found(Dataset(path="bomb.zip"), base), layout, seen)
    assert not Path(layout.data).exists()
    assert not Path(f"{layout.data}.unpacking").exists()


def test_a_good_archive_while_the_machine_installs_things(tmp_path: Path, base: Path, seen: Seen) -> None:
    """What others take of the disk meanwhile is not the archive's."""
    programs = tmp_path / "programs"
    programs.mkdir()
    unpacker = programs / "unzip"
    unpacker.write_text(f'#!/bin/sh\nfallocate -l 1200M {tmp_path}/installed\nsleep 1\n/usr/bin/unzip "$@"\n')
    unpacker.chmod(0o755)
    server = Sshd(tmp_path / "own", path=without(tmp_path / "bin", "bsdtar", "unzip")).start()
    (tmp_path / "bin" / "unzip").symlink_to(unpacker)
    try:
        with connect(server.target) as line:
            layout = Layout(f"{server.home}/r")
            push_dataset(line, archive_of(base, {"a.csv": "1"}), layout, seen)
            assert contents(Path(layout.data)) == {"a.csv": b"1"}
    finally:
        server.stop()
        (tmp_path / "installed").unlink(missing_ok=True)


def test_only_one_source(base: Path) -> None:
    with pytest.raises(UsageError, match="not both"):
        found(Dataset(source="https://x.example/a.zip", command="true"), base)
    with pytest.raises(UsageError, match="https:// or s3://"):
        found(Dataset(source="ftp://x.example/a.zip"), base)


def archive_of(base: Path, files: dict[str, str]) -> DatasetSource:
    """Pack files into `set.zip`; return it as the configured dataset."""
    with zipfile.ZipFile(base / "set.zip", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return found(Dataset(path="set.zip"), base)


@pytest.mark.parametrize("machine", ["rsync", also("tar")], indirect=True)
@pytest.mark.parametrize(
    ("name", "text", "root", "train"),
    [
        ("ds/data.yaml", "train: images\nval: images\n", "ds", "images"),
        ("data.yaml", "path: coco\ntrain: images\nval: images\n", "coco", "images"),
        ("ds/data.yaml", "path: coco\ntrain: images\nval: [images]\n", "ds/coco", "images"),
        ("ds/data.yaml", "path: /kaggle/input/ds\ntrain: images\nval: images\n", "ds", "images"),
        ("ds/data.yaml", "path: ds\ntrain: images\nval: images\n", "ds", "images"),
        ("data.yaml", "train: ../images\nval: ../images\n", "", "images"),
        ("ds/cfg/data.yaml", "train: ../images\nval: ../images\n", "ds/cfg", "../images"),
        ("ds/cfg/data.yaml", "path: ..\ntrain: images\nval: ../images\n", "ds", "images"),
    ],
)
def test_data_yaml_points_to_the_images_after_every_push(
    line: Remote, layout: Layout, base: Path, seen: Seen, name: str, text: str, root: str, train: str
) -> None:
    """What we wrote is not taken for what came, and a second push changes nothing."""
    source = archive_of(base, {name: text, f"{root}/x".lstrip("/"): "", _images(root, train): "pixels"})
    written = Path(layout.data) / "data.yaml"
    stamps: set[int] = set()
    for _ in range(3):
        push_dataset(line, source, layout, seen)
        document = yaml.safe_load(written.read_text())
        assert document["path"] == f"{layout.data}/{root}".rstrip("/")
        assert document["train"] == train
        assert (Path(document["path"]) / document["train"] / "a.jpg").is_file()
        stamps.add(written.stat().st_mtime_ns)
    assert len(stamps) == 1


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_broken_data_yaml_in_an_archive(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    source = archive_of(base, {"ds/data.yaml": "train: images\ndate: 2024-02-30\n", "ds/images/a.jpg": "x"})
    with pytest.raises(TransferError, match=r"ds/data.yaml.*no YAML.*2024-02-30"):
        push_dataset(line, source, layout, seen)


def _images(root: str, train: str) -> str:
    return os.path.normpath(f"{root}/{train}/a.jpg").lstrip("/")


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_command_that_writes_its_yaml_anew(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    """What it wrote since counts, not what we made of the one before."""
    make = "mkdir -p ds/one ds/two; printf 'train: %s\\nval: %s\\n' "
    push_dataset(line, found(Dataset(command=make + "one one > ds/data.yaml"), base), layout, seen)
    assert yaml.safe_load((Path(layout.data) / "data.yaml").read_text())["train"] == "one"
    push_dataset(line, found(Dataset(command=make + "two two > ds/data.yaml"), base), layout, seen)
    document = yaml.safe_load((Path(layout.data) / "data.yaml").read_text())
    assert (document["train"], document["path"]) == ("two", f"{layout.data}/ds")


@pytest.mark.parametrize("machine", ["rsync", also("tar")], indirect=True)
@pytest.mark.parametrize("kind", ["archive", "objects", "command"])
def test_datasets_of_two_sources_are_not_mixed(
    line: Remote, layout: Layout, base: Path, seen: Seen, kind: str, s3: Any
) -> None:
    """Fetched, then pushed file by file, then fetched again: never a file of the other."""
    (base / "local").mkdir()
    (base / "local" / "mine.csv").write_text("local")
    with zipfile.ZipFile(base / "set.zip", "w") as archive:
        archive.writestr("theirs.csv", "fetched")
    s3.put_object(Bucket="data", Key="mixed/theirs.csv", Body=b"fetched")
    local = inspect_dataset(Config(dataset=Dataset(path="local"), train=Train(kind="script")), base)
    assert local is not None
    fetched = {
        "archive": Dataset(path="set.zip"),
        "objects": Dataset(source="s3://data/mixed/"),
        "command": Dataset(command="printf fetched > theirs.csv"),
    }[kind]
    source = found(fetched, base)
    lent = lend("s3://data/mixed/") if kind == "objects" else ()
    for _ in range(2):
        push_dataset(line, source, layout, seen, lent=lent)
        assert contents(Path(layout.data)) == {"theirs.csv": b"fetched"}
        push_dataset(line, local, layout, seen)
        assert contents(Path(layout.data)) == {"mine.csv": b"local"}
        assert push_dataset(line, local, layout, seen).sent_files == 0


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_local_push_that_broke_is_no_archive(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    """The record of what is there goes before the first file of another source comes."""
    source = archive_of(base, {"theirs.csv": "fetched"})
    push_dataset(line, source, layout, seen)
    exchange(
        line,
        script("push-lib", "push-lane"),
        layout.data,
        f"{layout.root}/manifests/dataset",
        feed=lambda sink: sink.write(b"look 0 digest stat\nend\n"),
    )
    (Path(layout.data)).mkdir(exist_ok=True)
    (Path(layout.data) / "mine.csv").write_text("half a push")
    push_dataset(line, source, layout, seen)
    assert contents(Path(layout.data)) == {"theirs.csv": b"fetched"}


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_broken_fetch_is_no_part_of_another(line: Remote, layout: Layout, seen: Seen) -> None:
    def fetch(*objects: tuple[str, int, str]) -> None:
        fetch_objects(line, layout, seen, tuple(Lent(path, size, url, path) for path, size, url in objects))

    with pytest.raises(TransferError, match="did not come whole"):
        fetch(("a/came", 0, ""), ("a/never", 5, "http://127.0.0.1:9/x"))
    fetch(("b", 0, ""))
    assert contents(Path(layout.data)) == {"b": b""}
    assert not list(Path(layout.root).glob("data.fetching*"))


@pytest.mark.parametrize("machine", ["rsync"], indirect=True)
def test_a_command_that_failed_goes_on(line: Remote, layout: Layout, base: Path, seen: Seen) -> None:
    """It finds what it left; another command finds nothing of it."""
    half = found(Dataset(command="echo x >> lines; [ $(wc -l < lines) = 2 ]"), base)
    with pytest.raises(TransferError):
        push_dataset(line, half, layout, seen)
    push_dataset(line, half, layout, seen)
    assert contents(Path(layout.data)) == {"lines": b"x\nx\n"}
    push_dataset(line, found(Dataset(command="touch other"), base), layout, seen)
    assert contents(Path(layout.data)) == {"other": b""}
