"""What TIFF files say of their images beside the pixels: whole or not, which
images and channels there are, how large a pixel is, and how bright it can be.
"""

import contextlib
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from damm_lite.names import composed

MAX_PIXELS = 2**26  # all that is read at once: 8192 x 8192; larger images are for `predict_slide`
WHITE_IS_ZERO, COLOURS = tifffile.PHOTOMETRIC.MINISWHITE, (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
GREY_OR_COLOUR = (tifffile.PHOTOMETRIC.MINISBLACK, WHITE_IS_ZERO, *COLOURS)
TAGS = {"largest": 281, "x": 282, "y": 283, "name": 285, "unit": 296}
UNITS = {  # in µm, by their name without case
    "å": 1e-4, "nm": 1e-3, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, r"\u00b5m": 1.0, "mm": 1e3, "cm": 1e4,
    "m": 1e6, "in": 25_400.0, "inch": 25_400.0,
}  # fmt: skip
UNIT_OF_TAG = {2: 25_400.0, 3: 10_000.0}  # inch, cm
PRINTED = (1, 72, 96, 150, 300, 600)  # pixels an inch that image editors write by themselves
SAME_SIZE = 0.02  # relative difference up to which two sizes of a pixel are one


class Refused(ValueError):
    """What is wrong with a file that is whole."""


@contextlib.contextmanager
def open_tiff(path: str | Path) -> Iterator[tifffile.TiffFile]:
    """A TIFF file whose headers agree with its bytes. Raises FileNotFoundError,
    and ValueError naming the file for whatever goes wrong while it is open.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with tifffile.TiffFile(path, _multifile=False) as tiff:  # an OME header may name other files: not read
            _check_pages(tiff)
            yield tiff
    except Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # a broken file can fail anywhere inside the decoder
        raise ValueError(f"{path}: expected a whole TIFF image, got: {error}") from error


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


def axes_of(series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Axes and shape of an image, without those of length 1 beside Y and X."""
    kept = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if n > 1 or a in "YX"]
    return "".join(a for a, _ in kept), tuple(n for _, n in kept)


