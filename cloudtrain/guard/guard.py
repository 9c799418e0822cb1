"""The guard: keeps a machine's lease on the machine itself. No network but the metadata service.

Standard library, Python 3.8. `decide` is pure. Whatever goes wrong while looking, the deadline holds.

It reads, besides the config (its contact globs find runs, RUN = a folder in one of them):
  the instance tag cloudtrain-deadline, spot and rebalance notices, and the date, by IMDSv2
  RUN/sessions/NNN/{started,supervisor,trainer,exit,stop}  how a session is doing
  RUN/sessions/NNN/secured   rewritten after each secured checkpoint
  RUN/runs/NNN/{evolve.csv,tune_results.ndjson}  the results of a search
  RUN/fetching               touched every minute by our own fetch: holds a rescue window open
  RUN/working                touched every minute by our own installs and pushes: not idle
  RUN/fetched                touched when every checkpoint was proven to be at home
It writes, all whole or not at all:
  STATE/state.json           its memory; a restart renews nothing
  STATE/status.json          deadline, idle seconds, ending, rescue, what it cannot do, when it was off
  STATE/notice.json          {"notices": [{kind, text, at}...]}, the last 20, oldest first
  STATE/receipt.json         why, when and with which sessions it powered off
  RUN/sessions/NNN/notice    {kind, text, at, by}: for the trainer; secure a checkpoint before `by`
And it runs RUN/sessions/NNN/resume.sh as the folder's owner, for an interrupted session.

Kinds of notice: deadline-soon, idle-soon, deadline, idle, no-contact, rescue, spot, rebalance,
kept (called off), resume, gave-up. Times are epoch seconds.
"""

from __future__ import annotations

import calendar
import glob
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import time
from typing import Any, NamedTuple

POLL_S = 5  # AWS advises five seconds for interruption notices
RESCUE_S = 900
JUMP_S, BELIEVED_S = 120, 300
FRESH_S = 150
SOON_S = 600
LEAST, MOST = 1_500_000_000, 100_000_000_000  # a time of ours lies between
TRIES, TRIES_S = 3, 600
KINDS = {
    "deadline": "the lease has ended",
    "idle": "nothing has used this machine for a while",
    "no-contact": "nobody has ever come to this machine",
    "rescue": "the lease ended before this boot, and its rescue window is over",
}


ENDED = ("finished", "failed")


class Lease(NamedTuple):
    """What was agreed. `idle_s` 0 means never; `deadline` 0 means none but the tag's."""

    deadline: int = 0
    first_contact_s: float = 1200
    idle_s: float = 0
    after_training: str = "stop"
    grace_s: float = 120
    rescue_most_s: float = 7200
    ends: str = "powering off"  # what the end of it is: on somebody's host, of the training alone


class Now(NamedTuple):
    """The injected clock: the time of day, seconds since boot (sleep included), and which boot."""

    wall: float
    uptime: float
    boot: str


class Session(NamedTuple):
    """A run's newest session. `secured` changes with each secured checkpoint."""

    folder: str
    state: str  # running | finished | failed | interrupted
    secured: float = 0.0


class Seen(NamedTuple):
    """One look at the machine. What could not be read has the default."""

    tag: int = 0
    date: float = 0.0  # the metadata service's time of day
    spot: str = ""
    rebalance: bool = False
    contact: bool = False
    sessions: tuple[Session, ...] = ()
    active: str = ""  # what uses the machine, beside sessions
    fetching: bool = False
    unfetched: bool = False


class State(NamedTuple):
    """The guard's memory. Times are uptimes of this boot, but `clock`: our own time of day."""

    boot: str = ""
    uptime: float = 0.0
    clock: float = 0.0
    ahead: float = -1.0
    deadline: int = 0
    file: int = 0  # the config's deadline, as it was last
    contact: bool = False
    active: float = 0.0
    rescue: bool = False
    why: str = ""
    since: float = 0.0
    secured: dict[str, float] = {}  # noqa: RUF012 - never changed, only replaced
    power: float = -1.0
    said: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    resumed: dict[str, list[float]] = {}  # noqa: RUF012
    away: tuple[list[float], ...] = ()  # when this machine was off, by our own time of day


class Notice(NamedTuple):
    """Say it: in notice.json, on the terminals, by the user's command."""

    kind: str
    text: str


