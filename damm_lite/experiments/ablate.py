"""Run ablations: one factor, or every combination of several, from a file.

    python -m damm_lite.experiments.ablate spec.yaml --out runs/
    python -m damm_lite.experiments.ablate spec.yaml --out runs/ \\
        --scheduler tcp://node:8786

A specification names grids, seeds and what differs from the default `Budget`:

    grids:
      - prediction: all                                   # one factor
      - {fusion: [MMFM, addition], head: [joint, query]}  # their four combinations
    seeds: [0, 1, 2]
    budget: {steps: 200}

Each combination and seed is a run with a file of its own in the folder; runs
whose file is there are not done again, so a command that was killed goes on
where it was, and a grid can grow. Runs that share a training are one job. With
the same number of threads, a cluster gives the very numbers of one machine.
"""

import argparse
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

from damm_lite.atomic import atomic_write
from damm_lite.experiments.factors import FACTORS, Budget, Level, Network, measure, measure_all
from damm_lite.experiments.jobs import Job, run_jobs
from damm_lite.experiments.specification import FAULTS, read_yaml, several

MAX_RUNS = 10_000  # of one grid


def ablate(
    factor: str, seeds: Sequence[int] = (0, 1, 2), budget: Budget | None = None, factors: dict = FACTORS
) -> pd.DataFrame:
    """Run all levels of a factor; a table with a row for each level, seed and
    held-out patch.

    Columns: factor, level, seed, index, kind, confidence, ssim, psnr (dB).
    Held-out patches are the same for all, half of them divergent. Raises
    ValueError for an unknown factor.
    """
    if factor not in factors:
        raise ValueError(f"factor: expected one of {', '.join(factors)}, got {factor!r}")
    budget = budget or Budget()
    tables = []
    for seed in seeds:
        for name, level in factors[factor].items():
            table = measure(level, budget, seed)
            names = dict(factor=factor, level=name, seed=seed)
            tables.append(table.assign(**names)[[*names, *table]])
    return pd.concat(tables, ignore_index=True)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean SSIM of each level: over all patches and by kind, with the standard
    deviation over seeds.
    """
    by_seed = table.groupby(["factor", "level", "seed"], sort=False)["ssim"].mean()
    kinds = table.pivot_table("ssim", ["factor", "level"], "kind", sort=False)
    over_seeds = by_seed.groupby(["factor", "level"], sort=False).agg(ssim="mean", spread=lambda s: s.std(ddof=1))
    return over_seeds.join(kinds)


class Run(NamedTuple):
    """One combination of levels, trained from one seed."""

    factor: str  # e.g. "fusion x head"
    names: str  # of the levels, e.g. "addition x joint"
    level: Level
    seed: int

    @property
    def file(self) -> str:
        """Name of its table, without ending."""
        return re.sub(r"[^\w.]+", "-", f"{self.factor} {self.names} {self.seed}")


def combine(levels: Iterable[Level]) -> Level:
    """The `Level` that differs from the default in all that any of `levels`
    does.

    Raises ValueError where two of them set the same thing.
    """
    changes = {Level: {}, Network: {}}
    for level in levels:
        for part, default in ((level, Level()), (level.network, Network())):
            for field in fields(part):
                value = getattr(part, field.name)
                if field.name == "network" or value == getattr(default, field.name):
                    continue
                if field.name in changes[type(part)]:
                    raise ValueError(f"two factors that both set {field.name!r} cannot be combined")
                changes[type(part)][field.name] = value
    return Level(Network(**changes[Network]), **changes[Level])


def read_spec(path: str | Path) -> tuple[list[Run], Budget]:
    """(runs, budget) of a specification. Raises ValueError that names the file
    and what is wrong in it.
    """
    try:
        spec = read_yaml(path, needed=["grids"], optional=["seeds", "budget"])
        budget = replace(Budget(), **spec.get("budget", {}))
        budget = replace(budget, widths=tuple(budget.widths))
        seeds = several("seeds", spec.get("seeds", [0, 1, 2]))
        if wrong := [seed for seed in seeds if type(seed) is not int or not 0 <= seed < 2**32]:
            raise ValueError(f"seeds: expected whole numbers from 0 to 2^32 - 1, got {wrong[0]!r}")
        runs = [run for grid in several("grids", spec["grids"]) for run in _runs_of(grid, seeds)]
        if twice := [run for run, times in Counter(run.file for run in runs).items() if times > 1]:
            raise ValueError(f"grids: expected every run once, got {twice[0]} twice")
    except FAULTS as error:
        raise ValueError(f"{path}: {error}") from error
    return runs, budget


def _runs_of(grid, seeds):
    if not isinstance(grid, dict) or not grid:
        raise ValueError(f"grids: expected factors with their levels, got {grid!r}")
    axes = []
    for factor, names in grid.items():
        if factor not in FACTORS:
            raise ValueError(f"unknown factor {factor!r}; expected one of {', '.join(FACTORS)}")
        levels = FACTORS[factor]
        names = list(levels) if names == "all" else [str(name) for name in several(factor, names)]
        if unknown := set(names) - levels.keys():
            raise ValueError(f"{factor}: unknown level {unknown.pop()!r}; expected some of {', '.join(levels)}")
        axes.append([(name, levels[name]) for name in names])
    if (count := len(seeds) * math.prod(map(len, axes))) > MAX_RUNS:
        raise ValueError(f"expected at most {MAX_RUNS} runs of one grid, got {count}")
    for seed, combination in itertools.product(seeds, itertools.product(*axes)):
        names, levels = zip(*combination, strict=True)
        yield Run(" x ".join(grid), " x ".join(names), combine(levels), seed)


def jobs_of(runs: list[Run], budget: Budget, folder: Path) -> list[Job]:
    """The jobs for all runs that have no table in `folder` yet."""
    by_training = {}
    for run in runs:
        if not (folder / f"{run.file}.csv").is_file():
            by_training.setdefault((run.level.network, run.seed), []).append(run)
    return [
        Job(tuple(run.file for run in some), measure_all, ([run.level for run in some], budget, seed))
        for (_, seed), some in by_training.items()
    ]


def run_grid(runs: list[Run], budget: Budget, out: Path, scheduler: str | None = None) -> pd.DataFrame:
    """Do what is not yet done of `runs`, below the folder `out`; the table of
    all of them.

    Raises ValueError where the folder holds runs of another budget, or runs
    but not the file that says of which.
    """
    folder, kept = out / "runs", out / "budget.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_dump(asdict(budget) | {"widths": list(budget.widths)})
    if kept.is_file() and kept.read_text() != settings:
        raise ValueError(f"{kept}: these runs had another budget; give another folder, or make it the same again")
    if not kept.is_file() and any(folder.glob("*.csv")):
        raise ValueError(
            f"{kept}: no such file, and nothing else says how the runs there were made; give another folder"
        )
    with atomic_write(kept) as whole:
        whole.write_text(settings)
    run_jobs(jobs_of(runs, budget, folder), folder, scheduler)
    tables = []
    for run in runs:
        table = read_table(folder / f"{run.file}.csv", budget.test_patches)
        names = dict(factor=run.factor, level=run.names, seed=run.seed)
        tables.append(table.assign(**names)[[*names, *table]])
    return pd.concat(tables, ignore_index=True)


def read_table(path: Path, rows: int) -> pd.DataFrame:
    """The table of one run, with a row for each of `rows` patches. Raises
    ValueError, naming the file, for one that is damaged.
    """
    try:
        table = pd.read_csv(path)
        found = f"{table['index'].nunique()} in {len(table)} rows"
        whole = len(table) == rows == table["index"].nunique() and table[["ssim", "psnr"]].notna().all(axis=None)
    except (KeyError, ValueError) as error:  # what pandas raises for what is no table is a ValueError
        found, whole = f"{type(error).__name__}: {error}", False
    if not whole:
        raise ValueError(f"{path}: expected scores of {rows} patches, got {found}; delete it, and the run is done anew")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m damm_lite.experiments.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", type=Path, help="the specification, a YAML file")
    parser.add_argument("--out", type=Path, required=True, help="the folder for runs, table and figure")
    parser.add_argument("--scheduler", help="address of a Dask scheduler; without it everything runs here")
    arguments = parser.parse_args()
    try:
        runs, budget = read_spec(arguments.spec)
        table = run_grid(runs, budget, arguments.out, arguments.scheduler)
    except (OSError, RuntimeError, ValueError) as error:
        parser.error(str(error))

    from damm_lite.teaching.plotting import show_ablation

    with atomic_write(arguments.out / "table.csv") as whole:
        table.round(4).to_csv(whole, index=False)
    show_ablation(table).savefig(arguments.out / "figure.png", dpi=150)
    print(summarise(table).round(3).to_string())


if __name__ == "__main__":
    main()
