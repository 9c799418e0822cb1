"""Searches for hyperparameters: workers side by side, one table, none counted twice."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloudtrain.errors import UsageError
from cloudtrain.models.config import Config, Sweep, Train
from cloudtrain.models.machine import Gpu
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Session
from cloudtrain.training import build_command, start, status, stop
from cloudtrain.training.machine import sweep
from cloudtrain.training.sweeping import search, sweep_status
from tests.support.road import until
from tests.training.conftest import SLUG, Bench, facts, gone
from tests.training.real import ARGS, MODEL, dataset

# yolov5's train.py as far as --evolve goes (v7.0): each generation reads the table of all, mutates,
# trains, and appends its row; a header comes before the first. `--exist-ok` counts for nothing there.
STAND_IN = """\
import argparse, os, random, time
from pathlib import Path
p = argparse.ArgumentParser()
for name in ("data", "weights", "cfg", "device", "project", "name", "img"): p.add_argument("--" + name)
p.add_argument("--exist-ok", action="store_true"); p.add_argument("--evolve", type=int, nargs="?", const=300)
p.add_argument("--resume", nargs="?", const=True, default=False)
opt = p.parse_args()
opt.exist_ok, opt.resume = opt.resume, False
folder, number = Path(opt.project) / opt.name, 2
while folder.exists() and not opt.exist_ok:
    folder, number = Path(opt.project) / f"{opt.name}{number}", number + 1
folder.mkdir(parents=True, exist_ok=True)
table = folder / "evolve.csv"
for _ in range(opt.evolve):
    if table.exists():
        rows = [[float(cell) for cell in line.split(",")] for line in table.read_text().splitlines()[1:]]
        assert rows and all(len(row) == 9 for row in rows), rows
    value = random.random()
    print("training on", opt.device, flush=True)
    (Path(os.environ["CLOUDTRAIN_RUN_DIR"]).parent / f"began-{os.getpid()}").touch()
    while Path("hold").exists():
        time.sleep(0.02)
    time.sleep(0.1)
    header = "" if table.exists() else "metrics/precision,metrics/recall,metrics/mAP_0.5,metrics/mAP_0.5:0.95,a,b,c,lr0,pid\\n"
    with open(table, "a") as file:
        file.write(header + f"0.1,0.2,{value},{value / 2},1,1,1,{value},{os.getpid()}\\n")
