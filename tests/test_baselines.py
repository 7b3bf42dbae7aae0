"""The baselines: what they can know, and what they cannot."""

import numpy as np
import pytest
import torch

from damm_lite.data import stack, to_tensor
from damm_lite.experiments.baselines import DistanceBaseline, HistogramMatching, KNNBaseline
from damm_lite.losses import squared_error
from damm_lite.predict import predict_unet
from damm_lite.schedules import scaled_linear_schedule
from damm_lite.train import TrainConfig, train
from damm_lite.tumours.simulate import Physics, simulate_nanoparticles
from damm_lite.tumours.synthetic import SyntheticTumours
from damm_lite.unet import RegressionUNet, UNetConfig


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


@pytest.mark.parametrize("conditions", [("primary",), ("primary", "secondary")])
def test_regression_learns_and_sees_what_it_should(conditions):
    patches, schedule = list(SyntheticTumours(4, 16, seed=0)), scaled_linear_schedule()
    model = RegressionUNet(UNetConfig(1 + len(conditions), 1, (16, 16, 16, 16), 16), conditions)
    config = TrainConfig(60, 4, learning_rate=3e-3, warmup_steps=5, corrupted=0.0)
    losses = [step.loss for step in train(model, schedule, patches, config, squared_error, progress=False)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    batch, model = stack(patches), model.eval()
    images = torch.cat([batch[name] for name in conditions], dim=1).requires_grad_()
    t = torch.tensor([0, 10, 500, 999])
    x0 = model(torch.randn(4, 1, 16, 16), t, images)
    assert x0.shape == batch["target"].shape
    assert torch.equal(x0, model(torch.randn(4, 1, 16, 16), t.flip(0), images)), "it sees neither xt nor t"
    x0.square().sum().backward()
    assert all(images.grad[:, i].abs().max() > 0 for i in range(len(conditions)))
    torch.testing.assert_close(predict_unet(model, schedule, images.detach(), 1)[0], x0.detach().clamp(-1, 1))


def slices(n=4, size=24, channels=1, seed=0, target=lambda primary, secondary: secondary[:1]):
    """Items of random sources (rank noise in a round brain) and a target that is a function of them."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    mask = (x.square() + y.square() < 0.7).float()[None]
    items = []
    for _ in range(n):
        images = torch.rand(1 + channels, size, size, generator=generator) * 2 - 1
        found = target(images[:1], images[1:])
        parts = {"target": found, "primary": images[:1], "secondary": images[1:]}
        items.append({key: image.where(mask == 1, torch.tensor(-1.0)) for key, image in parts.items()} | {"mask": mask})
    return items


def test_a_copy_finds_any_monotone_curve_and_no_other():
    rising, other = (lambda p, s: s.pow(3) / 2 + 0.1), (lambda p, s: s.square())
    for target, bound in ((rising, 0.02), (other, None)):
        held_out = stack(slices(seed=1, target=target))
        found = HistogramMatching(slices(8, target=target))(held_out)
        error = (found - held_out["target"])[held_out["mask"] == 1].abs().mean()
        assert error < bound if bound else error > 0.2
        assert found.shape == held_out["target"].shape and (found[held_out["mask"] == 0] == -1).all()


@pytest.mark.parametrize("channels", [1, 2])
def test_voxels_find_any_function_of_the_sources(channels):
    def target(primary, secondary):
        return primary * secondary[-1:]  # neither of the two tells it alone

    items, held_out = (
        slices(40, channels=channels, target=target),
        stack(slices(seed=1, channels=channels, target=target)),
    )
    found = KNNBaseline(items, neighbours=8)(held_out)
    error = (found - held_out["target"])[held_out["mask"] == 1].abs().mean()
    assert error < 0.07 and (found[held_out["mask"] == 0] == -1).all() and found.dtype == torch.float32
    # All voxels as neighbours: the mean, whatever the sources.
    mean = KNNBaseline(items, neighbours=10**6, voxels=500)
    assert len(mean.target) == 500
    torch.testing.assert_close(mean(held_out)[0, 0, 12, 12].item(), float(mean.target.mean()), atol=1e-5, rtol=0)
