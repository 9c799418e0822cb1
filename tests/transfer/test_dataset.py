"""data.yaml in all its spellings, and what is wrong with it."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from cloudtrain.errors import ConfigError
from cloudtrain.models.config import Config, Dataset, Train
from cloudtrain.transfer.dataset import DatasetSource, dataset_digest, dataset_tree, inspect_dataset


def make_dataset(
    root: Path, text: str = "path: .\ntrain: images/train\nval: images/val\nnames: [a, b]\n", images: int = 2
) -> Path:
    """Make a small dataset in the usual layout; return its data.yaml."""
    for split in ("train", "val"):
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            folder = root / kind / split
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(images):
                (folder / f"{number}.{suffix}").write_text(f"0 0.5 0.5 0.1 0.{number + 1}")
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


def inspect(path: str, base: Path, kind: str = "yolo") -> DatasetSource:
    source = inspect_dataset(Config(dataset=Dataset(path=path), train=Train(kind=kind)), base)  # type: ignore[arg-type]
    assert source is not None
    return source


def rewritten(source: DatasetSource) -> dict[str, object]:
    assert source.data_yaml is not None
    return yaml.safe_load(source.data_yaml.render("/far/data"))


USUAL = {
    f"{kind}/{split}/{n}.{end}"
    for kind, end in (("images", "png"), ("labels", "txt"))
    for split in ("train", "val")
    for n in (0, 1)
}


@pytest.mark.parametrize(
    "text",
    [
        "path: .\ntrain: images/train\nval: images/val\nnames: [a, b]\n",
        "train: images/train\nval: images/val\nnc: 2\nnames: {0: a, 1: b}\n",
        "path: ds\ntrain: images/train\nval: images/val\nnames: [a]\n",
        "path: ../ds\ntrain: images/train/\nvalidation: ./images/val\nnames: [a]\n",
        "train: ../images/train\nval: ../images/val\nnc: 1\n",
        "path: .\ntrain: [images/train]\nval: [images/val]\nnames: [a]\ntest:\n",
        "path: .\ntrain: images/train\nval: images/val\ntest: images/absent\nnames: [a]\n",
        "path: '{root}'\ntrain: '{root}/images/train'\nval: images/val\nnames: [a]\n",
    ],
)
def test_spellings(tmp_path: Path, text: str) -> None:
    """However it is written, the same files move to the same places."""
    root = tmp_path / "ds"
    make_dataset(root, text.replace("{root}", str(root)))
    source = inspect("ds/data.yaml", tmp_path)
    assert {entry.path for entry in source.tree.files} == USUAL
    document = rewritten(source)
    assert document["path"] == "/far/data"
    train = document["train"]
    assert train in ("images/train", ["images/train"])
    assert document["val"] in ("images/val", ["images/val"])
    assert "test" not in document or document["test"] is None


def test_yolov5_beside_the_checkout(tmp_path: Path) -> None:
    """yolov5's own files say `path: ../datasets/x`, relative to the checkout."""
    make_dataset(tmp_path / "datasets" / "x")
    checkout = tmp_path / "yolov5"
    (checkout / "data").mkdir(parents=True)
    (checkout / "data" / "x.yaml").write_text(
        "path: ../datasets/x\ntrain: images/train\nval: images/val\nnames: [a]\n"
    )
    assert {entry.path for entry in inspect("data/x.yaml", checkout, "yolov5").tree.files} == USUAL


def test_folders_outside_keep_their_labels(tmp_path: Path) -> None:
    make_dataset(tmp_path / "one")
    make_dataset(tmp_path / "two")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "data.yaml").write_text(
        f"train: [{tmp_path}/one/images/train, {tmp_path}/two/images/train]\nval: ../one/images/val\nnames: [a]\n"
    )
    source = inspect("p/data.yaml", tmp_path)
    document = rewritten(source)
    assert document["train"] == ["outside-1/images/train", "outside-2/images/train"]
    names = {entry.path for entry in source.tree.files}
    assert {"outside-1/labels/train/0.txt", "outside-2/labels/train/0.txt"} <= names
    assert f"{document['val']}/0.png" in names


def test_list_files_are_written_anew(tmp_path: Path) -> None:
    root = tmp_path / "ds"
    make_dataset(root, "path: .\ntrain: train.txt\nval: images/val\nnames: [a]\n", images=3)
    (root / "train.txt").write_text(f"./images/train/0.png\n{root}/images/train/2.png\n\n")
    source = inspect("ds/data.yaml", tmp_path)
    made = next(entry for entry in source.tree.files if entry.content)
    assert rewritten(source)["train"] == made.path
    assert made.content == b"./images/train/0.png\n./images/train/2.png\n"
    names = {entry.path for entry in source.tree.files}
    assert {"images/train/0.png", "labels/train/2.txt"} <= names
    assert "images/train/1.png" not in names


