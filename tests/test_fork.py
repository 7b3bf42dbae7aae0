"""The address of the repository: one place, and a fork changes all of it."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from damm_lite.download import REPOSITORY
from fork import stamp

ROOT = Path(__file__).parents[1]
URL = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_badges_and_setup_cells_hold_the_address(chapter):
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(chapter.read_text())["cells"]}
    slug = URL.removeprefix("https://github.com/")
    badge = f"https://colab.research.google.com/github/{slug}/blob/main/book/{chapter.name}"
    assert f"]({badge})" in cells["title"]
    assert f'REPOSITORY = "{URL}"' in cells["setup"]
    # File name, title and badge carry the same number.
    assert cells["title"].startswith(f"# {chapter.stem.partition('_')[0]} ")


def test_the_package_holds_it_too():
    assert REPOSITORY == URL


def test_a_fork_is_stamped_everywhere(tmp_path):
    for name in ("_config.yml", "damm_lite/download.py", "book/" + CHAPTERS[0].name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run("git init -q . && git add .", shell=True, cwd=tmp_path, check=True)
    assert len(stamp(tmp_path, "https://github.com/prof/course.git")) == 3
    for path in tmp_path.rglob("*.*"):
        if path.is_file() and ".git/" not in str(path):
            assert URL not in path.read_text() and "prof/course" in path.read_text()
    with pytest.raises(ValueError, match="OWNER/NAME.*example.com"):
        stamp(tmp_path, "https://example.com/x")
