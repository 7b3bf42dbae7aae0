"""Shapes in a field of view: signed distances in mm, random fields, and how
much of a voxel is covered.

Distances are negative inside. A voxel holds the fraction of itself that a
shape covers, so the same shape can be drawn at any voxel. Points are arrays
(3, X, Y, Z) of coordinates in mm.
"""

import numpy as np
from scipy.fft import irfftn, rfftn
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

FIELD = np.array([192.0, 192.0, 144.0])  # of view, mm
CENTRE = np.array([0.0, -16.0, 8.0])  # of the field, mm
FAR = 20.0  # mm; larger distances to a tube are not computed but set to this
SOFTNESS = 4.0  # mm over which seams of joined shapes are rounded


def grid(voxel: float) -> np.ndarray:
    """Coordinates (3, X, Y, Z) in mm of the voxels that fill the field."""
    axes = (c - f / 2 + voxel * (np.arange(round(f / voxel)) + 0.5) for c, f in zip(CENTRE, FIELD, strict=True))
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def smooth_field(rng: np.random.Generator, wavelength: float) -> np.ndarray:
    """A random field (X, Y, Z) of unit variance, made of waves of about
    `wavelength` mm, six samples each; it spans the field of view.
    """
    shape = np.maximum(np.ceil(6 * FIELD / wavelength), 4).astype(int)
    frequency = [np.fft.fftfreq(n, f / n) for n, f in zip(shape, FIELD, strict=True)]
    frequency[2] = np.fft.rfftfreq(shape[2], FIELD[2] / shape[2])
    length = np.sqrt(sum(f**2 for f in np.meshgrid(*frequency, indexing="ij")))
    band = np.exp(-0.5 * ((length * wavelength - 1) / 0.25) ** 2)
    waves = irfftn(band * rfftn(rng.standard_normal(shape)), shape)
    return waves / waves.std()


def interpolate(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values (...) of a random field at points (3, ...) in mm, linear between
    its samples; it repeats beyond the field of view.
    """
    spacing = FIELD / field.shape
    index = [(p - c) / s for p, c, s in zip(points, CENTRE, spacing, strict=True)]
    return map_coordinates(field, index, order=1, mode="grid-wrap")


def ellipsoid(points: np.ndarray, centre: tuple, axes: tuple) -> np.ndarray:
    """Distance to an ellipsoid with half `axes` in mm, exact to first order
    near its surface.
    """
    q = [(p - c) / a + 1e-9 for p, c, a in zip(points, centre, axes, strict=True)]  # the middle has no direction
    size = np.sqrt(sum(c**2 for c in q))
    slope = np.sqrt(sum((c / a) ** 2 for c, a in zip(q, axes, strict=True)))
    return size * (size - 1) / slope


def tube(points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Distance to a tube, at most FAR; `path` (n, 4) has x, y, z and radius in
    mm, and both are linear between its rows.
    """
    t = np.linspace(0, len(path) - 1, 12 * len(path))
    dense = np.stack([np.interp(t, np.arange(len(path)), column) for column in path.T], axis=1)
    points = np.stack(list(points))
    low, high = (np.reshape(f(dense[:, :3], axis=0), (3, 1, 1, 1)) for f in (np.min, np.max))
    near = ((points > low - FAR) & (points < high + FAR)).all(axis=0)
    distance, nearest = cKDTree(dense[:, :3]).query(points[:, near].T, distance_upper_bound=FAR)
    whole = np.full(near.shape, FAR)
    whole[near] = np.where(np.isfinite(distance), distance - np.append(dense[:, 3], 0)[nearest], FAR)
    return whole


def join(*distances: np.ndarray) -> np.ndarray:
    """Distance to the union of shapes, its seams rounded over SOFTNESS mm."""
    return -SOFTNESS * np.log(sum(np.exp(-d / SOFTNESS) for d in distances))


def covered(distance: np.ndarray, voxel: float) -> np.ndarray:
    """Fraction of a voxel on the inner side of a surface at `distance` mm.

    >>> covered(np.array([-3.0, 0.0, 0.75, 3.0]), voxel=3.0)
    array([1.  , 0.5 , 0.25, 0.  ])
    """
    return np.clip(0.5 - distance / voxel, 0, 1)


def covered_by_sheet(distance: np.ndarray, half_width: np.ndarray | float, voxel: float) -> np.ndarray:
    """Fraction of a voxel in a sheet of 2 `half_width` mm whose middle is
    `distance` mm away.
    """
    upper, lower = np.minimum(distance + voxel / 2, half_width), np.maximum(distance - voxel / 2, -half_width)
    return np.clip((upper - lower) / voxel, 0, 1)


def displace(points: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Where the tissue at `points` was before a mass of `radius` mm grew at
    `centre`.

    Tissue keeps its volume, so that what was at distance s is now at (s^3 +
    radius^3)^(1/3).
    """
    centre = np.reshape(centre, (3, 1, 1, 1))
    offset = points - centre
    now = np.linalg.norm(offset, axis=0) + 1e-6
    return centre + offset * (np.cbrt(np.maximum(now**3 - radius**3, 0)) / now)
