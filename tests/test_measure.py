"""The tables of measurements: scores and prices in the right columns, parts kept for their weights alone."""

import pandas as pd
import pytest
import torch

import damm_lite as dl
import evaluate_tumours
import measure_tumours


def batch(n=3):
    return dl.stack(dl.SyntheticTumours(n, 16, seed=3))


def test_a_method_has_a_row_for_each_seed_and_patch_with_scores_and_price():
    def method():
        for training_seed in (0, 5):
            yield training_seed, ((20, 1), (2, 8)), lambda part, num_steps, seed: part["target"] + seed / 10

    table = evaluate_tumours.measure("perfect at first", method, batch())
    assert table[["method", "seed", "index"]].drop_duplicates().shape[0] == len(table) == 6
    assert set(table.seed) == {0, 5} and set(table.evaluations) == {20} and set(table.evaluations_mean) == {16}
    assert table.ssim.tolist() == pytest.approx([1] * 6) and table.mae.tolist() == pytest.approx([0] * 6)
    assert table.mae_mean.tolist() == pytest.approx([0.35] * 6, rel=1e-4)  # the mean of 0 to 7 tenths
    assert (table.ssim_mean < 1).all() and (table.seconds >= 0).all()


def test_every_method_that_needs_no_training_predicts():
    parts = batch()
    for name, method in evaluate_tumours.methods(folder=None).items():
        if name.startswith(("regression", "distance")):
            continue
        for _, _, draw in method():
            x0 = draw(parts, 1, 0)
            assert x0.shape == parts["target"].shape and x0.isfinite().all(), name


def test_parts_are_kept_for_these_weights_alone(tmp_path, monkeypatch):
    made = []

    def make():
        made.append(len(made))
        return pd.DataFrame({"x": [len(made)]})

    manifest = tmp_path / "manifest.txt"
    monkeypatch.setattr(measure_tumours, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(measure_tumours, "MANIFEST", manifest)
    found = []
    for weights in ("weights/tumour-64.safetensors 1", "weights/tumour-64.safetensors 1", "weights/concat-64 2"):
        manifest.write_text(f"{weights}\nweights/brain-64 {len(found)}\n")
        found.append(measure_tumours.kept("part", make).x[0])
    assert found == [1, 1, 2]


def test_external_tissue_is_repeatable_and_all_its_kinds_come_up():
    items = [measure_tumours.external_item(index) for index in range(40)]
    again = measure_tumours.external_item(7)
    assert all(torch.equal(items[7][key], again[key]) for key in ("target", "primary", "secondary"))
    assert {item["kind"] for item in items} == {"none", *dl.DIVERGENCES}
    assert sum(item["kind"] == "none" for item in items) > 10
