"""What an engineer writes in an afternoon: five EC2 calls, one shared SSH connection, rsync, screen.

It trusts whatever host answers, tags nothing, keeps no record, installs nothing, and
knows no price, no lease and no way back. Called as
`yardstick.py FOLDER PORT USER IMAGE`, with the endpoint and the keys in AWS_* variables; the
training's log comes to lie in project/train.log on the machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3


def launch(name: str, public_key: bytes, port: int, image: str) -> tuple[str, str]:
    """Import the key, make the group, open the port, launch, ask for the address: five calls."""
    aws: Any = boto3
    ec2 = aws.client("ec2")
    ec2.import_key_pair(KeyName=name, PublicKeyMaterial=public_key)
    group = ec2.create_security_group(GroupName=name, Description="yardstick")["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=group, IpProtocol="tcp", FromPort=port, ToPort=port, CidrIp="127.0.0.1/32"
    )
    launched = ec2.run_instances(
        ImageId=image,
        InstanceType="g4dn.xlarge",
        KeyName=name,
        SecurityGroupIds=[group],
        MinCount=1,
        MaxCount=1,
    )
    instance = launched["Instances"][0]["InstanceId"]
    found: Any
    while True:
        try:
            found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        except ec2.exceptions.ClientError:  # not to be seen yet
            found = None
        if found and found["State"]["Name"] == "running" and found.get("PublicIpAddress"):
            return instance, str(found["PublicIpAddress"])
        time.sleep(0.05)


def train(folder: Path, address: str, port: int, user: str) -> None:
    """Push the project over one shared connection and start it under screen."""
    options = {
        "Port": port,
        "IdentityFile": folder / "key",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "ControlMaster": "auto",
        "ControlPath": folder / "c",
        "ControlPersist": 60,
    }
    ssh = ["ssh", "-F", "none", *(word for k, v in options.items() for word in ("-o", f"{k}={v}"))]
    host = f"{user}@{address}"
    while subprocess.run([*ssh, host, "true"], check=False, capture_output=True).returncode != 0:
        time.sleep(0.05)
    subprocess.run(["rsync", "-a", "-e", " ".join(ssh), f"{folder}/project/", f"{host}:project/"], check=True)
    start = "cd project && screen -dmS train bash -c 'python3 -u train.py >train.log 2>&1'"
    subprocess.run([*ssh, host, start], check=True)
    subprocess.run([*ssh, "-O", "exit", host], check=True, capture_output=True)


def main() -> None:
    folder, port, user, image = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    instance, address = launch(folder.name, (folder / "key.pub").read_bytes(), port, image)
    train(folder, address, port, user)
    print(instance)


if __name__ == "__main__":
    main()