(folder / "hyp_evolve.yaml").write_text("lr0: 0.01\\n")
"""


def begin(bench: Bench, *, trials: int, workers: int, number: int = 1) -> Session:
    Path(bench.layout.project, "train.py").write_text(STAND_IN)
    config = Config(
        train=Train(kind="yolov5", model="tiny.yaml", args={"img": 32}),
        sweep=Sweep(trials=trials, workers=workers),
    )
    return start(
        bench.remote, config, bench.layout, slug=SLUG, python=sys.executable, number=number, dataset_yaml="d.yaml",
        model="tiny.yaml", facts=facts(),
    )  # fmt: skip


def rows(session: Session) -> list[list[str]]:
    text = Path(session.run_dir, "evolve.csv").read_text()
    return [line.split(",") for line in text.splitlines()[1:]]


def state(session: Session) -> dict[str, object]:
    return json.loads(Path(session.log).with_name("sweep.json").read_text())


def windows(session: Session) -> set[str]:
    """The workers' logs that a window of the session's screen shows."""
    found: set[str] = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_text().split("\0")
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if words[0] == "tail" and words[-2].startswith(f"{Path(session.log).parent}/worker-"):
                assert Path("/proc", parent, "comm").read_text() == "screen\n"
                found.add(Path(words[-2]).name)
        except (OSError, IndexError):
            continue
    return found


def running(session: Session) -> list[int]:
    try:
        return [one["pid"] for one in state(session)["workers"] if one["pid"]]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType, reportIndexIssue]
    except OSError:
        return []


def said(bench: Bench, session: Session) -> str:
    """The logs of a search and of its workers, and its table."""
    logs = sorted(Path(session.log).parent.glob("worker-*.log"))
    return "\n".join([bench.log(session), *(one.read_text() for one in logs), str(rows(session))])


def test_four_workers_one_table_one_killed_and_replaced(bench: Bench) -> None:
    Path(bench.layout.project, "hold").touch()
    session = begin(bench, trials=10, workers=4)
    until(lambda: len(running(session)) == 4, timeout=60)
    until(lambda: len(list(Path(session.run_dir).parent.glob("began-*"))) == 4, timeout=60)
    assert windows(session) == {f"worker-{n}.log" for n in range(4)}
    victim = running(session)[2]
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(running(session)) == 4 and victim not in running(session), timeout=60)
    Path(bench.layout.project, "hold").unlink()
    ended = bench.end(session)
    assert (ended.state, ended.exit_code) == ("finished", 0), said(bench, session)
    found = rows(session)
    assert len(found) == 10
    assert len({row[7] for row in found}) == 10
    assert len({row[8] for row in found}) == 10  # one process, one row
    assert str(victim) not in {row[8] for row in found}
    assert "worker 2 (cpu) was killed by signal 9: started again on cpu" in bench.log(session)
    for number in range(4):
        assert "training on cpu" in Path(session.log).with_name(f"worker-{number}.log").read_text()
    known = sweep_status(bench.remote, bench.layout, 1)
    assert known is not None
    assert (known.done, known.trials) == (10, 10)
    assert sum(one.done for one in known.workers) == 10
    until(lambda: windows(session) == set())
    assert [one.restarts for one in known.workers] == [0, 0, 1, 0]
    assert known.best_fitness == pytest.approx(max(0.1 * float(r[2]) + 0.9 * float(r[3]) for r in found))


def test_a_search_that_was_cut_off_goes_on_with_what_is_left(bench: Bench) -> None:
    session = begin(bench, trials=8, workers=2)
    until(lambda: Path(session.run_dir, "evolve.csv").exists() and len(rows(session)) >= 3, timeout=60)
    Path(bench.layout.project, "hold").touch()
    until(lambda: len(running(session)) == 2, timeout=60)
    orphans = running(session)
    before = rows(session)
    os.kill(bench.pid(session, "trainer"), signal.SIGKILL)  # the supervisor starts it again
    until(lambda: all(gone(pid) for pid in orphans), timeout=60)
    Path(bench.layout.project, "hold").unlink()
    ended = bench.end(session)
    assert ended.exit_code == 0, bench.log(session)
    assert len(rows(session)) == 8
    assert rows(session)[: len(before)] == before


def test_stop_ends_every_worker(bench: Bench) -> None:
    Path(bench.layout.project, "hold").touch()
    session = begin(bench, trials=9, workers=3)
    until(lambda: len(running(session)) == 3, timeout=60)
    pids = running(session)
    ended = stop(bench.remote, bench.layout, session)
    assert ended.exit_code == 143
    assert all(gone(pid) for pid in pids)


def test_workers_that_always_fail_are_given_up(bench: Bench) -> None:
    session = begin(bench, trials=4, workers=2)
    Path(bench.layout.project, "train.py").write_text(
        "import sys\nprint('torch.OutOfMemoryError: CUDA out of memory.', file=sys.stderr)\nsys.exit(5)\n"
    )
    ended = bench.end(session)
    assert ended.state == "failed"
    assert "given up" in bench.log(session)
    found = status(bench.remote, bench.layout, bench.config("true"))
    assert found is not None
    assert found.trouble is not None
    assert found.trouble.kind == "gpu-memory"


# ultralytics' tuner as far as a trial goes: what it trains failed, and it would save that with fitness 0.
TUNER = """\
import json
from pathlib import Path
from types import SimpleNamespace
class Tuner:
    def __init__(self, args):
        self.tune_dir = Path(args["folder"])
        self.tune_file = self.tune_dir / "tune_results.ndjson"
        self.failed = args["failed"]
        self.args = SimpleNamespace()
    def _load_local_results(self):
        return self.tune_file.read_text().splitlines()
    def _save_local_result(self, result):
        with self.tune_file.open("a") as file:
            file.write(json.dumps(result) + "\\n")
    def __call__(self, iterations, cleanup):
        self._save_local_result({"fitness": 0.0, "failed_datasets": self.failed})
