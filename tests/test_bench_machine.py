"""Turns, medians, traffic, ceilings, and a table that keeps what was not measured again.

What is counted is what was computed and moved, and a machine too small for a row loses only that row.
"""

import platform

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import bench_machine
import damm_lite as dl
from damm_lite.data import generator_of
from damm_lite.experiments import ladder
from damm_lite.train import StepSampler


def test_sides_take_turns_and_the_first_round_does_not_count(monkeypatch):
    times = {"a": iter([100, 1, 9, 2]), "b": iter([100, 5, 5, 6])}
    called = []
    monkeypatch.setattr(bench_machine, "seconds_of", lambda work: work())
    sides = {name: lambda name=name: called.append(name) or next(times[name]) for name in times}
    assert bench_machine.in_turn(sides, 3) == {"a": 2, "b": 5}
    assert called == ["a", "b"] * 4


def test_rows_are_replaced_by_name_and_machine_and_others_stay(tmp_path, monkeypatch):
    path, store = tmp_path / "benchmarks.csv", bench_machine.store
    store(path, [dict(benchmark="a", value=1.0), dict(benchmark="b", value=2.0)], ["benchmark"])
    store(path, [dict(benchmark="a", value=3.14159)], ["benchmark"])
    table = pd.read_csv(path).set_index("benchmark")
    assert table["value"].to_dict() == {"a": 3.142, "b": 2.0}
    another = dict(date="2030-01-01", machine="another", threads=1, torch="3")
    monkeypatch.setattr(bench_machine, "machine", lambda: another)
    store(path, [dict(benchmark="a", value=9.0)], ["benchmark"])
    values = pd.read_csv(path).set_index(["benchmark", "machine"])["value"]
    assert len(values) == 3 and values["a", "another"] == 9 and set(values["a"]) == {3.142, 9}
    assert table["date"].str.match(r"\d{4}-\d\d-\d\d").all() and (table["threads"] >= 1).all()


def test_a_processor_goes_by_its_name_where_it_has_one(monkeypatch):
    monkeypatch.setattr(bench_machine, "ON_GPU", False)
    for known, name in (({"brand_raw": "A Processor 9000"}, "A Processor 9000"), ({}, platform.machine())):
        monkeypatch.setattr(bench_machine, "get_cpu_info", lambda known=known: known)
        assert bench_machine.machine()["machine"] == name


def test_traffic_is_what_operations_read_and_write():
    a, b = torch.ones(100, 4), torch.ones(100, 4)
    with bench_machine.Traffic() as traffic:
        c = (a + b).view(4, 100).t()  # reads two, writes one; views move nothing
        assert traffic.bytes == 3 * 1600
        torch.cat([c, c])  # reads two, writes both into one
    assert traffic.bytes == 3 * 1600 + 4 * 1600


def test_ceilings_are_rates(monkeypatch):
    monkeypatch.setattr(bench_machine, "seconds_of", lambda work: work() is None or 0.5)
    assert bench_machine.ceilings(side=10, elements=1000) == (2000 / 0.5, 2 * 4 * 1000 / 0.5)


def test_work_grows_with_the_batch_and_with_the_square_of_the_width():
    (_, narrow), (_, twice), (_, wide) = (
        bench_machine.forward_once((width,) * 4, 16, batch) for width, batch in ((16, 1), (16, 2), (32, 1))
    )
    assert twice == pytest.approx(2 * narrow, rel=0.01) and 3.5 < wide / narrow < 4


@pytest.mark.parametrize("make", [bench_machine.training_step, bench_machine.reverse_step])
def test_steps_of_twice_the_batch_are_twice_the_work(make):
    (_, once, moved), (_, twice, moved_twice) = (bench_machine.measure(make, 16, batch, repeats=1) for batch in (2, 4))
    assert twice == 2 * once and moved < moved_twice < 2 * moved


def test_training_computes_three_times_what_prediction_does():
    """Backwards through a convolution costs it twice, and training runs both decoders."""
    (model, _), image = dl.load_pretrained("tumour-64"), torch.zeros(2, 1, 16, 16)
    counts = []
    for work in (bench_machine.training_step(16, 2), lambda: model(image, torch.ones(2), image, image)):
        with FlopCounterMode(display=False) as counter:
            work()
        counts.append(counter.get_total_flops())
    assert counts[0] == pytest.approx(3 * counts[1], rel=0.05)


