"""Asks a machine everything in one round trip. Decides nothing and changes nothing."""

from __future__ import annotations

from cloudtrain.facts.parse import parse
from cloudtrain.models.machine import Facts
from cloudtrain.paths import shipped
from cloudtrain.ssh.remote import Remote


def gather(remote: Remote) -> Facts:
    """Return what `templates/facts.sh` finds on the machine, in one round trip.

    A GPU that sleeps can take seconds to answer `nvidia-smi`; everything else is
    milliseconds. Raises `ConnectError` when the line breaks or the answer is not whole.
    """
    questions = (shipped("templates") / "facts.sh").read_text()
    return parse(remote.script(questions, timeout=120).stdout)
