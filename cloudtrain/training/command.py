"""What the machine is told to run, and with which environment. Pure: nothing is asked or sent.

All three kinds end in the same place, `<root>/runs/NNN`, so that results are found
again whatever trained them. Both YOLO trainers are named by their own programs'
arguments, which is why `train.args` needs no translation.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from cloudtrain.errors import UsageError
from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.training.devices import TORCHRUN, chosen, device_word, launched

Args = dict[str, bool | int | float | str]

RESERVED = {
    "yolo": ("project", "name", "exist_ok", "save_dir", "mode", "model"),
    "yolov5": ("project", "name", "exist_ok", "exist-ok"),
    "script": (),
}
"""Arguments that say where results go; cloudtrain sets them, or it could not find them again."""

ENTRY = "from cloudtrain_training.yolo import main; main()"
"""ultralytics' own command line, see machine/yolo.py. Its `yolo` program may not be on any PATH."""

TASKS = {"-seg": "segment", "-cls": "classify", "-pose": "pose", "-obb": "obb"}


def build_command(
    config: Config,
    layout: Layout,
    *,
    python: str,
    run_dir: str,
    dataset_yaml: str | None,
    model: str,
    gpus: int,
) -> tuple[list[str], dict[str, str]]:
    """Return the argument list of the training and the variables it needs beside the machine's.

    `python` is the environment's interpreter, `gpus` how many GPUs have a driver that
    answers; all of them are used unless `train.args.device` says otherwise. Raises
    `UsageError` for arguments that cloudtrain sets itself, no dataset, or no command.
    """
    _check(config, dataset_yaml)
    train = config.train
    env = {
        "PYTHONUNBUFFERED": "1",
        "CLOUDTRAIN_RUN_DIR": run_dir,
        "CLOUDTRAIN_DATA": layout.data,
        "YOLO_CONFIG_DIR": config_dir(layout),
        "YOLO_AUTOINSTALL": "false",
    }
    if config.runtime == "host" and config.environment.manager != "existing":
        env["PYTHONNOUSERSITE"] = "1"  # in an environment of conda, ~/.local comes before its own packages
    if dataset_yaml is not None:
        env["CLOUDTRAIN_DATA_YAML"] = dataset_yaml
    if model.startswith("/"):
        env["CLOUDTRAIN_WEIGHTS"] = model
    used = chosen(train.gpus, gpus)
    if train.kind == "script":
        if train.gpus is None:
            return ["bash", "-c", train.command or ""], env
        env["CUDA_VISIBLE_DEVICES"] = ",".join(str(number) for number in used)
        return ["bash", "-c", launched(train.command or "", used)], env
    if train.kind == "yolov5":
        env["YOLOv5_AUTOINSTALL"] = "false"
        env["YOLOV5_CONFIG_DIR"] = f"{config_dir(layout)}/Ultralytics"
        return _yolov5(train.args, python, run_dir, dataset_yaml, model, used), env
    return _yolo(train.args, python, run_dir, dataset_yaml, model, used), env


def task_of(model: str, args: Args) -> str | None:
    """Return ultralytics' task from `args` or the model's name; None lets the model itself say."""
    if "task" in args:
        return str(args["task"])
    stem = PurePosixPath(model).stem.lower()
    return next((task for suffix, task in TASKS.items() if suffix in stem), None)


def config_dir(layout: Layout) -> str:
    """Return YOLO_CONFIG_DIR: ultralytics' settings and font, a run's own."""
    return f"{layout.root}/config"


def settings(layout: Layout) -> dict[str, object]:
    """Return ultralytics' first settings.json: all of schema 0.0.8, or it says that it had to mend it."""
    return {
        "settings_version": "0.0.8",
        "datasets_dir": layout.data,
        "weights_dir": f"{layout.root}/weights",
        "runs_dir": f"{layout.root}/runs",
        "tensorboard": True,
        **dict.fromkeys(("uuid", "api_key", "openai_api_key"), ""),
        **dict.fromkeys(("clearml", "comet", "dvc", "mlflow", "raytune"), True),
        **dict.fromkeys(("sync", "wandb", "vscode_msg", "openvino_msg"), False),
    }


def _check(config: Config, dataset_yaml: str | None) -> None:
    train = config.train
    taken = [key for key in train.args if key in RESERVED[train.kind]]
    if taken:
        raise UsageError(
            f"cloudtrain sets `{taken[0]}` itself, to find the results again",
            hint=f"remove `{taken[0]}` from `train.args`",
        )
    if train.kind == "script" and not (train.command or "").strip():
        raise UsageError(
            "kind script has no command", hint="set `train.command`, for example `python train.py`"
        )
    if train.kind != "script" and dataset_yaml is None and "data" not in train.args:
        # Both trainers would go on with a dataset of their own and bill for it.
        raise UsageError("there is nothing to train on", hint="set `dataset.path` to a data.yaml")


def _yolo(
    args: Args, python: str, run_dir: str, dataset_yaml: str | None, model: str, gpus: tuple[int, ...]
) -> list[str]:
    run = PurePosixPath(run_dir)
    words: dict[str, object] = {"model": model}
    if dataset_yaml is not None:
        words["data"] = dataset_yaml
    words["device"] = device_word(gpus)
    words |= args
    _check_batch(words, "yolo")
    words |= {"project": run.parent, "name": run.name, "exist_ok": True}
    task = task_of(model, args)
    words.pop("task", None)
    # An empty string is how YAML and a shell both say "unset"; ultralytics says None.
    pairs = [f"{key}={value if value != '' else None}" for key, value in words.items()]
    return [python, "-c", ENTRY, *([task] if task else []), "train", *pairs]


def _yolov5(
    args: Args, python: str, run_dir: str, dataset_yaml: str | None, model: str, gpus: tuple[int, ...]
) -> list[str]:
    run = PurePosixPath(run_dir)
    words: dict[str, object] = {}
    if dataset_yaml is not None:
        words["data"] = dataset_yaml
    words |= {"weights": "", "cfg": model} if model.endswith((".yaml", ".yml")) else {"weights": model}
    words["device"] = device_word(gpus)
    words |= args
    _check_batch(words, "yolov5")
    words |= {"project": run.parent, "name": run.name, "exist-ok": True}
    launch = [python]
    devices = str(words["device"]).split(",")
    if len(devices) > 1:
        launch += [*TORCHRUN, str(len(devices))]
    return [*launch, "train.py", *_flags(words)]


def _check_batch(words: dict[str, object], kind: str) -> None:
    """Raise `UsageError` for a batch that the trainer would refuse on the machine."""
    count = len(str(words["device"]).split(","))
    batch = words.get("batch", words.get("batch-size", 16))
    if count < 2 or not isinstance(batch, (int, float)):
        return
    if batch < 1:
        raise UsageError(
            f"`batch: {batch}` is found out on one GPU only, and {count} train",
            hint="set `train.args.batch` to a number, for all of them together, or `train.gpus` to 1",
        )
    if kind == "yolov5" and batch % count:
        raise UsageError(
            f"a batch of {batch} cannot be divided among {count} GPUs",
            hint=f"set `train.args.batch` to a multiple of {count}",
        )


def _flags(words: dict[str, object]) -> list[str]:
    flags: list[str] = []
    for key, value in words.items():
        if value is True:
            flags.append(f"--{key}")
        elif value is not False:
            flags += [f"--{key}", str(value)]
    return flags
