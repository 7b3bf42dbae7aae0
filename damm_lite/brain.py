"""Simulated patients with a glioma, imaged in four contrasts, and a data set of their slices."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import affine_transform, map_coordinates
from torch.utils.data import Dataset

from damm_lite.anatomy import Head, draw_brain, draw_head
from damm_lite.data import check_contrasts
from damm_lite.glioma import Growth, compartments, grow
from damm_lite.mri import SEQUENCES, ghost, rician, signal
from damm_lite.shapes import FIELD, grid, sample, smooth_field
from damm_lite.volumes import robust_scale, to_slices

LABELS = {"necrosis": 1, "oedema": 2, "rim": 4}  # as in BraTS until 2021
GROWTH_VOXEL = 3.0  # grid on which gliomas grow, whatever the voxel of the images, mm
NOISE = 0.03  # standard deviation in a voxel of 1 mm, relative to the mean signal of the brain
RECEIVING = 0.15  # of the coil's sensitivity, the same for all contrasts of a scan; as the sd of its logarithm
SENDING = 0.05  # of the pulses' strength, of each contrast its own; likewise
T2_SPREAD = 0.1  # of T2 within a tissue; likewise. Hardly to be seen in T1: why a second contrast tells more


@dataclass(frozen=True)
class Patient:
    """All about a patient that does not depend on the scan."""

    head: Head
    place: np.ndarray  # where the glioma began, (3,) mm
    growth: Growth
    uneven: np.ndarray  # random field: where cells move easily, and rims are thick
    slow: np.ndarray  # random field: where T2 is long
    gadolinium: float  # in the rim, mmol/l


@dataclass(frozen=True)
class Scan:
    """Images of one patient on a grid (X, Y, Z) that runs right, front, up."""

    images: dict  # contrast -> intensities (X, Y, Z), 0 outside the brain
    mask: np.ndarray  # the brain (X, Y, Z), bool
    labels: np.ndarray  # 0, or 1 dead, 2 oedema, 4 enhancing (X, Y, Z), uint8
    affine: np.ndarray  # voxel -> mm (4, 4)


def draw_patient(rng):
    """A patient with a glioma of 9-21 mm radius in white matter, from `rng`."""
    diffusivity = rng.uniform(0.2, 0.65)
    return Patient(
        head=draw_head(rng),
        place=np.array([rng.choice([-1, 1]) * rng.uniform(20, 42), rng.uniform(-55, 35), rng.uniform(2, 38)]),
        growth=Growth(
            diffusivity,
            rate=diffusivity / rng.uniform(2.0, 3.5) ** 2,  # by the width of the invaded zone, mm
            radius=rng.uniform(9, 21),
            rim=rng.uniform(3, 6),
        ),
        uneven=smooth_field(rng, 20.0),
        slow=smooth_field(rng, 25.0),
        gadolinium=rng.uniform(0.1, 0.25),
    )


def later(patient, radius):
    """The same patient once the glioma has grown to `radius` mm."""
    return replace(patient, growth=replace(patient.growth, radius=radius))


def tissues_of(patient, voxel=3.0):
    """Tissue fractions {name: (X, Y, Z)} of a patient and the voxels' coordinates (3, X, Y, Z) in mm."""
    mass = (patient.place, 0.7 * patient.growth.radius)  # part of a glioma replaces tissue, part pushes it aside
    points, fractions = grid(GROWTH_VOXEL), draw_brain(patient.head, GROWTH_VOXEL, mass)
    uneven = sample(patient.uneven, points)
    ease = np.exp(0.5 * uneven)
    density = grow(patient.place, points, ease * fractions[1], ease * fractions[2], patient.growth)
    if voxel != GROWTH_VOXEL:
        start = points[:, 0, 0, 0].reshape(3, 1, 1, 1)
        points, fractions = grid(voxel), draw_brain(patient.head, voxel, mass)
        index = (points - start) / GROWTH_VOXEL
        density, uneven = (map_coordinates(x, index, order=1, mode="nearest") for x in (density, uneven))
    return compartments(density, fractions, patient.growth, voxel, uneven), points


def scan(rng, patient, voxel=3.0):
    """Image a patient in all of `SEQUENCES`: a `Scan`, in about a second at 3 mm.

    Noise and coil come from `rng`. Intensities are those of water at full magnetisation.
    """
    tissues, points = tissues_of(patient, voxel)
    mask = sum(tissues.values()) > 0
    noise = NOISE / voxel**1.5  # a voxel is the mean of its cubic millimetres
    t2_factor = np.exp(T2_SPREAD * sample(patient.slow, points))
    coil = RECEIVING * sample(smooth_field(rng, 150.0), points)
    images = {}
    for contrast in SEQUENCES:
        clean = signal(tissues, contrast, patient.gadolinium, t2_factor)
        clean = clean * np.exp(coil + SENDING * sample(smooth_field(rng, 150.0), points))
        images[contrast] = rician(rng, clean, noise * clean[mask].mean()) * mask
    labels = np.zeros(mask.shape, np.uint8)
    for name, label in LABELS.items():
        labels[tissues[name] > 0.4] = label
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = points[:, 0, 0, 0]
    return Scan(images, mask, labels, affine)


def simulate_brain(rng, voxel=3.0):
    """Draw a patient and scan it: a `Scan` with voxels of `voxel` mm."""
    return scan(rng, draw_patient(rng), voxel)


