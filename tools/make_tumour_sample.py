"""Regenerate data/tumour_sample to the bit: python tools/make_tumour_sample.py [folder]

Four simulated fields of 128 x 128 pixels (2 µm each), consistent nuclei, in the layout of the
paper's release: QD (nanoparticles), CD31 (vessels), DAPI (nuclei), 16 bits.
"""

import sys
from pathlib import Path

import numpy as np
import tifffile

from damm_lite import Physics, simulate_nanoparticles, simulate_nuclei, simulate_vessels

SEED, FIELDS, SIZE = 2025, 4, 128


def make(folder):
    """Write the fields under `folder`."""
    pixel = Physics().pixel
    for field in range(1, FIELDS + 1):
        rng = np.random.default_rng([SEED, field])
        vessels = simulate_vessels(rng, SIZE, density=100.0)
        nuclei = simulate_nuclei(rng, vessels)
        images = {"CD31": vessels, "DAPI": nuclei, "QD": simulate_nanoparticles(vessels, nuclei)}
        for channel, image in images.items():
            path = Path(folder) / channel / f"{field:05d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            per_cm = (1e4 / pixel, 1e4 / pixel)
            pixels = np.rint(image.astype(float) * 65535).astype(np.uint16)
            tifffile.imwrite(
                path, pixels, resolution=per_cm, resolutionunit="CENTIMETER", metadata=None, software=False
            )


if __name__ == "__main__":
    make(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "data" / "tumour_sample")
