"""What networks make of held-out parts of real images, and how good that is,
part by part: a part is a patient's scan, or a region of a tumour.

Batches come by kind, {kind of second image: batch}; "none" is the second image
as it was taken. Items of a batch have `target`, `primary` and `secondary`, the
regions `mask` and `lesion` to score in, and their part's name as `case`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from damm_lite.atomic import atomic_write
from damm_lite.damm import DAMMNet
from damm_lite.distributions import crps
from damm_lite.experiments.methods import (
    MISMATCHES,
    MULTI,
    PIXEL,
    UNI,
    Budget,
    Trained,
    Tuned,
    damm,
    draw_gated,
    draw_unet,
    stochastic,
    unet,
)  # fmt: skip
from damm_lite.experiments.study import choose, drawn, sampled
from damm_lite.gates import DAMMP, mean_within
from damm_lite.intervals import conformal_margin, missed, sample_interval
from damm_lite.losses import our_loss, squared_error
from damm_lite.metrics import evaluate_inside, gate_auroc
from damm_lite.predict import predict
from damm_lite.unet import RegressionUNet, UNet

LEVEL = 0.95  # of intervals
BOTH = "primary", "secondary"
# What is trained: the network, its loss, and the share of made mismatches.
TRAININGS = {
    "regression": (partial(unet, RegressionUNet, *BOTH), squared_error, 0.0),
    "regression, mismatches": (partial(unet, RegressionUNet, *BOTH), squared_error, MISMATCHES),
    "concatenation": (partial(unet, UNet, *BOTH), squared_error, 0.0),
    "concatenation, mismatches": (partial(unet, UNet, *BOTH), squared_error, MISMATCHES),
    "ours": (damm, our_loss, MISMATCHES),
}
IN_FULL = "", ", patch"  # the endings of methods that are also tried on other kinds, and whose intervals are widened
Batches = dict[str, dict]


def in_region(tuned: Tuned, region: Tensor) -> DAMMP:
    """The paper's gate, with the confidence averaged over a region."""
    return DAMMP(tuned.gamma, region)


def draw_patch(model: DAMMNet, schedule: object, part: dict, seeds: list[int], tuned: Tuned, budget: Budget) -> Tensor:
    """Samples by the paper's gate, which reads the map inside the mask alone."""
    gate = partial(in_region, region=part["mask"])
    return draw_gated(gate, model, schedule, part, seeds, tuned, budget)


GATED = {", uni": UNI, ", multi": MULTI, ", patch": draw_patch, ", pixel": PIXEL}


def draw(use: Callable, trained: Trained, tuned: Tuned, budget: Budget, batch: dict) -> Tensor:
    """Samples (S, B, 1, H, W) of a whole batch by a function as `methods` has them."""
    return drawn(partial(sampled, use, *trained, tuned, budget), batch, 1)[0]


def confidence_inside(trained: Trained, batch: dict) -> tuple[Tensor, Tensor]:
    """(c (B,) over the mask, map (B, h, w)) of one sample of the multi-modal branch."""
    found = predict(*trained, batch["primary"], batch["secondary"], 5, 0, "multi", sampler=stochastic)
    return mean_within(found.confidence_map[:, None], batch["mask"]), found.confidence_map


def tune(trained: Trained, batches: Batches, budget: Budget) -> Tuned:
    """The gamma and the sharpness with the best mean SSIM on these batches,
    those of the kind "none" counted as often as all others together.
    """
    fewer = replace(budget, num_samples=2)
    uni = draw(UNI, trained, Tuned(), fewer, batches["none"]).mean(dim=0)
    multi = {kind: draw(MULTI, trained, Tuned(), fewer, batch).mean(dim=0) for kind, batch in batches.items()}
    believed = {kind: confidence_inside(trained, batch) for kind, batch in batches.items()}
    order = ["none"] * (len(batches) - 2) + list(batches)
    confidence, maps = (torch.cat([believed[kind][i] for kind in order]) for i in (0, 1))
    uni, target = (x.repeat(len(order), 1, 1, 1) for x in (uni, batches["none"]["target"]))
    return choose(uni, torch.cat([multi[kind] for kind in order]), confidence, maps, target)


def interval(samples: Tensor) -> tuple[Tensor, Tensor]:
    """(low, high) of what samples say; of a single one, itself twice."""
    return sample_interval(samples, LEVEL) if len(samples) > 1 else (samples[0], samples[0])


def margin_of(samples: Tensor, batch: dict) -> float:
    """By how much to widen the intervals, by what they miss inside the masks of calibration parts."""
    return conformal_margin(*interval(samples), batch["target"], LEVEL, batch["mask"])


