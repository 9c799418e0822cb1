"""The printed policy against the calls that are really made, both ways."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.errors import UsageError
from cloudtrain.models.account import OfferQuery
from cloudtrain.models.config import Config, Instance
from cloudtrain.models.plan import LaunchSpec
from cloudtrain.models.run import RunRef
from cloudtrain.models.tags import RECIPE, run_tags
from cloudtrain.providers.aws.policy import FREE, IMPLIED, RIGHTS, VERBS, policy
from cloudtrain.providers.aws.provider import AwsProvider
from cloudtrain.providers.base import AccessSpec
from tests.providers.test_launch import KEY, SPEC, Stored
from tests.support.road import Road, home
from tests.support.sandbox import Running, started

RECORD = "CLOUDTRAIN_SANDBOX_RECORD"
"""Names a file into which every sandbox that is started writes its calls as well."""


@dataclass
class Record:
    """The calls that a sandbox answered, as far as they were our code's."""

    path: Path
    read: int = 0

    def skip(self) -> None:
        """Leave out what a test itself has asked."""
        self.read = self.path.stat().st_size if self.path.exists() else 0

    def actions(self) -> set[str]:
        """Return the IAM actions of the calls since the last look."""
        data = self.path.read_bytes() if self.path.exists() else b""
        rows = [json.loads(line) for line in data[self.read :].splitlines()]
        self.read = len(data)
        return {f"{row['service']}:{row['call']}" for row in rows}


def granted(*verbs: str) -> set[str]:
    """Return the actions that a policy for some verbs allows."""
    statements: Any = policy(verbs, "aws").document["Statement"]
    return {action for one in statements for action in one["Action"]}


SSH_ONLY = {"train"}
"""Verbs that ask the cloud nothing as long as the machine is where it was."""


def statement(name: str, *verbs: str, partition: str = "aws") -> dict[str, Any]:
    statements: Any = policy(verbs, partition).document["Statement"]
    return next(one for one in statements if one["Sid"] == name)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Generator[Running]:
    with started(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


def launched(provider: AwsProvider, run: RunRef, market: Any) -> str:
    survey = provider.survey(Config(instance=Instance(market=market)))
    access = provider.prepare_access(AccessSpec(run, KEY, "127.0.0.1", provider.ssh_port))
    spec: LaunchSpec = replace(
        SPEC,
        image=survey.image,
        zone=None,
        market=market,
        key_name=access.key_name,
        security_group=access.security_group,
        tags=run_tags(run),
        after_power_off="stop",
    )
    machine = provider.launch(spec, f"token-{run.slug}", Stored())
    return provider.wait_running(machine.id, 60).id


def leave_over(provider: AwsProvider, run: RunRef) -> None:
    """Make what only `audit --delete` removes."""
    ec2: Any = provider.clients.ec2
    tags = [{"Key": key, "Value": value} for key, value in run_tags(run).items()]

    def tagged(kind: str) -> Any:
        return [{"ResourceType": kind, "Tags": tags}]

    volume = ec2.create_volume(Size=10, AvailabilityZone="us-east-1a", TagSpecifications=tagged("volume"))[
        "VolumeId"
    ]
    ec2.create_snapshot(VolumeId=volume, TagSpecifications=tagged("snapshot"))
    ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip"))
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    ec2.create_network_interface(SubnetId=subnet, TagSpecifications=tagged("network-interface"))


def test_every_call_is_in_the_policy_and_every_action_is_called(cloud: Running) -> None:
    """All calls to a cloud go through the provider, so all of it is used here once."""
    provider = cloud.provider()
    record = Record(cloud.state / "calls.jsonl")
    run = RunRef("policy", "0123abcd", provider.identity().owner)
    seen: set[str] = set()

    machine = launched(provider, run, "on-demand")
    provider.tag(machine, {"cloudtrain-note": "x"})
    found = provider.observe(run).machines[0]
    provider.push_key(machine, found.zone, "ubuntu", KEY)
    provider.repair_ingress(run, "127.0.0.2")
    provider.stop(machine)
    provider.start(machine)
    provider.wait_running(machine, 60)
    provider.quota("g4dn.xlarge", "spot")
    provider.request_quota("g4dn.xlarge", "spot", 5000)
    provider.offers(OfferQuery(gpu="T4"))
    for probe in provider.probes(Config()):
        probe.ask()
    image = provider.create_image(machine, "an image", {**run_tags(run), RECIPE: "0123"})
    assert provider.create_image(machine, "an image", run_tags(run)) == image
    assert [one.id for one in provider.images(run.owner)] == [image]
    seen |= record.actions()

    ec2: Any = provider.clients.ec2
    subnet = str(ec2.describe_subnets()["Subnets"][0]["SubnetId"])
    leave_over(provider, run)
    record.skip()

    provider.survey(Config(instance=Instance(subnet=subnet)))
    spot = replace(run, id="0123abce")
    launched(provider, spot, "spot")
    owner = run.owner
    provider.remove(provider.sweep(owner).found)
    provider.remove(provider.sweep(owner).found)
    assert provider.sweep(owner).found == ()
    seen |= record.actions()

    every = granted()
    assert seen - every - set(FREE) == set(), "called without being in the policy"
    assert every - seen - set(IMPLIED) == set(), "in the policy and never called"
    assert not set(IMPLIED) - every


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Road]:
    with home(tmp_path / "home") as made:
        yield Road(tmp_path / "road", made, {RECORD: str(tmp_path / "record.jsonl")})


