"""Hosts of the user's own: trust, the way in, what is taken, what is left."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudtrain.errors import (
    AuthenticationFailed,
    CapacityError,
    CloudError,
    GoneError,
    HostKeyMismatch,
    RefusedError,
    UsageError,
)
from cloudtrain.journal.folder import RunFolder, create
from cloudtrain.models.config import Config, Host
from cloudtrain.models.plan import LaunchSpec
from cloudtrain.models.tags import run_tags
from cloudtrain.providers.ssh import ledger
from cloudtrain.providers.ssh.account import REGION
from cloudtrain.providers.ssh.presence import leave
from cloudtrain.providers.ssh.provider import SshProvider
from cloudtrain.providers.ssh.taking import Leaving
from cloudtrain.ssh import keys, openssh
from cloudtrain.ssh.keys import fingerprint
from cloudtrain.ssh.remote import connect
from cloudtrain.ssh.userconfig import resolve
from tests.support.sshd import Sshd, free_port, stopped


def host_of(sshd: Sshd, **more: object) -> Host:
    values: dict[str, object] = {
        "address": "127.0.0.1",
        "port": sshd.port,
        "user": sshd.target.user,
        "key": str(sshd.target.key),
        "fingerprint": fingerprint(sshd.host_key.public),
        **more,
    }
    return Host(**values)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return new_run("own", tmp_path)


def new_run(name: str, project: Path) -> RunFolder:
    owner = SshProvider(()).identity().owner
    return create(name=name, owner=owner, provider="ssh", region=REGION, project=project)


def spec(provider: SshProvider, folder: RunFolder) -> LaunchSpec:
    survey = provider.survey(Config())
    return LaunchSpec(
        type=survey.offers[0].type, market="on-demand", zone=None, image=survey.image, volume_gb=0, user_data="",
        key_name="", security_group="", subnet=None, tags=run_tags(folder.run()), after_power_off="stop",
    )  # fmt: skip


def take(provider: SshProvider, folder: RunFolder, token: str = "t") -> str:
    machine = provider.launch(spec(provider, folder), token, folder)
    folder.update(machine=machine.id, address=machine.address)
    folder.admit(machine.login)
    return machine.id


class Answers:
    """Somebody at the terminal."""

    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, question: str) -> bool:
        self.asked.append(question)
        return self.answer


def test_the_fingerprint_is_asked_for_once_and_pinned(sshd: Sshd, folder: RunFolder, tmp_path: Path) -> None:
    yes = Answers(answer=True)
    provider = SshProvider((host_of(sshd, fingerprint=None),), confirm=yes)
    take(provider, folder)
    assert len(yes.asked) == 1
    assert fingerprint(sshd.host_key.public) in yes.asked[0]
    assert keys.pinned(folder.known_hosts, folder.path.name) == (" ".join(sshd.host_key.public.split()[:2]),)
    with connect(folder.target()) as remote:
        assert remote.run("echo in").stdout == "in\n"
    second = new_run("second", tmp_path / "other")
    take(provider, second)
    assert len(yes.asked) == 1


def test_without_a_yes_nothing_is_sent(sshd: Sshd, folder: RunFolder) -> None:
    for confirm in (Answers(answer=False), None):
        with pytest.raises(RefusedError, match="host key"):
            take(SshProvider((host_of(sshd, fingerprint=None),), confirm=confirm), folder)
    log = sshd.log.read_text()
    assert "Accepted" not in log
    assert "user" not in log.lower().replace("userauth", "")
    assert not (sshd.home / "cloudtrain").exists()
    assert ledger.rows(folder.path.name) == ()


def test_another_fingerprint_is_a_mismatch_before_authentication(sshd: Sshd, folder: RunFolder) -> None:
    other = fingerprint(keys.generate("x").public)
    with pytest.raises(HostKeyMismatch, match="SHA256"):
        take(SshProvider((host_of(sshd, fingerprint=other),)), folder)
    assert sshd.handshakes() == 0


def test_the_fingerprint_may_be_of_any_kind_the_host_has(tmp_path: Path, folder: RunFolder) -> None:
    rsa = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa], check=True)
    public = rsa.with_suffix(".pub").read_text()
    with stopped(Sshd(tmp_path / "machine", options=f"HostKey {rsa}\n")) as sshd:
        take(SshProvider((host_of(sshd, fingerprint=fingerprint(public)),)), folder)
        assert keys.pinned(folder.known_hosts, folder.path.name)[0].startswith("ssh-rsa ")
        connect(folder.target()).close()


def test_a_host_that_does_not_answer_is_no_capacity_and_the_next_is_tried(
    sshd: Sshd, folder: RunFolder
) -> None:
    dead = Host(address="127.0.0.1", port=free_port(), user="me", fingerprint="SHA256:" + "a" * 43)
    with pytest.raises(CapacityError, match="does not answer"):
        take(SshProvider((dead, host_of(sshd))), folder)
    assert ledger.rows(folder.path.name) == ()


def test_a_refused_login_leaves_no_trace(sshd: Sshd, folder: RunFolder, tmp_path: Path) -> None:
    keys.write_private(tmp_path / "stranger", keys.generate("s").private)
    with pytest.raises(AuthenticationFailed):
        take(SshProvider((host_of(sshd, key=str(tmp_path / "stranger")),)), folder)
    assert ledger.rows(folder.path.name) == ()
    assert not (sshd.home / "cloudtrain").exists()


def test_taking_twice_is_once_and_letting_go_ends_the_token(sshd: Sshd, folder: RunFolder) -> None:
    provider = SshProvider((host_of(sshd),))
    first = take(provider, folder)
    before = sshd.handshakes()
    assert provider.launch(None, "t", folder).id == first
    assert provider.wait_running(first, 1).address == "127.0.0.1"
    assert sshd.handshakes() == before
    provider.terminate((first,), 10)
    with pytest.raises(GoneError):
        provider.launch(None, "t", folder)
    with pytest.raises(CloudError):
        provider.wait_running(first, 1)


def test_killed_between_row_and_marker_it_is_marked_by_the_next(sshd: Sshd, folder: RunFolder) -> None:
    provider = SshProvider((host_of(sshd),))
    machine = take(provider, folder)
    (row,) = ledger.rows(folder.path.name)
    marker = sshd.home / "cloudtrain" / folder.path.name / "run.json"
    marker.unlink()
    from dataclasses import replace

    ledger.put(replace(row, marked=False))
    assert [one.state for one in provider.observe(folder.run()).machines] == ["running"]
    provider.wait_running(machine, 1)
    assert json.loads(marker.read_text())["run"] == folder.path.name


def test_stop_is_refused_and_start_changes_nothing(sshd: Sshd, folder: RunFolder) -> None:
    provider = SshProvider((host_of(sshd),))
    machine = take(provider, folder)
    with pytest.raises(RefusedError, match="never stops"):
        provider.stop(machine)
    provider.start(machine)
    with pytest.raises(GoneError):
        provider.start("elsewhere/own-00000000")


def test_two_runs_on_one_host_do_not_touch_each_other(sshd: Sshd, tmp_path: Path) -> None:
    provider = SshProvider((host_of(sshd),), leaving=Leaving(remove=True))
    runs = [new_run(name, tmp_path / name) for name in ("one", "two")]
    machines = [take(provider, run) for run in runs]
    roots = [sshd.home / "cloudtrain" / run.path.name for run in runs]
    (sshd.home / ".cloudtrain").mkdir()
    sleepers = [sleeper(sshd, root) for root in roots]
    stranger = sleeper(sshd, tmp_path / "elsewhere")
    try:
        provider.terminate((machines[0],), 10)
        assert sleepers[0].wait(10) != 0
        assert sleepers[1].poll() is None
        assert not roots[0].exists()
        assert (roots[1] / "run.json").exists()
        assert (sshd.home / ".cloudtrain").exists()
        provider.terminate((machines[1],), 10)
        assert sleepers[1].wait(10) != 0
        assert not (sshd.home / ".cloudtrain").exists()
        assert not (sshd.home / "cloudtrain").exists()
        assert stranger.poll() is None
    finally:
        for one in (*sleepers, stranger):
            one.kill()
            one.wait()


def sleeper(sshd: Sshd, root: Path) -> subprocess.Popen[bytes]:
    """A process as a session of a run starts them."""
    environ = {**os.environ, "HOME": str(sshd.home), "CLOUDTRAIN_SESSION": f"{root}/sessions/001"}
    return subprocess.Popen(["tail", "-f", "/dev/null"], env=environ)


def test_a_box_of_an_engine_that_only_root_may_ask_goes_too(sshd: Sshd) -> None:
    asked = sshd.folder / "asked"
    docker = f'[ -n "${{AS_ROOT-}}" ] && echo "$*" >>"{asked}" && case $1 in ps) echo c0ffee ;; esac'
    sshd.bring({"sudo": '[ "$1" = -n ] && shift && AS_ROOT=1 exec "$@"', "docker": docker})
    (sshd.home / "cloudtrain" / "own-1").mkdir(parents=True)
    with connect(sshd.target) as remote:
        leave(remote, "own-1", remove=True)
    assert asked.read_text().splitlines()[1:] == [
        "ps --all --quiet --filter label=cloudtrain.run=own-1",
        "rm --force c0ffee",
        "image rm --force cloudtrain/own-1",
    ]


def test_a_run_whose_name_begins_like_anothers_is_another(sshd: Sshd, tmp_path: Path) -> None:
    provider = SshProvider((host_of(sshd),))
    run = new_run("own", tmp_path)
    machine = take(provider, run)
    other = sleeper(sshd, Path(f"{sshd.home}/cloudtrain/{run.path.name}x"))
    try:
        provider.terminate((machine,), 10)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_host_that_is_gone_is_let_go_only_when_asked(sshd: Sshd, folder: RunFolder) -> None:
    provider = SshProvider((host_of(sshd),))
    machine = take(provider, folder)
    sshd.stop()
    with pytest.raises(CloudError, match="tidily"):
        provider.terminate((machine,), 10)
    assert not provider.observe(folder.run()).empty
    SshProvider((), leaving=Leaving(give_up=True)).terminate((machine,), 10)
    assert provider.observe(folder.run()).empty


def test_one_host_that_fails_does_not_hide_another(sshd: Sshd, folder: RunFolder, tmp_path: Path) -> None:
    dead = Host(address="127.0.0.1", port=free_port(), user="me", fingerprint="SHA256:" + "a" * 43)
    provider = SshProvider((dead, host_of(sshd)))
    take(SshProvider((host_of(sshd),)), folder)
    sweep = provider.sweep(provider.identity().owner)
    assert [(one.run, one.mine) for one in sweep.found] == [(folder.path.name, True)]
    assert len(sweep.missing) == 1
    assert "does not answer" in sweep.missing[0]
    checks = [probe.ask() for probe in provider.probes(Config())]
    assert [check.state for check in checks] == ["fail", "ok"]


def test_a_stranger_is_never_asked_by_an_audit(sshd: Sshd) -> None:
    provider = SshProvider((host_of(sshd, fingerprint=None),))
    assert len(provider.sweep("0" * 12).missing) == 1
    assert sshd.handshakes() == 0


def test_a_host_without_what_training_needs_is_let_go_at_once(tmp_path: Path, folder: RunFolder) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "uname", "mkdir", "mv", "sync", "cat", "env"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    with stopped(Sshd(tmp_path / "machine", path=str(programs))) as sshd:
        with pytest.raises(CloudError, match=r"missing: .*tar"):
            take(SshProvider((host_of(sshd),)), folder)
        assert all(row.released for row in ledger.rows(folder.path.name))


TCSH = """case "$SSH_ORIGINAL_COMMAND" in *$'\n'*) echo 'Unmatched quote' >&2; exit 1;; esac"""
FISH = r"SSH_ORIGINAL_COMMAND=${SSH_ORIGINAL_COMMAND//\\\\/\\}"


@pytest.mark.parametrize(
    ("shell", "said", "hint"),
    [
        ("echo 'Welcome to the lab'", "prints `Welcome to the lab` before every command", "== *i*"),
        (f"SHELL=/bin/tcsh\n{TCSH}", "/bin/tcsh, does not hand on", "chsh"),
        (f"SHELL=/usr/bin/fish\n{FISH}", "/usr/bin/fish, does not hand on", "chsh"),
    ],
)
def test_a_login_shell_that_would_spoil_everything_is_told_before_anything_is_written(
    shell: str, said: str, hint: str, sshd: Sshd, folder: RunFolder
) -> None:
    session = sshd.folder / "session.sh"
    session.write_text(session.read_text().replace('cd "$HOME"\n', f'cd "$HOME"\n{shell}\n'))
    with pytest.raises(CloudError, match=re.escape(said)) as caught:
        take(SshProvider((host_of(sshd),)), folder)
    assert hint in caught.value.hint
    assert not (sshd.home / "cloudtrain").exists()
    assert all(row.released for row in ledger.rows(folder.path.name))


def test_no_hosts_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="hosts"):
        SshProvider(()).survey(Config())


@pytest.fixture
def ssh_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for ~/.ssh/config, which OpenSSH finds by the password database, not by HOME."""
    programs, path = tmp_path / "programs", tmp_path / "ssh_config"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F "{path}" "$@"\n')
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return path


