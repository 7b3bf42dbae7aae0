"""DAMM-Diffusion: two branches, fused at every scale, and a map of how far to
trust the second.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from damm_lite.fusion import MMFM, UAFM, JointConfidence
from damm_lite.prediction_types import PredictsNoise, check_prediction_type
from damm_lite.unet import Backbone, TimeEmbedding, UNetConfig, check_images


class DAMMOutput(NamedTuple):
    """What both branches say; c = `confidence` is the mean of the map u."""

    uni: Tensor  # (B, C, H, W), the uni-modal branch's output
    multi: Tensor  # (B, C, H, W), the multi-modal branch's output
    confidence: Tensor  # (B,) in [0, 1]
    confidence_map: Tensor  # (B, h, w) in [0, 1], at a quarter of the resolution


class Encoded(NamedTuple):
    """Both encoders' work for one step: all that is needed to decide, and then
    to decode.
    """

    e: Tensor  # (B, E), time embedding
    uni: list[Tensor]  # a0 .. a8
    multi: list[Tensor]  # m0 .. m8
    confidence_map: Tensor  # (B, 1, h, w)

    @property
    def confidence(self) -> Tensor:
        """c (B,) in [0, 1]."""
        return self.confidence_map.mean(dim=(1, 2, 3))

    def select(self, rows: Tensor) -> "Encoded":
        """The samples in `rows` (a boolean (B,) or indices)."""
        rows = torch.arange(len(self.e), device=self.e.device)[rows]

        def pick(x):  # x[rows] for images with their channels last, three times as fast
            return x.movedim(1, -1).index_select(0, rows).movedim(-1, 1)

        uni, multi = ([pick(f) for f in features] for features in (self.uni, self.multi))
        return Encoded(self.e[rows], uni, multi, pick(self.confidence_map))


class DAMMNet(nn.Module):
    """The whole network: (xt, t, primary, secondary) -> DAMMOutput (the
    paper's Fig. 2).

    `config` describes the uni-modal branch, which sees [xt, primary]; the
    multi-modal branch has the same widths and sees [xt, secondary].
    `confidence` is a head's class or None, `prediction` says what the output
    means (`PredictsNoise`, `PredictsVelocity`, `PredictsImage`), `fusion` is
    the class of the nine fusions (`MMFM`, `Concatenation`, `Addition`),
    `attention` that at the bottom (`UAFM`, `PlainAttention`).
    """

    conditions = ("primary", "secondary")  # what training passes of a batch
    factor = 1  # by which what is noised is smaller than the images

    def __init__(
        self,
        config: UNetConfig,
        confidence: type | None = JointConfidence,
        secondary_channels: int | None = None,
        prediction: type = PredictsNoise,
        fusion: type = MMFM,
        attention: type = UAFM,
    ):
        super().__init__()
        check_prediction_type(prediction)
        self.config, self.prediction = config, prediction
        self.arguments = dict(
            confidence=confidence,
            secondary_channels=secondary_channels,
            prediction=prediction,
            fusion=fusion,
            attention=attention,
        )
        self.primary_channels = config.in_channels - config.out_channels
        self.secondary_channels = secondary_channels or self.primary_channels
        self.image_channels = config.out_channels, self.primary_channels, self.secondary_channels
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

    def encode_uni(self, xt: Tensor, t: Tensor, primary: Tensor) -> Encoded:
        """Run the uni-modal encoder alone: all that `decode_uni` needs. No
        second image is seen, so u = 0.
        """
        check_images("xt", xt, self.config.out_channels)
        check_images("primary", primary, self.primary_channels, like=xt)
        e = self.time(t)
        a = self.uni.encode(torch.cat([xt, primary], dim=1), e)
        return Encoded(e, a, [], torch.zeros_like(a[-1][:, :1]))

    def encode(
        self,
        xt: Tensor,
        t: Tensor,
        primary: Tensor,
        secondary: Tensor,
    ) -> Encoded:
        """Run both encoders: everything up to the confidence, before either
        decoder.
        """
        e, a, *_ = self.encode_uni(xt, t, primary)
        check_images("secondary", secondary, self.secondary_channels, like=xt)
        d = self.multi.in_conv(torch.cat([xt, secondary], dim=1))
        m = [self.mmfm[0](a[0], d)]
        steps = zip(self.multi.encoder, self.mmfm[1:], a[1:], strict=True)
        for block, fuse, a_i in steps:
            m.append(fuse(a_i, block(m[-1], e)))
        return Encoded(e, a, m, self.uafm.confidence_map(a[-1], m[-1]))

    def decode_uni(self, encoded: Encoded) -> Tensor:
        """The uni-modal branch's output (B, C, H, W)."""
        return self.uni.decode(encoded.uni[-1], encoded.uni, encoded.e)

    def decode_multi(self, encoded: Encoded) -> Tensor:
        """The multi-modal branch's output (B, C, H, W)."""
        h = self.uafm(encoded.uni[-1], encoded.multi[-1], encoded.confidence_map)
        return self.multi.decode(h, encoded.multi, encoded.e)

    def to_latent(self, image: Tensor) -> Tensor:
        """What is noised in the place of an image: the image itself."""
        return image

    def from_latent(self, latent: Tensor) -> Tensor:
        """The image that it stands for."""
        return latent

    def forward(self, xt: Tensor, t: Tensor, primary: Tensor, secondary: Tensor) -> DAMMOutput:
        encoded = self.encode(xt, t, primary, secondary)
        return DAMMOutput(
            self.decode_uni(encoded), self.decode_multi(encoded), encoded.confidence, encoded.confidence_map.squeeze(1)
        )