class Tell(NamedTuple):
    """Tell a session's trainer; an empty kind takes it back."""

    folder: str
    kind: str
    text: str
    by: float


class Resume(NamedTuple):
    """Start an interrupted session again."""

    folder: str


class PowerOff(NamedTuple):
    """End the machine."""

    why: str
    again: bool


def decide(lease: Lease, state: State, seen: Seen, now: Now) -> tuple[State, list[Any]]:
    """Return the new memory and what is to be done. Pure; the same for every kind of machine."""
    state = _believe(lease, _clock(state, seen, now), seen)
    actions: list[Any] = []
    over = 0 < state.deadline <= state.clock
    running = [session for session in seen.sessions if session.state == "running"]
    if running or seen.active or seen.fetching or state.rescue:
        state = state._replace(active=state.uptime)
    if "boot" not in state.said:  # the first look of this boot
        state = state._replace(said=(*state.said, "boot"), rescue=over and not running)
    state = state._replace(rescue=state.rescue and over)
    why = _why(lease, state, seen, over)
    if why and not state.why:
        state = state._replace(
            why=why, since=state.uptime, secured={session.folder: session.secured for session in running}
        )
        text = f"{KINDS[why]}: {lease.ends}"
        actions.append(Notice(why, text))
        actions += [Tell(s.folder, why, text, state.clock + lease.grace_s) for s in running]
    elif state.why and not why and state.power < 0:
        actions.append(Notice("kept", "not powering off after all"))
        actions += [Tell(s.folder, "", "", 0) for s in running]
        state = state._replace(why="")
    if state.why:
        waiting = [s for s in running if s.secured == state.secured.get(s.folder)]
        ready = not waiting or state.uptime >= state.since + lease.grace_s
        if ready and (state.power < 0 or state.uptime >= state.power + 30):
            actions.append(PowerOff(state.why, state.power >= 0))
            state = state._replace(power=state.uptime)
        return state, actions
    state, more = _warn(lease, state, seen, running)
    actions += more
    if over or state.rescue or seen.spot:
        return state._replace(broken=()), actions
    state, more = _resume(state, seen)
    return state, actions + more


def _clock(state: State, seen: Seen, now: Now) -> State:
    """Keep our own time of day: it follows the uptime, so a jump of the clock moves no deadline.

    The metadata service's date is believed at once, both ways. Without it, a clock that runs
    ahead is believed once it stayed so for five minutes (it was set right), one behind never.
    """
    if now.boot != state.boot or now.uptime < state.uptime - 1:  # no uptime ever falls within a boot
        clock = max(now.wall, state.clock)  # a boot cannot be earlier than what came before it
        began = clock - now.uptime
        off = [[state.clock, began]] if 0 < state.clock < began else []
        kept = State(clock=clock, deadline=state.deadline, file=state.file, contact=state.contact)
        kept = kept._replace(away=(*state.away[-99:], *off))
        state = kept._replace(boot=now.boot, uptime=now.uptime)
    else:
        passed = max(0.0, now.uptime - state.uptime)
        state = state._replace(clock=state.clock + passed, uptime=max(now.uptime, state.uptime))
    if seen.date > LEAST:
        exact = state.clock if abs(seen.date - state.clock) <= 5 else seen.date
        return state._replace(clock=exact, ahead=-1.0)
    if now.wall <= state.clock + JUMP_S:
        return state._replace(ahead=-1.0)
    if state.ahead < 0:
        return state._replace(ahead=state.uptime)
    if state.uptime >= state.ahead + BELIEVED_S:
        return state._replace(clock=now.wall, ahead=-1.0)
    return state


def _believe(lease: Lease, state: State, seen: Seen) -> State:
    """Take the tag where it is a time; an unreadable or strange one changes nothing."""
    deadline = state.deadline
    if lease.deadline != state.file:  # at first, and where the file is how a lease is extended
        deadline, state = lease.deadline, state._replace(file=lease.deadline)
    if LEAST < seen.tag < MOST:
        deadline = seen.tag
    if seen.contact and not state.contact:
        state = state._replace(contact=True, active=state.uptime)  # nobody can be idle before that
    return state._replace(deadline=deadline)


