"""Predict the target from its conditions: sampler, network and gate together."""

import copy
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from damm_lite.damm import DAMMNet
from damm_lite.data import check_tensor, generator_of
from damm_lite.gates import DAMMP, AlwaysMulti, AlwaysUni, Decision
from damm_lite.inference import for_inference
from damm_lite.samplers import Generators, ddim_sampler, normal_like
from damm_lite.schedules import NoiseSchedule
from damm_lite.unet import UNet

GATES = {"damm": DAMMP, "uni": AlwaysUni, "multi": AlwaysMulti}
Gate = Callable[..., Decision]


class Prediction(NamedTuple):
    """S samples for each of B patches (or of the B slices of a volume), and
    what the gate decided.
    """

    samples: Tensor  # (S, B, C, H, W) in [-1, 1]
    branch: list[str]  # B names, "uni" or "multi": what most steps of all samples used
    confidence: Tensor  # (B,) in [0, 1], mean over steps: what the decisions were made on; 0 for "uni"
    confidence_map: Tensor  # (B, h, w) in [0, 1], likewise

    @property
    def x0(self) -> Tensor:
        """The mean of the samples; (B, C, H, W) in [-1, 1]."""
        return self.samples.mean(dim=0)

    @property
    def spread(self) -> Tensor:
        """Their standard deviation (B, C, H, W), divided by S; 0 for one
        sample.
        """
        return self.samples.std(dim=0, correction=0)


@torch.inference_mode()
def predict(
    model: DAMMNet,
    schedule: NoiseSchedule,
    primary: Tensor,
    secondary: Tensor,
    num_steps: int = 20,
    seed: int | Sequence[int] = 0,
    gate: str | Gate = "damm",
    num_samples: int = 1,
    sampler: Callable = ddim_sampler,
) -> Prediction:
    """Sample the target for conditions (B, C, H, W) in [-1, 1].

    `gate` is "damm" (the paper's), "uni" or "multi" (always that branch), or
    any of `gates`, of which each sample gets a copy; `sampler` any of
    `samplers`. One sample is a guess; the mean of several predicts better and
    their spread says how sure it is. The estimate of x0 is kept in [-1, 1] at
    every step. All noise comes from `seed`, one for each patch (an int s is s,
    s + 1, ...), so that a patch's prediction does not depend on what else is
    in the batch. The model itself is not touched: a copy `for_inference` runs.
    Raises ValueError for an unknown gate, as many seeds as there are no
    patches, or images that the network cannot take.
    """
    model, gate, seeds = unwrapped(model), gate_of(gate), seeds_of(seed, len(primary))
    check_number("num_samples", num_samples)
    conditions = _conditions(model, primary=primary, secondary=secondary)
    fast = for_inference(model)
    drawn = []
    for number in range(num_samples):
        generators = [generator_of(seed, number) for seed in seeds]
        drawn.append(draw_sample(fast, schedule, conditions, generators, num_steps, gate, sampler))
    return Prediction(torch.stack([x0 for x0, _ in drawn]), *_summary([d for _, decided in drawn for d in decided]))


def draw_sample(
    model: DAMMNet,
    schedule: NoiseSchedule,
    conditions: Sequence[Tensor],
    noise: Tensor | Generators,
    num_steps: int,
    gate: Gate,
    sampler: Callable = ddim_sampler,
) -> tuple[Tensor, list[Decision]]:
    """One sample (B, C, H, W) in [-1, 1], and the `Decision` of every step
    without its output; `model` as it is.

    `noise` is where to begin, or the generators, one for each sample, that
    draw this and each step's.
    """
    gate, decisions = copy.deepcopy(gate), []
    conditions = [model.to_latent(image) for image in conditions]
    encode = partial(_encode_uni, model) if isinstance(gate, AlwaysUni) else model.encode

    def denoiser(xt, t):
        decision = gate(model, encode(xt, t, *conditions))
        decisions.append(decision._replace(output=None))
        return model.prediction.to_x0(schedule, xt, decision.output, t).clamp(-1, 1)

    generators = None if torch.is_tensor(noise) else noise
    noise = noise if torch.is_tensor(noise) else first_noise(model, conditions[0], generators)
    return model.from_latent(sampler(denoiser, schedule, noise, num_steps, generators)), decisions


def _encode_uni(model, xt, t, primary, secondary):
    return model.encode_uni(xt, t, primary)


