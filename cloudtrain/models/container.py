"""What a container of `runtime: docker` is given. Pure: config and facts in, words out.

The run's folder has the same path inside as outside, and the same user owns what is written
there, so session, log, checkpoints, resume and guard find everything where they do without a
container. The network is the machine's own: nothing in it listens where it would not otherwise.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from cloudtrain.models.config import Config
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout

LABEL = "cloudtrain.run"
"""The label by which a run's containers are found again."""


def image_of(config: Config, layout: Layout) -> str:
    """Return the image's name: the given one, or that of the one built for this run."""
    return config.docker.image or f"cloudtrain/{PurePosixPath(layout.root).name}"


def options(config: Config, facts: Facts, layout: Layout) -> list[str]:
    """Return `docker run`'s options but name, user and variables, which the machine adds."""
    words = ["--init", "--network", "host", "--label", f"{LABEL}={PurePosixPath(layout.root).name}"]
    words += gpu_words(facts)
    words += shared_memory(config, facts)
    limit = memory_limit(config, facts)
    if limit:
        words += ["--memory", limit]
    for mount in (f"{layout.root}:{layout.root}", *config.docker.mounts):
        words += ["--volume", mount]
    return [*words, "--workdir", layout.project]


def gpu_words(facts: Facts) -> list[str]:
    """Return `--gpus all` where a driver answers.

    Which of them train is told to the trainer: inside they have the same numbers as outside.
    """
    return ["--gpus", "all"] if any(gpu.driver is not None for gpu in facts.gpus) else []


def shared_memory(config: Config, facts: Facts) -> list[str]:
    """Return what gives data loaders room: Docker's own 64 MB end them with a bus error.

    `auto` is half of the memory that the container may use, as a Linux host has it.
    """
    asked = config.docker.shm_size
    if asked == "host":
        return ["--ipc", "host"]
    if asked != "auto":
        return ["--shm-size", asked]
    return ["--shm-size", f"{max(64, _usable_mib(config, facts) // 2)}m"]


def memory_limit(config: Config, facts: Facts) -> str:
    """Return the container's limit, empty for none.

    `auto` leaves a tenth of the machine, and at least 512 MiB, to sshd and the guard: when
    memory is used up, it is the training that ends, not the way to it.
    """
    asked = config.docker.memory
    if asked == "auto":
        return f"{_usable_mib(config, facts)}m"
    return "" if asked == "none" else asked


def _usable_mib(config: Config, facts: Facts) -> int:
    asked = config.docker.memory
    if asked in ("auto", "none"):
        total = facts.memory_mib
        return max(total // 2, total - max(512, total // 10)) if asked == "auto" else total
    return size_mib(asked)


def size_mib(text: str) -> int:
    """Return a size as Docker spells it (`8g`, `512m`) in MiB; bytes without a letter."""
    factor = {"k": 1 / 1024, "m": 1, "g": 1024}.get(text[-1:].lower())
    if factor is None:
        return int(float(text.rstrip("bB")) / 1024**2)
    return int(float(text[:-1]) * factor)
