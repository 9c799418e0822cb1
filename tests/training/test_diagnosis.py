"""What a failed training says in its log, and the setting that answers it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.training.diagnosis import diagnose
from cloudtrain.training.progress import parse_status

CUDA = """\
  File "/env/lib/python3.12/site-packages/torch/nn/modules/conv.py", line 543, in _conv_forward
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 392.00 MiB. GPU 0 has a total capacity of 14.56 GiB
"""
DISK = """\
Traceback (most recent call last):
  File "train.py", line 482, in train
    torch.save(ckpt, last)
RuntimeError: [enforce fail at inline_container.cc:664] . unexpected pos 5312 vs 5206
OSError: [Errno 28] No space left on device
"""
BUS = """\
ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm).
RuntimeError: DataLoader worker (pid 4242) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory. Please try to raise your shared memory limit.
"""
MISSING = "FileNotFoundError: [Errno 2] No such file or directory: 'labels/classes.txt'\n"
KILLED = "RuntimeError: DataLoader worker (pid 77) is killed by signal: Killed.\n"
RANK = "  error_file: <N/A>\n  traceback : Signal 9 (SIGKILL) received by PID 4711\n"


@pytest.mark.parametrize(
    ("log", "kind", "setting"),
    [
        (RANK, "memory", "train.args.workers"),
        (CUDA, "gpu-memory", "train.args.batch"),
        (DISK, "disk", "instance.volume_gb"),
        (BUS, "shared-memory", "train.args.workers"),
        (MISSING, "missing-file", "project.exclude"),
        (KILLED, "memory", "train.args.workers"),
        (
            "ModuleNotFoundError: No module named 'albumentations'\n",
            "missing-module",
            "environment.requirements",
        ),
        (
            "python: can't open file '/home/u/train.py': [Errno 2] No such file or directory\n",
            "missing-file",
            "project",
        ),
    ],
)
def test_each_trouble_names_its_setting(log: str, kind: str, setting: str) -> None:
    found = diagnose("epoch 1\n" * 1000 + log + "\x1b[1mone more line\x1b[0m\n", 1)
    assert found is not None
    assert found.kind == kind
    assert setting in found.hint


def test_a_container_has_its_own_answer() -> None:
    found = diagnose(BUS, 1, container=True)
    assert found is not None
    assert "docker.shm_size" in found.hint
    for log, code in ((KILLED, 1), ("cloudtrain: the container's memory is used up: raise\n", 1), ("", 137)):
        found = diagnose(log, code, container=True)
        assert found is not None
        assert (found.kind, "docker.memory" in found.hint) == ("memory", True)
        assert "docker" not in (diagnose(log, code) or found).hint


def test_a_kill_without_a_word_is_the_machines_memory() -> None:
    found = diagnose("epoch 3\n", 137, reason="killed by signal 9 three times")
    assert found is not None
    assert found.kind == "memory"
    assert "three times" in found.text


def test_a_crash_loop_says_why() -> None:
    found = diagnose("", 139, reason="killed by signal 11 three times, each within a minute")
    assert found is not None
    assert found.kind == "crash-loop"


def test_an_unknown_failure_is_none() -> None:
    assert diagnose("ValueError: nonsense\n", 1) is None


def test_an_early_sign_that_was_survived_does_not_count() -> None:
    assert diagnose(CUDA + "epoch 2\n" * 1000 + "ValueError: x\n", 1) is None


def test_what_python_really_says() -> None:
    for code, kind in (
        ("open('/nowhere/at.all')", "missing-file"),
        ("import not_a_module_of_any_kind", "missing-module"),
        ("open('/dev/full', 'w', buffering=1).write('x\\n')", "disk"),
    ):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        found = diagnose(done.stderr, done.returncode)
        assert found is not None, done.stderr
        assert found.kind == kind


@pytest.mark.parametrize("runtime", ["docker", "host"])
def test_status_knows_what_it_ran_in(runtime: str) -> None:
    session = "001\tscript\tfailed\t\t/r/runs/001\t100\t200\t1\t"
    config = Config(runtime="docker") if runtime == "docker" else Config()
    found = parse_status(f"session\t{session}\nnow\t300\nlog\t\n{BUS}", Layout("/r"), config).trouble
    assert found is not None
    assert ("docker.shm_size" in found.hint) == (runtime == "docker")
