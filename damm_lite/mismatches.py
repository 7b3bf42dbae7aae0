"""Made mismatches: teach the confidence what disagreement looks like, without
any labels.

Some samples of a batch get a secondary image that cannot be theirs, and we
know where it is wrong.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

BACKGROUND = -1.0
Corrupted = tuple[Tensor, Tensor]  # an image (C, H, W), and where it is right (1, H, W), in {0, 1}


def make_mismatches(secondary: Tensor, generator: Generator, fraction: float = 0.25) -> tuple[Tensor, Tensor]:
    """Corrupt a `fraction` of a batch; (B, C, H, W) -> the same, and `trusted`
    (B, 1, H, W) in {0, 1}.

    Of B samples floor(fraction B) are corrupted, and one more with the chance
    that makes `fraction` on average, by `swap`, `shift` and `cutout` in turn.
    A kind that would leave an image as it is (a swap with an equal one, a
    cutout of background) gives way to the next; an image that none can change
    stays and is trusted. Everything random comes from `generator` (on the
    CPU), so a step can be repeated.
    """
    corrupted, trusted = secondary.clone(), torch.ones_like(secondary[:, :1])
    share = fraction * len(secondary) + torch.rand(1, generator=generator).item()
    chosen = torch.randperm(len(secondary), generator=generator)[: int(share)]
    first = int(torch.randint(3, (1,), generator=generator))
    for i, row in enumerate(chosen.tolist()):
        others = secondary.roll(-row - 1, dims=0)[:-1]  # the samples after this one, then those before it
        for kind in range(3):
            corrupt = (swap, shift, cutout)[(first + i + kind) % 3]
            image, right = corrupt(secondary[row], others, generator)
            if not torch.equal(image, secondary[row]):
                corrupted[row], trusted[row] = image, right
                break
    return corrupted, trusted


def swap(secondary: Tensor, others: Tensor, generator: Generator) -> Corrupted:
    """The whole image of another sample, the first of `others` that differs:
    wrong everywhere.

    Like each of the three kinds it takes an image (C, H, W) and those of the
    other samples (B - 1, C, H, W).
    """
    nowhere = torch.zeros_like(secondary[:1])
    for other in others:
        if not torch.equal(other, secondary):
            return other, nowhere
    return secondary, nowhere


def shift(secondary: Tensor, others: Tensor, generator: Generator) -> Corrupted:
    """Moved by 1/10 to 1/3 of the side in any direction: wrong everywhere."""
    height, width = secondary.shape[1:]
    distance, turn = torch.rand(2, generator=generator).tolist()
    reach, angle = 0.1 + distance * (1 / 3 - 0.1), 2 * math.pi * turn
    down, right = height * math.sin(angle), width * math.cos(angle)
    move = round(reach * down), round(reach * right)
    return secondary.roll(move, dims=(1, 2)), torch.zeros_like(secondary[:1])


def cutout(secondary: Tensor, others: Tensor, generator: Generator) -> Corrupted:
    """Lost in a smooth region of 1/5 to 3/5 of the image: wrong there."""
    height, width = secondary.shape[1:]
    coarse = torch.randn(1, 1, 5, 5, generator=generator)
    fine = functional.interpolate(coarse, (height, width), mode="bicubic")
    field = fine[0]  # (1, H, W)
    fraction = 0.2 + 0.4 * torch.rand(1, generator=generator).item()
    lost = (field > field.quantile(1 - fraction)).to(secondary.device)
    return secondary.masked_fill(lost, BACKGROUND), (~lost).to(secondary.dtype)