def test_a_row_says_how_near_the_ceilings_it_came(monkeypatch):
    monkeypatch.setattr(bench_machine, "ceilings", lambda: (1e12, 1e10))
    monkeypatch.setattr(bench_machine, "apart", lambda work: ((0.5, 1e11, 1e9), 2.0))
    first, *_ = bench_machine.throughput(1, [64], [8])
    assert first["step"] == "training step" and (first["side"], first["batch"], first["memory"]) == (64, 8, 2.0)
    assert first["images"] == 16 and first["tflops"] == pytest.approx(0.2) and first["gigabytes"] == pytest.approx(2)
    assert first["of_product"] == pytest.approx(0.2) and first["of_copy"] == pytest.approx(0.2)


def test_a_row_that_does_not_fit_is_left_blank(monkeypatch, tmp_path):
    def too_large(work):
        if work.args[2] > 1:
            raise torch.OutOfMemoryError("no memory")
        return (1.0, 1e9, 1e9), 1.0

    monkeypatch.setattr(bench_machine, "ceilings", lambda: (1e12, 1e10))
    monkeypatch.setattr(bench_machine, "apart", too_large)
    path = tmp_path / "throughput.csv"
    bench_machine.store(path, bench_machine.throughput(1, [64], [1, 4]), ["step", "side", "batch"])
    table = pd.read_csv(path).set_index(["step", "batch"])
    assert len(table) == 4 and table.images.isna().tolist() == [False, True, False, True]


def test_every_rung_makes_the_same_step_in_its_own_way(tmp_path, monkeypatch):
    """Its loss is that of the plain step, to its precision; two half batches have batch norms of their own."""
    monkeypatch.setattr(bench_machine, "apart", lambda work: (work(), 1.0))
    monkeypatch.setattr(ladder, "RUNGS", {name: make for name, make in ladder.RUNGS.items() if name != "compiled"})
    rows = pd.DataFrame(bench_machine.rungs(1, 8, 32)).set_index("rung")
    plain = rows.loss["as it is"]
    assert rows.loss.drop(["bfloat16", "two half batches"]).tolist() == pytest.approx([plain] * 8, rel=1e-5)
    assert plain != rows.loss["bfloat16"] == pytest.approx(plain, rel=0.02)
    assert plain != rows.loss["two half batches"] == pytest.approx(plain, rel=1)
    assert (rows.images > 0).all() and (rows.side == 32).all() and (rows.batch == 8).all()


def test_the_plain_step_has_the_loss_of_the_training_it_stands_for():
    step, config = ladder.TrainingStep(4, 16), dl.TrainConfig(num_steps=1, batch_size=4)
    (order,) = StepSampler(4, config)
    images = dl.stack(step.patches[i] for i in order)
    step.ready = dl.prepare(step.schedule, step.model.prediction, images, generator_of(config.seed, 1))
    trained = next(dl.train(*dl.load_pretrained("tumour-64"), step.patches, config, progress=False))
    assert float(step()) == pytest.approx(trained.loss, rel=1e-6)


@pytest.mark.parametrize(
    "name", ["optimiser not fused", "channels last", "activations recomputed", "loss read at once"]
)
def test_after_some_steps_the_weights_are_those_of_the_plain_step(name):
    plain, other, untrained = ladder.TrainingStep(4, 16), ladder.RUNGS[name](4, 16), ladder.TrainingStep(4, 16)
    for step in (plain, other):
        for _ in range(3):
            step()
    here, there, before = (
        torch.cat([weights.flatten() for weights in step.model.parameters()]) for step in (plain, other, untrained)
    )
    assert (here - there).abs().mean() < 0.02 * (here - before).abs().mean()


def test_recomputing_keeps_less_for_the_backward_pass():
    kept = {}
    for name in ("as it is", "activations recomputed"):
        step, storages = ladder.RUNGS[name](4, 16), {}

        def keep(x, storages=storages):
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            step.loss(step.batch())
        kept[name] = sum(storages.values())
    assert kept["activations recomputed"] < 0.7 * kept["as it is"]
