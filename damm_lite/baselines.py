"""What to beat: predictions without diffusion, from distance alone or in one pass of a U-Net."""

import numpy as np
import torch
from scipy.spatial import cKDTree

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


class MatchedCopy:
    """The second image itself, its grey values exchanged for those of the target: a copy in the right colours.

    It learns one monotone curve, which takes the quantiles of `secondary` (its first channel) to those of
    `target`, over the brains of `items`: dicts with these and `mask`, as datasets of MRI yield them.
    """

    def __init__(self, items):
        inside = [item["mask"][0] == 1 for item in items]
        shares = np.linspace(0, 1, 257)
        self.secondary, self.target = (
            np.quantile(torch.cat([item[key][0][m] for item, m in zip(items, inside, strict=True)]).numpy(), shares)
            for key in ("secondary", "target")
        )

    def __call__(self, batch):
        """A batch of slices -> the target (B, 1, H, W) in [-1, 1], -1 outside the brain."""
        found = torch.from_numpy(np.interp(batch["secondary"][:, :1].numpy(), self.secondary, self.target)).float()
        return found.where(batch["mask"] == 1, torch.tensor(-1.0))


class VoxelBaseline:
    """Voxel by voxel: the mean target of the training voxels whose sources look most like this one's.

    The sources are `primary` and all channels of `secondary`. Of the brains of `items` (see `MatchedCopy`)
    at most `voxels` are kept, drawn with `seed`; the mean is over `neighbours` of them.
    """

    def __init__(self, items, neighbours=64, voxels=50_000, seed=0):
        sources, target = zip(*(self._inside(item) for item in items), strict=True)
        sources, target = np.concatenate(sources), np.concatenate(target)
        rows = np.random.default_rng(seed).permutation(len(target))[:voxels]
        self.tree, self.target, self.neighbours = cKDTree(sources[rows]), target[rows], min(neighbours, len(rows))

    def __call__(self, batch):
        """A batch of slices -> the target (B, 1, H, W) in [-1, 1], -1 outside the brain."""
        found, inside = torch.full_like(batch["target"], -1.0), batch["mask"] == 1
        sources = torch.cat([batch["primary"], batch["secondary"]], dim=1).movedim(1, -1)[inside[:, 0]]
        _, nearest = self.tree.query(sources.numpy(), range(1, self.neighbours + 1))
        found[inside] = torch.from_numpy(self.target[nearest].mean(axis=1)).to(found.dtype)
        return found

    @staticmethod
    def _inside(item):
        """Sources (n, channels) and target (n,) of an item's voxels in the brain."""
        inside = item["mask"][0] == 1
        return torch.cat([item["primary"], item["secondary"]])[:, inside].T.numpy(), item["target"][0, inside].numpy()


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
