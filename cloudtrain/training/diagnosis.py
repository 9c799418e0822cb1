"""Why a training failed, read from the end of its log, and which setting answers it.

The texts are those of PyTorch, CUDA, Python and the kernel. A bus error in a loader comes from
a container's shared memory, on a bare host from memory that is used up (ultralytics#1238).
"""

from __future__ import annotations

import re

from cloudtrain.models.training import Trouble
from cloudtrain.training.lines import clean

LINES = 400
"""How far back in the log the last words of a failure may be."""

_GPU_MEMORY = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|"
    r"CUDNN_STATUS_ALLOC_FAILED|CUDA_ERROR_OUT_OF_MEMORY"
)
_DISK = re.compile(
    r"No space left on device|\[Errno 28\]|ENOSPC|file write failed.*iostream|unexpected pos \d+ vs \d+|"
    r"Disk quota exceeded"
)
_SHARED = re.compile(
    r"killed by signal: Bus error|insufficient shared memory|unable to (?:open|allocate|mmap).*shared memory|"
    r"unable to write to file </torch_",
    re.IGNORECASE,
)
_MISSING = re.compile(
    r"FileNotFoundError: (?:\[Errno 2\] No such file or directory: )?(?P<what>.+)|"
    r"(?:can't open file|cannot open) (?P<script>'[^']+')|"
    r"(?P<module>ModuleNotFoundError: No module named '[^']+')"
)
_MEMORY = re.compile(
    r"killed by signal: Killed|Signal 9 \(SIGKILL\) received by PID|DefaultCPUAllocator: (?:not enough|can't allocate) memory|^MemoryError|"
    r"Cannot allocate memory|the container's memory is used up|\[Errno 12\]"
)


def diagnose(log: str, exit_code: int | None, *, reason: str = "", container: bool = False) -> Trouble | None:
    """Return the trouble a failed training had, None where nothing known is in its log.

    `reason` is what the supervisor itself wrote down. The last sign in the log counts.
    """
    lines = [clean(line.encode()) for line in log.splitlines()[-LINES:]]
    found = next((one for line in reversed(lines) if (one := _of(line, container))), None)
    if found is None and (exit_code == 137 or "signal 9" in reason):
        found = _memory("the trainer was killed, most likely for the machine's memory", container)
    if reason:
        if found is None:
            return Trouble("crash-loop", reason, "`cloudtrain logs` shows its last words")
        return Trouble(found.kind, f"{found.text} ({reason})", found.hint)
    return found


def _of(line: str, container: bool) -> Trouble | None:
    if _GPU_MEMORY.search(line):
        return Trouble(
            "gpu-memory",
            "the GPU's memory is too small for this batch",
            "lower `train.args.batch` or `train.args.imgsz`, or name a type with more GPU memory in `instance.type`",
        )
    if _DISK.search(line):
        return Trouble(
            "disk", "the disk is full", "raise `instance.volume_gb`, or raise `save_period` in `train.args`"
        )
    if _SHARED.search(line):
        return _shared(container)
    if _MEMORY.search(line):
        return _memory(f"the {'container' if container else 'machine'}'s memory is used up", container)
    if missing := _MISSING.search(line):
        return _missing(missing)
    return None


def _shared(container: bool) -> Trouble:
    hint = "set `train.args.workers` to 2 or less, or leave `cache: ram` out"
    if container:
        hint = "raise `docker.shm_size` (`host` takes the machine's own), or set `train.args.workers` to 0"
    return Trouble("shared-memory", "a data loader ran out of shared memory", hint)


def _memory(text: str, container: bool) -> Trouble:
    hint = "lower `train.args.workers`, leave `cache: ram` out, or name a larger `instance.type`"
    return Trouble("memory", text, f"raise `docker.memory`, {hint}" if container else hint)


def _missing(found: re.Match[str]) -> Trouble:
    if module := found["module"]:
        name = module.split("'")[1]
        return Trouble(
            "missing-module", f"Python has no module `{name}`", f"add `{name}` to `environment.requirements`"
        )
    what = (found["what"] or found["script"]).strip()
    return Trouble(
        "missing-file",
        f"a file is not on the machine: {what[:200]}",
        "see that `project.exclude` or .gitignore does not leave it out, and that `dataset.path` holds it",
    )
