"""Made mismatches: teach the confidence what disagreement looks like, without any labels.

Some samples of a batch get a secondary image that cannot be theirs, and we know where.
"""

import math

import torch
from torch.nn import functional

BACKGROUND = -1.0
SPOILT = 0.25  # share of a batch


def swap(secondary, other, generator):
    """The whole image of another sample: wrong everywhere."""
    return other, torch.zeros_like(secondary[:1])


def shift(secondary, other, generator):
    """Moved by 1/10 to 1/3 of the side in any direction: wrong everywhere."""
    height, width = secondary.shape[1:]
    distance, turn = torch.rand(2, generator=generator).tolist()
    reach, angle = 0.1 + distance * (1 / 3 - 0.1), 2 * math.pi * turn
    move = (round(height * reach * math.sin(angle)), round(width * reach * math.cos(angle)))
    return secondary.roll(move, dims=(1, 2)), torch.zeros_like(secondary[:1])


def hole(secondary, other, generator):
    """Lost in a smooth region of 1/5 to 3/5 of the image: wrong there."""
    height, width = secondary.shape[1:]
    coarse = torch.randn(1, 1, 5, 5, generator=generator)
    field = functional.interpolate(coarse, (height, width), mode="bicubic")[0]  # (1, H, W)
    fraction = 0.2 + 0.4 * torch.rand(1, generator=generator).item()
    lost = field > field.quantile(1 - fraction)
    return secondary.masked_fill(lost, BACKGROUND), (~lost).float()


def make_mismatches(secondary, generator, fraction=SPOILT):
    """Spoil `fraction` of a batch; (B, C, H, W) -> the same, and `trusted` (B, 1, H, W) in {0, 1}.

    Samples are spoilt by `swap`, `shift` and `hole` in turn. Everything random comes from
    `generator` (on the CPU), so a step can be repeated.
    """
    spoilt, trusted = secondary.clone(), torch.ones_like(secondary[:, :1])
    chosen = torch.randperm(len(secondary), generator=generator)[: round(fraction * len(secondary))]
    first = int(torch.randint(3, (1,), generator=generator))
    for i, row in enumerate(chosen.tolist()):
        spoil = (swap, shift, hole)[(first + i) % 3]
        other = secondary[(row + 1) % len(secondary)]
        spoilt[row], trusted[row] = spoil(secondary[row], other, generator)
    return spoilt, trusted
