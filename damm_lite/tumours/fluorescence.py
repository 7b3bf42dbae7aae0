"""Real fluorescence images: folders of TIFF files as patches of target, primary
and secondary stain.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from damm_lite.data import check_side
from damm_lite.names import composed, is_hidden
from damm_lite.tumours.tiff import LEAST_SHARE, read_at_scale, read_stain
from damm_lite.tumours.tiff_header import channel_names, pixel_size

ASSUMED = 0.5  # µm a pixel, of a scan at 20x


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
    found = [p for p in [*root.glob("*"), *root.glob("*/*")] if p.suffix.lower() in (".tif", ".tiff")]
    return sorted(p for p in found if p.is_file() and not is_hidden(p.relative_to(root)))


def _stem(path):
    """A file's name without .tif, .tiff or .ome.tif, as names are compared."""
    return composed(path.stem[:-4] if path.stem.lower().endswith(".ome") else path.stem)


def find_channel(root: str | Path, channel: str) -> dict[str, Path]:
    """The files of one channel under `root`, by field: {field: path}.

    Four layouts are read: `root/CHANNEL/FIELD.tif` (the paper's release: QD,
    CD31, DAPI), `root/FIELD/CHANNEL.tif`, `root/CHANNEL.tif` for a single
    field, and `root/FIELD.ome.tif` with all channels in each file, by the
    names inside (see `channel_names`, and `name_inside` to read them). Hidden
    files are passed over. Raises FileNotFoundError for a missing folder,
    ValueError for a channel that is not there, naming those that are, for two
    files that could both be meant, naming them, and as `channel_names`.
    """
    root, files, channel = Path(root), _tiff_files(root), composed(channel)
    inside = [p for p in files if p.parent != root]
    inside_channel = [p for p in inside if composed(p.parent.name) == channel]
    layouts = [
        [(_stem(p), p) for p in inside_channel],
        [(root.name, p) for p in files if p.parent == root and _stem(p) == channel],
        [(composed(p.parent.name), p) for p in inside if _stem(p) == channel and p not in inside_channel],
    ]
    names = {p: channel_names(p) for p in files if p.parent == root and _stem(p) != channel}
    layouts.append([(_stem(p), p) for p, there in names.items() if channel in there])
    found = [pair for layout in layouts for pair in layout]
    by_field = dict(found)
    for field, path in found:
        if by_field[field] != path or sum(map(bool, layouts)) > 1:
            other = next(p for _, p in found if p != path)
            raise ValueError(f"{root}: two files for channel {channel!r}: {path} and {other}; remove one")
    if by_field:
        return by_field
    known = {_stem(p) for p in files} | {p.parent.name for p in inside} | {n for there in names.values() for n in there}
    shown = ", ".join(sorted(known)[:20]) + (", ..." if len(known) > 20 else "")
    raise ValueError(f"{root}: no channel {channel!r}; found {shown or 'no TIFF files'}")


def name_inside(path: str | Path, channel: str) -> str | None:
    """What `read_stain` takes to read `channel` from a file that `find_channel`
    found: its name where the file holds a channel of that name; None where
    the file is one stain, whatever its name. Raises as `channel_names`.
    """
    return channel if composed(channel) in channel_names(path) else None


def read_channel(path: str | Path, channel: str, pixel: float | None = None, wanted: float = 2.0) -> np.ndarray:
    """One channel of a file that `find_channel` found, at pixels of `wanted`
    µm, as `read_at_scale` reads it; (H, W) in [0, 1].

    Where neither `pixel` nor the file says how large its pixels are, a warning
    says that those of a 20x scan, 0.5 µm, are taken.
    """
    inside = name_inside(path, channel)
    if pixel is None and pixel_size(path, inside) is None:
        warnings.warn(f"{path} does not say how large its pixels are: {ASSUMED} µm are taken", stacklevel=2)
        pixel = ASSUMED
    return read_at_scale(path, pixel, wanted, inside)


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
    sizes, an image smaller than `size` or of next to no contrast, and whatever
    `read_stain` refuses.
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
                image = read_stain(path, name_inside(path, channel))
                stack.append(normalise(image) if normalise else image)
                if np.ptp(stack[-1]) < LEAST_SHARE:
                    raise ValueError(
                        f"{path}: expected values that use the range from 0 to 1, got {stack[-1].min():g} to "
                        f"{stack[-1].max():g}; give `normalise`, e.g. `stretch`"
                    )
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
