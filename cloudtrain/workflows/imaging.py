"""The second half of a bake: clean the machine, make the image of its disk, end the machine.

Every point is in the journal before it is passed, so that an interrupted bake knows how far
it came: before cleaning it converges again, after it only the image is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from cloudtrain.errors import CloudError, RefusedError
from cloudtrain.journal.folder import RunFolder
from cloudtrain.models.config import Config
from cloudtrain.models.image import BakedImage
from cloudtrain.models.tags import RECIPE, USER, run_tags
from cloudtrain.models.url import secrets_in
from cloudtrain.providers.base import Provider
from cloudtrain.provision.end import find_everything, prove_nothing_left, receipt, terminate_all
from cloudtrain.render import render
from cloudtrain.ssh.remote import Remote
from cloudtrain.workflows.context import Context
from cloudtrain.workflows.park import Parking, wait_stopped

IMAGE_S = 3600.0
"""How long AWS may take for an image; some 10 minutes for a disk of 60 GB."""


@dataclass(frozen=True, slots=True)
class Job:
    """One bake. `digest` names its recipe."""

    context: Context
    provider: Provider
    digest: str
    sleep: Callable[[float], None]

    @property
    def place(self) -> Path:
        """What the run folder says it belongs to: no folder of a project, or `up` would take it up."""
        return self.context.base / ".cloudtrain-bake"


_POINTS = ("cleaning", "cleaned", "imaging", "image")


def last_point(folder: RunFolder) -> str:
    """Return the last point that a bake is known to have reached."""
    return next((str(row["event"]) for row in reversed(folder.journal.rows()) if row["event"] in _POINTS), "")


def imaged(folder: RunFolder) -> bool:
    """Whether only the image is missing."""
    return last_point(folder) in ("cleaned", "imaging", "image")


def clean(job: Job, folder: RunFolder, remote: Remote) -> None:
    """Take from the disk what is of this machine and of this user. Raises `RefusedError`."""
    mine = (folder.path / "key.pub").read_text().split()[1]
    script = cleaning(remote.home, (*secrets_of(job.context.config), mine))
    with job.context.timeline.stage("clean", "keys, histories, caches, lists") as stage:
        folder.journal.append("cleaning")
        done = remote.script(_as_root(script), timeout=600, check=False)
        if done.code != 0:
            raise RefusedError(
                f"no image is made: cleaning the machine failed\n{done.stdout.strip()[-2000:]}",
                hint="`cloudtrain bake` again begins on a new machine",
            )
        folder.journal.append("cleaned")
        stage.outcome = "no key, host key, history or secret is left"


def cleaning(home: str, secrets: tuple[str, ...]) -> str:
    """Render what cleans a machine, and then looks for what must not be there."""
    return render("bake-clean.sh.j2", home=home, secrets=secrets)


def secrets_of(config: Config) -> tuple[str, ...]:
    """Return the passwords in the configured addresses, as they are written and as they are meant.

    A name without a password is a token.
    """
    mirrors: list[str | None] = [getattr(config.mirrors, one.name) for one in fields(config.mirrors)]
    found = [word for one in (*mirrors, *config.environment.packages) if one for word in secrets_in(one)]
    return tuple(dict.fromkeys(word for one in found for word in (one, unquote(one))))


def _as_root(script: str) -> str:
    end = "CLOUDTRAIN_CLEAN_ENDS_HERE"
    return f"sudo -n bash -s <<'{end}'\n{script}\n{end}\n"


def finished(job: Job, folder: RunFolder) -> tuple[BakedImage, float | None]:
    """Stop the machine, make the image, wait for it, end the machine; return what it cost too."""
    context = job.context
    machine = folder.record().machine
    name = f"cloudtrain-{folder.path.name}-{job.digest}"
    with context.timeline.stage("image", name) as stage:
        image = _image_id(folder)
        if image is None:
            image = _imaging(job, folder, machine or "", name)
        made = _wait_image(job, folder, image)
        stage.outcome = image
    cost = end(job, folder)
    return made, cost


def _image_id(folder: RunFolder) -> str | None:
    row = folder.journal.last("image")
    return str(row["image"]) if row else None


def _imaging(job: Job, folder: RunFolder, machine: str, name: str) -> str:
    context, provider = job.context, job.provider
    observed = provider.observe(folder.run())
    state = next((one.state for one in observed.machines if one.id == machine), "terminated")
    if state not in ("running", "stopping", "stopped"):
        made = [one for one in provider.images(folder.run().owner) if one.id and one.run == folder.path.name]
        if made:  # the answer was lost, and the machine ended itself meanwhile
            folder.journal.append("image", image=made[0].id)
            return made[0].id
        end(job, folder)
        raise CloudError(
            f"the machine of this bake is {state}: it ended before its image was made",
            hint="`cloudtrain bake` begins anew; nothing is left of this one",
        )
    with folder.changing():
        with context.timeline.stage("stop", machine):
            provider.stop(machine)
            wait_stopped(Parking(folder, provider, context.reporter, context.timeline), machine, job.sleep)
        record = folder.record()
        tags = {**run_tags(folder.run()), RECIPE: job.digest, USER: record.user}
        folder.journal.append("imaging", name=name)
        image = provider.create_image(machine, name, tags)
        folder.journal.append("image", image=image)
    return image


def _wait_image(job: Job, folder: RunFolder, image: str) -> BakedImage:
    """Return the image once it is available. Raises `CloudError` when it never is."""
    pause, waited = 0.2, 0.0
    while waited < IMAGE_S:
        found = next((one for one in job.provider.images(folder.run().owner) if one.id == image), None)
        if found is not None and found.state == "available":
            return found
        if found is not None and found.state not in ("pending", "available"):
            end(job, folder)
            raise CloudError(
                f"image {image} is {found.state}",
                hint="`cloudtrain images --prune` removes it, `cloudtrain bake` makes another",
            )
        job.sleep(pause)
        waited, pause = waited + pause, min(pause * 1.4, 10.0)
    raise CloudError(
        f"image {image} is not available after {IMAGE_S / 60:.0f} minutes",
        hint="`cloudtrain bake` again goes on waiting",
    )


def end(job: Job, folder: RunFolder) -> float | None:
    """End the bake's machine and way in, and prove it; images stay. Returns what it cost."""
    provider = job.provider
    observed = find_everything(folder, provider)
    spent = receipt(folder, observed)
    with folder.changing():
        terminate_all(observed, folder, provider, job.context.timeline)
        with job.context.timeline.stage("verify", "nothing but the image is left") as stage:
            prove_nothing_left(folder, provider)
            stage.outcome = "0 left"
        folder.journal.append("ended")
        folder.update(ended=datetime.now(UTC).isoformat(), cost=spent.cost, address=None)
        folder.forget_keys()
    return spent.cost
