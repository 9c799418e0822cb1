"""Many lots over several lanes: as many as the line proves to need, and no more.

An SSH channel carries at most about 2 MiB a round trip, so on a long fat line one
alone leaves most of it unused, while on a short or thin one a second only costs. So
it begins with what is there, the control connection, and with one OpenSSH connection
that shakes hands meanwhile; each time that the lanes prove to be held by their windows,
or that more lanes have just brought more, another connection is added. Handshakes take many
round trips: where the first connection could not do it soon, the second begins with it, and waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

from cloudtrain.errors import CloudtrainError, ConnectError
from cloudtrain.ssh.remote import Remote
from cloudtrain.ssh.shared import SharedLine, available
from cloudtrain.transfer.lane import Lane, open_lane
from cloudtrain.transfer.lines import CHANNEL, LANES_A_LINE, LINES, Ladder, Lines
from cloudtrain.transfer.pack import Batch, Squeeze, Task
from cloudtrain.transfer.wire import Meter

CONTROL_LANES = 4
"""Lanes over the control connection, where there is no OpenSSH here; it has 8 channels for all."""


@dataclass
class Lanes:
    """The lots of one push, and the lanes that carry them. Within its block, handshakes go on."""

    remote: Remote
    arguments: tuple[str, ...]
    """Of the script that is started for each lane."""
    meter: Meter
    rtt: float
    tasks: list[Task]
    tick: float = 0.25
    squeeze: Squeeze = field(default_factory=Squeeze)

    def __post_init__(self) -> None:
        self._tasks = deque(self.tasks)
        self._left = len(self.tasks)
        self._size = sum(task.size for task in self.tasks)
        self._change = threading.Condition()
        self._error: CloudtrainError | None = None
        self._lanes = 0
        self._carried = 0
        self._retired = threading.Event()
        """Set when OpenSSH has taken over from the control connection."""
        self._threads: list[threading.Thread] = []
        self._stack = ExitStack()
        self._lines = Lines(self.remote.target, self._stack)
        self._wanted = self._used = 0
        """Of the lines: how many are to have lanes, and how many have had them."""
        self._since, self._before = 0.0, 0

    def __enter__(self) -> Self:
        self._stack.callback(self._join)
        self._stack.callback(self._stop)
        try:
            if available() and (count := Ladder(self.rtt).first(self._size)):
                self._want(1)
                self._lines.begin(count)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def carry(self, first: Lane, asked: int) -> None:
        """Send everything; `first` is a lane that is open already, and stays so.

        `first` owes `asked` answers. Raises `TransferError` when the machine refuses, `ConnectError` when no line is left.
        """
        opened = self._spawn(self._drive_open, first, asked)
        if self._size > CHANNEL // 2:
            self._spawn(self._drive, self.remote)
        self._watch()
        if self._error is not None:
            self._stack.close()
            raise self._error
        opened.join()  # then nobody else speaks over it; the other lanes end while it goes on

    def _watch(self) -> None:
        """Add lanes while that helps, until everything is there or nothing works."""
        ladder = Ladder(self.rtt)
        self._restart()
        while not self._wait():
            if self.remote.closed.is_set():  # OpenSSH's lines would go on by themselves
                self._fail_all(ConnectError("the push was interrupted"))
                return
            self._use()
            if not self._lanes:
                self._fall_back()
            rate = self._measured()
            if rate is None or not self._worth_it(rate):
                continue
            if not self._used and self._lines.waiting:
                if ladder.held(rate, self._lanes):
                    self._want(2)
            elif not self._short and ladder.up(rate, self._lanes):
                self._grow()

    def _wait(self) -> bool:
        """Wait for a moment; True when there is nothing more to wait for."""
        with self._change:
            tick = self.tick / 10 if self._short else self.tick  # a handshake that is over is not to wait
            return self._change.wait_for(lambda: self._left == 0 or self._error is not None, tick)

    @property
    def _short(self) -> bool:
        """Whether a line that is wanted still shakes hands."""
        return self._used < self._wanted and bool(self._lines.waiting)

    def _use(self) -> None:
        """Open lanes over the lines whose handshake is over, as many as are wanted."""
        new = self._lines.take(self._wanted - self._used)
        for line in new:
            for _ in range(LANES_A_LINE):
                self._spawn(self._drive, line)
        if new:
            self._used += len(new)
            self._restart()

    def _restart(self) -> None:
        self._since, self._before = time.monotonic(), self._carried

    def _measured(self) -> float | None:
        """Return the bytes a second since the lanes are as they are; None while that is too short."""
        spent = time.monotonic() - self._since
        if spent < max(2 * self.tick, 4 * self.rtt):
            return None
        rate = (self._carried - self._before) / spent
        self._restart()
        self.squeeze.rate = rate
        return rate

    def _worth_it(self, rate: float) -> bool:
        """Whether what is left will take longer than another handshake."""
        return self._size - self._carried > rate * max(1.0, 8 * self.rtt)

    def _grow(self) -> None:
        """Twice as many lines, as soon as it shows that those there are cannot fill the way."""
        if self._used:
            self._want(min(2 * self._wanted, LINES))
        elif self._lanes < CONTROL_LANES:
            self._spawn(self._drive, self.remote)

    def _want(self, lines: int) -> None:
        self._wanted = lines
        self._lines.begin(lines)

    def _fall_back(self) -> None:
        """Go on over the control connection when OpenSSH's lanes are gone; give up when it is."""
        if self._retired.is_set():
            self._retired.clear()
            self._spawn(self._drive, self.remote)
        elif self._error is None and self._left:
            self._error = ConnectError("the line broke", hint="run the same command again; it continues")

    def _spawn(self, work: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, daemon=True)
        with self._change:
            self._lanes += 1
            self._threads.append(thread)
        thread.start()
        return thread

    def _drive(self, over: Remote | SharedLine) -> None:
        """Open a lane and let it work; one that cannot be opened is no fault while another lives."""
        try:
            with open_lane(over, *self.arguments) as lane:
                self._work(lane, self._retired if isinstance(over, Remote) else None)
        except CloudtrainError as error:
            self._fail(error)
        finally:
            self._leave()

    def _drive_open(self, lane: Lane, asked: int) -> None:
        try:
            self._work(lane, self._retired, asked)
        except CloudtrainError as error:
            self._fail(error)
        finally:
            self._leave()

    def _work(self, lane: Lane, retired: threading.Event | None, asked: int = 0) -> None:
        """Send lots while there are any; a thread of its own hears the answers."""
        sent: deque[Task] = deque()
        more = threading.Semaphore(0)
        ended, closing = threading.Event(), threading.Event()
        troubles: list[CloudtrainError] = []

        def hear() -> None:
            try:
                for _ in range(asked):
                    lane.answer()
                while not closing.is_set() or sent:
                    more.acquire()
                    if not sent:
                        return
                    lane.answer()
                    if retired is None:
                        # Not before: until something has come through, the line would be idle.
                        self._retired.set()
                    self._arrived(sent.popleft())
            except CloudtrainError as error:
                troubles.append(error)
            finally:
                ended.set()

        hearer = threading.Thread(target=hear, daemon=True)
        hearer.start()
        try:
            while not ended.is_set() and (task := self._take(retired)) is not None:
                sent.append(task)
                moved = lane.send(task, self.squeeze)
                with self._change:
                    self._carried += moved
                more.release()
        except CloudtrainError as error:
            troubles.append(error)
        finally:
            closing.set()
            more.release()
            hearer.join()
            self._give_back(sent)
        if troubles:
            raise troubles[0]

    def _take(self, retired: threading.Event | None) -> Task | None:
        with self._change:
            if self._error is not None or not self._tasks or (retired is not None and retired.is_set()):
                return None
            return self._tasks.popleft()

    def _arrived(self, task: Task) -> None:
        with self._change:
            self._left -= 1
            if self._left == 0:
                self._change.notify_all()
        files = len(task.entries) if isinstance(task, Batch) else 0
        self.meter.add(task.size, files)

    def _give_back(self, tasks: deque[Task]) -> None:
        with self._change:
            self._tasks.extendleft(reversed(tasks))

    def _fail(self, error: CloudtrainError) -> None:
        """A line that breaks leaves its work to the others; what the machine refuses ends all."""
        with self._change:
            last = self._lanes == 1 and not self._retired.is_set()
            if not isinstance(error, ConnectError) or last:
                self._error = self._error or error
            self._change.notify_all()

    def _fail_all(self, error: CloudtrainError) -> None:
        with self._change:
            self._error = self._error or error
            self._change.notify_all()

    def _leave(self) -> None:
        with self._change:
            self._lanes -= 1
            self._change.notify_all()

    def _stop(self) -> None:
        with self._change:
            self._tasks.clear()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(10)
