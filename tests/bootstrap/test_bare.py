"""Every step where it will run: on a freshly booted Debian with systemd, apt, sudo and nothing else."""

from __future__ import annotations

import shlex
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cloudtrain.bootstrap import Step, converge, environment_python, steps
from cloudtrain.bootstrap.environment import environment_steps
from cloudtrain.errors import ConnectError, StepError
from cloudtrain.events import Silent, Timeline
from cloudtrain.facts import gather
from cloudtrain.models.config import Config, Environment, Mirrors, Train
from cloudtrain.models.machine import Facts
from cloudtrain.models.run import Layout
from cloudtrain.models.training import StepReport
from cloudtrain.ssh.remote import Remote, connect_when_ready
from cloudtrain.workflows.converged import converged
from tests.bootstrap.mirror import installer, served, wheel
from tests.sandbox.conftest import Cloud
from tests.sandbox.support import until
from tests.support.nspawn import started, target
from tests.support.rebooting import KERNEL
from tests.support.thorough import also

UV = Config(
    environment=Environment(manager="uv", python="3.11", torch="none", packages=("six",)),
    train=Train(kind="script", command="true"),
)
VENV = replace(UV, environment=replace(UV.environment, manager="venv"))


@dataclass
class Bare:
    """A machine, our connection to it, and the steps for it."""

    cloud: Cloud
    name: str
    remote: Remote

    @property
    def layout(self) -> Layout:
        return Layout("/home/ubuntu/cloudtrain/a run-1")

    def steps(self, config: Config) -> tuple[Step, ...]:
        return steps(config, gather(self.remote), self.layout)

    def go(self, chosen: tuple[Step, ...], **options: str) -> dict[str, str]:
        only = options.get("only")
        reports = converge(self.remote, chosen, self.layout, Timeline(Silent()), only=only)
        return {report.name: report.outcome for report in reports}

    def ssh(self, command: str, code: int | None = 0) -> str:
        return self.cloud.ssh(self.name, command, code=code)

    def log(self, step: str) -> str:
        return self.ssh(f"cat {shlex.quote(f'{self.layout.logs}/{step}.log')}")

    def installed(self) -> str:
        return self.ssh("dpkg-query -W; find ~/.cloudtrain ~/cloudtrain -printf '%p %s %C@\\n' 2>/dev/null "
                        "| grep -vE '/(steps|logs)(/| )|__pycache__' | sort", code=None)  # fmt: skip


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Cloud]:
    with started(tmp_path_factory.mktemp("bare") / "state") as made:
        yield made


@contextmanager
def booted(cloud: Cloud, user_data: str = "") -> Generator[Bare]:
    name = cloud.running(UserData=cloud.user_data() + user_data)
    with connect_when_ready(target(cloud, name)) as remote:
        yield Bare(cloud, name, remote)
    cloud.end(name)


@pytest.fixture
def bare(cloud: Cloud) -> Iterator[Bare]:
    with booted(cloud) as made:
        yield made


