"""A machine without a public address is reached as OpenSSH would reach it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudtrain.provision.inside import said_of, way_to


@pytest.fixture(autouse=True)
def hop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `ssh` with a configuration of its own: OpenSSH finds the user's by the password database."""
    (tmp_path / "config").write_text("Host 10.9.*\n  ProxyJump me@bastion.example.org\n")
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F "{tmp_path}/config" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_a_private_address_takes_the_users_hop_and_a_public_one_none() -> None:
    found = way_to("10.9.1.20")
    assert found is not None
    assert found.proxy_jump == "me@bastion.example.org"
    other = way_to("10.8.1.20")
    assert other is not None
    assert other.proxy_jump is None
    for public in ("52.95.4.1", "127.0.0.1", "198.18.3.4"):
        assert way_to(public) is None


def test_the_plan_says_which_hop_or_that_there_is_none() -> None:
    assert "`me@bastion.example.org`" in said_of("10.9.1.0/24")
    assert "names no ProxyJump" in said_of("10.8.1.0/24")
