"""Samples of two branches with right and wrong nuclei: fields, scores with known answers, and the command."""

import numpy as np
import pandas as pd
import pytest
import torch

from damm_lite.checkpoint import save_checkpoint
from damm_lite.damm import DAMMNet
from damm_lite.experiments import second_image
from damm_lite.schedules import shifted_schedule
from damm_lite.tumours.simulate import simulate_nanoparticles
from damm_lite.unet import UNetConfig


def as_image(tensor):
    return (tensor[0].double().numpy() + 1) / 2


def test_the_first_draw_is_that_of_the_consistent_nuclei():
    field = second_image.field_of(3, 32, 4)
    expected = simulate_nanoparticles(as_image(field["vessels"]), as_image(field["consistent"]))
    np.testing.assert_allclose(as_image(field["draws"][0]), expected, atol=1e-4)
    wrong = simulate_nanoparticles(as_image(field["vessels"]), as_image(field["other"]))
    assert all(np.abs(as_image(draw) - wrong).max() > 0.02 for draw in field["draws"])
    assert len(field["draws"]) == 4 and field["draws"].std(dim=0).max() > second_image.OPEN


def test_error_and_spread_agree_where_samples_and_truth_are_of_one_distribution():
    generator = torch.Generator().manual_seed(0)
    draws = 0.1 * torch.randn(20, 1, 64, 64, generator=generator)
    samples = 0.1 * torch.randn(10, 1, 64, 64, generator=generator)
    found = second_image.score_consistent(samples, draws)
    assert found["error"] == pytest.approx(0.1 * 1.1**0.5, rel=0.05)
    assert found["spread"] == pytest.approx(found["error"], rel=0.05)
    assert found["crps"] == pytest.approx(0.1 / np.pi**0.5, rel=0.05)  # of a Gaussian in its own distribution
    exact = second_image.score_consistent(draws[:1].repeat(5, 1, 1, 1), draws)
    assert exact == pytest.approx({"crps": 0.0, "error": 0.0, "spread": 0.0}, abs=1e-6)


def test_the_command_writes_a_row_for_each_field_kind_and_branch(tmp_path, monkeypatch):
    torch.manual_seed(0)
    (tmp_path / "mine").mkdir()
    save_checkpoint(tmp_path / "mine" / "model.safetensors", DAMMNet(UNetConfig(2, 1)), shifted_schedule())
    out = tmp_path / "table.csv"
    options = ["--size", "16", "--fields", "2", "--draws", "4", "--samples", "40", "--num-steps", "1"]
    command = ["second_image", "--weights", str(tmp_path / "mine" / "model.safetensors"), "--out", str(out), *options]
    monkeypatch.setattr("sys.argv", command)
    second_image.main()
    table = pd.read_csv(out)
    assert set(table.network) == {"mine"} and len(table) == 8
    assert table.groupby(["nuclei", "branch"]).size().to_dict() == {
        (nuclei, branch): 2 for nuclei in ("consistent", "other") for branch in ("uni", "multi")
    }
    assert np.isfinite(table[table.nuclei == "consistent"][["crps", "error", "spread"]]).all(axis=None)
    assert np.isfinite(table[table.nuclei == "other"][["crps", "crps_exact", "coverage"]]).all(axis=None)
