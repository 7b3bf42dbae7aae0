"""Train a network on simulated tumours, measure it on held-out patches, and
store it.

    python -m damm_lite.experiments.train_tumours OPTIONS

with, for example,

    --size 32 --minutes 9                  about 1 M parameters from scratch
    --widths 16 16 24 48 --out data/weights/tumour-64.safetensors
    --released --out data/weights/tumour-64-released.safetensors
    --concat --out data/weights/concat-64.safetensors
    --regression both --seed 1 --out _build/baselines/both-1.safetensors

One training pair in ten diverges, one test pair in two: divergence is rarer in
training than in the field. With --minutes the number of steps is chosen from
the time that the first ones take. With --out, an interrupted run goes on where
it stopped when the same command is given again.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from damm_lite.data import stack
from damm_lite.experiments import runs
from damm_lite.metrics import gate_auroc, ssim
from damm_lite.schedules import NoiseSchedule
from damm_lite.tumours.synthetic import DIVERGENCES, HELD_OUT_SEED, SyntheticTumours


def measure(predictions_of: Callable, size: int, n: int, model: torch.nn.Module, schedule: NoiseSchedule) -> dict:
    """The scores on n held-out tumours; printed."""
    batch = stack(SyntheticTumours(n, size, seed=HELD_OUT_SEED))
    predictions_of = partial(predictions_of, model, schedule)
    scores, confidence = runs.score_table(
        predictions_of, batch, DIVERGENCES, lambda x0, batch: ssim(x0, batch["target"])
    )
    whole = torch.tensor([kind in ("none", "section", "shift") for kind in batch["kind"]])  # all right or all wrong
    if confidence is not None:
        scores["auroc"] = round(gate_auroc(confidence[whole], batch["divergent"][whole]), 4)
        print(f"gate AUROC, consistent against section and shift: {scores['auroc']:.3f}")
    return scores


def chosen(arguments: argparse.Namespace) -> tuple[Callable, Callable]:
    """(how to train, how to predict) what the arguments ask for."""
    if arguments.regression:
        return partial(runs.train_regression, arguments.regression), runs.predictions_of_unet
    if arguments.concat:
        return runs.train_concat, runs.predictions_of_unet
    return (runs.train_released if arguments.released else runs.train_ours, runs.predictions_of_damm)


def main() -> None:
    parser = runs.parser_of(__doc__, patches=16384)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--released", action="store_true", help="head, losses, phases and prediction as released")
    kind.add_argument("--concat", action="store_true", help="one plain U-Net on both images, concatenated")
    kind.add_argument("--regression", choices=runs.CONDITIONS, help="one U-Net that predicts at once")
    arguments, start = parser.parse_args(), time.perf_counter()
    patches = list(SyntheticTumours(arguments.patches, arguments.size, runs.TRAIN_SEED, divergent_fraction=0.1))
    trainer, predictions_of = chosen(arguments)
    held_out = partial(measure, predictions_of, arguments.size, arguments.test_patches)
    runs.train_and_store(arguments, start, patches, trainer, held_out)


if __name__ == "__main__":
    main()
