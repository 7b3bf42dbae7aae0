"""What every dataset yields, and every network takes.

An item is a dict of float32 tensors (C, H, W) in [-1, 1]: `target` (to predict), `primary`
(always trusted) and `secondary` (may disagree), with whatever else the dataset knows.
"""

import numpy as np
import torch
from torch.utils.data import default_collate

CONTRASTS = ("t1", "t1ce", "t2", "flair")  # of MRI, as BraTS names them


def to_tensor(image):
    """(H, W) in [0, 1] -> float32 tensor (1, H, W) in [-1, 1]."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) * 2 - 1)[None]


def stack(items):
    """Items -> one batch: tensors (B, C, H, W), booleans (B,), and lists of strings."""
    return default_collate(list(items))


def chunks(batch, size):
    """Yield a batch of `stack` in parts of at most `size` samples: a large one runs faster in parts."""
    for start in range(0, len(batch["target"]), size):
        yield {key: x[start : start + size] for key, x in batch.items()}


def check_contrasts(target, primary, secondary):
    """[target, primary, *secondary], names of `CONTRASTS`; `secondary` may be "t2", "t2,t1ce" or a list.

    Raises ValueError for an unknown contrast, saying which there are, and for one that is named twice.
    """
    several = secondary.replace(" ", "").split(",") if isinstance(secondary, str) else secondary
    contrasts = [target, primary, *several]
    for contrast in contrasts:
        if contrast not in CONTRASTS:
            raise ValueError(f"unknown contrast {contrast!r}; expected one of {', '.join(CONTRASTS)}")
        if contrasts.count(contrast) > 1:
            raise ValueError(f"contrast {contrast!r} is named twice; target and sources must differ")
    return contrasts


def check_tensor(name, x):
    """Raise ValueError unless x is (B, C, H, W), finite and in [-1, 1] (up to rounding)."""
    if x.ndim != 4:
        raise ValueError(f"{name}: expected shape (B, C, H, W), got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    low, high = x.min().item(), x.max().item()
    if low < -1 - 1e-4 or high > 1 + 1e-4:
        raise ValueError(f"{name}: expected values in [-1, 1], got [{low:g}, {high:g}]")
