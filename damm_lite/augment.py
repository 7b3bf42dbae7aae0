"""Few patients, made to look like more: heads turned, stretched and mirrored, scanners that show contrast otherwise."""

import numpy as np
import torch
from scipy.ndimage import affine_transform
from torch.utils.data import Dataset

TURN = 0.2  # at most, radians
ZOOM, STRETCH, MOVE = 0.12, 0.08, 0.08  # shares of the size, of the size along one axis, of half a side
CONTRAST = 0.15  # most change of log gamma


class Augmented(Dataset):
    """Each slice of a dataset in many versions: `copies` times as long, item i is version i % copies of one slice.

    All images of a slice are mirrored or not, turned, resized, stretched and moved alike (`draw_affine`); then the
    grey values of each source, but not the target's, are bent by a random gamma: two scanners never show a tissue
    alike, and a network that trusts grey values from one patient fails with the next. An item depends on (seed, i)
    alone and has `target`, `primary` and `secondary`, (C, H, W) in [-1, 1], -1 where nothing was.
    """

    def __init__(self, dataset, copies=32, seed=0):
        if copies < 1:
            raise ValueError(f"copies: expected at least 1, got {copies}")
        self.dataset, self.copies, self.seed = dataset, copies, seed

    def __len__(self):
        return self.copies * len(self.dataset)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} outside 0..{len(self) - 1}")
        rng = np.random.default_rng([self.seed, index])
        item, affine = self.dataset[index // self.copies], draw_affine(rng)
        images = {key: warp(item[key], affine) for key in ("target", "primary", "secondary")}
        return images | {key: bend(images[key], rng) for key in ("primary", "secondary")}


def draw_affine(rng):
    """A random map (2, 3) from places in the new image to places in the old one, from -1 to 1 along x and y."""
    turn, zoom = rng.uniform(-TURN, TURN), 1 + rng.uniform(-ZOOM, ZOOM)
    x, y = zoom * (1 + rng.uniform(-STRETCH, STRETCH, 2))
    move_x, move_y = rng.uniform(-MOVE, MOVE, 2)
    x *= rng.choice([-1, 1])  # left is right
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array([[x * cos, -x * sin, move_x], [y * sin, y * cos, move_y]])


def warp(image, affine):
    """A square (C, S, S) in [-1, 1] as `affine` of `draw_affine` maps it; -1 beyond the border.

    Cubic between pixels: linear would blur, and from blurred targets a network learns to blur.
    """
    side = image.shape[-1]
    turn, move = affine[::-1, 1::-1], affine[::-1, 2]  # along rows and columns instead of x and y
    middle = np.full(2, (side - 1) / 2)
    offset = middle - turn @ middle + move * side / 2  # pixels
    moved = [affine_transform(channel, turn, offset, order=3, cval=-1) for channel in image.numpy()]
    return torch.from_numpy(np.stack(moved)).clamp(-1, 1)


def bend(image, rng):
    """(C, H, W) in [-1, 1] with another gamma for each channel; -1 and 1 stay."""
    gamma = torch.tensor(np.exp(rng.uniform(-CONTRAST, CONTRAST, (len(image), 1, 1))), dtype=torch.float32)
    return 2 * ((image + 1) / 2).clamp(0, 1) ** gamma - 1
