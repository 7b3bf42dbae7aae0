"""From volumes to slices and back: intensities to [-1, 1], axial slices cut to
a square and put back.

A volume is (X, Y, Z) with axes that run right, front, up (RAS); a stack of its
slices is (Z, H, W), seen as radiologists do: the front of the head at the top,
the patient's right side on the left.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

WINDOW = 192.0  # side of the square around a brain, mm


class IntensityScale(NamedTuple):
    """A piecewise linear map from a scanner's intensities to [-1, 1], through
    the points (intensities[i], values[i]); clipped beyond the ends.

    >>> scale = IntensityScale((0.0, 100.0))
    >>> scale.normalise(np.array([25.0, 300.0]), np.array([True, True]))
    array([-0.5,  1. ], dtype=float32)
    """

    intensities: tuple[float, ...]  # rising
    values: tuple[float, ...] = (-1.0, 1.0)

    def normalise(self, volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Intensities of any shape -> float32 in [-1, 1]; -1 outside `mask`.
        They may be negative.
        """
        scaled = np.interp(volume, self.intensities, self.values)
        return np.where(mask, scaled, -1).astype(np.float32)

    def restore(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The inverse of `normalise`, up to its clipping; 0 outside `mask`."""
        return np.where(mask, np.interp(x, self.values, self.intensities), 0).astype(np.float32)


# Percentile: value. The middle 90 % of a brain's voxels take 80 % of the scale.
# The extremes depend on how much fluid a brain has and how bright a tumour is;
# a scale through them alone would move all other tissue (Nyul et al., IEEE TMI
# 19:143 (2000)).
LANDMARKS = {0.5: -1.0, 5.0: -0.8, 95.0: 0.8, 99.5: 1.0}


def robust_scale(volume: np.ndarray, mask: np.ndarray) -> IntensityScale:
    """The `IntensityScale` through four percentiles of `volume` inside `mask`;
    raises ValueError where nothing varies there.
    """
    inside = np.asarray(volume)[mask]
    if inside.size == 0:
        raise ValueError("expected a brain, got an empty mask")
    found = tuple(np.percentile(inside, list(LANDMARKS)).tolist())
    if not found[0] < found[-1]:
        constant = f"the constant {found[0]:g} over the brain"
        raise ValueError(f"expected an image, got {constant}")
    return IntensityScale(found, tuple(LANDMARKS.values()))


def to_slices(volume: np.ndarray) -> np.ndarray:
    """(X, Y, Z) RAS -> (Z, H, W) as radiologists look at it.

    >>> to_slices(np.zeros((5, 6, 7))).shape
    (7, 6, 5)
    """
    return volume[::-1, ::-1].transpose(2, 1, 0)


def to_volume(slices: np.ndarray) -> np.ndarray:
    """(Z, H, W) -> (X, Y, Z) RAS: the inverse of `to_slices`.

    >>> volume = np.arange(24).reshape(2, 3, 4)
    >>> bool((to_volume(to_slices(volume)) == volume).all())
    True
    """
    return slices.transpose(2, 1, 0)[::-1, ::-1]


def planes(volume: np.ndarray, at: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """Axial, coronal and sagittal plane (H, W) through voxel `at` of (X, Y, Z)
    RAS, as radiologists look at them.

    The head stands upright, its right side on the left; in the sagittal plane
    the face looks to the left.
    """
    x, y, z = at
    return volume[::-1, ::-1, z].T, volume[::-1, y, ::-1].T, volume[x, ::-1, ::-1].T


class Frame(NamedTuple):
    """A square window on axial slices, `size` pixels wide after resizing.

    `rows` and `columns` are the (start, stop) of the window on the slices (Z,
    H, W) of `shape`; they may reach beyond it.
    """

    shape: tuple[int, int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    size: int

    def cut(self, slices: np.ndarray, fill: float) -> np.ndarray:
        """(n, H, W) -> (n, size, size) float32: cropped, padded with `fill`,
        resized with anti-aliasing.
        """
        from skimage.transform import resize  # slow to import

        (top, bottom), (left, right) = self.rows, self.columns
        height, width = self.shape[1:]
        pad = [(0, 0), (max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0))]
        window = slices[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)].astype(np.float32)
        window = np.pad(window, pad, constant_values=fill)
        if window.shape[1:] == (self.size, self.size):
            return window
        shape = (len(window), self.size, self.size)
        return resize(window, shape, order=1, anti_aliasing=True, preserve_range=True).astype(np.float32)

    def paste(self, pictures: np.ndarray, masks: np.ndarray, fill: float) -> np.ndarray:
        """(n, size, size) -> (n, H, W): the inverse of `cut`, with `fill`
        outside the window.

        `masks` (n, size, size) tell where the pictures are valid. Pixels
        outside them take the value of the nearest one inside, so that
        enlarging mixes no background into the rim of the brain.
        """
        from skimage.transform import resize

        (top, bottom), (left, right) = self.rows, self.columns
        height, width = self.shape[1:]
        window = np.stack([_extended(p, m) for p, m in zip(pictures, masks, strict=True)])
        if (bottom - top, right - left) != (self.size, self.size):
            shape = (len(window), bottom - top, right - left)
            window = resize(window, shape, order=1, preserve_range=True)
        whole = np.full((len(window), height, width), fill, np.float32)
        inside = window[:, max(-top, 0) :, max(-left, 0) :]
        inside = inside[:, : height - max(top, 0), : width - max(left, 0)]
        whole[:, max(top, 0) : max(top, 0) + inside.shape[1], max(left, 0) : max(left, 0) + inside.shape[2]] = inside
        return whole


def frame_brain(mask: np.ndarray, zooms: tuple[float, float], size: int) -> Frame:
    """The `Frame` of 192 mm, or more for a larger brain, around the brain
    `mask` (Z, H, W); `zooms` (dy, dx) are the pixel's sides in mm.
    """
    there = [np.nonzero(mask.any(axis=axes))[0] for axes in ((0, 2), (0, 1))]
    ends = [(int(t[0]), int(t[-1]) + 1) for t in there]
    side = max(WINDOW, *((stop - start) * zoom for (start, stop), zoom in zip(ends, zooms, strict=True)))
    windows = []
    for (start, stop), zoom in zip(ends, zooms, strict=True):
        length = round(side / zoom)
        first = round((start + stop - length) / 2)
        windows.append((first, first + length))
    return Frame(mask.shape, *windows, size)


def _extended(picture, mask):
    """`picture` (H, W), its pixels outside `mask` replaced by the nearest ones
    inside.
    """
    if not mask.any():
        return picture
    nearest = distance_transform_edt(mask == 0, return_distances=False, return_indices=True)
    return picture[tuple(nearest)]