def _why(lease: Lease, state: State, seen: Seen, over: bool) -> str:
    """Return why the machine must end, or nothing."""
    if state.rescue:
        held = seen.fetching and state.uptime < lease.rescue_most_s
        return "rescue" if state.uptime >= min(RESCUE_S, lease.rescue_most_s) and not held else ""
    if over:
        return "deadline"
    if not state.contact and state.uptime >= lease.first_contact_s:
        return "no-contact"
    return "idle" if _idle_left(lease, state, seen) <= 0 else ""


def _idle_left(lease: Lease, state: State, seen: Seen) -> float:
    """Return the seconds until idleness ends the machine; it never does what was not agreed.

    `keep` keeps it to the deadline; where a power-off deletes the disk, an unfetched
    checkpoint does as well.
    """
    kept = lease.after_training == "keep" or (lease.after_training == "terminate" and seen.unfetched)
    if kept or lease.idle_s <= 0 or not state.contact:
        return float("inf")
    return state.active + lease.idle_s - state.uptime


def _warn(lease: Lease, state: State, seen: Seen, running: list[Session]) -> tuple[State, list[Any]]:
    """Say what is coming, each thing once."""
    actions: list[Any] = []
    left = state.deadline - state.clock
    idle = _idle_left(lease, state, seen)
    due = {
        "deadline-soon": (0 < left <= SOON_S, "the lease ends in 10 minutes or less"),
        "idle-soon": (idle <= 120, "idle: powering off in 2 minutes unless the machine is used"),
        "rebalance": (seen.rebalance, "EC2 says that this spot machine may soon be taken back"),
        "spot": (bool(seen.spot), f"EC2 takes this spot machine back now ({seen.spot})"),
    }
    for kind, (is_due, text) in due.items():
        mark = "{} {}".format(kind, state.deadline if kind == "deadline-soon" else "")
        if is_due and mark not in state.said:
            state = state._replace(said=(*state.said, mark))
            actions.append(Notice(kind, text))
            if kind in ("spot", "rebalance"):
                actions += [Tell(s.folder, kind, text, state.clock + 110) for s in running]
        elif not is_due and kind == "idle-soon":
            state = state._replace(said=tuple(one for one in state.said if one != mark))
    return state, actions


def _resume(state: State, seen: Seen) -> tuple[State, list[Any]]:
    """Start again what was interrupted, seen so twice; three times in ten minutes at most."""
    actions: list[Any] = []
    broken = tuple(s.folder for s in seen.sessions if s.state == "interrupted")
    resumed = dict(state.resumed)
    for folder in broken:
        if folder not in state.broken:
            continue
        count, last = resumed.get(folder, [0, 0])
        if state.uptime >= last + TRIES_S:
            count = 0
        if count < TRIES:
            actions += [Notice("resume", f"continuing {folder}"), Resume(folder)]
            resumed[folder] = [count + 1, state.uptime]
        elif "gave-up " + folder not in state.said:
            state = state._replace(said=(*state.said, "gave-up " + folder))
            actions.append(Notice("gave-up", f"{folder} did not start again"))
            resumed[folder] = [count, float("inf")]
    tried = tuple(action.folder for action in actions if isinstance(action, Resume))
    waiting = tuple(folder for folder in broken if folder not in tried)
    return state._replace(broken=waiting, resumed=resumed), actions


# Looking


class Metadata:
    """EC2's metadata service, version 2. Plain sockets: urllib would double the guard's memory."""

    def __init__(self, base: str) -> None:
        self.name = base.rpartition("//")[2].rstrip("/")
        self.host, _, port = self.name.partition(":")
        self.port = int(port or 80)
        self.token, self.until, self.date = "", 0.0, 0.0

    def get(self, path: str) -> str:
        """Return the text, "" when there is no such thing. Raises OSError without an answer."""
        if time.monotonic() >= self.until:
            ttl = "X-aws-ec2-metadata-token-ttl-seconds: 21600"
            code, self.token = self._ask("PUT", "api/token", ttl)
            if code != 200:
                raise OSError(f"no token: {code}")
            self.until = time.monotonic() + 10_000
        code, text = self._ask("GET", "meta-data/" + path, "X-aws-ec2-metadata-token: " + self.token)
        if code == 401:
            self.until = 0.0
        if code not in (200, 404):
            raise OSError(f"{path}: {code}")
        return text.strip() if code == 200 else ""

    def _ask(self, method: str, path: str, header: str) -> tuple[int, str]:
        ends = time.monotonic() + 2
        with socket.create_connection((self.host, self.port), 1) as link:
            head = "{} /latest/{} HTTP/1.0\r\nHost: {}\r\n{}\r\nContent-Length: 0\r\n\r\n"
            link.sendall(head.format(method, path, self.name, header).encode())
            answer = b""
            while len(answer) < 65536 and time.monotonic() < ends:
                piece = link.recv(4096)
                if not piece:
                    break
                answer += piece
        text, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
        lines = text.split("\r\n")
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "date":
                self.date = calendar.timegm(time.strptime(value.strip(), "%a, %d %b %Y %H:%M:%S GMT"))
        return int(lines[0].split()[1]), body


