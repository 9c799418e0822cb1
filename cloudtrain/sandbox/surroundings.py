"""What a machine shares with its host: the package cache, uv, and the way to packages.

The caller's index settings must hold inside, or a machine behind a mirror finds no
packages; the caller's own folders must not, so settings travel by name and files that
the machine's user may not read are copied.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from cloudtrain.sandbox.isolation import Person

_PREFIXES = ("UV_INDEX", "UV_EXTRA_INDEX", "PIP_INDEX", "PIP_EXTRA_INDEX")
_SETTINGS = {
    *("UV_DEFAULT_INDEX", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_OFFLINE", "UV_INSECURE_HOST", "UV_NATIVE_TLS"),
    *(
        "UV_SYSTEM_CERTS",
        "UV_HTTP_TIMEOUT",
        "UV_HTTP_RETRIES",
        "UV_TORCH_BACKEND",
        "UV_PYTHON_INSTALL_MIRROR",
    ),
    *("UV_CONCURRENT_DOWNLOADS", "UV_LINK_MODE", "UV_EXCLUDE_NEWER"),
    *(
        "PIP_FIND_LINKS",
        "PIP_NO_INDEX",
        "PIP_TRUSTED_HOST",
        "PIP_RETRIES",
        "PIP_TIMEOUT",
        "PIP_DEFAULT_TIMEOUT",
    ),
    *("PIP_DISABLE_PIP_VERSION_CHECK", "PIP_PROXY", "SSL_CERT_DIR", "TZ"),
    *(
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
    ),
}
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "UV_SSL_CERT_FILE")


def place_uv(bin_folder: Path) -> None:
    """Put the uv program of this environment where machines find it first."""
    from uv import find_uv_bin

    source, target = Path(find_uv_bin()), bin_folder / "uv"
    bin_folder.mkdir(parents=True, exist_ok=True)
    bin_folder.chmod(0o755)
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy(source, target)
    if target.stat().st_mode & 0o555 != 0o555:
        target.unlink()
        shutil.copy(source, target)
        target.chmod(0o755)


def settings(environ: Mapping[str, str], home: Path, seen_home: str, who: Person) -> dict[str, str]:
    """Return the caller's package settings as variables of a machine.

    Files only the caller may read are copied below `home`, which the machine sees as
    `seen_home`.
    """
    found = {
        name: value
        for name, value in environ.items()
        if name in _SETTINGS or (name.startswith(_PREFIXES) and "CACHE" not in name)
    }
    for name in _CERTIFICATES:
        source = Path(environ.get(name) or "/nowhere")
        if not source.is_file():
            continue
        found[name] = str(source)
        if not _open_to_all(source):
            _copy(source, home / ".config" / "certificates" / name, who, home)
            found[name] = f"{seen_home}/.config/certificates/{name}"
    for source, target in _files(environ):
        if source.is_file():
            _copy(source, home / ".config" / target, who, home)
    return found


def _files(environ: Mapping[str, str]) -> list[tuple[Path, str]]:
    config = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [
        (Path.home() / ".pip" / "pip.conf", "pip/pip.conf"),
        (config / "pip" / "pip.conf", "pip/pip.conf"),
        (Path(environ.get("PIP_CONFIG_FILE") or "/nowhere"), "pip/pip.conf"),
        (config / "uv" / "uv.toml", "uv/uv.toml"),
        (Path(environ.get("UV_CONFIG_FILE") or "/nowhere"), "uv/uv.toml"),
    ]


def _copy(source: Path, target: Path, who: Person, home: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    who.own(target, 0o600)  # an index address may hold a password
    for folder in target.relative_to(home).parents:
        who.own(home / folder, 0o755 if folder == Path() else 0o700)


def _open_to_all(path: Path) -> bool:
    real = path.resolve()
    return bool(real.stat().st_mode & 0o004) and all(folder.stat().st_mode & 0o001 for folder in real.parents)
