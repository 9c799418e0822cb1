"""What a valid configuration must fulfil beyond the type of each value.

Everything here is decided by the file alone: whether a path is there, or a cloud has
such a machine, is asked later, by those who look.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache

from cloudtrain.config.messages import nearest
from cloudtrain.config.yamlfile import Location, read
from cloudtrain.models.config import Config
from cloudtrain.paths import shipped

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
REGION = re.compile(r"([a-z]{2,4}(?:-[a-z]+)*)-([a-z]+)-(\d+)([a-z]?)")
DIRECTIONS = (
    "north", "south", "east", "west", "central", "northeast", "northwest", "southeast", "southwest",
)  # fmt: skip
TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
VERSION = re.compile(r"\d+(\.\d+){0,2}")
TORCH = re.compile(r"auto|none|\d+\.\d+(\.\d+)?")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
GPUS = re.compile(r"all|[1-9]\d*|\[ *\d+( *, *\d+)* *\]")
IMAGE = re.compile(r"[A-Za-z0-9][\w.\-/:@]*")
SIZE = re.compile(r"[1-9]\d*[bkmgBKMG]?")
MOUNT = re.compile(r"/[^:]*:/[^:]*(:(ro|rw))?")
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?")


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold, and the keys it reads; the first is the one to correct."""

    keys: tuple[Location, ...]
    message: str


def broken(config: Config) -> Iterator[Broken]:
    """Yield every rule that does not hold."""
    for rule in RULES:
        for keys, message in rule(config):
            yield Broken(tuple(tuple(_part(part) for part in key.split(".")) for key in keys), message)


Found = Iterator[tuple[tuple[str, ...], str]]


