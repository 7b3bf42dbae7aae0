"""How good are samples? Scores of predicted distributions, not of single images.

`samples` are (S, B, C, H, W) and `target` is (B, C, H, W), both in [-1, 1].
A `region` (B, C, H, W) of booleans, where given, restricts a score to its
pixels. Everything else is refused as by the other metrics.
"""

import torch
from torch import Tensor

from damm_lite.data import check_tensor, generator_of


def crps(samples: Tensor, target: Tensor) -> Tensor:
    """Continuous ranked probability score of each pixel; (B, C, H, W).

    The fair estimate from S samples (Ferro 2014): mean |x - y| less half the
    mean |x - x'| over pairs of different samples. On average over samples it
    is the score of the distribution that they come from, whatever S is; lower
    is better, and for one certain sample it would be the absolute error.
    """
    _check(samples, target, fewest=2)
    count = len(samples)
    ordered = samples.sort(dim=0).values
    # Sum of |x - x'| over ordered pairs: a sorted sample counts by its place.
    places = torch.arange(count, device=samples.device) * 2 - count + 1
    pairs = 2 * torch.einsum("s,s...->...", places.to(ordered.dtype), ordered)
    of_pairs = pairs / (2 * count * (count - 1))
    return (samples - target).abs().mean(dim=0) - of_pairs


def coverage(samples: Tensor, target: Tensor, region: Tensor | None = None) -> float:
    """The share of pixels whose truth lies between the least and the largest
    sample: (S - 1) / (S + 1) where samples and truth have one distribution.
    """
    _check(samples, target, fewest=2)
    inside = (samples.amin(dim=0) <= target) & (target <= samples.amax(dim=0))
    return float(_chosen(inside, region).double().mean())


def rank_histogram(samples: Tensor, target: Tensor, region: Tensor | None = None, seed: int = 0) -> Tensor:
    """How often the truth has each of the S + 1 ranks among the samples, as
    shares (S + 1,): flat where both have one distribution, a valley where the
    samples spread too little, a slope where they are too bright or too dark.
    Ties, as of clipped pixels, are broken at random with `seed`.
    """
    _check(samples, target, fewest=1)
    below, ties = (samples < target).sum(dim=0), (samples == target).sum(dim=0)
    chance = torch.rand(target.shape, generator=generator_of(seed)).to(target.device)
    ranks = below + (chance * (ties + 1)).long()
    return torch.bincount(_chosen(ranks, region), minlength=len(samples) + 1).double() / _chosen(ranks, region).numel()


def spread_ratio(samples: Tensor, draws: Tensor, region: Tensor | None = None) -> float:
    """The spread of the samples over that of `draws` from the true distribution
    (D, B, C, H, W): the root of the ratio of both variances, each a mean over
    the pixels of the region.
    """
    _check(samples, draws[0], fewest=2)
    found, true = (_chosen(x.var(dim=0), region).double().mean() for x in (samples, draws))
    return float((found / true).sqrt())


def variance_by_frequency(samples: Tensor, edges: Tensor) -> Tensor:
    """How much of the samples' variance lies in the bands of spatial frequency
    between the n `edges`, in cycles per pixel, from 0 up; (n - 1,).

    What varies are the deviations from the mean of the samples. The whole of
    it is the sum over pixels of the variance, averaged over the patches.
    """
    _check(samples, samples[0], fewest=2)
    rows, columns = (torch.fft.fftfreq(n, device=samples.device) for n in samples.shape[-2:])
    radius = torch.hypot(rows[:, None], columns[None])  # (H, W)
    band = torch.bucketize(radius, edges.to(radius), right=True) - 1
    deviations = samples - samples.mean(dim=0)
    power = torch.fft.fft2(deviations, norm="ortho").abs().square().double()
    power = power.sum(dim=(0, 2)).mean(dim=0) / (len(samples) - 1)  # (H, W)
    inside, bands = (band >= 0) & (band < len(edges) - 1), torch.zeros(len(edges) - 1, dtype=torch.double)
    return bands.to(power.device).index_add(0, band[inside], power[inside])


def spread_by_frequency(samples: Tensor, draws: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """(ratio of spreads, share of the true variance), (n - 1,) each: the
    samples beside `draws` (D, B, C, H, W) from the true distribution, in the
    bands of `variance_by_frequency`.
    """
    found, true = variance_by_frequency(samples, edges), variance_by_frequency(draws, edges)
    return (found / true).sqrt(), true / true.sum()


def _chosen(x, region):
    return x.flatten() if region is None else x[region.expand_as(x)]


def _check(samples, target, fewest):
    check_tensor("target", target)
    if samples.ndim != 5 or samples.shape[1:] != target.shape or len(samples) < fewest:
        expected = f"(S, {', '.join(map(str, target.shape))}) with S from {fewest} up"
        raise ValueError(f"samples: expected shape {expected}, got {tuple(samples.shape)}")
    check_tensor("samples", samples.flatten(0, 1))
