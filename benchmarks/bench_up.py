"""From the command to the first line of the training, on a machine that needs no step.

`cloudtrain up -y` against benchmarks/yardstick.py, in one sandbox that is up already.
The sandbox's delays are set to nothing, which is the hardest case for cloudtrain: on
AWS both would wait for the same machine to boot. The training's first line is its own
time of day, so neither is charged for how its log is read.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from benchmarks.measure import Comparison, interleave, report
from cloudtrain.providers import sandbox
from cloudtrain.ssh import keys

CONFIG = """\
name: bench
provider: sandbox
environment: {manager: existing, python: python3, torch: none}
train: {kind: script, command: python3 -u train.py}
"""
TRAIN = "import time\nprint(time.time(), flush=True)\n"
YARDSTICK = "five calls, ssh, rsync, screen"
WAIT_S = 60.0


@dataclass
class Bench:
    """One sandbox and the two ways to a training in it."""

    root: Path
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    up_seconds: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self.home = self.root / "home"
        self.state = self.home / "data" / "sandbox"
        self.environment = {**os.environ, "CLOUDTRAIN_HOME": str(self.home)}
        self.endpoint = sandbox.ensure(self.state)
        self.aws = {
            "AWS_ENDPOINT_URL": self.endpoint.url,
            "AWS_ACCESS_KEY_ID": self.endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": self.endpoint.secret_key,
            "AWS_DEFAULT_REGION": self.endpoint.region,
        }
        self.session: Any = boto3.Session()
        self.ec2: Any = self.session.client(
            "ec2",
            endpoint_url=self.endpoint.url,
            region_name=self.endpoint.region,
            aws_access_key_id=self.endpoint.access_key,
            aws_secret_access_key=self.endpoint.secret_key,
        )
        found = self.ec2.describe_images(
            Filters=[{"Name": "name", "Values": ["*ubuntu-noble-24.04-amd64-server*"]}]
        )
        self.image = str(found["Images"][0]["ImageId"])

    def cloudtrain(self) -> float:
        """Return the seconds from the start of `up` to the first line."""
        folder = self._project(f"up-{next(self.numbers)}")
        start = time.time()
        self._call(folder, "up", "-y")
        self.up_seconds.append(time.time() - start)
        first = self._first_line("cloudtrain/*/sessions/001/train.log", start)
        self._call(folder, "down", "--discard", "--stop-training")
        return first

    def yardstick(self) -> float:
        """Return the same for the script."""
        name = f"y{next(self.numbers)}"
        folder = self.root / name
        self._project(f"{name}/project")
        pair = keys.generate("bench")
        keys.write_private(folder / "key", pair.private)
        (folder / "key.pub").write_text(pair.public)
        script = Path(__file__).with_name("yardstick.py")
        words = [sys.executable, str(script), str(folder), str(self.endpoint.ssh_port)]
        words += [self.endpoint.login_user, self.image]
        start = time.time()
        done = subprocess.run(
            words, env={**os.environ, **self.aws}, check=True, stdout=subprocess.PIPE, text=True
        )
        first = self._first_line("project/train.log", start)
        self._end(done.stdout.strip(), name)
        return first

    def _project(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir(parents=True)
        (folder / "train.py").write_text(TRAIN)
        (folder / "cloudtrain.yaml").write_text(CONFIG)
        return folder

    def _call(self, folder: Path, *words: str) -> None:
        command = str(Path(sys.executable).with_name("cloudtrain"))
        done = subprocess.run(
            [command, *words], cwd=folder, env=self.environment, check=False, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"cloudtrain {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")

    def _first_line(self, pattern: str, start: float) -> float:
        """Read the log on the machine's disk, which lies below the sandbox's folder."""
        end = time.time() + WAIT_S
        while time.time() < end:
            for log in (self.state / "home").glob(f"i-*/{pattern}"):
                line = log.read_text().partition("\n")[0]
                if line and float(line) > start:
                    return float(line) - start
            time.sleep(0.02)
        raise SystemExit(f"no training wrote its first line to {pattern}")

    def _end(self, instance: str, name: str) -> None:
        self.ec2.terminate_instances(InstanceIds=[instance])
        self.ec2.get_waiter("instance_terminated").wait(
            InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        self.ec2.delete_key_pair(KeyName=name)
        self.ec2.delete_security_group(GroupName=name)


def main() -> None:
    os.environ["CLOUDTRAIN_SANDBOX_DELAYS"] = "visible=0,pending=0,stopping=0,terminating=0,idle=120"
    root = Path(tempfile.mkdtemp(prefix="ctb"))
    try:
        bench = Bench(root)
        taken = interleave({YARDSTICK: bench.yardstick, "cloudtrain up -y": bench.cloudtrain})
        compared = Comparison(
            "cloudtrain up -y, to the first line",
            YARDSTICK,
            taken["cloudtrain up -y"],
            taken[YARDSTICK],
            3.0,
        )
        report("launch to training", [compared], {"up_returns_after_s": bench.up_seconds[1:]})
    finally:
        sandbox.stop(root / "home" / "data" / "sandbox")
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
