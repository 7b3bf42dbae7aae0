"""A small competition: the best prediction of divergent patches that a fixed number of network evaluations buys.

An entry is a function `solve(model, schedule, primary, secondary)` -> x0 (B, C, H, W). One evaluation
is one pass of one patch through the encoders, of one branch or both, with whichever decoders one likes.
"""

import copy

from damm_lite.data import stack
from damm_lite.metrics import ssim
from damm_lite.tumours import SyntheticTumours


class BudgetSpent(Exception):
    """An entry asked for more evaluations than it has."""


def metered(model, budget):
    """A copy of a `DAMMNet` that raises `BudgetSpent` once its encoders have seen more than `budget` patches."""
    model, used = copy.deepcopy(model), 0

    def count(layer, inputs):
        nonlocal used
        used += len(inputs[0])
        if used > budget:
            raise BudgetSpent(f"{used} evaluations asked for, {budget} allowed")

    model.uni.in_conv.register_forward_pre_hook(count)  # what every evaluation begins with, of whichever branch
    return model


def divergent_patches(n, seed, size=64):
    """n patches of which every one diverges, as a batch; another seed gives other patches."""
    return stack(SyntheticTumours(n, size, seed, divergent_fraction=1.0))


def score(solve, model, schedule, batch, evaluations=8):
    """SSIM (B,) of an entry on a batch of B patches, with so many evaluations for each of them on average.

    Raises `BudgetSpent`, and ValueError where the entry returns no images like the batch's target.
    """
    x0 = solve(metered(model, evaluations * len(batch["target"])), schedule, batch["primary"], batch["secondary"])
    if getattr(x0, "shape", None) != batch["target"].shape:
        raise ValueError(f"expected x0 of shape {tuple(batch['target'].shape)}, got {getattr(x0, 'shape', x0)}")
    return ssim(x0.clamp(-1, 1), batch["target"])