def parts_of(batch: dict) -> dict[str, Tensor]:
    """{part: which items (B,) of the batch are of it}, in the order in which they come."""
    return {part: torch.tensor([each == part for each in batch["case"]]) for part in dict.fromkeys(batch["case"])}


def scores_of(samples: Tensor, batch: dict, margin: float | None = None) -> pd.DataFrame:
    """A row for each part: SSIM and PSNR in `mask` and `lesion` of the samples'
    mean; MAE and CRPS as shares of the range; the share of the mask in the
    interval that the samples give, and in that one widened by `margin` on
    either side, with its width.
    """
    outside = batch["mask"] == 0
    samples = samples.masked_fill(outside, -1.0)
    low, high = interval(samples)
    pointwise = crps(samples, batch["target"]) if len(samples) > 1 else (samples[0] - batch["target"]).abs()
    rows = []
    for part, one in parts_of(batch).items():
        mean, target, mask = samples[:, one].mean(dim=0), batch["target"][one], batch["mask"][one]
        whole, tumour = (evaluate_inside(mean, target, batch[key][one]) for key in ("mask", "lesion"))
        row = {"case": part, "samples": len(samples), **whole}
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


def untrained(methods: dict[str, Callable], calibration: Batches, test: Batches) -> pd.DataFrame:
    """Rows of `scores_of` for functions (batch) -> target (B, 1, H, W)."""
    tables = []
    for method, use in methods.items():
        margin = margin_of(use(calibration["none"])[None], calibration["none"])
        for kind, batch in test.items():
            tables.append(scores_of(use(batch)[None], test["none"], margin).assign(method=method, kind=kind))
    return pd.concat(tables)


def judged(name: str, trained: Trained, calibration: Batches, test: Batches, budget: Budget) -> pd.DataFrame:
    """Rows of `scores_of` for all that is done with a network, tuned on the
    calibration batches; of two branches also by a single sample, with what the
    gate reads and believes.
    """
    model, gated = trained[0], isinstance(trained[0], DAMMNet)
    tuned = tune(trained, calibration, budget) if gated else Tuned()
    about = dict(parameters=sum(p.numel() for p in model.parameters()), gamma=tuned.gamma, sharpness=tuned.sharpness)
    gate = gate_by_kind(trained, test, tuned.gamma) if gated else dict.fromkeys(test, {})
    tables = []
    for ending, use in (GATED if gated else {"": draw_unet}).items():
        sample = partial(draw, use, trained, tuned, budget)
        margin = margin_of(sample(calibration["none"]), calibration["none"]) if ending in IN_FULL else None
        for kind in test if ending in IN_FULL else ["none"]:
            samples, about["kind"] = sample(test[kind]), kind
            if gated:
                alone = scores_of(samples[:1], test["none"], margin)
                tables.append(alone.assign(method=f"{name}{ending}, one sample", **about))
            scores = scores_of(samples, test["none"], margin)
            tables.append(scores.assign(method=name + ending, **about, **gate[kind]))
    return pd.concat(tables)


def gate_by_kind(trained: Trained, test: Batches, gamma: float) -> dict[str, dict[str, list[float]]]:
    """{kind: confidence, share believed and AUROC, part by part}."""
    found = {kind: confidence_inside(trained, batch)[0] for kind, batch in test.items()}
    parts = parts_of(test["none"]).values()
    return {
        kind: {
            "confidence": [float(c[one].mean()) for one in parts],
            "believed": [float((c[one] >= gamma).double().mean()) for one in parts],
            "auroc": [auroc(found["none"][one], c[one]) for one in parts],
        }
        for kind, c in found.items()
    }


def auroc(as_taken: Tensor, changed: Tensor) -> float:
    """How well confidence tells items (n,) of a part from the same ones with another second image."""
    divergent = torch.arange(2 * len(changed)) >= len(as_taken)
    return gate_auroc(torch.cat([as_taken, changed]), divergent)


def once(place: Path, make: Callable[[], pd.DataFrame], **about: object) -> None:
    """Write the table that `make()` returns, with the columns `about`, to `place`/scores.csv, unless it is there."""
    if not (place / "scores.csv").is_file():
        table = make().assign(**about)
        place.mkdir(parents=True, exist_ok=True)
        with atomic_write(place / "scores.csv") as whole:
            table.round(5).to_csv(whole, index=False)
        print(place)


def gather(path: Path, pattern: str) -> None:
    """Write all tables beside `path` that match the pattern into that one file."""
    done = [pd.read_csv(one) for one in sorted(path.parent.glob(pattern))]
    with atomic_write(path) as whole:
        pd.concat(done).to_csv(whole, index=False)
