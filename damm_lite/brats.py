"""Real brain tumours: folders of the BraTS challenge as axial slices of target, primary and secondary contrast."""

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from torch.utils.data import Dataset

from damm_lite.cases import check_case, find_cases
from damm_lite.data import check_contrasts, stack
from damm_lite.nifti import read_nifti
from damm_lite.volumes import Frame, frame_brain, robust_scale, to_slices, to_volume

ENOUGH_BRAIN = 0.4  # a slice has enough if its brain is this large, relative to the largest
CACHED_CASES = 4


class CaseSlices(NamedTuple):
    """Some axial slices of one case, and what it takes to put predictions back where they came from."""

    case: str
    images: np.ndarray  # (n, contrasts, size, size) in [-1, 1]: target, primary, secondary contrasts
    mask: np.ndarray  # (n, 1, size, size), 1 in the brain
    lesion: np.ndarray  # (n, 1, size, size), 1 in any part of the tumour; 0 where there is no segmentation
    segmented: bool
    slices: np.ndarray  # (n,) their places in the volume, counted from below
    brain: np.ndarray  # (Z, H, W) bool, the whole of it
    zooms: tuple  # the voxel's sides along x, y, z of RAS, mm
    frame: Frame
    scales: list  # the `IntensityScale` of each contrast
    source: Path  # the target's file

    def item(self, i):
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

    def batch(self):
        """All slices as one batch of `stack`."""
        return stack(self.item(i) for i in range(len(self.slices)))

    def restore(self, x0, scale=None):
        """Predictions (n, 1, size, size) in [-1, 1] -> intensities (X, Y, Z) RAS, exactly 0 outside the brain.

        Intensities are those of the target's scan, or of `scale`, the `IntensityScale` of another.
        Slices that are not among these n stay 0. `write_nifti` puts the result on the grid of `source`.
        """
        brain = np.zeros_like(self.brain)
        brain[self.slices] = self.brain[self.slices]
        return to_volume((scale or self.scales[0]).restore(to_slices(self.place(x0)), brain))

    def place(self, pictures, outside=0.0):
        """Pictures (n, 1, size, size) of any unit -> (X, Y, Z) RAS as `source`; `outside` where there is no brain."""
        pictures = np.asarray(pictures, np.float32)
        if pictures.shape != self.mask.shape:
            raise ValueError(f"case {self.case}: expected predictions {self.mask.shape}, got {pictures.shape}")
        whole = np.full(self.brain.shape, outside, np.float32)
        pasted = self.frame.paste(pictures[:, 0], self.mask[:, 0], fill=outside)
        whole[self.slices] = np.where(self.brain[self.slices], pasted, np.float32(outside))
        return to_volume(whole)


def read_case(case, files, contrasts, size, choose):
    """Read a case as `CaseSlices`; `choose(areas)` picks slices, given how much brain (Z,) each has.

    Raises ValueError that names the case for whatever makes it unusable.
    """
    check_case(case, files, contrasts)
    try:
        read = [read_nifti(files[contrast]) for contrast in contrasts]
        volumes = [to_slices(volume) for volume, _ in read]
        brain = np.logical_or.reduce([volume != 0 for volume in volumes])
        scales = [_scale(files[contrast], volume, brain) for contrast, volume in zip(contrasts, volumes, strict=True)]
        segmentation = to_slices(read_nifti(files["seg"])[0]) if "seg" in files else None
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


def _scale(path, volume, brain):
    try:
        return robust_scale(volume, brain)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class BraTSSliceDataset(Dataset):
    """Axial slices of a BraTS folder, as dicts.

    `target`, `primary` and `secondary` name contrasts ("t1", "t1ce", "t2", "flair"; `secondary` may
    be several, "t2,t1ce" or a list, which become its channels). An item has `target` (1, H, W), `primary`
    (1, H, W), `secondary` (C, H, W) in [-1, 1], -1 outside the brain; `mask` and `lesion` (1, H, W)
    in {0, 1}, float32 all; `segmented` (without, `lesion` is all 0), `case`, and `slice` (its place
    in the volume from below). H = W = `size` pixels are 192 mm around the brain's middle.

    Each of the `cases` (names; default: all) gives `slices_per_case` slices, evenly spread over those
    with enough brain. Item i is slice i % slices_per_case of case i // slices_per_case. Intensities
    between the 0.5 and 99.5 percentiles of a volume's brain become [-1, 1].

    Opening reads headers and file sizes only, and raises ValueError that names the first case
    that cannot be used; with `skip_bad` such cases are left out and listed in `skipped`, {case: reason}.
    Volumes are read when asked for, and only the last few cases are kept: go through them in order, or
    draw once with `list(dataset)`. Damage that only shows then is raised then.
    """

    def __init__(self, root, target, primary, secondary, size, cases=None, slices_per_case=32, skip_bad=False):
        if size % 4 or size <= 0:
            raise ValueError(f"size: expected a positive multiple of 4 pixels, got {size}")
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

    def __len__(self):
        return len(self.cases) * self.slices_per_case

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} outside 0..{len(self) - 1}")
        number, i = divmod(index, self.slices_per_case)
        case = self.cases[number]
        if case not in self._kept:
            while len(self._kept) >= CACHED_CASES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[case] = read_case(case, self.files[case], self.contrasts, self.size, self._spread)
        return self._kept[case].item(i)

    def whole(self, case):
        """All slices of a case that show any brain, as `CaseSlices`: to predict a volume."""
        return read_case(case, self.files[case], self.contrasts, self.size, np.flatnonzero)

    def _spread(self, areas):
        enough = np.flatnonzero(areas >= ENOUGH_BRAIN * areas.max())
        return enough[np.linspace(0, len(enough) - 1, self.slices_per_case).round().astype(int)]
