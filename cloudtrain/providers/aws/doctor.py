"""What can be wrong between this computer and AWS, each question on its own.

Every probe asks one thing and names its remedy; none depends on another's answer, so
they run side by side. The first call that is answered at all, even with a refusal,
carries AWS's time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import botocore.exceptions as boto

from cloudtrain.errors import AuthorizationError, UsageError
from cloudtrain.models.account import Check, Probe
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Market
from cloudtrain.models.tags import OWNER
from cloudtrain.providers.aws import network, quotas
from cloudtrain.providers.aws.access import caller_address
from cloudtrain.providers.aws.client import Clients
from cloudtrain.providers.aws.errors import FAILURES, NO_ANSWER, translate, translating
from cloudtrain.providers.aws.survey import MARKETS

SKEW_S = 300
"""From five minutes on AWS refuses signed requests (Signature Version 4)."""
SKEW_WARN_S = 60


def probes(clients: Clients, config: Config) -> tuple[Probe, ...]:
    """Return every question, none of them asked yet."""
    markets: tuple[Market, ...] = MARKETS[config.instance.market]
    return (
        Probe("credentials", lambda: _credentials(clients)),
        Probe("identity", lambda: _identity(clients)),
        Probe("region", lambda: _region(clients)),
        Probe("clock", lambda: _clock(clients)),
        Probe("rights", lambda: _rights(clients)),
        Probe("network", lambda: _network(clients, config)),
        Probe("address", lambda: _address(clients, config)),
        *(
            Probe(f"quota {name} {market}", lambda n=name, m=market: _quota(clients, n, m))
            for name in config.instance.type
            for market in markets
        ),
    )


def _credentials(clients: Clients) -> Check:
    with translating("looking for AWS credentials"):
        found = clients.session.get_credentials()
    if found is None:
        raise translate(boto.NoCredentialsError(), "looking")
    return Check("credentials", "ok", f"found by {found.method}")


def _identity(clients: Clients) -> Check:
    with translating("asking AWS who you are"):
        answer = clients.impatient_sts.get_caller_identity()
    return Check("identity", "ok", f"{answer['Arn']} in account {answer['Account']}")


def _region(clients: Clients) -> Check:
    region = clients.region
    try:
        rows = clients.advice.describe_regions(RegionNames=[region])["Regions"]
    except FAILURES as error:
        raise translate(error, f"asking for region {region}") from error
    state = rows[0].get("OptInStatus", "opt-in-not-required") if rows else "not known"
    if state == "not-opted-in":
        remedy = "enable it in the AWS console (Account, AWS Regions), or use another `region`"
        return Check("region", "fail", f"{region} is not enabled for this account", remedy)
    return Check("region", "ok", f"{region} ({clients.partition}) is enabled")


def _clock(clients: Clients) -> Check:
    skew = abs(skew_s(clients))
    seen = f"{skew:.0f} s from AWS's clock"
    remedy = "set this computer's clock: `sudo timedatectl set-ntp true`"
    if skew >= SKEW_S:
        return Check("clock", "fail", f"{seen}; AWS refuses requests from {SKEW_S} s on", remedy)
    return Check("clock", "warn", seen, remedy) if skew >= SKEW_WARN_S else Check("clock", "ok", seen)


def skew_s(clients: Clients) -> float:
    """Return how many seconds this computer is ahead of AWS, from an answer's Date header."""
    before = datetime.now(UTC)
    try:
        answer: Any = clients.impatient_sts.get_caller_identity()
    except boto.ClientError as error:
        answer = error.response  # a refused call says the time as well
    except NO_ANSWER as error:
        raise translate(error, "asking AWS for the time") from error
    ours = before + (datetime.now(UTC) - before) / 2
    headers = cast("dict[str, str]", answer["ResponseMetadata"]["HTTPHeaders"])
    # The header has whole seconds: half of one is added on average.
    return (ours - parsedate_to_datetime(headers["date"])).total_seconds() - 0.5


def _rights(clients: Clients) -> Check:
    """Ask whether a launch would be permitted at all, by a call that EC2 only pretends to make."""
    pairs = [{"Key": "Name", "Value": "cloudtrain-doctor"}, {"Key": OWNER, "Value": "doctor"}]
    request: Any = {
        "DryRun": True,
        "GroupName": "cloudtrain-doctor",
        "Description": "cloudtrain doctor",
        "TagSpecifications": [{"ResourceType": "security-group", "Tags": pairs}],
    }
    try:
        made = clients.advice.create_security_group(**request)["GroupId"]
        clients.advice.delete_security_group(GroupId=made)
    except boto.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code == "DryRunOperation":
            return Check("rights", "ok", "may create what a run needs (asked by a dry run)")
        refusal = translate(error, "asking whether you may create a security group")
        if isinstance(refusal, AuthorizationError):
            return Check("rights", "fail", refusal.message, refusal.hint)
        return Check("rights", "warn", f"not known: {code}", "`cloudtrain iam-policy` prints what is needed")
    except NO_ANSWER as error:
        raise translate(error, "asking for rights") from error
    return Check("rights", "warn", "this endpoint knows no dry run: a group was made and deleted")


def _network(clients: Clients, config: Config) -> Check:
    try:
        found = network.check(clients, config, clients.settings.ssh_port)
    except UsageError as error:
        return Check("network", "fail", error.message, error.hint)
    except FAILURES as error:
        raise translate(error, "looking at the network") from error
    if found.notes:
        return Check("network", "warn", "; ".join(found.notes))
    where = f"`instance.subnet` in {found.zone}" if found.zone else f"{clients.region} has a default VPC"
    return Check("network", "ok", where)


def _address(clients: Clients, config: Config) -> Check:
    given = config.access.ingress or clients.settings.ingress
    if given:
        return Check("address", "ok", f"{given} is given")
    found = caller_address(config.access.address_service)
    return Check("address", "ok", f"you come from {found}")


def _quota(clients: Clients, type_name: str, market: Market) -> Check:
    name = f"quota {type_name} {market}"
    found = quotas.read(clients, type_name, market)
    if found.allowed is None:
        return Check(name, "warn", f"not known: {'; '.join(found.missing)}", "`cloudtrain quota` asks again")
    seen = f"{found.allowed:g} vCPUs allowed, {found.used or 0} in use, {found.needed} needed ({found.code})"
    if found.enough:
        return Check(name, "ok", seen)
    wanted = found.needed + (found.used or 0)
    remedy = f"`cloudtrain quota --type {type_name} --market {market} --request {wanted}`"
    return Check(name, "fail", seen, remedy)
