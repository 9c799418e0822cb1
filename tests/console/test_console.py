"""What a command says: data on stdout, all else on stderr, one JSON object for scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path

import pytest

from cloudtrain.console import Console, to_jsonable
from cloudtrain.console.words import artifacts, duration, money, size, training, waterfall
from cloudtrain.errors import CapacityError, ConfigError, Problem, RefusedError, UsageError
from cloudtrain.events import StageTime, Waterfall
from cloudtrain.models.plan import Action, Image, Offer, Plan, Receipt
from cloudtrain.models.training import Artifact, Service, Session, TrainingStatus
from cloudtrain.paths import data_dir
from tests.console.streams import Spoken

OFFER = Offer(
    type="g4dn.xlarge",
    market="spot",
    zones=("us-east-1a",),
    vcpus=4,
    memory_mib=16384,
    gpu_name="T4",
    gpu_count=1,
    gpu_memory_mib=16384,
    price_hour=0.2,
    price_source="api",
)
PLAN = Plan(
    actions=(
        Action("key-pair", "import an SSH key made here", "the private half stays"),
        Action("launch", "launch one g4dn.xlarge (spot)", "the training runs on it"),
    ),
    offer=OFFER,
    image=Image("ami-1", "ubuntu-24.04", "ubuntu", "/dev/sda1", 8),
    region="us-east-1",
    volume_gb=60,
    price_hour=0.213,
    lease_hours=8,
    lease_cost=1.7,
    deadline=datetime(2026, 11, 21, 18, 0, tzinfo=UTC),
    notes=("the price was not asked",),
)
STAGES = Waterfall(
    (
        StageTime("launch", 0, 10, "", ok=True),
        StageTime("push", 10, 12, "3 files", ok=True),
        StageTime("install", 10, 40, "torch", ok=False),
    ),
    40.0,
    ("launch", "install"),
)
SESSION = Session(3, "helmets", "running", "/r", "/l")


def test_the_plan_goes_to_stderr_and_says_what_it_costs() -> None:
    spoken = Spoken()
    spoken.console.show_plan(PLAN)
    assert spoken.out == ""
    assert spoken.err.splitlines() == [
        "plan",
        "  machine   g4dn.xlarge (spot): 1 x T4, 16 GiB; 4 vCPU, 16 GiB RAM",
        "  where     us-east-1, image ubuntu-24.04, 60 GB encrypted volume",
        "  price     0.213 USD an hour with volume and address (price: api)",
        "  lease     8.0 h, at most 1.70 USD, until 2026-11-21 18:00 UTC",
        "  data      code and dataset go to the machine's own disk, over SSH",
        "  do        import an SSH key made here: the private half stays",
        "            launch one g4dn.xlarge (spot): the training runs on it",
        "  note      the price was not asked",
    ]


def test_a_plan_without_advice_says_what_is_not_known() -> None:
    spoken = Spoken()
    spoken.console.show_plan(
        Plan(
            actions=(), offer=None, image=None, region="x", volume_gb=20, price_hour=None,
            lease_hours=1, lease_cost=None, deadline=None,
        )
    )  # fmt: skip
    assert "not known an hour" in spoken.err
    assert "at most not known" in spoken.err


def test_a_result_is_text_or_one_object() -> None:
    spoken = Spoken()
    spoken.console.show_receipt(Receipt(1.5, 0.32, "USD", ("vol-1",)))
    assert (
        spoken.out
        == "1 h 30 min of machine time, 0.320 USD at most; 1 left in the cloud\nleft        vol-1\n"
    )
    spoken = Spoken(json=True)
    spoken.console.show_plan(PLAN)
    spoken.console.show_waterfall(STAGES)
    spoken.console.line("a line of a log")
    spoken.console.show_receipt(Receipt(1.5, 0.32, "USD", ()))
    assert json.loads(spoken.out) == {
        "ok": True,
        "result": {
            "hours": 1.5,
            "cost": 0.32,
            "currency": "USD",
            "leftovers": [],
            "parked_hours": 0.0,
            "ended_by": "",
        },
    }
    assert [json.loads(line)["event"] for line in spoken.err.splitlines()] == ["plan", "waterfall", "output"]
    assert json.loads(spoken.err.splitlines()[0])["plan"]["deadline"] == "2026-11-21T18:00:00Z"


def test_a_receipt_says_what_was_parked_and_what_ended_the_machine() -> None:
    spoken = Spoken()
    spoken.console.show_receipt(Receipt(1.5, 0.32, "USD", (), 0.5, "deadline"))
    assert spoken.out == (
        "1 h 0 min of machine time, 30 min 0 s parked, 0.320 USD at most; 0 left in the cloud\n"
        "lease       the machine had powered itself off (deadline)\n"
    )


def test_the_waterfall_marks_what_the_end_waited_for_without_colour() -> None:
    assert waterfall(STAGES) == [
        "* launch   ########                             10.0 s",
        "  push             ##                            2.0 s  3 files",
        "* install          ########################     30.0 s  failed  torch",
        "  total                                         40.0 s  (* the end waited for it)",
    ]


@pytest.mark.parametrize("width", [30, 50, 80])
def test_the_waterfall_fits_a_narrow_terminal(width: int) -> None:
    long = StageTime("a stage", 39.9, 40, "an outcome of many words " * 9, ok=True)
    rows = waterfall(Waterfall((*STAGES.stages, long), 40.0, ()), width=width)
    assert all(len(row) <= width for row in rows)
    assert all("#" in row for row in rows[:-1])


def test_artifacts_say_what_is_proven_and_what_it_is_worth() -> None:
    best = Artifact(
        "best", Path("/w/best.pt"), "/r", 5_400_000, "0" * 64, complete=True, epoch=7,
        metrics={"metrics/mAP50(B)": 0.91234, "lr": 1.0},
    )  # fmt: skip
    torn = Artifact("last", Path("/w/last.pt"), "/r", 10, "0" * 64, complete=False, fetched=False)
    log = Artifact("log", Path("/w/train.log"), "/r", 10, "0" * 64, complete=True)
    assert artifacts((best, torn, log)) == [
        "/w/best.pt  5.4 MB, whole, epoch 7, mAP50 0.912",
        "/w/last.pt  10 B, not proven whole (was here)",
        "and 1 more files (results, plots, log) in /w",
    ]
    assert artifacts(()) == ["no checkpoint was written yet"]


def test_a_status_cannot_write_to_the_terminal_by_itself() -> None:
    status = TrainingStatus(SESSION, epoch=2, epochs=9, metrics={"loss": 0.5}, last_line="\x1b[2Jgone\x07")
    spoken = Spoken()
    spoken.console.result(status, "\n".join(training(status)))
    assert spoken.out.splitlines() == [
        "training    session 003 is running",
        "epoch       2 of 9  loss 0.500",
        "last line   gone",
    ]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no"), 2, "error: no\n"),
        (
            RefusedError("training runs", hint="`--stop-training`"),
            7,
            "error: training runs\n\nhint: `--stop-training`\n",
        ),
        (CapacityError("none now"), 3, "error: none now\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (ConfigError((Problem("a.yaml", 3, "bad"),)), 2, "error: a.yaml:3: bad\n"),
        (
            ConfigError((Problem("a.yaml", 3, "bad"), Problem("VAR", 0, "worse")), hint="look"),
            2,
            "error: 2 problems in the configuration\na.yaml:3: bad\nVAR: worse\n\nhint: look\n",
        ),
        (UsageError("from a \x1b[31mmachine"), 2, "error: from a machine\n"),
    ],
)
def test_an_error_is_one_message_and_its_exit_code(error: BaseException, code: int, said: str) -> None:
    spoken = Spoken()
    assert spoken.console.show_error(error) == code
    assert (spoken.out, spoken.err) == ("", said)


def test_an_error_for_a_script_is_the_one_object() -> None:
    spoken = Spoken(json=True)
    assert spoken.console.show_error(ConfigError((Problem("a.yaml", 3, "bad"),), hint="look")) == 2
    assert json.loads(spoken.out) == {
        "ok": False,
        "error": {
            "type": "ConfigError",
            "message": "a.yaml:3: bad",
            "hint": "look",
            "exit_code": 2,
            "problems": [{"file": "a.yaml", "line": 3, "message": "bad"}],
        },
    }


def test_an_error_after_the_result_does_not_write_a_second_object() -> None:
    spoken = Spoken(json=True)
    spoken.console.result({"a": 1}, "")
    assert spoken.console.show_error(KeyboardInterrupt()) == 130
    assert len(spoken.out.splitlines()) == 1
    assert json.loads(spoken.err)["ok"] is False


def test_a_bug_is_short_on_screen_and_whole_in_a_file_of_ours() -> None:
    spoken = Spoken()
    with pytest.raises(ValueError, match="nobody") as caught:
        raise ValueError("what nobody expected")
    assert spoken.console.show_error(caught.value) == 1
    assert "Traceback" not in spoken.err
    assert spoken.err.startswith("error: ValueError: what nobody expected\n\nhint: ")
    (written,) = (data_dir() / "logs").iterdir()
    assert str(written) in spoken.err
    assert "Traceback" in written.read_text()
    assert written.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("answer", "yes"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_only_a_yes_is_a_yes(answer: str, yes: bool) -> None:
    spoken = Spoken(terminal=True, answer=answer)
    assert spoken.console.confirm("Go ahead?") is yes
    assert spoken.err == "Go ahead? [y/N] "


@pytest.mark.parametrize("json", [True, False])
def test_where_nobody_can_answer_the_flag_is_named(json: bool) -> None:
    spoken = Spoken(json=json, terminal=json, answer="y\n")
    with pytest.raises(UsageError) as caught:
        spoken.console.confirm("Go ahead?")
    assert "`-y`" in caught.value.hint


def test_a_reader_that_left_is_no_error_message() -> None:
    code = (
        "import sys; from cloudtrain.console import Console\n"
        "with Console() as console:\n"
        "    try:\n"
        "        for n in range(100000): console.line('x' * 100)\n"
        "    except BaseException as error: sys.exit(console.show_error(error))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_without_standard_input_there_is_nobody_to_ask() -> None:
    code = (
        "from cloudtrain.console import Console\n"
        "with Console() as console: raise SystemExit(3 if console.interactive else 0)\n"
    )
    command = f"exec {sys.executable} -c '{code}' <&-"
    assert subprocess.run(["bash", "-c", command], check=False).returncode == 0


def test_the_console_imports_neither_rich_nor_pydantic() -> None:
    code = (
        "import sys, cloudtrain.console as c; c.Console();"
        "sys.exit(bool({'rich', 'pydantic', 'yaml', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.PIPE)
    assert done.returncode == 0


class Colour(Enum):
    """Something with a value."""

    RED = "red"


@dataclass(frozen=True, slots=True)
class Everything:
    """One field of each kind."""

    when: datetime = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    where: Path = Path("/a")
    secret: str = field(default="token", repr=False)
    many: frozenset[int] = frozenset({2, 1})
    bad: float = float("inf")
    colour: Colour = Colour.RED
    inner: tuple[Problem, ...] = (Problem("f", 1, "m"),)
    other: object = complex(1, 2)


def test_anything_is_json_and_no_secret_is_in_it() -> None:
    made = to_jsonable(Everything())
    assert made == {
        "when": "2026-01-02T01:00:00Z",
        "where": "/a",
        "secret": "***",
        "many": [1, 2],
        "bad": None,
        "colour": "red",
        "inner": [{"file": "f", "line": 1, "message": "m"}],
        "other": "(1+2j)",
    }
    assert "sesame" not in json.dumps(to_jsonable({"service": Service("jupyter", 8888, "sesame")}))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(1000), "1.0 kB"),
        (size(999_960), "1.0 MB"),
        (size(5.2e12), "5200.0 GB"),
        (duration(0), "0.0 s"),
        (duration(59.97), "1 min 0 s"),
        (duration(3725), "1 h 2 min"),
        (money(None), "not known"),
        (money(0), "0.00 USD"),
        (money(0.0042), "0.00420 USD"),
        (money(12.345, "CNY"), "12.35 CNY"),
    ],
)
def test_numbers_read_as_people_say_them(made: str, expected: str) -> None:
    assert made == expected


def test_a_console_on_a_real_terminal_draws_and_cleans_up(tmp_path: Path) -> None:
    main, side = os.openpty()
    code = (
        "from cloudtrain.console import Console; from cloudtrain.events import *\n"
        "with Console() as console:\n"
        "    assert console.interactive\n"
        "    console.reporter.emit(StageStarted('push'))\n"
        "    console.reporter.emit(Progress('push', 1, 2, 'files', 3.0))\n"
        "    console.reporter.emit(StageFinished('push', 1.0, 'two'))\n"
        "    console.result({}, 'done')\n"
    )
    environ = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=side, stdout=side, stderr=side, env=environ
    )
    os.close(side)
    said = b""
    try:
        while chunk := os.read(main, 4096):
            said += chunk
    except OSError:  # Linux says so when the last writer is gone
        pass
    finally:
        os.close(main)
    assert process.wait() == 0
    text = said.decode()
    assert "✓ push  two  1.0 s" in text
    assert "done" in text.splitlines()[-1]
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h"), "the cursor is back"


def test_consoles_default_streams_are_the_processes_own(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(environ={}) as console:
        console.result({}, "data")
    assert capsys.readouterr().out == "data\n"
