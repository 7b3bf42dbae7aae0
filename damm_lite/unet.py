"""The denoising U-Net: one branch of DAMM-Diffusion."""

import math
import operator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from damm_lite.prediction_types import PredictsImage, PredictsNoise, check_prediction_type


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a U-Net. `in_channels` counts xt and its condition,
    `out_channels` xt alone.
    """

    in_channels: int = 2
    out_channels: int = 1
    widths: tuple = (32, 64, 96, 128)
    time_dim: int = 128

    def __post_init__(self):
        for name in ("in_channels", "out_channels", "time_dim"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))  # NumPy's whole numbers, too
        object.__setattr__(self, "widths", tuple(map(operator.index, self.widths)))
        if len(self.widths) != 4 or min(self.widths) < 16 or any(w % 8 for w in self.widths):
            raise ValueError(f"widths: expected four multiples of 8 from 16 up, got {self.widths}")
        if self.in_channels < self.out_channels or self.out_channels < 1:
            found = f"{self.in_channels} and {self.out_channels}"
            raise ValueError(f"in_channels: expected at least out_channels (xt, then the condition), got {found}")
        if self.time_dim % 8 or self.time_dim < 16:
            raise ValueError(f"time_dim: expected a multiple of 8 from 16 up, got {self.time_dim}")


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoids of the raw step t (B,) at `dim` / 2 frequencies; (B, dim).

    >>> timestep_embedding(torch.tensor([0, 500]), 32).shape
    torch.Size([2, 32])
    """
    half = dim // 2
    rate = -math.log(10000) / (half - 1)
    frequencies = torch.exp(torch.arange(half, device=t.device) * rate)
    angles = t.float()[:, None] * frequencies  # (B, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """Step t (B,) -> embedding e (B, E), from sinusoids of width E / 4."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        first, second = nn.Linear(dim // 4, dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, t: Tensor) -> Tensor:
        waves = timestep_embedding(t, self.dim // 4)
        return self.mlp(waves.to(self.mlp[0].weight.dtype))


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """32 groups as in the release; 8 where the width is no multiple of 32."""
    return nn.GroupNorm(32 if channels % 32 == 0 else 8, channels, eps=eps)


class ConvBlock(nn.Module):
    """S(x) = SiLU(GroupNorm(Conv(x))) + skip(x); (B, C_in, H, W) -> (B, C_out,
    H, W).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = group_norm(out_channels)
        self.skip = nn.Identity()
        if in_channels != out_channels:
            self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.norm(self.conv(x))) + self.skip(x)


class ResBlock(nn.Module):
    """R(x, e) = S2(S1(x) + Linear(SiLU(e))): time enters once, as a shift of
    each channel.
    """

    def __init__(self, in_channels: int, out_channels: int, time_dim: int):
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels)
        self.second = ConvBlock(out_channels, out_channels)
        self.shift = nn.Linear(time_dim, out_channels)
        zero_init(self.second.conv)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        shift = self.shift(nn.functional.silu(e))  # (B, C)
        return self.second(self.first(x) + shift[:, :, None, None])


class Down(nn.Module):
    """Half the height and width, by a strided convolution; takes and ignores
    e.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, e: Tensor | None = None) -> Tensor:
        return self.conv(x)


