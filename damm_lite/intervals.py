"""An interval for every pixel: from samples first, then with a guarantee.

The raw interval holds the middle of the samples, and is as right as they are.
Conformal risk control (Angelopoulos et al. 2024) widens it, or narrows it, by
a margin found on calibration patches, so that on new patches of the same kind
the expected share of missed pixels is at most 1 - level, whatever the network.
The guarantee counts patches, not pixels: those of one patch are not
independent. Of patches of another kind it says nothing.
"""

import torch
from torch import Tensor

from damm_lite.data import check_tensor


def sample_interval(samples: Tensor, level: float = 0.9) -> tuple[Tensor, Tensor]:
    """(low, high), (B, C, H, W) each: quantiles (1 - level) / 2 and (1 + level) / 2 of samples (S, B, C, H, W)."""
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    if samples.ndim != 5 or len(samples) < 2:
        raise ValueError(f"samples: expected shape (S, B, C, H, W) with S from 2 up, got {tuple(samples.shape)}")
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2]).to(samples)
    return tuple(torch.quantile(samples, tails, dim=0))


def missed(low: Tensor, high: Tensor, target: Tensor, region: Tensor | None = None) -> Tensor:
    """The share of each patch's pixels (of its region, where given) outside [low, high]; (B,)."""
    check_tensor("target", target)
    outside = ((target < low) | (target > high)).to(torch.float64)
    inside = torch.ones_like(outside) if region is None else region.expand_as(outside).to(torch.float64)
    return (outside * inside).flatten(1).sum(dim=1) / inside.flatten(1).sum(dim=1)


def conformal_margin(
    low: Tensor, high: Tensor, target: Tensor, level: float = 0.9,
    region: Tensor | None = None,
) -> float:  # fmt: skip
    """By how much to widen [low, high] on either side; negative: to narrow it.

    It is the least margin at which the mean share of missed pixels over the B
    calibration patches, with one more patch that misses all of them, is at
    most 1 - level. Raises ValueError where there are too few patches for any
    margin to do: B must be at least level / (1 - level).
    """
    count, allowed = len(target), 1 - level
    if count * allowed < level - 1e-9:
        fewest = f"at least {level / allowed:.0f} calibration patches"
        raise ValueError(f"target: expected {fewest}, got {count}")
    least = -float((high - low).max()) / 2
    most = 2.0 + float((high - low).abs().max())
    for _ in range(40):  # halving: the share falls as the margin grows
        margin = (least + most) / 2
        lost = missed(low - margin, high + margin, target, region).sum()
        if (float(lost) + 1) / (count + 1) <= allowed:
            most = margin
        else:
            least = margin
    return most
