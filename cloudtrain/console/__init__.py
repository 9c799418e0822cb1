"""The only code that prints. Data goes to stdout, everything else to stderr.

Nothing here imports rich unless there is a terminal to draw on.
"""

from cloudtrain.console.console import Console
from cloudtrain.console.jsonable import to_jsonable
from cloudtrain.console.reporters import ConsoleReporter, make_reporter

__all__ = ["Console", "ConsoleReporter", "make_reporter", "to_jsonable"]
