"""What instance types are made of, and the zones that have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from cloudtrain.catalog.gpu import CatalogEntry, packaged
from cloudtrain.models.plan import Offer
from cloudtrain.providers.aws.client import Clients

Row = dict[str, Any]


def described(clients: Clients, types: Sequence[str]) -> dict[str, Row]:
    """Return EC2's description of some types. Raises botocore's errors, unknown types included."""
    names: Any = list(types)
    rows = clients.advice.describe_instance_types(InstanceTypes=names)["InstanceTypes"]
    return {str(row.get("InstanceType")): cast("Row", row) for row in rows}


def with_gpu(clients: Clients) -> dict[str, Row]:
    """Return every type of the region with NVIDIA GPUs that our images start on.

    There is no filter for GPUs, so families are named broadly and judged by what
    they say they have.
    """
    filters: Any = [
        {"Name": "instance-type", "Values": ["g*", "p*"]},
        {"Name": "processor-info.supported-architecture", "Values": ["x86_64"]},
    ]
    pages = clients.advice.get_paginator("describe_instance_types").paginate(Filters=filters)
    rows = [cast("Row", row) for page in pages for row in page["InstanceTypes"]]
    return {str(row.get("InstanceType")): row for row in rows if _nvidia(row)}


def _nvidia(row: Row) -> bool:
    gpus: list[Row] = row.get("GpuInfo", {}).get("Gpus", [])
    return any(str(gpu.get("Manufacturer", "")).upper() == "NVIDIA" for gpu in gpus)


def zones(clients: Clients, types: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the zones that offer each type."""
    if not types:
        return {}
    request: Any = {
        "LocationType": "availability-zone",
        "Filters": [{"Name": "instance-type", "Values": list(types)}],
    }
    pages = clients.advice.get_paginator("describe_instance_type_offerings").paginate(**request)
    found: dict[str, list[str]] = {}
    for page in pages:
        for row in page["InstanceTypeOfferings"]:
            found.setdefault(str(row.get("InstanceType")), []).append(str(row.get("Location")))
    return {name: tuple(sorted(places)) for name, places in found.items()}


def offer(name: str, row: Row | None, places: tuple[str, ...]) -> Offer:
    """Return a type as an offer without a price: EC2's word, else the packaged catalog's."""
    if row is None:
        return _from_catalog(name, next(iter(packaged((name,))), None), places)
    gpus: list[Row] = row.get("GpuInfo", {}).get("Gpus", [])
    # A fraction of a GPU reports a count of 0; it is one device to the machine all the same.
    whole = sum(int(gpu.get("Count", 0)) for gpu in gpus)
    name_of = str(gpus[0].get("Name", "")) if gpus else ""
    return Offer(
        type=name,
        market="on-demand",
        zones=places,
        vcpus=int(row.get("VCpuInfo", {}).get("DefaultVCpus", 0)),
        memory_mib=int(row.get("MemoryInfo", {}).get("SizeInMiB", 0)),
        gpu_name=name_of if whole or not gpus else f"{name_of} (part)",
        gpu_count=whole or min(1, len(gpus)),
        gpu_memory_mib=int(row.get("GpuInfo", {}).get("TotalGpuMemoryInMiB", 0)),
        price_hour=None,
    )


def _from_catalog(name: str, entry: CatalogEntry | None, places: tuple[str, ...]) -> Offer:
    return Offer(
        type=name,
        market="on-demand",
        zones=places,
        vcpus=entry.vcpus if entry else 0,
        memory_mib=entry.memory_mib if entry else 0,
        gpu_name=entry.gpu_name if entry else "",
        gpu_count=entry.gpu_count if entry else 0,
        gpu_memory_mib=entry.gpu_memory_mib if entry else 0,
        price_hour=None,
    )
