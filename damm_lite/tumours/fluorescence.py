"""Real fluorescence images: TIFF files as patches of target, primary and
secondary stain.
"""

import math
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
from skimage.transform import resize_local_mean
from torch.utils.data import Dataset

from damm_lite.data import check_side

MAX_PIXELS = 2**26  # all channels together: 8192 x 8192; larger ones are for `predict_slide`
GREY_OR_COLOUR = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)


def read_tiff(path: str | Path) -> np.ndarray:
    """Read an image as float32 in [0, 1]: (H, W), or (C, H, W) where it has
    several channels.

    Integers are divided by the largest value of their type, so 16-bit and
    8-bit copies of one image agree; booleans become 0 and 1; floats are taken
    as they are. Of a pyramid the full resolution is read. Raises
    FileNotFoundError, or ValueError naming the file, what was found and what
    was expected: not a whole TIFF, more than three axes, negative or
    non-finite values, floats outside [0, 1].
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with tifffile.TiffFile(path, _multifile=False) as tiff:  # an OME header may name other files: not read
            _check_pages(tiff)
            series = tiff.series[0]
            shape, axes = series.shape, series.axes
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
    return unit_range(path, pixels)


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
        if page.photometric not in GREY_OR_COLOUR and page.bitspersample > 1:  # 1-bit masks may store white as 0
            raise ValueError(f"expected grey values, black as 0, or RGB; got {page.photometric}")
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
    return image


def read_stain(path: str | Path) -> np.ndarray:
    """Read one stain as a grey float32 (H, W) in [0, 1].

    An RGB(A) file counts as grey where its three colours are equal. Raises as
    `read_tiff`, and ValueError for any other image of several channels and for
    a constant one.
    """
    image = read_tiff(path)
    if image.ndim == 3:
        if len(image) not in (3, 4) or not (image[0] == image[1:3]).all():
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


def stretch(image: np.ndarray, low: float = 0.0, high: float = 99.5) -> np.ndarray:
    """Contrast-stretch (H, W) so that two percentiles become 0 and 1; values
    beyond are clipped. Raises ValueError for a constant image.

    >>> stretch(np.array([[2.0, 3.0, 4.0]]), high=100)
    array([[0. , 0.5, 1. ]], dtype=float32)
    """
    bottom, top = np.percentile(image, [low, high])
    if bottom == top:  # a sparse stain can have an empty percentile range
        bottom, top = image.min(), image.max()
    if bottom == top:
        raise ValueError(f"stretch: expected an image, got the constant {bottom:g}")
    return np.clip((image - bottom) / (top - bottom), 0, 1).astype(np.float32)


def _tiff_files(root):
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    return sorted(p for p in [*root.glob("*"), *root.glob("*/*")] if p.suffix.lower() in (".tif", ".tiff"))


def find_channel(root: str | Path, channel: str) -> dict[str, Path]:
    """The files of one channel under `root`, by field: {field: path}.

    Three layouts are read: `root/CHANNEL/FIELD.tif` (the paper's release: QD,
    CD31, DAPI), `root/FIELD/CHANNEL.tif`, and `root/CHANNEL.tif` for a single
    field. Raises FileNotFoundError for a missing folder, ValueError for a
    channel that is not there, naming those that are.
    """
    root, files = Path(root), _tiff_files(root)
    for layout in (
        {p.stem: p for p in files if p.parent != root and p.parent.name == channel},
        {root.name: p for p in files if p.parent == root and p.stem == channel},  # noqa: B035 (one file)
        {p.parent.name: p for p in files if p.parent != root and p.stem == channel},
    ):
        if layout:
            return layout
    names = sorted({p.stem for p in files} | {p.parent.name for p in files if p.parent != root})
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise ValueError(f"{root}: no channel {channel!r}; found {shown or 'no TIFF files'}")


def first_channel(root: str | Path, candidates: list[str]) -> str:
    """The first of `candidates`, names of channels, that exists under `root`;
    raises as `find_channel` where none does.
    """
    *others, last = candidates
    for channel in others:
        try:
            find_channel(root, channel)
        except ValueError:
            continue
        return channel
    find_channel(root, last)
    return last


class FluorescenceDataset(Dataset):
    """Patches of real stains, as dicts of `target`, `primary`, `secondary` and
    `field`.

    `target`, `primary` and `secondary` name channels under `root` (see
    `find_channel`); `secondary` may be a list of several, which become its
    channels. Every image is cut into whole `size` x `size` patches, row by
    row; tensors are float32 (C, size, size) in [-1, 1]. `normalise` maps an
    image in [0, 1] to another, e.g. `stretch`.

    All images are read, checked and kept in memory at once, so that a bad one
    is reported before any work is lost: a counterpart that is missing, unequal
    sizes, an image smaller than `size`, and whatever `read_stain` refuses.
    """

    def __init__(
        self, root: str | Path, target: str, primary: str, secondary: str | list[str],
        size: int, normalise: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:  # fmt: skip
        check_side("size", size)
        self.size = size
        secondaries = [secondary] if isinstance(secondary, str) else list(secondary)
        channels = [target, primary, *secondaries]
        files = {channel: find_channel(root, channel) for channel in channels}
        self.images, self.patches = {}, []
        for field in sorted(set().union(*files.values())):
            stack = []
            for channel in channels:
                if field not in files[channel]:
                    there = next(f[field] for f in files.values() if field in f)
                    raise FileNotFoundError(f"{there}: has no counterpart in channel {channel!r}")
                path = files[channel][field]
                image = read_stain(path)
                stack.append(normalise(image) if normalise else image)
                if stack[-1].shape != stack[0].shape:
                    raise ValueError(
                        f"{path}: expected the size of {files[target][field]} {stack[0].shape}, got {image.shape}"
                    )
            height, width = stack[0].shape
            if min(height, width) < size:
                raise ValueError(
                    f"{files[target][field]}: expected at least {size} x {size} pixels, got {height} x {width}"
                )
            self.images[field] = torch.from_numpy(np.stack(stack)) * 2 - 1  # (channels, H, W)
            self.patches += [
                (field, row, col)
                for row in range(0, height - size + 1, size)
                for col in range(0, width - size + 1, size)
            ]

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, index: int) -> dict:
        field, row, col = self.patches[index]
        patch = self.images[field][:, row : row + self.size, col : col + self.size]
        return {"target": patch[:1], "primary": patch[1:2], "secondary": patch[2:], "field": field}
