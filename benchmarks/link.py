"""A long line in user space: delay, a rate that all streams share, no loss, pipelining kept.

    python -m benchmarks.link --to 127.0.0.1:22 --delay-ms 40 --mbit 200

prints the port that stands for the far machine. Each direction is one wire: a
piece leaves when the pieces before it, of whatever stream, have left at the
wire's rate, and arrives half a round trip later. Nobody may send more than the wire's own
short queue (`QUEUE_S`) ahead, and no stream may have more than `window` bytes that the other
side has not yet acknowledged, as a TCP of default Linux buffers would not. There is no loss
and no slow start, which flatters whoever uses a single connection.
"""

from __future__ import annotations

import argparse
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE = 32 * 1024
QUEUE_S = 0.02
WINDOW = 4 << 20
"""Bytes in flight of one TCP connection: what Linux' default send buffer allows."""


@dataclass
class Wire:
    """One direction, shared by all streams."""

    rate: float
    """Bytes a second."""
    delay: float
    """One way, in seconds."""
    free_at: float = 0.0
    carried: int = 0

    def backlog(self, now: float) -> float:
        """Return the seconds that what was taken still needs to leave."""
        return self.free_at - now

    def carry(self, size: int, now: float) -> float:
        """Return when `size` bytes that are ready now will arrive."""
        self.carried += size
        self.free_at = max(now, self.free_at) + size / self.rate
        return self.free_at + self.delay


@dataclass
class Flow:
    """One direction of one stream."""

    wire: Wire
    source: socket.socket
    target: socket.socket
    window: int
    queue: deque[tuple[float, bytes]] = field(default_factory=deque[tuple[float, bytes]])
    unacknowledged: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    flying: int = 0
    ended: bool = False
    blocked: bool = False

    def may_read(self, now: float) -> bool:
        """Whether another piece may be taken from the sender."""
        while self.unacknowledged and self.unacknowledged[0][0] <= now:
            self.flying -= self.unacknowledged.popleft()[1]
        return not self.ended and self.flying < self.window and self.wire.backlog(now) < QUEUE_S

    def read(self, now: float) -> None:
        """Take one piece."""
        try:
            data = self.source.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.flying += len(data)
        self.queue.append((self.wire.carry(len(data), now), data))
        self.ended = not data

    def deliver(self, now: float) -> bool:
        """Hand over what has arrived; False when the stream is over."""
        while self.queue and self.queue[0][0] <= now and not self.blocked:
            due, data = self.queue[0]
            if not data:
                with suppress(OSError):
                    self.target.shutdown(socket.SHUT_WR)
                self.queue.popleft()
                return False
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                self.blocked = True
                return True
            except OSError:
                return False
            self.unacknowledged.append((now + self.wire.delay, sent))
            if sent < len(data):
                self.queue[0] = (due, data[sent:])
                self.blocked = True
            else:
                self.queue.popleft()
        return True


@dataclass
class Link:
    """The line. `serve` runs until `stop` is set."""

    to: tuple[str, int]
    delay_s: float
    """A whole round trip, in seconds."""
    rate: float
    """Bytes a second, each way."""
    window: int = WINDOW
    cut_after: int = 0
    """Bytes, both ways together, after which the line is cut for good; 0 never."""
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.setblocking(False)
        self.port = int(self.listener.getsockname()[1])
        self.there = Wire(self.rate, self.delay_s / 2)
        self.back = Wire(self.rate, self.delay_s / 2)
        self.flows: list[Flow] = []
        self.selector = selectors.EpollSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """Carry until `stop` is set."""
        while not self.stop.is_set():
            now = time.monotonic()
            if 0 < self.cut_after <= self.there.carried + self.back.carried:
                break
            due = self._step(now)
            ready = self.selector.select(max(0.0, min(0.05, due - time.monotonic())))
            now = time.monotonic()
            for key, events in ready:
                if key.fileobj is self.listener:
                    self._accept()
                    continue
                for flow in self.flows:
                    if flow.target is key.fileobj and events & selectors.EVENT_WRITE:
                        flow.blocked = False
                    if flow.source is key.fileobj and events & selectors.EVENT_READ and flow.may_read(now):
                        flow.read(now)
            self.flows.append(self.flows.pop(0)) if self.flows else None  # fair to every stream

        for flow in self.flows:
            flow.source.close()
            flow.target.close()
        self.listener.close()

    def _accept(self) -> None:
        here, _ = self.listener.accept()
        try:
            far = socket.create_connection(self.to)
        except OSError:
            here.close()
            return
        for one in (here, far):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.flows += [Flow(self.there, here, far, self.window), Flow(self.back, far, here, self.window)]

    def _step(self, now: float) -> float:
        """Deliver what is due, say what to wait for, and return when to look again."""
        look = now + 0.05
        wanted: dict[socket.socket, int] = {}
        over = [flow for flow in self.flows if not flow.deliver(now)]
        for flow in over:
            self._close(flow)
        for flow in self.flows:
            if flow.may_read(now):
                wanted[flow.source] = wanted.get(flow.source, 0) | selectors.EVENT_READ
            elif not flow.ended:
                look = min(look, max(now + 0.0005, flow.wire.free_at - QUEUE_S))
            if flow.blocked:
                wanted[flow.target] = wanted.get(flow.target, 0) | selectors.EVENT_WRITE
            elif flow.queue:
                look = min(look, flow.queue[0][0])
            if flow.unacknowledged and flow.flying >= flow.window:
                look = min(look, flow.unacknowledged[0][0])
        self._register(wanted)
        return look

    def _register(self, wanted: dict[socket.socket, int]) -> None:
        known = {key.fileobj: key.events for key in self.selector.get_map().values()}
        for flow in self.flows:
            for one in (flow.source, flow.target):
                events, had = wanted.get(one, 0), known.get(one, 0)
                if events and not had:
                    self.selector.register(one, events)
                elif events != had and events:
                    self.selector.modify(one, events)
                elif had and not events:
                    self.selector.unregister(one)
                known[one] = events

    def _close(self, flow: Flow) -> None:
        """Forget a direction; the sockets end with the second one, or with an error."""
        self.flows.remove(flow)
        other = [one for one in self.flows if one.source is flow.target]
        if flow.ended and flow.queue == deque() and other:
            return
        for one in (flow.source, flow.target):
            with suppress(KeyError, ValueError):
                self.selector.unregister(one)
            one.close()
        for one in other:
            self.flows.remove(one)


@contextmanager
def link(to: tuple[str, int], *, delay_ms: float, mbit: float, window: int = WINDOW) -> Generator[int]:
    """Run a line in a process of its own and yield its port on 127.0.0.1."""
    words = [sys.executable, "-m", "benchmarks.link", "--to", f"{to[0]}:{to[1]}"]
    words += ["--delay-ms", str(delay_ms), "--mbit", str(mbit), "--window", str(window)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--to", default="127.0.0.1:22")
    parser.add_argument("--delay-ms", type=float, default=80, help="a whole round trip")
    parser.add_argument("--mbit", type=float, default=200)
    parser.add_argument("--window", type=int, default=WINDOW)
    given = parser.parse_args()
    host, _, port = given.to.rpartition(":")
    one = Link((host, int(port)), given.delay_ms / 1000, given.mbit * 1e6 / 8, given.window)

    def end(_number: int, _frame: object) -> None:
        one.stop.set()

    signal.signal(signal.SIGTERM, end)
    print(one.port, flush=True)
    with suppress(KeyboardInterrupt):
        one.serve()


if __name__ == "__main__":
    main()
