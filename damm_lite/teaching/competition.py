"""A small competition: the best prediction of divergent patches that a fixed
number of network evaluations buys.

An entry is a function `solve(model, schedule, primary, secondary)` -> x0 (B,
C, H, W). One evaluation is one pass of one patch through the encoders, of one
branch or both, with whichever decoders one likes.
"""

import copy
from collections.abc import Callable

import torch

from damm_lite.damm import DAMMNet
from damm_lite.data import stack
from damm_lite.metrics import ssim
from damm_lite.schedules import NoiseSchedule
from damm_lite.tumours.synthetic import SyntheticTumours


class BudgetSpent(Exception):
    """An entry asked for more evaluations than it has."""


def metered(model: DAMMNet, budget: int) -> DAMMNet:
    """A copy of a network that raises `BudgetSpent` once its encoders have
    seen more than `budget` patches; the network itself is not touched.
    """
    model, used = copy.deepcopy(model), 0

    def count(layer, inputs):
        nonlocal used
        used += len(inputs[0])
        if used > budget:
            raise BudgetSpent(f"{used} evaluations asked for, {budget} allowed")

    # What every evaluation begins with, of whichever branch.
    model.uni.in_conv.register_forward_pre_hook(count)
    return model


def divergent_patches(n: int, seed: int, size: int = 64) -> dict:
    """A batch of n patches of `size` x `size` pixels, (n, 1, size, size) in
    [-1, 1], all of which diverge; another seed gives other patches.
    """
    return stack(SyntheticTumours(n, size, seed, divergent_fraction=1.0))


def score(solve: Callable, model: DAMMNet, schedule: NoiseSchedule, batch: dict, evaluations: int = 8) -> torch.Tensor:
    """SSIM (B,) of an entry on a batch of B patches, with so many evaluations
    for each of them on average.

    What it returns is clamped to [-1, 1]. Raises `BudgetSpent` where it asks
    for more, and ValueError where it returns no finite images like the
    batch's target.
    """
    target = batch["target"]
    x0 = solve(metered(model, evaluations * len(target)), schedule, batch["primary"], batch["secondary"])
    if getattr(x0, "shape", None) != target.shape:
        raise ValueError(f"expected x0 of shape {tuple(target.shape)}, got {getattr(x0, 'shape', x0)}")
    return ssim(x0.clamp(-1, 1), target)
