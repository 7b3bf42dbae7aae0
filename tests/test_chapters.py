"""The chapters as notebooks: nothing is written twice, and stored outputs are compared."""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))
BLOCK = 8  # lines


def code_cells(path):
    """All but the setup, which has to stand in every chapter."""
    cells = json.loads(path.read_text())["cells"]
    return [c for c in cells if c["cell_type"] == "code" and c["id"] != "setup"]


def blocks(source):
    """All runs of `BLOCK` lines of a text, without blank lines and indentation."""
    lines = [line.strip() for line in source.split("\n") if line.strip()]
    return {"\n".join(lines[i : i + BLOCK]) for i in range(len(lines) - BLOCK + 1)}


def test_no_block_of_code_stands_twice():
    seen = defaultdict(set)
    for path in [*CHAPTERS, *(ROOT / "damm_lite").rglob("*.py")]:
        sources = ["".join(c["source"]) for c in code_cells(path)] if path.suffix == ".ipynb" else [path.read_text()]
        for block in set().union(*map(blocks, sources)):
            seen[block].add(path.name)
    assert len(seen) > 1000
    twice = {block: names for block, names in seen.items() if len(names) > 1}
    assert not twice, "\n\n".join(f"{names}\n{block}" for block, names in twice.items())


def test_blocks_are_found():
    lines = [f"line {i}" for i in range(BLOCK + 1)]
    assert len(blocks("\n".join(lines))) == 2 and not blocks("\n".join(lines[2:]))
    assert blocks("\n\n".join(lines)) == blocks("\n    ".join(lines))


def test_no_two_figures_have_one_name():
    marked = [cell["metadata"].get("mystnb", {}) for path in CHAPTERS for cell in code_cells(path)]
    names = [mark["figure"]["name"] for mark in marked if "figure" in mark]
    assert len(names) > 30
    assert not {name for name in names if names.count(name) > 1}


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda p: p.stem)
def test_no_cell_is_longer_than_a_screen(chapter):
    assert all(len(c["source"]) <= 32 for c in code_cells(chapter)), max(
        code_cells(chapter), key=lambda c: len(c["source"])
    )["id"]


@pytest.mark.parametrize("stored, fails", [("SSIM 0.93\n", False), ("SSIM 0.92\n", True)])
def test_a_changed_number_in_a_stored_output_fails(tmp_path, stored, fails):
    """With the tags of the chapters and the command of the Makefile."""
    line = next(line for line in (ROOT / "Makefile").read_text().split("\n") if "--nbval" in line)
    options = line.partition("pytest ")[2].partition(" -n ")[0].replace("book/*.ipynb", "chapter.ipynb").split()
    cell = nbformat.v4.new_code_cell("print('SSIM', round(0.934, 2))", id="score", execution_count=1)
    cell.metadata["tags"] = ["nbval-check-output", "keep_output"]
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=stored)]
    free = nbformat.v4.new_code_cell("print('not compared')", id="free", execution_count=2)
    notebook = nbformat.v4.new_notebook(cells=[cell, free])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "chapter.ipynb")
    (tmp_path / "tests").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (result.returncode != 0) == fails, result.stdout
    assert ("1 failed, 1 passed" if fails else "2 passed") in result.stdout
