"""cloudtrain.yaml as values.

These are plain frozen dataclasses; `config.load` has pydantic check a YAML file
against them, reading the constraints from the annotations and the descriptions
for the JSON schema from the docstrings under each field. So nothing that merely
uses a `Config` has to import pydantic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

PYDANTIC: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True, "allow_inf_nan": False}
"""What pydantic is told about every class here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """The machine to rent."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    type: tuple[str, ...] = ("g4dn.xlarge",)
    """An EC2 instance type, or a list that is tried by price."""
    market: Literal["on-demand", "spot", "spot-then-on-demand"] = "on-demand"
    """How the machine is paid for."""
    volume_gb: Annotated[int, Ge(20), Le(16384)] | None = None
    """Root volume in GB, 20 or more; default: image, environment and dataset, with room."""
    image: str = "auto"
    """auto, ubuntu-24.04, ubuntu-22.04, dlami, or an id (ami-…); auto is yours from `cloudtrain bake`, else Ubuntu."""
    dlami: bool = False
    """Whether `image: auto` may be AWS's Deep Learning image, which brings the driver, before Ubuntu."""
    subnet: str | None = None
    """A subnet of your own instead of the default VPC's."""
    security_group: str | None = None
    """A security group of your own; then no rule is added or removed."""
    address: Literal["auto", "public", "private"] = "auto"
    """Where the machine is reached: auto is public where the subnet gives such an address; private goes
    through your network or a ProxyJump of ~/.ssh/config."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The Python environment on the machine."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    manager: Literal["conda", "uv", "venv", "existing"] = "conda"
    """conda installs Miniconda; uv and venv are lighter; existing uses `python` as it is."""
    python: str = "3.12"
    """The Python version; for `existing`, the interpreter's path."""
    requirements: str | None = None
    """A requirements.txt, relative to the project folder."""
    packages: tuple[str, ...] = ()
    """More packages by name, as pip spells them."""
    torch: str = "auto"
    """auto fits the driver; or a version such as 2.8.0; or none for no PyTorch at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuda:
    """CUDA beside the driver; PyTorch brings what it needs itself."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    driver: Literal["auto", "ubuntu", "nvidia", "runfile", "none"] = "auto"
    """Where a missing driver comes from: auto is Ubuntu's signed modules, else NVIDIA's archive (compiled on
    the machine); runfile is NVIDIA's installer; none leaves the driver to you."""
    toolkit: Literal["12.6", "12.8", "12.9", "13.0"] | None = None
    """A CUDA toolkit with nvcc, such as "12.8", for code that compiles its own kernels; Ubuntu only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """The container of `runtime: docker`; its image brings the Python environment."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    image: str | None = None
    """An image, pulled on the machine where it is not there."""
    dockerfile: str | None = None
    """A Dockerfile in the project, built on the machine, instead of `image`."""
    python: str = "python3"
    """The image's interpreter."""
    shm_size: str = "auto"
    """Shared memory for data loaders: auto is half the memory, host is `--ipc=host`; or a size such as 8g."""
    memory: str = "auto"
    """Memory limit: auto leaves a tenth to the machine itself; none; or a size such as 12g."""
    mounts: tuple[str, ...] = ()
    """More of the machine's folders, as /there:/inside or /there:/inside:ro."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The code that trains."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    path: str = "."
    """The folder to push, relative to cloudtrain.yaml."""
    exclude: tuple[str, ...] = ()
    """Patterns to leave out, in .gitignore's language."""
    git: str | None = None
    """A repository to clone on the machine instead of pushing a folder."""
    ref: str | None = None
    """Branch, tag or commit of `git`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The data to train on."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    path: str | None = None
    """A data.yaml, a folder or an archive, relative to cloudtrain.yaml."""
    source: str | None = None
    """s3://… or https://…: the machine fetches it itself."""
    command: str | None = None
    """A command that fetches the data; runs on the machine, once, in the data folder."""
    sha256: str | None = None
    """The SHA-256 of what `source` answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """The training."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    kind: Literal["yolo", "yolov5", "script"] = "yolo"
    """yolo is ultralytics; yolov5 a checkout with train.py; script any command."""
    model: str = "yolo11n.pt"
    """A model's name, a .yaml, or a local file, which is sent."""
    args: dict[str, bool | int | float | str] = field(default_factory=dict[str, bool | int | float | str])
    """Arguments for the trainer, by its own names."""
    gpus: str | None = None
    """all, how many, or which, as [0, 1]; default: all for YOLO, for a script its own business."""
    command: str | None = None
    """The command of kind script."""
    outputs: tuple[str, ...] = ("**/*.pt", "**/*.pth", "**/*.pth.tar", "**/*.ckpt", "**/*.safetensors")
    """Kind script: which files come home, as patterns in the project folder; a folder stands for all in it."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """`outputs` as every reader takes them: a folder as all that lies in it; () for another kind."""
        if self.kind != "script":
            return ()
        whole = (
            (one.rstrip("/"), f"{one.rstrip('/')}/**")
            if one.endswith("/") or not set(one) & set("*?[")
            else (one,)
            for one in self.outputs
        )
        return tuple(dict.fromkeys(one for some in whole for one in some))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A search for hyperparameters: yolov5's --evolve or ultralytics' tune, one process per GPU."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    trials: Annotated[int, Ge(1)] | None = None
    """How many trials, on all devices together; default: no search, one training."""
    workers: Annotated[int, Ge(1), Le(64)] | None = None
    """How many at once; default: one per GPU, or one without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How long and for how much the machine may live."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    hours: Annotated[float, Gt(0), Le(24 * 30)] | None = None
    """Hours from launch after which the machine powers off by itself; default: 12. On a machine of your own the
    training is ended then; default: never."""
    cost: Annotated[float, Gt(0)] | None = None
    """Money in the account's currency after which it does; the earlier limit counts."""
    idle_minutes: Annotated[int, Ge(5)] | None = 30
    """Idle minutes after which it does."""
    after_training: Literal["stop", "terminate", "keep"] = "stop"
    """What happens when the training ended and nobody is there."""
    notify: str | None = None
    """A shell command the machine runs at each notice, with CLOUDTRAIN_KIND and CLOUDTRAIN_NOTICE set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """What to do when a spot machine is taken back."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    patience: Annotated[float, Gt(0)] = 60.0
    """Minutes `run` waits for EC2 to give it back before it offers to go on elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """Other addresses for what the machine downloads; empty means the usual one."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    package_index: str | None = None
    """Instead of the Python package index."""
    torch_index: str | None = None
    """Instead of PyTorch's wheel index; laid out like it."""
    python_builds: str | None = None
    """Instead of the Python builds that uv downloads (GitHub); laid out like them."""
    conda_installer: str | None = None
    """Folder of Miniconda installers."""
    conda_channel: str | None = None
    """Instead of conda-forge."""
    apt: str | None = None
    """Instead of the image's apt archive."""
    cuda: str | None = None
    """Instead of NVIDIA's archive of CUDA toolkits and drivers; laid out like it."""
    container_toolkit: str | None = None
    """Instead of NVIDIA's archive of its container toolkit."""
    driver_runfile: str | None = None
    """Folder of NVIDIA's driver installers, for `cuda.driver: runfile`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine of your own, for provider ssh."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    address: Annotated[str, MinLen(1)]
    """Name or address, or a `Host` of your ~/.ssh/config."""
    port: Annotated[int, Ge(1), Le(65535)] | None = None
    """SSH port; default: ~/.ssh/config's, else 22."""
    user: str | None = None
    """Login name; default: ~/.ssh/config's, else yours."""
    key: str | None = None
    """Private key file; default: ~/.ssh/config's, your SSH agent's and your usual keys."""
    password: bool = False
    """Log in with a password: asked for, or CLOUDTRAIN_SSH_PASSWORD; never stored."""
    fingerprint: str | None = None
    """SHA256:… of the host key; without it you are shown it once and asked."""
    price_hour: Annotated[float, Gt(0)] | None = None
    """What an hour of it costs you, if anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may reach the machine."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    ingress: str | None = None
    """Your public IPv4 address; default: asked of `address_service`."""
    address_service: str = "https://checkip.amazonaws.com"
    """A page that answers with the caller's public IPv4 address and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One cloudtrain.yaml, with everything it leaves out filled in."""

    __pydantic_config__: ClassVar[dict[str, object]] = PYDANTIC

    name: str = ""
    """The run's name; default: the folder's name."""
    provider: Literal["aws", "ssh", "sandbox"] = "aws"
    """Where machines come from."""
    region: str | None = None
    """AWS region; default: the AWS profile's."""
    profile: str | None = None
    """AWS profile; default: the environment's."""
    instance: Instance = field(default_factory=Instance)
    """The machine to rent."""
    environment: Environment = field(default_factory=Environment)
    """The Python environment."""
    cuda: Cuda = field(default_factory=Cuda)
    """CUDA for code of one's own."""
    runtime: Literal["host", "docker"] = "host"
    """Train on the host itself or in a container."""
    docker: Docker = field(default_factory=Docker)
    """The container."""
    project: Project = field(default_factory=Project)
    """The code."""
    dataset: Dataset = field(default_factory=Dataset)
    """The data."""
    train: Train = field(default_factory=Train)
    """The training."""
    sweep: Sweep = field(default_factory=Sweep)
    """The search."""
    lease: Lease = field(default_factory=Lease)
    """The limits."""
    spot: Spot = field(default_factory=Spot)
    """When a spot machine is taken back."""
    access: Access = field(default_factory=Access)
    """The way in."""
    mirrors: Mirrors = field(default_factory=Mirrors)
    """Other download addresses."""
    hosts: tuple[Host, ...] = ()
    """Machines of your own."""
