"""Samples and trained weights by name: from a checkout's `data/`, else
downloaded and verified.
"""

from importlib.resources import files
from pathlib import Path

import pooch

REPOSITORY = "https://github.com/damm-diffusion-book/damm-diffusion-book"
CHECKOUT = Path(__file__).resolve().parents[1] / "data"


def fetch(name: str) -> Path:
    """The path of a file or folder of `data/`, e.g. "tumour_sample" or
    "weights/tumour-64.safetensors".

    A downloaded file whose sha256 is not the one in the manifest never reaches
    the cache. Raises ValueError, naming what there is, for an unknown name.
    """
    manifest = pooch.create(path=pooch.os_cache("damm_lite"), base_url=f"{REPOSITORY}/raw/main/data/", registry=None)
    with files("damm_lite").joinpath("manifest.txt").open() as lines:
        manifest.load_registry(lines)
    wanted = [file for file in manifest.registry if file == name or file.startswith(f"{name}/")]
    if not wanted:
        names = sorted(manifest.registry.keys() | {file.split("/")[0] for file in manifest.registry})
        raise ValueError(f"{name!r} is not among the book's data: {', '.join(names)}")
    if all((CHECKOUT / file).is_file() for file in wanted):
        return CHECKOUT / name
    for file in wanted:
        manifest.fetch(file)
    return manifest.abspath / name