@contextmanager
def begun(bare: Bare, chosen: tuple[Step, ...], sign: str) -> Generator[Future[dict[str, str]]]:
    """Converge in the background, from the moment that `sign` holds on the machine."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bare.go, chosen)
        until(
            lambda: running.done() or bare.ssh(f"{sign} >/dev/null && echo yes", code=None) == "yes\n",
            f"{sign} never held",
            timeout=120,
        )
        assert not running.done(), running.result()
        yield running


SLOW = "if dpkg --audit | grep -q .; then touch /run/half; sleep 5; fi"
"""Between unpacking and configuring dpkg now waits, and says so."""


def slow_dpkg(bare: Bare) -> None:
    bare.ssh(f"echo 'post-invoke=\"{SLOW}\"' | sudo tee /etc/dpkg/dpkg.cfg.d/slow")


def named(chosen: tuple[Step, ...], *names: str) -> tuple[Step, ...]:
    return tuple(step for step in chosen if step.name in names)


def test_every_step_alone(bare: Bare) -> None:
    facts = gather(bare.remote)
    assert (facts.os_id, facts.os_version, facts.systemd, facts.sudo, facts.apt) == (
        "debian",
        "12",
        *3 * (True,),
    )
    assert (facts.cloud_init, facts.screen, facts.rsync, facts.git, facts.curl) == (True, *4 * (None,))
    config = replace(UV, project=replace(UV.project, git="https://example.org/x.git"))
    chosen = bare.steps(config)
    seen: list[str] = []
    for step in chosen:
        reports = bare.go(chosen, only=step.name)
        assert reports[step.name] in ("changed", "satisfied"), step.name
        seen.append(f"{step.name} {reports[step.name]}")
        state = bare.installed()
        assert set(bare.go(chosen, only=step.name).values()) == {"satisfied"}
        assert bare.installed() == state
    assert seen[1:] == [
        "base changed",
        "uv changed",
        "environment changed",
        "packages changed",
        "opencv satisfied",
    ]
    after = gather(bare.remote)
    assert after.screen
    assert after.git
    assert after.uv == "/home/ubuntu/.cloudtrain/bin/uv"
    python = environment_python(config, after, bare.layout)
    assert bare.ssh(f"{shlex.quote(python)} -c 'import six; print(six.__name__)'") == "six\n"
    assert set(bare.go(bare.steps(config)).values()) == {"satisfied"}


def test_cloud_init_is_waited_for(cloud: Cloud) -> None:
    slow = "runcmd:\n  - [sh, -c, 'sleep 6; apt-get -q update; touch /var/tmp/done']\n"
    with booted(cloud, slow) as bare:
        assert bare.ssh("ls /var/tmp/done 2>&1", code=2)
        chosen = bare.steps(VENV)
        reports = bare.go(chosen)
        assert (reports["cloud-init"], reports["base"]) == ("changed", "changed")
        assert bare.ssh("ls /var/tmp/done") == "/var/tmp/done\n"
        assert set(bare.go(chosen).values()) == {"satisfied"}


@pytest.mark.parametrize("lock", ["/var/lib/dpkg/lock-frontend", also("/var/lib/apt/lists/lock")])
def test_another_apt_is_waited_for(bare: Bare, lock: str) -> None:
    hold = f"import fcntl, time; f = open('{lock}', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); time.sleep(8)"
    bare.ssh(
        f'sudo setsid python3 -c "{hold}" >held 2>/dev/null </dev/null & until [ -s held ]; do sleep 0.1; done'
    )
    assert bare.go(named(bare.steps(VENV), "cloud-init", "base"))["base"] == "changed"


def test_killed_half_way_it_is_repaired(bare: Bare) -> None:
    chosen = named(bare.steps(VENV), "cloud-init", "base")
    slow_dpkg(bare)
    with begun(bare, chosen, "ls /run/half") as running:
        bare.ssh(
            "sudo rm /etc/dpkg/dpkg.cfg.d/slow; sudo pkill -9 -f '^apt-get|/usr/bin/dpkg|steps/base.sh'",
            code=None,
        )
        with pytest.raises(StepError, match="step `base`") as caught:
            running.result(60)
    assert "logs/base.log" in caught.value.message
    assert "cloudtrain up" in caught.value.hint
    assert bare.go(chosen)["base"] == "changed"
    assert bare.ssh("dpkg --audit; screen -v") != ""
    assert set(bare.go(chosen).values()) == {"satisfied"}


def test_a_reboot_during_apt_is_repaired(bare: Bare) -> None:
    chosen = named(bare.steps(VENV), "cloud-init", "base")
    slow_dpkg(bare)
    with begun(bare, chosen, "ls /run/half") as running:
        bare.ssh("sudo rm /etc/dpkg/dpkg.cfg.d/slow; sudo systemctl reboot --force --force", code=None)
        with pytest.raises((ConnectError, StepError)):
            running.result(120)
    bare.remote.reopen()
    assert bare.go(chosen)["base"] == "changed"
    assert bare.ssh("dpkg --audit") == ""
    assert set(bare.go(chosen).values()) == {"satisfied"}


def test_a_line_that_broke_does_not_break_the_step(bare: Bare) -> None:
    chosen = named(bare.steps(VENV), "cloud-init", "base")
    slow_dpkg(bare)
    with begun(bare, chosen, "ls /run/half") as running:
        bare.remote.connection.close()  # as a line that broke; `close` would be for good
        with pytest.raises(ConnectError):
            running.result(60)
    bare.remote.reopen()
    assert bare.go(chosen)["base"] == "satisfied"  # it waited for what the machine was still doing


@pytest.mark.parametrize(
    ("step", "full"),
    [
        ("base", "/var/cache/apt/archives"),
        also("uv", "/home/ubuntu/.cloudtrain"),
        also("environment", "/home/ubuntu/cloudtrain"),
    ],
)
def test_a_full_disk_is_said_and_repaired(bare: Bare, step: str, full: str) -> None:
    chosen = bare.steps(UV)
    needs = next(s for s in chosen if s.name == step).needs
    bare.go(named(chosen, *needs, "cloud-init"))
    bare.ssh(f"mkdir -p {full}; sudo mount -t tmpfs -o size=64k,mode=777 tmpfs {full}")
    with pytest.raises(StepError, match=r"(?i)no space left|enough free space|write error"):
        bare.go(named(chosen, *needs, "cloud-init", step))
    bare.ssh(f"sudo umount -l {full}")
    assert bare.go(chosen)[step] == "changed"
    assert set(bare.go(chosen).values()) == {"satisfied"}


def test_a_reboot_in_the_middle(bare: Bare) -> None:
    def chosen(facts: Facts) -> tuple[Step, ...]:
        found = steps(UV, facts, bare.layout)
        later = [
            replace(s, needs=(*s.needs, KERNEL.name)) if s.name in ("uv", "environment") else s for s in found
        ]
        return (*later[:2], KERNEL, *later[2:])

    drained: list[str] = []
    reports = _converged(bare, chosen, lambda: drained.append("drained"), ours=True)
    outcomes = [(report.name, report.outcome) for report in reports if report.name != "cloud-init"]
    names = ("base", "kernel", "uv", "environment", "packages")
    assert outcomes == [*((name, "changed") for name in names), ("opencv", "satisfied")]
    assert drained == ["drained"]
    again = _converged(bare, chosen, drained.clear, ours=True)
    assert {report.outcome for report in again} == {"satisfied"}
    assert drained == ["drained"]


def test_a_machine_of_the_users_own_is_not_rebooted(bare: Bare) -> None:
    step = Step(name="kernel", reason="a test", check="false", apply="exit 194", root=True)
    uptime = "cat /proc/sys/kernel/random/boot_id"
    before = bare.ssh(uptime)
    with pytest.raises(StepError, match="this machine is yours"):
        _converged(bare, lambda _: (step,), lambda: None, ours=False)
    assert bare.ssh(uptime) == before


def _converged(
    bare: Bare, chosen: Callable[[Facts], tuple[Step, ...]], drained: Callable[[], None], *, ours: bool
) -> tuple[StepReport, ...]:
    ready = threading.Event()
    ready.set()
    return converged(
        bare.remote,
        chosen,
        gather(bare.remote),
        bare.layout,
        Timeline(Silent()),
        ready=ready,
        drained=drained,
        ours=ours,
    )


@pytest.fixture
def mirror(cloud: Cloud, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that the machines can fetch from: the host as their network sees it."""
    from cloudtrain.sandbox.nspawn.network import bridge_name

    shown = ["ip", "-4", "-o", "addr", "show", "dev", bridge_name(cloud.state)]
    gateway = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()[3]
    with served(tmp_path, gateway.partition("/")[0]) as address:
        yield tmp_path, address


