"""The denoising U-Net: one branch of DAMM-Diffusion."""

import math
from dataclasses import asdict, dataclass

import torch
from torch import nn

from damm_lite.schedules import PredictsNoise


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a U-Net. `in_channels` counts xt and its condition, `out_channels` xt alone."""

    in_channels: int = 2
    out_channels: int = 1
    widths: tuple = (32, 64, 96, 128)
    time_dim: int = 128

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))
        if len(self.widths) != 4 or min(self.widths) < 16 or any(w % 8 for w in self.widths):
            raise ValueError(f"widths: expected four multiples of 8 from 16 up, got {self.widths}")
        if self.in_channels < self.out_channels or self.out_channels < 1:
            raise ValueError(
                "in_channels: expected at least out_channels (xt, then the condition), "
                f"got {self.in_channels} and {self.out_channels}"
            )
        if self.time_dim % 8 or self.time_dim < 16:
            raise ValueError(f"time_dim: expected a multiple of 8 from 16 up, got {self.time_dim}")

    to_dict = asdict


def timestep_embedding(t, dim):
    """Sinusoids of the raw step t (B,) at `dim` / 2 frequencies; (B, dim)."""
    half = dim // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * -(math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * frequencies  # (B, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """Step t (B,) -> embedding e (B, E), from sinusoids of width E / 4."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim // 4, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t):
        return self.mlp(timestep_embedding(t, self.dim // 4).to(self.mlp[0].weight.dtype))


def group_norm(channels, eps=1e-5):
    """32 groups as in the release; 8 where the width is no multiple of 32."""
    return nn.GroupNorm(32 if channels % 32 == 0 else 8, channels, eps=eps)


class ConvBlock(nn.Module):
    """S(x) = SiLU(GroupNorm(Conv(x))) + skip(x); (B, C_in, H, W) -> (B, C_out, H, W)."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = group_norm(out_channels)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x):
        return nn.functional.silu(self.norm(self.conv(x))) + self.skip(x)


class ResBlock(nn.Module):
    """R(x, e) = S2(S1(x) + Linear(SiLU(e))): time enters once, as a shift of each channel."""

    def __init__(self, in_channels, out_channels, time_dim):
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels)
        self.second = ConvBlock(out_channels, out_channels)
        self.shift = nn.Linear(time_dim, out_channels)
        zero_init(self.second.conv)

    def forward(self, x, e):
        shift = self.shift(nn.functional.silu(e))[:, :, None, None]  # (B, C, 1, 1)
        return self.second(self.first(x) + shift)


class Down(nn.Module):
    """Half the height and width, by a strided convolution; takes and ignores e."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x, e=None):
        return self.conv(x)


class Up(nn.Module):
    """Twice the height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


def zero_init(layer):
    """Start a convolution at zero, so that it adds nothing until it has learnt something."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Backbone(nn.Module):
    """Encoder, middle and decoder of one branch; the time embedding e (B, E) comes from outside.

    The nine features f0 .. f8 are the decoder's skips. Two Downs: sides are multiples of 4.
    """

    def __init__(self, config):
        super().__init__()
        w0, w1, w2, w3 = config.widths

        def block(in_channels, out_channels):
            return ResBlock(in_channels, out_channels, config.time_dim)

        self.in_conv = nn.Conv2d(config.in_channels, w0, 3, padding=1)
        self.encoder = nn.ModuleList(
            [block(w0, w1), block(w1, w1), Down(w1)]  # f1, f2 at full size; f3 at half
            + [block(w1, w2), block(w2, w2), Down(w2)]  # f4, f5 at half; f6 at a quarter
            + [block(w2, w3), block(w3, w3)]  # f7, f8 at a quarter
        )
        self.middle = nn.ModuleList([block(w3, w3), block(w3, w3)])
        self.decoder = nn.ModuleList(
            [block(2 * w3, w3), block(2 * w3, w3), block(w3 + w2, w2)]  # + f8, f7, f6
            + [block(2 * w2, w2), block(2 * w2, w2), block(w2 + w1, w1)]  # + f5, f4, f3
            + [block(2 * w1, w1), block(2 * w1, w1), block(w1 + w0, w0)]  # + f2, f1, f0
        )
        self.ups = nn.ModuleDict({"2": Up(w2), "5": Up(w1)})  # after the decoder blocks 2 and 5
        self.out_conv = zero_init(nn.Conv2d(w0, config.out_channels, 1))

    @property
    def feature_channels(self):
        """Channels of f0 .. f8."""
        blocks = self.encoder
        return [self.in_conv.out_channels] + [
            b.conv.out_channels if isinstance(b, Down) else b.shift.out_features for b in blocks
        ]

    def encode(self, x, e):
        """x (B, C_in, H, W) -> features f0 .. f8, from (B, w0, H, W) to (B, w3, H/4, W/4)."""
        features = [self.in_conv(x)]
        for block in self.encoder:
            features.append(block(features[-1], e))
        return features

    def decode(self, h, features, e):
        """Bottleneck h (B, w3, H/4, W/4) and skips f0 .. f8 -> (B, C_out, H, W)."""
        for block in self.middle:
            h = block(h, e)
        for i, (block, skip) in enumerate(zip(self.decoder, reversed(features), strict=True)):
            h = block(torch.cat([h, skip], dim=1), e)
            if str(i) in self.ups:
                h = self.ups[str(i)](h)
        return self.out_conv(h)


class UNet(nn.Module):
    """A conditional denoiser: (xt, t, condition) -> output like xt.

    The condition enters by concatenation: xt (B, out_channels, H, W) and condition
    (B, in_channels - out_channels, H, W), where H and W are multiples of 4. `objective` says
    what the output means.
    """

    def __init__(self, config, objective=PredictsNoise):
        super().__init__()
        self.config, self.objective, self.arguments = config, objective, dict(objective=objective)
        self.time = TimeEmbedding(config.time_dim)
        self.backbone = Backbone(config)

    def forward(self, xt, t, *conditions):
        x = torch.cat([xt, *conditions], dim=1)
        check_images("xt and conditions", x, self.config.in_channels)
        e = self.time(t)
        features = self.backbone.encode(x, e)
        return self.backbone.decode(features[-1], features, e)


def check_images(name, x, channels, like=None):
    """Raise ValueError unless x is (B, channels, H, W) with sides that are multiples of 4.

    With `like`, its batch and sides must be those of that tensor.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{name}: expected shape (B, {channels}, H, W), got {tuple(x.shape)}")
    if x.shape[2] % 4 or x.shape[3] % 4 or 0 in x.shape:
        raise ValueError(f"{name}: expected height and width that are multiples of 4, got {x.shape[2]} x {x.shape[3]}")
    if like is not None and len(x) != len(like):
        raise ValueError(f"{name}: expected a batch of {len(like)}, got {len(x)}")
    if like is not None and x.shape[2:] != like.shape[2:]:
        raise ValueError(f"{name}: expected {like.shape[2]} x {like.shape[3]}, got {x.shape[2]} x {x.shape[3]}")
