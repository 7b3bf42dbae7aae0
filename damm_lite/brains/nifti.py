"""Volumes on disk: NIfTI files, read in one orientation and written back in
that of their source.
"""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from damm_lite.atomic import atomic_write

MAX_VOXELS = 2**26  # far above any head, far below a header bomb
MAX_HEADER = 2**24  # bytes, with extensions
SLACK = 2**16  # bytes that may follow the voxels
ZOOMS = (0.01, 100.0)  # mm: the sides that a voxel may have
MADE_HERE = b"damm_lite prediction"  # in the header of every file written here; only such files are replaced


def read_nifti(path: str | Path) -> tuple[np.ndarray, nib.Nifti1Image]:
    """Read a 3-D NIfTI file: (volume (X, Y, Z), image). Further axes of
    length 1 are left out.

    The volume is turned to RAS and keeps its type; the image has the header
    and affine as they are on disk. Raises FileNotFoundError, or ValueError
    that names the file: not NIfTI, not 3-D, cut short, or not finite.
    """
    path = Path(path)
    image = read_header(path)
    try:
        whole = image
        if path.suffix.lower() == ".gz":  # to the very end, where the checksum is; nibabel stops before
            most = image.dataobj.offset + image.get_data_dtype().itemsize * int(np.prod(image.shape)) + SLACK
            with gzip.open(path) as file:
                unpacked = file.read(most + 1)
            if len(unpacked) > most:
                raise ValueError(f"expected at most {most} bytes, as its header says, once unpacked")
            whole = _squeezed(type(image).from_bytes(unpacked))
        volume = np.asanyarray(nib.as_closest_canonical(whole).dataobj)
    except Exception as error:  # a broken file can fail anywhere inside the reader
        raise ValueError(f"{path}: expected a whole NIfTI file, got: {error}") from error
    if volume.dtype.kind == "f" and not np.isfinite(volume).all():
        raise ValueError(f"{path}: expected finite voxels, got NaN or infinity")
    return volume, image


def read_header(path: str | Path) -> nib.Nifti1Image:
    """The image of a 3-D NIfTI file, whose voxels are not read; raises as
    `read_nifti`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with nib.openers.ImageOpener(path) as file:
            start = file.read(nib.Nifti2Header.sizeof_hdr)
        kind = nib.Nifti2Header if nib.Nifti2Header.may_contain_header(start) else nib.Nifti1Header
        voxels_from = kind(start[: kind.sizeof_hdr], check=False)["vox_offset"]
        if not 0 <= voxels_from <= MAX_HEADER:  # all before them is read at once
            raise ValueError(f"expected voxels after at most {MAX_HEADER} bytes, got {voxels_from}")
        image = _squeezed(nib.load(path))
    except Exception as error:  # a broken header can fail anywhere inside the reader
        raise ValueError(f"{path}: expected a NIfTI file, got: {error}") from error
    if not isinstance(image, nib.Nifti1Image):  # NIfTI-2 is one, too
        raise ValueError(f"{path}: expected a NIfTI file, got {type(image).__name__}")
    if len(image.shape) != 3 or min(image.shape) < 1 or np.prod(image.shape, dtype=float) > MAX_VOXELS:
        raise ValueError(f"{path}: expected a 3-D volume of at most {MAX_VOXELS} voxels, got shape {image.shape}")
    if image.get_data_dtype().kind not in "uif":
        raise ValueError(f"{path}: expected integer or real voxels, got {image.get_data_dtype()}")
    zooms = nib.affines.voxel_sizes(image.affine)
    if not ((zooms >= ZOOMS[0]) & (zooms <= ZOOMS[1])).all():
        raise ValueError(f"{path}: expected voxels with sides of {ZOOMS[0]:g} to {ZOOMS[1]:g} mm, got {zooms.tolist()}")
    if not np.isfinite(image.affine).all() or np.isnan(nib.io_orientation(image.affine)).any():
        raise ValueError(f"{path}: expected an affine that turns, shifts and scales, got {image.affine.tolist()}")
    return image


def _squeezed(image):
    """The image without axes of length 1 behind the third; nothing is read."""
    if len(image.shape) > 3 and set(image.shape[3:]) == {1}:
        return type(image)(image.dataobj.reshape(image.shape[:3]), image.affine, image.header)
    return image


def write_nifti(path: str | Path, volume: np.ndarray, source: str | Path) -> None:
    """Write `volume` (X, Y, Z) RAS as float32 on the grid of the file
    `source`, turned to its orientation.

    Affine, codes, zooms and shape are the source's; the header says that the
    image is a prediction. Raises FileExistsError where `path` exists and is
    `source` or no prediction, and ValueError for another shape, a name without
    .nii or .nii.gz, or voxels that are not finite.
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
    with atomic_write(path) as whole:
        nib.save(made, whole)


def _made_here(path):
    try:
        return bytes(read_header(path).header["descrip"]).startswith(MADE_HERE)
    except ValueError:
        return False
