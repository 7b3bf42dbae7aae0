"""What to beat: predictions without diffusion, from distance alone or in one pass of a U-Net."""

import numpy as np
import torch

from damm_lite.simulate import distance_to_vessels


class DistanceBaseline:
    """The mean signal at each distance from the nearest vessel: what one would try first.

    It learns from `patches` (items with `target` and `primary` in [-1, 1]) one number for every
    micrometre of distance, and predicts by looking them up. `pixel` is the side of one in µm.
    """

    def __init__(self, patches, pixel=2.0):
        self.pixel = pixel
        distances = np.concatenate([self._distance(item["primary"]).ravel() for item in patches])
        signal = np.concatenate([item["target"].numpy().ravel() for item in patches])
        bins = np.rint(distances).astype(int)
        counts = np.bincount(bins)
        self.distance = np.flatnonzero(counts)  # µm
        self.signal = np.bincount(bins, signal)[self.distance] / counts[self.distance]

    def __call__(self, primary):
        """Vessels (B, 1, H, W) -> nanoparticles, of the same shape, in [-1, 1]."""
        distances = np.stack([self._distance(image) for image in primary])
        return torch.from_numpy(np.interp(distances, self.distance, self.signal)).to(primary.dtype)

    def _distance(self, image):
        """(1, H, W) in [-1, 1] -> µm."""
        return distance_to_vessels((image[0].numpy() + 1) / 2, self.pixel)[None]


def regression_objective(model, batch):
    """Squared error of a `UNet` that predicts the target in one pass, from the primary image."""
    return (regress(model, batch["primary"]) - batch["target"]).square().mean()


def concat_regression_objective(model, batch):
    """The same, from both images."""
    conditions = torch.cat([batch["primary"], batch["secondary"]], dim=1)
    return (regress(model, conditions) - batch["target"]).square().mean()


def regress(model, conditions):
    """One pass of a `UNet` (or one wrapped for training) without a noisy image: zeros of one channel, t = 0."""
    b, _, h, w = conditions.shape
    return model(conditions.new_zeros(b, 1, h, w), conditions.new_zeros(b, dtype=torch.long), conditions)
