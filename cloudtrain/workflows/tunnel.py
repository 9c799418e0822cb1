"""`tunnel`: a service on the machine's loopback, at an address of this machine's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from cloudtrain import bootstrap, facts, training
from cloudtrain.errors import UsageError
from cloudtrain.events import Note, Reporter
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.config import Config
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Service
from cloudtrain.ssh.remote import Remote
from cloudtrain.ssh.tunnel import Forward, Tunnel
from cloudtrain.workflows.context import connect_run, layout_of

DEFAULT_PORTS = {"jupyter": 8888, "tensorboard": 6006}


@dataclass(frozen=True, slots=True)
class Opened:
    """One open tunnel. `url` of Jupyter holds its token, so it never goes to a log."""

    name: str
    local_port: int
    remote_port: int
    url: str = field(repr=False)


def tunnel(
    folder: RunFolder,
    config: Config,
    reporter: Reporter,
    targets: tuple[str, ...],
    *,
    local_port: int | None,
    opened: Callable[[tuple[Opened, ...]], None],
    stop: threading.Event,
) -> None:
    """Open tunnels and keep them until `stop`; a dropped connection is made again.

    The local port is bound before anything is started on the machine: a busy one is
    a `UsageError` at once. `opened` is called once, with the address of each.
    """
    wanted = [_target(text) for text in targets]
    tunnels: list[Tunnel] = []
    try:
        for name, remote_port in wanted:
            port = _local(name, remote_port, local_port)
            tunnels.append(
                Tunnel(Forward(port, remote_port), connect=lambda: connect_run(folder), reporter=reporter)
            )
        for bound in tunnels:
            bound.bind()
        with connect_run(folder) as remote:
            services = [_ensure(remote, folder, config, reporter, name) for name, _ in wanted]
        open_now: list[Opened] = []
        for bound, service, (name, remote_port) in zip(tunnels, services, wanted, strict=True):
            bound.serve(service.port if service else remote_port)
            open_now.append(_opened(name, bound.local_port, service, remote_port))
        opened(tuple(open_now))
        while not stop.wait(0.2):
            for bound in tunnels:
                if bound.failure is not None:
                    raise bound.failure
    finally:
        for bound in tunnels:
            bound.close()


def _target(text: str) -> tuple[str, int]:
    """Read `jupyter`, `tensorboard`, or a port."""
    if text in DEFAULT_PORTS:
        return text, 0
    if text.isdigit() and 0 < int(text) < 65536:
        return f"port {text}", int(text)
    raise UsageError(
        f"`{text}` is neither jupyter, tensorboard nor a port", hint="`cloudtrain tunnel --help`"
    )


def _local(name: str, remote_port: int, given: int | None) -> int:
    if given is not None:
        return given
    return DEFAULT_PORTS.get(name, remote_port)


def _ensure(
    remote: Remote, folder: RunFolder, config: Config, reporter: Reporter, name: str
) -> Service | None:
    if name not in DEFAULT_PORTS:
        return None
    if config.runtime == "docker":
        raise UsageError(
            f"{name} needs a Python environment on the machine, and with `runtime: docker` there is none",
            hint="`cloudtrain tunnel PORT` reaches what your container serves; `cloudtrain fetch-weights --all` "
            "brings the events home for a TensorBoard there",
        )
    found = facts.gather(remote)
    layout = layout_of(folder, found.home)
    python = bootstrap.environment_python(config, found, layout)

    def install(package: str) -> None:
        reporter.emit(Note(f"installing {package} on the machine"))
        bootstrap.on_demand(remote, config, found, layout, package)

    return _start(remote, layout, folder, python, name, install)


def _start(
    remote: Remote,
    layout: Layout,
    folder: RunFolder,
    python: str,
    name: str,
    install: Callable[[str], None],
) -> Service:
    slug = folder.path.name
    which: Literal["jupyter", "tensorboard"] = "jupyter" if name == "jupyter" else "tensorboard"
    ensure = training.ensure_jupyter if which == "jupyter" else training.ensure_tensorboard
    return ensure(remote, layout, slug=slug, python=python, install=install)


def _opened(name: str, local_port: int, service: Service | None, remote_port: int) -> Opened:
    token = f"/lab?token={service.token}" if service and service.token else ""
    return Opened(
        name, local_port, service.port if service else remote_port, f"http://127.0.0.1:{local_port}{token}"
    )
