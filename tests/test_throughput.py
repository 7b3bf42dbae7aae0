"""What is counted is what was computed and moved, and a machine too small for a row loses only that row."""

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import damm_lite as dl
import throughput


def test_traffic_is_what_operations_read_and_write():
    a, b = torch.ones(100, 4), torch.ones(100, 4)
    with throughput.Traffic() as traffic:
        c = (a + b).view(4, 100).t()  # reads two, writes one; views move nothing
        assert traffic.bytes == 3 * 1600
        torch.cat([c, c])  # reads two, writes both into one
    assert traffic.bytes == 3 * 1600 + 4 * 1600


@pytest.mark.parametrize("make", [throughput.training_step, throughput.reverse_step])
def test_work_grows_with_the_batch(make):
    (_, once, moved), (_, twice, moved_twice) = (throughput.measure(make, 16, batch, repeats=1) for batch in (2, 4))
    assert twice == 2 * once and moved < moved_twice < 2 * moved


def test_training_computes_three_times_what_prediction_does():
    """Backwards through a convolution costs it twice, and training runs both decoders."""
    (model, _), image = dl.load_pretrained("tumour-64"), torch.zeros(2, 1, 16, 16)
    counts = []
    for work in (throughput.training_step(16, 2), lambda: model(image, torch.ones(2), image, image)):
        with FlopCounterMode(display=False) as counter:
            work()
        counts.append(counter.get_total_flops())
    assert counts[0] == pytest.approx(3 * counts[1], rel=0.05)


def test_a_row_says_how_near_the_ceilings_it_came(monkeypatch):
    monkeypatch.setattr(throughput, "ceilings", lambda: (1e12, 1e10))
    monkeypatch.setattr(throughput, "apart", lambda work: ((0.5, 1e11, 1e9), 2.0))
    first, *_ = throughput.rows([64], [8])
    assert first["step"] == "training step" and (first["side"], first["batch"], first["memory"]) == (64, 8, 2.0)
    assert first["images"] == 16 and first["tflops"] == pytest.approx(0.2) and first["gigabytes"] == pytest.approx(2)
    assert first["of_product"] == pytest.approx(0.2) and first["of_copy"] == pytest.approx(0.2)


def test_a_row_that_does_not_fit_is_left_blank(monkeypatch, tmp_path):
    def too_large(work):
        if work.args[2] > 1:
            raise torch.OutOfMemoryError("no memory")
        return (1.0, 1e9, 1e9), 1.0

    monkeypatch.setattr(throughput, "ceilings", lambda: (1e12, 1e10))
    monkeypatch.setattr(throughput, "apart", too_large)
    monkeypatch.setattr("sys.argv", ["throughput.py", "--sides", "64", "--batches", "1", "4", "--out", str(tmp_path)])
    throughput.main()
    table = pd.read_csv(tmp_path / "throughput.csv").set_index(["step", "batch"])
    assert len(table) == 4 and table.images.isna().tolist() == [False, True, False, True]


def test_ceilings_are_rates(monkeypatch):
    monkeypatch.setattr(throughput, "seconds_of", lambda work: work() is None or 0.5)
    assert throughput.ceilings(side=10, elements=1000) == (2000 / 0.5, 2 * 4 * 1000 / 0.5)
