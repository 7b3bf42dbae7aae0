"""Samples beside exact draws: true draws meet every bound, others do not."""

import runpy

import numpy as np
import pandas as pd
import pytest
import torch

from damm_lite.experiments import field_scores, sampling
from damm_lite.tumours.simulate import simulate_nanoparticles, simulate_nuclei, simulate_vessels


def fields(count=6, draws=24, samples=24):
    """[(draws, other draws)] of some vessel fields."""
    return [
        (maps[:draws], maps[draws:]) for _, maps in (sampling.exact_draws(i, 32, draws + samples) for i in range(count))
    ]


def test_exact_draws_have_one_set_of_vessels_and_are_repeatable():
    vessels, maps = sampling.exact_draws(3, 32, 4)
    again, same = sampling.exact_draws(3, 32, 4)
    assert torch.equal(vessels, again) and torch.equal(maps, same)
    assert maps.shape == (4, 1, 32, 32) and not torch.equal(maps[0], maps[1])
    rng = np.random.default_rng([sampling.DEVELOPMENT_SEED, 3])
    image = simulate_vessels(rng, 32)
    first = simulate_nanoparticles(image, simulate_nuclei(rng, image))
    torch.testing.assert_close(maps[0, 0], torch.from_numpy(first) * 2 - 1)


def test_true_draws_meet_every_bound():
    table = pd.DataFrame([field_scores.score_field(samples, draws) for draws, samples in fields()])
    found = field_scores.summarise_fields(table)
    assert found["spread ratio"] == pytest.approx(1, abs=0.1)
    assert found["CRPS ratio"] == pytest.approx(1, abs=0.03)
    assert found["coverage"] == pytest.approx(23 / 25, abs=0.02)
    bands = found[[name for name in found.index if "band" in name]]
    assert len(bands) >= 3 and bands.between(0.8, 1.25).all()
    intervals = field_scores.with_intervals(table, resamples=50)
    assert (intervals.low <= intervals.value).all() and (intervals.value <= intervals.high).all()
    assert abs(found["slope"]) < 0.1 and abs(found["curvature"]) < 0.1


@pytest.mark.parametrize(
    "change, wrong",
    [
        (lambda x: x.mean(dim=0) + 0.3 * (x - x.mean(dim=0)), ["spread ratio", "coverage", "curvature"]),
        (lambda x: (x + 0.15).clamp(-1, 1), ["slope"]),
    ],
    ids=["too narrow", "too bright"],
)
def test_other_samples_are_found_out(change, wrong):
    true, other = (
        field_scores.summarise_fields(pd.DataFrame([field_scores.score_field(f(s), d) for d, s in fields()]))
        for f in (lambda x: x, change)
    )
    assert other["CRPS ratio"] > true["CRPS ratio"] + 0.03
    for name in wrong:
        assert abs(other[name] - true[name]) > 0.15, name


def test_the_command_trains_measures_and_does_nothing_twice(tmp_path, monkeypatch, capsys):
    options = "--size 16 --widths 16 16 16 16 --patches 16 --steps 4 --batch 4 --fields 2 --draws 5 --samples 4"
    monkeypatch.setattr("sys.argv", ["x", "--out", str(tmp_path), *options.split(), "--sampler", "ddim:2", "sde:3"])
    for _ in range(2):
        runpy.run_module("damm_lite.experiments.sampling", run_name="__main__", alter_sys=True)
    name = "preconditioned-shifted-16-4-4-0"
    tables = sorted(path.name for path in tmp_path.glob("*-fields-*.csv"))
    assert tables == [f"{name}-{sampler}-fields-2-5-4-4000001.csv" for sampler in ("ddim-2", "sde-3")]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[:2] == said[2:]
    table = pd.read_csv(tmp_path / tables[0])
    assert list(table.field) == [0, 1]
    summary = pd.read_csv(tmp_path / "summary.csv")
    kept = pd.read_csv(tmp_path / "fields.csv")
    assert kept.num_steps.tolist() == [2, 2, 3, 3] and kept.ssim_mean[0] == pytest.approx(table.ssim_mean[0], abs=1e-4)
    row = summary[(summary.num_steps == 2) & (summary.score == "ssim_mean")].iloc[0]
    assert row.value == pytest.approx(table.ssim_mean.mean(), abs=1e-4) and row.low <= row.value <= row.high


def test_exact_draws_in_the_place_of_a_network_are_right(tmp_path, monkeypatch, capsys):
    options = "--prediction exact --size 16 --fields 12 --draws 24 --samples 24"
    monkeypatch.setattr("sys.argv", ["x", "--out", str(tmp_path), *options.split()])
    runpy.run_module("damm_lite.experiments.sampling", run_name="__main__", alter_sys=True)
    found = pd.read_csv(tmp_path / "summary.csv").set_index("score")
    assert found.value["CRPS ratio"] == pytest.approx(1, abs=0.04)
    assert found.low["spread ratio"] < 1 < found.high["spread ratio"]
    assert found.value["coverage"] == pytest.approx(23 / 25, abs=0.03)


def test_a_paired_difference_is_free_of_what_fields_share():
    """One run and another that is worse by a tenth everywhere: fields differ a lot, their ratio does not."""
    first = pd.DataFrame(
        [field_scores.score_field(samples, draws) | {"field": i} for i, (draws, samples) in enumerate(fields())]
    )
    second = first.assign(crps=1.1 * first["crps"])
    paired = field_scores.paired_with_intervals(second, first, resamples=50)
    alone = field_scores.with_intervals(first, resamples=50)
    assert paired.value["CRPS ratio"] == pytest.approx(0.1 * alone.value["CRPS ratio"])
    width = paired.high - paired.low
    assert 0 < width["CRPS ratio"] < 0.2 * (alone.high - alone.low)["CRPS ratio"]
    assert (width.drop("CRPS ratio") == 0).all(), "all other scores are equal"
    with pytest.raises(ValueError, match="the same fields"):
        field_scores.paired_with_intervals(first, first.iloc[1:])
