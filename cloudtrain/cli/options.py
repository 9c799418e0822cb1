"""The options that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout, events as JSON lines on stderr.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings, errors and the result.")]
File = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="cloudtrain.yaml to use.", metavar="FILE", show_default="the nearest one"
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", "-n", help="A run by its name, from any folder.", metavar="NAME"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the first paid call.")]
ProviderName = Annotated[
    str | None,
    typer.Option(
        "--provider", help="aws, ssh or sandbox.", metavar="PROVIDER", show_default="from cloudtrain.yaml"
    ),
]
Region = Annotated[str | None, typer.Option("--region", help="AWS region.", metavar="REGION")]
Profile = Annotated[str | None, typer.Option("--profile", help="AWS profile.", metavar="PROFILE")]
InstanceType = Annotated[
    str | None, typer.Option("--type", "-t", help="Instance type, such as g5.xlarge.", metavar="TYPE")
]
Market = Annotated[
    str | None, typer.Option("--market", help="on-demand, spot or spot-then-on-demand.", metavar="MARKET")
]
VolumeGb = Annotated[int | None, typer.Option("--volume-gb", help="Root volume in GB.", metavar="GB")]
MaxHours = Annotated[
    float | None,
    typer.Option("--max-hours", help="Lease in hours: then the machine powers off.", metavar="HOURS"),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", help="Lease in money: then the machine powers off.", metavar="MONEY"),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="On a new machine, go on from the furthest checkpoint at home."),
]
WaitForCapacity = Annotated[
    float,
    typer.Option(
        "--wait-for-capacity",
        help="Keep asking for so many hours when the cloud has none now; 0 asks once.",
        metavar="HOURS",
        min=0,
    ),
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Compare the hash of every file on the machine, and replace what differs."),
]
