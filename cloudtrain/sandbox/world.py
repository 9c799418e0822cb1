"""The cloud as its machines see it: what their metadata says, and what a power-off means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from cloudtrain.sandbox.emulator import Emulator
from cloudtrain.sandbox.fleet import OWN, Fleet, Life
from cloudtrain.sandbox.metadata import Instance, Notice, Tokens


@dataclass(frozen=True, slots=True)
class Described:
    """One instance for `metadata.answer`, read live from its record."""

    life: Life

    @property
    def id(self) -> str:
        """The instance id."""
        return str(self.life.record.id)

    @property
    def type(self) -> str:
        """The instance type."""
        return str(self.life.record.instance_type)

    @property
    def image(self) -> str:
        """The image id."""
        return str(self.life.record.image_id)

    @property
    def zone(self) -> str:
        """The availability zone."""
        return str(self.life.record.availability_zone)

    @property
    def lifecycle(self) -> str:
        """`spot` or `on-demand`."""
        return "spot" if self.life.spot else "on-demand"

    @property
    def address(self) -> str | None:
        """The public IPv4 address, if it has one."""
        nic = self.life.record.nics.get(0)
        return str(nic.public_ip) if nic is not None and nic.public_ip else None

    @property
    def tags(self) -> Mapping[str, str] | None:
        """Its tags as they are now; None unless `InstanceMetadataTags` is enabled."""
        record = self.life.record
        if record.metadata_options.instance_metadata_tags != "enabled":
            return None
        rows = cast("list[dict[str, Any]]", record.get_tags())
        return {str(row["key"]): str(row["value"]) for row in rows}

    @property
    def token_required(self) -> bool:
        """Whether `HttpTokens` is `required`."""
        return self.life.record.metadata_options.http_tokens == "required"

    @property
    def notice(self) -> Notice | None:
        """The interruption notice, once there is one."""
        return self.life.notice

    @property
    def rebalance(self) -> datetime | None:
        """When a rebalance recommendation was given (UTC), if one was."""
        return self.life.rebalance


@dataclass(frozen=True, slots=True)
class Surrounding:
    """What a kind of machine is told of the fleet it works for."""

    emulator: Emulator
    fleet: Fleet
    tokens: Tokens = field(default_factory=Tokens)

    def instance(self, instance_id: str) -> Instance | None:
        """Return what the metadata service of this machine may say."""
        life = self.fleet.get(instance_id)
        return Described(life) if life is not None and life.alive else None

    def powered_off(self, instance_id: str) -> None:
        """Stop or end the instance, as its shutdown behaviour says.

        AWS's page "Change instance initiated shutdown behavior" for on-demand. A
        shutdown inside a spot instance is the same as a user's stop ("Get the status of
        a Spot Instance request"), which only a persistent request that is not cancelled
        allows; what AWS does for the others is not documented, and here they end.
        """
        life = self.fleet.get(instance_id)
        with self.emulator.lock:
            if life is None or life.state not in ("pending", "running"):
                return
            behaviour = life.record.instance_initiated_shutdown_behavior
            if behaviour == "stop" and (not life.spot or life.stoppable):
                self.fleet.stop(life, OWN)
            else:
                self.fleet.terminate(life, OWN)
