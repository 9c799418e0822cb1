"""Key pairs and pinned host keys. Private keys are made here and never sent."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from cloudtrain.errors import UsageError


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An ed25519 pair in OpenSSH's formats. The private half never shows in a repr."""

    public: str
    private: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as OpenSSH prints it."""
        return fingerprint(self.public)


def generate(comment: str) -> KeyPair:
    """Make a new ed25519 key pair; `comment` ends the public line."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode()
    public = (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )
    return KeyPair(public=f"{public} {comment}", private=private)


def fingerprint(public: str) -> str:
    """Return OpenSSH's `SHA256:…` of a public key line. Raises `UsageError` if it is none."""
    try:
        blob = base64.b64decode(public.split()[1], validate=True)
    except (IndexError, ValueError) as error:
        raise UsageError(f"not a public key: `{public[:40]}`") from error
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def write_private(path: Path, text: str) -> None:
    """Write a secret 0600, durably, through a temporary name, so that it is never half there."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    # Until its folder is written too, a power cut could bring the old file back.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def pin(known_hosts: Path, alias: str, public_keys: tuple[str, ...]) -> None:
    """Make `public_keys` the only keys accepted for `alias`, durably."""
    lines = [" ".join([alias, *key.split()[:2]]) for key in public_keys]
    write_private(known_hosts, "\n".join(lines) + "\n")


def pinned(known_hosts: Path, alias: str) -> tuple[str, ...]:
    """Return the public keys pinned for `alias`; empty when there are none."""
    if not known_hosts.exists():
        return ()
    rows = (line.split() for line in known_hosts.read_text().splitlines())
    return tuple(f"{row[1]} {row[2]}" for row in rows if len(row) >= 3 and row[0] == alias)
