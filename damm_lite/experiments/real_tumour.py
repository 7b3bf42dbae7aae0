"""A real tumour with a particle in it: every method at one budget, scored
region by region.

    python -m damm_lite.experiments.real_tumour --data FOLDER --out _build/tumour

The folder holds planes of one tumour as `damm_lite.fetch("lightsheet")` has
them, with vessels, nuclei and a virus that was to penetrate the tissue, at 4 µm
a pixel. Neighbouring planes are nearly equal, so the tumour is cut into five
regions across all planes, each with as much tissue. A run trains on windows of
three of them, tunes gates and intervals on a fourth, and is scored on the
middle plane of the fifth: with the nuclei as they were imaged, 64 µm off, and
of another place. Runs whose table is there are not done again. `tumour.csv` in
the folder has a row for each region, kind of nuclei and method.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.filters import threshold_otsu
from torch import Tensor

from damm_lite.data import stack, to_tensor
from damm_lite.experiments.baselines import KNNBaseline
from damm_lite.experiments.held_out import TRAININGS, Batches, gather, judged, once, untrained
from damm_lite.experiments.methods import Budget, begin, unet
from damm_lite.experiments.study import folder_name
from damm_lite.losses import squared_error
from damm_lite.schedules import shifted_schedule
from damm_lite.tumours.fluorescence import find_channel, read_channel
from damm_lite.unet import RegressionUNet

STAINS = {"target": "virus", "primary": "CD31", "secondary": "Syto16"}
PIXEL, FAR, FARTHEST = 4.0, 40.0, 200.0  # µm, the last two from the nearest vessel
REGIONS, MOVED = 5, 16  # in a tumour; pixels
GAP, TISSUE, STRIDE = 8, 0.75, 4  # pixels to the region's border; share of a window; pixels between training windows
BUDGET = Budget(size=32, steps=400, batch_size=16, num_steps=10, num_samples=8)
ONE_STAIN = {
    f"regression, {stain}": (partial(unet, RegressionUNet, image), squared_error, 0.0)
    for stain, image in (("vessels", "primary"), ("nuclei", "secondary"))
}
PIXEL_BY_PIXEL = {
    "distance": ("distance", "distance"),
    "nuclei, pixel by pixel": ("secondary", "secondary"),
    "pixel by pixel": ("distance", "secondary"),
}
KINDS = "none", "shift", "elsewhere"


class Tumour(NamedTuple):
    """Planes of one tumour, and where its tissue and its vessels are."""

    images: dict[str, np.ndarray]  # (planes, H, W) in [0, 1], by role, and the distance from the nearest vessel
    tissue: np.ndarray  # (H, W), of bool
    far: np.ndarray  # the same: tissue more than FAR from a vessel


def read_tumour(folder: Path) -> Tumour:
    """The planes of a folder; raises as `find_channel` and `read_channel`, and
    ValueError for planes that are not the same everywhere.
    """
    images = {}
    for role, stain in STAINS.items():
        files = find_channel(folder, stain)
        planes = {name: read_channel(path, stain, wanted=PIXEL) for name, path in sorted(files.items())}
        if len({plane.shape for plane in planes.values()}) > 1:
            raise ValueError(f"{folder}: expected planes of one size, got {[p.shape for p in planes.values()]}")
        images[role] = np.stack(list(planes.values()))
    if len({planes.shape for planes in images.values()}) > 1:
        raise ValueError(f"{folder}: expected as many planes of each stain, got {[len(p) for p in images.values()]}")
    middle = len(images["target"]) // 2
    smooth = np.log(gaussian_filter(images["secondary"][middle], 12 / PIXEL) + 1e-4)
    tissue = smooth > threshold_otsu(smooth)
    vessels = images["primary"] > threshold_otsu(images["primary"][:, tissue])
    distances = np.stack([PIXEL * distance_transform_edt(~plane) for plane in vessels])
    images["distance"] = np.clip(distances / FARTHEST, 0, 1)
    return Tumour(images, tissue, tissue & (distances[middle] > FAR))


def regions_of(tissue: np.ndarray, count: int = REGIONS) -> list[range]:
    """The rows of so many regions from top to bottom, each with as much tissue."""
    share = np.cumsum(tissue.sum(axis=1)) / tissue.sum()
    borders = np.searchsorted(share, np.arange(count + 1) / count)
    return [range(int(top), int(bottom)) for top, bottom in zip(borders, borders[1:], strict=False)]


def windows(tissue: np.ndarray, rows: range, size: int, stride: int) -> list[tuple[int, int]]:
    """The corners (row, column) of the windows that lie within these rows, `GAP` from their border, and in tissue."""
    inside = range(rows.start + GAP, rows.stop - GAP - size + 1, stride)
    corners = product(inside, range(0, tissue.shape[1] - size + 1, stride))
    return [(row, col) for row, col in corners if tissue[row : row + size, col : col + size].mean() >= TISSUE]


def scaled(tumour: Tumour, rows: list[range]) -> dict[str, np.ndarray]:
    """The images such that the brightest half per cent of the tissue in these rows, of all planes, is 1."""
    inside = np.zeros_like(tumour.tissue)
    for each in rows:
        inside[each.start : each.stop] = tumour.tissue[each.start : each.stop]
    tops = {role: np.percentile(planes[:, inside], 99.5) for role, planes in tumour.images.items()}
    return {role: np.clip(planes / tops[role], 0, 1) for role, planes in tumour.images.items()}


def cut(image: np.ndarray, corner: tuple[int, int], size: int) -> Tensor:
    """A window (1, size, size) of an image in [0, 1], in [-1, 1]."""
    row, col = corner
    return to_tensor(image[row : row + size, col : col + size])


def training_items(tumour: Tumour, rows: list[range], budget: Budget, seed: int = 0) -> list[dict]:
    """As many windows as a training takes, of any plane, mirrored and turned."""
    images, rng = scaled(tumour, rows), np.random.default_rng(seed)
    corners = [corner for each in rows for corner in windows(tumour.tissue, each, budget.size, STRIDE)]
    items = []
    for _ in range(budget.steps * budget.batch_size):
        corner, plane = corners[rng.integers(len(corners))], rng.integers(len(images["target"]))
        item = {role: cut(planes[plane], corner, budget.size) for role, planes in images.items()}
        item["mask"] = (cut(tumour.tissue, corner, budget.size) > 0).float()
        turns, mirrored = rng.integers(4), rng.integers(2)
        items.append(
            {key: x.rot90(turns, (1, 2)).flip(2) if mirrored else x.rot90(turns, (1, 2)) for key, x in item.items()}
        )
    return items


def batches_of(tumour: Tumour, training: list[range], rows: range, name: str, size: int) -> Batches:
    """The windows side by side of a region's middle plane, with each kind of nuclei, in the training's scale."""
    images = {role: planes[len(planes) // 2] for role, planes in scaled(tumour, training).items()}
    corners, regions = windows(tumour.tissue, rows, size, size), {"mask": tumour.tissue, "lesion": tumour.far}
    every = {key: torch.stack([cut(x, corner, size) for corner in corners]) for key, x in (images | regions).items()}
    every |= {key: (every[key] > 0).float() for key in regions} | {"case": [name] * len(corners)}
    moved = np.roll(images["secondary"], MOVED, axis=1)
    seconds = [
        every["secondary"],
        torch.stack([cut(moved, corner, size) for corner in corners]),
        every["secondary"].roll(len(corners) // 2, dims=0),
    ]
    return {kind: every | {"secondary": second} for kind, second in zip(KINDS, seconds, strict=True)}


def by_pixel(items: list[dict], first: str, second: str) -> Callable[[dict], Tensor]:
    """The mean target of training pixels with similar values of two images, as a function of a batch."""

    def of_both(item: dict) -> dict:
        return item | {"primary": item[first], "secondary": item[second]}

    nearest = KNNBaseline(map(of_both, items))
    return lambda batch: nearest(of_both(batch))


def run(name: str, tumour: Tumour, region: int, budget: Budget, folder: Path) -> pd.DataFrame:
    """Score on a region what was trained on all others but the next one, on which it is tuned; rows as `judged` has
    them.
    """
    rows = regions_of(tumour.tissue)
    following = (region + 1) % len(rows)
    training = [each for i, each in enumerate(rows) if i not in (region, following)]
    items = training_items(tumour, training, budget)
    calibration, test = (
        batches_of(tumour, training, rows[i], f"region {i + 1}", budget.size) for i in (following, region)
    )
    if name == "untrained":
        every = stack(items)
        mean = every["target"][every["mask"] == 1].mean().item()
        methods = {"constant": lambda batch: torch.full_like(batch["target"], mean)}
        methods |= {name: by_pixel(items, *sources) for name, sources in PIXEL_BY_PIXEL.items()}
        return untrained(methods, calibration, test)
    build, loss, corrupted = (TRAININGS | ONE_STAIN)[name]
    items = [{role: item[role] for role in STAINS} for item in items]
    *_, last = begin(build, loss, corrupted, budget, items, 0, folder)
    return judged(name, (last.ema.eval(), shifted_schedule()), calibration, test, budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["untrained", *ONE_STAIN, *TRAININGS]
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--regions", nargs="+", type=int, default=range(REGIONS), help="some of them, from 0")
    parser.add_argument("--steps", type=int, default=BUDGET.steps)
    parser.add_argument("--samples", type=int, default=BUDGET.num_samples)
    arguments = parser.parse_args()
    budget, tumour = replace(BUDGET, steps=arguments.steps, num_samples=arguments.samples), read_tumour(arguments.data)
    for region, name in product(arguments.regions, arguments.only):
        place = arguments.out / folder_name(name, region)
        once(place, partial(run, name, tumour, region, budget, place))
        gather(arguments.out / "tumour.csv", "*/scores.csv")


if __name__ == "__main__":
    main()
