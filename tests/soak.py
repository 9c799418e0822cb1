"""Interrupts a training again and again, in every way there is, and says what was lost.

    python -m tests.soak [--interruptions 50] [--seed 1] [--machines nspawn|process]

On machines of kind `nspawn` a real YOLO training on a real booted system; `process` machines
have no power of their own and no network to cut, so there a stop and start by the cloud stands for
reboot and power-off, and the end of the laptop's process for a cut line. After each
interruption training must run, every epoch must be in results.csv once and in order, and at most
one epoch may be lost; of a script that writes faster than anybody can copy, nothing that was secured
may. The last line: `interruptions N lost N median-work-lost S worst S`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudtrain.providers import sandbox
from cloudtrain.sandbox.nspawn.network import bridge_name
from tests.support.road import Road, home
from tests.training.real import ARGS, MODEL, dataset

COUNTING = """\
import csv, os, pathlib, time, zipfile
last = pathlib.Path("out/last.pt")
last.parent.mkdir(exist_ok=True)
done = 0
if os.environ.get("CLOUDTRAIN_RESUME"):
    done = int(zipfile.ZipFile(os.environ["CLOUDTRAIN_RESUME"]).read("epoch"))
print(f"going on after epoch {done} of many", flush=True)
while True:
    time.sleep(0.4)
    done += 1
    with zipfile.ZipFile(last, "w") as container:
        container.writestr("epoch", str(done))
    print(f"epoch {done}", flush=True)
"""
WAYS = ("trainer", "screen", "reboot", "power", "network", "laptop")
HARMLESS = ("screen", "network", "laptop_ends")
VENV = Path(sys.prefix)


@dataclass
class Soak:
    """One training, its machine's disk as the host sees it, and the laptop that follows it."""

    way: Road
    nspawn: bool
    chance: random.Random
    lost: int = 0
    work: list[float] = field(default_factory=list[float])
    laptop: subprocess.Popen[str] | None = None

    @property
    def machine(self) -> str:
        return self.way.alive()[0]

    def disk(self) -> Path:
        """The machine's home of the user, read from outside: no line is needed for it."""
        if self.nspawn:
            return self.way.state / "disks" / self.machine / "upper" / "home" / "ubuntu"
        return self.way.state / "home" / self.machine

    def session(self) -> Path:
        return next(self.disk().glob("cloudtrain/*/sessions/001"))

    def secured(self) -> dict[str, Any]:
        try:
            known: dict[str, Any] = json.loads((self.session() / "secured").read_text())
            if known and not self.nspawn:  # a script's epochs are known to nobody else
                session = self.session()
                copies = session.parents[1] / "secured" / session.name
                with zipfile.ZipFile(copies / known["file"]) as container:
                    known["counted"] = int(container.read("epoch"))
        except (OSError, ValueError, StopIteration):
            return {}
        return known

    def log(self) -> str:
        try:
            return (self.session() / "train.log").read_text(errors="replace")
        except (OSError, StopIteration):
            return ""

    def rows(self) -> list[int]:
        found = next(iter(self.disk().glob("cloudtrain/*/runs/001/results.csv")), None)
        if found is None:
            return [int(number) for number in re.findall(r"^epoch (\d+)$", self.log(), re.MULTILINE)]
        lines = [line for line in found.read_text().split("\n")[1:-1] if line]
        return [int(float(line.split(",")[0])) for line in lines]

    def resumed(self) -> list[int]:
        """After which epochs it went on, each time."""
        return [int(number) for number in re.findall(r"going on after epoch (\d+) of", self.log())]

    def follow(self) -> None:
        """Let the laptop follow, anew where it has ended."""
        if self.laptop is None or self.laptop.poll() is not None:
            log = (self.way.root / "laptop.log").open("a")
            self.laptop = subprocess.Popen(
                [sys.executable, "-m", "cloudtrain", "run", "-y"],
                cwd=self.way.project,
                env=self.way.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                text=True,
            )
            log.close()

    def leave(self) -> None:
        """The lid is closed."""
        if self.laptop is not None:
            if self.laptop.poll() is None:
                os.killpg(self.laptop.pid, signal.SIGKILL)
            self.laptop.wait()
            self.laptop = None

    def interrupt(self, how: str) -> None:
        """Interrupt once, wait until it goes on, and judge it."""
        self.follow()
        self.until(lambda: bool(self.secured()), "nothing was ever secured")
        time.sleep(self.chance.uniform(0, 2))
        starts, before, rows = len(self.resumed()), self.secured(), self.rows()
        at = time.time()
        getattr(self, how)()
        mark = self.secured().get("file")
        harmless = how in HARMLESS or (not self.nspawn and how == "network")
        if not harmless:
            self.until(lambda: len(self.resumed()) > starts, f"{how}: it did not go on")
            mark = self.secured().get("file")
        self.until(lambda: self.secured().get("file") != mark, f"{how}: nothing new was secured")
        work = 0.0 if harmless else max(0.0, at - float(before["at"]))
        done = rows[-1] if rows else 0
        kept = done if harmless else self.resumed()[-1]
        # What goes on undisturbed may still be behind the last look at a trainer that was killed before it.
        safe = done - 1 if self.nspawn or harmless else int(before.get("counted", done))
        good = kept >= safe and self.in_order()
        self.lost += not good
        self.work.append(work)
        said = f"{len(self.work):3} {how:8} epoch {done}, went on after {kept}, {work:.1f} s lost"
        print(f"{said}{'' if good else '   LOST'}", flush=True)  # noqa: T201

    def in_order(self) -> bool:
        """Whether every epoch is there once; a script that repeats one has printed it again."""
        rows = self.rows()
        if not self.nspawn:
            return sorted(set(rows)) == list(range(1, max(rows) + 1))
        return rows == list(range(1, len(rows) + 1))

    def trainer(self) -> None:
        pid = (self.session() / "trainer").read_text().split()[1]
        self.way.call("exec", "--", "kill", "-9", pid)

    def screen(self) -> None:
        self.way.call("exec", "--", "bash", "-c", "kill -9 $(pgrep -f '[S]CREEN') || true", code=None)

    def reboot(self) -> None:
        if self.nspawn:
            self.way.call("exec", "--", "sudo", "reboot", code=None)
        else:
            self.power()

    def power(self) -> None:
        name, ec2 = self.machine, self.way.running.ec2
        if self.nspawn:
            self.way.call("exec", "--", "sudo", "poweroff", code=None)
        else:
            ec2.stop_instances(InstanceIds=[name])

        def stopped() -> bool:
            rows = ec2.describe_instances(InstanceIds=[name])["Reservations"]
            return rows[0].get("Instances", [{}])[0].get("State", {}).get("Name") == "stopped"

        self.until(stopped, "it did not stop")
        self.leave()
        ec2.start_instances(InstanceIds=[name])

    def network(self) -> None:
        if not self.nspawn:
            self.laptop_ends()
            return
        ports = ["ip", "-o", "link", "show", "master", bridge_name(self.way.state)]
        links = subprocess.run(ports, capture_output=True, text=True, check=True).stdout
        name = links.split()[1].partition("@")[0].rstrip(":")  # the one machine's
        subprocess.run(["ip", "link", "set", name, "down"], check=True)
        time.sleep(self.chance.choice((3, 8, 70)))
        subprocess.run(["ip", "link", "set", name, "up"], check=True)

    def laptop_ends(self) -> None:
        self.leave()

    def until(self, holds: Callable[[], bool], what: str, timeout: float = 180) -> None:
        end = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"{what}\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def line(self) -> str:
        median, worst = statistics.median(self.work), max(self.work)
        return (
            f"interruptions {len(self.work)} lost {self.lost} median-work-lost {median:.1f} worst {worst:.1f}"
        )


