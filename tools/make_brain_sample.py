"""Regenerate data/brain_sample to the bit: python tools/make_brain_sample.py [folder]

Four scans of three simulated patients in the layout of BraTS, 80 x 80 x 60 voxels of 2.4 mm, int16, with
segmentation. The first patient comes back (-001) with a larger glioma.
"""

import gzip
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from damm_lite.brain import draw_patient, later, scan

SEED, VOXEL, MEAN = 2025, 2.4, 250  # MEAN: of the brain, in the units of the simulated scanner
CASES = {  # patient, radius of the glioma in mm
    "Phantom-00001-000": (1, 13),
    "Phantom-00001-001": (1, 19),
    "Phantom-00002-000": (2, 16),
    "Phantom-00003-000": (3, 14),
}


def make(folder):
    """Write the cases under `folder`."""
    for number, (case, (patient, radius)) in enumerate(CASES.items(), start=1):
        person = later(draw_patient(np.random.default_rng([SEED, patient])), radius)
        found = scan(np.random.default_rng([SEED, patient, number]), person, VOXEL)
        volumes = {"seg": found.labels.astype(np.int16)}
        for contrast, image in found.images.items():
            volumes[contrast] = np.rint(image * (MEAN / image[found.mask].mean())).astype(np.int16)
        for name, volume in volumes.items():
            path = Path(folder) / case / f"{case}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(volume, found.affine)
            image.header.set_xyzt_units("mm")
            path.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))


if __name__ == "__main__":
    make(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "data" / "brain_sample")
