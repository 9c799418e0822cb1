"""Read-only questions to a machine: what is there, asked once, changing nothing."""

from cloudtrain.facts.gather import gather
from cloudtrain.facts.parse import parse

__all__ = ["gather", "parse"]