class Look:
    """Everything the guard can see. Each part fails alone, and then says nothing."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.contact: list[str] = config.get("contact") or []
        runs: list[str] = config.get("runs") or []  # where there are no others
        self.runs = [path + "/" for path in runs]
        self.metadata = Metadata(config["imds"]) if config.get("imds") else None
        self.before: dict[str, float] = {}
        self.ticks: dict[int, int] = {}
        self.slow_at, self.gpu = 0.0, ""
        self.smi: list[subprocess.Popen[bytes]] = []
        self.inside: set[int] = set()  # what belongs to Jupyter kernels

    def __call__(self, now: Now) -> Seen:
        """Look once."""
        seen = Seen()
        for part in (self._notices, self._runs, self._uses):
            try:
                seen = part(seen, now)
            except Exception as error:  # noqa: BLE001 - one blind eye must not close the others
                say(f"cannot look ({part.__name__}): {error!r}")
        return seen

    def _notices(self, seen: Seen, _now: Now) -> Seen:
        if self.metadata is None:
            return seen
        self.metadata.date = 0.0
        try:
            action = self.metadata.get("spot/instance-action")
            seen = seen._replace(spot=str(json.loads(action).get("action", "stop")) if action else "")
            seen = seen._replace(rebalance=bool(self.metadata.get("events/recommendations/rebalance")))
        except (OSError, ValueError):
            pass  # the tag is asked for all the same
        try:
            text = self.metadata.get("tags/instance/cloudtrain-deadline")
            seen = seen._replace(tag=int(text) if text.isdigit() else 0)
        except (OSError, ValueError):
            pass
        return seen._replace(date=self.metadata.date)

    def _runs(self, seen: Seen, now: Now) -> Seen:
        found = [path for pattern in self.contact for path in glob.glob(pattern)]
        runs = self.runs or [run for path in found for run in glob.glob(path + "/*/")]
        sessions = tuple(s for s in (newest_session(run, now.boot) for run in runs) if s is not None)
        fetching = any(abs(now.wall - modified(run + "fetching")) < FRESH_S for run in runs)
        unfetched = any(0 < secured_in(run) > modified(run + "fetched") for run in runs)
        working = [path for run in runs for path in glob.glob(run + "working") + glob.glob(run + "logs/*")]
        active = "work of ours" if self.changed(working, "st_mtime") else ""
        return seen._replace(
            contact=bool(found), sessions=sessions, fetching=fetching, unfetched=unfetched, active=active
        )

    def _uses(self, seen: Seen, now: Now) -> Seen:
        # A terminal's read time is its input; its write time would be a forgotten `watch`.
        typed = self.changed(glob.glob("/dev/pts/[0-9]*"), "st_atime")
        if now.uptime >= self.slow_at:
            self.slow_at = now.uptime + 30
            kernel = self._kernels()
            self.gpu = self._gpu() or kernel
        return seen._replace(active=seen.active or ("a terminal" if typed else "") or self.gpu)

    def changed(self, paths: list[str], of: str) -> bool:
        """Whether one of the times is another than at the last look; the first look is no change."""
        changed = False
        for path in paths:
            try:
                value = getattr(os.stat(path), of)
            except OSError:
                continue
            changed = changed or self.before.get(path, value) != value
            self.before[path] = value
        return changed

    def _gpu(self) -> str:
        """Read the last answers of nvidia-smi and ask again; never wait: a sick driver hangs it.

        Where a GPU cannot tell its load (MIG), a process on it is use, but for a Jupyter kernel's: of
        those only the computing counts.
        """
        asked, self.smi = self.smi, []
        said = [b"", b""]
        for number, smi in enumerate(asked):
            if smi.poll() is None:
                smi.kill()  # and forgotten: one that hangs in the kernel cannot be waited for
            else:
                said[number] = smi.communicate()[0]
        load, apps = ([int(word) for word in text.split() if word.isdigit()] for text in said)
        queries = ["--query-gpu=utilization.gpu"] + ["--query-compute-apps=pid"] * (b"N/A" in said[0])
        for query in queries:
            command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
            try:
                smi = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                self.smi.append(smi)
            except OSError:
                pass  # no GPU, no driver
        return "the GPU" if max(load or [0]) >= 5 or set(apps) - self.inside else ""

    def _kernels(self) -> str:
        """Whether a Jupyter kernel has computed: a twentieth of a core since the last look.

        What it has started counts with it (`!python train.py`); a child that only sleeps holds nothing.
        """
        before, self.ticks, self.inside = self.ticks, {}, set()
        parents: dict[int, int] = {}
        used: dict[int, int] = {}
        kernels: set[int] = set()
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                pid = int(path.split("/")[2])
                fields = stat_of(pid)
                parents[pid], used[pid] = int(fields[1]), sum(int(word) for word in fields[11:15])
                with open(path, "rb") as file:
                    if b"ipykernel" in file.read(4096):
                        kernels.add(pid)
            except (OSError, ValueError, IndexError):
                continue
        for pid, ticks in used.items():
            kernel = pid
            while kernel and kernel not in kernels:
                kernel = parents.get(kernel, 0)
            if kernel:
                self.inside.add(pid)
                self.ticks[kernel] = self.ticks.get(kernel, 0) + ticks
        least = 30 * os.sysconf("SC_CLK_TCK") // 20
        busy = [pid for pid, ticks in self.ticks.items() if ticks - before.get(pid, ticks) >= least]
        return "a Jupyter kernel" if busy else ""


def newest_session(run: str, boot: str) -> Session | None:
    """Read the newest session of a run, None when there is none that began."""
    folders = sorted(path for path in glob.glob(run + "sessions/[0-9]*") if os.path.isdir(path))
    if not folders or not os.path.exists(folders[-1] + "/started"):
        return None
    folder = folders[-1]
    alive = any(alive_in(folder + "/" + name, boot) for name in ("supervisor", "trainer"))
    code = words(folder + "/exit")  # asked after the processes: who has gone by then has written it
    if code:
        state = "finished" if code[0] == "0" else "failed"
    elif alive:
        state = "running"
    else:
        state = "failed" if os.path.exists(folder + "/stop") else "interrupted"
    return Session(folder, state, modified(folder + "/secured"))


def secured_in(run: str) -> float:
    """Return when a run last had something to bring home, of whichever session; 0 for never."""
    kinds = ("sessions/*/secured", "runs/*/evolve.csv", "runs/*/tune_results.ndjson")
    return max([modified(path) for kind in kinds for path in glob.glob(run + kind)] or [0.0])


def alive_in(file: str, boot: str) -> int:
    """Return the process remembered in a file as `boot pid start-time`, 0 when it is gone."""
    said = words(file)
    if len(said) != 3 or said[0] != boot:
        return 0
    try:
        fields = stat_of(int(said[1]))
        return int(said[1]) if fields[0] not in "ZX" and fields[19] == said[2] else 0
    except (OSError, ValueError, IndexError):
        return 0


def stat_of(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may hold anything."""
    with open(f"/proc/{pid}/stat", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def started_by(folder: str) -> list[int]:
    """Return every process that a session's trainer is or has started, by its environment."""
    mark = b"CLOUDTRAIN_SESSION=" + os.fsencode(folder)
    found: list[int] = []
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as file:
                if mark in file.read().split(b"\0"):
                    found.append(int(path.split("/")[2]))
        except (OSError, ValueError):
            continue
    return found


def with_what_it_runs(pid: int) -> list[int]:
    """Return a trainer, and after it what it runs if it is a shell.

    The shell ends before it could go on behind a command that ended. Nothing else is asked to end
    with a trainer: it needs its workers for a last checkpoint.
    """
    shell = "".join(words(f"/proc/{pid}/comm")).endswith("sh")
    return [pid, *map(int, words(f"/proc/{pid}/task/{pid}/children") if shell else [])]


def words(path: str) -> list[str]:
    """Return a small file's words, none when it cannot be read."""
    try:
        with open(path, errors="replace") as file:
            return file.read(4096).split()
    except OSError:
        return []


def modified(path: str) -> float:
    """Return a file's time of change, 0 when there is none."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def clock(booted: float) -> Now:
    """Read the clocks. The uptime goes on while the machine sleeps, and nobody can set it.

    `booted` is the uptime at which the machine began, where it shares the kernel of another.
    """
    return Now(
        time.time(),
        time.clock_gettime(time.CLOCK_BOOTTIME) - booted,
        words("/proc/sys/kernel/random/boot_id")[0],
    )


# Doing


class Hands:
    """Does what was decided. Nothing here is waited for."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.state: str = config.get("state") or "/var/lib/cloudtrain-guard"
        self.poweroff: list[str] = config.get("poweroff") or []
        self.notify: str = config.get("notify") or ""
        self.children: list[subprocess.Popen[Any]] = []
        self.beside = bool(config.get("beside"))
        self.cannot = [] if self.poweroff else ["power off: it ends the sessions instead"]
        self.saved = 0.0

    def __call__(self, action: Any, state: State, seen: Seen) -> None:
        """Do one thing."""
        say(repr(action))
        if isinstance(action, Notice):
            self._notice(action, state)
        elif isinstance(action, Tell):
            text = {"kind": action.kind, "text": action.text, "at": state.clock, "by": action.by}
            write(action.folder + "/notice", text if action.kind else None)
        elif isinstance(action, Resume):
            self._as_owner(action.folder, ["bash", action.folder + "/resume.sh"])
        elif isinstance(action, PowerOff):
            self._power_off(action, state, seen)

    def _notice(self, action: Notice, state: State) -> None:
        path = self.state + "/notice.json"
        before = read(path).get("notices", [])
        write(
            path, {"notices": [*before[-19:], {"kind": action.kind, "text": action.text, "at": state.clock}]}
        )
        if not self.beside:  # others work on that host
            self.start(["wall", "cloudtrain: " + action.text])
        if self.notify:
            told = {"CLOUDTRAIN_KIND": action.kind, "CLOUDTRAIN_NOTICE": action.text}
            self.start(["sh", "-c", self.notify], env=dict(os.environ, **told))

    def _power_off(self, action: PowerOff, state: State, seen: Seen) -> None:
        if not action.again:
            receipt = {
                "why": action.why,
                "at": state.clock,
                "deadline": state.deadline,
                "uptime": state.uptime,
            }
            sessions = [session._asdict() for session in seen.sessions]
            write(self.state + "/receipt.json", dict(receipt, sessions=sessions))
            os.sync()
        if self.poweroff:
            force = ["--force"] if state.uptime > state.since + 600 and "systemctl" in self.poweroff else []
            self.start(self.poweroff + force)
            return
        for session in seen.sessions:
            if session.state in ("running", "interrupted"):
                write(session.folder + "/stop", {})
            trainer = alive_in(session.folder + "/trainer", state.boot)
            asked = with_what_it_runs(trainer) if trainer else []
            if action.again or not trainer:
                asked += started_by(session.folder)
            for pid in asked:
                try:
                    os.kill(pid, signal.SIGKILL if action.again else signal.SIGTERM)
                except OSError:
                    pass  # gone, or another's

    def _as_owner(self, folder: str, command: list[str]) -> None:
        """Run as the user whose folder it is: root must not run what another can write."""
        who = pwd.getpwuid(os.lstat(folder).st_uid)

        def become() -> None:
            os.initgroups(who.pw_name, who.pw_gid)
            os.setgid(who.pw_gid)
            os.setuid(who.pw_uid)

        home = {"HOME": who.pw_dir, "USER": who.pw_name, "LOGNAME": who.pw_name, "SHELL": who.pw_shell}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        root = os.geteuid() == 0
        env = dict(home, PATH=path, LANG="C.UTF-8") if root else None
        self.start(command, env=env, preexec_fn=become if root else None, cwd=folder)

    def start(self, command: list[str], **how: Any) -> None:
        """Start a command in a session of its own; one that is not there is only noted."""
        self.children = [child for child in self.children if child.poll() is None]
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        try:
            self.children.append(subprocess.Popen(command, start_new_session=True, **quiet, **how))
        except (OSError, subprocess.SubprocessError) as error:
            say(f"cannot run {command[0]}: {error}")

    def save(self, lease: Lease, before: State, state: State, seen: Seen) -> None:
        """Write memory and status: when something happened, and else once a minute."""
        quiet = {"clock": 0, "uptime": 0, "active": 0}
        if before._replace(**quiet) == state._replace(**quiet) and state.uptime < self.saved + 60:
            return
        self.saved = state.uptime
        write(self.state + "/state.json", dict(state._asdict()))
        status: dict[str, Any] = {"at": state.clock, "deadline": state.deadline, "away": state.away}
        status.update(idle_for_s=state.uptime - state.active, idle_after_s=lease.idle_s)
        status.update(ending=state.why, rescue=state.rescue, contact=state.contact, cannot=self.cannot)
        status.update(active=seen.active, spot=seen.spot, rebalance=seen.rebalance)
        write(self.state + "/status.json", status)


def write(path: str, value: dict[str, Any] | None) -> None:
    """Write JSON whole, as the folder's owner, following no link; None removes the file."""
    folder, part = os.path.dirname(path), path + ".part"
    for old in (part,) if value is not None else (part, path):
        try:
            os.unlink(old)
        except OSError:
            pass
    if value is None:
        return
    try:
        owner = os.lstat(folder)
        if not stat.S_ISDIR(owner.st_mode):
            return
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "w"
        ) as file:
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, path)
    except OSError as error:
        say(f"cannot write {path}: {error}")  # a full disk must not stop the guard