def test_images_that_are_links_are_sent(tmp_path: Path) -> None:
    root = tmp_path / "ds"
    make_dataset(root)
    (tmp_path / "pool.png").write_text("pixels")
    (root / "images" / "train" / "link.png").symlink_to(tmp_path / "pool.png")
    entry = next(e for e in inspect("ds", tmp_path).tree.files if e.path == "images/train/link.png")
    assert entry.size == 6


def test_caches_stay_and_digest_follows(tmp_path: Path) -> None:
    root = tmp_path / "ds"
    make_dataset(root)
    (root / "labels" / "train.cache").write_text("x")
    (root / "labels" / "train" / "train.cache").write_text("x")
    source = inspect("ds", tmp_path)
    assert not any("cache" in entry.path for entry in source.tree.files)
    (root / "images" / "train" / "0.png").write_text("other")
    assert dataset_digest(source) != dataset_tree(source).digest


PLAIN = "train: images/train\nval: images/val\nnc: 2\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("train: images/train\nval: images/none\nnames: [a]\n", 2, "`val: images/none` is not there"),
        ("train: images/train\nnames: [a]\n", 0, "`val:` is missing"),
        ("train: images/train\nval: images/val\n", 0, "`names:` is missing"),
        ("train: images/train\nval: images/val\nnc: 3\nnames: [a]\n", 3, "`names:` has 1"),
        (
            "path: /absent/x\ntrain: images/train\nval: images/val\nnc: 3\n",
            1,
            "`path: /absent/x` is not there",
        ),
        ("train: [images/train\nval: x\n", 2, "no YAML"),
        ("- a\n", 1, "expected"),
        ("train: labels/train\nval: images/val\nnc: 1\n", 1, "has no images"),
        (f"{PLAIN}date: 2024-02-30\n", 4, "`2024-02-30` is no timestamp"),
        (f"{PLAIN}date: [a, !!timestamp b]\n", 4, "`b` is no timestamp"),
        (f"{PLAIN}x: !!int abc\n", 4, "`abc` is no int"),
        (f"{PLAIN}x: {'[' * 3000}{']' * 3000}\n", 0, "nested too deeply"),
        (f"{PLAIN}x: \0\n", 0, "special characters"),
        (f'{PLAIN}path: "a\\0b"\n', 4, "is not there"),
        (f"{PLAIN}test: x\npath: {'a' * 300}\n", 5, "is not there"),
        (f"train: {'a' * 300}\nval: images/val\nnc: 1\n", 1, "is not there"),
        ('train: "a\\0b"\nval: images/val\nnc: 1\n', 1, "is not there"),
    ],
)
def test_broken_files_name_the_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    make_dataset(tmp_path / "ds", text)
    with pytest.raises(ConfigError) as caught:
        inspect("ds/data.yaml", tmp_path)
    problem = caught.value.problems[0]
    assert problem.file == "ds/data.yaml"
    assert problem.line == line
    assert words in problem.message


def test_no_labels(tmp_path: Path) -> None:
    make_dataset(tmp_path / "ds")
    for label in (tmp_path / "ds" / "labels" / "train").iterdir():
        label.unlink()
    with pytest.raises(ConfigError, match="has no labels"):
        inspect("ds/data.yaml", tmp_path)


