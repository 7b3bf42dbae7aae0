"""The benchmarks' own arithmetic: turns, medians, and a table that keeps what was not measured again."""

import platform

import numpy as np
import pandas as pd
import pytest
from skimage.metrics import structural_similarity

import bench
import damm_lite as dl


def test_sides_take_turns_and_the_first_round_does_not_count(monkeypatch):
    times = {"a": iter([100, 1, 9, 2]), "b": iter([100, 5, 5, 6])}
    called = []
    monkeypatch.setattr(bench, "seconds_of", lambda work: work())
    sides = {name: lambda name=name: called.append(name) or next(times[name]) for name in times}
    assert bench.in_turn(sides, 3) == {"a": 2, "b": 5}
    assert called == ["a", "b"] * 4


def test_a_ratio_says_how_much_longer_the_other_took():
    row = bench.ratio("x", ours=2.0, other=6.0, wanted=1.5)
    assert row["value"] == 3 and row["ours"] == 2 and row["other"] == 6


def test_rows_are_replaced_by_name_and_machine_and_others_stay(tmp_path, monkeypatch):
    path = tmp_path / "benchmarks.csv"
    bench.store(path, [dict(benchmark="a", value=1.0), dict(benchmark="b", value=2.0)], ["benchmark"])
    bench.store(path, [dict(benchmark="a", value=3.14159)], ["benchmark"])
    table = pd.read_csv(path).set_index("benchmark")
    assert table["value"].to_dict() == {"a": 3.142, "b": 2.0}
    monkeypatch.setattr(bench, "machine", lambda: dict(date="2030-01-01", machine="another", threads=1, torch="3"))
    bench.store(path, [dict(benchmark="a", value=9.0)], ["benchmark"])
    values = pd.read_csv(path).set_index(["benchmark", "machine"])["value"]
    assert len(values) == 3 and values["a", "another"] == 9 and set(values["a"]) == {3.142, 9}
    assert table["date"].str.match(r"\d{4}-\d\d-\d\d").all() and (table["threads"] >= 1).all()


def test_early_decision_is_measured_on_a_mixed_batch_and_changes_nothing(monkeypatch):
    shares, take = [], dl.DAMMP.take

    def noted(model, encoded, use_multi):
        shares.append(use_multi.float().mean().item())
        return take(model, encoded, use_multi)

    monkeypatch.setattr(dl.DAMMP, "take", staticmethod(noted))
    monkeypatch.setattr(bench, "SIZE", 16)
    rows = list(bench.early_decision(1))
    assert len({row["benchmark"] for row in rows}) == 4
    for saved, apart in zip(rows[::2], rows[1::2], strict=True):
        assert apart["value"] <= apart["wanted"]
        np.testing.assert_allclose(saved["value"], 1 - saved["ours"] / saved["other"])
    assert all(0.25 < share < 0.75 for share in shares)


def test_quality_is_what_few_steps_lose_against_the_release(monkeypatch):
    batch, samplers = bench.patches(3), {}

    def predict(model, schedule, primary, secondary, num_steps, sampler=dl.ddim_sampler):
        samplers[num_steps] = sampler
        return dl.Prediction(batch["target"] * (1 if num_steps == 1000 else 0.5), None, None, None, None)

    monkeypatch.setattr(dl, "predict", predict)
    (row,) = bench.quality(1, n=3)
    truth = batch["target"][:, 0].numpy()
    window = dict(gaussian_weights=True, use_sample_covariance=False, data_range=2)
    kept = np.mean([structural_similarity(image, image / 2, **window) for image in truth])
    assert row["value"] == pytest.approx(1 - kept, abs=1e-5)
    assert samplers[20] is dl.ddim_sampler and samplers[1000].keywords["eta"] == 1  # as the release: with fresh noise


def test_a_processor_goes_by_its_name_where_it_has_one(monkeypatch):
    monkeypatch.setattr(bench, "ON_GPU", False)
    for known, name in (({"brand_raw": "A Processor 9000"}, "A Processor 9000"), ({}, platform.machine())):
        monkeypatch.setattr(bench, "get_cpu_info", lambda known=known: known)
        assert bench.machine()["machine"] == name


def test_unknown_names_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench.py", "speed"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "expected early" in capsys.readouterr().err


def test_work_grows_with_the_batch_and_with_the_square_of_the_width():
    (_, narrow), (_, twice), (_, wide) = (
        bench.forward_once((width,) * 4, 16, batch) for width, batch in ((16, 1), (16, 2), (32, 1))
    )
    assert twice == pytest.approx(2 * narrow, rel=0.01) and 3.5 < wide / narrow < 4
