"""The recipe: every step is in it, and its digest is of what an image holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloudtrain.bootstrap.steps import NAMES
from cloudtrain.catalog.recipe import base_of, digest, recipe
from cloudtrain.models.config import Config, Cuda, Docker, Environment, Instance, Lease, Train

PLAIN = Config()


def test_every_step_is_baked_or_left_with_a_reason() -> None:
    read = recipe()
    assert set(read.bake) | set(read.leave) == set(NAMES)
    assert not set(read.bake) & set(read.leave)
    assert all(read.leave.values())


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAIN, environment=Environment(manager="uv")),
        replace(PLAIN, environment=Environment(python="3.11")),
        replace(PLAIN, environment=Environment(torch="2.8.0")),
        replace(PLAIN, environment=Environment(packages=("six",))),
        replace(PLAIN, environment=Environment(requirements="requirements.txt")),
        replace(PLAIN, train=Train(kind="yolov5")),
        replace(PLAIN, runtime="docker"),
        replace(PLAIN, docker=Docker(image="x")),
        replace(PLAIN, cuda=Cuda(toolkit="12.8")),
        replace(PLAIN, instance=Instance(dlami=True)),
        replace(PLAIN, instance=Instance(image="ubuntu-22.04")),
    ],
)
def test_another_content_is_another_image(other: Config) -> None:
    assert digest(other) != digest(PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAIN, name="another", region="eu-west-1", lease=Lease(hours=1)),
        replace(PLAIN, instance=Instance(type=("p5.48xlarge",), market="spot", volume_gb=500)),
        replace(PLAIN, train=Train(args={"epochs": 3})),
        replace(PLAIN, instance=Instance(image="ubuntu-24.04")),
    ],
)
def test_what_an_image_does_not_hold_does_not_count(other: Config) -> None:
    assert digest(other) == digest(PLAIN)


def test_what_a_bake_begins_from() -> None:
    assert base_of(PLAIN) == "ubuntu-24.04"
    assert base_of(replace(PLAIN, instance=Instance(dlami=True))) == "dlami"
    assert base_of(replace(PLAIN, instance=Instance(image="ami-1"))) == "ami-1"
