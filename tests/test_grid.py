"""Grids of ablations: every run once, whatever is killed, and the same numbers on a cluster as on one machine."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from damm_lite.experiments.ablate import ablate, combine, read_spec, read_table, run_grid
from damm_lite.experiments.factors import FACTORS, Budget, Level, Network
from damm_lite.experiments.jobs import Job, run_jobs, usable_cores
from damm_lite.fusion import Addition, QueryConfidence
from damm_lite.gates import AlwaysMulti

SPEC = """
grids:
  - fusion: [MMFM, addition]
    head: [joint, query]
    num_steps: [1, 2]
seeds: [0]
budget: {size: 16, widths: [16, 16, 16, 16], patches: 8, steps: 4, batch_size: 4, test_patches: 4}
"""
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    path.write_text(SPEC)
    return path


def start(spec, out, *options, environment=ONE_THREAD):
    command = [sys.executable, "-m", "damm_lite.experiments.ablate", spec, "--out", out, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def runs_in(out):
    return {path.name: path.read_bytes() for path in (out / "runs").glob("*.csv")}


@pytest.fixture(scope="module")
def serial(spec, tmp_path_factory):
    """The folder of the whole grid, run here."""
    out = tmp_path_factory.mktemp("serial")
    process = start(spec, out)
    said, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "addition x query x 2" in said
    return out


def wait_for(condition, what, seconds=500):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def test_a_grid_has_every_combination_once(serial, spec):
    table = pd.read_csv(serial / "table.csv")
    assert list(table.columns) == ["factor", "level", "seed", "index", "kind", "confidence", "ssim", "psnr"]
    sizes = table.groupby("level").size()
    assert len(sizes) == 8 and set(sizes) == {4} and set(table.factor) == {"fusion x head x num_steps"}
    assert len(runs_in(serial)) == 8 and (serial / "figure.png").stat().st_size > 5000
    budget = read_spec(spec)[1]
    alone = ablate("fusion", (0,), budget, {"fusion": {"x": Level(Network(fusion=Addition), num_steps=2)}})
    same = table[table.level == "addition x joint x 2"]
    assert same.ssim.tolist() == pytest.approx(alone.ssim.tolist(), abs=6e-5)


def test_a_command_that_was_killed_goes_on_where_it_was(serial, spec, tmp_path):
    process = start(spec, tmp_path)
    wait_for(lambda: (tmp_path / "runs").exists() and len(runs_in(tmp_path)) >= 2, "the first runs")
    process.kill()
    process.communicate()
    done = runs_in(tmp_path)
    assert not (tmp_path / "table.csv").exists() and len(done) < 8
    times = {name: (tmp_path / "runs" / name).stat().st_mtime_ns for name in done}
    assert start(spec, tmp_path).wait() == 0
    assert runs_in(tmp_path) == runs_in(serial)
    assert all((tmp_path / "runs" / name).stat().st_mtime_ns == then for name, then in times.items())


def test_cores_are_counted_where_the_system_does_not_say_which_are_ours(monkeypatch):
    assert 1 <= usable_cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS and Windows
    assert usable_cores() == os.cpu_count()


@pytest.mark.parametrize("left", ["", "index,ssim\n0,0.5\n", "half", "twice", "nan"])
def test_a_damaged_table_is_named_and_not_averaged(serial, tmp_path, left):
    whole = (serial / "runs" / next(iter(runs_in(serial)))).read_text()
    lines = whole.splitlines(keepends=True)
    cut = {"half": whole[: len(whole) // 2], "twice": "".join(lines[:-1] + lines[1:2])}
    cut["nan"] = "".join(lines[:-1]) + re.sub(r"[\d.]+$", "", lines[-1].strip())
    path = tmp_path / "run.csv"
    path.write_text(whole)
    assert len(read_table(path, 4)) == 4
    path.write_text(cut.get(left, left))
    with pytest.raises(ValueError, match=r"run.csv: expected scores of 4 patches, got .*; delete it"):
        read_table(path, 4)


def test_a_cluster_that_loses_a_worker_gives_the_same_numbers(serial, spec, tmp_path):
    pytest.importorskip("distributed")
    bin, port_file = Path(sys.executable).parent, tmp_path / "scheduler.json"
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ONE_THREAD, cwd=tmp_path)
    options = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", port_file]
    dask = [subprocess.Popen([bin / "dask", "scheduler", "--port", "0", *options], **quiet)]
    try:
        wait_for(port_file.exists, "the scheduler")
        worker = [bin / "dask", "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        dask += [subprocess.Popen([*worker, "--scheduler-file", port_file], **quiet) for _ in range(2)]
        out = tmp_path / "out"
        address = pd.read_json(port_file, typ="series")["address"]
        process = start(spec, out, "--scheduler", address)
        wait_for(lambda: (out / "runs").exists() and runs_in(out), "the first run")
        dask[1].kill()
        assert len(runs_in(out)) < 8
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors
    finally:
        for one in dask:
            one.kill()
            one.wait()
    assert runs_in(out) == runs_in(serial)
    assert (out / "table.csv").read_bytes() == (serial / "table.csv").read_bytes()


def test_levels_are_combined_by_what_they_change():
    query = Level(Network(confidence=QueryConfidence))
    added = combine([Level(Network(fusion=Addition)), query, Level(gate=AlwaysMulti, num_steps=3)])
    assert added == Level(Network(fusion=Addition, confidence=QueryConfidence), AlwaysMulti, 3)
    assert combine([FACTORS["fusion"]["MMFM"], FACTORS["head"]["joint"]]) == Level()
    with pytest.raises(ValueError, match="both set 'confidence'"):
        combine([query, Level(Network(confidence=None))])


def test_all_levels_and_the_defaults(tmp_path):
    (tmp_path / "spec.yaml").write_text("grids: [{prediction: all}]")
    runs, budget = read_spec(tmp_path / "spec.yaml")
    assert budget == Budget() and [run.names for run in runs[:3]] == list(FACTORS["prediction"])
    assert len({run.file for run in runs}) == len(runs) == 9


def test_numbers_and_marks_that_mean_what_they_say_are_taken(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("grids: [{gamma: [0.1, 0.5]}]\nseeds: [0, 10]", encoding="utf-8-sig")
    runs, _ = read_spec(path)
    assert [(run.names, run.seed) for run in runs] == [("0.1", 0), ("0.5", 0), ("0.1", 10), ("0.5", 10)]


def well(number):
    return [pd.DataFrame({"a": [number]})]


def fails(number):
    raise ValueError("out of tissue")


def leaves(number):
    sys.exit(f"no tissue in {number}")


def test_a_job_that_fails_ends_nothing_but_itself(tmp_path):
    jobs = [Job((f"run-{i}",), {1: fails, 3: leaves}.get(i, well), (i,)) for i in range(5)]
    with pytest.raises(RuntimeError, match="2 of 5 runs failed, the others are done:") as caught:
        run_jobs(jobs, tmp_path)
    assert "run-1: ValueError: out of tissue" in str(caught.value)
    assert "run-3: SystemExit: no tissue in 3" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-0.csv", "run-2.csv", "run-4.csv"]


def kills(number):
    os._exit(1)


@pytest.mark.parametrize("bad, said", [(fails, "run-1: ValueError: out of tissue"), (kills, "run-1: KilledWorker")])
def test_on_a_cluster_too_and_a_job_that_kills_its_workers_is_given_up(tmp_path, bad, said):
    distributed = pytest.importorskip("distributed")
    jobs = [Job((f"run-{i}",), bad if i == 1 else well, (i,)) for i in range(3)]
    # A job may kill four workers, and one must be left.
    enough = dict(n_workers=5, threads_per_worker=1, dashboard_address=None)
    with distributed.LocalCluster(**enough) as cluster, pytest.raises(RuntimeError, match=said):
        run_jobs(jobs, tmp_path, cluster.scheduler_address)
    done = {path.stem for path in tmp_path.iterdir()}
    assert "run-1" not in done and (bad is kills or done == {"run-0", "run-2"})


@pytest.mark.parametrize(
    "text, message",
    [
        ("grids: [{fusoin: all}]", "spec.yaml: unknown factor 'fusoin'; expected one of fusion"),
        ("grids: [{fusion: [MFMM]}]", "spec.yaml: fusion: unknown level 'MFMM'; expected some of MMFM"),
        ("grids: [{fusion: all}]\nbudget: {stesp: 3}", "spec.yaml: .*stesp"),
        ("grid: [{fusion: all}]", "spec.yaml: expected grids"),
        ("grids: [{gate: all, regime: all}]", "spec.yaml: two factors that both set 'gate'"),
        ("grids: [{", "spec.yaml: "),
        ("grids: [{fusion: [MMFM], fusion: [addition]}]", "spec.yaml: 'fusion' stands twice, in line 1"),
        ("grids: [{fusion: all}]\nbudget: {steps: 4, steps: 400}", "spec.yaml: 'steps' stands twice, in line 2"),
        ("grids: [{fusion: all}]\ngrids: [{head: all}]", "spec.yaml: 'grids' stands twice"),
        ("grids: [{fusion: all}]\nseeds: [010]", "spec.yaml: 010: expected a number as people write it, in line 2"),
        ("grids: [{fusion: all}]\nseeds: [1:30]", "spec.yaml: 1:30: expected a number"),
        ("grids: [{fusion: all}]\nbudget: {steps: 1e3}", "spec.yaml: steps: expected whole numbers"),
        ("grids: [{<<: {fusion: [MMFM]}, fusion: [addition]}]", r"spec.yaml: expected no merging \(<<\)"),
        (
            "grids: [{fusion: all}, {fusion: [addition]}]",
            "spec.yaml: grids: expected every run once, got fusion-addition-0",
        ),
        ("grids: [{fusion: [MMFM]}]\nseeds: [!!int 0x10]", "spec.yaml: 0x10: expected a number as people write it"),
        ("grids: [{num_steps: [1_0]}]", "spec.yaml: 1_0: expected a number as people write it"),
        ("grids: [{gamma: [1e-1]}]", "spec.yaml: gamma: unknown level '1e-1'"),
        ("grids: [{fusion: all}]\nseeds:", "spec.yaml: seeds: expected a list with something in it, got None"),
    ],
)
def test_a_wrong_specification_is_refused_before_any_work(tmp_path, text, message):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_spec(tmp_path / "spec.yaml")


def test_runs_of_which_nobody_knows_the_budget_are_left_alone(serial, spec, tmp_path):
    shutil.copytree(serial / "runs", tmp_path / "runs")
    with pytest.raises(
        ValueError, match="budget.yaml: no such file, and nothing else says how the runs there were made"
    ):
        run_grid(*read_spec(spec), tmp_path)
    assert runs_in(tmp_path) == runs_in(serial) and not (tmp_path / "budget.yaml").exists()


def test_a_folder_of_another_budget_is_left_alone(serial, tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC.replace("steps: 4", "steps: 5"))
    before = runs_in(serial)
    process = start(tmp_path / "spec.yaml", serial)
    _, errors = process.communicate()
    assert process.returncode == 2 and "these runs had another budget" in errors
    assert runs_in(serial) == before


def test_a_scheduler_that_does_not_answer_is_named(spec, tmp_path):
    soon = ONE_THREAD | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s"}
    process = start(spec, tmp_path, "--scheduler", "tcp://127.0.0.1:1", environment=soon)
    _, errors = process.communicate()
    assert process.returncode == 2 and "tcp://127.0.0.1:1" in errors