def consistent_contrast(rng, secondary, mask, other, pixel):
    """The contrast as it is; all of these take and give (C, H, W) in [-1, 1]."""
    return secondary


def motion_contrast(rng, secondary, mask, other, pixel, millimetres=(3.0, 7.0)):
    """The head nodded to and fro by 3-7 mm, and moved once for good, while this contrast was scanned."""
    lines = np.arange(secondary.shape[1])
    reach = rng.uniform(*millimetres) / pixel
    shift = 0.5 * reach * np.sin(2 * np.pi * lines * rng.uniform(0.1, 0.4) + rng.uniform(0, 2 * np.pi))
    shift = shift + reach * (lines > rng.integers(len(lines)))
    ghosts = np.stack([ghost((image + 1) / 2, shift) for image in secondary])
    return np.where(mask, ghosts.clip(0, 1) * 2 - 1, -1)  # the brain was cut out by another contrast's mask


def shift_contrast(rng, secondary, mask, other, pixel, millimetres=(8.0, 25.0), degrees=10.0):
    """Badly registered: off by 8-25 mm and turned by up to 10 degrees."""
    turn, angle = np.deg2rad(rng.uniform(-degrees, degrees)), rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = (np.array(secondary.shape[1:]) - 1) / 2
    move = rng.uniform(*millimetres) / pixel * np.array([np.sin(angle), np.cos(angle)])
    offset = centre - rotation @ (centre + move)
    return np.stack([affine_transform(image, rotation, offset, order=1, cval=-1.0) for image in secondary])


def patient_contrast(rng, secondary, mask, other, pixel):
    """Another patient's, at the same level of the head."""
    return other


BRAIN_DIVERGENCES = {"motion": motion_contrast, "shift": shift_contrast, "patient": patient_contrast}
SLICES = 24  # of each patient, between LOWEST and HIGHEST
LOWEST, HIGHEST = -14.0, 55.0  # z, mm: from the temporal lobes to well below the vertex


class SyntheticBrains(Dataset):
    """Slices of simulated patients, whose second contrast may mislead, and the truth about which.

    Item i shows patient i // 24, and depends on (seed, i) alone. It is a dict with the keys of
    `BraTSSliceDataset` - `target` (1, H, W), `primary` (1, H, W), `secondary` (C, H, W), `mask`,
    `lesion`, `segmented`, `case`, `slice` - and `divergent` (bool) and `kind` ("none", "motion",
    "shift", "patient"). `size` pixels are 192 mm. `target`, `primary`, `secondary` name contrasts,
    as there. The last few patients are kept: go through the items in order, or `list` them once.
    """

    def __init__(self, n, size, seed, divergent_fraction=0.5, target="flair", primary="t1", secondary="t2"):
        if size % 4 or size <= 0:
            raise ValueError(f"size: expected a positive multiple of 4 pixels, got {size}")
        if not 0 <= divergent_fraction <= 1:
            raise ValueError(f"divergent_fraction: expected a number in [0, 1], got {divergent_fraction}")
        self.n, self.size, self.seed, self.divergent_fraction = n, size, seed, divergent_fraction
        self.contrasts = check_contrasts(target, primary, secondary)
        self._kept = {}

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(f"index {index} outside 0..{self.n - 1}")
        patient, i = divmod(index, SLICES)
        images, mask, lesion, places = self._patient(patient)
        i = int(np.random.default_rng([self.seed, patient]).permutation(SLICES)[i])  # a few show all levels
        rng = np.random.default_rng([self.seed, patient, i + 1])  # numpy takes [s, p, 0] for [s, p]
        divergent = bool(rng.random() < self.divergent_fraction)
        kind = str(rng.choice(list(BRAIN_DIVERGENCES))) if divergent else "none"
        other = self._patient(patient + 1)[0][i, 2:] if kind == "patient" else None
        diverge = BRAIN_DIVERGENCES.get(kind, consistent_contrast)
        secondary = diverge(rng, images[i, 2:], mask[i], other, FIELD[0] / self.size)
        return {
            "target": torch.tensor(images[i, :1]),
            "primary": torch.tensor(images[i, 1:2]),
            "secondary": torch.tensor(secondary, dtype=torch.float32),
            "mask": torch.tensor(mask[i]),
            "lesion": torch.tensor(lesion[i]),
            "segmented": True,
            "case": f"phantom-{self.seed}-{patient:05d}",
            "slice": int(places[i]),
            "divergent": divergent,
            "kind": kind,
        }

    def _patient(self, patient):
        """(images (SLICES, C, H, W), mask, lesion (SLICES, 1, H, W), places (SLICES,)) of a patient."""
        if patient not in self._kept:
            while len(self._kept) >= 2:
                self._kept.pop(next(iter(self._kept)))
            voxel = FIELD[0] / self.size
            found = simulate_brain(np.random.default_rng([self.seed, patient]), voxel)
            levels = np.linspace(LOWEST, HIGHEST, SLICES)
            places = np.rint((levels - found.affine[2, 3]) / voxel).astype(int)
            chosen = (found.images[contrast] for contrast in self.contrasts)
            images = [to_slices(robust_scale(x, found.mask).normalise(x, found.mask)) for x in chosen]
            mask, lesion = (to_slices(x).astype(np.float32)[places, None] for x in (found.mask, found.labels > 0))
            self._kept[patient] = np.stack(images, axis=1)[places], mask, lesion, places
        return self._kept[patient]
