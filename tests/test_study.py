"""The study: every method at one budget, trained, tuned and scored in small; patches, seeds and scores as promised."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from damm_lite.experiments import methods, study
from damm_lite.experiments.methods import TRAININGS, USES, Budget, Guided
from damm_lite.experiments.runs import Kept
from damm_lite.prediction_types import PredictsPreconditioned
from damm_lite.tumours.synthetic import DIVERGENCES, SyntheticTumours
from damm_lite.unet import UNet

TINY = Budget(
    size=16, patches=16, steps=3, batch_size=4, num_steps=2, num_samples=2, calibration_patches=8, test_patches=8
)


@pytest.fixture(scope="module")
def batch():
    return study.field_patches(TINY.test_patches, TINY.size, study.DEVELOPMENT_SEED)


@pytest.fixture(scope="module")
def tables(tmp_path_factory, batch):
    folder = tmp_path_factory.mktemp("study")
    return {name: study.run(name, "clean", 0, TINY, batch, folder / str(i)) for i, name in enumerate(TRAININGS)}


def test_half_of_the_field_diverges_in_every_way_as_often(batch):
    assert batch["kind"] == ["none"] * 4 + list(DIVERGENCES)
    larger = study.field_patches(32, 16, seed=3)
    assert {kind: larger["kind"].count(kind) for kind in set(larger["kind"])} == {"none": 16} | dict.fromkeys(
        DIVERGENCES, 4
    )
    simulated = SyntheticTumours(3200, 16, seed=3)
    firsts = [next(item for item in simulated if item["kind"] == kind) for kind in ("none", "necrosis")]
    places = [larger["kind"].index(item["kind"]) for item in firsts]
    for item, place in zip(firsts, places, strict=True):
        torch.testing.assert_close(larger["target"][place], item["target"], rtol=0, atol=0)


def test_the_protocol_is_the_seed(tmp_path):
    page = tmp_path / "protocol.md"
    page.write_text("Five seeds.")
    seed = study.seed_of(page)
    assert seed == int(hashlib.sha256(b"Five seeds.").hexdigest()[:15], 16)
    page.write_text("Six seeds.")
    assert study.seed_of(page) != seed


def test_networks_have_the_same_size():
    counts = {
        "two branches": methods.damm(None),
        "ours": methods.damm(),
        "U-Net": methods.unet(UNet, "primary", "secondary"),
    }
    counts = {name: sum(p.numel() for p in model.parameters()) for name, model in counts.items()}
    assert max(counts.values()) / min(counts.values()) < 1.1, counts


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_gives_its_methods_with_scores(tables, batch, name):
    table = tables[name]
    assert list(table.method.unique()) == [name + ending for ending in USES[name]]
    for method, rows in table.groupby("method"):
        assert list(rows.kind) == batch["kind"] and list(rows["index"]) == list(range(8))
        assert np.isfinite(rows[["ssim", "mae", "crps"]]).all(axis=None)
        assert np.isfinite(rows.psnr).all() or method == "ours, solver", "only physics can be exact"
        assert (rows.samples == (1 if name.startswith("regression") else 2)).all()
    if name.startswith("regression"):
        np.testing.assert_allclose(table.crps, table.mae, rtol=1e-5)


def test_methods_of_one_training_differ_where_their_gates_do(tables):
    scores = tables["ours"].pivot(index="index", columns="method", values="mae")
    assert (scores["ours, uni"] != scores["ours, multi"]).all()
    patch = scores["ours, patch"]
    near = (
        np.isclose(patch, scores["ours, uni"], rtol=0.2) | np.isclose(patch, scores["ours, multi"], rtol=0.2)
    ).mean()
    assert near > 0.5


def test_the_solver_behind_the_gate_is_the_physics_or_the_uni_modal_branch(tables, batch):
    mae = tables["ours"].pivot(index="index", columns="method", values="mae")
    found, physics = mae["ours, solver"], study.table_of("solver", methods.by_solver(batch), batch).mae
    believed = np.isclose(found, physics, atol=2e-5)
    np.testing.assert_allclose(found[~believed], mae["ours, patch"][~believed], atol=2e-5)
    assert believed.any()


def test_scores_are_those_of_the_mean_and_of_the_samples(batch):
    target = batch["target"]
    samples = (target + 0.1 * torch.randn(3, *target.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    found = study.scored(samples, target)
    mean = samples.mean(dim=0)
    for i in range(len(target)):
        images = [x[i, 0].numpy() for x in (mean, target)]
        assert found["psnr"][i] == pytest.approx(peak_signal_noise_ratio(*images, data_range=2), abs=1e-3)
        x, y = samples[:, i], target[i]
        by_hand = (x - y).abs().mean(0) - sum((x[a] - x[b]).abs() for a in range(3) for b in range(3)) / 12
        assert found["crps"][i] == pytest.approx(by_hand.mean().item(), rel=1e-4)
    assert torch.allclose(found["mae"], (mean - target).abs().mean(dim=(1, 2, 3)))


def test_the_solver_is_right_where_the_images_are(batch):
    found = study.table_of("solver", methods.by_solver(batch), batch)
    assert found.mae[:4].max() < 1e-4 < found.mae[4:].min()


def test_gates_are_tuned_to_what_is_there(batch):
    """Where the multi-modal branch is always better, gamma must let it through."""

    class Network:
        pass

    uni, multi = torch.zeros_like(batch["target"]), batch["target"]

    def drawn(sample, batch, seed):
        return (uni if sample.args[0] is methods.UNI else multi)[None], 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "drawn", drawn)
        patch.setattr(study, "confidences", lambda *_: (torch.linspace(0.2, 0.9, 8), torch.full((8, 4, 4), 0.7)))
        tuned = study.tune_gates(Network(), None, batch, TINY)
        assert tuned.gamma <= 0.2 + 1e-6 and tuned.sharpness == max(study.SHARPNESS)
        uni, multi = multi, uni
        assert study.tune_gates(Network(), None, batch, TINY).gamma > 0.9


def test_guidance_goes_from_without_to_with():
    network = methods.unet(UNet, "primary", "secondary")
    torch.nn.init.normal_(network.backbone.out_conv.weight, std=0.1)
    xt, conditions, t = torch.randn(2, 1, 16, 16), torch.rand(2, 2, 16, 16) * 2 - 1, torch.tensor([5, 800])
    blank = conditions.clone()
    blank[:, 1:] = -1
    with torch.inference_mode():
        without, given = network(xt, t, blank), network(xt, t, conditions)
        for weight in (0.0, 1.0, 2.0):
            expected = without + weight * (given - without)
            torch.testing.assert_close(Guided(network, weight)(xt, t, conditions), expected)
    assert not torch.allclose(without, given) and Guided(network, 1.0).prediction is PredictsPreconditioned


def test_the_command_keeps_each_run_and_does_none_twice(tmp_path, monkeypatch):
    options = "--size 16 --patches 16 --steps 2 --samples 2 --test-patches 8 --development --seeds 0 1"
    command = ["study", "--out", str(tmp_path), *options.split(), "--only", "regression, vessels"]
    monkeypatch.setattr("sys.argv", command)
    study.main()
    whole = pd.read_csv(tmp_path / "study.csv")
    assert set(whole.method) == {"solver", "ruler", "regression, vessels"}
    assert whole.groupby("method").size().to_dict() == {"solver": 8, "ruler": 8, "regression, vessels": 16}
    monkeypatch.setattr(study, "run", None)  # would fail if it were called
    study.main()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "study.csv"), whole)


def test_patches_are_drawn_when_asked_for_and_once():
    class Counted(SyntheticTumours):
        drawn = []

        def __getitem__(self, index):
            item = super().__getitem__(index)
            self.drawn.append(index)
            return item

    patches = Kept(Counted(6, 16, seed=0), ("target", "primary"))
    assert len(patches) == 6 and Counted.drawn == []
    first = patches[4]
    assert patches[4] is first and Counted.drawn == [4] and set(first) == {"target", "primary"}
    assert len(list(patches)) == 6 and sorted(Counted.drawn) == list(range(6))
    torch.testing.assert_close(first["target"], SyntheticTumours(6, 16, seed=0)[4]["target"], rtol=0, atol=0)
