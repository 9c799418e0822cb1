"""Which GPUs train, and how each framework is told. Pure."""

from __future__ import annotations

import shlex

from cloudtrain.errors import UsageError
from cloudtrain.models.gpus import numbered

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node")


def chosen(asked: str | None, available: int) -> tuple[int, ...]:
    """Return the numbers of the GPUs that `train.gpus` means; none of them on a machine without.

    Raises `UsageError` for GPUs that the machine does not have.
    """
    wanted = numbered(asked)
    if wanted is None:
        return tuple(range(available))
    missing = [number for number in wanted if number >= available]
    if missing:
        raise UsageError(
            f"`train.gpus` asks for {asked}, and the machine has {available} that answer",
            hint="leave `train.gpus` out to use all of them, or name a larger `instance.type`",
        )
    return wanted


def device_word(gpus: tuple[int, ...]) -> str:
    """Return both YOLO trainers' `device`."""
    return ",".join(str(number) for number in gpus) or "cpu"


def launched(command: str, gpus: tuple[int, ...]) -> str:
    """Return a script's command as torchrun's, one process per GPU; as it is for one.

    Raises `UsageError` for a command that is more than one Python program.
    """
    if len(gpus) < 2:
        return command
    words = shlex.split(command)
    if "torchrun" in words or "torch.distributed.run" in words:
        return command
    script = next((n for n, word in enumerate(words) if word.endswith(".py")), None)
    plain = (
        words
        and words[0].rsplit("/", 1)[-1].startswith("python")
        and not set(words) & {"&&", "||", ";", "|", "&"}
    )
    if script is None or not plain:
        raise UsageError(
            "a training on several GPUs is launched as `python train.py …`, and `train.command` is something else",
            hint="write the launcher into `train.command`, and leave `train.gpus` out",
        )
    before, after = words[:script], words[script:]
    return shlex.join([*before, *TORCHRUN, str(len(gpus)), *after])
