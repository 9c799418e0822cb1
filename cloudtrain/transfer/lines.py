"""The OpenSSH connections that carry a push beside the control connection, and how many pay."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh.shared import SharedLine

OWN_LINE = 16 << 20
"""Bytes that are worth a handshake of OpenSSH."""
CHANNEL = 2 << 20
"""Bytes that an SSH channel carries a round trip (OpenSSH's CHAN_SES_WINDOW_DEFAULT)."""
LANES_A_LINE = 2
LINES = 4
SOON_S = 4.0
"""Seconds that one connection may take at its best before a second shakes hands beside it."""
BETTER = 1.15


@dataclass(slots=True)
class Ladder:
    """Decides when to add lanes: held by the window, or the last ones brought something.

    `rtt` in seconds. Pure, so that it can be tried without a line.
    """

    rtt: float
    before: float = 0.0
    """The rate, in bytes a second, before lanes were added last."""

    def first(self, size: int) -> int:
        """How many connections to begin with for so many bytes."""
        if size <= OWN_LINE:
            return 0
        return 2 if size * self.rtt > SOON_S * LANES_A_LINE * CHANNEL else 1

    def held(self, rate: float, lanes: int) -> bool:
        """Whether their windows hold so many lanes, and not the line."""
        return rate / max(1, lanes) * self.rtt >= 0.6 * CHANNEL

    def up(self, rate: float, lanes: int) -> bool:
        """Whether more lanes may help, at this rate over so many."""
        helped = self.before > 0 and rate >= BETTER * self.before
        if self.held(rate, lanes) or helped:
            self.before = rate
            return True
        return False


@dataclass
class Lines:
    """The OpenSSH connections of one push: shaking hands, or ready to be used."""

    target: SshTarget
    stack: ExitStack
    """Ends them."""
    begun: int = 0
    waiting: list[SharedLine] = field(default_factory=list[SharedLine])
    ready: list[SharedLine] = field(default_factory=list[SharedLine])

    def begin(self, count: int) -> None:
        """Begin handshakes until so many were begun in all."""
        for _ in range(count - self.begun):
            self.waiting.append(self.stack.enter_context(SharedLine(self.target)))
            self.begun += 1

    def take(self, count: int) -> list[SharedLine]:
        """Return at most so many whose handshake is over."""
        for line in tuple(self.waiting):
            if line.ready:
                self.ready.append(line)
            if line.ready or not line.alive:
                self.waiting.remove(line)
        taken, self.ready = self.ready[:count], self.ready[count:]
        return taken
