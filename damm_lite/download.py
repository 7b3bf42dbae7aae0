"""Samples and trained weights by name: from a checkout's `data/`, else
downloaded and verified. Public images by name: downloaded and verified.
"""

import csv
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pooch
import tifffile

from damm_lite.atomic import atomic_write

REPOSITORY = "https://github.com/damm-diffusion-book/damm-diffusion-book"
CHECKOUT = Path(__file__).resolve().parents[1] / "data"
PUBLIC = "https://raw.githubusercontent.com"
LIGHTSHEET = {"CD31": "vessel_7IV-4X_Ch3", "Syto16": "tumor_7IV-4X_Ch2", "virus": "virus_7IV-4X_Ch1"}  # stain: files


def fetch(name: str) -> Path:
    """The path of a file or folder of `data/`, e.g. "tumour_sample" or
    "weights/tumour-64.safetensors", or of a folder of public images.

    "open-ms" are two patients with multiple sclerosis, PATIENT/PATIENT_t1,
    _t1ce, _t2, _flair and _lesion.nii.gz (32 MB). "lightsheet" are eleven
    planes of a mouse tumour at 4 µm a pixel, PLANE.ome.tif with the channels
    CD31, Syto16 and virus (29 MB).

    Public images come from the repository and commit of `public.tsv`; their
    licence and citation are printed. A downloaded file whose sha256 is not the
    one listed never reaches the cache: that raises ValueError. Raises
    ValueError, naming what there is, for an unknown name; OSError, naming the
    address, for what cannot be downloaded.
    """
    with files("damm_lite").joinpath("public.tsv").open(encoding="utf-8") as lines:
        public = list(csv.DictReader(lines, delimiter="\t"))
    rows = [row for row in public if row["name"] == name]
    if rows:
        return _fetch_public(name, rows)
    manifest = pooch.create(path=pooch.os_cache("damm_lite"), base_url=f"{REPOSITORY}/raw/main/data/", registry=None)
    with files("damm_lite").joinpath("manifest.txt").open() as lines:
        manifest.load_registry(lines)
    wanted = [file for file in manifest.registry if file == name or file.startswith(f"{name}/")]
    if not wanted:
        names = sorted(manifest.registry.keys() | {file.split("/")[0] for file in manifest.registry})
        shown = ", ".join([*sorted({row["name"] for row in public}), *names])
        raise ValueError(f"{name!r} is not among the book's data: {shown}")
    if all((CHECKOUT / file).is_file() for file in wanted):
        return CHECKOUT / name
    for file in wanted:
        _download(manifest, file)
    return manifest.abspath / name


def _fetch_public(name, rows):
    """The folder of public images of this name; `rows` of the table list them."""
    about = rows[0]
    _print_once(f"{name}: {about['citation']}.\nLicence: {about['licence']}. From github.com/{about['repository']}")
    source = pooch.create(
        path=pooch.os_cache("damm_lite") / name,
        base_url=f"{PUBLIC}/",
        registry={row["file"]: f"sha256:{row['sha256']}" for row in rows},
        urls={row["file"]: f"{PUBLIC}/{row['repository']}/{row['commit']}/{row['path']}" for row in rows},
    )
    for file in source.registry:
        _download(source, file)
    if name == "lightsheet":
        _join_channels(source.abspath)
    return source.abspath


@cache
def _print_once(text):
    print(text)  # noqa: T201 (a cell's output)


def _download(source, file):
    try:
        source.fetch(file)
    except OSError as error:
        raise OSError(
            f"{source.get_url(file)}: not downloaded: {error}. Try again where there is a network, "
            f"or save this file as {source.abspath / file}; it will then be verified and taken"
        ) from error


def _join_channels(folder):
    """Write the planes of each depth, which are arrays in `folder`/planes, into
    one OME-TIFF of three channels; values are unchanged.
    """
    for first in sorted((folder / "planes").glob(f"{LIGHTSHEET['CD31']}_*.npy")):
        depth = first.stem.rpartition("_")[2]
        path = folder / f"7IV_{depth}.ome.tif"
        if path.is_file():
            continue
        planes = [np.load(first.with_name(f"{stain}_{depth}.npy")) for stain in LIGHTSHEET.values()]
        about = {"axes": "CYX", "Channel": {"Name": list(LIGHTSHEET)}}
        about |= {f"PhysicalSize{axis}": 4.0 for axis in "XY"}
        about |= {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
        with atomic_write(path) as whole:
            tifffile.imwrite(whole, np.stack(planes), photometric="minisblack", compression="zlib", metadata=about)
