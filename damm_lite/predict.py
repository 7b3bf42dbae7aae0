"""Predict the target from its conditions: sampler, network and gate together."""

from functools import partial
from typing import NamedTuple

import torch
from tqdm.auto import tqdm

from damm_lite.data import check_tensor
from damm_lite.gates import DAMMP, MultiModal, UniModal
from damm_lite.inference import for_inference
from damm_lite.samplers import ddim_sampler

GATES = {"damm": DAMMP(), "uni": UniModal(), "multi": MultiModal()}


class Prediction(NamedTuple):
    """What `predict` returns for a batch of B patches."""

    x0: torch.Tensor  # (B, C, H, W) in [-1, 1], the mean of the samples
    spread: torch.Tensor  # (B, C, H, W), their standard deviation; 0 for one sample
    branch: list  # B names, "uni" or "multi": what most of the steps used
    confidence: torch.Tensor  # (B,) in [0, 1], mean over steps: what the decisions were made on; 0 for "uni"
    confidence_map: torch.Tensor  # (B, h, w) in [0, 1], likewise


@torch.inference_mode()
def predict(
    model, schedule, primary, secondary, num_steps=20, seed=0, branch="damm", num_samples=1, sampler=ddim_sampler
):
    """Sample the target for conditions (B, C, H, W) in [-1, 1]; returns a `Prediction`.

    `branch` is "damm" (the gate decides), "uni", "multi", or a gate such as `SpatialDAMMP()`; `sampler` is
    a function like `ddim_sampler`. One sample is a guess; the mean of several predicts better and their
    spread says how sure it is. The model itself is not touched: a copy `for_inference` runs. Noise comes
    from `seed` alone.
    Raises ValueError for an unknown branch or images that the network cannot take.
    """
    gate = gate_of(branch)
    if num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
    check_tensor("primary", primary)
    check_tensor("secondary", secondary)
    device, generator = next(model.parameters()).device, torch.Generator().manual_seed(seed)
    primary, secondary = primary.to(device), secondary.to(device)
    shape = (len(primary), model.config.out_channels, *primary.shape[2:])
    noises = [torch.randn(shape, generator=generator).to(device) for _ in range(num_samples)]
    fast = for_inference(model)
    drawn = [draw(fast, schedule, primary, secondary, noise, num_steps, gate, sampler) for noise in noises]
    samples, decisions = torch.stack([x0 for x0, _ in drawn]), [d for _, decided in drawn for d in decided]
    trust = torch.stack([d.trust for d in decisions]).mean(dim=0)
    return Prediction(
        x0=samples.mean(dim=0),
        spread=samples.std(dim=0, correction=0),
        branch=["multi" if share >= 0.5 else "uni" for share in trust.tolist()],
        confidence=torch.stack([d.confidence for d in decisions]).mean(dim=0),
        confidence_map=torch.stack([d.confidence_map for d in decisions]).mean(dim=0),
    )


def gate_of(branch):
    """The gate of this name, or the gate itself; ValueError, saying which there are, for an unknown name."""
    gate = GATES.get(branch, branch) if isinstance(branch, str) else branch
    if isinstance(gate, str):
        raise ValueError(f"branch: expected {', '.join(GATES)} or a gate, got {branch!r}")
    return gate


def draw(model, schedule, primary, secondary, noise, num_steps, gate, sampler=ddim_sampler):
    """One sample (B, C, H, W) in [-1, 1] from `noise`, and the `Decision` of every step; `model` as it is."""
    encode, decisions = partial(gate.encode, model) if hasattr(gate, "encode") else model.encode, []

    def denoiser(xt, t):
        decision = gate(model, encode(xt, t, primary, secondary))
        decisions.append(decision)
        return model.objective.to_eps(schedule, xt, decision.output, t)

    return sampler(denoiser, schedule, noise, num_steps).clamp(-1, 1), decisions


class VolumePrediction(NamedTuple):
    """What `predict_slices` returns for the n slices of a volume."""

    samples: torch.Tensor  # (S, n, C, H, W) in [-1, 1]
    branch: list  # n names, what most samples used
    confidence: torch.Tensor  # (n,) in [0, 1], mean over samples
    confidence_map: torch.Tensor  # (n, h, w) in [0, 1], likewise


def predict_slices(model, schedule, primary, secondary, num_steps=20, seed=0, branch="damm", num_samples=1):
    """Predict a volume slice by slice, with a progress bar; conditions (n, C, H, W) in [-1, 1].

    Every slice begins with the same `num_samples` noises, so that what differs between neighbours
    comes from their conditions. `branch` and what is raised are as in `predict`; a gate must be one
    without a memory, or `branch` a list of n, one for each slice. Returns a `VolumePrediction`, on the CPU.
    """
    branches = branch if isinstance(branch, list) else [branch] * len(primary)
    found = []
    slices = zip(primary, secondary, branches, strict=True)
    for first, second, gate in tqdm(slices, desc="slices", total=len(primary)):
        copies = (image.expand(num_samples, *image.shape) for image in (first, second))
        found.append(predict(model, schedule, *copies, num_steps, seed, gate))
    return VolumePrediction(
        samples=torch.stack([one.x0.cpu() for one in found], dim=1),
        branch=["multi" if 2 * one.branch.count("multi") >= num_samples else "uni" for one in found],
        confidence=torch.stack([one.confidence.cpu().mean() for one in found]),
        confidence_map=torch.stack([one.confidence_map.cpu().mean(dim=0) for one in found]),
    )


@torch.inference_mode()
def predict_unet(model, schedule, conditions, num_steps=20, seed=0):
    """One sample (B, C, H, W) in [-1, 1] of a plain `UNet`, given all its conditions in one tensor.

    Same noise from the same seed as `predict`, so the two can be compared patch by patch.
    """
    check_tensor("conditions", conditions)
    device, generator = next(model.parameters()).device, torch.Generator().manual_seed(seed)
    conditions = conditions.to(device)
    shape = (len(conditions), model.config.out_channels, *conditions.shape[2:])
    model = for_inference(model)

    def denoiser(xt, t):
        return model.objective.to_eps(schedule, xt, model(xt, t, conditions), t)

    return ddim_sampler(denoiser, schedule, torch.randn(shape, generator=generator).to(device), num_steps).clamp(-1, 1)
