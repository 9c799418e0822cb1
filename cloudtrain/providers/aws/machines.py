"""Instances: reading them, waiting for them, ending them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import botocore.exceptions as boto

from cloudtrain.errors import CapacityError, CloudError
from cloudtrain.models.machine import Machine, MachineState
from cloudtrain.models.plan import Observation
from cloudtrain.models.run import RunRef
from cloudtrain.providers.aws import tags
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import NO_ANSWER, code_of, translate, translating

YOUNG_S = 60
"""How long AWS may not know a new machine everywhere (EC2's own waiters retry this too)."""

Clock = Callable[[], float]
Sleep = Callable[[float], None]


def _utc_now() -> datetime:
    return datetime.now(UTC)


def to_machine(instance: Mapping[str, Any] | object) -> Machine:
    """Return one instance of the API as ours. A field that is not there yet is None."""
    item = cast("Mapping[str, Any]", instance)
    placement: Mapping[str, Any] = item.get("Placement", {})
    state: Mapping[str, Any] = item.get("State", {})
    return Machine(
        id=str(item["InstanceId"]),
        state=cast("MachineState", state.get("Name", "pending")),
        type=str(item.get("InstanceType", "")),
        zone=str(placement.get("AvailabilityZone", "")),
        market="spot" if item.get("InstanceLifecycle") == "spot" else "on-demand",
        address=item.get("PublicIpAddress") or item.get("PrivateIpAddress") or None,
        launched=_first_launch(item),
    )


def _first_launch(item: Mapping[str, Any]) -> datetime:
    """Return since when a machine is billed. LaunchTime moves to each start: the root disk's time stays."""
    disks = [disk.get("Ebs", {}).get("AttachTime") for disk in item.get("BlockDeviceMappings", [])]
    known = [at for at in (item.get("LaunchTime"), *disks) if at is not None]
    return min(known, default=datetime.now(UTC))


def describe(clients: Clients, machine_id: str) -> Machine | None:
    """Return one machine, or None when the cloud does not show it (yet, or any more)."""
    try:
        answer = clients.ec2.describe_instances(InstanceIds=[machine_id])
    except boto.ClientError as error:
        if code_of(error) == "InvalidInstanceID.NotFound":
            return None
        raise translate(error, f"looking at {machine_id}") from error
    except NO_ANSWER as error:
        raise translate(error, f"looking at {machine_id}") from error
    found = [item for row in answer["Reservations"] for item in row.get("Instances", [])]
    return to_machine(found[0]) if found else None


def observe(clients: Clients, run: RunRef) -> Observation:
    """Return everything that carries the run's tags."""
    filters: Any = tags.mine(run)
    with translating("looking for what belongs to this run"):
        pages = clients.ec2.get_paginator("describe_instances").paginate(Filters=filters)
        items = [item for page in pages for row in page["Reservations"] for item in row.get("Instances", [])]
        pairs = clients.ec2.describe_key_pairs(Filters=filters)["KeyPairs"]
        groups = clients.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        volumes = clients.ec2.describe_volumes(Filters=filters)["Volumes"]
    machines = tuple(sorted((to_machine(item) for item in items), key=lambda m: m.launched))
    alive = any(machine.alive for machine in machines)
    # A volume of a machine that is still there goes with it; only one without is left over.
    left = () if alive else tuple(f"volume {volume.get('VolumeId')}" for volume in volumes)
    return Observation(
        machines=machines,
        key_pair=pairs[0].get("KeyName") if pairs else None,
        security_group=groups[0].get("GroupId") if groups else None,
        leftovers=left + _open_requests(clients, filters),
    )


def wait_running(
    clients: Clients,
    machine_id: str,
    timeout_s: float,
    *,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> Machine:
    """Return the machine once it runs and has an address.

    boto3's own waiter sleeps 15 s between looks; a machine is often there in less,
    so the first looks come soon and the pause grows. Not to be seen yet is "not
    yet" for a while: a describe may lag behind the launch it follows.
    """
    end = clock() + timeout_s
    pause = 0.1
    while True:
        machine = describe(clients, machine_id)
        if machine is not None:
            if machine.state == "running" and machine.address:
                return machine
            if machine.state in ("shutting-down", "terminated"):
                raise _ended(clients, machine_id)
        if clock() + pause > end:
            raise CloudError(
                f"{machine_id} did not start within {timeout_s:.0f} s",
                hint="it may still come and costs money: run `cloudtrain up` again, or `cloudtrain down`",
            )
        sleep(pause)
        pause = min(pause * 1.4, 5.0)


def start(clients: Clients, machine_id: str, *, sleep: Sleep = time.sleep) -> None:
    """Start a stopped machine; one that is still stopping is waited for.

    Like a launch it is asked without boto3's own retries, which would hide a lack of
    capacity for a while and then report it all the same.
    """
    for _ in range(120):
        try:
            clients.launcher.start_instances(InstanceIds=[machine_id])
        except boto.ClientError as error:
            if code_of(error) in ("RequestLimitExceeded", "InternalError", "Unavailable"):
                sleep(1)
                continue
            machine = describe(clients, machine_id)
            if code_of(error) == "IncorrectInstanceState" and machine and machine.state == "stopping":
                sleep(1)
                continue
            if code_of(error) == "IncorrectSpotRequestState" and machine and machine.state == "stopped":
                raise CapacityError(
                    "EC2 took it back (spot), and only EC2 starts it again, when it has room",
                    code=code_of(error),
                ) from error
            raise translate(error, f"starting {machine_id}") from error
        except NO_ANSWER as error:
            raise translate(error, f"starting {machine_id}") from error
        return
    raise CloudError(f"{machine_id} has been stopping for two minutes", hint="try again later")


def tag(clients: Clients, machine_id: str, wanted: Mapping[str, str]) -> None:
    """Put tags on a machine; the machine reads them through its metadata service at once."""
    pairs: Any = tags.to_aws(wanted)
    with translating(f"tagging {machine_id}"):
        clients.ec2.create_tags(Resources=[machine_id], Tags=pairs)


def stop(clients: Clients, machine_id: str) -> None:
    """Stop a machine and keep its disk."""
    with translating(f"stopping {machine_id}"):
        clients.ec2.stop_instances(InstanceIds=[machine_id])


def terminate(
    clients: Clients,
    machine_ids: tuple[str, ...],
    timeout_s: float,
    *,
    launched: Mapping[str, datetime] | None = None,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
    now: Callable[[], datetime] = _utc_now,
) -> None:
    """Terminate each machine by a call of its own and wait until all are gone.

    By a call of its own, because one bad id fails a whole call. A persistent spot
    request is cancelled first: terminated with its request open, a machine is
    replaced by AWS with a new one. An id that `launched` says is younger than
    `YOUNG_S` seconds and that AWS does not know is asked for again, because a new
    machine is not known everywhere at once; an older one is gone.
    """
    ages = launched or {}
    end = clock() + timeout_s
    _cancel_requests_of(clients, machine_ids)
    for machine_id in machine_ids:
        pause = 0.1
        while not _terminated(clients, machine_id):
            born = ages.get(machine_id)
            if born is None or (now() - born).total_seconds() > YOUNG_S or clock() + pause > end:
                break
            sleep(pause)
            pause = min(pause * 1.4, 5.0)
            _cancel_requests_of(clients, (machine_id,))
    pause = 0.1
    while not all(_is_gone(describe(clients, machine_id)) for machine_id in machine_ids):
        if clock() + pause > end:
            raise CloudError(
                f"{', '.join(machine_ids)} is not gone after {timeout_s:.0f} s",
                hint="run `cloudtrain down` again: it goes on waiting",
            )
        sleep(pause)
        pause = min(pause * 1.4, 5.0)


def _terminated(clients: Clients, machine_id: str) -> bool:
    """Ask for one termination; False when AWS does not know the machine."""
    try:
        clients.ec2.terminate_instances(InstanceIds=[machine_id])
    except boto.ClientError as error:
        if code_of(error) == "InvalidInstanceID.NotFound":
            return False
        raise translate(error, f"terminating {machine_id}") from error
    except NO_ANSWER as error:
        raise translate(error, f"terminating {machine_id}") from error
    return True


def cancel_requests(clients: Clients, run: RunRef) -> None:
    """Cancel the run's spot requests: an open one would launch another machine."""
    with translating("cancelling the spot request"):
        ids = [name.split()[-1] for name in _open_requests(clients, tags.mine(run))]
        if ids:
            clients.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=ids)


def _cancel_requests_of(clients: Clients, machine_ids: tuple[str, ...]) -> None:
    """Cancel the spot requests behind some machines.

    Asked both ways, of the machines and of the requests: a machine that a describe
    does not show yet would come back if its request stayed open.
    """
    filters: Any = [{"Name": "instance-id", "Values": list(machine_ids)}]
    with translating("looking for spot requests"):
        rows = clients.ec2.describe_instances(Filters=filters)["Reservations"]
        items = [item for row in rows for item in row.get("Instances", [])]
        requests = {str(item.get("SpotInstanceRequestId")) for item in items}
        requests |= {name.split()[-1] for name in _open_requests(clients, filters)}
        requests -= {"None"}
        if requests:
            clients.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=sorted(requests))


def _open_requests(clients: Clients, filters: Any) -> tuple[str, ...]:  # noqa: ANN401
    with translating("looking for spot requests"):
        rows = clients.ec2.describe_spot_instance_requests(Filters=filters)["SpotInstanceRequests"]
    return tuple(
        f"spot request {row.get('SpotInstanceRequestId')}"
        for row in rows
        if row.get("State") in ("open", "active", "disabled")
    )


def _is_gone(machine: Machine | None) -> bool:
    return machine is None or machine.state == "terminated"


def _ended(clients: Clients, machine_id: str) -> CloudError:
    """Return why a machine ended while starting; its spot request would only launch another."""
    with translating(f"asking why {machine_id} ended"):
        answer = clients.ec2.describe_instances(InstanceIds=[machine_id])
    _cancel_requests_of(clients, (machine_id,))
    reason: Any = answer["Reservations"][0].get("Instances", [{}])[0].get("StateReason", {})
    text = str(reason.get("Message", "no reason given"))
    kind = CapacityError if "capacity" in text.lower() else CloudError
    return kind(f"{machine_id} ended while starting: {text}", hint="run `cloudtrain up` again")
