"""A glioma that grows: cells multiply and wander, faster in white matter.

The density u of cells, a fraction of what tissue can hold, follows Fisher's
equation

    du/dt = div(D grad u) + rho u (1 - u),   no flux into fluid or the pia,

whose fronts run at 2 sqrt(D rho) (Fisher, Ann Eugen 7:355 (1937)). Cells move
five times as fast in white as in grey matter (Swanson et al., Cell Prolif
33:317 (2000): 0.65 and 0.13 mm²/day, rho 0.012/day).
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt


@dataclass(frozen=True)
class Growth:
    """How a glioma spreads and how large it has become."""

    diffusivity: float = 0.65  # D in white matter, mm²/day
    rate: float = 0.05  # rho, 1/day
    radius: float = 10.0  # of a ball with the volume of the dense part, mm
    rim: float = 4.0  # thickness of the living layer of the dense part, mm
    grey_ratio: float = 0.2  # D in grey over D in white matter


DENSE, VISIBLE = 0.8, 0.16  # densities above which contrast agent leaks, and oedema shows


def step_length(diffusivity: np.ndarray, rate: float, voxel: float) -> float:
    """Step of `spread` in days: 0.8 of the longest that is stable, shortened
    where growth is fast.
    """
    dimensions = np.ndim(diffusivity)
    return 0.8 / (2 * dimensions * np.max(diffusivity) / voxel**2 + 4 * rate)


def spread(density: np.ndarray, diffusivity: np.ndarray, rate: float, voxel: float, days: float) -> np.ndarray:
    """Density after `days`, by explicit Euler steps of Fisher's equation.

    `density` and `diffusivity` (mm²/day) have the same shape, of any number of
    axes; `rate` is in 1/day, `voxel` in mm. The flux between two voxels sees
    the harmonic mean of their diffusivities, so nothing enters where D is 0.
    """
    steps = int(np.ceil(days / step_length(diffusivity, rate, voxel)))
    faces = []
    for axis in range(density.ndim):
        low = (slice(None),) * axis + (slice(None, -1),)
        high = (slice(None),) * axis + (slice(1, None),)
        a, b = diffusivity[low], diffusivity[high]
        faces.append((low, high, 2 * a * b / np.maximum(a + b, 1e-12) / voxel**2))
    for _ in range(steps):
        change = rate * density * (1 - density)
        for low, high, face in faces:
            flux = face * (density[high] - density[low])
            change[low] += flux
            change[high] -= flux
        density = density + days / steps * change
    return density


def grow(place: np.ndarray, points: np.ndarray, grey: np.ndarray, white: np.ndarray, growth: Growth) -> np.ndarray:
    """Density (X, Y, Z) of a glioma that began in the white matter nearest to
    `place` (3,) and grew to `growth.radius`.

    `points` (3, X, Y, Z) are the voxels' coordinates; all lengths are in mm.
    `grey` and `white` (X, Y, Z) are tissue fractions; the diffusivity is
    proportional to them.
    """
    voxel = points[0, 1, 0, 0] - points[0, 0, 0, 0]
    away = np.linalg.norm(points - np.reshape(place, (3, 1, 1, 1)), axis=0)
    start = points.reshape(3, -1)[:, np.argmin(away + 100 * (white < 0.6))]  # the nearest white matter
    away = np.linalg.norm(points - start.reshape(3, 1, 1, 1), axis=0)
    near = np.nonzero(away < 1.6 * growth.radius + 25)  # no cell gets further in this time
    box = tuple(slice(i.min(), i.max() + 1) for i in near)

    diffusivity = growth.diffusivity * (white[box] + growth.grey_ratio * grey[box])
    density = np.exp(-((away[box] / 4) ** 2)) * (diffusivity > 0)
    wanted = 4 / 3 * np.pi * (growth.radius / voxel) ** 3
    step = 4 * step_length(diffusivity, growth.rate, voxel)
    for _ in range(500):
        if (density > DENSE).sum() >= wanted:
            break
        density = spread(density, diffusivity, growth.rate, voxel, step)
    whole = np.zeros(white.shape)
    whole[box] = density
    return whole


def compartments(
    density: np.ndarray, fractions: np.ndarray, growth: Growth, voxel: float, unevenness: np.ndarray | float = 0.0
) -> dict[str, np.ndarray]:
    """Tissue fractions {name: (X, Y, Z)} of a brain with a glioma, from those
    (3, X, Y, Z) without.

    Where the density passes DENSE, the outer `growth.rim` mm have leaking
    vessels, and what lies further in is dead. Where it passes VISIBLE, white
    matter is swollen. Fluid stays. `unevenness` (X, Y, Z) in mm is added to
    the rim's thickness and makes its border less round.
    """
    csf, grey, white = fractions
    dense = np.clip((density - DENSE + 0.08 * unevenness) / 0.1 + 0.5, 0, 1)
    depth = voxel * (distance_transform_edt(binary_fill_holes(dense > 0.5)) - 0.5)
    dead = np.clip((depth - growth.rim - unevenness) / voxel + 0.5, 0, 1) * dense
    swollen = np.clip((density - VISIBLE) / 0.15 + 0.5, 0, 1) * np.clip(0.85 + 0.1 * unevenness, 0, 1)
    solid = grey + white
    return {
        "csf": csf,
        "grey": grey * (1 - dense),
        "white": white * (1 - dense) * (1 - swollen),
        "oedema": white * (1 - dense) * swollen,
        "rim": solid * (dense - dead),
        "necrosis": solid * dead,
    }
