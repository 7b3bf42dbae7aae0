"""The baselines: what they can know, and what they cannot."""

import numpy as np
import pytest
import torch

from damm_lite.baselines import DistanceBaseline, concat_regression_objective, regress, regression_objective
from damm_lite.data import stack, to_tensor
from damm_lite.schedules import PredictsImage, scaled_linear_schedule
from damm_lite.simulate import Physics, simulate_nanoparticles
from damm_lite.train import TrainConfig, train
from damm_lite.tumours import SyntheticTumours
from damm_lite.unet import UNet, UNetConfig


def test_in_uniform_tissue_distance_is_all_there_is_to_know():
    vessels = np.zeros((32, 64), dtype=np.float32)
    vessels[:, 0] = 1
    item = {
        "primary": to_tensor(vessels),
        "target": to_tensor(simulate_nanoparticles(vessels, np.zeros_like(vessels), Physics())),
    }
    baseline = DistanceBaseline([item])
    torch.testing.assert_close(baseline(item["primary"][None])[0], item["target"], atol=1e-5, rtol=0)
    # Between two distances that it has seen, and beyond the last one, it interpolates and holds.
    assert baseline.distance.tolist() == list(range(0, 127, 2))
    far = torch.full((1, 1, 4, 200), -1.0)
    far[..., 0] = 1
    assert baseline(far)[0, 0, 0, -1].item() == pytest.approx(baseline.signal[-1])


def test_distances_are_averaged_over_patches():
    primary = torch.full((1, 8, 8), -1.0)
    primary[:, :, 0] = 1
    items = [{"primary": primary, "target": torch.full((1, 8, 8), value)} for value in (-0.5, 0.0, 0.2)]
    torch.testing.assert_close(DistanceBaseline(items)(primary[None]), torch.full((1, 1, 8, 8), -0.1))


@pytest.mark.parametrize(
    "objective, channels",
    [(regression_objective, ["primary"]), (concat_regression_objective, ["primary", "secondary"])],
)
def test_regression_learns_and_sees_what_it_should(objective, channels):
    patches = list(SyntheticTumours(4, 16, seed=0))
    model = UNet(UNetConfig(1 + len(channels), 1, (16, 16, 16, 16), 16), PredictsImage)
    config = TrainConfig(60, 4, learning_rate=3e-3, warmup_steps=5)
    losses = [step.loss for step in train(model, scaled_linear_schedule(), patches, config, objective, progress=False)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    batch = stack(patches)
    conditions = torch.cat([batch[name] for name in channels], dim=1).requires_grad_()
    x0 = regress(model.eval(), conditions)
    assert x0.shape == batch["target"].shape
    x0.square().sum().backward()
    assert all(conditions.grad[:, i].abs().max() > 0 for i in range(len(channels)))
