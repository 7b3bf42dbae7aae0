"""Patients left out in turn: who is trained on, what is scored, and that the scores are those of the metrics."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from damm_lite.brains.cases import patient_of
from damm_lite.brains.synthetic import SyntheticBrains
from damm_lite.experiments import held_out, patient_scores, patients
from damm_lite.metrics import evaluate_inside
from damm_lite.schedules import shifted_schedule

CASES = [f"BraTS-GLI-{i:05d}-{j:03d}" for i in range(11) for j in range(1 + i % 2)]


def test_each_patient_is_left_out_once_and_whole():
    folds = patients.deal(CASES, 5)
    assert sorted(sum(folds, [])) == CASES
    people = [{patient_of(case) for case in fold} for fold in folds]
    assert len(set.union(*people)) == sum(map(len, people)) == 11
    assert {len(each) for each in people} == {2, 3}
    assert patients.deal(CASES, 5) == folds != patients.deal(CASES, 5, seed=1)


@pytest.mark.parametrize("fold", range(5))
def test_nobody_is_trained_on_tuned_on_and_scored(fold):
    cases = {case: [case] for case in CASES}
    sets = patients.sets_of(cases, patients.deal(CASES, 5), fold)
    people = [{patient_of(case) for case in each} for each in sets]
    assert len(people[1]) == patients.CALIBRATION_PATIENTS
    assert sum(map(len, people)) == len(set.union(*people)) == 11


def test_too_few_patients_are_refused():
    with pytest.raises(ValueError, match="expected at least 10 patients for 5 folds, got 1"):
        patients.deal(CASES[:1], 5)


def write_scan(path, volume):
    nib.save(nib.Nifti1Image(volume.astype(np.float32), np.eye(4)), path)
    return path


def test_a_scan_of_half_a_head_is_noticed(tmp_path):
    whole = np.zeros((8, 8, 8))
    whole[2:6, 2:6, 2:6] = 5.0
    half = whole.copy()
    half[:, :, 4:] = 0
    scans = [write_scan(tmp_path / f"{name}.nii", x) for name, x in (("t1", whole), ("flair", half))]
    assert patients.share_missing(scans) == 0.5
    assert patients.share_missing(scans[:1] * 2) == 0.0


@pytest.fixture(scope="module")
def sets():
    """Two phantoms to train on, two to tune on and two to score, with as many slices as `read_cases` gives."""
    brains = list(SyntheticBrains(6 * 24, 32, 5, divergent_fraction=0.0))
    found = {}
    for i in range(6):
        items = [brains[24 * i + j % 24] | {"case": f"phantom-{i}"} for j in range(patients.TRAINING_SLICES)]
        found[f"phantom-{i}"] = items
    names = list(found)
    return [{name: found[name] for name in names[i : i + 2]} for i in (0, 2, 4)]


def test_another_patients_scan_is_the_other_patients(sets):
    batch = patients.some_of(sets[2], 4)
    changed = patient_scores.with_second(batch, "patient")
    assert torch.equal(changed["secondary"][:4], batch["secondary"][4:])
    assert torch.equal(changed["secondary"][4:], batch["secondary"][:4])
    assert torch.equal(patient_scores.with_second(batch, "none")["secondary"], batch["secondary"])
    assert not torch.equal(patient_scores.with_second(batch, "motion")["secondary"], batch["secondary"])
    for key in ("target", "primary", "mask"):
        assert torch.equal(changed[key], batch[key])


def test_scores_are_those_of_the_metrics_patient_by_patient(sets):
    batch = patients.some_of(sets[2], 4)
    noise = torch.randn((3, *batch["target"].shape), generator=torch.Generator().manual_seed(0))
    samples = (batch["target"] + 0.1 * noise).clamp(-1, 1)
    table = held_out.scores_of(samples, batch, margin=0.05)
    assert list(table["case"]) == list(sets[2])
    inside = batch["mask"][4:] == 1
    mean, target = samples.mean(dim=0).masked_fill(batch["mask"] == 0, -1)[4:], batch["target"][4:]
    row = table.iloc[1]
    for region, prefix in (("mask", ""), ("lesion", "tumour_")):
        for name, value in evaluate_inside(mean, target, batch[region][4:]).items():
            assert row[prefix + name] == pytest.approx(value, nan_ok=True)
    assert row["mae"] == pytest.approx(float((mean - target)[inside].abs().mean()) / 2)
    assert 0 < row["crps"] < row["mae"]
    assert 0 < row["covered"] < row["covered_widened"] <= 1


def test_a_single_guess_has_the_error_as_crps_and_an_interval_of_its_own(sets):
    batch = patients.some_of(sets[2], 4)
    guess = (batch["target"] * 0.9)[None]
    assert held_out.scores_of(guess, batch)["covered"].max() < 0.2
    table = held_out.scores_of(guess, batch, margin=0.1)
    assert np.allclose(table["crps"], table["mae"])
    assert (table["covered_widened"] == 1).all()
    assert np.allclose(table["width"], 0.1)


def test_a_margin_holds_on_the_patients_that_it_is_taken_from(sets):
    batch = patients.some_of(sets[1], patients.CALIBRATION_SLICES)
    noise = torch.randn((4, *batch["target"].shape), generator=torch.Generator().manual_seed(1))
    samples = (batch["target"] + 0.3 * noise[:1] + 0.05 * noise).clamp(-1, 1)
    table = held_out.scores_of(samples, batch, held_out.margin_of(samples, batch))
    assert table["covered"].mean() < 0.5
    assert table["covered_widened"].mean() >= held_out.LEVEL


@pytest.mark.parametrize("start", ["nothing", "phantom"])
def test_a_tiny_run_of_ours(sets, tmp_path, start, monkeypatch):
    monkeypatch.setattr(patients, "PHANTOMS", 8)
    monkeypatch.setattr(patients, "PHANTOM_STEPS", 3)
    budget = replace(patients.BUDGET, size=32, steps=2, batch_size=2, num_steps=2, num_samples=2)
    table = patients.run("ours", start, "flair", sets, budget, tmp_path / "run")
    assert set(table["case"]) == set(sets[2])
    assert set(table["method"]) == {
        f"ours, {gate}{one}" for gate in ("uni", "multi", "patch", "pixel") for one in ("", ", one sample")
    }
    counts = table.groupby(["method", "kind"]).size()
    assert (counts == 2).all()
    assert set(table.loc[table["method"] == "ours, patch", "kind"]) == set(patient_scores.KINDS)
    assert set(table.loc[table["method"] == "ours, pixel", "kind"]) == {"none"}
    several = ~table["method"].str.endswith("one sample")
    scores = table.loc[several, ["ssim", "psnr", "mae", "crps", "covered", "confidence", "believed"]]
    assert np.isfinite(scores.to_numpy(dtype=float)).all()
    again = patients.run("ours", start, "flair", sets, budget, tmp_path / "run")  # is trained already
    pd.testing.assert_frame_equal(table, again)


def test_what_nobody_trains_is_scored_too(sets, tmp_path):
    table = patients.run("untrained", "nothing", "flair", sets, patients.BUDGET, tmp_path)
    means = table[table["kind"] == "none"].groupby("method")["ssim"].mean()
    assert means["voxel by voxel"] > means["copy of t2"]


def test_a_believer_is_scored_as_its_multi_modal_branch(sets):
    """A gate that believes everything draws what the multi-modal branch draws."""
    batch = patients.some_of(sets[2], 2)
    torch.manual_seed(0)
    model, schedule = held_out.damm().eval(), shifted_schedule()
    budget = replace(patients.BUDGET, size=32, num_steps=2, num_samples=2)
    everything = held_out.Tuned(gamma=0.0)
    found = [
        held_out.draw(use, (model, schedule), everything, budget, batch)
        for use in (held_out.draw_patch, held_out.MULTI)
    ]
    assert torch.equal(*found)


def table_of(scores):
    """A table of methods, {method: score of each of four cases}; the last two are one patient's."""
    cases = [f"BraTS-GLI-{patient:05d}-{scan:03d}" for patient, scan in ((0, 0), (1, 0), (2, 0), (2, 1))]
    rows = [
        dict(method=method, case=case) | {score: sign * value for score, sign in patient_scores.SCORES.items()}
        for method, values in scores.items()
        for case, value in zip(cases, values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_gains_are_over_patients_and_positive_where_the_first_is_better():
    found = patient_scores.gains(table_of({"a": [4, 6, 7, 9], "b": [1, 2, 3, 4], "c": [4, 6, 8, 8]}), "a", ["b", "c"])
    assert (found["patients"] == 3).all()
    expected = stats.ttest_1samp([3, 4, 4.5], 0)  # the third patient's scans count as one
    ahead, equal = (found[found["rival"] == rival] for rival in ("b", "c"))
    assert ahead["mean"].to_numpy() == pytest.approx(23 / 6)
    assert ahead["p"].to_numpy() == pytest.approx(expected.pvalue)
    assert list(ahead[["low", "high"]].iloc[0]) == pytest.approx(list(expected.confidence_interval()))
    assert (ahead["adjusted"] > ahead["p"]).all()
    assert (equal["mean"] == 0).all()


def test_methods_of_different_cases_are_refused():
    table = table_of({"a": [4, 6, 7, 9], "b": [1, 2, 3, 4]})
    with pytest.raises(ValueError, match="'a' and 'b' were not scored on the same cases"):
        patient_scores.gains(table.iloc[:-1], "a", ["b"])
