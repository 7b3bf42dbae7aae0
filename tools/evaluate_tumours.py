"""Compare every method on the same held-out patches; the table of chapter 11.

    python tools/evaluate_tumours.py     # data/results/evaluation.csv; hours of CPU, one where all is trained

A row for each method, number of samples and patch: SSIM, PSNR (dB), MAE, network evaluations and
seconds. A diffusion model predicts once for each of 256 patches, and eight times for half of them.
The U-Nets without diffusion are not shipped: three seeds of each are trained into _build/baselines,
as long as the shipped networks.
"""

import argparse
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

import damm_lite as dl
from measure_tumours import METRICS, RESULTS, SIZE, by_concatenation, by_gate, drawn
from train_tumours import INPUTS, TRAIN_SEED, of_regression

ROOT = Path(__file__).resolve().parents[1]
GATES = {
    "uni-modal branch": dl.UniModal(),
    "multi-modal branch": dl.MultiModal(),
    "average of both branches": dl.Average(),
    "DAMM": dl.DAMMP(),
    "DAMM, per pixel": dl.SpatialDAMMP(),
}


def by_distance(baseline, part, num_steps, seed):
    return baseline(part["primary"])


def by_regression(inputs, model, part, num_steps, seed):
    return of_regression(inputs, model, None, part)["regression"]


def trained_baseline(inputs, seed, folder, extra):
    """The U-Net without diffusion for these inputs and this seed; trained where it is missing."""
    path = folder / f"{inputs}-{seed}.safetensors"
    if not path.is_file():
        command = [sys.executable, ROOT / "tools" / "train_tumours.py", "--regression", inputs, "--seed", str(seed)]
        subprocess.run([*command, "--out", path, *extra], check=True)
    return dl.load_checkpoint(path)[0]


def methods(folder, extra):
    """Yields (name, training seed, sampling steps, function of (part, num_steps, seed)); 1 step or none: no chance."""
    patches = dl.SyntheticTumours(1024, SIZE, TRAIN_SEED, divergent_fraction=0.1)
    yield "distance to vessel", 0, 0, partial(by_distance, dl.DistanceBaseline(patches))
    for inputs in INPUTS:
        for seed in range(3):
            model = trained_baseline(inputs, seed, folder, extra)
            yield f"regression, {inputs}", seed, 1, partial(by_regression, inputs, model)
    yield "diffusion, concatenation", 0, 20, by_concatenation(*dl.load_pretrained("concat-64"))
    yield "DAMM, as released", 0, 20, by_gate(*dl.load_pretrained("tumour-64-released"), dl.DAMMP())
    for name, gate in GATES.items():
        yield name, 0, 20, by_gate(*dl.load_pretrained("tumour-64"), gate)


def measure(draw, batch, num_steps, num_samples):
    """Metrics of the mean of the samples, and seconds for one patch, as columns."""
    start = time.perf_counter()
    x0 = drawn(draw, batch, num_steps, num_samples).mean(dim=1)
    seconds = (time.perf_counter() - start) / len(x0)
    return {name: score(x0, batch["target"]) for name, score in METRICS.items()} | dict(seconds=seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=256, help="half as many for the means of eight samples")
    parser.add_argument("--baselines", type=Path, default=ROOT / "_build" / "baselines")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments, extra = parser.parse_known_args()  # the rest is for training the baselines, e.g. --steps
    arguments.baselines.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    batch = dl.stack(dl.SyntheticTumours(arguments.patches, SIZE, dl.HELD_OUT_SEED))
    half = next(dl.chunks(batch, arguments.patches // 2))
    tables = []
    for name, seed, num_steps, draw in tqdm(list(methods(arguments.baselines, extra)), desc="methods"):
        for num_samples, part in ((1, batch), (8, half)) if num_steps > 1 else ((1, batch),):
            row = dict(method=name, seed=seed, samples=num_samples, evaluations=num_steps * num_samples)
            row |= dict(index=range(len(part["kind"])), kind=part["kind"])
            tables.append(pd.DataFrame(row | measure(draw, part, num_steps, num_samples)))
    pd.concat(tables).round(4).to_csv(arguments.out / "evaluation.csv", index=False)


if __name__ == "__main__":
    main()
