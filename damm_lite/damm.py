"""DAMM-Diffusion: two branches, fused at every scale, and the rule that chooses between them."""

from typing import NamedTuple

import torch
from torch import nn

from damm_lite.fusion import MMFM, UAFM, JointConfidence
from damm_lite.schedules import PredictsNoise
from damm_lite.unet import Backbone, TimeEmbedding, UNetConfig, check_images


class DAMMOutput(NamedTuple):
    """What both branches say; c = `confidence` is the mean of the map u."""

    uni: torch.Tensor  # (B, C, H, W), the uni-modal branch's output
    multi: torch.Tensor  # (B, C, H, W), the multi-modal branch's output
    confidence: torch.Tensor  # (B,) in [0, 1]
    confidence_map: torch.Tensor  # (B, h, w) in [0, 1], at a quarter of the resolution


class Encoded(NamedTuple):
    """Both encoders' work for one step: all that is needed to decide, and then to decode."""

    e: torch.Tensor  # (B, E), time embedding
    uni: list  # a0 .. a8
    multi: list  # m0 .. m8
    confidence_map: torch.Tensor  # (B, 1, h, w)

    @property
    def confidence(self):
        """c (B,) in [0, 1]."""
        return self.confidence_map.mean(dim=(1, 2, 3))

    def select(self, rows):
        """The samples in `rows` (a boolean (B,) or indices)."""
        return Encoded(
            self.e[rows],
            [a[rows] for a in self.uni],
            [m[rows] for m in self.multi],
            self.confidence_map[rows],
        )


