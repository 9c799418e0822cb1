"""The example's dataset: real scans, honest split, the same files every time."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.config import load
from cloudtrain.transfer.dataset import inspect_dataset

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DIGITS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def maker() -> Any:
    return loaded("make_dataset")


@pytest.fixture(scope="module")
def small(maker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 120 held-out canvases and a few to train on."""
    out = tmp_path_factory.mktemp("digits") / "data"
    maker.make_dataset(out, train=8)
    return out


def labels(folder: Path) -> list[list[float]]:
    return [
        [float(word) for word in line.split()]
        for file in sorted(folder.glob("*.txt"))
        for line in file.read_text().splitlines()
    ]


def test_enough_is_held_out(small: Path) -> None:
    assert len(list((small / "images" / "val").glob("*.png"))) == 120
    held_out = labels(small / "labels" / "val")
    assert len(held_out) >= 500
    assert {int(row[0]) for row in held_out} == set(range(10))


def test_training_never_sees_a_held_out_original(maker: Any) -> None:
    seen, unseen = maker.load_originals()
    assert (len(seen.digits), len(unseen.digits)) == (1437, 360)
    train = {scan.tobytes() for scan in seen.scans}
    assert not train & {scan.tobytes() for scan in unseen.scans}


def test_boxes_lie_inside_and_apart(small: Path) -> None:
    for file in (small / "labels" / "val").glob("*.txt"):
        boxes = [[float(word) for word in line.split()[1:]] for line in file.read_text().splitlines()]
        assert 1 <= len(boxes) <= 8
        for x, y, width, height in boxes:
            assert width / 2 - 1e-6 <= x <= 1 - width / 2 + 1e-6
            assert height / 2 - 1e-6 <= y <= 1 - height / 2 + 1e-6
        for i, (ax, ay, aw, ah) in enumerate(boxes):
            for bx, by, bw, bh in boxes[i + 1 :]:
                assert abs(ax - bx) * 2 >= aw + bw - 1e-5 or abs(ay - by) * 2 >= ah + bh - 1e-5


def test_the_same_files_every_time(maker: Any, small: Path, tmp_path: Path) -> None:
    maker.make_dataset(tmp_path / "again", train=4, held_out=4)
    for file in (tmp_path / "again").rglob("*.*"):
        assert file.read_bytes() == (small / file.relative_to(tmp_path / "again")).read_bytes()


def test_pictures_are_whole_png(small: Path) -> None:
    data = (small / "images" / "val" / "0000.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(data[16:20], "big") == int.from_bytes(data[20:24], "big") == 160
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    assert len(zlib.decompress(data[start : start + length])) == 160 * (1 + 3 * 160)


def test_the_configuration_fits_the_dataset(small: Path, tmp_path: Path) -> None:
    (tmp_path / "cloudtrain.yaml").write_text((DIGITS / "cloudtrain.yaml").read_text())
    (tmp_path / "data").symlink_to(small)
    config = load(tmp_path / "cloudtrain.yaml", environ={})
    assert (config.name, config.provider, config.environment.manager) == ("digits", "sandbox", "uv")
    source = inspect_dataset(config, tmp_path)
    assert source is not None
    assert source.files >= 2 * 128


def test_what_is_left_is_found_and_named(tmp_path: Path) -> None:
    checker = loaded("check_left")
    state = tmp_path / "state"
    processes: dict[str, tuple[list[str], list[str]]] = {
        "10": (["python", "-m", "cloudtrain.sandbox", "serve", "--state", str(state)], []),
        "11": (["python", "-m", "cloudtrain.sandbox", "serve", "--state", "/another"], []),
        "12": (["SCREEN", "-dmS", "digits-1"], ["A=1", "CLOUDTRAIN_MACHINE=i-1"]),
        "13": (["SCREEN", "-dmS", "other"], ["CLOUDTRAIN_MACHINE=i-2"]),
        "self": (["x"], []),
    }
    for pid, (words, variables) in processes.items():
        folder = tmp_path / "proc" / pid
        folder.mkdir(parents=True)
        (folder / "cmdline").write_text("".join(f"{word}\0" for word in words))
        (folder / "environ").write_text("".join(f"{one}\0" for one in variables))
    found = sorted(checker.left(state, {"i-1"}, tmp_path / "proc"))
    assert [pid for pid, _ in found] == [10, 12]
    assert found[1][1] == "SCREEN -dmS digits-1"
