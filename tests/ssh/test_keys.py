"""Key files: what cannot be used is one clear error, and secrets stay secret."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cloudtrain.errors import AuthenticationFailed, UsageError
from cloudtrain.ssh import keys
from cloudtrain.ssh.remote import connect
from tests.support.sshd import Sshd


def keygen(path: Path, *words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-f", str(path), *words], check=True)


def shared(path: Path) -> None:
    keys.write_private(path, keys.generate("x").private)
    path.chmod(0o644)


def of(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)
        path.chmod(0o600)

    return write


def damaged(path: Path) -> None:
    text = keys.generate("x").private.splitlines()
    text[2] = "A" * len(text[2])
    keys.write_private(path, "\n".join(text))


def folder(path: Path) -> None:
    path.mkdir(mode=0o700)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda _: None, "is missing"),
    "shared": (shared, "readable by others"),
    "empty": (of(b""), "not a private key"),
    "text": (of(b"hello\n"), "not a private key"),
    "binary": (of(bytes(range(256))), "not a private key"),
    "damaged": (damaged, "not a private key"),
    "cut": (of(keys.generate("x").private[:150].encode()), "not a private key"),
    "public": (of(keys.generate("x").public.encode()), "not a private key"),
    "folder": (folder, "not a private key"),
    "encrypted": (lambda path: keygen(path, "-t", "ed25519", "-N", "secret"), "has a passphrase"),
    "encrypted rsa": (
        lambda path: keygen(path, "-t", "rsa", "-m", "PEM", "-N", "secret"),
        "has a passphrase",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_key_file_is_a_usage_error(sshd: Sshd, tmp_path: Path, kind: str) -> None:
    make, says = BAD[kind]
    path = tmp_path / "bad"
    make(path)
    with pytest.raises(UsageError, match=says) as caught:
        connect(replace(sshd.target, key=path))
    assert caught.value.hint
    assert str(path) in caught.value.message
    assert "SSH-2.0-paramiko" not in sshd.log.read_text()
    assert sshd.handshakes() == 0


@pytest.mark.parametrize("words", [("-t", "rsa"), ("-t", "rsa", "-m", "PEM"), ("-t", "ecdsa")])
def test_keys_of_other_kinds_work(sshd: Sshd, tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "mine"
    keygen(path, "-N", "", *words)
    (sshd.folder / "authorized_keys").write_text(path.with_suffix(".pub").read_text())
    with connect(replace(sshd.target, key=path)) as remote:
        assert remote.run("true").ok


def test_a_refused_key(sshd: Sshd, tmp_path: Path) -> None:
    keys.write_private(tmp_path / "key", keys.generate("stranger").private)
    with pytest.raises(AuthenticationFailed) as caught:
        connect(replace(sshd.target, key=tmp_path / "key"))
    assert caught.value.hint


def test_without_a_key_the_users_own_are_offered(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "user"
    (home / ".ssh").mkdir(parents=True)
    keys.write_private(home / ".ssh" / "id_ed25519", sshd.user_key.private)
    monkeypatch.setenv("HOME", str(home))
    with connect(replace(sshd.target, key=None)) as remote:
        assert remote.run("true").ok


def test_a_private_key_shows_in_no_repr() -> None:
    pair = keys.generate("x")
    assert pair.private not in repr(pair)
    assert "PRIVATE" not in repr(pair)


def test_fingerprints_are_those_of_openssh(tmp_path: Path) -> None:
    pair = keys.generate("a comment")
    (tmp_path / "key.pub").write_text(pair.public + "\n")
    said = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "key.pub")], capture_output=True, text=True, check=True
    )
    assert said.stdout.split()[1] == pair.fingerprint


@pytest.mark.parametrize("line", ["", "ssh-ed25519", "ssh-ed25519 !!", "ssh-ed25519 AAA"])
def test_what_is_no_public_key(line: str) -> None:
    with pytest.raises(UsageError, match="not a public key"):
        keys.fingerprint(line)


def test_a_written_secret_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    (tmp_path / "key.part").write_text("left by a crash")
    keys.write_private(path, "one")
    keys.write_private(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["key"]


def test_pins_are_per_alias(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    one, two = keys.generate("a").public, keys.generate("b").public
    assert keys.pinned(path, "machine") == ()
    keys.pin(path, "machine", (one, two))
    assert keys.pinned(path, "machine") == tuple(" ".join(key.split()[:2]) for key in (one, two))
    assert keys.pinned(path, "mach") == ()
