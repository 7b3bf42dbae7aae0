"""What the study found: tables for chapter 11, from the rows of `study.csv`.

References, rivals, margins and tests are the protocol's. `study_of` takes the
rows of one regime and refuses a damaged table; the others take what it returns.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from damm_lite.experiments.methods import USES
from damm_lite.experiments.statistics import Difference, bootstrap, equivalence, holm, paired, paired_t
from damm_lite.experiments.study import SEEDS
from damm_lite.metrics import gate_auroc


class Score(NamedTuple):
    """Which way is up (1 or -1), and from where a difference matters: in its unit, or as a share of the rival's."""

    sign: int
    margin: float
    relative: bool = False


SCORES = {"ssim": Score(1, 0.005), "psnr": Score(1, 0.2), "mae": Score(-1, 0.03, True), "crps": Score(-1, 0.03, True)}
UNTRAINED = ("solver", "ruler")
EXACT = ("solver", "ours, solver")  # a patch without error has no finite PSNR
REFERENCES = ("ours, pixel", "ours, patch")
RIVALS = (
    "regression, vessels", "regression, both", "regression, both, mismatches", "diffusion, vessels",
    "concatenation", "concatenation, mismatches", "concatenation, dropout", "concatenation, dropout, guided",
    "two branches, multi", "released", "ours, robust, multi",
)  # fmt: skip
METHODS = [*UNTRAINED, *(training + ending for training, endings in USES.items() for ending in endings)]


def study_of(table: pd.DataFrame, regime: str = "clean") -> pd.DataFrame:
    """The rows of a regime and of the methods that nobody trains, in the
    protocol's order; no PSNR where a method can be exact.

    Raises ValueError for columns, methods and regimes that are missing or
    unknown, rows that stand twice, a method on other patches than the rest,
    and scores that no image can have.
    """
    wanted = ["regime", "method", "seed", "index", "kind", "parameters", "seconds", "samples", "confidence", *SCORES]
    if lost := [name for name in wanted if name not in table]:
        raise ValueError(f"study: the columns {', '.join(lost)} are missing among {', '.join(table)}")
    if unknown := sorted(set(table["method"].astype(str)) - set(METHODS)):
        raise ValueError(f"study: unknown methods: {'; '.join(unknown)}")
    if (odd := table["regime"].isna() != (untrained := table["method"].isin(UNTRAINED))).any():
        raise ValueError(f"study: a regime is expected for trained methods alone{_at(table, odd)}")
    if regime not in (found := sorted(table["regime"].dropna().unique())):
        raise ValueError(f"study: no regime {regime!r}, only {', '.join(found) or 'none'}")
    table = table[untrained | (table["regime"] == regime)].copy()
    if (twice := table.duplicated(["method", "seed", "index"])).any():
        raise ValueError(f"study: a row stands twice{_at(table, twice)}")
    counts, patches = table.groupby(["method", "seed"])["index"].transform("size"), table["index"].nunique()
    if (short := counts != patches).any():
        raise ValueError(f"study: expected {patches} patches, found {counts[short].iloc[0]}{_at(table, short)}")
    if (odd := table["kind"].astype(str).groupby(table["index"]).transform("nunique") != 1).any():
        raise ValueError(f"study: a patch is of two kinds{_at(table, odd)}")
    ranges = dict(ssim=(-1, 1.00001), psnr=(-np.inf, np.inf), mae=(0, 2), crps=(-2, 2))  # a fair CRPS can be below 0
    for name, (least, most) in ranges.items():
        table[name] = pd.to_numeric(table[name], errors="coerce")
        infinite = ~table["method"].isin(EXACT) & np.isinf(table[name])
        if (bad := ~table[name].between(least, most) | infinite).any():
            raise ValueError(f"study: {name}: no such score{_at(table, bad)}: {table[name][bad].iloc[0]}")
    table["psnr"] = table["psnr"].mask(table["method"].isin(EXACT))
    return table.sort_values("method", key=lambda names: names.map(METHODS.index), kind="stable", ignore_index=True)


def _at(table, rows):
    """Where the first of these rows stands."""
    row = table[rows].iloc[0]
    return f" (method {row['method']}, seed {row['seed']}, patch {row['index']})"


def not_run(table: pd.DataFrame, seeds: Sequence[int] = SEEDS) -> dict[str, list[int]]:
    """The methods of the protocol of which training seeds are missing: {method: those seeds}."""
    found = {method: set(rows["seed"]) for method, rows in table.groupby("method")}
    found |= {method: set(seeds) for method in UNTRAINED if method in found}
    missing = {method: sorted(set(seeds) - found.get(method, set())) for method in METHODS}
    return {method: lost for method, lost in missing.items() if lost}


def with_oracle(table: pd.DataFrame, training: str = "ours") -> pd.DataFrame:
    """The table and a method "oracle": on each patch the better of a training's
    two branches by the truth, in each score by that score. It runs both.
    """
    keys = ["seed", "index"]
    uni, multi = (table[table["method"] == f"{training}, {branch}"].set_index(keys) for branch in ("uni", "multi"))
    if uni.empty or not uni.index.sort_values().equals(multi.index.sort_values()):
        raise ValueError(f"study: the oracle needs {training}, uni and {training}, multi from the same seeds")
    multi = multi.loc[uni.index]
    best = {name: np.maximum(s.sign * uni[name], s.sign * multi[name]) * s.sign for name, s in SCORES.items()}
    best = uni.assign(**best, seconds=uni["seconds"] + multi["seconds"], method="oracle", confidence=np.nan)
    return pd.concat([table, best.reset_index()], ignore_index=True)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over training seeds and its 95 % interval by Student's t: (mean, low, high); of one seed NaN, NaN."""
    mean, count = float(np.mean(values)), len(values)
    half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5 if count > 1 else np.nan
    return mean, float(mean - half), float(mean + half)


