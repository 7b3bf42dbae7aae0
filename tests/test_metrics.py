"""Metrics against scikit-image and, for the gate, against counting pairs."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from damm_lite.experiments.statistics import bootstrap_interval
from damm_lite.metrics import evaluate, evaluate_inside, gate_auroc, mae, psnr, ssim


@pytest.fixture(params=[(5, 1, 32, 32), (3, 2, 24, 40)])
def images(request):
    target = torch.rand(request.param) * 2 - 1
    smooth = torch.nn.functional.avg_pool2d(target, 5, stride=1, padding=2)
    return (smooth + 0.1 * torch.randn(request.param)).clamp(-1, 1), smooth


def test_ssim_equals_scikit_image(images):
    x0, target = images
    expected = [
        structural_similarity(
            (a.numpy() + 1) / 2, (b.numpy() + 1) / 2, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
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


METRICS = pytest.mark.parametrize("metric", [ssim, psnr, mae, evaluate])


@METRICS
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: x[..., :16], r"of one shape, got \(2, 1, 20, 16\) and \(2, 1, 20, 20\)"),
        (lambda x: x[0], r"x0: expected shape \(B, C, H, W\), got \(1, 20, 20\)"),
        (lambda x: (x + 1) * 127.5, r"x0: expected values in \[-1, 1\], got \[.*2\d\d"),
        (lambda x: ((x + 1) * 127.5).to(torch.uint8), "x0: expected a tensor of real numbers, got torch.uint8"),
        (lambda x: x.numpy(), "x0: expected a tensor of real numbers, got float32"),
        (lambda x: x.masked_fill(x == x.max(), torch.nan), "x0: expected finite values, got NaN"),
        (lambda x: x / 0, "x0: expected finite values"),
    ],
)
def test_what_has_no_score_is_refused(metric, change, message):
    x = torch.rand(2, 1, 20, 20) * 1.8 - 0.9
    with pytest.raises(ValueError, match=message):
        metric(change(x), x)
    with pytest.raises(ValueError, match=message.replace("x0", "target").split(", got")[0]):
        metric(x, change(x))


@METRICS
def test_other_real_types_are_scored_as_they_are(metric):
    x0, target = torch.rand(2, 2, 1, 20, 20) * 2 - 1
    scores = metric(x0, target)
    for one, other in ((x0.double(), target), (x0, target.double())):
        assert str(metric(one, other))[:12] == str(scores)[:12]
    assert metric(x0.bfloat16(), target.bfloat16()) is not None


def test_a_brighter_copy_keeps_its_structure_and_orders_are_those_of_scikit_image():
    """On [-1, 1] a target made a tenth brighter scored 0.81, below a network that was much further off."""
    target = torch.nn.functional.avg_pool2d(torch.rand(4, 1, 36, 36), 5, stride=1) * 1.6 - 0.9
    brighter, flat = (target + 0.1).clamp(-1, 1), target.mean((2, 3), keepdim=True).expand_as(target)
    options = dict(data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    for x0 in (brighter, flat):
        expected = [
            structural_similarity((a[0].numpy() + 1) / 2, (b[0].numpy() + 1) / 2, **options)
            for a, b in zip(x0, target, strict=True)
        ]
        np.testing.assert_allclose(ssim(x0, target).numpy(), expected, atol=1e-4)
    assert ssim(brighter, target).min() > 0.9 > ssim(flat, target).max()


@pytest.mark.parametrize(
    "region, message",
    [
        (torch.ones(2, 1, 20, 16), r"region: expected shape \(2, 1, 20, 20\), got"),
        (torch.full((2, 1, 20, 20), 0.5), "region: expected 0 and 1 alone"),
        (torch.full((2, 1, 20, 20), torch.nan), "region: expected 0 and 1 alone"),
    ],
)
def test_regions_are_checked(region, message):
    with pytest.raises(ValueError, match=message):
        evaluate_inside(torch.zeros(2, 1, 20, 20), torch.zeros(2, 1, 20, 20), region)


@pytest.mark.parametrize("confidence", [[0.2, float("nan")], [0.2, 1.5], [0.2], [[0.2, 0.3]]])
def test_confidences_are_checked(confidence):
    with pytest.raises(ValueError, match="confidence"):
        gate_auroc(confidence, [True, False])


@pytest.mark.parametrize("differences", [[1.0], [1.0, float("nan")], [[1.0, 2.0]]])
def test_differences_are_checked(differences):
    with pytest.raises(ValueError, match="differences: expected two or more finite numbers"):
        bootstrap_interval(differences)


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
            (a.numpy() + 1) / 2, (b.numpy() + 1) / 2, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )[1]
        for a, b in zip(x0, target, strict=True)
    ]  # fmt: skip
    found = evaluate_inside(x0, target, region)
    assert found["ssim"] == pytest.approx(np.stack(similar)[inside].mean(), abs=1e-4)
    expected = peak_signal_noise_ratio(target.numpy()[inside], x0.numpy()[inside], data_range=2.0)
    assert found["psnr"] == pytest.approx(expected, abs=1e-4)
    assert all(np.isnan(value) for value in evaluate_inside(x0, target, 0 * region).values())
