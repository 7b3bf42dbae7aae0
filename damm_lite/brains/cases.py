"""Cases on disk, as of the BraTS challenge: found, checked, and split by patient.

A case has one file per contrast, `CASE_t1.nii.gz`, `_t1ce`, `_t2`, `_flair`
and perhaps `_seg` (2012-2021), or `CASE-t1n.nii.gz`, `-t1c`, `-t2w`, `-t2f`
and `-seg` (since 2023), skull-stripped: 0 outside the brain. `SUFFIXES` has
the names of other collections: UPENN-GBM, UCSF-PDGM, TCGA, LUMIERE, BIDS,
open_ms_data.
"""

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from damm_lite.brains.nifti import read_header, read_nifti
from damm_lite.names import composed, is_hidden

CONTRASTS = ("t1", "t1ce", "t2", "flair")
SUFFIXES = {
    "t1": ("t1", "t1n", "t1w"),
    "t1ce": ("t1ce", "t1c", "t1gd", "ct1"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f"),
    "seg": ("seg", "tumor_segmentation", "lesion"),
}
CONTRAST = {suffix: contrast for contrast, suffixes in SUFFIXES.items() for suffix in suffixes}
FILE_NAME = re.compile(
    rf"(?P<case>.+?)(?P<agent>_ce-[a-z0-9]+)?[_-](?P<suffix>{'|'.join(CONTRAST)})\.nii(\.gz)?", re.IGNORECASE
)


def find_cases(root: str | Path) -> dict[str, dict[str, Path]]:
    """The files of every case below `root`, however deep: {case: {contrast:
    path}}, sorted. Hidden files and folders are passed over.

    Contrasts are the keys of `SUFFIXES`. Where a file is there both plain and
    gzipped, the plain one is taken, and `check_case` compares them. Raises FileNotFoundError for a missing
    folder; ValueError where no file has such a name, or two files hold the
    same contrast of the same case.
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
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        for name in sorted(names):  # .nii before .nii.gz
            found = FILE_NAME.fullmatch(name)
            if not found or is_hidden(name):
                others.append(name)
                continue
            files, path = cases.setdefault(composed(found["case"]), {}), Path(folder, name)
            contrast = CONTRAST[found["suffix"].lower()]
            if found["agent"] and contrast == "t1":  # BIDS says so of a T1 with contrast agent
                contrast = "t1ce"
            first = files.setdefault(contrast, path)
            if path not in (first, first.with_name(first.name + ".gz")):
                raise ValueError(f"case {found['case']}: two files for {contrast}: {first} and {path}")
    if not cases:
        shown = ", ".join(sorted(others)[:5]) or "no files"
        raise ValueError(
            f"{root}: no BraTS case; expected files such as CASE_t1.nii.gz or CASE-t1n.nii.gz, got {shown}"
        )
    return dict(sorted(cases.items()))


def check_contrasts(target: str, primary: str, secondary: str | list[str]) -> list[str]:
    """[target, primary, *secondary], names of `CONTRASTS`; `secondary` may be
    "t2", "t2,t1ce" or a list.

    Raises ValueError for an unknown contrast, saying which there are, and for
    one that is named twice.

    >>> check_contrasts("flair", "t1", "t2,t1ce")
    ['flair', 't1', 't2', 't1ce']
    """
    several = secondary.replace(" ", "").split(",") if isinstance(secondary, str) else secondary
    contrasts = [target, primary, *several]
    for contrast in contrasts:
        if contrast not in CONTRASTS:
            raise ValueError(f"unknown contrast {contrast!r}; expected one of {', '.join(CONTRASTS)}")
        if contrasts.count(contrast) > 1:
            raise ValueError(f"contrast {contrast!r} is named twice; target and sources must differ")
    return contrasts


# The patient, in the names of collections with several scans of one, before what tells the scans apart.
PATIENT = re.compile(
    r"BraTS-...-\d{5}(?=-\d{3,4}$)"  # BraTS since 2023: the number of the scan
    r"|BraTS-MEN-RT-\d{4}(?=-\d$)"
    r"|UPENN-GBM-\d{5}(?=_\d\d$)"  # 11 before an operation, 21 after it
    r"|UCSF-PDGM-\d{3,4}(?=_FU\w*$)"  # a follow-up
    r"|TCGA-..-....(?=[_-]\d{4}[.-]\d\d[.-]\d\d$)"  # a date
    r"|RHUH-\d{4}(?=_\d$)"  # 0 before an operation, 1 and 2 after it
    r"|OAS3\d{4}(?=_MR_d\d+$)"  # OASIS-3: days since the first visit
    r"|sub-[a-z0-9]+(?=_[a-z]+-)"  # BIDS: sessions, runs and whatever else
    r"|.+(?=_ses-\w+$)"
    r"|.+(?=_(visit|time|timepoint|tp)[_-]?\d+$)"  # UCSF-ALPTDG, MU-Glioma-Post
    r"|.+(?=_week-\d+(-\d+)?(_op)?$)"  # LUMIERE
    r"|.*-\d{5}(?=-\d{3}$)",  # other names as those of BraTS
    re.IGNORECASE,
)


def patient_of(case: str) -> str:
    """The patient of a case, by the naming of BraTS, UPENN-GBM, UCSF-PDGM and
    -ALPTDG, TCGA, RHUH, MU-Glioma-Post, OASIS-3, BIDS and LUMIERE; any other
    name counts as a patient of its own.

    >>> patient_of("BraTS-GLI-00001-001"), patient_of("sub-07_ses-02_run-1")
    ('BraTS-GLI-00001', 'sub-07')
    """
    found = PATIENT.match(case)
    return found[0] if found else case


def split_patients(
    cases: Iterable[str],
    fractions: tuple[float, ...] = (0.8, 0.2),
    seed: int = 0,
    patient_of: Callable[[str], str] = patient_of,
) -> list[list[str]]:
    """Split case names at random into lists of about these `fractions` of the
    patients.

    All scans of a patient go to the same list. The result depends on the names
    and the seed alone, not on their order. `patient_of` tells a case's
    patient: a function, or a table's `table.get`. Raises ValueError where the
    fractions do not add up to 1.
    """
    cases = set(cases)
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: expected numbers that add up to 1, got {fractions}")
    patients = sorted({patient_of(case) for case in cases})
    order = np.random.default_rng(seed).permutation(len(patients))
    part = np.searchsorted(np.cumsum(fractions) * len(patients) - 1e-6, np.arange(len(patients)), side="right")
    part_of = {patients[i]: min(p, len(fractions) - 1) for i, p in zip(order, part, strict=True)}
    return [sorted(case for case in cases if part_of[patient_of(case)] == p) for p in range(len(fractions))]


def hold_out(
    cases: Iterable[str], share: float = 0.2, seed: int = 0, patient_of: Callable[[str], str] = patient_of
) -> list[list[str]]:
    """[cases to train on, cases held out]: about `share` of the patients, at
    least one, are held out. `patient_of` is as in `split_patients`.

    Raises ValueError where there are fewer than two patients.
    """
    cases = set(cases)
    patients = {patient_of(case) for case in cases}
    if len(patients) < 2:
        found = ", ".join(sorted(patients)) or "none"
        raise ValueError(f"expected at least 2 patients, one to train on and one to hold out; got {found}")
    share = max(share, 1 / len(patients))
    return split_patients(cases, (1 - share, share), seed, patient_of)


def check_case(case: str, files: dict[str, Path], contrasts: list[str]) -> None:
    """Check the files {contrast: path} of a case by their headers and sizes,
    which is cheap: thousands of cases can be checked before work begins.

    Raises ValueError that names the case where one of `contrasts` is missing,
    is no whole 3-D NIfTI file, is 0 everywhere, or differs from a gzipped copy
    beside it, or where shapes or affines differ.
    """
    missing = [contrast for contrast in contrasts if contrast not in files]
    if missing:
        raise ValueError(f"case {case}: no {', '.join(missing)}; it has {', '.join(sorted(files))}")
    first = None
    for contrast in (*contrasts, *({"seg"} & files.keys())):
        path = files[contrast]
        try:
            image = read_header(path)
            if contrast != "seg" and _may_be_damaged(path, image) and not read_nifti(path)[0].any():
                raise ValueError(f"{path}: expected a brain, got voxels that are all 0")
            _check_twin(path)
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


def _check_twin(path: Path) -> None:
    """Raise ValueError where a file's gzipped twin is there too, and holds something else."""
    twin = path.with_name(path.name + ".gz")
    if path.suffix.lower() == ".nii" and twin.is_file():
        whole = path.read_bytes()
        try:
            with gzip.open(twin) as file:
                same = file.read(len(whole) + 1) == whole
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{twin}: {error}") from error
        if not same:
            raise ValueError(f"{path} and {twin} hold different volumes; remove one")


def _may_be_damaged(path: Path, image: nib.Nifti1Image) -> bool:
    """Whether a file may be cut short or 0 everywhere, judged without reading
    it; only then `check_case` reads it as a whole.

    A plain file may be where it is smaller than its header says, or its middle
    slice is 0. A gzipped one may be where the length in its last four bytes
    differs from the header's, or where it is packed to less than a fiftieth:
    zeros shrink to a thousandth, scans far less.
    """
    expected = image.dataobj.offset + image.get_data_dtype().itemsize * int(np.prod(image.shape, dtype=np.int64))
    size = path.stat().st_size
    if path.suffix.lower() != ".gz":
        return size < expected or not np.any(image.dataobj[..., image.shape[2] // 2])
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        unpacked = int.from_bytes(file.read(), "little")  # modulo 2^32
    return unpacked != expected % 2**32 or size < expected / 50 + 300  # 300 bytes for the header
