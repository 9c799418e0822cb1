"""Who a run is, here and on the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunRef:
    """One named `up`. `id` is 8 random hex digits, `owner` a digest of the caller's ARN."""

    name: str
    id: str
    owner: str

    @property
    def slug(self) -> str:
        """`name-id`: unique, and readable in a console, a path or a tag."""
        return f"{self.name}-{self.id}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a run's things lie on the machine. All paths are absolute POSIX paths."""

    root: str

    @property
    def project(self) -> str:
        """The pushed or cloned code."""
        return f"{self.root}/project"

    @property
    def data(self) -> str:
        """The pushed or fetched dataset."""
        return f"{self.root}/data"

    @property
    def env(self) -> str:
        """The Python environment's prefix."""
        return f"{self.root}/env"

    @property
    def logs(self) -> str:
        """Logs of the steps and services."""
        return f"{self.root}/logs"

    @property
    def services(self) -> str:
        """State of Jupyter and TensorBoard."""
        return f"{self.root}/services"

    def session(self, number: int) -> str:
        """Our own files of one session: script, log, status. Never the framework's."""
        return f"{self.root}/sessions/{number:03d}"

    def secured(self, number: int) -> str:
        """Proven copies of a session's checkpoints, each with its sidecar; the trainer never goes there."""
        return f"{self.root}/secured/{number:03d}"

    def run_dir(self, number: int) -> str:
        """The framework's own output folder of one session."""
        return f"{self.root}/runs/{number:03d}"
