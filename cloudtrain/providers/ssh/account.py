"""What a provider of rented machines answers about an account, where there is none."""

from __future__ import annotations

from typing import NoReturn

from cloudtrain.errors import RefusedError, UsageError
from cloudtrain.models.account import OfferList, OfferQuery, Policy, Probe, Quota, QuotaRequest
from cloudtrain.models.config import Config
from cloudtrain.models.image import BakedImage
from cloudtrain.models.machine import Market
from cloudtrain.models.plan import Found


class NoAccount:
    """The questions about a cloud account, each with the one answer that hosts of one's own have."""

    def remove(self, things: tuple[Found, ...]) -> None:
        """Remove nothing: a host is the user's. Raises `RefusedError`."""
        if things:
            raise RefusedError(
                "hosts of your own are never removed",
                hint="`cloudtrain down --remove` takes away what a run put there",
            )

    def images(self, owner: str) -> tuple[BakedImage, ...]:  # noqa: ARG002 - as its Protocol
        """Return none: nothing is made of a host that is the user's."""
        return ()

    def create_image(self, machine_id: str, name: str, tags: dict[str, str]) -> str:  # noqa: ARG002
        """Raise `UsageError`: nothing is for rent."""
        raise UsageError(
            "there is no image of a host of your own",
            hint="`cloudtrain bake --provider aws` makes one on EC2",
        )

    def offers(self, query: OfferQuery) -> OfferList:  # noqa: ARG002 - as its Protocol
        """Raise `UsageError`: nothing is for rent."""
        _nothing_for_rent()

    def quota(self, type_name: str, market: Market) -> Quota:  # noqa: ARG002
        """Raise `UsageError`: nothing is for rent."""
        _nothing_for_rent()

    def request_quota(self, type_name: str, market: Market, value: float) -> QuotaRequest:  # noqa: ARG002
        """Raise `UsageError`: nothing is for rent."""
        _nothing_for_rent()

    def probes(self, config: Config) -> tuple[Probe, ...]:  # noqa: ARG002
        """Return none: there is no cloud between this computer and its hosts."""
        return ()

    def policy(self, verbs: tuple[str, ...]) -> Policy:  # noqa: ARG002
        """Raise `UsageError`: no account, no rights."""
        _nothing_for_rent()


def _nothing_for_rent() -> NoReturn:
    raise UsageError(
        "hosts of your own have no offers, quotas or rights to ask for", hint="`--provider aws` asks AWS"
    )
