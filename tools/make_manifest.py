"""Write damm_lite/manifest.txt, the sha256 of every file of data/: python tools/make_manifest.py"""

from pathlib import Path

import pooch

ROOT = Path(__file__).resolve().parents[1]


def manifest(root):
    """The lines "path sha256" for all files below `root`/data, sorted."""
    data = root / "data"
    files = sorted(p for p in data.rglob("*") if p.suffix in (".tif", ".gz", ".safetensors", ".csv", ".json"))
    return "".join(f"{p.relative_to(data).as_posix()} {pooch.file_hash(p)}\n" for p in files)


if __name__ == "__main__":
    (ROOT / "damm_lite" / "manifest.txt").write_text(manifest(ROOT))