def test_each_verb_calls_only_what_its_own_policy_allows(way: Road) -> None:
    record = Record(Path(way.env[RECORD]))
    beyond: dict[str, set[str]] = {}

    def check(verb: str, *args: str) -> None:
        way.call(*args)
        called = record.actions()
        assert called or verb in SSH_ONLY, f"nothing was recorded of {verb}"
        extra = called - granted(verb) - set(FREE)
        if extra:
            beyond[" ".join(args)] = extra

    check("offers", "offers", "--gpu", "T4")
    check("quota", "quota")
    check("doctor", "doctor")
    check("up", "up", "-y")
    check("status", "status")
    check("train", "train", "--replace")
    check("audit", "audit")
    check("stop", "stop")
    check("extend", "extend", "--hours", "1", "-y")
    check("start", "start")
    check("down", "down", "--stop-training", "--discard")
    check("images", "images")
    check("audit-delete", "audit", "--delete", "-y")
    assert beyond == {}


def test_the_suite_as_a_whole_stays_inside_the_policy() -> None:
    """With the variable set for the whole suite, every command's calls are compared."""
    path = os.environ.get(RECORD)
    if not path or not Path(path).exists():
        pytest.skip(f"{RECORD} names no record of a suite")
    tests_own = {"ec2:CreateVolume", "ec2:CreateSnapshot", "ec2:AllocateAddress", "ec2:CreateImage"}
    assert Record(Path(path)).actions() - granted() - set(FREE) - tests_own == set()


def test_a_verb_gets_no_more_than_it_needs() -> None:
    assert granted("offers") <= granted("up")
    assert not any(
        action.split(":")[1].startswith(("Run", "Delete", "Terminate")) for action in granted("offers")
    )
    assert "ec2:RunInstances" not in granted("down")
    assert "ec2:DeleteVolume" not in granted("up", "down")
    assert "servicequotas:RequestServiceQuotaIncrease" not in granted("doctor")
    assert granted("up") < granted()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_policy_with_reasons(verb: str) -> None:
    made = policy((verb,), "aws")
    assert set(made.reasons) == granted(verb)
    assert all(made.reasons.values())


def test_what_aws_lets_be_tied_to_the_tag_is_tied() -> None:
    making = statement("MakeOnlyWithOurTag", "up")
    assert making["Condition"] == {"StringLike": {"aws:RequestTag/cloudtrain-owner": "?*"}}
    changing = statement("ChangeOnlyWhatHasOurTag")
    assert changing["Condition"] == {"StringLike": {"aws:ResourceTag/cloudtrain-owner": "?*"}}
    for action in ("TerminateInstances", "StopInstances", "DeleteKeyPair", "DeleteVolume", "CreateTags"):
        assert f"ec2:{action}" in changing["Action"]
    statements: Any = policy((), "aws").document["Statement"]
    for one in statements:
        changes = [a for a in one["Action"] if a.split(":")[1].startswith(("Delete", "Terminate", "Stop"))]
        assert not changes or "Condition" in one
        assert one["Resource"] != "*" or one["Sid"] == "Look"
    using = statement("LaunchFromWhatIsThere", "up")
    assert using["Action"] == ["ec2:RunInstances"]
    assert not any(resource.endswith(":instance/*") for resource in using["Resource"])


def test_china_has_its_own_arns() -> None:
    text = json.dumps(policy((), "aws-cn").document)
    assert "arn:aws-cn:" in text
    assert "arn:aws:" not in text


def test_every_action_is_spelled_once_a_scope() -> None:
    pairs = [(right.action, right.scope) for right in RIGHTS]
    assert len(pairs) == len(set(pairs))
    assert all(set(right.verbs.split()) <= set(VERBS) for right in RIGHTS)


def test_the_documentation_gives_the_reason_of_every_action() -> None:
    page = (Path(__file__).parents[2] / "docs" / "aws-account.md").read_text()
    missing = [right.action for right in RIGHTS if f"| `{right.action}` | {right.why} |" not in page]
    assert missing == []


def test_a_dataset_in_s3_may_be_read_and_nothing_else_of_its_bucket() -> None:
    one: Any = policy(("up",), "aws-cn", "s3://lab/sets/a.zip")
    objects, below = one.document["Statement"][-2:]
    assert (objects["Action"], objects["Resource"]) == (["s3:GetObject"], "arn:aws-cn:s3:::lab/sets/a.zip")
    assert below["Condition"] == {"StringLike": {"s3:prefix": "sets/a.zip*"}}
    assert set(one.reasons) == granted("up") | {"s3:GetObject", "s3:ListBucket"}
    folder: Any = policy(("up",), "aws", "s3://lab/sets/")
    assert folder.document["Statement"][-2]["Resource"] == "arn:aws:s3:::lab/sets/*"
    for wrong in ("lab/sets", "s3://", "https://lab.example.org/a.zip"):
        with pytest.raises(UsageError, match="no address in S3"):
            policy(("up",), "aws", wrong)


def test_a_verb_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="`dance`"):
        policy(("dance",), "aws")


def test_the_command_prints_a_document_for_iam(way: Road) -> None:
    printed = json.loads(way.call("iam-policy", "up", "down", "--region", "cn-north-1").stdout)
    assert printed["Version"] == "2012-10-17"
    assert "arn:aws-cn:" in json.dumps(printed)
    told = way.json("iam-policy", "down")["result"]
    assert told["reasons"]["ec2:TerminateInstances"]
