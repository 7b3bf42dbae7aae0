"""The methods of the study: what is trained, and what is then done with it.

Every network sees the same patches, in the same steps and batches, has about
the same number of parameters, and is sampled in the same way; each of
`TRAININGS` changes one idea. `USES` says which methods a training gives: a
DAMM network gives several, one for each gate.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from damm_lite.damm import DAMMNet, DAMMOutput
from damm_lite.experiments.baselines import DistanceBaseline
from damm_lite.experiments.sampling import SAMPLERS
from damm_lite.fusion import Addition, Concatenation, JointConfidence, PlainAttention, QueryConfidence
from damm_lite.gates import DAMMP, SpatialDAMMP
from damm_lite.losses import our_loss, released_loss, squared_error, warmup_loss
from damm_lite.mismatches import BACKGROUND
from damm_lite.predict import Gate, predict, predict_unet
from damm_lite.prediction_types import PredictsNoise, PredictsPreconditioned
from damm_lite.resumable import Progress, fit
from damm_lite.schedules import NoiseSchedule, scaled_linear_schedule, shifted_schedule
from damm_lite.train import TrainConfig
from damm_lite.tumours.simulate import simulate_nanoparticles
from damm_lite.unet import RegressionUNet, UNet, UNetConfig

BRANCH, ALONE = (16, 16, 24, 48), (16, 16, 32, 80)  # widths: 1.07 M parameters in two branches, 1.06 M in one U-Net
MISMATCHES, DROPPED = 0.25, 0.25  # shares of each batch, and of the training pairs
stochastic = SAMPLERS["sde"]
Trained = tuple[nn.Module, NoiseSchedule]


@dataclass(frozen=True)
class Budget:
    """What every training and every prediction may use."""

    size: int = 32
    patches: int = 8192
    steps: int = 1600
    batch_size: int = 16
    num_steps: int = 20  # of the sampler
    num_samples: int = 16
    calibration_patches: int = 64
    test_patches: int = 128


class Tuned(NamedTuple):
    """What is chosen on calibration patches, which no score is taken on."""

    gamma: float = 0.5
    sharpness: float = 1.0
    guidance: float = 1.0


def damm(
    confidence: type | None = JointConfidence, prediction: type = PredictsPreconditioned, **parts: type
) -> DAMMNet:
    """The two-branch network of the study; `parts` are `DAMMNet`'s fusion and attention."""
    return DAMMNet(UNetConfig(2, 1, BRANCH, 64), confidence, prediction=prediction, **parts)


def unet(kind: type, *conditions: str) -> UNet:
    """A U-Net as large as both branches, with these images concatenated."""
    config = UNetConfig(1 + len(conditions), 1, ALONE, 64)
    if kind is RegressionUNet:
        return RegressionUNet(config, conditions)
    return UNet(config, PredictsPreconditioned, conditions)


def both_branches(output: DAMMOutput, target: Tensor, trusted: Tensor | None = None) -> Tensor:
    """The squared errors of both branches, everywhere: no head, no excuse."""
    return squared_error(output.uni, target) + squared_error(output.multi, target)


def robust_loss(output: DAMMOutput, target: Tensor, trusted: Tensor | None = None) -> Tensor:
    """Ours, but the multi-modal branch answers for what misleads it, too."""
    return our_loss(output, target, None, power=0.0)


def begin(
    build: Callable[[], nn.Module], loss: Callable, corrupted: float, budget: Budget, patches: list, seed: int,
    folder: Path, accelerator: Accelerator | None = None,
) -> Iterator[Progress]:  # fmt: skip
    """Train what `build` returns as the study does, resumably in `folder`; the `Progress` of every step."""
    torch.manual_seed(seed)
    config = TrainConfig(budget.steps, budget.batch_size, corrupted=corrupted, seed=seed)
    return fit(build(), shifted_schedule(), patches, config, loss, folder=folder, accelerator=accelerator)


def train_once(*how: object) -> Trained:
    """`begin` with the same arguments, to the end; (the network to use, its schedule)."""
    *_, last = begin(*how)
    return last.ema.eval(), shifted_schedule()


def train_with_dropout(budget: Budget, patches: list, seed: int, folder: Path) -> Trained:
    """Concatenation, with the second image blank in every fourth pair, so that
    it can be left out later, and its effect be enlarged.
    """
    blank = torch.full_like(patches[0]["secondary"], BACKGROUND)
    every = round(1 / DROPPED)
    patches = [item | {"secondary": blank} if i % every == 0 else item for i, item in enumerate(patches)]
    build = partial(unet, UNet, "primary", "secondary")
    return train_once(build, squared_error, 0.0, budget, patches, seed, folder)


def train_released(budget: Budget, patches: list, seed: int, folder: Path) -> Trained:
    """As released: noise, L1, two phases, the query head, no mismatches."""
    torch.manual_seed(seed)
    schedule, half = scaled_linear_schedule(), budget.steps // 2
    config = TrainConfig(half, budget.batch_size, corrupted=0.0, seed=seed)
    *_, warm = fit(damm(None, PredictsNoise), schedule, patches, config, warmup_loss, folder=folder / "warm-up")
    model = damm(QueryConfidence, PredictsNoise)
    model.load_state_dict(
        warm.ema.state_dict() | {key: x for key, x in model.state_dict().items() if "confidence" in key}
    )
    config = replace(config, num_steps=budget.steps - half)
    *_, last = fit(model, schedule, patches, config, released_loss, folder=folder)
    return last.ema.eval(), schedule


