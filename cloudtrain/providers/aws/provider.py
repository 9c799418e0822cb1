"""The EC2 provider: the seam of `providers.base`, each method a call into its module."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cloudtrain.errors import CredentialsError
from cloudtrain.models.account import OfferList, OfferQuery, Policy, Probe, Quota, QuotaRequest, Sweep
from cloudtrain.models.config import Config
from cloudtrain.models.image import BakedImage
from cloudtrain.models.machine import Machine, Market
from cloudtrain.models.plan import Found, LaunchSpec, Observation, Survey
from cloudtrain.models.run import RunRef
from cloudtrain.providers.aws import (
    access,
    adopt,
    audit,
    baked,
    doctor,
    launch,
    machines,
    offers,
    policy,
    quotas,
    removal,
    survey,
)
from cloudtrain.providers.aws.client import Clients, Settings
from cloudtrain.providers.aws.errors import translating
from cloudtrain.providers.aws.tags import owner_of
from cloudtrain.providers.base import Access, AccessSpec, Identity, Launches

_ASKED_FOR_S = 20.0
"""How long an answer may take that is the very thing asked for, not advice beside it."""


class AwsProvider:
    """EC2 in one region. The sandbox is this very class with another endpoint."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clients = Clients(settings)

    @property
    def name(self) -> str:
        """`aws` or `sandbox`."""
        return self.settings.name

    @property
    def ssh_port(self) -> int:
        """22, but on an emulated machine without root."""
        return self.settings.ssh_port

    @property
    def ssh_user(self) -> str | None:
        """A login name that overrides the image's."""
        return self.settings.ssh_user

    def identity(self) -> Identity:
        """Ask STS who calls. The owner is a digest, so that tags name no account."""
        with translating("asking AWS who you are"):
            said = self.clients.sts.get_caller_identity()
        owner, account = owner_of(said["Arn"]), str(said["Account"])
        return Identity(owner, self.clients.region, self.clients.partition, account)

    def survey(self, config: Config) -> Survey:
        """Ask for everything a plan needs."""
        return survey.survey(self.clients, config)

    def observe(self, run: RunRef) -> Observation:
        """Return everything that carries the run's tags."""
        return machines.observe(self.clients, run)

    def everything(self, owner: str) -> tuple[Found, ...]:
        """Return everything in the region that carries our tags."""
        return audit.everything(self.clients, owner)

    def sweep(self, owner: str, regions: tuple[str, ...] | None = None) -> Sweep:
        """Return everything that carries our tags, priced, in every enabled region."""
        return audit.sweep(self.clients, owner, regions)

    def remove(self, things: tuple[Found, ...]) -> None:
        """Remove things that a sweep found, of any kind and region, in a safe order."""
        removal.remove(self.clients, things)

    def offers(self, query: OfferQuery) -> OfferList:
        """Return what the region offers."""
        return offers.listed(self.clients, query)

    def quota(self, type_name: str, market: Market) -> Quota:
        """Return the quota that a type counts against."""
        return quotas.read(self.clients, type_name, market, _ASKED_FOR_S)

    def request_quota(self, type_name: str, market: Market, value: float) -> QuotaRequest:
        """Ask for a higher quota."""
        return quotas.request(self.clients, type_name, market, value)

    def probes(self, config: Config) -> tuple[Probe, ...]:
        """Return what there is to check between here and AWS."""
        return doctor.probes(self.clients, config)

    def policy(self, verbs: tuple[str, ...], dataset: str = "") -> Policy:
        """Return the least policy for some verbs, in the region's partition. Asks nobody."""
        try:
            partition = self.clients.partition
        except CredentialsError:  # no region is set: what most accounts are in
            partition = "aws"
        return policy.policy(verbs, partition, dataset)

    def images(self, owner: str) -> tuple[BakedImage, ...]:
        """Return the owner's own images in the region."""
        return baked.images(self.clients, owner)

    def create_image(self, machine_id: str, name: str, tags: dict[str, str]) -> str:
        """Make an image of a stopped machine."""
        return baked.create_image(self.clients, machine_id, name, tags)

    def prepare_access(self, spec: AccessSpec) -> Access:
        """Make or find key pair, security group and rule."""
        return access.prepare(self.clients, spec)

    def repair_ingress(self, run: RunRef, address: str) -> bool:
        """Admit this computer at its present address, and at no older one."""
        return access.repair(self.clients, run, address, self.ssh_port)

    def launch(self, spec: LaunchSpec | None, token: str, launches: Launches) -> Machine:
        """Launch exactly one machine for `token`."""
        return launch.run_once(self.clients, spec, token, launches)

    def tag(self, machine_id: str, tags: dict[str, str]) -> None:
        """Put tags on a machine."""
        machines.tag(self.clients, machine_id, tags)

    def tags_of(self, machine_id: str) -> dict[str, str]:
        """Return a machine's tags."""
        return adopt.tags_of(self.clients, machine_id)

    def push_key(self, machine_id: str, zone: str, user: str, public_key: str) -> None:
        """Let a key in for a minute, by EC2 Instance Connect."""
        adopt.push_key(self.clients, machine_id, zone, user, public_key)

    def caller_address(self, config: Config) -> str:
        """Return this computer's public IPv4 address, given or asked."""
        return survey.ingress(self.clients, config)

    def start(self, machine_id: str) -> None:
        """Start a stopped machine."""
        machines.start(self.clients, machine_id)

    def stop(self, machine_id: str) -> None:
        """Stop a machine and keep its disk."""
        machines.stop(self.clients, machine_id)

    def wait_running(self, machine_id: str, timeout_s: float) -> Machine:
        """Return the machine once it runs and has an address."""
        return machines.wait_running(self.clients, machine_id, timeout_s)

    def terminate(
        self,
        machine_ids: tuple[str, ...],
        timeout_s: float,
        *,
        launched: Mapping[str, datetime] | None = None,
    ) -> None:
        """Cancel their spot requests, terminate and wait until gone."""
        machines.terminate(self.clients, machine_ids, timeout_s, launched=launched)

    def release_access(self, run: RunRef) -> None:
        """Cancel spot requests, delete key pair and security group."""
        machines.cancel_requests(self.clients, run)
        access.release(self.clients, run)
