"""One channel of a TIFF file that is larger than memory: read where it is
sliced, through zarr, so that `predict_slide` takes it as it takes an array.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from damm_lite.tumours.tiff import check_decoders, is_inverted, orientation, unit_range
from damm_lite.tumours.tiff_header import Refused, axes_of, choose, largest_value, open_tiff


class SlideChannel:
    """A channel (1, H, W) of a file on disk; slices of it are float32 in [0, 1], as by `read_tiff`.

    Each slice unpacks the tiles of the file that it touches, and keeps none.
    Values are refused where they are read. Made by `open_slide`.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: Path, planes: object, axes: str, plane: int, largest: int, inverted: bool):
        self.path, self.planes, self.largest, self.inverted = path, planes, largest, inverted
        sides = [n for a, n in zip(axes, planes.shape, strict=True) if a in "YX"]
        self.shape = (1, *sides)
        self.place = [None if a in "YX" else min(plane, n - 1) for a, n in zip(axes, planes.shape, strict=True)]

    def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray:
        channel, *pixels = (*where, slice(None)) if len(where) == 2 else where
        if len(pixels) != 2 or not all(isinstance(each, slice) for each in where) or channel != slice(None):
            raise IndexError(f"{self.path}: expected a slice of rows, or of rows and columns, [:, y, x], got {where}")
        pixels = iter(pixels)
        found = self.planes[tuple(next(pixels) if at is None else at for at in self.place)]
        image = unit_range(self.path, np.asarray(found), self.largest)[None]
        return 1 - image if self.inverted else image


@contextlib.contextmanager
def open_slide(path: str | Path, channel: str | int | None = None) -> Iterator[SlideChannel]:
    """Open one channel of a TIFF file of any size, for as long as the block lasts.

    `channel` is as in `read_stain`; of a pyramid it is the full resolution.
    Raises ImportError without zarr, which the extra `slides` installs,
    FileNotFoundError, and ValueError naming the file for what `read_stain`
    refuses of a header, for colours, and for an image that is not upright.

        slide = "slide.ome.tif"
        with open_slide(slide, "CD31") as v, open_slide(slide, "DAPI") as n:
            predict_slide(model, schedule, v, n, "predicted.tif")
    """
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"{path}: slides are read through zarr, which is not here: pip install zarr") from error
    with open_tiff(path) as tiff:
        series, plane = choose(tiff, channel)
        (axes, shape), number = axes_of(series), tiff.series.index(series)
        if axes[-2:] != "YX" or len(axes) > 3 or (plane is None and math.prod(shape[:-2]) > 1):
            raise Refused(f"expected one channel of (H, W) or (C, H, W), got {channel!r} of axes {axes} {shape}")
        if (turned := orientation(series)) != 1:
            raise Refused(f"expected a slide that is upright, orientation 1, got {turned}; turn it first")
        check_decoders(series.keyframe)
        largest, inverted = largest_value(tiff, series), is_inverted(series.keyframe)
    with tifffile.TiffFile(path, _multifile=False) as tiff, tiff.series[number].aszarr(level=0) as store:
        planes = zarr.open_array(store, mode="r")
        yield SlideChannel(Path(path), planes, tiff.series[number].axes, plane or 0, largest, inverted)