class Up(nn.Module):
    """Twice the height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x)


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """Start a convolution at zero, so that it adds nothing until it has learnt
    something.
    """
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Backbone(nn.Module):
    """Encoder, middle and decoder of one branch; the time embedding e (B, E)
    comes from outside.

    The nine features f0 .. f8 of the encoder are the decoder's skips. The
    decoder has three stages of three blocks, at a quarter, a half and the
    whole of the resolution. Sides are multiples of 4.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        w0, w1, w2, w3 = config.widths
        self.feature_channels = [w0, w1, w1, w1, w2, w2, w2, w3, w3]  # of f0 .. f8

        def block(in_channels, out_channels):
            return ResBlock(in_channels, out_channels, config.time_dim)

        self.in_conv = nn.Conv2d(config.in_channels, w0, 3, padding=1)
        self.encoder = nn.ModuleList(
            [block(w0, w1), block(w1, w1), Down(w1)]  # f1, f2 at full size; f3 at half
            + [block(w1, w2), block(w2, w2), Down(w2)]  # f4, f5 at half; f6 at a quarter
            + [block(w2, w3), block(w3, w3)]  # f7, f8 at a quarter
        )
        self.middle = nn.ModuleList([block(w3, w3), block(w3, w3)])
        self.quarter_stage = nn.ModuleList([block(2 * w3, w3), block(2 * w3, w3), block(w3 + w2, w2)])  # + f8, f7, f6
        self.up_to_half = Up(w2)
        self.half_stage = nn.ModuleList([block(2 * w2, w2), block(2 * w2, w2), block(w2 + w1, w1)])  # + f5, f4, f3
        self.up_to_full = Up(w1)
        self.full_stage = nn.ModuleList([block(2 * w1, w1), block(2 * w1, w1), block(w1 + w0, w0)])  # + f2, f1, f0
        self.out_conv = zero_init(nn.Conv2d(w0, config.out_channels, 1))

    def encode(self, x: Tensor, e: Tensor) -> list[Tensor]:
        """x (B, C_in, H, W) -> features f0 .. f8, from (B, w0, H, W) to (B,
        w3, H/4, W/4).
        """
        features = [self.in_conv(x)]
        for block in self.encoder:
            features.append(block(features[-1], e))
        return features

    def decode(self, h: Tensor, features: list[Tensor], e: Tensor) -> Tensor:
        """Bottleneck h (B, w3, H/4, W/4) and skips f0 .. f8 -> (B, C_out, H,
        W).
        """
        for block in self.middle:
            h = block(h, e)
        h = decode_stage(self.quarter_stage, h, features[6:], e)
        h = self.up_to_half(h)  # (B, w2, H/2, W/2)
        h = decode_stage(self.half_stage, h, features[3:6], e)
        h = self.up_to_full(h)  # (B, w1, H, W)
        h = decode_stage(self.full_stage, h, features[:3], e)
        return self.out_conv(h)


def decode_stage(
    blocks: nn.ModuleList,
    h: Tensor,
    features: list[Tensor],
    e: Tensor,
) -> Tensor:
    """Blocks of one resolution, each of which takes in a skip, the last first:
    h (B, C, H, W) and as many features of that size -> (B, C_out, H, W).
    """
    for block, skip in zip(blocks, reversed(features), strict=True):
        h = block(torch.cat([h, skip], dim=1), e)
    return h


class UNet(nn.Module):
    """A conditional denoiser: (xt, t, *conditions) -> output like xt.

    The conditions enter by concatenation: xt (B, out_channels, H, W) and
    together (B, in_channels - out_channels, H, W), where H and W are multiples
    of 4. `conditions` names those of a batch that training passes;
    `prediction` says what the output means (a class of `prediction_types`).
    """

    def __init__(
        self, config: UNetConfig, prediction: type = PredictsNoise, conditions: tuple[str, ...] = ("primary",)
    ):
        super().__init__()
        check_prediction_type(prediction)
        self.config, self.prediction, self.conditions = config, prediction, tuple(conditions)
        self.arguments = dict(prediction=prediction, conditions=self.conditions)
        self.time = TimeEmbedding(config.time_dim)
        self.backbone = Backbone(config)

    def forward(self, xt: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        x = torch.cat([xt, *conditions], dim=1)
        check_images("xt and conditions", x, self.config.in_channels)
        e = self.time(t)
        features = self.backbone.encode(x, e)
        return self.backbone.decode(features[-1], features, e)


class RegressionUNet(UNet):
    """The same network without diffusion: it predicts x0 from the conditions
    at once, whatever xt and t are.
    """

    def __init__(self, config: UNetConfig, conditions: tuple[str, ...] = ("primary",)):
        super().__init__(config, PredictsImage, conditions)
        self.arguments = dict(conditions=self.conditions)

    def forward(self, xt: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(xt), torch.zeros_like(t), *conditions)


def check_images(name: str, x: Tensor, channels: int, like: Tensor | None = None) -> None:
    """Raise ValueError unless x is (B, channels, H, W) with sides that are
    multiples of 4.

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
