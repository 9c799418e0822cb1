"""Compose a detection dataset from the handwritten digits that scikit-learn ships.

The digits are real scans, 8 by 8 pixels. Each canvas holds 3 to 8
of them in varied sizes and inks on varied backgrounds. Training and held-out canvases
are made of different originals, so the score is of digits never seen in training.
Deterministic: the same files come out every time. Needs no network.
"""

from __future__ import annotations

import argparse
import importlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float64]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

SIDE = 160
TRAIN_CANVASES = 600
HELD_OUT_CANVASES = 120
TRAIN_ORIGINALS = 1437
"""Of the 1,797 scans; the other 360 are held out."""
SEED = 20


@dataclass(frozen=True, slots=True)
class Originals:
    """Scans with values from 0 (paper) to 1 (ink), and the digit each shows."""

    scans: NDArray[np.float64]
    digits: NDArray[np.int64]


def main() -> None:
    """Write the dataset below `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--train", type=int, default=TRAIN_CANVASES, help="training canvases")
    parser.add_argument("--held-out", type=int, default=HELD_OUT_CANVASES, help="held-out canvases")
    asked = parser.parse_args()
    objects = make_dataset(asked.out, train=asked.train, held_out=asked.held_out)
    for split, count in objects.items():
        print(f"{split}: {count} digits")
    print(f"wrote {asked.out / 'data.yaml'}")


def make_dataset(
    out: Path, *, train: int = TRAIN_CANVASES, held_out: int = HELD_OUT_CANVASES
) -> dict[str, int]:
    """Write images, YOLO labels and data.yaml; return how many digits each split holds."""
    seen, unseen = load_originals()
    objects: dict[str, int] = {}
    for split, originals, count in (("train", seen, train), ("val", unseen, held_out)):
        generator = np.random.default_rng([SEED, len(originals.digits)])
        objects[split] = sum(write_canvas(out, split, i, originals, generator) for i in range(count))
    # No `path`: the folders are found beside this file, wherever it is copied to.
    names = "".join(f'  {digit}: "{digit}"\n' for digit in range(10))
    (out / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return objects


def load_originals() -> tuple[Originals, Originals]:
    """Return the scans to train on and, disjoint from them, the ones held out."""
    datasets: Any = importlib.import_module("sklearn.datasets")  # it has no types
    bunch = datasets.load_digits()
    scans = np.asarray(bunch.images, dtype=np.float64) / 16.0
    digits = np.asarray(bunch.target, dtype=np.int64)
    order = np.random.default_rng(SEED).permutation(len(digits))
    train, held_out = order[:TRAIN_ORIGINALS], order[TRAIN_ORIGINALS:]
    return Originals(scans[train], digits[train]), Originals(scans[held_out], digits[held_out])


def write_canvas(
    out: Path, split: str, number: int, originals: Originals, generator: np.random.Generator
) -> int:
    """Compose one canvas, write it with its labels, and return how many digits it holds."""
    picture, labels = compose(originals, generator)
    image = out / "images" / split / f"{number:04d}.png"
    label = out / "labels" / split / f"{number:04d}.txt"
    for file in (image, label):
        file.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(png(np.clip(picture, 0, 255).astype(np.uint8)))
    label.write_text("".join(f"{line}\n" for line in labels))
    return len(labels)


def compose(originals: Originals, generator: np.random.Generator) -> tuple[Picture, list[str]]:
    """Return one canvas in colour and its labels, `class x y width height` in fractions."""
    picture = background(generator)
    taken: list[Box] = []
    labels: list[str] = []
    for _ in range(int(generator.integers(3, 9))):
        index = int(generator.integers(len(originals.digits)))
        ink = enlarge(originals.scans[index], int(generator.integers(24, 57)))
        corner = free_corner(ink.shape, taken, generator)
        if corner is None:
            continue
        box = draw(picture, ink, corner, generator)
        taken.append(box)
        labels.append(yolo_label(int(originals.digits[index]), box))
    return picture, labels


def background(generator: np.random.Generator) -> Picture:
    """Return a canvas of a colour gradient with soft blobs and grain."""
    ys, xs = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    slope = np.cos(angle := generator.uniform(0, 2 * np.pi)) * xs + np.sin(angle) * ys
    shade = generator.uniform(70, 185) + generator.uniform(0, 50) * (slope - slope.mean())
    for _ in range(int(generator.integers(0, 4))):
        x, y = generator.uniform(0, 1, 2)
        size = generator.uniform(0.05, 0.25)
        shade += generator.uniform(-25, 25) * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * size**2))
    tint = generator.uniform(-20, 20, 3)
    return shade[:, :, None] + tint + generator.normal(0, generator.uniform(1, 6), (SIDE, SIDE, 3))


def enlarge(scan: NDArray[np.float64], height: int) -> Picture:
    """Return the scan without its empty margins, `height` pixels high, by linear interpolation."""
    rows, columns = np.nonzero(scan > 0.1)
    tight = scan[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    width = max(8, round(height * tight.shape[1] / tight.shape[0]))
    return along(along(tight, height).T, width).T


def along(values: Picture, length: int) -> Picture:
    """Stretch the first axis to `length` samples."""
    places = np.arange(length, dtype=np.float64) * ((values.shape[0] - 1) / (length - 1))
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, values.shape[0] - 1)
    part = (places - below)[:, None]
    return values[below] * (1 - part) + values[above] * part


def free_corner(
    shape: tuple[int, ...], taken: list[Box], generator: np.random.Generator
) -> tuple[int, int] | None:
    """Return left and top of a place that no digit has; None when the canvas is full."""
    height, width = shape
    for _ in range(50):
        left = int(generator.integers(0, SIDE - width + 1))
        top = int(generator.integers(0, SIDE - height + 1))
        right, bottom = left + width, top + height
        if all(right < a or c < left or bottom < b or d < top for a, b, c, d in taken):
            return left, top
    return None


def draw(picture: Picture, ink: Picture, corner: tuple[int, int], generator: np.random.Generator) -> Box:
    """Blend the ink into the picture, darker or lighter than what is there; return its box."""
    left, top = corner
    right, bottom = left + ink.shape[1], top + ink.shape[0]
    there = picture[top:bottom, left:right]
    step = generator.uniform(90, 150) * (1 if there.mean() < generator.uniform(90, 165) else -1)
    colour = there.mean(axis=(0, 1)) + step + generator.uniform(-15, 15, 3)
    there += ink[:, :, None] * (colour - there)
    return left, top, right, bottom


def yolo_label(digit: int, box: Box) -> str:
    """Return `class x y width height`: centre and size as fractions of the canvas."""
    left, top, right, bottom = box
    values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return " ".join([str(digit), *(f"{value / SIDE:.6f}" for value in values)])


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an 8-bit RGB picture as a PNG file (RFC 2083)."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + width * 3), dtype=np.uint8)  # each row begins with filter type 0
    rows[:, 1:] = pixels.reshape(height, width * 3)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    main()
