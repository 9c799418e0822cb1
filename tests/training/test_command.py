from __future__ import annotations

import json

import pytest

from cloudtrain.errors import UsageError
from cloudtrain.models.config import Config, Train
from cloudtrain.models.run import Layout
from cloudtrain.training import build_command, task_of
from cloudtrain.training.command import settings

LAYOUT = Layout("/home/me/cloudtrain/helmets")
DATA = "/home/me/cloudtrain/helmets/data/data.yaml"


def built(
    train: Train, *, data: str | None = DATA, model: str = "m.pt", gpus: int = 1
) -> tuple[list[str], dict[str, str]]:
    return build_command(
        Config(train=train), LAYOUT, python="/env/bin/python", run_dir=LAYOUT.run_dir(7),
        dataset_yaml=data, model=model, gpus=gpus,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gpus", "args", "device"),
    [
        (0, {}, "device=cpu"),
        (1, {}, "device=0"),
        (4, {}, "device=0,1,2,3"),
        (4, {"device": "2"}, "device=2"),
        (1, {"device": "cpu"}, "device=cpu"),
    ],
)
def test_yolo_uses_the_gpus_that_are_there_unless_told(gpus: int, args: dict[str, str], device: str) -> None:
    argv, _ = built(Train(kind="yolo", args=dict(args)), gpus=gpus)
    assert [word for word in argv if word.startswith("device=")] == [device]


def test_yolo_writes_where_we_look() -> None:
    argv, _ = built(Train(kind="yolo", args={"epochs": 3}), model="yolo11n.yaml", gpus=0)
    assert argv[:2] == ["/env/bin/python", "-c"]
    assert argv[3:] == [
        "train", "model=yolo11n.yaml", f"data={DATA}", "device=cpu", "epochs=3",
        "project=/home/me/cloudtrain/helmets/runs", "name=007", "exist_ok=True",
    ]  # fmt: skip


def test_yolo_takes_arguments_as_they_are() -> None:
    args: dict[str, bool | int | float | str] = {
        "lr0": 0.001, "cos_lr": True, "plots": False, "classes": "[0, 2]", "optimizer": "", "data": "coco 8.yaml",
    }  # fmt: skip
    argv, _ = built(Train(kind="yolo", args=args), data=None)
    assert argv[5:-3] == [
        "device=0", "lr0=0.001", "cos_lr=True", "plots=False", "classes=[0, 2]", "optimizer=None", "data=coco 8.yaml",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "args", "task"),
    [
        ("yolo11n.pt", {}, None),
        ("yolo11n-seg.pt", {}, "segment"),
        ("/root/m/yolo26x-cls.yaml", {}, "classify"),
        ("yolo11n-pose.pt", {}, "pose"),
        ("yolov8m-obb.pt", {}, "obb"),
        ("/some-seg-folder/best.pt", {}, None),
        ("best.pt", {"task": "segment"}, "segment"),
    ],
)
def test_task_comes_from_the_arguments_or_the_name_or_the_model(
    model: str, args: dict[str, bool | int | float | str], task: str | None
) -> None:
    assert task_of(model, args) == task
    argv, _ = built(Train(kind="yolo", args=args), model=model)
    assert argv[3:5] == ([task, "train"] if task else ["train", f"model={model}"])
    assert not any(word.startswith("task=") for word in argv)


def test_yolov5_from_weights() -> None:
    argv, env = built(
        Train(kind="yolov5", args={"imgsz": 320, "noval": True, "rect": False}), model="yolov5s.pt"
    )
    assert argv == [
        "/env/bin/python", "train.py", "--data", DATA, "--weights", "yolov5s.pt", "--device", "0", "--imgsz", "320",
        "--noval", "--project", "/home/me/cloudtrain/helmets/runs", "--name", "007", "--exist-ok",
    ]  # fmt: skip
    assert env["YOLOV5_CONFIG_DIR"] == f"{env['YOLO_CONFIG_DIR']}/Ultralytics"


def test_yolov5_from_nothing_and_on_two_gpus() -> None:
    argv, _ = built(Train(kind="yolov5"), model="yolov5n.yaml", gpus=2)
    assert argv[:6] == [
        "/env/bin/python",
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
    ]
    assert argv[argv.index("--weights") :][:4] == ["--weights", "", "--cfg", "yolov5n.yaml"]


def test_script_knows_its_places() -> None:
    argv, env = built(Train(kind="script", command="python train.py --x 'a b'"), model="/root/best.pt")
    assert argv == ["bash", "-c", "python train.py --x 'a b'"]
    assert env["CLOUDTRAIN_RUN_DIR"] == "/home/me/cloudtrain/helmets/runs/007"
    assert env["CLOUDTRAIN_DATA"] == "/home/me/cloudtrain/helmets/data"
    assert env["CLOUDTRAIN_DATA_YAML"] == DATA
    assert env["CLOUDTRAIN_WEIGHTS"] == "/root/best.pt"


def test_script_without_data_and_weights_is_told_of_none() -> None:
    _, env = built(Train(kind="script", command="true"), data=None, model="yolo11n.pt")
    assert "CLOUDTRAIN_DATA_YAML" not in env
    assert "CLOUDTRAIN_WEIGHTS" not in env


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (Train(kind="yolo", args={"project": "x"}), "`project`"),
        (Train(kind="yolov5", args={"exist-ok": True}), "`exist-ok`"),
        (Train(kind="yolo"), "nothing to train on"),
        (Train(kind="yolov5"), "nothing to train on"),
        (Train(kind="script"), "no command"),
        (Train(kind="script", command="  "), "no command"),
    ],
)
def test_what_cannot_work_is_said_before_it_costs(train: Train, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        built(train, data=None)
    assert caught.value.hint


def test_ultralytics_sends_nothing_home() -> None:
    said = json.loads(json.dumps(settings(LAYOUT)))
    assert said["sync"] is False
    assert said["tensorboard"] is True
