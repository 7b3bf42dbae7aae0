"""Samples beside exact draws, field by field: scores, their summary over
fields, and what other fields might have given.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from damm_lite.distributions import coverage, crps, rank_histogram, variance_by_frequency
from damm_lite.metrics import psnr, ssim

EDGES = [0.0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 0.75]  # of bands of spatial frequency, cycles a pixel
OPEN = 0.05  # pixels whose true spread exceeds this are open: the vessels do not settle them
COVERING = 39  # samples between whose extremes the truth should lie: 38 of 40 times, 95 %


def score_field(samples: Tensor, draws: Tensor) -> dict[str, float]:
    """Scores of samples (S, 1, H, W) for one field, given exact draws (D, 1, H, W).

    `crps` and `coverage` (of the first 39 samples) take every draw as the
    truth in turn; `crps_exact` is what the draws themselves would score. All
    but SSIM and PSNR are over the field's open pixels. Variances are sums, to
    be pooled.
    """
    samples, draws = samples[:, None], draws[:, None]  # a batch of one
    region = draws.std(dim=0) > OPEN
    truths = list(draws)
    ranks = torch.stack([rank_histogram(samples, truth, region, seed=i) for i, truth in enumerate(truths)]).mean(dim=0)
    places = (torch.arange(len(ranks)) + 0.5).double() / len(ranks) * 2 - 1  # middles of the ranks' shares
    density = ranks * len(ranks)  # 1 where flat
    slope, curvature = (density * places).mean() * 3, (density * (3 * places**2 - 1) / 2).mean() * 5
    found = {"mean": samples.mean(dim=0), "sample": samples[0]}
    return {
        "open": float(region.float().mean()),
        "crps": float(torch.stack([crps(samples, y)[region].mean() for y in truths]).mean()),
        "crps_exact": float(_half_spread(draws)[region].mean()),
        "variance": float(samples.var(dim=0)[region].sum()),
        "variance_exact": float(draws.var(dim=0)[region].sum()),
        **_bands("band", samples),
        **_bands("exact_band", draws),
        "coverage": float(np.mean([coverage(samples[:COVERING], y, region) for y in truths])),
        "slope": float(slope),
        "curvature": float(curvature),
        **{f"ssim_{name}": float(torch.cat([ssim(x, y) for y in truths]).mean()) for name, x in found.items()},
        **{f"psnr_{name}": float(torch.cat([psnr(x, y) for y in truths]).mean()) for name, x in found.items()},
    }


def _bands(name, samples):
    variances = variance_by_frequency(samples, torch.tensor(EDGES)).tolist()
    return {f"{name}_{i}": variance for i, variance in enumerate(variances)}


def _half_spread(draws):
    """Half the mean |y - y'| over pairs of draws: the CRPS of the true distribution; (B, C, H, W)."""
    ordered, count = draws.sort(dim=0).values, len(draws)
    places = torch.arange(count) * 2 - count + 1
    return torch.einsum("s,s...->...", places.to(ordered.dtype), ordered) / (count * (count - 1))


def summarise_fields(table: pd.DataFrame) -> pd.Series:
    """What the bounds are about: ratios of spreads (also by band, of those with 1 % of the variance) and of CRPS,
    pooled over fields, and means of the rest.
    """
    sums = table.sum(numeric_only=True)
    found = {"spread ratio": (sums.variance / sums.variance_exact) ** 0.5, "CRPS ratio": sums.crps / sums.crps_exact}
    exact = sums.filter(like="exact_band")
    for i, share in enumerate(exact / exact.sum()):
        if share >= 0.01:
            found[f"spread ratio, band {i}"] = (sums[f"band_{i}"] / exact.iloc[i]) ** 0.5
    means = table[["coverage", "slope", "curvature", *table.filter(regex="ssim|psnr")]].mean()
    return pd.concat([pd.Series(found), means])


def with_intervals(table: pd.DataFrame, seed: int = 0, resamples: int = 1000) -> pd.DataFrame:
    """The summary with its 95 % bootstrap intervals over fields: columns value, low, high."""
    return _over_fields(lambda rows: summarise_fields(table.iloc[rows]), len(table), seed, resamples)


def paired_with_intervals(
    first: pd.DataFrame, second: pd.DataFrame, seed: int = 0, resamples: int = 1000
) -> pd.DataFrame:
    """The summary of `first` less that of `second`, whose rows are the same fields, with intervals as above."""
    if not np.array_equal(first["field"], second["field"]):
        raise ValueError(f"expected two tables of the same fields, got {len(first)} and {len(second)} rows")

    def difference(rows):
        return summarise_fields(first.iloc[rows]) - summarise_fields(second.iloc[rows])

    return _over_fields(difference, len(first), seed, resamples)


def _over_fields(score, count, seed, resamples):
    """What score(rows) gives for all fields, and its interval if they are drawn anew."""
    rng = np.random.default_rng(seed)
    drawn = [score(rng.integers(count, size=count)) for _ in range(resamples)]
    low, high = np.nanpercentile(pd.DataFrame(drawn), [2.5, 97.5], axis=0)
    return pd.DataFrame({"value": score(np.arange(count)), "low": low, "high": high})
