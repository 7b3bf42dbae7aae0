"""The study's shipped networks on other patches: scored as the study scores them, and compared with the right sign."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import damm_lite as dl
from damm_lite.experiments import elsewhere
from damm_lite.experiments.study import PROTOCOL, field_patches, scored, seed_of
from damm_lite.tumours.simulate import Physics, simulate_nanoparticles
from damm_lite.tumours.synthetic import DIVERGENCES


@pytest.mark.parametrize("tissue", elsewhere.TISSUES)
def test_each_tissue_has_the_physics_and_the_kinds_it_names(tissue):
    batch = elsewhere.patches_of(tissue, 8, seed=3)
    assert sorted(batch["kind"]) == sorted(["none"] * 4 + list(DIVERGENCES))
    about = elsewhere.TISSUES[tissue]
    assert batch["target"].shape[-1] == (about or {}).get("size", 32)
    again = elsewhere.patches_of(tissue, 8, seed=3)
    assert all(torch.equal(batch[name], again[name]) for name in ("target", "primary", "secondary"))
    consistent = batch["kind"].index("none")
    vessels, nuclei, target = (
        (batch[name][consistent, 0].numpy() + 1) / 2 for name in ("primary", "secondary", "target")
    )
    as_trained = simulate_nanoparticles(vessels, nuclei)
    if about is None:
        assert np.abs(target - as_trained).max() > 0.02
    else:
        expected = simulate_nanoparticles(vessels, nuclei, about.get("physics"))
        np.testing.assert_allclose(target, expected, atol=1e-5)
        assert ("physics" in about) == (np.abs(target - as_trained).max() > 0.02)


def test_the_regression_of_the_study_has_its_scores_again():
    """To the digit where arithmetic is the same; the tolerance is that of another processor."""
    table = dl.load_results("study")
    stored = table[(table["method"] == "regression, both, mismatches") & (table["seed"] == 0)].set_index("index")
    batch = field_patches(128, 32, seed_of(PROTOCOL))
    model, schedule = dl.load_pretrained(elsewhere.weights_name("regression, both, mismatches"))
    x0 = dl.predict_unet(model, schedule, torch.cat([batch["primary"], batch["secondary"]], dim=1), 1, 0)
    for name, values in scored(x0, batch["target"]).items():
        np.testing.assert_allclose(values.numpy(), stored[name], atol=2e-3 if name == "psnr" else 2e-4)


def test_scores_have_a_row_for_each_method_and_patch():
    batch = elsewhere.patches_of("as in training", 8, seed=3)
    table = elsewhere.scores(batch, num_samples=2, num_steps=2)
    assert table[["method", "index"]].drop_duplicates().shape[0] == len(table) == 8 * len(elsewhere.NETWORKS)
    assert (table["confidence"].notna() == (table["method"] == elsewhere.FIRST)).all()
    assert table["confidence"].dropna().between(0, 1).all()
    one = table[table["method"].str.startswith("regression")]
    assert (one["samples"] == 1).all() and one["crps"].tolist() == pytest.approx(one["mae"].tolist(), abs=1e-6)


def test_ahead_is_positive_where_the_first_is_better():
    rng, rows = np.random.default_rng(0), []
    for place, method in enumerate(elsewhere.NETWORKS):
        for index in range(16):
            noise = rng.normal(0, 1e-4)
            better = dict(ssim=0.9 - place / 10 + noise, psnr=30.0 - place, mae=0.1 + place / 10, crps=0.1 + place / 10)
            rows.append(dict(tissue="yours", method=method, index=index) | better)
    found = elsewhere.ahead(pd.DataFrame(rows)).set_index(["score", "rival"])
    rivals = list(elsewhere.NETWORKS)[1:]
    for place, rival in enumerate(rivals, start=1):
        assert found.loc[("ssim", rival), "difference"] == pytest.approx(place / 10, abs=1e-3)
        assert found.loc[("crps", rival), "difference"] == pytest.approx(place / 10)
        assert found.loc[("psnr", rival), "low"] == pytest.approx(place)
    assert (found["sign"] == "ahead").all()
    worse = pd.DataFrame(rows).replace({"method": {elsewhere.FIRST: rivals[0], rivals[0]: elsewhere.FIRST}})
    assert elsewhere.ahead(worse).set_index(["score", "rival"]).loc[("ssim", rivals[0]), "sign"] == "behind"


def test_constants_of_your_own_and_those_that_do_not_exist():
    assert elsewhere.physics_of(["uptake=4e-3", "hindrance=1"]) == Physics(uptake=4e-3, hindrance=1.0)
    assert elsewhere.physics_of([]) == Physics()
    for wrong in (["speed=3"], ["uptake"], ["uptake=fast"]):
        with pytest.raises(ValueError, match=r"physics: expected CONSTANT=NUMBER, of the constants pixel, .* got"):
            elsewhere.physics_of(wrong)


def test_the_command_scores_other_seeds_sizes_and_physics(tmp_path, monkeypatch, capsys):
    out = tmp_path / "mine.csv"
    options = f"--out {out} --patches 8 --samples 2 --size 16 --seed 4 --physics uptake=4e-3"
    monkeypatch.setattr(sys, "argv", ["elsewhere", *options.split()])
    elsewhere.main()
    table = pd.read_csv(out)
    assert set(table["tissue"]) == {"yours"} and len(table) == 40
    assert "ours, pixel" in capsys.readouterr().out
    assert set(elsewhere.ahead(table)["sign"]) <= {"ahead", "open", "behind"}
    with pytest.raises(SystemExit):  # before any work: the file is there
        elsewhere.main()
    assert f"--out: expected a new file in a folder that is there, got {out}" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["elsewhere", "--patches", "12"])
    with pytest.raises(SystemExit):
        elsewhere.main()
    assert "expected a multiple of 8, got 12" in capsys.readouterr().err


def test_ship_stores_what_the_study_trained(tmp_path):
    study, weights = tmp_path / "study", tmp_path / "weights"
    trainings = [*(training for training, _ in elsewhere.NETWORKS.values()), *elsewhere.FOR_PLAYGROUND]
    for training in trainings:
        name = elsewhere.weights_name(training)
        model, schedule = dl.load_pretrained(name)
        folder = study / "clean" / f"{name.removeprefix('study-')}-0"
        folder.mkdir(parents=True)
        dl.save_checkpoint(folder / "model.safetensors", model, schedule, seed=0, steps=3, device="cpu")
    elsewhere.ship(study, weights)
    for training in trainings:
        name = elsewhere.weights_name(training)
        shipped, _ = dl.load_checkpoint(weights / f"{name}.safetensors")
        expected, _ = dl.load_pretrained(name)
        for key, value in expected.state_dict().items():
            assert torch.equal(value, shipped.state_dict()[key]), key