def draw_unet(
    model: UNet, schedule: NoiseSchedule, part: dict, seeds: list[int], tuned: Tuned, budget: Budget
) -> Tensor:
    """Samples (S, B, 1, H, W) of a U-Net; one of a regression."""
    conditions = torch.cat([part[name] for name in model.conditions], dim=1)
    if isinstance(model, RegressionUNet):
        return predict_unet(model, schedule, conditions, 1, seeds)
    return predict_unet(model, schedule, conditions, budget.num_steps, seeds, budget.num_samples, stochastic)


class Guided(nn.Module):
    """A U-Net whose guess goes `weight` times as far from what it says without
    the second image to what it says with it (Ho and Salimans 2022).
    """

    def __init__(self, model: UNet, weight: float):
        super().__init__()
        self.model, self.weight = model, weight
        self.config, self.prediction = model.config, model.prediction

    def forward(self, xt: Tensor, t: Tensor, conditions: Tensor) -> Tensor:
        without = conditions.clone()
        without[:, 1:] = BACKGROUND
        unguided = self.model(xt, t, without)
        return unguided + self.weight * (self.model(xt, t, conditions) - unguided)


def draw_guided(
    model: UNet, schedule: NoiseSchedule, part: dict, seeds: list[int], tuned: Tuned, budget: Budget
) -> Tensor:
    """Samples of a U-Net trained with dropout, guided."""
    conditions = torch.cat([part[name] for name in model.conditions], dim=1)
    guided = Guided(model, tuned.guidance)
    return predict_unet(guided, schedule, conditions, budget.num_steps, seeds, budget.num_samples, stochastic)


def draw_gated(
    gate: Callable[[Tuned], Gate | str],
    model: DAMMNet,
    schedule: NoiseSchedule,
    part: dict,
    seeds: list[int],
    tuned: Tuned,
    budget: Budget,
) -> Tensor:
    """Samples of a DAMM network by the gate that `gate` makes of what was tuned."""
    images = part["primary"], part["secondary"]
    steps, samples = budget.num_steps, budget.num_samples
    return predict(model, schedule, *images, steps, seeds, gate(tuned), samples, stochastic).samples


def by_solver(part: dict) -> Tensor:
    """The simulator's own physics on the images as they are: (1, B, 1, H, W)."""
    images = [(part[name][:, 0].double().numpy() + 1) / 2 for name in ("primary", "secondary")]
    found = [simulate_nanoparticles(*pair) for pair in zip(*images, strict=True)]
    return torch.stack([torch.from_numpy(2 * x - 1).float()[None] for x in found])[None]


def draw_solver_gated(
    model: DAMMNet, schedule: NoiseSchedule, part: dict, seeds: list[int], tuned: Tuned, budget: Budget
) -> Tensor:
    """The solver on patches whose second image the gate believes; elsewhere samples of the uni-modal branch."""
    images = part["primary"], part["secondary"]
    gate, steps, samples = DAMMP(tuned.gamma), budget.num_steps, budget.num_samples
    found = predict(model, schedule, *images, steps, seeds, gate, samples, stochastic)
    believed = torch.tensor([branch == "multi" for branch in found.branch]).view(-1, 1, 1, 1)
    return torch.where(believed, by_solver(part).to(found.samples), found.samples)


def by_distance(baseline: DistanceBaseline, part: dict) -> Tensor:
    """The ruler: (1, B, 1, H, W)."""
    return baseline(part["primary"]).clamp(-1, 1)[None]


def _unets(kind, loss=squared_error):
    vessels, both = partial(unet, kind, "primary"), partial(unet, kind, "primary", "secondary")
    return [partial(train_once, *how) for how in ((vessels, loss, 0.0), (both, loss, 0.0), (both, loss, MISMATCHES))]


REGRESSIONS, DIFFUSIONS = _unets(RegressionUNet), _unets(UNet)
ABLATIONS = {
    "without mismatches": (damm, our_loss, 0.0),
    "query head": (partial(damm, QueryConfidence), our_loss, MISMATCHES),
    "concatenation": (partial(damm, fusion=Concatenation), our_loss, MISMATCHES),
    "addition": (partial(damm, fusion=Addition), our_loss, MISMATCHES),
    "plain attention": (partial(damm, attention=PlainAttention), our_loss, MISMATCHES),
}
TRAININGS = {
    "regression, vessels": REGRESSIONS[0],
    "regression, both": REGRESSIONS[1],
    "regression, both, mismatches": REGRESSIONS[2],
    "diffusion, vessels": DIFFUSIONS[0],
    "concatenation": DIFFUSIONS[1],
    "concatenation, mismatches": DIFFUSIONS[2],
    "concatenation, dropout": train_with_dropout,
    "two branches": partial(train_once, partial(damm, None), both_branches, 0.0),
    "released": train_released,
    "ours": partial(train_once, damm, our_loss, MISMATCHES),
    "ours, robust": partial(train_once, damm, robust_loss, MISMATCHES),
} | {f"ours, {change}": partial(train_once, *how) for change, how in ABLATIONS.items()}
WHOLE = partial(draw_gated, lambda tuned: DAMMP(tuned.gamma))
PIXEL = partial(draw_gated, lambda tuned: SpatialDAMMP(tuned.sharpness))
UNI, MULTI = (partial(draw_gated, lambda tuned, branch=branch: branch) for branch in ("uni", "multi"))
GATED = {", uni": UNI, ", multi": MULTI, ", patch": WHOLE, ", pixel": PIXEL}
# What is done with each training: {ending of the method's name: function}; a
# U-Net is sampled.
USES = {name: {"": draw_unet} for name in TRAININGS} | {
    "concatenation, dropout": {"": draw_unet, ", guided": draw_guided},
    "two branches": {", multi": MULTI},
    "released": {"": WHOLE},
    **{name: GATED for name in TRAININGS if name.startswith("ours, ")},
    "ours": GATED | {", solver": draw_solver_gated},
}
