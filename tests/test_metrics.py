"""Metrics against scikit-image and, for the gate, against counting pairs."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from damm_lite.metrics import bootstrap_interval, evaluate, evaluate_inside, gate_auroc, mae, psnr, ssim


@pytest.fixture(params=[(5, 1, 32, 32), (3, 2, 24, 40)])
def images(request):
    target = torch.rand(request.param) * 2 - 1
    smooth = torch.nn.functional.avg_pool2d(target, 5, stride=1, padding=2)
    return (smooth + 0.1 * torch.randn(request.param)).clamp(-1, 1), smooth


def test_ssim_equals_scikit_image(images):
    x0, target = images
    expected = [
        structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=2.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(x0, target, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim(x0, target).numpy(), expected, atol=1e-4)


def test_psnr_equals_scikit_image(images):
    x0, target = images
    expected = [peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=2.0) for a, b in zip(x0, target, strict=True)]
    np.testing.assert_allclose(psnr(x0, target).numpy(), expected, atol=1e-4)


def test_evaluate_averages_images(images):
    x0, target = images
    scores = evaluate(x0, target)
    assert scores["mae"] == pytest.approx(float(np.abs((x0 - target).numpy()).mean()), abs=1e-6)
    assert scores["ssim"] == pytest.approx(float(ssim(x0, target).mean()))
    assert scores["psnr"] == pytest.approx(float(psnr(x0, target).mean()))
    assert torch.isinf(psnr(target, target)).all() and torch.allclose(ssim(target, target), torch.ones(1))


def test_auroc_is_the_share_of_pairs_in_order():
    confidence = torch.tensor([0.9, 0.8, 0.3, 0.6, 0.2, 0.6])
    divergent = torch.tensor([False, False, False, True, True, True])
    wins = [(c > d) + 0.5 * (c == d) for c in confidence[~divergent] for d in confidence[divergent]]
    assert gate_auroc(confidence, divergent) == pytest.approx(float(torch.stack(wins).mean()))
    assert gate_auroc(confidence, ~divergent) == pytest.approx(1 - float(torch.stack(wins).mean()))
    with pytest.raises(ValueError, match="both"):
        gate_auroc(confidence, torch.ones(6))


@pytest.mark.parametrize("metric", [ssim, psnr, mae])
def test_shapes_are_checked(metric):
    with pytest.raises(ValueError, match=r"\(1, 1, 16, 16\) and \(1, 1, 16, 20\)"):
        metric(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 20))
    with pytest.raises(ValueError, match="one shape"):
        metric(torch.zeros(16, 16), torch.zeros(16, 16))


def test_ssim_needs_its_window():
    with pytest.raises(ValueError, match="over 10"):
        ssim(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))


def test_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.normal(0.3, 1.0, 80), seed=i) for i in range(150)]
    assert 0.88 < np.mean([low <= 0.3 <= high for _, low, high in intervals]) < 0.99
    mean, low, high = bootstrap_interval(rng.normal(0.0, 2.0, 4000))
    assert high - low == pytest.approx(2 * 1.96 * 2.0 / 4000**0.5, rel=0.1)  # the normal theory's width
    assert low < mean < high
    assert bootstrap_interval(np.zeros(20)) == (0.0, 0.0, 0.0)


def test_scores_inside_a_region_equal_scikit_image(images):
    x0, target = images
    region = (torch.rand(len(x0), 1, *x0.shape[2:]) < 0.3).float()
    region[..., :5, :] = region[..., -5:, :] = region[..., :5] = region[..., -5:] = 0  # scikit-image pads otherwise
    inside = region.expand_as(x0).bool().numpy()
    similar = [
        structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=2.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )[1]
        for a, b in zip(x0, target, strict=True)
    ]  # fmt: skip
    found = evaluate_inside(x0, target, region)
    assert found["ssim"] == pytest.approx(np.stack(similar)[inside].mean(), abs=1e-4)
    expected = peak_signal_noise_ratio(target.numpy()[inside], x0.numpy()[inside], data_range=2.0)
    assert found["psnr"] == pytest.approx(expected, abs=1e-4)
    assert all(np.isnan(value) for value in evaluate_inside(x0, target, 0 * region).values())