def names_of(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> list[str]:
    """The names of an image's planes, in order, "" for one without: OME's
    channels, ImageJ's labels or the page names of a plain TIFF. [] where none
    has a name.
    """
    planes = math.prod(n for a, n in zip(*axes_of(series), strict=True) if a not in "YX")
    labels = np.atleast_1d((tiff.imagej_metadata or {}).get("Labels", []))  # tifffile gives one by itself
    for names in (
        [channel.get("Name") for channel in _ome_pixels(tiff, series).iterfind("{*}Channel")],
        [str(label).partition("\n")[0].strip() for label in labels],
        [page.aspage().tags.valueof(TAGS["name"]) for page in series.pages if page is not None],
    ):
        if len(names) == planes and any(names):
            return [composed(name or "") for name in names]
    return []


def _ome_pixels(tiff, series):
    """What the OME header says of this image; an empty element where nothing."""
    nothing = ElementTree.Element("Pixels")
    try:
        found = ElementTree.fromstring(tiff.ome_metadata or "<OME/>").findall("{*}Image/{*}Pixels")
    except ElementTree.ParseError:  # such a header says nothing, to tifffile either
        return nothing
    return found[tiff.series.index(series)] if len(found) == len(tiff.series) else nothing


def choose(tiff: tifffile.TiffFile, channel: str | int | None) -> tuple[tifffile.TiffPageSeries, int | None]:
    """The image of a file that holds `channel`, and which of its planes that
    is, from 0; the only image, and None, for None.

    Of several images, one is taken where all others are smaller copies of it,
    or where it is the largest and the only pyramid. Raises ValueError, saying
    what there is, for any others and for a channel that is not there or there
    twice.
    """
    channel = composed(channel) if isinstance(channel, str) else channel
    holding = [series for series in tiff.series if not isinstance(channel, str) or channel in names_of(tiff, series)]
    if not holding:
        names = [name for series in tiff.series for name in names_of(tiff, series)]
        raise Refused(f"no channel {channel!r}; found {', '.join(names) or 'no names, give its number from 0'}")
    series = _full_resolution(holding)
    if channel is None:
        return series, None
    if isinstance(channel, str):
        names = names_of(tiff, series)
        if names.count(channel) > 1:
            raise Refused(f"expected one channel {channel!r}, got {', '.join(names)}; give its number from 0")
        return series, names.index(channel)
    axes, shape = axes_of(series)
    planes = [n for a, n in zip(axes, shape, strict=True) if a not in "YX"]
    if set(axes) & set("ZT") and not names_of(tiff, series):
        raise Refused(f"expected channels to choose number {channel} from, got slices or times: {axes} {shape}")
    if not 0 <= channel < math.prod(planes):
        raise Refused(f"expected a channel from 0 to {math.prod(planes) - 1}, got {channel}")
    return series, channel


def _full_resolution(images):
    largest = max(images, key=lambda series: series.size)
    others = [series for series in images if series is not largest]
    only_pyramid = len(largest.levels) > 1 and all(len(series.levels) == 1 for series in others)
    if others and not only_pyramid and not all(series.keyframe.is_reduced for series in others):
        shown = "; ".join(f"{series.name or 'unnamed'} {axes_of(series)}" for series in images)
        raise Refused(f"expected one image or pyramid, got {len(images)}: {shown}; save the wanted one by itself")
    return largest


def largest_value(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> int:
    """The value that is 1: the largest of the camera's bits where the file
    says how many, else the largest of the pixels' type; 1 for reals.

    OME says it as SignificantBits. Other files may have a MaxSampleValue, but
    it counts only if it is 2^n - 1, n > 8: else it is the image's own maximum.
    """
    if series.dtype.kind not in "ui":
        return 1
    largest = int(np.iinfo(series.dtype).max)
    bits = _ome_pixels(tiff, series).get("SignificantBits", "")
    said = 2 ** int(bits) - 1 if re.fullmatch("[1-9][0-9]?", bits) else 0
    tag = int(np.max(series.keyframe.tags.valueof(TAGS["largest"], default=0)))
    if not said and tag > 255 and (tag + 1).bit_count() == 1:
        said = tag
    return said if 0 < said < largest else largest


def channel_names(path: str | Path) -> list[str]:
    """The names of the channels in a TIFF file, of all its images, in order;
    [] where they have none. Raises as `read_tiff`.
    """
    with open_tiff(path) as tiff:
        return [name for series in tiff.series for name in names_of(tiff, series)]


def pixel_size(path: str | Path, channel: str | int | None = None) -> float | None:
    """The side of a pixel in µm as the file says: by OME, by ImageJ's unit, or
    by resolution tags in cm or inches. None where none does; a resolution of
    1, 72, 96, 150, 300 or 600 pixels an inch counts as none, for image editors
    write it by themselves.

    Of several images in the file, that with `channel`. Raises as `read_stain`,
    and ValueError for pixels that are not square.
    """
    with open_tiff(path) as tiff:
        series, _ = choose(tiff, channel)
        for width, height in (_ome_size(tiff, series), _tag_size(tiff, series.keyframe)):
            if 0 < width < math.inf and 0 < height < math.inf:
                if abs(width / height - 1) > SAME_SIZE:
                    raise Refused(f"expected square pixels, got {width:g} x {height:g} µm")
                return width
    return None


def _ome_size(tiff, series):
    pixels = _ome_pixels(tiff, series)
    said = {axis: pixels.get(f"PhysicalSize{axis}") for axis in "XY"}
    units = {axis: _micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"}
    return [float(said[axis]) * units[axis] if said[axis] else 0.0 for axis in "XY"]


def _tag_size(tiff, page):
    """Width and height of a pixel in µm by ImageJ or the resolution tags; 0 where nothing is said."""
    pixels = [page.tags.valueof(TAGS[axis], default=(0, 1)) for axis in "xy"]  # in a unit of length, as fractions
    imagej = tiff.imagej_metadata or {}
    unit = _micrometres(imagej.get("unit", ""))
    units = [unit, _micrometres(imagej.get("yunit", "")) or unit]
    if not unit:
        units = [UNIT_OF_TAG.get(page.tags.valueof(TAGS["unit"]), 0.0)] * 2
    sizes = [unit * below / above if above else 0.0 for unit, (above, below) in zip(units, pixels, strict=True)]
    printed = sizes[0] and any(abs(25_400 / sizes[0] / dpi - 1) < SAME_SIZE for dpi in PRINTED)
    return [0.0, 0.0] if printed and not unit else sizes


def _micrometres(unit):
    """A unit of length in µm; 0 for any other."""
    return UNITS.get(str(unit).casefold(), 0.0)
