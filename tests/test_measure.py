"""The tables of measurements: scores and prices in the right columns, parts kept for their weights alone."""

import pandas as pd
import pytest
import torch

import damm_lite as dl
from damm_lite.experiments import evaluate, measure


def batch(n=3):
    return dl.stack(dl.SyntheticTumours(n, 16, seed=3))


def test_a_method_has_a_row_for_each_seed_and_patch_with_scores_and_price():
    def method():
        for training_seed in (0, 5):
            yield training_seed, ((20, 1), (2, 8)), darker

    def darker(part, num_steps, seed, num_samples):
        return torch.stack([part["target"] * (1 - number / 10) for number in range(num_samples)])

    table = evaluate.measure("perfect at first", method, batch())
    assert table[["method", "seed", "index"]].drop_duplicates().shape[0] == len(table) == 6
    assert set(table.seed) == {0, 5} and set(table.evaluations) == {20} and set(table.evaluations_mean) == {16}
    assert table.ssim.tolist() == pytest.approx([1] * 6) and table.mae.tolist() == pytest.approx([0] * 6)
    shares = batch()["target"].abs().mean(dim=(1, 2, 3))
    assert table.mae_mean.tolist() == pytest.approx((0.35 * shares).repeat(2).tolist(), rel=1e-4)  # of 0 to 7 tenths
    assert (table.ssim_mean < 1).all() and (table.seconds >= 0).all()


def test_every_method_that_needs_no_training_predicts():
    parts = batch()
    for name, method in evaluate.methods(folder=None).items():
        if name.startswith(("regression", "distance")):
            continue
        for _, _, sample in method():
            x0 = sample(parts, 1, 0, 2)
            assert x0.shape == (2, *parts["target"].shape) and x0.isfinite().all(), name


def test_parts_are_kept_for_these_weights_alone(tmp_path, monkeypatch):
    made = []

    def make():
        made.append(len(made))
        return pd.DataFrame({"x": [len(made)]})

    manifest = tmp_path / "manifest.txt"
    monkeypatch.setattr(measure, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(measure, "MANIFEST", manifest)
    found = []
    for weights in ("weights/tumour-64.safetensors 1", "weights/tumour-64.safetensors 1", "weights/concat-64 2"):
        manifest.write_text(f"{weights}\nweights/brain-64 {len(found)}\n")
        found.append(measure.kept("part", make).x[0])
    assert found == [1, 1, 2]
