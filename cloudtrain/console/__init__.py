"""The only code that prints. Data goes to stdout, everything else to stderr."""

from cloudtrain.console.console import Console
from cloudtrain.console.jsonable import to_jsonable

__all__ = ["Console", "to_jsonable"]
