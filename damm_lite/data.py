"""What every dataset yields, and every network takes.

An item is a dict of float32 tensors (C, H, W) in [-1, 1]: `target` (to
predict), `primary` (always trusted) and `secondary` (may disagree), with
whatever else the dataset knows.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W) in [0, 1] -> float32 tensor (1, H, W) in [-1, 1].

    >>> to_tensor(np.array([[0.0, 0.5, 1.0]]))
    tensor([[[-1.,  0.,  1.]]])
    """
    return torch.from_numpy(np.asarray(image, dtype=np.float32) * 2 - 1)[None]


def stack(items: Iterable[dict]) -> dict:
    """Items -> one batch: tensors (B, C, H, W), booleans (B,), and lists of
    strings.
    """
    return default_collate(list(items))


def chunks(batch: dict, size: int) -> Iterator[dict]:
    """Yield a batch of `stack` in parts of at most `size` samples: a large one
    runs faster in parts.
    """
    for start in range(0, len(batch["target"]), size):
        yield {key: x[start : start + size] for key, x in batch.items()}


def generator_of(*numbers: int) -> torch.Generator:
    """A random generator on the CPU for some whole numbers from 0 up, e.g.
    (seed, step); others give another stream.
    """
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def check_tensor(name: str, x: Tensor) -> None:
    """Raise ValueError, which calls x `name`, unless it is a finite tensor (B,
    C, H, W) of real numbers in [-1, 1].
    """
    if not torch.is_tensor(x) or not x.is_floating_point():
        raise ValueError(f"{name}: expected a tensor of real numbers, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"{name}: expected shape (B, C, H, W), got {tuple(x.shape)}")
    if not torch.isfinite(x).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    low, high = x.min().item(), x.max().item()
    if low < -1 - 1e-4 or high > 1 + 1e-4:
        raise ValueError(f"{name}: expected values in [-1, 1], got [{low:g}, {high:g}]")


def check_side(name: str, side: int) -> None:
    """Raise ValueError unless `side` is a positive multiple of 4 pixels, which
    every network of the book needs.
    """
    if side % 4 or side <= 0:
        raise ValueError(f"{name}: expected a positive multiple of 4 pixels, got {side}")


def check_index(index: int, n: int) -> None:
    """Raise IndexError unless `index` is one of 0..n - 1, which ends a loop
    over a dataset.
    """
    if not 0 <= index < n:
        raise IndexError(f"index {index} outside 0..{n - 1}")
