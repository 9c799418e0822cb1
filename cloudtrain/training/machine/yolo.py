"""ultralytics' own command line, with trainers that secure each checkpoint.

The arguments are `[TASK] train KEY=VALUE…`. Callbacks do not reach the workers of
multi-GPU training (ultralytics#6168), a trainer class in an importable module does: each task's
trainer gets a subclass here, found by its name.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from .checkpoints import secure

_made: dict[str, Any] = {}


class Securing:
    """Mixed into a trainer: after each epoch's save, the checkpoint is copied away."""

    def save_model(self) -> Any:
        """Save as the trainer does, then secure what it saved."""
        trainer: Any = self
        saved: Any = super().save_model()  # pyright: ignore
        folder, session = os.environ.get("CLOUDTRAIN_SECURED"), os.environ.get("CLOUDTRAIN_SESSION")
        if folder and saved is not False and Path(trainer.last).exists():
            metrics: dict[str, Any] = {**(trainer.metrics or {}), "fitness": trainer.fitness}
            try:
                secure(
                    Path(trainer.last),
                    Path(folder),
                    epoch=trainer.epoch + 1,
                    metrics=metrics,
                    session=Path(session) if session else None,
                )
            except OSError as error:
                print(f"cloudtrain: the checkpoint was not secured: {error}", flush=True)
        return saved  # pyright: ignore[reportUnknownVariableType]


def securing(trainer: Any) -> Any:
    """Return the securing subclass of a trainer class; importable as `Securing__module__Name`."""
    if issubclass(trainer, Securing):
        return trainer
    name = f"Securing__{trainer.__module__.replace('.', '__')}__{trainer.__qualname__}"
    if name not in _made:
        _made[name] = type(name, (Securing, trainer), {"__module__": __name__, "__qualname__": name})
    return _made[name]


def __getattr__(name: str) -> Any:
    """Make the class that another process names: a worker imports it from here."""
    if not name.startswith("Securing__"):
        raise AttributeError(name)
    module, _, trainer = name[len("Securing__") :].rpartition("__")
    return securing(getattr(importlib.import_module(module.replace("__", ".")), trainer))


def secure_all(model: Any) -> None:
    """Have a Model class use securing trainers, whatever the task."""
    load = model._smart_load  # noqa: SLF001 - the one place where every task's trainer is looked up

    def smart_load(self: Any, key: str) -> Any:
        found = load(self, key)
        return securing(found) if key == "trainer" else found

    model._smart_load = smart_load  # noqa: SLF001


def main() -> None:
    """Run ultralytics' command line with securing trainers."""
    try:
        secure_all(importlib.import_module("ultralytics.engine.model").Model)
    except (ImportError, AttributeError) as error:
        print(f"cloudtrain: checkpoints are not secured with this ultralytics: {error}", flush=True)
    # A settings file of another version is reset when it is read, so the two that matter are set here.
    importlib.import_module("ultralytics.utils").SETTINGS.update(tensorboard=True, sync=False)
    importlib.import_module("ultralytics.cfg").entrypoint()
