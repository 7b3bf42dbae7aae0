"""Volumes on disk: NIfTI files, read in one orientation and written back in that of their source."""

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from damm_lite.files import written_aside

MAX_VOXELS = 2**28  # far above any head, far below a header bomb
MADE_HERE = b"damm_lite prediction"  # stands in the header of every file written, and allows to replace it


def read_nifti(path):
    """Read a 3-D NIfTI file as (volume (X, Y, Z) in its own type, turned to RAS; its image as it is on disk).

    Raises FileNotFoundError, or ValueError that names the file: not NIfTI, not 3-D, cut short,
    or not finite.
    """
    path = Path(path)
    image = read_header(path)
    try:
        whole = image
        if path.suffix.lower() == ".gz":  # to the very end, where the checksum is; nibabel stops before
            whole = type(image).from_bytes(gzip.decompress(path.read_bytes()))
        volume = np.asanyarray(nib.as_closest_canonical(whole).dataobj)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole NIfTI file, got: {error}") from error
    if volume.dtype.kind == "f" and not np.isfinite(volume).all():
        raise ValueError(f"{path}: expected finite voxels, got NaN or infinity")
    return volume, image


def read_header(path):
    """The image of a 3-D NIfTI file, its voxels still on disk; raises as `read_nifti`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        image = nib.load(path)
    except Exception as error:  # a broken header can fail anywhere inside the reader
        raise ValueError(f"{path}: expected a NIfTI file, got: {error}") from error
    if not isinstance(image, nib.Nifti1Image):  # NIfTI-2 is one, too
        raise ValueError(f"{path}: expected a NIfTI file, got {type(image).__name__}")
    if len(image.shape) != 3 or not 0 < np.prod(image.shape, dtype=float) <= MAX_VOXELS:
        raise ValueError(f"{path}: expected a 3-D volume of at most {MAX_VOXELS} voxels, got shape {image.shape}")
    return image


def write_nifti(path, volume, source):
    """Write `volume` (X, Y, Z) RAS as float32 on the grid of the file `source`, turned to its orientation.

    Affine, codes, zooms and shape are the source's; the header says that the image is a prediction.
    An existing file is replaced only if it says so too, hence never a source: else FileExistsError.
    ValueError for another shape or voxels that are not finite.
    """
    path, image = Path(path), read_header(source)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{path}: expected a name that ends in .nii or .nii.gz")
    if path.exists() and (path.samefile(source) or not _made_here(path)):
        raise FileExistsError(f"{path}: there is a file that is no prediction of damm_lite; choose another name")
    if not np.isfinite(volume).all():
        raise ValueError(f"{path}: expected finite voxels, got NaN or infinity")
    to_source = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.io_orientation(image.affine))
    turned = nib.orientations.apply_orientation(np.asarray(volume, np.float32), to_source)
    if turned.shape != image.shape:
        raise ValueError(f"{path}: expected the shape {image.shape} of {source}, got {turned.shape}")
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    header["descrip"], header["cal_min"], header["cal_max"] = MADE_HERE, 0, 0
    made = type(image)(turned, image.affine, header)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as whole:
        nib.save(made, whole)


def _made_here(path):
    try:
        return bytes(read_header(path).header["descrip"]).startswith(MADE_HERE)
    except ValueError:
        return False
