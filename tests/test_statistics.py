"""The study's statistics against scipy, closed forms and simulated studies."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from damm_lite.experiments.statistics import bootstrap, equivalence, holm, over_seeds, paired, paired_t


def study(effect, seeds=5, patches=40, seed=0, noise=0.01):
    """Scores of two methods, of which b is `effect` above a; patches and seeds vary."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.1, patches)
    rows = []
    for training in range(seeds):
        for method, gain in (("a", 0.0), ("b", effect)):
            scores = 0.8 + hard + gain + rng.normal(0, noise) + rng.normal(0, 0.02, patches)
            rows.append(
                pd.DataFrame(dict(regime="clean", method=method, seed=training, index=range(patches), ssim=scores))
            )
    return pd.concat(rows)


def test_differences_are_paired_by_seed_and_patch():
    table = study(0.05)
    by_hand = [
        np.mean([b - a for a, b in zip(*(rows[rows.method == m].ssim for m in "ab"), strict=True)])
        for _, rows in table.groupby("seed")
    ]
    np.testing.assert_allclose(over_seeds(table, "b", "a", "ssim"), by_hand)
    np.testing.assert_allclose(over_seeds(table, "a", "b", "ssim"), -np.array(by_hand))
    found = paired_t(by_hand)
    assert found.p == pytest.approx(
        stats.ttest_rel(*(table[table.method == m].groupby("seed").ssim.mean() for m in "ba")).pvalue
    )
    half = stats.t.ppf(0.975, 4) * np.std(by_hand, ddof=1) / np.sqrt(5)
    assert [found.low, found.high] == pytest.approx([np.mean(by_hand) - half, np.mean(by_hand) + half])


def test_a_method_without_training_is_compared_with_every_seed():
    table = study(0.05)
    solver = table[(table.method == "a") & (table.seed == 0)].assign(regime=None, method="solver", ssim=0.9)
    found = over_seeds(pd.concat([table, solver]), "b", "solver", "ssim")
    np.testing.assert_allclose(found, table[table.method == "b"].groupby("seed").ssim.mean() - 0.9)
    np.testing.assert_allclose(over_seeds(pd.concat([table, solver]), "solver", "b", "ssim"), -found)


def test_only_common_seeds_are_compared_by_their_numbers():
    table = study(0.05)
    part = table[(table.method == "a") | (table.seed >= 3)]
    np.testing.assert_allclose(over_seeds(part, "b", "a", "ssim"), over_seeds(table, "b", "a", "ssim")[3:])
    single = table[(table.method == "a") | (table.seed == 4)]  # a training of one seed is no method without training
    assert len(over_seeds(single, "b", "a", "ssim")) == 1


def test_what_cannot_be_compared_is_named():
    table = study(0.0)
    with pytest.raises(ValueError, match="'c' is not among the methods: a, b"):
        over_seeds(table, "a", "c", "ssim")
    fewer = table[(table.method == "a") | (table["index"] < 20)]
    with pytest.raises(ValueError, match="'a' and 'b' were not scored on the same patches"):
        over_seeds(fewer, "a", "b", "ssim")
    apart = table[(table.method == "a") == (table.seed < 2)]
    with pytest.raises(ValueError, match="'a' and 'b' have no training seed in common"):
        over_seeds(apart, "a", "b", "ssim")
    with pytest.raises(ValueError, match="differences: expected at least two, got 1"):
        paired_t([0.1])


def test_intervals_cover_and_tests_err_as_often_as_they_say():
    studies = [study(0.0, seed=seed) for seed in range(300)]
    found = [paired_t(over_seeds(table, "b", "a", "ssim")) for table in studies]
    inside = np.mean([low <= 0 <= high for _, low, high, _ in found])
    assert 0.92 <= inside <= 0.98
    assert np.mean([f.p < 0.05 for f in found]) == pytest.approx(1 - inside)


def test_equivalence_needs_an_interval_inside_the_margin():
    differences = np.array([0.001, -0.002, 0.0, 0.002, -0.001])
    assert equivalence(differences, 0.01) < 0.001 < 0.49 < equivalence(differences + 0.01, 0.01)
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
    edge = max(-low, high)  # two one-sided tests at 5 % are one interval of 90 %
    assert equivalence(differences, edge) == pytest.approx(0.05)


def test_holm_keeps_the_order_and_the_family_rate():
    rng = np.random.default_rng(0)
    p = rng.random((2000, 6))
    assert np.mean([(holm(family) < 0.05).any() for family in p]) == pytest.approx(0.05, abs=0.015)
    adjusted = holm(p[0])
    assert (adjusted >= p[0]).all() and (np.diff(adjusted[p[0].argsort()]) >= 0).all()
    assert holm([0.2]) == 0.2


def test_the_bootstrap_is_wider_where_seeds_differ_more():
    sides = [bootstrap(paired(study(0.05, noise=noise), "b", "a", "ssim"), resamples=500) for noise in (0.001, 0.05)]
    assert sides[0][1] - sides[0][0] < sides[1][1] - sides[1][0]
    assert sides[0][0] < 0.05 < sides[0][1]


def test_the_bootstrap_of_independent_numbers_is_the_error_of_their_mean():
    values = np.random.default_rng(0).normal(0, 1, (30, 40))
    low, high = bootstrap(values)
    between_seeds, between_patches = (values.mean(axis=axis).var(ddof=1) / n for axis, n in ((1, 30), (0, 40)))
    expected = 3.92 * np.sqrt(between_seeds + between_patches + values.var() / 1200)  # each counted once more
    assert high - low == pytest.approx(expected, rel=0.15)
