"""AWS's error codes, mapped in one table to ours. Unknown codes keep their own text.

Sources: the EC2 API error reference, and what botocore raises by itself. Three
families are never confused, because their remedies differ: no right
(authorization), the account's limit (quota), the cloud's stock (capacity).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import botocore.exceptions as boto

from cloudtrain.errors import (
    AuthorizationError,
    CapacityError,
    CloudError,
    CredentialsError,
    GoneError,
    QuotaError,
    UsageError,
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code means to us, and what the user can do about it."""

    error: type[CloudError]
    hint: str


_LOGIN = "run `aws configure` or `aws sso login`, or set AWS_PROFILE; `cloudtrain up --provider sandbox` needs no account"
_POLICY = "ask your administrator for the rights listed in docs/aws-account.md"
_QUOTA = "ask for more vCPUs of this family in the Service Quotas console; new accounts start at 0"
_ELSEWHERE = "name other types in `instance.type`, another `region`, or try again later"

CODES: dict[str, Meaning] = {
    "AuthFailure": Meaning(CredentialsError, _LOGIN),
    "InvalidClientTokenId": Meaning(CredentialsError, _LOGIN),
    "SignatureDoesNotMatch": Meaning(CredentialsError, _LOGIN),
    "UnrecognizedClientException": Meaning(CredentialsError, _LOGIN),
    "ExpiredToken": Meaning(CredentialsError, f"the session has expired: {_LOGIN}"),
    "ExpiredTokenException": Meaning(CredentialsError, f"the session has expired: {_LOGIN}"),
    "RequestExpired": Meaning(
        CredentialsError, "this computer's clock differs from AWS's: set it, then try again"
    ),
    "Blocked": Meaning(CredentialsError, "AWS has blocked this account: contact AWS support"),
    "OptInRequired": Meaning(AuthorizationError, "enable this region or service for the account first"),
    "PendingVerification": Meaning(
        AuthorizationError,
        "AWS is validating the account for this region: wait up to 4 hours, or use another region",
    ),
    "UnauthorizedOperation": Meaning(AuthorizationError, _POLICY),
    "AccessDenied": Meaning(AuthorizationError, _POLICY),
    "AccessDeniedException": Meaning(AuthorizationError, _POLICY),
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": Meaning(
        AuthorizationError,
        "first spot use: an administrator runs `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`",
    ),
    "VcpuLimitExceeded": Meaning(QuotaError, _QUOTA),
    "InstanceLimitExceeded": Meaning(QuotaError, _QUOTA),
    "MaxSpotInstanceCountExceeded": Meaning(QuotaError, f"{_QUOTA}; spot has a quota of its own"),
    "InsufficientInstanceCapacity": Meaning(CapacityError, _ELSEWHERE),
    "InsufficientHostCapacity": Meaning(CapacityError, _ELSEWHERE),
    "InsufficientCapacity": Meaning(CapacityError, _ELSEWHERE),
    "UnfulfillableCapacity": Meaning(CapacityError, _ELSEWHERE),
    "InsufficientFreeAddressesInSubnet": Meaning(CapacityError, "use another `instance.subnet`"),
    "SpotMaxPriceTooLow": Meaning(CapacityError, _ELSEWHERE),
    "Unsupported": Meaning(CapacityError, "this type is not offered in that zone"),
    "IdempotentInstanceTerminated": Meaning(GoneError, "run `cloudtrain up` again for a new machine"),
    "InvalidInstanceID.NotFound": Meaning(GoneError, "`cloudtrain status` shows what there is"),
    "RequestLimitExceeded": Meaning(CloudError, "AWS is throttling this account: try again in a minute"),
}
"""Every code we understand."""

LOST_ANSWER = (
    boto.ConnectionClosedError,
    boto.ReadTimeoutError,
    boto.ConnectTimeoutError,
    boto.EndpointConnectionError,
    boto.HTTPClientError,
)
"""botocore's errors after which nobody knows whether the call took effect."""

SERVER_SIDE = frozenset({"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable"})
"""Codes after which nobody knows either: the effect may have come before the error."""


def code_of(error: boto.ClientError) -> str:
    """Return AWS's own code of an error."""
    detail: Any = error.response.get("Error", {})
    return str(detail.get("Code", ""))


def message_of(error: boto.ClientError) -> str:
    """Return AWS's own text of an error, its encoded part left out."""
    detail: Any = error.response.get("Error", {})
    text = str(detail.get("Message", error))
    return text.split(" Encoded authorization failure message", 1)[0]


def translate(error: Exception, doing: str) -> CloudError | UsageError:
    """Turn any botocore error into ours; `doing` says what was tried, in a few words."""
    if isinstance(error, boto.ClientError):
        return _from_code(error, doing)
    if isinstance(error, LOST_ANSWER):
        return CloudError(
            f"AWS did not answer while {doing}: {error}",
            hint="check the network, then run the same command again",
        )
    for kind, message, hint in _LOCAL:
        if isinstance(error, kind):
            return CredentialsError(message.format(doing=doing, error=error), hint=hint)
    return CloudError(f"{doing} failed: {error}")


_LOCAL: tuple[tuple[type[boto.BotoCoreError], str, str], ...] = (
    (boto.NoCredentialsError, "no AWS credentials were found while {doing}", _LOGIN),
    (boto.PartialCredentialsError, "the AWS credentials are incomplete: {error}", _LOGIN),
    (boto.TokenRetrievalError, "the AWS sign-in has expired while {doing}", _LOGIN),
    (boto.SSOError, "the AWS sign-in has expired while {doing}", _LOGIN),
    (boto.CredentialRetrievalError, "the AWS credentials could not be had while {doing}: {error}", _LOGIN),
    (
        boto.NoRegionError,
        "no AWS region is set",
        "write `region: us-east-1` into cloudtrain.yaml, or set AWS_REGION",
    ),
    (boto.ProfileNotFound, "{error}", "`aws configure list-profiles` shows what there is"),
)
"""botocore's own errors, raised before anything was sent."""


def _from_code(error: boto.ClientError, doing: str) -> CloudError:
    code = code_of(error)
    text = message_of(error)
    meaning = CODES.get(code)
    if code == "InvalidParameterCombination" and "free" in text.lower():
        meaning = Meaning(
            QuotaError, "the account is on the free plan, which has no GPU types: upgrade the plan"
        )
    if meaning is None:
        return CloudError(f"AWS refused while {doing}: {code}: {text}", code=code)
    return meaning.error(f"AWS refused while {doing}: {code}: {text}", hint=meaning.hint, code=code)


@contextmanager
def translating(doing: str) -> Generator[None]:
    """Let nothing of botocore's out of a block."""
    try:
        yield
    except (boto.ClientError, boto.BotoCoreError) as error:
        raise translate(error, doing) from error
