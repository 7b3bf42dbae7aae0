"""Latents: images made small by an autoencoder, and DAMM-Diffusion on them
(Rombach et al. 2022).

The autoencoder halves an image a few times, keeps a few channels, and learns
to undo it. What diffuses is what it keeps: 16 times fewer numbers at factor 4,
if one channel becomes one, and with them nearly 16 times less work.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from damm_lite.damm import DAMMNet, DAMMOutput
from damm_lite.fusion import MMFM, UAFM, JointConfidence
from damm_lite.prediction_types import PredictsImage, PredictsPreconditioned
from damm_lite.unet import ConvBlock, Down, UNetConfig, Up, check_images

RANGE = 3.0  # standard deviations of the latents that become 1


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of an autoencoder for images of one channel: `latent_channels` of
    a latent, and the width at each size, of which the next has half the side.
    """

    latent_channels: int = 4
    widths: tuple = (16, 32, 64)

    def __post_init__(self):
        object.__setattr__(self, "widths", tuple(self.widths))
        if len(self.widths) < 2 or any(width % 8 or width < 8 for width in self.widths):
            raise ValueError(f"widths: expected at least two multiples of 8 from 8 up, got {self.widths}")
        if not 1 <= self.latent_channels <= self.factor**2:
            raise ValueError(f"latent_channels: expected 1..{self.factor**2}, got {self.latent_channels}")

    @property
    def factor(self) -> int:
        """How many times smaller the sides of a latent are."""
        return 2 ** (len(self.widths) - 1)


class AutoencoderOutput(NamedTuple):
    """An image as it comes back, and the distribution of its latent."""

    image: Tensor  # (B, 1, H, W)
    mean: Tensor  # (B, C, H / factor, W / factor)
    log_variance: Tensor  # likewise


class Autoencoder(nn.Module):
    """A convolutional variational autoencoder (Kingma and Welling 2014).

    `train` and `fit` train it with `autoencoder_loss` on any items with a
    `target`; then `standardise` brings its latents to one scale. `encode` and
    `decode` lead from images (B, 1, H, W) in [-1, 1] to latents (B, C, H /
    factor, W / factor) and back. Those of the images that set the scale lie in
    [-1, 1] but for few; others may go beyond.
    """

    conditions = ("target", "eps")  # what training passes of a batch
    prediction = PredictsImage
    config_type = AutoencoderConfig

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config, self.arguments = config, {}
        first, *_, last = widths = config.widths
        down = [nn.Conv2d(1, first, 3, padding=1)]
        up = [nn.Conv2d(config.latent_channels, last, 3, padding=1), ConvBlock(last, last)]
        for width, smaller in zip(widths, widths[1:], strict=False):
            down += [ConvBlock(width, smaller), Down(smaller)]
            up[2:2] = [Up(smaller), ConvBlock(smaller, width)]
        self.down = nn.Sequential(*down, ConvBlock(last, last), nn.Conv2d(last, 2 * config.latent_channels, 1))
        self.up = nn.Sequential(*up, nn.Conv2d(first, 1, 3, padding=1))
        self.register_buffer("mean", torch.zeros(config.latent_channels, 1, 1))
        self.register_buffer("scale", torch.ones(config.latent_channels, 1, 1))

    def moments(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of an image's latent, before any scaling."""
        check_images("image", image, 1)
        if any(side % self.config.factor for side in image.shape[2:]):
            raise ValueError(f"image: expected sides that are multiples of {self.config.factor}, got {image.shape[2:]}")
        mean, log_variance = self.down(image).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def encode(self, image: Tensor) -> Tensor:
        """The latent of an image: its mean, scaled."""
        return (self.moments(image)[0] - self.mean) / self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """The image of a latent."""
        return self.up(latent * self.scale + self.mean).clamp(-1, 1)

    def forward(
        self, xt: Tensor, t: Tensor, image: Tensor, eps: Tensor
    ) -> AutoencoderOutput:  # fmt: skip
        """For training: decode a latent that is drawn; its noise is taken
        from the pixels' noise eps (B, 1, H, W), xt and t are not looked at.
        """
        mean, log_variance = self.moments(image)
        noise = functional.pixel_unshuffle(eps, self.config.factor)
        latent = mean + (log_variance / 2).exp() * noise[:, : mean.shape[1]]
        return AutoencoderOutput(self.up(latent), mean, log_variance)


def autoencoder_loss(
    output: AutoencoderOutput,
    target: Tensor,
    trusted: Tensor | None = None,
    *,
    kl_weight: float = 1e-3,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean |image - target|, plus `kl_weight` times the mean divergence of the
    latents' distributions from the standard normal one, plus a term of your
    own, `perceptual` (image, target) -> scalar, as LPIPS of torchmetrics.
    """
    divergence = (output.mean.square() + output.log_variance.exp() - 1 - output.log_variance).mean() / 2
    loss = (output.image - target).abs().mean() + kl_weight * divergence
    return loss + perceptual(output.image, target) if perceptual else loss


@torch.no_grad()
def standardise(autoencoder: Autoencoder, images: Iterable[Tensor]) -> None:
    """Set the mean and scale of each latent channel, in place, from batches of
    images of the kind that is to be diffused: one standard deviation becomes
    1/3.
    """
    latents = torch.cat([autoencoder.moments(batch)[0].transpose(0, 1).flatten(1) for batch in images], dim=1)
    autoencoder.mean.copy_(latents.mean(dim=1)[:, None, None])
    autoencoder.scale.copy_(RANGE * latents.std(dim=1)[:, None, None])


class LatentDAMMNet(DAMMNet):
    """`DAMMNet` on latents: images go in and come out, and what is noised is
    the latent of the target.

    `config` is that of the network on latents, of out_channels latent channels
    and twice as many in_channels; `widths` are the autoencoder's, which stays
    as it is in training. Training items hold the *latent* of the target.
    """

    def __init__(
        self,
        config: UNetConfig,
        widths: tuple = AutoencoderConfig.widths,
        confidence: type | None = JointConfidence,
        prediction: type = PredictsPreconditioned,
        fusion: type = MMFM,
        attention: type = UAFM,
    ):
        super().__init__(config, confidence, None, prediction, fusion, attention)
        if config.in_channels != 2 * config.out_channels:
            raise ValueError(f"config.in_channels: expected {2 * config.out_channels}, got {config.in_channels}")
        del self.arguments["secondary_channels"]
        self.arguments |= dict(widths=list(widths))
        self.autoencoder = Autoencoder(AutoencoderConfig(config.out_channels, widths)).requires_grad_(False)
        self.factor, self.image_channels = self.autoencoder.config.factor, (1, 1, 1)

    def to_latent(self, image: Tensor) -> Tensor:
        """The latent of images (B, 1, H, W), as the autoencoder gives it."""
        return self.autoencoder.encode(image)

    def from_latent(self, latent: Tensor) -> Tensor:
        """The image of a latent."""
        return self.autoencoder.decode(latent)

    def forward(
        self, xt: Tensor, t: Tensor, primary: Tensor, secondary: Tensor
    ) -> DAMMOutput:  # fmt: skip
        return super().forward(xt, t, *map(self.to_latent, (primary, secondary)))
