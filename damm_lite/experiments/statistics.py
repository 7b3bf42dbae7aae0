"""What a difference between two methods is worth, over training seeds and
patches.

A training is a draw: another seed gives another network. So the seeds are the
replicates. The difference of two methods is averaged over the patches, seed by
seed, and Student's t judges these few numbers. Where two methods have no
common seed the patches alone are drawn anew, and a page has to say so.
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


def over_seeds(table: pd.DataFrame, first: str, second: str, score: str) -> np.ndarray:
    """first - second in a score, averaged over patches; one number for each
    training seed.

    `table` has the columns method, seed, index and the score. A method without
    training (of one seed) is compared with every seed of the other. Raises
    ValueError for a method that is not there, and where the patches differ.
    """
    sides = []
    for method in (first, second):
        rows = table[table.method == method]
        if rows.empty:
            raise ValueError(f"{method!r} is not among the methods: {', '.join(sorted(table.method.unique()))}")
        sides.append(rows.pivot_table(score, "seed", "index"))
    if not sides[0].columns.equals(sides[1].columns):
        raise ValueError(f"{first!r} and {second!r} were not scored on the same patches")
    one, other = (side.iloc[0] if len(side) == 1 else side for side in sides)
    return np.atleast_1d((one - other if isinstance(one, pd.DataFrame) else -(other - one)).mean(axis=1))


def paired_t(differences: Sequence[float], level: float = 0.95) -> Difference:
    """Student's t for the mean of a few differences, of which at least two are
    needed: ValueError otherwise.
    """
    if len(differences) < 2:
        raise ValueError(f"differences: expected at least two, got {len(differences)}")
    found = stats.ttest_1samp(differences, 0.0)
    low, high = found.confidence_interval(level)
    return Difference(float(np.mean(differences)), float(low), float(high), float(found.pvalue))


def equivalence(differences: Sequence[float], margin: float) -> float:
    """The p of "they differ by `margin` or more": two one-sided t tests, of
    which the larger p counts (Schuirmann 1987).
    """
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(above, below))


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


def bootstrap(
    table: pd.DataFrame, first: str, second: str, score: str, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """The 95 % interval of first - second where training seeds are drawn anew,
    and within each its patches: a check on `paired_t`, which takes the patches
    as given.
    """
    rng, sides = np.random.default_rng(seed), []
    for method in (first, second):
        sides.append(table[table.method == method].pivot_table(score, "seed", "index").to_numpy())
    count, patches = min(map(len, sides)), sides[0].shape[1]
    differences = sides[0][:count] - sides[1][:count]  # (seeds, patches)
    means = []
    for _ in range(resamples):
        seeds = rng.integers(count, size=count)
        rows = rng.integers(patches, size=patches)  # the same patches for all seeds, which saw the same
        means.append(differences[seeds][:, rows].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
