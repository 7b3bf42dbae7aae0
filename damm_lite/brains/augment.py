"""Augmentation for few patients: heads turned, stretched, moved and mirrored,
and the contrast of the source images changed.
"""

import numpy as np
import torch
from skimage.transform import AffineTransform, warp
from torch.utils.data import Dataset

from damm_lite.data import check_index

TURN = 0.2  # at most, radians
ZOOM, STRETCH, MOVE = 0.12, 0.08, 0.08  # at most: of both sides alike, of each side, of half a side
CONTRAST = 0.15  # at most, of the logarithm of gamma


class Augmented(Dataset):
    """Each slice of a dataset in many versions: `copies` times as long, item i
    is version i % copies of one slice.

    All images of a slice are mirrored or not, turned, resized, stretched and
    moved alike (`random_affine`). Then a random gamma changes the grey values
    of the sources, not of the target: scanners show the same tissue with
    different grey values, and a network should not rely on one scanner's. An
    item depends on (seed, i) alone. Its `target`, `primary` and `secondary`,
    (C, S, S) in [-1, 1], are -1 beyond the border of the old image; `mask` and
    `lesion`, where there are any, are moved along, and other keys stay as they
    are. Raises ValueError for fewer than one copy.
    """

    def __init__(self, dataset: Dataset, copies: int = 32, seed: int = 0) -> None:
        if copies < 1:
            raise ValueError(f"copies: expected at least 1, got {copies}")
        self.dataset, self.copies, self.seed = dataset, copies, seed

    def __len__(self) -> int:
        return self.copies * len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        check_index(index, len(self))
        rng = np.random.default_rng([self.seed, index])
        item = self.dataset[index // self.copies]
        to_old = random_affine(rng, item["target"].shape[-1])
        images = {key: move_image(item[key], to_old) for key in ("target", "primary", "secondary")}
        images |= {key: random_gamma(images[key], rng) for key in ("primary", "secondary")}
        regions = {key: move_region(item[key], to_old) for key in ("mask", "lesion") if key in item}
        return item | images | regions


def random_affine(rng: np.random.Generator, side: int) -> AffineTransform:
    """A random map from pixels (x, y) of the new image of `side` pixels to
    those of the old one; half of these maps mirror left and right.
    """
    middle = (side - 1) / 2
    zoom, flip = 1 + rng.uniform(-ZOOM, ZOOM), rng.choice([-1, 1])
    scale = zoom * (1 + rng.uniform(-STRETCH, STRETCH, 2)) * (flip, 1)
    move = rng.uniform(-MOVE, MOVE, 2) * side / 2
    turned = AffineTransform(scale=scale, rotation=rng.uniform(-TURN, TURN), translation=move)
    return AffineTransform(translation=(-middle, -middle)) + turned + AffineTransform(translation=(middle, middle))


def move_image(image: torch.Tensor, to_old: AffineTransform) -> torch.Tensor:
    """The image (C, S, S) in [-1, 1] whose pixels are those of `image` at the
    places that `to_old` maps them to; -1 beyond the border.

    Interpolation is cubic, since linear interpolation blurs, and a network
    learns to blur from blurred targets.
    """
    moved = [warp(channel, to_old, order=3, cval=-1, preserve_range=True) for channel in image.numpy()]
    return torch.from_numpy(np.stack(moved).astype(np.float32)).clamp(-1, 1)


def move_region(region: torch.Tensor, to_old: AffineTransform) -> torch.Tensor:
    """The same for a region (1, S, S) in {0, 1}, by the nearest pixel; 0 beyond
    the border.
    """
    return torch.from_numpy(warp(region[0].numpy(), to_old, order=0)[None].astype(np.float32))


def random_gamma(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """(C, H, W) in [-1, 1] with a random gamma for each channel; -1 and 1 stay
    as they are.
    """
    gamma = torch.tensor(np.exp(rng.uniform(-CONTRAST, CONTRAST, (len(image), 1, 1))), dtype=torch.float32)
    return 2 * ((image + 1) / 2).clamp(0, 1) ** gamma - 1
