"""Real patients, left out in turn: every method at one budget, scored patient
by patient.

    python -m damm_lite.experiments.patients --data FOLDER --out _build/patients

The folder holds cases as `BraTSSliceDataset` reads them. For each target the
patients are dealt into folds. A run is one training on all folds but one, less
two patients on whom gates and intervals are tuned, and its scores on the
patients of that fold: as they were scanned, and with a second contrast that
moved, shifted, or is another patient's. Runs whose table is there are not done
again, and an interrupted training goes on where it was. `brains.csv` in the
folder has a row for each target, patient, kind of second contrast and method.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from damm_lite.brains.augment import Augmented
from damm_lite.brains.brats import BraTSSliceDataset
from damm_lite.brains.cases import patient_of
from damm_lite.brains.nifti import read_nifti
from damm_lite.brains.synthetic import SyntheticBrains
from damm_lite.data import stack
from damm_lite.experiments.baselines import HistogramMatching, KNNBaseline
from damm_lite.experiments.held_out import BOTH, TRAININGS, gather, judged, once, untrained
from damm_lite.experiments.methods import Budget, Trained, begin
from damm_lite.experiments.patient_scores import by_kind
from damm_lite.experiments.study import folder_name
from damm_lite.schedules import shifted_schedule

SOURCES = {"flair": ("t1", "t2"), "t1ce": ("t1", "t2"), "t2": ("t1", "flair")}  # target: (primary, secondary)
FOLDS = {"flair": 5, "t1ce": 2, "t2": 2}
BUDGET = Budget(size=64, steps=400, batch_size=8, num_steps=10, num_samples=8)
TRAINING_SLICES, CALIBRATION_SLICES, SLICES = 32, 10, 6  # of each case
PHANTOMS, PHANTOM_STEPS, COPIES, CALIBRATION_PATIENTS = 480, 1600, 16, 2
MISSING = 0.05  # of the brain, in a scan that is not used


def read_cases(folder: Path, target: str, size: int) -> dict[str, list[dict]]:
    """{case: its slices}, without the cases of which a scan covers only a part
    of the head; printed. Raises ValueError for what cannot be read.
    """
    dataset = BraTSSliceDataset(folder, target, *SOURCES[target], size, slices_per_case=TRAINING_SLICES)
    found = {}
    for number, case in enumerate(dataset.cases):
        lost = share_missing([dataset.files[case][contrast] for contrast in dataset.contrasts])
        if lost < MISSING:
            found[case] = [dataset[number * TRAINING_SLICES + i] for i in range(TRAINING_SLICES)]
        else:
            print(f"{target}: {case} left out: a scan lacks {lost:.0%} of the brain")
    return found


def share_missing(scans: list[Path]) -> float:
    """The largest share of the brain, of what is not 0 in some of the scans, that is 0 in one of them."""
    there = np.stack([read_nifti(scan)[0] != 0 for scan in scans])
    return float(1 - (there.sum(axis=(1, 2, 3)) / there.any(axis=0).sum()).min())


def deal(cases: Iterable[str], folds: int, seed: int = 0) -> list[list[str]]:
    """The cases in so many folds of about as many patients; a patient's are in one."""
    patients = sorted({patient_of(case) for case in cases})
    if len(patients) < 2 * folds:
        raise ValueError(f"expected at least {2 * folds} patients for {folds} folds, got {len(patients)}")
    order = np.random.default_rng(seed).permutation(len(patients))
    place = {patients[patient]: i % folds for i, patient in enumerate(order)}
    return [[case for case in cases if place[patient_of(case)] == fold] for fold in range(folds)]


def some_of(cases: dict[str, list[dict]], count: int) -> dict:
    """A batch of `count` evenly spread slices of each case, case by case."""
    chosen = np.linspace(0, TRAINING_SLICES - 1, count).round().astype(int)
    return stack(items[i] for items in cases.values() for i in chosen)


