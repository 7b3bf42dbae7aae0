"""The study of chapter 11: every method at one budget, from several seeds.

    python -m damm_lite.experiments.study --out _build/study
    python -m damm_lite.experiments.study --out runs --development

The first makes the protocol's runs, the second judges on other patches, to
choose a recipe.

A run is one training, its tuning on calibration patches, and the scores of all
methods that it gives on the test patches. Each has a folder; runs whose table
is there are not done again, and an interrupted training goes on where it was,
so that several processes can share the runs among them by --only and --seeds.
The test patches' seed is the sha256 of the protocol's text, so that whoever
changes the protocol draws others. `study.csv` in the folder has a row for each
method, training seed and test patch of all runs that lie there.
"""

import argparse
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from damm_lite.atomic import atomic_write
from damm_lite.data import chunks, stack
from damm_lite.distributions import crps
from damm_lite.experiments.baselines import DistanceBaseline
from damm_lite.experiments.methods import (
    MULTI,
    TRAININGS,
    UNI,
    USES,
    Budget,
    Tuned,
    by_distance,
    by_solver,
    draw_guided,
    stochastic,
)  # fmt: skip
from damm_lite.experiments.runs import Kept
from damm_lite.gates import upsample
from damm_lite.metrics import mae, psnr, ssim
from damm_lite.predict import predict
from damm_lite.tumours.simulate import Physics
from damm_lite.tumours.synthetic import DIVERGENCES, SyntheticTumours

PROTOCOL = Path(__file__).resolve().parents[2] / "book" / "protocol.md"
DEVELOPMENT_SEED, CALIBRATION_SEED = 8_000_001, 9_000_001
REGIMES = {"clean": 0.0, "natural": 0.1}  # share of the training pairs that diverge; in the field it is one half
SEEDS = (0, 1, 2, 3, 4)
SHARPNESS, GUIDANCE = (1.0, 2.0, 4.0), (1.0, 1.5, 2.0)


def seed_of(protocol: Path) -> int:
    """The seed that the text of the protocol stands for: 15 digits of its sha256, as a number."""
    return int(hashlib.sha256(protocol.read_bytes()).hexdigest()[:15], 16)


