"""TIFF files: whole, right way up, in one range, or refused by name."""

import math
from pathlib import Path

import numpy as np
import tifffile
from skimage.transform import resize_local_mean

from damm_lite.tumours.tiff_header import (
    COLOURS,
    MAX_PIXELS,
    SAME_SIZE,
    WHITE_IS_ZERO,
    Refused,
    axes_of,
    channel_names,
    choose,
    largest_value,
    open_tiff,
    pixel_size,
)

ORIENTATION = 274  # the tag that says where the first row and column of the pixels lie
UPRIGHT = {  # how to turn (..., H, W) for each of its values
    1: lambda x: x,
    2: lambda x: x[..., ::-1],
    3: lambda x: x[..., ::-1, ::-1],
    4: lambda x: x[..., ::-1, :],
    5: lambda x: x.swapaxes(-1, -2),
    6: lambda x: np.rot90(x, -1, (-2, -1)),
    7: lambda x: x.swapaxes(-1, -2)[..., ::-1, ::-1],
    8: lambda x: np.rot90(x, 1, (-2, -1)),
}
LEAST_SHARE = 2**-12  # of the range of a 32-bit type that an image must use: float32 tells no finer values apart
FEW_LEVELS = 2**12  # a tensor tells that many apart in such a share
LEAST_SIDE = 16  # in pixels, of an image whose channels are more than that


def read_tiff(path: str | Path) -> np.ndarray:
    """Read an image as float32 in [0, 1]: (H, W), or (C, H, W) where it has
    several channels, which come first.

    Integers are divided by the largest value of their type, so 16-bit and
    8-bit copies of one image agree, or by that of the camera's bits where the
    file says how many (see `largest_value`): a 12-bit camera's file that does
    not say so stays below 0.07. Booleans become 0 and 1; floats are taken as
    they are. Where white is stored as 0 the image is inverted, and it is
    turned upright as its orientation tag says. Of a pyramid the full
    resolution is read. Raises FileNotFoundError, or ValueError naming the
    file, what was found and what was expected: not a whole TIFF, several
    images, a compression that needs another library, more than three axes,
    channels that were written last, negative or non-finite values, floats
    outside [0, 1], 32-bit integers of which too few would stay different.
    """
    return _read(path)[0]


def _read(path, channel=None):
    """(image of `read_tiff` or one channel of it, whether its channels are the colours of RGB)."""
    with open_tiff(path) as tiff:
        series, plane = choose(tiff, channel)
        turn, page = UPRIGHT[orientation(series)], series.keyframe
        axes, shape = axes_of(series)
        if len(axes) > 3 or "YX" not in (axes, axes[1:], axes[:2]):
            raise Refused(f"expected (H, W) or (C, H, W), got shape {series.shape} with axes {series.axes}")
        if axes[1:] == "YX" and shape[0] > LEAST_SIDE > min(shape[1:]):
            raise Refused(
                f"expected channels of whole images, got {shape[0]} of {shape[1]} x {shape[2]} pixels; "
                "write channels that come last first: numpy.moveaxis(image, -1, 0)"
            )
        alone = plane is not None and axes[1:] == "YX" and len(series.pages) == shape[0]  # a page for each channel
        if not 0 < np.prod(shape[1:] if alone else shape, dtype=float) <= MAX_PIXELS:
            raise Refused(f"expected between 1 and {MAX_PIXELS} values, got shape {shape}")
        _check_shaped(tiff)
        check_decoders(page)
        pixels = series.pages[plane].asarray().reshape(shape[1:]) if alone else series.asarray().reshape(shape)
        largest = largest_value(tiff, series)
    if pixels.ndim == 3 and axes[:2] == "YX":  # samples, as of RGB(A), come last
        pixels = np.moveaxis(pixels, -1, 0)
    if pixels.ndim == 3 and plane is not None:
        pixels = pixels[plane]
    image = turn(unit_range(path, pixels, largest))
    return np.ascontiguousarray(1 - image if is_inverted(page) else image), page.photometric in COLOURS


def check_decoders(page: tifffile.TiffPage) -> None:
    """Raise ValueError where tifffile needs another library for these pixels."""
    if page.compression not in tifffile.TIFF.DECOMPRESSORS or page.predictor not in tifffile.TIFF.UNPREDICTORS:
        raise Refused(
            f"expected pixels that can be unpacked here, got compression {page.compression!r} and predictor "
            f"{page.predictor!r}; more kinds can with imagecodecs: pip install imagecodecs"
        )


def _check_shaped(tiff):
    """Raise ValueError where tifffile's own header says more than there is."""
    for said in tiff.shaped_metadata or ():
        if np.prod(said["shape"], dtype=float) > sum(series.size for series in tiff.series):
            raise ValueError(f"expected shape {said['shape']} as its header says, got {tiff.series[0].shape}")


def is_inverted(page: tifffile.TiffPage) -> bool:
    """Whether 0 is the brightest value. tifffile says so of the masks that it
    writes, but stores them as they are.
    """
    by_tifffile = str(page.tags.valueof("Software", default="")).startswith("tifffile")
    return page.photometric == WHITE_IS_ZERO and not (page.bitspersample == 1 and by_tifffile)


