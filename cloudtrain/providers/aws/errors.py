"""AWS's error codes, mapped in one table to ours. Unknown codes keep their own text.

Sources: the EC2 API error reference, and what botocore raises by itself. Four
families are never confused, because their remedies differ: no right
(authorization), the account not ready (account), the account's limit (quota),
the cloud's stock (capacity).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import botocore.exceptions as boto
from botocore.parsers import ResponseParserError

from cloudtrain.errors import (
    AccountError,
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
_POLICY = "ask your administrator for the rights that `cloudtrain iam-policy` prints; docs/aws-account.md says what each is for"
_QUOTA = "`cloudtrain quota` shows it and `cloudtrain quota --request VCPUS` asks Service Quotas for more; new accounts start at 0"
_ELSEWHERE = "name other types in `instance.type`, another `region`, or try again later"
_AGAIN = "run the same command again"
_SLOWER = "AWS is throttling this account: try again in a minute"
_CLOCK = "this computer's clock differs from AWS's: set it, then try again"
_EXPIRED = f"the session has expired: {_LOGIN}"

CODES: dict[str, Meaning] = {
    # Nobody, or somebody else: sign in.
    "AuthFailure": Meaning(CredentialsError, _LOGIN),
    "InvalidClientTokenId": Meaning(CredentialsError, _LOGIN),
    "SignatureDoesNotMatch": Meaning(CredentialsError, f"{_LOGIN}; a wrong clock does this too"),
    "UnrecognizedClientException": Meaning(CredentialsError, _LOGIN),
    "IncompleteSignature": Meaning(CredentialsError, _LOGIN),
    "MissingAuthenticationToken": Meaning(CredentialsError, _LOGIN),
    "ExpiredToken": Meaning(CredentialsError, _EXPIRED),
    "ExpiredTokenException": Meaning(CredentialsError, _EXPIRED),
    "RequestExpired": Meaning(CredentialsError, _CLOCK),
    "RequestTimeTooSkewed": Meaning(CredentialsError, _CLOCK),
    # Somebody, without the right: an administrator.
    "UnauthorizedOperation": Meaning(AuthorizationError, _POLICY),
    "AccessDenied": Meaning(AuthorizationError, _POLICY),
    "AccessDeniedException": Meaning(AuthorizationError, _POLICY),
    "DependencyAccessDeniedException": Meaning(AuthorizationError, _POLICY),
    "SsmAccessDenied": Meaning(AuthorizationError, _POLICY),
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": Meaning(
        AuthorizationError,
        "first spot use: an administrator runs `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`",
    ),
    # The account as a whole: neither a right nor a quota.
    "PendingVerification": Meaning(
        AccountError,
        "AWS is validating the account for this region: wait up to 4 hours, or use another region",
    ),
    "OptInRequired": Meaning(
        AccountError, "enable this region for the account (AWS console, Account, AWS Regions), or use another"
    ),
    "SubscriptionRequiredException": Meaning(AccountError, "finish the account's sign-up in the AWS console"),
    "Blocked": Meaning(AccountError, "AWS has blocked this account: contact AWS support"),
    # The account's limit: ask for more; waiting does not help.
    "VcpuLimitExceeded": Meaning(QuotaError, _QUOTA),
    "InstanceLimitExceeded": Meaning(QuotaError, _QUOTA),
    "MaxSpotInstanceCountExceeded": Meaning(
        QuotaError, f"{_QUOTA}; spot has a quota of its own, so `market: on-demand` may work"
    ),
    "SpotInstanceCountLimitExceeded": Meaning(QuotaError, f"{_QUOTA}; spot has a quota of its own"),
    "VolumeLimitExceeded": Meaning(QuotaError, "delete volumes that nothing uses: `cloudtrain audit`"),
    "SecurityGroupLimitExceeded": Meaning(QuotaError, "delete security groups: `cloudtrain audit`"),
    "RulesPerSecurityGroupLimitExceeded": Meaning(QuotaError, "remove rules of the run's security group"),
    "AddressLimitExceeded": Meaning(QuotaError, "release addresses: `cloudtrain audit`"),
    # The cloud's stock: later, or elsewhere.
    "InsufficientInstanceCapacity": Meaning(CapacityError, _ELSEWHERE),
    "InsufficientHostCapacity": Meaning(CapacityError, _ELSEWHERE),
    "InsufficientCapacity": Meaning(CapacityError, _ELSEWHERE),
    "UnfulfillableCapacity": Meaning(CapacityError, _ELSEWHERE),
    "SpotMaxPriceTooLow": Meaning(CapacityError, _ELSEWHERE),
    "InsufficientFreeAddressesInSubnet": Meaning(CapacityError, "use another `instance.subnet`"),
    "Unsupported": Meaning(CapacityError, "this type is not offered in that zone"),
    "InvalidFleetConfiguration": Meaning(CapacityError, "this type is not offered in that zone"),
    # What was there is not there any more.
    "IdempotentInstanceTerminated": Meaning(GoneError, "run `cloudtrain up` again for a new machine"),
    "InvalidInstanceID.NotFound": Meaning(GoneError, "`cloudtrain status` shows what there is"),
    "InvalidSpotInstanceRequestID.NotFound": Meaning(GoneError, "`cloudtrain audit` shows what there is"),
    # The request itself.
    "IdempotentParameterMismatch": Meaning(
        CloudError,
        "this launch was asked before with other values and nothing was started now: "
        "`cloudtrain down` ends what it made, then `cloudtrain up` asks anew",
    ),
    "InvalidBlockDeviceMapping": Meaning(
        CloudError, "the image needs a larger volume: raise `instance.volume_gb`, or leave it out"
    ),
    "InvalidSubnetID.NotFound": Meaning(CloudError, "`instance.subnet` names none of this region's"),
    "InvalidGroup.NotFound": Meaning(CloudError, "`instance.security_group` names none of this region's"),
    "InvalidKeyPair.NotFound": Meaning(CloudError, "`cloudtrain up` imports it again"),
    "VPCIdNotSpecified": Meaning(CloudError, "there is no default VPC here: set `instance.subnet`"),
    "DefaultVpcDoesNotExist": Meaning(CloudError, "there is no default VPC here: set `instance.subnet`"),
    "DefaultSubnetDoesNotExist": Meaning(CloudError, "set `instance.subnet`"),
    "OperationNotPermitted": Meaning(
        CloudError, "somebody switched termination protection on: switch it off in the EC2 console"
    ),
    "IncorrectInstanceState": Meaning(CloudError, "it is on its way to another state: try again in a minute"),
    "IncorrectSpotRequestState": Meaning(
        CloudError, "its spot request is not ready for this: try again in a minute"
    ),
    "InvalidAction": Meaning(CloudError, "this endpoint does not know the call"),
    # Too often, or a moment of AWS's own.
    "RequestLimitExceeded": Meaning(CloudError, _SLOWER),
    "Throttling": Meaning(CloudError, _SLOWER),
    "ThrottlingException": Meaning(CloudError, _SLOWER),
    "TooManyRequestsException": Meaning(CloudError, _SLOWER),
    "InternalError": Meaning(CloudError, _AGAIN),
    "InternalFailure": Meaning(CloudError, _AGAIN),
    "ServiceUnavailable": Meaning(CloudError, _AGAIN),
    "Unavailable": Meaning(CloudError, _AGAIN),
}
"""Every code we understand, with what to do about it."""

FREE_PLAN = Meaning(
    AccountError,
    "the account is on the free plan, which has no GPU types: upgrade the plan in the AWS console",
)
"""`InvalidParameterCombination` says many things; this one it says with `Free Tier` in its text."""

NO_ANSWER = (boto.BotoCoreError, ResponseParserError)
"""What botocore raises when there was no answer, or none that can be read (a proxy's page)."""

FAILURES = (boto.ClientError, *NO_ANSWER)
"""Everything that a call of botocore's raises."""

LOST_ANSWER = (
    ResponseParserError,
    boto.ConnectionClosedError,
    boto.ReadTimeoutError,
    boto.ConnectTimeoutError,
    boto.EndpointConnectionError,
    boto.HTTPClientError,
)
"""botocore's errors after which nobody knows whether the call took effect."""

SERVER_SIDE = frozenset({"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable"})
"""Codes after which nobody knows either: the effect may have come before the error."""


THROTTLED = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException"})
"""Codes that mean: too often, nothing was done."""


def code_of(error: boto.ClientError) -> str:
    """Return AWS's own code of an error."""
    detail: Any = error.response.get("Error", {})
    return str(detail.get("Code", ""))


def is_lost(error: boto.ClientError) -> bool:
    """Whether an error leaves open if the call took effect.

    Besides AWS's own words for that, it is every server error that names no refusal:
    a gateway on the way answers 502 or 504 after the call was passed on.
    """
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return code_of(error) in SERVER_SIDE or (status >= 500 and code_of(error) not in CODES)


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
    if code == "InvalidParameterCombination" and "free tier" in text.lower():
        meaning = FREE_PLAN
    if meaning is None:
        return CloudError(f"AWS refused while {doing}: {code}: {text}", code=code)
    return meaning.error(f"AWS refused while {doing}: {code}: {text}", hint=meaning.hint, code=code)


@contextmanager
def translating(doing: str) -> Generator[None]:
    """Let nothing of botocore's out of a block."""
    try:
        yield
    except FAILURES as error:
        raise translate(error, doing) from error
