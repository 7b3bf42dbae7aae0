"""Regenerate what data/ holds, to the bit: python tools/make_data.py [tumours|brains|manifest ...] (default: all)

tumours   data/tumour_sample: four simulated fields of 128 x 128 pixels (2 µm each), consistent nuclei, in the layout of
          the paper's release: QD (nanoparticles), CD31 (vessels), DAPI (nuclei), 16 bits
brains    data/brain_sample: four scans of three simulated patients in the layout of BraTS, 80 x 80 x 60 voxels of
          2.4 mm, int16, with segmentation; the first patient comes back (-001) with a larger glioma
manifest  damm_lite/manifest.txt: the sha256 of every file of data/
"""

import argparse
import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pooch
import tifffile

import damm_lite as dl
from damm_lite.brains.synthetic import draw_patient, later, scan
from damm_lite.tumours.simulate import Physics

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
LISTED = (".tif", ".gz", ".safetensors", ".csv", ".json")  # kinds of files that the manifest names
SEED = 2025
FIELDS, SIZE = 4, 128  # of the tumours, in pixels
VOXEL, MEAN = 2.4, 250  # of the brains: mm, and the mean of the brain in the units of the simulated scanner
CASES = {  # patient, radius of the glioma in mm
    "Phantom-00001-000": (1, 13),
    "Phantom-00001-001": (1, 19),
    "Phantom-00002-000": (2, 16),
    "Phantom-00003-000": (3, 14),
}


def make_tumours(folder: Path) -> None:
    """Write the fields under `folder`, as CHANNEL/NUMBER.tif."""
    for field in range(1, FIELDS + 1):
        rng = np.random.default_rng([SEED, field])
        vessels = dl.simulate_vessels(rng, SIZE, density=100.0)
        nuclei = dl.simulate_nuclei(rng, vessels)
        images = {"CD31": vessels, "DAPI": nuclei, "QD": dl.simulate_nanoparticles(vessels, nuclei)}
        write_field(folder, field, images)


def write_field(folder: Path, field: int, images: dict[str, np.ndarray]) -> None:
    """Write images (H, W) in [0, 1] as CHANNEL/NUMBER.tif, of 16 bits and 2 µm a pixel."""
    per_cm = 1e4 / Physics().pixel
    tags = dict(resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", metadata=None, software=False)
    for channel, image in images.items():
        path = folder / channel / f"{field:05d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.rint(image.astype(float) * 65535).astype(np.uint16), **tags)


def make_brains(folder: Path) -> None:
    """Write the cases under `folder`, as CASE/CASE_CONTRAST.nii.gz."""
    for number, (case, (patient, radius)) in enumerate(CASES.items(), start=1):
        person = later(draw_patient(np.random.default_rng([SEED, patient])), radius)
        found = scan(np.random.default_rng([SEED, patient, number]), person, VOXEL)
        volumes = {"seg": found.labels.astype(np.int16)}
        for contrast, image in found.images.items():
            volumes[contrast] = np.rint(image * (MEAN / image[found.mask].mean())).astype(np.int16)
        for name, volume in volumes.items():
            path = folder / case / f"{case}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(volume, found.affine)
            image.header.set_xyzt_units("mm")
            path.write_bytes(gzip.compress(image.to_bytes(), 9, mtime=0))


def manifest(data: Path) -> str:
    """The lines "path sha256" for all files below the folder `data`, sorted."""
    files = sorted(path for path in data.rglob("*") if path.suffix in LISTED)
    return "".join(f"{path.relative_to(data).as_posix()} {pooch.file_hash(path)}\n" for path in files)


MAKERS = {
    "tumours": lambda: make_tumours(DATA / "tumour_sample"),
    "brains": lambda: make_brains(DATA / "brain_sample"),
    "manifest": lambda: (ROOT / "damm_lite" / "manifest.txt").write_text(manifest(DATA)),
}


def make_named(makers: dict[str, Callable], about: str) -> None:
    """Make what the command line names, or all of it."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(makers)}; default all")
    names = parser.parse_args().names
    if unknown := set(names) - set(makers):
        parser.error(f"names: expected {', '.join(makers)}, got {', '.join(unknown)}")
    for name in names or makers:
        makers[name]()


if __name__ == "__main__":
    make_named(MAKERS, __doc__)
