"""What holds on the host must hold in a machine: certificates, mirrors, proxies, indexes.

They are a layer of their own between a machine's disk and its image, made anew by each
server, so that no image ever carries a host's settings.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cloudtrain.errors import CloudError
from cloudtrain.sandbox import surroundings
from cloudtrain.sandbox.isolation import Person
from cloudtrain.sandbox.nspawn import aptsources, images

CACHE = "/var/cache/uv"
BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+(.+?)\s+-----END CERTIFICATE-----", re.DOTALL)
_LOCAL = re.compile(r"(?:file://|(?<![\w:/.-]))(/[\w./+-]+)")
_PROXIES = re.compile(r"(?i)(http|https|all|no)_proxy")
_CERTIFICATE_FOLDER = "usr/local/share/ca-certificates"
UPDATE = r"""
set -eu
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
exec chroot "$4" update-ca-certificates
"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The layer, and the host's folders of packages that its settings speak of."""

    layer: Path
    shared: tuple[Path, ...]


def furnish(folder: Path, base: Path) -> Surroundings:
    """Make the layer in `folder`. Raises `CloudError` when certificates cannot be added."""
    shutil.rmtree(folder, ignore_errors=True)
    layer = folder / "layer"
    variables = _variables(layer)
    for name in ("pip.conf", "uv/uv.toml"):
        source = Path("/etc") / name
        if source.is_file():
            _write(layer / "etc" / name, source.read_text())
    _write(layer / "etc/apt/sources.list", aptsources.sources(images.SUITE, aptsources.mirror()))
    _write(layer / "etc/apt/apt.conf.d/90host", aptsources.settings() + _apt_proxies(variables))
    lines = "".join(f'{name}="{value}"\n' for name, value in sorted(variables.items()))
    _write(layer / "etc/environment", f'PATH="{images.PATH}"\n{lines}')
    kept = " ".join(name for name in variables if name != "UV_CACHE_DIR")
    _write(layer / "etc/sudoers.d/70-host", f'Defaults env_keep += "{kept}"\n').chmod(0o440)
    _certificates(folder, layer, base)
    return Surroundings(layer, _shared(layer, variables))


def _variables(layer: Path) -> dict[str, str]:
    # In /etc/skel, which becomes part of the user's home when cloud-init makes it.
    owner = Person(images.LOGIN_USER, 0, 0, isolated=False)
    skel = layer / "etc/skel"
    skel.mkdir(parents=True)
    found = surroundings.settings(os.environ, skel, f"/home/{images.LOGIN_USER}", owner)
    if (skel / ".config").is_dir():
        shutil.copytree(skel / ".config", layer / "root/.config")
        (layer / "root").chmod(0o700)
    for value in found.values():
        if value.startswith("/") and Path(value).is_file() and value not in BUNDLES:
            _write(layer / value.lstrip("/"), Path(value).read_text())
    # A cache lies on another file system than a machine's disk: links cannot reach it.
    return {**found, "UV_CACHE_DIR": CACHE, "UV_LINK_MODE": "copy", "LANG": "C.UTF-8"}


def _apt_proxies(variables: dict[str, str]) -> str:
    found = {name.lower(): value for name, value in variables.items() if _PROXIES.fullmatch(name)}
    return "".join(
        f'Acquire::{kind}::Proxy "{found[f"{kind}_proxy"]}";\n'
        for kind in ("http", "https")
        if found.get(f"{kind}_proxy")
    )


def _certificates(folder: Path, layer: Path, base: Path) -> None:
    known = _read(base / BUNDLES[0].lstrip("/"))
    given = [os.environ.get("SSL_CERT_FILE", ""), *BUNDLES]
    source = next((Path(name) for name in given if name and Path(name).is_file()), None)
    own = [pem for key, pem in (_read(source) if source else {}).items() if key not in known]
    if not own:
        return
    for number, pem in enumerate(own):
        _write(layer / _CERTIFICATE_FOLDER / f"host-{number}.crt", pem)
    work, root = folder / "work", folder / "root"
    for made in (work, root):
        made.mkdir()
    command = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", UPDATE, "update"]
    done = subprocess.run(
        [*command, str(base), str(layer), str(work), str(root)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CloudError(f"the host's certificates could not be added to machines: {done.stderr.strip()}")


def _read(bundle: Path) -> dict[str, str]:
    text = bundle.read_text(errors="replace")
    return {"".join(match[1].split()): f"{match[0]}\n" for match in _PEM.finditer(text)}


def _shared(layer: Path, variables: dict[str, str]) -> tuple[Path, ...]:
    """Return the host's folders that indexes and links of the settings point to."""
    files = [path for path in layer.rglob("*") if path.name in ("pip.conf", "uv.toml")]
    text = "\n".join([*variables.values(), *(path.read_text() for path in files)])
    found: set[Path] = set()
    for match in _LOCAL.finditer(text):
        path = Path(match[1])
        # The files that a simple index links to lie beside it.
        path = path.parent if path.name == "simple" else path
        if path.is_dir() and path.parts[1] not in ("etc", "usr", "var", "proc", "sys", "dev", "run", "bin"):
            found.add(path)
    return tuple(sorted(found))


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path
