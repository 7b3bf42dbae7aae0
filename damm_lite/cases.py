"""Cases of the BraTS challenge on disk: found, checked, and split by patient.

A case has one file per contrast, `CASE_t1.nii.gz`, `_t1ce`, `_t2`, `_flair` and perhaps `_seg` (2012-2021), or
`CASE-t1n.nii.gz`, `-t1c`, `-t2w`, `-t2f` and `-seg` (since 2023), skull-stripped: 0 outside the brain.
"""

import os
import re
from pathlib import Path

import numpy as np

from damm_lite.nifti import read_header, read_nifti

SUFFIXES = {
    "t1": ("t1", "t1n"),
    "t1ce": ("t1ce", "t1c"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f"),
    "seg": ("seg",),
}
CONTRAST = {suffix: contrast for contrast, suffixes in SUFFIXES.items() for suffix in suffixes}
FILE_NAME = re.compile(rf"(?P<case>.+)[_-](?P<suffix>{'|'.join(CONTRAST)})\.nii(\.gz)?", re.IGNORECASE)


def find_cases(root):
    """The files of every case below `root`, however deep: {case: {contrast: path}}, sorted.

    Contrasts are those of `SUFFIXES`. Of a file and its gzipped twin the plain one is taken. Raises
    FileNotFoundError for a missing folder; ValueError where no file has such a name, or two files
    want to be the same.
    """
    root, cases, seen = Path(root), {}, set()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    others = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link that leads back
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        for name in sorted(names):  # .nii before .nii.gz
            found = FILE_NAME.fullmatch(name)
            if not found or name.startswith("."):
                others.append(name)
                continue
            files, path = cases.setdefault(found["case"], {}), Path(folder, name)
            contrast = CONTRAST[found["suffix"].lower()]
            first = files.setdefault(contrast, path)
            if path not in (first, first.with_name(first.name + ".gz")):
                raise ValueError(f"case {found['case']}: two files for {contrast}: {first} and {path}")
    if not cases:
        shown = ", ".join(sorted(others)[:5]) or "no files"
        raise ValueError(
            f"{root}: no BraTS case; expected files such as CASE_t1.nii.gz or CASE-t1n.nii.gz, got {shown}"
        )
    return dict(sorted(cases.items()))


def patient_of(case):
    """The patient of a case: "BraTS-GLI-00001-001" is a later scan of "BraTS-GLI-00001"."""
    return re.sub(r"(-\d+)-\d{3}$", r"\1", case)


def split_patients(cases, fractions=(0.8, 0.2), seed=0):
    """Split case names at random into lists of about these `fractions` of the patients.

    All scans of a patient go to the same list. The result depends on the names and the seed
    alone, not on their order.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: expected numbers that add up to 1, got {fractions}")
    patients = sorted({patient_of(case) for case in cases})
    order = np.random.default_rng(seed).permutation(len(patients))
    part = np.searchsorted(np.cumsum(fractions) * len(patients) - 1e-6, np.arange(len(patients)), side="right")
    part_of = {patients[i]: min(p, len(fractions) - 1) for i, p in zip(order, part, strict=True)}
    return [sorted(case for case in set(cases) if part_of[patient_of(case)] == p) for p in range(len(fractions))]


def hold_out(cases, share=0.2, seed=0):
    """(cases to train on, cases held out): about `share` of the patients, at least one, are held out.

    Raises ValueError where there are fewer than two patients.
    """
    patients = {patient_of(case) for case in cases}
    if len(patients) < 2:
        found = ", ".join(sorted(patients)) or "none"
        raise ValueError(f"expected at least 2 patients, one to train on and one to hold out; got {found}")
    share = max(share, 1 / len(patients))
    return split_patients(cases, (1 - share, share), seed)


def check_case(case, files, contrasts):
    """Check what headers and file sizes tell: cheap, so that thousands of cases can be checked first.

    Raises ValueError that names the case: a contrast is missing (and what is there), is not a
    whole 3-D NIfTI file or empty, or shapes or affines differ.
    """
    missing = [contrast for contrast in contrasts if contrast not in files]
    if missing:
        raise ValueError(f"case {case}: no {', '.join(missing)}; it has {', '.join(sorted(files))}")
    first = None
    for contrast in (*contrasts, *({"seg"} & files.keys())):
        path = files[contrast]
        try:
            image = read_header(path)
            if contrast != "seg" and _doubtful(path, image) and not read_nifti(path)[0].any():
                raise ValueError(f"{path}: expected a brain, got voxels that are all 0")
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"case {case}: {error}") from error
        first = first or image
        if image.shape != first.shape:
            raise ValueError(f"case {case}: {path.name} has the shape {image.shape}, {contrasts[0]} has {first.shape}")
        if not np.allclose(image.affine, first.affine, atol=1e-3):
            raise ValueError(
                f"case {case}: {path.name} lies elsewhere than {contrasts[0]}: its affine is "
                f"{image.affine[:3].round(3).tolist()} instead of {first.affine[:3].round(3).tolist()}"
            )


def _doubtful(path, image):
    """Whether a file could be cut short or empty, so that it is worth while to read it as a whole."""
    expected = image.dataobj.offset + image.get_data_dtype().itemsize * int(np.prod(image.shape, dtype=np.int64))
    size = path.stat().st_size
    if path.suffix.lower() != ".gz":
        return size < expected or not np.any(image.dataobj[..., image.shape[2] // 2])
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        unpacked = int.from_bytes(file.read(), "little")  # gzip ends with the length of what it holds
    return unpacked != expected % 2**32 or size < expected / 50 + 300  # zeros shrink to a thousandth
