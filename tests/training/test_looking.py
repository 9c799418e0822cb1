"""One look a round trip, on a real machine: new rows only, and none twice."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from cloudtrain.models.config import Config, Train
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Session
from cloudtrain.models.watching import GpuLoad
from cloudtrain.ssh.remote import connect
from cloudtrain.training.looking import Watcher, eta_s
from tests.support.sshd import Sshd
from tests.training.conftest import Bench

HEAD = "epoch,time,train/box_loss,metrics/mAP50(B)\n"
LONG = "until [ -e go ]; do sleep 0.02; done"


def table(session: Session) -> Path:
    """Where the trainer's table is written, before it has begun as well."""
    path = Path(session.run_dir) / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def config(epochs: int = 10) -> Config:
    return Config(train=Train(kind="script", command=LONG, args={"epochs": epochs}))


def test_rows_are_told_once_and_a_torn_one_when_it_is_whole(bench: Bench) -> None:
    session = bench.start(LONG)
    results = table(session)
    results.write_text(HEAD + "1,5,3.0,0.1\n2,10,2.0,0.2\n3,15,1.")
    watcher = Watcher(bench.remote, bench.layout, config())
    _, readings, curves = watcher.look()
    assert curves.epochs == (1, 2)
    assert curves.values["train/box_loss"] == (3.0, 2.0)
    assert curves.epoch_s == 5.0
    assert readings.memory_total_mib > 100
    assert readings.disk_total_mib > readings.disk_free_mib > 0
    assert readings.cpus > 0
    with results.open("a") as file:
        file.write("0,0.3\n4,20,0.5,0.4\n")
    status, _, curves = watcher.look()
    assert curves.epochs == (1, 2, 3, 4)
    assert curves.values["metrics/mAP50(B)"] == (0.1, 0.2, 0.3, 0.4)
    assert status is not None
    left = eta_s(status, replace(curves, since_row_s=2.0))
    assert left == 6 * 5 - 2
    read = watcher.offset
    assert read == results.stat().st_size
    assert watcher.look()[2].epochs == (1, 2, 3, 4)
    assert watcher.offset == read


def test_a_table_of_pythons_csv_module_is_read_to_its_end(bench: Bench) -> None:
    session = bench.start(LONG)
    results = table(session)
    watcher = Watcher(bench.remote, bench.layout, config())
    curves = watcher.look()[2]
    for number in range(4):
        with results.open("a", newline="") as file:
            csv.writer(file).writerow([number, number / 2] if number else ["epoch", "loss"])
        curves = watcher.look()[2]
        assert curves.epochs == tuple(range(1, number + 1))
    assert curves.values["loss"] == (0.5, 1.0, 1.5)
    assert watcher.offset == results.stat().st_size


def test_a_row_without_its_end_is_not_taken_even_with_all_cells(bench: Bench) -> None:
    session = bench.start(LONG)
    results = table(session)
    results.write_text(HEAD + "1,5,3.0,0.1")
    watcher = Watcher(bench.remote, bench.layout, config())
    assert watcher.look()[2].epochs == ()
    with results.open("a") as file:
        file.write("5\n2,10,2.0,0.2\n")
    assert watcher.look()[2].values["metrics/mAP50(B)"] == (0.15, 0.2)


def test_a_resumed_training_tells_its_rows_anew(bench: Bench) -> None:
    session = bench.start(LONG)
    results = table(session)
    results.write_text(HEAD + "1,5,3.0,0.1\n2,10,2.0,0.2\n")
    watcher = Watcher(bench.remote, bench.layout, config())
    watcher.look()
    part = results.with_name("part")  # as resuming does: a new file, without the row that is written again
    part.write_text(HEAD + "1,5,3.0,0.1\n2,4,1.5,0.3\n3,8,1.0,0.4\n")
    part.replace(results)
    _, _, curves = watcher.look()
    assert curves.values["metrics/mAP50(B)"] == (0.1, 0.3, 0.4)
    assert curves.epoch_s == 4.0


def test_an_epoch_that_comes_twice_counts_once(bench: Bench) -> None:
    session = bench.start(LONG)
    table(session).write_text(HEAD + "1,5,3.0,0.1\n1,5,2.0,0.2\n2,9,1.0,0.3\n")
    _, _, curves = Watcher(bench.remote, bench.layout, config()).look()
    assert curves.epochs == (1, 2)
    assert curves.values["train/box_loss"] == (2.0, 1.0)


def test_without_a_session_there_is_nothing_to_see(bench: Bench) -> None:
    assert Watcher(bench.remote, bench.layout, config()).look()[0] is None


def test_without_results_the_machine_is_seen_all_the_same(bench: Bench) -> None:
    bench.start(LONG)
    status, readings, curves = Watcher(bench.remote, bench.layout, config()).look()
    assert status is not None
    assert status.session.state == "running"
    assert curves.epochs == ()
    assert eta_s(status, curves) is None
    assert readings.cpus > 0


SMI = """#!/bin/sh
# Answers as NVIDIA's program does with --format=csv,noheader,nounits: what a GPU cannot tell is [N/A].
[ "$1" = --query-gpu=utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw,name ] || exit 2
[ "$2" = --format=csv,noheader,nounits ] || exit 2
echo '97, 8123, 15360, 64, 68.21, Tesla T4'
echo '[N/A], 40000, 143771, 31, [Not Supported], NVIDIA H200, MIG 1g'
"""


BROKEN = """#!/bin/sh
echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest"
echo "NVIDIA driver is installed and running."
exit 9
"""


def test_what_nvidia_smi_says_when_it_fails_is_no_gpu(sshd: Sshd, layout: Layout) -> None:
    assert read_with(sshd, layout, BROKEN) == ()


def test_each_gpu_is_read_and_what_it_cannot_tell_is_unknown(sshd: Sshd, layout: Layout) -> None:
    assert read_with(sshd, layout, SMI) == (
        GpuLoad("Tesla T4", 97, 8123, 15360, 64, 68.21),
        GpuLoad("NVIDIA H200, MIG 1g", None, 40000, 143771, 31, None),
    )


def read_with(sshd: Sshd, layout: Layout, program: str) -> tuple[GpuLoad, ...]:
    """What is read of a machine whose nvidia-smi is this program."""
    sshd.bring({"nvidia-smi": program})
    with connect(sshd.target) as remote:
        return Watcher(remote, layout, config()).look()[1].gpus
