"""Tumour patches whose second image may mislead: four kinds of divergence, and a data set of them."""

import numpy as np
from torch.utils.data import Dataset

from damm_lite.data import to_tensor
from damm_lite.simulate import (
    Physics,
    distance_to_vessels,
    draw_nuclei,
    simulate_nanoparticles,
    simulate_nuclei,
    simulate_vessels,
    smooth_noise,
)


def misregister(nuclei, shift):
    """Move an image by whole pixels (rows, columns), reflecting at the border."""
    rows, cols = shift
    pad = [(max(rows, 0), max(-rows, 0)), (max(cols, 0), max(-cols, 0))]
    padded = np.pad(nuclei, pad, mode="symmetric")
    return padded[pad[0][1] :, pad[1][1] :][: nuclei.shape[0], : nuclei.shape[1]]


def random_region(rng, shape, fraction, *, radius=20.0, pixel=2.0):
    """A smooth random region (H, W) in {0, 1} that covers `fraction` of the image."""
    noise = smooth_noise(rng, shape, radius / pixel)
    return (noise > np.quantile(noise, 1 - fraction)).astype(np.float32)


def consistent_pair(rng, vessels, nuclei, physics):
    """(nuclei as imaged, nuclei that act): the same."""
    return nuclei, nuclei


def section_pair(rng, vessels, nuclei, physics):
    """The image shows the nuclei of another section, which another set of vessels shaped."""
    elsewhere = simulate_vessels(rng, vessels.shape, pixel=physics.pixel)
    return simulate_nuclei(rng, elsewhere, pixel=physics.pixel), nuclei


def shift_pair(rng, vessels, nuclei, physics, micrometres=(12.0, 40.0)):
    """The image is misregistered by 12-40 µm."""
    distance, angle = rng.uniform(*micrometres) / physics.pixel, rng.uniform(0, 2 * np.pi)
    shift = np.rint(distance * np.array([np.sin(angle), np.cos(angle)])).astype(int)
    return misregister(nuclei, shift), nuclei


def dropout_pair(rng, vessels, nuclei, physics, fraction=(0.3, 0.6)):
    """The stain is lost in a region; the nuclei there still act."""
    lost = random_region(rng, nuclei.shape, rng.uniform(*fraction), pixel=physics.pixel)
    return nuclei * (1 - lost), nuclei


def necrosis_pair(rng, vessels, nuclei, physics, fraction=(0.3, 0.6)):
    """Tissue far from vessels is dead: crowded with debris that stains, but does not act."""
    distance = distance_to_vessels(vessels, physics.pixel)
    dead = (distance > np.quantile(distance, 1 - rng.uniform(*fraction))).astype(np.float32)
    debris = draw_nuclei(rng, np.ones_like(dead), physics.pixel)
    alive = nuclei * (1 - dead)
    return alive + debris * dead, alive


DIVERGENCES = {
    "section": section_pair,
    "shift": shift_pair,
    "dropout": dropout_pair,
    "necrosis": necrosis_pair,
}


# The patches of this seed are for measuring; nothing in the book trains on them.
HELD_OUT_SEED = 1_000_001


class SyntheticTumours(Dataset):
    """Simulated patches with consistent and divergent nuclei, and the truth about which.

    Item i depends on (seed, i) alone. It is a dict of float32 tensors (1, size, size) in
    [-1, 1] - `target` (nanoparticles), `primary` (vessels), `secondary` (nuclei) - with
    `divergent` (bool) and `kind` ("none", "section", "shift", "dropout", "necrosis").
    """

    def __init__(self, n, size, seed, divergent_fraction=0.5, physics=None):
        if size % 4 or size <= 0:
            raise ValueError(f"size: expected a positive multiple of 4 pixels, got {size}")
        if not 0 <= divergent_fraction <= 1:
            raise ValueError(f"divergent_fraction: expected a number in [0, 1], got {divergent_fraction}")
        self.n, self.size, self.seed = n, size, seed
        self.divergent_fraction, self.physics = divergent_fraction, physics or Physics()

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(f"index {index} outside 0..{self.n - 1}")
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
