"""One training as a command: its options, the networks it can train, its
scores, and the file it leaves.
"""

import argparse
import dataclasses
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from damm_lite.checkpoint import save_checkpoint, save_state
from damm_lite.damm import DAMMNet
from damm_lite.data import chunks
from damm_lite.fusion import JointConfidence, QueryConfidence
from damm_lite.losses import our_loss, released_loss, squared_error, warmup_loss
from damm_lite.predict import predict, predict_unet
from damm_lite.prediction_types import PredictsImage, PredictsNoise
from damm_lite.schedules import NoiseSchedule, scaled_linear_schedule
from damm_lite.train import Step, TrainConfig, train
from damm_lite.unet import RegressionUNet, UNet, UNetConfig

TRAIN_SEED = 1
CONDITIONS = {"vessels": ("primary",), "both": ("primary", "secondary")}


class Kept(Dataset):
    """A dataset whose items are drawn when first asked for, and then kept in
    memory; of each item what `keys` name.
    """

    def __init__(self, dataset: Dataset, keys: Sequence[str]) -> None:
        self.dataset, self.keys, self.items = dataset, tuple(keys), {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        if index not in self.items:
            item = self.dataset[index]
            self.items[index] = {key: item[key] for key in self.keys}
        return self.items[index]


def parser_of(description: str, patches: int) -> argparse.ArgumentParser:
    """The options of every training; `patches` is how many to simulate if not
    told otherwise.
    """
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


def train_resumably(
    model: nn.Module, schedule: NoiseSchedule, patches: list, config: TrainConfig, loss: Callable, state: Path | None
) -> Step:
    """`train`, with its state kept in the file `state` now and then; the last
    `Step`.
    """
    resume = state if state and state.exists() else None
    for step in train(model, schedule, patches, config, loss, resume=resume):
        if state and step.step % 100 == 0 and step.step < config.num_steps:
            save_state(state, step)
    return step


def train_ours(
    network: UNetConfig, schedule: NoiseSchedule, patches: list, config: TrainConfig, state: Path | None
) -> Step:
    """The book's recipe: a head that reads both streams, our loss, a network
    that predicts x0.
    """
    model = DAMMNet(network, JointConfidence, prediction=PredictsImage)
    return train_resumably(model, schedule, patches, config, our_loss, state)


def train_released(
    network: UNetConfig, schedule: NoiseSchedule, patches: list, config: TrainConfig, state: Path | None
) -> Step:
    """As released: eps and L1; half of the steps without confidence, half with
    the query head; no mismatches.
    """
    config = dataclasses.replace(config, corrupted=0.0)
    half = dataclasses.replace(config, num_steps=config.num_steps // 2)
    warm_state = state and state.with_suffix(".warmup.state")
    first = DAMMNet(network, confidence=None, prediction=PredictsNoise)
    warm = train_resumably(first, schedule, patches, half, warmup_loss, warm_state)
    second = DAMMNet(network, QueryConfidence, prediction=PredictsNoise)
    second.load_state_dict(warm.ema.state_dict() | {k: v for k, v in second.state_dict().items() if "confidence" in k})
    rest = dataclasses.replace(config, num_steps=config.num_steps - half.num_steps)
    last = train_resumably(second, schedule, patches, rest, released_loss, state)
    if warm_state:
        warm_state.unlink(missing_ok=True)
    return last


def train_concat(
    network: UNetConfig, schedule: NoiseSchedule, patches: list, config: TrainConfig, state: Path | None
) -> Step:
    """One U-Net with the sizes of a single branch, conditioned on vessels and
    nuclei, without mismatches.
    """
    model = UNet(dataclasses.replace(network, in_channels=3), PredictsImage, CONDITIONS["both"])
    config = dataclasses.replace(config, corrupted=0.0)
    return train_resumably(model, schedule, patches, config, squared_error, state)


def train_regression(
    inputs: str, network: UNetConfig, schedule: NoiseSchedule, patches: list, config: TrainConfig, state: Path | None
) -> Step:
    """The same U-Net, asked for the answer at once, from "vessels" or "both"."""
    conditions = CONDITIONS[inputs]
    model = RegressionUNet(dataclasses.replace(network, in_channels=1 + len(conditions)), conditions)
    config = dataclasses.replace(config, corrupted=0.0)
    return train_resumably(model, schedule, patches, config, squared_error, state)


def predictions_of_damm(model: DAMMNet, schedule: NoiseSchedule, part: dict) -> dict[str, torch.Tensor]:
    """x0 of each way to use a `DAMMNet`, 20 steps, by name, and the
    "confidence".
    """
    images = part["primary"], part["secondary"]
    results = {gate: predict(model, schedule, *images, gate=gate) for gate in ("uni", "multi", "damm")}
    return {gate: result.x0.cpu() for gate, result in results.items()} | dict(confidence=results["damm"].confidence)


def predictions_of_unet(model: UNet, schedule: NoiseSchedule, part: dict) -> dict[str, torch.Tensor]:
    """x0 of a plain U-Net; of one without diffusion in one pass, else in 20
    steps.
    """
    return {"U-Net": sample_unet(model, schedule, part, num_steps=20)[0].cpu()}


def sample_unet(
    model: UNet, schedule: NoiseSchedule, part: dict, num_steps: int, seed: int = 0, num_samples: int = 1
) -> torch.Tensor:
    """Samples (S, B, C, H, W) of a plain U-Net for a batch of patches; one, in
    one pass, of a regression.
    """
    conditions = torch.cat([part[name] for name in model.conditions], dim=1)
    if isinstance(model, RegressionUNet):
        num_steps, num_samples = 1, 1
    return predict_unet(model, schedule, conditions, num_steps, seed, num_samples)


def score_table(
    predictions_of: Callable, batch: dict, kinds: Iterable[str], score: Callable
) -> tuple[dict, torch.Tensor | None]:
    """Mean `score` (x0, batch) -> (B,) by prediction and kind; printed. (means
    as a dict, confidence (B,) or None).
    """
    columns = {"consistent": ~batch["divergent"], "divergent": batch["divergent"]}
    columns |= {kind: torch.tensor([k == kind for k in batch["kind"]]) for kind in kinds}
    columns["all"] = torch.ones(len(batch["divergent"]), dtype=torch.bool)
    print(f"{'SSIM':10}" + "".join(f"{name:>12}" for name in columns))
    parts = [predictions_of(part) for part in chunks(batch, 16)]
    found = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
    scores, confidence = {}, found.pop("confidence", None)
    for name, x0 in found.items():
        values = score(x0, batch)
        scores[name] = {column: round(float(values[rows].mean()), 4) for column, rows in columns.items()}
        print(f"{name:10}" + "".join(f"{value:12.3f}" for value in scores[name].values()))
    return scores, confidence


def steps_within(seconds: float, model: nn.Module, schedule: NoiseSchedule, patches: list, batch: int) -> int:
    """How many training steps fit into `seconds`, measured on ten of them."""
    config = TrainConfig(num_steps=12, batch_size=batch, learning_rate=0.0)
    times = [time.perf_counter() for _ in train(model, schedule, patches, config, progress=False)]
    per_step = (times[-1] - times[1]) / (len(times) - 2)
    return int((seconds - (time.perf_counter() - times[0])) / per_step)


def about_run(device: torch.device, **more: object) -> dict:
    """What is stored with the weights of a command: itself, where it ran, and `more`."""
    return {
        "command": shlex.join(["python", "-m", sys.modules["__main__"].__spec__.name, *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU",
        "torch": torch.__version__,
        **more,
    }


def train_and_store(
    arguments: argparse.Namespace, start: float, patches: list, trainer: Callable, measure: Callable
) -> None:
    """Train on `patches`, store the weights where the arguments say, measure,
    and store the scores with them.

    `trainer` is one of those above, `measure(model, schedule)` gives a dict of
    scores, `start` is when the simulation began.
    """
    network = UNetConfig(2, 1, arguments.widths, time_dim=64)
    schedule = scaled_linear_schedule()
    steps = arguments.steps
    if arguments.minutes:
        seconds = 60 * arguments.minutes - (time.perf_counter() - start)
        steps = steps_within(seconds, DAMMNet(network), schedule, patches, arguments.batch)
    config = TrainConfig(
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

    # Minutes are of this start alone, where the run was resumed.
    about = about_run(device, seed=arguments.seed, steps=steps, minutes=round(minutes, 1), resumed=resumed)
    if arguments.out:
        save_checkpoint(arguments.out, last.ema, schedule, **about)
    scores = measure(last.ema, schedule)
    if arguments.out:
        save_checkpoint(arguments.out, last.ema, schedule, **about, scores=scores)
        state.unlink(missing_ok=True)