def test_missing_path_names_the_config(tmp_path: Path) -> None:
    (tmp_path / "cloudtrain.yaml").write_text("name: x\ndataset:\n  path: absent.yaml\n")
    with pytest.raises(ConfigError, match=r"cloudtrain.yaml:3: .*is not there") as caught:
        inspect("absent.yaml", tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("path", ["a" * 300, "a\0b", "~nobody-here/data.yaml"])
def test_a_path_that_no_file_can_have(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        inspect(path, tmp_path)


def test_lines_of_a_list_that_no_file_can_have(tmp_path: Path) -> None:
    make_dataset(tmp_path / "ds", "train: train.txt\nval: images/val\nnames: [a]\n")
    for name in ("a" * 300, "a\0b"):
        (tmp_path / "ds" / "train.txt").write_text(f"images/train/0.png\n{name}\n")
        with pytest.raises(ConfigError, match=r"train\.txt:2: .*is not there"):
            inspect("ds/data.yaml", tmp_path)


def pack(folder: Path, kind: str, *names: str) -> bytes:
    """Return an archive of folders (ending in `/`) and files."""
    for name in names:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text("x")
    file = folder.with_suffix(f".{kind}")
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.write(folder / name, name)
    else:
        with tarfile.open(file, "w:gz" if kind.endswith("gz") else "w") as archive:
            for name in names:
                archive.add(folder / name, name)
    return file.read_bytes()


@pytest.mark.parametrize(
    ("name", "names", "cut", "words"),
    [
        ("a.tar.gz", ["a"], 10, "cannot be read: Compressed file ended"),
        ("a.tar.gz", ["a"], 40, "cannot be read: Compressed file ended"),
        ("a.tar.gz", ["a"], 0, "cannot be read"),
        ("a.tar", [], None, "holds no files"),
        ("a.tar", ["b/"], None, "holds no files"),
        ("a.zip", [], None, "holds no files"),
        ("a.zip", ["b/"], None, "holds no files"),
    ],
)
def test_an_archive_that_is_cut_or_empty(
    tmp_path: Path, name: str, names: list[str], cut: int | None, words: str
) -> None:
    (tmp_path / "of").mkdir()
    content = pack(tmp_path / "of", name.partition(".")[2], *names)
    (tmp_path / name).write_bytes(content[:cut])
    with pytest.raises(ConfigError, match=words):
        inspect(name, tmp_path)


@pytest.mark.parametrize("name", ["a.7z", "a.rar", "a.tar.zst", "a.tzst"])
def test_what_is_an_archive_by_its_name_only(tmp_path: Path, name: str) -> None:
    for content, words in (
        (b"", "it is empty"),
        (b"<html>", "it is no archive"),
        (bytes(1024), "no archive"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            inspect(name, tmp_path)
    (tmp_path / "of").mkdir()
    good = [pack(tmp_path / "of", "zip", "a"), pack(tmp_path / "of", "tar", "a"), b"\x28\xb5\x2f\xfd rest"]
    for content in (*good, b"7z\xbc\xaf\x27\x1c rest", b"Rar!\x1a\x07\0 rest"):
        (tmp_path / name).write_bytes(content)
        assert inspect(name, tmp_path).kind == "archive"


def test_none_and_folder_and_remote(tmp_path: Path) -> None:
    assert inspect_dataset(Config(), tmp_path) is None
    make_dataset(tmp_path / "ds")
    assert inspect("ds", tmp_path).kind == "yaml"
    assert inspect("ds", tmp_path, "script").kind == "folder"
    remote = inspect_dataset(Config(dataset=Dataset(source="https://x.example/a.zip")), tmp_path)
    assert remote is not None
    assert remote.kind == "remote"
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    with pytest.raises(ConfigError, match="cannot be read"):
        inspect("bad.zip", tmp_path)


def test_labels_of_images_below_a_folder_called_images(tmp_path: Path) -> None:
    """The trainers change the last `/images/` of a path, whatever stands above it."""
    make_dataset(tmp_path / "images" / "coco")
    (tmp_path / "p").mkdir()
    far = tmp_path / "images" / "coco" / "images"
    (tmp_path / "p" / "data.yaml").write_text(f"train: {far}/train\nval: {far}/val\nnames: [a]\n")
    source = inspect("p/data.yaml", tmp_path)
    document = rewritten(source)
    names = {entry.path for entry in source.tree.files}
    assert f"{document['train']}/0.png" in names
    assert f"{document['train']}/0.txt".replace("images/", "labels/") in names


@pytest.mark.parametrize(
    ("train", "content", "words"),
    [
        (
            "list.txt",
            "./images/grün.jpg\n".encode("latin-1"),
            r"list.txt: is no text in UTF-8: write this list",
        ),
        ("one.jpg", b"\xff\xd8\xff", r"ds/data.yaml:1: `train:` names one image.*name its folder"),
    ],
)
def test_what_is_no_list_is_named(tmp_path: Path, train: str, content: bytes, words: str) -> None:
    make_dataset(tmp_path / "ds", f"train: {train}\nval: images/val\nnames: [a]\n")
    (tmp_path / "ds" / train).write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        inspect("ds/data.yaml", tmp_path)
    assert len(caught.value.problems) == 1
    assert caught.value.hint


@pytest.mark.parametrize(
    ("root", "train", "val"),
    [("images", "train", "val"), ("images/sub", ".", "../val"), ("images", "train.txt", "val")],
)
def test_a_root_in_a_folder_called_images(tmp_path: Path, root: str, train: str, val: str) -> None:
    """The labels lie outside it; on the machine, too, they are where the trainers look for them."""
    for split in ("sub/train", "train", "val"):
        for kind, end in (("images", "png"), ("labels", "txt")):
            (tmp_path / "coco" / kind / split).mkdir(parents=True)
            (tmp_path / "coco" / kind / split / f"0.{end}").write_text("0 0.5 0.5 0.1 0.1")
    (tmp_path / "coco" / "images" / "train.txt").write_text("train/0.png\n")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "data.yaml").write_text(
        f"path: ../coco/{root}\ntrain: {train}\nval: {val}\nnames: [a]\n"
    )
    source = inspect("p/data.yaml", tmp_path)
    names = {entry.path for entry in source.tree.files}
    images = {f"/far/data/{name}" for name in names if name.endswith(".png")}
    assert len(images) == 2
    for image in images:
        label = "/labels/".join(image.rsplit("/images/", 1)).removesuffix(".png") + ".txt"
        assert label.removeprefix("/far/data/") in names
    document = rewritten(source)
    assert f"/far/data/{document['val']}/0.png" in images
    if train.endswith(".txt"):
        (made,) = (entry for entry in source.tree.files if entry.content)
        assert made.path == document["train"]
        assert f"/far/data/{made.content.decode().strip().removeprefix('./')}" in images
    else:
        assert any(image.startswith(f"/far/data/{document['train']}/") for image in images)
