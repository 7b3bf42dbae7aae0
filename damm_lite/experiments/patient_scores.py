"""Second contrasts that diverge, and how much better one method is than others,
over patients.
"""

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd
import torch

from damm_lite.brains.cases import patient_of
from damm_lite.brains.shapes import FIELD
from damm_lite.brains.synthetic import BRAIN_DIVERGENCES, consistent_contrast
from damm_lite.experiments.statistics import holm, paired_t

KINDS = {"none": consistent_contrast} | BRAIN_DIVERGENCES
SCORES = {"ssim": 1, "psnr": 1, "mae": -1, "crps": -1, "tumour_ssim": 1, "tumour_psnr": 1}  # 1: more is better


def with_second(batch: dict, kind: str, seed: int = 0) -> dict:
    """The batch with its second contrasts as `kind` makes them; "patient": the next case's, at the same height."""
    second, pixel = batch["secondary"].numpy(), FIELD[0] / batch["secondary"].shape[-1]
    others, mask = np.roll(second, -batch["case"].count(batch["case"][0]), axis=0), batch["mask"].numpy()
    changed = [
        KINDS[kind](np.random.default_rng([seed, i]), second[i], mask[i], others[i], pixel) for i in range(len(second))
    ]
    return batch | {"secondary": torch.tensor(np.stack(changed), dtype=torch.float32)}


def by_kind(batch: dict) -> dict[str, dict]:
    """The batch with every kind of second contrast."""
    return {kind: with_second(batch, kind) for kind in KINDS}


def gains(table: pd.DataFrame, first: str, rivals: Iterable[str]) -> pd.DataFrame:
    """How much better `first` is than each rival, over patients: a row for each rival and each of `SCORES`.

    `table` has the rows of one target and one kind of second contrast, as
    `brains.csv` has them. A patient's scans are averaged, and Student's t
    judges the differences of the patients that have the score; above 0, `first`
    is better. `adjusted` is p, by Holm, for all rows together. Raises
    ValueError where the methods were not scored on the same cases.
    """
    rows = []
    for rival, (score, sign) in product(rivals, SCORES.items()):
        by_case = table.pivot(index="case", columns="method", values=score)[[first, rival]].dropna(how="all")
        if by_case.isna().to_numpy().any():
            raise ValueError(f"{first!r} and {rival!r} were not scored on the same cases")
        differences = sign * (by_case[first] - by_case[rival])
        by_patient = differences.groupby(patient_of).mean()
        rows.append(dict(rival=rival, score=score, patients=len(by_patient), **paired_t(by_patient)._asdict()))
    found = pd.DataFrame(rows)
    return found.assign(adjusted=holm(found["p"]))
