"""Getting in from a second computer: a machine's tags, and EC2 Instance Connect's key push."""

from __future__ import annotations

import botocore.exceptions as boto

from cloudtrain.errors import CloudError, GoneError
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import translate, translating

NEEDED = (
    "it needs the right ec2-instance-connect:SendSSHPublicKey, an image with EC2 Instance Connect "
    "(Ubuntu's have it) and a region that offers it (China's do not); without it, copy the run's folder "
    "from the computer that launched it"
)


def tags_of(clients: Clients, machine_id: str) -> dict[str, str]:
    """Return a machine's tags. Raises `GoneError` when there is no such machine."""
    with translating(f"reading the tags of {machine_id}"):
        rows = clients.ec2.describe_instances(InstanceIds=[machine_id])["Reservations"]
    items = [item for row in rows for item in row.get("Instances", [])]
    if not items:
        raise GoneError(f"{machine_id} is not there")
    return {tag.get("Key", ""): tag.get("Value", "") for tag in items[0].get("Tags", [])}


def push_key(clients: Clients, machine_id: str, zone: str, user: str, public_key: str) -> None:
    """Let a key in for 60 seconds. Raises `CloudError` saying what is needed where that is not to be had."""
    try:
        answer = clients.connect.send_ssh_public_key(
            InstanceId=machine_id, InstanceOSUser=user, SSHPublicKey=public_key, AvailabilityZone=zone
        )
    except (boto.ClientError, boto.BotoCoreError) as error:
        known = translate(error, f"asking EC2 Instance Connect to let a key into {machine_id}")
        raise CloudError(known.message, hint=NEEDED) from error
    if not answer.get("Success"):
        raise CloudError(f"EC2 Instance Connect let no key into {machine_id}", hint=NEEDED)
