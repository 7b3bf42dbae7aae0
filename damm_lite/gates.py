"""Gates: which branch to believe, decided anew at every step (the paper's
DAMMP), and the alternatives to it.

A gate is called with the network and what its encoders say of one step (an
`Encoded`), decodes what it needs, and returns a `Decision`. Prediction copies
the gate it is given for each sample, so that one may keep what it decided
earlier in that sample. A gate of your own is any such function or object.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from damm_lite.damm import DAMMNet, Encoded


class Decision(NamedTuple):
    """What a gate made of one step."""

    output: Tensor  # (B, C, H, W)
    trust: Tensor  # (B,), the share of the multi-modal branch in it
    confidence: Tensor  # (B,)
    confidence_map: Tensor  # (B, h, w)


def _decide(output, trust, encoded):
    return Decision(output, trust, encoded.confidence, encoded.confidence_map.squeeze(1))


class DAMMP:
    """The paper's gate: the uni-modal branch where c < gamma, else the
    multi-modal one.

    c is known before either decoder has run, so each sample runs only the one
    it needs. It is the mean of the map u over the patch. Outside a brain u is
    meaningless: pass `region` (B, 1, H, W) or (1, H, W), 1 where there is
    something to predict, to average inside it. Calling the gate raises
    ValueError for a region that is not as large as the images.
    """

    def __init__(self, gamma: float = 0.5, region: Tensor | None = None):
        self.gamma, self.region = gamma, region

    def __call__(self, model: DAMMNet, encoded: Encoded) -> Decision:
        c = encoded.confidence
        if self.region is not None:
            c = mean_within(encoded.confidence_map, self.region)
        decision = decode_chosen(model, encoded, c >= self.gamma)
        return decision._replace(confidence=c)


class DecideOnce:
    """`DAMMP` that decides at the first step of a sample and keeps to it."""

    def __init__(self, gamma: float = 0.5):
        self.gamma, self.use_multi = gamma, None

    def __call__(self, model: DAMMNet, encoded: Encoded) -> Decision:
        if self.use_multi is None:
            self.use_multi = encoded.confidence >= self.gamma
        return decode_chosen(model, encoded, self.use_multi)


class AlwaysUni:
    """The gate that always believes the uni-modal branch; with it, prediction
    runs no more than that branch.
    """

    def __call__(self, model: DAMMNet, encoded: Encoded) -> Decision:
        return _decide(model.decode_uni(encoded), torch.zeros_like(encoded.confidence), encoded)


class AlwaysMulti:
    """The gate that always believes the multi-modal branch."""

    def __call__(self, model: DAMMNet, encoded: Encoded) -> Decision:
        return _decide(model.decode_multi(encoded), torch.ones_like(encoded.confidence), encoded)


class SpatialDAMMP:
    """A gate for every pixel: both branches, mixed by the confidence map,
    upsampled and sharpened.

    The multi-modal branch gets the share u^k / (u^k + (1 - u)^k), k =
    `sharpness` > 0. With k = 1 that is u itself, which suits branches that err
    independently; the more alike they err, the more the better one deserves. A
    large k is the gate of `HardSpatialDAMMP` with gamma = 1/2. Not in the
    paper. Raises ValueError for any other k.
    """

    def __init__(self, sharpness: float = 2.0):
        if not sharpness > 0:
            found = f"expected a number above 0, got {sharpness}"
            raise ValueError(f"sharpness: {found}")
        self.sharpness = sharpness

    def __call__(self, model: DAMMNet, encoded: Encoded) -> Decision:
        u = upsample(encoded.confidence_map, 4)
        # The same formula, without powers.
        share = torch.sigmoid(self.sharpness * torch.logit(u))
        return mix_branches(model, encoded, share)


class HardSpatialDAMMP:
    """A gate for every pixel that takes one branch or the other: the
    multi-modal one where u >= gamma.
    """

    def __init__(self, gamma: float = 0.5):
        self.gamma = gamma

    def __call__(self, model: DAMMNet, encoded: Encoded) -> Decision:
        u = upsample(encoded.confidence_map, 4)
        return mix_branches(model, encoded, (u >= self.gamma).float())


class MeanOfBranches:
    """No gate: the mean of both branches."""

    def __call__(self, model: DAMMNet, encoded: Encoded) -> Decision:
        return mix_branches(model, encoded, torch.full_like(upsample(encoded.confidence_map, 4), 0.5))


def mix_branches(model: DAMMNet, encoded: Encoded, share: Tensor) -> Decision:
    """Both branches, the multi-modal one with the weight `share` (B, 1, H, W)
    in [0, 1].
    """
    output = share * model.decode_multi(encoded) + (1 - share) * model.decode_uni(encoded)
    return _decide(output, share.mean(dim=(1, 2, 3)), encoded)


def decode_chosen(model: DAMMNet, encoded: Encoded, use_multi: Tensor) -> Decision:
    """Each sample by the branch that `use_multi` (B,) says, so that no decoder
    runs in vain.

    Each decoder gets its samples, and of the features only those that it
    reads: copying takes time.
    """
    parts = [
        (use_multi.nonzero()[:, 0], model.decode_multi, encoded._replace(uni=encoded.uni[-1:])),
        ((~use_multi).nonzero()[:, 0], model.decode_uni, encoded._replace(multi=[])),
    ]
    decoded = [
        decode(part if len(rows) == len(use_multi) else part.select(rows)) for rows, decode, part in parts if len(rows)
    ]
    back = torch.cat([rows for rows, *_ in parts]).argsort()
    return _decide(torch.cat(decoded)[back], use_multi.float(), encoded)


def mean_within(confidence_map: Tensor, region: Tensor) -> Tensor:
    """Mean (B,) of a map (B, 1, h, w) over `region` (B, 1, H, W) or (1, H, W),
    or over all of it where it is empty.

    Raises ValueError for a region whose sides are not four times the map's.
    """
    h, w = confidence_map.shape[2:]
    if region.shape[-2:] != (4 * h, 4 * w):
        raise ValueError(f"region: expected images of {4 * h} x {4 * w}, got shape {tuple(region.shape)}")
    share = functional.avg_pool2d(region.to(confidence_map), 4)  # of each cell
    share = share.expand_as(confidence_map)
    share = share.where(share.sum(dim=(1, 2, 3), keepdim=True) > 0, 1.0)
    return (confidence_map * share).sum(dim=(1, 2, 3)) / share.sum(dim=(1, 2, 3))


def upsample(confidence_map: Tensor, factor: int) -> Tensor:
    """(B, 1, h, w) -> (B, 1, factor h, factor w), bilinear."""
    return functional.interpolate(confidence_map, scale_factor=float(factor), mode="bilinear")
