"""The benchmarks' own arithmetic: ratios, what early decision saves, what few steps lose."""

import numpy as np
import pytest
from skimage.metrics import structural_similarity

import bench
import damm_lite as dl
from damm_lite import gates


def test_a_ratio_says_how_much_longer_the_other_took():
    row = bench.ratio("x", ours=2.0, other=6.0, wanted=1.5)
    assert row["value"] == 3 and row["ours"] == 2 and row["other"] == 6


def test_early_decision_is_measured_on_a_mixed_batch_and_changes_nothing(monkeypatch):
    shares, decode_chosen = [], gates.decode_chosen

    def noted(model, encoded, use_multi):
        shares.append(use_multi.float().mean().item())
        return decode_chosen(model, encoded, use_multi)

    monkeypatch.setattr(gates, "decode_chosen", noted)
    monkeypatch.setattr(bench, "SIZE", 16)
    rows = list(bench.early_decision(1))
    assert len({row["benchmark"] for row in rows}) == 4
    for saved, apart in zip(rows[::2], rows[1::2], strict=True):
        assert apart["value"] <= apart["wanted"]
        np.testing.assert_allclose(saved["value"], 1 - saved["ours"] / saved["other"])
    assert shares and all(0.25 < share < 0.75 for share in shares)


def test_a_batch_is_trained_on_sooner_than_its_samples(monkeypatch):
    monkeypatch.setattr(bench, "SIZE", 16)
    seconds = bench.released_training(16, 1)
    assert seconds["whole"] < seconds["one by one"]


def test_a_prediction_as_released_is_a_thousand_steps_of_each_patch(monkeypatch):
    monkeypatch.setattr(bench, "SIZE", 16)
    (row,) = bench.prediction(1, released_steps=1)
    assert row["value"] == row["other"] / row["ours"] > 20


def test_quality_is_what_few_steps_lose_against_the_release(monkeypatch):
    batch, samplers = bench.patches(3), {}

    def predict(model, schedule, primary, secondary, num_steps, sampler=dl.ddim_sampler):
        samplers[num_steps] = sampler
        return dl.Prediction(batch["target"][None] * (1 if num_steps == 1000 else 0.5), [], None, None)

    monkeypatch.setattr(dl, "predict", predict)
    (row,) = bench.quality(1, n=3)
    truth = (batch["target"][:, 0].double().numpy() + 1) / 2
    window = dict(gaussian_weights=True, use_sample_covariance=False, data_range=1)
    kept = np.mean([structural_similarity(image, image / 2 + 0.25, **window) for image in truth])
    assert row["value"] == pytest.approx(1 - kept, abs=1e-5)
    assert samplers[20] is dl.ddim_sampler and samplers[1000].keywords["eta"] == 1  # as the release: with fresh noise


def test_seams_of_a_slide_are_small():
    assert bench.predict_a_slide(256, 1) < 0.01


def test_a_named_benchmark_goes_into_its_table(monkeypatch, tmp_path):
    for name, key in (("slide", "benchmark"), ("scaling", "varied")):
        monkeypatch.setitem(bench.BENCHMARKS, name, lambda repeats, key=key, **_: [{key: "x", "size": repeats}])
    monkeypatch.setattr("sys.argv", ["bench.py", "slide", "scaling", "--repeats", "3", "--out", str(tmp_path)])
    bench.main()
    assert (tmp_path / "benchmarks.csv").read_text().startswith("benchmark,size,date,machine")
    assert (tmp_path / "scaling.csv").read_text().startswith("varied,size,date,machine")


def test_unknown_names_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench.py", "speed"])
    with pytest.raises(SystemExit):
        bench.main()
    assert "expected early" in capsys.readouterr().err
