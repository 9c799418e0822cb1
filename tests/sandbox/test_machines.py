"""The machines are real, apart from each other and from the host, and never root."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import socket
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from cloudtrain.ssh import keys
from tests.sandbox.conftest import Cloud
from tests.sandbox.support import processes_with, until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="isolation is for root")


def rsync(cloud: Cloud, *args: str) -> None:
    shell = " ".join(["ssh", *cloud.ssh_options()])
    subprocess.run(["rsync", "-a", "-e", shell, *args], check=True, capture_output=True, timeout=60)


def test_it_has_the_keys_it_was_launched_with(cloud: Cloud, machine: str) -> None:
    home = cloud.ssh(machine, "cd && pwd").strip()
    assert home.endswith(machine)
    assert cloud.ssh(machine, 'echo "$HOME"').strip() == home
    other = keys.generate("other")
    keys.write_private(cloud.folder / "other", other.private)
    stranger = ["-o", f"IdentityFile={cloud.folder / 'other'}"]
    options = [part for part in cloud.ssh_options() if not part.startswith("IdentityFile=")]
    options = [p for i, p in enumerate(options) if not (p == "-o" and options[i + 1 : i + 2] == ["-o"])]
    done = subprocess.run(
        ["ssh", *stranger, *options, cloud.address(machine), "true"], capture_output=True, check=False
    )
    assert done.returncode == 255
    assert b"Permission denied" in done.stderr


def test_without_a_host_key_it_makes_one_and_prints_it(cloud: Cloud) -> None:
    pair = cloud.ec2.import_key_pair(KeyName="login", PublicKeyMaterial=cloud.user.public.encode())
    name = cloud.running(UserData="", KeyName=pair["KeyName"])
    text = cloud.ec2.get_console_output(InstanceId=name)["Output"]
    block = text.split("-----BEGIN SSH HOST KEY KEYS-----")[1].split("-----END")[0]
    keys.pin(cloud.folder / "made", "machine", (block.strip(),))
    options = [o.replace("/known_hosts", "/made") for o in cloud.ssh_options()]
    done = subprocess.run(
        ["ssh", *options, cloud.address(name), "echo in"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "in\n"
    cloud.end(name)
    cloud.ec2.delete_key_pair(KeyName="login")


def test_commands_keep_their_exit_code_and_streams(cloud: Cloud, machine: str) -> None:
    assert cloud.ssh(machine, "cat; exit 7", code=7, stdin="through\n") == "through\n"
    assert cloud.ssh(machine, "echo 'a  \"b\"' | tr a-z A-Z") == 'A  "B"\n'
    assert cloud.ssh(machine, "echo $LANG $UV_CACHE_DIR").startswith("C.UTF-8 /")


def test_sftp_and_rsync_move_files(cloud: Cloud, machine: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "data").write_bytes(os.urandom(1 << 20))
    rsync(cloud, f"{source}/", f"{cloud.address(machine)}:sent/")
    rsync(cloud, f"{cloud.address(machine)}:sent/data", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (source / "data").read_bytes()
    batch = f"put {source}/data by-sftp\nls by-sftp\n"
    subprocess.run(
        ["sftp", "-b", "-", *cloud.ssh_options(), cloud.address(machine)],
        input=batch.encode(),
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert cloud.ssh(machine, "wc -c < by-sftp").strip() == str(1 << 20)


def test_screen_outlives_the_connection(cloud: Cloud, machine: str) -> None:
    cloud.ssh(machine, "screen -dmS job sh -c 'echo $CLOUDTRAIN_MACHINE > out; sleep 600'")
    assert ".job" in cloud.ssh(machine, "screen -ls", code=None)
    until(lambda: cloud.ssh(machine, "cat out", code=None).strip() == machine, "screen did not run it")
    cloud.ssh(machine, "screen -S job -X quit")
    until(lambda: ".job" not in cloud.ssh(machine, "screen -ls", code=None), "screen did not quit")


def test_ports_are_forwarded(cloud: Cloud, machine: str) -> None:
    serve = "import socket; s=socket.create_server(('127.0.0.1',0)); print(s.getsockname()[1],flush=True); c,_=s.accept(); c.sendall(b'hello')"
    cloud.ssh(machine, f'nohup /usr/bin/python3 -c "{serve}" > port 2>/dev/null < /dev/null &')
    until(lambda: bool(cloud.ssh(machine, "cat port").strip()), "it does not listen")
    port = cloud.ssh(machine, "cat port").strip()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        local = probe.getsockname()[1]
    command = ["ssh", *cloud.ssh_options(), "-o", "ExitOnForwardFailure=yes", "-N"]
    tunnel = subprocess.Popen([*command, "-L", f"{local}:127.0.0.1:{port}", cloud.address(machine)])
    try:
        until(lambda: _reads(local) == b"hello", "nothing came through the tunnel")
    finally:
        tunnel.terminate()
        tunnel.wait()


def _reads(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(100)
    except OSError:
        return b""


def test_a_terminal_has_a_size_and_a_login_shell(cloud: Cloud, machine: str) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    command = ["ssh", "-tt", *cloud.ssh_options(), cloud.address(machine)]
    shell = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    os.write(master, b"stty size; tty; shopt -q login_shell && echo 'is-'login; command -v uv; exit 5\n")
    seen = b""
    try:
        while chunk := os.read(master, 4096):
            seen += chunk
    except OSError:
        pass  # Linux says so when the other end of a terminal is closed
    os.close(master)
    assert shell.wait(20) == 5, seen
    assert b"33 99" in seen
    assert b"/dev/pts/" in seen
    assert b"is-login" in seen
    assert b".bin/uv" in seen


def test_machines_run_side_by_side(cloud: Cloud) -> None:
    names = [cloud.launch() for _ in range(3)]
    for name in names:
        cloud.until(name, "running")
        cloud.ssh(name, f"echo {name} > who; sleep 600 > /dev/null 2>&1 < /dev/null &")
    assert len({cloud.address(name) for name in names}) == 3
    assert [cloud.ssh(name, "cat who").strip() for name in names] == names
    cloud.end(names[0])
    assert processes_with(names[0]) == []
    assert [cloud.ssh(name, "cat who").strip() for name in names[1:]] == names[1:]
    cloud.end(*names[1:])


def test_stop_and_start_keep_the_disk_and_change_the_address(cloud: Cloud, machine: str) -> None:
    before = cloud.address(machine)
    boot = cloud.ssh(machine, "cat /proc/sys/kernel/random/boot_id")
    cloud.ssh(machine, "echo kept > kept; nohup sleep 600 > /dev/null 2>&1 < /dev/null &")
    cloud.ec2.stop_instances(InstanceIds=[machine])
    cloud.until(machine, "stopped")
    assert processes_with(machine) == []
    cloud.ec2.start_instances(InstanceIds=[machine])
    cloud.until(machine, "running")
    assert cloud.address(machine) != before
    assert cloud.ssh(machine, "cat kept") == "kept\n"
    assert cloud.ssh(machine, "pgrep -x sleep || echo none") != ""
    if os.geteuid() == 0:
        assert cloud.ssh(machine, "cat /proc/sys/kernel/random/boot_id") != boot


@pytest.mark.parametrize(
    "escape",
    [
        "nohup sleep 601 > /dev/null 2>&1 < /dev/null &",
        "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.05; done' > /dev/null 2>&1 < /dev/null &",
        "screen -dmS stay sh -c 'while :; do sleep 0.05 & wait; done'",
    ],
)
def test_the_end_leaves_no_process_and_no_disk(cloud: Cloud, machine: str, escape: str) -> None:
    cloud.ssh(machine, escape)
    assert processes_with(machine)
    cloud.end(machine)
    assert processes_with(machine) == []
    assert not (cloud.state / "home" / machine).exists()
    left = {entry.name for entry in (cloud.state / "machines" / machine).iterdir()}
    assert left == {"sshd.log", "console.log", "boot.log"}


@as_root
def test_the_end_finds_what_hides_its_environment(cloud: Cloud, machine: str) -> None:
    hide = (
        'env -i setsid /usr/bin/python3 -c "import time; time.sleep(987654)" > /dev/null 2>&1 < /dev/null &'
    )
    cloud.ssh(machine, hide)
    assert processes_with("987654")
    cloud.end(machine)
    assert processes_with("987654") == []


def test_handshakes_can_be_counted(cloud: Cloud, machine: str) -> None:
    log = cloud.state / "machines" / machine / "sshd.log"
    assert log.read_text().count("Accepted publickey") == 0
    for _ in range(3):
        cloud.ssh(machine, "true")
    assert log.read_text().count("Accepted publickey") == 3
    assert "Connection closed" not in log.read_text().split("Accepted", 1)[0]


@as_root
def test_root_is_out_of_reach(cloud: Cloud, machine: str) -> None:
    assert cloud.ssh(machine, "id -un; id -u; id -G").split() == ["ubuntu", "64017", "64017"]
    for attempt in (
        "sudo -n true",
        "su root -c true < /dev/null",
        "reboot",
        "poweroff",
        "systemctl reboot",
        "shutdown -h now",
        "apt-get install -y hello",
        "touch /etc/x",
        "touch /usr/local/bin/x",
        "echo b > /proc/sysrq-trigger",
        "mount -t tmpfs none /mnt",
        "cat /etc/shadow",
        "mv /home/.bin /home/.old",
        "mv /home/.cache/uv /home/.cache/old",
        "ln -s /etc /home/link",
        "echo x > /home/.machine/session",
        "ls /root",
        f"ls {cloud.state}",
        "/usr/bin/python3 -c 'import os; os.setuid(0)'",
    ):
        assert cloud.ssh(machine, f"{attempt} 2>&1 && echo SUCCEEDED", code=None).find("SUCCEEDED") < 0, (
            attempt
        )
    cloud.ssh(machine, "kill -9 1; kill -9 -1", code=None)
    assert cloud.ssh(machine, "echo alive") == "alive\n"
    assert cloud.ssh(machine, "grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status").split() == [
        *("CapEff:", "0000000000000000", "CapBnd:", "0000000000000000", "NoNewPrivs:", "1"),
    ]


@as_root
@as_root
def test_a_host_that_gets_a_user_takes_none_from_its_machines(cloud: Cloud, machine: str) -> None:
    assert " /etc overlay " in cloud.ssh(machine, "cat /proc/mounts")
    passwd, new = Path("/etc/passwd"), Path("/etc/passwd.cloudtrain-test")
    shutil.copy2(passwd, new)
    new.replace(passwd)  # what useradd does
    assert cloud.ssh(machine, "id -un") == "ubuntu\n"


def test_temporary_files_stay_in_the_machine(cloud: Cloud, machine: str) -> None:
    mark = f"mark-{machine}"
    cloud.ssh(machine, f"touch /tmp/{mark} /var/tmp/{mark} /dev/shm/{mark}")
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        assert not (Path(folder) / mark).exists()
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if machine in line]


def test_a_second_environment_costs_seconds(cloud: Cloud, machine: str) -> None:
    assert cloud.ssh(machine, "command -v uv").strip().endswith("/.bin/uv")
    make = "uv venv -q --python /usr/bin/python3 e{n} && uv pip install -q --python e{n}/bin/python six"
    cloud.ssh(machine, make.format(n=1))
    other = cloud.running()
    began = time.monotonic()
    cloud.ssh(other, make.format(n=2))
    assert time.monotonic() - began < 10
    assert cloud.ssh(other, "e2/bin/python -c 'import six; print(six.__name__)'") == "six\n"
    links = cloud.ssh(other, "stat -c %h e2/lib/python3*/site-packages/six.py")
    assert int(links) >= 2
    cloud.end(other)
