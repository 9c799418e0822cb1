"""Which type is offered where and how large it is, from the tables that moto carries."""

from __future__ import annotations

from functools import cache

from cloudtrain.catalog.gpu import packaged


@cache
def zones(region: str, type_name: str) -> tuple[str, ...]:
    """Return the zones of a region that offer a type, in order; none for an unknown type."""
    from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS

    rows = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    return tuple(sorted({str(row["Location"]) for row in rows if row["InstanceType"] == type_name}))


@cache
def vcpus(type_name: str) -> int:
    """Return the vCPUs of a type, the unit of quotas; 0 when nobody knows it."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    known = packaged((type_name,))
    if known:
        return known[0].vcpus
    return int(INSTANCE_TYPES.get(type_name, {}).get("VCpuInfo", {}).get("DefaultVCpus", 0))
