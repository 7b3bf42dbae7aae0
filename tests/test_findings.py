"""What the study found: tables whose numbers are known beforehand, damaged ones, and those that are not whole."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from damm_lite.experiments import findings
from damm_lite.experiments.statistics import holm, over_seeds, paired_t
from damm_lite.experiments.study import Budget, field_patches, without_network

KINDS = ["none", "none", "shift", "necrosis"]
A, B = "ours, pixel", "concatenation"


def rows_of(method, levels, regime="clean", **more):
    """Rows of a method: at each seed a level of SSIM, more or less by patch; the other scores follow from it."""
    parts = []
    for seed, level in enumerate(levels):
        ssim = level + np.array([0.02, -0.02, 0.01, -0.01])
        part = pd.DataFrame(dict(method=method, index=range(4), kind=KINDS, samples=16, ssim=ssim, psnr=40 * ssim))
        part = part.assign(mae=0.2 * (1 - ssim), crps=0.1 * (1 - ssim), seed=seed, regime=regime, seconds=2.0)
        parts.append(part.assign(parameters=1000, confidence=[0.9, 0.7, 0.8, 0.1]))
    return pd.concat(parts, ignore_index=True).assign(**more)


def untrained(method, level, **more):
    return rows_of(method, [level], None, **more).assign(parameters=np.nan, seconds=np.nan, confidence=np.nan)


def study_of(*parts):
    return findings.study_of(pd.concat(parts, ignore_index=True))


def test_means_intervals_and_seeds_of_a_method():
    exact = untrained("solver", 0.9, psnr=[np.inf, np.inf, 20.0, 20.0])
    table = findings.methods_table(study_of(rows_of(A, [0.7, 0.8, 0.9]), exact))
    assert list(table.index) == ["solver", A], "in the protocol's order"
    row = table.loc[A]
    half = 4.302652729911275 * 0.1 / 3**0.5  # t of two degrees of freedom, by a table
    assert [row.ssim, row.ssim_low, row.ssim_high] == pytest.approx([0.8, 0.8 - half, 0.8 + half])
    assert [row.psnr, row.mae, row.crps] == pytest.approx([32, 0.04, 0.02])
    assert [row.psnr_high - row.psnr, row.mae_high - row.mae] == pytest.approx([40 * half, 0.2 * half])
    assert [row.seeds, row.parameters, row.seconds, row.samples] == [3, 1000, 2, 16]
    solver = table.loc["solver"]
    assert solver.seeds == 0 and solver.ssim == pytest.approx(0.9)
    assert np.isnan([solver.psnr, solver.ssim_low, solver.seconds]).all()


def test_one_seed_has_a_mean_and_no_interval():
    table = study_of(rows_of(A, [0.8]), rows_of(B, [0.7]))
    row = findings.methods_table(table).loc[A]
    assert row.seeds == 1 and row.ssim == pytest.approx(0.8) and np.isnan([row.ssim_low, row.ssim_high]).all()
    found = findings.comparisons(table).set_index("score")
    assert found.seeds.eq(1).all() and found.difference["ssim"] == pytest.approx(0.1)
    assert found[["low", "high", "p", "equal"]].isna().all(axis=None)
    assert found.verdict.eq("one training").all()


def test_a_difference_is_positive_where_the_reference_is_better():
    table = study_of(rows_of(A, [0.81, 0.82, 0.83, 0.84, 0.86]), rows_of(B, [0.70, 0.72, 0.73, 0.74, 0.75]))
    found = findings.comparisons(table, [A], [B]).set_index("score")
    gains = np.array([0.11, 0.10, 0.10, 0.10, 0.11])
    expected = stats.ttest_1samp(gains, 0)
    for score, scale in dict(ssim=1, psnr=40, mae=0.2, crps=0.1).items():
        row = found.loc[score]
        assert row.difference == pytest.approx(scale * gains.mean())
        assert [row.low, row.high] == pytest.approx([scale * x for x in expected.confidence_interval()])
        assert row.p == pytest.approx(expected.pvalue) and row.seeds == 5 and row.verdict == "better"
    np.testing.assert_allclose(found.adjusted, 4 * expected.pvalue)  # four equal p values, each times four
    back = findings.comparisons(table, [B], [A]).set_index("score")
    np.testing.assert_allclose(back.difference, -found.difference)
    assert back.verdict.eq("worse").all()
    # the margin is a share of the rival's error, whoever is the rival
    assert found.margin.tolist() == pytest.approx([0.005, 0.2, 0.03 * 0.2 * 0.272, 0.03 * 0.1 * 0.272])
    assert back.margin["mae"] == pytest.approx(0.03 * 0.2 * 0.168)


def test_differences_are_those_of_the_paired_test():
    rng = np.random.default_rng(0)
    table = study_of(rows_of(A, rng.uniform(0.7, 0.8, 5)), rows_of(B, rng.uniform(0.7, 0.8, 5)))
    for row in findings.comparisons(table, [A], [B]).itertuples():
        sign = 1 if row.score in ("ssim", "psnr") else -1
        expected = paired_t(sign * over_seeds(table, A, B, row.score))
        assert [row.difference, row.low, row.high, row.p] == pytest.approx(list(expected))


def test_equal_means_inside_the_margins():
    other = np.array([0.70, 0.72, 0.74, 0.76, 0.78])
    small = np.array([0.0011, 0.0009, 0.0010, 0.0011, 0.0009])
    found = findings.comparisons(study_of(rows_of(A, other + small), rows_of(B, other)), [A], [B]).set_index("score")
    assert found.p["ssim"] < 0.001 and found.verdict["ssim"] == "equal", "surely not zero, and too small to matter"
    scattered = np.array([0.02, -0.02, 0.03, -0.03, 0.001])
    found = findings.comparisons(study_of(rows_of(A, other + scattered), rows_of(B, other)), [A], [B])
    assert found.verdict.eq("cannot be told apart").all()
    assert found.equal.gt(0.05).all()
    found = findings.comparisons(study_of(rows_of(A, other), rows_of(B, other)), [A], [B])
    assert found.verdict.eq("equal").all() and found.p.eq(1).all() and found.difference.eq(0).all()


def test_the_whole_family_is_counted_also_what_has_not_run():
    rng = np.random.default_rng(1)
    base = np.array([0.70, 0.72, 0.74, 0.76, 0.78])
    table = study_of(rows_of(A, base + 0.05 + rng.normal(0, 0.01, 5)), rows_of(B, base))
    alone, of_two = findings.comparisons(table, [A], [B]), findings.comparisons(table, [A], [B, "released"])
    np.testing.assert_allclose(alone.p, of_two.p)
    np.testing.assert_allclose(of_two.adjusted, holm([*alone.p, 1, 1, 1, 1])[:4])
    assert (of_two.adjusted > alone.adjusted).all()
    whole = findings.comparisons(table)
    assert len(findings.REFERENCES) * len(findings.RIVALS) * len(findings.SCORES) == 88
    np.testing.assert_allclose(whole.adjusted, (88 * whole.p.min()).clip(max=1))  # equal p values, up to rounding


def test_pairs_share_seeds_and_untrained_methods_have_all():
    ruler = untrained("ruler", 0.75)
    later = rows_of(B, [0.7, 0.71, 0.72]).assign(seed=lambda rows: rows.seed + 2)  # seeds 2, 3, 4
    table = study_of(rows_of(A, [0.5, 0.5, 0.8, 0.82]), later, ruler)
    row = findings.comparisons(table, [A], [B]).iloc[0]
    assert row.seeds == 2 and row.difference == pytest.approx((0.1 + 0.11) / 2)
    row = findings.comparisons(table, [A], ["ruler"]).iloc[0]
    assert row.seeds == 4 and row.difference == pytest.approx((0.5 + 0.5 + 0.8 + 0.82) / 4 - 0.75)
    row = findings.comparisons(table, ["ruler"], [B]).iloc[0]
    assert row.seeds == 3 and row.difference == pytest.approx(0.75 - 0.71)
    apart = study_of(rows_of(A, [0.5]), later)
    with pytest.raises(ValueError, match="no pair of ours, pixel and concatenation shares a training seed"):
        findings.comparisons(apart, [A], [B])
    with pytest.raises(ValueError, match="unknown methods: concatination"):
        findings.comparisons(table, [A], ["concatination"])


def test_what_has_not_run_is_listed():
    table = study_of(rows_of(A, [0.8, 0.8]), untrained("ruler", 0.5))
    missing = findings.not_run(table, range(3))
    assert missing[A] == [2] and missing[B] == [0, 1, 2] and missing["solver"] == [0, 1, 2]
    assert "ruler" not in missing


def test_kinds_have_means_of_their_own():
    found = findings.by_kind(study_of(rows_of(A, [0.7, 0.8, 0.9]), untrained("ruler", 0.5)), "ssim")
    half = 4.302652729911275 * 0.1 / 3**0.5
    assert found.loc[(A, "none")].tolist() == pytest.approx([0.8, 0.8 - half, 0.8 + half])
    assert found.loc[(A, "shift"), "mean"] == pytest.approx(0.81)
    assert found.loc[("ruler", "necrosis")].isna().tolist() == [False, True, True]


def test_the_oracle_takes_the_better_branch_of_each_patch_in_each_score():
    uni = rows_of("ours, uni", [0.5, 0.5], ssim=[0.5, 0.6, 0.7, 0.8] * 2, mae=[0.4, 0.3, 0.2, 0.1] * 2)
    multi = rows_of("ours, multi", [0.5, 0.5], ssim=[0.9, 0.1, 0.8, 0.2] * 2, mae=[0.5, 0.1, 0.1, 0.3] * 2)
    table = findings.with_oracle(study_of(uni, multi.sample(frac=1, random_state=0)))
    oracle = table[table.method == "oracle"].sort_values(["seed", "index"])
    assert oracle.ssim.tolist() == [0.9, 0.6, 0.8, 0.8] * 2
    assert oracle.mae.tolist() == [0.4, 0.1, 0.1, 0.1] * 2
    assert oracle.seconds.eq(4).all() and oracle.kind.tolist() == KINDS * 2
    assert findings.methods_table(table).loc["oracle", "ssim"] == pytest.approx(0.775)
    with pytest.raises(ValueError, match="the oracle needs ours, uni and ours, multi from the same seeds"):
        findings.with_oracle(study_of(uni, multi[multi.seed == 0]))


def test_the_area_is_the_chance_that_a_divergent_patch_is_believed_less():
    confidence = [0.9, 0.7, 0.8, 0.1, 0.9, 0.7, 0.6, 0.1, 0.9, 0.7, 0.95, 0.8]
    table = study_of(rows_of("ours, patch", [0.8, 0.8, 0.8], confidence=confidence))
    found = findings.auroc_by_kind(table)
    assert found.loc["shift", "mean"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found.loc["shift", ["low", "high"]].tolist() == [0, 1], "an area is between 0 and 1"
    assert found.loc["necrosis", "mean"] == pytest.approx((1 + 1 + 0.5) / 3) and found.seeds.eq(3).all()
    u = [stats.mannwhitneyu(c[:2], c[2:]).statistic / 4 for c in np.split(np.array(confidence), 3)]
    assert found.loc["all", "mean"] == pytest.approx(np.mean(u))
    with pytest.raises(ValueError, match="released, patch: expected consistent and divergent patches, got 0 rows"):
        findings.auroc_by_kind(table, "released")


def test_regimes_are_not_mixed():
    raw = pd.concat([rows_of(A, [0.8, 0.8]), rows_of(A, [0.6], "natural"), untrained("ruler", 0.5)])
    clean, natural = findings.study_of(raw), findings.study_of(raw, "natural")
    assert [findings.methods_table(t).loc[A, "ssim"] for t in (clean, natural)] == pytest.approx([0.8, 0.6])
    assert [set(t.method) for t in (clean, natural)] == [{"ruler", A}] * 2
    with pytest.raises(ValueError, match="no regime 'dirty', only clean, natural"):
        findings.study_of(raw, "dirty")


DAMAGES = {
    "the columns crps are missing": lambda t: t.drop(columns="crps"),
    "unknown methods: ours, pixle": lambda t: t.replace(A, "ours, pixle"),
    "a regime is expected for trained methods alone .method ours, pixel, seed 0, patch 0": lambda t: t.assign(
        regime=None
    ),
    "a row stands twice .method ours, pixel, seed 0, patch 0": lambda t: pd.concat([t, t.iloc[:1]]),
    "expected 4 patches, found 3 .method concatenation, seed 1, patch 0": lambda t: t.iloc[:-1],
    "a patch is of two kinds .method ours, pixel, seed 0, patch 0": lambda t: t.assign(
        kind=["shift", *t["kind"].iloc[1:]]
    ),
    "ssim: no such score .method concatenation, seed 1, patch 3.: 1.5": lambda t: t.assign(
        ssim=[*t["ssim"].iloc[:-1], 1.5]
    ),
    "mae: no such score .method concatenation, seed 1, patch 3.: nan": lambda t: t.assign(
        mae=[*t["mae"].iloc[:-1], "x"]
    ),
    "psnr: no such score .method concatenation, seed 1, patch 3.: inf": lambda t: t.assign(
        psnr=[*t["psnr"].iloc[:-1], np.inf]
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_table_is_refused_and_the_place_named(message):
    whole = pd.concat([rows_of(A, [0.8, 0.8]), rows_of(B, [0.7, 0.7])], ignore_index=True)
    findings.study_of(whole.assign(ssim=1 + 1e-7, crps=-1e-4))  # by rounding, and by luck: no damage
    with pytest.raises(ValueError, match=message):
        findings.study_of(DAMAGES[message](whole))


def test_it_reads_what_the_study_writes(tmp_path):
    budget = Budget(size=16, test_patches=8)
    batch = field_patches(budget.test_patches, budget.size, seed=3)
    trained = rows_of(A, [0.8, 0.7]).drop(columns=["index", "kind"])
    twice = pd.concat([trained[trained.seed == seed].iloc[[0, 1, 2, 3] * 2] for seed in (0, 1)])
    twice = twice.assign(index=[*range(8)] * 2, kind=batch["kind"] * 2)
    pd.concat([without_network(budget, batch), twice]).round(5).to_csv(tmp_path / "study.csv", index=False)
    table = findings.methods_table(findings.study_of(pd.read_csv(tmp_path / "study.csv")))
    assert list(table.index) == ["solver", "ruler", A]
    assert np.isnan(table.psnr["solver"]) and table.ssim["solver"] > table.ssim["ruler"]
