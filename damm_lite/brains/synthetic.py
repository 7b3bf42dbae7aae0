"""Simulated patients with a glioma, imaged in four contrasts, and a data set
of their slices.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from scipy.ndimage import affine_transform, map_coordinates
from torch.utils.data import Dataset

from damm_lite.brains.anatomy import Head, draw_brain, draw_head
from damm_lite.brains.cases import check_contrasts
from damm_lite.brains.glioma import Growth, compartments, grow
from damm_lite.brains.mri import SEQUENCES, ghost, rician, signal
from damm_lite.brains.shapes import FIELD, grid, interpolate, smooth_field
from damm_lite.brains.volumes import robust_scale, to_slices
from damm_lite.data import check_index, check_side

LABELS = {"necrosis": 1, "oedema": 2, "rim": 4}  # as in BraTS until 2021
GROWTH_VOXEL = 3.0  # grid on which gliomas grow, whatever the voxel of the images, mm
NOISE = 0.03  # standard deviation in a voxel of 1 mm, relative to the mean signal of the brain
# Standard deviations over a scan, of the natural logarithm of:
RECEIVE_BIAS_LOG_SD = 0.15  # the receive coil's sensitivity, the same for all contrasts
TRANSMIT_BIAS_LOG_SD = 0.05  # the strength of the pulses, for each contrast its own
T2_LOG_SD = 0.1  # T2 within a tissue; a T1 image hardly shows it, so a T2 one adds information


@dataclass(frozen=True)
class Patient:
    """What a patient brings to every scan."""

    head: Head
    place: np.ndarray  # where the glioma began, (3,) mm
    growth: Growth
    uneven: np.ndarray  # random field: cells move more easily and rims are thicker where it is high
    slow: np.ndarray  # random field: T2 is longer where it is high
    gadolinium: float  # in the rim, mmol/l


@dataclass(frozen=True)
class Scan:
    """Images of one patient on a grid (X, Y, Z) that runs right, front, up."""

    images: dict[str, np.ndarray]  # contrast -> intensities (X, Y, Z), 0 outside the brain
    mask: np.ndarray  # the brain (X, Y, Z), bool
    labels: np.ndarray  # (X, Y, Z) uint8: 1 dead, 2 oedema, 4 enhancing, 0 elsewhere
    affine: np.ndarray  # voxel -> mm (4, 4)


def draw_patient(rng: Generator) -> Patient:
    """A patient with a glioma of 9-21 mm radius in white matter, from `rng`."""
    diffusivity = rng.uniform(0.2, 0.65)
    return Patient(
        head=draw_head(rng),
        place=np.array([rng.choice([-1, 1]) * rng.uniform(20, 42), rng.uniform(-55, 35), rng.uniform(2, 38)]),
        growth=Growth(
            diffusivity,
            rate=diffusivity / rng.uniform(2.0, 3.5) ** 2,  # sqrt(D / rho): width of the invaded zone, mm
            radius=rng.uniform(9, 21),
            rim=rng.uniform(3, 6),
        ),
        uneven=smooth_field(rng, 20.0),
        slow=smooth_field(rng, 25.0),
        gadolinium=rng.uniform(0.1, 0.25),
    )


def later(patient: Patient, radius: float) -> Patient:
    """The same patient once the glioma has grown to `radius` mm."""
    return replace(patient, growth=replace(patient.growth, radius=radius))


def tissues_of(patient: Patient, voxel: float = 3.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(tissue fractions {name: (X, Y, Z)} of a patient, the voxels' coordinates
    (3, X, Y, Z) in mm).
    """
    mass = (patient.place, 0.7 * patient.growth.radius)  # the rest of the glioma replaces tissue
    points, fractions = grid(GROWTH_VOXEL), draw_brain(patient.head, GROWTH_VOXEL, mass)
    uneven = interpolate(patient.uneven, points)
    ease = np.exp(0.5 * uneven)
    density = grow(patient.place, points, ease * fractions[1], ease * fractions[2], patient.growth)
    if voxel != GROWTH_VOXEL:
        start = points[:, 0, 0, 0].reshape(3, 1, 1, 1)
        points, fractions = grid(voxel), draw_brain(patient.head, voxel, mass)
        index = (points - start) / GROWTH_VOXEL
        density, uneven = (map_coordinates(x, index, order=1, mode="nearest") for x in (density, uneven))
    return compartments(density, fractions, patient.growth, voxel, uneven), points


def scan(rng: Generator, patient: Patient, voxel: float = 3.0) -> Scan:
    """Image a patient in all of `SEQUENCES`, with voxels of `voxel` mm; takes
    about a second at 3 mm.

    `rng` draws noise and the sensitivity of the coils. Intensity 1 is water at
    full magnetisation.
    """
    tissues, points = tissues_of(patient, voxel)
    mask = sum(tissues.values()) > 0
    noise = NOISE / voxel**1.5  # a voxel is the mean of its cubic millimetres
    t2_factor = np.exp(T2_LOG_SD * interpolate(patient.slow, points))
    coil = RECEIVE_BIAS_LOG_SD * interpolate(smooth_field(rng, 150.0), points)
    images = {}
    for contrast in SEQUENCES:
        clean = signal(tissues, contrast, patient.gadolinium, t2_factor)
        clean = clean * np.exp(coil + TRANSMIT_BIAS_LOG_SD * interpolate(smooth_field(rng, 150.0), points))
        images[contrast] = rician(rng, clean, noise * clean[mask].mean()) * mask
    labels = np.zeros(mask.shape, np.uint8)
    for name, label in LABELS.items():
        labels[tissues[name] > 0.4] = label
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = points[:, 0, 0, 0]
    return Scan(images, mask, labels, affine)


