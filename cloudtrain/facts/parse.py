"""Turns the machine's answers into `Facts`. Pure, so captured answers are its tests.

Lines before the first answer are ignored: a login shell's start-up files may print
what they like.
"""

from __future__ import annotations

from cloudtrain.catalog.nvidia import from_pci
from cloudtrain.errors import ConnectError
from cloudtrain.models.machine import Facts, Gpu

ABSENT = "nvidia-smi is not installed"


def parse(text: str) -> Facts:
    """Read the output of `templates/facts.sh`. Raises `ConnectError` if it is not whole."""
    answers, gpus, devices = _read(text)
    if answers.get("end") != "1":
        raise ConnectError(
            "the machine's answer to our questions is not whole",
            hint="run the same command again; `cloudtrain ssh` shows whether a shell starts there",
        )
    seen = gpus or tuple(from_pci(device) for device in devices)
    return Facts(
        os_id=answers["os_id"],
        os_version=answers["os_version"],
        kernel=answers["kernel"],
        arch=answers["arch"],
        cpus=_number(answers, "cpus"),
        memory_mib=_number(answers, "memory_kib") // 1024,
        shm_mib=_number(answers, "shm_kib") // 1024,
        disk_free_mib=_number(answers, "disk_free_kib") // 1024,
        user=answers["user"],
        home=answers["home"],
        root=answers["root"] == "1",
        sudo=answers["sudo"] == "1",
        apt=answers["apt"] == "1",
        systemd=answers["systemd"] == "1",
        cloud_init=answers["cloud_init"] == "1",
        container=answers["container"] == "1",
        wsl=answers["wsl"] == "1",
        screen=answers["screen"] or None,
        rsync=answers["rsync"] or None,
        git=answers["git"] or None,
        curl=answers["curl"] or None,
        python3=answers["python3"] or None,
        python3_version=answers["python3_version"] or None,
        uv=answers["uv"] or None,
        conda=answers["conda"] or None,
        docker=answers["docker"] or None,
        nvidia_smi_error=_smi_error(answers, devices),
        baked=answers.get("baked") or None,
        gpus=seen,
    )


def _read(text: str) -> tuple[dict[str, str], tuple[Gpu, ...], tuple[str, ...]]:
    answers: dict[str, str] = {}
    gpus: list[Gpu] = []
    devices: list[str] = []
    lines = text.replace("\r", "").splitlines()
    start = lines.index("facts=1") if "facts=1" in lines else len(lines)
    for line in lines[start:]:
        key, _, value = line.partition("=")
        if key == "gpu":
            gpus.append(_gpu(value))
        elif key == "pci":
            devices.append(value)
        else:
            answers.setdefault(key, value)
    return answers, tuple(gpus), tuple(devices)


def _gpu(row: str) -> Gpu:
    cells = [cell.strip() for cell in row.split(",")]
    name, memory, driver, compute = (*cells, "", "", "", "")[:4]
    major, _, minor = compute.partition(".")
    return Gpu(
        name=name,
        memory_mib=int(memory) if memory.isdigit() else None,
        driver=driver if driver[:1].isdigit() else None,
        compute=(int(major), int(minor)) if major.isdigit() and minor.isdigit() else None,
    )


def _smi_error(answers: dict[str, str], devices: tuple[str, ...]) -> str | None:
    if answers.get("nvidia_smi") == "failed":
        return answers.get("nvidia_smi_error") or "nvidia-smi failed without a word"
    if answers.get("nvidia_smi") == "absent" and devices:
        return ABSENT
    return None


def _number(answers: dict[str, str], key: str) -> int:
    value = answers.get(key, "")
    return int(value) if value.isdigit() else 0
