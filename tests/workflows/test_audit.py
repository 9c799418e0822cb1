"""`cloudtrain audit`: everything of ours is found, and only what may go is removed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.errors import CloudError, RefusedError, UsageError
from cloudtrain.events import Timeline
from cloudtrain.journal.folder import RunFolder, create
from cloudtrain.models.account import Sweep
from cloudtrain.models.config import Config
from cloudtrain.models.plan import Found, Observation
from cloudtrain.models.run import RunRef
from cloudtrain.providers.base import Identity
from cloudtrain.workflows.audit import Audit, Deleting, Deletion, audit, choose, delete
from tests.support.road import Road, home

ME, OTHER = "0123456789ab", "ffffffffffff"


class Cloud:
    """A provider that has found some things, and remembers what it was told to remove."""

    name = "aws"

    def __init__(self, *found: Found, missing: tuple[str, ...] = ()) -> None:
        self.found, self.missing = found, missing
        self.removed: tuple[Found, ...] = ()

    def identity(self) -> Identity:
        return Identity(ME, "us-east-1", "aws", "41")

    def observe(self, run: RunRef) -> Observation:
        return Observation((), None, None)

    def sweep(self, owner: str, regions: tuple[str, ...] | None = None) -> Sweep:
        return Sweep(regions or ("us-east-1",), self.found, self.missing)

    def remove(self, things: tuple[Found, ...]) -> None:
        self.removed = things


def thing(kind: Any, name: str, *, owner: str = ME, run: str = "helmets-0123abcd", **values: Any) -> Found:
    given: dict[str, Any] = {"state": "exists", "region": "us-east-1", "price_month": 1.0, **values}
    return Found(kind, name, run, mine=owner == ME, owner=owner, **given)


MACHINE = thing("instance", "i-1", state="running", machine="i-1")
VOLUME = thing("volume", "vol-1", state="in-use", machine="i-1")
GROUP = thing("security-group", "sg-1")
KEY = thing("key-pair", "key-1")
REQUEST = thing("spot-request", "sir-1", state="active", machine="i-1")
THEIRS = thing("instance", "i-9", owner=OTHER, state="running", machine="i-9")


def looked(cloud: Any) -> Audit:
    return audit(cloud)


def removing(cloud: Any, *ids: str, discard: bool = False) -> Deletion:
    timeline = Timeline(Silent())
    return delete(cloud, looked(cloud), Deleting(ids=ids, discard=discard), timeline, lambda _: Config())


class Silent:
    def emit(self, event: object) -> None:
        """Say nothing."""

    def close(self) -> None:
        """End."""


def folder_of(tmp_path: Path, owner: str = ME) -> RunFolder:
    return create(name="helmets", owner=owner, provider="aws", region="us-east-1", project=tmp_path)


def renamed(found: Found, folder: RunFolder) -> Found:
    return replace(found, run=folder.path.name)


def test_each_thing_says_whose_it_is_and_how_it_goes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    mine = renamed(MACHINE, folder)
    found = {item.found.id: item for item in looked(Cloud(mine, GROUP, THEIRS)).items}
    assert found["i-1"].known
    assert found["i-1"].remove == "cloudtrain down --name helmets"
    assert not found["sg-1"].known
    assert found["sg-1"].remove == "cloudtrain audit --region us-east-1 --delete sg-1"
    assert not found["i-9"].found.mine
    assert found["i-9"].remove == "cloudtrain audit --region us-east-1 --delete i-9"


def test_images_are_deleted_only_by_their_id() -> None:
    image = thing("image", "ami-1", run="helmets-bake-4567cdef")
    its = thing("snapshot", "snap-1", run="helmets-bake-4567cdef")
    left = thing("snapshot", "snap-9", run="gone-bake-89ab0123")
    cloud = Cloud(image, its, left, GROUP)
    found = looked(cloud)
    assert "images --prune" in next(item.note for item in found.items if item.found.id == "ami-1")
    done = removing(cloud, discard=True)
    assert {one.id for one in done.removed} == {"sg-1", "snap-9"}
    assert [name for name, why in done.kept if "made to be kept" in why] == ["snap-1", "ami-1"]
    assert {one.id for one in removing(cloud, "ami-1", "snap-1", discard=True).removed} == {"ami-1", "snap-1"}


def test_somebody_elses_run_of_the_same_slug_is_not_known_here(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    theirs = renamed(THEIRS, folder)
    assert not looked(Cloud(theirs)).items[0].known


def test_a_run_here_that_the_cloud_does_not_show_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    assert looked(Cloud()).unseen == (folder.path.name,)
    assert looked(Cloud(renamed(GROUP, folder))).unseen == ()


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (MACHINE, "launches i-1 anew"),
        (replace(MACHINE, state="stopped"), "cancelling it ends that machine"),
        (None, "will launch a machine"),
    ],
)
def test_a_request_is_followed_to_the_machine_it_may_launch(machine: Found | None, says: str) -> None:
    found = looked(Cloud(*([machine] if machine else []), REQUEST))
    note = next(item.note for item in found.items if item.found.id == "sir-1")
    assert says in note


def test_only_ones_own_goes_by_itself() -> None:
    found = looked(Cloud(GROUP, KEY, THEIRS))
    assert {one.id for one in choose(found, Deleting())} == {"sg-1", "key-1"}


def test_what_is_somebody_elses_needs_its_id_and_a_word_that_its_data_may_go() -> None:
    cloud = Cloud(THEIRS)
    with pytest.raises(RefusedError, match="cannot be proven"):
        removing(cloud, "i-9")
    assert cloud.removed == ()
    assert [one.id for one in removing(cloud, "i-9", discard=True).removed] == ["i-9"]


def test_an_id_that_was_not_found_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="i-404"):
        removing(Cloud(MACHINE), "i-404", "i-1")


def test_a_machine_whose_run_is_not_known_here_stays_with_all_that_is_its_own() -> None:
    cloud = Cloud(MACHINE, VOLUME, GROUP, KEY, REQUEST, thing("key-pair", "other", run="other-99999999"))
    done = removing(cloud)
    assert [one.id for one in cloud.removed] == ["other"]
    assert set(dict(done.kept)) == {"i-1", "vol-1", "sg-1", "key-1", "sir-1"}
    assert "cannot be proven" in dict(done.kept)["i-1"]


def test_with_discard_the_request_goes_with_its_machine_and_the_volume_by_itself() -> None:
    cloud = Cloud(MACHINE, VOLUME, GROUP, KEY, REQUEST)
    removing(cloud, discard=True)
    assert {one.id for one in cloud.removed} == {"i-1", "sg-1", "key-1", "sir-1"}
    removing(cloud, "i-1", discard=True)
    assert {one.id for one in cloud.removed} == {"i-1", "sir-1"}


def test_a_machine_that_nobody_here_trained_on_may_hold_anothers_training(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    cloud = Cloud(renamed(MACHINE, folder), renamed(GROUP, folder))
    with pytest.raises(RefusedError, match="not proven at home"):
        removing(cloud)
    assert {one.id for one in removing(cloud, discard=True).removed} == {"i-1", "sg-1"}


def test_a_volume_with_a_machine_does_not_end_that_unsaid() -> None:
    cloud = Cloud(replace(MACHINE, state="stopped"), VOLUME, REQUEST)
    with pytest.raises(RefusedError, match="i-1 still needs it"):
        removing(cloud, "vol-1", discard=True)
    with pytest.raises(RefusedError, match="cancelling it may end i-1"):
        removing(cloud, "sir-1", discard=True)
    assert cloud.removed == ()


def test_nobody_telling_is_not_nothing() -> None:
    with pytest.raises(CloudError, match="nobody told"):
        looked(Cloud(missing=("anything in us-east-1 (AccessDenied)",)))


def test_a_run_that_was_not_looked_for_is_not_called_gone(tmp_path: Path) -> None:
    folder = create(
        name="other", owner=ME, provider="aws", region="us-east-1", project=tmp_path, account="42"
    )
    assert looked(Cloud()).unseen == ()
    folder.update(account="41")
    assert looked(Cloud()).unseen == (folder.path.name,)
    assert looked(Cloud(missing=("instances in us-east-1 (late)",))).unseen == ()


def test_a_stopped_machine_that_trained_is_sent_home_by_down(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    folder.journal.append("session", number=1)
    with pytest.raises(RefusedError, match="cloudtrain down --name helmets"):
        removing(Cloud(replace(renamed(MACHINE, folder), state="stopped")))


def test_a_machine_that_cannot_be_reached_stays(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    folder.journal.append("session", number=1)
    folder.update(address="127.0.0.1", port=1, machine="i-1")
    with pytest.raises(RefusedError, match="not proven at home"):
        removing(Cloud(renamed(MACHINE, folder)))


def test_cancelling_a_parked_machines_request_alone_is_refused() -> None:
    cloud = Cloud(replace(MACHINE, state="stopped"), REQUEST)
    with pytest.raises(RefusedError, match="name that as well"):
        removing(cloud, "sir-1")


def test_the_way_to_a_living_machine_is_not_taken_away() -> None:
    cloud = Cloud(MACHINE, GROUP, KEY)
    with pytest.raises(RefusedError, match="i-1 still needs it"):
        removing(cloud, "sg-1")


@pytest.mark.parametrize("kind", ["volume", "snapshot"])
def test_what_may_hold_data_goes_only_when_it_may_be_lost(kind: Any) -> None:
    cloud = Cloud(thing(kind, "data-1", state="available"))
    with pytest.raises(RefusedError, match="nobody can say what is on it"):
        removing(cloud)
    assert [one.id for one in removing(cloud, discard=True).removed] == ["data-1"]


# And the whole of it, as a user calls it.


@pytest.fixture
def way(tmp_path: Path) -> Generator[Road]:
    with home(tmp_path / "home") as made:
        yield Road(tmp_path / "road", made)


def test_a_running_training_is_not_deleted_and_a_finished_one_comes_home_first(way: Road) -> None:
    (way.project / "wait").touch()
    way.call("up", "-y")
    found = way.json("audit")["result"]
    assert len(found["regions"]) > 3
    kinds = {item["found"]["kind"] for item in found["items"]}
    assert kinds >= {"instance", "volume", "security-group", "key-pair"}
    assert all(item["known"] and item["remove"] == "cloudtrain down --name road" for item in found["items"])
    text = way.call("audit").stdout
    assert "a month" in text
    assert "cloudtrain down --name road" in text

    assert "needs a yes" in way.call("audit", "--delete", code=2).stderr
    refused = way.call("audit", "--delete", "-y", code=7)
    assert "a training runs on it" in refused.stderr, refused.stderr
    assert way.alive()

    way.call("train", "--stop")
    done = way.json("audit", "--delete", "-y")["result"]
    assert done["kept"] == []
    assert way.left() == []
    folder = next((way.home / "data" / "runs").glob("road-*"))
    assert (folder / "artifacts" / "001").is_dir(), "what it had written came home first"
    assert list((folder / "artifacts").rglob("*.pt"))
    assert way.json("audit")["result"]["items"] == []
    way.call("down")


def test_a_lost_computer_leaves_nothing_that_another_cannot_find(way: Road) -> None:
    way.call("up", "-y")
    import shutil

    shutil.rmtree(way.home / "data" / "runs")
    items = way.json("audit", "--region", "us-east-1")["result"]["items"]
    assert items
    assert not any(item["known"] for item in items)
    assert "cannot be proven" in way.call("audit", "--delete", "-y", code=7).stderr
    way.call("audit", "--delete", "--discard", "-y")
    assert way.left() == []


def test_ids_without_delete_are_a_usage_error(way: Road) -> None:
    assert "belong to `--delete`" in way.call("audit", "i-1", code=2).stderr
