"""What a difference between two methods is worth, over training seeds and
patches.

A training is a draw: another seed gives another network. So the seeds are the
replicates. The difference of two methods is averaged over the patches, seed by
seed, and Student's t judges these few numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats


class Difference(NamedTuple):
    """A mean difference with its interval, and the p of "there is none"."""

    mean: float
    low: float
    high: float
    p: float


def paired(table: pd.DataFrame, first: str, second: str, score: str) -> pd.DataFrame:
    """first - second in a score: a row for each training seed that both have, a column for each patch.

    `table` has the columns regime, method, seed, index and the score. A method
    that nobody trains, whose regime is empty, is compared with every seed of
    the other. Raises ValueError for a method that is not there, for patches
    that differ, and where no seed is common.
    """
    sides = []
    for method in (first, second):
        rows = table[table["method"] == method]
        if rows.empty:
            raise ValueError(f"{method!r} is not among the methods: {', '.join(sorted(table['method'].unique()))}")
        sides.append((rows.pivot(index="seed", columns="index", values=score), rows["regime"].isna().all()))
    (one, one_fixed), (other, other_fixed) = sides
    if not one.columns.equals(other.columns):
        raise ValueError(f"{first!r} and {second!r} were not scored on the same patches")
    if one_fixed:
        one = pd.DataFrame(one.to_numpy()[:1].repeat(len(other), axis=0), other.index, other.columns)
    if other_fixed:
        other = pd.DataFrame(other.to_numpy()[:1].repeat(len(one), axis=0), one.index, one.columns)
    seeds = one.index.intersection(other.index)
    if seeds.empty:
        raise ValueError(f"{first!r} and {second!r} have no training seed in common")
    return one.loc[seeds] - other.loc[seeds]


def over_seeds(table: pd.DataFrame, first: str, second: str, score: str) -> np.ndarray:
    """`paired`, averaged over patches: one number for each training seed."""
    return paired(table, first, second, score).mean(axis=1).to_numpy()


def paired_t(differences: Sequence[float], level: float = 0.95) -> Difference:
    """Student's t for the mean of a few differences, of which at least two are
    needed: ValueError otherwise.
    """
    if len(differences) < 2:
        found = len(differences)
        raise ValueError(f"differences: expected at least two, got {found}")
    found = stats.ttest_1samp(differences, 0.0)
    low, high = map(float, found.confidence_interval(level))
    mean, p = float(np.mean(differences)), float(found.pvalue)
    return Difference(mean, low, high, p)


def equivalence(differences: Sequence[float], margin: float) -> float:
    """The p of "they differ by `margin` or more": two one-sided t tests, of
    which the larger p counts (Schuirmann 1987).
    """
    above = stats.ttest_1samp(differences, -margin, alternative="greater")
    below = stats.ttest_1samp(differences, margin, alternative="less")
    return float(max(above.pvalue, below.pvalue))


def holm(p: Sequence[float]) -> np.ndarray:
    """p values adjusted for their number (Holm 1979): below .05 where the
    whole family errs in at most one case of twenty.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=float)
    order = p.argsort()
    steps = (p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def bootstrap_interval(differences: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of paired differences (n,) and its bootstrap interval over patches:
    (mean, low, high).

    Raises ValueError for fewer than two differences, or one that is not
    finite.
    """
    differences = np.asarray(differences, dtype=float)
    if differences.ndim != 1 or len(differences) < 2 or not np.isfinite(differences).all():
        raise ValueError(f"differences: expected two or more finite numbers (n,), got shape {differences.shape}")
    # Percentiles: bias correction fails where all differences are equal, as of
    # a gate that never switches.
    rng = np.random.default_rng(seed)
    found = stats.bootstrap((differences,), np.mean, confidence_level=level, method="percentile", rng=rng)
    return float(differences.mean()), *map(float, found.confidence_interval)


def bootstrap(differences: pd.DataFrame, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """The 95 % interval of the mean of `paired` differences (seeds, patches),
    where seeds and patches are drawn anew: a check on `paired_t`, which takes
    the patches as given.
    """
    rng, values, means = np.random.default_rng(seed), np.asarray(differences), []
    for _ in range(resamples):
        seeds, patches = (rng.integers(count, size=count) for count in values.shape)
        means.append(values[seeds][:, patches].mean())  # all seeds saw the same patches
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
