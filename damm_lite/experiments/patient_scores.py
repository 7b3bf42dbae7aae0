"""What a network makes of patients' slices, and how good that is, patient by
patient.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from damm_lite.brains.cases import patient_of
from damm_lite.brains.shapes import FIELD
from damm_lite.brains.synthetic import BRAIN_DIVERGENCES, consistent_contrast
from damm_lite.distributions import crps
from damm_lite.experiments.methods import MULTI, UNI, Budget, Tuned, draw_gated, stochastic
from damm_lite.experiments.statistics import holm, paired_t
from damm_lite.experiments.study import choose, drawn, sampled
from damm_lite.gates import DAMMP, mean_within
from damm_lite.intervals import conformal_margin, missed, sample_interval
from damm_lite.metrics import evaluate_inside
from damm_lite.predict import predict
from damm_lite.schedules import NoiseSchedule

KINDS = {"none": consistent_contrast} | BRAIN_DIVERGENCES
LEVEL = 0.95  # of intervals
SCORES = {"ssim": 1, "psnr": 1, "mae": -1, "crps": -1, "tumour_ssim": 1, "tumour_psnr": 1}  # 1: more is better


def with_second(batch: dict, kind: str, seed: int = 0) -> dict:
    """The batch with its second contrasts as `kind` makes them; "patient": the next case's, at the same height."""
    second, pixel = batch["secondary"].numpy(), FIELD[0] / batch["secondary"].shape[-1]
    others, mask = np.roll(second, -batch["case"].count(batch["case"][0]), axis=0), batch["mask"].numpy()
    changed = [
        KINDS[kind](np.random.default_rng([seed, i]), second[i], mask[i], others[i], pixel) for i in range(len(second))
    ]
    return batch | {"secondary": torch.tensor(np.stack(changed), dtype=torch.float32)}


def draw(
    use: Callable, model: torch.nn.Module, schedule: NoiseSchedule, tuned: Tuned, budget: Budget, batch: dict
) -> Tensor:
    """Samples (S, B, 1, H, W) of a whole batch by a function as `methods` has them."""
    return drawn(partial(sampled, use, model, schedule, tuned, budget), batch, 1)[0]


def in_brain(tuned: Tuned, region: Tensor) -> DAMMP:
    """The paper's gate, with the confidence averaged over the brain."""
    return DAMMP(tuned.gamma, region)


def draw_patch(
    model: torch.nn.Module, schedule: NoiseSchedule, part: dict, seeds: list[int], tuned: Tuned, budget: Budget
) -> Tensor:
    """Samples by the paper's gate, which reads the map in the brain alone."""
    gate = partial(in_brain, region=part["mask"])
    return draw_gated(gate, model, schedule, part, seeds, tuned, budget)


def confidence_in_brain(model: torch.nn.Module, schedule: NoiseSchedule, batch: dict) -> tuple[Tensor, Tensor]:
    """(c (B,) over the brain, map (B, h, w)) of one sample of the multi-modal branch."""
    found = predict(model, schedule, batch["primary"], batch["secondary"], 5, 0, "multi", sampler=stochastic)
    return mean_within(found.confidence_map[:, None], batch["mask"]), found.confidence_map


def tune(model: torch.nn.Module, schedule: NoiseSchedule, batch: dict, budget: Budget) -> Tuned:
    """The gamma and the sharpness with the best mean SSIM on calibration
    patients, half of the second contrasts as scanned, half made to diverge.
    """
    fewer = replace(budget, num_samples=2)
    uni = draw(UNI, model, schedule, Tuned(), fewer, batch).mean(dim=0)
    several = {kind: with_second(batch, kind) for kind in KINDS}
    multi = {kind: draw(MULTI, model, schedule, Tuned(), fewer, one).mean(dim=0) for kind, one in several.items()}
    believed = {kind: confidence_in_brain(model, schedule, one) for kind, one in several.items()}
    order = ["none"] * (len(KINDS) - 2) + list(KINDS)  # as scanned as often as all others together
    confidence, maps = (torch.cat([believed[kind][i] for kind in order]) for i in (0, 1))
    uni, target = (x.repeat(len(order), 1, 1, 1) for x in (uni, batch["target"]))
    return choose(uni, torch.cat([multi[kind] for kind in order]), confidence, maps, target)


def interval(samples: Tensor) -> tuple[Tensor, Tensor]:
    """(low, high) of what samples say; of a single one, itself twice."""
    return sample_interval(samples, LEVEL) if len(samples) > 1 else (samples[0], samples[0])


def scores_of(samples: Tensor, batch: dict, margin: float | None = None) -> pd.DataFrame:
    """A row for each case of the batch, whose slices are neighbours: SSIM and
    PSNR in brain and tumour of the samples' mean; MAE and CRPS as shares of the
    range; the share of the brain in the interval that the samples give, and in
    that one widened by `margin` on either side, with its width.
    """
    outside = batch["mask"] == 0
    samples = samples.masked_fill(outside, -1.0)
    low, high = interval(samples)
    pointwise = crps(samples, batch["target"]) if len(samples) > 1 else (samples[0] - batch["target"]).abs()
    rows = []
    for case in dict.fromkeys(batch["case"]):
        one = torch.tensor([each == case for each in batch["case"]])
        mean, target, mask = samples[:, one].mean(dim=0), batch["target"][one], batch["mask"][one]
        brain, tumour = (evaluate_inside(mean, target, batch[key][one]) for key in ("mask", "lesion"))
        row = {"case": case, "samples": len(samples), **brain}
        row |= {f"tumour_{name}": value for name, value in tumour.items()}
        row["mae"] = float((mean - target).abs()[mask == 1].mean()) / 2
        row["crps"] = float(pointwise[one][mask == 1].mean()) / 2
        row["covered"] = 1 - float(missed(low[one], high[one], target, mask).mean())
        if margin is not None:
            widened = low[one] - margin, high[one] + margin
            row["covered_widened"] = 1 - float(missed(*widened, target, mask).mean())
            row["width"] = float((widened[1] - widened[0])[mask == 1].mean()) / 2
        rows.append(row)
    return pd.DataFrame(rows)


def margin_of(samples: Tensor, batch: dict) -> float:
    """By how much to widen the intervals, by what they miss in the brains of calibration patients."""
    return conformal_margin(*interval(samples), batch["target"], LEVEL, batch["mask"])


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