def field_patches(count: int, size: int, seed: int, physics: Physics | None = None) -> dict:
    """`count` patches as one batch: the first half of each eight consistent, then one of each kind of divergence."""
    wanted = (["none"] * len(DIVERGENCES) + list(DIVERGENCES)) * (count // (2 * len(DIVERGENCES)))
    found, drawn = {kind: [] for kind in wanted}, SyntheticTumours(100 * count, size, seed, physics=physics)
    for item in drawn:
        if len(found[item["kind"]]) < wanted.count(item["kind"]):
            found[item["kind"]].append(item)
        if sum(map(len, found.values())) == len(wanted):
            return stack(found[kind].pop(0) for kind in wanted)
    raise RuntimeError(f"{count} patches of all kinds not found among {len(drawn)}")


def scored(samples: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The four scores (B,) of samples (S, B, C, H, W): three of their mean, and CRPS, for one the absolute error."""
    mean = samples.mean(dim=0)
    found = {"ssim": ssim(mean, target), "psnr": psnr(mean, target), "mae": mae(mean, target)}
    pixelwise = crps(samples, target) if len(samples) > 1 else (mean - target).abs()
    return found | {"crps": pixelwise.mean(dim=(1, 2, 3))}


def drawn(sample: Callable[[dict, list[int]], Tensor], batch: dict, first_seed: int) -> tuple[Tensor, float]:
    """(samples (S, B, 1, H, W) of all patches, sixteen at a time, each with a
    seed of its own; processor seconds a patch).
    """
    start, parts, done = time.process_time(), [], 0
    for part in tqdm(list(chunks(batch, 16)), leave=False, desc="patches"):
        seeds = [first_seed + 1000 * (done + i) for i in range(len(part["target"]))]
        parts.append(sample(part, seeds).cpu())
        done += len(seeds)
    return torch.cat(parts, dim=1), (time.process_time() - start) / done


def confidences(model: torch.nn.Module, schedule: object, batch: dict) -> tuple[Tensor, Tensor]:
    """(c (B,), map (B, h, w)) of one sample of the multi-modal branch, on average over its steps."""
    parts = [
        predict(model, schedule, part["primary"], part["secondary"], 5, 16 * i, "multi", sampler=stochastic)
        for i, part in enumerate(chunks(batch, 16))
    ]
    return torch.cat([p.confidence for p in parts]), torch.cat([p.confidence_map for p in parts])


def tune_gates(model: torch.nn.Module, schedule: object, batch: dict, budget: Budget) -> Tuned:
    """The gamma and the sharpness that would have given the best mean SSIM on
    calibration patches, by what both branches say there.
    """
    uni, multi = (
        drawn(partial(sampled, gate, model, schedule, Tuned(), budget), batch, CALIBRATION_SEED)[0].mean(dim=0)
        for gate in (UNI, MULTI)
    )
    return choose(uni, multi, *confidences(model, schedule, batch), batch["target"])


def choose(uni: Tensor, multi: Tensor, confidence: Tensor, maps: Tensor, target: Tensor) -> Tuned:
    """The gamma and the sharpness with the best mean SSIM, by what both branches
    say (B, 1, H, W), c (B,) and its maps (B, h, w).
    """
    scores = [ssim(x, target) for x in (uni, multi)]
    gammas = [0.0, *confidence.sort().values.tolist(), 1.0]
    gamma = max(gammas, key=lambda g: torch.where(confidence < g, *scores).mean().item())

    def mixed(sharpness):
        share = torch.sigmoid(sharpness * torch.logit(upsample(maps[:, None], 4)))
        return ssim(share * multi + (1 - share) * uni, target).mean().item()

    return Tuned(gamma=gamma, sharpness=max(SHARPNESS, key=mixed))


def tune_guidance(model: torch.nn.Module, schedule: object, batch: dict, budget: Budget) -> Tuned:
    """The guidance with the best mean SSIM on calibration patches."""

    def score(weight):
        guided = partial(sampled, draw_guided, model, schedule, Tuned(guidance=weight), budget)
        samples, _ = drawn(guided, batch, CALIBRATION_SEED)
        return ssim(samples.mean(dim=0), batch["target"]).mean().item()

    return Tuned(guidance=max(GUIDANCE, key=score))


def sampled(
    use: Callable, model: torch.nn.Module, schedule: object, tuned: Tuned, budget: Budget, part: dict, seeds: list[int]
) -> Tensor:
    """Samples by a method of `USES` for a part of a batch, which comes last: what `drawn` wants of a `partial`."""
    return use(model, schedule, part, seeds, tuned, budget)


def folder_name(training: str, seed: int) -> str:
    """Where a run of this training is kept."""
    return f"{training} {seed}".replace(", ", "-").replace(" ", "-")


def training_patches(budget: Budget, seed: int, regime: str = "clean") -> Kept:
    """What every training from this seed sees."""
    patches = SyntheticTumours(budget.patches, budget.size, 100 + seed, REGIMES[regime])
    return Kept(patches, ("target", "primary", "secondary"))


TUNES = {name: tune_gates for name in TRAININGS if name.startswith("ours")} | {"concatenation, dropout": tune_guidance}


def run(name: str, regime: str, seed: int, budget: Budget, batch: dict, folder: Path) -> pd.DataFrame:
    """Train, tune and score; a row for each method of the training and each patch of `batch`."""
    model, schedule = TRAININGS[name](budget, training_patches(budget, seed, regime), seed, folder)
    tuned = Tuned()
    if name in TUNES:
        calibration = field_patches(budget.calibration_patches, budget.size, CALIBRATION_SEED)
        fewer = replace(budget, num_steps=max(1, budget.num_steps // 2), num_samples=max(1, budget.num_samples // 4))
        tuned = TUNES[name](model, schedule, calibration, fewer)
    parameters, tables = sum(p.numel() for p in model.parameters()), []
    about = dict(regime=regime, seed=seed, parameters=parameters, **tuned._asdict())
    if name.startswith("ours"):
        about["confidence"] = confidences(model, schedule, batch)[0].numpy()
    for ending, use in USES[name].items():
        samples, seconds = drawn(partial(sampled, use, model, schedule, tuned, budget), batch, 1)
        tables.append(table_of(name + ending, samples, batch).assign(**about, seconds=seconds))
    return pd.concat(tables)


def table_of(method: str, samples: Tensor, batch: dict) -> pd.DataFrame:
    """The rows of one method."""
    columns = dict(method=method, index=range(len(batch["kind"])), kind=batch["kind"], samples=len(samples))
    return pd.DataFrame(columns | {name: x.numpy() for name, x in scored(samples, batch["target"]).items()})


def without_network(budget: Budget, batch: dict) -> pd.DataFrame:
    """The methods that nobody trains: the solver on the images as they are, and the ruler, fitted on 1024 patches."""
    ruler = DistanceBaseline(SyntheticTumours(1024, budget.size, 100, 0.0))
    found = {"solver": by_solver(batch), "ruler": by_distance(ruler, batch)}
    return pd.concat([table_of(name, samples, batch).assign(seed=0) for name, samples in found.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=TRAININGS, default=list(TRAININGS), metavar="TRAINING")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=["clean"])
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--size", type=int, default=Budget.size)
    parser.add_argument("--steps", type=int, default=Budget.steps)
    parser.add_argument("--patches", type=int, default=Budget.patches)
    parser.add_argument("--samples", type=int, default=Budget.num_samples)
    parser.add_argument("--test-patches", type=int, default=Budget.test_patches)
    parser.add_argument("--development", action="store_true", help="patches that are not the protocol's")
    arguments = parser.parse_args()
    budget = Budget(
        size=arguments.size,
        patches=arguments.patches,
        steps=arguments.steps,
        num_samples=arguments.samples,
        test_patches=arguments.test_patches,
    )
    seed = DEVELOPMENT_SEED if arguments.development else seed_of(PROTOCOL)
    batch = field_patches(budget.test_patches, budget.size, seed)
    runs = list(product(arguments.seeds, arguments.regimes, arguments.only))
    untrained = without_network(budget, batch)
    for training_seed, regime, name in tqdm(runs, desc="runs"):
        folder = arguments.out / regime / folder_name(name, training_seed)
        path = folder / f"scores-{seed}.csv"
        if not path.is_file():
            table = run(name, regime, training_seed, budget, batch, folder)
            with atomic_write(path) as whole:
                table.round(5).to_csv(whole, index=False)
        done = [pd.read_csv(path) for path in sorted(arguments.out.glob(f"*/*/scores-{seed}.csv"))]
        with atomic_write(arguments.out / "study.csv") as whole:
            pd.concat([untrained, *done]).round(5).to_csv(whole, index=False)


if __name__ == "__main__":
    main()