def orientation(series: tifffile.TiffPageSeries) -> int:
    """The one orientation of all pages; 1, upright, where nothing is said."""
    if None in (pages := list(series.pages)):
        raise Refused(f"expected all {len(pages)} planes of its header, got some missing")
    found = {page.aspage().tags.valueof(ORIENTATION, default=1) for page in pages}
    if len(found) != 1 or not found <= UPRIGHT.keys():
        raise Refused(f"expected one orientation from 1 to 8 for all pages, got {sorted(map(str, found))}")
    return found.pop()


def unit_range(path: str | Path, pixels: np.ndarray, largest: int | None = None) -> np.ndarray:
    """Pixels of any shape and real type as float32 in [0, 1]; converts and
    raises as `read_tiff`, naming `path`. `largest` becomes 1; it is that of
    the type for None.
    """
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"{path}: expected integer or real pixels, got {pixels.dtype}")
    largest = largest or (np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1)
    image = np.empty(pixels.shape, np.float32)  # divided piece by piece, for float64 would take twice the memory
    with np.errstate(over="ignore"):
        np.divide(pixels, np.float64(largest), out=image, dtype=np.float64, casting="unsafe")
    if not np.isfinite([image.min(), image.max()]).all():
        raise ValueError(f"{path}: expected finite pixels, got NaN or infinity")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(
            f"{path}: expected pixels in [0, {largest}] ({pixels.dtype}), "
            f"got [{pixels.min():g}, {pixels.max():g}]; rescale the image first"
        )
    if pixels.dtype.kind in "ui" and pixels.dtype.itemsize > 2 and image.any() and _are_lost(image, pixels):
        raise ValueError(
            f"{path}: expected values that use the range of {pixels.dtype}, up to {largest}, got at most "
            f"{pixels.max()}, and half of them at most {np.median(pixels):g}; store them as 8 or 16 bits"
        )
    return image


def _are_lost(image, pixels):
    """Whether most of these wide integers become one as numbers in [-1, 1]: of counts, also where one pixel is hot."""
    left, there = len(np.unique(image * 2 - 1)), len(np.unique(pixels))
    return image.max() < LEAST_SHARE or (left < FEW_LEVELS and left <= there / 2)


def read_stain(path: str | Path, channel: str | int | None = None) -> np.ndarray:
    """Read one stain as a grey float32 (H, W) in [0, 1].

    `channel` chooses one of several by its name (see `channel_names`) or its
    number from 0; None is for files of one. An RGB(A) file counts as grey
    where its three colours are equal; slices or channels of other files do
    not. Raises as `read_tiff`, and ValueError for a channel that is not there
    or there twice, for None where there are several, and for a constant one.
    """
    image, is_colour = _read(path, channel)
    if image.ndim == 3:
        if not is_colour or len(image) not in (3, 4) or not (image[0] == image[1:3]).all():
            names = ", ".join(channel_names(path)) or f"0 to {len(image) - 1}"
            raise ValueError(
                f"{path}: expected one grey channel, got {len(image)} different ones; "
                f"where they are channels, choose one: {names}"
            )
        image = image[0]
    if image.min() == image.max():
        raise ValueError(f"{path}: expected an image, got the constant {image.min():g}")
    return image


def read_at_scale(
    path: str | Path, pixel: float | None = None, wanted: float = 2.0, channel: str | int | None = None
) -> np.ndarray:
    """Read one stain, as `read_stain` does, and resize it from pixels of
    `pixel` µm to pixels of about `wanted` µm; float32 (H, W) in [0, 1].

    `pixel` None takes the size that the file says (see `pixel_size`). Each new
    pixel is the mean of what it covers. Raises as `read_stain` and
    `pixel_size`, and ValueError where the file says nothing and `pixel` is
    None, where both differ by more than 2 %, where a size is not positive, or
    where the new image would have no pixels or too many.
    """
    said = pixel_size(path, channel)
    if said is None and pixel is None:
        raise ValueError(f"{path}: expected the size of a pixel in the file or as `pixel`, in µm, got neither")
    pixel = said if pixel is None else pixel
    if not (pixel > 0 and wanted > 0):
        raise ValueError(f"{path}: expected pixels of more than 0 µm, got {pixel:g} and {wanted:g}")
    if said and abs(pixel / said - 1) > SAME_SIZE:
        raise ValueError(f"{path}: expected pixels of {said:g} µm as the file says, got pixel = {pixel:g}")
    image = read_stain(path, channel)
    shape = [round(side * pixel / wanted) for side in image.shape]
    if 0 in shape or math.prod(shape) > MAX_PIXELS:
        raise ValueError(f"{path}: expected an image at {wanted:g} µm, got {shape[0]} x {shape[1]} pixels of it")
    return resize_local_mean(image, shape, preserve_range=True).clip(0, 1).astype(np.float32)
