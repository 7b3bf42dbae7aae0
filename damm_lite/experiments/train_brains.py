"""Train a network on simulated brains, FLAIR from T1 and T2, measure it on
held-out patients, and store it.

    python -m damm_lite.experiments.train_brains OPTIONS

with, for the two networks that are shipped,

    --out data/weights/brain-64.safetensors
    --regression --steps 1600 --out data/weights/brain-regression-64.safetensors

One training slice in ten has a T2 that misleads, one test slice in two, and
nothing tells the network which: divergence is rarer in training than in the
field. Scores are taken inside the brain. With --minutes the number of steps is
chosen from the time that the first ones take. With --out, an interrupted run
goes on where it stopped when the same command is given again.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from damm_lite.brains.shapes import FIELD
from damm_lite.brains.synthetic import BRAIN_DIVERGENCES, SyntheticBrains, shift_contrast
from damm_lite.data import chunks, stack
from damm_lite.experiments import runs
from damm_lite.metrics import evaluate_inside, gate_auroc
from damm_lite.schedules import NoiseSchedule
from damm_lite.tumours.synthetic import HELD_OUT_SEED

BARELY = 6.0  # mm, a misregistration that the gate should still see
KNOWN_SIDE = 64  # pixels of the slices that the shipped networks were trained on
FINE_SHARE = 24  # of the steps of fine-tuning, one in so many at finer pixels than that


def coarse_to_fine(size: int, num_steps: int) -> dict[int, int]:
    """The stages of fine-tuning for slices of `size` pixels, {side: steps}, in
    the order in which to train.

    Where `size` asks for smaller pixels than the shipped networks know,
    `num_steps` at the side they know come first, and a share of them, at least
    4, follow at `size`: more of them made another patient's slices worse.
    """
    if size <= KNOWN_SIDE:
        return {size: num_steps}
    return {KNOWN_SIDE: num_steps, size: max(4, num_steps // FINE_SHARE)}


def ssim_inside(x0: torch.Tensor, batch: dict) -> torch.Tensor:
    """SSIM (B,) of each slice, inside the brain."""
    slices = zip(x0.split(1), batch["target"].split(1), batch["mask"].split(1), strict=True)
    return torch.tensor([evaluate_inside(*one)["ssim"] for one in slices])


def shifted(batch: dict, millimetres: float) -> torch.Tensor:
    """The second contrast (B, C, H, W), moved by so much in a random
    direction.
    """
    rng, pixel = np.random.default_rng(0), FIELD[0] / batch["target"].shape[-1]
    moved = [
        shift_contrast(rng, image.numpy(), None, None, pixel, (millimetres, millimetres), degrees=0)
        for image in batch["secondary"]
    ]
    return torch.tensor(np.stack(moved), dtype=torch.float32)


def auroc_of(confidence: torch.Tensor, other: torch.Tensor) -> float:
    """How well the gate tells consistent slices from others, given both
    confidences.
    """
    divergent = torch.arange(len(confidence) + len(other)) >= len(confidence)
    return round(gate_auroc(torch.cat([confidence, other]), divergent), 4)


def measure_gate(predictions_of: Callable, batch: dict, confidence: torch.Tensor) -> dict[str, float]:
    """Gate AUROC of consistent slices against each kind, and against
    themselves barely misregistered; printed.
    """
    rows = {kind: torch.tensor([k == kind for k in batch["kind"]]) for kind in ("none", *BRAIN_DIVERGENCES)}
    others = {kind: confidence[rows[kind]] for kind in BRAIN_DIVERGENCES if rows[kind].any()}
    consistent = {key: batch[key][rows["none"]] for key in ("target", "primary", "secondary")}
    barely = consistent | {"secondary": shifted(consistent, BARELY)}
    others[f"shift of {BARELY:g} mm"] = torch.cat(
        [predictions_of(part)["confidence"].cpu() for part in chunks(barely, 16)]
    )
    found = {kind: auroc_of(confidence[rows["none"]], other) for kind, other in others.items()}
    line = "  ".join(f"{kind} {auroc:.3f}" for kind, auroc in found.items())
    print(f"gate AUROC, consistent against  {line}")
    return found


def measure(predictions_of: Callable, size: int, n: int, model: torch.nn.Module, schedule: NoiseSchedule) -> dict:
    """The scores on n slices of held-out patients; printed."""
    batch = stack(SyntheticBrains(n, size, seed=HELD_OUT_SEED))
    predictions_of = partial(predictions_of, model, schedule)
    scores, confidence = runs.score_table(predictions_of, batch, BRAIN_DIVERGENCES, ssim_inside)
    if confidence is not None:
        scores["auroc"] = measure_gate(predictions_of, batch, confidence)
    return scores


def main() -> None:
    parser = runs.parser_of(__doc__, patches=9600)
    parser.add_argument("--regression", action="store_true", help="one U-Net on both contrasts, without diffusion")
    arguments, start = parser.parse_args(), time.perf_counter()
    brains = SyntheticBrains(arguments.patches, arguments.size, runs.TRAIN_SEED, divergent_fraction=0.1)
    slices = [{key: item[key] for key in ("target", "primary", "secondary")} for item in brains]
    trainer = partial(runs.train_regression, "both") if arguments.regression else runs.train_ours
    predictions_of = runs.predictions_of_unet if arguments.regression else runs.predictions_of_damm
    held_out = partial(measure, predictions_of, arguments.size, arguments.test_patches)
    runs.train_and_store(arguments, start, slices, trainer, held_out)


if __name__ == "__main__":
    main()
