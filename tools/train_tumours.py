"""Train a network on simulated tumours, measure it on held-out patches, and store it.

    python tools/train_tumours.py --size 32 --minutes 9                 # about 1 M parameters from scratch
    python tools/train_tumours.py --steps 6000 --out data/weights/tumour-64.safetensors

One training pair in ten diverges, one test pair in two: divergence is rarer in training than in
the field. With --minutes the number of steps is chosen from the time that the first ones take.
"""

import argparse
import platform
import shlex
import sys
import time
from pathlib import Path

import torch

import damm_lite as dl

TRAIN_SEED, TEST_SEED = 1, 1_000_001


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of a patch in pixels")
    parser.add_argument("--widths", type=int, nargs=4, default=(16, 16, 32, 64))
    parser.add_argument("--patches", type=int, default=8192, help="training patches to simulate")
    parser.add_argument("--test-patches", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, help="instead of --steps, also counting the simulation")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to store the weights; a safetensors file")
    return parser.parse_args()


def steps_within(seconds, model, schedule, patches, batch):
    """How many training steps fit into `seconds`, measured on ten of them."""
    config = dl.TrainConfig(num_steps=12, batch_size=batch, learning_rate=0.0)
    times = [time.perf_counter() for _ in dl.train(model, schedule, patches, config, progress=False)]
    per_step = (times[-1] - times[1]) / (len(times) - 2)
    return int((seconds - (time.perf_counter() - times[0])) / per_step)


def table(model, schedule, size, n):
    """Mean SSIM by branch and kind on n held-out patches, 20 steps; printed, and returned as a dict."""
    batch = dl.stack(dl.SyntheticTumours(n, size, seed=TEST_SEED))
    kinds = ["none", *dl.DIVERGENCES]
    columns = {"consistent": ~batch["divergent"], "divergent": batch["divergent"]}
    columns |= {kind: torch.tensor([k == kind for k in batch["kind"]]) for kind in kinds[1:]}
    columns["all"] = torch.ones(n, dtype=torch.bool)
    print(f"{'SSIM':8}" + "".join(f"{name:>12}" for name in columns))
    scores = {}
    for branch in ("uni", "multi", "damm"):
        result = dl.predict(model, schedule, batch["primary"], batch["secondary"], num_steps=20, seed=0, branch=branch)
        ssim = dl.ssim(result.x0.cpu(), batch["target"])
        scores[branch] = {name: round(float(ssim[rows].mean()), 4) for name, rows in columns.items()}
        print(f"{branch:8}" + "".join(f"{score:12.3f}" for score in scores[branch].values()))
    hard = torch.tensor([kind in ("none", "section", "shift") for kind in batch["kind"]])
    scores["auroc"] = round(dl.gate_auroc(result.confidence[hard].cpu(), batch["divergent"][hard]), 4)
    print(f"gate AUROC, consistent against section and shift: {scores['auroc']:.3f}")
    return scores


def main():
    arguments = parse()
    start = time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(arguments.seed)
    config = dl.UNetConfig(2, 1, arguments.widths, time_dim=64)
    model = dl.DAMMNet(config, objective=dl.PredictsImage).to(device)
    schedule = dl.scaled_linear_schedule()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}")

    patches = list(dl.SyntheticTumours(arguments.patches, arguments.size, TRAIN_SEED, divergent_fraction=0.1))
    steps = arguments.steps
    if arguments.minutes:
        seconds = 60 * arguments.minutes - (time.perf_counter() - start)
        steps = steps_within(seconds, model, schedule, patches, arguments.batch)
    training = dl.TrainConfig(
        num_steps=steps, batch_size=arguments.batch, learning_rate=arguments.learning_rate, seed=arguments.seed
    )
    *_, last = dl.train(model, schedule, patches, training)
    minutes = (time.perf_counter() - start) / 60
    print(f"{steps} steps in {minutes:.1f} minutes, simulation included")

    scores = table(last.ema, schedule, arguments.size, arguments.test_patches)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "command": shlex.join(["python", *sys.argv]),
            "seed": arguments.seed,
            "steps": steps,
            "device": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
            "minutes": round(minutes, 1),
            "torch": torch.__version__,
            "scores": scores,
        }
        dl.save_checkpoint(arguments.out, last.ema, schedule, **about)


if __name__ == "__main__":
    main()
