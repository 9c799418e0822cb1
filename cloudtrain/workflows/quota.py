"""`quota`: what the account may run of the configured types, and asking for more."""

from __future__ import annotations

from dataclasses import dataclass

from cloudtrain.errors import UsageError
from cloudtrain.models.account import Quota, QuotaRequest
from cloudtrain.models.config import Config
from cloudtrain.models.machine import Market
from cloudtrain.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Quotas:
    """One line a type and market; `request` is what was asked for just now."""

    rows: tuple[Quota, ...]
    request: QuotaRequest | None = None


def markets_of(config: Config) -> tuple[Market, ...]:
    """Return the markets that a configuration wants, in its order."""
    wanted: dict[str, tuple[Market, ...]] = {
        "on-demand": ("on-demand",),
        "spot": ("spot",),
        "spot-then-on-demand": ("spot", "on-demand"),
    }
    return wanted[config.instance.market]


def quota(provider: Provider, config: Config, *, request: int | None = None) -> Quotas:
    """Read the quotas that the configured types count against; with `request` ask for more first.

    Raises `UsageError` when it is not clear which quota is meant, and `CloudError`
    when the request is refused at once.
    """
    pairs: list[tuple[str, Market]] = [
        (name, market) for name in config.instance.type for market in markets_of(config)
    ]
    asked: QuotaRequest | None = None
    if request is not None:
        if len(pairs) > 1:
            raise UsageError(
                f"which quota is meant is not clear: {', '.join(f'{n} {m}' for n, m in pairs)}",
                hint="name one type and market: `cloudtrain quota --type g4dn.xlarge --market spot --request 8`",
            )
        asked = provider.request_quota(*pairs[0], request)
    return Quotas(tuple(provider.quota(name, market) for name, market in pairs), asked)
