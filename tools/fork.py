"""Restamp the repository's address for a copy of the book: python tools/fork.py https://github.com/you/your-copy"""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+)")


def stamp(root: Path, url: str) -> list[str]:
    """Replace owner/name of `_config.yml`'s address by that of `url` in every tracked text file.

    Returns the changed files. Raises ValueError unless `url` is https://github.com/OWNER/NAME.
    """
    match = ADDRESS.fullmatch(url.removesuffix("/").removesuffix(".git"))
    if not match:
        raise ValueError(f"URL: expected https://github.com/OWNER/NAME, got {url!r}")
    old = ADDRESS.fullmatch(yaml.safe_load((root / "_config.yml").read_text())["repository"]["url"])[1]
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    changed = []
    for name in tracked.split("\0"):
        path = root / name
        if not path.is_file() or path.is_symlink() or old.encode() not in (content := path.read_bytes()):
            continue
        path.write_bytes(content.replace(old.encode(), match[1].encode()))
        changed.append(name)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make fork URL=https://github.com/OWNER/NAME")
    print("\n".join(stamp(ROOT, sys.argv[1])))