def _part(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _name(config: Config) -> Found:
    if not NAME.fullmatch(config.name):
        words = "must be lower-case letters, digits and dashes, 40 at most"
        yield ("name",), f"`name` {words}, not `{config.name}`"


def _region(config: Config) -> Found:
    region = config.region
    if region is None:
        return
    found = REGION.fullmatch(region)
    if found is None:
        yield ("region",), f"`region` must be like `us-east-1`, not `{region}`"
    elif found[2] not in DIRECTIONS:
        meant = nearest(found[2], DIRECTIONS)
        yield ("region",), f"`region` `{region}` has no direction that AWS uses, but `{found[2]}`{meant}"
    elif found[4]:
        yield ("region",), f"`region` `{region}` is a zone; its region is `{region[:-1]}`"


def _instance(config: Config) -> Found:
    instance = config.instance
    if not instance.type:
        yield ("instance.type",), "`instance.type` must name at least one type"
    for kind in instance.type:
        if not TYPE.fullmatch(kind):
            yield ("instance.type",), f"`instance.type` must be like `g4dn.xlarge`, not `{kind}`"
    image = instance.image
    if image.startswith("ami-"):
        if not re.fullmatch(r"ami-[0-9a-f]{8,17}", image):
            yield (
                ("instance.image",),
                f"`instance.image` `{image}` is no image id: `ami-` and 8 to 17 hex digits",
            )
    elif image not in _images():
        known = f"{', '.join(_images())} or an id, `ami-…`"
        yield (
            ("instance.image",),
            f"`instance.image` must be one of {known}, not `{image}`{nearest(image, _images())}",
        )
    for key, value, prefix in (
        ("subnet", instance.subnet, "subnet-"),
        ("security_group", instance.security_group, "sg-"),
    ):
        if value is not None and not value.startswith(prefix):
            yield (f"instance.{key}",), f"`instance.{key}` must be an id, `{prefix}…`, not `{value}`"


@cache
def _images() -> tuple[str, ...]:
    catalog = read(shipped("ami") / "images.yaml").values
    return (*catalog["aliases"], *catalog["images"])


def _environment(config: Config) -> Found:
    environment = config.environment
    if environment.manager != "existing" and not VERSION.fullmatch(environment.python):
        keys = ("environment.python", "environment.manager")
        words = f'must be a version such as "3.12", not `{environment.python}`'
        yield keys, f"`environment.python` {words}; a path is for `manager: existing`"
    if not TORCH.fullmatch(environment.torch):
        words = "must be auto, none or a version such as 2.8.0"
        yield ("environment.torch",), f"`environment.torch` {words}, not `{environment.torch}`"
    for n, package in enumerate(environment.packages):
        if package.startswith("-") or not package.strip():
            words = "must be a package, not an option; an index goes under `mirrors`"
            yield (f"environment.packages.{n}",), f"`environment.packages[{n}]` {words}: `{package}`"


def _docker(config: Config) -> Found:
    docker = config.docker
    if docker.image and docker.dockerfile:
        yield ("docker.image", "docker.dockerfile"), "`docker` has both `image` and `dockerfile`: give one"
    if config.runtime == "docker" and not docker.image and not docker.dockerfile:
        yield ("runtime", "docker.image"), "`runtime` docker needs a `docker.image` or a `docker.dockerfile`"
    if docker.image is not None and not IMAGE.fullmatch(docker.image):
        yield ("docker.image",), f"`docker.image` cannot be `{docker.image}`"
    inside = docker.dockerfile or ""
    if inside.startswith(("/", "~", "-")) or ".." in inside.split("/"):
        yield ("docker.dockerfile",), f"`docker.dockerfile` must be in the project folder, not `{inside}`"
    if config.runtime == "docker":
        for key in ("requirements", "packages"):
            if getattr(config.environment, key):
                words = "is for `runtime: host`: what a container needs belongs into its image"
                yield (f"environment.{key}", "runtime"), f"`environment.{key}` {words}"


def _docker_limits(config: Config) -> Found:
    docker = config.docker
    for key, value, words in (
        ("shm_size", docker.shm_size, ("auto", "host")),
        ("memory", docker.memory, ("auto", "none")),
    ):
        if value not in words and not SIZE.fullmatch(value):
            yield (
                (f"docker.{key}",),
                f"`docker.{key}` must be {', '.join(words)} or a size such as 8g, not `{value}`",
            )
    for n, mount in enumerate(docker.mounts):
        if not MOUNT.fullmatch(mount):
            words = "must be like /there:/inside or /there:/inside:ro"
            yield (f"docker.mounts.{n}",), f"`docker.mounts[{n}]` {words}, not `{mount}`"


def _project(config: Config) -> Found:
    project = config.project
    if project.ref and not project.git:
        yield ("project.ref", "project.git"), "`project.ref` needs `project.git`"
    if project.git and project.path != ".":
        yield ("project.git", "project.path"), "`project` has both `path` and `git`: give one"
    for key, value in (("git", project.git), ("ref", project.ref)):
        if value is not None and (not value or value.startswith("-")):
            yield (f"project.{key}",), f"`project.{key}` cannot be `{value}`"


def _dataset(config: Config) -> Found:
    dataset = config.dataset
    if dataset.path and dataset.source:
        yield ("dataset.source", "dataset.path"), "`dataset` has both `path` and `source`: give one"
    if dataset.path and re.match(r"(https?|s3)://", dataset.path):
        yield ("dataset.path",), "`dataset.path` is an address: write `dataset: {source: …}`"
    if dataset.source and not dataset.source.startswith(("https://", "s3://")):
        yield ("dataset.source",), f"`dataset.source` must be https://… or s3://…, not `{dataset.source}`"
    if dataset.sha256 and not SHA256.fullmatch(dataset.sha256):
        yield (
            ("dataset.sha256",),
            f"`dataset.sha256` must be 64 hex digits, not {len(dataset.sha256)} characters",
        )
    if dataset.sha256 and not dataset.source:
        yield (
            ("dataset.sha256", "dataset.source"),
            "`dataset.sha256` is that of a `dataset.source`; none is given",
        )


def _train(config: Config) -> Found:
    train = config.train
    script = train.kind == "script"
    if script and not (train.command or "").strip():
        yield ("train.kind", "train.command"), "`train.kind` script needs a `train.command`"
    if train.command and not script:
        words = f"`train.command` is for `kind: script`, and the kind is {train.kind}"
        yield ("train.command", "train.kind"), words
    if script and not train.outputs:
        yield (
            ("train.outputs", "train.kind"),
            "`train.outputs` is empty: nothing of the training would come home",
        )
    for n, pattern in enumerate(train.outputs):
        if pattern.startswith(("/", "~")) or ".." in pattern.split("/") or not pattern:
            words = "must be a pattern inside the project folder"
            yield (f"train.outputs.{n}",), f"`train.outputs[{n}]` {words}, not `{pattern}`"
    if not script and not train.model.strip():
        yield ("train.model", "train.kind"), "`train.model` must not be empty"
    yield from _gpus(config)


def _gpus(config: Config) -> Found:
    gpus = config.train.gpus
    if gpus is not None and not GPUS.fullmatch(gpus):
        yield (
            ("train.gpus",),
            f"`train.gpus` must be all, a number of them or a list such as [0, 1], not `{gpus}`",
        )
    if gpus is not None and "device" in config.train.args:
        yield ("train.gpus", "train.args"), "`train.gpus` and `train.args.device` say the same: give one"
    if config.sweep.trials and config.train.kind == "script":
        yield ("sweep.trials", "train.kind"), "`sweep` is the YOLO trainers' own search; a script has none"


def _addresses(config: Config) -> Found:
    access = config.access
    if access.ingress is not None and not _is_ipv4(access.ingress):
        words = "must be one IPv4 address such as 203.0.113.7"
        yield ("access.ingress",), f"`access.ingress` {words}, not `{access.ingress}`"
    if not access.address_service.startswith(("https://", "http://127.0.0.1:")):
        words = "must be an https address"
        yield ("access.address_service",), f"`access.address_service` {words}, not `{access.address_service}`"
    for one in fields(config.mirrors):
        value: str | None = getattr(config.mirrors, one.name)
        # conda knows channels by name, too
        if value is not None and one.name != "conda_channel" and not _is_address(value):
            # The value is not repeated: it may hold a password.
            yield (f"mirrors.{one.name}",), f"`mirrors.{one.name}` must be an address: https://…"


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_address(text: str) -> bool:
    return re.match(r"(https?|file)://\S", text) is not None


def _hosts(config: Config) -> Found:
    if config.provider == "ssh" and not config.hosts:
        yield ("provider", "hosts"), "`provider` ssh needs `hosts:`, with an `address` each"
    seen: set[tuple[str, int, str | None]] = set()
    for n, host in enumerate(config.hosts):
        if "@" in host.address or re.search(r"\s", host.address):
            words = "must be a name or an address alone: `user` and `port` are keys of their own"
            yield (f"hosts.{n}.address",), f"`hosts[{n}].address` {words}"
        if host.fingerprint is not None and not FINGERPRINT.fullmatch(host.fingerprint):
            words = "must be SHA256:… as `ssh-keygen -lf` prints it"
            yield (f"hosts.{n}.fingerprint",), f"`hosts[{n}].fingerprint` {words}"
        if host.password and host.key is not None:
            yield (
                (f"hosts.{n}.password", f"hosts.{n}.key"),
                f"`hosts[{n}]` has `password` and `key`: give one",
            )
        port = host.port or 22
        if (host.address, port, host.user) in seen:
            yield (f"hosts.{n}.address",), f"`hosts[{n}]` is listed twice: `{host.address}` port {port}"
        seen.add((host.address, port, host.user))


RULES: tuple[Callable[[Config], Found], ...] = (
    _name, _region, _instance, _environment, _docker, _docker_limits, _project, _dataset, _train, _addresses, _hosts,
)  # fmt: skip
