"""What a machine takes from its user data, as cloud-init would.

Only keys are taken: a `process` machine has no root, so packages, files in /etc and
boot commands stay undone, and the console says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from cloudtrain.ssh import keys

_TAKEN = {"ssh_keys", "ssh_authorized_keys", "ssh_deletekeys", "ssh_genkeytypes", "ssh_pwauth"}


@dataclass(frozen=True, slots=True)
class Seed:
    """The keys a machine starts with, and the parts of its user data it leaves undone.

    `user_data` is the whole of it, for a machine that has cloud-init; `key_pairs` are
    the public keys of the instance's key pair.
    """

    host_private: str = field(repr=False)
    host_public: str
    authorized: tuple[str, ...]
    undone: tuple[str, ...] = ()
    user_data: str = field(default="", repr=False)
    key_pairs: tuple[str, ...] = ()


def seed_of(user_data: str, key_pair: str | None) -> Seed:
    """Read a cloud-config; without a host key in it one is made, as on a first boot."""
    config = _cloud_config(user_data)
    given = config.get("ssh_keys")
    ssh_keys = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    private, public = ssh_keys.get("ed25519_private"), ssh_keys.get("ed25519_public")
    if not (private and public):
        made = keys.generate("root@sandbox")
        private, public = made.private, made.public
    listed = config.get("ssh_authorized_keys")
    wanted = [str(key) for key in cast("list[Any]", listed)] if isinstance(listed, list) else []
    authorized = tuple(dict.fromkeys(key.strip() for key in [*wanted, key_pair or ""] if key.strip()))
    undone = tuple(sorted(set(config) - _TAKEN))
    pairs = (key_pair.strip(),) if key_pair else ()
    return Seed(str(private), str(public).strip(), authorized, undone, user_data, pairs)


def _cloud_config(text: str) -> dict[str, Any]:
    if not text.startswith("#cloud-config"):
        return {}
    import yaml

    try:
        parsed: object = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}
