"""Real brain tumours: folders of the BraTS challenge as axial slices of
target, primary and secondary contrast.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from torch.utils.data import Dataset

from damm_lite.brains.cases import check_case, check_contrasts, find_cases
from damm_lite.brains.nifti import read_nifti
from damm_lite.brains.volumes import Frame, IntensityScale, frame_brain, robust_scale, to_slices, to_volume
from damm_lite.data import check_index, check_side, stack

ENOUGH_BRAIN = 0.4  # least area of brain in a slice, relative to the largest of the case
CACHED_CASES = 4  # kept in memory by a dataset
MOST_OF_BOX = 0.65  # of the box around a brain that it may fill: real ones have 0.4 to 0.5, an ellipsoid 0.52


class CaseSlices(NamedTuple):
    """Some axial slices of one case, with what is needed to turn predictions
    of them into a volume on the grid of the case.
    """

    case: str
    images: np.ndarray  # (n, contrasts, size, size) in [-1, 1]: target, primary, secondary contrasts
    mask: np.ndarray  # (n, 1, size, size), 1 in the brain
    lesion: np.ndarray  # (n, 1, size, size), 1 in any part of the tumour; 0 where there is no segmentation
    segmented: bool
    slices: np.ndarray  # (n,) their places in the volume, counted from below
    brain: np.ndarray  # (Z, H, W) bool, in all slices of the volume
    zooms: tuple[float, float, float]  # the voxel's sides along x, y, z of RAS, mm
    frame: Frame
    scales: list[IntensityScale]  # one for each contrast
    source: Path  # the target's file

    def item(self, i: int) -> dict:
        """Slice i as a dict, see `BraTSSliceDataset`."""
        images, mask, lesion = (torch.tensor(a[i]) for a in (self.images, self.mask, self.lesion))
        return {
            "target": images[:1],
            "primary": images[1:2],
            "secondary": images[2:],
            "mask": mask,
            "lesion": lesion,
            "segmented": self.segmented,
            "case": self.case,
            "slice": int(self.slices[i]),
        }

    def batch(self) -> dict:
        """All slices as one batch of `stack`."""
        return stack(self.item(i) for i in range(len(self.slices)))

    def restore(
        self,
        x0: np.ndarray | torch.Tensor,
        scale: IntensityScale | None = None,
    ) -> np.ndarray:
        """Predictions (n, 1, size, size) in [-1, 1] -> intensities (X, Y, Z)
        RAS, exactly 0 outside the brain.

        Intensities are those of the target's scan, or of `scale`, the
        `IntensityScale` of another. Slices that are not among these n stay 0.
        `write_nifti` puts the result on the grid of `source`.
        """
        brain = np.zeros_like(self.brain)
        brain[self.slices] = self.brain[self.slices]
        scale = scale or self.scales[0]
        placed = to_slices(self.place(x0))
        return to_volume(scale.restore(placed, brain))

    def place(self, pictures: np.ndarray | torch.Tensor, outside: float = 0.0) -> np.ndarray:
        """Pictures (n, 1, size, size) of any unit -> (X, Y, Z) RAS as
        `source`; `outside` where there is no brain. Raises ValueError for
        pictures of another shape.
        """
        pictures = np.asarray(pictures, np.float32)
        if pictures.shape != self.mask.shape:
            raise ValueError(f"case {self.case}: expected predictions {self.mask.shape}, got {pictures.shape}")
        whole = np.full(self.brain.shape, outside, np.float32)
        pasted = self.frame.paste(pictures[:, 0], self.mask[:, 0], fill=outside)
        whole[self.slices] = np.where(self.brain[self.slices], pasted, np.float32(outside))
        return to_volume(whole)


def read_case(
    case: str, files: dict[str, Path], contrasts: list[str], size: int, choose: Callable[[np.ndarray], np.ndarray]
) -> CaseSlices:
    """Read a case with the `files` {contrast: path} as slices of `size` pixels;
    `contrasts` are its target, primary and secondary ones.

    `choose` gets the number of brain voxels (Z,) in each slice and returns the
    places of those to take. Raises ValueError that names the case for whatever
    makes it unusable.
    """
    check_case(case, files, contrasts)
    try:
        read = [read_nifti(files[contrast]) for contrast in contrasts]
        for contrast, (volume, _) in zip(contrasts, read, strict=True):
            check_background(files[contrast], volume)
        volumes = [to_slices(volume) for volume, _ in read]
        brain = np.logical_or.reduce([volume != 0 for volume in volumes])
        scales = [_scale(files[contrast], volume, brain) for contrast, volume in zip(contrasts, volumes, strict=True)]
        segmentation = to_slices(read_labels(files["seg"])) if "seg" in files else None
        if segmentation is not None:
            check_lesion(files["seg"], (segmentation > 0)[brain].mean())
    except ValueError as error:
        raise ValueError(f"case {case}: {error}") from error
    zooms = tuple(nib.affines.voxel_sizes(nib.as_closest_canonical(read[0][1]).affine).tolist())
    frame = frame_brain(brain, zooms[1::-1], size)
    slices = choose(brain.sum(axis=(1, 2)))
    mask = frame.cut(brain[slices], fill=0) > 0.5
    images = [
        np.where(mask, frame.cut(scale.normalise(volume[slices], brain[slices]), fill=-1), np.float32(-1)).clip(-1, 1)
        for volume, scale in zip(volumes, scales, strict=True)
    ]
    lesion = mask & (frame.cut(segmentation[slices] > 0, fill=0) > 0.5) if segmentation is not None else mask & False
    return CaseSlices(
        case,
        np.stack(images, axis=1),
        mask[:, None].astype(np.float32),
        lesion[:, None].astype(np.float32),
        segmentation is not None,
        slices,
        brain,
        zooms,
        frame,
        scales,
        files[contrasts[0]],
    )


def check_background(path: Path, volume: np.ndarray) -> None:
    """Raise ValueError, naming the file, where what surrounds the brain in a volume (X, Y, Z) is not 0: what is not 0
    fills most of the box around it, as no brain does. All of it would be taken for brain.
    """
    there = volume != 0
    sides = [np.flatnonzero(there.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    box = there[tuple(slice(side[0], side[-1] + 1) for side in sides)] if there.any() else there
    if box.mean() > MOST_OF_BOX:
        raise ValueError(
            f"{path}: expected 0 around the brain, got values such as {volume[there][0]:g}; "
            "strip the skull, or set the background to 0"
        )


def check_lesion(path: Path, share: float) -> None:
    """Raise ValueError, naming the segmentation, where its labels cover more than half of the brain: no tumour, but
    tissues, or a background that is not 0.
    """
    if share > 0.5:
        raise ValueError(f"{path}: expected labels of a tumour, and 0 elsewhere, got them in {share:.0%} of the brain")


def read_labels(path: Path) -> np.ndarray:
    """A segmentation (X, Y, Z) as whole numbers, up to a rounding of 0.001; ValueError, naming the file, for others,
    as where it was resampled by interpolation.
    """
    labels, _ = read_nifti(path)
    whole = np.rint(labels)
    if np.abs(labels - whole).max() > 1e-3 + 1e-6:
        between = labels.flat[np.abs(labels - whole).argmax()]
        raise ValueError(f"{path}: expected labels that are whole numbers, got {between:g}; resample the nearest one")
    return whole


def _scale(path: Path, volume: np.ndarray, brain: np.ndarray) -> IntensityScale:
    try:
        return robust_scale(volume, brain)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class BraTSSliceDataset(Dataset):
    """Axial slices of a BraTS folder, as dicts.

    `target`, `primary` and `secondary` name contrasts ("t1", "t1ce", "t2",
    "flair"; `secondary` may be several, "t2,t1ce" or a list, which become its
    channels). An item has `target` (1, H, W), `primary` (1, H, W), `secondary`
    (C, H, W) in [-1, 1], -1 outside the brain; `mask` and `lesion` (1, H, W)
    in {0, 1}, float32 all; `segmented` (without, `lesion` is all 0), `case`,
    and `slice` (its place in the volume from below). H = W = `size` pixels are
    192 mm around the brain's middle.

    Each of the `cases` (names; default: all) gives `slices_per_case` slices,
    evenly spread over those with enough brain. Item i is slice i %
    slices_per_case of case i // slices_per_case. Intensities between the 0.5
    and 99.5 percentiles of a volume's brain become [-1, 1].

    Opening reads headers and file sizes only, and raises ValueError that names
    the first case that cannot be used; with `skip_bad` such cases are left out
    and listed in `skipped`, {case: reason}. Volumes are read when asked for;
    damage inside them is raised then. Only the last few cases are kept in
    memory: go through the items in order, or draw them once with
    `list(dataset)` or `StoredSlices`.
    """

    def __init__(
        self,
        root: str | Path,
        target: str,
        primary: str,
        secondary: str | list[str],
        size: int,
        cases: list[str] | None = None,
        slices_per_case: int = 32,
        skip_bad: bool = False,
    ) -> None:
        check_side("size", size)
        if slices_per_case < 1:
            raise ValueError(f"slices_per_case: expected at least 1, got {slices_per_case}")
        self.contrasts = check_contrasts(target, primary, secondary)
        self.size, self.slices_per_case = size, slices_per_case
        found = find_cases(root)
        if unknown := set(cases or ()) - found.keys():
            raise ValueError(f"{root}: no case {', '.join(sorted(unknown))}; it has {', '.join(list(found)[:20])}")
        self.files, self.skipped, self._kept = {}, {}, {}
        for case in found if cases is None else cases:
            try:
                check_case(case, found[case], self.contrasts)
            except ValueError as error:
                if not skip_bad:
                    raise
                self.skipped[case] = str(error)
            else:
                self.files[case] = found[case]
        self.cases = list(self.files)

    def __len__(self) -> int:
        return len(self.cases) * self.slices_per_case

    def __getitem__(self, index: int) -> dict:
        check_index(index, len(self))
        number, i = divmod(index, self.slices_per_case)
        case = self.cases[number]
        if case not in self._kept:
            while len(self._kept) >= CACHED_CASES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[case] = read_case(case, self.files[case], self.contrasts, self.size, self._spread)
        return self._kept[case].item(i)

    def whole(self, case: str) -> CaseSlices:
        """All slices of a case that show any brain, as `CaseSlices`: to
        predict a volume.
        """
        return read_case(case, self.files[case], self.contrasts, self.size, np.flatnonzero)

    def _spread(self, areas: np.ndarray) -> np.ndarray:
        enough = np.flatnonzero(areas >= ENOUGH_BRAIN * areas.max())
        return enough[np.linspace(0, len(enough) - 1, self.slices_per_case).round().astype(int)]
