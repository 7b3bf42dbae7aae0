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
import torch
from tqdm.auto import tqdm

import damm_lite as dl
from measure_tumours import METRICS, RESULTS, SIZE
from train_tumours import INPUTS, TRAIN_SEED

ROOT = Path(__file__).resolve().parents[1]
GATES = {
    "uni-modal branch": dl.UniModal(),
    "multi-modal branch": dl.MultiModal(),
    "average of both branches": dl.Average(),
    "DAMM": dl.DAMMP(),
    "DAMM, per pixel": dl.SpatialDAMMP(),
}


def conditions_of(part, inputs):
    """The images that a plain U-Net is given; (B, 1 or 2, H, W)."""
    return torch.cat([part[name] for name in INPUTS[inputs]], dim=1)


def by_distance(baseline, part, seed):
    return baseline(part["primary"])


@torch.inference_mode()
def by_regression(model, inputs, part, seed):
    return dl.regress(model, conditions_of(part, inputs)).clamp(-1, 1)


def by_concatenation(model, schedule, part, seed):
    return dl.predict_unet(model, schedule, conditions_of(part, "both"), num_steps=20, seed=seed)


def by_gate(model, schedule, gate, part, seed):
    return dl.predict(model, schedule, part["primary"], part["secondary"], num_steps=20, seed=seed, branch=gate).x0


def trained_baseline(inputs, seed, folder, extra):
    """The U-Net without diffusion for these inputs and this seed; trained where it is missing."""
    path = folder / f"{inputs}-{seed}.safetensors"
    if not path.is_file():
        command = [sys.executable, ROOT / "tools" / "train_tumours.py", "--regression", inputs, "--seed", str(seed)]
        subprocess.run([*command, "--out", path, *extra], check=True)
    return dl.load_checkpoint(path)[0]


def methods(folder, extra):
    """Yields (name, training seed, evaluations of the network, is it random, function of (part, seed))."""
    patches = dl.SyntheticTumours(1024, SIZE, TRAIN_SEED, divergent_fraction=0.1)
    yield "distance to vessel", 0, 0, False, partial(by_distance, dl.DistanceBaseline(patches))
    for inputs, name in (("vessels", "regression, vessels"), ("both", "regression, both")):
        for seed in range(3):
            model = trained_baseline(inputs, seed, folder, extra)
            yield name, seed, 1, False, partial(by_regression, model, inputs)
    yield "diffusion, concatenation", 0, 20, True, partial(by_concatenation, *dl.load_pretrained("concat-64"))
    yield "DAMM, as released", 0, 20, True, partial(by_gate, *dl.load_pretrained("tumour-64-released"), dl.DAMMP())
    for name, gate in GATES.items():
        yield name, 0, 20, True, partial(by_gate, *dl.load_pretrained("tumour-64"), gate)


def measure(function, batch, num_samples):
    """Metrics of the mean of the samples, and seconds for one patch, as columns."""
    start = time.perf_counter()
    x0 = [torch.stack([function(part, seed) for seed in range(num_samples)]).mean(0) for part in dl.chunks(batch, 16)]
    seconds = (time.perf_counter() - start) / len(batch["target"])
    return {name: score(torch.cat(x0), batch["target"]) for name, score in METRICS.items()} | dict(seconds=seconds)


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
    for name, seed, evaluations, is_random, function in tqdm(list(methods(arguments.baselines, extra)), desc="methods"):
        for num_samples, part in ((1, batch), (8, half)) if is_random else ((1, batch),):
            row = dict(method=name, seed=seed, samples=num_samples, evaluations=evaluations * num_samples)
            row |= dict(index=range(len(part["kind"])), kind=part["kind"])
            tables.append(pd.DataFrame(row | measure(function, part, num_samples)))
    pd.concat(tables).round(4).to_csv(arguments.out / "evaluation.csv", index=False)


if __name__ == "__main__":
    main()
