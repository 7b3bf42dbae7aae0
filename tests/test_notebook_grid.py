"""Grids over a notebook's parameters: every notebook is kept, none is run twice, and mistakes are named first."""

import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from papermill import PapermillExecutionError

from damm_lite.notebook_grid import read_grid, run_notebooks

PARAMETERS = "a = 1\nb = 1\nout_dir = None"
WORK = """
from pathlib import Path
Path(out_dir).mkdir()
(Path(out_dir) / "product.txt").write_text(str(a * b))
assert a != 13, "unlucky"
print("product", a * b)
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a notebook; `spec` of a specification written beside it."""
    cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, WORK)]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "work.ipynb")
    return tmp_path


def spec(place, text):
    (place / "spec.yaml").write_text(text)
    return place / "spec.yaml"


def test_every_combination_leaves_its_notebook_and_none_is_run_twice(place):
    path, out = spec(place, "notebook: work.ipynb\ngrid: {a: [2, 3], b: [5, 7]}"), place / "runs"
    command = [sys.executable, "-m", "damm_lite.notebook_grid", path, "--out", out]
    for _ in range(2):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # would fail where a folder is there already
    table = pd.read_csv(out / "table.csv")
    assert table[["a", "b"]].to_numpy().tolist() == [[2, 5], [2, 7], [3, 5], [3, 7]]
    for row in table.itertuples():
        cells = nbformat.read(out / row.notebook, 4).cells
        assert f"product {row.a * row.b}\n" in [o.text for cell in cells for o in cell.get("outputs", [])]
        assert (out / f"a-{row.a}_b-{row.b}" / "product.txt").read_text() == str(row.a * row.b)


def test_a_failed_run_is_kept_for_reading_and_the_others_stay(place):
    notebook, runs = read_grid(spec(place, "notebook: work.ipynb\ngrid: {a: [2, 13]}"))
    with pytest.raises(PapermillExecutionError, match="unlucky"):
        run_notebooks(notebook, runs, place / "runs")
    names = sorted(path.name for path in (place / "runs").glob("*.ipynb"))
    assert names == ["a-13.unfinished.ipynb", "a-2.ipynb"]


def test_a_folder_that_is_given_is_taken(place):
    text = f"notebook: work.ipynb\ngrid: {{a: [4]}}\nparameters: {{out_dir: {place / 'mine'}}}"
    run_notebooks(*read_grid(spec(place, text)), place / "runs")
    assert (place / "mine" / "product.txt").read_text() == "4"


@pytest.mark.parametrize(
    "text, message",
    [
        ("notebook: work.ipynb\ngrid: {c: [1]}", "unknown parameter 'c'; the notebook has a, b, out_dir"),
        ("notebook: work.ipynb\ngrid: {a: [1]}\nparameters: {c: 1}", "unknown parameter 'c'"),
        ("notebook: work.ipynb\ngrid: {a: [1]}\nparameters: {a: 2}", "a: expected in the grid or in the parameters"),
        ("notebook: other.ipynb\ngrid: {a: [1]}", "which is not there"),
        ("notebook: work.ipynb\ngrid: {a: 1}", "a: expected a list"),
        ("notebook: work.ipynb\ngrid: [a]", "grid: expected parameters with their values"),
        ("notebook: work.ipynb", "expected notebook, grid"),
        ("notebook: work.ipynb\ngrid: {a: [1], b: [1]}\nseeds: [0]", "and perhaps parameters"),
    ],
)
def test_mistakes_are_named_before_anything_runs(place, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_grid(spec(place, text))
    assert "spec.yaml" in str(caught.value)
