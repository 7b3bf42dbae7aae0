"""Whole slides, larger than memory: predicted tile by tile from arrays on disk
into a file, without seams.

Two things keep the tiles together. Where they overlap, one fades into the
other. And they start from the same noise: one tile of it is repeated over the
whole slide, so that a pixel that two tiles share has the same noise in both,
and every tile still has noise that is white.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.signal.windows import tukey
from torch import Tensor
from tqdm.auto import tqdm

from damm_lite.damm import DAMMNet
from damm_lite.data import check_side, generator_of
from damm_lite.identity import name_of
from damm_lite.inference import for_inference
from damm_lite.predict import Gate, draw_sample, gate_of
from damm_lite.schedules import NoiseSchedule
from damm_lite.tumours.growing_image import GrowingImage
from damm_lite.tumours.tiff import unit_range


@dataclass(frozen=True)
class Tiling:
    """How a slide is cut; the side that a network was trained on suits it
    best.
    """

    tile: int = 64  # side of a tile, in pixels
    overlap: int = 16  # pixels over which neighbours fade into each other
    batch_size: int = 16  # tiles predicted at a time
    seed: int = 0  # of the noise that all tiles share

    def __post_init__(self):
        check_side("tile", self.tile)
        if not 0 <= self.overlap <= self.tile // 2:
            raise ValueError(f"overlap: expected 0..{self.tile // 2}, half a tile, got {self.overlap}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")

    def starts(self, length: int) -> list[int]:
        """The first pixel of each of the n tiles along a side of the slide;
        the last tile ends with it.
        """
        return [*range(0, length - self.tile, self.tile - self.overlap), length - self.tile]

    def weights(self, length: int) -> np.ndarray:
        """Blending weights (n, tile) of the n tiles along a side; those of
        overlapping tiles sum to 1.
        """
        window = tukey(self.tile + 2, 2 * self.overlap / self.tile)[1:-1]  # flat, with cosine flanks
        total, starts = np.zeros(length), self.starts(length)
        for start in starts:
            total[start : start + self.tile] += window
        return np.stack([window / total[start : start + self.tile] for start in starts])


class SlidePrediction(NamedTuple):
    """What `predict_slide` returns for R rows of tiles in C columns; the image
    is in the file.
    """

    confidence: Tensor  # (R, C) in [0, 1], mean over steps
    trust: Tensor  # (R, C) in [0, 1], the share of the multi-modal branch


@torch.inference_mode()
def predict_slide(
    model: DAMMNet,
    schedule: NoiseSchedule,
    primary: np.ndarray,
    secondary: np.ndarray,
    path: str | Path,
    num_steps: int = 20,
    gate: str | Gate = "damm",
    tiling: Tiling | None = None,
) -> SlidePrediction:
    """Predict a slide of any size into the TIFF file `path`, float32 (C, H, W)
    in [0, 1], whole or not at all.

    `primary` and `secondary` are arrays (C, H, W) that are read piece by
    piece, best memory-mapped, as by `tifffile.memmap(name)[None]`, or opened
    by `tumours.open_slide`; their values are taken as `read_tiff` takes them.
    Memory does not depend on H. `gate` is as in `predict`, with a copy for
    each batch of tiles. Called again with the same arguments after an
    interruption at any moment, it goes on where it was, to the same image.
    Raises FileExistsError where the file is there already, and ValueError,
    before any work, for images that are not the network's, smaller than a
    tile, or of values that `read_tiff` would refuse, and where what an
    interruption has left was begun with other arguments.
    """
    gate, tiling, path = gate_of(gate), tiling or Tiling(), Path(path)
    if path.exists():
        raise FileExistsError(f"{path}: is there already; expected the name of a new file")
    side, conditions = tiling.tile, {"primary": primary, "secondary": secondary}
    if side % (4 * model.factor):
        raise ValueError(f"tile: expected a multiple of {4 * model.factor} pixels, got {side}")
    shape = (model.image_channels[0], *primary.shape[1:])
    for (name, image), channels in zip(conditions.items(), model.image_channels[1:], strict=True):
        _check_slide(name, image, (channels, *shape[1:]), side)
    rows, columns = (tiling.starts(length) for length in shape[1:])
    looked_at = [_band(name, image, y, side) for name, image in conditions.items() for y in rows[:: len(rows) - 1 or 1]]
    kept = [model.config, model.prediction, schedule.alphas_cumprod, tiling, num_steps, gate]
    growing = GrowingImage(path, shape, [name_of(x) for x in [*model.state_dict().values(), *kept, *looked_at]])
    down, across = map(tiling.weights, shape[1:])
    model, device, latent = for_inference(model), next(model.parameters()).device, side // model.factor
    noise = torch.randn(model.config.out_channels, latent, latent, generator=generator_of(tiling.seed, 0))
    for row in tqdm(range(growing.rows, len(rows)), "rows of tiles", len(rows), initial=growing.rows):
        bands = [_band(name, image, rows[row], side) for name, image in conditions.items()]
        made, decided = np.zeros((shape[0], side, shape[2]), np.float32), []
        for first in range(0, len(columns), tiling.batch_size):
            part = slice(first, first + tiling.batch_size)
            tiles = [torch.stack([band[..., x : x + side] for x in columns[part]]).to(device) for band in bands]
            shifts = [(-rows[row] // model.factor, -x // model.factor) for x in columns[part]]
            noises = torch.stack([noise.roll(shift, dims=(1, 2)) for shift in shifts]).to(device)
            x0, decisions = draw_sample(model, schedule, tiles, noises, num_steps, gate)
            for x, weights, tile in zip(columns[part], across[part], x0.cpu().numpy(), strict=True):
                made[..., x : x + side] += np.outer(down[row], weights) * (tile + 1) / 2
            decided.append(torch.stack([torch.stack([d.confidence, d.trust]) for d in decisions]).mean(dim=0).cpu())
        growing.add(made, rows[row], [*rows, shape[1]][row + 1], torch.cat(decided, dim=1).numpy())
    return SlidePrediction(*torch.from_numpy(growing.finish()).unbind(1))


def _band(name, image, y, side):
    """Rows y to y + side of an image as a tensor (C, side, W) in [-1, 1]."""
    return torch.from_numpy(unit_range(name, np.asarray(image[:, y : y + side]))) * 2 - 1


def _check_slide(name, image, shape, side):
    if image.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {image.shape}")
    if len(shape) != 3 or min(shape[1:]) < side:
        raise ValueError(f"{name}: expected (C, H, W) of at least {side} x {side} pixels, got {image.shape}")
    for y in range(0, shape[1], 8 * side):
        unit_range(name, np.asarray(image[:, y : y + 8 * side]))
