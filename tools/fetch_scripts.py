"""Bring the scripts that the pages load from npm to web/node_modules: python tools/fetch_scripts.py

`make book OFFLINE=1` puts them into the site, and the browser tests answer with them. Only the files
that web/packages.json names are kept, and only if the package is the very one that it describes.
"""

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

WEB = Path(__file__).resolve().parents[1] / "web"


def fetch(name: str, version: str, integrity: str, files: list[str]) -> None:
    """Unpack the named files and folders of one package to web/node_modules.

    Raises ValueError for a package with another checksum, or without one of the files.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--json", "--pack-destination", folder, f"{name}@{version}"]
        (packed,) = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        if packed["integrity"] != integrity:
            raise ValueError(f"{name}@{version}: expected {integrity}, got {packed['integrity']}")
        with tarfile.open(next(Path(folder).iterdir())) as archive:
            inside = {PurePosixPath(member.name).relative_to("package"): member for member in archive.getmembers()}
            for wanted in map(PurePosixPath, files):
                found = {path: member for path, member in inside.items() if path == wanted or wanted in path.parents}
                if not found:
                    raise ValueError(f"{name}@{version}: expected a file or folder {wanted}, found none")
                for path, member in found.items():
                    member.name = str(path)
                archive.extractall(WEB / "node_modules" / name, found.values(), filter="data")


def main():
    for name, package in json.loads((WEB / "packages.json").read_text()).items():
        fetch(name, **package)


if __name__ == "__main__":
    main()
