"""What to beat without any network: predictions from distance, from a copied
image, voxel by voxel.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy.spatial import cKDTree

from damm_lite.data import stack
from damm_lite.tumours.simulate import distance_to_vessels


class DistanceBaseline:
    """The mean signal at each distance from the nearest vessel: what one would
    try first.

    It learns from `patches` (items with `target` and `primary` in [-1, 1]) one
    number for every micrometre of distance, and predicts by looking them up.
    `pixel` is the side of one in µm.
    """

    def __init__(self, patches: Iterable[dict], pixel: float = 2.0):
        self.pixel = pixel
        distances = np.concatenate([self._distance(item["primary"]).ravel() for item in patches])
        signal = np.concatenate([item["target"].numpy().ravel() for item in patches])
        bins = np.rint(distances).astype(int)
        counts = np.bincount(bins)
        self.distance = np.flatnonzero(counts)  # µm
        self.signal = np.bincount(bins, signal)[self.distance] / counts[self.distance]

    def __call__(self, primary: torch.Tensor) -> torch.Tensor:
        """Vessels (B, 1, H, W) -> nanoparticles, of the same shape, in [-1,
        1].
        """
        distances = np.stack([self._distance(image) for image in primary])
        return torch.from_numpy(np.interp(distances, self.distance, self.signal)).to(primary.dtype)

    def _distance(self, image):
        """(1, H, W) in [-1, 1] -> µm."""
        return distance_to_vessels((image[0].numpy() + 1) / 2, self.pixel)[None]


class HistogramMatching:
    """The second image itself, its grey values matched to those of the target.

    It learns one monotone curve, which takes the quantiles of `secondary`
    (its first channel) to those of `target`, over the brains of `items`: dicts
    with these and `mask`, as datasets of MRI yield them.
    """

    def __init__(self, items: Sequence[dict]):
        shares = np.linspace(0, 1, 257)
        secondary = [values_of(item, "secondary") for item in items]
        target = [values_of(item, "target") for item in items]
        self.secondary = np.quantile(np.concatenate(secondary), shares)
        self.target = np.quantile(np.concatenate(target), shares)

    def __call__(self, batch: dict) -> torch.Tensor:
        """A batch of slices -> the target (B, 1, H, W), -1 outside brains."""
        sources = batch["secondary"][:, :1].numpy()
        found = np.interp(sources, self.secondary, self.target)
        nothing, inside = torch.tensor(-1.0), batch["mask"] == 1
        return torch.from_numpy(found).float().where(inside, nothing)


def values_of(item: dict, key: str) -> np.ndarray:
    """The values (n,) of an image's first channel in the brain."""
    return item[key][0][item["mask"][0] == 1].numpy()


class KNNBaseline:
    """K nearest neighbours, voxel by voxel.

    It predicts the mean target of the training voxels whose sources are most
    similar; these are `primary` and all channels of `secondary`. Of the brains
    of `items` (see `HistogramMatching`) at most `voxels` are kept, drawn with
    `seed`; the mean is over `neighbours` of them.
    """

    def __init__(
        self,
        items: Iterable[dict],
        neighbours: int = 64,
        voxels: int = 50_000,
        seed: int = 0,
    ):
        batch = stack(items)
        sources = self._sources(batch)
        target = batch["target"][batch["mask"] == 1]
        order = np.random.default_rng(seed).permutation(len(target))[:voxels]
        self.tree, self.target = cKDTree(sources[order]), target.numpy()[order]
        self.neighbours = min(neighbours, len(order))

    def __call__(self, batch: dict) -> torch.Tensor:
        """A batch of slices -> the target (B, 1, H, W), -1 outside brains."""
        among = range(1, self.neighbours + 1)
        _, nearest = self.tree.query(self._sources(batch), among)
        found = torch.full_like(batch["target"], -1.0)
        values = torch.from_numpy(self.target[nearest].mean(axis=1))
        found[batch["mask"] == 1] = values.to(found.dtype)
        return found

    @staticmethod
    def _sources(batch: dict) -> np.ndarray:
        """All sources (n, channels) of the voxels in the brain."""
        sources = torch.cat([batch["primary"], batch["secondary"]], dim=1)
        return sources.movedim(1, -1)[batch["mask"][:, 0] == 1].numpy()
