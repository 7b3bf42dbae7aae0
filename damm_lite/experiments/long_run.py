"""A long training that is watched: samples on patches held out, now and then,
beside the loss. The recorded run of chapter 10.

    python -m damm_lite.experiments.long_run --out _build/long_run

trains the two branches as the study does ("ours" in `methods`), on a GPU where
there is one. Every 100 steps `validation.csv` in the folder gets a row.
Interrupted, it goes on when the same command is given again. With
--tracker tensorboard the same numbers go to TensorBoard as well.
"""

import argparse
import platform
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn

from damm_lite.atomic import atomic_write
from damm_lite.distributions import crps
from damm_lite.experiments.methods import MISMATCHES, Budget, begin, damm, stochastic
from damm_lite.experiments.study import DEVELOPMENT_SEED, field_patches, training_patches
from damm_lite.gates import SpatialDAMMP
from damm_lite.losses import our_loss
from damm_lite.metrics import ssim
from damm_lite.predict import predict
from damm_lite.resumable import Progress
from damm_lite.schedules import NoiseSchedule, shifted_schedule


def accelerator_of(
    tracker: str | None,
    folder: str | Path,
    **options: object,
) -> Accelerator:
    """An `Accelerator` whose `log` writes to `folder`, for `tracker`
    "tensorboard" or any other that accelerate knows; for None it writes
    nothing. Raises ValueError where the tracker is not installed.
    """
    accelerator = Accelerator(log_with=tracker, project_dir=folder, **options)
    if tracker and not accelerator.log_with:
        missing = f"{tracker!r} is not installed: pip install {tracker}"
        raise ValueError(f"tracker: {missing}")
    accelerator.init_trackers("log")
    return accelerator


def validation(
    model: nn.Module,
    schedule: NoiseSchedule,
    batch: dict,
    num_samples: int = 8,
    num_steps: int = 10,
) -> dict[str, float]:
    """How good the samples for a batch of patches are, their branches mixed at
    every pixel.

    "ssim" is that of their mean, "crps" that of all of them, "error" the root
    mean square of mean less truth. "spread" is what the error would be if the
    truth were one more sample: sqrt((1 + 1 / S) mean variance).
    """
    images, gate = (batch["primary"], batch["secondary"]), SpatialDAMMP()
    how = num_steps, 0, gate, num_samples, stochastic
    found = predict(model, schedule, *images, *how)
    samples, target = found.samples.cpu(), batch["target"]
    mean, variance = samples.mean(dim=0), samples.var(dim=0).mean()
    return dict(
        ssim=float(ssim(mean, target).mean()),
        crps=float(crps(samples, target).mean()),
        error=float((mean - target).square().mean().sqrt()),
        spread=float(((1 + 1 / num_samples) * variance).sqrt()),
    )


def watched(run: Iterator[Progress], schedule: NoiseSchedule, batch: dict, every: int) -> Iterator[dict[str, float]]:
    """Go on with a `run` of `fit`; after every `every` steps the step, the mean
    loss of these steps, their pace in steps a second (without validation and
    saved steps), and `validation` on `batch`.
    """
    start, steps = time.perf_counter(), 0
    for progress in run:
        steps += 1
        if progress.step % every == 0:
            pace = steps / (time.perf_counter() - start)
            loss = sum(progress.losses[-every:]) / every
            yield dict(step=progress.step, loss=loss, pace=pace) | validation(progress.ema, schedule, batch)
            start, steps = time.perf_counter(), 0


def record(out: Path, budget: Budget, seed: int, every: int, accelerator: Accelerator) -> pd.DataFrame:
    """Train as the study does, resumably in the folder `out`; the table that it writes there."""
    path, size, patches = out / "validation.csv", budget.size, training_patches(budget, seed)
    batch = field_patches(budget.calibration_patches, size, DEVELOPMENT_SEED)
    gpu = accelerator.device.type == "cuda"
    about = dict(
        side=size,
        batch=budget.batch_size,
        device=torch.cuda.get_device_name() if gpu else f"{platform.machine()} CPU",
        threads=torch.get_num_threads(),
        date=date.today().isoformat(),
        torch=torch.__version__,
    )
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["step"])
    run = begin(damm, our_loss, MISMATCHES, budget, patches, seed, out, accelerator)
    for row in watched(run, shifted_schedule(), batch, every):
        accelerator.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])
        if row["step"] not in set(table["step"]):
            table = pd.DataFrame([*table.to_dict("records"), row | about]).sort_values("step")
            with atomic_write(path) as whole:
                table.round(5).to_csv(whole, index=False)
    accelerator.end_training()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=Budget.size)
    parser.add_argument("--steps", type=int, default=Budget.steps)
    parser.add_argument("--batch", type=int, default=Budget.batch_size)
    parser.add_argument("--every", type=int, default=100, help="steps between two looks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracker", help='"tensorboard", or another that accelerate knows')
    arguments = parser.parse_args()
    budget = Budget(size=arguments.size, steps=arguments.steps, batch_size=arguments.batch, calibration_patches=32)
    accelerator = accelerator_of(arguments.tracker, arguments.out)
    record(arguments.out, budget, arguments.seed, arguments.every, accelerator)


if __name__ == "__main__":
    main()