def simulate_brain(rng: Generator, voxel: float = 3.0) -> Scan:
    """Draw a patient and scan it, with voxels of `voxel` mm."""
    return scan(rng, draw_patient(rng), voxel)


# What makes a second contrast diverge is a function of a random generator, the
# contrast (C, H, W) in [-1, 1], the brain's mask (1, H, W), the same slice of
# another patient (C, H, W) and the pixel in mm. It returns (C, H, W) in [-1, 1].
Range = tuple[float, float]


def consistent_contrast(
    rng: Generator, secondary: np.ndarray, mask: np.ndarray, other: np.ndarray, pixel: float
) -> np.ndarray:
    """The contrast as it is."""
    return secondary


def motion_contrast(
    rng: Generator,
    secondary: np.ndarray,
    mask: np.ndarray,
    other: np.ndarray,
    pixel: float,
    millimetres: Range = (3.0, 7.0),
) -> np.ndarray:
    """The head nodded while this contrast was scanned, by a distance in the
    range `millimetres`, and once moved as far and stayed there.
    """
    lines = np.arange(secondary.shape[1])
    reach = rng.uniform(*millimetres) / pixel
    shift = 0.5 * reach * np.sin(2 * np.pi * lines * rng.uniform(0.1, 0.4) + rng.uniform(0, 2 * np.pi))
    shift = shift + reach * (lines > rng.integers(len(lines)))
    ghosts = np.stack([ghost((image + 1) / 2, shift) for image in secondary])
    return np.where(mask, ghosts.clip(0, 1) * 2 - 1, -1)  # the brain was cut out by another contrast's mask


def shift_contrast(
    rng: Generator,
    secondary: np.ndarray,
    mask: np.ndarray,
    other: np.ndarray,
    pixel: float,
    millimetres: Range = (8.0, 25.0),
    degrees: float = 10.0,
) -> np.ndarray:
    """Badly registered: moved by a distance in the range `millimetres` and
    turned by up to `degrees`.
    """
    turn, angle = np.deg2rad(rng.uniform(-degrees, degrees)), rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = (np.array(secondary.shape[1:]) - 1) / 2
    move = rng.uniform(*millimetres) / pixel * np.array([np.sin(angle), np.cos(angle)])
    offset = centre - rotation @ (centre + move)
    return np.stack([affine_transform(image, rotation, offset, order=1, cval=-1.0) for image in secondary])


def patient_contrast(
    rng: Generator, secondary: np.ndarray, mask: np.ndarray, other: np.ndarray, pixel: float
) -> np.ndarray:
    """Another patient's, at the same level of the head."""
    return other


BRAIN_DIVERGENCES = {"motion": motion_contrast, "shift": shift_contrast, "patient": patient_contrast}
SLICES = 24  # of each patient, between LOWEST and HIGHEST
LOWEST, HIGHEST = -14.0, 55.0  # z, mm: from the temporal lobes to well below the vertex


class SyntheticBrains(Dataset):
    """Slices of simulated patients, some with a divergent second contrast, and
    which of them they are.

    Item i shows patient i // 24, and depends on (seed, i) alone. It is a dict
    with the keys of `BraTSSliceDataset` - `target` (1, H, W), `primary` (1, H,
    W), `secondary` (C, H, W), `mask`, `lesion`, `segmented`, `case`, `slice` -
    and `divergent` (bool) and `kind` ("none", "motion", "shift", "patient").
    `size` pixels are 192 mm. `target`, `primary`, `secondary` name contrasts,
    as there. The last few patients are kept: go through the items in order, or
    `list` them once.
    """

    def __init__(
        self,
        n: int,
        size: int,
        seed: int,
        divergent_fraction: float = 0.5,
        target: str = "flair",
        primary: str = "t1",
        secondary: str | list[str] = "t2",
    ) -> None:
        check_side("size", size)
        if not 0 <= divergent_fraction <= 1:
            raise ValueError(f"divergent_fraction: expected a number in [0, 1], got {divergent_fraction}")
        self.n, self.size, self.seed, self.divergent_fraction = n, size, seed, divergent_fraction
        self.contrasts = check_contrasts(target, primary, secondary)
        self._kept = {}

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict:
        check_index(index, self.n)
        patient, i = divmod(index, SLICES)
        images, mask, lesion, places = self._patient(patient)
        i = int(np.random.default_rng([self.seed, patient]).permutation(SLICES)[i])  # so a few items show all levels
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

    def _patient(self, patient: int) -> tuple[np.ndarray, ...]:
        """(images (SLICES, C, H, W), mask, lesion (SLICES, 1, H, W), places
        (SLICES,)) of a patient.
        """
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
            self._kept[patient] = (np.stack(images, axis=1)[places], mask, lesion, places)
        return self._kept[patient]
