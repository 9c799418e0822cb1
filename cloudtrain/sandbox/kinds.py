"""Which kind of machines a sandbox has, and the end of what either kind has left."""

from __future__ import annotations

from cloudtrain.errors import UsageError
from cloudtrain.sandbox.machines import Kind
from cloudtrain.sandbox.nspawn.kind import nspawn_kind
from cloudtrain.sandbox.process import process_kind
from cloudtrain.sandbox.state import State

MAKERS = {"process": process_kind, "nspawn": nspawn_kind}
VARIABLE = "CLOUDTRAIN_SANDBOX_MACHINES"


def kind_of(state: State, name: str) -> Kind:
    """Return a kind by its name. Raises `UsageError` for no such kind, or one that cannot be had here."""
    maker = MAKERS.get(name)
    if maker is None:
        raise UsageError(f"{VARIABLE}={name}: there are machines of kind {' and '.join(MAKERS)}")
    return maker(state)


def reap(state: State) -> None:
    """End and delete what an earlier server left, whatever kind of machines it had."""
    if (state.root / "disks").exists():
        nspawn_kind(state).reap()
    else:
        process_kind(state).reap()
