"""Ablations: take one thing out of the network, train it again, and see what
that costs.

An ablation is a *factor* with *levels*; each level says how to build, train
and use the network, and is otherwise the book's own. Levels that differ only
in use share one training, also between factors.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, partial

import pandas as pd
import torch

from damm_lite.damm import DAMMNet
from damm_lite.data import stack
from damm_lite.fusion import MMFM, UAFM, Addition, Concatenation, JointConfidence, PlainAttention, QueryConfidence
from damm_lite.gates import DAMMP, AlwaysMulti, AlwaysUni, DecideOnce, HardSpatialDAMMP, MeanOfBranches, SpatialDAMMP
from damm_lite.losses import our_loss, released_loss
from damm_lite.metrics import psnr, ssim
from damm_lite.predict import predict
from damm_lite.prediction_types import PredictsImage, PredictsNoise, PredictsVelocity
from damm_lite.samplers import ddim_sampler, dpm_sampler
from damm_lite.schedules import NoiseSchedule, cosine_schedule, linear_schedule, scaled_linear_schedule
from damm_lite.train import TrainConfig, train
from damm_lite.tumours.synthetic import HELD_OUT_SEED, SyntheticTumours
from damm_lite.unet import UNetConfig


@dataclass(frozen=True)
class Network:
    """What has to be trained anew when it changes."""

    fusion: type = MMFM
    attention: type = UAFM
    confidence: type | None = JointConfidence
    prediction: type = PredictsImage
    loss: Callable = our_loss
    schedule: Callable = scaled_linear_schedule
    divergent: float = 0.1  # share of the training pairs; fewer than in the field, which has half


@dataclass(frozen=True)
class Level:
    """One way to build and use the network."""

    network: Network = Network()
    gate: Callable = DAMMP  # makes a gate; called once a prediction
    num_steps: int = 20
    sampler: Callable = ddim_sampler


@dataclass(frozen=True)
class Budget:
    """How much work a level may cost; the defaults take about two minutes of
    one CPU core.
    """

    size: int = 32
    widths: tuple = (16, 16, 16, 16)
    patches: int = 512
    steps: int = 400
    batch_size: int = 8
    test_patches: int = 96

    def __post_init__(self):
        UNetConfig(widths=self.widths)
        for field in fields(self):
            value = getattr(self, field.name)
            if any(type(n) is not int or n < 1 for n in (value if field.name == "widths" else [value])):
                raise ValueError(f"{field.name}: expected whole numbers from 1 up, got {value!r}")
        if self.size % 4:
            raise ValueError(f"size: expected a multiple of 4 pixels, got {self.size}")


COMMON = Network(divergent=0.5)  # as many in training as in the field

FACTORS = {
    "fusion": {
        "MMFM": Level(),
        "addition": Level(Network(fusion=Addition)),
        "concatenation": Level(Network(fusion=Concatenation)),
    },
    "attention": {"keys scaled by confidence": Level(), "plain": Level(Network(attention=PlainAttention))},
    "head": {
        "joint": Level(),
        "query": Level(Network(confidence=QueryConfidence)),
        "none": Level(Network(confidence=None)),
    },
    "loss": {
        "ours": Level(),
        "ours, not specialising": Level(Network(loss=partial(our_loss, power=0.0))),
        "released": Level(Network(loss=released_loss)),
    },
    "prediction": {
        "image": Level(),
        "velocity": Level(Network(prediction=PredictsVelocity)),
        "noise": Level(Network(prediction=PredictsNoise)),
    },
    "schedule": {
        "scaled linear": Level(),
        "linear": Level(Network(schedule=linear_schedule)),
        "cosine": Level(Network(schedule=cosine_schedule)),
    },
    "sampler": {
        "DDIM, 20 steps": Level(),
        "DPM-Solver++, 20 steps": Level(sampler=dpm_sampler),
        "DDIM, 3 steps": Level(num_steps=3),
        "DPM-Solver++, 3 steps": Level(num_steps=3, sampler=dpm_sampler),
    },
    "gate": {
        "every step": Level(),
        "once": Level(gate=DecideOnce),
        "per pixel, hard": Level(gate=HardSpatialDAMMP),
        "per pixel, soft": Level(gate=SpatialDAMMP),
        "mean of branches": Level(gate=MeanOfBranches),
        "always uni": Level(gate=AlwaysUni),
        "always multi": Level(gate=AlwaysMulti),
    },
    "gamma": {str(gamma): Level(gate=partial(DAMMP, gamma)) for gamma in (0.1, 0.3, 0.5, 0.7, 0.9)},
    "regime": {
        "rare, uni": Level(gate=AlwaysUni),
        "rare, multi": Level(gate=AlwaysMulti),
        "rare, DAMMP": Level(),
        "common, uni": Level(COMMON, AlwaysUni),
        "common, multi": Level(COMMON, AlwaysMulti),
        "common, DAMMP": Level(COMMON),
    },
    "num_steps": {str(n): Level(num_steps=n) for n in (1, 2, 5, 10, 20, 50)},
}


@cache
def train_network(network: Network, budget: Budget, seed: int) -> tuple[DAMMNet, NoiseSchedule]:
    """(trained `DAMMNet`, schedule) of one `Network`; everything random from
    `seed`.
    """
    torch.manual_seed(seed)
    model = DAMMNet(
        UNetConfig(2, 1, budget.widths, 64),
        confidence=network.confidence,
        prediction=network.prediction,
        fusion=network.fusion,
        attention=network.attention,
    )
    schedule = network.schedule()
    patches = list(SyntheticTumours(budget.patches, budget.size, seed, network.divergent))
    config = TrainConfig(budget.steps, budget.batch_size, seed=seed)
    *_, last = train(model, schedule, patches, config, network.loss)
    return last.ema, schedule


def measure_all(levels: list[Level], budget: Budget, seed: int) -> list[pd.DataFrame]:
    """A table of `measure` for each of several levels; those that differ only
    in use share one training.
    """
    return [measure(level, budget, seed) for level in levels]


def measure(level: Level, budget: Budget, seed: int) -> pd.DataFrame:
    """Train what a `Level` needs and use it on the held-out patches: a row for
    each.

    Columns: index, kind, confidence, ssim, psnr (dB).
    """
    model, schedule = train_network(level.network, budget, seed)
    batch = held_out(budget)
    images = batch["primary"], batch["secondary"]
    result = predict(model, schedule, *images, level.num_steps, gate=level.gate(), sampler=level.sampler)
    x0, target = result.x0.cpu(), batch["target"]
    row = dict(index=range(len(target)), kind=batch["kind"], confidence=result.confidence.cpu())
    return pd.DataFrame(row | dict(ssim=ssim(x0, target), psnr=psnr(x0, target)))


@cache
def held_out(budget: Budget) -> dict:
    """The patches on which all levels are measured, as one batch."""
    return stack(SyntheticTumours(budget.test_patches, budget.size, seed=HELD_OUT_SEED))
