"""Tumour patches whose second image may mislead: four kinds of divergence, and
a data set of them.
"""

import numpy as np
from numpy.random import Generator
from torch.utils.data import Dataset

from damm_lite.data import check_index, check_side, to_tensor
from damm_lite.tumours.simulate import (
    Physics,
    distance_to_vessels,
    draw_nuclei,
    simulate_nanoparticles,
    simulate_nuclei,
    simulate_vessels,
    smooth_noise,
)


def misregister(nuclei: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """Move an image (H, W) by whole pixels (rows, columns), reflecting at the
    border.

    >>> misregister(np.array([[1, 2, 3, 4]]), (0, 1))
    array([[1, 1, 2, 3]])
    """
    rows, cols = shift
    pad = [(max(rows, 0), max(-rows, 0)), (max(cols, 0), max(-cols, 0))]
    padded = np.pad(nuclei, pad, mode="symmetric")
    return padded[pad[0][1] :, pad[1][1] :][: nuclei.shape[0], : nuclei.shape[1]]


def random_region(rng: Generator, shape: tuple[int, int], fraction: float, *, pixel: float = 2.0) -> np.ndarray:
    """A smooth random region (H, W) in {0, 1}, float32, that covers `fraction`
    of the image and varies over about 20 µm; `pixel` in µm.
    """
    noise = smooth_noise(rng, shape, 20.0 / pixel)
    return (noise > np.quantile(noise, 1 - fraction)).astype(np.float32)


# Each kind of divergence is a function of a random generator, the vessels and
# nuclei (H, W) of a patch and its `Physics`. It returns two images (H, W): the
# nuclei that are imaged, and those that crowd the tissue and take up particles.
Pair = tuple[np.ndarray, np.ndarray]
Range = tuple[float, float]


def consistent_pair(rng: Generator, vessels: np.ndarray, nuclei: np.ndarray, physics: Physics) -> Pair:
    """The image shows the nuclei that act."""
    return nuclei, nuclei


def section_pair(rng: Generator, vessels: np.ndarray, nuclei: np.ndarray, physics: Physics) -> Pair:
    """The image shows nuclei of another section, drawn around other vessels."""
    elsewhere = simulate_vessels(rng, vessels.shape, pixel=physics.pixel)
    return simulate_nuclei(rng, elsewhere, pixel=physics.pixel), nuclei


def shift_pair(
    rng: Generator, vessels: np.ndarray, nuclei: np.ndarray, physics: Physics, micrometres: Range = (12.0, 40.0)
) -> Pair:
    """The image is misregistered by a distance in the range `micrometres`, in
    any direction.
    """
    distance, angle = rng.uniform(*micrometres) / physics.pixel, rng.uniform(0, 2 * np.pi)
    shift = np.rint(distance * np.array([np.sin(angle), np.cos(angle)])).astype(int)
    return misregister(nuclei, shift), nuclei


def dropout_pair(
    rng: Generator, vessels: np.ndarray, nuclei: np.ndarray, physics: Physics, fraction: Range = (0.3, 0.6)
) -> Pair:
    """The stain is lost in a region that covers a share in the range
    `fraction`; the nuclei there still act.
    """
    lost = random_region(rng, nuclei.shape, rng.uniform(*fraction), pixel=physics.pixel)
    return nuclei * (1 - lost), nuclei


def necrosis_pair(
    rng: Generator, vessels: np.ndarray, nuclei: np.ndarray, physics: Physics, fraction: Range = (0.3, 0.6)
) -> Pair:
    """Tissue far from vessels, a share in the range `fraction`, is dead:
    crowded with debris that stains, but does not act.
    """
    distance = distance_to_vessels(vessels, physics.pixel)
    dead = (distance > np.quantile(distance, 1 - rng.uniform(*fraction))).astype(np.float32)
    debris = draw_nuclei(rng, np.ones_like(dead), physics.pixel)
    alive = nuclei * (1 - dead)
    return alive + debris * dead, alive


DIVERGENCES = {"section": section_pair, "shift": shift_pair, "dropout": dropout_pair, "necrosis": necrosis_pair}

# The patches of this seed are for measuring; nothing in the book trains on
# them.
HELD_OUT_SEED = 1_000_001


class SyntheticTumours(Dataset):
    """Simulated patches, some with divergent nuclei, and which of them they
    are.

    Item i depends on (seed, i) alone. It is a dict of float32 tensors (1,
    size, size) in [-1, 1] - `target` (nanoparticles), `primary` (vessels),
    `secondary` (nuclei) - with `divergent` (bool) and `kind` ("none",
    "section", "shift", "dropout", "necrosis"). Raises ValueError for a `size`
    that is no multiple of 4 and a `divergent_fraction` outside [0, 1].
    """

    def __init__(
        self, n: int, size: int, seed: int, divergent_fraction: float = 0.5, physics: Physics | None = None
    ) -> None:
        check_side("size", size)
        if not 0 <= divergent_fraction <= 1:
            raise ValueError(f"divergent_fraction: expected a number in [0, 1], got {divergent_fraction}")
        self.n, self.size, self.seed = n, size, seed
        self.divergent_fraction, self.physics = divergent_fraction, physics or Physics()

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict:
        check_index(index, self.n)
        rng = np.random.default_rng([self.seed, index])
        divergent = bool(rng.random() < self.divergent_fraction)
        kind = str(rng.choice(list(DIVERGENCES))) if divergent else "none"
        vessels = simulate_vessels(rng, self.size, pixel=self.physics.pixel)
        nuclei = simulate_nuclei(rng, vessels, pixel=self.physics.pixel)
        pair = DIVERGENCES.get(kind, consistent_pair)
        imaged, acting = pair(rng, vessels, nuclei, self.physics)
        nanoparticles = simulate_nanoparticles(vessels, acting, self.physics)
        return {
            "target": to_tensor(nanoparticles),
            "primary": to_tensor(vessels),
            "secondary": to_tensor(imaged),
            "divergent": divergent,
            "kind": kind,
        }
