"""Machines and configurations that several tests look at."""

from __future__ import annotations

from pathlib import Path

from cloudtrain.facts import parse
from cloudtrain.models.config import Config, Cuda, Dataset, Docker, Environment, Mirrors, Project, Train
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout

MACHINES: dict[str, Facts] = {
    path.stem: parse(path.read_text())
    for path in sorted((Path(__file__).parents[1] / "facts" / "data").glob("*.txt"))
}

LAYOUT = Layout("/home/some user/cloudtrain/it's-1")

CONFIGS: dict[str, Config] = {
    "default": Config(),
    "uv": Config(environment=Environment(manager="uv", python="3", packages=("tqdm", "ruamel.yaml>=0.18"))),
    "venv": Config(
        environment=Environment(manager="venv", requirements="sub dir/requirements.txt"),
        train=Train(kind="script", command="python train.py"),
        project=Project(git="https://example.org/x.git"),
        dataset=Dataset(source="https://example.org/d.zip"),
    ),
    "existing": Config(environment=Environment(manager="existing", python="/opt/pytorch/bin/python")),
    "own host": Config(provider="ssh", environment=Environment(manager="existing")),
    "yolov5": Config(train=Train(kind="yolov5")),
    "cuda": Config(environment=Environment(manager="uv"), cuda=Cuda(toolkit="12.8")),
    "driver from NVIDIA": Config(cuda=Cuda(driver="nvidia", toolkit="12.8")),
    "driver by runfile": Config(cuda=Cuda(driver="runfile")),
    "no driver": Config(cuda=Cuda(driver="none")),
    "docker image": Config(runtime="docker", docker=Docker(image="ultralytics/ultralytics:8.4.190")),
    "docker build": Config(
        runtime="docker", docker=Docker(dockerfile="docker files/Dockerfile", memory="12g", shm_size="host")
    ),
    "mirrored software": Config(
        runtime="docker",
        docker=Docker(image="registry.example.org/x"),
        cuda=Cuda(driver="runfile", toolkit="12.8"),
        mirrors=Mirrors(
            cuda="https://nvidia.example.org:8443/cuda/repos/",
            container_toolkit="https://nvidia.example.org/toolkit/",
            driver_runfile="https://nvidia.example.org/drivers",
        ),
    ),
    "cpu": Config(train=Train(args={"device": "cpu"})),
    "no torch": Config(environment=Environment(torch="none", manager="uv"), train=Train(kind="script")),
    "mirrors": Config(
        mirrors=Mirrors(
            package_index="https://me:s3cret@pypi.example.org/simple",
            torch_index="https://torch.example.org/whl/",
            conda_installer="https://conda.example.org/installers/",
            conda_channel="https://conda.example.org/forge",
            apt="http://apt.example.org/ubuntu/",
            cuda="https://nvidia.example.org/cuda/repos/",
            container_toolkit="https://nvidia.example.org/toolkit/",
            driver_runfile="https://nvidia.example.org/drivers",
        )
    ),
}
