"""Intervals: right where the samples are, and after calibration right even where they are not."""

import pytest
import torch

from damm_lite.intervals import conformal_margin, missed, sample_interval


def patches(count, seed, spread=1.0):
    """(samples (19, B, 1, 8, 8), truths): patches that are blurred alike, of which samples know spread times the sd."""
    generator = torch.Generator().manual_seed(seed)
    scale = 0.05 + 0.1 * torch.rand(count, 1, 1, 1, generator=generator)  # some patches are harder
    truth = scale * torch.randn(count, 1, 8, 8, generator=generator)
    return spread * scale * torch.randn(19, count, 1, 8, 8, generator=generator), truth


def test_the_interval_of_samples_is_their_quantiles():
    samples = torch.linspace(-1, 1, 21).view(21, 1, 1, 1, 1).expand(21, 2, 1, 3, 4)
    low, high = sample_interval(samples, 0.9)
    torch.testing.assert_close(low, torch.full((2, 1, 3, 4), -0.9))
    torch.testing.assert_close(high, torch.full((2, 1, 3, 4), 0.9))


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_after_calibration_new_patches_are_covered_whatever_the_samples(spread, level):
    found = []
    for seed in range(12):
        samples, truth = patches(60, seed, spread)
        low, high = sample_interval(samples, level)
        margin = conformal_margin(low, high, truth, level)
        samples, truth = patches(200, 1000 + seed, spread)
        low, high = sample_interval(samples, level)
        found.append(float(missed(low - margin, high + margin, truth).mean()))
    raw = float(missed(low, high, truth).mean())
    assert sum(found) / len(found) < 1 - level + 0.006
    assert sum(found) / len(found) > 1 - level - 0.05, "and not by covering everything"
    assert (raw > 1 - level + 0.1) == (spread == 0.3)


def test_the_margin_is_the_least_that_does():
    samples, truth = patches(50, 3, 0.5)
    low, high = sample_interval(samples, 0.9)
    margin = conformal_margin(low, high, truth, 0.9)

    def risk(m):
        return (float(missed(low - m, high + m, truth).sum()) + 1) / 51

    assert risk(margin) <= 0.1 < risk(margin - 1e-3)


def test_a_region_counts_alone():
    samples, truth = patches(30, 4)
    region = torch.zeros(30, 1, 8, 8, dtype=torch.bool)
    region[..., :4] = True
    low, high = sample_interval(samples, 0.8)
    truth[..., 4:] = 0.8
    assert missed(low, high, truth, region).mean() < 0.35 < missed(low, high, truth).mean()
    assert conformal_margin(low, high, truth, 0.8, region) < 0.2 < conformal_margin(low, high, truth, 0.8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sample_interval(torch.zeros(4, 1, 1, 2, 2), 1.0), "level: expected a number between 0 and 1"),
        (lambda: sample_interval(torch.zeros(4, 1, 2, 2)), r"samples: expected shape \(S, B, C, H, W\)"),
        (lambda: conformal_margin(*torch.zeros(3, 5, 1, 2, 2)), "at least 9 calibration patches, got 5"),
        (lambda: missed(*torch.zeros(2, 5, 1, 2, 2), torch.full((5, 1, 2, 2), torch.nan)), "target: expected finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
