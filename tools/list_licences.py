"""List the licence of every package in the lock, as it states it itself: python tools/list_licences.py"""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pandas as pd

LOCK = Path(__file__).resolve().parents[1] / "constraints.txt"


def licences(lock):
    """A table of a row for each locked package: package, locked, version (the one here, or ""), licence."""
    rows = []
    for name, locked in re.findall(r"^([\w.-]+)==(\S+)", Path(lock).read_text(), re.M):
        try:
            about = metadata(name)
        except PackageNotFoundError:
            rows.append((name, locked, "", "not installed here"))
            continue
        version = about["Version"].partition("+")[0]
        rows.append((name, locked, version, licence_of(about)))
    return pd.DataFrame(rows, columns=["package", "locked", "version", "licence"])


def licence_of(about):
    """What a package's metadata say: the expression, else the classifiers, else the first line of the text."""
    classifiers = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    text = (about.get("License") or "").strip().partition("\n")[0][:60]
    return about.get("License-Expression") or ", ".join(classifiers) or text or "not stated"


if __name__ == "__main__":
    print(licences(LOCK).to_string(index=False))