class DAMMNet(nn.Module):
    """The whole network: (xt, t, primary, secondary) -> DAMMOutput (the paper's Fig. 2).

    `config` describes the uni-modal branch, which sees [xt, primary]; the multi-modal branch
    has the same widths and sees [xt, secondary]. `confidence` is a head's class or None,
    `objective` says what the output means (`PredictsNoise`, `PredictsVelocity`, `PredictsImage`),
    `fusion` is the class of the nine fusions (`MMFM`, `Concatenation`, `Addition`), `attention`
    that at the bottom (`UAFM`, `PlainAttention`).
    """

    def __init__(
        self,
        config,
        confidence=JointConfidence,
        secondary_channels=None,
        objective=PredictsNoise,
        fusion=MMFM,
        attention=UAFM,
    ):
        super().__init__()
        self.config, self.objective = config, objective
        self.arguments = dict(
            confidence=confidence,
            secondary_channels=secondary_channels,
            objective=objective,
            fusion=fusion,
            attention=attention,
        )
        self.primary_channels = config.in_channels - config.out_channels
        self.secondary_channels = secondary_channels or self.primary_channels
        if self.primary_channels < 1:
            raise ValueError("config.in_channels: expected xt and at least one primary channel")
        multi_config = UNetConfig(
            config.out_channels + self.secondary_channels, config.out_channels, config.widths, config.time_dim
        )
        self.time = TimeEmbedding(config.time_dim)
        self.uni = Backbone(config)
        self.multi = Backbone(multi_config)
        self.mmfm = nn.ModuleList(fusion(channels) for channels in self.uni.feature_channels)
        self.uafm = attention(config.widths[-1], confidence)

    def encode(self, xt, t, primary, secondary):
        """Run both encoders: everything up to the confidence, before either decoder."""
        check_images("xt", xt, self.config.out_channels)
        check_images("primary", primary, self.primary_channels, like=xt)
        check_images("secondary", secondary, self.secondary_channels, like=xt)
        e = self.time(t)
        a = self.uni.encode(torch.cat([xt, primary], dim=1), e)
        d = self.multi.in_conv(torch.cat([xt, secondary], dim=1))
        m = [self.mmfm[0](a[0], d)]
        for block, fuse, a_i in zip(self.multi.encoder, self.mmfm[1:], a[1:], strict=True):
            m.append(fuse(a_i, block(m[-1], e)))
        return Encoded(e, a, m, self.uafm.confidence_map(a[-1], m[-1]))

    def decode_uni(self, encoded):
        """The uni-modal branch's output (B, C, H, W)."""
        return self.uni.decode(encoded.uni[-1], encoded.uni, encoded.e)

    def decode_multi(self, encoded):
        """The multi-modal branch's output (B, C, H, W)."""
        h = self.uafm(encoded.uni[-1], encoded.multi[-1], encoded.confidence_map)
        return self.multi.decode(h, encoded.multi, encoded.e)

    def forward(self, xt, t, primary, secondary):
        encoded = self.encode(xt, t, primary, secondary)
        return DAMMOutput(
            self.decode_uni(encoded),
            self.decode_multi(encoded),
            encoded.confidence,
            encoded.confidence_map.squeeze(1),
        )


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

    c is known before either decoder has run, so each sample runs only the one it needs.
    """

    def __init__(self, gamma=0.5):
        self.gamma = gamma

    def __call__(self, model, encoded):
        """(network, `Encoded`) -> `Decision`."""
        return self.take(model, encoded, encoded.confidence >= self.gamma)

    @staticmethod
    def take(model, encoded, use_multi):
        """Decode each sample with the branch that `use_multi` (B,) says."""
        rows = {True: use_multi.nonzero()[:, 0], False: (~use_multi).nonzero()[:, 0]}
        decoded = [
            decode(encoded.select(rows[multi]))
            for multi, decode in ((True, model.decode_multi), (False, model.decode_uni))
            if len(rows[multi])
        ]
        back = torch.cat([rows[True], rows[False]]).argsort()
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
    """The gate that always believes the uni-modal branch."""

    def __call__(self, model, encoded):
        return _decide(model.decode_uni(encoded), torch.zeros_like(encoded.confidence), encoded)


class MultiModal:
    """The gate that always believes the multi-modal branch."""

    def __call__(self, model, encoded):
        return _decide(model.decode_multi(encoded), torch.ones_like(encoded.confidence), encoded)


class SpatialDAMMP:
    """A gate for every pixel: both branches, mixed by the confidence map, upsampled."""

    def __call__(self, model, encoded):
        return _mix(model, encoded, upsample(encoded.confidence_map, 4))


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


def upsample(confidence_map, factor):
    """(B, 1, h, w) -> (B, 1, factor h, factor w), bilinear."""
    return nn.functional.interpolate(confidence_map, scale_factor=float(factor), mode="bilinear")


def damm_loss(output, target, trusted=None, *, alpha=0.01):
    """Our objective: both branches always trained, and u taught which of them is closer; a scalar.

    `target` (B, C, H, W) is what both branches should output; `trusted` (B, 1, H, W) in {0, 1}
    marks where the secondary image is known to be right, and only there the multi-modal branch
    has to be. The last term, alpha BCE(u, y), has for each of the map's cells y = 1 where the
    multi-modal branch errs less: u is the chance that it does, so that u > 1/2 is the better bet.
    """
    trusted = torch.ones_like(target[:, :1]) if trusted is None else trusted
    u = output.confidence_map[:, None]
    l_uni, l_multi = (output.uni - target).square(), (output.multi - target).square()
    gain = (l_uni - l_multi).detach().mean(dim=1, keepdim=True)  # (B, 1, H, W)
    better = nn.functional.adaptive_avg_pool2d(gain, u.shape[2:]) > 0  # (B, 1, h, w)
    gate = nn.functional.binary_cross_entropy(u, better.to(u.dtype))
    return l_uni.mean() + (trusted * l_multi).mean() + alpha * gate


def released_loss(output, target, *, alpha=1e-4, gamma=0.5):
    """The released objective of the second phase; a scalar.

    Per sample, l = mean |output - target| of each branch: the uni-modal branch alone where
    c < gamma, else the mean of both; plus alpha [BCE(c, y) / 2 + mean (c - gamma)^2] with
    y = 1 where the multi-modal branch is no worse.
    """
    l_uni, l_multi, c = per_sample_l1(output.uni, target), per_sample_l1(output.multi, target), output.confidence
    branches = torch.where(c < gamma, l_uni, (l_uni + l_multi) / 2)
    better = (l_multi <= l_uni).to(c.dtype)
    gate = 0.5 * nn.functional.binary_cross_entropy(c, better) + (c - gamma).square().mean()
    return branches.mean() + alpha * gate


def warmup_loss(output, target):
    """The released objective of the first phase: the mean of both branches' L1; a scalar."""
    return (per_sample_l1(output.uni, target) + per_sample_l1(output.multi, target)).mean() / 2


def per_sample_l1(output, target):
    """mean |output - target| of each sample; (B,)."""
    return (output - target).abs().flatten(1).mean(dim=1)
