"""`audit`: what the cloud holds of ours, whether this computer knows it or not."""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain.journal.folder import open_runs
from cloudtrain.models.plan import Found
from cloudtrain.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Audit:
    """Everything found in one region, and which open runs this computer knows there."""

    region: str
    found: tuple[Found, ...]
    known: tuple[str, ...]


def audit(provider: Provider) -> Audit:
    """Ask the provider's region for everything that carries our tags."""
    identity = provider.identity()
    known = tuple(folder.path.name for folder in open_runs())
    return Audit(identity.region, provider.everything(identity.owner), known)
