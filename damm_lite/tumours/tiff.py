"""TIFF files: whole, right way up, in one range, or refused by name."""

import math
import re
import struct
from pathlib import Path

import numpy as np
import tifffile
from skimage.transform import resize_local_mean

MAX_PIXELS = 2**26  # all channels together: 8192 x 8192; larger ones are for `predict_slide`
WHITE_IS_ZERO, COLOURS = tifffile.PHOTOMETRIC.MINISWHITE, (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
GREY_OR_COLOUR = (tifffile.PHOTOMETRIC.MINISBLACK, WHITE_IS_ZERO, *COLOURS)
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


def read_tiff(path: str | Path) -> np.ndarray:
    """Read an image as float32 in [0, 1]: (H, W), or (C, H, W) where it has
    several channels.

    Integers are divided by the largest value of their type, so 16-bit and
    8-bit copies of one image agree; booleans become 0 and 1; floats are taken
    as they are. Where white is stored as 0 the image is inverted, and it is
    turned upright as its orientation tag says. Of a pyramid the full
    resolution is read. Raises FileNotFoundError, or ValueError naming the
    file, what was found and what was expected: not a whole TIFF, more than
    three axes, negative or non-finite values, floats outside [0, 1], 32-bit
    integers of which too few would stay different.
    """
    return _read(path)[0]


def _read(path):
    """(image of `read_tiff`, whether its channels are the colours of RGB)."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with tifffile.TiffFile(path, _multifile=False) as tiff:  # an OME header may name other files: not read
            _check_pages(tiff)
            series = tiff.series[0]
            shape, axes, page = series.shape, series.axes, series.keyframe
            turn = UPRIGHT[_orientation(series)]
            if not 0 < np.prod(shape, dtype=float) <= MAX_PIXELS:
                raise ValueError(f"expected between 1 and {MAX_PIXELS} values, got shape {shape}")
            if tiff.shaped_metadata and np.prod(tiff.shaped_metadata[0]["shape"], dtype=float) > np.prod(shape):
                raise ValueError(f"expected shape {tiff.shaped_metadata[0]['shape']} as its header says, got {shape}")
            pixels = series.asarray()
    except Exception as error:  # a broken file can fail anywhere inside the decoder
        raise ValueError(f"{path}: expected a whole TIFF image, got: {error}") from error

    single = tuple(i for i, (n, axis) in enumerate(zip(shape, axes, strict=True)) if n == 1 and axis not in "YX")
    pixels = pixels.squeeze(single)
    if axes.endswith("S") and pixels.ndim == 3:  # RGB(A) samples come last
        pixels = np.moveaxis(pixels, -1, 0)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"{path}: expected (H, W) or (C, H, W), got shape {shape} with axes {axes}")
    image = turn(unit_range(path, pixels))
    return np.ascontiguousarray(1 - image if _is_inverted(page) else image), page.photometric in COLOURS


def _is_inverted(page):
    """Whether 0 is the brightest value. tifffile says so of the masks that it
    writes, but stores them as they are.
    """
    by_tifffile = str(page.tags.valueof("Software", default="")).startswith("tifffile")
    return page.photometric == WHITE_IS_ZERO and not (page.bitspersample == 1 and by_tifffile)


def _orientation(series):
    """The one orientation of all pages; 1, upright, where nothing is said."""
    pages = [page for page in series.pages if page is not None]
    found = {page.aspage().tags.valueof(ORIENTATION, default=1) for page in pages}
    if len(found) != 1 or not found <= UPRIGHT.keys():
        raise ValueError(f"expected one orientation from 1 to 8 for all pages, got {sorted(map(str, found))}")
    return found.pop()


def _check_pages(tiff):
    """Raise ValueError where the headers do not agree with the bytes: tifffile
    would guess, and could return another image than was written.
    """
    size, pages = tiff.filehandle.size, list(tiff.pages)
    tiff.filehandle.seek(tiff.pages.next_page_offset)
    (following,) = struct.unpack(tiff.tiff.offsetformat, tiff.filehandle.read(tiff.tiff.offsetsize))
    if following:
        raise ValueError(f"expected {len(pages)} pages as found, got one more, broken or seen before")
    for page in pages:
        if page.photometric not in GREY_OR_COLOUR:
            raise ValueError(f"expected grey values or RGB, got {page.photometric}")
        if page.bitspersample not in (1, 8 * page.dtype.itemsize):
            raise ValueError(f"expected pixels of 1, 8, 16, 32 or 64 bits, got {page.bitspersample}")
        if not page.databytecounts or not all(page.databytecounts):
            raise ValueError("expected all strips or tiles, got some of no bytes")
        if any(start + n > size for start, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise ValueError(f"expected pixels within its {size} bytes, got some beyond")
        unpacked, packed = np.prod(page.chunks, dtype=float) * page.dtype.itemsize, max(page.databytecounts)
        if unpacked > 8 * MAX_PIXELS or (page.compression != 1 and packed > 2 * unpacked + 1024):
            raise ValueError(f"expected strips or tiles of {unpacked:g} bytes, got one of {packed} that is packed")
    for header in (tiff.ome_metadata or "").split("<Pixels")[1:]:
        sizes = re.findall(r'Size[ZCT]="(\d+)"', header.partition(">")[0])
        planes = sum(page.samplesperpixel for page in pages)
        if math.prod(map(int, sizes)) > planes:
            raise ValueError(f"expected {' x '.join(sizes)} planes as its OME header says, got {planes}")


def unit_range(path: str | Path, pixels: np.ndarray) -> np.ndarray:
    """Pixels of any shape and real type as float32 in [0, 1]; converts and
    raises as `read_tiff`, naming `path`.
    """
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"{path}: expected integer or real pixels, got {pixels.dtype}")
    largest = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1
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
    if pixels.dtype.kind in "ui" and pixels.dtype.itemsize > 2 and 0 < image.max() < LEAST_SHARE:
        raise ValueError(
            f"{path}: expected values that use the range of {pixels.dtype}, up to {largest}, got at most "
            f"{pixels.max()}; store them as 8 or 16 bits"
        )
    return image


def read_stain(path: str | Path) -> np.ndarray:
    """Read one stain as a grey float32 (H, W) in [0, 1].

    An RGB(A) file counts as grey where its three colours are equal; slices or
    channels of other files do not. Raises as
    `read_tiff`, and ValueError for any other image of several channels and for
    a constant one.
    """
    image, is_colour = _read(path)
    if image.ndim == 3:
        if not is_colour or len(image) not in (3, 4) or not (image[0] == image[1:3]).all():
            raise ValueError(f"{path}: expected one grey channel, got {len(image)} different ones; split them first")
        image = image[0]
    if image.min() == image.max():
        raise ValueError(f"{path}: expected an image, got the constant {image.min():g}")
    return image


def read_at_scale(path: str | Path, pixel: float, wanted: float = 2.0) -> np.ndarray:
    """Read one stain and resize it from pixels of `pixel` µm to pixels of
    about `wanted` µm; float32 (H, W) in [0, 1].

    Each new pixel is the mean of what it covers. Raises as `read_stain`, and
    ValueError where a size is not positive or the new image would have no
    pixels or too many.
    """
    if not (pixel > 0 and wanted > 0):
        raise ValueError(f"{path}: expected pixels of more than 0 µm, got {pixel:g} and {wanted:g}")
    image = read_stain(path)
    shape = [round(side * pixel / wanted) for side in image.shape]
    if 0 in shape or math.prod(shape) > MAX_PIXELS:
        raise ValueError(f"{path}: expected an image at {wanted:g} µm, got {shape[0]} x {shape[1]} pixels of it")
    return resize_local_mean(image, shape, preserve_range=True).clip(0, 1).astype(np.float32)
