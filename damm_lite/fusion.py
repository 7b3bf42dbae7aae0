"""Fusing two modalities: MMFM at every scale, UAFM at the bottleneck, and its
confidence.

A fusion is a module (a, d) -> m, all (B, C, H, W), made with the number of
channels C.
"""

import torch
from torch import Tensor, nn

from damm_lite.unet import group_norm


class Mask(nn.Module):
    """x -> x gated by sigmoid(BN(Conv(SiLU(BN(Conv(x)))))): one gate per
    channel and pixel.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1),
            nn.BatchNorm2d(2 * channels),
            nn.SiLU(),
            nn.Conv2d(2 * channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate read off all channels' means (Hu et al.
    2018).
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return z * self.gate(z)


class MMFM(nn.Module):
    """Multi-modal fusion module: uni-modal a and multi-modal d -> fused m, all
    (B, C, H, W).

    >>> MMFM(16)(torch.zeros(2, 16, 8, 8), torch.ones(2, 16, 8, 8)).shape
    torch.Size([2, 16, 8, 8])
    """

    def __init__(self, channels: int):
        super().__init__()
        self.mask_uni = Mask(channels)
        self.mask_multi = Mask(channels)
        self.excite = SqueezeExcitation(2 * channels, channels // 8)
        self.merge = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, a: Tensor, d: Tensor) -> Tensor:
        masked = self.mask_uni(a), self.mask_multi(d)
        z = torch.cat(masked, dim=1)  # (B, 2C, H, W)
        return self.merge(self.excite(z))


class Concatenation(nn.Module):
    """What one tries first in place of an MMFM: a 1 x 1 convolution of both,
    without any gate.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.merge = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, a: Tensor, d: Tensor) -> Tensor:
        return self.merge(torch.cat([a, d], dim=1))


class Addition(nn.Module):
    """Simpler still: a + d."""

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, a: Tensor, d: Tensor) -> Tensor:
        return a + d


class QueryConfidence(nn.Module):
    """The released head: u = sigmoid(Linear(a)). It reads the uni-modal stream
    alone.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Conv2d(channels, 1, 1)

    def forward(self, a: Tensor, m: Tensor) -> Tensor:
        return self.linear(a).sigmoid()  # (B, 1, h, w)


class JointConfidence(nn.Module):
    """Our head: u read off both streams, in a neighbourhood, so that it can
    see them disagree.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.read = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 3, padding=1),
            group_norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, 1, 1),
        )

    def forward(self, a: Tensor, m: Tensor) -> Tensor:
        return self.read(torch.cat([a, m], dim=1)).sigmoid()  # (B, 1, h, w)


class UAFM(nn.Module):
    """Uncertainty-aware fusion module: uni-modal queries attend to
    confidence-scaled keys.

    L_ij = (Q_i . K_j) / sqrt(C) * u_j, and the output is a + Proj(softmax(L)
    V). Scaling the logits by u_j is scaling the keys. `confidence` is a head's
    class, or None for plain attention.
    """

    def __init__(self, channels: int, confidence: type | None):
        super().__init__()
        self.norm = group_norm(channels, eps=1e-6)
        self.q, self.k, self.v, self.proj = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.confidence = confidence(channels) if confidence else None

    def confidence_map(self, a: Tensor, m: Tensor) -> Tensor:
        """u (B, 1, h, w) in [0, 1]; ones without a head."""
        if self.confidence is None:
            return torch.ones_like(a[:, :1])
        return self.confidence(self.norm(a), self.norm(m))

    def forward(self, a: Tensor, m: Tensor, u: Tensor) -> Tensor:
        """a, m (B, C, h, w) and u (B, 1, h, w) -> (B, C, h, w)."""
        m = self.norm(m)
        q, k, v = self.q(self.norm(a)), self.k(m) * u, self.v(m)
        q, k, v = (x.flatten(2).transpose(1, 2) for x in (q, k, v))  # (B, h w, C)
        fused = nn.functional.scaled_dot_product_attention(q, k, v)  # (B, h w, C)
        return a + self.proj(fused.transpose(1, 2).unflatten(2, a.shape[2:]))


class PlainAttention(UAFM):
    """UAFM whose keys are not scaled: the confidence is only read, by the
    gate.
    """

    def forward(self, a: Tensor, m: Tensor, u: Tensor) -> Tensor:
        return super().forward(a, m, torch.ones_like(u))
