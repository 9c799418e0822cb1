"""What the asking verbs hear of hosts of the user's own: no account, no quota, no policy."""

from __future__ import annotations

from cloudtrain.errors import CloudError, UsageError
from cloudtrain.models.account import OfferList, OfferQuery, Policy, Quota, QuotaRequest
from cloudtrain.models.config import Host
from cloudtrain.models.image import BakedImage
from cloudtrain.models.machine import Market
from cloudtrain.models.plan import Offer, Rates

REGION = "your hosts"
FREE = Rates(volume_gb_month=0.0, address_hour=0.0, source="cloudtrain.yaml")


class NoAccount:
    """The part of a provider that is about an account, where there is none."""

    _hosts: dict[str, Host]

    def images(self, owner: str) -> tuple[BakedImage, ...]:  # noqa: ARG002 - as its Protocol
        """Return none: nothing is made of a host that is the user's."""
        return ()

    def create_image(self, machine_id: str, name: str, tags: dict[str, str]) -> str:  # noqa: ARG002
        """Raise `UsageError`: nothing is for rent."""
        raise UsageError(
            "there is no image of a host of your own",
            hint="`cloudtrain bake --provider aws` makes one on EC2",
        )

    def offers(self, query: OfferQuery) -> OfferList:
        """Return the listed hosts; what is in them is known once one was taken."""
        chosen = [name for name in self._hosts if query.types is None or name in query.types]
        return OfferList(REGION, tuple(offer_of(name, self._hosts[name]) for name in chosen), FREE)

    def quota(self, type_name: str, market: Market) -> Quota:
        """Raise `CloudError`: nobody limits what is one's own."""
        del market
        raise CloudError(f"{type_name} is a machine of your own: it has no quota")

    def request_quota(self, type_name: str, market: Market, value: float) -> QuotaRequest:
        """Raise `CloudError`: there is nobody to ask."""
        del market, value
        raise CloudError(f"{type_name} is a machine of your own: it has no quota")

    def policy(self, verbs: tuple[str, ...], dataset: str = "") -> Policy:
        """Raise `UsageError`: a login on the host is all the right that is needed."""
        del verbs, dataset
        raise UsageError(
            "machines of your own need no policy: a login on them is enough",
            hint="`--provider aws` shows EC2's",
        )


def offer_of(label: str, host: Host) -> Offer:
    """Return a listed host as an offer: one of its kind, at the price its owner gave."""
    return Offer(
        type=label,
        market="on-demand",
        zones=(),
        vcpus=0,
        memory_mib=0,
        gpu_name="",
        gpu_count=0,
        gpu_memory_mib=0,
        price_hour=host.price_hour,
        price_source="cloudtrain.yaml" if host.price_hour else "",
    )
