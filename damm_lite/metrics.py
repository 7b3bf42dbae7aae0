"""How good is a prediction, and how good is the gate? Images are in [-1, 1] unless said otherwise."""

import numpy as np
import torch
from scipy.stats import bootstrap
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

SSIM_REACH = 5  # half the window, in pixels


def psnr(x0, target, data_range=2.0):
    """Peak signal-to-noise ratio of each image in dB; (B, C, H, W) twice -> (B,)."""
    _check_pair(x0, target)
    return peak_signal_noise_ratio(x0, target, data_range, reduction="none", dim=(1, 2, 3))


def ssim_map(x0, target, data_range=2.0):
    """Structural similarity at each pixel (Wang et al. 2004: Gaussian window, sigma 1.5), like x0."""
    _check_pair(x0, target)
    if min(x0.shape[2:]) <= 2 * SSIM_REACH:
        raise ValueError(f"ssim: expected sides over {2 * SSIM_REACH} pixels, got {tuple(x0.shape[2:])}")
    _, similarity = structural_similarity_index_measure(
        x0, target, sigma=1.5, data_range=data_range, reduction="none", return_full_image=True
    )
    return similarity


def ssim(x0, target, data_range=2.0):
    """Mean structural similarity of each image, over the pixels whose window lies inside it; (B,)."""
    inside = slice(SSIM_REACH, -SSIM_REACH)
    return ssim_map(x0, target, data_range)[..., inside, inside].mean(dim=(1, 2, 3))


def mae(x0, target):
    """Mean absolute error of each image; (B,)."""
    _check_pair(x0, target)
    return (x0 - target).abs().flatten(1).mean(dim=1)


def evaluate(x0, target):
    """Mean SSIM, PSNR (dB) and absolute error over a batch, as a dict of floats."""
    return {name: float(metric(x0, target).mean()) for name, metric in (("ssim", ssim), ("psnr", psnr), ("mae", mae))}


def evaluate_inside(x0, target, region):
    """SSIM and PSNR (dB) of all pixels where `region` (B, 1, H, W) is 1, as a dict of floats; NaN if there are none."""
    _check_pair(x0, target)
    inside = region.expand_as(x0).bool()
    error = (x0 - target)[inside].square().mean()
    return {"ssim": float(ssim_map(x0, target)[inside].mean()), "psnr": float(10 * torch.log10(4 / error))}


def gate_auroc(confidence, divergent):
    """How well low confidence (B,) tells divergent (B,) pairs: 0.5 chance, 1 perfect."""
    confidence = torch.tensor(np.asarray(confidence))
    divergent = torch.tensor(np.asarray(divergent), dtype=torch.long)
    if divergent.min() == divergent.max():
        raise ValueError("divergent: expected both consistent and divergent pairs")
    return float(binary_auroc(1 - confidence, divergent))


def bootstrap_interval(differences, seed=0, level=0.95):
    """Mean of paired differences (n,) and its bootstrap interval over patches: (mean, low, high)."""
    sample = (np.asarray(differences, dtype=float),)
    # Percentiles: bias correction fails where all differences are equal, as of a gate that never switches.
    found = bootstrap(sample, np.mean, confidence_level=level, method="percentile", rng=np.random.default_rng(seed))
    return float(sample[0].mean()), *map(float, found.confidence_interval)


def _check_pair(x0, target):
    if x0.shape != target.shape or x0.ndim != 4:
        raise ValueError(
            f"expected two tensors of one shape (B, C, H, W), got {tuple(x0.shape)} and {tuple(target.shape)}"
        )
