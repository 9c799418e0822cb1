"""The host's way to Debian's packages, for a machine to go the same."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

DEFAULT = "http://deb.debian.org/debian"
_ONE_LINE = re.compile(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)$")
_KEPT = ("Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::Queue-Mode", "Acquire::ForceIPv4")


def mirror(etc: Path = Path("/etc")) -> str:
    """Return the mirror that a Debian host uses for its own packages, else Debian's."""
    for address, suite, components in _entries(etc):
        archive = not address.rstrip("/").endswith("debian-security") and "debian" in address
        if archive and "main" in components and "/" not in suite and address.startswith("http"):
            return address
    return DEFAULT


def sources(suite: str, address: str) -> str:
    """Return a sources.list with updates and security fixes from the same host."""
    base = address.rstrip("/")
    rows = [f"deb {base} {name} main" for name in (suite, f"{suite}-updates")]
    security = f"{base}-security"
    return "\n".join((*rows, f"deb {security} {suite}-security main", ""))


def settings() -> str:
    """Return the host's proxy and network settings of apt, as apt.conf spells them."""
    try:
        dump = subprocess.run(
            ["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        return ""
    return "".join(f"{line}\n" for line in dump.splitlines() if line.startswith(_KEPT) and '""' not in line)


def _entries(etc: Path) -> Iterator[tuple[str, str, str]]:
    apt = etc / "apt"
    for file in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))):
        for line in _text(file).splitlines():
            if match := _ONE_LINE.match(line.strip()):
                yield match[1], match[2], match[3]
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        for block in re.split(r"\n\s*\n", _text(file)):
            rows = re.findall(r"(?m)^([A-Za-z-]+):[ \t]*(.*)$", block)
            found = {key.lower(): value for key, value in rows}
            if found.get("uris") and found.get("suites") and "deb" in found.get("types", "").split():
                yield found["uris"].split()[0], found["suites"].split()[0], found.get("components", "")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
