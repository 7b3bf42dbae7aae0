"""How good is a prediction, and how good is the gate?

Images are tensors (B, C, H, W) in [-1, 1]. Anything else - another range or
type, NaN, two shapes - is refused with a ValueError that names it, for a score
of it would be a number without meaning.
"""

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from damm_lite.data import check_tensor

SSIM_REACH = 5  # half the window, in pixels


def psnr(x0: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, infinite where both are
    equal; (B,).

    >>> psnr(torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.2))
    tensor([20.])
    """
    x0, target = _checked_pair(x0, target)
    return peak_signal_noise_ratio(x0, target, data_range=2.0, reduction="none", dim=(1, 2, 3))


def ssim_map(x0: Tensor, target: Tensor) -> Tensor:
    """Structural similarity at each pixel (Wang et al. 2004: Gaussian window,
    sigma 1.5), like x0.

    It compares brightness by ratios, which need intensities from 0 up: [-1, 1]
    is first moved to [0, 1].
    """
    x0, target = _checked_pair(x0, target)
    if min(x0.shape[2:]) <= 2 * SSIM_REACH:
        raise ValueError(f"ssim: expected sides over {2 * SSIM_REACH} pixels, got {tuple(x0.shape[2:])}")
    x0, target = (x0 + 1) / 2, (target + 1) / 2
    _, similarity = structural_similarity_index_measure(
        x0, target, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    return similarity


def ssim(x0: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity of each image, over the pixels whose window
    lies inside it; (B,).
    """
    inside = slice(SSIM_REACH, -SSIM_REACH)
    return ssim_map(x0, target)[..., inside, inside].mean(dim=(1, 2, 3))


def mae(x0: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of each image; (B,)."""
    x0, target = _checked_pair(x0, target)
    return (x0 - target).abs().flatten(1).mean(dim=1)


def evaluate(x0: Tensor, target: Tensor) -> dict[str, float]:
    """Mean SSIM, PSNR (dB) and absolute error over a batch, as a dict of
    floats.
    """
    return {name: float(metric(x0, target).mean()) for name, metric in (("ssim", ssim), ("psnr", psnr), ("mae", mae))}


def evaluate_inside(x0: Tensor, target: Tensor, region: Tensor) -> dict[str, float]:
    """SSIM and PSNR (dB) of all pixels where `region` (B, 1, H, W) is 1, as a
    dict of floats; NaN if there are none.

    Raises ValueError for a region that is not of that shape or holds anything
    but 0 and 1.
    """
    x0, target = _checked_pair(x0, target)
    if region.shape != (len(x0), 1, *x0.shape[2:]):
        raise ValueError(f"region: expected shape {(len(x0), 1, *x0.shape[2:])}, got {tuple(region.shape)}")
    if not ((region == 0) | (region == 1)).all():
        raise ValueError("region: expected 0 and 1 alone, got other values")
    inside = region.expand_as(x0).bool()
    error = (x0 - target)[inside].square().mean()
    return {"ssim": float(ssim_map(x0, target)[inside].mean()), "psnr": float(10 * torch.log10(4 / error))}


def gate_auroc(confidence: Tensor, divergent: Tensor) -> float:
    """How well low confidence (B,) in [0, 1] tells divergent (B,) pairs: 0.5
    chance, 1 perfect.

    Raises ValueError for other confidences or lengths, and where all pairs are
    of one kind.

    >>> gate_auroc([0.9, 0.8, 0.3], [False, False, True])
    1.0
    """
    confidence = torch.tensor(np.asarray(confidence))
    divergent = torch.tensor(np.asarray(divergent), dtype=torch.long)
    if confidence.ndim != 1 or confidence.shape != divergent.shape:
        shapes = f"{tuple(confidence.shape)} and {tuple(divergent.shape)}"
        raise ValueError(f"confidence, divergent: expected two of one length (B,), got {shapes}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidence: expected numbers in [0, 1], got NaN or others")
    if divergent.min() == divergent.max():
        raise ValueError("divergent: expected both consistent and divergent pairs")
    ranks, many = rankdata(confidence), int(divergent.sum())  # ties share a rank
    wins = ranks[divergent.numpy() == 0].sum() - (fewer := len(ranks) - many) * (fewer + 1) / 2
    return float(wins / (many * fewer))


def _checked_pair(x0, target):
    """Both as float32 or float64, after the checks of every metric."""
    check_tensor("x0", x0)
    check_tensor("target", target)
    if x0.shape != target.shape:
        raise ValueError(f"expected two tensors of one shape, got {tuple(x0.shape)} and {tuple(target.shape)}")
    dtype = torch.promote_types(torch.promote_types(x0.dtype, target.dtype), torch.float32)
    return x0.to(dtype), target.to(x0.device, dtype)
