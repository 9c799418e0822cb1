"""Addresses of S3 objects that anyone who has them may read for a while.

The machine gets no rights of its own: the caller's are lent by presigned requests,
for these objects, for reading, and they end by themselves. An address is signed for the
bucket's own region, whichever the run is in: S3 says it in what it answers anyway.
"""

from __future__ import annotations

from typing import Any

from cloudtrain.errors import CloudError, UsageError
from cloudtrain.models.lent import Lent

VALID_S = 12 * 3600
"""A transfer may take hours; rights of temporary credentials end earlier, with those."""


def lend(source: str, *, profile: str | None, region: str | None) -> tuple[Lent, ...]:
    """Return addresses for `s3://bucket/key`, or for everything below `s3://bucket/prefix/`.

    Raises `CloudError` with S3's own words, `UsageError` for an address without a bucket or
    with nothing there.
    """
    import boto3
    from botocore.config import Config as BotoConfig
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not bucket:
        raise UsageError(f"`{source}` names no bucket", hint="write s3://bucket/path")
    try:
        session: Any = boto3.Session(profile_name=profile, region_name=region)
        options = BotoConfig(signature_version="s3v4", retries={"max_attempts": 3, "mode": "standard"})
        client: Any = session.client("s3", config=options)
        told = _told_region(client)
        found = _objects(client, bucket, key)
        if told and told[-1] != client.meta.region_name:
            client = session.client("s3", config=options, region_name=told[-1])
        return tuple(
            Lent(
                path=name[len(key) :] if key.endswith("/") or not key else name.rsplit("/", 1)[-1],
                size=size,
                address=client.generate_presigned_url(
                    "get_object", Params={"Bucket": bucket, "Key": name}, ExpiresIn=VALID_S
                ),
                version=tag,
            )
            for name, size, tag in found
        )
    except (BotoCoreError, ClientError) as error:
        raise CloudError(
            f"`{source}` cannot be read: {error}", hint="check the address, and your right s3:GetObject to it"
        ) from error


def _told_region(client: Any) -> list[str]:  # noqa: ANN401 - no stubs for S3
    """Return a list that fills with the bucket's region as answers come.

    S3 names it when it was asked in another one; botocore then asks again there, but would
    go on to sign addresses for its own.
    """
    told: list[str] = []

    def hear(response_dict: dict[str, Any] | None = None, **_: object) -> None:
        if response_dict and (region := response_dict["headers"].get("x-amz-bucket-region")):
            told.append(str(region))

    client.meta.events.register("response-received.s3", hear)
    return told


def _objects(client: Any, bucket: str, key: str) -> list[tuple[str, int, str]]:  # noqa: ANN401 - no stubs for S3
    if key and not key.endswith("/"):
        head = client.head_object(Bucket=bucket, Key=key)
        return [(key, int(head["ContentLength"]), str(head["ETag"]))]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    found = [
        (str(one["Key"]), int(one["Size"]), str(one["ETag"]))
        for page in pages
        for one in page.get("Contents", ())
        if not str(one["Key"]).endswith("/")
    ]
    if not found:
        raise UsageError(f"there is nothing below `s3://{bucket}/{key}`", hint="correct `dataset.source`")
    return found
