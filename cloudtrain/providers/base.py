"""The small seam every provider keeps.

A provider answers read-only questions and performs single changes; it holds no
state, takes no decision and prints nothing. `provision` decides and journals.
Every method may be called again after a crash in the middle of it and must then
converge. All raise `CloudError` and its subclasses, nothing of their own library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cloudtrain.models.account import OfferList, OfferQuery, Policy, Probe, Quota, QuotaRequest, Sweep
from cloudtrain.models.config import Config
from cloudtrain.models.image import BakedImage
from cloudtrain.models.machine import Machine, Market
from cloudtrain.models.plan import Found, LaunchSpec, Observation, Survey
from cloudtrain.models.run import RunRef


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, and where. `owner` is a 12-digit hex digest of the caller's ARN."""

    owner: str
    region: str
    partition: str
    account: str = ""
    """The account's own number, kept on this computer only; empty where there is none."""


@dataclass(frozen=True, slots=True)
class AccessSpec:
    """The key pair and security group a run needs. `ingress` is one IPv4 address."""

    run: RunRef
    public_key: str
    ingress: str | None
    port: int
    security_group: str | None = None
    subnet: str | None = None
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """What `prepare_access` made or found."""

    key_name: str
    security_group: str
    created: tuple[str, ...] = ()


class Launches(Protocol):
    """Keeps launch requests byte for byte, so that a lost answer can be replayed."""

    def store(self, token: str, request: bytes) -> None:
        """Write `request` 0600 and fsync it before the call is made."""
        ...

    def load(self, token: str) -> bytes | None:
        """Return what was stored under `token`, or None."""
        ...


class Provider(Protocol):
    """Where machines come from."""

    @property
    def name(self) -> str:
        """`aws`, `ssh` or `sandbox`."""
        ...

    @property
    def ssh_port(self) -> int:
        """The port its machines answer SSH on."""
        ...

    @property
    def ssh_user(self) -> str | None:
        """A login name that overrides the image's, or None."""
        ...

    def identity(self) -> Identity:
        """Say who asks. Raises `CredentialsError` when nobody can be named."""
        ...

    def survey(self, config: Config) -> Survey:
        """Ask for offers, image and the caller's address; denied advice goes to `missing`.

        Raises `UsageError` for a type, image or subnet that does not exist.
        """
        ...

    def observe(self, run: RunRef) -> Observation:
        """Return everything that carries the run's tags; terminated machines included."""
        ...

    def everything(self, owner: str) -> tuple[Found, ...]:
        """Return everything in the region that carries our tags, of any run and owner."""
        ...

    def sweep(self, owner: str, regions: tuple[str, ...] | None = None) -> Sweep:
        """Return everything that carries our tags, priced, in `regions`, else in every enabled one.

        A region that does not tell is named in `missing`.
        """
        ...

    def remove(self, things: tuple[Found, ...]) -> None:
        """Remove things that a sweep found: requests, machines (waited for), then the rest.

        Gone already is success. Raises `CloudError` naming what cannot be removed.
        """
        ...

    def offers(self, query: OfferQuery) -> OfferList:
        """Return what the region offers, with prices as far as they are told in a few seconds."""
        ...

    def quota(self, type_name: str, market: Market) -> Quota:
        """Return what a type's quota allows and what is used of it; denied answers are None.

        Raises `CloudError` for a type whose quota is not known.
        """
        ...

    def request_quota(self, type_name: str, market: Market, value: float) -> QuotaRequest:
        """Ask for a quota of `value` vCPUs. Raises `CloudError` when it is refused at once."""
        ...

    def probes(self, config: Config) -> tuple[Probe, ...]:
        """Return what can be checked between this computer and the cloud; asks nothing yet."""
        ...

    def policy(self, verbs: tuple[str, ...], dataset: str = "") -> Policy:
        """Return the least rights that some verbs need; all verbs for none. Asks nobody.

        `dataset` is a `dataset.source` that is to be read as well. Raises `UsageError` for a
        verb that does not exist.
        """
        ...

    def images(self, owner: str) -> tuple[BakedImage, ...]:
        """Return the images that the owner made of machines, and snapshots left of such, newest first."""
        ...

    def create_image(self, machine_id: str, name: str, tags: dict[str, str]) -> str:
        """Make an image of a stopped machine and return its id; of a name already taken, that one's.

        It is not usable before `images` says that it is `available`. Its snapshots carry
        the same tags.
        """
        ...

    def prepare_access(self, spec: AccessSpec) -> Access:
        """Make or find key pair and security group and admit the caller. Idempotent."""
        ...

    def repair_ingress(self, run: RunRef, address: str) -> bool:
        """Have the run's machines admit this computer at `address`, a single IPv4 address.

        Only a rule of this computer's own is withdrawn. Returns whether anything was
        changed. Raises `CloudError` for what is no public address.
        """
        ...

    def launch(self, spec: LaunchSpec | None, token: str, launches: Launches) -> Machine:
        """Launch exactly one machine for `token`; a replay returns the same one.

        A request stored under `token` is sent again unchanged, whatever `spec` says;
        without a `spec` it only replays. Raises `CapacityError`, `QuotaError`,
        `AuthorizationError`, `LostAnswerError` when no answer came, or `GoneError`
        when the token's machine existed and is terminated.
        """
        ...

    def tag(self, machine_id: str, tags: dict[str, str]) -> None:
        """Put tags on a machine, replacing those of the same keys."""
        ...

    def tags_of(self, machine_id: str) -> dict[str, str]:
        """Return a machine's tags. Raises `GoneError` when there is no such machine."""
        ...

    def push_key(self, machine_id: str, zone: str, user: str, public_key: str) -> None:
        """Let `public_key` in as `user` for a minute, by the cloud's own authority.

        Raises `CloudError` where the cloud, the machine or the caller's rights do not allow it.
        """
        ...

    def caller_address(self, config: Config) -> str:
        """Return this computer's public IPv4 address, given or asked. Raises `CloudError`."""
        ...

    def start(self, machine_id: str) -> None:
        """Start a stopped machine; running already is success."""
        ...

    def stop(self, machine_id: str) -> None:
        """Stop a machine and keep its disk; stopped already is success."""
        ...

    def wait_running(self, machine_id: str, timeout_s: float) -> Machine:
        """Return the machine once it runs and has an address.

        A machine not to be seen yet counts as not yet there. Raises `CloudError`
        with the reason when it ended instead, or when `timeout_s` seconds passed.
        """
        ...

    def terminate(
        self,
        machine_ids: tuple[str, ...],
        timeout_s: float,
        *,
        launched: Mapping[str, datetime] | None = None,
    ) -> None:
        """Terminate and wait until gone. Gone already, or never there, is success.

        `launched` says when, where it is known: a machine younger than a minute that
        the cloud does not show is asked for again instead of taken for gone.
        """
        ...

    def release_access(self, run: RunRef) -> None:
        """Delete key pair and security group; gone already is success."""
        ...
