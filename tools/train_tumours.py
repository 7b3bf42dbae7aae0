"""Train a network on simulated tumours, measure it on held-out patches, and store it.

    python tools/train_tumours.py --size 32 --minutes 9                 # about 1 M parameters from scratch
    python tools/train_tumours.py --widths 16 16 24 48 --out data/weights/tumour-64.safetensors
    python tools/train_tumours.py --released --out data/weights/tumour-64-released.safetensors
    python tools/train_tumours.py --concat --out data/weights/concat-64.safetensors
    python tools/train_tumours.py --regression both --seed 1 --out _build/baselines/both-1.safetensors

One training pair in ten diverges, one test pair in two: divergence is rarer in training than in
the field. With --minutes the number of steps is chosen from the time that the first ones take.
With --out, an interrupted run goes on where it stopped when the same command is given again.
"""

import argparse
import dataclasses
import platform
import shlex
import sys
import time
from functools import partial
from pathlib import Path

import torch

import damm_lite as dl

TRAIN_SEED = 1
INPUTS = {"vessels": ["primary"], "both": ["primary", "secondary"]}


def parser_of(description, patches):
    """The options of every training; `patches` is how many to simulate if not told otherwise."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of a patch in pixels")
    parser.add_argument("--widths", type=int, nargs=4, default=(16, 16, 32, 64))
    parser.add_argument("--patches", type=int, default=patches, help="training patches to simulate")
    parser.add_argument("--test-patches", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3200)
    parser.add_argument("--minutes", type=float, help="instead of --steps, also counting the simulation")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to store the weights; a safetensors file")
    return parser


def parse():
    parser = parser_of(__doc__, patches=16384)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--released", action="store_true", help="head, losses, phases and target as released")
    kind.add_argument("--concat", action="store_true", help="one plain U-Net on both images, concatenated")
    kind.add_argument("--regression", choices=INPUTS, help="one U-Net that predicts at once, without diffusion")
    return parser.parse_args()


def steps_within(seconds, model, schedule, patches, batch):
    """How many training steps fit into `seconds`, measured on ten of them."""
    config = dl.TrainConfig(num_steps=12, batch_size=batch, learning_rate=0.0)
    times = [time.perf_counter() for _ in dl.train(model, schedule, patches, config, progress=False)]
    per_step = (times[-1] - times[1]) / (len(times) - 2)
    return int((seconds - (time.perf_counter() - times[0])) / per_step)


def of_branches(model, schedule, part):
    """x0 of each way to use a `DAMMNet`, 20 steps, by name, and the "confidence"."""
    images = part["primary"], part["secondary"]
    results = {branch: dl.predict(model, schedule, *images, branch=branch) for branch in ("uni", "multi", "damm")}
    return {branch: result.x0.cpu() for branch, result in results.items()} | dict(confidence=results["damm"].confidence)


def conditions_of(part, inputs):
    """The images that a plain U-Net is given; (B, 1 or 2, H, W)."""
    return torch.cat([part[name] for name in INPUTS[inputs]], dim=1)


def of_concat(model, schedule, part):
    """x0 of one U-Net on both images."""
    return {"concat": dl.predict_unet(model, schedule, conditions_of(part, "both"), num_steps=20).cpu()}


@torch.inference_mode()
def of_regression(inputs, model, schedule, part):
    """x0 of a U-Net without diffusion, in one pass."""
    conditions = conditions_of(part, inputs).to(next(model.parameters()).device)
    return {"regression": dl.regress(model, conditions).clamp(-1, 1).cpu()}


def table(predictions_of, batch, kinds, score):
    """Mean `score` (x0, batch) -> (B,) by prediction and kind; printed. (means as a dict, confidence (B,) or None)."""
    columns = {"consistent": ~batch["divergent"], "divergent": batch["divergent"]}
    columns |= {kind: torch.tensor([k == kind for k in batch["kind"]]) for kind in kinds}
    columns["all"] = torch.ones(len(batch["divergent"]), dtype=torch.bool)
    print(f"{'SSIM':10}" + "".join(f"{name:>12}" for name in columns))
    parts = [predictions_of(part) for part in dl.chunks(batch, 16)]
    found = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
    scores, confidence = {}, found.pop("confidence", None)
    for name, x0 in found.items():
        ssim = score(x0, batch)
        scores[name] = {column: round(float(ssim[rows].mean()), 4) for column, rows in columns.items()}
        print(f"{name:10}" + "".join(f"{value:12.3f}" for value in scores[name].values()))
    return scores, confidence


def measure(predictions_of, size, n, model, schedule):
    """The scores on n held-out tumours, as a dict; printed."""
    batch = dl.stack(dl.SyntheticTumours(n, size, seed=dl.HELD_OUT_SEED))
    predictions_of = partial(predictions_of, model, schedule)
    scores, confidence = table(predictions_of, batch, dl.DIVERGENCES, lambda x0, batch: dl.ssim(x0, batch["target"]))
    whole = torch.tensor([kind in ("none", "section", "shift") for kind in batch["kind"]])  # all right or all wrong
    if confidence is not None:
        scores["auroc"] = round(dl.gate_auroc(confidence[whole], batch["divergent"][whole]), 4)
        print(f"gate AUROC, consistent against section and shift: {scores['auroc']:.3f}")
    return scores


def train_resumably(model, schedule, patches, config, objective, state):
    """`train`, with its state kept in the file `state` now and then; the last `Step`."""
    resume = state if state and state.exists() else None
    for step in dl.train(model, schedule, patches, config, objective, resume=resume):
        if state and step.step % 100 == 0 and step.step < config.num_steps:
            dl.save_state(state, step)
    return step


def train_ours(network, schedule, patches, config, state):
    """A head that reads both streams; each branch trained for what it is better at; the network predicts x0."""
    model = dl.DAMMNet(network, dl.JointConfidence, objective=dl.PredictsImage)
    return train_resumably(model, schedule, patches, config, dl.specialist_objective, state)


def train_released(network, schedule, patches, config, state):
    """As released: eps and L1; half of the steps without confidence, half with the query head."""
    half = dataclasses.replace(config, num_steps=config.num_steps // 2)
    warm_state = state and state.with_suffix(".warmup.state")
    first = dl.DAMMNet(network, confidence=None, objective=dl.PredictsNoise)
    warm = train_resumably(first, schedule, patches, half, dl.warmup_objective, warm_state)
    second = dl.DAMMNet(network, dl.QueryConfidence, objective=dl.PredictsNoise)
    second.load_state_dict(warm.ema.state_dict() | {k: v for k, v in second.state_dict().items() if "confidence" in k})
    rest = dataclasses.replace(config, num_steps=config.num_steps - half.num_steps)
    last = train_resumably(second, schedule, patches, rest, dl.released_objective, state)
    if warm_state:
        warm_state.unlink(missing_ok=True)
    return last


def train_concat(network, schedule, patches, config, state):
    """One U-Net with the sizes of a single branch, conditioned on vessels and nuclei."""
    model = dl.UNet(dataclasses.replace(network, in_channels=3), objective=dl.PredictsImage)
    return train_resumably(model, schedule, patches, config, dl.concat_objective, state)


def train_regression(inputs, network, schedule, patches, config, state):
    """The same U-Net, asked for the answer at once."""
    objective = {"vessels": dl.regression_objective, "both": dl.concat_regression_objective}[inputs]
    model = dl.UNet(dataclasses.replace(network, in_channels=1 + len(INPUTS[inputs])), objective=dl.PredictsImage)
    return train_resumably(model, schedule, patches, config, objective, state)


def chosen(arguments):
    """(how to train, how to predict) what the arguments ask for."""
    if arguments.regression:
        return partial(train_regression, arguments.regression), partial(of_regression, arguments.regression)
    if arguments.concat:
        return train_concat, of_concat
    return train_released if arguments.released else train_ours, of_branches


def train_and_store(arguments, start, patches, trainer, measure):
    """Train on `patches`, store the weights where the arguments say, measure, and store the scores with them.

    `trainer` is one of those above, `measure(model, schedule)` gives a dict of scores, `start` is when
    the simulation began.
    """
    network = dl.UNetConfig(2, 1, arguments.widths, time_dim=64)
    schedule = dl.scaled_linear_schedule()
    steps = arguments.steps
    if arguments.minutes:
        seconds = 60 * arguments.minutes - (time.perf_counter() - start)
        steps = steps_within(seconds, dl.DAMMNet(network), schedule, patches, arguments.batch)
    config = dl.TrainConfig(
        num_steps=steps, batch_size=arguments.batch, learning_rate=arguments.learning_rate, seed=arguments.seed
    )
    state = arguments.out and arguments.out.with_suffix(".state")
    if state:
        state.parent.mkdir(parents=True, exist_ok=True)
    resumed = bool(state and (state.exists() or state.with_suffix(".warmup.state").exists()))
    torch.manual_seed(arguments.seed)
    last = trainer(network, schedule, patches, config, state)
    minutes = (time.perf_counter() - start) / 60
    device = next(last.ema.parameters()).device
    count = sum(p.numel() for p in last.ema.parameters())
    print(f"{count:,} parameters, {steps} steps on {device} in {minutes:.1f} minutes, simulation included")

    about = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": arguments.seed,
        "steps": steps,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU",
        "minutes": round(minutes, 1),  # of this start alone, where the run was resumed
        "resumed": resumed,
        "torch": torch.__version__,
    }
    if arguments.out:
        dl.save_checkpoint(arguments.out, last.ema, schedule, **about)
    scores = measure(last.ema, schedule)
    if arguments.out:
        dl.save_checkpoint(arguments.out, last.ema, schedule, **about, scores=scores)
        state.unlink(missing_ok=True)


def main():
    arguments = parse()
    start = time.perf_counter()
    patches = list(dl.SyntheticTumours(arguments.patches, arguments.size, TRAIN_SEED, divergent_fraction=0.1))
    trainer, predictions_of = chosen(arguments)
    held_out = partial(measure, predictions_of, arguments.size, arguments.test_patches)
    train_and_store(arguments, start, patches, trainer, held_out)


if __name__ == "__main__":
    main()
