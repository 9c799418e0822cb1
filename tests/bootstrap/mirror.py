"""A package index of tiny wheels, and a stand-in for Miniconda's installer, over real HTTP."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cloudtrain.catalog.miniconda import Installer


def wheel(folder: Path, name: str, version: str, *, needs: tuple[str, ...] = (), script: str = "") -> Path:
    """Write a wheel with one module, and add it to the index in `folder`."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"__version__ = '{version}'\n",
        f"{info}/METADATA": "\n".join(
            [
                "Metadata-Version: 2.1",
                f"Name: {name}",
                f"Version: {version}",
                *(f"Requires-Dist: {need}" for need in needs),
                "",
            ]
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        files[f"{module}-{version}.data/scripts/{name}"] = script
    record = f"{info}/RECORD"
    files[record] = "".join(f"{path},,\n" for path in [*files, record])
    page = folder / "simple" / name
    page.mkdir(parents=True, exist_ok=True)
    path = page / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            entry = zipfile.ZipInfo(inside)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, text)
    links = "".join(f'<a href="{found.name}">{found.name}</a>\n' for found in sorted(page.glob("*.whl")))
    (page / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>")
    return path


CONDA = r"""#!/bin/bash
# Takes what `conda create` takes, and makes a venv of it.
set -e
echo "conda $*"
if [ "$1 $2 $3 $4 $6" = "env create -q -p -f" ]; then
  grep -q '"channels": \["https://me:s3cret@example.org/forge", "nodefaults"\]' "$7"
  exec python3 -m venv "$5"
fi
[ "$1 $2 $3 $4" = "create -y -q -p" ] || { echo "unexpected: $*"; exit 2; }
case " $* " in
  *" --override-channels -c conda-forge "*) ;;
  *) echo "CondaToSNonInteractiveError: Terms of Service have not been accepted"; exit 1 ;;
esac
python3 -m venv "$5"
"""

INSTALLER = """#!/bin/bash
# Miniconda's installer by its flags: -b batch, -u update, -p prefix.
set -e
batch=0 update=0 prefix=
while getopts bup: flag; do
  case $flag in b) batch=1 ;; u) update=1 ;; p) prefix=$OPTARG ;; *) exit 2 ;; esac
done
[ $batch = 1 ] || { echo "Please answer 'yes' or 'no':"; exit 1; }
if [ -e "$prefix" ] && [ $update = 0 ]; then
  echo "ERROR: File or directory already exists: '$prefix'"
  exit 1
fi
mkdir -p "$prefix/bin"
cat >"$prefix/bin/conda" <<'CONDA'
@CONDA@
CONDA
chmod +x "$prefix/bin/conda"
""".replace("@CONDA@", CONDA)


def installer(folder: Path) -> Installer:
    """Write the stand-in and return its pin."""
    name = "Miniconda3-test-Linux-x86_64.sh"
    (folder / name).write_text(INSTALLER)
    return Installer(name, hashlib.sha256(INSTALLER.encode()).hexdigest())


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the tests ask the machine."""


@contextmanager
def served(folder: Path, address: str = "127.0.0.1") -> Generator[str]:
    """Serve `folder` on a port of `address` and yield where."""
    server = ThreadingHTTPServer((address, 0), partial(_Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://{address}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