def soak(way: Road, interruptions: int, seed: int, *, nspawn: bool) -> Soak:
    """Interrupt a training `interruptions` times, in an order that the seed decides."""
    chance = random.Random(seed)
    ways = [WAYS[number % len(WAYS)] for number in range(interruptions)]
    chance.shuffle(ways)
    made = Soak(way, nspawn, chance)
    way.call("up", "-y", timeout=600)
    try:
        for how in ways:
            made.interrupt("laptop_ends" if how == "laptop" else how)
    finally:
        made.leave()
    return made


def project(way: Road, *, yolo: bool) -> None:
    """Write the project that is trained."""
    if not yolo:
        (way.project / "train.py").write_text(COUNTING)
        return
    dataset(way.project / "data")
    data = way.project / "data" / "data.yaml"
    data.write_text("train: images/train\nval: images/val\nnames: [dark, light]\n")
    (way.project / "tiny.yaml").write_text(MODEL)
    args = ", ".join(word.replace("=", ": ").replace("False", "false") for word in ARGS)
    (way.project / "cloudtrain.yaml").write_text(
        "name: soak\nprovider: sandbox\n"
        "environment: {manager: existing, python: /var/cache/uv/venv/bin/python, torch: none}\n"
        "dataset: {path: data/data.yaml}\nlease: {hours: 24}\n"
        f"train: {{kind: yolo, model: tiny.yaml, args: {{epochs: 20000, patience: 0, {args}}}}}\n"
    )


def furnish(venv: Path) -> None:
    """Put this environment, with PyTorch, into the folder that machines share, by links.

    A machine's OpenCV must do without a graphics stack.
    """
    shutil.copytree(VENV, venv, symlinks=True, copy_function=os.link)
    pip = [str(VENV / "bin" / "uv"), "pip"]
    where = ["--quiet", "--python", str(venv / "bin" / "python")]
    subprocess.run([*pip, "uninstall", *where, "opencv-python"], check=True)
    wanted = ["opencv-python-headless", "tensorboard", "cloudpickle", "pip"]
    subprocess.run([*pip, "install", *where, *wanted], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--interruptions", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    can = os.geteuid() == 0 and shutil.which("systemd-nspawn") is not None
    parser.add_argument("--machines", choices=("nspawn", "process"), default="nspawn" if can else "process")
    given = parser.parse_args()
    nspawn = given.machines == "nspawn"
    if not nspawn:
        print("machines of kind process: no YOLO, no power and no network of their own")  # noqa: T201
    root = Path(tempfile.mkdtemp(prefix="soak"))
    os.environ["CLOUDTRAIN_SANDBOX_MACHINES"] = given.machines
    try:
        with home(root / "home") as folder:
            way = Road(root / "road", folder)
            project(way, yolo=nspawn)
            if nspawn:
                sandbox.ensure(way.state, machines="nspawn")
                furnish(way.state / "uv-cache" / "venv")
            made = soak(way, given.interruptions, given.seed, nspawn=nspawn)
            way.call("down", "--stop-training", timeout=300)
            assert way.left() == []
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(made.line(), flush=True)  # noqa: T201
    return 1 if made.lost else 0


if __name__ == "__main__":
    sys.exit(main())