@cache
def phantoms_of(size: int, target: str) -> list[dict]:
    """Slices of simulated patients to begin with."""
    slices = SyntheticBrains(PHANTOMS, size, 1, 0.0, target, *SOURCES[target])
    return [{key: item[key] for key in ("target", *BOTH)} for item in slices]


def trained(name: str, start: str, items: list[dict], target: str, budget: Budget, folder: Path) -> Trained:
    """The network, and its schedule, after the budget's steps on augmented
    `items`; with the start "phantom", after `PHANTOM_STEPS` on simulated
    patients before.
    """
    build, loss, corrupted = TRAININGS[name]
    if start == "phantom":
        longer, place = replace(budget, steps=PHANTOM_STEPS), folder.parent / folder_name(f"simulated, {name}", 0)
        phantoms = Augmented(phantoms_of(budget.size, target), COPIES)
        *_, last = begin(build, loss, corrupted, longer, phantoms, 0, place)
        build = partial(with_weights, build, last.ema.state_dict())
    *_, last = begin(build, loss, corrupted, budget, Augmented(items, COPIES), 0, folder)
    return last.ema.eval(), shifted_schedule()


def with_weights(build: Callable[[], torch.nn.Module], state: dict) -> torch.nn.Module:
    """What `build` returns, with other weights."""
    model = build()
    model.load_state_dict(state)
    return model


def run(name: str, start: str, target: str, sets: list[dict], budget: Budget, folder: Path) -> pd.DataFrame:
    """Train on the first of three sets of cases, tune on the second, score on the third; rows as `judged` has them."""
    items = [item for these in sets[0].values() for item in these]
    calibration, test = by_kind(some_of(sets[1], CALIBRATION_SLICES)), by_kind(some_of(sets[2], SLICES))
    if name == "untrained":
        methods = {f"copy of {SOURCES[target][1]}": HistogramMatching(items), "voxel by voxel": KNNBaseline(items)}
        table = untrained(methods, calibration, test)
    else:
        table = judged(name, trained(name, start, items, target, budget, folder), calibration, test, budget)
    return table.assign(target=target, start=start)


def sets_of(cases: dict[str, list[dict]], folds: list[list[str]], fold: int) -> list[dict]:
    """The cases to train on, to tune on, and of this fold; the second are patients of the next one."""
    of_next = sorted({patient_of(case) for case in folds[(fold + 1) % len(folds)]})[:CALIBRATION_PATIENTS]
    tuning = [case for case in cases if patient_of(case) in of_next]
    train = [case for case in cases if case not in {*folds[fold], *tuning}]
    return [{case: cases[case] for case in names} for names in (train, tuning, folds[fold])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--only", nargs="+", choices=["untrained", *TRAININGS], default=["untrained", *TRAININGS])
    parser.add_argument("--starts", nargs="+", choices=("nothing", "phantom"), default=["phantom", "nothing"])
    parser.add_argument("--folds", nargs="+", type=int, help="some of them")
    parser.add_argument("--size", type=int, default=BUDGET.size)
    parser.add_argument("--steps", type=int, default=BUDGET.steps)
    parser.add_argument("--samples", type=int, default=BUDGET.num_samples)
    arguments = parser.parse_args()
    budget = replace(BUDGET, size=arguments.size, steps=arguments.steps, num_samples=arguments.samples)
    for target in arguments.targets:
        cases = read_cases(arguments.data, target, budget.size)
        folds = deal(cases, FOLDS[target])
        wanted = range(FOLDS[target]) if arguments.folds is None else arguments.folds
        for fold, start, name in product(wanted, arguments.starts, arguments.only):
            place = arguments.out / target / folder_name(f"{start}, {name}", fold)
            once(place, partial(run, name, start, target, sets_of(cases, folds, fold), budget, place), fold=fold)
            gather(arguments.out / "brains.csv", "*/*/scores.csv")


if __name__ == "__main__":
    main()