def methods_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each method: the four scores (each with _low and _high),
    training seeds (0: nobody trains it), parameters, seconds a patch, samples.
    """
    rows = {}
    for method, part in table.groupby("method", sort=False):
        by_seed, row = part.groupby("seed")[list(SCORES)].mean(), {}
        for name in SCORES:
            row[name], row[f"{name}_low"], row[f"{name}_high"] = interval(by_seed[name])
        row["seeds"] = 0 if method in UNTRAINED else len(by_seed)
        rows[method] = row | part[["parameters", "seconds", "samples"]].mean().to_dict()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def by_kind(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """A row for each method and kind of patch: mean, low, high of a score over
    training seeds. Intervals, no tests: the protocol makes no claim here.
    """
    by_seed = table.groupby(["method", "kind", "seed"], sort=False)[score].mean()
    found = by_seed.groupby(["method", "kind"], sort=False).agg(interval)
    return pd.DataFrame(found.tolist(), found.index, ["mean", "low", "high"])


def comparisons(
    table: pd.DataFrame, references: Sequence[str] = REFERENCES, rivals: Sequence[str] = RIVALS
) -> pd.DataFrame:
    """A row for each reference, rival and score: their difference, above zero
    where the reference is better: `difference` with its 95 % interval, and one with
    seeds and patches drawn anew (`drawn_low`, `drawn_high`); `p`, `adjusted` by
    Holm over the whole family, the `margin`, the p of "not `equal`", and a verdict.

    A pair is compared over the `seeds` that both have; with one there is no
    interval, no test, and "one training" for a verdict. Absent methods have no row, but count in the family.
    A difference within the margin is "equal", even where it is surely not zero.
    """
    family, rows = list(product(references, rivals, SCORES)), []
    seeds = table.groupby("method")["seed"].agg(set).to_dict()
    seeds |= {method: set(table["seed"]) for method in UNTRAINED if method in seeds}
    if unknown := {*references, *rivals} - {*METHODS, "oracle"}:
        raise ValueError(f"study: unknown methods: {'; '.join(sorted(unknown))}")
    for reference, rival, name in family:
        exact = name == "psnr" and {reference, rival} & set(EXACT)
        if seeds.get(reference, set()) & seeds.get(rival, set()) and not exact:
            found, score = paired(table, reference, rival, name) * SCORES[name].sign, SCORES[name]
            theirs = table[(table["method"] == rival) & table["seed"].isin(found.index)][name].mean()
            margin = score.margin * (theirs if score.relative else 1)
            row = dict(reference=reference, rival=rival, score=name, seeds=len(found), margin=margin)
            rows.append(row | _tested(found, margin))
    if not rows:
        raise ValueError(f"study: no pair of {'; '.join(references)} and {'; '.join(rivals)} shares a training seed")
    found, absent = pd.DataFrame(rows), len(family) - len(rows)
    found["adjusted"] = holm([*found["p"].fillna(1.0), *[1.0] * absent])[: len(found)]
    told = np.where(found["difference"] > 0, "better", "worse")
    told = np.where(found["adjusted"] < 0.05, told, "cannot be told apart")
    told = np.where(found["equal"] < 0.05, "equal", told)
    return found.assign(verdict=np.where(found["seeds"] < 2, "one training", told))


def _tested(patchwise, margin):
    """The columns of a comparison that tests fill, of differences (seeds, patches)."""
    differences = patchwise.mean(axis=1).to_numpy()
    if len(differences) < 2:
        found, equal = Difference(float(differences[0]), np.nan, np.nan, np.nan), np.nan
    elif not differences.any():  # the same predictions: a t test divides by zero
        found, equal = Difference(0.0, 0.0, 0.0, 1.0), 0.0
    else:
        found, equal = paired_t(differences), equivalence(differences, margin)
    drawn_low, drawn_high = bootstrap(patchwise, resamples=500)
    tested = dict(difference=found.mean, low=found.low, high=found.high, p=found.p, equal=equal)
    return tested | dict(drawn_low=drawn_low, drawn_high=drawn_high)


def auroc_by_kind(table: pd.DataFrame, training: str = "ours") -> pd.DataFrame:
    """How well a training's low confidence tells the divergent patches of each
    kind, and of all, from consistent ones: mean, low, high over its seeds.
    """
    rows = table[table["method"] == f"{training}, patch"]
    kinds = [kind for kind in rows["kind"].unique() if kind != "none"]
    if not kinds or "none" not in set(rows["kind"]):
        raise ValueError(f"study: {training}, patch: expected consistent and divergent patches, got {len(rows)} rows")
    found = {}
    for name, chosen in ({kind: [kind] for kind in kinds} | {"all": kinds}).items():
        parts = [part[part["kind"].isin(["none", *chosen])] for _, part in rows.groupby("seed")]
        values = [gate_auroc(part["confidence"], part["kind"] != "none") for part in parts]
        found[name] = [*np.clip(interval(values), 0, 1), len(values)]
    columns = ["mean", "low", "high", "seeds"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("kind").astype({"seeds": int})
