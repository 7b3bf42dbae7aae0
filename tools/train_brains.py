"""Train a network on simulated brains, FLAIR from T1 and T2, measure it on held-out patients, and store it.

    python tools/train_brains.py --out data/weights/brain-64.safetensors
    python tools/train_brains.py --regression --out data/weights/brain-regression-64.safetensors

One training slice in ten has a T2 that misleads, one test slice in two, and nothing tells the network
which: divergence is rarer in training than in the field. Scores are taken inside the brain. With --minutes
the number of steps is chosen from the time that the first ones take. With --out, an interrupted run goes
on where it stopped when the same command is given again.
"""

import time
from functools import partial

import numpy as np
import torch

import damm_lite as dl
from damm_lite.shapes import FIELD
from train_tumours import (
    TRAIN_SEED,
    of_branches,
    of_regression,
    parser_of,
    table,
    train_and_store,
    train_ours,
    train_regression,
)

BARELY = 6.0  # mm, a misregistration that the gate should still see


def inside(x0, batch):
    """SSIM (B,) of each slice, inside the brain."""
    slices = zip(x0.split(1), batch["target"].split(1), batch["mask"].split(1), strict=True)
    return torch.tensor([dl.evaluate_inside(*one)["ssim"] for one in slices])


def shifted(batch, millimetres):
    """The second contrast (B, C, H, W), moved by so much in a random direction."""
    rng, pixel = np.random.default_rng(0), FIELD[0] / batch["target"].shape[-1]
    moved = [
        dl.shift_contrast(rng, image.numpy(), None, None, pixel, (millimetres, millimetres), degrees=0)
        for image in batch["secondary"]
    ]
    return torch.tensor(np.stack(moved), dtype=torch.float32)


def auroc_of(confidence, other):
    """How well the gate tells consistent slices from others, given both confidences."""
    divergent = torch.arange(len(confidence) + len(other)) >= len(confidence)
    return round(dl.gate_auroc(torch.cat([confidence, other]), divergent), 4)


def measure_gate(predictions_of, batch, confidence):
    """Gate AUROC of consistent slices against each kind, and against themselves barely misregistered; printed."""
    rows = {kind: torch.tensor([k == kind for k in batch["kind"]]) for kind in ("none", *dl.BRAIN_DIVERGENCES)}
    others = {kind: confidence[rows[kind]] for kind in dl.BRAIN_DIVERGENCES if rows[kind].any()}
    consistent = {key: batch[key][rows["none"]] for key in ("target", "primary", "secondary")}
    barely = consistent | {"secondary": shifted(consistent, BARELY)}
    others[f"shift of {BARELY:g} mm"] = torch.cat(
        [predictions_of(part)["confidence"].cpu() for part in dl.chunks(barely, 16)]
    )
    found = {kind: auroc_of(confidence[rows["none"]], other) for kind, other in others.items()}
    print("gate AUROC, consistent against", *(f"{kind} {auroc:.3f}" for kind, auroc in found.items()), sep="  ")
    return found


def measure(predictions_of, size, n, model, schedule):
    """The scores on n slices of held-out patients, as a dict; printed."""
    batch = dl.stack(dl.SyntheticBrains(n, size, seed=dl.HELD_OUT_SEED))
    predictions_of = partial(predictions_of, model, schedule)
    scores, confidence = table(predictions_of, batch, dl.BRAIN_DIVERGENCES, inside)
    if confidence is not None:
        scores["auroc"] = measure_gate(predictions_of, batch, confidence)
    return scores


def main():
    parser = parser_of(__doc__, patches=9600)
    parser.add_argument("--regression", action="store_true", help="one U-Net on both contrasts, without diffusion")
    arguments = parser.parse_args()
    start = time.perf_counter()
    brains = dl.SyntheticBrains(arguments.patches, arguments.size, TRAIN_SEED, divergent_fraction=0.1)
    slices = [{key: item[key] for key in ("target", "primary", "secondary")} for item in brains]
    trainer = partial(train_regression, "both") if arguments.regression else train_ours
    predictions_of = partial(of_regression, "both") if arguments.regression else of_branches
    held_out = partial(measure, predictions_of, arguments.size, arguments.test_patches)
    train_and_store(arguments, start, slices, trainer, held_out)


if __name__ == "__main__":
    main()