"""


@pytest.mark.parametrize("failed", [["coco8"], []])
def test_a_trial_that_crashed_is_none(tmp_path: Path, failed: list[str]) -> None:
    package = tmp_path / "lib" / "ultralytics"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "engine" / "__init__.py").touch()
    (package / "engine" / "tuner.py").write_text(TUNER)
    (package / "utils.py").write_text("SETTINGS = {}\n")
    given = {"trials": str(tmp_path / "trials"), "folder": str(tmp_path / "tune"), "failed": failed}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from cloudtrain.training.machine.tune import main; main()",
            json.dumps(given),
        ],
        env={**os.environ, "PYTHONPATH": f"{package.parent}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == len(failed), done.stderr
    assert ("the training failed: coco8" in done.stderr) == bool(failed), done.stderr
    assert Path(tmp_path, "tune", "tune_results.ndjson").exists() == (not failed)


HEAD = "metrics/precision,metrics/recall,metrics/mAP_0.5,metrics/mAP_0.5:0.95,lr0\n"


def test_a_torn_row_and_a_second_header_are_mended(tmp_path: Path) -> None:
    table = tmp_path / "evolve.csv"
    table.write_text(HEAD + "1,1,0.5,0.4,1\n" + HEAD + "1,1,0.6,0.5,2\n1,1,0.7")
    assert sweep.headers_astray(table)
    assert [row["trial"] for row in sweep.rows(table)] == [1, 2]
    assert sweep.mend(table)
    assert table.read_text() == HEAD + "1,1,0.5,0.4,1\n1,1,0.6,0.5,2\n"
    assert not sweep.mend(table)
    table.write_text("1,1,0.6,0.5,2\n" + HEAD + "1,1,0.5,0.4,1\n")  # its header was late
    assert sweep.headers_astray(table)
    assert sweep.mend(table)
    assert table.read_text() == HEAD + "1,1,0.6,0.5,2\n1,1,0.5,0.4,1\n"
    assert not sweep.headers_astray(table)
    table.write_text(HEAD)
    assert sweep.mend(table)
    assert not table.exists()


@pytest.mark.timeout(600)
def test_ultralytics_tunes_side_by_side(tmp_path: Path) -> None:
    """Two trials of the real tuner, two processes at a time, on one results file."""
    pytest.importorskip("ultralytics")
    project = tmp_path / "project"
    project.mkdir()
    data = dataset(tmp_path / "data")
    (project / "tiny.yaml").write_text(MODEL)
    layout = Layout(str(tmp_path))
    args = {key: value for key, _, value in (word.partition("=") for word in ARGS)}
    config = Config(
        train=Train(kind="yolo", model="tiny.yaml", args={**args, "epochs": 1, "task": "detect"}),
        sweep=Sweep(trials=2, workers=2),
    )
    argv, env = build_command(
        config, layout, python=sys.executable, run_dir=layout.run_dir(1), dataset_yaml=str(data),
        model=str(project / "tiny.yaml"), gpus=0,
    )  # fmt: skip
    plan = {
        "session": str(tmp_path),
        "sweep": search(config, layout, argv=argv, number=1, model=str(project / "tiny.yaml"), gpus=0),
    }
    lib = Path(importlib.import_module("cloudtrain.training.machine").__path__[0])
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "cloudtrain_training").symlink_to(lib)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    code = "import json, sys; from cloudtrain_training.sweep import main; main(json.load(open(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "plan.json")],
        cwd=project, check=False, capture_output=True, text=True, timeout=580,
        env={**os.environ, **env, "PYTHONPATH": str(tmp_path / "lib"), "YOLO_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    logs = "".join(path.read_text(errors="replace")[-3000:] for path in tmp_path.glob("worker-*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    results = [
        json.loads(row) for row in Path(layout.run_dir(1), "tune_results.ndjson").read_text().splitlines()
    ]
    assert [row["iteration"] for row in results] == [1, 2]
    assert Path(layout.run_dir(1), "weights", "best.pt").exists()
    assert Path(layout.run_dir(1), "best_hyperparameters.yaml").exists()
    assert not list(Path(layout.root, "trials", "001").glob("*"))


GPUS = tuple(Gpu("T4", 15360, "580", (7, 5)) for _ in range(4))


def words(
    gpus: str | None, kind: str = "yolov5", command: str = "python train.py --x 1", **args: object
) -> list[str]:
    config = Config(train=Train(kind=kind, gpus=gpus, command=command, args=args))  # pyright: ignore[reportArgumentType]
    argv, env = build_command(
        config, Layout("/r"), python="py", run_dir="/r/runs/001", dataset_yaml="/d.yaml", model="m.pt", gpus=4
    )
    return [*argv, f"CUDA={env.get('CUDA_VISIBLE_DEVICES')}"]


def test_each_framework_has_its_own_launcher() -> None:
    assert "device=0,1,2,3" in words(None, "yolo")
    assert "device=0,2" in words("[0, 2]", "yolo")
    assert "device=0,1" in words("2", "yolo")
    yolov5 = " ".join(words("[1, 3]"))
    assert "-m torch.distributed.run --standalone --nproc_per_node 2 train.py" in yolov5
    assert "--device 1,3" in yolov5
    assert words(None, "script")[2] == "python train.py --x 1"
    script = words("all", "script")
    assert script[2] == "python -m torch.distributed.run --standalone --nproc_per_node 4 train.py --x 1"
    assert script[-1] == "CUDA=0,1,2,3"
    assert words("[2]", "script")[2:] == ["python train.py --x 1", "CUDA=2"]


def test_what_cannot_be_is_said_before_it_costs() -> None:
    with pytest.raises(UsageError, match="the machine has 4"):
        words("8")
    with pytest.raises(UsageError, match="cannot be divided among 3"):
        words("3", batch=16)
    with pytest.raises(UsageError, match="one GPU only"):
        words("2", "yolo", batch=-1)
    with pytest.raises(UsageError, match="launched as"):
        words("2", "script", "make train")


def test_a_worker_per_gpu_with_its_own_device() -> None:
    layout = Layout("/r")
    config = Config(train=Train(kind="yolov5", gpus="[1, 3]"), sweep=Sweep(trials=5))
    argv = [
        "py",
        "train.py",
        "--data",
        "d",
        "--device",
        "0",
        "--project",
        "/r/runs",
        "--name",
        "001",
        "--exist-ok",
    ]
    plan = search(config, layout, argv=argv, number=1, model="m.pt", gpus=4)
    assert [one["device"] for one in plan["workers"]] == ["1", "3"]
    assert [one["argv"][one["argv"].index("--device") + 1] for one in plan["workers"]] == ["1", "3"]
    assert all(one["argv"][-4:] == ["--exist-ok", "--resume", "--evolve", "1"] for one in plan["workers"])


GLOO = """\
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.ones(1) * (dist.get_rank() + 1)
dist.all_reduce(value)
open(f"rank-{dist.get_rank()}", "w").write(f"{dist.get_world_size()} {int(value)}")
dist.destroy_process_group()
"""


def test_the_launched_script_trains_together(tmp_path: Path) -> None:
    """The command that is built for two GPUs, run here over gloo."""
    pytest.importorskip("torch")
    (tmp_path / "train.py").write_text(GLOO)
    command = words("2", "script", f"{sys.executable} train.py")[:3]
    subprocess.run(
        command,
        cwd=tmp_path,
        check=True,
        timeout=180,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert {(tmp_path / f"rank-{rank}").read_text() for rank in range(2)} == {"2 3"}
