"""`iam-policy`: the least rights that the chosen verbs need."""

from __future__ import annotations

from cloudtrain.models.account import Policy
from cloudtrain.providers.base import Provider


def iam_policy(provider: Provider, verbs: tuple[str, ...], dataset: str = "") -> Policy:
    """Return the policy for some verbs, all of them for none; no credentials are needed."""
    return provider.policy(verbs, dataset)