def conda(address: str, **more: str) -> Config:
    environment = Environment(manager="conda", python="3.11", torch="none", packages=("cloudtrain-tiny",))
    mirrors = Mirrors(package_index=f"{address}/simple", conda_installer=address, **more)
    return Config(environment=environment, train=UV.train, mirrors=mirrors)


def conda_steps(bare: Bare, config: Config, folder: Path, sha256: str = "") -> tuple[Step, ...]:
    facts = gather(bare.remote)
    pin = installer(folder)
    pins = {facts.arch: replace(pin, sha256=sha256 or pin.sha256)}
    made = environment_steps(config, facts, bare.layout, installers=pins)
    rest = [
        step for step in steps(config, facts, bare.layout) if step.name not in ("miniconda", "environment")
    ]
    return (*rest[:2], *made, *rest[2:])


def test_miniconda_by_a_stand_in(bare: Bare, mirror: tuple[Path, str]) -> None:
    folder, address = mirror
    wheel(folder, "cloudtrain-tiny", "1.0")
    config = conda(address)
    bare.go(named(bare.steps(VENV), "cloud-init", "base"))  # the stand-in's conda makes a venv
    with pytest.raises(StepError, match="checksum did NOT match"):
        bare.go(conda_steps(bare, config, folder, "0" * 64), only="miniconda")
    assert bare.ssh("ls -d ~/.cloudtrain/miniconda3 2>/dev/null", code=2) == ""

    defaults = replace(config, mirrors=replace(config.mirrors, conda_channel="defaults"))
    with pytest.raises(StepError, match="Terms of Service have not been accepted"):
        bare.go(conda_steps(bare, defaults, folder))
    bare.ssh("rm ~/.cloudtrain/miniconda3/bin/conda")  # what a killed installer leaves behind
    chosen = conda_steps(bare, config, folder)
    reports = bare.go(chosen)
    assert (reports["miniconda"], reports["environment"], reports["packages"]) == 3 * ("changed",)
    assert set(bare.go(chosen).values()) == {"satisfied"}
    assert bare.ssh("ls ~/.cloudtrain/installer.* 2>/dev/null", code=2) == ""
    python = shlex.quote(environment_python(config, gather(bare.remote), bare.layout))
    assert bare.ssh(f"{python} -c 'import cloudtrain_tiny as t; print(t.__version__)'") == "1.0\n"


def test_a_mirror_of_apts_is_used(bare: Bare, mirror: tuple[Path, str]) -> None:
    _, address = mirror
    config = replace(VENV, mirrors=Mirrors(apt=f"{address}/nowhere"))
    with pytest.raises(StepError, match="step `base`"):
        bare.go(named(bare.steps(config), "cloud-init", "apt-mirror", "base"))
    assert f"{address}/nowhere" in bare.log("base")
    bare.ssh("sudo cp /etc/apt/sources.list.before-cloudtrain /etc/apt/sources.list")
    assert bare.go(named(bare.steps(VENV), "cloud-init", "base"))["base"] == "changed"
