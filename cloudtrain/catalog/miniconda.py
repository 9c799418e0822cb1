"""The Miniconda installer we pin, and its checksum as the installers' index page lists it."""

from __future__ import annotations

from dataclasses import dataclass

FOLDER = "https://repo.anaconda.com/miniconda"
CHANNEL = "conda-forge"
"""The default channels refuse to work unattended before their terms of service are
accepted, and are not free for every company; conda-forge is both."""


@dataclass(frozen=True, slots=True)
class Installer:
    """One installer file. `sha256` is in hex."""

    name: str
    sha256: str


INSTALLERS: dict[str, Installer] = {
    "x86_64": Installer(
        "Miniconda3-py314_26.7.1-1-Linux-x86_64.sh",
        "e8b25b92b262499141c5bd57a98d3c008024185fa951494b9cd9b6d94e72338b",
    ),
}
"""By `uname -m`; seen 2026-10-01. Its own Python does not matter: every environment is made
with the version that was asked for."""