@torch.inference_mode()
def predict_slices(
    model: DAMMNet,
    schedule: NoiseSchedule,
    primary: Tensor,
    secondary: Tensor,
    num_steps: int = 20,
    seed: int = 0,
    gate: str | Gate | list = "damm",
    num_samples: int = 1,
) -> Prediction:
    """Predict a volume slice by slice, with a progress bar; conditions (n, C,
    H, W) in [-1, 1].

    Every slice begins with the same `num_samples` noises, so that what differs
    between neighbours comes from their conditions. `gate` may be a list of n,
    one for each slice. Otherwise, and in what is raised, as `predict`; the
    result is on the CPU.
    """
    gates = [gate_of(each) for each in (gate if isinstance(gate, list) else [gate] * len(primary))]
    check_number("num_samples", num_samples)
    model = unwrapped(model)
    conditions = _conditions(model, primary=primary, secondary=secondary)
    fast, (seed,) = for_inference(model), seeds_of(seed, 1)
    found = []
    for first, second, each in tqdm(zip(*conditions, gates, strict=True), desc="slices", total=len(primary)):
        copies = [image.expand(num_samples, *image.shape) for image in (first, second)]
        generators = [generator_of(seed, number) for number in range(num_samples)]
        x0, decisions = draw_sample(fast, schedule, copies, generators, num_steps, each)
        found.append((x0.cpu(), *_summary(decisions)))
    return Prediction(
        samples=torch.stack([x0 for x0, *_ in found], dim=1),
        branch=["multi" if 2 * branch.count("multi") >= num_samples else "uni" for _, branch, *_ in found],
        confidence=torch.stack([confidence.cpu().mean() for *_, confidence, _ in found]),
        confidence_map=torch.stack([maps.cpu().mean(dim=0) for *_, maps in found]),
    )


@torch.inference_mode()
def predict_unet(
    model: UNet,
    schedule: NoiseSchedule,
    conditions: Tensor,
    num_steps: int = 20,
    seed: int | Sequence[int] = 0,
    num_samples: int = 1,
    sampler: Callable = ddim_sampler,
) -> Tensor:
    """Samples (S, B, C, H, W) in [-1, 1] of a plain `UNet`, given all its
    conditions in one tensor.

    Same noise from the same seeds as `predict`, so the two can be compared
    patch by patch.
    """
    check_number("num_samples", num_samples)
    model, seeds = unwrapped(model), seeds_of(seed, len(conditions))
    (conditions,) = _conditions(model, conditions=conditions)
    fast, to_x0, drawn = for_inference(model), model.prediction.to_x0, []

    def denoiser(xt, t):
        return to_x0(schedule, xt, fast(xt, t, conditions), t).clamp(-1, 1)

    for number in range(num_samples):
        generators = [generator_of(seed, number) for seed in seeds]
        noise = first_noise(model, conditions, generators)
        drawn.append(sampler(denoiser, schedule, noise, num_steps, generators))
    return torch.stack(drawn)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network itself where it is wrapped to run on several devices."""
    wrappers = nn.DataParallel, nn.parallel.DistributedDataParallel, torch.optim.swa_utils.AveragedModel
    return model.module if isinstance(model, wrappers) else model


def gate_of(gate: str | Gate) -> Gate:
    """The gate of this name, or the gate itself; ValueError, saying which
    there are, for anything else.
    """
    if isinstance(gate, str) and gate in GATES:
        return GATES[gate]()
    if not callable(gate) or isinstance(gate, type):
        raise ValueError(f"gate: expected {', '.join(GATES)} or a gate such as DAMMP(), got {gate!r}")
    return gate


def check_number(name: str, number: int) -> None:
    """Raise ValueError unless there is at least one."""
    if number < 1:
        raise ValueError(f"{name}: expected at least 1, got {number}")


def seeds_of(seed: int | Sequence[int], n: int) -> list[int]:
    """A seed for each of n patches; an int s stands for s, s + 1, ..., n of
    them. ValueError for another number.
    """
    seeds = [operator.index(each) for each in seed] if hasattr(seed, "__len__") else [seed + i for i in range(n)]
    if len(seeds) != n or min(seeds, default=0) < 0:
        raise ValueError(f"seed: expected a whole number from 0 up, or one for each of {n} patches, got {seed!r}")
    return seeds


def first_noise(model: nn.Module, like: Tensor, generators: Generators) -> Tensor:
    """Where sampling begins: (B, out_channels, H, W), of the type and on the
    device of `like` (B, C, H, W).
    """
    return normal_like(like[:, :1].expand(-1, model.config.out_channels, -1, -1), generators)


def _conditions(model, **images):
    """The images, checked, of the network's type and on its device."""
    if hasattr(model, "encode_uni") != ("secondary" in images):
        raise ValueError(f"model: predict takes two branches, predict_unet one U-Net, got {type(model).__name__}")
    for name, image in images.items():
        check_tensor(name, image)
    weight = next(model.parameters())
    return [image.to(weight) for image in images.values()]


def _summary(decisions):
    """(branch, confidence, confidence_map) of all steps together."""
    trust = torch.stack([d.trust for d in decisions]).mean(dim=0)
    return (
        ["multi" if share >= 0.5 else "uni" for share in trust.tolist()],
        torch.stack([d.confidence for d in decisions]).mean(dim=0),
        torch.stack([d.confidence_map for d in decisions]).mean(dim=0),
    )
