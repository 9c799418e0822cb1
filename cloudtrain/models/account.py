"""What an account offers, allows and holds: the answers of the asking verbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cloudtrain.models.machine import Market
from cloudtrain.models.plan import Found, Offer, Rates


@dataclass(frozen=True, slots=True)
class OfferQuery:
    """Which offers are wanted. `gpu` is a part of the GPU's name, memory is of all GPUs together."""

    markets: tuple[Market, ...] = ("on-demand", "spot")
    types: tuple[str, ...] | None = None
    gpu: str | None = None
    gpu_memory_gib: float | None = None


@dataclass(frozen=True, slots=True)
class OfferList:
    """What one region offers, with what a volume and an address cost beside it."""

    region: str
    offers: tuple[Offer, ...]
    rates: Rates
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """One vCPU quota of a region: what is allowed, and what runs now. None is not known."""

    code: str
    name: str
    region: str
    type: str
    market: Market
    needed: int
    allowed: float | None
    default: float | None
    used: int | None
    requested: float | None = None
    request_state: str = ""
    missing: tuple[str, ...] = ()

    @property
    def enough(self) -> bool | None:
        """Whether the type can be had beside what runs; None when nobody would say."""
        return None if self.allowed is None else self.allowed - (self.used or 0) >= self.needed


@dataclass(frozen=True, slots=True)
class QuotaRequest:
    """A request for a higher quota, as AWS answered it."""

    code: str
    value: float
    state: str
    case: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was seen, and what to do where it is not well."""

    name: str
    state: Literal["ok", "warn", "fail"]
    seen: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """A check that has not been made yet; `ask` may raise any error of ours."""

    name: str
    ask: Callable[[], Check]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Everything of ours in some regions; `missing` names the regions that did not tell."""

    regions: tuple[str, ...]
    found: tuple[Found, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """The rights that some verbs need: a policy document, and each action's reason."""

    verbs: tuple[str, ...]
    partition: str
    document: dict[str, object]
    reasons: dict[str, str]
