"""Gates: which branch to believe, decided anew at every step (the paper's DAMMP), and the alternatives to it.

A gate is called with the network and what its encoders say of one step, and decodes what it needs. One that
needs less than both encoders has an `encode` of its own, called like `DAMMNet.encode` with the network in front.
"""

from typing import NamedTuple

import torch
from torch.nn import functional


class Decision(NamedTuple):
    """What a gate made of one step."""

    output: torch.Tensor  # (B, C, H, W)
    trust: torch.Tensor  # (B,), the share of the multi-modal branch in it
    confidence: torch.Tensor  # (B,)
    confidence_map: torch.Tensor  # (B, h, w)


def _decide(output, trust, encoded):
    return Decision(output, trust, encoded.confidence, encoded.confidence_map.squeeze(1))


class DAMMP:
    """The paper's gate: the uni-modal branch where c < gamma, else the multi-modal one.

    c is known before either decoder has run, so each sample runs only the one it needs. It is the mean of the
    map, or, which the paper has no need of, of its cells in `region` (B, 1, H, W) or (1, H, W), 1 where a target
    is: in the background around a brain neither branch can be wrong, and what u says of it is chance. Calling it
    raises ValueError for a region that is not as large as the images.
    """

    def __init__(self, gamma=0.5, region=None):
        self.gamma, self.region = gamma, region

    def __call__(self, model, encoded):
        """(network, `Encoded`) -> `Decision`."""
        c = encoded.confidence if self.region is None else mean_within(encoded.confidence_map, self.region)
        return self.take(model, encoded, c >= self.gamma)._replace(confidence=c)

    @staticmethod
    def take(model, encoded, use_multi):
        """Decode each sample with the branch that `use_multi` (B,) says."""
        # Each decoder gets its samples, and of the features only those that it reads: copying takes time.
        parts = [
            (use_multi.nonzero()[:, 0], model.decode_multi, encoded._replace(uni=encoded.uni[-1:])),
            ((~use_multi).nonzero()[:, 0], model.decode_uni, encoded._replace(multi=[])),
        ]
        decoded = [
            decode(part if len(rows) == len(use_multi) else part.select(rows))
            for rows, decode, part in parts
            if len(rows)
        ]
        back = torch.cat([rows for rows, *_ in parts]).argsort()
        return _decide(torch.cat(decoded)[back], use_multi.float(), encoded)


class DecideOnce:
    """`DAMMP` that decides at the first step and keeps to it; make a new one for each prediction."""

    def __init__(self, gamma=0.5):
        self.gamma, self.use_multi = gamma, None

    def __call__(self, model, encoded):
        if self.use_multi is None:
            self.use_multi = encoded.confidence >= self.gamma
        return DAMMP.take(model, encoded, self.use_multi)


class UniModal:
    """The gate that always believes the uni-modal branch; neither the second encoder nor the fusions run."""

    @staticmethod
    def encode(model, xt, t, primary, secondary):
        """The uni-modal encoder alone; the confidence is 0."""
        return model.encode_uni(xt, t, primary)

    def __call__(self, model, encoded):
        return _decide(model.decode_uni(encoded), torch.zeros_like(encoded.confidence), encoded)


class MultiModal:
    """The gate that always believes the multi-modal branch."""

    def __call__(self, model, encoded):
        return _decide(model.decode_multi(encoded), torch.ones_like(encoded.confidence), encoded)


class SpatialDAMMP:
    """A gate for every pixel: both branches, mixed by the confidence map, upsampled and sharpened.

    The multi-modal branch gets the share u^k / (u^k + (1 - u)^k), k = `sharpness` > 0. With k = 1 that is u
    itself, which suits branches that err independently; the more alike they err, the more the better one
    deserves. A large k is the gate of `HardSpatialDAMMP` with gamma = 1/2. Not in the paper. Raises ValueError
    for any other k.
    """

    def __init__(self, sharpness=2.0):
        if not sharpness > 0:
            raise ValueError(f"sharpness: expected a number above 0, got {sharpness}")
        self.sharpness = sharpness

    def __call__(self, model, encoded):
        u = upsample(encoded.confidence_map, 4)
        share = torch.sigmoid(self.sharpness * torch.logit(u))  # the same formula, without powers
        return _mix(model, encoded, share)


class HardSpatialDAMMP:
    """A gate for every pixel that takes one branch or the other: the multi-modal one where u >= gamma."""

    def __init__(self, gamma=0.5):
        self.gamma = gamma

    def __call__(self, model, encoded):
        return _mix(model, encoded, (upsample(encoded.confidence_map, 4) >= self.gamma).float())


class Average:
    """No gate: the mean of both branches."""

    def __call__(self, model, encoded):
        return _mix(model, encoded, torch.full_like(upsample(encoded.confidence_map, 4), 0.5))


def _mix(model, encoded, u):
    """Both branches, the multi-modal one with weight u (B, 1, H, W)."""
    output = u * model.decode_multi(encoded) + (1 - u) * model.decode_uni(encoded)
    return _decide(output, u.mean(dim=(1, 2, 3)), encoded)


def mean_within(confidence_map, region):
    """Mean (B,) of a map (B, 1, h, w) over `region` (B, 1, H, W) or (1, H, W), or over all of it where it is empty."""
    h, w = confidence_map.shape[2:]
    if region.shape[-2:] != (4 * h, 4 * w):
        raise ValueError(f"region: expected images of {4 * h} x {4 * w}, got shape {tuple(region.shape)}")
    share = functional.avg_pool2d(region.to(confidence_map), 4)  # of each cell
    share = share.expand_as(confidence_map)
    share = share.where(share.sum(dim=(1, 2, 3), keepdim=True) > 0, 1.0)
    return (confidence_map * share).sum(dim=(1, 2, 3)) / share.sum(dim=(1, 2, 3))


def upsample(confidence_map, factor):
    """(B, 1, h, w) -> (B, 1, factor h, factor w), bilinear."""
    return functional.interpolate(confidence_map, scale_factor=float(factor), mode="bilinear")
