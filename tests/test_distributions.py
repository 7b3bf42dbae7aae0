"""Scores of distributions against closed forms of Gaussians, torchmetrics, and counting."""

import math

import pytest
import torch
from torchmetrics.functional.regression.crps import _crps_update

from damm_lite.distributions import (
    coverage,
    crps,
    rank_histogram,
    spread_by_frequency,
    spread_ratio,
    variance_by_frequency,
)


def gaussian(count, shape=(2, 1, 16, 16), mean=0.0, std=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(count, *shape, generator=generator)


def test_crps_of_a_gaussian_is_its_closed_form_however_few_the_samples():
    """Gneiting and Raftery (2007), eq. 21; that the few score as the many is what is fair about the estimate."""
    z = torch.tensor([-1.5, 0.0, 0.7]).double()
    normal = torch.distributions.Normal(0.0, 1.0)
    expected = 0.1 * (z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - 1 / math.sqrt(math.pi))
    for count in (2, 3, 20):
        samples = gaussian(count, (3, 1, 100, 400))
        target = (0.1 * z).float().view(3, 1, 1, 1).expand(3, 1, 100, 400)
        found = crps(samples, target).double().mean(dim=(1, 2, 3))
        torch.testing.assert_close(found, expected, rtol=0, atol=8e-4)


def test_crps_is_torchmetrics_but_for_the_pairs_of_a_sample_with_itself():
    samples, target = gaussian(7), gaussian(1, seed=1)[0]
    _, error, pairs = _crps_update(samples.flatten(1).T, target.flatten())
    torch.testing.assert_close(crps(samples, target).flatten(), error - pairs * 7 / 6)


def test_a_wider_or_moved_distribution_scores_worse():
    target = gaussian(1, (1, 1, 200, 200), seed=5)[0]
    score = {
        (mean, std): float(crps(gaussian(16, (1, 1, 200, 200), mean, std), target).mean())
        for mean, std in ((0, 0.1), (0, 0.05), (0, 0.2), (0.1, 0.1))
    }
    assert min(score, key=score.get) == (0, 0.1)


@pytest.mark.parametrize("count", [4, 39])
def test_coverage_of_true_samples_is_the_one_of_ranks(count):
    shape = (2, 1, 100, 100)
    found = coverage(gaussian(count, shape), gaussian(1, shape, seed=9)[0])
    assert found == pytest.approx((count - 1) / (count + 1), abs=0.01)
    assert coverage(gaussian(count, shape, std=0.03), gaussian(1, shape, seed=9)[0]) < found - 0.1


def test_ranks_are_flat_for_true_samples_and_tell_what_is_wrong_with_others():
    shape = (2, 1, 150, 150)
    target = gaussian(1, shape, seed=9)[0]
    flat = rank_histogram(gaussian(9, shape), target)
    assert flat.shape == (10,) and flat.sum() == pytest.approx(1) and (flat - 0.1).abs().max() < 0.01
    narrow = rank_histogram(gaussian(9, shape, std=0.04), target)
    assert narrow[[0, -1]].min() > 0.2 > narrow[4:6].max()
    bright = rank_histogram(gaussian(9, shape, mean=0.1), target)
    assert bright[0] > 2 * bright[-1]


def test_ties_are_broken_at_random():
    clipped = torch.full((3, 2, 1, 60, 60), -1.0)
    ranks = rank_histogram(clipped, clipped[0])
    assert (ranks - 0.25).abs().max() < 0.02
    assert torch.equal(ranks, rank_histogram(clipped, clipped[0]))


def test_the_ratio_of_spreads_and_its_region():
    samples, draws = gaussian(60, std=0.05), gaussian(80, seed=2)
    assert spread_ratio(samples, draws) == pytest.approx(0.5, rel=0.03)
    samples[..., :8] *= 3
    region = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    region[..., :8] = True
    assert spread_ratio(samples, draws, region) == pytest.approx(1.5, rel=0.04)
    assert coverage(samples, draws[0], region) > coverage(samples, draws[0], ~region)


def test_spread_by_frequency_finds_where_a_blur_has_taken_it():
    edges = torch.tensor([0.0, 0.1, 0.25, 0.75])
    draws = gaussian(200, (1, 1, 32, 32))
    ratio, share = spread_by_frequency(gaussian(100, (1, 1, 32, 32), std=0.07, seed=3), draws, edges)
    torch.testing.assert_close(ratio, torch.full((3,), 0.7).double(), rtol=0, atol=0.04)
    # White noise: each band has its share of the plane of frequencies.
    radius = torch.hypot(*torch.meshgrid(*[torch.fft.fftfreq(32)] * 2, indexing="ij"))
    bands = zip(edges[:-1], edges[1:], strict=True)
    expected = torch.stack([((radius >= low) & (radius < high)).double().mean() for low, high in bands])
    torch.testing.assert_close(share, (expected / expected.sum()), rtol=0, atol=0.01)
    smooth = torch.nn.functional.avg_pool2d(draws.flatten(0, 1), 3, 1, 1).unflatten(0, (200, 1))
    ratio, _ = spread_by_frequency(smooth, draws, edges)
    assert ratio[0] > 0.7 > 2 * ratio[2]


def test_the_bands_add_up_to_the_variance_of_all_pixels():
    samples = gaussian(50, (3, 2, 12, 20))
    bands = variance_by_frequency(samples, torch.tensor([0.0, 0.05, 0.2, 0.75]))
    assert bands.sum().item() == pytest.approx(samples.var(dim=0).sum(dim=(1, 2, 3)).mean().item(), rel=1e-5)


@pytest.mark.parametrize("score", [crps, coverage, rank_histogram])
@pytest.mark.parametrize(
    "samples, message",
    [
        (torch.zeros(4, 2, 1, 8, 4), r"samples: expected shape \(S, 2, 1, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8), r"samples: expected shape"),
        (torch.full((4, 2, 1, 8, 8), 3.0), r"samples: expected values in \[-1, 1\]"),
        (torch.full((4, 2, 1, 8, 8), torch.nan), "samples: expected finite values"),
    ],
)
def test_what_has_no_score_is_refused(score, samples, message):
    with pytest.raises(ValueError, match=message):
        score(samples, torch.zeros(2, 1, 8, 8))