def read(path: str) -> dict[str, Any]:
    """Return a file's JSON object, an empty one when there is none."""
    try:
        with open(path) as file:
            value: Any = json.load(file)
        return dict(value)
    except (OSError, ValueError, TypeError):
        return {}


def say(text: str) -> None:
    """Write a line to the unit's journal."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass


def remembered(path: str) -> State:
    """Return the memory of the guard before this one; what is not as it should be is left out."""
    fresh = State()
    kept: dict[str, Any] = {}
    said = read(path)
    for name in State._fields:
        value: Any = said.get(name)
        wanted: Any = getattr(fresh, name)
        kinds = (type(value).__name__, type(wanted).__name__)
        if kinds == ("list", "tuple"):
            kept[name] = tuple(value)
        elif kinds == ("int", "float"):
            kept[name] = float(value)
        elif kinds[0] == kinds[1]:
            kept[name] = value
    return fresh._replace(**kept)


def over_with(session: Session, state: State) -> bool:
    """Whether nothing of a session runs any more, nor is to be started again."""
    given_up = "gave-up " + session.folder in state.said or state.why != ""
    ended = session.state in ENDED or (session.state == "interrupted" and given_up)
    return ended and not started_by(session.folder)


def lease_of(config: dict[str, Any]) -> Lease:
    """Return what was agreed, as the config says it."""
    return Lease(**{name: config[name] for name in Lease._fields if config.get(name) is not None})


def main(path: str) -> None:
    """Guard until the config file is taken away, or beside sessions until they have ended.

    Nothing that goes wrong ends the loop.
    """
    config = read(path)
    lease = lease_of(config)
    look, hands = Look(config), Hands(config)
    try:
        os.makedirs(hands.state, mode=0o755, exist_ok=True)
    except OSError as error:
        say(f"no memory: {error}")
    state = remembered(hands.state + "/state.json")
    if hands.beside:  # what ended the sessions before does not end the next one
        state = state._replace(why="", since=0.0, power=-1.0)
    while os.path.exists(path):
        try:
            lease = lease_of(read(path) or config)
            now = clock(float(config.get("booted") or 0))
            seen = look(now)
            before = state
            state, actions = decide(lease, state, seen, now)
            hands.save(lease, before, state, seen)
            for action in actions:
                hands(action, state, seen)
            if config.get("beside") and not actions and all(over_with(s, state) for s in seen.sessions):
                return
        except Exception as error:  # noqa: BLE001 - the deadline holds whatever happens
            say(f"unexpected: {error!r}")
            past = 0 < max(lease.deadline, state.deadline) < time.time() - lease.grace_s
            if past and hands.poweroff:
                hands.start(hands.poweroff)
        time.sleep(float(config.get("poll_s") or POLL_S))


if __name__ == "__main__":
    main(sys.argv[1])