def known(path: Path, sshd: Sshd, name: str) -> None:
    path.write_text(f"{name} {' '.join(sshd.host_key.public.split()[:2])}\n")


def test_an_alias_of_the_users_ssh_config_is_all_that_is_needed(
    sshd: Sshd, folder: RunFolder, ssh_config: Path, tmp_path: Path
) -> None:
    known(tmp_path / "known", sshd, f"[127.0.0.1]:{sshd.port}")
    ssh_config.write_text(
        f"Host lab\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.target.user}\n"
        f"  IdentityFile {sshd.target.key}\n  UserKnownHostsFile {tmp_path}/known\n"
        "  StrictHostKeyChecking no\n"
    )
    machine = take(SshProvider((Host(address="lab"),)), folder)
    assert machine == f"lab/{folder.path.name}"
    connect(folder.target()).close()


def test_a_key_that_contradicts_the_users_known_hosts_is_a_mismatch(
    sshd: Sshd, folder: RunFolder, ssh_config: Path, tmp_path: Path
) -> None:
    other = " ".join(keys.generate("x").public.split()[:2])
    (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {other}\n")
    ssh_config.write_text(f"Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile {tmp_path}/known\n")
    yes = Answers(answer=True)
    with pytest.raises(HostKeyMismatch, match="knows it by") as caught:
        take(SshProvider((host_of(sshd, fingerprint=None),), confirm=yes), folder)
    assert yes.asked == []
    assert sshd.handshakes() == 0
    assert f"`fingerprint: {fingerprint(sshd.host_key.public)}`" in caught.value.hint
    assert take(SshProvider((host_of(sshd),)), folder)  # with what the hint says


def test_proxyjump_is_gone_through_by_the_users_configuration(
    sshd: Sshd, folder: RunFolder, ssh_config: Path, tmp_path: Path
) -> None:
    with stopped(Sshd(tmp_path / "bastion", options="AllowTcpForwarding yes\n")) as bastion:
        known(tmp_path / "known", bastion, f"[127.0.0.1]:{bastion.port}")
        ssh_config.write_text(
            f"Host bastion\n  HostName 127.0.0.1\n  Port {bastion.port}\n  User {bastion.target.user}\n"
            f"  IdentityFile {bastion.target.key}\n  UserKnownHostsFile {tmp_path}/known\n"
            f"Host inner\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.target.user}\n"
            f"  IdentityFile {sshd.target.key}\n  ProxyJump bastion\n"
        )
        inner = Host(address="inner", fingerprint=fingerprint(sshd.host_key.public))
        take(SshProvider((inner,)), folder)
        assert bastion.handshakes() > 0
        with connect(folder.target()) as remote:
            assert remote.run("echo through").stdout == "through\n"
        assert folder.target().proxy_jump == "bastion"


def test_proxycommand_too(sshd: Sshd, folder: RunFolder, ssh_config: Path, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(socket.SHUT_WR)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
        f"open({str(tmp_path / 'used')!r}, 'w').close()\n"
    )
    ssh_config.write_text(f"Host box\n  ProxyCommand python3 {relay} 127.0.0.1 %p\n")
    take(SshProvider((host_of(sshd, address="box"),)), folder)
    assert folder.target().proxy_command is not None
    with connect(folder.target()) as remote:
        assert remote.run("echo through").stdout == "through\n"


@pytest.fixture
def agent(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An SSH agent that holds the key of `sshd`."""
    said = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    found = dict(part.strip().split("=", 1) for part in said.split(";") if "=" in part)
    monkeypatch.setenv("SSH_AUTH_SOCK", found["SSH_AUTH_SOCK"])
    try:
        subprocess.run(["ssh-add", "-q", str(sshd.target.key)], check=True)
        yield
    finally:
        os.kill(int(found["SSH_AGENT_PID"]), 15)


@pytest.fixture
def other_key(tmp_path: Path) -> str:
    """The line of a configuration that names a key which opens nothing."""
    keys.write_private(tmp_path / "other", keys.generate("other").private)
    return f"  IdentityFile {tmp_path}/other\n"


@pytest.mark.usefixtures("agent")
def test_an_agents_key_opens_it(sshd: Sshd, folder: RunFolder) -> None:
    take(SshProvider((host_of(sshd, key=None),)), folder)
    assert folder.target().key is None
    connect(folder.target()).close()
    subprocess.run(openssh.ssh(folder.target(), "true"), check=True)


@pytest.mark.usefixtures("agent")
def test_the_agents_key_opens_it_where_the_named_one_does_not(
    sshd: Sshd, folder: RunFolder, ssh_config: Path, other_key: str
) -> None:
    ssh_config.write_text(f"Host *\n{other_key}")
    take(SshProvider((host_of(sshd, key=None),)), folder)
    subprocess.run(openssh.ssh(folder.target(), "true"), check=True)


@pytest.mark.usefixtures("agent")
def test_identities_only_keeps_the_agents_keys_back(
    sshd: Sshd, folder: RunFolder, ssh_config: Path, other_key: str
) -> None:
    ssh_config.write_text(f"Host *\n  IdentitiesOnly yes\n{other_key}")
    with pytest.raises(AuthenticationFailed):
        take(SshProvider((host_of(sshd, key=None),)), folder)


def test_of_several_named_keys_the_one_that_fits_is_taken(
    sshd: Sshd, folder: RunFolder, ssh_config: Path, tmp_path: Path
) -> None:
    keys.write_private(tmp_path / "other", keys.generate("other").private)
    ssh_config.write_text(f"Host *\n  IdentityFile {tmp_path}/other\n  IdentityFile {sshd.target.key}\n")
    provider = SshProvider((host_of(sshd, key=None),))
    assert [probe.ask().state for probe in provider.probes(Config())] == ["ok"]
    take(provider, folder)
    assert folder.target().key == sshd.target.key


def test_a_usual_key_that_nobody_named_hides_no_other_one(
    sshd: Sshd, folder: RunFolder, ssh_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ssh -G` lists the usual files also where nobody named one."""
    ssh_config.write_text("Host *\n  ServerAliveInterval 30\n")
    assert resolve("lab").identities == ()
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    other = ["-t", "ecdsa", "-N", "", "-f", str(home / ".ssh" / "id_ecdsa")]
    subprocess.run(["ssh-keygen", "-q", *other], check=True)
    keys.write_private(home / ".ssh" / "id_ed25519", sshd.user_key.private)
    take(SshProvider((host_of(sshd, key=None),)), folder)
    assert folder.target().key is None
    connect(folder.target()).close()


def test_something_that_is_no_ssh_server_is_said(folder: RunFolder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        import threading

        def answer() -> None:
            line, _ = server.accept()
            line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            line.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        host = Host(address="127.0.0.1", port=port, user="me", fingerprint="SHA256:" + "a" * 43)
        with pytest.raises(CapacityError, match="does not answer SSH"):
            take(SshProvider((host,)), folder)
        thread.join(5)
