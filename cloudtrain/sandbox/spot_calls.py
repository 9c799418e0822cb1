"""The calls about spot requests, and what a spot request forbids of start and stop."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from xml.sax.saxutils import escape

from cloudtrain.sandbox.emulator import Emulator
from cloudtrain.sandbox.fleet import Life
from cloudtrain.sandbox.layer import Behaviour
from cloudtrain.sandbox.spot import Spot, SpotRequest
from cloudtrain.sandbox.wire import Forward, Reply, Request, dry_run, failure, paged, xml

_FILTERS = {
    *(
        "state",
        "status-code",
        "instance-id",
        "spot-instance-request-id",
        "type",
        "launched-availability-zone",
    ),
    *("launch.instance-type", "launch.image-id", "launch.key-name", "product-description", "tag-key"),
}


class SpotCalls:
    """Describe and cancel."""

    def __init__(self, emulator: Emulator, spot: Spot) -> None:
        self._emulator = emulator
        self._spot = spot

    def behaviours(self) -> Mapping[tuple[str, str], Behaviour]:
        """Return what to do for which call."""
        return {
            ("ec2", "DescribeSpotInstanceRequests"): self.describe,
            ("ec2", "CancelSpotInstanceRequests"): self.cancel,
        }

    def describe(self, request: Request, forward: Forward) -> Reply:  # noqa: ARG002 - moto has others
        """Answer the requests of these ids and filters."""
        if request.params.get("DryRun") == "true":
            return dry_run(request)
        ids = request.numbered("SpotInstanceRequestId")
        with self._emulator.lock:
            found = self._spot.in_region(request.region)
            unknown = [name for name in ids if name not in {one.id for one in found}]
            if unknown:
                return _no_request(request, unknown[0])
            rows = [(one, self._spot.tags(one)) for one in found if not ids or one.id in ids]
            for name, wanted in request.filters().items():
                if name not in _FILTERS and not name.startswith("tag:"):
                    return failure(request, "InvalidParameterValue", f"The filter '{name}' is invalid")
                rows = [(one, tags) for one, tags in rows if _matches(one, tags, name, wanted)]
            items = [_item(one, tags) for one, tags in rows]
        return xml(request.action, paged(request, items, "spotInstanceRequestSet"))

    def cancel(self, request: Request, forward: Forward) -> Reply:  # noqa: ARG002
        """Cancel all of the named requests, or none of them."""
        if request.params.get("DryRun") == "true":
            return dry_run(request)
        with self._emulator.lock:
            found: list[SpotRequest] = []
            for name in request.numbered("SpotInstanceRequestId"):
                one = self._spot.get(name, request.region)
                if one is None:
                    return _no_request(request, name)
                found.append(one)
            for one in found:
                self._spot.cancel(one)
        items = "".join(
            f"<item><spotInstanceRequestId>{one.id}</spotInstanceRequestId><state>{one.state}</state></item>"
            for one in found
        )
        return xml(request.action, f"<spotInstanceRequestSet>{items}</spotInstanceRequestSet>")

    def refusal(self, request: Request, life: Life) -> Reply | None:
        """Return why a spot instance cannot be started or stopped, or None.

        AWS's pages "Stop a Spot Instance" and "Behavior of Spot Instance interruptions":
        only persistent requests that are not cancelled; after an interruption only EC2
        starts the instance again.
        """
        name, one = str(life.record.id), self._spot.of(life)
        if request.action == "StopInstances" and not life.stoppable:
            why = "its request is canceled" if one and one.persistent else "it is of a one-time request"
            text = (
                f"You can't stop the Spot Instance '{name}' because {why}. You can only stop Spot Instances "
                "associated with persistent Spot Instance requests."
            )
            return failure(request, "UnsupportedOperation", text)
        waits = one is not None and one.code == "instance-stopped-no-capacity"
        if request.action == "StartInstances" and waits and life.state == "stopped":
            text = (
                f"You can't start the Spot Instance '{name}' because the associated Spot Instance request is not "
                "in an appropriate state to support start."
            )
            return failure(request, "IncorrectSpotRequestState", text)
        return None

    def started(self, life: Life) -> None:
        """Take note that a user starts a spot instance again."""
        one = self._spot.of(life)
        if one is not None and one.state == "disabled":
            one.become("open", "pending-evaluation")


def _fields(one: SpotRequest) -> dict[str, str]:
    params = one.launch.params
    return {
        "state": one.state,
        "status-code": one.code,
        "instance-id": _instance(one),
        "spot-instance-request-id": one.id,
        "type": _type(one),
        "launched-availability-zone": one.zone,
        "launch.instance-type": params.get("InstanceType", ""),
        "launch.image-id": params.get("ImageId", ""),
        "launch.key-name": params.get("KeyName", ""),
        "product-description": "Linux/UNIX",
    }


def _matches(one: SpotRequest, tags: Mapping[str, str], name: str, wanted: list[str]) -> bool:
    if name == "tag-key":
        have = [*tags]
    elif name.startswith("tag:"):
        key = name.removeprefix("tag:")
        have = [tags[key]] if key in tags else []
    else:
        have = [_fields(one)[name]]
    return any(fnmatchcase(value, pattern) for value in have for pattern in wanted)


def _item(one: SpotRequest, tags: Mapping[str, str]) -> str:
    params = one.launch.params
    tag_set = "".join(
        f"<item><key>{escape(k)}</key><value>{escape(v)}</value></item>" for k, v in tags.items()
    )
    fields = {
        "spotInstanceRequestId": one.id,
        "spotPrice": one.price,
        "type": _type(one),
        "state": one.state,
        "instanceId": _instance(one),
        "createTime": _stamp(one.created),
        "productDescription": "Linux/UNIX",
        "launchedAvailabilityZone": one.zone if _instance(one) else "",
        "instanceInterruptionBehavior": one.behaviour,
    }
    status = {"code": one.code, "updateTime": _stamp(one.updated), "message": one.message}
    launch = {
        name: params.get(f"{name[0].upper()}{name[1:]}", "")
        for name in ("imageId", "keyName", "instanceType")
    }
    return (
        f"<item>{_elements(fields)}<status>{_elements(status)}</status>"
        f"<launchSpecification>{_elements(launch)}</launchSpecification><tagSet>{tag_set}</tagSet></item>"
    )


def _elements(fields: Mapping[str, str]) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items() if value)


def _instance(one: SpotRequest) -> str:
    # A request that waits for a new instance names none.
    return "" if one.state == "open" and one.code != "pending-evaluation" else one.instance or ""


def _type(one: SpotRequest) -> str:
    return "persistent" if one.persistent else "one-time"


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _no_request(request: Request, name: str) -> Reply:
    text = f"The spot instance request ID '{name}' does not exist"
    return failure(request, "InvalidSpotInstanceRequestID.NotFound", text)
