"""Compare every method on the same held-out patches; the table of chapter 11.

    python -m damm_lite.experiments.evaluate                   # hours of CPU
    python -m damm_lite.experiments.evaluate DAMM "DAMM, per pixel"

The first writes data/results/evaluation.csv, the second only measures these
methods, for the table later.

A row for each method, training seed and patch: SSIM, PSNR (dB), MAE, network
evaluations and CPU seconds, of one sample of 20 steps and, in columns such as
`ssim_mean`, of the mean of eight samples of two, which costs less; the same in
both where nothing is drawn. The rows of each method are kept in
_build/measured as soon as they are there: interrupt it, start it again, or
measure some methods beside it. The U-Nets without diffusion are not shipped:
three seeds of each are trained into _build/baselines, for a quarter of the
shipped networks' steps.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

import damm_lite as dl
from damm_lite.experiments.baselines import DistanceBaseline
from damm_lite.experiments.measure import METRICS, RESULTS, ROOT, SIZE, by_gate, kept, samples_of
from damm_lite.experiments.runs import CONDITIONS, TRAIN_SEED, sample_unet
from damm_lite.tumours.synthetic import HELD_OUT_SEED

GATES = {
    "uni-modal branch": dl.AlwaysUni(),
    "multi-modal branch": dl.AlwaysMulti(),
    "mean of both branches": dl.MeanOfBranches(),
    "DAMM": dl.DAMMP(),
    "DAMM, per pixel": dl.SpatialDAMMP(),
}
# What a method does for its columns without and with "_mean": (network
# evaluations of a sample, samples).
REGRESSION_STEPS, REGRESSION_PATCHES = 800, 6400  # every patch is seen once
NO_NETWORK, AT_ONCE, SAMPLED = ((0, 1), (0, 1)), ((1, 1), (1, 1)), ((20, 1), (2, 8))


def by_distance(baseline: DistanceBaseline, part: dict, num_steps: int, seed: int, num_samples: int) -> torch.Tensor:
    """The one sample (1, B, C, H, W) of a method that draws nothing."""
    return baseline(part["primary"]).clamp(-1, 1)[None]


def trained_baseline(inputs: str, seed: int, folder: Path) -> tuple:
    """The U-Net without diffusion for these inputs and this seed; trained
    where it is missing.
    """
    path = folder / f"{inputs}-{seed}.safetensors"
    if not path.is_file():
        command = [sys.executable, "-m", "damm_lite.experiments.train_tumours", "--regression", inputs]
        command += ["--steps", str(REGRESSION_STEPS), "--patches", str(REGRESSION_PATCHES)]
        command += ["--seed", str(seed), "--out", path]
        subprocess.run(command, check=True)
    return dl.load_checkpoint(path)


def distance() -> Iterator:
    patches = dl.SyntheticTumours(1024, SIZE, TRAIN_SEED, divergent_fraction=0.1)
    yield 0, NO_NETWORK, partial(by_distance, DistanceBaseline(patches))


def regressions(inputs: str, folder: Path) -> Iterator:
    for seed in range(3):
        yield (seed, AT_ONCE, partial(sample_unet, *trained_baseline(inputs, seed, folder)))


def concatenation() -> Iterator:
    yield 0, SAMPLED, partial(sample_unet, *dl.load_pretrained("concat-64"))


def gated(network: str, gate: Callable) -> Iterator:
    yield 0, SAMPLED, by_gate(*dl.load_pretrained(network), gate)


def methods(folder: Path) -> dict[str, Callable]:
    """{name: generator of (training seed, what it does, function as `by_gate`
    returns it)}; each loads when run.
    """
    return {
        "distance to vessel": distance,
        **{f"regression, {inputs}": partial(regressions, inputs, folder) for inputs in CONDITIONS},
        "diffusion, concatenation": concatenation,
        "DAMM, as released": partial(gated, "tumour-64-released", dl.DAMMP()),
        **{name: partial(gated, "tumour-64", gate) for name, gate in GATES.items()},
    }


def measure(name: str, method: Callable, batch: dict) -> pd.DataFrame:
    """The rows of one method; seconds are those of the processor, whatever
    else it has to do.
    """
    tables = []
    for training_seed, work, sample in method():
        columns = dict(method=name, seed=training_seed, index=range(len(batch["kind"])), kind=batch["kind"])
        for ending, (num_steps, num_samples) in zip(("", "_mean"), work, strict=True):
            start = time.process_time()
            x0 = samples_of(sample, batch, num_steps, num_samples).mean(dim=1)
            price = dict(evaluations=num_steps * num_samples, seconds=(time.process_time() - start) / len(x0))
            scores = {metric: score(x0, batch["target"]).numpy() for metric, score in METRICS.items()}
            columns |= {f"{column}{ending}": value for column, value in (scores | price).items()}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="which to measure now; default all")
    parser.add_argument("--patches", type=int, default=256)
    parser.add_argument("--baselines", type=Path, default=ROOT / "_build" / "baselines")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    known = methods(arguments.baselines)
    if unknown := set(arguments.methods) - set(known):
        parser.error(f"METHOD: expected some of {'; '.join(known)}, got {'; '.join(unknown)}")
    arguments.baselines.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    batch = dl.stack(dl.SyntheticTumours(arguments.patches, SIZE, HELD_OUT_SEED))
    tables = []
    for name in tqdm(arguments.methods or known, desc="methods"):
        tables.append(kept(f"evaluation, {arguments.patches}, {name}", partial(measure, name, known[name], batch)))
    if not arguments.methods:
        pd.concat(tables).to_csv(arguments.out / "evaluation.csv", index=False)


if __name__ == "__main__":
    main()
